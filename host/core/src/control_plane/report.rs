//! A control plane, after acting: its counts, versions and every condition that the host owns.

mod available;
mod failed;
mod scaling;

use std::collections::BTreeMap;

use capstan_api::condition::combine::{Polarity, Reasons, Source, aggregate};
use capstan_api::condition::{self, ConditionStatus, Report};
use capstan_api::label;
use capstan_api::name::Version;
use capstan_api::reason::{common, condition_type, kubeadm};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Map, Value, json};

use super::decide::{is_provisioned, lacks_endpoint};
use super::etcd;
use super::leave;
use super::{
    MaterialState, Member, Observed, Step, certificates as expiry, health, in_cluster, remediation,
    rotation,
};
use crate::lookup::Lookup;
use crate::plan::{Outcome, Plan};

/// Without an answer for so long, nothing is known of the cluster any more.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

/// What is waited for while the cluster's infrastructure is not there.
const UNPROVISIONED: &str =
    "waiting for Cluster status.initialization.infrastructureProvisioned to be true";

/// Reasons of the condition `Initialized`.
const INITIALIZED: &str = "Initialized";
const NOT_INITIALIZED: &str = "NotInitialized";

/// Parts of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: Value,
    /// Conditions.
    pub conditions: Vec<Report>,
    /// The finalizer may go.
    pub finished: bool,
    /// What the object asks for now is not known: `observedGeneration` stays.
    pub keeps_generation: bool,
}

/// What the status says.
#[must_use]
pub fn report(
    observed: &Observed,
    plan: &Plan<Step>,
    outcome: &Outcome<Step, ()>,
    now: Timestamp,
) -> Reported {
    let looks: Vec<Look<'_>> = observed
        .members
        .iter()
        .map(|member| Look::at(observed, member, now))
        .collect();
    let failure = failed::first(observed, outcome);
    let certificates = certificates(observed, outcome);
    let mut conditions = vec![
        available::condition(observed, &looks, &certificates, now),
        initialized(observed),
        components(observed, &looks, now),
        scaling::rolling_out(observed, &looks, failure, now),
        scaling::up(observed, failure, now),
        scaling::down(observed, failure, now),
        machines_ready(observed),
        machines_up_to_date(observed, now),
        remediation::condition(observed, now),
        deleting(observed, plan, outcome),
    ];
    conditions.extend(datastore(observed, &looks, now));
    conditions.extend(in_cluster::condition(observed));
    conditions.extend(rotation::condition::report(observed, now));
    conditions.push(certificates);
    failed::say(&mut conditions, outcome);
    Reported {
        status: status(observed, &looks),
        conditions,
        finished: observed.is_deleting()
            && observed.members.is_empty()
            && observed.workers.is_empty(),
        keeps_generation: observed.desired.is_err(),
    }
}

/// A member with what was found out about it.
struct Look<'a> {
    member: &'a Member,
    conditions: Vec<Report>,
    outdated: Vec<String>,
}

impl<'a> Look<'a> {
    fn at(observed: &Observed, member: &'a Member, now: Timestamp) -> Self {
        Self {
            member,
            conditions: health::machine_conditions(observed, member, now),
            outdated: observed.outdated(member, now),
        }
    }

    fn is_up_to_date(&self) -> bool {
        self.outdated.is_empty()
    }
}

