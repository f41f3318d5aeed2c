//! What people are told to do when more of etcd is lost than it can spare, or all of it.

use capstan_api::condition::{self, is_false};
use capstan_api::reason::condition_type;
use jiff::{SignedDuration, Timestamp};

use super::super::{Member, Observed};
use super::View;
use crate::lookup::Lookup;

/// What a person does when there is nothing left of a control plane. The authorities go with the Cluster, and what is in the snapshot
/// trusts no others.
#[must_use]
pub fn start_again(observed: &Observed) -> String {
    let cluster = observed.cluster.found();
    let cluster = cluster.and_then(|cluster| cluster.metadata.name.as_deref());
    let cluster = cluster.unwrap_or("CLUSTER");
    format!(
        "keep the Secrets {cluster}-ca, {cluster}-etcd, {cluster}-proxy and {cluster}-sa, delete the Cluster, put them back, make it again, \
         and restore the latest snapshot of etcd that you have: host/docs/etcd.md, \"Beginning again\""
    )
}

/// Members that elect a leader, or whose machines start again, answer before.
const SILENT: SignedDuration = SignedDuration::from_mins(3);

/// What is known of members when more are lost than a majority can spare.
struct Lost {
    /// What happened, and whether that is sure.
    what: String,
    /// What would bring the majority back without anybody's work on etcd.
    without_loss: String,
    /// With which member etcd goes on otherwise, and that all others stop first.
    stop: String,
}

impl Lost {
    /// What is told. Steps for people: no machine is touched in this state.
    fn text(&self) -> String {
        let Self {
            what,
            without_loss,
            stop,
        } = self;
        format!(
            "etcd {what}. Nothing is changed until it is back. To recover: {without_loss}; or, when they are lost for good, 1. {stop}, \
             2. save its data directory, start its etcd with --force-new-cluster, and once it answers again without: the flag must not \
             stay in its manifest, 3. delete the Machines of all others. The commands are in host/docs/etcd.md, \"A lost majority\""
        )
    }
}

/// What there is to say when more members are lost than a majority can spare; `None` while that is not known.
#[must_use]
pub fn lost_majority(observed: &Observed) -> Option<String> {
    match &observed.etcd {
        Lookup::Found(view) => lost_majority_of(view),
        Lookup::Missing | Lookup::Unknown(_) => unseen(observed),
    }
}

/// The same as some of the members say it.
#[must_use]
pub fn lost_majority_of(view: &View) -> Option<String> {
    let voting = view.members.iter().filter(|member| !member.is_learner);
    let (left, lost): (Vec<_>, Vec<_>) = voting.partition(|member| member.answer.found().is_some());
    let all = left.len().saturating_add(lost.len());
    // With a majority they are electing a leader.
    if view.has_quorum || !is_lost(lost.len(), all) {
        return None;
    }
    let names: Vec<&str> = lost.iter().map(|member| member.name.as_str()).collect();
    let stop = match view.furthest() {
        Some(furthest) => {
            let others = left.iter().filter(|member| member.id != furthest.id);
            let others: Vec<&str> = others.map(|member| member.name.as_str()).collect();
            let index = furthest
                .answer
                .found()
                .map_or(0, |answer| answer.raft_index);
            let others = if others.is_empty() {
                String::new()
            } else {
                format!(" ({} still answers)", others.join(", "))
            };
            format!(
                "go on with {}, whose raft index {index} is the highest, and stop etcd on all other machines first{others}",
                furthest.name
            )
        }
        None => stop_unseen("the machines that are left"),
    };
    let lost = Lost {
        what: gone(lost.len(), all, &names),
        without_loss: without_loss(lost.len(), all),
        stop,
    };
    Some(lost.text())
}

