//! Conditions that MachineSets and MachineDeployments have in common (contract 3.4 and 3.5).

use capstan_api::condition::combine::{self, Polarity, Reasons, Source};
use capstan_api::condition::{self, Report};
use capstan_api::reason::{common, condition_type};
use capstan_api::v1beta2::Machine;
use jiff::Timestamp;

use super::count;
use crate::drain::delays;

/// How long a deletion may take before the condition says what holds it.
const SLOW_DELETION_MS: u64 = 15 * 60 * 1000;

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
pub fn scaling_down(current: i32, wanted: Option<i32>, slow: &[String]) -> Report {
    let type_ = condition_type::SCALING_DOWN;
    let Some(wanted) = wanted else {
        return Report::unknown(type_, common::WAITING_FOR_REPLICAS_SET)
            .with_message("Waiting for spec.replicas set");
    };
    if current <= wanted {
        return Report::no(type_, common::NOT_SCALING_DOWN);
    }
    let mut message = format!("Scaling down from {current} to {wanted} replicas");
    if !slow.is_empty() {
        message = format!("{message}\n{}", bullets(slow));
    }
    Report::yes(type_, common::SCALING_DOWN).with_message(message)
}

/// Machines that have been going for long, with what holds them.
pub fn slow_deletions<'a>(
    machines: impl IntoIterator<Item = &'a Machine>,
    now: Timestamp,
) -> Vec<String> {
    let slow = machines.into_iter().filter_map(|machine| {
        let since = machine.metadata.deletion_timestamp.as_ref()?.0;
        let age = u64::try_from(now.duration_since(since).as_millis()).unwrap_or_default();
        if age < SLOW_DELETION_MS {
            return None;
        }
        let deleting = condition::get(count::conditions(machine), condition_type::DELETING);
        let why = deleting.map_or_else(
            || "unknown causes".to_owned(),
            |condition| match delays(&condition.message).as_slice() {
                [] => condition.reason.clone(),
                delays => delays.join(", "),
            },
        );
        let name = count::name(&machine.metadata);
        Some(format!(
            "Machine {name} is in deletion since more than 15m, delay likely due to {why}"
        ))
    });
    slow.collect()
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
pub fn deleting(is_deleting: bool, kind: &str, left: usize, slow: &[String]) -> Report {
    let type_ = condition_type::DELETING;
    if !is_deleting {
        return Report::no(type_, common::NOT_DELETING);
    }
    if left == 0 {
        return Report::yes(type_, common::DELETION_COMPLETED).with_message("Deletion completed");
    }
    let plural = if left == 1 { "" } else { "s" };
    let mut message = format!("Deleting {left} {kind}{plural}");
    if !slow.is_empty() {
        message = format!("{message}\n{}", bullets(slow));
    }
    Report::yes(type_, common::DELETING).with_message(message)
}
