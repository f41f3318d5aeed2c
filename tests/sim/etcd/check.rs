//! What must be true of every step, held against what was true when the host looked: what happens between the look and the step it
//! cannot know.

use super::Life;
use super::host::DEADLINE;
use super::world::{Machine, Member, World};

/// What was true at a look.
pub(super) struct Basis {
    /// Members with a vote, whether each worked, and whether the host could know.
    voting: Vec<(u64, bool, bool)>,
    /// Members without a vote.
    learners: usize,
    /// The leader, if it heard the host.
    leader: Option<u64>,
    /// The leadership was moved since.
    pub(super) has_moved: bool,
    /// Machines that were not well, and everybody could know.
    ill: Vec<String>,
    /// Machines that a health check had given up.
    given_up: Vec<String>,
    /// Machines that wait for their member to be removed, while etcd could not do without it, or another one has no vote yet.
    held: Vec<String>,
    /// Machines whose member, if there is one, had no vote.
    voteless: Vec<String>,
    /// Machines that were being deleted, as the host was told.
    going: Vec<String>,
    /// Machines that were not, as the host was told.
    staying: usize,
}

impl Basis {
    pub(super) fn of(world: &World) -> Self {
        let voting = world.members.iter().filter(|member| !member.learner);
        let leader = world
            .members
            .iter()
            .find(|member| Some(member.id) == world.leader && world.reaches(member));
        let ill = world.machines.iter().filter(|own| world.is_known_ill(own));
        let going = world.cache.iter().filter(|own| own.deleted.is_some());
        let going: Vec<String> = going.map(|own| own.name.clone()).collect();
        let given_up = world.machines.iter().filter(|own| {
            capstan_api::condition::is_false(&own.conditions, "HealthCheckSucceeded")
        });
        let is_held = |own: &&Machine| {
            let is_others = |member: &&Member| !member.learner && member.machine != own.name;
            let others = world.members.iter().filter(is_others);
            let known = others.clone().filter(|member| world.reaches(member));
            let waits = capstan_api::condition::is_true(&own.conditions, "Deleting");
            let is_learner = |member: &Member| member.learner && member.machine != own.name;
            let is_needed = known.count() * 2 <= others.count();
            own.deleted.is_some() && waits && (is_needed || world.members.iter().any(is_learner))
        };
        let is_voteless = |own: &&Machine| {
            let mut members = world.members.iter();
            !members.any(|member| member.machine == own.name && !member.learner)
        };
        let voteless = world.machines.iter().filter(is_voteless);
        let held = world.machines.iter().filter(is_held);
        Self {
            given_up: given_up.map(|own| own.name.clone()).collect(),
            held: held.map(|own| own.name.clone()).collect(),
            voteless: voteless.map(|own| own.name.clone()).collect(),
            voting: voting
                .map(|member| (member.id, world.works(member), world.reaches(member)))
                .collect(),
            learners: world.members.iter().filter(|own| own.learner).count(),
            leader: leader.map(|member| member.id),
            has_moved: false,
            ill: ill.map(|own| own.name.clone()).collect(),
            staying: world.cache.len() - going.len(),
            going,
        }
    }

    /// Whether a majority works.
    fn has_majority(&self) -> bool {
        let working = self.voting.iter().filter(|(_, works, _)| *works).count();
        working * 2 > self.voting.len()
    }

    fn has_vote(&self, id: u64) -> bool {
        self.voting.iter().any(|(voting, _, _)| *voting == id)
    }

    /// Whether a majority is known to work without this member, and with so many more that do not work yet. What the host cannot
    /// see it must not count on.
    fn is_safe(&self, without: Option<u64>, more: usize) -> bool {
        let left = || {
            self.voting
                .iter()
                .filter(move |(other, _, _)| Some(*other) != without)
        };
        let known = left().filter(|(_, _, is_known)| *is_known).count();
        known * 2 > left().count() + more
    }

    fn is_ill(&self, name: &str) -> bool {
        self.ill.iter().any(|ill| ill == name)
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
        let mut members = self.world.members.iter();
        members.find(|member| member.machine == name).cloned()
    }

