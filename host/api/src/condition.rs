//! Conditions: reading, setting and ordering them; `condition::combine` makes one out of several.
//!
//! Everything here is pure: the time comes in as a parameter, and a condition's transition time moves
//! only when its status does.

pub mod combine;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use crate::reason::common::{INVALID_CONDITION_REPORTED, NO_REASON_REPORTED};
pub use crate::v1beta2::ConditionStatus;

/// A condition that a controller wants to report, before it has a transition time.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Type of the condition.
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one word; never empty.
    pub reason: String,
    /// Why, for a person; may be empty.
    pub message: String,
    /// When the status changed, for a condition that is copied from another object; otherwise the
    /// time of writing is used.
    pub transition: Option<Timestamp>,
}

impl Report {
    /// A condition with an empty message.
    pub fn new(type_: &str, status: ConditionStatus, reason: &str) -> Self {
        Self {
            type_: type_.to_owned(),
            status,
            reason: reason.to_owned(),
            message: String::new(),
            transition: None,
        }
    }

    /// A condition that holds.
    pub fn yes(type_: &str, reason: &str) -> Self {
        Self::new(type_, ConditionStatus::True, reason)
    }

    /// A condition that does not hold.
    pub fn no(type_: &str, reason: &str) -> Self {
        Self::new(type_, ConditionStatus::False, reason)
    }

    /// A condition of which it is not known whether it holds.
    pub fn unknown(type_: &str, reason: &str) -> Self {
        Self::new(type_, ConditionStatus::Unknown, reason)
    }

    /// The same condition with a message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

/// The status of a condition as a closed set; anything that is not True or False is Unknown.
pub fn status_of(condition: &Condition) -> ConditionStatus {
    match condition.status.as_str() {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    }
}

/// The condition of a type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether the condition is there and False.
pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == "False")
}

