//! How a machine leaves a control plane: its etcd member hands over the leadership and is removed first, and never below a majority.

use capstan_api::annotation;
use capstan_api::condition::{self as conditions, ConditionStatus};
use capstan_api::name::Version;
use capstan_api::reason::{condition_type, machine as machine_reason};
use jiff::Timestamp;

use super::etcd::{self, EtcdMember, View, Votes};
use super::{Member, Observed, Step, health, snapshot, sync};
use crate::lookup::Lookup;

/// What is done about members that leave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leaving {
    /// In order.
    pub steps: Vec<Step>,
    /// What is waited for, or what stood in the way of the steps until now.
    pub wait: Option<String>,
}

impl Leaving {
    fn steps(steps: Vec<Step>) -> Self {
        Self { steps, wait: None }
    }

    pub(super) fn wait(why: impl Into<String>) -> Self {
        Self {
            steps: Vec::new(),
            wait: Some(why.into()),
        }
    }
}

/// What is done next: a member without a machine is taken out before a machine goes.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Leaving {
    if let Some(step) = end_alarm(observed).or_else(|| snapshot::note(observed)) {
        return Leaving::steps(vec![step]);
    }
    let (orphan, hook) = (orphan(observed, now), hook(observed, now));
    if !orphan.steps.is_empty() {
        return orphan;
    }
    if !hook.steps.is_empty() {
        return hook;
    }
    Leaving {
        steps: Vec::new(),
        wait: hook.wait.or(orphan.wait),
    }
}

/// Ends what is left of a member that is gone: with an alarm of it, etcd would take no writes for ever.
fn end_alarm(observed: &Observed) -> Option<Step> {
    let view = observed.etcd.found().filter(|view| view.has_quorum)?;
    if !observed.has_datastore() || !observed.foreign.is_empty() {
        return None;
    }
    let alarm = view.stale_alarms.first()?;
    Some(Step::EndAlarm {
        alarm: alarm.clone(),
        through: etcd::addresses(observed, ""),
    })
}

/// Lets the machine go that was deleted first and waits for nothing else (contract 3.10 step 9). One that must stay keeps no other from
/// going: what it waits for may be that the other is gone.
#[must_use]
pub fn hook(observed: &Observed, now: Timestamp) -> Leaving {
    let mut deleting: Vec<&Member> = observed
        .members
        .iter()
        .filter(|member| member.is_deleting() && member.has_hook())
        .collect();
    deleting.sort_by_key(|member| {
        let metadata = &member.machine.metadata;
        (
            metadata.deletion_timestamp.as_ref().map(|time| time.0),
            member.name().to_owned(),
        )
    });
    let mut wait = None;
    for member in deleting {
        let leaving = hook_of(observed, member, now);
        if !leaving.steps.is_empty() {
            return leaving;
        }
        wait = wait.or(leaving.wait);
    }
    Leaving {
        steps: Vec::new(),
        wait,
    }
}

/// Whether somebody deleted all machines, of several: each would wait for another to stay.
#[must_use]
pub fn none_stays(observed: &Observed) -> bool {
    observed.members.len() > 1 && observed.members.iter().all(Member::is_deleting)
}

/// Whether a machine is deleted, waits for nothing but its member to be removed, and etcd cannot do without it.
#[must_use]
pub fn is_held(observed: &Observed, member: &Member) -> bool {
    member.is_deleting()
        && member.has_hook()
        && waits_for_hook(member)
        && danger_of(observed, member).is_some()
}

