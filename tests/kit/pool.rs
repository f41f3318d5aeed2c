//! A pool of machines whose infrastructure provider is the test: scale sets and their hosts, over the contract, of instances in the local cloud.

use serde_json::{Value, json};

use crate::cluster::{TestCluster, VERSION};
use crate::eventually::{PATIENCE, eventually};
use crate::foreign;
use crate::host::TestHost;
use crate::kube_client::{BOOTSTRAP_CONFIG, Kind, Kube, MACHINE_POOL, SECRET, conditions, name};

/// The provider's API group, which the host has its rights on from the start.
pub const GROUP: &str = "infrastructure.cluster.x-k8s.io";
/// Its finalizer.
pub const FINALIZER: &str = "scaleset.infrastructure.cluster.x-k8s.io";
/// Its pools.
pub const SCALE_SETS: Kind = kind("scalesets");
/// The hosts of those that show them one by one.
pub const SCALE_SET_HOSTS: Kind = kind("scalesethosts");

const fn kind(plural: &'static str) -> Kind {
    Kind {
        api_version: "infrastructure.cluster.x-k8s.io/v1",
        plural,
        namespaced: true,
    }
}

/// A MachinePool of a cluster, with its KubeadmConfig and its scale set, all of one name.
pub struct TestPool<'a> {
    kube: &'a Kube,
    host: &'a TestHost,
    cluster: &'a TestCluster,
    /// Name.
    pub name: String,
}

impl<'a> TestPool<'a> {
    /// A pool that was made before.
    pub fn known(host: &'a TestHost, cluster: &'a TestCluster, name: &str) -> Self {
        Self {
            kube: host.kube(),
            host,
            cluster,
            name: name.to_owned(),
        }
    }

    /// Installs the provider's kinds.
    pub async fn install(kube: &Kube) {
        let kinds = [("ScaleSet", SCALE_SETS), ("ScaleSetHost", SCALE_SET_HOSTS)];
        foreign::serve(kube, GROUP, &kinds).await;
    }

    /// Installs the provider's kinds and makes a pool of this many machines that do not exist yet.
    pub async fn create(
        host: &'a TestHost,
        cluster: &'a TestCluster,
        name: &str,
        replicas: u32,
    ) -> Self {
        let kube = host.kube();
        Self::install(kube).await;
        let pool = Self::known(host, cluster, name);
        for (kind, object) in pool.objects(replicas) {
            kube.apply(kind, &object).await;
        }
        pool
    }

    fn objects(&self, replicas: u32) -> [(Kind, Value); 3] {
        let metadata = json!({"namespace": self.cluster.namespace, "name": self.name});
        let reference =
            |group: &str, kind: &str| json!({"apiGroup": group, "kind": kind, "name": self.name});
        let mut owned = metadata.clone();
        owned["finalizers"] = json!([FINALIZER]);
        let config = json!({
            "apiVersion": BOOTSTRAP_CONFIG.api_version, "kind": "KubeadmConfig", "metadata": metadata,
            "spec": {"joinConfiguration": {"nodeRegistration": {"kubeletExtraArgs": [
                {"name": "node-labels", "value": "pool=yes"},
            ]}}},
        });
        let set = json!({
            "apiVersion": SCALE_SETS.api_version, "kind": "ScaleSet", "metadata": owned, "spec": {},
        });
        let pool = json!({
            "apiVersion": MACHINE_POOL.api_version, "kind": "MachinePool", "metadata": metadata,
            "spec": {
                "clusterName": self.cluster.name, "replicas": replicas,
                "template": {
                    "metadata": {"labels": {"node.cluster.x-k8s.io/of": "pool"}},
                    "spec": {
                        "clusterName": self.cluster.name, "version": VERSION,
                        "bootstrap": {"configRef": reference("bootstrap.cluster.x-k8s.io", "KubeadmConfig")},
                        "infrastructureRef": reference(GROUP, "ScaleSet"),
                    },
                },
            },
        });
        [
            (BOOTSTRAP_CONFIG, config),
            (SCALE_SETS, set),
            (MACHINE_POOL, pool),
        ]
    }

    /// The MachinePool.
    pub async fn object(&self) -> Value {
        let found = self.try_object().await;
        found.unwrap_or_else(|| panic!("MachinePool {} is gone", self.name))
    }

    /// The MachinePool, if it is there.
    pub async fn try_object(&self) -> Option<Value> {
        let namespace = &self.cluster.namespace;
        self.kube.get(MACHINE_POOL, namespace, &self.name).await
    }

