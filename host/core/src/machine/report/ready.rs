//! Whether a Machine is `Ready` and `Available`, and in one line why not.

use std::time::Duration;

use capstan_api::condition::combine::{Class, Part, Reasons, summary};
use capstan_api::condition::{self, Report};
use capstan_api::v1beta2::ConditionPolarity as Polarity;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{LONG_DELETION_S, Observed, Stage};
use crate::deadline::{self, lasts};
use crate::drain::{LONG_DRAIN_S, likely_due_to};

const GONE: [&str; 4] = [
    "ObjectDeleted",
    "ObjectDoesNotExist",
    "NodeDeleted",
    "NodeDoesNotExist",
];

pub(super) fn ready(
    observed: &Observed,
    conditions: &[Condition],
    stage: Option<&Stage>,
    now: Timestamp,
) -> Report {
    let mut parts = vec![Part::of(conditions, "Deleting", Polarity::Negative)];
    if let (Some(part), Some(stage)) = (parts.first_mut(), stage) {
        let said = condition::get(conditions, "Deleting").map_or("", |c| c.message.as_str());
        part.message = deletion_line(observed, stage, said, now);
    }
    parts.push(Part::of(conditions, "Updating", Polarity::Negative));
    for name in ["BootstrapConfigReady", "InfrastructureReady", "NodeHealthy"] {
        let part = Part::of(conditions, name, Polarity::Positive);
        let gone =
            condition::get(conditions, name).is_some_and(|c| GONE.contains(&c.reason.as_str()));
        parts.push(if stage.is_some() && gone {
            part.as_info()
        } else {
            part
        });
    }
    parts.push(Part::if_reported(
        conditions,
        "HealthCheckSucceeded",
        Polarity::Positive,
    ));
    for gate in &observed.machine.spec.readiness_gates {
        let polarity = gate.polarity.unwrap_or(Polarity::Positive);
        parts.push(Part::of(conditions, &gate.condition_type, polarity));
    }
    summary(
        "Ready",
        &collapse_control_plane(parts),
        &Reasons {
            on_true: "Ready",
            on_false: "NotReady",
            on_unknown: "ReadyUnknown",
        },
    )
}

/// Control-plane components about which the same is said are one line.
fn collapse_control_plane(parts: Vec<Part>) -> Vec<Part> {
    let is_component = |part: &Part| {
        ["APIServer", "ControllerManager", "Scheduler"]
            .iter()
            .any(|p| part.type_.starts_with(p))
            || part.type_ == "EtcdPodHealthy"
    };
    let bad: Vec<&Part> = parts
        .iter()
        .filter(|p| is_component(p) && matches!(p.class, Some(Class::Issue | Class::Unknown)))
        .collect();
    let same = bad.len() > 1
        && bad
            .windows(2)
            .all(|w| matches!(w, [a, b] if a.message == b.message && a.class == b.class));
    if !same {
        return parts;
    }
    let mut collapsed: Vec<Part> = Vec::new();
    let mut done = false;
    for mut part in parts {
        if is_component(&part) && matches!(part.class, Some(Class::Issue | Class::Unknown)) {
            if done {
                continue;
            }
            done = true;
            part.type_ = "Control plane components".to_owned();
        }
        collapsed.push(part);
    }
    collapsed
}

/// The deletion in one line; when it takes long, with what holds it.
fn deletion_line(observed: &Observed, stage: &Stage, said: &str, now: Timestamp) -> String {
    let reason = stage.reason();
    if !lasts(
        observed.machine.metadata.deletion_timestamp.as_ref(),
        LONG_DELETION_S,
        now,
    ) {
        return format!("Machine deletion in progress, stage: {reason}");
    }
    let mut line = format!("Machine deletion in progress since more than 15m, stage: {reason}");
    let status = observed.machine.status.as_ref();
    let drained_since = status
        .and_then(|status| status.deletion.as_ref())
        .and_then(|times| times.node_drain_start_time.as_ref());
    if matches!(stage, Stage::Drain(_)) && lasts(drained_since, LONG_DRAIN_S, now) {
        line.push_str(&likely_due_to(said));
    }
    line
}

/// Since when the Machine is ready.
fn ready_since(conditions: &[Condition]) -> Option<Timestamp> {
    condition::get(conditions, "Ready")
        .filter(|c| c.status == "True")
        .map(|c| c.last_transition_time.0)
}

pub(super) fn available(observed: &Observed, conditions: &[Condition], now: Timestamp) -> Report {
    let Some(since) = ready_since(conditions) else {
        return Report::no("Available", "NotReady");
    };
    let needed = i64::from(observed.machine.spec.min_ready_seconds.unwrap_or(0));
    if now.duration_since(since).as_secs() >= needed {
        Report::yes("Available", "Available")
    } else {
        Report::no("Available", "WaitingForMinReadySeconds")
    }
}

/// How long a ready Machine still has to be ready before it is available; `None` when nothing will change by waiting.
pub(super) fn until_available(
    observed: &Observed,
    conditions: &[Condition],
    now: Timestamp,
) -> Option<Duration> {
    let since = ready_since(conditions)?;
    let needed = i64::from(observed.machine.spec.min_ready_seconds.unwrap_or(0));
    deadline::left(since, needed, now)
}
