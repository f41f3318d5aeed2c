//! A connected workload cluster: its API and its Nodes.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capstan_api::name::ObjectKey;
use capstan_core::control_plane::etcd::View;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::kinds;
use crate::kube_api::{KubeApi, WORKLOAD_LIST_BYTES_MAX};
use crate::object::Object;
use crate::pki;
use crate::store::{Change, Store};

/// ClusterResourceSets that are at work in one cluster at the same time: one that hangs takes no more workers than these.
const RESOURCE_SETS_AT_ONCE: usize = 2;

/// Nodes of one cluster that are drained at the same time: each lists its pods in each turn.
const DRAINS_AT_ONCE: usize = 8;

/// Nodes of one cluster that Machines and MachinePools write or delete at the same time: each takes milliseconds, and where the server
/// hangs, these are the workers of all Machines (50) that it holds.
pub const NODE_WRITES_AT_ONCE: usize = 8;

/// Machines of one cluster that look for attached volumes at the same time: each lists all attachments of the cluster. As many as drains,
/// after which they look; where the server hangs, these and those above are half of the workers.
pub const VOLUME_CHECKS_AT_ONCE: usize = 8;

/// Join tokens of one cluster that are looked at, made or extended at the same time: each takes milliseconds, and where the server hangs,
/// these are the workers of all bootstrap configs of a kind (16) that it holds.
pub const TOKENS_AT_ONCE: usize = 4;

/// Evictions in one cluster that are under way at the same time, for all its Nodes: less than a tenth of the changes that an API
/// server takes at once by default (`--max-mutating-requests-inflight` 200), so that everybody else gets through.
pub const EVICTIONS_AT_ONCE: usize = 16;

/// A server's certificate is replaced weeks before it ends: hours matter to nobody.
const CERTIFICATE_AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// Until then one that could not be seen is left alone.
const CERTIFICATE_RETRY: SignedDuration = SignedDuration::from_mins(1);

/// A connected workload cluster.
pub struct Workload {
    /// Its API server.
    pub api: Arc<dyn KubeApi>,
    /// Its Nodes, watched.
    pub nodes: Arc<Store>,
    /// Turns of drains.
    pub drains: Semaphore,
    /// Turns of writes to Nodes.
    pub node_writes: Semaphore,
    /// Turns of looks for attached volumes.
    pub volume_checks: Semaphore,
    /// Turns of requests about join tokens.
    pub tokens: Semaphore,
    /// Turns of evictions.
    pub evictions: Semaphore,
    /// Turns of ClusterResourceSets.
    pub resource_sets: Semaphore,
    by_provider_id: Mutex<HashMap<String, BTreeSet<ObjectKey>>>,
    /// What the members of its etcd said when they were last asked.
    etcd: Mutex<Option<View>>,
    /// When the certificate ends that its API server shows, and until when that need not be read again.
    certificate: Mutex<Option<(Option<Timestamp>, Timestamp)>>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workload({} nodes)", self.nodes.len())
    }
}

impl Workload {
    pub(crate) fn new(api: Arc<dyn KubeApi>) -> Self {
        Self {
            api,
            nodes: Arc::new(Store::bounded(kinds::NODE.clone(), WORKLOAD_LIST_BYTES_MAX)),
            drains: Semaphore::new(DRAINS_AT_ONCE),
            node_writes: Semaphore::new(NODE_WRITES_AT_ONCE),
            volume_checks: Semaphore::new(VOLUME_CHECKS_AT_ONCE),
            tokens: Semaphore::new(TOKENS_AT_ONCE),
            evictions: Semaphore::new(EVICTIONS_AT_ONCE),
            resource_sets: Semaphore::new(RESOURCE_SETS_AT_ONCE),
            by_provider_id: Mutex::default(),
            etcd: Mutex::default(),
            certificate: Mutex::default(),
        }
    }