    /// Waits until this is so of the MachinePool.
    pub async fn becomes(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, async || {
            let pool = self.object().await;
            let status = &pool["status"];
            let said = format!("{} {}\n{status}", conditions(&pool), pool["spec"]);
            is(&pool).then_some(pool).ok_or(said)
        })
        .await
    }

    /// The Secret with the machines' data, once the pool names it.
    pub async fn data(&self) -> Value {
        let named = |pool: &Value| {
            let bootstrap = &pool["spec"]["template"]["spec"]["bootstrap"];
            bootstrap["dataSecretName"].as_str().map(str::to_owned)
        };
        let pool = self
            .becomes("the pool has bootstrap data", |pool| named(pool).is_some())
            .await;
        let secret = named(&pool).unwrap();
        let found = self.kube.get(SECRET, &self.cluster.namespace, &secret);
        found.await.unwrap()
    }

    async fn instances(&self) -> Vec<Value> {
        let (namespace, cluster) = (&self.cluster.namespace, &self.cluster.name);
        let cloud = &self.host.cloud;
        cloud.of_cluster("instances", namespace, cluster).await
    }

    /// Makes a machine with the pool's data, and waits until it has become a node. Answers its provider ID.
    pub async fn launch(&self, machine: &str) -> String {
        let (namespace, cluster) = (&self.cluster.namespace, &self.cluster.name);
        let secret = self.data().await;
        let networks = self.host.cloud.of_cluster("networks", namespace, cluster);
        let body = json!({
            "name": machine,
            "networkId": networks.await[0]["id"],
            "type": "small",
            "image": VERSION,
            // Both are base64.
            "userData": secret["data"]["value"],
            "userDataFormat": "cloud-config",
            "tags": {"cluster": format!("{namespace}/{cluster}"), "pool": self.name},
        });
        self.host.cloud.create_instance(&body).await;
        eventually(&format!("{machine} has joined"), PATIENCE, async || {
            let all = self.instances().await;
            let found = all
                .into_iter()
                .find(|instance| name_of(instance) == machine);
            let found = found.ok_or("it is not there")?;
            let id = found["providerId"].as_str().map(str::to_owned);
            let is_done = found["bootstrap"]["state"] == "done";
            id.filter(|_| is_done).ok_or(found["bootstrap"].to_string())
        })
        .await
    }

    /// Takes a machine away.
    pub async fn terminate(&self, machine: &str) {
        for instance in self.instances().await {
            if name_of(&instance) == machine {
                let id = instance["id"].as_str().unwrap();
                self.host.cloud.delete_instance(id).await;
            }
        }
    }

    /// Says which machines there are.
    pub async fn say(&self, ids: &[String], status: Value) {
        let namespace = &self.cluster.namespace;
        let spec = json!({"spec": {"providerIDList": ids}});
        self.kube
            .merge(SCALE_SETS, namespace, &self.name, &spec)
            .await;
        let of_status = format!("{}/status", self.name);
        let mut said = json!({"status": status});
        said["status"]["replicas"] = json!(ids.len());
        self.kube
            .merge(SCALE_SETS, namespace, &of_status, &said)
            .await;
    }

    /// Shows a machine by an object of its own, as providers do that have Machines made.
    pub async fn show(&self, machine: &str, id: &str) {
        let namespace = &self.cluster.namespace;
        let object = json!({
            "apiVersion": SCALE_SET_HOSTS.api_version, "kind": "ScaleSetHost",
            "metadata": {"namespace": namespace, "name": machine, "labels": {
                "cluster.x-k8s.io/pool-name": self.name,
                "cluster.x-k8s.io/cluster-name": self.cluster.name,
            }},
            "spec": {"providerID": id},
        });
        self.kube.apply(SCALE_SET_HOSTS, &object).await;
        let status = json!({"status": {"initialization": {"provisioned": true}}});
        let of_status = format!("{machine}/status");
        self.kube
            .merge(SCALE_SET_HOSTS, namespace, &of_status, &status)
            .await;
    }

    /// Lets the scale set go.
    pub async fn release(&self) {
        let none = json!({"metadata": {"finalizers": []}});
        let namespace = &self.cluster.namespace;
        self.kube
            .merge(SCALE_SETS, namespace, &self.name, &none)
            .await;
    }

    /// Waits until the MachinePool is gone.
    pub async fn is_gone(&self) {
        eventually("the pool is gone", PATIENCE, async || {
            match self.try_object().await {
                None => Ok(()),
                Some(pool) => Err(conditions(&pool)),
            }
        })
        .await;
    }

    /// Names of the Nodes with the pool's label.
    pub async fn nodes(&self, workload: &Kube) -> Vec<String> {
        let all = workload.list(crate::kube_client::NODE, "").await;
        let own = all
            .iter()
            .filter(|node| node["metadata"]["labels"]["pool"] == "yes");
        own.map(name).collect()
    }
}

fn name_of(instance: &Value) -> &str {
    instance["name"].as_str().unwrap_or_default()
}
