//! How many Machines may be unhealthy for any of them to be replaced.

use capstan_api::v1beta2::MachineHealthCheck;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::rollout::limits::{Rounding, scaled};

/// What a health check allows, for so many Machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Machines that are checked.
    pub total: u32,
    /// Those that are not known to be healthy.
    pub unhealthy: u32,
    /// How many of them there may be.
    pub bound: Bound,
}

/// The bound of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most so many; the text is as it was asked for.
    AtMost(u32, String),
    /// In this range.
    Within(u32, u32),
    /// The field cannot be read: nothing is replaced. The text says what is wrong.
    Invalid(String),
}

/// The limit of a check whose Machines are so many, of which so many are healthy. A range takes precedence; percentages are
/// rounded down; left out, all may be unhealthy.
#[must_use]
pub fn of(check: &MachineHealthCheck, total: u32, healthy: u32) -> Limit {
    let trigger = check
        .spec
        .remediation
        .as_ref()
        .and_then(|remediation| remediation.trigger_if.as_ref());
    let range = trigger.and_then(|trigger| trigger.unhealthy_in_range.as_deref());
    let bound = match range {
        Some(text) => within(text),
        None => at_most(
            trigger.and_then(|trigger| trigger.unhealthy_less_than_or_equal_to.as_ref()),
            total,
        ),
    };
    Limit {
        total,
        unhealthy: total.saturating_sub(healthy),
        bound,
    }
}

fn within(text: &str) -> Bound {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ends = inner.and_then(|inner| inner.split_once('-'));
    match ends.map(|(from, to)| (from.parse(), to.parse())) {
        Some((Ok(from), Ok(to))) if from <= to => Bound::Within(from, to),
        _ => Bound::Invalid(format!(
            "spec.remediation.triggerIf.unhealthyInRange: {text:?} is not a range such as [3-5]"
        )),
    }
}

fn at_most(value: Option<&IntOrString>, total: u32) -> Bound {
    let Some(value) = value else {
        return Bound::AtMost(total, "100%".to_owned());
    };
    let text = match value {
        IntOrString::Int(count) => count.to_string(),
        IntOrString::String(text) => text.clone(),
    };
    match scaled(value, total, Rounding::Down) {
        Some(max) => Bound::AtMost(max, text),
        None => Bound::Invalid(format!(
            "spec.remediation.triggerIf.unhealthyLessThanOrEqualTo: {text:?} is neither a count nor a percentage"
        )),
    }
}

impl Limit {
    /// Whether Machines may be replaced.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        match self.bound {
            Bound::AtMost(max, _) => self.unhealthy <= max,
            Bound::Within(from, to) => (from..=to).contains(&self.unhealthy),
            Bound::Invalid(_) => false,
        }
    }

    /// How many more may become unhealthy before replacing stops; 0 when it has stopped.
    #[must_use]
    pub fn left(&self) -> u32 {
        match self.bound {
            Bound::AtMost(max, _) | Bound::Within(_, max) if self.is_allowed() => {
                max.saturating_sub(self.unhealthy)
            }
            _ => 0,
        }
    }

    /// Why nothing is replaced.
    #[must_use]
    pub fn refusal(&self) -> String {
        let Self {
            total, unhealthy, ..
        } = self;
        let found = format!(
            "Remediation is not allowed: {unhealthy} of {total} Machines are unhealthy or have not started"
        );
        match &self.bound {
            Bound::AtMost(max, asked) => format!(
                "{found}, at most {max} may be (unhealthyLessThanOrEqualTo: {asked}, total: {total}, unhealthy: {unhealthy})"
            ),
            Bound::Within(from, to) => format!(
                "{found}, which is not in the range [{from}-{to}] (unhealthyInRange: [{from}-{to}], total: {total}, unhealthy: {unhealthy})"
            ),
            Bound::Invalid(why) => format!("Remediation is not allowed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(trigger: serde_json::Value) -> MachineHealthCheck {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck", "metadata": {"name": "c"},
            "spec": {"clusterName": "c", "selector": {"matchLabels": {"a": "b"}}, "remediation": {"triggerIf": trigger}},
        }))
        .expect("a MachineHealthCheck")
    }

    #[test]
    fn percentages_round_down_and_all_is_the_default() {
        let at_most = |value| of(&check(json!({"unhealthyLessThanOrEqualTo": value})), 5, 3);
        assert!(at_most(json!("40%")).is_allowed(), "2 of 5");
        assert!(!at_most(json!("39%")).is_allowed(), "1.95 is 1");
        assert!(at_most(json!(2)).is_allowed());
        assert!(!at_most(json!(1)).is_allowed());
        let mut plain = check(json!({"unhealthyInRange": "[1-2]"}));
        plain.spec.remediation = None;
        let all = of(&plain, 3, 0);
        assert!(all.is_allowed() && all.left() == 0);
    }

    #[test]
    fn a_range_goes_before_a_count() {
        let within = |healthy| {
            of(
                &check(json!({"unhealthyInRange": "[2-3]", "unhealthyLessThanOrEqualTo": 0})),
                5,
                healthy,
            )
        };
        let allowed: Vec<bool> = (0..=5)
            .map(|healthy| within(healthy).is_allowed())
            .collect();
        assert_eq!(allowed, [false, false, true, true, false, false]);
        assert_eq!(within(3).left(), 1);
        assert!(within(0).refusal().contains("range [2-3]"));
        let broken = of(&check(json!({"unhealthyInRange": "[5-3]"})), 5, 5);
        assert!(!broken.is_allowed() && broken.refusal().contains("unhealthyInRange"));
    }

    proptest! {
        #[test]
        fn what_is_left_never_exceeds_what_is_allowed(total in 0_u32..500, healthy in 0_u32..500, percent in 0_u32..=100) {
            let healthy = healthy.min(total);
            let limit = of(&check(json!({"unhealthyLessThanOrEqualTo": format!("{percent}%")})), total, healthy);
            let max = total.saturating_mul(percent).div_euclid(100);
            let unhealthy = total.saturating_sub(healthy);
            prop_assert_eq!(limit.is_allowed(), unhealthy <= max);
            prop_assert_eq!(limit.left(), max.saturating_sub(unhealthy));
        }
    }
}
