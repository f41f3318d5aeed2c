//! One look at a rollout by zones: which failure domain has its turn, and whether its machines may go on being replaced.

use std::time::Duration;

use capstan_sdk::upgrade_strategy::{Answer, Facts, Machine, Rolling};
use capstan_sdk::{Failure, Waiting};
use serde::{Deserialize, Serialize};

use crate::Settings;

/// Machines that come or go are noticed by the host; this is for the case that none does.
const CHECK: Duration = Duration::from_secs(60);

/// What is remembered between calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    /// The revision that all of it is about.
    revision: u64,
    /// The failure domain that has its turn.
    zone: Option<String>,
    /// When the one before was done.
    done_ms: Option<u64>,
}

fn zone(machine: &Machine) -> &str {
    machine.failure_domain.as_deref().unwrap_or_default()
}

fn shown(zone: &str) -> &str {
    if zone.is_empty() { "none" } else { zone }
}

/// Failure domains with old machines, in their order.
fn zones(facts: &Facts<Settings>) -> Vec<&str> {
    let machines = facts.old().flat_map(|set| &set.machines);
    let mut zones: Vec<&str> = machines.map(zone).collect();
    let place = |zone: &str| {
        let order = &facts.settings.order;
        order
            .iter()
            .position(|named| named == zone)
            .unwrap_or(order.len())
    };
    zones.sort_by_key(|zone| (zone.is_empty(), place(zone), *zone));
    zones.dedup();
    zones
}

pub(crate) fn plan(facts: &Facts<Settings>) -> Result<Answer, Failure> {
    let Some(current) = facts.current().filter(|_| facts.is_rolling_out()) else {
        return Ok(Rolling::new(facts).answer());
    };
    let kept: Memory = facts.state_as().unwrap_or_default();
    let mut memory = if kept.revision == current.revision {
        kept
    } else {
        Memory {
            revision: current.revision,
            ..Memory::default()
        }
    };
    let zones = zones(facts);
    let turn = memory
        .zone
        .clone()
        .filter(|zone| zones.contains(&zone.as_str()));
    let Some(turn) = turn else {
        return next_zone(facts, &zones, memory);
    };
    memory.zone = Some(turn.clone());
    in_zone(facts, &turn, &zones).state_json(&memory)
}

/// The zone before is done: the next one has its turn when all new machines work and the pause is over.
fn next_zone(
    facts: &Facts<Settings>,
    zones: &[&str],
    mut memory: Memory,
) -> Result<Answer, Failure> {
    let Some(next) = zones.first().copied() else {
        // Only replicas without machines are left.
        return Rolling::new(facts).answer().state_json(&memory);
    };
    if memory.zone.is_some() {
        let missing = facts
            .machine_sets
            .iter()
            .filter(|set| set.current)
            .any(|set| set.available_replicas < set.desired_replicas);
        // Without candidates, only the current set grows.
        let hold = Rolling::new(facts).only(|_| false).answer();
        if missing {
            memory.done_ms = None;
            let waiting = Waiting::new("ZoneNotDone", "all new machines to be available", CHECK);
            let message = format!("failure domain {} comes next", shown(next));
            return hold.message(message).waiting(waiting).state_json(&memory);
        }
        let since = *memory.done_ms.get_or_insert(facts.now_ms);
        let pause = facts.settings.pause_seconds.saturating_mul(1000);
        let left = pause.saturating_sub(facts.now_ms.saturating_sub(since));
        if left > 0 {
            let waiting = Waiting::new(
                "Pause",
                format!("the pause before failure domain {} to end", shown(next)),
                Duration::from_millis(left).min(CHECK),
            );
            let message = format!("failure domain {} comes next", shown(next));
            return Answer::unchanged()
                .message(message)
                .waiting(waiting)
                .state_json(&memory);
        }
    }
    memory.zone = Some(next.to_owned());
    memory.done_ms = None;
    in_zone(facts, next, zones).state_json(&memory)
}

/// A rolling update of which only machines of this zone may go.
fn in_zone(facts: &Facts<Settings>, turn: &str, zones: &[&str]) -> Answer {
    let left = facts
        .old()
        .flat_map(|set| &set.machines)
        .filter(|machine| zone(machine) == turn)
        .count();
    let after = zones.iter().filter(|zone| **zone != turn).count();
    Rolling::new(facts)
        // What is broken elsewhere serves nobody, and would otherwise hold up the turn.
        .only(|machine| zone(machine) == turn || (!machine.healthy && !machine.available))
        .answer()
        .message(format!(
            "failure domain {}: {left} old machines are left, {after} more failure domains follow",
            shown(turn)
        ))
        .waiting(Waiting::new(
            "ZoneNotDone",
            "old machines to go and new ones to be available",
            CHECK,
        ))
}
