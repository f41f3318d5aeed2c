//! How the number of a control plane's machines changes, and what keeps it from that.

use capstan_api::condition::Report;
use capstan_api::reason::{common, condition_type};
use jiff::Timestamp;

use super::Look;
use crate::control_plane::size::{Size, cannot_make, size};
use crate::control_plane::{Observed, leave};
use crate::plan::Failure;

/// How many machines there are to be.
fn wanted(observed: &Observed) -> usize {
    let desired = observed.desired.as_ref();
    desired.map_or(usize::MAX, |desired| {
        usize::try_from(desired.replicas).unwrap_or(usize::MAX)
    })
}

pub(super) fn rolling_out(
    observed: &Observed,
    looks: &[Look<'_>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> Report {
    let type_ = condition_type::ROLLING_OUT;
    if let Some(failure) = observed.unasked() {
        return Report::unknown(type_, common::ROLLING_OUT_UNKNOWN)
            .with_message(failure.message.clone());
    }
    let outdated: Vec<&Look<'_>> = looks.iter().filter(|look| !look.is_up_to_date()).collect();
    if outdated.is_empty() {
        return Report::no(type_, common::NOT_ROLLING_OUT);
    }
    let mut why: Vec<&String> = outdated.iter().flat_map(|look| &look.outdated).collect();
    why.sort();
    why.dedup();
    let mut lines = vec![format!("{} machines are not up to date", outdated.len())];
    lines.extend(why.iter().map(|why| format!("* {why}")));
    lines.extend(in_the_way(observed, failure, now));
    Report::yes(type_, common::ROLLING_OUT).with_message(lines.join("\n"))
}

/// What keeps the number of machines from changing, as a line of a list: what failed, else what is waited for.
fn in_the_way(observed: &Observed, failure: Option<&Failure>, now: Timestamp) -> Option<String> {
    if let Some(failure) = failure {
        return Some(format!("* {}", failure.message));
    }
    if let Some(why) = leave::decide(observed, now).wait {
        return Some(format!("* {why}"));
    }
    let (cluster, desired) = (observed.cluster.found()?, observed.desired.as_ref().ok()?);
    match size(observed, cluster, desired, now) {
        Size::Wait(why) => Some(format!("* {why}")),
        Size::Keep | Size::Do(_) => None,
    }
}

pub(super) fn up(observed: &Observed, failure: Option<&Failure>, now: Timestamp) -> Report {
    let type_ = condition_type::SCALING_UP;
    if let Err(failure) = &observed.desired {
        return Report::unknown(type_, common::SCALING_UP_UNKNOWN)
            .with_message(failure.message.clone());
    }
    let (current, wanted) = (observed.members.len(), wanted(observed));
    let no = Report::no(type_, common::NOT_SCALING_UP);
    if observed.is_deleting() {
        return no;
    }
    if current >= wanted {
        // It is said before somebody wants more (contract: upstream `setScalingUpCondition`).
        let blocked = cannot_make(observed);
        let blocked = blocked.map(|why| format!("scaling up would be blocked\n* {why}"));
        return no.with_message(blocked.unwrap_or_default());
    }
    let mut lines = vec![format!("from {current} to {wanted} machines")];
    lines.extend(in_the_way(observed, failure, now));
    Report::yes(type_, common::SCALING_UP).with_message(lines.join("\n"))
}

pub(super) fn down(observed: &Observed, failure: Option<&Failure>, now: Timestamp) -> Report {
    let type_ = condition_type::SCALING_DOWN;
    let current = observed.members.len();
    if observed.is_deleting() {
        if current == 0 {
            return Report::no(type_, common::NOT_SCALING_DOWN);
        }
        return Report::yes(type_, common::SCALING_DOWN)
            .with_message(format!("from {current} to 0 machines"));
    }
    if let Err(failure) = &observed.desired {
        return Report::unknown(type_, common::SCALING_DOWN_UNKNOWN)
            .with_message(failure.message.clone());
    }
    let wanted = wanted(observed);
    if current <= wanted {
        return Report::no(type_, common::NOT_SCALING_DOWN);
    }
    let mut lines = vec![format!("from {current} to {wanted} machines")];
    lines.extend(in_the_way(observed, failure, now));
    Report::yes(type_, common::SCALING_DOWN).with_message(lines.join("\n"))
}
