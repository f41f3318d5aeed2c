//! What must be true of every step of the host, held against what was true when it looked: it asks the plugin first, then each member,
//! then one of them for the list, and acts.

use std::collections::BTreeSet;
use std::time::Duration;

use capstan_api::annotation;
use serde_json::Value;

use super::is_control_plane;
use crate::basis::Basis;
use crate::membership::Member;
use crate::object::{
    annotation as annotation_of, is_condition, is_deleting, list, name, number, text, uid,
};
use crate::store::Written;
use crate::world::State;

/// Limits that people change are taken at their most generous for so long: a late cache, a lost answer and a slow step.
const STALE: Duration = Duration::from_secs(600);

/// The host's look at a control plane.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) began: Duration,
    asked: BTreeSet<String>,
    answered: BTreeSet<String>,
    /// As it was when the members were listed; absent while nobody has listed them.
    members: Option<Members>,
    has_moved: bool,
}

/// Members at a look.
#[derive(Clone, Debug)]
struct Members {
    /// With a vote, whether each worked, and whether the host could know.
    voting: Vec<(u64, bool, bool)>,
    learners: usize,
    leader: Option<u64>,
    /// Machines whose member has a vote.
    voters: BTreeSet<String>,
}

impl State {
    /// The host begins to look.
    pub(super) fn look_begins(&mut self) {
        let began = self.now();
        if let Some(stacked) = &mut self.stacked {
            stacked.look = Look {
                began,
                ..Look::default()
            };
        }
    }

    /// A member is asked.
    pub(super) fn is_asked(&mut self, machine: &str) {
        if let Some(stacked) = &mut self.stacked {
            stacked.look.asked.insert(machine.to_owned());
        }
    }

    /// A member has said how it is.
    pub(super) fn has_answered(&mut self, machine: &str) {
        if let Some(stacked) = &mut self.stacked {
            stacked.look.answered.insert(machine.to_owned());
        }
    }

    /// The leadership was moved.
    pub(super) fn has_moved(&mut self) {
        if let Some(stacked) = &mut self.stacked {
            stacked.look.has_moved = true;
        }
    }

    /// Members are listed.
    pub(super) fn is_listed(&mut self) {
        let Some(stacked) = &self.stacked else {
            return;
        };
        let (etcd, look) = (&stacked.etcd, &stacked.look);
        let answered = |member: &Member| look.answered.contains(&member.machine);
        let voting = || etcd.members.iter().filter(|member| !member.learner);
        let leads = |member: &&Member| Some(member.id) == etcd.leader && answered(member);
        let members = Members {
            voting: voting()
                .map(|member| (member.id, self.works(member), answered(member)))
                .collect(),
            learners: etcd.members.len() - voting().count(),
            leader: voting().find(leads).map(|member| member.id),
            voters: voting().map(|member| member.machine.clone()).collect(),
        };
        if let Some(stacked) = &mut self.stacked {
            stacked.look.members = Some(members);
        }
    }

    /// What was true when the host looked.
    fn basis(&self) -> Basis {
        let Some(stacked) = &self.stacked else {
            return Basis::default();
        };
        let (etcd, look) = (&stacked.etcd, &stacked.look);
        let members = look.members.clone().unwrap_or(Members {
            voting: etcd
                .members
                .iter()
                .filter(|member| !member.learner)
                .map(|member| (member.id, self.works(member), false))
                .collect(),
            learners: 0,
            leader: None,
            voters: BTreeSet::new(),
        });
        let knew_to_go = |machine: &&Value| self.watchman.knew_to_go(uid(machine), look.began);
        let stays =
            |machine: &&Value| self.watchman.knew(uid(machine), look.began) && !knew_to_go(machine);
        let names = |wanted: &dyn Fn(&&Value) -> bool| -> Vec<String> {
            let wanted = self.own_machines().filter(wanted);
            wanted.map(|machine| name(machine).to_owned()).collect()
        };
        let waits = |machine: &&Value| {
            let conditions = list(machine, "/status/conditions");
            let is_it = |it: &&Value| {
                it["type"] == "Deleting" && it["reason"] == "WaitingForPreTerminateHook"
            };
            is_deleting(machine) && conditions.iter().any(|it| is_it(&it))
        };
        let is_held = |machine: &&Value| {
            let own = etcd.of(name(machine)).map(|member| member.id);
            let others = || members.voting.iter().filter(|(id, ..)| Some(*id) != own);
            let known = others().filter(|(.., is_known)| *is_known).count();
            let is_needed = known * 2 <= others().count();
            waits(machine) && (is_needed || members.learners > 0)
        };
        Basis {
            at: self.now().as_secs(),
            ill: look.asked.difference(&look.answered).cloned().collect(),
            given_up: names(&|it| is_condition(it, "HealthCheckSucceeded", "False")),
            held: names(&is_held),
            voteless: names(&|it| !members.voters.contains(name(it))),
            going: names(&knew_to_go),
            staying: self.own_machines().filter(stays).count(),
            voting: members.voting,
            learners: members.learners,
            leader: members.leader,
            has_moved: look.has_moved,
        }
    }

