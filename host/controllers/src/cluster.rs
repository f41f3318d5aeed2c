//! Cluster: reads what `capstan_core::cluster` needs, does what it asks.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::finalizer;
use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::{ApiEndpoint, Cluster, ContractVersionedObjectReference};
use capstan_core::cluster::deletion::Children;
use capstan_core::cluster::{self as core, Kubeconfig, Observed, Probe, Step};
use capstan_core::lookup::Lookup;
use capstan_core::material;
use capstan_core::plan::{Failure, Outcome, Plan};
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::{self, Access};
use crate::controller::{Controller, HOLD, Primary, Report, Source, Spec, Watch, internal_error};
use crate::ctx::{Ctx, Writer, failure, owner_reference};
use crate::kinds;
use crate::kube_api::{Patch, Resource};
use crate::machine::{shared, typed};
use crate::object::{Locator, Object};
use crate::parallel::all;
use crate::reference::{reference_kind, referred};
use crate::secrets::ensure::Holder;
use crate::secrets::kubeconfig::{self, KubeconfigState, OfOthers};
use crate::store::Change;
use crate::{control_plane, infrastructure};

/// The Cluster controller.
pub struct ClusterController {
    spec: Spec,
}

impl Default for ClusterController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "cluster",
                manager: "capi-cluster",
                primary: Primary::Kind(&kinds::CLUSTER),
                finalizer: Some(finalizer::CLUSTER),
                pausable: true,
                concurrency: 50,
                settle: Duration::from_millis(50),
                hold: HOLD,
            },
        }
    }
}

/// The Cluster that an object names in its spec or label.
fn of_member(_: &Ctx, change: &Change) -> Vec<Locator> {
    let cluster = change.object().and_then(|object| object.cluster());
    cluster
        .map(|key| Locator::new(&kinds::CLUSTER, &key))
        .into_iter()
        .collect()
}

/// The Cluster that a Machine belongs to, when something that the Cluster looks at changed.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let facts = |object: &Option<Arc<Object>>| {
        object.as_ref().map(|object| {
            let part = |pointer: &str| object.value.pointer(pointer).cloned();
            (
                part("/status/conditions"),
                part("/status/nodeRef"),
                part("/metadata/deletionTimestamp"),
                part("/metadata/ownerReferences"),
            )
        })
    };
    if facts(&change.old) == facts(&change.new) {
        Vec::new()
    } else {
        of_member(ctx, change)
    }
}

/// Clusters that own, or name, a provider object that changed.
fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    let owners = object
        .owners()
        .filter(|o| o.kind == "Cluster" && o.group == kinds::CLUSTER.group);
    let mut keys: Vec<ObjectKey> = owners
        .map(|owner| ObjectKey::new(object.key.namespace.clone(), owner.name))
        .collect();
    if keys.is_empty() && object.controller().is_none() {
        // Not adopted yet.
        let clusters = ctx
            .store(&kinds::CLUSTER)
            .in_namespace(&object.key.namespace);
        let names = |cluster: &Object, field: &str| {
            cluster.text(&format!("/spec/{field}/name")) == Some(&object.key.name)
                && cluster.text(&format!("/spec/{field}/kind")) == Some(object.kind())
        };
        let naming = clusters
            .iter()
            .filter(|c| names(c, "infrastructureRef") || names(c, "controlPlaneRef"));
        keys.extend(naming.map(|cluster| cluster.key.clone()));
    }
    keys.iter()
        .map(|key| Locator::new(&kinds::CLUSTER, key))
        .collect()
}

/// The Cluster whose connection came, went or grew stale; Nodes do not concern it.
fn of_workload(_: &Ctx, change: &Change) -> Vec<Locator> {
    let object = change.object().filter(|object| object.kind() == "Cluster");
    object
        .map(|cluster| Locator::new(&kinds::CLUSTER, &cluster.key))
        .into_iter()
        .collect()
}

impl ClusterController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    async fn patch_reference(
        &self,
        ctx: &Ctx,
        cluster: &Cluster,
        reference: Option<&ContractVersionedObjectReference>,
        patch: &Value,
    ) -> Result<(), Failure> {
        let Some(reference) = reference else {
            return Ok(());
        };
        let (resource, key) = located(ctx, cluster, reference)?;
        let patch = Patch::Merge(with_finalizer(ctx, &resource, &key, patch.clone()));
        let answer = ctx.patch(&self.writer(), &resource, &key, &patch).await;
        let doing = format!("adopting {} {key}", reference.kind);
        answer.map(drop).map_err(|error| failure(&doing, &error))
    }
}

