//! Conditions that MachineSets and MachineDeployments have in common (contract 3.4 and 3.5).

use capstan_api::condition::combine::{self, Polarity, Reasons, Source};
use capstan_api::condition::{self, Report};
use capstan_api::reason::{self, common, condition_type};
use capstan_api::v1beta2::Machine;
use jiff::Timestamp;

use super::count;
use crate::deadline::lasts;
use crate::drain::{LONG_DRAIN_S, likely_due_to};
use crate::machine::report::LONG_DELETION_S;

/// What stands in the way of more machines, one sentence each.
pub type Blockers = [String];

/// `* sentence`, one per line.
#[must_use]
pub fn bullets(lines: &[String]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            if line.starts_with("* ") {
                line.clone()
            } else {
                format!("* {line}")
            }
        })
        .collect();
    lines.join("\n")
}

/// `ScalingUp`: from how many machines to how many. `wanted` is `None` while `spec.replicas` is not set.
#[must_use]
pub fn scaling_up(current: i32, wanted: Option<i32>, blockers: &Blockers) -> Report {
    let type_ = condition_type::SCALING_UP;
    let Some(wanted) = wanted else {
        return Report::unknown(type_, common::WAITING_FOR_REPLICAS_SET)
            .with_message("Waiting for spec.replicas set");
    };
    if current < wanted {
        let mut message = format!("Scaling up from {current} to {wanted} replicas");
        if !blockers.is_empty() {
            message = format!("{message} is blocked because:\n{}", bullets(blockers));
        }
        return Report::yes(type_, common::SCALING_UP).with_message(message);
    }
    let report = Report::no(type_, common::NOT_SCALING_UP);
    if blockers.is_empty() {
        return report;
    }
    report.with_message(format!(
        "Scaling up would be blocked because {}",
        blockers.join("; ")
    ))
}

/// `ScalingDown`: from how many machines to how many, and which ones take long.
#[must_use]
pub fn scaling_down(current: i32, wanted: Option<i32>, slow: Option<&str>) -> Report {
    let type_ = condition_type::SCALING_DOWN;
    let Some(wanted) = wanted else {
        return Report::unknown(type_, common::WAITING_FOR_REPLICAS_SET)
            .with_message("Waiting for spec.replicas set");
    };
    if current <= wanted {
        return Report::no(type_, common::NOT_SCALING_DOWN);
    }
    let mut message = format!("Scaling down from {current} to {wanted} replicas");
    if let Some(slow) = slow {
        message = format!("{message}\n* {slow}");
    }
    Report::yes(type_, common::SCALING_DOWN).with_message(message)
}

/// Machines that have been going for long, and what holds their drains if these take long as well: one sentence.
pub fn slow_deletions<'a>(
    machines: impl IntoIterator<Item = &'a Machine>,
    now: Timestamp,
) -> Option<String> {
    let slow = machines.into_iter().filter(|machine| {
        lasts(
            machine.metadata.deletion_timestamp.as_ref(),
            LONG_DELETION_S,
            now,
        )
    });
    let mut names = Vec::new();
    let mut drains = String::new();
    for machine in slow {
        names.push(count::name(&machine.metadata));
        let times = machine.status.as_ref().and_then(|s| s.deletion.as_ref());
        let drained_since = times.and_then(|times| times.node_drain_start_time.as_ref());
        let deleting = condition::get(count::conditions(machine), condition_type::DELETING);
        let is_draining =
            deleting.filter(|deleting| deleting.reason == reason::machine::DRAINING_NODE);
        if let Some(draining) = is_draining.filter(|_| lasts(drained_since, LONG_DRAIN_S, now)) {
            drains.push_str(&draining.message);
        }
    }
    names.sort_unstable();
    let (noun, verb) = match names.len() {
        0 => return None,
        1 => ("Machine", "is"),
        _ => ("Machines", "are"),
    };
    let mut said = format!(
        "{noun} {} {verb} in deletion since more than 15m",
        combine::names(&names)
    );
    said.push_str(&likely_due_to(&drains));
    Some(said)
}

