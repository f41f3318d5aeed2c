//! The etcd of a cluster as the host's client sees it: of a cluster on the local cloud, or of real servers on this machine.

mod real;

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::identity::client_config;
use capstan_controllers::etcd::{Client, PortForward};
use capstan_controllers::kube_api::real::RealApi;
use capstan_controllers::pki::{Pair, client_certificate};
use capstan_controllers::tasks::Tasks;
use capstan_core::control_plane::etcd::{Address, View};
use capstan_core::lookup::Lookup;

pub use self::real::RealEtcd;
use crate::cluster::TestCluster;
use crate::kube_client::{Kube, MACHINE, is_control_plane};

/// The name of tests in the certificates that etcds ask for.
pub const CLIENT: &str = "test";

/// Members of one etcd, and a client for them.
pub struct TestEtcd {
    /// The client.
    pub client: Client,
    /// Where the members answer.
    pub addresses: Vec<Address>,
}

impl TestEtcd {
    /// The etcd of a cluster on the local cloud, through its API server's port-forward.
    pub async fn of_cluster(kube: &Kube, cluster: &TestCluster) -> Self {
        Self::try_of_cluster(kube, cluster).await.unwrap()
    }

    /// As [`TestEtcd::of_cluster`].
    ///
    /// # Errors
    /// When the management cluster does not answer.
    pub async fn try_of_cluster(kube: &Kube, cluster: &TestCluster) -> Result<Self, String> {
        let ca = Pair {
            public: cluster.try_secret(kube, "etcd", "tls.crt").await?,
            private: cluster.try_secret(kube, "etcd", "tls.key").await?,
        };
        let user = client_certificate(&ca, CLIENT, CLIENT, jiff::Timestamp::now()).unwrap();
        let workload = cluster.try_workload(kube).await?;
        let dial = Arc::new(PortForward(Arc::new(RealApi::new(workload.client()))));
        let tls = client_config(&ca.public, Some(&user), &[b"h2"]).unwrap();
        let machines = kube.try_list(MACHINE, &cluster.namespace).await;
        let machines = machines.map_err(|refusal| format!("listing Machines: {refusal}"))?;
        let nodes = machines.iter().filter_map(|machine| {
            machine["status"]["nodeRef"]["name"]
                .as_str()
                .filter(|_| is_control_plane(machine))
        });
        let addresses = nodes.map(|node| Address {
            name: node.to_owned(),
            pod: ObjectKey::new("kube-system", format!("etcd-{node}")),
            port: 2379,
        });
        Ok(Self {
            addresses: addresses.collect(),
            client: Client::new(dial, tls, Tasks::default()),
        })
    }

    /// The address of a member.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn address(&self, name: &str) -> &Address {
        self.addresses.iter().find(|a| a.name == name).unwrap()
    }

    /// All addresses but one.
    pub fn others(&self, name: &str) -> Vec<Address> {
        let others = self.addresses.iter().filter(|a| a.name != name);
        others.cloned().collect()
    }

    /// What the members say.
    ///
    /// # Errors
    /// When none answers.
    pub async fn view(&self) -> Result<View, String> {
        match self.client.view(&self.addresses).await {
            Lookup::Found(view) => Ok(view),
            Lookup::Missing => Err("there is none".to_owned()),
            Lookup::Unknown(why) => Err(why),
        }
    }
}
