//! Control-plane providers: small answers about one kind of control plane, for the engine in the host.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::answer::{Endpoint, Failure, Progress, each};
use crate::bindings::base::capstan::plugin::{material as wit_material, types};
use crate::bindings::control_plane::exports::capstan::plugin::control_plane as wit;
use crate::bootstrap::Role;
use crate::context::{Context, Extra, read_extra, write_extra};
use crate::export::{Exported, input_traits};
use crate::kinds::{Cluster, Machine, Reference};
use crate::manifest::Plugin;
use crate::material::Requirement;
use crate::object::Object;

/// A control-plane provider. The host creates, scales, rolls out, remediates and deletes; it owns certificates, kubeconfig, quorum
/// and conditions.
pub trait ControlPlane: Plugin {
    /// The provider's own fields in the `spec` of its kind.
    type Spec: DeserializeOwned + Clone + Debug;
    /// The provider's own fields in the `status` of its kind; [`NoStatus`](crate::NoStatus) when it has none.
    type Status: DeserializeOwned + Clone + Debug + Default;

    /// The plugin's own kind in the host's model.
    ///
    /// # Errors
    /// What the host shows in the object's condition, and when it tries again.
    fn desired(input: ControlPlaneInput<Self>) -> Result<Desired, Failure>;

    /// Certificates and secrets that the host must have ready.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn requirements(input: ControlPlaneInput<Self>) -> Result<Vec<Requirement>, Failure>;

    /// `spec` of the bootstrap config for the next machine, as a JSON object.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn machine_config(input: MachineConfigInput<Self>) -> Result<Value, Failure>;

    /// Why this machine is not up to date, a sentence each. The host adds version, template, roll-out times and expiry.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn outdated(input: MachineInput<Self>) -> Result<Vec<String>, Failure> {
        let _ = input;
        Ok(Vec::new())
    }

    /// What to look at on this machine. Nothing, unless the provider says otherwise.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn components(input: MachineInput<Self>) -> Result<Components, Failure> {
        let _ = input;
        Ok(Components::default())
    }

    /// When the control plane counts as initialized: when its API server answers, unless the provider says otherwise.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn initialized(input: ControlPlaneInput<Self>) -> Result<InitializedWhen, Failure> {
        let _ = input;
        Ok(InitializedWhen::ApiServerAnswers)
    }

    /// In-cluster work before a machine joins those that are there, also one like them: a roll-out that was taken back may have left something behind. Done again before each. None, unless the provider says otherwise.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn before_rollout(input: ControlPlaneInput<Self>) -> Result<Progress, Failure> {
        let _ = input;
        Ok(Progress::Ready)
    }

    /// In-cluster work when all machines are up to date. None, unless the provider says otherwise.
    ///
    /// # Errors
    /// As for [`desired`](Self::desired).
    fn after_stable(input: ControlPlaneInput<Self>) -> Result<Progress, Failure> {
        let _ = input;
        Ok(Progress::Ready)
    }
}

/// Input that all functions share.
pub struct ControlPlaneInput<P: ControlPlane + ?Sized> {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Cluster,
    /// The control plane object.
    pub control_plane: Object<P::Spec, P::Status>,
    /// Room for growth.
    pub extra: Extra,
}

input_traits!(ControlPlaneInput<ControlPlane> { context, cluster, control_plane, extra });

/// Input of `machine_config`.
pub struct MachineConfigInput<P: ControlPlane + ?Sized> {
    /// The control plane.
    pub control_plane: ControlPlaneInput<P>,
    /// What the machine will be.
    pub role: Role,
    /// Its name.
    pub machine_name: String,
    /// The cluster's control plane endpoint, when it is known.
    pub control_plane_endpoint: Option<Endpoint>,
}

input_traits!(MachineConfigInput<ControlPlane> { control_plane, role, machine_name, control_plane_endpoint });

/// Input of `outdated` and `components`.
pub struct MachineInput<P: ControlPlane + ?Sized> {
    /// The control plane.
    pub control_plane: ControlPlaneInput<P>,
    /// The Machine.
    pub machine: Machine,
    /// Its bootstrap config, when it exists.
    pub bootstrap_config: Option<Object<Value, Value>>,
    /// Its infrastructure machine, when it exists.
    pub infra_machine: Option<Object<Value, Value>>,
}

