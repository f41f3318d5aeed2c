//! Follows the Machines of a MachineDeployment or a control plane event by event, and notes every state in which there were too many or too few.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::cluster::TestCluster;
use crate::kube_client::{Kube, condition};

/// How many machines there may and must be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At most so many Machines that are not being deleted.
    pub machines_max: usize,
    /// At least so many of them Available.
    pub available_min: usize,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Events.
    pub events: usize,
    /// The most machines at any time.
    pub machines_max: usize,
    /// The fewest available ones at any time.
    pub available_min: usize,
    /// States outside of the bounds, as words.
    pub violations: Vec<String>,
}

/// Watches until it is dropped.
pub struct RolloutWatcher {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for RolloutWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RolloutWatcher {
    /// Watches the machines of the cluster's MachineDeployment from now on; the bounds must hold now.
    pub async fn start(kube: &Kube, cluster: &TestCluster, bounds: Bounds) -> Self {
        let labels = format!("cluster.x-k8s.io/deployment-name={}", cluster.deployment());
        Self::of(kube, &cluster.namespace, &labels, bounds).await
    }

    /// Watches the machines of the cluster's control plane from now on; the bounds must hold now.
    pub async fn of_control_plane(kube: &Kube, cluster: &TestCluster, bounds: Bounds) -> Self {
        let labels = "cluster.x-k8s.io/control-plane";
        Self::of(kube, &cluster.namespace, labels, bounds).await
    }

    async fn of(kube: &Kube, namespace: &str, labels: &str, bounds: Bounds) -> Self {
        let resource = ApiResource {
            group: "cluster.x-k8s.io".to_owned(),
            version: "v1beta2".to_owned(),
            api_version: "cluster.x-k8s.io/v1beta2".to_owned(),
            kind: "Machine".to_owned(),
            plural: "machines".to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(kube.client(), namespace, &resource);
        let list = api
            .list(&ListParams::default().labels(labels))
            .await
            .unwrap();
        let version = list.metadata.resource_version.clone().unwrap();
        let mut machines: BTreeMap<String, Value> = BTreeMap::new();
        for machine in list.items {
            machines.insert(
                machine.metadata.name.clone().unwrap(),
                serde_json::to_value(&machine).unwrap(),
            );
        }
        let seen = Arc::new(Mutex::new(Seen {
            available_min: usize::MAX,
            ..Seen::default()
        }));
        look(&machines, bounds, &seen);
        let noted = Arc::clone(&seen);
        let parameters = WatchParams::default().labels(labels).timeout(290);
        let task = tokio::spawn(async move {
            let stream = api.watch(&parameters, &version).await.unwrap();
            let mut stream = stream.into_stream().boxed();
            while let Ok(Some(event)) = stream.try_next().await {
                match event {
                    WatchEvent::Added(machine) | WatchEvent::Modified(machine) => {
                        let name = machine.metadata.name.clone().unwrap();
                        machines.insert(name, serde_json::to_value(&machine).unwrap());
                    }
                    WatchEvent::Deleted(machine) => {
                        machines.remove(&machine.metadata.name.unwrap());
                    }
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(error) => {
                        note(&noted, format!("the watch ended: {error}"));
                        return;
                    }
                }
                look(&machines, bounds, &noted);
            }
        });
        Self { seen, task }
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Ends the test if a bound was broken.
    ///
    /// # Panics
    /// With every state in which it was.
    pub fn assert_kept(&self) -> Seen {
        let seen = self.seen();
        assert!(seen.violations.is_empty(), "{:#?}", seen.violations);
        assert!(!self.task.is_finished(), "the watch ended too early");
        seen
    }
}

fn note(seen: &Mutex<Seen>, violation: String) {
    seen.lock().unwrap().violations.push(violation);
}

fn look(machines: &BTreeMap<String, Value>, bounds: Bounds, seen: &Mutex<Seen>) {
    let staying: Vec<&Value> = machines
        .values()
        .filter(|machine| machine["metadata"]["deletionTimestamp"].is_null())
        .collect();
    let available = staying
        .iter()
        .filter(|machine| condition(machine, "Available").status == "True")
        .count();
    let mut seen = seen.lock().unwrap();
    seen.events += 1;
    seen.machines_max = seen.machines_max.max(staying.len());
    seen.available_min = seen.available_min.min(available);
    if staying.len() > bounds.machines_max || available < bounds.available_min {
        let state: Vec<String> = machines
            .iter()
            .map(|(name, machine)| {
                let available = condition(machine, "Available");
                let deleting = &machine["metadata"]["deletionTimestamp"];
                format!("{name} Available={} deleted {deleting}", available.status)
            })
            .collect();
        let text = format!(
            "event {}: {} machines (at most {}), {available} available (at least {}): {state:?}",
            seen.events,
            staying.len(),
            bounds.machines_max,
            bounds.available_min
        );
        seen.violations.push(text);
    }
}
