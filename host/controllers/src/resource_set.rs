//! ClusterResourceSet: reads what `capstan_core::addons` needs, and brings workload clusters to what was decided.

mod apply;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::addons::{
    ClusterResourceSet, ClusterResourceSetBinding, ResourceKind, ResourceRef, SECRET_TYPE,
};
use capstan_api::finalizer;
use capstan_api::name::ObjectKey;
use capstan_core::addons::{
    self as core, ClusterSeen, Held, ItemResult, Memory, Observed, ResourceSeen, Step, Sync,
    binding, content,
};
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use capstan_core::selector::selects;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::access::Access;
use crate::controller::{Controller, Map, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::{ApiError, Patch, Resource};
use crate::machine::typed;
use crate::object::{Locator, Object};
use crate::secrets::SecretData;
use crate::store::Change;

/// What was done in clusters, by set and cluster. Each look shares it.
type Memories = HashMap<ObjectKey, BTreeMap<String, Arc<Memory>>>;

/// The ClusterResourceSet controller.
pub struct ClusterResourceSetController {
    spec: Spec,
    memories: Mutex<Memories>,
}

impl Default for ClusterResourceSetController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "cluster-resource-set",
                manager: "capi-clusterresourceset",
                primary: Primary::Kind(&kinds::CLUSTER_RESOURCE_SET),
                finalizer: Some(finalizer::CLUSTER_RESOURCE_SET),
                pausable: true,
                concurrency: 10,
                settle: Duration::from_millis(50),
                hold: Duration::from_millis(500),
            },
            memories: Mutex::default(),
        }
    }
}

/// Results of a step, by cluster; empty for steps in the management cluster.
#[derive(Clone, Debug, Default)]
pub struct Effect {
    results: Option<(String, Vec<(ResourceRef, ItemResult)>)>,
}

fn key_of(observed: &Observed) -> ObjectKey {
    let namespace = observed.set.metadata.namespace.clone().unwrap_or_default();
    ObjectKey::new(namespace, observed.name())
}

fn named(observed: &Observed, name: &str) -> ObjectKey {
    ObjectKey::new(key_of(observed).namespace, name)
}

/// The built-in kind that holds manifests.
fn holder(kind: ResourceKind) -> &'static Resource {
    match kind {
        ResourceKind::Secret => &kinds::SECRET,
        ResourceKind::ConfigMap => &kinds::CONFIG_MAP,
    }
}

/// An empty selector selects nothing.
fn selects_cluster(selector: &LabelSelector, cluster: &Object) -> bool {
    let is_empty = selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none();
    let labels = cluster.value.pointer("/metadata/labels").cloned();
    let labels: BTreeMap<String, String> = labels
        .and_then(|labels| serde_json::from_value(labels).ok())
        .unwrap_or_default();
    !is_empty && selects(selector, &labels).unwrap_or_default()
}

/// Sets whose selector a Cluster matches, or matched.
fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    if let (Some(old), Some(new)) = (old, new)
        && old.resource_version != new.resource_version
        && old.value.pointer("/metadata/labels") == new.value.pointer("/metadata/labels")
        && old.is_deleting() == new.is_deleting()
    {
        return Vec::new();
    }
    let Some(cluster) = change.object() else {
        return Vec::new();
    };
    let sets = ctx
        .store(&kinds::CLUSTER_RESOURCE_SET)
        .in_namespace(&cluster.key.namespace);
    let concerned = sets.iter().filter(|set| {
        let selector = set.value.pointer("/spec/clusterSelector").cloned();
        let selector: Option<LabelSelector> =
            selector.and_then(|selector| serde_json::from_value(selector).ok());
        selector.is_some_and(|selector| {
            [old, new]
                .into_iter()
                .flatten()
                .any(|cluster| selects_cluster(&selector, cluster))
        })
    });
    concerned
        .map(|set| Locator::new(&kinds::CLUSTER_RESOURCE_SET, &set.key))
        .collect()
}

