//! The arithmetic of replacement on deletion: old sets follow their machines down and make none; the current set fills the gap.
//! Contract: upstream `core/reconcilers/machinedeployment`, rollout planner for `OnDelete`.

use capstan_sdk::upgrade_strategy::{Answer, Facts, Target};

/// What each set should have now.
pub(crate) fn plan<S>(facts: &Facts<S>) -> Answer {
    let Some(current) = facts.current() else {
        return Answer::unchanged().message("the current MachineSet does not exist yet");
    };
    let new = if current.desired_replicas >= facts.replicas {
        facts.replicas
    } else {
        let exist = sum(facts
            .machine_sets
            .iter()
            .map(|s| s.desired_replicas.max(s.actual_replicas)));
        let missing = facts.replicas.saturating_sub(current.desired_replicas);
        let headroom = facts.replicas.saturating_sub(exist);
        current
            .desired_replicas
            .saturating_add(headroom.min(missing))
    };
    // A replica without a machine is one that somebody deleted: the old set must not make it again.
    let left = |desired: u32, actual: u32| desired.min(actual);
    let kept = sum(facts
        .old()
        .map(|s| left(s.desired_replicas, s.actual_replicas)));
    let mut excess = kept.saturating_add(new).saturating_sub(facts.replicas);
    let mut answer = Answer::unchanged().target(Target::new(&current.name, new));
    for set in facts.old() {
        let replicas = left(set.desired_replicas, set.actual_replicas);
        let dropped = replicas.min(excess);
        excess = excess.saturating_sub(dropped);
        let replicas = replicas.saturating_sub(dropped);
        answer = answer.target(Target::new(&set.name, replicas).create_disabled());
    }
    answer
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    //! Single plans as tables of numbers, and a model that is rolled with seeded luck.

    use super::*;
    use capstan_sdk::upgrade_strategy::MachineSet;

    fn facts(replicas: u32, sets: &[(u32, u32)]) -> Facts<()> {
        let set = |(index, (desired, actual)): (usize, &(u32, u32))| MachineSet {
            name: format!("set-{index}"),
            current: index == 0,
            desired_replicas: *desired,
            actual_replicas: *actual,
            available_replicas: *actual,
            ..MachineSet::default()
        };
        Facts {
            now_ms: 0,
            deployment: "default/test".to_owned(),
            version: String::new(),
            replicas,
            max_surge: 0,
            max_unavailable: 0,
            machine_sets: sets.iter().enumerate().map(set).collect(),
            settings: (),
            state: None,
            extra: Default::default(),
        }
    }

    /// Targets of sets from (desired, actual); the first is current, the last is oldest.
    fn targets(replicas: u32, sets: &[(u32, u32)]) -> Vec<u32> {
        let answer = plan(&facts(replicas, sets));
        let find = |index| {
            let name = format!("set-{index}");
            answer
                .targets
                .iter()
                .find(|t| t.machine_set == name)
                .unwrap()
                .replicas
        };
        (0..sets.len()).map(find).collect()
    }

    #[test]
    fn leaves_old_machines_alone() {
        assert_eq!(targets(3, &[(0, 0), (3, 3)]), [0, 3]);
    }

    #[test]
    fn lets_go_of_a_deleted_machine_and_then_replaces_it() {
        assert_eq!(targets(3, &[(0, 0), (3, 2)]), [0, 2]);
        assert_eq!(targets(3, &[(0, 0), (2, 2)]), [1, 2]);
        assert_eq!(targets(3, &[(1, 1), (2, 2)]), [1, 2]);
    }

    #[test]
    fn shrinks_the_oldest_first_when_fewer_are_wanted() {
        assert_eq!(targets(3, &[(1, 1), (2, 2), (2, 2)]), [1, 2, 0]);
        assert_eq!(targets(1, &[(2, 2), (1, 1)]), [1, 0]);
    }

    #[test]
    fn fills_the_current_set_when_more_are_wanted() {
        assert_eq!(targets(5, &[(1, 1), (2, 2)]), [3, 2]);
    }

    #[test]
    fn old_sets_make_no_machines() {
        let answer = plan(&facts(3, &[(0, 0), (2, 2), (1, 1)]));
        let disabled: Vec<_> = answer.targets.iter().map(|t| t.create_disabled).collect();
        assert_eq!(disabled, [false, true, true]);
    }

    #[test]
    fn never_makes_too_many_and_finishes_when_all_old_machines_are_deleted() {
        for seed in 0..500u64 {
            let mut luck = seed;
            let mut one_in = move |n: u64| {
                luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (luck >> 33).is_multiple_of(n)
            };
            let replicas = 1 + (seed % 6) as u32;
            let mut sets = vec![(0, 0), (replicas, replicas)];
            let mut turns = 0;
            while sets != [(replicas, replicas), (0, 0)] {
                turns += 1;
                assert!(turns < 1_000, "seed {seed} does not finish: {sets:?}");
                let targets = targets(replicas, &sets);
                for (set, target) in sets.iter_mut().zip(targets) {
                    set.0 = target;
                }
                let most: u32 = sets
                    .iter()
                    .map(|(desired, actual)| desired.max(actual))
                    .sum();
                assert!(most <= replicas, "seed {seed}: {sets:?}");
                if sets[0].1 < sets[0].0 && one_in(2) {
                    sets[0].1 += 1;
                }
                // Somebody deletes an old machine; an old set never makes one.
                if sets[1].1 > 0 && one_in(4) {
                    sets[1].1 -= 1;
                }
            }
        }
    }
}
