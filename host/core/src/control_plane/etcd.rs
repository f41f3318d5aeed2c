//! The members of a control plane's etcd, what they say, and which changes leave a majority.

use capstan_api::condition::{ConditionStatus, Report};
use capstan_api::name::ObjectKey;
use capstan_api::reason::{common, condition_type, kubeadm};

pub use self::recovery::{lost_majority, lost_majority_of, silence, start_again};
use super::{Member, Observed};
use crate::lookup::Lookup;

mod recovery;

/// Where a member of etcd answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name of the member: that of its Node.
    pub name: String,
    /// Its pod.
    pub pod: ObjectKey,
    /// Its port for clients.
    pub port: u16,
}

/// What the members say of each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// All members, as a majority knows them; without a majority, as one of them does.
    pub members: Vec<EtcdMember>,
    /// There is a leader, and the list is what a majority agrees on.
    pub has_quorum: bool,
    /// Alarms that members left behind which are in the list no more. They count like any other until they are ended.
    pub stale_alarms: Vec<Alarm>,
}

/// An alarm of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// ID of the member.
    pub member: u64,
    /// Its number in etcd's API.
    pub number: i32,
    /// Its name, such as `NOSPACE`.
    pub name: String,
}

/// The alarm of a member whose database has no room. While anybody has it, etcd takes no writes.
const NO_SPACE: &str = "NOSPACE";

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdMember {
    /// Its ID.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// It has no vote yet.
    pub is_learner: bool,
    /// It leads.
    pub is_leader: bool,
    /// Alarms, such as `NOSPACE`.
    pub alarms: Vec<String>,
    /// What it said itself.
    pub answer: Lookup<Answer>,
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Version of etcd.
    pub version: String,
    /// Size of its database.
    pub db_bytes: u64,
    /// How much of that holds anything; 0 when it does not say.
    pub db_in_use_bytes: u64,
    /// How large its database may become; 0 when it does not say, as before v3.6.
    pub db_quota_bytes: u64,
    /// How far it knows that everything was agreed on; 0 when it does not say. A lost majority leaves no more than that.
    pub raft_index: u64,
    /// What it complains about.
    pub errors: Vec<String>,
}

impl View {
    /// The member of this name. A member without a name has not started.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&EtcdMember> {
        self.members
            .iter()
            .find(|member| !name.is_empty() && member.name == name)
    }

    /// The member that knows most of what was agreed on: that with the highest raft index of all that vote and answer.
    #[must_use]
    pub fn furthest(&self) -> Option<&EtcdMember> {
        let voting = self.members.iter().filter(|member| !member.is_learner);
        let known = voting.filter_map(|member| {
            let index = member.answer.found()?.raft_index;
            (index > 0).then_some((index, member))
        });
        // Of two that know the same, always the same one.
        let furthest = known.max_by(|(index, member), (other_index, other)| {
            index.cmp(other_index).then(other.name.cmp(&member.name))
        });
        furthest.map(|(_, member)| member)
    }

    /// The leader.
    #[must_use]
    pub fn leader(&self) -> Option<&EtcdMember> {
        self.members.iter().find(|member| member.is_leader)
    }
}

/// The condition about a machine's member of etcd.
#[must_use]
pub fn condition(observed: &Observed, member: &Member) -> Report {
    let type_ = condition_type::ETCD_MEMBER_HEALTHY;
    let unknown = |why: &str| Report::unknown(type_, common::INSPECTION_FAILED).with_message(why);
    let not = |why: String| Report::no(type_, kubeadm::NOT_HEALTHY).with_message(why);
    let view = match &observed.etcd {
        Lookup::Found(view) => view,
        Lookup::Missing => return unknown("etcd was not looked at"),
        Lookup::Unknown(why) => return unknown(&format!("no etcd member answers: {why}")),
    };
    let name = member.node_name().unwrap_or_default();
    let Some(found) = view.member(name) else {
        return if member.is_deleting() {
            Report::no(type_, common::DELETING)
                .with_message("the member was removed because its Machine is being deleted")
        } else {
            not(format!("{name} is not a member of the etcd cluster"))
        };
    };
    if !found.alarms.is_empty() {
        let alarms = found.alarms.join(", ");
        return not(format!("alarms: {alarms}{}", remedies(&found.alarms)));
    }
    if found.is_learner {
        return not("the member is still a learner without a vote".to_owned());
    }
    if !view.has_quorum {
        return not("etcd has no leader".to_owned());
    }
    match &found.answer {
        Lookup::Found(answer) if answer.errors.is_empty() => {
            let report = Report::yes(type_, kubeadm::HEALTHY);
            let fragmented = answer
                .is_fragmented()
                .then(|| fragmented(answer, found, member.etcd.as_ref()));
            let told = [answer.nearly_full(), fragmented];
            let told: Vec<String> = told.into_iter().flatten().collect();
            report.with_message(told.join(". "))
        }
        Lookup::Found(answer) => not(format!("it reports: {}", answer.errors.join(", "))),
        Lookup::Missing => unknown("the member was not asked"),
        Lookup::Unknown(why) => unknown(&format!("the member does not answer: {why}")),
    }
}

