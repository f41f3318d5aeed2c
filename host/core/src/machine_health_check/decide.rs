//! What should happen next: which Machines are marked, and which external requests are made or taken back.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::condition::{self, Report};
use capstan_api::reason;
use capstan_api::reason::condition_type::{
    EXTERNALLY_REMEDIATED, HEALTH_CHECK_SUCCEEDED, OWNER_REMEDIATED,
};
use capstan_api::v1beta2::API_VERSION;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::limit::{self, Limit};
use super::verdict::{Verdict, verdict};
use super::{Observed, Target};
use crate::clone;
use crate::lookup::Lookup;
use crate::plan::{Plan, STEPS_MAX};
use crate::rollout::count::{conditions, is_deleting};

/// How many Machines one step marks; the next reconcile goes on with the rest.
pub const MARKS_MAX: usize = 200;

/// How many external requests one plan makes or takes back; the next one goes on. It leaves room for the other steps.
const REQUESTS_MAX: usize = STEPS_MAX / 2;

/// What is said to a Machine's owner.
const WAITING: &str = "Waiting for remediation";

/// New conditions of one Machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Name of the Machine.
    pub machine: String,
    /// The version of the Machine that the conditions are of.
    pub resource_version: String,
    /// Its UID.
    pub uid: String,
    /// All conditions that it then has.
    pub conditions: Vec<Condition>,
    /// It was not unhealthy before: an event tells of it.
    pub news: Option<String>,
}

impl Mark {
    /// The merge patch of the Machine's status. A list is replaced whole, so only of the Machine as it was seen.
    #[must_use]
    pub fn patch(&self) -> Value {
        json!({
            "metadata": {"resourceVersion": self.resource_version, "uid": self.uid},
            "status": {"conditions": self.conditions},
        })
    }

    /// The same with another answer to the external request.
    #[must_use]
    pub fn with(mut self, report: Report, now: Timestamp) -> Self {
        self.conditions = condition::merge(&self.conditions, [report], None, now);
        self
    }
}

/// An external request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The object.
    pub object: Value,
    /// What the Machine says when the object is there.
    pub mark: Mark,
    /// When this was decided.
    pub now: Timestamp,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write conditions of Machines.
    Mark(Vec<Mark>),
    /// Make an external request.
    Ask(Box<Request>),
    /// Take back an external request of a Machine that is healthy again.
    TakeBack(Arc<Value>),
    /// Tell that nothing is replaced; the text says why.
    TellRestricted(String),
}

/// The Machines with what is known of each.
#[must_use]
pub fn judged(observed: &Observed, now: Timestamp) -> Vec<(&Target, Verdict)> {
    let judge = |target| (target, verdict(observed, target, now));
    observed.targets.iter().map(judge).collect()
}

/// What the check allows, given what is known of the Machines.
#[must_use]
pub fn limit_of(observed: &Observed, judged: &[(&Target, Verdict)]) -> Limit {
    let healthy = judged
        .iter()
        .filter(|(_, v)| *v == Verdict::Healthy)
        .count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    limit::of(&observed.check, count(judged.len()), count(healthy))
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if observed.is_deleting() {
        return Plan::settled();
    }
    if let Some(why) = observed.blind() {
        return Plan::settled().waiting(reason::common::CONNECTION_DOWN, why);
    }
    let judged = judged(observed, now);
    let limit = limit_of(observed, &judged);
    let allowed = limit.is_allowed();
    let mut marks = Vec::new();
    let mut requests = Vec::new();
    let mut plan = Plan::settled();
    for (target, verdict) in &judged {
        if let Verdict::Pending(Some(next)) = verdict {
            plan = plan.check_after(*next);
        }
        if !target.acts {
            continue;
        }
        match ask(observed, target, verdict, allowed, now) {
            Some(step) if requests.len() < REQUESTS_MAX => requests.push(step),
            Some(_) => plan = plan.check_after(Duration::ZERO),
            None => marks.extend(mark(
                target,
                &wanted(observed, target, verdict, allowed),
                now,
            )),
        }
        if *verdict == Verdict::Healthy
            && let Lookup::Found(request) = &target.request
            && !is_being_deleted(request)
        {
            requests.push(Step::TakeBack(request.clone()));
        }
    }
    if marks.len() > MARKS_MAX {
        marks.truncate(MARKS_MAX);
        plan = plan.check_after(Duration::ZERO);
    }
    if !marks.is_empty() {
        plan.steps.push(Step::Mark(marks));
    }
    plan.steps.extend(requests.into_iter().take(REQUESTS_MAX));
    if !allowed && was_allowed(observed) {
        plan.steps.push(Step::TellRestricted(limit.refusal()));
    }
    plan
}

/// Whether the last report allowed remediation, or there was none: being refused is then news.
fn was_allowed(observed: &Observed) -> bool {
    let status = observed.check.status.as_ref();
    let all = status.map_or(&[][..], |status| &status.conditions);
    !condition::is_false(all, reason::condition_type::REMEDIATION_ALLOWED)
}

/// The conditions that a Machine should have of this check; those that go, by type.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    set: Vec<Report>,
    remove: Vec<&'static str>,
}

