//! One move of a rolling update. The arithmetic is the SDK's, because other strategies need it as well.

use capstan_sdk::upgrade_strategy::{Answer, Facts, Rolling};

/// What each set should have now.
pub(crate) fn plan<S>(facts: &Facts<S>) -> Answer {
    Rolling::new(facts).answer()
}

#[cfg(test)]
mod tests {
    //! Single plans, as tables of numbers.

    use capstan_sdk::upgrade_strategy::MachineSet;

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
