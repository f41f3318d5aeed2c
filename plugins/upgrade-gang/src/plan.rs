//! One look at a rollout by groups: wait until everything stands still, then move one group, whole.

use std::time::Duration;

use capstan_sdk::upgrade_strategy::{Answer, Facts, MachineSet, Rolling, Target};
use capstan_sdk::{Failure, Waiting};

use crate::group::{Group, groups};
use crate::{Settings, Surge};

/// Machines that come or go are noticed by the host; this is for the case that none does.
const CHECK: Duration = Duration::from_secs(60);

pub(crate) fn plan(facts: &Facts<Settings>) -> Result<Answer, Failure> {
    let Some(current) = facts.current().filter(|_| facts.is_rolling_out()) else {
        return Ok(Rolling::new(facts).answer());
    };
    if let Some(what) = moving(facts, current) {
        return Ok(Answer::unchanged()
            .message(format!("a group is on its way: {what}"))
            .waiting(Waiting::new("GroupMoving", what, CHECK)));
    }
    let desired = facts
        .machine_sets
        .iter()
        .fold(0_u32, |sum, set| sum.saturating_add(set.desired_replicas));
    let groups = groups(facts);
    if desired < facts.replicas {
        // All that are missing come together.
        let missing = facts.replicas.saturating_sub(desired);
        let size = current.desired_replicas.saturating_add(missing);
        return Ok(Answer::unchanged()
            .target(Target::new(&current.name, size))
            .message(format!("{missing} new machines come together")));
    }
    let Some(group) = groups.first() else {
        return Ok(Rolling::new(facts).answer());
    };
    let surplus = desired.saturating_sub(facts.replicas);
    if surplus >= group.size() {
        return Ok(remove(facts, group));
    }
    if surplus > 0 {
        // The deployment was made smaller, or somebody added single machines: as many go as are too many.
        return Ok(remove(facts, &part(group, surplus)));
    }
    start(facts, current, group)
}

/// What still moves; old machines that are broken stand still.
fn moving(facts: &Facts<Settings>, current: &MachineSet) -> Option<String> {
    let going = facts
        .machine_sets
        .iter()
        .flat_map(|set| &set.machines)
        .filter(|machine| machine.deleting)
        .count();
    let not_gone = facts
        .old()
        .any(|set| set.actual_replicas > set.desired_replicas);
    if going > 0 || not_gone {
        return Some("old machines to go".to_owned());
    }
    let missing = current
        .desired_replicas
        .saturating_sub(current.available_replicas);
    (missing > 0 || current.actual_replicas != current.desired_replicas)
        .then(|| format!("{missing} new machines to be available"))
}

/// Everything stands still: the next group is made, or goes first where devices are scarce.
fn start(
    facts: &Facts<Settings>,
    current: &MachineSet,
    group: &Group<'_>,
) -> Result<Answer, Failure> {
    let scarce = facts.settings.surge == Surge::Never
        || group
            .machines
            .iter()
            .any(|(_, machine)| !machine.capacity_class.is_empty());
    let size = group.size();
    if !scarce && facts.max_surge >= size {
        let grown = current.desired_replicas.saturating_add(size);
        return Ok(Answer::unchanged()
            .target(Target::new(&current.name, grown.min(facts.replicas)))
            .message(format!(
                "{size} new machines are made for group {}",
                group.name
            )));
    }
    let floor = facts.replicas.saturating_sub(facts.max_unavailable);
    let available = facts
        .machine_sets
        .iter()
        .fold(0_u32, |sum, set| sum.saturating_add(set.available_replicas));
    if available.saturating_sub(group.available()) >= floor || group.available() == 0 {
        return Ok(remove(facts, group));
    }
    if facts.max_unavailable < size {
        let surge = if scarce {
            String::new()
        } else {
            format!(" or maxSurge (it is {})", facts.max_surge)
        };
        return Err(Failure::terminal(
            "GroupTooLarge",
            format!(
                "group {} goes together: spec.rollout.strategy.rollingUpdate.maxUnavailable (it is {}){surge} must be at least {size}",
                group.name, facts.max_unavailable
            ),
        ));
    }
    Ok(Answer::unchanged()
        .message(format!("group {} comes next", group.name))
        .waiting(Waiting::new(
            "TooFewAvailable",
            format!(
                "machines to be available: {available} are, and {floor} have to be left without the {size} of group {}",
                group.name
            ),
            CHECK,
        )))
}

/// So many machines of a group.
fn part<'a>(group: &Group<'a>, count: u32) -> Group<'a> {
    let mut machines = group.machines.clone();
    machines.sort_by_key(|(_, machine)| machine.available);
    machines.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    Group {
        name: group.name.clone(),
        machines,
    }
}

/// Every set without its machines of the group, which are named.
fn remove(facts: &Facts<Settings>, group: &Group<'_>) -> Answer {
    let mut answer = Answer::unchanged().message(format!("group {} goes", group.name));
    for set in facts.old() {
        let of_it = group.machines.iter().filter(|(name, _)| *name == set.name);
        let count = u32::try_from(of_it.count()).unwrap_or(u32::MAX);
        if count > 0 {
            let left = set.desired_replicas.saturating_sub(count);
            answer = answer.target(Target::new(&set.name, left));
        }
    }
    for (_, machine) in &group.machines {
        answer = answer.delete_first(&machine.name);
    }
    answer
}
