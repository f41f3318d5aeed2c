//! Health of control-plane machines, from their static pods, their Nodes and what the members of etcd say.

use std::sync::Arc;

use capstan_api::condition::{self, Report};
use capstan_api::label;
use capstan_api::reason::{common, condition_type, kubeadm};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Member, Observed};
use crate::drain::is_unreachable;
use crate::lookup::Lookup;

/// Without an answer for so long, nothing is known any more (contract: upstream `--remote-conditions-grace-period`).
const GRACE: SignedDuration = SignedDuration::from_mins(5);

/// Taint of a Node that does not answer (Kubernetes: node lifecycle controller).
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A machine that is coming up is given so long before every step of it is written down.
const COMING_UP: SignedDuration = SignedDuration::from_secs(90);

/// The control plane's conditions on one of its Machines; empty while nothing new is known.
#[must_use]
pub fn machine_conditions(observed: &Observed, member: &Member, now: Timestamp) -> Vec<Report> {
    let mut reports = match member.unseen {
        None => remote_conditions(observed, member, now),
        // What was known of it stays said.
        Some(_) => Vec::new(),
    };
    if !member.is_deleting() {
        reports.extend(up_to_date(observed, member, now));
    }
    reports
}

/// Whether a machine is as it should be, where that is known.
#[must_use]
pub fn up_to_date(observed: &Observed, member: &Member, now: Timestamp) -> Option<Report> {
    if observed.desired.is_err() || member.outdated.is_err() {
        return None;
    }
    let why = observed.outdated(member, now);
    let type_ = condition_type::UP_TO_DATE;
    if why.is_empty() {
        return Some(Report::yes(type_, common::UP_TO_DATE));
    }
    let lines: Vec<String> = why.iter().map(|why| format!("* {why}")).collect();
    Some(Report::no(type_, common::NOT_UP_TO_DATE).with_message(lines.join("\n")))
}

/// Conditions that are seen in the workload cluster.
fn remote_types<'a>(observed: &Observed, member: &'a Member) -> Vec<&'a str> {
    let pods = member.components.iter();
    let pods = pods.map(|component| component.condition_type.as_str());
    let datastore = member.datastore.as_ref();
    let datastore = datastore.map(|_| condition_type::ETCD_MEMBER_HEALTHY);
    let node = member.components.is_empty();
    let node = node.then_some(condition_type::CONTROL_PLANE_NODE_READY);
    let marks = wants_marks(observed).then_some(condition_type::NODE_KUBEADM_LABELS_AND_TAINTS_SET);
    pods.chain(datastore).chain(node).chain(marks).collect()
}

fn remote_conditions(observed: &Observed, member: &Member, now: Timestamp) -> Vec<Report> {
    let all = |reason: &str, message: &str| -> Vec<Report> {
        remote_types(observed, member)
            .into_iter()
            .map(|type_| Report::unknown(type_, reason).with_message(message))
            .collect()
    };
    if !observed.is_initialized() {
        return all(
            common::INSPECTION_FAILED,
            "waiting for the control plane to be initialized",
        );
    }
    if !observed.connected {
        let is_down = observed
            .last_success
            .max(observed.tried_since)
            .is_none_or(|last| now.duration_since(last) > GRACE);
        return if is_down {
            all(
                common::CONNECTION_DOWN,
                "no connection to the workload cluster",
            )
        } else {
            Vec::new()
        };
    }
    if member.node_name().is_none() {
        return all(common::INSPECTION_FAILED, "waiting for the Machine's Node");
    }
    let is_silent = is_silent(&member.node);
    let mut reports: Vec<Report> = member
        .components
        .iter()
        .map(|component| {
            if is_silent {
                Report::unknown(&component.condition_type, common::INSPECTION_FAILED)
                    .with_message("the Node does not answer: what its Pod says may be old")
            } else {
                pod_condition(&component.condition_type, &component.pod)
            }
        })
        .collect();
    if member.datastore.is_some() {
        reports.push(super::etcd::condition(observed, member));
    }
    if member.components.is_empty() {
        reports.push(ready_condition(&member.node));
    }
    if wants_marks(observed) {
        reports.push(node_condition(member));
    }
    reports
}