fn hook_of(observed: &Observed, member: &Member, now: Timestamp) -> Leaving {
    let drop_hook = || Leaving::steps(vec![sync::drop_hook(member)]);
    // The last one takes its etcd with it. Of several there is a cluster, also when the status does not say so (any more).
    if observed.members.len() == 1 {
        return drop_hook();
    }
    if !waits_for_hook(member) {
        return Leaving::default();
    }
    if let Some(other) = other_hook(member) {
        return Leaving::wait(format!(
            "Machine {}: the hook {other} comes first",
            member.name()
        ));
    }
    let others_well = observed.members.iter().any(|other| {
        !other.is_deleting()
            && health::is_healthy(&health::machine_conditions(observed, other, now)) == Some(true)
    });
    if !others_well {
        return Leaving::wait(format!(
            "Machine {} stays: no other machine has all its components healthy. Bring one of them back",
            member.name()
        ));
    }
    if member.datastore.is_none() {
        return drop_hook();
    }
    let view = match &observed.etcd {
        Lookup::Found(view) => view,
        Lookup::Missing => return Leaving::wait("etcd was not looked at"),
        Lookup::Unknown(why) => {
            return Leaving::wait(format!(
                "Machine {} stays: no etcd member answers: {why}. If that stays so, bring one of the machines back",
                member.name()
            ));
        }
    };
    let Some(found) = etcd::member_of(observed, view, member) else {
        return drop_hook();
    };
    if let Some(why) = danger(observed, view, found) {
        return Leaving::wait(format!(
            "Machine {} stays: {why}. Bring one back whose member is not healthy",
            member.name()
        ));
    }
    let first = match hand_over(observed, member, now) {
        HandOver::No => None,
        HandOver::Do(step) => Some(step),
        HandOver::Nobody => {
            return Leaving::wait(format!(
                "Machine {} stays: it leads etcd, and no other member can take over",
                member.name()
            ));
        }
    };
    if let Some(before) = snapshot::before_removal(observed, found, now) {
        return before;
    }
    let mut steps = Vec::from_iter(first);
    steps.push(remove(observed, found));
    steps.push(sync::drop_hook(member));
    Leaving::steps(steps)
}

/// Removes a member that no machine stands behind any more (contract 3.10 step 8). One that never started has no vote to lose.
#[must_use]
pub fn orphan(observed: &Observed, now: Timestamp) -> Leaving {
    let Lookup::Found(view) = &observed.etcd else {
        return Leaving::default();
    };
    if !observed.has_datastore() || !observed.foreign.is_empty() {
        return Leaving::default();
    }
    let orphans = etcd::orphans(observed, view);
    let Some(first) = orphans.first() else {
        return Leaving::default();
    };
    if !view.has_quorum {
        return Leaving::wait("etcd has no leader: no member is removed");
    }
    if !first.name.is_empty()
        && let Some(why) = danger(observed, view, first)
    {
        return Leaving::wait(format!(
            "the etcd member {} has no Machine and stays: {why}. Bring back one that is not healthy; or, when this one is gone for good, run \
             `etcdctl member remove {:x}` in the Pod of a healthy one",
            first.name, first.id
        ));
    }
    snapshot::before_removal(observed, first, now)
        .unwrap_or_else(|| Leaving::steps(vec![remove(observed, first)]))
}

/// Why a member must not be removed.
fn danger(observed: &Observed, view: &View, member: &EtcdMember) -> Option<String> {
    if !view.has_quorum {
        return Some("etcd has no leader".to_owned());
    }
    // One without a vote has none to lose.
    if member.is_learner || member.name.is_empty() {
        return None;
    }
    let votes = Votes::without(observed, view, Some(member.id));
    (!votes.is_safe()).then(|| votes.danger())
}

