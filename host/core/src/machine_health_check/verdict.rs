//! Whether one Machine is healthy, and when that has to be looked at again: deadlines are computed, nothing is polled.

use std::time::Duration;

use capstan_api::v1beta2::{Cluster, MachineHealthCheckChecks};
use capstan_api::{annotation, condition, reason};
use jiff::Timestamp;
use serde_json::Value;

use super::{Observed, Target};
use crate::deadline;
use crate::lookup::Lookup;
use crate::rollout::count::{conditions, created, has_annotation, is_control_plane, is_deleting};

/// How long a Machine may take to become a Node when the check does not say.
const NODE_STARTUP_TIMEOUT_S: i32 = 600;

/// What is added to a deadline: times are stored in whole seconds, so that one may be off by this.
const SLACK: Duration = Duration::from_secs(1);

/// What is known of one Machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its Node is there and nothing has been bad for too long.
    Healthy,
    /// It is to be replaced.
    Unhealthy {
        /// Reason of `HealthCheckSucceeded`.
        reason: &'static str,
        /// What was found.
        message: String,
    },
    /// Neither yet; it may become unhealthy after this time.
    Pending(Option<Duration>),
}

/// Something that is bad, for how long, and how long it may be.
struct Bad {
    line: String,
    since: Timestamp,
    timeout_s: i32,
}

impl Bad {
    /// `None` when it has been bad for too long, else how long it may still be.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = deadline::left(self.since, i64::from(self.timeout_s), now)?;
        Some(left.saturating_add(SLACK))
    }
}

/// What is known of one Machine of a check that is not [blind](Observed::blind).
#[must_use]
pub fn verdict(observed: &Observed, target: &Target, now: Timestamp) -> Verdict {
    let machine = &target.machine;
    if has_annotation(&machine.metadata, annotation::REMEDIATE_MACHINE) {
        return Verdict::Unhealthy {
            reason: reason::machine::HAS_REMEDIATE_ANNOTATION,
            message: format!(
                "Health check failed: marked for remediation via {} annotation",
                annotation::REMEDIATE_MACHINE
            ),
        };
    }
    let Some(cluster) = observed.cluster.found() else {
        return Verdict::Pending(None);
    };
    if !is_ready_for_checks(cluster, is_control_plane(machine)) {
        return Verdict::Pending(None);
    }
    let checks = observed.check.spec.checks.clone().unwrap_or_default();
    let mut bad = bad_machine_conditions(target, &checks);
    let of_machine = bad.len();
    match &target.node {
        Some(Lookup::Missing) => bad.push(Bad {
            line: format!("Node {} has been deleted", node_name(target)),
            since: Timestamp::UNIX_EPOCH,
            timeout_s: 0,
        }),
        Some(Lookup::Unknown(_)) => return Verdict::Pending(None),
        Some(Lookup::Found(node)) => bad.extend(bad_node_conditions(node, &checks)),
        None => bad.extend(late_start(cluster, target, &checks)),
    }
    let over: Vec<usize> = (0..bad.len())
        .filter(|index| bad.get(*index).is_some_and(|bad| bad.left(now).is_none()))
        .collect();
    if over.is_empty() {
        let next = bad.iter().filter_map(|bad| bad.left(now)).min();
        let has_node = matches!(target.node, Some(Lookup::Found(_)));
        return match next {
            Some(next) => Verdict::Pending(Some(next)),
            None if has_node && !is_deleting(&machine.metadata) => Verdict::Healthy,
            None => Verdict::Pending(None),
        };
    }
    let lines: Vec<String> = over
        .iter()
        .filter_map(|index| bad.get(*index).map(|bad| format!("  * {}", bad.line)))
        .collect();
    let reason = if over.first().is_some_and(|first| *first < of_machine) {
        reason::machine::UNHEALTHY_MACHINE
    } else {
        match &target.node {
            None => reason::machine::NODE_STARTUP_TIMEOUT,
            Some(Lookup::Missing) => reason::machine::NODE_DELETED,
            Some(_) => reason::machine::UNHEALTHY_NODE,
        }
    };
    let message = format!("Health check failed:\n{}", lines.join("\n"));
    Verdict::Unhealthy { reason, message }
}