fn wanted(observed: &Observed, target: &Target, verdict: &Verdict, allowed: bool) -> Wanted {
    let mut wanted = Wanted::default();
    let machine = &target.machine;
    match verdict {
        Verdict::Pending(_) => {}
        Verdict::Healthy => {
            wanted.set.push(Report::yes(
                HEALTH_CHECK_SUCCEEDED,
                reason::machine::HEALTH_CHECK_SUCCEEDED,
            ));
            // Its owner takes back what it was asked for; nobody else takes back what an external controller was.
            wanted.remove.push(EXTERNALLY_REMEDIATED);
        }
        Verdict::Unhealthy { reason, message } => {
            wanted
                .set
                .push(Report::no(HEALTH_CHECK_SUCCEEDED, reason).with_message(message.clone()));
            if !allowed || is_deleting(&machine.metadata) {
                return wanted;
            }
            let all = conditions(machine);
            match &observed.template {
                None if condition::is_false(all, OWNER_REMEDIATED) => {}
                None => wanted.set.push(waiting(OWNER_REMEDIATED)),
                Some(_) if matches!(target.request, Lookup::Found(_)) => {
                    if condition::get(all, EXTERNALLY_REMEDIATED).is_none() {
                        wanted.set.push(waiting(EXTERNALLY_REMEDIATED));
                    }
                }
                Some(Lookup::Missing) => wanted.set.push(
                    Report::no(
                        EXTERNALLY_REMEDIATED,
                        reason::machine::REMEDIATION_TEMPLATE_NOT_FOUND,
                    )
                    .with_message(template_missing(observed)),
                ),
                Some(Lookup::Unknown(why)) => wanted.set.push(failed_to_ask(why)),
                Some(Lookup::Found(_)) => {}
            }
        }
    }
    wanted
}

fn waiting(type_: &str) -> Report {
    Report::no(type_, reason::machine::WAITING_FOR_REMEDIATION).with_message(WAITING)
}

/// What a Machine says when its external request could not be made.
#[must_use]
pub fn failed_to_ask(why: &str) -> Report {
    Report::no(
        EXTERNALLY_REMEDIATED,
        reason::machine::REMEDIATION_REQUEST_CREATION_FAILED,
    )
    .with_message(why)
}

fn template_missing(observed: &Observed) -> String {
    let remediation = observed.check.spec.remediation.as_ref();
    let reference = remediation.and_then(|remediation| remediation.template_ref.as_ref());
    reference.map_or_else(String::new, |reference| {
        format!(
            "spec.remediation.templateRef: {} {} does not exist: create it, or correct MachineHealthCheck {}",
            reference.kind,
            reference.name,
            crate::rollout::count::name(&observed.check.metadata),
        )
    })
}

/// The external request that an unhealthy Machine lacks.
fn ask(
    observed: &Observed,
    target: &Target,
    verdict: &Verdict,
    allowed: bool,
    now: Timestamp,
) -> Option<Step> {
    let is_unhealthy = matches!(verdict, Verdict::Unhealthy { .. });
    let template = observed.template.as_ref()?.found()?;
    if !is_unhealthy
        || !allowed
        || !target.request.is_missing()
        || is_deleting(&target.machine.metadata)
    {
        return None;
    }
    let metadata = &target.machine.metadata;
    let owner = json!({
        "apiVersion": API_VERSION, "kind": "Machine", "name": metadata.name, "uid": metadata.uid,
    });
    let none = std::collections::BTreeMap::new();
    let object = clone::from_template(
        template,
        target.name(),
        metadata.namespace.as_deref().unwrap_or_default(),
        &observed.check.spec.cluster_name,
        &none,
        &none,
        Some(owner),
    );
    let mut wanted = wanted(observed, target, verdict, allowed);
    match object {
        Ok(object) => {
            wanted.set.push(waiting(EXTERNALLY_REMEDIATED));
            let mark = merged(target, &wanted, now);
            Some(Step::Ask(Box::new(Request { object, mark, now })))
        }
        Err(error) => {
            wanted.set.push(failed_to_ask(&error.to_string()));
            mark(target, &wanted, now).map(|mark| Step::Mark(vec![mark]))
        }
    }
}

/// The mark, if it changes anything.
fn mark(target: &Target, wanted: &Wanted, now: Timestamp) -> Option<Mark> {
    let all = conditions(&target.machine);
    let differs = wanted.set.iter().any(|report| {
        condition::get(all, &report.type_).is_none_or(|old| {
            old.status != report.status.as_str()
                || old.reason != report.reason
                || old.message != report.message
        })
    });
    let goes = wanted
        .remove
        .iter()
        .any(|type_| condition::get(all, type_).is_some());
    (differs || goes).then(|| merged(target, wanted, now))
}

fn merged(target: &Target, wanted: &Wanted, now: Timestamp) -> Mark {
    let metadata = &target.machine.metadata;
    let all = conditions(&target.machine);
    let mut after = condition::merge(all, wanted.set.clone(), metadata.generation, now);
    for type_ in &wanted.remove {
        condition::remove(&mut after, type_);
    }
    let news = wanted
        .set
        .iter()
        .find(|report| report.type_ == OWNER_REMEDIATED || report.type_ == EXTERNALLY_REMEDIATED)
        .and_then(|_| wanted.set.first())
        .map(|report| report.message.clone());
    Mark {
        machine: target.name().to_owned(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        conditions: after,
        news,
    }
}

fn is_being_deleted(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|t| !t.is_null())
}
