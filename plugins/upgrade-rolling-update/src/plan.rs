//! The arithmetic of a rolling update: grow the current set into the surge, shrink old sets down to the availability floor, break
//! deadlocks. Contract: upstream `core/reconcilers/machinedeployment`, rollout planner for `RollingUpdate`.

use capstan_sdk::upgrade_strategy::{Answer, Facts, MachineSet, Target};

/// A set and the replicas that it should have.
struct Intent<'a> {
    set: &'a MachineSet,
    replicas: u32,
}

impl Intent<'_> {
    /// Machines that will be available after all deletions that the intent asks for; a set deletes unavailable machines first,
    /// because the answer names them.
    fn available(&self) -> u32 {
        self.set.available_replicas.min(self.replicas)
    }

    fn changes(&self) -> bool {
        self.replicas != self.set.desired_replicas
    }
}

/// What each set should have now.
pub(crate) fn plan<S>(facts: &Facts<S>) -> Answer {
    let Some(current) = facts.current() else {
        return Answer::unchanged().message("the current MachineSet does not exist yet");
    };
    let mut new = Intent {
        set: current,
        replicas: current.desired_replicas,
    };
    let mut old: Vec<_> = facts
        .old()
        .map(|set| Intent {
            set,
            replicas: set.desired_replicas,
        })
        .collect();
    grow_new(facts, &mut new);
    shrink_old(facts, &new, &mut old);
    let stuck = break_deadlock(&new, &mut old);
    answer(&new, &old, stuck)
}

/// The current set takes what surge leaves free, or gives back what is too much.
fn grow_new<S>(facts: &Facts<S>, new: &mut Intent<'_>) {
    if new.replicas >= facts.replicas {
        new.replicas = facts.replicas;
        return;
    }
    let most = facts.replicas.saturating_add(facts.max_surge);
    let exist = sum(facts
        .machine_sets
        .iter()
        .map(|s| s.desired_replicas.max(s.actual_replicas)));
    let headroom = most.saturating_sub(exist);
    let missing = facts.replicas.saturating_sub(new.replicas);
    new.replicas = new.replicas.saturating_add(headroom.min(missing));
}

/// Old sets give up what is above the availability floor, counting machines that are already going and new ones that are not
/// available yet. Oldest first; unavailable replicas of all sets before any other.
fn shrink_old<S>(facts: &Facts<S>, new: &Intent<'_>, old: &mut [Intent<'_>]) {
    let floor = facts.replicas.saturating_sub(facts.max_unavailable);
    let desired = sum(facts.machine_sets.iter().map(|set| set.desired_replicas));
    let going = |i: &Intent<'_>| {
        i.set
            .actual_replicas
            .saturating_sub(i.set.desired_replicas.min(i.replicas))
    };
    let going = sum(old.iter().map(going)).saturating_add(going(new));
    let not_yet = new
        .set
        .desired_replicas
        .saturating_sub(new.set.available_replicas);
    let mut budget = desired
        .saturating_sub(going)
        .saturating_sub(floor)
        .saturating_sub(not_yet);
    let available = sum(old.iter().map(Intent::available)).saturating_add(new.available());
    let mut spare = available.saturating_sub(floor);
    for intent in old.iter_mut() {
        let unavailable = intent
            .replicas
            .saturating_sub(intent.set.available_replicas);
        shrink(intent, unavailable, &mut budget, &mut spare);
    }
    for intent in old.iter_mut() {
        let any = intent.replicas;
        shrink(intent, any, &mut budget, &mut spare);
    }
}

/// Takes up to `most` replicas from a set, within the budget. Replicas without a machine always go; machines of a set that has
/// available ones only as far as the availability floor is not at risk.
fn shrink(intent: &mut Intent<'_>, most: u32, budget: &mut u32, spare: &mut u32) {
    let wanted = most.min(intent.replicas).min(*budget);
    let unmade = intent
        .replicas
        .saturating_sub(intent.set.actual_replicas)
        .min(wanted);
    let mut made = wanted.saturating_sub(unmade);
    if intent.available() > 0 {
        made = made.min(*spare);
        *spare = spare.saturating_sub(made);
    }
    let taken = unmade.saturating_add(made);
    intent.replicas = intent.replicas.saturating_sub(taken);
    *budget = budget.saturating_sub(taken);
}

/// When nothing moves although old machines are left, an old machine that is not available blocks the roll-out: it goes.
fn break_deadlock(new: &Intent<'_>, old: &mut [Intent<'_>]) -> bool {
    let settled = |i: &Intent<'_>| !i.changes() && i.set.desired_replicas == i.set.actual_replicas;
    let new_works = settled(new) && new.set.available_replicas == new.set.desired_replicas;
    if !new_works || !old.iter().all(settled) {
        return false;
    }
    let broken = |i: &&mut Intent<'_>| i.set.actual_replicas > i.set.available_replicas;
    let Some(intent) = old.iter_mut().find(broken) else {
        return false;
    };
    intent.replicas = intent.replicas.saturating_sub(1);
    true
}

