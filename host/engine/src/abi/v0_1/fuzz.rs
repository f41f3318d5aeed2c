//! For tests: what becomes of an answer that is JSON, as if a component had given it.

use capstan_core::answer;
use serde_json::Value;

use super::exports::{
    bootstrap as bootstrap_wit, control_plane as plane_wit, infrastructure as infra_wit,
    manifest as manifest_wit, pre_delete_hook as hook_wit, upgrade_strategy as strategy_wit,
};
use super::imports::{material as material_wit, types as types_wit};
use super::{bootstrap, control_plane, hook, infrastructure, manifest, material, strategy, types};
use crate::error::CallError;
use crate::secret::SecretTable;
use crate::stats::Function;
use crate::tape::exact;

/// How far an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// No component can give it.
    Unspoken,
    /// A rule refused it.
    Refused,
    /// It passed every rule of the engine and of the core.
    Accepted,
}

fn fate<T, E>(checked: Result<T, E>) -> Fate {
    checked.map_or(Fate::Refused, |_| Fate::Accepted)
}

/// What becomes of the result of a function that can fail.
macro_rules! answer {
    ($value:ident, $type:ty, $check:expr) => {{
        let said = serde_json::from_value::<Result<$type, types_wit::Failure>>(exact($value));
        match said {
            Err(_) => Fate::Unspoken,
            Ok(Err(failure)) => match types::failure(failure) {
                CallError::Plugin(_) => Fate::Accepted,
                _ => Fate::Refused,
            },
            Ok(Ok(answer)) => $check(answer),
        }
    }};
}

/// Checks an answer as a call would.
pub(crate) fn fate_of(function: Function, value: Value) -> Fate {
    let mut secrets = SecretTable::new();
    secrets.add(b"material".to_vec());
    match function {
        Function::Describe => {
            match serde_json::from_value::<manifest_wit::Description>(exact(value)) {
                Err(_) => Fate::Unspoken,
                Ok(said) => fate(manifest::manifest(said).map_err(drop).and_then(|manifest| {
                    let kinds = capstan_core::call::manifest::PluginKind::ALL.into_iter();
                    let imports = ["http".to_owned()].into();
                    crate::manifest::check(&manifest, &kinds.collect(), &imports).map_err(drop)
                })),
            }
        }
        Function::EnsureCluster => answer!(value, infra_wit::ClusterAnswer, |said| {
            fate(
                infrastructure::cluster_answer(said)
                    .map_err(drop)
                    .and_then(|said| answer::check_cluster(&said, None).map_err(drop)),
            )
        }),
        Function::EnsureMachine => answer!(value, infra_wit::MachineAnswer, |said| {
            fate(
                infrastructure::machine_answer(said)
                    .map_err(drop)
                    .and_then(|said| answer::check_machine(&said, None).map_err(drop)),
            )
        }),
        Function::DeleteCluster | Function::DeleteMachine => {
            answer!(value, infra_wit::DeletionAnswer, |said| {
                fate(
                    infrastructure::deletion_answer(said)
                        .map_err(drop)
                        .and_then(|said| answer::check_deletion(&said).map_err(drop)),
                )
            })
        }
        Function::BootstrapRequirements | Function::ControlPlaneRequirements => {
            answer!(value, Vec<material_wit::Requirement>, |said| fate(
                material::requirements(said)
            ))
        }
        Function::Render => answer!(value, bootstrap_wit::BootstrapAnswer, |said| fate(
            bootstrap::bootstrap_answer(said, &secrets)
        )),
        other => fate_of_others(other, value),
    }
}

/// The functions of control planes, hooks and strategies.
fn fate_of_others(function: Function, value: Value) -> Fate {
    match function {
        Function::Desired => answer!(value, plane_wit::DesiredState, |said| fate(
            control_plane::checked_desired(said)
        )),
        Function::MachineConfig => {
            answer!(value, String, |said| fate(control_plane::checked_config(
                said
            )))
        }
        Function::Outdated => {
            answer!(value, Vec<String>, |said| fate(
                control_plane::checked_reasons(said)
            ))
        }
        Function::Components => answer!(value, plane_wit::MachineComponents, |said| fate(
            control_plane::checked_components(said)
        )),
        Function::Initialized => answer!(value, plane_wit::InitializedWhen, |said| fate(
            control_plane::checked_initialized(said)
        )),
        Function::BeforeRollout | Function::AfterStable => {
            answer!(value, types_wit::Progress, |said| fate(types::progress(
                said
            )))
        }
        Function::RunHook => answer!(value, hook_wit::Verdict, |said| fate(hook::verdict(said))),
        _ => {
            // What the answer was given to.
            let facts = crate::example(function)["facts"].take();
            let Ok(facts) = serde_json::from_value::<strategy_wit::Facts>(exact(facts)) else {
                return Fate::Unspoken;
            };
            answer!(value, strategy_wit::Answer, |said| fate(strategy::checked(
                said, &facts
            )))
        }
    }
}
