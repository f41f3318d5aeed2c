//! Drains a Node: cordons it and evicts its pods, a few at a time, as the disruption budgets allow. Then looks for volumes that
//! are still attached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::MachineDrainRule;
use capstan_core::drain::{self as core, Drain, PodSeen, Refusal, is_unreachable};
use capstan_core::machine::Observed;
use capstan_core::plan::Failure;
use capstan_core::volume;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ctx::{Ctx, failure};
use crate::event::Event;
use crate::kinds;
use crate::kube_api::{
    ApiError, KubeApi, Patch, Resource, Selection, WORKLOAD_LIST_BYTES_MAX, list_all,
};
use crate::machine::typed;
use crate::workloads::Workload;

/// Evictions under way at a time, per Node; all Nodes of a cluster together have
/// [`EVICTIONS_AT_ONCE`](crate::workloads::nodes::EVICTIONS_AT_ONCE).
const EVICTIONS_PER_NODE: usize = 8;

/// What is told of something that takes turns.
pub struct Events {
    /// What was tried.
    pub action: &'static str,
    /// Reason when it is done.
    pub done: &'static str,
    /// Words when it is done.
    pub note: &'static str,
    /// Reason when it failed.
    pub failed: &'static str,
}

/// Of the drain.
pub const DRAIN_EVENTS: Events = Events {
    action: "Drain",
    done: "SuccessfulDrainNode",
    note: "The Node is drained",
    failed: "FailedDrainNode",
};

/// Of the wait for volumes.
pub const VOLUME_EVENTS: Events = Events {
    action: "DetachVolumes",
    done: "NodeVolumesDetached",
    note: "No volume is attached to the Node any more",
    failed: "FailedWaitForVolumeDetach",
};

/// A Node that could not be deleted.
pub fn node_not_deleted(why: &Failure) -> Event {
    Event::warning("FailedDeleteNode", "DeleteNode", why.message.clone())
}

/// How long one turn evicts; what is left then has its turn later (upstream: 10 s).
const TURN: Duration = Duration::from_secs(10);

/// Pods per page (upstream: 100).
const PAGE: u32 = 100;

/// The pods of a Node, and the namespaces of a cluster, as they are in memory: several hundred pods of 1000 values, and many times the thousands
/// of namespaces that a cluster has. Several Nodes of a cluster are drained at once.
const DRAIN_BYTES_MAX: usize = 64 << 20;

/// One turn of a drain; what is left, in words. Empty when the Node is drained.
///
/// # Errors
/// What the server said, or a drain rule that cannot be read.
pub async fn drain(
    ctx: &Ctx,
    workload: &Workload,
    observed: &Observed,
    node: &str,
) -> Result<Vec<String>, Failure> {
    let api = &*workload.api;
    let node_key = ObjectKey::new("", node);
    let doing = format!("draining Node {node}");
    let unreachable = match cordon(api, &node_key).await {
        Ok(unreachable) => unreachable,
        Err(ApiError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failure(&doing, &error)),
    };
    let judge = Judge::of(ctx, observed, unreachable)?;
    let pods = pods_on(api, node, judge.needs_namespaces())
        .await
        .map_err(|error| failure(&doing, &error))?;
    let plan = judge
        .plan(&pods)
        .map_err(|why| Failure::transient("DrainRefused", format!("{doing}: {why}")))?;
    if plan.is_complete() {
        return Ok(Vec::new());
    }
    let refused = evict(workload, &plan, unreachable).await;
    Ok(core::describe(&plan, &refused))
}

/// What pods are judged by.
struct Judge {
    rules: Vec<MachineDrainRule>,
    machine: BTreeMap<String, String>,
    cluster: BTreeMap<String, String>,
    unreachable: bool,
    now: jiff::Timestamp,
}

impl Judge {
    fn of(ctx: &Ctx, observed: &Observed, unreachable: bool) -> Result<Self, Failure> {
        let machine = &observed.machine.metadata;
        let namespace = machine.namespace.clone().unwrap_or_default();
        let rules = ctx
            .store(&kinds::MACHINE_DRAIN_RULE)
            .in_namespace(&namespace);
        let cluster = observed.cluster.found();
        Ok(Self {
            rules: rules
                .iter()
                .map(|rule| typed::<MachineDrainRule>(rule))
                .collect::<Result<Vec<_>, _>>()?,
            machine: machine.labels.clone().unwrap_or_default(),
            cluster: cluster
                .and_then(|c| c.metadata.labels.clone())
                .unwrap_or_default(),
            unreachable,
            now: ctx.now(),
        })
    }