/// Every set has a target, so that a set that another strategy kept from making machines may make them again.
fn answer(new: &Intent<'_>, old: &[Intent<'_>], stuck: bool) -> Answer {
    let mut answer = Answer::unchanged();
    for intent in std::iter::once(new).chain(old) {
        answer = answer.target(Target::new(&intent.set.name, intent.replicas));
        if intent.replicas < intent.set.actual_replicas {
            let unavailable = |m: &&_| is_unavailable(m);
            for machine in intent.set.machines.iter().filter(unavailable) {
                answer = answer.delete_first(&machine.name);
            }
        }
    }
    if stuck {
        answer = answer.message("an old machine that is not available makes room for a new one");
    }
    answer
}

fn is_unavailable(machine: &capstan_sdk::upgrade_strategy::Machine) -> bool {
    !machine.available && !machine.deleting
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    //! Single plans, as tables of numbers.

    use super::*;

    /// A set from (desired, actual, available).
    fn set(name: &str, current: bool, counts: (u32, u32, u32)) -> MachineSet {
        MachineSet {
            name: name.to_owned(),
            current,
            desired_replicas: counts.0,
            actual_replicas: counts.1,
            available_replicas: counts.2,
            ..MachineSet::default()
        }
    }

    /// Target replicas of current, middle and oldest set.
    fn targets(
        (replicas, max_surge, max_unavailable): (u32, u32, u32),
        sets: [(u32, u32, u32); 3],
    ) -> [u32; 3] {
        let names = ["new", "middle", "oldest"];
        let machine_sets: Vec<_> = names
            .iter()
            .zip(sets)
            .map(|(n, c)| set(n, *n == "new", c))
            .collect();
        let answer = plan(&Facts {
            now_ms: 0,
            deployment: "default/test".to_owned(),
            version: "v1.36.0".to_owned(),
            replicas,
            max_surge,
            max_unavailable,
            machine_sets,
            settings: (),
            state: None,
            extra: Default::default(),
        });
        names.map(|n| {
            answer
                .targets
                .iter()
                .find(|t| t.machine_set == n)
                .unwrap()
                .replicas
        })
    }

    #[test]
    fn surges_before_it_removes() {
        assert_eq!(
            targets((3, 1, 0), [(0, 0, 0), (3, 3, 3), (0, 0, 0)]),
            [1, 3, 0]
        );
        assert_eq!(
            targets((3, 1, 0), [(1, 1, 0), (3, 3, 3), (0, 0, 0)]),
            [1, 3, 0]
        );
        assert_eq!(
            targets((3, 1, 0), [(1, 1, 1), (3, 3, 3), (0, 0, 0)]),
            [1, 2, 0]
        );
    }

    #[test]
    fn waits_until_the_old_machine_is_gone() {
        assert_eq!(
            targets((3, 1, 0), [(1, 1, 1), (2, 3, 3), (0, 0, 0)]),
            [1, 2, 0]
        );
        assert_eq!(
            targets((3, 1, 0), [(1, 1, 1), (2, 2, 2), (0, 0, 0)]),
            [2, 2, 0]
        );
    }

    #[test]
    fn removes_first_without_surge() {
        assert_eq!(
            targets((3, 0, 1), [(0, 0, 0), (3, 3, 3), (0, 0, 0)]),
            [0, 2, 0]
        );
        assert_eq!(
            targets((3, 0, 1), [(0, 0, 0), (2, 2, 2), (0, 0, 0)]),
            [1, 2, 0]
        );
        assert_eq!(
            targets((3, 0, 1), [(1, 1, 0), (2, 2, 2), (0, 0, 0)]),
            [1, 2, 0]
        );
        assert_eq!(
            targets((3, 0, 1), [(1, 1, 1), (2, 2, 2), (0, 0, 0)]),
            [1, 1, 0]
        );
    }

    #[test]
    fn takes_unavailable_machines_of_all_sets_before_available_ones() {
        assert_eq!(
            targets((6, 0, 2), [(0, 0, 0), (3, 3, 2), (3, 3, 3)]),
            [0, 2, 3]
        );
        assert_eq!(
            targets((6, 3, 0), [(3, 3, 3), (3, 3, 2), (3, 3, 3)]),
            [3, 2, 2]
        );
    }

    #[test]
    fn drops_replicas_that_have_no_machine_yet() {
        assert_eq!(
            targets((3, 1, 0), [(1, 1, 1), (3, 1, 1), (0, 0, 0)]),
            [1, 2, 0]
        );
    }

    #[test]
    fn shrinks_the_current_set_to_the_wanted_number() {
        assert_eq!(
            targets((2, 1, 0), [(5, 5, 5), (0, 0, 0), (0, 0, 0)]),
            [2, 0, 0]
        );
    }

    #[test]
    fn grows_the_only_set_at_once() {
        assert_eq!(
            targets((5, 1, 0), [(2, 2, 2), (0, 0, 0), (0, 0, 0)]),
            [5, 0, 0]
        );
    }

    #[test]
    fn removes_a_broken_old_machine_when_nothing_else_moves() {
        assert_eq!(
            targets((3, 1, 0), [(1, 1, 1), (3, 3, 1), (0, 0, 0)]),
            [1, 2, 0]
        );
        assert_eq!(
            targets((3, 1, 0), [(2, 2, 2), (1, 1, 1), (1, 1, 0)]),
            [2, 1, 0]
        );
    }

    #[test]
    fn is_settled_when_all_machines_are_current() {
        assert_eq!(
            targets((3, 1, 0), [(3, 3, 3), (0, 0, 0), (0, 0, 0)]),
            [3, 0, 0]
        );
    }
}
