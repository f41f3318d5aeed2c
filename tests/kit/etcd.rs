//! The etcd of a cluster as the host's client sees it: of a cluster on the local cloud, or of real servers on this machine.

mod real;

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::identity::client_config;
use capstan_controllers::etcd::{Client, Dial, PortForward};
use capstan_controllers::kube_api::Duplex;
use capstan_controllers::kube_api::real::RealApi;
use capstan_controllers::pki::{Pair, client_certificate};
use capstan_controllers::tasks::Tasks;
use capstan_core::control_plane::etcd::{Address, View};
use capstan_core::lookup::Lookup;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

pub use self::real::RealEtcd;
use crate::cluster::TestCluster;
use crate::host::TestHost;
use crate::kube_client::{Kube, MACHINE, is_control_plane};

/// The name of tests in the certificates that etcds ask for.
pub const CLIENT: &str = "test";

/// The address of the member on a Node.
pub fn address_of(node: &str) -> Address {
    Address {
        name: node.to_owned(),
        pod: ObjectKey::new("kube-system", format!("etcd-{node}")),
        port: 2379,
    }
}

/// Connects to the port of a member where this says that it is.
struct Direct<F> {
    at: F,
    /// Connections break when so many bytes came.
    breaks_after: u64,
}

impl<F: Fn(&Address) -> String + Send + Sync> Dial for Direct<F> {
    fn dial<'a>(&'a self, member: &'a Address) -> BoxFuture<'a, Result<Box<dyn Duplex>, String>> {
        async move {
            let stream = TcpStream::connect(((self.at)(member), member.port)).await;
            let (from, to) = stream.map_err(|error| error.to_string())?.into_split();
            let stream = tokio::io::join(from.take(self.breaks_after), to);
            Ok(Box::new(stream) as Box<dyn Duplex>)
        }
        .boxed()
    }
}

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
        let workload = cluster.try_workload(kube).await?;
        let forward = PortForward(Arc::new(RealApi::new(workload.client())));
        Self::over(Arc::new(forward), kube, cluster).await
    }

    /// The etcd of a cluster on the local cloud, through the ports of its machines: no API server is needed for that.
    pub async fn beside(host: &TestHost, cluster: &TestCluster) -> Self {
        let (namespace, name) = (&cluster.namespace, &cluster.name);
        let instances = host.cloud.of_cluster("instances", namespace, name).await;
        let at = move |member: &Address| {
            let mut instances = instances.iter();
            let instance = instances.find(|i| i["name"] == member.name.as_str());
            let address = instance.and_then(|i| i["addresses"][0]["address"].as_str());
            address.unwrap_or_default().to_owned()
        };
        let dial = Direct {
            at,
            breaks_after: u64::MAX,
        };
        Self::over(Arc::new(dial), host.kube(), cluster)
            .await
            .unwrap()
    }

    async fn over(dial: Arc<dyn Dial>, kube: &Kube, cluster: &TestCluster) -> Result<Self, String> {
        let ca = Pair {
            public: cluster.try_secret(kube, "etcd", "tls.crt").await?,
            private: cluster.try_secret(kube, "etcd", "tls.key").await?,
        };
        let user = client_certificate(&ca, CLIENT, CLIENT, jiff::Timestamp::now()).unwrap();
        let tls = client_config(&ca.public, Some(&user), &[b"h2"]).unwrap();
        let machines = kube.try_list(MACHINE, &cluster.namespace).await;
        let machines = machines.map_err(|refusal| format!("listing Machines: {refusal}"))?;
        let nodes = machines.iter().filter_map(|machine| {
            machine["status"]["nodeRef"]["name"]
                .as_str()
                .filter(|_| is_control_plane(machine))
        });
        Ok(Self {
            addresses: nodes.map(address_of).collect(),
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