/// Why the machine's member of etcd must not go; `None` when it may, or when there is none.
#[must_use]
pub fn danger_of(observed: &Observed, member: &Member) -> Option<String> {
    if !observed.has_datastore() {
        return None;
    }
    let view = match &observed.etcd {
        Lookup::Found(view) => view,
        Lookup::Missing => return Some("etcd was not looked at".to_owned()),
        Lookup::Unknown(why) => return Some(format!("no etcd member answers: {why}")),
    };
    let own = member.node_name().and_then(|name| view.member(name));
    // A machine whose member is not known by its Node's name may have added itself, and not have started, or not have caught up: it
    // has no vote to lose.
    let is_known = |name: &str| {
        let mut machines = observed.members.iter();
        machines.any(|machine| machine.node_name() == Some(name))
    };
    let own = own.or_else(|| {
        view.members
            .iter()
            .find(|other| (other.name.is_empty() || other.is_learner) && !is_known(&other.name))
    });
    match own {
        Some(own) => danger(observed, view, own),
        None if !view.has_quorum => Some("etcd has no leader".to_owned()),
        None => {
            let votes = Votes::without(observed, view, None);
            (!votes.is_safe()).then(|| votes.danger())
        }
    }
}

fn remove(observed: &Observed, member: &EtcdMember) -> Step {
    Step::RemoveEtcdMember {
        id: member.id,
        name: member.name.clone(),
        through: etcd::addresses(observed, &member.name),
    }
}

/// Whether a member has to hand over the leadership.
#[derive(Clone, Debug, PartialEq)]
pub enum HandOver {
    /// It does not lead, or cannot be asked: then the others elect a leader when it is removed.
    No,
    /// By this step.
    Do(Step),
    /// There is nobody who could.
    Nobody,
}

/// Moves the leadership away from a machine that is to go: to the one that is best off and newest.
#[must_use]
pub fn hand_over(observed: &Observed, member: &Member, now: Timestamp) -> HandOver {
    let (Some(view), Some(name), Some(address)) =
        (observed.etcd.found(), member.node_name(), &member.etcd)
    else {
        return HandOver::No;
    };
    let leads = view.leader().filter(|leader| leader.name == name);
    // Only the leader itself can hand over, so one that does not answer is left out of it.
    if leads.is_none_or(|leader| leader.answer.found().is_none()) {
        return HandOver::No;
    }
    let candidates = observed.members.iter().filter_map(|other| {
        let found = view.member(other.node_name()?)?;
        let fits = !other.is_deleting()
            && other.name() != member.name()
            && !found.is_learner
            && found.answer.found().is_some();
        let is_well = etcd::condition(observed, other).status == ConditionStatus::True;
        let rank = (
            is_well,
            !other.is_unhealthy(),
            observed.outdated(other, now).is_empty(),
            other.created(),
        );
        fits.then_some((rank, found))
    });
    match candidates.max_by_key(|(rank, found)| (*rank, found.id)) {
        Some((_, to)) => HandOver::Do(Step::MoveLeader {
            from: address.clone(),
            to: to.id,
            to_name: to.name.clone(),
        }),
        None => HandOver::Nobody,
    }
}

fn conditions_of(member: &Member) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
    let status = member.machine.status.as_ref();
    status
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

fn waits_for_hook(member: &Member) -> bool {
    conditions::get(conditions_of(member), condition_type::DELETING)
        .is_some_and(|it| it.reason == machine_reason::WAITING_FOR_PRE_TERMINATE_HOOK)
}

/// The first minor version of Kubernetes whose kubelets need the machine's own API server.
const LAST_SINCE: (u64, u64) = (1, 31);

/// Whether ours is the last hook of the machine (contract 3.10 step 9): without its etcd member its API server does not work any more, and with
/// that no kubelet that knows no other.
fn is_last(member: &Member) -> bool {
    let version = member.machine.spec.version.as_deref().unwrap_or_default();
    Version::parse(version).map_or(true, |version| (version.major, version.minor) >= LAST_SINCE)
}

/// A hook of somebody else that comes before ours.
fn other_hook(member: &Member) -> Option<&str> {
    if !is_last(member) {
        return None;
    }
    let annotations = member.machine.metadata.annotations.as_ref()?;
    let mut names = annotations.keys().map(String::as_str);
    names.find(|name| {
        name.starts_with(annotation::PRE_TERMINATE_HOOK_PREFIX)
            && *name != annotation::KCP_CLEANUP_HOOK
    })
}
