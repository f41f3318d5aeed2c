//! Which version of the WIT interfaces a component speaks, and one method per function on [`Loaded`], whatever the version.

pub(crate) mod v0_1;

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_core::call::Progress;
use capstan_core::call::bootstrap::{BootstrapAnswer, BootstrapInput};
use capstan_core::call::control_plane::{
    Components, ControlPlaneInput, ControlPlaneMachineInput, Desired, InitializedWhen,
    MachineConfigInput,
};
use capstan_core::call::hook::{HookInput, Verdict};
use capstan_core::call::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, MachineAnswer, MachineInput,
};
use capstan_core::call::manifest::{Manifest, PluginKind};
use capstan_core::call::material::{Material, Requirement};
use capstan_core::call::strategy::{Answer, Facts};
use serde_json::Value;
use wasmtime::component::{InstancePre, Linker};

use crate::call::{CallEnv, CallFacts, CallState};
use crate::error::{CallError, LoadError};
use crate::load::{Body, Loaded, Prepared};
use crate::stats::Function;

/// A version of the interfaces, with what the component exports of it.
#[derive(Clone)]
pub(crate) enum Abi {
    V0_1(v0_1::Roles),
}

impl Abi {
    /// Looks up the exports that the component's names promise, with their types.
    pub(crate) fn of(
        pre: &InstancePre<CallState>,
        kinds: &BTreeSet<PluginKind>,
    ) -> Result<Self, LoadError> {
        v0_1::Roles::of(pre, kinds).map(Self::V0_1)
    }

    /// For the Plugin's status.
    pub(crate) fn version(&self) -> &'static str {
        match self {
            Self::V0_1(_) => "0.1",
        }
    }
}

/// Offers everything that a component of any version may import.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    v0_1::link(linker)
}

/// Asks for the manifest. Only the shape of the answer is checked here.
pub(crate) async fn describe(
    prepared: &Arc<Prepared>,
    env: CallEnv,
    facts: CallFacts,
) -> Result<Manifest, CallError> {
    match prepared.abi.clone() {
        Abi::V0_1(roles) => {
            prepared
                .call(Function::Describe, env, facts, move |store, instance, _| {
                    v0_1::manifest::describe(roles, store, instance)
                })
                .await
        }
    }
}

/// One method of [`Loaded`]: the same for each function but for its name, its input and its answer.
macro_rules! function {
    (
        $(#[$doc:meta])*
        $name:ident, $function:ident, $module:ident::$body:ident,
        $input:ident: $input_type:ty $(, $more:ident: $more_type:ty)? => $answer:ty,
        $facts:expr
    ) => {
        impl Loaded {
            $(#[$doc])*
            pub async fn $name(
                &self,
                env: CallEnv,
                $input: $input_type
                $(, $more: $more_type)?
            ) -> Result<$answer, CallError> {
                let env = self.granted(Function::$function, env)?;
                let prepared = match &self.body {
                    Body::Component(prepared) => prepared,
                    Body::Native(native) => return native.$name(env, $input $(, $more)?).await,
                };
                let facts: CallFacts = $facts;
                match prepared.abi.clone() {
                    Abi::V0_1(roles) => {
                        prepared
                            .call(Function::$function, env, facts, move |store, instance, wall| {
                                v0_1::$module::$body(roles, store, instance, wall, $input $(, $more)?)
                            })
                            .await
                    }
                }
            }
        }
    };
}

impl Loaded {
    /// A plugin that lacks a grant which it cannot do without is not instantiated. What the host's ceiling or the manifest leave of
    /// the grants is what the call gets.
    pub(crate) fn granted(&self, function: Function, env: CallEnv) -> Result<CallEnv, CallError> {
        let Some(first) = self.missing(&env.grants).into_iter().next() else {
            let grants = self.effective(&env.grants);
            return Ok(CallEnv { grants, ..env });
        };
        let why = first.to_string();
        let error = CallError::Refused {
            capability: first.capability,
            why,
        };
        if let Body::Component(prepared) = &self.body {
            prepared.refused(function, &Err(error.clone()));
        }
        Err(error)
    }
}

function!(
    /// Makes what the cluster's machines need before the first of them.
    ensure_cluster, EnsureCluster, infrastructure::ensure_cluster,
    input: ClusterInput => ClusterAnswer, CallFacts::of(&input.context)
);
function!(
    /// Removes what `ensure_cluster` made.
    delete_cluster, DeleteCluster, infrastructure::delete_cluster,
    input: ClusterInput => DeletionAnswer, CallFacts::of(&input.context)
);
function!(
    /// Makes one instance, and only one, however often it is called.
    ensure_machine, EnsureMachine, infrastructure::ensure_machine,
    input: MachineInput => MachineAnswer, CallFacts::of(&input.context)
);
function!(
    /// Ends when the instance no longer exists.
    delete_machine, DeleteMachine, infrastructure::delete_machine,
    input: MachineInput => DeletionAnswer, CallFacts::of(&input.context)
);
function!(
    /// What must be ready before `render`.
    bootstrap_requirements, BootstrapRequirements, bootstrap::requirements,
    input: BootstrapInput => Vec<Requirement>, CallFacts::of(&input.context)
);
function!(
    /// The bootstrap data, in parts. Every secret in it is one of `env.secrets`.
    render, Render, bootstrap::render,
    input: BootstrapInput, material: Vec<Material> => BootstrapAnswer, CallFacts::of(&input.context)
);
function!(
    /// The plugin's own kind in the host's model.
    desired, Desired, control_plane::desired,
    input: ControlPlaneInput => Desired, CallFacts::of(&input.context)
);
function!(
    /// Certificates and secrets of the control plane.
    control_plane_requirements, ControlPlaneRequirements, control_plane::requirements,
    input: ControlPlaneInput => Vec<Requirement>, CallFacts::of(&input.context)
);
function!(
    /// `spec` of the bootstrap config for the next machine; an object.
    machine_config, MachineConfig, control_plane::machine_config,
    input: MachineConfigInput => Value, CallFacts::of(&input.control_plane.context)
);
function!(
    /// Why the machine is not up to date, as far as the plugin knows.
    outdated, Outdated, control_plane::outdated,
    input: ControlPlaneMachineInput => Vec<String>, CallFacts::of(&input.control_plane.context)
);
function!(
    /// What to look at on the machine.
    components, Components, control_plane::components,
    input: ControlPlaneMachineInput => Components, CallFacts::of(&input.control_plane.context)
);
function!(
    /// When the control plane counts as initialized.
    initialized, Initialized, control_plane::initialized,
    input: ControlPlaneInput => InitializedWhen, CallFacts::of(&input.context)
);
function!(
    /// In-cluster work before a machine joins those that are there, also one like them: a roll-out that was taken back may have left something behind. Done again before each.
    before_rollout, BeforeRollout, control_plane::before_rollout,
    input: ControlPlaneInput => Progress, CallFacts::of(&input.context)
);
function!(
    /// In-cluster work when all machines are up to date.
    after_stable, AfterStable, control_plane::after_stable,
    input: ControlPlaneInput => Progress, CallFacts::of(&input.context)
);
function!(
    /// Whether a machine may go on being deleted.
    run_hook, RunHook, hook::run,
    input: HookInput => Verdict, CallFacts::of(&input.context)
);
function!(
    /// How a deployment gets from what is to what is wanted. Not yet checked against its limits: that is the core's.
    plan_upgrade, PlanUpgrade, strategy::plan,
    input: Facts => Answer, CallFacts::of_strategy(&input)
);
