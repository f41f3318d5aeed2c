//! What failed, where people look for it.

use capstan_api::condition::{ConditionStatus, Report};
use capstan_api::reason::condition_type;

use crate::control_plane::{Observed, Step};
use crate::plan::{Failure, Outcome};

/// What went wrong, first in asking the plugin, then in acting.
pub(super) fn first<'a>(
    observed: &'a Observed,
    outcome: &'a Outcome<Step, ()>,
) -> Option<&'a Failure> {
    observed.unasked().or_else(|| step(outcome))
}

/// What went wrong in acting. A lost race is over with the next look.
pub(super) fn step(outcome: &Outcome<Step, ()>) -> Option<&Failure> {
    let (_, failure) = outcome.failed.as_ref()?;
    (!failure.is_lost_race()).then_some(failure)
}

/// Adds the step that failed to what it holds up: replacing a machine, or what etcd should do. What no condition has a word of is said in
/// `ScalingUp`, which every control plane has.
pub(super) fn say(conditions: &mut [Report], outcome: &Outcome<Step, ()>) {
    let (Some(failure), Some((step, _))) = (step(outcome), &outcome.failed) else {
        return;
    };
    let is_held = |report: &Report| match report.type_.as_str() {
        condition_type::REMEDIATING => report.status == ConditionStatus::True,
        condition_type::ETCD_CLUSTER_HEALTHY => step.is_of_etcd(),
        _ => false,
    };
    for report in conditions.iter_mut().filter(|report| is_held(report)) {
        add(report, failure);
    }
    let is_said = |report: &Report| report.message.contains(&failure.message);
    if !conditions.iter().any(is_said) {
        let mut all = conditions.iter_mut();
        let last = all.find(|report| report.type_ == condition_type::SCALING_UP);
        last.into_iter().for_each(|report| add(report, failure));
    }
}

fn add(report: &mut Report, failure: &Failure) {
    if !report.message.is_empty() {
        report.message.push('\n');
    }
    report.message.push_str("* ");
    report.message.push_str(&failure.message);
}
