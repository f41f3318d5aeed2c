//! Infrastructure objects that a plugin owns: when the plugin is called, and what its answer means for the object.

pub mod cluster;
pub mod machine;
pub mod template;

use std::time::Duration;

use capstan_api::annotation;
use capstan_api::condition::{ConditionStatus, Report};
use capstan_api::name::fnv32a;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::call::infrastructure::DeletionAnswer;
use crate::call::{Deletion, PluginCondition, Progress, Waiting};
use crate::plan::{Failure, Next, Outcome, Plan};

/// A provisioned object is looked at again after this time: the cloud may have lost what it had.
pub const RECHECK: Duration = Duration::from_secs(300);
/// So is one that may have been lost: nobody else can tell.
pub const RECHECK_IN_DOUBT: Duration = Duration::from_secs(60);

/// When a plugin was last asked about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Then, about the object as it is now.
    At(Timestamp),
    /// Not since then, when this host began to ask: the one before may have asked a moment earlier.
    NotSince(Timestamp),
    /// Not about the object as it is now.
    Never,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the plugin for what the object describes, and write what it is.
    Ensure,
    /// Ask the plugin to remove it.
    Delete,
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<A> {
    /// To `Ensure`, checked.
    Ensured(Box<A>),
    /// To `Delete`, checked.
    Deleted(DeletionAnswer),
}

/// An answer to `Ensure`, of either kind.
pub trait Answer {
    /// Whether all is there.
    fn progress(&self) -> &Progress;

    /// The plugin's own conditions.
    fn conditions(&self) -> &[PluginCondition];

    /// What the status says of the answer, but for conditions and the initialization.
    fn status(&self) -> Map<String, Value>;

    /// The fields of the object's spec that the contract gives to the host and that differ from what is there.
    fn spec(&self, object: &Value) -> Option<Value>;

    /// What the plugin wants to know at the next call.
    fn state(&self) -> Option<&[u8]>;
}

/// Parts of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: Value,
    /// Conditions.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// The finalizer may go.
    pub finished: bool,
    /// It has what the plugin said, and the plugin is not asked again soon.
    pub is_last_word: bool,
}

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

/// What should happen next to an object, whatever its kind. `wait` is what it waits for, `asked` when its plugin was last asked, `recheck` after
/// what time a provisioned one is asked about again.
#[must_use]
pub fn decide(
    object: &Value,
    wait: Option<NotYet>,
    asked: Asked,
    recheck: Duration,
    now: Timestamp,
) -> Plan<Step> {
    if is_externally_managed(object) {
        return Plan::settled();
    }
    if let Some(wait) = wait {
        return Plan::settled().waiting(wait.reason, wait.message);
    }
    if is_deleting(object) {
        return Plan::of(vec![Step::Delete]);
    }
    let left = time_left(object, asked, recheck, now).filter(|_| is_settled(object));
    if let Some(left) = left {
        return Plan::settled().check_after(left);
    }
    Plan::of(vec![Step::Ensure])
}

/// What the status of an object says, whatever its kind.
#[must_use]
pub fn report<A: Answer>(
    object: &Value,
    wait: Option<&NotYet>,
    plugin: Option<&str>,
    recheck: Duration,
    outcome: &Outcome<Step, Effect<A>>,
) -> Reported {
    let mut status = kept_status(object);
    let deleting = is_deleting(object);
    let mut conditions = Vec::new();
    let mut next = None;
    let mut finished = deleting && is_externally_managed(object);
    let mut is_last_word = false;
    let standing = match (&outcome.failed, outcome.done.first()) {
        (Some((_, failure)), _) => Standing::Failed(failure),
        (None, Some((_, Effect::Ensured(answer)))) => {
            conditions.extend(own_conditions(answer.conditions()));
            status.extend(answer.status());
            match answer.progress() {
                Progress::Ready => {
                    // One-shot: once true it stays (contract 2.2, 2.3).
                    status.insert("initialization".to_owned(), json!({"provisioned": true}));
                    let after = recheck_after(recheck, text(object, "/metadata/uid"));
                    next = Some(Next::CheckAfter(after));
                    is_last_word = true;
                    Standing::Ready
                }
                Progress::Waiting(waiting) => {
                    next = Some(Next::CheckAfter(waiting.check_after));
                    Standing::Waiting(waiting)
                }
            }
        }
        (None, Some((_, Effect::Deleted(answer)))) => {
            conditions.extend(own_conditions(&answer.conditions));
            match &answer.deletion {
                Deletion::Gone => {
                    finished = true;
                    Standing::Unchanged
                }
                Deletion::Waiting(waiting) => {
                    next = Some(Next::CheckAfter(waiting.check_after));
                    Standing::Waiting(waiting)
                }
            }
        }
        (None, None) => wait.map_or(Standing::Unchanged, Standing::NotYet),
    };
    conditions.extend(ready_condition(
        &standing,
        plugin.unwrap_or("plugin"),
        deleting,
    ));
    Reported {
        status: Value::Object(status),
        conditions,
        next,
        finished,
        is_last_word,
    }
}

