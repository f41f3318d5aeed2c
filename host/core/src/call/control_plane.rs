//! Control-plane calls: `wit/v0.1/control-plane.wit`.

use serde_json::Value;

use super::bootstrap::Role;
use super::{Context, Endpoint, Extra};

/// Input that all control-plane calls share.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlaneInput {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Value,
    /// The control plane object.
    pub control_plane: Value,
    /// Room for growth.
    pub extra: Extra,
}

/// A reference within the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectReference {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// The plugin's kind in the host's model.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Wanted machines.
    pub replicas: u32,
    /// With a leading v.
    pub version: String,
    /// Infrastructure machine template.
    pub infrastructure_template: ObjectReference,
    /// Group of the bootstrap config.
    pub bootstrap_group: String,
    /// Kind of the bootstrap config.
    pub bootstrap_kind: String,
    /// Labels of the machines.
    pub machine_labels: Vec<(String, String)>,
    /// Annotations of the machines.
    pub machine_annotations: Vec<(String, String)>,
    /// `spec.readinessGates` of the Machines.
    pub readiness_gates: Value,
    /// `spec.deletion` of the Machines.
    pub deletion: Value,
    /// `spec.taints` of the Machines.
    pub taints: Value,
    /// Empty for the host's default.
    pub machine_naming: String,
    /// 0 or 1.
    pub max_surge: u32,
    /// Roll out machines older than this, in milliseconds since the Unix epoch.
    pub rollout_after_ms: Option<u64>,
    /// Roll out machines whose certificates end within so many days.
    pub rollout_before_expiry_days: Option<u32>,
    /// Remediation settings.
    pub remediation: Value,
    /// Room for growth.
    pub extra: Extra,
}

/// Input of `machine-config`.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineConfigInput {
    /// The control plane.
    pub control_plane: ControlPlaneInput,
    /// What the machine will be.
    pub role: Role,
    /// Its name.
    pub machine_name: String,
    /// When known.
    pub control_plane_endpoint: Option<Endpoint>,
}

/// Input of `outdated` and `components`.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlaneMachineInput {
    /// The control plane.
    pub control_plane: ControlPlaneInput,
    /// The Machine.
    pub machine: Value,
    /// When it exists.
    pub bootstrap_config: Option<Value>,
    /// When it exists.
    pub infra_machine: Option<Value>,
}

/// A static pod to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Condition type on the Machine.
    pub condition_type: String,
    /// Pod namespace.
    pub pod_namespace: String,
    /// Pod name.
    pub pod_name: String,
}

/// A member of the datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreMember {
    /// `etcd`.
    pub datastore_type: String,
    /// Pod namespace.
    pub pod_namespace: String,
    /// Pod name.
    pub pod_name: String,
    /// Client port.
    pub port: u16,
    /// Name of the certificate authority requirement.
    pub certificate_authority: String,
}

/// What to look at on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components {
    /// Static pods.
    pub components: Vec<Component>,
    /// Datastore member.
    pub datastore: Option<DatastoreMember>,
}

/// When the control plane counts as initialized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitializedWhen {
    /// The API server answers.
    ApiServerAnswers,
    /// An object exists in the workload cluster.
    ObjectExists {
        /// Such as `v1`.
        api_version: String,
        /// Such as `ConfigMap`.
        kind: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}