    fn needs_namespaces(&self) -> bool {
        core::needs_namespaces(&self.rules)
    }

    fn plan(&self, pods: &[PodSeen]) -> Result<Drain, String> {
        core::plan(
            pods,
            &self.rules,
            &self.machine,
            &self.cluster,
            self.unreachable,
            self.now,
        )
    }

    fn left_alone(
        &self,
        pods: &[PodSeen],
    ) -> Result<std::collections::BTreeSet<(String, String)>, String> {
        core::claims_left_alone(
            pods,
            &self.rules,
            &self.machine,
            &self.cluster,
            self.unreachable,
            self.now,
        )
    }
}

/// Marks the Node unschedulable, once; answers whether its kubelet is unreachable.
async fn cordon(api: &dyn KubeApi, node: &ObjectKey) -> Result<bool, ApiError> {
    let object = api.get(&kinds::NODE, node).await?;
    if object.pointer("/spec/unschedulable") != Some(&json!(true)) {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        api.patch(&kinds::NODE, node, None, &patch, "capi-machine")
            .await?;
    }
    Ok(is_unreachable(&object))
}

/// All objects of a kind that the workload cluster lists, within what is taken of one.
async fn all(
    api: &dyn KubeApi,
    resource: &Resource,
    selection: &Selection,
    bytes_max: usize,
) -> Result<Vec<Value>, ApiError> {
    list_all(api, resource, selection, PAGE, Some(bytes_max)).await
}

async fn pods_on(
    api: &dyn KubeApi,
    node: &str,
    with_namespaces: bool,
) -> Result<Vec<PodSeen>, ApiError> {
    let selection = Selection {
        fields: Some(format!("spec.nodeName={node}")),
        ..Selection::default()
    };
    let pods = all(api, &kinds::POD, &selection, DRAIN_BYTES_MAX).await?;
    if pods.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces = if with_namespaces {
        all(
            api,
            &kinds::NAMESPACE,
            &Selection::default(),
            DRAIN_BYTES_MAX,
        )
        .await?
    } else {
        Vec::new()
    };
    let namespaces: BTreeMap<String, BTreeMap<String, String>> = namespaces
        .iter()
        .filter_map(|n| {
            Some((
                n.pointer("/metadata/name")?.as_str()?.to_owned(),
                core::labels(n),
            ))
        })
        .collect();
    let mut seen = Vec::new();
    let mut daemon_sets: BTreeMap<ObjectKey, bool> = BTreeMap::new();
    for pod in pods {
        let namespace = pod
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let mut daemon_set_missing = false;
        if let Some(name) = daemon_set_of(&pod) {
            let key = ObjectKey::new(namespace.clone(), name);
            daemon_set_missing = match daemon_sets.get(&key) {
                Some(missing) => *missing,
                None => {
                    let missing = match api.get(&kinds::DAEMON_SET, &key).await {
                        Ok(_) => false,
                        Err(ApiError::NotFound(_)) => true,
                        Err(error) => return Err(error),
                    };
                    daemon_sets.insert(key, missing);
                    missing
                }
            };
        }
        seen.push(PodSeen {
            namespace_labels: namespaces.get(&namespace).cloned(),
            daemon_set_missing,
            pod,
        });
    }
    Ok(seen)
}

fn daemon_set_of(pod: &Value) -> Option<String> {
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)?;
    let owner = owners.iter().find(|o| {
        o.get("controller") == Some(&json!(true)) && o.get("kind") == Some(&json!("DaemonSet"))
    })?;
    owner.get("name").and_then(Value::as_str).map(str::to_owned)
}

/// Evicts what is to be evicted now. What the server refused: why, and the pods.
async fn evict(
    workload: &Workload,
    plan: &Drain,
    unreachable: bool,
) -> BTreeMap<Refusal, Vec<String>> {
    let turn = EvictionTurn {
        workload,
        unreachable,
        deadline: Instant::now().checked_add(TURN),
        is_busy: AtomicBool::new(false),
    };
    let evictions: Vec<BoxFuture<'_, Option<(String, Refusal)>>> = plan
        .evict
        .iter()
        .map(|(namespace, name)| turn.evict_one(namespace, name).boxed())
        .collect();
    let refused: Vec<Option<(String, Refusal)>> = stream::iter(evictions)
        .buffer_unordered(EVICTIONS_PER_NODE)
        .collect()
        .await;
    let mut by_reason: BTreeMap<Refusal, Vec<String>> = BTreeMap::new();
    for (pod, why) in refused.into_iter().flatten() {
        by_reason.entry(why).or_default().push(pod);
    }
    for pods in by_reason.values_mut() {
        pods.sort();
    }
    by_reason
}

