//! The smallest control-plane provider: a control plane whose machines are set up by the bootstrap provider beside it.

use capstan_sdk::bootstrap::Role;
use capstan_sdk::control_plane::{
    Component, Components, ControlPlane, ControlPlaneInput, Desired, MachineConfigInput,
    MachineInput,
};
use capstan_sdk::schema::{integer, object, string};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::{
    Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin, Reference, Requirement,
};
use serde::Deserialize;

/// `spec` of a ScriptControlPlane.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptControlPlaneSpec {
    /// Wanted machines.
    pub replicas: u32,
    /// Kubernetes version.
    pub version: String,
    /// Template of the machines.
    pub infrastructure_template: Reference,
}

/// The plugin.
pub struct ScriptControlPlane;

impl Plugin for ScriptControlPlane {
    fn manifest() -> Manifest {
        let reference = ["apiGroup", "kind", "name"]
            .into_iter()
            .fold(object(), |schema, field| {
                schema.required(field, string().length(1, 253))
            });
        let spec = object()
            .required("replicas", integer().range(1, 7))
            .required("version", string().length(1, 256))
            .required("infrastructureTemplate", reference);
        let group = "controlplane.cluster.x-k8s.io";
        Manifest::new("control-plane-script", env!("CARGO_PKG_VERSION"))
            .description("A control plane of machines that are set up by one program.")
            .kind(OwnedKind::new(KindRole::ControlPlane, group, "ScriptControlPlane").spec(spec))
    }
}

impl ControlPlane for ScriptControlPlane {
    type Spec = ScriptControlPlaneSpec;
    type Status = NoStatus;

    fn desired(input: ControlPlaneInput<Self>) -> Result<Desired, Failure> {
        let spec = input.control_plane.spec;
        let template = spec.infrastructure_template;
        let group = "bootstrap.cluster.x-k8s.io";
        Ok(Desired::new(
            spec.replicas,
            spec.version,
            template,
            group,
            "ScriptConfig",
        ))
    }

    fn requirements(_: ControlPlaneInput<Self>) -> Result<Vec<Requirement>, Failure> {
        Ok(vec![Requirement::certificate_authority("ca", "kubernetes")])
    }

    fn machine_config(input: MachineConfigInput<Self>) -> Result<Value, Failure> {
        let first = input.role == Role::Init;
        Ok(json!({"program": if first { "/usr/bin/control-plane-init" } else { "/usr/bin/node" }}))
    }

    fn components(input: MachineInput<Self>) -> Result<Components, Failure> {
        let node = input.machine.status.node_ref.unwrap_or_default().name;
        let api_server = Component {
            condition_type: "APIServerPodHealthy".to_owned(),
            pod_namespace: "kube-system".to_owned(),
            pod_name: format!("kube-apiserver-{node}"),
        };
        Ok(Components {
            components: vec![api_server],
            datastore: None,
        })
    }
}

capstan_sdk::export_control_plane!(ScriptControlPlane);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::testing::control_plane_input;

    #[test]
    fn maps_its_spec_onto_the_hosts_model() {
        let template = json!({"apiGroup": "a.b", "kind": "RackMachineTemplate", "name": "cp"});
        let spec = json!({"replicas": 3, "version": "v1.36.0", "infrastructureTemplate": template});
        let desired = ScriptControlPlane::desired(control_plane_input(spec).unwrap()).unwrap();
        assert_eq!((desired.replicas, desired.version.as_str()), (3, "v1.36.0"));
        assert_eq!(desired.infrastructure_template.name, "cp");
    }
}