/// Whether the plugin has its machines wait for kubeadm's marks on their Nodes.
fn wants_marks(observed: &Observed) -> bool {
    let gates = observed
        .desired
        .as_ref()
        .map(|desired| &desired.readiness_gates);
    let gates = gates.ok().and_then(Value::as_array);
    gates.into_iter().flatten().any(|gate| {
        gate.get("conditionType").and_then(Value::as_str)
            == Some(condition_type::NODE_KUBEADM_LABELS_AND_TAINTS_SET)
    })
}

/// A machine whose plugin names no components to look at is as well as its Node.
fn ready_condition(node: &Lookup<Arc<Value>>) -> Report {
    let type_ = condition_type::CONTROL_PLANE_NODE_READY;
    let node = match node {
        Lookup::Found(node) => node,
        Lookup::Missing => {
            return Report::no(type_, kubeadm::DOES_NOT_EXIST)
                .with_message("the Node does not exist");
        }
        Lookup::Unknown(why) => {
            return Report::unknown(type_, common::INSPECTION_FAILED).with_message(why.clone());
        }
    };
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| c.get("type").and_then(Value::as_str) == Some("Ready"));
    match ready.and_then(|ready| ready.get("status")?.as_str()) {
        Some("True") => Report::yes(type_, common::READY),
        Some("False") => {
            Report::no(type_, common::NOT_READY).with_message("the Node says that it is not ready")
        }
        _ => Report::unknown(type_, common::INSPECTION_FAILED)
            .with_message("the Node does not answer"),
    }
}

/// Whether a Node has fallen silent: then its Pods say what they said before (contract 3.10).
fn is_silent(node: &Lookup<Arc<Value>>) -> bool {
    let Some(node) = node.found() else {
        return false;
    };
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    let mut taints = taints.into_iter().flatten();
    is_unreachable(node)
        || taints.any(|taint| taint.get("key").and_then(Value::as_str) == Some(UNREACHABLE))
}

/// What a static pod says about its component.
fn pod_condition(type_: &str, pod: &Lookup<Arc<Value>>) -> Report {
    let pod = match pod {
        Lookup::Found(pod) => pod,
        Lookup::Missing => {
            return Report::no(type_, kubeadm::DOES_NOT_EXIST)
                .with_message("the Pod does not exist");
        }
        Lookup::Unknown(why) => {
            return Report::unknown(type_, common::INSPECTION_FAILED).with_message(why.clone());
        }
    };
    if pod
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
    {
        return Report::no(type_, common::DELETING).with_message("the Pod is being deleted");
    }
    let is = |wanted: &str| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| {
            c.get("type").and_then(Value::as_str) == Some(wanted)
                && c.get("status").and_then(Value::as_str) == Some("True")
        })
    };
    let provisioning =
        |message: &str| Report::no(type_, kubeadm::PROVISIONING).with_message(message);
    let failed = |message: String| Report::no(type_, kubeadm::FAILED).with_message(message);
    match pod
        .pointer("/status/phase")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "Pending" if !is("PodScheduled") => provisioning("the Pod waits to be scheduled"),
        "Pending" if !is("Initialized") => provisioning("the Pod runs its init containers"),
        "Pending" => provisioning("the Pod waits for its containers"),
        "Running" if is("Ready") => Report::yes(type_, kubeadm::RUNNING),
        "Running" => match stuck_container(pod) {
            Some(why) => failed(why),
            None => provisioning("the Pod waits for its startup or readiness probes"),
        },
        "Succeeded" => failed("all containers have ended".to_owned()),
        "Failed" => failed("all containers have ended, one of them with an error".to_owned()),
        _ => Report::unknown(type_, common::INSPECTION_FAILED)
            .with_message("the Node does not answer"),
    }
}

