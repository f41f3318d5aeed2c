//! Snapshots of etcd before a member is removed: whether one is there, is being taken, or could not be taken.

use std::time::Duration;

use capstan_api::annotation;
use capstan_api::reason::event;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::etcd::{self, EtcdMember};
use super::leave::Leaving;
use super::{Observed, Step};

/// A snapshot is good for tries of the same removal within this time after it was whole.
const FRESH: SignedDuration = SignedDuration::from_mins(2);

/// Pauses between tries that fail: a second doubling up to a minute.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What failed longer ago than this says nothing of the next try.
const PAST: SignedDuration = SignedDuration::from_mins(10);

/// How soon one that was begun is looked at: most have ended by then, which wakes the control plane.
const BEGUN: Duration = Duration::from_secs(5);

const MEBIBYTE: u64 = 1 << 20;

/// The last snapshot of a control plane that was begun and is not noted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taking {
    /// The member that is removed afterwards.
    pub before: String,
    /// When it was begun.
    pub since: Timestamp,
    /// What became of it so far.
    pub state: State,
    /// Why the one before it failed.
    pub failed_before: Option<String>,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being taken.
    Running {
        /// Name of the member that it comes from.
        from: String,
        /// What came so far.
        bytes: u64,
    },
    /// It is there.
    Taken(Taken),
    /// It could not be taken.
    Failed {
        /// Why, and what to do.
        why: String,
        /// When.
        at: Timestamp,
        /// How often in a row.
        times: u32,
    },
}

/// A snapshot that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The file, or the address of the object.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Why older ones that should be gone are still there.
    pub not_pruned: Option<String>,
    /// When it was whole.
    pub at: Timestamp,
}

impl Taking {
    /// What is noted of it on the control plane; `time` is that of what is in it.
    #[must_use]
    pub fn noted(&self, taken: &Taken) -> Value {
        let text = json!({
            "path": taken.path,
            "bytes": taken.bytes,
            "time": self.since.to_string(),
            "whole": taken.at.to_string(),
            "before": self.before,
        });
        json!({annotation::ETCD_SNAPSHOT: text.to_string()})
    }
}

/// Notes one that is there, whatever it was taken for.
pub(super) fn note(observed: &Observed) -> Option<Step> {
    let taking = observed.snapshot.as_ref()?;
    match &taking.state {
        State::Taken(taken) => Some(Step::NoteSnapshot {
            taking: Box::new(taking.clone()),
            taken: Box::new(taken.clone()),
        }),
        State::Running { .. } | State::Failed { .. } => None,
    }
}

/// What comes before a member may be removed, where the operator wants a snapshot. Nothing else comes with it: what it takes to remove a
/// member is decided by what is seen when the snapshot is there.
pub(super) fn before_removal(
    observed: &Observed,
    member: &EtcdMember,
    now: Timestamp,
) -> Option<Leaving> {
    let before = format!("{} {:x}", member.name, member.id);
    if !observed.keeps_snapshots || is_noted(observed, &before, now) {
        return None;
    }
    let begin = |wait: Option<String>| Leaving {
        steps: vec![Step::Snapshot {
            from: etcd::addresses(observed, &member.name),
            before: before.clone(),
        }],
        wait,
    };
    let name = &member.name;
    let not_taken = |why: &str| {
        format!("the etcd member {name} stays: no snapshot of etcd could be taken: {why}")
    };
    let Some(taking) = &observed.snapshot else {
        return Some(begin(None));
    };
    Some(match &taking.state {
        // It is noted first.
        State::Taken(_) => Leaving::default(),
        State::Running { from, bytes } => {
            let since = taking.since;
            let said = format!(
                "the etcd member {name} stays: a snapshot of etcd is being taken from {from} since {since}, {} MiB so far",
                bytes.checked_div(MEBIBYTE).unwrap_or_default()
            );
            Leaving::wait(match &taking.failed_before {
                Some(why) => format!("{said}; the last one failed: {why}"),
                None => said,
            })
        }
        State::Failed { why, .. } if pause(observed, now).is_some() => {
            Leaving::wait(not_taken(why))
        }
        State::Failed { why, at, .. } => {
            let is_past = now.duration_since(*at) > PAST;
            begin((!is_past).then(|| not_taken(why)))
        }
    })
}

/// How long it is waited before the next try, after one that failed.
fn pause(observed: &Observed, now: Timestamp) -> Option<Duration> {
    let State::Failed { at, times, .. } = &observed.snapshot.as_ref()?.state else {
        return None;
    };
    let doublings = times.saturating_sub(1).min(u32::BITS.saturating_sub(1));
    let pause = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    let passed = Duration::try_from(now.duration_since(*at)).unwrap_or_default();
    let left = pause.min(PAUSE_MAX).saturating_sub(passed);
    (!left.is_zero()).then_some(left)
}

/// How soon it is looked at again, if something has to do with a snapshot.
pub(super) fn look_again(observed: &Observed, steps: &[Step], now: Timestamp) -> Option<Duration> {
    let is_begun = steps.iter().any(|it| matches!(it, Step::Snapshot { .. }));
    is_begun.then_some(BEGUN).or_else(|| pause(observed, now))
}

/// That no snapshot could be taken, while that is what is waited for.
pub(super) fn news(observed: &Observed, wait: &str) -> Option<Step> {
    let State::Failed { why, .. } = &observed.snapshot.as_ref()?.state else {
        return None;
    };
    wait.contains(why.as_str()).then(|| Step::Tell {
        reason: event::FAILED_ETCD_SNAPSHOT,
        note: why.clone(),
    })
}

/// Whether a snapshot was taken for this removal a short time ago.
fn is_noted(observed: &Observed, before: &str, now: Timestamp) -> bool {
    let annotations = observed.object.pointer("/metadata/annotations");
    let noted = annotations
        .and_then(|all| all.get(annotation::ETCD_SNAPSHOT))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let text = |field: &str| noted.as_ref()?.get(field)?.as_str();
    let whole = text("whole").and_then(|time| time.parse::<Timestamp>().ok());
    text("before") == Some(before) && whole.is_some_and(|at| now.duration_since(at) < FRESH)
}
