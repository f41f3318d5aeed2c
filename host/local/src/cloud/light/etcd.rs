//! Who is a member of a light cluster's etcd, who leads, and whether there is a majority: what matters of etcd to those who manage it.

pub(crate) mod message;
pub(crate) mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The etcd of one cluster. Without members there is none to look after (it is elsewhere), and it always works.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Membership {
    /// Of the cluster.
    pub(crate) cluster_id: u64,
    /// By ID.
    pub(crate) members: BTreeMap<u64, Member>,
    /// Who led last.
    leader: u64,
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
    /// Alarms by number: 1 is no space, 2 corrupt.
    pub(crate) alarms: BTreeSet<i32>,
}

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
/// What a member without a leader says of itself.
pub(crate) const NO_LEADER: &str = "etcdserver: no leader";

impl Membership {
    /// Adds the machine as a learner, or finds it.
    pub(crate) fn add_learner(&mut self, instance: &str, name: &str) {
        if self.id_of(instance).is_some() {
            return;
        }
        if self.cluster_id == 0 {
            self.cluster_id = fresh_id();
        }
        let member = Member {
            name: name.to_owned(),
            instance: instance.to_owned(),
            is_learner: true,
            ..Member::default()
        };
        self.members.insert(fresh_id(), member);
    }

    /// The machine's member has caught up and votes.
    pub(crate) fn promote(&mut self, instance: &str) {
        for member in self.members.values_mut() {
            if member.instance == instance {
                member.is_learner = false;
            }
        }
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

    /// Removes a member unless that would leave no majority.
    pub(crate) fn remove(&mut self, running: &Running, id: u64) -> Result<Member, Refusal> {
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

/// The etcd that runs on one machine. Dropping it ends its connections.
pub(crate) struct Etcd {
    /// How it is served.
    pub(crate) tls: Arc<rustls::ServerConfig>,
    stop: watch::Sender<()>,
}

impl Etcd {
    /// Runs with this TLS configuration.
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Self {
        Self {
            tls,
            stop: watch::Sender::new(()),
        }
    }

    /// Becomes an error when it ends.
    pub(crate) fn stopped(&self) -> watch::Receiver<()> {
        self.stop.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Membership, Running) {
        let mut membership = Membership::default();
        let mut running = Running::new();
        for instance in ["i-1", "i-2", "i-3"] {
            membership.add_learner(instance, &format!("node-{instance}"));
            membership.promote(instance);
            running.insert(instance.to_owned());
        }
        (membership, running)
    }

    #[test]
    fn a_learner_does_not_count_until_it_is_promoted() {
        let (mut membership, running) = three();
        membership.add_learner("i-4", "node-4");
        membership.add_learner("i-4", "node-4");
        assert_eq!(membership.members.len(), 4);
        assert_eq!(membership.voting(), 3);
        assert!(membership.has_majority(&running));
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
        assert_eq!(membership.remove(&running, leader), Err(NO_MAJORITY));
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
        assert_eq!(membership.remove(&running, alive), Err(NOT_ENOUGH));
        assert!(membership.remove(&running, dead).is_ok());
        assert_eq!(membership.remove(&running, dead), Err(NO_MEMBER));
        assert!(membership.remove(&running, leader).is_ok());
        assert_eq!(membership.leader(&running), alive);
    }
}