/// Sets that own a ConfigMap, Secret or binding.
fn of_owned(_: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    let owners = object.owners().filter(|owner| {
        owner.kind == "ClusterResourceSet" && owner.group == kinds::CLUSTER_RESOURCE_SET.group
    });
    owners
        .map(|owner| {
            let key = ObjectKey::new(object.key.namespace.clone(), owner.name);
            Locator::new(&kinds::CLUSTER_RESOURCE_SET, &key)
        })
        .collect()
}

async fn held(ctx: &Ctx, key: &ObjectKey, kind: ResourceKind) -> Lookup<Held> {
    let object = match ctx.api.get(holder(kind), key).await {
        Ok(object) => object,
        Err(ApiError::NotFound(_)) => return Lookup::Missing,
        Err(error) => return Lookup::Unknown(error.to_string()),
    };
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    let (data, wrong_type) = match kind {
        ResourceKind::Secret => {
            let secret = SecretData::read(&object);
            let wrong = (secret.secret_type != SECRET_TYPE).then(|| secret.secret_type.clone());
            (secret.data, wrong)
        }
        ResourceKind::ConfigMap => {
            let fields = object.get("data").and_then(Value::as_object);
            let data = fields.into_iter().flatten().filter_map(|(key, value)| {
                Some((key.clone(), value.as_str()?.as_bytes().to_vec()))
            });
            (data.collect(), None)
        }
    };
    Lookup::Found(Held {
        metadata,
        wrong_type,
        content: content::read(&data),
    })
}

impl ClusterResourceSetController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    fn memories<T>(&self, change: impl FnOnce(&mut Memories) -> T) -> T {
        change(&mut self.memories.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was done in the Clusters that there are. Of others nothing is kept: one of the same name would be another.
    fn remembered(
        &self,
        set: &ObjectKey,
        clusters: &BTreeSet<&str>,
    ) -> BTreeMap<String, Arc<Memory>> {
        self.memories(|all| {
            let Some(of_set) = all.get_mut(set) else {
                return BTreeMap::new();
            };
            of_set.retain(|cluster, _| clusters.contains(&**cluster));
            of_set.clone()
        })
    }

    async fn unbind(
        &self,
        ctx: &Ctx,
        key: &ObjectKey,
        patch: Option<&Value>,
    ) -> Result<(), Failure> {
        if let Some(patch) = patch {
            let resource = &kinds::CLUSTER_RESOURCE_SET_BINDING;
            return ctx.change(&self.writer(), resource, key, patch).await;
        }
        let Some(binding) = ctx.get(&kinds::CLUSTER_RESOURCE_SET_BINDING, key) else {
            return Ok(());
        };
        let answer = ctx.delete(&kinds::CLUSTER_RESOURCE_SET_BINDING, &binding);
        let doing = format!("deleting ClusterResourceSetBinding {key}");
        answer.await.map_err(|error| failure(&doing, &error))
    }

    async fn sync(&self, ctx: &Ctx, observed: &Observed, sync: &Sync) -> Result<Effect, Failure> {
        let key = named(observed, &sync.cluster);
        let Some(workload) = ctx.workloads.get(&key) else {
            let message = format!("there is no connection to Cluster {key} any more");
            return Err(Failure::transient("NotConnected", message));
        };
        // It is looked at again: a set never waits long for its turn.
        let Ok(_turn) = workload.resource_sets.try_acquire() else {
            return Ok(Effect::default());
        };
        let now = ctx.now();
        // Also when nothing comes of it: those that were not tried for longer come first.
        self.memories(|all| {
            let of_set = all.entry(key_of(observed)).or_default();
            let memory = of_set.entry(sync.cluster.clone()).or_default();
            Arc::make_mut(memory).tried = Some(now);
        });
        let mut results = apply::sync(&*workload.api, sync, now).await;
        let all_applied = results.len() == sync.items.len()
            && results.iter().all(|(_, result)| result.errors.is_empty());
        let mut pruned = true;
        if all_applied {
            let errors = apply::prune(&*workload.api, &sync.prune).await;
            pruned = errors.is_empty();
            match results.last_mut() {
                Some((_, last)) => last.errors.extend(errors),
                None if !pruned => {
                    return Err(Failure::transient("NotPruned", errors.join("; ")));
                }
                None => {}
            }
        }
        let inventory = sync.inventory.as_deref().filter(|_| all_applied && pruned);
        let bound = ctx.get(&kinds::CLUSTER_RESOURCE_SET_BINDING, &key);
        if let Some(bound) = bound {
            let bound: ClusterResourceSetBinding = typed(&bound)?;
            if let Some(patch) = binding::patch(observed, &bound, &results, inventory) {
                let resource = &kinds::CLUSTER_RESOURCE_SET_BINDING;
                ctx.change(&self.writer(), resource, &key, &patch).await?;
            }
        }
        self.memories(|all| {
            let of_set = all.entry(key_of(observed)).or_default();
            let memory = Arc::make_mut(of_set.entry(sync.cluster.clone()).or_default());
            if sync.looks_for_drift {
                memory.checked = Some(now);
            }
            for (reference, result) in &results {
                let before = memory.results.get(reference);
                let drift = before.filter(|before| {
                    !sync.looks_for_drift && result.applied.is_none() && before.hash == result.hash
                });
                let drift = drift.map(|before| before.drift.clone());
                let mut result = result.clone();
                if let Some(drift) = drift {
                    result.drift = drift;
                }
                memory.results.insert(reference.clone(), result);
            }
        });
        Ok(Effect {
            results: Some((sync.cluster.clone(), results)),
        })
    }
}

impl Controller for ClusterResourceSetController {
    type Observed = Observed;
    type Step = Step;
    type Effect = Effect;

    fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What one resource is refused, or does not come to be in one cluster, holds no other up.
    fn goes_on(&self, _: &Observed, _: &Step) -> bool {
        true
    }

    fn watches(&self) -> Vec<Watch> {
        let watch = |source: Source, map: Map| Watch { source, map };
        vec![
            watch(Source::Kind(&kinds::CLUSTER), of_cluster),
            watch(Source::Kind(&kinds::CLUSTER_RESOURCE_SET_BINDING), of_owned),
            watch(Source::Kind(&kinds::RESOURCE_SET_CONFIG_MAP), of_owned),
            watch(Source::Kind(&kinds::RESOURCE_SET_SECRET), of_owned),
            watch(Source::Workload, of_connection),
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::CLUSTER_RESOURCE_SET, &["patch"]),
            Access::to_status(&kinds::CLUSTER_RESOURCE_SET),
            Access::to(
                &kinds::CLUSTER_RESOURCE_SET_BINDING,
                &["create", "patch", "delete"],
            ),
            // What the sets name.
            Access::to(&kinds::CONFIG_MAP, &["get", "patch"]),
            Access::to(&kinds::SECRET, &["get", "patch"]),
        ]
    }

    fn cluster(&self, _: &Object) -> Option<ObjectKey> {
        None
    }

    fn forget(&self, _: &Ctx, locator: &Locator) {
        self.memories(|all| all.remove(&locator.key));
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let set: ClusterResourceSet = typed(&object)?;
        let namespace = &object.key.namespace;
        let bindings = ctx.store(&kinds::CLUSTER_RESOURCE_SET_BINDING);
        bindings.synced().await;
        let mut of_it = Vec::new();
        for bound in bindings.in_namespace(namespace) {
            let is_owner = bound.owners().any(|owner| owner.uid == object.uid);
            let bound: ClusterResourceSetBinding = typed(&bound)?;
            let is_cluster = ctx.get(
                &kinds::CLUSTER,
                &ObjectKey::new(namespace.clone(), bound.spec.cluster_name.clone()),
            );
            let concerns = is_owner
                || binding::entry(&bound, &object.key.name).is_some()
                || (!object.is_deleting()
                    && is_cluster.is_some_and(|c| selects_cluster(&set.spec.cluster_selector, &c)));
            if concerns && bound.metadata.deletion_timestamp.is_none() {
                of_it.push(bound);
            }
        }
        let mut resources = Vec::new();
        if !object.is_deleting() {
            for reference in &set.spec.resources {
                let key = ObjectKey::new(namespace.clone(), reference.name.clone());
                resources.push(ResourceSeen {
                    held: held(ctx, &key, reference.kind).await,
                    reference: reference.clone(),
                });
            }
        }
        let clusters = ctx.store(&kinds::CLUSTER).in_namespace(namespace);
        let living = clusters.iter().filter(|cluster| !cluster.is_deleting());
        let memory = self.remembered(
            &object.key,
            &living.clone().map(|cluster| &*cluster.key.name).collect(),
        );
        let clusters =
            living.filter(|cluster| selects_cluster(&set.spec.cluster_selector, cluster));
        let mut clusters: Vec<ClusterSeen> = clusters
            .map(|cluster| ClusterSeen {
                name: cluster.key.name.clone(),
                not_connected: ctx.workloads.get(&cluster.key).is_none().then(|| {
                    let connection = ctx.workloads.status(&cluster.key);
                    connection
                        .error
                        .unwrap_or_else(|| "there is no connection to it yet".to_owned())
                }),
                memory: memory.get(&cluster.key.name).cloned().unwrap_or_default(),
            })
            .collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Observed {
            set,
            clusters,
            resources,
            bindings: of_it,
        })
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        step: &Step,
    ) -> Result<Effect, Failure> {
        match step {
            Step::Own { reference, patch } => {
                let key = named(observed, &reference.name);
                let resource = holder(reference.kind);
                // Not through the caches: those hold other selections of these kinds.
                let patch = Patch::Merge(patch.clone());
                let answer = ctx
                    .api
                    .patch(resource, &key, None, &patch, self.spec.manager)
                    .await;
                let doing = format!("changing {} {key}", resource.kind);
                answer.map_err(|error| failure(&doing, &error))?;
            }
            Step::Bind(object) => {
                let resource = &kinds::CLUSTER_RESOURCE_SET_BINDING;
                match ctx.create(&self.writer(), resource, object).await {
                    Ok(_) | Err(ApiError::AlreadyExists(_)) => {}
                    Err(error) => {
                        return Err(failure("creating a ClusterResourceSetBinding", &error));
                    }
                }
            }
            Step::Sync(sync) => return Box::pin(self.sync(ctx, observed, sync)).await,
            Step::Unbind { binding, patch } => {
                self.unbind(ctx, &named(observed, binding), patch.as_ref())
                    .await?;
            }
        }
        Ok(Effect::default())
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        outcome: &Outcome<Step, Effect>,
        _: Timestamp,
    ) -> Report {
        let results = outcome.done.iter().filter_map(|(_, effect)| {
            let (cluster, results) = effect.results.as_ref()?;
            Some((cluster.clone(), results.iter().cloned().collect()))
        });
        let failed = outcome.failed.as_ref().map(|(_, why)| why.message.as_str());
        let reported = core::report(observed, &results.collect(), failed);
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            finished: reported.finished,
            ..Report::default()
        }
    }
}