input_traits!(MachineInput<ControlPlane> { control_plane, machine, bootstrap_config, infra_machine });

/// The plugin's own kind in the host's model. Start from [`Desired::new`] and set what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Wanted machines.
    pub replicas: u32,
    /// With a leading v.
    pub version: String,
    /// Template of the infrastructure machines.
    pub infrastructure_template: Reference,
    /// Group of the bootstrap config that `machine_config` answers with.
    pub bootstrap_group: String,
    /// Kind of it.
    pub bootstrap_kind: String,
    /// Labels of the Machines.
    pub machine_labels: Vec<(String, String)>,
    /// Annotations of the Machines.
    pub machine_annotations: Vec<(String, String)>,
    /// `spec.readinessGates` of the Machines, a JSON list.
    pub readiness_gates: Value,
    /// `spec.deletion` of the Machines, a JSON object.
    pub deletion: Value,
    /// `spec.taints` of the Machines, a JSON list.
    pub taints: Value,
    /// Template of machine names, empty for the host's default.
    pub machine_naming: String,
    /// Machines above `replicas` during a roll-out: 0 or 1.
    pub max_surge: u32,
    /// Roll out machines created before this time, in milliseconds since the Unix epoch.
    pub rollout_after_ms: Option<u64>,
    /// Roll out machines whose certificates end within so many days.
    pub rollout_before_expiry_days: Option<u32>,
    /// `maxRetry`, `retryPeriodSeconds`, `minHealthyPeriodSeconds`, a JSON object.
    pub remediation: Value,
    /// Room for growth.
    pub extra: Extra,
}

impl Desired {
    /// What every control plane must say; surge 1 and the host's defaults for the rest.
    pub fn new(
        replicas: u32,
        version: impl Into<String>,
        infrastructure_template: Reference,
        bootstrap_group: impl Into<String>,
        bootstrap_kind: impl Into<String>,
    ) -> Self {
        Self {
            replicas,
            version: version.into(),
            infrastructure_template,
            bootstrap_group: bootstrap_group.into(),
            bootstrap_kind: bootstrap_kind.into(),
            machine_labels: Vec::new(),
            machine_annotations: Vec::new(),
            readiness_gates: json!([]),
            deletion: json!({}),
            taints: json!([]),
            machine_naming: String::new(),
            max_surge: 1,
            rollout_after_ms: None,
            rollout_before_expiry_days: None,
            remediation: json!({}),
            extra: Extra::new(),
        }
    }
}

/// A static pod to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Condition type on the Machine, such as `APIServerPodHealthy`.
    pub condition_type: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
}

/// A member of the control plane's datastore on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreMember {
    /// `etcd` is the only one so far.
    pub datastore_type: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Client port.
    pub port: u16,
    /// Name of the certificate authority requirement that signs its certificates.
    pub certificate_authority: String,
}

/// What to look at on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components {
    /// Static pods.
    pub components: Vec<Component>,
    /// The datastore member, when there is one.
    pub datastore: Option<DatastoreMember>,
}

/// When the control plane counts as initialized. The host looks.
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

impl<P: ControlPlane> ControlPlaneInput<P> {
    fn read(input: wit::ControlPlaneInput) -> Result<Self, Failure> {
        Ok(Self {
            context: Context::read(input.context)?,
            cluster: Object::read_foreign(&input.cluster, "cluster")?,
            control_plane: Object::read(&input.control_plane, "control-plane")?,
            extra: read_extra(input.extra)?,
        })
    }
}

impl<P: ControlPlane> MachineConfigInput<P> {
    fn read(input: wit::MachineConfigInput) -> Result<Self, Failure> {
        Ok(Self {
            control_plane: ControlPlaneInput::read(input.control_plane)?,
            role: Role::read(input.role),
            machine_name: input.machine_name,
            control_plane_endpoint: input.control_plane_endpoint.map(Into::into),
        })
    }
}

