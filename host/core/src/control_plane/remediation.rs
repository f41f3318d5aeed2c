//! Machines that a health check has given up: which one is replaced, when, and when it must not be (contract 3.10: remediation).

use std::time::Duration;

use capstan_api::annotation;
use capstan_api::condition::{self, ConditionStatus, Report};
use capstan_api::reason::{common, condition_type, machine as machine_reason};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::leave::{self, HandOver};
use super::{Member, Observed, Step, etcd, health, size};
use crate::lookup::Lookup;

/// After so long without a failure the count of retries starts anew (contract: `minHealthyPeriodSeconds`).
const MIN_HEALTHY: i64 = 3600;

/// A remediation, as the annotations have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The machine that was given up.
    pub machine: String,
    /// When.
    pub timestamp: Timestamp,
    /// The how manieth try, from 0.
    #[serde(default)]
    pub retry_count: i64,
}

impl Record {
    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As an annotation.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is done about unhealthy machines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remedy {
    /// In order.
    pub steps: Vec<Step>,
    /// Nothing else may happen to the number of machines now.
    pub blocks: bool,
    /// Why the next one is not remediated, with its name.
    pub refused: Option<(String, Report)>,
    /// When time alone lets it go on.
    pub again: Option<Duration>,
}

/// The remediation that is under way.
#[must_use]
pub fn in_progress(observed: &Observed) -> Option<Record> {
    let annotations = observed.object.pointer("/metadata/annotations")?;
    let text = annotations
        .get(annotation::REMEDIATION_IN_PROGRESS)?
        .as_str()?;
    Record::read(text)
}

/// The remediation that a machine was made for.
fn made_for(member: &Member) -> Option<Record> {
    let annotations = member.machine.metadata.annotations.as_ref()?;
    Record::read(annotations.get(annotation::REMEDIATION_FOR)?)
}

/// The latest remediation that can be seen, for the status.
#[must_use]
pub fn last(observed: &Observed) -> Option<Record> {
    let made = observed.members.iter().filter_map(made_for);
    made.chain(in_progress(observed))
        .max_by_key(|record| record.timestamp)
}

/// Whether a machine that was given up has recovered: nothing is left to say about its remediation.
#[must_use]
pub fn has_recovered(member: &Member) -> bool {
    let stored = member
        .machine
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    !member.is_deleting()
        && condition::is_true(stored, condition_type::HEALTH_CHECK_SUCCEEDED)
        && condition::get(stored, condition_type::OWNER_REMEDIATED).is_some()
}

/// Machines that wait for their owner, the one that comes first at the front.
fn candidates(observed: &Observed) -> Vec<&Member> {
    let mut candidates: Vec<&Member> = observed
        .members
        .iter()
        .filter(|member| !member.is_deleting() && member.waits_for_owner())
        .collect();
    let order = [
        condition_type::ETCD_MEMBER_HEALTHY,
        condition_type::ETCD_POD_HEALTHY,
        condition_type::API_SERVER_POD_HEALTHY,
        condition_type::CONTROLLER_MANAGER_POD_HEALTHY,
        condition_type::SCHEDULER_POD_HEALTHY,
        condition_type::NODE_KUBEADM_LABELS_AND_TAINTS_SET,
    ];
    candidates.sort_by_key(|member| {
        (
            !member.has_annotation(annotation::REMEDIATE_MACHINE),
            member.node_name().is_some(),
            order.map(|type_| member.is_true(type_)),
            member.created(),
            member.name().to_owned(),
        )
    });
    candidates
}

/// What to do.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Remedy {
    let running = in_progress(observed);
    let candidates = candidates(observed);
    if let Some(record) = &running {
        let named = observed
            .members
            .iter()
            .find(|member| member.name() == record.machine);
        let is_replaced = observed.members.iter().any(|member| {
            made_for(member).is_some_and(|made| {
                made.machine == record.machine && made.timestamp == record.timestamp
            })
        });
        return match named {
            // Noted, but not deleted yet: a crash came between, or it has recovered, or what was true then is not any more.
            Some(member)
                if !member.is_deleting()
                    && member.waits_for_owner()
                    && check(observed, member, now).is_ok() =>
            {
                go(observed, member, record.clone(), now)
            }
            Some(member) if !member.is_deleting() => clear(),
            Some(_) => Remedy {
                blocks: true,
                ..Remedy::default()
            },
            None if is_replaced || !may_grow(observed, now) => clear(),
            None => next_dead(observed, &candidates, Some(record), now),
        };
    }
    // One that cannot be replaced now keeps no other from it that may be what is in its way.
    let mut first = None;
    for member in candidates {
        match check(observed, member, now) {
            Ok(record) => return go(observed, member, record, now),
            Err(refusal) => first = first.or(Some((member, refusal))),
        }
    }
    first.map_or_else(Remedy::default, |(member, refusal)| {
        refused(member, refusal)
    })
}