/// What is said of a member that holds mostly nothing. Sizes are powers of two below the real ones: those change all the time.
fn fragmented(answer: &Answer, member: &EtcdMember, address: Option<&Address>) -> String {
    let mib = |bytes: u64| {
        let mib = (bytes >> 20).max(1);
        mib.checked_ilog2()
            .and_then(|log| 1_u64.checked_shl(log))
            .unwrap_or(mib)
    };
    let pod = address.map_or_else(String::new, |address| format!(" {}", address.pod));
    let order = if member.is_leader {
        "this member leads, so that it comes last"
    } else {
        "one member after the other, the leader last"
    };
    format!(
        "more than half of its database file is free space (at least {} MiB, in use at least {} MiB): run `etcdctl defrag` in its \
         Pod{pod}, {order}; the member does not answer meanwhile",
        mib(answer.db_bytes),
        mib(answer.db_in_use_bytes)
    )
}

/// What people do about alarms. The host does nothing: what fills a database, and what may be taken out of it, it cannot know.
fn remedies(alarms: &[String]) -> String {
    let texts = alarms.iter().map(|alarm| match alarm.as_str() {
        NO_SPACE => {
            ". The database has reached its quota and takes no writes: delete what fills it or raise --quota-backend-bytes, \
             run `etcdctl defrag` in the Pod of each member, then `etcdctl alarm disarm`"
        }
        "CORRUPT" => {
            ". Its data is not that of the others: delete its Machine, so that a new member takes its place, then run \
             `etcdctl alarm disarm` in the Pod of another"
        }
        _ => "",
    });
    texts.collect()
}

impl Answer {
    /// What is said before the database has reached its quota. From three quarters on: the rest is for who reads it to act in.
    fn nearly_full(&self) -> Option<String> {
        let limit = self.db_quota_bytes.div_euclid(4).saturating_mul(3);
        (limit > 0 && self.db_bytes >= limit).then(|| {
            format!(
                "its database has reached three quarters of its quota of {} MiB, and takes no writes when it reaches all of it: \
                 delete what fills it, defragment, or raise --quota-backend-bytes",
                self.db_quota_bytes >> 20
            )
        })
    }

    /// Whether it is worth to give space back: a small file is not.
    #[must_use]
    pub fn is_fragmented(&self) -> bool {
        /// etcd's quota is 2 GiB unless somebody raised it; an eighth of that is the first that matters.
        const BYTES_MIN: u64 = 256 << 20;
        self.db_in_use_bytes > 0
            && self.db_bytes >= BYTES_MIN
            && self.db_in_use_bytes.saturating_mul(2) < self.db_bytes
    }
}

/// Why nothing can be written in the cluster, and what to do: no machine can be drained or join in this state.
#[must_use]
pub fn takes_no_writes(observed: &Observed) -> Option<String> {
    let view = observed.etcd.found()?;
    let is_full = |member: &&EtcdMember| member.alarms.iter().any(|alarm| alarm == NO_SPACE);
    view.members.iter().find(is_full).map(|member| {
        format!(
            "etcd takes no writes: the member {} has no space{}",
            member.name,
            remedies(&[NO_SPACE.to_owned()])
        )
    })
}

/// Votes in etcd after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    /// Members with a vote.
    pub voting: usize,
    /// Those of them that are known to be well.
    pub healthy: usize,
    /// Members without a vote.
    pub learners: usize,
}

