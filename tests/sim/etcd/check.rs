//! What must be true of every step, held against what was true when the host looked.

use capstan_api::condition;

use super::Life;
use super::host::DEADLINE;
use super::world::{Machine, World};
use crate::basis::Basis;
use crate::membership::Member;

/// What is true now.
pub(super) fn basis(world: &World) -> Basis {
    let members = &world.etcd.members;
    let leads = |member: &&Member| Some(member.id) == world.etcd.leader && world.reaches(member);
    let going = world.cache.iter().filter(|own| own.deleted.is_some());
    let going: Vec<String> = going.map(|own| own.name.clone()).collect();
    let is_held = |own: &&Machine| {
        let is_others = |member: &&Member| !member.learner && member.machine != own.name;
        let others = members.iter().filter(is_others);
        let known = others.clone().filter(|member| world.reaches(member));
        let waits = condition::is_true(&own.conditions, "Deleting");
        let is_learner = |member: &Member| member.learner && member.machine != own.name;
        let is_needed = known.count() * 2 <= others.count();
        own.deleted.is_some() && waits && (is_needed || members.iter().any(is_learner))
    };
    let is_voteless = |own: &&Machine| {
        let votes = |member: &Member| member.machine == own.name && !member.learner;
        !members.iter().any(votes)
    };
    let names = |wanted: &dyn Fn(&&Machine) -> bool| {
        let wanted = world.machines.iter().filter(wanted);
        wanted.map(|own| own.name.clone()).collect()
    };
    let voting = members.iter().filter(|member| !member.learner);
    Basis {
        at: world.now,
        voting: voting
            .map(|member| (member.id, world.works(member), world.reaches(member)))
            .collect(),
        learners: members.iter().filter(|own| own.learner).count(),
        leader: members.iter().find(leads).map(|member| member.id),
        has_moved: false,
        ill: names(&|own| world.is_known_ill(own)),
        given_up: names(&|own| condition::is_false(&own.conditions, "HealthCheckSucceeded")),
        held: names(&is_held),
        voteless: names(&is_voteless),
        staying: world.cache.len() - going.len(),
        going,
    }
}

impl Life {
    /// Most and fewest machines that were wanted lately.
    fn wanted_lately(&self) -> (usize, usize) {
        let now = self.world.now;
        let lately = self.wanted.iter().filter(|(until, _)| *until > now);
        let lately = lately.map(|(_, wanted)| *wanted as usize);
        (
            lately.clone().max().unwrap_or_default(),
            lately.min().unwrap_or_default(),
        )
    }

    fn member_of(&self, name: &str) -> Option<Member> {
        self.world.etcd.of(name).cloned()
    }

    fn all_violated(&mut self, wrongs: Vec<String>) {
        for wrong in wrongs {
            self.world.violated(wrong);
        }
    }

    pub(super) fn check_creation(&mut self, basis: &Basis, name: &str, is_replacement: bool) {
        self.all_violated(basis.wrongs_of_creation(name, is_replacement));
        if self.world.names.contains(name) || self.member_of(name).is_some() {
            self.world
                .violated(format!("{name} is made, and there was one of this name"));
        }
    }

    pub(super) fn check_ceiling(&mut self, name: &str) {
        let (most, _) = self.wanted_lately();
        let has = self.world.machines.len();
        if has > most + 1 {
            self.world.violated(format!(
                "{name} is made and there are {has} Machines, {most} were wanted and one more may be"
            ));
        }
    }

    pub(super) fn check_deletion(&mut self, basis: &Basis, name: &str) {
        let member = self.member_of(name);
        let (_, fewest) = self.wanted_lately();
        let works = member.as_ref().is_some_and(|own| self.world.works(own));
        self.all_violated(basis.wrongs_of_deletion(name, member.as_ref(), works, fewest));
    }

    pub(super) fn check_removal(&mut self, basis: &Basis, id: u64, name: &str) {
        let mut members = self.world.etcd.members.iter();
        let Some(member) = members.find(|member| member.id == id).cloned() else {
            return;
        };
        let machine = self.world.machine_of(&member);
        let stays = machine.is_some_and(|machine| machine.deleted.is_none());
        self.all_violated(basis.wrongs_of_removal(&member, self.world.etcd.leader, stays));
        let before = format!("{name} {id:x}");
        let is_kept = self
            .snapshot
            .as_ref()
            .is_some_and(|(at, of)| *of == before && self.world.now <= at + 2 * DEADLINE);
        let is_old = self.snapshot.as_ref().is_some_and(|(at, _)| basis.at < *at);
        if self.keeps_snapshots && is_old {
            self.world.violated(format!(
                "the member {name} is removed for what was seen before its snapshot was there"
            ));
        }
        if self.keeps_snapshots && !is_kept {
            self.world
                .violated(format!("the member {name} is removed without a snapshot"));
        }
    }

    /// A machine goes only when its member has gone, unless it is the last one.
    pub(super) fn check_lets_go(&mut self, basis: &Basis, name: &str) {
        if self.world.machines.len() > 1 {
            let member = self.member_of(name);
            self.all_violated(basis.wrongs_of_letting_go(name, member.as_ref()));
        }
    }
}