    /// Most and fewest machines that were wanted lately.
    fn wanted_lately(&self) -> (usize, usize) {
        let from = self.now().saturating_sub(STALE);
        let all = self
            .stacked
            .as_ref()
            .map_or(&[][..], |stacked| &stacked.wanted[..]);
        // The one that was in force when the window began counts too.
        let first = all.partition_point(|(since, _)| *since < from);
        let lately = all.get(first.saturating_sub(1)..).unwrap_or_default();
        let lately = lately.iter().map(|(_, wanted)| *wanted);
        (
            lately.clone().max().unwrap_or_default(),
            lately.min().unwrap_or_default(),
        )
    }

    fn all_violated(&mut self, wrongs: Vec<String>) {
        for wrong in wrongs {
            self.violated(wrong);
        }
    }

    /// Remembers what people want.
    pub(crate) fn plane_written(&mut self, plane: &Value) {
        let (now, wanted) = (self.now(), number(plane, "/spec/replicas"));
        let wanted = usize::try_from(wanted.unwrap_or_default()).unwrap_or_default();
        if let Some(stacked) = &mut self.stacked {
            stacked.wanted.push((now, wanted));
        }
    }

    /// The host wrote something.
    pub(crate) fn check_plane(&mut self, verb: &str, written: &Written) {
        let machine = written.new.as_ref().or(written.old.as_ref());
        let is_own = machine.is_some_and(|it| it["kind"] == "Machine" && is_control_plane(it));
        if !is_own || self.is_plane_going() {
            return;
        }
        match (verb, &written.old, &written.new) {
            ("create", _, Some(new)) => self.check_creation(&new.clone()),
            ("delete", Some(old), _) => self.check_deletion(&old.clone()),
            ("patch", Some(old), Some(new)) => {
                let holds = |it: &Value| annotation_of(it, annotation::KCP_CLEANUP_HOOK).is_some();
                if holds(old) && !holds(new) {
                    self.check_lets_go(name(new));
                }
            }
            _ => {}
        }
    }

    fn check_creation(&mut self, machine: &Value) {
        let its = name(machine);
        let others = self.own_machines().count() - 1;
        let (most, _) = self.wanted_lately();
        if others > most {
            self.violated(format!(
                "{its} is made beside {others} Machines, {most} were wanted and one more may be"
            ));
        }
        let Some(stacked) = &self.stacked else {
            return;
        };
        if stacked.etcd.of(its).is_some() {
            self.violated(format!("{its} is made, and there is a member of this name"));
        } else if !self.is_plane_up() {
            if others > 0 {
                self.violated(format!("{its} is made before the first machine is up"));
            }
        } else {
            let is_replacement = annotation_of(machine, annotation::REMEDIATION_FOR).is_some();
            let wrongs = self.basis().wrongs_of_creation(its, is_replacement);
            self.all_violated(wrongs);
        }
    }

    fn check_deletion(&mut self, machine: &Value) {
        let its = name(machine);
        let Some(stacked) = self.stacked.as_ref().filter(|_| self.is_plane_up()) else {
            return;
        };
        let member = stacked.etcd.of(its);
        let works = member.is_some_and(|member| self.works(member));
        let (_, fewest) = self.wanted_lately();
        let wrongs = self.basis().wrongs_of_deletion(its, member, works, fewest);
        self.all_violated(wrongs);
    }

    /// A machine goes only when its member has gone, unless it is the last one.
    fn check_lets_go(&mut self, machine: &str) {
        let Some(stacked) = self.stacked.as_ref().filter(|_| self.is_plane_up()) else {
            return;
        };
        if self.own_machines().count() > 1 {
            let wrongs = self
                .basis()
                .wrongs_of_letting_go(machine, stacked.etcd.of(machine));
            self.all_violated(wrongs);
        }
    }

    pub(super) fn check_removal(&mut self, member: &Member) {
        let leader = self.stacked.as_ref().and_then(|own| own.etcd.leader);
        let mut machines = self.own_machines();
        let machine = machines.find(|machine| name(machine) == member.machine);
        let stays = machine.is_some_and(|machine| !is_deleting(machine));
        drop(machines);
        let wrongs = self.basis().wrongs_of_removal(member, leader, stays);
        self.all_violated(wrongs);
        self.check_snapshot(member);
    }

    pub(super) fn check_alarm_ends(&mut self, member: u64) {
        let stacked = self.stacked.as_ref();
        let mut members = stacked.iter().flat_map(|stacked| &stacked.etcd.members);
        if members.any(|own| own.id == member) {
            self.violated(format!(
                "the alarm of member {member:x} is ended, which is still there"
            ));
        }
    }

    /// Nothing of a machine goes before its member, while there are others.
    pub(crate) fn check_member_is_gone(&mut self, machine: &str) {
        let own = self.stacked.as_ref().and_then(|own| own.etcd.of(machine));
        let others = self.own_machines().filter(|own| name(own) != machine);
        if own.is_some_and(|own| own.started) && others.count() > 0 && !self.is_plane_going() {
            self.violated(format!(
                "the instance of Machine {machine} stops and its member is still there"
            ));
        }
    }

    /// The version that the control plane is to have.
    pub(super) fn wanted_version(&self) -> String {
        let plane = self
            .management
            .all(&crate::kinds::SIM_STACKED_CONTROL_PLANE);
        let versions = plane.map(|plane| text(plane, "/spec/version").to_owned());
        versions.last().unwrap_or_default()
    }
}
