//! The members of one etcd, in worlds of both kinds: votes, learners, a leader, alarms. Who works is for the world to say.

use capstan_core::control_plane::etcd::Alarm;

use crate::random::Random;

/// A member of etcd.
#[derive(Clone, Debug)]
pub struct Member {
    /// ID.
    pub id: u64,
    /// The machine that added it.
    pub machine: String,
    /// It has started: the others know its name.
    pub started: bool,
    /// It has no vote.
    pub learner: bool,
}

/// All members of one etcd.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// Members.
    pub members: Vec<Member>,
    /// Alarms.
    pub alarms: Vec<Alarm>,
    /// ID of the leader.
    pub leader: Option<u64>,
    /// When the majority was lost, in seconds.
    pub lost_since: Option<u64>,
    election_at: u64,
    next_id: u64,
}

impl Membership {
    /// A new member: the first one has a vote, others are learners that have not started.
    pub fn add(&mut self, machine: &str, is_first: bool) {
        self.next_id += 1;
        self.members.push(Member {
            id: self.next_id,
            machine: machine.to_owned(),
            started: is_first,
            learner: !is_first,
        });
    }

    /// The member of a machine.
    #[must_use]
    pub fn of(&self, machine: &str) -> Option<&Member> {
        self.members.iter().find(|own| own.machine == machine)
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, machine: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|own| own.machine == machine)
    }

    /// Whether a majority is among those that work.
    #[must_use]
    pub fn has_quorum(&self, works: impl Fn(&Member) -> bool) -> bool {
        let voting = self.members.iter().filter(|member| !member.learner);
        let working = voting.clone().filter(|member| works(member));
        working.count() * 2 > voting.count()
    }

    /// Whether there is room in all databases.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.alarms.iter().all(|alarm| alarm.name != "NOSPACE")
    }

    /// The database of a member is full.
    pub fn fill(&mut self, member: u64) {
        self.alarms.push(Alarm {
            member,
            number: 1,
            name: "NOSPACE".to_owned(),
        });
    }

    /// One second of elections among those of these members that work. Who leads from now on, if that is news.
    pub fn elect(&mut self, now: u64, working: &[u64], random: &mut Random) -> Option<u64> {
        if !self.has_quorum(|member| working.contains(&member.id)) {
            self.leader = None;
            self.election_at = now + random.between(1, 5);
            self.lost_since.get_or_insert(now);
            return None;
        }
        self.lost_since = None;
        let mut able = self
            .members
            .iter()
            .filter(|member| !member.learner && working.contains(&member.id));
        if able.clone().any(|member| Some(member.id) == self.leader) {
            self.election_at = now + 3;
            return None;
        }
        let next = able.next().map(|member| member.id);
        self.leader = next.filter(|_| self.election_at <= now);
        self.leader
    }
}
