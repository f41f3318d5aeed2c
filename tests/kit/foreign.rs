//! A provider that is no plugin: its kinds, its rights, its process, and clusters whose infrastructure is its own.

use std::path::Path;
use std::process::Child;

use capstan_local::process::{self, Record, Spec};
use serde_json::{Value, json};

use crate::cluster::{TestCluster, namespace};
use crate::eventually::{PATIENCE, eventually};
use crate::host::TestHost;
use crate::kube_client::{Kind, Kube, condition};

/// Its API group; its version is not that of the contract.
pub const GROUP: &str = "infrastructure.foreign.example";
/// Its finalizer.
pub const FINALIZER: &str = "infrastructure.foreign.example/finalizer";
/// Its clusters.
pub const CLUSTERS: Kind = kind("foreignclusters");
/// Its machines.
pub const MACHINES: Kind = kind("foreignmachines");
/// Its templates of machines.
pub const MACHINE_TEMPLATES: Kind = kind("foreignmachinetemplates");

const CRD: Kind = Kind {
    api_version: "apiextensions.k8s.io/v1",
    plural: "customresourcedefinitions",
    namespaced: false,
};
const CLUSTER_ROLE: Kind = Kind {
    api_version: "rbac.authorization.k8s.io/v1",
    plural: "clusterroles",
    namespaced: false,
};
const CLUSTER_ROLE_BINDING: Kind = Kind {
    api_version: "rbac.authorization.k8s.io/v1",
    plural: "clusterrolebindings",
    namespaced: false,
};

const USER: &str = "foreign-provider";

const fn kind(plural: &'static str) -> Kind {
    Kind {
        api_version: "infrastructure.foreign.example/v1",
        plural,
        namespaced: true,
    }
}

/// The running provider. Dropping it kills it.
pub struct ForeignProvider {
    child: Child,
    record: Record,
}

impl ForeignProvider {
    /// Installs its kinds and its rights, and starts its program.
    ///
    /// # Panics
    /// When that is not possible.
    pub async fn start(program: &Path, host: &TestHost) -> Self {
        install(host).await;
        let kubeconfig = host.plane.user_kubeconfig(USER, &[]).unwrap();
        let access = host.cloud.access();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let spec = Spec {
            name: USER.to_owned(),
            argv: vec![text(program), text(&kubeconfig), access.endpoint.clone()],
            cwd: None,
            env: vec![("CLOUD_TOKEN".to_owned(), access.token.clone())],
            log: host.plane.dir().join("foreign-provider.log"),
            ports: Vec::new(),
        };
        let (child, record) = process::spawn(&spec, None).unwrap();
        Self { child, record }
    }

    /// Whether it still runs, and if not, the end of its log.
    pub fn check(&self) -> Result<(), String> {
        if process::is_alive(&self.record) {
            return Ok(());
        }
        Err(process::log_tail(&self.record.log, 20))
    }
}

impl Drop for ForeignProvider {
    fn drop(&mut self) {
        // Fails only for a process that has already ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

const KINDS: [(&str, Kind); 3] = [
    ("ForeignCluster", CLUSTERS),
    ("ForeignMachine", MACHINES),
    ("ForeignMachineTemplate", MACHINE_TEMPLATES),
];

/// The version that the provider goes over to.
pub const NEXT: &str = "v2";

/// Has its kinds name [`NEXT`] as the version of the contract, as an upgrade in place does.
pub async fn upgrade(host: &TestHost) {
    for (name, kind) in KINDS {
        let definition = definition(GROUP, name, kind.plural, NEXT);
        host.kube().apply(CRD, &definition).await;
    }
}

async fn install(host: &TestHost) {
    let kube = host.kube();
    serve(kube, GROUP, &KINDS).await;
    // What the contract lets a provider do: its own kinds, and reading what they belong to.
    let role = json!({
        "apiVersion": CLUSTER_ROLE.api_version, "kind": "ClusterRole", "metadata": {"name": USER},
        "rules": [
            {"apiGroups": [GROUP], "resources": ["*"], "verbs": ["get", "list", "watch", "update", "patch"]},
            {"apiGroups": ["cluster.x-k8s.io"], "resources": ["clusters", "machines"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        ],
    });
    kube.apply(CLUSTER_ROLE, &role).await;
    let binding = json!({
        "apiVersion": CLUSTER_ROLE_BINDING.api_version, "kind": "ClusterRoleBinding", "metadata": {"name": USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": USER},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    kube.apply(CLUSTER_ROLE_BINDING, &binding).await;
}

/// Installs the kinds of a provider's group, and waits until they are served.
pub async fn serve(kube: &Kube, group: &str, kinds: &[(&str, Kind)]) {
    for (name, kind) in kinds {
        kube.apply(CRD, &definition(group, name, kind.plural, "v1"))
            .await;
    }
    for (_, kind) in kinds {
        let crd = format!("{}.{group}", kind.plural);
        eventually(&format!("{crd} is served"), PATIENCE, async || {
            let found = kube.get(CRD, "", &crd).await.ok_or("it is not there")?;
            let established = condition(&found, "Established");
            (established.status == "True")
                .then_some(())
                .ok_or(established.message)
        })
        .await;
    }
}

/// A kind as a provider's manifests have it: with the contract's label, and whatever fields.
fn definition(group: &str, kind: &str, plural: &str, named: &str) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = |name: &str, is_stored: bool| {
        json!({
            "name": name, "served": true, "storage": is_stored,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": open, "status": open},
            }},
        })
    };
    json!({
        "apiVersion": CRD.api_version, "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": {
                "cluster.x-k8s.io/v1beta2": named,
                "cluster.x-k8s.io/provider": "infrastructure-foreign",
                "clusterctl.cluster.x-k8s.io": "",
            },
        },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            "versions": [version("v1", true), version(NEXT, false)],
        },
    })
}

/// The objects of a cluster with this provider's infrastructure instead of the plugin's.
pub fn objects(cluster: &TestCluster) -> Vec<(Kind, Value)> {
    let all = cluster.objects().into_iter().map(|(kind, object)| {
        let mut object = renamed(object);
        let kind = match kind.plural {
            "localclusters" => CLUSTERS,
            "localmachinetemplates" => MACHINE_TEMPLATES,
            _ => return (kind, object),
        };
        object["apiVersion"] = json!(kind.api_version);
        (kind, object)
    });
    all.collect()
}

/// Every `Local…` kind and the group of it in references, replaced.
fn renamed(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, renamed(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(renamed).collect(),
        Value::String(text) => match text.strip_prefix("Local") {
            Some(rest) => json!(format!("Foreign{rest}")),
            None if text == "infrastructure.cluster.x-k8s.io" => json!(GROUP),
            None => json!(text),
        },
        other => other,
    }
}

/// Makes the namespace and the objects of a cluster.
pub async fn create(cluster: &TestCluster, host: &TestHost) {
    namespace(host.kube(), &cluster.namespace).await;
    for (kind, object) in objects(cluster) {
        host.kube().apply(kind, &object).await;
    }
}
