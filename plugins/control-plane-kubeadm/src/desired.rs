//! Maps a KubeadmControlPlane onto the host's model of a control plane, and says what certificates it needs.

use capstan_sdk::control_plane::Desired;
use capstan_sdk::{Failure, Reference, Requirement};
use serde_json::{Value, json};

use crate::{has_external_etcd, pods, timestamp};

/// Conditions of a machine that the host finds out without a pod to look at (contract 3.10).
const NODE_GATE: &str = "NodeKubeadmLabelsAndTaintsSet";
const ETCD_MEMBER_GATE: &str = "EtcdMemberHealthy";

/// The control plane in the host's model; `spec` is that of the KubeadmControlPlane.
pub(crate) fn desired(spec: &Value) -> Result<Desired, Failure> {
    let text = |pointer: &str| {
        spec.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |pointer: &str| {
        spec.pointer(pointer)
            .and_then(Value::as_u64)
            .and_then(|number| u32::try_from(number).ok())
    };
    let object = |pointer: &str| spec.pointer(pointer).cloned().unwrap_or_else(|| json!({}));
    let template = Reference {
        api_group: text("/machineTemplate/spec/infrastructureRef/apiGroup").to_owned(),
        kind: text("/machineTemplate/spec/infrastructureRef/kind").to_owned(),
        name: text("/machineTemplate/spec/infrastructureRef/name").to_owned(),
    };
    let mut desired = Desired::new(
        number("/replicas").unwrap_or(1),
        text("/version"),
        template,
        "bootstrap.cluster.x-k8s.io",
        "KubeadmConfig",
    );
    desired.machine_labels = pairs(spec, "/machineTemplate/metadata/labels");
    desired.machine_annotations = pairs(spec, "/machineTemplate/metadata/annotations");
    desired.readiness_gates = readiness_gates(spec);
    desired.deletion = object("/machineTemplate/spec/deletion");
    desired.taints = spec
        .pointer("/machineTemplate/spec/taints")
        .cloned()
        .unwrap_or_else(|| json!([]));
    // The CRD's name for what the host calls the control plane.
    desired.machine_naming =
        text("/machineNaming/template").replace(".kubeadmControlPlane.name", ".controlPlane.name");
    desired.max_surge = max_surge(spec)?;
    desired.rollout_after_ms = match text("/rollout/after") {
        "" => None,
        after => Some(timestamp::unix_ms(after).ok_or_else(|| {
            Failure::terminal(
                "InvalidTime",
                format!("spec.rollout.after: {after:?} is not a time"),
            )
        })?),
    };
    desired.rollout_before_expiry_days = number("/rollout/before/certificatesExpiryDays");
    desired.remediation = object("/remediation");
    // The machines trust every certificate of an authority's file.
    desired
        .extra
        .insert("trustsSeveralAuthorities".to_owned(), json!(true));
    Ok(desired)
}

/// What an external etcd's certificates are asked for as: name, the end of the Secret's, and its key.
const EXTERNAL_ETCD: [(&str, &str, &str); 3] = [
    ("external-etcd-ca", "etcd", "tls.crt"),
    (
        "external-etcd-certificate",
        "apiserver-etcd-client",
        "tls.crt",
    ),
    ("external-etcd-key", "apiserver-etcd-client", "tls.key"),
];

/// The certificates of the control plane of this cluster.
pub(crate) fn requirements(spec: &Value, cluster_name: &str) -> Vec<Requirement> {
    let cluster =
        |field: &str| spec.pointer(&format!("/kubeadmConfigSpec/clusterConfiguration/{field}"));
    let algorithm = cluster("encryptionAlgorithm")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let days = cluster("caCertificateValidityPeriodDays").and_then(Value::as_u64);
    let days = days.and_then(|days| u32::try_from(days).ok()).unwrap_or(0);
    let authorities = [
        ("ca", "kubernetes"),
        ("etcd", "etcd-ca"),
        ("proxy", "front-proxy-ca"),
    ];
    let external = has_external_etcd(spec);
    let wanted = authorities
        .into_iter()
        .filter(|(name, _)| !(external && *name == "etcd"));
    let authority = |(name, common_name): (&str, &str)| Requirement::CertificateAuthority {
        name: name.to_owned(),
        common_name: common_name.to_owned(),
        algorithm: algorithm.to_owned(),
        validity_days: days,
    };
    let pair = Requirement::KeyPair {
        name: "sa".to_owned(),
        algorithm: algorithm.to_owned(),
    };
    let mut requirements: Vec<Requirement> = wanted.map(authority).chain([pair]).collect();
    if external {
        let brought = EXTERNAL_ETCD.map(|(name, purpose, key)| {
            Requirement::secret_value(name, format!("{cluster_name}-{purpose}"), key)
        });
        requirements.extend(brought);
    }
    requirements
}

fn pairs(spec: &Value, pointer: &str) -> Vec<(String, String)> {
    let Some(map) = spec.pointer(pointer).and_then(Value::as_object) else {
        return Vec::new();
    };
    map.iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn readiness_gates(spec: &Value) -> Value {
    let mut names = vec![NODE_GATE];
    names.extend(pods(spec).map(|(_, condition)| condition));
    if !has_external_etcd(spec) {
        names.push(ETCD_MEMBER_GATE);
    }
    let mut gates: Vec<Value> = names
        .iter()
        .map(|name| json!({"conditionType": name}))
        .collect();
    let own = spec
        .pointer("/machineTemplate/spec/readinessGates")
        .and_then(Value::as_array);
    for gate in own.map(Vec::as_slice).unwrap_or_default() {
        let name = gate.get("conditionType");
        if !gates.iter().any(|other| other.get("conditionType") == name) {
            gates.push(gate.clone());
        }
    }
    Value::Array(gates)
}

fn max_surge(spec: &Value) -> Result<u32, Failure> {
    match spec.pointer("/rollout/strategy/rollingUpdate/maxSurge") {
        None => Ok(1),
        Some(Value::String(text)) if text == "0" => Ok(0),
        Some(Value::String(text)) if text == "1" => Ok(1),
        Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(0),
        Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(1),
        Some(other) => Err(Failure::terminal(
            "InvalidMaxSurge",
            format!("spec.rollout.strategy.rollingUpdate.maxSurge: {other} must be 0 or 1"),
        )),
    }
}
