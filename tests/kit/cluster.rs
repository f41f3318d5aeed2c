//! A cluster of kubeadm machines in the local cloud: its objects, and what must become of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_controllers::pki;
use capstan_core::material::KeyAlgorithm;
use serde_json::{Value, json};

use crate::eventually::{PATIENCE, eventually};
use crate::host::TestHost;
use crate::kube_client::{
    self as kube, BOOTSTRAP_CONFIG, BOOTSTRAP_TEMPLATE, CLUSTER, CONTROL_PLANE, EVENT, Kind, Kube,
    LOCAL_CLUSTER, LOCAL_MACHINE, LOCAL_MACHINE_TEMPLATE, MACHINE, MACHINE_DEPLOYMENT,
    MACHINE_POOL, MACHINE_SET, NODE, SECRET, condition, conditions, is_control_plane, name,
};

/// The Kubernetes version that workers begin with.
pub const VERSION: &str = "v1.36.1";
/// The one that they are upgraded to: that of the control plane, which workers must not be ahead of.
pub const VERSION_NEXT: &str = "v1.36.3";

/// Kinds that may hold objects of a cluster.
pub const CLUSTER_KINDS: [Kind; 12] = [
    CLUSTER,
    MACHINE,
    MACHINE_SET,
    MACHINE_DEPLOYMENT,
    MACHINE_POOL,
    CONTROL_PLANE,
    BOOTSTRAP_CONFIG,
    BOOTSTRAP_TEMPLATE,
    LOCAL_CLUSTER,
    LOCAL_MACHINE,
    LOCAL_MACHINE_TEMPLATE,
    SECRET,
];

/// Control-plane machines and some workers, in a namespace that holds nothing else.
#[derive(Clone, Debug)]
pub struct TestCluster {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Workers at the beginning.
    pub workers: u32,
    /// The Kubernetes version of the control plane.
    pub version: String,
    /// The Kubernetes version that workers begin with.
    pub worker_version: String,
    /// `spec.backend` of the LocalCluster.
    pub backend: Option<String>,
    /// Annotations of the MachineDeployment.
    pub annotations: Value,
    /// Control-plane machines at the beginning.
    pub control_planes: u32,
    /// `spec.kubeadmConfigSpec.clusterConfiguration` of the control plane.
    pub cluster_configuration: Value,
    /// `spec.rollout` of the MachineDeployment.
    pub rollout: Option<Value>,
}