    /// A machine is made once, while a majority works and would go on doing so, beside machines that are well.
    pub(super) fn check_creation(&mut self, basis: &Basis, name: &str, is_replacement: bool) {
        let mut violated = |what: String| self.world.violated(format!("{name} is made {what}"));
        if !basis.has_majority() {
            violated("while etcd has lost its majority".to_owned());
        }
        // The only member is no majority with a second one that does not work: that cannot be helped.
        if basis.voting.len() > 1 && !basis.is_safe(None, 1) {
            violated("and etcd loses its majority if its member does not work".to_owned());
        }
        if basis.learners > 0 {
            violated("beside a member that has no vote yet".to_owned());
        }
        if !is_replacement && let Some(ill) = basis.ill.first() {
            violated(format!("beside {ill}, which is not well"));
        }
        if let Some(going) = basis.going.first() {
            violated(format!("while {going} goes"));
        }
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

    /// One machine goes at a time, while a majority works and does so without it, and none that works while there are too few.
    pub(super) fn check_deletion(&mut self, basis: &Basis, name: &str) {
        let member = self.member_of(name);
        let (_, fewest) = self.wanted_lately();
        let works = member.as_ref().is_some_and(|own| self.world.works(own));
        let is_given_up = basis.given_up.iter().any(|own| own == name);
        let mut violated = |what: String| {
            self.world
                .violated(format!("Machine {name} is deleted {what}"))
        };
        if !basis.has_majority() {
            violated("while etcd has lost its majority".to_owned());
        }
        // One without a vote has none to lose. If it got one since the look, its machine waits with it: its removal is decided anew.
        let vote = member.filter(|member| basis.has_vote(member.id));
        if let Some(vote) = vote
            && !basis.is_safe(Some(vote.id), 0)
        {
            violated("and etcd cannot do without its member".to_owned());
        }
        // One that is not well, or never got a vote, may go first where another waits for just that.
        let is_voteless = is_given_up && basis.voteless.iter().any(|own| own == name);
        let is_in_the_way = basis.is_ill(name) || is_voteless;
        let counts =
            |going: &&String| *going != name && !(is_in_the_way && basis.held.contains(going));
        if let Some(going) = basis.going.iter().find(counts) {
            violated(format!("while {going} goes"));
        }
        if works && !basis.is_ill(name) && basis.staying <= fewest && !is_given_up {
            let staying = basis.staying;
            violated(format!(
                "and works, and of {fewest} that are wanted there are {staying}"
            ));
        }
        if !is_given_up && let Some(ill) = basis.ill.iter().find(|ill| *ill != name) {
            violated(format!("beside {ill}, which is not well"));
        }
    }

    pub(super) fn check_removal(&mut self, basis: &Basis, id: u64, name: &str) {
        let mut members = self.world.members.iter();
        let Some(member) = members.find(|member| member.id == id).cloned() else {
            return;
        };
        // One without a vote has none to lose.
        if !member.learner && (!basis.has_majority() || !basis.is_safe(Some(id), 0)) {
            self.world.violated(format!(
                "the member {name} is removed and that leaves no majority"
            ));
        }
        let machine = self.world.machine_of(&member);
        if machine.is_some_and(|machine| machine.deleted.is_none()) {
            self.world.violated(format!(
                "the member of Machine {}, which stays, is removed",
                member.machine
            ));
        }
        if basis.leader == Some(id) && self.world.leader == Some(id) && !basis.has_moved {
            self.world
                .violated(format!("the member {name} is removed while it leads"));
        }
        let before = format!("{name} {id:x}");
        let is_kept = self
            .snapshot
            .as_ref()
            .is_some_and(|(at, of)| *of == before && self.world.now <= at + 2 * DEADLINE);
        if self.keeps_snapshots && !is_kept {
            self.world
                .violated(format!("the member {name} is removed without a snapshot"));
        }
    }

    /// A machine goes only when its member has gone, unless it is the last one.
    pub(super) fn check_lets_go(&mut self, basis: &Basis, name: &str) {
        let is_member = self.member_of(name).is_some_and(|member| member.started);
        if is_member && self.world.machines.len() > 1 {
            self.world.violated(format!(
                "Machine {name} may go and its member is still there"
            ));
        }
        if basis.staying == 0 && self.world.machines.len() > 1 {
            self.world.violated(format!(
                "Machine {name} may go although all others go as well"
            ));
        }
    }
}
