//! Where the suite of behaviours is played: real etcd servers, and the local cloud's.

use capstan_core::control_plane::etcd::Address;
use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane::instance;
use capstan_tests::etcd::{RealEtcd, TestEtcd, address_of};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CLUSTER, MACHINE, SECRET};
use serde_json::json;

/// Three members, and a place for a fourth.
pub(crate) enum Lab {
    Real(RealEtcd),
    Light(Light),
}

/// A cluster on the local cloud.
pub(crate) struct Light {
    host: &'static TestHost,
    cluster: TestCluster,
    etcd: TestEtcd,
    newcomer: String,
}

impl Lab {
    /// Real servers.
    pub(crate) async fn real() -> Self {
        Self::Real(RealEtcd::start(3).await)
    }

    /// A cluster that nobody looks after meanwhile.
    pub(crate) async fn light() -> Self {
        let host = TestHost::shared().await;
        let mut cluster = TestCluster::new("etcd-suite", "etcd-suite", 0);
        cluster.control_planes = 3;
        cluster.create(host.kube()).await;
        cluster.available(host, 0).await;
        let etcd = TestEtcd::of_cluster(host.kube(), &cluster).await;
        let newcomer = format!("{}-newcomer", cluster.name);
        let light = Light {
            host,
            cluster,
            etcd,
            newcomer,
        };
        light.pause(true).await;
        Self::Light(light)
    }

    /// The members at the beginning, and a client.
    pub(crate) fn etcd(&self) -> &TestEtcd {
        match self {
            Self::Real(real) => &real.etcd,
            Self::Light(light) => &light.etcd,
        }
    }

    /// What asks members that no majority stands behind: through an API server nobody gets there.
    pub(crate) async fn beside(&self) -> Option<TestEtcd> {
        match self {
            Self::Real(_) => None,
            Self::Light(light) => Some(TestEtcd::beside(light.host, &light.cluster).await),
        }
    }

    /// The fourth member: its address, and where the others are to find it.
    pub(crate) fn newcomer(&self) -> (Address, String) {
        match self {
            Self::Real(real) => real.newcomer(),
            Self::Light(light) => {
                let url = format!("https://{}:2380", light.newcomer);
                (address_of(&light.newcomer), url)
            }
        }
    }

    /// Starts it. On the local cloud kubeadm does, which gives it its vote as well.
    pub(crate) async fn start_newcomer(&self) {
        match self {
            Self::Real(real) => real.start_newcomer(),
            Self::Light(light) => light.start_newcomer().await,
        }
    }

    /// Ends a member for good, without a word.
    pub(crate) async fn stop(&self, name: &str) {
        match self {
            Self::Real(real) => real.kill(name),
            Self::Light(light) => {
                let id = instance(light.host, &light.cluster, name).await;
                light.host.cloud.stop_instance(&id).await;
            }
        }
    }

    /// Cleans up.
    pub(crate) async fn end(self) {
        if let Self::Light(light) = self {
            let newcomer = instance(light.host, &light.cluster, &light.newcomer).await;
            light.host.cloud.delete_instance(&newcomer).await;
            light.pause(false).await;
            light.cluster.delete(light.host).await;
        }
    }
}

impl Light {
    async fn pause(&self, paused: bool) {
        let (namespace, name) = (&self.cluster.namespace, &self.cluster.name);
        let patch = json!({"spec": {"paused": paused}});
        let kube = self.host.kube();
        kube.merge(CLUSTER, namespace, name, &patch).await;
    }

    /// A machine like the last one that joined, with the same user data, of which no Machine knows.
    async fn start_newcomer(&self) {
        let (kube, namespace) = (self.host.kube(), &self.cluster.namespace);
        let mut machines = kube.list(MACHINE, namespace).await;
        machines.sort_by_key(|machine| machine["metadata"]["creationTimestamp"].to_string());
        let last = &machines.last().unwrap();
        let secret = last["spec"]["bootstrap"]["dataSecretName"]
            .as_str()
            .unwrap();
        let secret = kube.get(SECRET, namespace, secret).await.unwrap();
        let instances = self
            .host
            .cloud
            .of_cluster("instances", namespace, &self.cluster.name)
            .await;
        let like = instances
            .iter()
            .find(|instance| instance["name"] == last["metadata"]["name"])
            .unwrap();
        let wanted = json!({
            "name": self.newcomer, "networkId": like["networkId"], "type": like["type"],
            "image": like["image"], "tags": like["tags"], "userData": secret["data"]["value"],
        });
        self.host.cloud.create_instance(&wanted).await;
    }
}
