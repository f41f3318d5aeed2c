//! What a control plane is doing when it breaks, how that begins, and whether it is done.

use std::fmt;

use serde_json::{Value, json};

use crate::cluster::{TestCluster, VERSION_NEXT};
use crate::in_cluster;
use crate::kube_client::{CONTROL_PLANE, DEPLOYMENT, Kube, LOCAL_MACHINE_TEMPLATE, MACHINE, NODE};

/// The version that an upgrade begins with: a minor one before the other.
const VERSION_BEFORE: &str = "v1.35.6";

/// CoreDNS after an upgrade: newer than what kubeadm put there.
const DNS_TAG: &str = "v1.14.2";

/// What the control plane is doing when it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// More than half of its machines are there. The only one is about to be.
    Create,
    /// Nothing.
    Rest,
    /// It gets two machines more.
    Grow,
    /// It loses two machines.
    Shrink,
    /// All its machines are replaced.
    Roll,
    /// All its machines are replaced by those of the next minor version, and what kubeadm keeps in the cluster follows.
    Upgrade,
}

impl Phase {
    /// Each.
    pub const ALL: [Self; 6] = [
        Self::Create,
        Self::Rest,
        Self::Grow,
        Self::Shrink,
        Self::Roll,
        Self::Upgrade,
    ];

    /// The one of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|phase| phase.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is not a phase"))
    }

    /// Why no fault strikes a control plane of this size then.
    pub fn left_out(self, size: u32) -> Option<&'static str> {
        (self == Self::Shrink && size <= 2)
            .then_some("none of its machines can go: the server refuses a control plane of 0")
    }

    /// How many machines there are to be in the end.
    pub(super) fn wanted(self, size: u32) -> u32 {
        match self {
            Self::Grow => size + 2,
            Self::Shrink => size.saturating_sub(2),
            _ => size,
        }
    }

    /// How many machines are there for sure when it breaks.
    pub(super) fn standing(self, size: u32) -> u32 {
        match self {
            Self::Create => size / 2 + 1,
            // Those that go may be gone.
            Self::Shrink => self.wanted(size),
            _ => size,
        }
    }

    /// Whether it breaks while the first machine makes the cluster, before anybody sees its Node.
    pub(super) fn is_init(self, size: u32) -> bool {
        self == Self::Create && size == 1
    }

    /// Whether machines come by what it does.
    pub(super) fn lets_join(self) -> bool {
        matches!(self, Self::Create | Self::Grow | Self::Roll | Self::Upgrade)
    }

    /// The cluster of this name before it breaks.
    pub(super) fn cluster(self, name: &str, size: u32) -> TestCluster {
        let mut cluster = TestCluster::new(name, name, 0);
        cluster.control_planes = size;
        if self == Self::Upgrade {
            VERSION_BEFORE.clone_into(&mut cluster.version);
            VERSION_BEFORE.clone_into(&mut cluster.worker_version);
        }
        cluster
    }

    /// Begins it. Answers the UIDs of the Machines that are not to be there in the end.
    pub(super) async fn begin(self, kube: &Kube, cluster: &TestCluster) -> Vec<Value> {
        let (namespace, plane) = (&cluster.namespace, cluster.control_plane());
        let change = match self {
            Self::Create | Self::Rest => return Vec::new(),
            Self::Grow | Self::Shrink => {
                let wanted = self.wanted(cluster.control_planes);
                kube.scale(CONTROL_PLANE, namespace, &plane, wanted).await;
                return Vec::new();
            }
            Self::Roll => {
                let template = json!({
                    "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
                    "metadata": {"namespace": namespace, "name": "larger"},
                    "spec": {"template": {"spec": {"instanceType": "medium"}}},
                });
                kube.apply(LOCAL_MACHINE_TEMPLATE, &template).await;
                json!({"machineTemplate": {"spec": {"infrastructureRef": {"name": "larger"}}}})
            }
            Self::Upgrade => json!({
                "version": VERSION_NEXT,
                "kubeadmConfigSpec": {"clusterConfiguration": {"dns": {"imageTag": DNS_TAG}}},
            }),
        };
        let machines = kube.list(MACHINE, namespace).await;
        let patch = json!({ "spec": change });
        kube.merge(CONTROL_PLANE, namespace, &plane, &patch).await;
        let uids = machines.iter().map(|machine| &machine["metadata"]["uid"]);
        uids.cloned().collect()
    }

    /// What there is to see of it inside the cluster, beyond its machines.
    pub(super) async fn is_done(self, kube: &Kube, cluster: &TestCluster) -> Result<(), String> {
        if self != Self::Upgrade {
            return Ok(());
        }
        let workload = cluster.try_workload(kube).await?;
        let nodes = workload.try_list(NODE, "").await;
        let nodes = nodes.map_err(|refusal| format!("listing Nodes: {refusal}"))?;
        let versions = nodes
            .iter()
            .map(|node| &node["status"]["nodeInfo"]["kubeletVersion"]);
        let old: Vec<&Value> = versions
            .filter(|version| **version != VERSION_NEXT)
            .collect();
        let configured = in_cluster::configuration(&workload).await?["kubernetesVersion"].clone();
        let images = (
            in_cluster::image(&workload, in_cluster::DAEMON_SET, "kube-proxy").await?,
            in_cluster::image(&workload, DEPLOYMENT, "coredns").await?,
        );
        let expected = (
            format!("registry.k8s.io/kube-proxy:{VERSION_NEXT}"),
            format!("registry.k8s.io/coredns/coredns:{DNS_TAG}"),
        );
        if old.is_empty() && configured == VERSION_NEXT && images == expected {
            return Ok(());
        }
        Err(format!(
            "not upgraded: Nodes {old:?}, kubeadm-config {configured}, add-ons {images:?}"
        ))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Rest => "rest",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Roll => "roll",
            Self::Upgrade => "upgrade",
        })
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::name::Version;

    use super::*;

    #[test]
    fn an_upgrade_crosses_one_minor_version() {
        let minor = |text| {
            let version = Version::parse(text).unwrap();
            (version.major, version.minor)
        };
        let (major, before) = minor(VERSION_BEFORE);
        assert_eq!((major, before + 1), minor(VERSION_NEXT));
    }
}
