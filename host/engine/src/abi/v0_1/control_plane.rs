//! `wit/v0.1/control-plane.wit`.

use std::time::Duration;

use capstan_core::call::Progress;
use capstan_core::call::control_plane::{
    Component, Components, ControlPlaneInput, ControlPlaneMachineInput, DatastoreMember, Desired,
    InitializedWhen, MachineConfigInput, ObjectReference,
};
use capstan_core::call::material::Requirement;
use futures::FutureExt;
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::bootstrap::role_of;
use super::check::{self, Checked};
use super::exports::control_plane as wit;
use super::{Outcome, Roles, ask, lowered, material, role, types};
use crate::call::{CallState, Stop};
use crate::error::CallError;

const INTERFACE: &str = "control-plane";

/// Machines of one control plane.
const REPLICAS_MAX: u32 = 99;

pub(super) fn guest(
    roles: &Roles,
    store: &mut Store<CallState>,
    instance: &Instance,
) -> Result<wit::Guest, Stop> {
    role(roles.control_plane.as_ref(), INTERFACE)?
        .load(store, instance)
        .map_err(Stop::Guest)
}

fn plane_input(
    input: &ControlPlaneInput,
    wall: Duration,
) -> Result<wit::ControlPlaneInput, CallError> {
    Ok(wit::ControlPlaneInput {
        context: types::context(&input.context, wall)?,
        cluster: check::json_text("the Cluster", &input.cluster)?,
        control_plane: check::json_text("the control plane", &input.control_plane)?,
        extra: types::extra(&input.extra)?,
    })
}

fn machine_input(
    input: &ControlPlaneMachineInput,
    wall: Duration,
) -> Result<wit::MachineInput, CallError> {
    let optional = |what: &str, value: Option<&Value>| {
        value.map(|value| check::json_text(what, value)).transpose()
    };
    Ok(wit::MachineInput {
        control_plane: plane_input(&input.control_plane, wall)?,
        machine: check::json_text("the Machine", &input.machine)?,
        bootstrap_config: optional("the bootstrap config", input.bootstrap_config.as_ref())?,
        infra_machine: optional("the infrastructure machine", input.infra_machine.as_ref())?,
    })
}

/// One function of the interface: how its input is made, what is called, how its answer is checked.
macro_rules! function {
    ($name:ident, $call:ident, $input:ty => $answer:ty, $lower:expr, $lift:expr) => {
        pub(crate) fn $name<'a>(
            roles: Roles,
            store: &'a mut Store<CallState>,
            instance: &'a Instance,
            wall: Duration,
            input: $input,
        ) -> Outcome<'a, $answer> {
            async move {
                let guest = guest(&roles, store, instance)?;
                let input = lowered(input, |input| $lower(input, wall))?;
                let answer = ask!(store, guest.$call("input": input));
                Ok($lift(answer.map_err(types::failure)?)?)
            }
            .boxed()
        }
    };
}

function!(desired, call_desired, ControlPlaneInput => Desired, plane_input, checked_desired);
function!(
    requirements, call_requirements, ControlPlaneInput => Vec<Requirement>,
    plane_input, material::requirements
);
function!(
    machine_config, call_machine_config, MachineConfigInput => Value,
    config_input, checked_config
);
function!(
    outdated, call_outdated, ControlPlaneMachineInput => Vec<String>,
    machine_input, checked_reasons
);
function!(
    components, call_components, ControlPlaneMachineInput => Components,
    machine_input, checked_components
);
function!(
    initialized, call_initialized, ControlPlaneInput => InitializedWhen,
    plane_input, checked_initialized
);
function!(
    before_rollout, call_before_rollout, ControlPlaneInput => Progress,
    plane_input, types::progress
);
function!(after_stable, call_after_stable, ControlPlaneInput => Progress, plane_input, types::progress);

fn config_input(
    input: &MachineConfigInput,
    wall: Duration,
) -> Result<wit::MachineConfigInput, CallError> {
    Ok(wit::MachineConfigInput {
        control_plane: plane_input(&input.control_plane, wall)?,
        role: role_of(input.role),
        machine_name: input.machine_name.clone(),
        control_plane_endpoint: types::endpoint(input.control_plane_endpoint.as_ref()),
    })
}