impl TestCluster {
    /// A cluster with this many workers.
    pub fn new(namespace: &str, name: &str, workers: u32) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            workers,
            version: VERSION_NEXT.to_owned(),
            worker_version: VERSION.to_owned(),
            backend: None,
            annotations: json!({}),
            control_planes: 1,
            cluster_configuration: Value::Null,
            rollout: None,
        }
    }

    /// The control plane's name.
    pub fn control_plane(&self) -> String {
        format!("{}-cp", self.name)
    }

    /// The MachineDeployment's name.
    pub fn deployment(&self) -> String {
        format!("{}-md-0", self.name)
    }

    /// Its objects, in the order in which a person would list them.
    pub fn objects(&self) -> Vec<(Kind, Value)> {
        let named = |name: &str| json!({"namespace": self.namespace, "name": name});
        let template = |name: &str| {
            json!({
                "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
                "metadata": named(name), "spec": {"template": {"spec": {"instanceType": "small"}}},
            })
        };
        let backend = self.backend.as_ref();
        let local = backend.map_or(json!({}), |backend| json!({"backend": backend}));
        let plane = self.control_plane();
        let mut config = json!({"initConfiguration": node_registration()});
        if !self.cluster_configuration.is_null() {
            config["clusterConfiguration"] = self.cluster_configuration.clone();
        }
        vec![
            (CLUSTER, self.cluster(&plane)),
            (
                LOCAL_CLUSTER,
                json!({
                    "apiVersion": LOCAL_CLUSTER.api_version, "kind": "LocalCluster",
                    "metadata": named(&self.name), "spec": local,
                }),
            ),
            (
                CONTROL_PLANE,
                json!({
                    "apiVersion": CONTROL_PLANE.api_version, "kind": "KubeadmControlPlane",
                    "metadata": named(&plane),
                    "spec": {
                        "replicas": self.control_planes, "version": self.version,
                        "machineTemplate": {"spec": {"infrastructureRef": infra_template(&plane)}},
                        "kubeadmConfigSpec": config,
                    },
                }),
            ),
            (LOCAL_MACHINE_TEMPLATE, template(&plane)),
            (MACHINE_DEPLOYMENT, self.machine_deployment()),
            (LOCAL_MACHINE_TEMPLATE, template(&self.deployment())),
            (
                BOOTSTRAP_TEMPLATE,
                json!({
                    "apiVersion": BOOTSTRAP_TEMPLATE.api_version, "kind": "KubeadmConfigTemplate",
                    "metadata": named(&self.deployment()),
                    "spec": {"template": {"spec": {"joinConfiguration": node_registration()}}},
                }),
            ),
        ]
    }

    fn cluster(&self, plane: &str) -> Value {
        json!({
            "apiVersion": CLUSTER.api_version, "kind": "Cluster",
            "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "clusterNetwork": {
                    "pods": {"cidrBlocks": ["10.244.0.0/16"]},
                    "services": {"cidrBlocks": ["10.96.0.0/16"]},
                },
                "infrastructureRef": {
                    "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalCluster", "name": self.name,
                },
                "controlPlaneRef": {
                    "apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": plane,
                },
            },
        })
    }

    fn machine_deployment(&self) -> Value {
        let name = self.deployment();
        let labels = json!({
            "cluster.x-k8s.io/cluster-name": self.name,
            "cluster.x-k8s.io/deployment-name": name,
        });
        let mut deployment = json!({
            "apiVersion": MACHINE_DEPLOYMENT.api_version, "kind": "MachineDeployment",
            "metadata": {"namespace": self.namespace, "name": name, "annotations": self.annotations},
            "spec": {
                "clusterName": self.name,
                "replicas": self.workers,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "clusterName": self.name,
                        "version": self.worker_version,
                        "bootstrap": {"configRef": {
                            "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfigTemplate", "name": name,
                        }},
                        "infrastructureRef": infra_template(&name),
                    },
                },
            },
        });
        if let Some(rollout) = &self.rollout {
            deployment["spec"]["rollout"] = rollout.clone();
        }
        deployment
    }

    /// Makes its namespace and its objects.
    pub async fn create(&self, kube: &Kube) {
        namespace(kube, &self.namespace).await;
        for (kind, object) in self.objects() {
            kube.apply(kind, &object).await;
        }
    }

    /// What keeps it from being Available with this many machines that are all Running with a Node; `Ok` when nothing does.
    pub async fn is_available(&self, kube: &Kube, workers: u32) -> Result<(), String> {
        let cluster = kube.get(CLUSTER, &self.namespace, &self.name).await;
        let cluster = cluster.ok_or("the Cluster does not exist")?;
        let machines = kube.list(MACHINE, &self.namespace).await;
        let mut mine: Vec<&Value> = Vec::new();
        for machine in &machines {
            if machine["spec"]["clusterName"] == self.name.as_str() {
                mine.push(machine);
            }
        }
        let phases = mine
            .iter()
            .map(|m| {
                format!(
                    "\n  {} {} {}",
                    name(m),
                    m["status"]["phase"].as_str().unwrap_or("-"),
                    conditions(m)
                )
            })
            .collect::<String>();
        if condition(&cluster, "Available").status != "True" {
            return Err(format!(
                "Cluster {}: {}{phases}",
                self.name,
                conditions(&cluster)
            ));
        }
        let running = mine.iter().filter(|machine| {
            machine["status"]["phase"] == "Running"
                && machine["status"]["nodeRef"]["name"].is_string()
                && condition(machine, "Available").status == "True"
        });
        let wanted = usize::try_from(workers + self.control_planes).unwrap();
        if mine.len() != wanted || running.count() != wanted {
            return Err(format!("not {wanted} machines that are Running:{phases}"));
        }
        Ok(())
    }

    /// Waits until it is Available with this many workers.
    pub async fn available(&self, host: &TestHost, workers: u32) {
        let what = format!("{} available with {workers} workers", self.name);
        eventually(&what, PATIENCE, async || {
            self.is_available(host.kube(), workers).await
        })
        .await;
    }

    /// Creates the Cluster and its infrastructure, without a control plane object.
    pub async fn create_alone(&self, kube: &Kube) {
        namespace(kube, &self.namespace).await;
        for (kind, mut object) in self.objects() {
            if kind == CLUSTER {
                let spec = object["spec"].as_object_mut().unwrap();
                spec.remove("controlPlaneRef");
            }
            if [CLUSTER, LOCAL_CLUSTER].contains(&kind) {
                kube.apply(kind, &object).await;
            }
        }
    }

    /// Brings an authority for it, as people do who make its control plane themselves.
    pub async fn bring_authority(&self, kube: &Kube) {
        let now = jiff::Timestamp::now();
        let authority =
            pki::certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now).unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {
                "namespace": self.namespace, "name": format!("{}-ca", self.name),
                "labels": {"cluster.x-k8s.io/cluster-name": self.name},
            },
            "stringData": {"tls.crt": authority.public, "tls.key": authority.private},
        });
        kube.apply(SECRET, &secret).await;
    }

    /// Its Machines of the control plane.
    pub async fn control_plane_machines(&self, kube: &Kube) -> Vec<Value> {
        let mut machines = kube.list(MACHINE, &self.namespace).await;
        machines.retain(is_control_plane);
        machines
    }

    /// Its other Machines.
    pub async fn workers(&self, kube: &Kube) -> Vec<Value> {
        let mut machines = kube.list(MACHINE, &self.namespace).await;
        machines.retain(|machine| !is_control_plane(machine));
        machines
    }

    /// The names of these.
    pub async fn worker_names(&self, kube: &Kube) -> Vec<String> {
        self.workers(kube).await.iter().map(name).collect()
    }

    /// Waits until its namespace has an event of this reason; answers it.
    pub async fn has_event(&self, kube: &Kube, reason: &str) -> Value {
        eventually(&format!("an event {reason}"), PATIENCE, async || {
            let events = kube.list(EVENT, &self.namespace).await;
            let found = events.iter().find(|event| event["reason"] == reason);
            found
                .cloned()
                .ok_or(format!("{} other events", events.len()))
        })
        .await
    }

    /// Waits until one of its Machines is gone.
    pub async fn loses(&self, kube: &Kube, machine: &str) {
        eventually(
            &format!("Machine {machine} goes"),
            PATIENCE,
            async || match kube.get(MACHINE, &self.namespace, machine).await {
                None => Ok(()),
                Some(object) => Err(conditions(&object)),
            },
        )
        .await;
    }

    /// Waits until its namespace has this many Machines, all of this version.
    pub async fn all_have_version(&self, kube: &Kube, version: &str, machines: usize) {
        let what = format!("{machines} Machines of version {version}");
        eventually(&what, PATIENCE, async || {
            let all = kube.list(MACHINE, &self.namespace).await;
            let is_new = |machine: &&Value| machine["spec"]["version"] == version;
            let count = all.iter().filter(is_new).count();
            (count == machines && all.len() == machines)
                .then_some(())
                .ok_or(format!("{count} of {}", all.len()))
        })
        .await;
    }

    /// Deletes the Cluster and waits until neither the API server nor the cloud has anything of it.
    pub async fn delete(&self, host: &TestHost) {
        host.kube()
            .delete(CLUSTER, &self.namespace, &self.name)
            .await;
        eventually("gone from the API server", PATIENCE, async || {
            self.is_gone(host.kube()).await
        })
        .await;
        eventually("gone from the cloud", PATIENCE, async || {
            host.cloud.has_nothing_of(&self.namespace, &self.name).await
        })
        .await;
    }

    /// What is left of it in its namespace; `Ok` when nothing is.
    pub async fn is_gone(&self, kube: &Kube) -> Result<(), String> {
        for kind in CLUSTER_KINDS {
            let left = kube.list(kind, &self.namespace).await;
            if let Some(first) = left.first() {
                return Err(format!(
                    "{} {} are left, such as {}: {} {}",
                    left.len(),
                    kind.plural,
                    name(first),
                    first["metadata"],
                    conditions(first)
                ));
            }
        }
        Ok(())
    }

    /// The text under a key of one of its Secrets, which is named for its purpose.
    ///
    /// # Errors
    /// When the server does not answer, or there is no such text.
    pub async fn try_secret(
        &self,
        kube: &Kube,
        purpose: &str,
        key: &str,
    ) -> Result<String, String> {
        let name = format!("{}-{purpose}", self.name);
        let secret = kube.try_get(SECRET, &self.namespace, &name).await;
        let secret = secret.map_err(|refusal| format!("Secret {name}: {refusal}"))?;
        let value = secret.and_then(|secret| {
            let value = BASE64.decode(secret["data"][key].as_str()?).ok()?;
            String::from_utf8(value).ok()
        });
        value.ok_or_else(|| format!("there is no {key} in Secret {name}"))
    }

    /// The kubeconfig that its owner would take.
    pub async fn kubeconfig(&self, kube: &Kube) -> String {
        let read = self.try_secret(kube, "kubeconfig", "value").await;
        read.unwrap()
    }

    /// A client for its workload cluster.
    pub async fn workload(&self, kube: &Kube) -> Kube {
        self.try_workload(kube).await.unwrap()
    }

    /// As [`TestCluster::workload`].
    ///
    /// # Errors
    /// When its kubeconfig cannot be read.
    pub async fn try_workload(&self, kube: &Kube) -> Result<Kube, String> {
        let kubeconfig = self.try_secret(kube, "kubeconfig", "value").await?;
        Ok(Kube::from_kubeconfig(&kubeconfig).await)
    }

    /// Compares the Nodes of the workload cluster with the Machines: as many, Ready, with the same provider IDs.
    pub async fn nodes_match(&self, kube: &Kube) -> Result<(), String> {
        let nodes = self.workload(kube).await.list(NODE, "").await;
        let ready = nodes.iter().all(|n| condition(n, "Ready").status == "True");
        let ids = |objects: &[Value]| {
            let mut ids: Vec<String> = objects
                .iter()
                .map(|o| o["spec"]["providerID"].as_str().unwrap_or("-").to_owned())
                .collect();
            ids.sort();
            ids
        };
        let machines = kube.list(MACHINE, &self.namespace).await;
        let (of_nodes, of_machines) = (ids(&nodes), ids(&machines));
        if of_nodes != of_machines {
            return Err(format!("Nodes have {of_nodes:?}, Machines {of_machines:?}"));
        }
        let all = nodes.iter().map(conditions).collect::<Vec<_>>();
        ready
            .then_some(())
            .ok_or(format!("not all Nodes are Ready: {all:?}"))
    }
}

fn node_registration() -> Value {
    json!({"nodeRegistration": {"name": "{{ ds.meta_data.local_hostname }}"}})
}

fn infra_template(name: &str) -> Value {
    json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": name})
}

/// Makes a namespace.
pub async fn namespace(kube: &Kube, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    kube.apply(kube::NAMESPACE, &namespace).await;
}
