//! Decides whether a machine's KubeadmConfig is what the control plane would make today, without minding what makes no difference.

use serde_json::{Map, Value, json};

use crate::machine_config;

/// Whether a machine that was bootstrapped with `config` is up to date; `spec` is that of the KubeadmControlPlane.
///
/// The first machine was made with an init configuration; it counts as up to date when that still holds, or when the same settings are
/// now those of a joining machine.
pub(crate) fn is_current(spec: &Value, config: &Value) -> bool {
    let actual = canonical(config.clone());
    let joining = canonical(machine_config::for_join(spec));
    if config.get("joinConfiguration").is_some() {
        return actual == joining;
    }
    actual == canonical(machine_config::for_init(spec))
        || actual == joining
        || canonical(as_joining(config)) == without_init_lacks(joining)
}

/// Without what an init configuration has no field for: it says nothing about a machine that was made with one.
fn without_init_lacks(mut joining: Value) -> Value {
    if let Some(join) = joining.get_mut("joinConfiguration") {
        if let Some(fields) = join.as_object_mut() {
            fields.remove("caCertPath");
        }
        if !prune(join, "")
            && let Some(fields) = joining.as_object_mut()
        {
            fields.remove("joinConfiguration");
        }
    }
    joining
}

/// The config with its init configuration written as a join configuration.
fn as_joining(config: &Value) -> Value {
    let mut config = config.clone();
    let Some(fields) = config.as_object_mut() else {
        return config;
    };
    let Some(Value::Object(mut init)) = fields.remove("initConfiguration") else {
        return config;
    };
    let mut join = Map::new();
    for field in ["nodeRegistration", "patches", "skipPhases", "timeouts"] {
        if let Some(value) = init.remove(field) {
            join.insert(field.to_owned(), value);
        }
    }
    if let Some(endpoint) = init.remove("localAPIEndpoint") {
        join.insert(
            "controlPlane".to_owned(),
            json!({"localAPIEndpoint": endpoint}),
        );
    }
    fields.insert("joinConfiguration".to_owned(), Value::Object(join));
    config
}

/// Settings that machines of a cluster are not replaced for (contract 3.10): CoreDNS is updated where it runs, the endpoint is the cluster's,
/// and how long kubeadm waited says nothing about what came of it.
const IMMATERIAL: [(&str, &str); 4] = [
    ("/clusterConfiguration", "dns"),
    ("/clusterConfiguration", "controlPlaneEndpoint"),
    (
        "/initConfiguration/timeouts",
        "controlPlaneComponentHealthCheckSeconds",
    ),
    (
        "/joinConfiguration/timeouts",
        "controlPlaneComponentHealthCheckSeconds",
    ),
];

/// The config without what makes no difference: defaults written out, how a machine finds the cluster, and empty values.
fn canonical(mut config: Value) -> Value {
    for (pointer, field) in IMMATERIAL {
        if let Some(fields) = config.pointer_mut(pointer).and_then(Value::as_object_mut) {
            fields.remove(field);
        }
    }
    if let Some(join) = config
        .get_mut("joinConfiguration")
        .and_then(Value::as_object_mut)
    {
        join.remove("discovery");
    }
    if let Some(init) = config
        .get_mut("initConfiguration")
        .and_then(Value::as_object_mut)
    {
        init.remove("bootstrapTokens");
    }
    let defaults = [
        ("/format", json!("cloud-config")),
        (
            "/clusterConfiguration/certificatesDir",
            json!("/etc/kubernetes/pki"),
        ),
        (
            "/initConfiguration/nodeRegistration/imagePullPolicy",
            json!("IfNotPresent"),
        ),
        (
            "/joinConfiguration/nodeRegistration/imagePullPolicy",
            json!("IfNotPresent"),
        ),
        (
            "/initConfiguration/nodeRegistration/imagePullSerial",
            json!(true),
        ),
        (
            "/joinConfiguration/nodeRegistration/imagePullSerial",
            json!(true),
        ),
        ("/initConfiguration/localAPIEndpoint/bindPort", json!(6443)),
        (
            "/joinConfiguration/controlPlane/localAPIEndpoint/bindPort",
            json!(6443),
        ),
        (
            "/joinConfiguration/caCertPath",
            json!("/etc/kubernetes/pki/ca.crt"),
        ),
    ];
    for (pointer, default) in defaults {
        if let Some(value) = config.pointer_mut(pointer)
            && *value == default
        {
            *value = Value::Null;
        }
    }
    prune(&mut config, "");
    config
}

/// Removes nulls and what is empty. An empty list of taints stays: it means none, where its absence means kubeadm's.
fn prune(value: &mut Value, name: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| prune(value, name));
            !fields.is_empty()
        }
        Value::Array(items) => {
            for item in items.iter_mut() {
                prune(item, "");
            }
            !items.is_empty() || name == "taints"
        }
        Value::Null => false,
        // An argument's value may be empty on purpose.
        Value::String(text) => !text.is_empty() || name == "value",
        Value::Bool(_) | Value::Number(_) => true,
    }
}