impl<P: ControlPlane> MachineInput<P> {
    fn read(input: wit::MachineInput) -> Result<Self, Failure> {
        Ok(Self {
            control_plane: ControlPlaneInput::read(input.control_plane)?,
            machine: Object::read_foreign(&input.machine, "machine")?,
            bootstrap_config: Object::read_optional(input.bootstrap_config, "bootstrap-config")?,
            infra_machine: Object::read_optional(input.infra_machine, "infra-machine")?,
        })
    }
}

impl From<Desired> for wit::DesiredState {
    fn from(desired: Desired) -> Self {
        Self {
            replicas: desired.replicas,
            version: desired.version,
            infrastructure_template: wit::ObjectReference {
                group: desired.infrastructure_template.api_group,
                kind: desired.infrastructure_template.kind,
                name: desired.infrastructure_template.name,
            },
            bootstrap_group: desired.bootstrap_group,
            bootstrap_kind: desired.bootstrap_kind,
            machine_labels: desired.machine_labels,
            machine_annotations: desired.machine_annotations,
            readiness_gates: desired.readiness_gates.to_string(),
            deletion: desired.deletion.to_string(),
            taints: desired.taints.to_string(),
            machine_naming: desired.machine_naming,
            max_surge: desired.max_surge,
            rollout_after_ms: desired.rollout_after_ms,
            rollout_before_expiry_days: desired.rollout_before_expiry_days,
            remediation: desired.remediation.to_string(),
            extra: write_extra(desired.extra),
        }
    }
}

impl From<Components> for wit::MachineComponents {
    fn from(components: Components) -> Self {
        let component = |c: Component| wit::Component {
            condition_type: c.condition_type,
            pod_namespace: c.pod_namespace,
            pod_name: c.pod_name,
        };
        Self {
            components: components.components.into_iter().map(component).collect(),
            datastore: components.datastore.map(|member| wit::DatastoreMember {
                datastore_type: member.datastore_type,
                pod_namespace: member.pod_namespace,
                pod_name: member.pod_name,
                port: member.port,
                certificate_authority: member.certificate_authority,
            }),
        }
    }
}

impl From<InitializedWhen> for wit::InitializedWhen {
    fn from(when: InitializedWhen) -> Self {
        match when {
            InitializedWhen::ApiServerAnswers => Self::ApiServerAnswers,
            InitializedWhen::ObjectExists {
                api_version,
                kind,
                namespace,
                name,
            } => Self::ObjectExists(wit::WorkloadObject {
                api_version,
                kind,
                namespace,
                name,
            }),
        }
    }
}

impl<T: ControlPlane> wit::Guest for Exported<T> {
    fn desired(input: wit::ControlPlaneInput) -> Result<wit::DesiredState, types::Failure> {
        Ok(ControlPlaneInput::read(input).and_then(T::desired)?.into())
    }

    fn requirements(
        input: wit::ControlPlaneInput,
    ) -> Result<Vec<wit_material::Requirement>, types::Failure> {
        Ok(ControlPlaneInput::read(input)
            .and_then(T::requirements)
            .map(each)?)
    }

    fn machine_config(input: wit::MachineConfigInput) -> Result<String, types::Failure> {
        Ok(MachineConfigInput::read(input)
            .and_then(T::machine_config)?
            .to_string())
    }

    fn outdated(input: wit::MachineInput) -> Result<Vec<String>, types::Failure> {
        Ok(MachineInput::read(input).and_then(T::outdated)?)
    }

    fn components(input: wit::MachineInput) -> Result<wit::MachineComponents, types::Failure> {
        Ok(MachineInput::read(input).and_then(T::components)?.into())
    }

    fn initialized(input: wit::ControlPlaneInput) -> Result<wit::InitializedWhen, types::Failure> {
        Ok(ControlPlaneInput::read(input)
            .and_then(T::initialized)?
            .into())
    }

    fn before_rollout(input: wit::ControlPlaneInput) -> Result<types::Progress, types::Failure> {
        Ok(ControlPlaneInput::read(input)
            .and_then(T::before_rollout)?
            .into())
    }

    fn after_stable(input: wit::ControlPlaneInput) -> Result<types::Progress, types::Failure> {
        Ok(ControlPlaneInput::read(input)
            .and_then(T::after_stable)?
            .into())
    }
}
