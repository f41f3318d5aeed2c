//! Who is a member of a light cluster's etcd, who leads, and whether there is a majority: what matters of etcd to those who manage it.

pub(crate) mod asked;
pub(crate) mod message;
pub(crate) mod port;
pub(crate) mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::asked::Asked;
use self::port::Port;

/// The etcd of one cluster. Without members there is none to look after (it is elsewhere), and it always works.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Membership {
    /// Of the cluster.
    pub(crate) cluster_id: u64,
    /// By ID.
    pub(crate) members: BTreeMap<u64, Member>,
    /// Alarms by member and number: 1 is no space, 2 corrupt. They outlive their members.
    pub(crate) alarms: BTreeSet<(u64, i32)>,
    /// Who led last.
    leader: u64,
    /// What was refused.
    #[serde(skip)]
    pub(crate) asked: Asked,
}

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Member {
    /// The Node's name.
    pub(crate) name: String,
    /// The machine that it runs on.
    pub(crate) instance: String,
    /// It does not vote yet.
    pub(crate) is_learner: bool,
    /// Where the others are to find it; empty where its name says it.
    pub(crate) peer_url: String,
}

impl Member {
    /// Where the others find it.
    pub(crate) fn peer_url(&self) -> String {
        if self.peer_url.is_empty() {
            peer_url_of(&self.name)
        } else {
            self.peer_url.clone()
        }
    }
}

fn peer_url_of(name: &str) -> String {
    format!("https://{name}:2380")
}

/// Why an API server cannot use its etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Nothing can be agreed on, or it is not there.
    NoMajority,
    /// A member has no space: nobody may write.
    NoSpace,
}

impl Unusable {
    /// In etcd's words.
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::NoMajority => NO_MAJORITY.message,
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
        }
    }
}

/// The number of the alarm of a member without space.
const ALARM_NO_SPACE: i32 = 1;

/// As many members without a vote as there may be (etcd's default).
const LEARNERS_MAX: usize = 1;

/// Instances on which an etcd runs.
pub(crate) type Running = BTreeSet<String>;

/// A refusal, as gRPC has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Of gRPC.
    pub(crate) code: u32,
    /// In etcd's words.
    pub(crate) message: &'static str,
}

const fn refusal(code: u32, message: &'static str) -> Refusal {
    Refusal { code, message }
}

/// The member that was asked does not lead.
pub(crate) const NOT_LEADER: Refusal = refusal(9, "etcdserver: not leader");
/// The member that is to lead cannot.
pub(crate) const BAD_TRANSFEREE: Refusal = refusal(9, "etcdserver: bad leader transferee");
/// There is no such member.
pub(crate) const NO_MEMBER: Refusal = refusal(5, "etcdserver: member not found");
/// Without the member there would be no majority of those that run.
pub(crate) const NOT_ENOUGH: Refusal = refusal(14, "etcdserver: unhealthy cluster");
/// Nothing can be agreed on.
pub(crate) const NO_MAJORITY: Refusal = refusal(14, "etcdserver: request timed out");
/// A learner cannot get its vote yet.
pub(crate) const NOT_IN_SYNC: Refusal = refusal(
    9,
    "etcdserver: can only promote a learner member which is in sync with leader",
);
/// A member has its vote already.
pub(crate) const NOT_LEARNER: Refusal = refusal(9, "etcdserver: can only promote a learner member");
/// There is a learner already.
pub(crate) const TOO_MANY_LEARNERS: Refusal =
    refusal(9, "etcdserver: too many learner members in cluster");
/// Another member is found there.
pub(crate) const PEER_EXISTS: Refusal = refusal(9, "etcdserver: Peer URLs already exists");
/// What a member without a leader says of itself.
pub(crate) const NO_LEADER: &str = "etcdserver: no leader";

impl Membership {
    /// Adds a learner that is to be found there. It has no name until it starts. Not beside a voting member that does not answer.
    pub(crate) fn add(&mut self, running: &Running, peer_url: &str) -> Result<u64, Refusal> {
        if !self.has_majority(running) {
            return Err(NO_MAJORITY);
        }
        if self.voters(running).count() < self.voting() {
            return Err(NOT_ENOUGH);
        }
        if self.members.values().any(|m| m.peer_url() == peer_url) {
            return Err(PEER_EXISTS);
        }
        if self.members.values().filter(|m| m.is_learner).count() >= LEARNERS_MAX {
            return Err(TOO_MANY_LEARNERS);
        }
        if self.cluster_id == 0 {
            self.cluster_id = fresh_id();
        }
        let id = fresh_id();
        let member = Member {
            is_learner: true,
            peer_url: peer_url.to_owned(),
            ..Member::default()
        };
        self.members.insert(id, member);
        Ok(id)
    }