/// The evictions of one turn.
struct EvictionTurn<'a> {
    workload: &'a Workload,
    unreachable: bool,
    deadline: Option<Instant>,
    /// The server had too much to do: it is asked nothing more in this turn.
    is_busy: AtomicBool,
}

impl EvictionTurn<'_> {
    /// Evicts one pod; the pod and what the server said when it refused.
    async fn evict_one(&self, namespace: &str, name: &str) -> Option<(String, Refusal)> {
        let full = format!("{namespace}/{name}");
        let _slot = self.workload.evictions.acquire().await;
        if self.is_busy.load(Ordering::Relaxed) {
            let words = "the API server has too much to do, eviction will be retried";
            return Some((full, Refusal::Busy(words.to_owned())));
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Some((full, Refusal::TurnOver));
        }
        let key = ObjectKey::new(namespace, name);
        let options = if self.unreachable {
            json!({"gracePeriodSeconds": 1})
        } else {
            json!({})
        };
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"namespace": namespace, "name": name},
            "deleteOptions": options,
        });
        let answer = self
            .workload
            .api
            .create_subresource(&kinds::POD, &key, "eviction", &eviction)
            .await;
        let refusal = match answer {
            Ok(_) | Err(ApiError::NotFound(_)) => return None,
            Err(error) => refusal(&error),
        };
        if matches!(refusal, Refusal::Busy(_)) {
            self.is_busy.store(true, Ordering::Relaxed);
        }
        Some((full, refusal))
    }
}

/// What a refused eviction means. The server says both "the budget forbids it" and "I have too much to do" with 429, and the
/// reason that tells them apart is in words only.
fn refusal(error: &ApiError) -> Refusal {
    match error {
        ApiError::TooManyRequests { message, .. } if message.contains("disruption budget") => {
            Refusal::Budget(message.clone())
        }
        ApiError::TooManyRequests { message, .. } => Refusal::Busy(message.clone()),
        ApiError::Forbidden(message) if message.contains("because it is being terminated") => {
            Refusal::TerminatingNamespace
        }
        other => Refusal::Other(other.to_string()),
    }
}

/// Volumes that are still attached to a Node, in words.
///
/// # Errors
/// What the server said, or a drain rule that cannot be read.
pub async fn attached(
    ctx: &Ctx,
    workload: &Workload,
    observed: &Observed,
    node: &str,
) -> Result<Vec<String>, Failure> {
    let api = &*workload.api;
    let doing = format!("looking for volumes attached to Node {node}");
    let failed = |error: ApiError| failure(&doing, &error);
    let key = ObjectKey::new("", node);
    let object = match api.get(&kinds::NODE, &key).await {
        Ok(object) => object,
        Err(ApiError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let everything = Selection::default();
    let attachments = all(
        api,
        &kinds::VOLUME_ATTACHMENT,
        &everything,
        WORKLOAD_LIST_BYTES_MAX,
    )
    .await
    .map_err(failed)?;
    if volume::attached(&object, &attachments).is_empty() {
        return Ok(Vec::new());
    }
    let judge = Judge::of(ctx, observed, is_unreachable(&object))?;
    let pods = pods_on(api, node, judge.needs_namespaces())
        .await
        .map_err(failed)?;
    let left_alone = judge
        .left_alone(&pods)
        .map_err(|why| Failure::transient("DrainRefused", format!("{doing}: {why}")))?;
    let volumes = all(
        api,
        &kinds::PERSISTENT_VOLUME,
        &everything,
        WORKLOAD_LIST_BYTES_MAX,
    )
    .await
    .map_err(failed)?;
    Ok(volume::waited_for(&volume::Seen {
        node: object,
        attachments,
        volumes,
        left_alone,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_told_from_a_server_that_has_too_much_to_do() {
        let too_many = |message: &str| ApiError::TooManyRequests {
            message: message.to_owned(),
            retry_after_s: Some(1),
        };
        let budget = "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 2 healthy pods and has 2 currently";
        assert!(matches!(refusal(&too_many(budget)), Refusal::Budget(_)));
        let busy = "too many requests, please try again later";
        assert!(matches!(refusal(&too_many(busy)), Refusal::Busy(_)));
        let going = "pods \"a\" is forbidden: unable to create new content in namespace ns because it is being terminated";
        assert_eq!(
            refusal(&ApiError::Forbidden(going.to_owned())),
            Refusal::TerminatingNamespace
        );
    }
}

#[cfg(test)]
mod turns;