/// Whether the next machine may still come that the record of a remediation is for. Without it the tries of a rollout whose new machines
/// fail would be counted from nothing each time, and never end.
fn may_grow(observed: &Observed, now: Timestamp) -> bool {
    let members = || observed.members.iter();
    let alive = members().filter(|m| !m.is_deleting()).count();
    match &observed.desired {
        Ok(desired) if observed.unasked().is_none() => {
            let is_outdated = members().any(|member| !observed.outdated(member, now).is_empty());
            alive < size::grows_to(desired, is_outdated)
        }
        _ => true,
    }
}

/// Beside a deletion that etcd does not allow: what keeps it from going on may be the member of a machine that was given up, and that
/// machine would wait for the deletion. It goes first.
#[must_use]
pub fn beside(observed: &Observed, now: Timestamp) -> Remedy {
    let mut machines = observed.members.iter();
    if !machines.any(|member| leave::is_held(observed, member)) {
        return Remedy::default();
    }
    let running = in_progress(observed);
    next_dead(observed, &candidates(observed), running.as_ref(), now)
}

/// Before the replacement comes: another machine that was given up and whose member is dead goes too when it may, since kubeadm lets
/// no machine join beside a member that does not answer.
fn next_dead(
    observed: &Observed,
    candidates: &[&Member],
    running: Option<&Record>,
    now: Timestamp,
) -> Remedy {
    let dead = candidates.iter().find(|member| is_dead(observed, member));
    let Some(member) = dead else {
        return Remedy::default();
    };
    let Ok(mut record) = check(observed, member, now) else {
        return Remedy::default();
    };
    if let Some(running) = running {
        record.retry_count = record.retry_count.max(running.retry_count);
    }
    let mut remedy = go(observed, member, record.clone(), now);
    if running.is_some() {
        remedy.steps.insert(
            0,
            Step::Annotate {
                annotations: json!({annotation::REMEDIATION_IN_PROGRESS: record.text()}),
            },
        );
    }
    remedy
}

/// Whether the member of a machine is in the way of others: it is not known to be well, or of a machine without a Node, it has no vote
/// yet. One that never catches up would never get one.
fn is_dead(observed: &Observed, member: &Member) -> bool {
    if member.datastore.is_none() {
        return false;
    }
    if member.node_name().is_some() {
        return etcd::condition(observed, member).status != ConditionStatus::True;
    }
    let view = observed.etcd.found();
    let own = view.and_then(|view| etcd::member_of(observed, view, member));
    own.is_some_and(|own| own.is_learner || own.name.is_empty())
}

/// What stands against it.
struct Refusal {
    reason: &'static str,
    message: String,
    again: Option<Duration>,
}

impl Refusal {
    fn deferred(message: impl Into<String>) -> Self {
        Self {
            reason: machine_reason::REMEDIATION_DEFERRED,
            message: message.into(),
            again: None,
        }
    }

    fn impossible(message: impl Into<String>) -> Self {
        Self {
            reason: machine_reason::CANNOT_BE_REMEDIATED,
            message: message.into(),
            again: None,
        }
    }
}

