//! Roles and bindings that joining machines of newer versions rely on, made where an older kubeadm did not make them.

use capstan_sdk::Failure;
use capstan_sdk::workload::{self, ApiResource, ObjectName};
use serde_json::{Value, json};

use super::in_system;
use crate::SYSTEM_NAMESPACE;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Bindings of the whole cluster.
pub(super) const CLUSTER_BINDINGS: [&str; 2] =
    ["kubeadm:cluster-admins", "kubeadm:apiserver-kubelet-client"];

/// Roles, each with a binding of the same name, that let joining machines read kubeadm's maps.
pub(super) const MAP_ROLES: [&str; 2] = ["kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config"];

/// The maps of [`MAP_ROLES`], in the same order.
const MAPS: [&str; 2] = ["kubeadm-config", "kubelet-config"];

/// The first version whose administrators are a group of their own instead of `system:masters`.
const CLUSTER_ADMINS_SINCE: (u64, u64) = (1, 29);

/// Groups of machines that join, and of those that have.
const MACHINES: [&str; 2] = [
    "system:bootstrappers:kubeadm:default-node-token",
    "system:nodes",
];

/// Makes what is missing; what is there stays as it is.
pub(super) fn ensure(version: (u64, u64)) -> Result<(), Failure> {
    let bindings = [
        cluster_binding(
            CLUSTER_BINDINGS[0],
            "cluster-admin",
            "Group",
            "kubeadm:cluster-admins",
        ),
        cluster_binding(
            CLUSTER_BINDINGS[1],
            "system:kubelet-api-admin",
            "User",
            "kube-apiserver-kubelet-client",
        ),
    ];
    for (name, binding) in CLUSTER_BINDINGS.into_iter().zip(&bindings) {
        if name == CLUSTER_BINDINGS[0] && version < CLUSTER_ADMINS_SINCE {
            continue;
        }
        make(
            &resource("clusterrolebindings"),
            &ObjectName::cluster_scoped(name),
            binding,
        )?;
    }
    for (name, map) in MAP_ROLES.into_iter().zip(MAPS) {
        let role = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "Role",
            "metadata": {"namespace": SYSTEM_NAMESPACE, "name": name},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [map], "verbs": ["get"]}],
        });
        make(&resource("roles"), &in_system(name), &role)?;
        let subjects =
            MACHINES.map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group}));
        let binding = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding",
            "metadata": {"namespace": SYSTEM_NAMESPACE, "name": name},
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
            "subjects": subjects,
        });
        make(&resource("rolebindings"), &in_system(name), &binding)?;
    }
    Ok(())
}

fn resource(plural: &str) -> ApiResource {
    ApiResource::new(GROUP, "v1", plural)
}

fn cluster_binding(name: &str, role: &str, kind: &str, subject: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": kind, "name": subject}],
    })
}

fn make(resource: &ApiResource, name: &ObjectName, object: &Value) -> Result<(), Failure> {
    if workload::find(resource, name)?.is_none() {
        workload::apply(resource, object)?;
    }
    Ok(())
}
