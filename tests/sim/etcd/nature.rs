//! What goes on by itself: elections, machines that boot, join and go, and a health check that gives some up.

use capstan_api::condition::{self, Report};

use super::world::{Body, Machine, World, set};

/// How long a machine is not well before its health check gives it up, in seconds.
const GIVEN_UP_AFTER: u64 = 300;
/// How long a machine may take to become a member.
const STARTUP_TIMEOUT: u64 = 1_200;

impl World {
    pub(super) fn elect(&mut self) {
        let working = self.etcd.members.iter().filter(|own| self.works(own));
        let working: Vec<u64> = working.map(|own| own.id).collect();
        let leader = self.etcd.elect(self.now, &working, &mut self.random);
        if let Some(leader) = leader {
            self.note(&format!("etcd: member {leader:x} leads"));
        }
    }

    /// What a machine does by itself.
    pub(super) fn live(&mut self, at: usize) {
        let now = self.now;
        let machine = &self.machines[at];
        let is_idle = match machine.body {
            Body::Boots(until) => until > now,
            Body::Up => machine.votes && machine.node,
            Body::Down | Body::Gone => true,
        };
        if is_idle && machine.deleted.is_none() {
            return;
        }
        let takes_writes = self.takes_writes();
        let has_learner = self.etcd.members.iter().any(|member| member.learner);
        let mut machine = self.machines[at].clone();
        let draws = (self.random.between(2, 30), self.random.between(5, 60));
        if machine.deleted.is_some() {
            self.go(&mut machine, draws);
        }
        match machine.body {
            Body::Boots(until) if until <= now => machine.body = Body::Up,
            Body::Up
                if machine.isolated_until <= now
                    && machine.member_off_until <= now
                    && machine.kubelet_dead_since.is_none()
                    && machine.deleted.is_none() =>
            {
                let is_due = machine.due.is_none_or(|due| due <= now);
                match self.etcd.of_mut(&machine.name) {
                    _ if !takes_writes || !is_due => {}
                    _ if !machine.node && (!machine.node_last || machine.votes) => {
                        machine.node = true;
                        machine.due = Some(now + draws.0);
                    }
                    // etcd takes one member at a time.
                    None if !machine.joined && !has_learner => {
                        self.etcd.add(&machine.name, false);
                        machine.joined = true;
                        machine.due = Some(now + draws.0);
                        self.note(&format!("etcd: {} joins", machine.name));
                    }
                    Some(member) if !member.started => {
                        member.started = true;
                        machine.due = Some(now + draws.1);
                    }
                    Some(member) if member.learner && !machine.is_stuck => {
                        member.learner = false;
                        machine.votes = true;
                        machine.due = Some(now + draws.0);
                        self.note(&format!("etcd: {} has a vote", machine.name));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        self.machines[at] = machine;
    }

    /// What becomes of a Machine that was deleted: it waits for its hook, then its infrastructure goes.
    fn go(&mut self, machine: &mut Machine, (soon, later): (u64, u64)) {
        let now = self.now;
        let waits = condition::is_true(&machine.conditions, "Deleting");
        let deleted = machine.deleted.unwrap_or(now);
        if machine.hook && !waits && deleted + soon <= now {
            let report = Report::yes("Deleting", "WaitingForPreTerminateHook");
            set(&mut machine.conditions, report, now);
            machine.due = None;
        } else if !machine.hook && machine.body != Body::Gone {
            let due = *machine.due.get_or_insert(now + later);
            if due <= now {
                machine.body = Body::Gone;
                self.note(&format!("cloud: {} is gone", machine.name));
            }
        }
    }

    /// What a health check says of a machine: it looks at Nodes, and at the condition about the member.
    pub(super) fn judge_health(&mut self, at: usize) {
        let machine = &self.machines[at];
        let own = self.etcd.of(&machine.name);
        let is_well = machine.node
            && !self.is_known_ill(machine)
            && own.is_some_and(|member| !member.learner && member.started);
        let is_node_gone = machine.is_node_dropped;
        let (now, sees) = (self.now, self.answers() && self.has_server());
        let machine = &mut self.machines[at];
        let is_given_up = condition::is_false(&machine.conditions, "HealthCheckSucceeded");
        if is_well {
            machine.unwell_since = None;
            if sees && machine.deleted.is_none() && (is_given_up || machine.conditions.is_empty()) {
                let report = Report::yes("HealthCheckSucceeded", "HealthCheckSucceeded");
                set(&mut machine.conditions, report, now);
            }
            return;
        }
        let since = *machine.unwell_since.get_or_insert(now);
        let patience = match machine.node {
            true if is_node_gone => 0,
            true => GIVEN_UP_AFTER,
            false => STARTUP_TIMEOUT,
        };
        let is_over = now >= since + patience;
        if sees && is_over && machine.deleted.is_none() {
            let waits = condition::is_false(&machine.conditions, "OwnerRemediated");
            if !is_given_up {
                let report = Report::no("HealthCheckSucceeded", "UnhealthyNode");
                set(&mut machine.conditions, report, now);
                let words = format!("Machine {} is given up", machine.name);
                self.note(&words);
            }
            if !waits {
                let report = Report::no("OwnerRemediated", "WaitingForRemediation");
                set(&mut self.machines[at].conditions, report, now);
            }
        }
    }
}