/// Removes the condition of a type.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Puts one reported condition into the list, without ordering it.
///
/// The transition time is the report's own if it has one; else it stays while the status stays, and
/// is `now`, cut to seconds, when the status changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    report: Report,
    generation: Option<i64>,
    now: Timestamp,
) {
    let before = conditions
        .iter()
        .position(|condition| condition.type_ == report.type_);
    let old = before.and_then(|index| conditions.get(index));
    let kept = old
        .filter(|condition| condition.status == report.status.as_str())
        .map(|condition| condition.last_transition_time.clone());
    let transition = match (report.transition, kept) {
        (Some(copied), _) => Time(whole_seconds(copied)),
        (None, Some(kept)) => kept,
        (None, None) => Time(whole_seconds(now)),
    };
    let condition = Condition {
        type_: report.type_,
        status: report.status.as_str().to_owned(),
        reason: if report.reason.is_empty() {
            NO_REASON_REPORTED.to_owned()
        } else {
            report.reason
        },
        message: bounded(report.message),
        observed_generation: generation,
        last_transition_time: transition,
    };
    match before.and_then(|index| conditions.get_mut(index)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// The list after a controller has reported the conditions it owns: others stay, order is canonical.
pub fn merge(
    current: &[Condition],
    reports: impl IntoIterator<Item = Report>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged = current.to_vec();
    for report in reports {
        set(&mut merged, report, generation, now);
    }
    sort(&mut merged);
    merged
}

/// The longest message that the schema allows, in bytes (its limit is in characters, so this is safe).
const MESSAGE_MAX_BYTES: usize = 32_768;

/// Cuts a message to what the schema allows.
#[must_use]
pub fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_MAX_BYTES {
        let mut end = MESSAGE_MAX_BYTES.saturating_sub("...".len());
        while !message.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// Cuts a time to seconds, as it is stored.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The order of conditions in a list: what matters first, unknown types by name after the known ones,
/// then Paused and Deleting.
const FIRST: &[&str] = &[
    "Available",
    "Ready",
    "UpToDate",
    "RemoteConnectionProbe",
    "BootstrapConfigReady",
    "InfrastructureReady",
    "ControlPlaneInitialized",
    "ControlPlaneAvailable",
    "WorkersAvailable",
    "CertificatesAvailable",
    "Initialized",
    "EtcdClusterHealthy",
    "ControlPlaneComponentsHealthy",
    "NodeHealthy",
    "NodeReady",
    "NodeKubeadmLabelsAndTaintsSet",
    "EtcdPodHealthy",
    "EtcdMemberHealthy",
    "APIServerPodHealthy",
    "ControllerManagerPodHealthy",
    "SchedulerPodHealthy",
    "HealthCheckSucceeded",
    "OwnerRemediated",
    "TopologyReconciled",
    "Updating",
    "RollingOut",
    "Remediating",
    "ScalingDown",
    "ScalingUp",
    "MachinesReady",
    "ControlPlaneMachinesReady",
    "WorkerMachinesReady",
    "MachinesUpToDate",
    "ControlPlaneMachinesUpToDate",
    "WorkerMachinesUpToDate",
];

/// Conditions that close the list.
const LAST: &[&str] = &["Paused", "Deleting"];

/// Whether Cluster API defines a type, so that only its own controllers set it.
#[must_use]
pub fn is_contract(type_: &str) -> bool {
    rank(type_) != (1, 0) || type_ == crate::reason::condition_type::EXTERNALLY_REMEDIATED
}

/// Puts conditions in the canonical order.
pub fn sort(conditions: &mut [Condition]) {
    conditions.sort_by(|a, b| {
        rank(&a.type_)
            .cmp(&rank(&b.type_))
            .then_with(|| a.type_.cmp(&b.type_))
    });
}

/// Place of a type: its part of the list, and its place in that part.
fn rank(type_: &str) -> (u8, usize) {
    if let Some(place) = FIRST.iter().position(|known| *known == type_) {
        (0, place)
    } else if let Some(place) = LAST.iter().position(|known| *known == type_) {
        (2, place)
    } else {
        (1, 0)
    }
}

/// A condition of a provider's object; `None` if the object does not report the type.
///
/// Conditions of both contract versions are understood. One that cannot be read is Unknown with reason
/// `InvalidConditionReported`; one without a reason gets `NoReasonReported`.
pub fn read(object: &Value, type_: &str) -> Option<Condition> {
    let listed = object.pointer("/status/conditions")?;
    let Some(entries) = listed.as_array() else {
        return Some(invalid(type_, "status.conditions is not a list"));
    };
    let entry = entries
        .iter()
        .find(|entry| text(entry, "type") == Some(type_))?;
    let status = text(entry, "status").unwrap_or_default();
    if !matches!(status, "True" | "False" | "Unknown") {
        return Some(invalid(type_, "its status is not True, False or Unknown"));
    }
    let transition = match text(entry, "lastTransitionTime").map(str::parse::<Timestamp>) {
        Some(Ok(time)) => time,
        None => Timestamp::UNIX_EPOCH,
        Some(Err(_)) => return Some(invalid(type_, "its lastTransitionTime is not a time")),
    };
    Some(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: text(entry, "reason")
            .filter(|reason| !reason.is_empty())
            .unwrap_or(NO_REASON_REPORTED)
            .to_owned(),
        message: text(entry, "message").unwrap_or_default().to_owned(),
        observed_generation: entry.get("observedGeneration").and_then(Value::as_i64),
        last_transition_time: Time(transition),
    })
}

/// What stands for a condition that cannot be read.
fn invalid(type_: &str, what: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: ConditionStatus::Unknown.as_str().to_owned(),
        reason: INVALID_CONDITION_REPORTED.to_owned(),
        message: format!("The provider's condition {type_} cannot be read: {what}"),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// A text member of an object.
fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first = merge(&[], [Report::no("Ready", "NotReady")], Some(1), at(10));
        let same = merge(
            &first,
            [Report::no("Ready", "Other").with_message("x")],
            Some(2),
            at(20),
        );
        assert_eq!(same[0].last_transition_time, Time(at(10)));
        assert_eq!(
            (same[0].reason.as_str(), same[0].observed_generation),
            ("Other", Some(2))
        );
        let turned = merge(&same, [Report::yes("Ready", "Ready")], Some(2), at(30));
        assert_eq!(turned[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn order_is_canonical_and_foreign_conditions_stay() {
        let mut all = Vec::new();
        for type_ in [
            "Deleting",
            "Zeta",
            "Paused",
            "ScalingUp",
            "Alpha",
            "Ready",
            "Available",
        ] {
            set(&mut all, Report::yes(type_, "X"), None, at(1));
        }
        let merged = merge(&all, [], None, at(1));
        let types: Vec<&str> = merged
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect();
        assert_eq!(
            types,
            [
                "Available",
                "Ready",
                "ScalingUp",
                "Alpha",
                "Zeta",
                "Paused",
                "Deleting"
            ]
        );
    }

    #[test]
    fn provider_conditions_are_read_in_both_forms() {
        let object = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "severity": "Info", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Broken", "status": "maybe"},
        ]}});
        let ready = read(&object, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("True", "NoReasonReported")
        );
        let broken = read(&object, "Broken").unwrap();
        assert_eq!(
            (broken.status.as_str(), broken.reason.as_str()),
            ("Unknown", "InvalidConditionReported")
        );
        assert!(read(&object, "Absent").is_none());
    }

    #[test]
    fn long_messages_are_cut_to_what_the_server_takes() {
        let long = "\u{e9}".repeat(MESSAGE_MAX_BYTES);
        let merged = merge(
            &[],
            [Report::no("Ready", "X").with_message(long)],
            None,
            at(1),
        );
        assert!(merged[0].message.len() <= MESSAGE_MAX_BYTES && merged[0].message.ends_with("..."));
    }
}
