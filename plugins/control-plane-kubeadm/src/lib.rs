//! Control-plane plugin for machines that kubeadm makes a control plane of: answers what the host's engine asks about a KubeadmControlPlane.

mod desired;
mod in_cluster;
mod kinds;
mod machine_config;
mod outdated;
mod timestamp;

#[cfg(test)]
mod tests;

use capstan_sdk::bootstrap::Role;
use capstan_sdk::control_plane::{
    Component, Components, ControlPlane, ControlPlaneInput, DatastoreMember, Desired,
    InitializedWhen, MachineConfigInput, MachineInput,
};
use capstan_sdk::{Failure, Manifest, NoStatus, Plugin, Progress, Requirement};
use serde_json::Value;

/// The plugin.
#[derive(Debug)]
pub struct Kubeadm;

capstan_sdk::export_control_plane!(Kubeadm);

/// Namespace of a control plane's static pods.
const SYSTEM_NAMESPACE: &str = "kube-system";
/// Client port of etcd's members.
const ETCD_PORT: u16 = 2379;
/// Static pods of a control-plane machine, with the Machine's condition about each (contract 3.10).
const PODS: [(&str, &str); 4] = [
    ("kube-apiserver", "APIServerPodHealthy"),
    ("kube-controller-manager", "ControllerManagerPodHealthy"),
    ("kube-scheduler", "SchedulerPodHealthy"),
    ("etcd", "EtcdPodHealthy"),
];

/// Whether others run etcd; `spec` is that of the control plane.
fn has_external_etcd(spec: &Value) -> bool {
    spec.pointer("/kubeadmConfigSpec/clusterConfiguration/etcd/external")
        .is_some()
}

/// The pods that a machine of this control plane runs.
fn pods(spec: &Value) -> impl Iterator<Item = (&'static str, &'static str)> {
    let external = has_external_etcd(spec);
    PODS.into_iter()
        .filter(move |(pod, _)| !(external && *pod == "etcd"))
}

impl Plugin for Kubeadm {
    fn manifest() -> Manifest {
        Manifest::new("control-plane-kubeadm", env!("CARGO_PKG_VERSION"))
            .description("Makes control planes of machines with kubeadm.")
            .kind(kinds::control_plane())
            .kind(kinds::control_plane_template())
            .asks_for(in_cluster::capability())
    }
}

impl ControlPlane for Kubeadm {
    type Spec = Value;
    type Status = NoStatus;

    fn desired(input: ControlPlaneInput<Self>) -> Result<Desired, Failure> {
        desired::desired(&input.control_plane.spec)
    }

    fn requirements(input: ControlPlaneInput<Self>) -> Result<Vec<Requirement>, Failure> {
        Ok(desired::requirements(
            &input.control_plane.spec,
            input.cluster.name(),
        ))
    }

    fn machine_config(input: MachineConfigInput<Self>) -> Result<Value, Failure> {
        let spec = &input.control_plane.control_plane.spec;
        match input.role {
            Role::Init => Ok(machine_config::for_init(spec)),
            Role::JoinControlPlane => Ok(machine_config::for_join(spec)),
            Role::JoinWorker => Err(Failure::unsupported(
                "RoleUnsupported",
                "a control plane has no workers: this is the host's mistake",
            )),
        }
    }

    fn outdated(input: MachineInput<Self>) -> Result<Vec<String>, Failure> {
        let spec = &input.control_plane.control_plane.spec;
        let Some(config) = &input.bootstrap_config else {
            return Ok(Vec::new());
        };
        let is_current = outdated::is_current(spec, &config.spec);
        Ok(if is_current {
            Vec::new()
        } else {
            vec!["KubeadmConfig is not up-to-date".to_owned()]
        })
    }

    fn components(input: MachineInput<Self>) -> Result<Components, Failure> {
        let spec = &input.control_plane.control_plane.spec;
        let node = match &input.machine.status.node_ref {
            Some(node) => node.name.as_str(),
            None => input.machine.name(),
        };
        let component = |(pod, condition): (&str, &str)| Component {
            condition_type: condition.to_owned(),
            pod_namespace: SYSTEM_NAMESPACE.to_owned(),
            pod_name: format!("{pod}-{node}"),
        };
        let datastore = (!has_external_etcd(spec)).then(|| DatastoreMember {
            datastore_type: "etcd".to_owned(),
            pod_namespace: SYSTEM_NAMESPACE.to_owned(),
            pod_name: format!("etcd-{node}"),
            port: ETCD_PORT,
            certificate_authority: "etcd".to_owned(),
        });
        Ok(Components {
            components: pods(spec).map(component).collect(),
            datastore,
        })
    }

    fn initialized(_input: ControlPlaneInput<Self>) -> Result<InitializedWhen, Failure> {
        Ok(InitializedWhen::ObjectExists {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: SYSTEM_NAMESPACE.to_owned(),
            name: "kubeadm-config".to_owned(),
        })
    }

    fn before_rollout(input: ControlPlaneInput<Self>) -> Result<Progress, Failure> {
        in_cluster::before_rollout(&input)
    }

    fn after_stable(input: ControlPlaneInput<Self>) -> Result<Progress, Failure> {
        in_cluster::after_stable(&input)
    }
}
