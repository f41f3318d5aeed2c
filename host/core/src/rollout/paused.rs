//! Scaling of a paused MachineDeployment: no new set, no strategy; what changes is spread over the sets in proportion
//! (contract: upstream `machinedeployment_sync.go`).

use std::cmp::Reverse;

use jiff::Timestamp;

use super::limits::Limits;

/// A set of a paused deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedSet {
    /// Name.
    pub name: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Of the annotation `max-replicas`; `None` when it is absent.
    pub max_replicas: Option<u32>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Made from the current template.
    pub current: bool,
    /// Machines that are available.
    pub available: u32,
}

/// Replicas of each set, in the given order. With several sets that have replicas, only a rolling update is spread over them.
#[must_use]
pub fn scale(limits: &Limits, sets: &[PausedSet], spread: bool) -> Vec<u32> {
    let active: Vec<usize> = sets
        .iter()
        .enumerate()
        .filter(|(_, set)| set.replicas > 0)
        .map(|(index, _)| index)
        .collect();
    let keep: Vec<u32> = sets.iter().map(|set| set.replicas).collect();
    let only = match active.as_slice() {
        [] => newest(sets),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        return replaced(keep, only, limits.replicas);
    }
    let saturated = sets.iter().any(|set| {
        set.current && set.replicas == limits.replicas && set.available == limits.replicas
    });
    if saturated {
        return sets
            .iter()
            .map(|set| if set.current { set.replicas } else { 0 })
            .collect();
    }
    if !spread {
        return keep;
    }
    proportional(limits, sets, keep)
}

/// The set to scale when none has replicas: the current one, else the newest.
fn newest(sets: &[PausedSet]) -> Option<usize> {
    let newest = sets
        .iter()
        .enumerate()
        .max_by_key(|(_, set)| (set.current, set.created));
    newest.map(|(index, _)| index)
}

fn replaced(mut replicas: Vec<u32>, index: usize, value: u32) -> Vec<u32> {
    if let Some(place) = replicas.get_mut(index) {
        *place = value;
    }
    replicas
}

fn proportional(limits: &Limits, sets: &[PausedSet], mut replicas: Vec<u32>) -> Vec<u32> {
    let total = replicas
        .iter()
        .fold(0_u32, |total, count| total.saturating_add(*count));
    let allowed = if limits.replicas == 0 {
        0
    } else {
        limits.ceiling()
    };
    if total == allowed {
        return replicas;
    }
    let growing = allowed > total;
    let mut order: Vec<(usize, &PausedSet)> = sets
        .iter()
        .enumerate()
        .filter(|(_, set)| set.replicas > 0)
        .collect();
    // Largest first; of equal ones the newest when growing, the oldest when shrinking.
    if growing {
        order.sort_by_key(|(_, set)| {
            (
                Reverse(set.replicas),
                Reverse(set.created),
                set.name.clone(),
            )
        });
    } else {
        order.sort_by_key(|(_, set)| (Reverse(set.replicas), set.created, set.name.clone()));
    }
    let mut left = if growing {
        allowed.saturating_sub(total)
    } else {
        total.saturating_sub(allowed)
    };
    for (index, set) in &order {
        let share = share(set, allowed, total, growing).min(left);
        left = left.saturating_sub(share);
        let scaled = if growing {
            set.replicas.saturating_add(share)
        } else {
            set.replicas.saturating_sub(share)
        };
        replicas = replaced(replicas, *index, scaled);
    }
    // What rounding left over goes to the largest; never below nothing.
    for (index, _) in &order {
        let now = replicas.get(*index).copied().unwrap_or_default();
        let step = if growing { left } else { left.min(now) };
        left = left.saturating_sub(step);
        let scaled = if growing {
            now.saturating_add(step)
        } else {
            now.saturating_sub(step)
        };
        replicas = replaced(replicas, *index, scaled);
    }
    replicas
}

/// By how much a set changes: its part of the size that the deployment had when the set was last scaled.
fn share(set: &PausedSet, allowed: u32, total: u32, growing: bool) -> u32 {
    let before = u64::from(
        set.max_replicas
            .filter(|max| *max > 0)
            .unwrap_or(total)
            .max(1),
    );
    let product = u64::from(set.replicas).saturating_mul(u64::from(allowed));
    // Rounded to the nearest.
    let scaled = product
        .saturating_add(before.div_euclid(2))
        .checked_div(before)
        .unwrap_or_default();
    let scaled = u32::try_from(scaled).unwrap_or(u32::MAX);
    if growing {
        scaled.saturating_sub(set.replicas)
    } else {
        set.replicas.saturating_sub(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, replicas: u32, max: u32, age: i64, current: bool) -> PausedSet {
        PausedSet {
            name: name.to_owned(),
            replicas,
            max_replicas: Some(max),
            created: Timestamp::from_second(age).ok(),
            current,
            available: 0,
        }
    }

    fn limits(replicas: u32, max_surge: u32) -> Limits {
        Limits {
            replicas,
            max_surge,
            max_unavailable: 0,
        }
    }

    #[test]
    fn one_active_set_takes_all() {
        assert_eq!(
            scale(
                &limits(5, 1),
                &[set("a", 3, 4, 1, true), set("b", 0, 4, 0, false)],
                true
            ),
            [5, 0]
        );
        assert_eq!(
            scale(
                &limits(2, 1),
                &[set("a", 0, 4, 1, false), set("b", 0, 4, 2, true)],
                true
            ),
            [0, 2]
        );
    }

    #[test]
    fn a_saturated_current_set_sends_the_others_away() {
        let current = PausedSet {
            available: 3,
            ..set("a", 3, 4, 1, true)
        };
        assert_eq!(
            scale(&limits(3, 1), &[current, set("b", 2, 4, 0, false)], true),
            [3, 0]
        );
    }

    #[test]
    fn growth_and_shrinking_are_spread_in_proportion() {
        let sets = [set("a", 4, 10, 2, true), set("b", 6, 10, 1, false)];
        assert_eq!(scale(&limits(20, 0), &sets, true), [8, 12]);
        assert_eq!(scale(&limits(5, 0), &sets, true), [2, 3]);
        assert_eq!(scale(&limits(0, 1), &sets, true), [0, 0]);
        assert_eq!(scale(&limits(11, 0), &sets, true), [4, 7]);
    }

    #[test]
    fn without_a_rolling_update_nothing_is_spread() {
        let sets = [set("a", 4, 10, 2, true), set("b", 6, 10, 1, false)];
        assert_eq!(scale(&limits(20, 0), &sets, false), [4, 6]);
    }

    #[test]
    fn the_total_is_always_what_is_allowed() {
        for replicas in 0..30_u32 {
            for (a, b, c) in [(1, 1, 1), (5, 2, 9), (10, 1, 3)] {
                let sets = [
                    set("a", a, a + b + c, 3, true),
                    set("b", b, a + b + c, 2, false),
                    set("c", c, a + b + c, 1, false),
                ];
                let scaled = scale(&limits(replicas, 2), &sets, true);
                let allowed = if replicas == 0 { 0 } else { replicas + 2 };
                assert_eq!(
                    scaled.iter().sum::<u32>(),
                    allowed,
                    "{replicas} {a} {b} {c} {scaled:?}"
                );
            }
        }
    }
}