/// The adoption of an object of this host's plugins comes with the finalizer that its controller would set next. Only for the
/// version that was seen, because the list is replaced whole.
fn with_finalizer(ctx: &Ctx, resource: &Resource, key: &ObjectKey, mut patch: Value) -> Value {
    let role = ctx.plugins.role_of(&resource.group_kind());
    let finalizer = match role.as_deref() {
        Some(infrastructure::CLUSTER_ROLE) => finalizer::PLUGIN_OBJECT,
        Some(control_plane::ROLE) => finalizer::KUBEADM_CONTROL_PLANE,
        _ => return patch,
    };
    let version = patch.pointer("/metadata/resourceVersion").cloned();
    let Some(object) = ctx.get(resource, key).filter(|object| {
        version == object.value.pointer("/metadata/resourceVersion").cloned()
            && !object.is_deleting()
            && !object.finalizers().any(|other| other == finalizer)
    }) else {
        return patch;
    };
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        let all: Vec<&str> = object.finalizers().chain([finalizer]).collect();
        metadata.insert("finalizers".to_owned(), json!(all));
    }
    patch
}

/// Resource and key of what a Cluster's reference names.
fn located(
    ctx: &Ctx,
    cluster: &Cluster,
    reference: &ContractVersionedObjectReference,
) -> Result<(Resource, ObjectKey), Failure> {
    let resource = ctx.resource(&reference_kind(reference))?;
    let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
    Ok((resource, ObjectKey::new(namespace, reference.name.clone())))
}

async fn delete_reference(
    ctx: &Ctx,
    cluster: &Cluster,
    reference: Option<&ContractVersionedObjectReference>,
) -> Result<(), Failure> {
    let Some(reference) = reference else {
        return Ok(());
    };
    let (resource, key) = located(ctx, cluster, reference)?;
    ctx.delete_named(&resource, &key).await
}

async fn delete_children(ctx: &Ctx, namespace: &str, children: &Children) -> Result<(), Failure> {
    let named = [
        (&*kinds::MACHINE_DEPLOYMENT, &children.deployments),
        (&*kinds::MACHINE_POOL, &children.pools),
        (&*kinds::MACHINE_SET, &children.sets),
        (&*kinds::MACHINE, &children.machines),
    ];
    let deletions = named.into_iter().flat_map(|(resource, names)| {
        let keys = names
            .iter()
            .map(|name| ObjectKey::new(namespace, name.clone()));
        keys.map(move |key| async move { ctx.delete_named(resource, &key).await }.boxed())
    });
    all(deletions.collect()).await
}

/// What a reference of the Cluster names, if it has it.
async fn see(
    ctx: &Ctx,
    namespace: &str,
    reference: Option<&ContractVersionedObjectReference>,
    is_deleting: bool,
) -> Option<Lookup<Arc<Value>>> {
    Some(referred(ctx, namespace, reference?, is_deleting).await)
}

