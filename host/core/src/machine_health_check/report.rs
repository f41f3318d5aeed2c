//! What the status of a MachineHealthCheck says.

use capstan_api::condition::Report;
use capstan_api::reason;
use capstan_api::reason::condition_type::{REMEDIATION_ALLOWED, TARGETS_EXCLUSIVE};
use capstan_api::v1beta2::MachineHealthCheckStatus;
use jiff::Timestamp;

use super::decide::{judged, limit_of};
use super::{Observed, Verdict};
use crate::rollout::count::name;

/// The most names that the status can hold (its schema's bound).
const TARGETS_MAX: usize = 10_000;

/// How many names a message lists.
const NAMES_MAX: usize = 3;

/// Status and conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: MachineHealthCheckStatus,
    /// Conditions that the controller owns.
    pub conditions: Vec<Report>,
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, now: Timestamp) -> Reported {
    let exclusive = exclusive(observed);
    if let Some(why) = observed.blind() {
        let mut status = observed.check.status.clone().unwrap_or_default();
        status.conditions = Vec::new();
        status.observed_generation = None;
        let unknown = Report::unknown(REMEDIATION_ALLOWED, reason::common::CONNECTION_DOWN)
            .with_message(format!("Machines cannot be judged now: {why}"));
        return Reported {
            status,
            conditions: vec![unknown, exclusive],
        };
    }
    let judged = judged(observed, now);
    let limit = limit_of(observed, &judged);
    let healthy = judged
        .iter()
        .filter(|(_, v)| *v == Verdict::Healthy)
        .count();
    let targets = observed.targets.iter().take(TARGETS_MAX);
    let allowed = if limit.is_allowed() {
        Report::yes(
            REMEDIATION_ALLOWED,
            reason::machine_health_check::REMEDIATION_ALLOWED,
        )
    } else {
        Report::no(
            REMEDIATION_ALLOWED,
            reason::machine_health_check::TOO_MANY_UNHEALTHY,
        )
        .with_message(limit.refusal())
    };
    Reported {
        status: MachineHealthCheckStatus {
            expected_machines: Some(saturated(judged.len())),
            current_healthy: Some(saturated(healthy)),
            remediations_allowed: Some(i32::try_from(limit.left()).unwrap_or(i32::MAX)),
            targets: targets.map(|target| target.name().to_owned()).collect(),
            ..MachineHealthCheckStatus::default()
        },
        conditions: vec![allowed, exclusive],
    }
}

fn saturated(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Whether another check selects a Machine of this one too.
fn exclusive(observed: &Observed) -> Report {
    let shared: Vec<_> = observed
        .targets
        .iter()
        .filter(|target| !target.also.is_empty())
        .collect();
    let Some(first) = shared.first() else {
        return Report::yes(
            TARGETS_EXCLUSIVE,
            reason::machine_health_check::NO_SHARED_TARGETS,
        );
    };
    let names: Vec<&str> = shared.iter().take(NAMES_MAX).map(|t| t.name()).collect();
    let more = match shared.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let others = first.also.join(", ");
    let who = if first.acts {
        format!(
            "{} is older and acts on them",
            name(&observed.check.metadata)
        )
    } else {
        "the oldest of them acts, this one only counts".to_owned()
    };
    Report::no(
        TARGETS_EXCLUSIVE,
        reason::machine_health_check::SHARED_TARGETS,
    )
    .with_message(format!(
        "Machines {}{more} are also selected by MachineHealthCheck {others}; {who}: give them selectors that have no Machine in common",
        names.join(", ")
    ))
}