/// Why a machine that no other one stands beside cannot be replaced, and what a person does. While nothing answers, others are of no help
/// that have no Node yet or are given up as well.
fn no_other(observed: &Observed, member: &Member) -> Option<String> {
    let others: Vec<&Member> = observed
        .members
        .iter()
        .filter(|other| other.name() != member.name())
        .collect();
    let is_help = |other: &&&Member| other.node_name().is_some() && !other.is_unhealthy();
    let mut why = if others.is_empty() {
        "it is the only machine of the control plane: nothing could be joined to afterwards. Bring it back; or, while it works, set \
         spec.replicas to 3, and it is replaced once the others are there"
            .to_owned()
    } else if observed.connected || others.iter().any(|other| is_help(&other)) {
        return None;
    } else {
        let (given_up, waiting): (Vec<&Member>, Vec<&Member>) =
            others.into_iter().partition(|other| other.is_unhealthy());
        let names = |members: &[&Member]| {
            let names: Vec<&str> = members.iter().map(|member| member.name()).collect();
            names.join(", ")
        };
        let mut text = "no machine of the control plane answers".to_owned();
        if !waiting.is_empty() {
            text.push_str(&format!(", so that {} cannot join", names(&waiting)));
        }
        text.push_str(". Bring it back");
        if !given_up.is_empty() {
            text.push_str(&format!(
                ", or as many of it and {} as etcd's majority needs",
                names(&given_up)
            ));
        }
        text
    };
    if observed.has_datastore() {
        why.push_str("; or, when it is lost for good, ");
        why.push_str(&etcd::start_again(observed));
    }
    Some(why)
}

fn check(observed: &Observed, member: &Member, now: Timestamp) -> Result<Record, Refusal> {
    let record = check_retries(observed, member, now)?;
    // A machine that nothing can take the place of stays, as little as it may be worth.
    if let Some(why) = size::cannot_make(observed) {
        return Err(Refusal::deferred(why));
    }
    if !observed.is_initialized() {
        // There is nothing yet that could be lost.
        return Ok(record);
    }
    if let Some(why) = size::lacks_material(observed) {
        return Err(Refusal::deferred(why));
    }
    if let Some(why) = no_other(observed, member) {
        return Err(Refusal::impossible(why));
    }
    if let Some(why) = etcd::takes_no_writes(observed) {
        return Err(Refusal::impossible(why));
    }
    let waits = |other: &&Member| {
        let is_held = is_dead(observed, member) && leave::is_held(observed, other);
        other.is_deleting() && other.name() != member.name() && !is_held
    };
    if let Some(other) = observed.members.iter().find(waits) {
        return Err(Refusal::deferred(format!(
            "waiting for Machine {} to be deleted",
            other.name()
        )));
    }
    if let Some(other) = observed.members.iter().find(|other| {
        other.node_name().is_none() && !other.is_unhealthy() && other.name() != member.name()
    }) {
        return Err(Refusal::deferred(format!(
            "waiting for Machine {} to get its Node",
            other.name()
        )));
    }
    if !observed.connected {
        return Err(Refusal::deferred(
            "the workload cluster does not answer: nothing is known of the other machines",
        ));
    }
    if observed.has_datastore() && matches!(observed.etcd, Lookup::Unknown(_) | Lookup::Missing) {
        return Err(Refusal::deferred(
            "no etcd member answers: nothing is known of the other members. If that stays so, bring it back, or one of them",
        ));
    }
    let others_well = observed.members.iter().any(|other| {
        other.name() != member.name()
            && !other.is_deleting()
            && health::is_healthy(&health::machine_conditions(observed, other, now)) == Some(true)
    });
    if !others_well {
        return Err(Refusal::impossible(
            "no other machine has all its components healthy. Bring it back, or one of them",
        ));
    }
    if let Some(why) = leave::danger_of(observed, member) {
        return Err(Refusal::impossible(format!(
            "without it etcd might lose its majority: {why}. Bring it back, or another one whose member is not healthy"
        )));
    }
    Ok(record)
}

