//! Control-plane plugin for servers that run k3s: no static pods, and a datastore that looks after its own members or is elsewhere.

use capstan_sdk::bootstrap::Role;
use capstan_sdk::control_plane::{
    ControlPlane, ControlPlaneInput, Desired, MachineConfigInput, MachineInput,
};
use capstan_sdk::schema::{Schema, any_object, integer, map, object, string};
use capstan_sdk::{
    Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin, Reference, Requirement,
};
use serde::Deserialize;
use serde_json::{Value, json};

const GROUP: &str = "controlplane.cluster.x-k8s.io";

/// `spec` of a K3sControlPlane.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct K3sControlPlaneSpec {
    /// Wanted servers.
    pub replicas: u32,
    /// Of k3s, such as `v1.36.3+k3s1`.
    pub version: String,
    /// What the machines are like.
    pub machine_template: MachineTemplate,
    /// `spec` of the servers' K3sConfigs.
    #[serde(default)]
    pub config: Value,
    /// Servers above `replicas` during a roll-out: 0 or 1.
    #[serde(default = "one")]
    pub max_surge: u32,
    /// `maxRetry`, `retryPeriodSeconds`, `minHealthyPeriodSeconds`.
    #[serde(default = "nothing")]
    pub remediation: Value,
}

/// What the machines are like, as Cluster API's contract has it.
#[derive(Clone, Debug, Deserialize)]
pub struct MachineTemplate {
    /// Labels and annotations.
    #[serde(default)]
    pub metadata: Value,
    /// Reference to the infrastructure template, and deletion settings.
    pub spec: MachineSpec,
}

/// `spec` of the machines.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// Template of the infrastructure machines.
    pub infrastructure_ref: Reference,
    /// How long each step of a deletion may take.
    #[serde(default = "nothing")]
    pub deletion: Value,
}

fn one() -> u32 {
    1
}

fn nothing() -> Value {
    json!({})
}

fn spec() -> Schema {
    let name = || string().length(1, 253);
    let reference = ["apiGroup", "kind", "name"]
        .into_iter()
        .fold(object(), |schema, field| schema.required(field, name()));
    let pairs = || map(string());
    let metadata = object()
        .field("labels", pairs())
        .field("annotations", pairs());
    let machine = object().required("infrastructureRef", reference).field(
        "deletion",
        any_object().describe("How long each step of a deletion may take."),
    );
    let minor = |of: &str| format!("int({of}.version.split('.')[1])");
    let external = |of: &str| format!("(has({of}.config) && has({of}.config.datastore))");
    let rule = |rule: String, field: &str, message: &str| json!({"rule": rule, "fieldPath": field, "message": message});
    let odd = format!("self.replicas % 2 == 1 || {}", external("self"));
    let next = format!("{} <= {} + 1", minor("self"), minor("oldSelf"));
    let same = format!("{} == {}", external("self"), external("oldSelf"));
    let rules = json!([
        rule(odd, ".replicas", "must be odd without config.datastore"),
        rule(next, ".version", "goes up by one minor version at a time"),
        rule(same, ".config", "may not gain or lose its datastore"),
    ]);
    object()
        .field("replicas", integer().range(1, 7).default(1))
        .required(
            "version",
            name().with("pattern", "^v[0-9]+\\.[0-9]+\\.[0-9]+"),
        )
        .required(
            "machineTemplate",
            object()
                .field("metadata", metadata)
                .required("spec", machine),
        )
        .field("config", config())
        .field("maxSurge", integer().range(0, 1).default(1))
        .field(
            "remediation",
            any_object().describe("maxRetry, retryPeriodSeconds, minHealthyPeriodSeconds."),
        )
        .with("x-kubernetes-validations", rules)
}

/// Fields of a K3sConfig that rules speak of; its own schema has the rest.
fn config() -> Schema {
    let datastore = object()
        .required("name", string())
        .required("key", string());
    object()
        .field("datastore", datastore)
        .with("x-kubernetes-preserve-unknown-fields", true)
        .describe("The servers' K3sConfig.")
}