    /// Adds the machine as a learner, or finds it. Somebody may have added it for the machine.
    pub(crate) fn add_learner(
        &mut self,
        running: &Running,
        instance: &str,
        name: &str,
    ) -> Result<(), &'static str> {
        if self.id_of(instance).is_some() {
            return Ok(());
        }
        let peer_url = peer_url_of(name);
        let mut waiting = self.members.iter();
        let waiting =
            waiting.find(|(_, member)| member.name.is_empty() && member.peer_url == peer_url);
        let id = match waiting {
            Some((id, _)) => *id,
            None => {
                let added = self.add(running, &peer_url);
                added.map_err(|refusal| refusal.message)?
            }
        };
        if let Some(member) = self.members.get_mut(&id) {
            name.clone_into(&mut member.name);
            instance.clone_into(&mut member.instance);
        }
        Ok(())
    }

    /// Gives a member its vote, when it runs and has caught up.
    pub(crate) fn promote(
        &mut self,
        running: &Running,
        id: u64,
        is_starved: bool,
    ) -> Result<(), Refusal> {
        // The first one is a majority by itself.
        let is_stuck = self.voting() > 0 && !self.has_majority(running);
        let member = self.members.get_mut(&id).ok_or(NO_MEMBER)?;
        if is_stuck {
            return Err(NO_MAJORITY);
        }
        if !member.is_learner {
            return Err(NOT_LEARNER);
        }
        if is_starved || !running.contains(&member.instance) {
            return Err(NOT_IN_SYNC);
        }
        member.is_learner = false;
        Ok(())
    }

    /// Gives the machine's member its vote, unless it has it.
    pub(crate) fn promote_on(
        &mut self,
        running: &Running,
        instance: &str,
        is_starved: bool,
    ) -> Result<(), &'static str> {
        let id = self.id_of(instance).ok_or(NO_MEMBER.message)?;
        if self.members.get(&id).is_some_and(|m| !m.is_learner) {
            return Ok(());
        }
        let promoted = self.promote(running, id, is_starved);
        promoted.map_err(|refusal| refusal.message)
    }

    /// Whether all members run that have started once.
    pub(crate) fn all_run(&self, running: &Running) -> Result<(), &'static str> {
        let mut members = self.members.values().filter(|m| !m.name.is_empty());
        if members.all(|member| running.contains(&member.instance)) {
            Ok(())
        } else {
            Err("a member of etcd does not answer: context deadline exceeded")
        }
    }

    /// The machine's member has no space, or has it again.
    pub(crate) fn set_no_space(&mut self, instance: &str, is_full: bool) {
        if let Some(id) = self.id_of(instance) {
            let alarm = (id, ALARM_NO_SPACE);
            if is_full {
                self.alarms.insert(alarm);
            } else {
                self.alarms.remove(&alarm);
            }
        }
    }

    /// Whether anybody has no space: then nobody may write.
    pub(crate) fn has_no_space(&self) -> bool {
        self.alarms
            .iter()
            .any(|(_, alarm)| *alarm == ALARM_NO_SPACE)
    }

    /// The member of a machine.
    pub(crate) fn id_of(&self, instance: &str) -> Option<u64> {
        let mut members = self.members.iter();
        members
            .find(|(_, member)| member.instance == instance)
            .map(|(id, _)| *id)
    }

    fn voters<'a>(&'a self, running: &'a Running) -> impl Iterator<Item = u64> + 'a {
        let voting = self
            .members
            .iter()
            .filter(|(_, member)| !member.is_learner && running.contains(&member.instance));
        voting.map(|(id, _)| *id)
    }

    fn voting(&self) -> usize {
        self.members.values().filter(|m| !m.is_learner).count()
    }

    /// Whether more than half of those who vote run.
    pub(crate) fn has_majority(&self, running: &Running) -> bool {
        let voting = self.voting();
        voting == 0 || self.voters(running).count() > voting.div_euclid(2)
    }

    /// Who leads; 0 when nobody does. Elects when the last leader does not run any more.
    pub(crate) fn leader(&mut self, running: &Running) -> u64 {
        if !self.has_majority(running) {
            return 0;
        }
        if !self.voters(running).any(|id| id == self.leader) {
            let next = self.voters(running).next();
            self.leader = next.unwrap_or_default();
        }
        self.leader
    }

    /// Moves the leadership, asked of `at`.
    pub(crate) fn move_leader(
        &mut self,
        running: &Running,
        at: u64,
        to: u64,
    ) -> Result<(), Refusal> {
        if self.leader(running) != at {
            return Err(NOT_LEADER);
        }
        if !self.voters(running).any(|id| id == to) {
            return Err(BAD_TRANSFEREE);
        }
        self.leader = to;
        Ok(())
    }

    /// Removes a member for this client, unless that would leave no majority. What it should have known is noted.
    pub(crate) fn remove(
        &mut self,
        running: &Running,
        asker: &str,
        id: u64,
    ) -> Result<Member, Refusal> {
        let removed = self.try_remove(running, id);
        if matches!(removed, Err(NOT_ENOUGH | NO_MAJORITY))
            && let Some(member) = self.members.get(&id)
        {
            self.asked.refused(asker, &member.name);
        }
        removed
    }

    fn try_remove(&mut self, running: &Running, id: u64) -> Result<Member, Refusal> {
        if self.leader(running) == 0 {
            return Err(NO_MAJORITY);
        }
        let member = self.members.get(&id).ok_or(NO_MEMBER)?;
        if !member.is_learner {
            let left = self.voting().saturating_sub(1);
            let started = self.voters(running).filter(|other| *other != id).count();
            if started <= left.div_euclid(2) {
                return Err(NOT_ENOUGH);
            }
        }
        self.members.remove(&id).ok_or(NO_MEMBER)
    }
}

