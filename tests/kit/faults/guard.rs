//! Looks at a control plane all the time while it is broken: whether a step of the host's went below a majority, and whether a member
//! of a live machine went away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capstan_core::control_plane::etcd::View;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::cluster::TestCluster;
use crate::etcd::TestEtcd;
use crate::kube_client::{Kube, MACHINE, name};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(400);

/// What it has seen.
pub(super) struct Guard {
    wrong: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guard {
    /// Looks from now on. Members of `excused` machines may go: a fault takes them. Those of `broken` ones are good for nothing.
    pub(super) fn start(
        kube: &Kube,
        cluster: &TestCluster,
        excused: Arc<Mutex<Vec<String>>>,
        broken: Arc<Mutex<Vec<String>>>,
    ) -> Self {
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let (kube, cluster, found) = (kube.clone(), cluster.clone(), Arc::clone(&wrong));
        let task = tokio::spawn(async move {
            let mut before = Before::default();
            loop {
                let machines = kube.list(MACHINE, &cluster.namespace).await;
                let etcd = TestEtcd::of_cluster(&kube, &cluster).await;
                let view = etcd.view().await.ok().filter(|view| view.has_quorum);
                let excused = excused.lock().unwrap().clone();
                let broken = broken.lock().unwrap().clone();
                let wrong = before.look(&machines, view, &excused, &broken);
                found.lock().unwrap().extend(wrong);
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { wrong, task }
    }

    /// What went wrong.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

#[derive(Default)]
struct Before {
    /// Machines by name, with their Nodes and whether they were being deleted.
    machines: BTreeMap<String, (String, bool)>,
    view: Option<View>,
    /// The Node of each machine that was ever seen.
    nodes: BTreeMap<String, String>,
}

impl Before {
    fn look(
        &mut self,
        machines: &[Value],
        view: Option<View>,
        excused: &[String],
        broken: &[String],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let now: BTreeMap<String, (String, bool)> = machines
            .iter()
            .filter_map(|machine| {
                let node = machine["status"]["nodeRef"]["name"].as_str()?.to_owned();
                let is_leaving = !machine["metadata"]["deletionTimestamp"].is_null();
                Some((name(machine), (node, is_leaving)))
            })
            .collect();
        let seen = now
            .iter()
            .map(|(machine, (node, _))| (machine.clone(), node.clone()));
        self.nodes.extend(seen);
        let broken: Vec<&String> = broken
            .iter()
            .filter_map(|name| self.nodes.get(name))
            .collect();
        if let Some(last) = &self.view {
            for (machine, (node, is_leaving)) in &now {
                let was_leaving = self
                    .machines
                    .get(machine)
                    .is_none_or(|(_, leaving)| *leaving);
                if *is_leaving && !was_leaving && !stands_without(last, node, &broken) {
                    wrong.push(format!(
                        "Machine {machine} was deleted although etcd needs its member"
                    ));
                }
            }
        }
        if let (Some(last), Some(view)) = (&self.view, &view) {
            let has = |view: &View, node: &str| view.members.iter().any(|m| m.name == node);
            for (machine, (node, is_leaving)) in &now {
                let is_gone = has(last, node) && !has(view, node);
                if is_gone && !is_leaving && !excused.contains(machine) {
                    wrong.push(format!(
                        "the member of the live Machine {machine} went away"
                    ));
                }
            }
        }
        self.machines = now;
        self.view = view.or_else(|| self.view.take());
        wrong
    }
}

/// Whether a majority of the members is left and works without this one. What is broken is known here, and need not be asked.
fn stands_without(view: &View, node: &str, broken: &[&String]) -> bool {
    let others = || {
        view.members
            .iter()
            .filter(|m| m.name != node && !m.is_learner)
    };
    let working = others().filter(|m| !broken.contains(&&m.name)).count();
    let voting = others().count();
    voting == 0 || working > voting / 2
}
