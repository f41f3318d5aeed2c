//! `wit/v0.1/pre-delete-hook.wit`.

use std::time::Duration;

use capstan_core::call::hook::{HookInput, Phase, Verdict};
use futures::FutureExt;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::check::{self, Checked};
use super::exports::pre_delete_hook as wit;
use super::{Outcome, Roles, ask, lowered, role, types};
use crate::call::{CallState, Stop};
use crate::error::CallError;

const INTERFACE: &str = "pre-delete-hook";

pub(super) fn guest(
    roles: &Roles,
    store: &mut Store<CallState>,
    instance: &Instance,
) -> Result<wit::Guest, Stop> {
    role(roles.hook.as_ref(), INTERFACE)?
        .load(store, instance)
        .map_err(Stop::Guest)
}

fn hook_input(input: &HookInput, wall: Duration) -> Result<wit::HookInput, CallError> {
    Ok(wit::HookInput {
        context: types::context(&input.context, wall)?,
        phase: match input.phase {
            Phase::PreDrain => wit::Phase::PreDrain,
            Phase::PreTerminate => wit::Phase::PreTerminate,
        },
        machine: check::json_text("the Machine", &input.machine)?,
        cluster: check::json_text("the Cluster", &input.cluster)?,
        node: input
            .node
            .as_ref()
            .map(|node| check::json_text("the Node", node))
            .transpose()?,
        cluster_deleting: input.cluster_deleting,
        first_run_ms: input.first_run_ms,
        settings: check::json_text("the hook's settings", &input.settings)?,
        extra: types::extra(&input.extra)?,
    })
}

pub(crate) fn run<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: HookInput,
) -> Outcome<'a, Verdict> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| hook_input(input, wall))?;
        let answer = ask!(store, guest.call_run("input": input));
        Ok(verdict(answer.map_err(types::failure)?)?)
    }
    .boxed()
}

pub(super) fn verdict(verdict: wit::Verdict) -> Checked<Verdict> {
    Ok(match verdict {
        wit::Verdict::Proceed => Verdict::Proceed,
        wit::Verdict::Waiting(wait) => Verdict::Waiting(types::waiting(wait)?),
    })
}
