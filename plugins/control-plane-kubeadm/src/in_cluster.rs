//! What a control plane of kubeadm needs inside its own cluster when its version or settings change: the `kubeadm-config` map and the
//! roles of joining machines before a roll-out, kube-proxy and CoreDNS after it (contract 3.10).

mod access;
mod cluster_configuration;
mod corefile;
mod dns;
mod image;
mod proxy;

use capstan_sdk::control_plane::ControlPlaneInput;
use capstan_sdk::workload::{ApiResource, ObjectName};
use capstan_sdk::{CapabilityRequest, Failure, Progress};
use serde_json::{Value, json};

use crate::{Kubeadm, SYSTEM_NAMESPACE};

#[cfg(test)]
mod tests;

/// Annotations by which the owner of a control plane keeps an add-on for themselves.
const SKIP_PROXY: &str = "controlplane.cluster.x-k8s.io/skip-kube-proxy";
const SKIP_DNS: &str = "controlplane.cluster.x-k8s.io/skip-coredns";

/// API group of roles and bindings.
const ACCESS: &str = "rbac.authorization.k8s.io";

/// What the plugin asks to do in workload clusters: these objects by name and nothing else.
pub(crate) fn capability() -> CapabilityRequest {
    let system = json!([SYSTEM_NAMESPACE]);
    CapabilityRequest::workload(
        "Keeps kubeadm's configuration in the cluster, kube-proxy and CoreDNS in step with the control plane: machines of another version join only then.",
    )
    .optional()
    .suggest(json!({"workload": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"],
            "namespaces": system, "names": ["kubeadm-config", "coredns"]},
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get", "patch"],
            "namespaces": system, "names": ["kube-proxy"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"],
            "namespaces": system, "names": ["coredns"]},
        {"apiGroups": [ACCESS], "resources": ["clusterrolebindings"], "verbs": ["get", "apply"],
            "names": access::CLUSTER_BINDINGS},
        {"apiGroups": [ACCESS], "resources": ["roles", "rolebindings"], "verbs": ["get", "apply"],
            "namespaces": system, "names": access::MAP_ROLES},
    ]}))
}

/// Before a machine joins that is to be other than those before it.
pub(crate) fn before_rollout(input: &ControlPlaneInput<Kubeadm>) -> Result<Progress, Failure> {
    let spec = &input.control_plane.spec;
    let version = version(spec)?;
    access::ensure(version)?;
    cluster_configuration::ensure(spec, version)?;
    Ok(Progress::Ready)
}

/// When every machine is as it should be.
pub(crate) fn after_stable(input: &ControlPlaneInput<Kubeadm>) -> Result<Progress, Failure> {
    let spec = &input.control_plane.spec;
    let annotations = &input.control_plane.metadata.annotations;
    if !annotations.contains_key(SKIP_PROXY) {
        proxy::ensure(spec)?;
    }
    if !annotations.contains_key(SKIP_DNS) {
        dns::ensure(spec)?;
    }
    Ok(Progress::Ready)
}

/// Major and minor version that the control plane is to have.
fn version(spec: &Value) -> Result<(u64, u64), Failure> {
    let text = text(spec, "/version");
    image::minor(text).ok_or_else(|| {
        Failure::terminal(
            "InvalidVersion",
            format!("spec.version: {text:?} is not a version such as v1.36.0"),
        )
    })
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The settings of the cluster as a whole.
fn cluster<'a>(spec: &'a Value, field: &str) -> Option<&'a Value> {
    spec.pointer(&format!("/kubeadmConfigSpec/clusterConfiguration/{field}"))
}

fn config_maps() -> ApiResource {
    ApiResource::core("configmaps")
}

fn in_system(name: &str) -> ObjectName {
    ObjectName::new(SYSTEM_NAMESPACE, name)
}

/// A merge patch that is refused when somebody else was faster.
fn guarded(object: &Value, mut patch: Value) -> Value {
    if let Some(fields) = patch.as_object_mut() {
        let version = object.pointer("/metadata/resourceVersion");
        let version = version.cloned().unwrap_or(Value::Null);
        if !version.is_null() {
            fields.insert("metadata".to_owned(), json!({"resourceVersion": version}));
        }
    }
    patch
}