/// IDs are random, and never 0.
fn fresh_id() -> u64 {
    rand::random::<u64>().max(1)
}

/// The etcd that runs on one machine. Dropping it closes its port and ends its connections.
pub(crate) struct Etcd {
    _port: Port,
    own: Arc<rustls::ServerConfig>,
    /// Instead of its own, by a fault.
    other: Option<Arc<rustls::ServerConfig>>,
    stop: watch::Sender<()>,
}

impl Etcd {
    /// Runs with this TLS configuration.
    pub(crate) fn new(port: Port, tls: Arc<rustls::ServerConfig>) -> Self {
        Self {
            _port: port,
            own: tls,
            other: None,
            stop: watch::Sender::new(()),
        }
    }

    /// How it is served.
    pub(crate) fn tls(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(self.other.as_ref().unwrap_or(&self.own))
    }

    /// Serves with another configuration, or with its own one again. Every connection ends.
    pub(crate) fn serve_as(&mut self, other: Option<Arc<rustls::ServerConfig>>) {
        self.other = other;
        self.stop = watch::Sender::new(());
    }

    /// Its own configuration on a machine whose clock is behind: no certificate is valid yet.
    pub(crate) fn behind(&self) -> Arc<rustls::ServerConfig> {
        let mut tls = rustls::ServerConfig::clone(&self.own);
        tls.time_provider = Arc::new(Behind);
        Arc::new(tls)
    }

    /// Becomes an error when it ends.
    pub(crate) fn stopped(&self) -> watch::Receiver<()> {
        self.stop.subscribe()
    }
}

/// The clock of a machine whose battery is empty: it is 1970.
#[derive(Debug)]
struct Behind;

