//! The arithmetic of rolling updates and of updates on deletion, as the shipped strategies have it (contract 3.5).

use capstan_core::call::Waiting;
use capstan_core::call::strategy::{Answer, Facts, MachineSetFacts, Target};

fn target(set: &MachineSetFacts, replicas: u32) -> Target {
    Target {
        machine_set: set.name.clone(),
        replicas,
        create_disabled: false,
    }
}

fn sum(facts: &Facts, of: impl Fn(&MachineSetFacts) -> u32) -> u32 {
    facts.machine_sets.iter().map(of).sum()
}

/// Replaces machines within surge and unavailability: unavailable old machines first, oldest set first.
pub(super) fn rolling_update(facts: &Facts) -> Answer {
    let (new, old) = facts
        .machine_sets
        .split_first()
        .expect("the current set is always there");
    let occupied = sum(facts, |set| set.desired_replicas.max(set.actual_replicas));
    let headroom = (facts.replicas + facts.max_surge).saturating_sub(occupied);
    let new_target = if new.desired_replicas > facts.replicas {
        facts.replicas
    } else {
        new.desired_replicas + headroom.min(facts.replicas - new.desired_replicas)
    };
    let floor = facts.replicas - facts.max_unavailable;
    let pending = sum(facts, |set| {
        set.actual_replicas.saturating_sub(set.desired_replicas)
    });
    let new_unavailable = new.desired_replicas.saturating_sub(new.available_replicas);
    let desired = sum(facts, |set| set.desired_replicas);
    let mut budget = desired
        .saturating_sub(pending)
        .saturating_sub(floor)
        .saturating_sub(new_unavailable);
    let mut to_spare = sum(facts, |set| set.available_replicas).saturating_sub(floor);
    let mut targets = vec![target(new, new_target)];
    let mut left: Vec<u32> = old.iter().map(|set| set.desired_replicas).collect();
    for pass in 0..2 {
        for (index, set) in old.iter().enumerate().rev() {
            let missing = left[index].saturating_sub(set.actual_replicas);
            let existing = left[index] - missing;
            let removable = if pass == 0 {
                missing + existing.saturating_sub(set.available_replicas)
            } else {
                let lost = existing.min(to_spare);
                missing + lost
            };
            let removed = removable.min(budget);
            if pass == 1 {
                to_spare -= removed.saturating_sub(missing).min(to_spare);
            }
            budget -= removed;
            left[index] -= removed;
        }
    }
    let still = new_target == new.desired_replicas
        && old
            .iter()
            .zip(&left)
            .all(|(set, left)| set.desired_replicas == *left)
        && facts
            .machine_sets
            .iter()
            .all(|set| set.desired_replicas == set.actual_replicas);
    if still && new.available_replicas == new.desired_replicas {
        // Nothing moves although the current machines are fine: an old one that is broken makes room.
        let broken = old.iter().rposition(|set| {
            set.desired_replicas > 0 && set.available_replicas < set.actual_replicas
        });
        if let Some(index) = broken {
            left[index] -= 1;
        }
    }
    targets.extend(old.iter().zip(left).map(|(set, left)| target(set, left)));
    Answer {
        targets,
        ..Answer::default()
    }
}

/// Replaces machines that somebody deleted; old sets make none.
pub(super) fn on_delete(facts: &Facts) -> Answer {
    let (new, old) = facts
        .machine_sets
        .split_first()
        .expect("the current set is always there");
    let shrunk: Vec<u32> = old
        .iter()
        .map(|set| {
            set.desired_replicas
                .min(set.machines.iter().filter(|m| !m.deleting).count() as u32)
        })
        .collect();
    let occupied = new.desired_replicas.max(new.actual_replicas)
        + old
            .iter()
            .zip(&shrunk)
            .map(|(set, left)| set.actual_replicas.max(*left))
            .sum::<u32>();
    let headroom = facts.replicas.saturating_sub(occupied);
    let new_target =
        new.desired_replicas + headroom.min(facts.replicas.saturating_sub(new.desired_replicas));
    let mut targets = vec![target(new, new_target)];
    targets.extend(old.iter().zip(&shrunk).map(|(set, left)| Target {
        create_disabled: true,
        ..target(set, *left)
    }));
    let waiting = shrunk.iter().any(|left| *left > 0).then(|| Waiting {
        reason: "WaitingForDeletion".to_owned(),
        message: "outdated Machines are replaced when somebody deletes them".to_owned(),
        check_after: std::time::Duration::from_secs(600),
    });
    Answer {
        targets,
        waiting,
        ..Answer::default()
    }
}
