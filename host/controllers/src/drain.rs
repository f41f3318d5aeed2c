//! Drains a Node: cordons it and evicts its pods, a few at a time, as the disruption budgets allow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::MachineDrainRule;
use capstan_core::drain::{self as core, Drain, PodSeen};
use capstan_core::machine::Observed;
use capstan_core::plan::Failure;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch, Resource, Selection};
use crate::machine::typed;

/// Evictions under way at a time, per Node: enough to be quick, few enough not to press an API server that answers 429.
const EVICTIONS_AT_ONCE: usize = 8;

/// How long one turn evicts; what is left then has its turn later (upstream: 10 s).
const TURN: Duration = Duration::from_secs(10);

/// Pods per page (upstream: 100).
const PAGE: u32 = 100;

/// Whether the Node's kubelet does not answer: its Ready condition is Unknown.
#[must_use]
pub fn is_unreachable(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| {
        c.get("type") == Some(&json!("Ready")) && c.get("status") == Some(&json!("Unknown"))
    })
}

/// One turn of a drain; what is left, in words. Empty when the Node is drained.
///
/// # Errors
/// What the server said, or a drain rule that cannot be read.
pub async fn drain(
    ctx: &Ctx,
    api: &dyn KubeApi,
    observed: &Observed,
    node: &str,
) -> Result<Vec<String>, Failure> {
    let node_key = ObjectKey {
        namespace: String::new(),
        name: node.to_owned(),
    };
    let doing = format!("draining Node {node}");
    let unreachable = match cordon(api, &node_key).await {
        Ok(unreachable) => unreachable,
        Err(ApiError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failure(&doing, &error)),
    };
    let pods = pods_on(api, node)
        .await
        .map_err(|error| failure(&doing, &error))?;
    let machine = &observed.machine;
    let namespace = machine.metadata.namespace.clone().unwrap_or_default();
    let rules = ctx
        .store(&kinds::MACHINE_DRAIN_RULE)
        .in_namespace(&namespace)
        .iter()
        .map(|rule| typed::<MachineDrainRule>(rule))
        .collect::<Result<Vec<_>, _>>()?;
    let machine_labels = machine.metadata.labels.clone().unwrap_or_default();
    let cluster_labels = observed
        .cluster
        .found()
        .and_then(|c| c.metadata.labels.clone())
        .unwrap_or_default();
    let plan = core::plan(
        &pods,
        &rules,
        &machine_labels,
        &cluster_labels,
        unreachable,
        ctx.now(),
    )
    .map_err(|why| Failure::transient("DrainRefused", format!("{doing}: {why}")))?;
    if plan.is_complete() {
        return Ok(Vec::new());
    }
    let mut refused = evict(api, &plan, unreachable).await;
    let evicted = plan
        .evict
        .len()
        .saturating_sub(refused.values().map(Vec::len).sum());
    let mut lines = core::describe(&plan, &refused);
    if lines.is_empty() && evicted > 0 {
        refused.clear();
        lines.push(format!(
            "* {evicted} Pod(s) evicted, waiting until they are removed from the Node"
        ));
    }
    Ok(lines)
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

async fn pods_on(api: &dyn KubeApi, node: &str) -> Result<Vec<PodSeen>, ApiError> {
    let selection = Selection {
        fields: Some(format!("spec.nodeName={node}")),
        ..Selection::default()
    };
    let pods = list(api, &kinds::POD, &selection).await?;
    if pods.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces = list(api, &kinds::NAMESPACE, &Selection::default()).await?;
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
            let key = ObjectKey {
                namespace: namespace.clone(),
                name,
            };
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

async fn list(
    api: &dyn KubeApi,
    resource: &Resource,
    selection: &Selection,
) -> Result<Vec<Value>, ApiError> {
    let mut items = Vec::new();
    let mut next = None;
    loop {
        let page = api.list(resource, selection, PAGE, next.as_deref()).await?;
        items.extend(page.items);
        next = page.next;
        if next.is_none() {
            return Ok(items);
        }
    }
}

/// Evicts what is to be evicted now. What the server refused: the reason, and the pods.
async fn evict(
    api: &dyn KubeApi,
    plan: &Drain,
    unreachable: bool,
) -> BTreeMap<String, Vec<String>> {
    let deadline = Instant::now().checked_add(TURN);
    let evictions: Vec<BoxFuture<'_, Option<(String, String)>>> = plan
        .evict
        .iter()
        .map(|(namespace, name)| evict_one(api, namespace, name, unreachable, deadline).boxed())
        .collect();
    let refused: Vec<Option<(String, String)>> = stream::iter(evictions)
        .buffer_unordered(EVICTIONS_AT_ONCE)
        .collect()
        .await;
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (pod, why) in refused.into_iter().flatten() {
        by_reason.entry(why).or_default().push(pod);
    }
    by_reason
}

/// Evicts one pod; the pod and what the server said when it refused.
async fn evict_one(
    api: &dyn KubeApi,
    namespace: &str,
    name: &str,
    unreachable: bool,
    deadline: Option<Instant>,
) -> Option<(String, String)> {
    let full = format!("{namespace}/{name}");
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Some((
            full,
            "eviction timeout of 10s reached, eviction will be retried".to_owned(),
        ));
    }
    let key = ObjectKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let options = if unreachable {
        json!({"gracePeriodSeconds": 1})
    } else {
        json!({})
    };
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"namespace": namespace, "name": name},
        "deleteOptions": options,
    });
    match api
        .create_subresource(&kinds::POD, &key, "eviction", &eviction)
        .await
    {
        Ok(_) | Err(ApiError::NotFound(_)) => None,
        Err(ApiError::TooManyRequests { message, .. }) => Some((
            full,
            format!("cannot evict pod as it would violate the pod's disruption budget. {message}"),
        )),
        Err(error) => Some((full, format!("failed to evict Pod, {error}"))),
    }
}

/// Volumes that are still attached to a Node, by name.
///
/// # Errors
/// What the server said.
pub async fn attached(api: &dyn KubeApi, node: &str) -> Result<Vec<String>, Failure> {
    let doing = format!("looking for volumes attached to Node {node}");
    let key = ObjectKey {
        namespace: String::new(),
        name: node.to_owned(),
    };
    let object = match api.get(&kinds::NODE, &key).await {
        Ok(object) => object,
        Err(ApiError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failure(&doing, &error)),
    };
    let mut volumes: BTreeSet<String> = object
        .pointer("/status/volumesAttached")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.get("name")?.as_str().map(str::to_owned))
        .collect();
    let attachments = list(api, &kinds::VOLUME_ATTACHMENT, &Selection::default()).await;
    for attachment in attachments.map_err(|error| failure(&doing, &error))? {
        let here = attachment.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node);
        if here && attachment.pointer("/status/attached") == Some(&json!(true)) {
            let source = attachment.pointer("/spec/source/persistentVolumeName");
            let name = source
                .or_else(|| attachment.pointer("/metadata/name"))
                .and_then(Value::as_str);
            volumes.extend(name.map(str::to_owned));
        }
    }
    Ok(volumes
        .into_iter()
        .map(|volume| format!("* volume {volume} is attached"))
        .collect())
}
