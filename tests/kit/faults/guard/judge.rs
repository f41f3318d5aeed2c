//! Judges what a guard sees, look by look: Machines that go or come, members that go, and what etcd refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use capstan_core::control_plane::etcd::View;
use serde_json::Value;

use crate::etcd::CLIENT;
use crate::faults::Known;
use crate::kube_client::name;

/// How long etcd must have been without a majority until no Machine may be made any more: what the host has seen of it may be as old as
/// that. Its requests to members that are slow take seconds.
const SETTLED: Duration = Duration::from_secs(15);

/// How old what the host decides by may be: it asks the plugin and all members in one look, and then acts. A Machine that it begins to delete within
/// that time of a break was chosen before; its member still leaves only when etcd can spare it.
const LOOK: Duration = Duration::from_secs(3);

/// How often a client must have been told the members since one of them stopped, so that what it asked for was no accident: the first
/// time may have been half before that.
const LISTS_MIN: u64 = 2;

/// A Machine as it was seen last.
#[derive(Clone)]
struct Machine {
    node: Option<String>,
    is_leaving: bool,
}

/// What was seen until now.
#[derive(Default)]
pub(super) struct Judge {
    /// By name; none before the first look.
    machines: Option<BTreeMap<String, Machine>>,
    /// The Node of each Machine that was ever seen.
    nodes: BTreeMap<String, String>,
    /// What was broken at the last look, and since when: what the host did since, it may have begun before more broke.
    broken: BTreeMap<String, Instant>,
    /// Etcd when it had a majority last.
    view: Option<View>,
    /// Since when it has none, as what is broken says.
    no_majority: Option<Instant>,
    /// Nodes whose members went away, until it is seen whether their Machines are live.
    gone: Vec<String>,
}

impl Judge {
    /// The Machines that there are now. A Machine that is gone between two looks was deleted.
    pub(super) fn machines(
        &mut self,
        machines: &[Value],
        known: &Known,
        now: Instant,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let seen: BTreeMap<String, Machine> = machines
            .iter()
            .map(|machine| {
                let node = machine["status"]["nodeRef"]["name"].as_str();
                let machine_now = Machine {
                    node: node.map(str::to_owned),
                    is_leaving: !machine["metadata"]["deletionTimestamp"].is_null(),
                };
                (name(machine), machine_now)
            })
            .collect();
        for (name, machine) in &seen {
            if let Some(node) = &machine.node {
                self.nodes.insert(name.clone(), node.clone());
            }
        }
        for machine in self.deleted(&seen) {
            let node = self.nodes.get(&machine);
            if let (Some(view), Some(node)) = (&self.view, node)
                && !stands_without(view, node, &self.broken_nodes(Some(now)))
            {
                wrong.push(format!(
                    "Machine {machine} was deleted although etcd needs its member"
                ));
            }
        }
        self.broken.retain(|name, _| known.broken.contains(name));
        for name in &known.broken {
            self.broken.entry(name.clone()).or_insert(now);
        }
        let broken = self.broken_nodes(None);
        let view = self.view.as_ref();
        let is_lost = view.is_some_and(|view| !stands_without(view, "", &broken));
        if !is_lost {
            self.no_majority = None;
        } else if now.duration_since(*self.no_majority.get_or_insert(now)) > SETTLED
            && let Some(before) = &self.machines
        {
            let new = seen.keys().filter(|machine| !before.contains_key(*machine));
            wrong.extend(new.map(|machine| {
                format!("Machine {machine} was made although etcd has no majority to let it join")
            }));
        }
        for node in std::mem::take(&mut self.gone) {
            let mut live = seen.iter().filter(|(_, machine)| !machine.is_leaving);
            if let Some((machine, _)) = live.find(|(_, m)| m.node.as_ref() == Some(&node))
                && !known.excused.contains(machine)
            {
                wrong.push(format!(
                    "the member of the live Machine {machine} went away"
                ));
            }
        }
        self.machines = Some(seen);
        wrong
    }

    /// Machines that were live at the last look, and are deleted or gone now.
    fn deleted(&self, now: &BTreeMap<String, Machine>) -> Vec<String> {
        let before = self.machines.iter().flatten();
        let live = before.filter(|(_, machine)| !machine.is_leaving);
        let deleted = live.filter(|(name, _)| {
            let still = now.get(*name);
            still.is_none_or(|machine| machine.is_leaving)
        });
        deleted.map(|(name, _)| name.clone()).collect()
    }

    /// Nodes of what is broken; with a time, of what the host must have known of by then.
    fn broken_nodes(&self, now: Option<Instant>) -> BTreeSet<String> {
        let is_known = |since: &Instant| now.is_none_or(|now| now.duration_since(*since) > LOOK);
        let broken = self.broken.iter().filter(|(_, since)| is_known(since));
        let nodes = broken.filter_map(|(name, _)| self.nodes.get(name));
        nodes.cloned().collect()
    }

    /// What etcd says of itself now.
    pub(super) fn etcd(&mut self, view: View, known: &Known) -> Vec<String> {
        if !view.has_quorum {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        if let Some(last) = &self.view {
            let broken = self.broken_nodes(None);
            let gone = last
                .members
                .iter()
                .filter(|member| view.member(&member.name).is_none() && !member.name.is_empty());
            for member in gone {
                // A fault takes members as it likes: etcd itself lets it take none that is needed.
                let machine = self.nodes.iter().find(|(_, node)| **node == member.name);
                let is_taken = machine.is_some_and(|(name, _)| known.taken.contains(name));
                if !member.is_learner && !is_taken && !stands_without(last, &member.name, &broken) {
                    wrong.push(format!(
                        "the member {} was removed although etcd needs it",
                        member.name
                    ));
                }
                self.gone.push(member.name.clone());
            }
        }
        self.view = Some(view);
        wrong
    }

    /// What the etcds of the cloud refused, of all clusters and since they were made.
    pub(super) fn refusals(&self, refusals: &[Value]) -> Vec<String> {
        let mine = refusals.iter().filter(|refusal| {
            let member = refusal["member"].as_str().unwrap_or_default();
            let knew = refusal["lists"].as_u64().is_none_or(|n| n >= LISTS_MIN);
            knew && refusal["asker"] != CLIENT && self.nodes.values().any(|node| node == member)
        });
        let wrong = mine.map(|refusal| {
            format!(
                "{} asked etcd to remove the member {} without which it has no majority, and knew",
                refusal["asker"], refusal["member"]
            )
        });
        wrong.collect()
    }
}

/// Whether a majority of the members is left and works without this one (`""`: without none). What is broken is known here, and need not be asked.
fn stands_without(view: &View, node: &str, broken: &BTreeSet<String>) -> bool {
    let others = || {
        view.members
            .iter()
            .filter(|m| m.name != node && !m.is_learner)
    };
    let working = others().filter(|m| !broken.contains(&m.name)).count();
    let voting = others().count();
    voting == 0 || working > voting / 2
}

#[cfg(test)]
mod tests;
