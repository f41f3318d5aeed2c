//! Calls whose input is JSON in the words of WIT: for replays of records, and for people who try a plugin. The answer is the same
//! JSON, and is checked by the same rules as any other.

use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::exports::{
    bootstrap as bootstrap_wit, control_plane as plane_wit, infrastructure as infra_wit,
    pre_delete_hook as hook_wit, upgrade_strategy as strategy_wit,
};
use super::imports::material as material_wit;
use super::{
    Outcome, Roles, ask, bootstrap, control_plane, hook, infrastructure, manifest, material,
    strategy, types,
};
use crate::call::{CallState, Stop};
use crate::error::CallError;
use crate::stats::Function;
use crate::tape::exact;

/// What `plugin call` starts from: an input of each function.
pub(crate) const EXAMPLES: &str = include_str!("examples.json");

/// One parameter out of the question, as the record that the function takes.
fn parameter<T: serde::de::DeserializeOwned>(
    question: &mut Value,
    name: &str,
) -> Result<T, CallError> {
    let value = question.get_mut(name).map(Value::take).unwrap_or_default();
    serde_json::from_value(exact(value)).map_err(|error| CallError::BadInput {
        rule: format!("{name} is not what the function takes: {error}"),
    })
}

macro_rules! raw {
    ($module:ident, $roles:ident, $store:ident, $instance:ident, $question:ident,
     $call:ident($($name:literal: $var:ident: $type:ty),+), $check:expr) => {{
        let guest = $module::guest(&$roles, $store, $instance)?;
        $(let $var: $type = parameter(&mut $question, $name)?;)+
        let answer = ask!($store, guest.$call($($name: $var),+));
        let answer = answer.map_err(types::failure)?;
        $check(answer).map(drop)?;
        Ok(())
    }};
}

/// Asks, and checks the answer; what it was is on the tape.
pub(crate) fn ask_raw<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    _wall: Duration,
    function: Function,
    mut question: Value,
) -> Outcome<'a, ()> {
    async move {
        match function {
            Function::Describe => {
                let guest = roles
                    .manifest
                    .load(&mut *store, instance)
                    .map_err(Stop::Guest)?;
                let answer = ask!(store, guest.call_describe());
                manifest::manifest(answer).map(drop)?;
                Ok(())
            }
            Function::EnsureCluster => raw!(
                infrastructure, roles, store, instance, question,
                call_ensure_cluster("input": input: infra_wit::ClusterInput),
                infrastructure::cluster_answer
            ),
            Function::DeleteCluster => raw!(
                infrastructure, roles, store, instance, question,
                call_delete_cluster("input": input: infra_wit::ClusterInput),
                infrastructure::deletion_answer
            ),
            Function::EnsureMachine => raw!(
                infrastructure, roles, store, instance, question,
                call_ensure_machine("input": input: infra_wit::MachineInput),
                infrastructure::machine_answer
            ),
            Function::DeleteMachine => raw!(
                infrastructure, roles, store, instance, question,
                call_delete_machine("input": input: infra_wit::MachineInput),
                infrastructure::deletion_answer
            ),
            Function::BootstrapRequirements => raw!(
                bootstrap, roles, store, instance, question,
                call_requirements("input": input: bootstrap_wit::BootstrapInput),
                material::requirements
            ),
            Function::Render => raw!(
                bootstrap, roles, store, instance, question,
                call_render(
                    "input": input: bootstrap_wit::BootstrapInput,
                    "material": given: Vec<material_wit::Material>
                ),
                |answer| bootstrap::bootstrap_answer(answer, &store.data().capabilities.secrets)
            ),
            other => ask_plane(roles, store, instance, other, question).await,
        }
    }
    .boxed()
}

/// The functions of control planes, hooks and strategies.
fn ask_plane<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    function: Function,
    mut question: Value,
) -> Outcome<'a, ()> {
    async move {
        match function {
            Function::Desired => raw!(
                control_plane, roles, store, instance, question,
                call_desired("input": input: plane_wit::ControlPlaneInput),
                control_plane::checked_desired
            ),
            Function::ControlPlaneRequirements => raw!(
                control_plane, roles, store, instance, question,
                call_requirements("input": input: plane_wit::ControlPlaneInput),
                material::requirements
            ),
            Function::MachineConfig => raw!(
                control_plane, roles, store, instance, question,
                call_machine_config("input": input: plane_wit::MachineConfigInput),
                control_plane::checked_config
            ),
            Function::Outdated => raw!(
                control_plane, roles, store, instance, question,
                call_outdated("input": input: plane_wit::MachineInput),
                control_plane::checked_reasons
            ),
            Function::Components => raw!(
                control_plane, roles, store, instance, question,
                call_components("input": input: plane_wit::MachineInput),
                control_plane::checked_components
            ),
            Function::Initialized => raw!(
                control_plane, roles, store, instance, question,
                call_initialized("input": input: plane_wit::ControlPlaneInput),
                control_plane::checked_initialized
            ),
            Function::BeforeRollout => raw!(
                control_plane, roles, store, instance, question,
                call_before_rollout("input": input: plane_wit::ControlPlaneInput),
                types::progress
            ),
            Function::AfterStable => raw!(
                control_plane, roles, store, instance, question,
                call_after_stable("input": input: plane_wit::ControlPlaneInput),
                types::progress
            ),
            Function::RunHook => raw!(
                hook, roles, store, instance, question,
                call_run("input": input: hook_wit::HookInput),
                hook::verdict
            ),
            _ => {
                let guest = strategy::guest(&roles, store, instance)?;
                let facts: strategy_wit::Facts = parameter(&mut question, "facts")?;
                let answer = ask!(store, guest.call_plan("facts": facts));
                strategy::checked(answer.map_err(types::failure)?, &facts).map(drop)?;
                Ok(())
            }
        }
    }
    .boxed()
}