fn pairs(metadata: &Value, field: &str) -> Vec<(String, String)> {
    let pairs = metadata
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The plugin.
#[derive(Debug)]
pub struct K3s;

impl Plugin for K3s {
    fn manifest() -> Manifest {
        Manifest::new("control-plane-k3s", env!("CARGO_PKG_VERSION"))
            .description("Makes control planes of servers that run k3s.")
            .kind(OwnedKind::new(KindRole::ControlPlane, GROUP, "K3sControlPlane").spec(spec()))
    }
}

impl ControlPlane for K3s {
    type Spec = K3sControlPlaneSpec;
    type Status = NoStatus;

    fn desired(input: ControlPlaneInput<Self>) -> Result<Desired, Failure> {
        let spec = input.control_plane.spec;
        let template = spec.machine_template;
        let mut desired = Desired::new(
            spec.replicas,
            spec.version,
            template.spec.infrastructure_ref,
            "bootstrap.cluster.x-k8s.io",
            "K3sConfig",
        );
        desired.machine_labels = pairs(&template.metadata, "labels");
        desired.machine_annotations = pairs(&template.metadata, "annotations");
        desired.deletion = template.spec.deletion;
        desired.max_surge = spec.max_surge;
        desired.remediation = spec.remediation;
        Ok(desired)
    }

    fn requirements(_: ControlPlaneInput<Self>) -> Result<Vec<Requirement>, Failure> {
        Ok(vec![
            Requirement::certificate_authority("ca", "kubernetes"),
            Requirement::shared_secret("k3s-token", 32),
        ])
    }

    fn machine_config(input: MachineConfigInput<Self>) -> Result<Value, Failure> {
        if input.role == Role::JoinWorker {
            return Err(Failure::unsupported(
                "RoleUnsupported",
                "a control plane has no agents",
            ));
        }
        Ok(config_of(&input.control_plane.control_plane.spec))
    }

    fn outdated(input: MachineInput<Self>) -> Result<Vec<String>, Failure> {
        let wanted = config_of(&input.control_plane.control_plane.spec);
        let differs = input
            .bootstrap_config
            .is_some_and(|config| config.spec != wanted);
        Ok(differs
            .then(|| "K3sConfig is not up-to-date".to_owned())
            .into_iter()
            .collect())
    }
}

fn config_of(spec: &K3sControlPlaneSpec) -> Value {
    if spec.config.is_null() {
        json!({})
    } else {
        spec.config.clone()
    }
}

capstan_sdk::export_control_plane!(K3s);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::Object;
    use capstan_sdk::testing::{control_plane_input, machine};

    fn spec(config: &Value) -> Value {
        json!({"replicas": 3, "version": "v1.36.3+k3s1", "config": config, "machineTemplate": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"infrastructureRef": {"apiGroup": "x.y", "kind": "RackMachineTemplate", "name": "cp"}}}})
    }

    #[test]
    fn the_spec_is_mapped_onto_the_hosts_model() {
        let input = control_plane_input::<K3s>(spec(&json!({}))).unwrap();
        let desired = K3s::desired(input).unwrap();
        assert_eq!(
            (
                desired.replicas,
                desired.max_surge,
                desired.bootstrap_kind.as_str()
            ),
            (3, 1, "K3sConfig")
        );
        assert_eq!(desired.machine_labels, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(desired.infrastructure_template.name, "cp");
    }

    #[test]
    fn a_server_with_another_config_is_outdated() {
        let outdated = |config: Value| {
            let bootstrap = json!({"kind": "K3sConfig", "metadata": {"name": "a"}, "spec": config});
            K3s::outdated(MachineInput {
                control_plane: control_plane_input(spec(&json!({"config": ["a: b"]}))).unwrap(),
                machine: machine().unwrap(),
                bootstrap_config: Some(Object::from_value(bootstrap).unwrap()),
                infra_machine: None,
            })
            .unwrap()
        };
        assert!(outdated(json!({"config": ["a: b"]})).is_empty());
        assert_eq!(outdated(json!({})), ["K3sConfig is not up-to-date"]);
    }
}
