//! A plugin without a component: the same functions as code of this process, for simulations of the host.

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
use capstan_core::call::material::{Material, Requirement};
use capstan_core::call::strategy::{Answer, Facts};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::call::CallEnv;
use crate::error::CallError;

type Called<'a, T> = BoxFuture<'a, Result<T, CallError>>;

fn not_offered<'a, T: Send + 'a>(interface: &'static str) -> Called<'a, T> {
    async move { Err(CallError::NotOffered { interface }) }.boxed()
}

/// Each function that a plugin may export; one that is left out is not offered. Answers are checked like those of a component.
pub trait Native: Send + Sync + 'static {
    /// Makes what the cluster's machines need before the first of them.
    fn ensure_cluster(&self, _: CallEnv, _: ClusterInput) -> Called<'_, ClusterAnswer> {
        not_offered("infrastructure")
    }

    /// Removes what `ensure_cluster` made.
    fn delete_cluster(&self, _: CallEnv, _: ClusterInput) -> Called<'_, DeletionAnswer> {
        not_offered("infrastructure")
    }

    /// Makes one instance, and only one, however often it is called.
    fn ensure_machine(&self, _: CallEnv, _: MachineInput) -> Called<'_, MachineAnswer> {
        not_offered("infrastructure")
    }

    /// Ends when the instance no longer exists.
    fn delete_machine(&self, _: CallEnv, _: MachineInput) -> Called<'_, DeletionAnswer> {
        not_offered("infrastructure")
    }

    /// What must be ready before `render`.
    fn bootstrap_requirements(
        &self,
        _: CallEnv,
        _: BootstrapInput,
    ) -> Called<'_, Vec<Requirement>> {
        not_offered("bootstrap")
    }

    /// The bootstrap data, in parts.
    fn render(
        &self,
        _: CallEnv,
        _: BootstrapInput,
        _: Vec<Material>,
    ) -> Called<'_, BootstrapAnswer> {
        not_offered("bootstrap")
    }

    /// The plugin's own kind in the host's model.
    fn desired(&self, _: CallEnv, _: ControlPlaneInput) -> Called<'_, Desired> {
        not_offered("control-plane")
    }

    /// Certificates and secrets of the control plane.
    fn control_plane_requirements(
        &self,
        _: CallEnv,
        _: ControlPlaneInput,
    ) -> Called<'_, Vec<Requirement>> {
        not_offered("control-plane")
    }

    /// `spec` of the bootstrap config for the next machine.
    fn machine_config(&self, _: CallEnv, _: MachineConfigInput) -> Called<'_, Value> {
        not_offered("control-plane")
    }

    /// Why the machine is not up to date, as far as the plugin knows.
    fn outdated(&self, _: CallEnv, _: ControlPlaneMachineInput) -> Called<'_, Vec<String>> {
        not_offered("control-plane")
    }

    /// What to look at on the machine.
    fn components(&self, _: CallEnv, _: ControlPlaneMachineInput) -> Called<'_, Components> {
        not_offered("control-plane")
    }

    /// When the control plane counts as initialized.
    fn initialized(&self, _: CallEnv, _: ControlPlaneInput) -> Called<'_, InitializedWhen> {
        not_offered("control-plane")
    }

    /// In-cluster work before a machine joins those that are there, also one like them: a roll-out that was taken back may have left something behind. Done again before each.
    fn before_rollout(&self, _: CallEnv, _: ControlPlaneInput) -> Called<'_, Progress> {
        not_offered("control-plane")
    }

    /// In-cluster work when all machines are up to date.
    fn after_stable(&self, _: CallEnv, _: ControlPlaneInput) -> Called<'_, Progress> {
        not_offered("control-plane")
    }

    /// Whether a machine may go on being deleted.
    fn run_hook(&self, _: CallEnv, _: HookInput) -> Called<'_, Verdict> {
        not_offered("pre-delete-hook")
    }

    /// How a deployment gets from what is to what is wanted.
    fn plan_upgrade(&self, _: CallEnv, _: Facts) -> Called<'_, Answer> {
        not_offered("upgrade-strategy")
    }
}