impl rustls::time_provider::TimeProvider for Behind {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Membership, Running) {
        let mut membership = Membership::default();
        let mut running = Running::new();
        for instance in ["i-1", "i-2", "i-3"] {
            membership
                .add_learner(&running, instance, &format!("node-{instance}"))
                .unwrap();
            running.insert(instance.to_owned());
            membership.promote_on(&running, instance, false).unwrap();
        }
        (membership, running)
    }

    #[test]
    fn a_learner_does_not_count_until_it_is_promoted() {
        let (mut membership, mut running) = three();
        for _ in 0..2 {
            membership.add_learner(&running, "i-4", "node-4").unwrap();
        }
        assert_eq!(
            membership.add_learner(&running, "i-5", "node-5"),
            Err(TOO_MANY_LEARNERS.message)
        );
        assert_eq!(membership.members.len(), 4);
        assert_eq!(membership.voting(), 3);
        assert!(membership.has_majority(&running));
        running.insert("i-4".to_owned());
        assert_eq!(
            membership.promote_on(&running, "i-4", true),
            Err(NOT_IN_SYNC.message),
            "it has not caught up"
        );
        membership.promote_on(&running, "i-4", false).unwrap();
        membership.promote_on(&running, "i-4", false).unwrap();
        assert_eq!(membership.voting(), 4);
    }

    #[test]
    fn a_machine_takes_the_place_that_was_made_for_it() {
        let (mut membership, mut running) = three();
        let id = membership.add(&running, "https://node-4:2380").unwrap();
        assert_eq!(
            membership.add(&running, "https://node-4:2380"),
            Err(PEER_EXISTS)
        );
        assert_eq!(
            membership.add(&running, "https://node-5:2380"),
            Err(TOO_MANY_LEARNERS)
        );
        assert_eq!(membership.promote(&running, id, false), Err(NOT_IN_SYNC));
        assert_eq!(membership.all_run(&running), Ok(()), "it was never there");
        membership.add_learner(&running, "i-4", "node-4").unwrap();
        assert_eq!(membership.id_of("i-4"), Some(id));
        running.insert("i-4".to_owned());
        assert_eq!(membership.promote(&running, id, false), Ok(()));
        assert_eq!(membership.promote(&running, id, false), Err(NOT_LEARNER));
        assert_eq!(membership.promote(&running, 7, false), Err(NO_MEMBER));
    }

    #[test]
    fn nobody_is_added_or_promoted_where_nothing_can_be_agreed_on() {
        let (mut membership, mut running) = three();
        let id = membership.add(&running, "https://node-4:2380").unwrap();
        running.pop_first();
        assert_eq!(
            membership.add(&running, "https://node-5:2380"),
            Err(NOT_ENOUGH)
        );
        running.pop_first();
        assert_eq!(
            membership.add(&running, "https://node-5:2380"),
            Err(NO_MAJORITY)
        );
        assert_eq!(membership.promote(&running, id, false), Err(NO_MAJORITY));
    }

    #[test]
    fn an_alarm_outlives_its_member() {
        let (mut membership, running) = three();
        let leader = membership.leader(&running);
        let (id, member) = membership
            .members
            .iter()
            .find(|(id, _)| **id != leader)
            .map(|(id, member)| (*id, member.clone()))
            .unwrap();
        membership.set_no_space(&member.instance, true);
        assert!(membership.has_no_space());
        membership.remove(&running, "host", id).unwrap();
        assert!(membership.has_no_space());
    }

    #[test]
    fn a_leader_that_does_not_run_is_replaced_while_there_is_a_majority() {
        let (mut membership, mut running) = three();
        let leader = membership.leader(&running);
        let instance = membership.members[&leader].instance.clone();
        running.remove(&instance);
        let next = membership.leader(&running);
        assert!(next != 0 && next != leader);
        running.pop_first();
        assert_eq!(membership.leader(&running), 0);
        assert_eq!(
            membership.remove(&running, "host", leader),
            Err(NO_MAJORITY)
        );
    }

    #[test]
    fn a_removal_that_would_cost_the_majority_is_refused() {
        let (mut membership, mut running) = three();
        let leader = membership.leader(&running);
        let dead = *membership.members.keys().find(|id| **id != leader).unwrap();
        running.remove(&membership.members[&dead].instance);
        let alive = *membership
            .members
            .keys()
            .find(|id| **id != leader && **id != dead)
            .unwrap();
        assert_eq!(membership.remove(&running, "host", alive), Err(NOT_ENOUGH));
        let refused = membership.asked.refusals();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].member, membership.members[&alive].name);
        assert!(membership.all_run(&running).is_err());
        assert!(membership.remove(&running, "host", dead).is_ok());
        assert_eq!(membership.all_run(&running), Ok(()));
        assert_eq!(membership.remove(&running, "host", dead), Err(NO_MEMBER));
        assert_eq!(membership.asked.refusals().len(), 1, "gone is no refusal");
        assert!(membership.remove(&running, "host", leader).is_ok());
        assert_eq!(membership.leader(&running), alive);
    }
}