/// A machine that was made for an earlier one that failed a short time ago is another try of the same.
fn check_retries(observed: &Observed, member: &Member, now: Timestamp) -> Result<Record, Refusal> {
    let settings = observed.desired.as_ref().map(|d| &d.remediation).ok();
    let number = |field: &str| settings.and_then(|s| s.get(field)).and_then(Value::as_i64);
    let record = |retry_count| Record {
        machine: member.name().to_owned(),
        timestamp: now,
        retry_count,
    };
    let min_healthy = number("minHealthyPeriodSeconds").unwrap_or(MIN_HEALTHY);
    let since = |record: &Record| now.duration_since(record.timestamp);
    let Some(before) =
        made_for(member).filter(|made| since(made) < SignedDuration::from_secs(min_healthy))
    else {
        return Ok(record(0));
    };
    let retry_period = SignedDuration::from_secs(number("retryPeriodSeconds").unwrap_or(0));
    let left = retry_period.saturating_sub(since(&before));
    if left.is_positive() {
        return Err(Refusal {
            again: Duration::try_from(left).ok(),
            ..Refusal::deferred(format!(
                "spec.remediation.retryPeriodSeconds: the last try was at {}, the next is at {}",
                before.timestamp,
                before
                    .timestamp
                    .saturating_add(retry_period)
                    .unwrap_or(Timestamp::MAX)
            ))
        });
    }
    let next = before.retry_count.saturating_add(1);
    if let Some(max) = number("maxRetry").filter(|max| next > *max) {
        return Err(Refusal::impossible(format!(
            "spec.remediation.maxRetry: {max} tries have failed"
        )));
    }
    Ok(record(next))
}

/// Notes it, hands over the leadership of etcd and deletes the machine.
fn go(observed: &Observed, member: &Member, record: Record, now: Timestamp) -> Remedy {
    let mut steps = vec![Step::Annotate {
        annotations: json!({annotation::REMEDIATION_IN_PROGRESS: record.text()}),
    }];
    if in_progress(observed).is_some() {
        steps.clear();
    }
    if let HandOver::Do(step) = leave::hand_over(observed, member, now) {
        steps.push(step);
    }
    steps.push(Step::ReportMachine {
        name: member.name().to_owned(),
        conditions: vec![
            Report::no(
                condition_type::OWNER_REMEDIATED,
                machine_reason::MACHINE_DELETING,
            )
            .with_message("the Machine is deleted and replaced"),
        ],
    });
    steps.push(Step::DeleteMachine {
        name: member.name().to_owned(),
        uid: member.uid().to_owned(),
    });
    Remedy {
        steps,
        blocks: true,
        ..Remedy::default()
    }
}

fn refused(member: &Member, refusal: Refusal) -> Remedy {
    let report =
        Report::no(condition_type::OWNER_REMEDIATED, refusal.reason).with_message(refusal.message);
    let stored = member
        .machine
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let is_said = condition::get(stored.unwrap_or_default(), condition_type::OWNER_REMEDIATED)
        .is_some_and(|it| it.reason == report.reason && it.message == report.message);
    let steps = if is_said {
        Vec::new()
    } else {
        vec![Step::ReportMachine {
            name: member.name().to_owned(),
            conditions: vec![report.clone()],
        }]
    };
    Remedy {
        steps,
        blocks: false,
        refused: Some((member.name().to_owned(), report)),
        again: refusal.again,
    }
}

fn clear() -> Remedy {
    Remedy {
        steps: vec![Step::Annotate {
            annotations: json!({annotation::REMEDIATION_IN_PROGRESS: null}),
        }],
        blocks: true,
        ..Remedy::default()
    }
}

/// The condition `Remediating`.
#[must_use]
pub fn condition(observed: &Observed, now: Timestamp) -> Report {
    let type_ = condition_type::REMEDIATING;
    let no = Report::no(type_, common::NOT_REMEDIATING);
    if observed.is_deleting() {
        return no;
    }
    if let Some(record) = in_progress(observed) {
        let mut said = format!(
            "Machine {} is being replaced since {}, retry {}",
            record.machine, record.timestamp, record.retry_count
        );
        // Machines that go hold everything else up, and no other condition need say so: there may be as many as wanted, all up to date.
        if let Some(why) = leave::decide(observed, now).wait {
            said.push_str(": ");
            said.push_str(&why);
        }
        return Report::yes(type_, common::REMEDIATING).with_message(said);
    }
    match decide(observed, now) {
        Remedy {
            refused: Some((name, report)),
            ..
        } => no.with_message(format!(
            "Machine {name} is unhealthy and is not replaced: {}",
            report.message
        )),
        Remedy { steps, .. } if !steps.is_empty() => {
            Report::yes(type_, common::REMEDIATING).with_message("a Machine is being replaced")
        }
        _ => no,
    }
}
