//! What is broken, and how.

use std::fmt;

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane;
use capstan_tests::etcd::TestEtcd;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{MACHINE, NODE, name};
use serde_json::json;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A machine that does not lead loses its power: its kubelet, its API server and its etcd are gone.
    Member,
    /// The one that leads does.
    Leader,
    /// Two do.
    Two,
    /// The cloud has lost a machine.
    Instance,
    /// Somebody deletes a Node.
    Node,
    /// Somebody removes the member of a live machine from etcd.
    Removed,
}

impl Fault {
    /// Each.
    pub(crate) const ALL: [Self; 6] = [
        Self::Member,
        Self::Leader,
        Self::Two,
        Self::Instance,
        Self::Node,
        Self::Removed,
    ];

    /// The one of this name.
    pub(crate) fn named(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|fault| fault.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is not a fault"))
    }

    /// How many machines it breaks.
    pub(crate) fn breaks(self) -> usize {
        if self == Self::Two { 2 } else { 1 }
    }

    /// Breaks machines that are not broken yet, and answers which.
    pub(crate) async fn strike(
        self,
        host: &TestHost,
        cluster: &TestCluster,
        broken: &[String],
    ) -> Vec<String> {
        let kube = host.kube();
        let machines = kube.list(MACHINE, &cluster.namespace).await;
        let leader = control_plane::leading(host, cluster).await;
        let mut whole: Vec<String> = machines
            .iter()
            .filter(|machine| !machine["status"]["nodeRef"].is_null())
            .map(name)
            .filter(|name| !broken.contains(name))
            .collect();
        // The leader last, or first where it is meant.
        whole.sort_by_key(|name| (self == Self::Leader) != (Some(name) == leader.as_ref()));
        let victims: Vec<String> = whole.into_iter().take(self.breaks()).collect();
        for victim in &victims {
            let machine = machines.iter().find(|machine| name(machine) == *victim);
            let node = machine.unwrap()["status"]["nodeRef"]["name"].clone();
            let node = node.as_str().unwrap();
            match self {
                Self::Member | Self::Leader | Self::Two => {
                    let id = control_plane::instance(host, cluster, victim).await;
                    host.cloud.stop_instance(&id).await;
                }
                Self::Instance => {
                    let id = control_plane::instance(host, cluster, victim).await;
                    host.cloud.delete_instance(&id).await;
                }
                Self::Node => {
                    let workload = cluster.workload(kube).await;
                    workload.delete(NODE, "", node).await;
                }
                Self::Removed => {
                    let etcd = TestEtcd::of_cluster(kube, cluster).await;
                    if let Ok(view) = etcd.view().await
                        && let Some(member) = view.members.iter().find(|m| m.name == node)
                    {
                        // A single member cannot be removed: then nothing is broken.
                        let _ = etcd
                            .client
                            .remove_member(&etcd.others(node), member.id)
                            .await;
                    }
                }
            }
            let given_up =
                json!({"metadata": {"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}});
            // It may be gone already.
            let _ = kube
                .try_merge(MACHINE, &cluster.namespace, victim, &given_up)
                .await;
        }
        victims
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member-off",
            Self::Leader => "leader-off",
            Self::Two => "two-off",
            Self::Instance => "machine-lost",
            Self::Node => "node-deleted",
            Self::Removed => "member-removed",
        })
    }
}
