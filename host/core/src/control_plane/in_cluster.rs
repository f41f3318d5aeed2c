//! The plugin's own work inside the workload cluster: before a roll-out, and when all machines are up to date.

use std::time::Duration;

use capstan_api::condition::{self, Report};
use capstan_api::reason::{common, condition_type};
use jiff::{SignedDuration, Timestamp};

use super::{Observed, Step, health};
use crate::plan::{Failure, FailureKind};

/// What somebody changed by hand is put right after this time.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// What did not work may work soon, unless it waits for a person.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// What became of the work in a cluster that is as it should be, for the object and the plugin as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableWork {
    /// When it was tried.
    pub at: Timestamp,
    /// Why it is not done.
    pub failure: Option<Failure>,
}

impl StableWork {
    /// How long nothing is done about it.
    fn rest(&self) -> SignedDuration {
        match &self.failure {
            Some(failure) if failure.kind == FailureKind::Transient => RETRY,
            Some(_) | None => AGAIN,
        }
    }
}

/// What is to be done before a machine joins: a plugin that finds nothing to do does nothing. Also where all machines are as they should be, since a
/// roll-out that was taken back may have left settings behind.
#[must_use]
pub fn before_join(observed: &Observed, now: Timestamp) -> Option<Step> {
    let mut members = observed.members.iter();
    let is_rollout = members.any(|member| !observed.outdated(member, now).is_empty());
    (!observed.members.is_empty()).then_some(Step::BeforeJoin { is_rollout })
}

/// What is to be done in a cluster whose machines are all there, well and up to date.
#[must_use]
pub fn after_stable(observed: &Observed, now: Timestamp) -> Option<Step> {
    let is_well = |member| {
        health::is_healthy(&health::machine_conditions(observed, member, now)) == Some(true)
    };
    let is_stable = observed.connected
        && observed.was_initialized()
        && !observed.members.is_empty()
        && observed.members.iter().all(is_well);
    let rests = observed
        .stable_work
        .as_ref()
        .is_some_and(|work| now.duration_since(work.at) < work.rest());
    (is_stable && !rests).then_some(Step::AfterStable)
}

/// How soon to look again at work that is not done.
#[must_use]
pub fn look_again(observed: &Observed) -> Option<Duration> {
    let work = observed.stable_work.as_ref()?;
    work.failure.as_ref()?;
    work.rest().try_into().ok()
}

/// Says what is not done. A control plane whose plugin has nothing to do, or has done it all along, has no such condition.
#[must_use]
pub fn condition(observed: &Observed) -> Option<Report> {
    let type_ = condition_type::IN_CLUSTER_COMPONENTS_UP_TO_DATE;
    let stored = condition::read(&observed.object, type_);
    match &observed.stable_work {
        Some(StableWork {
            failure: Some(failure),
            ..
        }) => Some(Report::no(type_, common::NOT_UP_TO_DATE).with_message(failure.message.clone())),
        Some(_) => stored.map(|_| Report::yes(type_, common::UP_TO_DATE)),
        None => stored.map(|stored| {
            let status = condition::status_of(&stored);
            Report::new(type_, status, &stored.reason).with_message(stored.message)
        }),
    }
}