impl Votes {
    /// The votes as they are, without the member of this ID. What is not known to be well counts as not well; so does a member
    /// without a machine.
    #[must_use]
    pub fn without(observed: &Observed, view: &View, gone: Option<u64>) -> Self {
        let mut votes = Self::default();
        for member in view.members.iter().filter(|m| Some(m.id) != gone) {
            if member.is_learner || member.name.is_empty() {
                votes.learners = votes.learners.saturating_add(1);
                continue;
            }
            votes.voting = votes.voting.saturating_add(1);
            if is_well(observed, member) {
                votes.healthy = votes.healthy.saturating_add(1);
            }
        }
        votes
    }

    /// The same with one more member, which counts as not well until it is: the only one of a cluster is no risk to it.
    #[must_use]
    pub fn with_one_more(self) -> Self {
        let voting = self.voting.saturating_add(1);
        let healthy = if self.voting <= 1 {
            self.healthy.saturating_add(1)
        } else {
            self.healthy
        };
        Self {
            voting,
            healthy,
            ..self
        }
    }

    /// How many are needed to agree on anything.
    #[must_use]
    pub fn majority(self) -> usize {
        self.voting.div_euclid(2).saturating_add(1)
    }

    /// Whether etcd works with these votes for sure.
    #[must_use]
    pub fn is_safe(self) -> bool {
        self.voting > 0 && self.healthy >= self.majority() && self.learners == 0
    }

    /// Why it is not safe, for people.
    #[must_use]
    pub fn danger(self) -> String {
        if self.learners > 0 {
            return format!("{} etcd members have no vote yet", self.learners);
        }
        format!(
            "of {} voting etcd members {} would be known to be healthy, {} are needed for a majority",
            self.voting,
            self.healthy,
            self.majority()
        )
    }
}

fn is_well(observed: &Observed, member: &EtcdMember) -> bool {
    observed
        .members
        .iter()
        .filter(|machine| machine.node_name() == Some(member.name.as_str()))
        .any(|machine| condition(observed, machine).status == ConditionStatus::True)
}

/// Members that can be asked, those that answered first; without the one of this name.
#[must_use]
pub fn addresses(observed: &Observed, without: &str) -> Vec<Address> {
    let answers = |address: &Address| {
        observed.etcd.found().is_some_and(|view| {
            view.member(&address.name)
                .is_some_and(|member| member.answer.found().is_some())
        })
    };
    let known = observed.members.iter().filter_map(|m| m.etcd.as_ref());
    let mut addresses: Vec<Address> = known.filter(|a| a.name != without).cloned().collect();
    addresses.sort_by_key(|address| (!answers(address), address.name.clone()));
    addresses
}

/// The member of a machine: the one of its Node's name, or else the one that no machine has, where this is the only machine that has
/// none: it is known by no name before it has started, and its machine may have no Node yet.
#[must_use]
pub fn member_of<'a>(
    observed: &Observed,
    view: &'a View,
    member: &Member,
) -> Option<&'a EtcdMember> {
    let named = |machine: &Member| machine.node_name().and_then(|name| view.member(name));
    if let Some(own) = named(member) {
        return Some(own);
    }
    let mut machines = observed.members.iter();
    let is_alone = machines.all(|other| other.name() == member.name() || named(other).is_some());
    if !is_alone || !observed.foreign.is_empty() {
        return None;
    }
    let has_machine = |name: &str| {
        let mut machines = observed.members.iter();
        machines.any(|machine| machine.node_name() == Some(name))
    };
    let unknown = view.members.iter().filter(|own| !has_machine(&own.name));
    unknown.min_by_key(|own| (!own.name.is_empty(), !own.is_learner, own.id))
}

/// Members of etcd that no machine of the control plane stands behind, and that no machine that is on its way can be.
#[must_use]
pub fn orphans<'a>(observed: &'a Observed, view: &'a View) -> Vec<&'a EtcdMember> {
    if observed
        .members
        .iter()
        .any(|member| member.node_name().is_none())
    {
        return Vec::new();
    }
    let has_machine = |name: &str| {
        observed
            .members
            .iter()
            .any(|member| member.node_name() == Some(name))
    };
    // A member is known by no name until it has started, and the Node of its machine may be there before.
    let may_be_starting = observed.members.iter().any(|member| {
        member
            .node_name()
            .is_some_and(|name| view.member(name).is_none())
    });
    let is_starting = |member: &EtcdMember| member.name.is_empty() && may_be_starting;
    let orphans = view
        .members
        .iter()
        .filter(|member| !has_machine(&member.name) && !is_starting(member));
    orphans.collect()
}