fn status(observed: &Observed, looks: &[Look<'_>]) -> Value {
    let count = |is: &dyn Fn(&Look<'_>) -> bool| looks.iter().filter(|look| is(look)).count();
    let kept = |field: &str| {
        observed
            .object
            .pointer(&format!("/status/{field}"))
            .cloned()
    };
    let mut status = Map::new();
    if let Some(cluster) = observed.cluster.found() {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let selector = format!("{}={name},{}", label::CLUSTER_NAME, label::CONTROL_PLANE);
        status.insert("selector".to_owned(), json!(selector));
    } else if let Some(selector) = kept("selector") {
        status.insert("selector".to_owned(), selector);
    }
    status.insert("replicas".to_owned(), json!(looks.len()));
    let ready = count(&|look| look.member.is_true(condition_type::READY));
    let available = count(&|look| look.member.is_true(condition_type::AVAILABLE));
    status.insert("readyReplicas".to_owned(), json!(ready));
    status.insert("availableReplicas".to_owned(), json!(available));
    // Who cannot be asked has not said that all is up to date.
    let up_to_date = match observed.unasked() {
        None => Some(json!(count(&|look| look.is_up_to_date()))),
        Some(_) => kept("upToDateReplicas"),
    };
    status.extend(up_to_date.map(|count| ("upToDateReplicas".to_owned(), count)));
    let versions = versions(observed);
    if let Some((lowest, _)) = versions.first() {
        status.insert("version".to_owned(), json!(lowest));
        let listed: Vec<Value> = versions
            .iter()
            .map(|(version, replicas)| json!({"version": version, "replicas": replicas}))
            .collect();
        status.insert("versions".to_owned(), json!(listed));
    } else if let Some(last) = kept("version") {
        // The lowest of none is still the last that there was (contract: upstream `updateStatus`).
        status.insert("version".to_owned(), last);
    }
    if observed.is_initialized() {
        status.insert(
            "initialization".to_owned(),
            json!({"controlPlaneInitialized": true}),
        );
    }
    if let Some(certificates) = expiry::listed(observed) {
        status.insert("certificates".to_owned(), certificates);
    }
    if let Some(last) = remediation::last(observed) {
        status.insert(
            "lastRemediation".to_owned(),
            json!({
                "machine": last.machine,
                "time": whole_seconds(last.timestamp).to_string(),
                "retryCount": last.retry_count,
            }),
        );
    } else if let Some(last) = kept("lastRemediation") {
        status.insert("lastRemediation".to_owned(), last);
    }
    Value::Object(status)
}

/// Times in a status have no fractions.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Versions of the machines that exist, with how many have each, lowest first.
fn versions(observed: &Observed) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for member in &observed.members {
        if let Some(version) = &member.machine.spec.version {
            let count = counts.entry(version.clone()).or_default();
            *count = count.saturating_add(1);
        }
    }
    let mut versions: Vec<(String, usize)> = counts.into_iter().collect();
    versions.sort_by(
        |(a, _), (b, _)| match (Version::parse(a), Version::parse(b)) {
            (Ok(a), Ok(b)) => a.compare_with_build(&b),
            _ => a.cmp(b),
        },
    );
    versions
}

fn certificates(observed: &Observed, outcome: &Outcome<Step, ()>) -> Report {
    let type_ = condition_type::CERTIFICATES_AVAILABLE;
    let was_made = outcome
        .done
        .iter()
        .any(|(step, ())| *step == Step::EnsureMaterial);
    if let Some((Step::EnsureMaterial | Step::EnsureKubeconfig { .. }, failure)) = &outcome.failed {
        return Report::unknown(type_, common::INTERNAL_ERROR)
            .with_message(failure.message.clone());
    }
    match &observed.material {
        Lookup::Found(material) => {
            let lacking = lacking(observed, material, was_made);
            if lacking.is_empty() {
                Report::yes(type_, common::AVAILABLE)
            } else {
                Report::no(type_, common::NOT_AVAILABLE).with_message(lacking.join("\n"))
            }
        }
        Lookup::Unknown(why) => {
            Report::unknown(type_, common::INTERNAL_ERROR).with_message(why.clone())
        }
        Lookup::Missing => unsought(observed, type_),
    }
}

/// What is said of certificates that nobody looked for.
fn unsought(observed: &Observed, type_: &str) -> Report {
    let kept = || stored(observed, type_);
    let unknown = |why: &str| Report::unknown(type_, common::INTERNAL_ERROR).with_message(why);
    match &observed.desired {
        _ if observed.is_deleting() => {
            kept().unwrap_or_else(|| unknown("the control plane is being deleted"))
        }
        // What there has been goes by no plugin that cannot be asked.
        Err(failure) => kept().unwrap_or_else(|| unknown(&failure.message)),
        Ok(_) => Report::no(type_, common::NOT_AVAILABLE).with_message(UNPROVISIONED),
    }
}

/// What is missing, unless it has just been made, and what cannot be used.
fn lacking(observed: &Observed, material: &MaterialState, was_made: bool) -> Vec<String> {
    let mut lacking = Vec::new();
    if !material.missing.is_empty() && !was_made {
        let mut message = format!("missing: {}", material.missing.join(", "));
        if observed.was_initialized() {
            message.push_str(
                "; put these Secrets back as they were, with what the machines have: for a cluster that is up no others are made",
            );
        }
        lacking.push(message);
    }
    lacking.extend(material.unusable.iter().cloned());
    lacking.extend(material.lost.iter().cloned());
    lacking
}

fn initialized(observed: &Observed) -> Report {
    if observed.is_initialized() {
        Report::yes(condition_type::INITIALIZED, INITIALIZED)
    } else {
        Report::no(condition_type::INITIALIZED, NOT_INITIALIZED)
    }
}

/// Why nothing is known of the workload cluster, if so.
fn unseen(observed: &Observed, now: Timestamp) -> Option<(&'static str, String)> {
    if !observed.cluster.found().is_some_and(is_provisioned) {
        return Some((common::INSPECTION_FAILED, UNPROVISIONED.to_owned()));
    }
    if let Some(why) = lacks_endpoint(observed) {
        return Some((common::INSPECTION_FAILED, why.to_owned()));
    }
    let with_reason = |message: String| match &observed.connection_said {
        Some(why) => format!("{message}: {why}"),
        None => message,
    };
    if !observed.is_initialized() {
        let message = "waiting for the control plane to be initialized".to_owned();
        return Some((common::INSPECTION_FAILED, with_reason(message)));
    }
    if observed.connected {
        return None;
    }
    let heard = observed.last_success.max(observed.tried_since);
    if heard.is_some_and(|heard| now.duration_since(heard) <= GRACE) {
        return None;
    }
    let message = match observed.last_success {
        Some(last) => format!("the workload cluster last answered at {last}"),
        None => "the workload cluster has not answered yet".to_owned(),
    };
    Some((common::CONNECTION_DOWN, with_reason(message)))
}

/// One condition about components of all machines. Without fresh news the condition stays as it is.
fn of_all(
    observed: &Observed,
    looks: &[Look<'_>],
    type_: &str,
    concerns: &dyn Fn(&Member, &Report) -> bool,
    now: Timestamp,
) -> Report {
    if let Some((reason, message)) = unseen(observed, now) {
        return Report::unknown(type_, reason).with_message(message);
    }
    if !observed.connected {
        return stored(observed, type_)
            .unwrap_or_else(|| Report::unknown(type_, common::CONNECTION_DOWN));
    }
    let mut worst = ConditionStatus::True;
    let mut lines = Vec::new();
    for look in looks {
        for report in look
            .conditions
            .iter()
            .filter(|report| concerns(look.member, report))
        {
            match (report.status, worst) {
                (ConditionStatus::True, _) => continue,
                (ConditionStatus::False, _) => worst = ConditionStatus::False,
                (ConditionStatus::Unknown, ConditionStatus::True) => {
                    worst = ConditionStatus::Unknown
                }
                (ConditionStatus::Unknown, _) => {}
            }
            let said = if report.message.is_empty() {
                &report.reason
            } else {
                &report.message
            };
            lines.push(format!(
                "* Machine {}: {}: {said}",
                look.member.name(),
                report.type_
            ));
        }
    }
    let reason = match worst {
        ConditionStatus::True => kubeadm::HEALTHY,
        ConditionStatus::False => kubeadm::NOT_HEALTHY,
        ConditionStatus::Unknown => kubeadm::HEALTH_UNKNOWN,
    };
    Report::new(type_, worst, reason).with_message(lines.join("\n"))
}

/// A condition as the object has it.
fn stored(observed: &Observed, type_: &str) -> Option<Report> {
    let condition = condition::read(&observed.object, type_)?;
    let status = condition::status_of(&condition);
    Some(Report::new(type_, status, &condition.reason).with_message(condition.message))
}

fn components(observed: &Observed, looks: &[Look<'_>], now: Timestamp) -> Report {
    let concerns = |member: &Member, report: &Report| {
        let is_pod = member
            .components
            .iter()
            .any(|component| component.condition_type == report.type_);
        // Of a machine whose components nobody names, the Node tells.
        report.type_ == condition_type::CONTROL_PLANE_NODE_READY
            || is_pod && member.datastore.as_ref() != Some(&report.type_)
    };
    of_all(
        observed,
        looks,
        condition_type::CONTROL_PLANE_COMPONENTS_HEALTHY,
        &concerns,
        now,
    )
}

fn datastore(observed: &Observed, looks: &[Look<'_>], now: Timestamp) -> Option<Report> {
    let type_ = condition_type::ETCD_CLUSTER_HEALTHY;
    if !observed.has_datastore() {
        let is_expected = observed.expects_etcd || stored(observed, type_).is_some();
        let none = || {
            (
                common::INSPECTION_FAILED,
                "there is no etcd member".to_owned(),
            )
        };
        let (reason, why) = unseen(observed, now).unwrap_or_else(none);
        return is_expected.then(|| Report::unknown(type_, reason).with_message(why));
    }
    if let Some(why) = etcd::lost_majority(observed) {
        return Some(Report::no(type_, kubeadm::NOT_HEALTHY).with_message(why));
    }
    let concerns = |member: &Member, report: &Report| {
        member.datastore.is_some()
            && (report.type_ == condition_type::ETCD_MEMBER_HEALTHY
                || member.datastore.as_ref() == Some(&report.type_))
    };
    let mut report = of_all(observed, looks, type_, &concerns, now);
    if let Some(why) = etcd::silence(observed, now) {
        report.message = format!("{why}\n{}", report.message);
    }
    let lines = members_without_machines(observed, now);
    if !lines.is_empty() && observed.connected {
        report.status = ConditionStatus::False;
        kubeadm::NOT_HEALTHY.clone_into(&mut report.reason);
        let all: Vec<&str> = [report.message.as_str()]
            .into_iter()
            .chain(lines.iter().map(String::as_str))
            .filter(|line| !line.is_empty())
            .collect();
        report.message = all.join("\n");
    }
    // Who has deleted a machine is told here what it waits for: there may be as many as wanted, and nothing else under way.
    let is_said = report.status != ConditionStatus::True
        || observed.snapshot.is_some()
        || leave::none_stays(observed);
    if is_said
        && observed.connected
        && !observed.is_deleting()
        && let Some(why) = leave::hook(observed, now).wait
    {
        if !report.message.is_empty() {
            report.message.push('\n');
        }
        report.message.push_str(&format!("* {why}"));
    }
    Some(report)
}

/// Members of etcd that no machine stands behind, each with why it is still there.
fn members_without_machines(observed: &Observed, now: Timestamp) -> Vec<String> {
    let Some(view) = observed.etcd.found() else {
        return Vec::new();
    };
    let why = leave::orphan(observed, now).wait;
    let orphans = etcd::orphans(observed, view);
    let lines = orphans.iter().map(|member| {
        let name = if member.name.is_empty() {
            "(not started)"
        } else {
            member.name.as_str()
        };
        let alarms = if member.alarms.is_empty() {
            String::new()
        } else {
            format!(", alarms: {}", member.alarms.join(", "))
        };
        let next = why.as_deref().unwrap_or("it is being removed");
        format!("* etcd member {name} has no Machine{alarms}: {next}")
    });
    lines.collect()
}

fn machines_ready(observed: &Observed) -> Report {
    let type_ = condition_type::MACHINES_READY;
    let sources = sources(observed, |member| {
        let conditions = member
            .machine
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice());
        condition::get(conditions.unwrap_or_default(), condition_type::READY).cloned()
    });
    if sources.is_empty() {
        return Report::yes(type_, common::NO_REPLICAS);
    }
    let reasons = Reasons {
        on_true: common::READY,
        on_false: common::NOT_READY,
        on_unknown: common::READY_UNKNOWN,
    };
    aggregate(
        type_,
        condition_type::READY,
        &sources,
        Polarity::Positive,
        &reasons,
    )
}

/// Of all machines, those that go included.
fn machines_up_to_date(observed: &Observed, now: Timestamp) -> Report {
    let type_ = condition_type::MACHINES_UP_TO_DATE;
    let sources = sources(observed, |member| {
        let report = health::up_to_date(observed, member, now)?;
        let mut listed = Vec::new();
        condition::set(&mut listed, report, None, Timestamp::UNIX_EPOCH);
        listed.pop()
    });
    if sources.is_empty() {
        return Report::yes(type_, common::NO_REPLICAS);
    }
    let reasons = Reasons {
        on_true: common::UP_TO_DATE,
        on_false: common::NOT_UP_TO_DATE,
        on_unknown: common::UP_TO_DATE_UNKNOWN,
    };
    aggregate(
        type_,
        condition_type::UP_TO_DATE,
        &sources,
        Polarity::Positive,
        &reasons,
    )
}

fn sources<'a>(
    observed: &'a Observed,
    condition: impl Fn(&'a Member) -> Option<Condition>,
) -> Vec<Source<'a>> {
    let sources = observed.members.iter().map(|member| Source {
        kind: "Machine",
        name: member.name(),
        is_control_plane: true,
        condition: condition(member),
    });
    sources.collect()
}

fn deleting(observed: &Observed, plan: &Plan<Step>, outcome: &Outcome<Step, ()>) -> Report {
    let type_ = condition_type::DELETING;
    if !observed.is_deleting() {
        return Report::no(type_, common::NOT_DELETING);
    }
    let waits = plan.waits.first();
    if let Some(failure) = failed::step(outcome) {
        let what = waits.map_or_else(String::new, |wait| format!("\n{}", wait.message));
        let message = format!("{}{what}", failure.message);
        return Report::yes(type_, common::INTERNAL_ERROR).with_message(message);
    }
    match waits {
        Some(wait) => Report::yes(type_, &wait.on).with_message(wait.message.clone()),
        None => Report::yes(type_, common::DELETION_COMPLETED),
    }
}
