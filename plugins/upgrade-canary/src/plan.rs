//! One look at a canary rollout: give up, go on, or wait.

use std::time::Duration;

use capstan_sdk::upgrade_strategy::{Answer, Facts, Machine, MachineSet, Rolling};
use capstan_sdk::{Failure, Waiting};

use crate::gate::{self, Verdict};
use crate::memory::Memory;
use crate::settings::{Action, Settings};

/// Gates that nobody announces are looked at again after this time.
const GATE_CHECK: Duration = Duration::from_secs(30);

pub(crate) fn plan(facts: &Facts<Settings>) -> Result<Answer, Failure> {
    let sizes = facts.settings.sizes(facts.replicas)?;
    let Some(current) = facts.current().filter(|_| facts.is_rolling_out()) else {
        // Nothing to compare with: the first machines, or a change of size.
        return Ok(Rolling::new(facts).answer());
    };
    let mut memory = Memory::of(facts);
    if memory.aborted.is_none() && facts.is_rolled_back() {
        memory.aborted = Some("it was rolled back before".to_owned());
    }
    if memory.aborted.is_none() {
        memory.aborted = look(facts, current, &sizes, &mut memory);
    }
    let answer = match &memory.aborted {
        Some(why) => abort(facts, &memory, why),
        None => go_on(facts, current, &sizes, &memory),
    };
    answer.state_json(&memory)
}

/// Brings the memory up to now; the answer is why the rollout is given up.
fn look(
    facts: &Facts<Settings>,
    current: &MachineSet,
    sizes: &[u32],
    memory: &mut Memory,
) -> Option<String> {
    let canaries = canaries(current);
    if let Verdict::Fail(why) = gate::all(facts, &canaries) {
        return (!canaries.is_empty()).then_some(why);
    }
    let size = size(sizes, memory.step);
    let abort = &facts.settings.abort;
    let all_there = current.desired_replicas >= size
        && current.available_replicas >= current.desired_replicas
        && current.actual_replicas >= current.desired_replicas;
    let Some(reached) = memory.reached_ms else {
        if all_there {
            memory.reached_ms = Some(facts.now_ms);
            return look_again(facts, current, sizes, memory);
        }
        let late = facts.now_ms.saturating_sub(memory.began_ms)
            > abort.progress_seconds.saturating_mul(1000);
        return late.then(|| {
            format!(
                "{} of {size} machines are available after {} s",
                current.available_replicas, abort.progress_seconds
            )
        });
    };
    if !all_there {
        let since = *memory.failing_since_ms.get_or_insert(facts.now_ms);
        let failed =
            facts.now_ms.saturating_sub(since) > abort.unavailable_seconds.saturating_mul(1000);
        return failed.then(|| {
            let broken = canaries.iter().find(|machine| !machine.available);
            broken.map_or_else(
                || "machines of the new template went away".to_owned(),
                |machine| {
                    format!(
                        "Machine {} is not available since {} s",
                        machine.name, abort.unavailable_seconds
                    )
                },
            )
        });
    }
    memory.failing_since_ms = None;
    let over = facts.now_ms.saturating_sub(reached) >= facts.settings.pause_ms(memory.step);
    let is_last = memory.step.saturating_add(1) >= sizes.len();
    if over && !is_last && gate::all(facts, &canaries) == Verdict::Pass {
        memory.next_step(facts.now_ms);
        return look_again(facts, current, sizes, memory);
    }
    None
}

/// A step that was reached may have no pause, and the next one may have no more machines.
fn look_again(
    facts: &Facts<Settings>,
    current: &MachineSet,
    sizes: &[u32],
    memory: &mut Memory,
) -> Option<String> {
    if memory.step < sizes.len() {
        look(facts, current, sizes, memory)
    } else {
        None
    }
}

fn canaries(current: &MachineSet) -> Vec<&Machine> {
    let machines = current.machines.iter();
    machines.filter(|machine| !machine.deleting).collect()
}

fn size(sizes: &[u32], step: usize) -> u32 {
    let last = sizes.last().copied().unwrap_or_default();
    sizes.get(step).copied().unwrap_or(last)
}

/// Back to the set that served before, or no further.
fn abort(facts: &Facts<Settings>, memory: &Memory, why: &str) -> Answer {
    let revision = memory.revision;
    let advice =
        "change spec.template, or try the same again with `clusterctl alpha rollout restart`";
    let stable = facts.old().find(|set| set.name == memory.stable);
    match (facts.settings.abort.action, stable) {
        (Action::RollBack, Some(stable)) => {
            let message = format!("revision {revision} was rolled back: {why}; {advice}");
            Rolling::new(facts)
                .towards(stable)
                .answer()
                .message(&message)
                .roll_back(&stable.name, &message)
        }
        _ => {
            let message = format!("revision {revision} was halted: {why}; {advice}");
            Answer::unchanged().message(&message).waiting(Waiting::new(
                "Halted",
                message,
                Duration::from_secs(600),
            ))
        }
    }
}

fn go_on(facts: &Facts<Settings>, current: &MachineSet, sizes: &[u32], memory: &Memory) -> Answer {
    let size = size(sizes, memory.step);
    let where_it_is = format!(
        "step {} of {}, {size} of {} machines",
        memory.step.saturating_add(1),
        sizes.len(),
        facts.replicas
    );
    let answer = Rolling::new(facts).at_most(size).answer();
    let Some(reached) = memory.reached_ms else {
        return answer.message(where_it_is).waiting(Waiting::new(
            "StepNotReached",
            format!("machines of the new template to be available, at most {size}"),
            GATE_CHECK,
        ));
    };
    if memory.step.saturating_add(1) >= sizes.len() {
        return answer.message(where_it_is).waiting(Waiting::new(
            "OldMachinesGo",
            "the last old machines to go",
            GATE_CHECK,
        ));
    }
    let pause = facts.settings.pause_ms(memory.step);
    let left = pause.saturating_sub(facts.now_ms.saturating_sub(reached));
    let waiting = if left > 0 {
        let check = Duration::from_millis(left).min(GATE_CHECK);
        Waiting::new(
            "Pause",
            format!(
                "the pause after step {} to end",
                memory.step.saturating_add(1)
            ),
            check,
        )
    } else if let Verdict::Pending(what) = gate::all(facts, &canaries(current)) {
        Waiting::new("Gate", what, GATE_CHECK)
    } else {
        Waiting::new(
            "StepNotReached",
            "a machine that is not available any more to come back",
            GATE_CHECK,
        )
    };
    answer.message(where_it_is).waiting(waiting)
}
