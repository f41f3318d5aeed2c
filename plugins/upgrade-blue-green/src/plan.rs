//! One look at a blue-green rollout: fill the new set, switch, keep the old one, let it go.

use std::time::Duration;

use capstan_sdk::upgrade_strategy::{Answer, Facts, MachineSet, Overlay, Rolling, Target};
use capstan_sdk::{Failure, Waiting};
use serde::{Deserialize, Serialize};

use crate::settings::{Settings, Switch};

/// A person who has to switch is not waited for more closely than this.
const CHECK: Duration = Duration::from_secs(30);

/// The annotation that switches by hand.
const SWITCH: &str = "blue-green.capstan.dev/switch";

/// What is remembered between calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    /// The revision that all but `live` is about.
    revision: u64,
    /// The set that serves.
    live: String,
    /// Since when all new machines are available.
    full_since_ms: Option<u64>,
    /// When the new set became the live one.
    switched_ms: Option<u64>,
    /// Since when it lacks machines.
    failing_since_ms: Option<u64>,
    /// Why the switch was taken back.
    aborted: Option<String>,
}

impl Memory {
    fn of(facts: &Facts<Settings>, current: &MachineSet) -> Self {
        let mut memory: Self = facts.state_as().unwrap_or_default();
        if memory.revision != current.revision {
            memory = Self {
                revision: current.revision,
                live: memory.live,
                ..Self::default()
            };
        }
        let exists = |name: &str| {
            let mut sets = facts.machine_sets.iter();
            sets.any(|set| set.name == name && set.available_replicas > 0)
        };
        if memory.switched_ms.is_none() && !exists(&memory.live) {
            let serving = facts
                .old()
                .max_by_key(|set| (set.available_replicas, set.revision));
            memory.live = serving.map(|set| set.name.clone()).unwrap_or_default();
        }
        memory
    }
}

pub(crate) fn plan(facts: &Facts<Settings>) -> Result<Answer, Failure> {
    let Some(current) = facts.current() else {
        return Ok(Answer::unchanged());
    };
    if !facts.is_rolling_out() {
        let memory = Memory {
            revision: current.revision,
            live: current.name.clone(),
            ..Memory::default()
        };
        let answer = Rolling::new(facts).answer();
        return marked(facts, answer, &current.name).state_json(&memory);
    }
    if facts.max_surge < facts.replicas {
        return Err(Failure::terminal(
            "NeedsSurge",
            format!(
                "a full second set needs spec.rollout.strategy.rollingUpdate.maxSurge: 100%, it is {} of {}",
                facts.max_surge, facts.replicas
            ),
        ));
    }
    let mut memory = Memory::of(facts, current);
    if memory.aborted.is_none() && facts.is_rolled_back() {
        memory.aborted = Some("it was rolled back before".to_owned());
    }
    let answer = if memory.aborted.is_some() {
        back(facts, &memory)
    } else if memory.switched_ms.is_some() {
        after_switch(facts, current, &mut memory)
    } else {
        before_switch(facts, current, &mut memory)
    };
    marked(facts, answer, &memory.live).state_json(&memory)
}

/// Every set with its label, and with the taint when it does not serve.
fn marked(facts: &Facts<Settings>, answer: Answer, live: &str) -> Answer {
    let settings = &facts.settings;
    facts.machine_sets.iter().fold(answer, |answer, set| {
        let is_live = set.name == live;
        let value = if is_live {
            &settings.live
        } else {
            &settings.idle
        };
        let mut overlay = Overlay::default().label(&settings.label, value);
        if let Some(taint) = settings.taint.clone().filter(|_| !is_live) {
            overlay = overlay.taint(taint);
        }
        answer.overlay(&set.name, &overlay)
    })
}