/// Before a Cluster has infrastructure and, for workers, a control plane, its Machines have nothing to be measured by.
fn is_ready_for_checks(cluster: &Cluster, is_control_plane: bool) -> bool {
    let conditions = cluster.status.as_ref().map_or(&[][..], |s| &s.conditions);
    condition::is_true(conditions, "InfrastructureReady")
        && (is_control_plane || condition::is_true(conditions, "ControlPlaneInitialized"))
}

fn node_name(target: &Target) -> &str {
    let status = target.machine.status.as_ref();
    let node = status.and_then(|status| status.node_ref.as_ref());
    node.map_or("", |node| node.name.as_str())
}

fn bad_machine_conditions(target: &Target, checks: &MachineHealthCheckChecks) -> Vec<Bad> {
    let all = conditions(&target.machine);
    let bad = checks
        .unhealthy_machine_conditions
        .iter()
        .filter_map(|check| {
            let found = condition::get(all, &check.type_)?;
            (condition::status_of(found) == check.status).then(|| Bad {
                line: line(
                    &check.type_,
                    "Machine",
                    &found.status,
                    &found.reason,
                    check.timeout_seconds,
                ),
                since: found.last_transition_time.0,
                timeout_s: check.timeout_seconds,
            })
        });
    bad.collect()
}

fn bad_node_conditions(node: &Value, checks: &MachineHealthCheckChecks) -> Vec<Bad> {
    let all = node.pointer("/status/conditions").and_then(Value::as_array);
    let bad = checks.unhealthy_node_conditions.iter().filter_map(|check| {
        let found = all?.iter().find(|c| text(c, "type") == check.type_)?;
        let since: Timestamp = text(found, "lastTransitionTime").parse().ok()?;
        (text(found, "status") == check.status).then(|| Bad {
            line: line(
                &check.type_,
                "Node",
                &check.status,
                text(found, "reason"),
                check.timeout_seconds,
            ),
            since,
            timeout_s: check.timeout_seconds,
        })
    });
    bad.collect()
}

fn line(type_: &str, of: &str, status: &str, reason: &str, timeout_s: i32) -> String {
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(" with reason {reason}")
    };
    format!(
        "Condition {type_} on {of} is reporting status {status}{because} for more than {}",
        duration(timeout_s)
    )
}

/// The time within which the Machine must become a Node, counted from the last thing that it had to wait for.
fn late_start(
    cluster: &Cluster,
    target: &Target,
    checks: &MachineHealthCheckChecks,
) -> Option<Bad> {
    let timeout_s = checks
        .node_startup_timeout_seconds
        .unwrap_or(NODE_STARTUP_TIMEOUT_S);
    if timeout_s == 0 {
        return None;
    }
    let of_cluster = cluster.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let since_true = |all, type_| {
        condition::get(all, type_)
            .filter(|c| c.status == "True")
            .map(|c| c.last_transition_time.0)
    };
    let since = [
        created(&target.machine.metadata),
        since_true(of_cluster, "ControlPlaneInitialized"),
        since_true(of_cluster, "InfrastructureReady"),
        since_true(conditions(&target.machine), "InfrastructureReady"),
    ];
    Some(Bad {
        line: format!("Node failed to report startup in {}", duration(timeout_s)),
        since: since.into_iter().flatten().max()?,
        timeout_s,
    })
}

/// Seconds as people and upstream write them: `10m0s`.
fn duration(seconds: i32) -> String {
    let (hours, rest) = (seconds.div_euclid(3600), seconds.rem_euclid(3600));
    let (minutes, seconds) = (rest.div_euclid(60), rest.rem_euclid(60));
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