impl Controller for ClusterController {
    type Observed = Observed;
    type Step = Step;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn goes_on(&self, _: &Self::Observed, _: &Self::Step) -> bool {
        true
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: of_machine,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_SET),
                map: of_member,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_DEPLOYMENT),
                map: of_member,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_POOL),
                map: of_member,
            },
            Watch {
                source: Source::External,
                map: of_external,
            },
            Watch {
                source: Source::Workload,
                map: of_workload,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::CLUSTER, &["patch"]),
            Access::to_status(&kinds::CLUSTER),
            Access::to(&kinds::MACHINE_DEPLOYMENT, &["delete"]),
            Access::to(&kinds::MACHINE_POOL, &["delete"]),
            Access::to(&kinds::MACHINE_SET, &["delete"]),
            Access::to(&kinds::MACHINE, &["delete"]),
            Access::to_group(
                access::INFRASTRUCTURE,
                &["list", "watch", "patch", "delete"],
            ),
            Access::to_group(access::CONTROL_PLANE, &["list", "watch", "patch", "delete"]),
            // The kubeconfigs of workload clusters.
            Access::to(&kinds::SECRET, &["get", "create", "patch"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        Some(object.key.clone())
    }

    fn forget(&self, ctx: &Ctx, locator: &Locator) {
        ctx.workloads.drop(&locator.key);
        ctx.certificates.forget(&locator.key);
    }

    fn unobserved(&self, _: &Object, failure: &Failure) -> Vec<capstan_api::condition::Report> {
        vec![internal_error("Available", failure)]
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let cluster: Cluster = typed(&object)?;
        let namespace = &object.key.namespace;
        let infra = see(
            ctx,
            namespace,
            cluster.spec.infrastructure_ref.as_ref(),
            object.is_deleting(),
        )
        .await;
        let control_plane = see(
            ctx,
            namespace,
            cluster.spec.control_plane_ref.as_ref(),
            object.is_deleting(),
        )
        .await;
        let connection = ctx.workloads.status(&object.key);
        ctx.certificates.look(ctx, &object.key, &cluster).await;
        Ok(Observed {
            machines: members(ctx, &kinds::MACHINE, &object.key, shared).await?,
            sets: members(ctx, &kinds::MACHINE_SET, &object.key, typed).await?,
            deployments: members(ctx, &kinds::MACHINE_DEPLOYMENT, &object.key, typed).await?,
            pools: members(ctx, &kinds::MACHINE_POOL, &object.key, typed).await?,
            probe: Probe {
                last_success: connection.last_success,
                failures: connection.failures,
                error: connection.said,
            },
            kubeconfig: kubeconfig_of(ctx, &object, &cluster).await?,
            cluster,
            infra,
            control_plane,
        })
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(&self, ctx: &Ctx, observed: &Observed, step: &Step) -> Result<(), Failure> {
        let cluster = &observed.cluster;
        let spec = &cluster.spec;
        let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new(
            namespace.clone(),
            cluster.metadata.name.clone().unwrap_or_default(),
        );
        match step {
            Step::PatchInfra(patch) => {
                self.patch_reference(ctx, cluster, spec.infrastructure_ref.as_ref(), patch)
                    .await
            }
            Step::PatchControlPlane(patch) => {
                self.patch_reference(ctx, cluster, spec.control_plane_ref.as_ref(), patch)
                    .await
            }
            Step::PatchCluster(patch) => {
                let patch = Patch::Merge(patch.clone());
                let answer = ctx
                    .patch(&self.writer(), &kinds::CLUSTER, &key, &patch)
                    .await;
                answer
                    .map(drop)
                    .map_err(|error| failure("writing the Cluster's endpoint", &error))
            }
            Step::EnsureKubeconfig { server } => {
                let Some(object) = ctx.get(&kinds::CLUSTER, &key) else {
                    return Ok(());
                };
                let holder = Holder {
                    cluster: &key,
                    owner: &owner_reference(&object, true),
                    manager: self.spec.manager,
                };
                kubeconfig::ensure(ctx, holder, server).await
            }
            Step::KeepConnection => {
                ctx.workloads.keep(&key);
                Ok(())
            }
            Step::DeleteChildren(children) => delete_children(ctx, &namespace, children).await,
            Step::DeleteControlPlane => {
                delete_reference(ctx, cluster, spec.control_plane_ref.as_ref()).await
            }
            Step::DeleteInfra => {
                delete_reference(ctx, cluster, spec.infrastructure_ref.as_ref()).await
            }
        }
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        _: &Outcome<Step, ()>,
        now: Timestamp,
    ) -> Report {
        let reported = core::report(observed, now);
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next,
            finished: reported.finished,
            ..Report::default()
        }
    }
}

/// The kubeconfig of a Cluster that no control plane object makes one for (contract 3.2: machines of its own, or nothing but an endpoint).
/// One that a user brought is only taken over, so that it is renewed in time; one of another type is left alone.
///
/// # Errors
/// When a Secret cannot be read.
async fn kubeconfig_of(
    ctx: &Ctx,
    object: &Object,
    cluster: &Cluster,
) -> Result<Kubeconfig, Failure> {
    let spec = &cluster.spec;
    let endpoint = spec.control_plane_endpoint.as_ref();
    if spec.control_plane_ref.is_some()
        || spec.topology.is_some()
        || object.is_deleting()
        || !endpoint.is_some_and(ApiEndpoint::is_complete)
    {
        return Ok(Kubeconfig::Good);
    }
    match kubeconfig::state(ctx, &object.key, &object.uid, OfOthers::Stays).await? {
        KubeconfigState::Good => Ok(Kubeconfig::Good),
        KubeconfigState::Unowned => Ok(Kubeconfig::Due),
        KubeconfigState::Missing | KubeconfigState::Stale => {
            let key = material::secret_key(&object.key, material::CLUSTER_CA);
            let authority = ctx.secrets.get(&*ctx.api, &key).await;
            let authority =
                authority.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
            Ok(match authority {
                Some(_) => Kubeconfig::Due,
                None => Kubeconfig::NoAuthority,
            })
        }
    }
}

/// Objects of a kind with the Cluster's label. Waits for the kind's first list: what is not there is then certainly not there.
///
/// # Errors
/// When an object cannot be read.
async fn members<T>(
    ctx: &Ctx,
    resource: &Resource,
    cluster: &ObjectKey,
    read: fn(&Object) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let store = ctx.store(resource);
    store.synced().await;
    store
        .of_cluster(cluster)
        .iter()
        .map(|object| read(object))
        .collect()
}