/// The new set fills; sets of rollouts that never were live go.
fn before_switch(facts: &Facts<Settings>, current: &MachineSet, memory: &mut Memory) -> Answer {
    let others: u32 = facts
        .machine_sets
        .iter()
        .filter(|set| !set.current)
        .fold(0, |sum, set| {
            let kept = if set.name == memory.live {
                set.desired_replicas
            } else {
                spare(facts, set, &memory.live)
            };
            sum.saturating_add(kept.max(set.actual_replicas))
        });
    let room = facts
        .replicas
        .saturating_add(facts.max_surge)
        .saturating_sub(others);
    let size = facts.replicas.min(room.max(current.desired_replicas));
    let mut answer = Answer::unchanged().target(Target::new(&current.name, size));
    for set in facts.old().filter(|set| set.name != memory.live) {
        answer = answer.target(Target::new(&set.name, spare(facts, set, &memory.live)));
    }
    if current.available_replicas < facts.replicas {
        memory.full_since_ms = None;
        return answer
            .message(format!(
                "{} of {} new machines are available",
                current.available_replicas, facts.replicas
            ))
            .waiting(Waiting::new(
                "Filling",
                "all new machines to be available",
                CHECK,
            ));
    }
    let since = *memory.full_since_ms.get_or_insert(facts.now_ms);
    let soak = facts.settings.soak_seconds.saturating_mul(1000);
    let left = soak.saturating_sub(facts.now_ms.saturating_sub(since));
    if left > 0 {
        let check = Duration::from_millis(left).min(CHECK);
        return answer
            .message("all new machines are available")
            .waiting(Waiting::new("Soaking", "the soak time to end", check));
    }
    let revision = memory.revision.to_string();
    if facts.settings.switch == Switch::Manual && facts.annotation(SWITCH) != Some(&revision) {
        return answer
            .message("all new machines are available and wait for the switch")
            .waiting(Waiting::new(
                "WaitingForSwitch",
                format!("annotation {SWITCH}: \"{revision}\" on the MachineDeployment"),
                CHECK,
            ));
    }
    memory.switched_ms = Some(facts.now_ms);
    memory.live.clone_from(&current.name);
    kept(facts, memory, facts.now_ms)
}

/// How many machines a set that never was live may keep: only as many as the floor still needs.
fn spare(facts: &Facts<Settings>, set: &MachineSet, live: &str) -> u32 {
    let floor = facts.replicas.saturating_sub(facts.max_unavailable);
    let others = facts
        .machine_sets
        .iter()
        .filter(|other| other.name != set.name);
    let serving = others
        .filter(|other| other.name == live || other.current)
        .fold(0_u32, |sum, other| {
            sum.saturating_add(other.available_replicas)
        });
    set.desired_replicas.min(floor.saturating_sub(serving))
}

fn after_switch(facts: &Facts<Settings>, current: &MachineSet, memory: &mut Memory) -> Answer {
    let switched = memory.switched_ms.unwrap_or(facts.now_ms);
    let over =
        facts.now_ms.saturating_sub(switched) >= facts.settings.keep_seconds.saturating_mul(1000);
    let floor = facts.replicas.saturating_sub(facts.max_unavailable);
    if current.available_replicas >= floor {
        memory.failing_since_ms = None;
        if over {
            return Rolling::new(facts).answer().message("the old machines go");
        }
        return kept(facts, memory, switched);
    }
    let since = *memory.failing_since_ms.get_or_insert(facts.now_ms);
    let failed = facts.now_ms.saturating_sub(since)
        > facts.settings.unavailable_seconds.saturating_mul(1000);
    let before = facts
        .old()
        .max_by_key(|set| (set.available_replicas, set.revision));
    let Some(before) =
        before.filter(|set| failed && set.available_replicas > current.available_replicas)
    else {
        return Answer::unchanged()
            .target(Target::new(
                &current.name,
                facts.replicas.min(current.desired_replicas.max(floor)),
            ))
            .message("new machines are missing")
            .waiting(Waiting::new(
                "NewMachinesMissing",
                "new machines that are not available any more to come back",
                CHECK,
            ));
    };
    memory.aborted = Some(format!(
        "{} of {} new machines are available after the switch",
        current.available_replicas, facts.replicas
    ));
    memory.live.clone_from(&before.name);
    back(facts, memory)
}

/// The old set stays as it is, in case that it is needed again.
fn kept(facts: &Facts<Settings>, memory: &Memory, switched: u64) -> Answer {
    let keep = facts.settings.keep_seconds.saturating_mul(1000);
    let left = keep.saturating_sub(facts.now_ms.saturating_sub(switched));
    let answer = Answer::unchanged()
        .target(Target::new(&memory.live, facts.replicas))
        .message("switched to the new machines; the old ones are kept for a while");
    let check = Duration::from_millis(left).clamp(Duration::from_secs(1), CHECK);
    answer.waiting(Waiting::new(
        "KeepingOldMachines",
        format!(
            "{} s to pass before the old machines go",
            left.div_ceil(1000)
        ),
        check,
    ))
}

/// The set that served before serves again, whole.
fn back(facts: &Facts<Settings>, memory: &Memory) -> Answer {
    let why = memory.aborted.as_deref().unwrap_or_default();
    let message = format!(
        "revision {} was rolled back: {why}; change spec.template, or try the same again with `clusterctl alpha rollout restart`",
        memory.revision
    );
    let Some(live) = facts
        .machine_sets
        .iter()
        .find(|set| set.name == memory.live && !set.current)
    else {
        return Answer::unchanged()
            .message(&message)
            .waiting(Waiting::new("Halted", message, CHECK));
    };
    Rolling::new(facts)
        .towards(live)
        .answer()
        .message(&message)
        .roll_back(&live.name, &message)
}