    /// What the members of its etcd said when they were last asked; none when nobody answered, or nobody asks.
    #[must_use]
    pub fn etcd(&self) -> Option<View> {
        self.etcd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Remembers what they said, for metrics.
    pub(crate) fn etcd_said(&self, view: Option<View>) {
        *self.etcd.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// When the certificate ends that its API server shows to who connects. It is read anew from time to time: servers change theirs.
    pub(crate) async fn certificate_end(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = *self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((end, until)) = kept
            && now < until
        {
            return end;
        }
        let read = self.api.shown_certificate().await;
        let end = match read {
            Ok(shown) => shown.and_then(|shown| pki::not_after(&shown).ok()),
            Err(error) => {
                tracing::debug!(%error, "cannot see the certificate of an API server");
                None
            }
        };
        let again = if end.is_some() {
            CERTIFICATE_AGAIN
        } else {
            CERTIFICATE_RETRY
        };
        let until = now.checked_add(again).unwrap_or(now);
        *self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((end, until));
        end
    }

    /// Nodes with this provider ID; more than one is a mistake that the caller reports.
    #[must_use]
    pub fn nodes_by_provider_id(&self, id: &str) -> Vec<Arc<Object>> {
        let keys = self.index().get(id).cloned().unwrap_or_default();
        keys.iter().filter_map(|key| self.nodes.get(key)).collect()
    }

    /// A Node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Arc<Object>> {
        self.nodes.get(&ObjectKey::new("", name))
    }

    /// Brings the index up to date. Whether anybody cares about the change.
    pub(super) fn changed(&self, change: &Change) -> bool {
        let mut index = self.index();
        let id = |object: &Arc<Object>| object.text("/spec/providerID").map(str::to_owned);
        if let Some(old) = &change.old
            && let Some(id) = id(old)
            && let Some(keys) = index.get_mut(&id)
        {
            keys.remove(&old.key);
            if keys.is_empty() {
                index.remove(&id);
            }
        }
        if let Some(new) = &change.new
            && let Some(id) = id(new)
        {
            index.entry(id).or_default().insert(new.key.clone());
        }
        drop(index);
        match (&change.old, &change.new) {
            (Some(old), Some(new)) => !is_heartbeat(&old.value, &new.value),
            _ => true,
        }
    }

    fn index(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<ObjectKey>>> {
        self.by_provider_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two versions of a Node differ only in what a living kubelet writes again and again, or in its volumes: who waits for those reads
/// the Node as it is then.
fn is_heartbeat(old: &Value, new: &Value) -> bool {
    equal_but(old, new, &["metadata", "status"])
        && parts_equal_but(old, new, "metadata", &["resourceVersion", "managedFields"])
        && parts_equal_but(old, new, "status", &IGNORED)
        && conditions_equal(
            old.pointer("/status/conditions"),
            new.pointer("/status/conditions"),
        )
}

/// Fields of a Node's status that are no news by themselves.
const IGNORED: [&str; 4] = ["conditions", "images", "volumesInUse", "volumesAttached"];

fn parts_equal_but(old: &Value, new: &Value, part: &str, ignored: &[&str]) -> bool {
    let empty = Value::Object(Map::new());
    equal_but(
        old.get(part).unwrap_or(&empty),
        new.get(part).unwrap_or(&empty),
        ignored,
    )
}

/// Whether two JSON objects have the same fields, these aside.
fn equal_but(old: &Value, new: &Value, ignored: &[&str]) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let all_in = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter()
            .all(|(name, value)| ignored.contains(&name.as_str()) || b.get(name) == Some(value))
    };
    all_in(old, new) && all_in(new, old)
}

fn conditions_equal(old: Option<&Value>, new: Option<&Value>) -> bool {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (list(old), list(new));
    old.len() == new.len()
        && old
            .iter()
            .zip(&new)
            .all(|(old, new)| equal_but(old, new, &["lastHeartbeatTime"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(version: &str, ready: &str, beat: &str) -> Value {
        json!({
            "metadata": {"name": "n", "resourceVersion": version},
            "spec": {"providerID": "p://1"},
            "status": {
                "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": beat}],
                "images": [beat],
            },
        })
    }

    #[test]
    fn a_heartbeat_is_not_news() {
        assert!(is_heartbeat(
            &node("1", "True", "a"),
            &node("2", "True", "b")
        ));
        assert!(!is_heartbeat(
            &node("1", "True", "a"),
            &node("2", "False", "b")
        ));
        let mut mounting = node("2", "True", "b");
        mounting["status"]["volumesInUse"] = json!(["v"]);
        mounting["status"]["volumesAttached"] = json!([{"name": "v", "devicePath": ""}]);
        assert!(is_heartbeat(&node("1", "True", "a"), &mounting));
        let mut tainted = node("2", "True", "b");
        tainted["spec"]["taints"] = json!([]);
        assert!(!is_heartbeat(&node("1", "True", "a"), &tainted));
        assert!(!is_heartbeat(&tainted, &node("1", "True", "a")));
    }
}
