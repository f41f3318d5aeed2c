//! Whether a control plane is as its people want it, and whether only they can help.

use capstan_controllers::kinds;
use serde_json::Value;

use crate::kinds as sim;
use crate::membership::Member;
use crate::object::{is_condition, is_deleting, key, list, name, number, text};
use crate::world::State;

/// What people are told to do where only they can help: one of these is said.
const ADVICE: [&str; 4] = [
    "To recover: ",
    "ring it back",
    "ring one of the",
    "ring one back",
];

impl State {
    /// How many machines people want in the control plane, if there is one that stays.
    #[must_use]
    pub fn plane_wants(&self) -> usize {
        let planes = self.management.all(&sim::SIM_STACKED_CONTROL_PLANE);
        let wanted = planes.map(|plane| number(plane, "/spec/replicas").unwrap_or_default());
        usize::try_from(wanted.sum::<i64>()).unwrap_or_default()
    }

    /// What keeps the control plane from being as its people want it.
    #[must_use]
    pub fn plane_not_settled(&self) -> Vec<String> {
        let mut why = Vec::new();
        let Some(plane) = self.management.all(&sim::SIM_STACKED_CONTROL_PLANE).next() else {
            return why;
        };
        if is_deleting(plane) {
            return vec![format!("the control plane {} is still there", key(plane))];
        }
        let (wanted, version) = (self.plane_wants(), self.wanted_version());
        let settings = number(plane, "/spec/settings");
        let is_good = |machine: &&Value| {
            let config = self.management.get(&sim::SIM_STACKED_CONFIG, &key(machine));
            !is_deleting(machine)
                && is_condition(machine, "Available", "True")
                && is_condition(machine, "UpToDate", "True")
                && text(machine, "/spec/version") == version
                && config.is_ok_and(|config| number(&config, "/spec/settings") == settings)
                && self.is_up(name(machine))
        };
        let (all, good) = (
            self.own_machines().count(),
            self.own_machines().filter(is_good).count(),
        );
        if all != wanted || good != wanted {
            why.push(format!(
                "the control plane wants {wanted} Machines of {version} and has {all}, {good} of them good"
            ));
        }
        for condition in ["Available", "MachinesReady", "MachinesUpToDate"] {
            if !is_condition(plane, condition, "True") {
                why.push(format!("the control plane is not {condition}"));
            }
        }
        for field in [
            "replicas",
            "readyReplicas",
            "upToDateReplicas",
            "availableReplicas",
        ] {
            let said = number(plane, &format!("/status/{field}")).unwrap_or_default();
            if usize::try_from(said) != Ok(wanted) {
                why.push(format!("the control plane says {said} {field}"));
            }
        }
        why.extend(self.etcd_not_settled(wanted));
        why
    }

    fn etcd_not_settled(&self, wanted: usize) -> Vec<String> {
        let mut why = Vec::new();
        let Some(stacked) = &self.stacked else {
            return why;
        };
        let has_machine = |member: &Member| {
            let mut machines = self.own_machines();
            machines.any(|machine| name(machine) == member.machine)
        };
        for member in &stacked.etcd.members {
            if member.learner || !has_machine(member) {
                let (id, machine) = (member.id, &member.machine);
                why.push(format!("the member {id:x} of {machine} is left behind"));
            }
        }
        let members = stacked.etcd.members.len();
        if members != wanted {
            why.push(format!("there are {members} members for {wanted} Machines"));
        }
        if !stacked.etcd.alarms.is_empty() {
            why.push(format!("there are alarms: {:?}", stacked.etcd.alarms));
        }
        why
    }

    /// Whether only people can help: etcd has lost its majority, or each machine that is not well is needed, since without its member
    /// those that are known to work are no majority, or since all others that are well go.
    #[must_use]
    pub fn is_left_to_people(&self) -> bool {
        let Some(stacked) = self.stacked.as_ref().filter(|_| self.is_plane_up()) else {
            return false;
        };
        if self.is_plane_going() {
            return false;
        }
        if !self.has_quorum() {
            return true;
        }
        let is_ill = |machine: &&Value| {
            let member = stacked.etcd.of(name(machine));
            self.is_registered(name(machine))
                && (!self.is_reached(name(machine)) || !member.is_some_and(|own| self.works(own)))
        };
        let is_needed = |machine: &Value| {
            let is_other = |member: &&Member| !member.learner && member.machine != name(machine);
            let others = || stacked.etcd.members.iter().filter(is_other);
            let known = others().filter(|own| self.works(own) && self.is_reached(&own.machine));
            let stays =
                |own: &Value| name(own) != name(machine) && !is_deleting(own) && !is_ill(&own);
            known.count() * 2 <= others().count() || !self.own_machines().any(stays)
        };
        let mut ill = self.own_machines().filter(is_ill).peekable();
        ill.peek().is_some() && ill.all(is_needed)
    }

    fn is_registered(&self, machine: &str) -> bool {
        self.body(machine).is_some_and(|body| body.registered)
    }

    /// What is wrong with what people are told, where only they can help.
    #[must_use]
    pub fn not_told(&self) -> Option<String> {
        let planes = || self.management.all(&sim::SIM_STACKED_CONTROL_PLANE);
        let machines = self.management.all(&kinds::MACHINE);
        let said: Vec<&str> = planes()
            .chain(machines)
            .flat_map(|object| list(object, "/status/conditions"))
            .map(|condition| text(condition, "/message"))
            .filter(|message| !message.is_empty())
            .collect();
        let is_available = planes().any(|plane| is_condition(plane, "Available", "True"));
        let is_told = said
            .iter()
            .any(|said| ADVICE.iter().any(|advice| said.contains(advice)));
        if is_available && !self.has_quorum() {
            return Some("etcd has no majority and the control plane is available".to_owned());
        }
        (!is_told).then(|| format!("only people can help and are not told how: {said:?}"))
    }
}