pub(super) fn checked_config(spec: String) -> Checked<Value> {
    check::json_object("the bootstrap config's spec", &spec)
}

pub(super) fn checked_reasons(reasons: Vec<String>) -> Checked<Vec<String>> {
    check::list("outdated", reasons.len())?;
    reasons
        .into_iter()
        .map(|reason| check::message("outdated", reason))
        .collect()
}

pub(super) fn checked_desired(desired: wit::DesiredState) -> Checked<Desired> {
    check::rule(desired.replicas <= REPLICAS_MAX, || {
        format!("replicas is {}, more than {REPLICAS_MAX}", desired.replicas)
    })?;
    check::rule(desired.max_surge <= 1, || {
        format!("maxSurge is {}, neither 0 nor 1", desired.max_surge)
    })?;
    let template = desired.infrastructure_template;
    let kind = |field: &str, kind: String| {
        check::rule(crate::manifest::is_kind(&kind), || {
            format!("{field} {} is not a kind", check::shown(&kind))
        })?;
        Ok(kind)
    };
    Ok(Desired {
        replicas: desired.replicas,
        version: check::version("version", desired.version)?,
        infrastructure_template: ObjectReference {
            group: check::name("infrastructureTemplate.group", template.group)?,
            kind: kind("infrastructureTemplate.kind", template.kind)?,
            name: check::name("infrastructureTemplate.name", template.name)?,
        },
        bootstrap_group: check::name("bootstrapGroup", desired.bootstrap_group)?,
        bootstrap_kind: kind("bootstrapKind", desired.bootstrap_kind)?,
        machine_labels: check::pairs("machineLabels", desired.machine_labels)?,
        machine_annotations: check::pairs("machineAnnotations", desired.machine_annotations)?,
        readiness_gates: check::json_list("readinessGates", &desired.readiness_gates)?,
        deletion: check::json_object("deletion", &desired.deletion)?,
        taints: check::json_list("taints", &desired.taints)?,
        machine_naming: check::text("machineNaming", desired.machine_naming)?,
        max_surge: desired.max_surge,
        rollout_after_ms: desired.rollout_after_ms,
        rollout_before_expiry_days: desired.rollout_before_expiry_days,
        remediation: check::json_object("remediation", &desired.remediation)?,
        extra: check::extra(desired.extra)?,
    })
}

pub(super) fn checked_components(components: wit::MachineComponents) -> Checked<Components> {
    check::list("components", components.components.len())?;
    let listed = components
        .components
        .into_iter()
        .map(|component| {
            Ok(Component {
                condition_type: check::name("components.conditionType", component.condition_type)?,
                pod_namespace: check::name("components.podNamespace", component.pod_namespace)?,
                pod_name: check::name("components.podName", component.pod_name)?,
            })
        })
        .collect::<Checked<_>>()?;
    let datastore = components
        .datastore
        .map(|member| {
            check::rule(member.datastore_type == "etcd", || {
                format!(
                    "datastore.type {} is not etcd",
                    check::shown(&member.datastore_type)
                )
            })?;
            Ok(DatastoreMember {
                datastore_type: member.datastore_type,
                pod_namespace: check::name("datastore.podNamespace", member.pod_namespace)?,
                pod_name: check::name("datastore.podName", member.pod_name)?,
                port: check::port("datastore.port", member.port)?,
                certificate_authority: check::name(
                    "datastore.certificateAuthority",
                    member.certificate_authority,
                )?,
            })
        })
        .transpose()?;
    Ok(Components {
        components: listed,
        datastore,
    })
}

pub(super) fn checked_initialized(when: wit::InitializedWhen) -> Checked<InitializedWhen> {
    Ok(match when {
        wit::InitializedWhen::ApiServerAnswers => InitializedWhen::ApiServerAnswers,
        wit::InitializedWhen::ObjectExists(object) => InitializedWhen::ObjectExists {
            api_version: check::name("initialized.apiVersion", object.api_version)?,
            kind: check::name("initialized.kind", object.kind)?,
            namespace: check::text("initialized.namespace", object.namespace)?,
            name: check::name("initialized.name", object.name)?,
        },
    })
}