/// The merge patch of the main resource that an answer asks for; `None` when nothing differs.
#[must_use]
pub fn patch(object: &Value, answer: &impl Answer, state: Option<&str>) -> Option<Value> {
    let mut patch = Map::new();
    if let Some(spec) = answer.spec(object) {
        patch.insert("spec".to_owned(), spec);
    }
    if let Some(state) = state
        && object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(annotation::PLUGIN_STATE))
            != Some(&json!(state))
    {
        patch.insert(
            "metadata".to_owned(),
            json!({"annotations": {annotation::PLUGIN_STATE: state}}),
        );
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Provisioned, with the present spec, and ready when last asked.
fn is_settled(object: &Value) -> bool {
    let provisioned = object.pointer("/status/initialization/provisioned") == Some(&json!(true));
    // Writing what the contract gives to the host is the host's own doing and no reason to ask again.
    let seen = unseen_generations(object).is_some_and(|unseen| unseen <= 1);
    let ready = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| c.get("type") == Some(&json!("Ready")) && c.get("status") == Some(&json!("True")));
    provisioned && seen && ready
}

/// How many generations of its spec came after the one that its status is about.
fn unseen_generations(object: &Value) -> Option<i64> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    let observed = number("/status/observedGeneration")?;
    let generation = number("/metadata/generation").unwrap_or_default();
    Some(generation.saturating_sub(observed))
}

fn is_deleting(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|t| !t.is_null())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What became of a call, or why there was none.
#[derive(Clone, Debug, PartialEq)]
enum Standing<'a> {
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

/// The condition `Ready` of an infrastructure object; `None` leaves it as it is. A plugin's words are quoted and attributed.
fn ready_condition(standing: &Standing<'_>, plugin: &str, deleting: bool) -> Option<Report> {
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
pub(crate) fn own_conditions(conditions: &[PluginCondition]) -> Vec<Report> {
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
fn kept_status(object: &Value) -> Map<String, Value> {
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
fn is_externally_managed(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations.is_some_and(|a| a.get(capstan_api::annotation::MANAGED_BY).is_some())
}

/// How long a provisioned object needs not be asked about; `None` when it is due. After a start nothing is known of the host before, and
/// asking about all at once would be a burst for the cloud: the first time is spread over the time of a recheck by the object's UID, but
/// for one whose spec was changed meanwhile.
fn time_left(object: &Value, asked: Asked, recheck: Duration, now: Timestamp) -> Option<Duration> {
    let uid = text(object, "/metadata/uid");
    let after = recheck_after(recheck, uid);
    let (from, wait) = match asked {
        Asked::At(asked) => (asked, after),
        Asked::NotSince(began) if unseen_generations(object) == Some(0) => {
            let part = u64::from(fnv32a(uid.as_bytes())).checked_rem(after.as_secs())?;
            (began, Duration::from_secs(part))
        }
        Asked::NotSince(_) | Asked::Never => return None,
    };
    let age = u64::try_from(now.duration_since(from).as_secs()).unwrap_or_default();
    let left = wait.saturating_sub(Duration::from_secs(age));
    (!left.is_zero()).then_some(left)
}

/// When a provisioned object is asked about again. `spread` (the object's UID) keeps objects that came together from being asked about together.
fn recheck_after(recheck: Duration, spread: &str) -> Duration {
    let parts = recheck.as_secs().div_euclid(5).max(1);
    let jitter = spread
        .bytes()
        .map(u64::from)
        .sum::<u64>()
        .checked_rem(parts);
    recheck.saturating_add(Duration::from_secs(jitter.unwrap_or_default()))
}