/// Sets that select a Cluster whose connection came or went. A Node that changed concerns nobody here.
fn of_connection(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let is_cluster = change
        .object()
        .is_some_and(|object| object.kind() == "Cluster");
    if !is_cluster {
        return Vec::new();
    }
    of_cluster(ctx, change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_clusters_that_are_gone_nothing_is_remembered() {
        let controller = ClusterResourceSetController::default();
        let (set, other) = (ObjectKey::new("ns", "s"), ObjectKey::new("ns", "other"));
        let memory = Arc::new(Memory {
            tried: Some(Timestamp::UNIX_EPOCH),
            ..Memory::default()
        });
        controller.memories(|all| {
            for set in [&set, &other] {
                let of_set = ["here", "gone"].map(|name| (name.to_owned(), Arc::clone(&memory)));
                all.insert(set.clone(), of_set.into());
            }
        });
        let seen = controller.remembered(&set, &BTreeSet::from(["here", "new"]));
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["here"]);
        assert!(Arc::ptr_eq(&seen["here"], &memory), "it is not copied");
        let left = controller.memories(|all| all[&set].clone());
        assert_eq!(left, seen);
        assert_eq!(controller.memories(|all| all[&other].len()), 2);
        let none = controller.remembered(&ObjectKey::new("ns", "new"), &BTreeSet::new());
        assert!(none.is_empty());
    }
}
