//! Infrastructure objects that a plugin owns: when the plugin is called, and what its answer means for the object.

pub mod cluster;
pub mod machine;

use std::time::Duration;

use capstan_api::condition::{ConditionStatus, Report};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::call::{PluginCondition, Progress, Waiting};
use crate::plan::Failure;

/// A provisioned object is looked at again after this time: the cloud may have lost what it had.
pub const RECHECK: Duration = Duration::from_secs(300);

/// What an infrastructure object waits for before its plugin is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// Condition reason.
    pub reason: &'static str,
    /// Who makes the next move.
    pub message: String,
}

impl NotYet {
    /// A wait.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The words for a kind whose plugin is not active.
#[must_use]
pub fn plugin_missing(kind: &str, owner: Option<&str>) -> String {
    match owner {
        Some(plugin) => format!(
            "plugin {plugin}, which owns kind {kind}, is not active: see `kubectl get plugins -A` for why"
        ),
        None => format!(
            "no active plugin owns kind {kind}: install it, or see `kubectl get plugins -A` for why it is not active"
        ),
    }
}

/// What became of a call, or why there was none.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing<'a> {
    /// The plugin said that all is there.
    Ready,
    /// The plugin waits.
    Waiting(&'a Waiting),
    /// The host waits before it calls.
    NotYet(&'a NotYet),
    /// The call failed.
    Failed(&'a Failure),
    /// Nothing was asked this time: what was said before stands.
    Unchanged,
}

impl<'a> Standing<'a> {
    /// Of an answer's progress.
    #[must_use]
    pub fn of(progress: &'a Progress) -> Self {
        match progress {
            Progress::Ready => Self::Ready,
            Progress::Waiting(waiting) => Self::Waiting(waiting),
        }
    }
}

/// The condition `Ready` of an infrastructure object; `None` leaves it as it is. A plugin's words are quoted and attributed.
#[must_use]
pub fn ready_condition(standing: &Standing<'_>, plugin: &str, deleting: bool) -> Option<Report> {
    let report = match standing {
        Standing::Ready => Report::yes("Ready", "Ready"),
        Standing::Waiting(waiting) => {
            Report::no("Ready", if deleting { "Deleting" } else { "NotReady" }).with_message(
                format!("{plugin}: {} ({})", waiting.message, waiting.reason),
            )
        }
        Standing::NotYet(wait) => {
            Report::no("Ready", wait.reason).with_message(wait.message.clone())
        }
        Standing::Failed(failure) => Report::no("Ready", &failure.reason)
            .with_message(format!("{plugin}: {}", failure.message)),
        Standing::Unchanged => return None,
    };
    Some(report)
}

/// A plugin's own conditions.
#[must_use]
pub fn own_conditions(conditions: &[PluginCondition]) -> Vec<Report> {
    let reports = conditions.iter().map(|c| {
        let status = match c.status {
            "True" => ConditionStatus::True,
            "False" => ConditionStatus::False,
            _ => ConditionStatus::Unknown,
        };
        Report::new(&c.condition_type, status, &c.reason).with_message(c.message.clone())
    });
    reports.collect()
}

/// The object's present status without what the driver writes.
#[must_use]
pub fn kept_status(object: &Value) -> Map<String, Value> {
    let mut status = object
        .get("status")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    status.remove("conditions");
    status.remove("observedGeneration");
    status
}

/// Whether somebody else looks after the object: its plugin is never called (contract 2.2).
#[must_use]
pub fn is_externally_managed(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations.is_some_and(|a| a.get(capstan_api::annotation::MANAGED_BY).is_some())
}

/// Whether a provisioned object, last asked about at `asked`, is due to be asked about again. `spread` (the object's UID)
/// keeps objects that came together from being asked about together.
#[must_use]
pub fn is_due(asked: Option<Timestamp>, now: Timestamp, spread: &str) -> bool {
    asked.is_none_or(|asked| {
        let age = u64::try_from(now.duration_since(asked).as_secs()).unwrap_or_default();
        age >= recheck_after(spread).as_secs()
    })
}

/// When a provisioned object is asked about again.
#[must_use]
pub fn recheck_after(spread: &str) -> Duration {
    let jitter: u64 = spread.bytes().map(u64::from).sum::<u64>() % 60;
    RECHECK.saturating_add(Duration::from_secs(jitter))
}