/// What a container says that does not run and will not by itself in a moment.
fn stuck_container(pod: &Value) -> Option<String> {
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array)?;
    statuses.iter().find_map(|status| {
        let name = status
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if let Some(reason) = status
            .pointer("/state/waiting/reason")
            .and_then(Value::as_str)
            && reason != "ContainerCreating"
        {
            return Some(format!("container {name} waits: {reason}"));
        }
        let code = status
            .pointer("/state/terminated/exitCode")
            .and_then(Value::as_i64)?;
        Some(format!("container {name} ended with code {code}"))
    })
}

/// Whether the Node has what kubeadm marks control-plane Nodes with. The taint is not expected where the config's own taints
/// leave it out.
fn node_condition(member: &Member) -> Report {
    let type_ = condition_type::NODE_KUBEADM_LABELS_AND_TAINTS_SET;
    let node = match &member.node {
        Lookup::Found(node) => node,
        Lookup::Missing => {
            return Report::unknown(type_, common::INSPECTION_FAILED)
                .with_message("the Node does not exist");
        }
        Lookup::Unknown(why) => {
            return Report::unknown(type_, common::INSPECTION_FAILED).with_message(why.clone());
        }
    };
    let key = label::NODE_ROLE_CONTROL_PLANE;
    let has_label = node
        .pointer("/metadata/labels")
        .is_some_and(|labels| labels.get(key).is_some());
    let has_taint = |taints: Option<&Value>| {
        taints.and_then(Value::as_array).is_some_and(|taints| {
            taints
                .iter()
                .any(|t| t.get("key").and_then(Value::as_str) == Some(key))
        })
    };
    let own = member.config.found().and_then(|config| {
        ["initConfiguration", "joinConfiguration"]
            .iter()
            .find_map(|part| config.pointer(&format!("/spec/{part}/nodeRegistration/taints")))
    });
    let needs_taint = own.is_none_or(|own| has_taint(Some(own)));
    let lacking = |what: &str| {
        Report::no(type_, kubeadm::NOT_SET).with_message(format!("the Node has no {what} {key}"))
    };
    match (
        has_label,
        !needs_taint || has_taint(node.pointer("/spec/taints")),
    ) {
        (true, true) => Report::yes(type_, kubeadm::SET),
        (false, _) => lacking("label"),
        (true, false) => lacking("taint"),
    }
}

/// Whether all that is looked at on a machine is well. `None` while it is not known.
#[must_use]
pub fn is_healthy(reports: &[Report]) -> Option<bool> {
    let remote = || {
        reports.iter().filter(|report| {
            report.type_ != condition_type::UP_TO_DATE
                && report.type_ != condition_type::NODE_KUBEADM_LABELS_AND_TAINTS_SET
        })
    };
    if remote().any(|report| report.status == condition::ConditionStatus::False) {
        return Some(false);
    }
    (remote().count() > 0
        && remote().all(|report| report.status == condition::ConditionStatus::True))
    .then_some(true)
}

/// Whether the conditions on a Machine are worth a write. A machine that is coming up is written once, when all is well: nobody
/// acts on the steps between.
#[must_use]
pub fn is_worth_writing(member: &Member, reports: &[Report], now: Timestamp) -> bool {
    let status = member.machine.status.as_ref();
    let stored = status
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let differs = |report: &Report| {
        condition::get(stored, &report.type_).is_none_or(|stored| {
            stored.status != report.status.as_str()
                || stored.reason != report.reason
                || stored.message != report.message
        })
    };
    if !reports.iter().any(differs) {
        return false;
    }
    let is_true = |report: &Report| report.status == condition::ConditionStatus::True;
    let lost = |report: &Report| !is_true(report) && condition::is_true(stored, &report.type_);
    let age = now.duration_since(member.created());
    reports.iter().all(is_true) || reports.iter().any(lost) || age > COMING_UP
}