/// An aggregate of one condition of machines; with no machines it is True.
#[must_use]
pub fn of_machines(target: &str, source_type: &str, sources: &[Source<'_>]) -> Report {
    if sources.is_empty() {
        return Report::yes(target, common::NO_REPLICAS);
    }
    let reasons = if source_type == condition_type::READY {
        Reasons {
            on_true: common::READY,
            on_false: common::NOT_READY,
            on_unknown: common::READY_UNKNOWN,
        }
    } else {
        Reasons {
            on_true: common::UP_TO_DATE,
            on_false: common::NOT_UP_TO_DATE,
            on_unknown: common::UP_TO_DATE_UNKNOWN,
        }
    };
    combine::aggregate(target, source_type, sources, Polarity::Positive, &reasons)
}

/// `Remediating`: machines that a health check gave up and their owner replaces.
#[must_use]
pub fn remediating(machines: &[&Machine], now: Timestamp) -> Report {
    let type_ = condition_type::REMEDIATING;
    let given_up: Vec<&Machine> = machines
        .iter()
        .copied()
        .filter(|machine| count::is_to_be_remediated(machine))
        .collect();
    if !given_up.is_empty() {
        let sources = count::sources(
            given_up.iter().copied(),
            condition_type::OWNER_REMEDIATED,
            now,
        );
        let reasons = Reasons {
            on_true: common::REMEDIATING,
            on_false: common::REMEDIATING,
            on_unknown: common::REMEDIATING,
        };
        let source = condition_type::OWNER_REMEDIATED;
        let said = combine::aggregate(type_, source, &sources, Polarity::Positive, &reasons);
        return Report::yes(type_, common::REMEDIATING).with_message(said.message);
    }
    let unhealthy: Vec<&str> = machines
        .iter()
        .filter(|machine| {
            condition::is_false(
                count::conditions(machine),
                condition_type::HEALTH_CHECK_SUCCEEDED,
            )
        })
        .map(|machine| count::name(&machine.metadata))
        .collect();
    let report = Report::no(type_, common::NOT_REMEDIATING);
    match unhealthy.as_slice() {
        [] => report,
        [one] => report.with_message(format!(
            "Machine {one} is not healthy (not to be remediated)"
        )),
        several => report.with_message(format!(
            "Machines {} are not healthy (not to be remediated)",
            combine::names(several)
        )),
    }
}

/// `Deleting`: how many things are still there.
#[must_use]
pub fn deleting(is_deleting: bool, kind: &str, left: usize, slow: Option<&str>) -> Report {
    let type_ = condition_type::DELETING;
    if !is_deleting {
        return Report::no(type_, common::NOT_DELETING);
    }
    if left == 0 {
        return Report::yes(type_, common::DELETION_COMPLETED).with_message("Deletion completed");
    }
    let plural = if left == 1 { "" } else { "s" };
    let mut message = format!("Deleting {left} {kind}{plural}");
    if let Some(slow) = slow {
        message = format!("{message}\n* {slow}");
    }
    Report::yes(type_, common::DELETING).with_message(message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn going(name: &str, said: &str, drained: Option<&str>) -> Machine {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "clusterName": "c", "bootstrap": {"dataSecretName": "x"},
                "infrastructureRef": {"apiGroup": "i", "kind": "I", "name": "x"},
            },
            "status": {
                "deletion": {"nodeDrainStartTime": drained},
                "conditions": [{
                    "type": "Deleting", "status": "True", "reason": "DrainingNode", "message": said,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        }))
        .expect("a Machine")
    }

    #[test]
    fn machines_that_go_for_long_are_one_sentence() {
        let said = |machines: &[Machine], now: &str| {
            slow_deletions(machines, now.parse().expect("a time"))
        };
        let quiet = going("m", "", None);
        assert_eq!(
            said(std::slice::from_ref(&quiet), "2026-01-01T00:15:00Z"),
            None
        );
        assert_eq!(
            said(&[quiet], "2026-01-01T00:15:01Z").as_deref(),
            Some("Machine m is in deletion since more than 15m")
        );
        let began = Some("2026-01-01T00:10:30Z");
        let names = ["e", "d", "c", "b", "a"];
        let holding = "* Pod ns/p: failed to evict Pod, cannot evict pod as it would violate the pod's disruption budget.";
        let many: Vec<Machine> = names
            .iter()
            .map(|name| going(name, holding, began))
            .collect();
        let mut all =
            "Machines a, b, c, ... (2 more) are in deletion since more than 15m".to_owned();
        assert_eq!(said(&many, "2026-01-01T00:15:00.5Z"), None);
        assert_eq!(
            said(&many, "2026-01-01T00:15:01Z").as_deref(),
            Some(&*all),
            "the drains do not take long yet"
        );
        all.push_str(", delay likely due to PodDisruptionBudgets, Pod eviction errors");
        assert_eq!(said(&many, "2026-01-01T00:16:00Z").as_deref(), Some(&*all));
    }
}
