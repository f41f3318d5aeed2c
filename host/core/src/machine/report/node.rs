//! What a Machine says of its Node: `NodeReady` and `NodeHealthy`.

use capstan_api::condition::combine::Class;
use capstan_api::condition::{self, Report};
use capstan_api::v1beta2::ConditionStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::{Known, NodeLookup, Observed, text};

/// How long a connection may be silent before what it said counts as unknown (upstream `--remote-conditions-grace-period`).
const CONNECTION_GRACE_S: i64 = 300;

/// `NodeReady` and `NodeHealthy`.
pub(super) fn conditions(
    observed: &Observed,
    known: &Known,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Report> {
    let both = |status: ConditionStatus, reason: &str, message: String| {
        ["NodeReady", "NodeHealthy"]
            .map(|name| Report::new(name, status, reason).with_message(message.clone()))
            .to_vec()
    };
    if let Some(waiting) = waiting_for_node(observed, known) {
        return both(ConditionStatus::Unknown, "InspectionFailed", waiting);
    }
    if let NodeLookup::One(node) = &observed.node {
        return vec![node_ready(node), node_healthy(node)];
    }
    let connection = &observed.connection;
    if !connection.connected {
        let silent = connection
            .last_success
            .max(connection.since)
            .is_none_or(|last| now.duration_since(last).as_secs() >= CONNECTION_GRACE_S);
        let known_before = condition::get(before, "NodeHealthy").is_some();
        if !silent && known_before {
            // Within the grace period, what was last seen stands.
            return Vec::new();
        }
        let message = connection.last_success.map_or_else(
            || "Remote connection not established yet".to_owned(),
            |last| format!("Last successful probe at {last}"),
        );
        return both(ConditionStatus::Unknown, "ConnectionDown", message);
    }
    if let NodeLookup::Several(names) = &observed.node {
        let id = known.provider_id.as_deref().unwrap_or_default();
        let message = format!(
            "Nodes {} have the same spec.providerID {id}",
            names.join(", ")
        );
        return both(ConditionStatus::Unknown, "InternalError", message);
    }
    let had = observed
        .machine
        .status
        .as_ref()
        .and_then(|s| s.node_ref.as_ref());
    match had {
        Some(node) if observed.is_deleting() => both(
            ConditionStatus::False,
            "NodeDeleted",
            format!("Node {} has been deleted", node.name),
        ),
        Some(node) => both(
            ConditionStatus::False,
            "NodeDeleted",
            format!(
                "Node {} has been deleted while the Machine still exists",
                node.name
            ),
        ),
        None if observed.is_deleting() => both(
            ConditionStatus::Unknown,
            "NodeDoesNotExist",
            "Node does not exist".to_owned(),
        ),
        None => both(
            ConditionStatus::Unknown,
            "InspectionFailed",
            format!(
                "Waiting for a Node with spec.providerID {} to exist",
                known.provider_id.as_deref().unwrap_or_default()
            ),
        ),
    }
}

/// What has to happen before a Node can be looked for.
fn waiting_for_node(observed: &Observed, known: &Known) -> Option<String> {
    let initialization = observed
        .cluster
        .found()
        .and_then(|c| c.status.as_ref()?.initialization.clone())
        .unwrap_or_default();
    if initialization.infrastructure_provisioned != Some(true) {
        return Some(
            "Waiting for Cluster status.initialization.infrastructureProvisioned to be true"
                .to_owned(),
        );
    }
    if initialization.control_plane_initialized != Some(true)
        && !matches!(observed.node, NodeLookup::One(_))
    {
        return Some("Waiting for Cluster control plane to be initialized".to_owned());
    }
    if known.provider_id.is_none() {
        let kind = &observed.machine.spec.infrastructure_ref.kind;
        return Some(format!("Waiting for {kind} to report spec.providerID"));
    }
    None
}

fn node_condition<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    let listed = node
        .pointer("/status/conditions")
        .and_then(Value::as_array)?;
    listed.iter().find(|c| text(c, "/type") == Some(name))
}

fn node_ready(node: &Value) -> Report {
    let Some(ready) = node_condition(node, "Ready") else {
        return Report::unknown("NodeReady", "NodeReadyUnknown")
            .with_message("* Node.Ready: Condition not yet reported");
    };
    let message = || {
        let words = text(ready, "/message")
            .or_else(|| text(ready, "/reason"))
            .unwrap_or("Condition is not True");
        format!("* Node.Ready: {words}")
    };
    let report = match text(ready, "/status") {
        Some("True") => Report::yes("NodeReady", "NodeReady"),
        Some("False") => Report::no("NodeReady", "NodeNotReady").with_message(message()),
        _ => Report::unknown("NodeReady", "NodeReadyUnknown").with_message(message()),
    };
    // Since when is the Node's to say: a health check counts from then, whoever looks.
    let since = text(ready, "/lastTransitionTime").and_then(|since| since.parse().ok());
    Report {
        transition: since,
        ..report
    }
}

fn node_healthy(node: &Value) -> Report {
    const TYPES: [(&str, &str); 4] = [
        ("Ready", "True"),
        ("MemoryPressure", "False"),
        ("DiskPressure", "False"),
        ("PIDPressure", "False"),
    ];
    let mut class = Class::Info;
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (name, good) in TYPES {
        let found = node_condition(node, name);
        let (part, words) = match found.and_then(|c| text(c, "/status")) {
            Some(status) if status == good => continue,
            Some("True" | "False") => (
                Class::Issue,
                found
                    .and_then(|c| text(c, "/message"))
                    .unwrap_or("Condition is not met"),
            ),
            Some(_) => (
                Class::Unknown,
                found
                    .and_then(|c| text(c, "/message"))
                    .unwrap_or("Condition is unknown"),
            ),
            None => (Class::Unknown, "Condition not yet reported"),
        };
        class = class.min(part);
        lines.push((name, words.to_owned()));
    }
    let same =
        lines.len() == TYPES.len() && lines.windows(2).all(|w| matches!(w, [a, b] if a.1 == b.1));
    let message = match lines.first() {
        Some((_, words)) if same => format!("* Node.AllConditions: {words}"),
        _ => lines
            .iter()
            .map(|(name, words)| format!("* Node.{name}: {words}"))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    let report = match class {
        Class::Issue => Report::no("NodeHealthy", "NodeNotHealthy"),
        Class::Unknown => Report::unknown("NodeHealthy", "NodeHealthyUnknown"),
        Class::Info => Report::yes("NodeHealthy", "NodeHealthy"),
    };
    report.with_message(message)
}
