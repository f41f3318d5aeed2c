//! Bound hooks of a Machine: finds them, asks them, and writes down what they answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::annotation;
use capstan_api::machine_hook::{MachineHook, MachineHookPhase};
use capstan_api::name::ObjectKey;
use capstan_core::call::hook::{HookInput, Phase, Verdict};
use capstan_core::machine::Observed;
use capstan_core::machine::hook::{self as core, Answer, Hook, Turn};
use capstan_core::plan::Failure;
use capstan_engine::{CallEnv, CallError, SecretTable};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ctx::{Ctx, Writer, failure};
use crate::event::{self, Event};
use crate::kinds;
use crate::kube_api::{ApiError, Patch};
use crate::machine_hook::plugin_of;
use crate::object::{Locator, Object};
use crate::store::Change;

use super::{CONTROLLER, WORKERS};

/// The hooks that are bound to a Machine, with what is known of each.
pub(super) fn bound(ctx: &Ctx, machine: &Object, said: &BTreeMap<String, core::Said>) -> Vec<Hook> {
    let bindings = ctx.store(&kinds::MACHINE_HOOK).in_namespace(&ctx.namespace);
    if bindings.is_empty() {
        return Vec::new();
    }
    let mut records = records(ctx, machine);
    let mut hooks = Vec::new();
    for binding in bindings.iter().filter(|binding| !binding.is_deleting()) {
        let Ok(binding) = binding.typed::<MachineHook>() else {
            continue;
        };
        if !is_bound(ctx, &binding, machine) {
            continue;
        }
        let mut hook = Hook::bound(&binding);
        hook.unavailable = plugin_of(ctx, &hook.plugin).problem(&hook.plugin);
        hook.begun = begun(machine);
        hook.record = records.remove(&hook.name);
        hook.said = said.get(&hook.name).cloned();
        hooks.push(hook);
    }
    hooks
}

/// What was written down of hooks in a Machine's deletion.
pub(crate) fn records(ctx: &Ctx, machine: &Object) -> BTreeMap<String, core::Record> {
    let text = machine.annotation(annotation::HOOKS);
    core::records(text, begun(machine), ctx.now())
}

/// When a Machine's deletion began.
fn begun(machine: &Object) -> Option<Timestamp> {
    machine.text("/metadata/deletionTimestamp")?.parse().ok()
}

/// Whether a MachineHook is about a Machine.
pub fn is_bound(ctx: &Ctx, binding: &MachineHook, machine: &Object) -> bool {
    let cluster = machine
        .cluster()
        .and_then(|cluster| ctx.get(&kinds::CLUSTER, &cluster));
    let cluster = cluster.map(|cluster| labels(&cluster)).unwrap_or_default();
    core::is_bound(binding, &machine.key.namespace, &labels(machine), &cluster)
}

fn labels(object: &Object) -> BTreeMap<String, String> {
    capstan_core::drain::labels(&object.value)
}

/// Machines that are being deleted, when a binding changed: it may hold them, or let them go.
pub(super) fn of_binding(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let generation = |object: &Option<Arc<Object>>| object.as_ref().map(|o| o.generation());
    if generation(&change.old) == generation(&change.new) {
        return Vec::new();
    }
    let machines = ctx.store(&kinds::MACHINE).deleting();
    machines
        .iter()
        .map(|machine| Locator::new(&kinds::MACHINE, &machine.key))
        .collect()
}

/// Asks a hook, and writes down what follows.
///
/// # Errors
/// When it could not be written down.
pub(super) async fn ask(
    ctx: &Ctx,
    writer: &Writer,
    observed: &Observed,
    name: &str,
) -> Result<Turn, Failure> {
    let Some(hook) = observed
        .deletion
        .hooks
        .iter()
        .find(|hook| hook.name == name)
    else {
        return Err(Failure::transient(
            "HookGone",
            format!("MachineHook {name} is not bound any more"),
        ));
    };
    let answer = answer(ctx, observed, hook).await;
    let turn = hook.answered(&answer, ctx.now());
    record(ctx, writer, observed, &turn).await?;
    Ok(turn)
}

