//! Looks at a control plane all the time while it is broken: whether a step of the host's went below a majority, and whether a member
//! of a live machine went away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capstan_core::control_plane::etcd::View;
use capstan_tests::cluster::TestCluster;
use capstan_tests::etcd::TestEtcd;
use capstan_tests::kube_client::{Kube, MACHINE, name};
use serde_json::Value;
use tokio::task::JoinHandle;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What it has seen.
pub(crate) struct Guard {
    wrong: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guard {
    /// Looks from now on. Members of `excused` machines may go: a fault takes them.
    pub(crate) fn start(
        kube: &Kube,
        cluster: &TestCluster,
        excused: Arc<Mutex<Vec<String>>>,
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
                found
                    .lock()
                    .unwrap()
                    .extend(before.look(&machines, view, &excused));
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { wrong, task }
    }

    /// What went wrong.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

#[derive(Default)]
struct Before {
    /// Machines by name, with their Nodes and whether they were being deleted.
    machines: BTreeMap<String, (String, bool)>,
    view: Option<View>,
}

impl Before {
    fn look(&mut self, machines: &[Value], view: Option<View>, excused: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        let now: BTreeMap<String, (String, bool)> = machines
            .iter()
            .filter_map(|machine| {
                let node = machine["status"]["nodeRef"]["name"].as_str()?.to_owned();
                let is_leaving = !machine["metadata"]["deletionTimestamp"].is_null();
                Some((name(machine), (node, is_leaving)))
            })
            .collect();
        if let Some(last) = &self.view {
            for (machine, (node, is_leaving)) in &now {
                let was_leaving = self
                    .machines
                    .get(machine)
                    .is_none_or(|(_, leaving)| *leaving);
                if *is_leaving && !was_leaving && !stands_without(last, node) {
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

/// Whether a majority of the members is left and answers without this one.
fn stands_without(view: &View, node: &str) -> bool {
    let others = || {
        view.members
            .iter()
            .filter(|m| m.name != node && !m.is_learner)
    };
    let answering = others().filter(|m| m.answer.found().is_some()).count();
    let voting = others().count();
    voting == 0 || answering > voting / 2
}
