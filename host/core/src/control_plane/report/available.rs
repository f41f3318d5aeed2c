//! Whether a control plane serves: its API servers, its etcd, its certificates.

use capstan_api::condition::{self, ConditionStatus, Report};
use capstan_api::reason::{common, condition_type};
use jiff::{SignedDuration, Timestamp};

use super::{Look, stored, unseen};
use crate::control_plane::{Member, Observed, etcd, health};
use crate::lookup::Lookup;

/// For so long after it was initialized a control plane whose members cannot be asked yet is one that is still coming up (contract 3.10).
const COMING_UP: SignedDuration = SignedDuration::from_mins(2);

/// How long after its Node a machine's member may appear: kubeadm joins the Node first.
const JOINING: SignedDuration = SignedDuration::from_mins(3);

pub(super) fn condition(
    observed: &Observed,
    looks: &[Look<'_>],
    certificates: &Report,
    now: Timestamp,
) -> Report {
    let type_ = condition_type::AVAILABLE;
    let not = |message: &str| Report::no(type_, common::NOT_AVAILABLE).with_message(message);
    if !observed.is_initialized() {
        return not("the control plane is not initialized yet");
    }
    if observed.is_deleting() {
        return not("the control plane is being deleted");
    }
    if certificates.status == ConditionStatus::False {
        return not(&format!("certificates: {}", certificates.message));
    }
    if let Some(why) = etcd::lost_majority(observed) {
        let what = why.split(". ").next().unwrap_or_default();
        return not(&format!(
            "{what}: see {}",
            condition_type::ETCD_CLUSTER_HEALTHY
        ));
    }
    if let Some((reason, mut message)) = unseen(observed, now) {
        if reason == common::CONNECTION_DOWN {
            message.push_str(&way_out(observed));
        }
        return Report::unknown(type_, common::AVAILABLE_UNKNOWN).with_message(message);
    }
    let unsure = (certificates.status == ConditionStatus::Unknown).then(|| {
        Report::unknown(type_, common::AVAILABLE_UNKNOWN)
            .with_message(format!("certificates: {}", certificates.message))
    });
    if !observed.connected {
        return unsure
            .or_else(|| stored(observed, type_))
            .unwrap_or_else(|| Report::unknown(type_, common::AVAILABLE_UNKNOWN));
    }
    if observed.has_datastore()
        && let Some(report) = datastore(observed, looks, now)
    {
        return report;
    }
    if !looks
        .iter()
        .any(|look| health::is_healthy(&look.conditions) == Some(true))
    {
        return not("no machine has all its components healthy");
    }
    unsure.unwrap_or_else(|| Report::yes(type_, common::AVAILABLE))
}

/// What a person does about a cluster that does not answer. A health check gives nothing up meanwhile: it cannot see either.
fn way_out(observed: &Observed) -> String {
    let names: Vec<&str> = observed.members.iter().map(Member::name).collect();
    let cluster = observed.cluster.found();
    let endpoint = cluster.and_then(|cluster| cluster.spec.control_plane_endpoint.as_ref());
    let endpoint = endpoint.map_or_else(String::new, |endpoint| {
        format!(" at {}:{}", endpoint.host, endpoint.port)
    });
    let for_good = if observed.has_datastore() {
        let again = etcd::start_again(observed);
        format!("; or, when all are lost for good, {again}")
    } else {
        String::new()
    };
    format!(
        ". Nothing is changed until it answers: see whether an API server can be reached{endpoint}, and if the machine that it runs \
         on is broken, bring it back ({}){for_good}",
        names.join(", ")
    )
}

/// What stands against it in etcd.
fn datastore(observed: &Observed, looks: &[Look<'_>], now: Timestamp) -> Option<Report> {
    let type_ = condition_type::AVAILABLE;
    let not = |message: String| Report::no(type_, common::NOT_AVAILABLE).with_message(message);
    let view = match &observed.etcd {
        Lookup::Found(view) => view,
        Lookup::Missing | Lookup::Unknown(_) => {
            let why = match &observed.etcd {
                Lookup::Unknown(why) => format!("no etcd member answers: {why}"),
                _ => "the etcd members have not been asked yet".to_owned(),
            };
            let is_coming_up = initialized_since(observed)
                .is_none_or(|since| now.duration_since(since) <= COMING_UP);
            return Some(if is_coming_up {
                not(why)
            } else {
                Report::unknown(type_, common::INSPECTION_FAILED).with_message(why)
            });
        }
    };
    let is_healthy = |look: &&Look<'_>| {
        look.member.datastore.is_some()
            && look.conditions.iter().any(|report| {
                report.type_ == condition_type::ETCD_MEMBER_HEALTHY
                    && report.status == ConditionStatus::True
            })
    };
    let healthy = looks.iter().filter(is_healthy).count();
    let members = view
        .members
        .iter()
        .filter(|member| !member.is_learner)
        .count();
    let quorum = members.checked_div(2).unwrap_or_default().saturating_add(1);
    if healthy < quorum {
        return Some(not(format!(
            "{healthy} of {members} etcd members are healthy, {quorum} are needed"
        )));
    }
    mismatch(observed, view, now).map(not)
}

/// What does not belong together: a member without a machine, or a machine without a member, for longer than joining and leaving take.
fn mismatch(observed: &Observed, view: &etcd::View, now: Timestamp) -> Option<String> {
    let is_changing = observed.members.iter().any(Member::is_deleting);
    if let Some(orphan) = etcd::orphans(observed, view).first()
        && !is_changing
    {
        let name = match orphan.name.as_str() {
            "" => "(not started)",
            name => name,
        };
        return Some(format!("the etcd member {name} has no Machine"));
    }
    let lacks = |member: &&Member| {
        member.datastore.is_some()
            && !member.is_deleting()
            && !is_joining(member, now)
            && member
                .node_name()
                .is_some_and(|node| view.member(node).is_none())
    };
    let machine = observed.members.iter().find(lacks)?;
    Some(format!("Machine {} has no etcd member", machine.name()))
}

/// Whether a machine's Node is so young that its member may not be there yet.
fn is_joining(member: &Member, now: Timestamp) -> bool {
    let created = member.node.found().and_then(|node| {
        let text = node.pointer("/metadata/creationTimestamp")?;
        text.as_str()?.parse::<Timestamp>().ok()
    });
    created.is_some_and(|created| now.duration_since(created) < JOINING)
}

/// When the status first said that the control plane is initialized.
fn initialized_since(observed: &Observed) -> Option<Timestamp> {
    let said = condition::read(&observed.object, condition_type::INITIALIZED)?;
    (said.status == "True").then_some(said.last_transition_time.0)
}