/// Writes down a turn on the Machine, and tells what is new in it.
///
/// # Errors
/// What the server said.
pub(super) async fn record(
    ctx: &Ctx,
    writer: &Writer,
    observed: &Observed,
    turn: &Turn,
) -> Result<(), Failure> {
    let metadata = &observed.machine.metadata;
    let key = ObjectKey::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    );
    // The newest that is known: an event or a status may have been written since.
    let Some(machine) = ctx.get(&kinds::MACHINE, &key) else {
        return Ok(());
    };
    let patch = core::record_patch(
        machine.annotation(annotation::HOOKS),
        begun(&machine),
        ctx.now(),
        &machine.resource_version.to_string(),
        turn,
    );
    if let Some(patch) = patch {
        let answer = ctx
            .patch(writer, &kinds::MACHINE, &key, &Patch::Merge(patch))
            .await;
        match answer {
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => {
                let doing = format!("writing down what hook {} answered", turn.hook);
                return Err(failure(&doing, &error));
            }
        }
    }
    if let Some((reason, is_warning, note)) = &turn.news {
        let event = if *is_warning {
            Event::warning(reason, "PreDeleteHook", note.clone())
        } else {
            Event::normal(reason, "PreDeleteHook", note.clone())
        };
        event::record(ctx, writer, &machine, &event).await;
    }
    Ok(())
}

async fn answer(ctx: &Ctx, observed: &Observed, hook: &Hook) -> Answer {
    if let Some(why) = plugin_of(ctx, &hook.plugin).problem(&hook.plugin) {
        return Answer::Unavailable(why);
    }
    let (Some(plugin), Some(machine)) = (
        ctx.plugins.get(&hook.plugin),
        serde_json::to_value(&observed.machine)
            .ok()
            .and_then(Object::new),
    ) else {
        return Answer::Unavailable(format!("Plugin {} is not there", hook.plugin));
    };
    let attempts = hook.said.as_ref().map_or(0, |said| said.attempts);
    let (phase, operation) = match hook.phase {
        MachineHookPhase::PreDrain => (Phase::PreDrain, "pre-drain"),
        MachineHookPhase::PreTerminate => (Phase::PreTerminate, "pre-terminate"),
    };
    let operation = format!("{operation}-{}", hook.name);
    let context = plugin.context(ctx, &machine, &operation, attempts.saturating_add(1));
    let since = hook.record.as_ref().map_or_else(|| ctx.now(), |r| r.since);
    let cluster = observed.cluster.found();
    let input = HookInput {
        context,
        phase,
        machine: Value::clone(&machine.value),
        cluster: cluster.map_or(Value::Null, |cluster| json!(cluster)),
        node: match &observed.node {
            capstan_core::machine::NodeLookup::One(node) => Some(Value::clone(node)),
            _ => None,
        },
        cluster_deleting: observed.deletion.cluster_deleting,
        first_run_ms: u64::try_from(since.as_millisecond()).unwrap_or_default(),
        settings: hook.config.clone(),
        extra: Vec::new(),
    };
    let env = CallEnv {
        // One annotation cannot hold the notes of several hooks: a hook finds its work again by its idempotency key.
        state: None,
        ..plugin.env(ctx, &kinds::MACHINE, &machine, SecretTable::new())
    };
    let Some(_held) = ctx.plugins.hold(CONTROLLER, WORKERS, &hook.plugin) else {
        return Answer::Busy(busy(&hook.plugin));
    };
    read(&hook.plugin, plugin.loaded.run_hook(env, input).await)
}

/// What a call says of the Machine. One that never came to be asked must not end in `onFailure: Proceed`.
fn read(plugin: &str, said: Result<Verdict, CallError>) -> Answer {
    match said {
        Ok(Verdict::Proceed) => Answer::Proceed,
        Ok(Verdict::Waiting(waiting)) => Answer::Waiting {
            words: waiting.message,
            check_after: waiting.check_after,
        },
        Err(CallError::Busy { .. }) => Answer::Busy(busy(plugin)),
        Err(error @ (CallError::Crowded { .. } | CallError::BreakerOpen { .. })) => {
            Answer::Busy(format!("plugin {plugin}: {error}"))
        }
        Err(error) => Answer::Failed(error.failure()),
    }
}

fn busy(plugin: &str) -> String {
    format!("plugin {plugin} is busy with other Machines")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_plugin_that_was_never_asked_has_not_failed() {
        let never = [
            CallError::Busy {
                waited: Duration::from_secs(1),
            },
            CallError::Crowded { budget_bytes: 1 },
            CallError::BreakerOpen {
                retry_after: Duration::from_secs(1),
            },
        ];
        for error in never {
            let answer = read("hook", Err(error));
            assert!(matches!(answer, Answer::Busy(_)), "{answer:?}");
        }
        let limit = Duration::from_secs(1);
        let late = read("hook", Err(CallError::Deadline { limit }));
        assert!(matches!(late, Answer::Failed(_)), "{late:?}");
    }
}
