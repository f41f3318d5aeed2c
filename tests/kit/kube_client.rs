//! A client for tests: JSON in and out, independent of the client that is tested.

use std::fmt;

use bytes::Bytes;
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// A kind as tests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `group/version`, or `v1`.
    pub api_version: &'static str,
    /// Plural.
    pub plural: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $api:literal $plural:literal $namespaced:literal;)*) => {
        $($(#[$doc])* pub const $name: Kind = Kind { api_version: $api, plural: $plural, namespaced: $namespaced };)*
        /// Every kind that tests name.
        pub const ALL: &[Kind] = &[$($name),*];
    };
}

kinds! {
    /// Cluster
    CLUSTER = "cluster.x-k8s.io/v1beta2" "clusters" true;
    /// Machine
    MACHINE = "cluster.x-k8s.io/v1beta2" "machines" true;
    /// MachineSet
    MACHINE_SET = "cluster.x-k8s.io/v1beta2" "machinesets" true;
    /// MachineDeployment
    MACHINE_DEPLOYMENT = "cluster.x-k8s.io/v1beta2" "machinedeployments" true;
    /// MachinePool
    MACHINE_POOL = "cluster.x-k8s.io/v1beta2" "machinepools" true;
    /// MachineHealthCheck
    MACHINE_HEALTH_CHECK = "cluster.x-k8s.io/v1beta2" "machinehealthchecks" true;
    /// KubeadmControlPlane
    CONTROL_PLANE = "controlplane.cluster.x-k8s.io/v1beta2" "kubeadmcontrolplanes" true;
    /// KubeadmConfig
    BOOTSTRAP_CONFIG = "bootstrap.cluster.x-k8s.io/v1beta2" "kubeadmconfigs" true;
    /// KubeadmConfigTemplate
    BOOTSTRAP_TEMPLATE = "bootstrap.cluster.x-k8s.io/v1beta2" "kubeadmconfigtemplates" true;
    /// LocalCluster
    LOCAL_CLUSTER = "infrastructure.cluster.x-k8s.io/v1beta2" "localclusters" true;
    /// LocalMachine
    LOCAL_MACHINE = "infrastructure.cluster.x-k8s.io/v1beta2" "localmachines" true;
    /// LocalMachineTemplate
    LOCAL_MACHINE_TEMPLATE = "infrastructure.cluster.x-k8s.io/v1beta2" "localmachinetemplates" true;
    /// ClusterResourceSet
    CLUSTER_RESOURCE_SET = "addons.cluster.x-k8s.io/v1beta2" "clusterresourcesets" true;
    /// ClusterResourceSetBinding
    CLUSTER_RESOURCE_SET_BINDING = "addons.cluster.x-k8s.io/v1beta2" "clusterresourcesetbindings" true;
    /// IPAddressClaim
    IP_ADDRESS_CLAIM = "ipam.cluster.x-k8s.io/v1beta2" "ipaddressclaims" true;
    /// IPAddress
    IP_ADDRESS = "ipam.cluster.x-k8s.io/v1beta2" "ipaddresses" true;
    /// Provider, of clusterctl's inventory
    PROVIDER = "clusterctl.cluster.x-k8s.io/v1alpha3" "providers" true;
    /// Plugin
    PLUGIN = "capstan.dev/v1alpha1" "plugins" true;
    /// MachineHook
    MACHINE_HOOK = "capstan.dev/v1alpha1" "machinehooks" true;
    /// MachineDrainRule
    MACHINE_DRAIN_RULE = "cluster.x-k8s.io/v1beta2" "machinedrainrules" true;
    /// ConfigMap
    CONFIG_MAP = "v1" "configmaps" true;
    /// Secret
    SECRET = "v1" "secrets" true;
    /// Event
    EVENT = "events.k8s.io/v1" "events" true;
    /// Namespace
    NAMESPACE = "v1" "namespaces" false;
    /// Pod
    POD = "v1" "pods" true;
    /// Deployment
    DEPLOYMENT = "apps/v1" "deployments" true;
    /// PodDisruptionBudget
    BUDGET = "policy/v1" "poddisruptionbudgets" true;
    /// PersistentVolume
    PERSISTENT_VOLUME = "v1" "persistentvolumes" false;
    /// VolumeAttachment
    VOLUME_ATTACHMENT = "storage.k8s.io/v1" "volumeattachments" false;
    /// Node
    NODE = "v1" "nodes" false;
}

impl Kind {
    /// The path of the collection, or of one object.
    pub fn path(self, namespace: &str, name: Option<&str>) -> String {
        let root = if self.api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let mut path = format!("/{root}/{}", self.api_version);
        if self.namespaced && !namespace.is_empty() {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{name}"));
        }
        path
    }
}

/// What a server said no with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status; 0 when there was no answer.
    pub code: u16,
    /// The server's words.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

/// A client of one API server.
#[derive(Clone)]
pub struct Kube {
    client: Client,
}

impl Kube {
    /// Speaks as the kubeconfig's user.
    ///
    /// # Panics
    /// When it is not one.
    pub async fn from_kubeconfig(text: &str) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        Self {
            client: Client::try_from(config).unwrap(),
        }
    }

    /// The client below.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// One request with a JSON body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(bytes.unwrap_or_default())
            .unwrap();
        let answer = self.client.request_text(request).await;
        match answer {
            Ok(text) => Ok(serde_json::from_slice(&Bytes::from(text)).unwrap_or(Value::Null)),
            Err(kube::Error::Api(status)) => Err(Refusal {
                code: status.code,
                message: status.message.clone(),
            }),
            Err(other) => Err(Refusal {
                code: 0,
                message: other.to_string(),
            }),
        }
    }

    /// One object; `None` when there is none.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let answer = self.try_get(kind, namespace, name).await;
        answer.unwrap_or_else(|refusal| panic!("reading {kind:?} {namespace}/{name}: {refusal:?}"))
    }

    /// As [`Kube::get`].
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn try_get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Refusal> {
        let path = kind.path(namespace, Some(name));
        let answer = self
            .send(Method::GET, &path, "application/json", None)
            .await;
        match answer {
            Ok(object) => Ok(Some(object)),
            Err(refusal) if refusal.code == 404 => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// All objects of a kind in a namespace (`""`: in all); none when the kind is not served.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn list(&self, kind: Kind, namespace: &str) -> Vec<Value> {
        let answer = self.try_list(kind, namespace).await;
        answer.unwrap_or_else(|refusal| panic!("listing {kind:?} in {namespace:?}: {refusal:?}"))
    }

    /// As [`Kube::list`].
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn try_list(&self, kind: Kind, namespace: &str) -> Result<Vec<Value>, Refusal> {
        let path = kind.path(namespace, None);
        let answer = self
            .send(Method::GET, &path, "application/json", None)
            .await;
        match answer {
            Ok(list) => Ok(list["items"].as_array().cloned().unwrap_or_default()),
            Err(refusal) if refusal.code == 404 => Ok(Vec::new()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Creates an object.
    pub async fn try_create(&self, kind: Kind, object: &Value) -> Result<Value, Refusal> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let path = kind.path(namespace, None);
        self.send(Method::POST, &path, "application/json", Some(object))
            .await
    }

    /// Creates or changes an object by server-side apply, as kubectl does.
    pub async fn try_apply(&self, kind: Kind, object: &Value) -> Result<Value, Refusal> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str();
        let path = format!(
            "{}?fieldManager=kubectl&force=true",
            kind.path(namespace, name)
        );
        self.send(
            Method::PATCH,
            &path,
            "application/apply-patch+yaml",
            Some(object),
        )
        .await
    }

    /// As [`Kube::try_apply`].
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn apply(&self, kind: Kind, object: &Value) -> Value {
        let answer = self.try_apply(kind, object).await;
        answer.unwrap_or_else(|refusal| panic!("applying {object}: {refusal:?}"))
    }

    /// Changes an object by a merge patch.
    pub async fn try_merge(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Value, Refusal> {
        let path = kind.path(namespace, Some(name));
        self.send(
            Method::PATCH,
            &path,
            "application/merge-patch+json",
            Some(patch),
        )
        .await
    }

    /// As [`Kube::try_merge`].
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn merge(&self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Value {
        let answer = self.try_merge(kind, namespace, name, patch).await;
        answer.unwrap_or_else(|refusal| panic!("changing {name} by {patch}: {refusal:?}"))
    }

    /// Sets the replicas through the scale subresource, as `kubectl scale` does.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn scale(&self, kind: Kind, namespace: &str, name: &str, replicas: u32) {
        let path = format!("{}/scale", kind.path(namespace, Some(name)));
        let patch = json!({"spec": {"replicas": replicas}});
        let answer = self
            .send(
                Method::PATCH,
                &path,
                "application/merge-patch+json",
                Some(&patch),
            )
            .await;
        answer.unwrap_or_else(|refusal| panic!("scaling {name}: {refusal:?}"));
    }

    /// Deletes an object if it is there.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        if let Err(refusal) = self.try_delete(kind, namespace, name).await {
            panic!("deleting {kind:?} {namespace}/{name}: {refusal:?}");
        }
    }

    /// As [`Kube::delete`]; gone already is success.
    ///
    /// # Errors
    /// What the server says instead.
    pub async fn try_delete(&self, kind: Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
        let path = kind.path(namespace, Some(name));
        let answer = self
            .send(Method::DELETE, &path, "application/json", None)
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code == 404 => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }
}

/// A condition of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False`, `Unknown`, or empty when it is not there.
    pub status: String,
    /// One word.
    pub reason: String,
    /// Words.
    pub message: String,
}

/// The condition of this type, empty when the object does not have it.
pub fn condition(object: &Value, name: &str) -> Condition {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == name);
    let text = |key: &str| {
        let value = found.and_then(|c| c[key].as_str());
        value.unwrap_or_default().to_owned()
    };
    Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
    }
}

/// All conditions in short, for messages of tests that fail.
pub fn conditions(object: &Value) -> String {
    let all = object["status"]["conditions"].as_array();
    let lines = all.into_iter().flatten().map(|c| {
        format!(
            "{}={} {} {}",
            c["type"].as_str().unwrap_or_default(),
            c["status"].as_str().unwrap_or_default(),
            c["reason"].as_str().unwrap_or_default(),
            c["message"].as_str().unwrap_or_default()
        )
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// Whether a Machine is its cluster's control plane's.
pub fn is_control_plane(machine: &Value) -> bool {
    !machine["metadata"]["labels"]["cluster.x-k8s.io/control-plane"].is_null()
}

/// An object's name.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