/// The same while nobody can be asked, by what is known of the machines and by what the API servers say.
fn unseen(observed: &Observed) -> Option<String> {
    let managed = observed.members.iter();
    let managed = managed.filter(|member| member.datastore.is_some());
    let (lost, left): (Vec<&Member>, Vec<&Member>) = managed.partition(|member| is_gone(member));
    let all = left.len().saturating_add(lost.len());
    let is_blind = !observed.connected && observed.was_initialized();
    let is_missed = servers_miss_etcd(observed);
    // API servers without their etcd start again and again: now and then one of them answers.
    let nobody_answers = matches!(observed.etcd, Lookup::Unknown(_));
    if is_lost(lost.len(), all) && (is_blind || is_missed || nobody_answers) {
        let told = Lost {
            what: gone(lost.len(), all, &names(&lost)),
            without_loss: without_loss(lost.len(), all),
            stop: match names(&left).as_slice() {
                [] => stop_unseen("the machines that are left"),
                [only] => format!("go on with {only}, and stop etcd on all other machines first"),
                many => stop_unseen(&many.join(", ")),
            },
        };
        return Some(told.text());
    }
    if !is_missed {
        return None;
    }
    let told = Lost {
        what: "may have lost its majority: its API servers answer that etcd does not; which members are gone cannot be seen from here, \
               and if all are well this passes within a minute"
            .to_owned(),
        without_loss: "bring back those that are gone".to_owned(),
        stop: stop_unseen("the machines that are left"),
    };
    Some(told.text())
}

/// What is said besides when nobody has answered for long: API servers without their etcd start again and again, and what answers now and
/// then is not enough to see who is lost.
#[must_use]
pub fn silence(observed: &Observed, now: Timestamp) -> Option<String> {
    let said = condition::read(&observed.object, condition_type::ETCD_CLUSTER_HEALTHY)?;
    let since = said.last_transition_time.0;
    let is_silent = matches!(observed.etcd, Lookup::Unknown(_))
        && said.status == "Unknown"
        && now.duration_since(since) >= SILENT;
    is_silent.then(|| {
        format!(
            "No member has answered for {} minutes. Where more of them are lost for good than a majority can spare: \
             host/docs/etcd.md, \"A lost majority\"",
            SILENT.as_mins()
        )
    })
}

fn names<'a>(members: &[&'a Member]) -> Vec<&'a str> {
    members.iter().map(|member| member.name()).collect()
}

fn is_lost(lost: usize, all: usize) -> bool {
    lost > 0 && lost.saturating_mul(2) >= all
}

fn gone(lost: usize, all: usize, names: &[&str]) -> String {
    format!(
        "has lost its majority: {lost} of {all} members are gone or do not answer ({})",
        names.join(", ")
    )
}

/// How many must come back.
fn without_loss(lost: usize, all: usize) -> String {
    let left = all.saturating_sub(lost);
    let majority = all.div_euclid(2).saturating_add(1);
    match majority.saturating_sub(left) {
        0 | 1 => "bring one of them back".to_owned(),
        many => format!("bring {many} of them back"),
    }
}

/// Which member has most cannot be seen from here.
fn stop_unseen(left: &str) -> String {
    format!(
        "go on with the one of {left} whose raft index is the highest in `etcdctl endpoint status`, and stop etcd on all other machines first"
    )
}

/// Whether API servers pass on what etcd says when it can agree on nothing.
fn servers_miss_etcd(observed: &Observed) -> bool {
    let said = match &observed.etcd {
        Lookup::Unknown(why) if observed.connected => Some(why),
        _ if observed.connected => None,
        _ => observed.connection_error.as_ref(),
    };
    observed.has_datastore() && said.is_some_and(|why| why.contains("etcdserver: "))
}

/// Whether a machine is known to be gone: its infrastructure was ready and is not any more.
fn is_gone(member: &Member) -> bool {
    let status = member.machine.status.as_ref();
    let conditions = status
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let was_provisioned = status
        .and_then(|status| status.initialization.as_ref())
        .and_then(|i| i.infrastructure_provisioned)
        == Some(true);
    was_provisioned
        && (member.infra.is_missing() || is_false(conditions, condition_type::INFRASTRUCTURE_READY))
}
