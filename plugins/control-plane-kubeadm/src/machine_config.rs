//! Writes the spec of the KubeadmConfig for the next machine.

use serde_json::{Value, json};

/// First and last minor version of Kubernetes 1 for which the kubelet of a control-plane machine has to be told to use its own API server
/// while it joins (contract 3.10).
const LOCAL_MODE_MINORS: std::ops::Range<u64> = 31..36;
/// The gate of kubeadm that does it; kubeadm of later versions refuses it.
pub(crate) const LOCAL_MODE_GATE: &str = "ControlPlaneKubeletLocalMode";

/// For the first machine; `spec` is that of the KubeadmControlPlane.
pub(crate) fn for_init(spec: &Value) -> Value {
    without(spec, "joinConfiguration")
}

/// For every further machine.
pub(crate) fn for_join(spec: &Value) -> Value {
    without(spec, "initConfiguration")
}

fn without(spec: &Value, field: &str) -> Value {
    let mut config = spec
        .get("kubeadmConfigSpec")
        .cloned()
        .unwrap_or_else(|| json!({}));
    if let Some(fields) = config.as_object_mut() {
        fields.remove(field);
        if let Some((gate, value)) = local_mode_gate(spec) {
            let cluster = fields
                .entry("clusterConfiguration")
                .or_insert_with(|| json!({}));
            if let Some(cluster) = cluster.as_object_mut() {
                let gates = cluster.entry("featureGates").or_insert_with(|| json!({}));
                if let Some(gates) = gates.as_object_mut() {
                    gates.entry(gate).or_insert(value);
                }
            }
        }
        // A spec without any field is not valid.
        if fields.is_empty() {
            fields.insert("format".to_owned(), json!("cloud-config"));
        }
    }
    config
}

/// The feature gate that machines of this version need unless the object sets it.
pub(crate) fn local_mode_gate(spec: &Value) -> Option<(&'static str, Value)> {
    let version = spec.get("version").and_then(Value::as_str)?;
    needs_local_mode(version).then_some((LOCAL_MODE_GATE, Value::Bool(true)))
}

fn needs_local_mode(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map(str::parse::<u64>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(1)), Some(Ok(minor))) if LOCAL_MODE_MINORS.contains(&minor))
}
