//! What was true when the host looked at a control plane, and which steps that allows. What happens between the look and the step it
//! cannot know, and what it could not see it must not count on.

use crate::membership::Member;

/// What was true at a look.
#[derive(Clone, Debug, Default)]
pub struct Basis {
    /// When, in seconds.
    pub at: u64,
    /// Members with a vote, whether each worked, and whether the host could know.
    pub voting: Vec<(u64, bool, bool)>,
    /// Members without a vote.
    pub learners: usize,
    /// The leader, if it heard the host.
    pub leader: Option<u64>,
    /// The leadership was moved since.
    pub has_moved: bool,
    /// Machines that were not well, and everybody could know.
    pub ill: Vec<String>,
    /// Machines that a health check had given up.
    pub given_up: Vec<String>,
    /// Machines that wait for their member to be removed, while etcd could not do without it, or another one has no vote yet.
    pub held: Vec<String>,
    /// Machines whose member, if there is one, had no vote.
    pub voteless: Vec<String>,
    /// Machines that were being deleted, as the host was told.
    pub going: Vec<String>,
    /// Machines that were not, as the host was told.
    pub staying: usize,
}

impl Basis {
    /// Whether a majority worked.
    fn has_majority(&self) -> bool {
        let working = self.voting.iter().filter(|(_, works, _)| *works).count();
        working * 2 > self.voting.len()
    }

    /// Whether a member had a vote.
    #[must_use]
    pub fn has_vote(&self, id: u64) -> bool {
        self.voting.iter().any(|(voting, _, _)| *voting == id)
    }

    /// Whether a majority is known to work without this member, and with so many more that do not work yet.
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

    /// What is wrong with making a machine: it is made while a majority works and would go on doing so, beside machines that are well.
    #[must_use]
    pub fn wrongs_of_creation(&self, name: &str, is_replacement: bool) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut wrong = |what: String| wrongs.push(format!("{name} is made {what}"));
        if !self.has_majority() {
            wrong("while etcd has lost its majority".to_owned());
        }
        // The only member is no majority with a second one that does not work: that cannot be helped.
        if self.voting.len() > 1 && !self.is_safe(None, 1) {
            wrong("and etcd loses its majority if its member does not work".to_owned());
        }
        if self.learners > 0 {
            wrong("beside a member that has no vote yet".to_owned());
        }
        if !is_replacement && let Some(ill) = self.ill.first() {
            wrong(format!("beside {ill}, which is not well"));
        }
        if let Some(going) = self.going.first() {
            wrong(format!("while {going} goes"));
        }
        wrongs
    }

    /// What is wrong with deleting a machine: one goes at a time, while a majority works and does so without it, and none that works
    /// while there are no more than `fewest`. `member` is its own, if it has one.
    #[must_use]
    pub fn wrongs_of_deletion(
        &self,
        name: &str,
        member: Option<&Member>,
        works: bool,
        fewest: usize,
    ) -> Vec<String> {
        let is_given_up = self.given_up.iter().any(|own| own == name);
        let mut wrongs = Vec::new();
        let mut wrong = |what: String| wrongs.push(format!("Machine {name} is deleted {what}"));
        if !self.has_majority() {
            wrong("while etcd has lost its majority".to_owned());
        }
        // One without a vote has none to lose. If it got one since the look, its machine waits with it: its removal is decided anew.
        let vote = member.filter(|member| self.has_vote(member.id));
        if let Some(vote) = vote
            && !self.is_safe(Some(vote.id), 0)
        {
            wrong("and etcd cannot do without its member".to_owned());
        }
        // One that is not well, or never got a vote, may go first where another waits for just that.
        let is_voteless = is_given_up && self.voteless.iter().any(|own| own == name);
        let is_in_the_way = self.is_ill(name) || is_voteless;
        let counts =
            |going: &&String| *going != name && !(is_in_the_way && self.held.contains(going));
        if let Some(going) = self.going.iter().find(counts) {
            wrong(format!("while {going} goes"));
        }
        if works && !self.is_ill(name) && self.staying <= fewest && !is_given_up {
            let staying = self.staying;
            wrong(format!(
                "and works, and of {fewest} that are wanted there are {staying}"
            ));
        }
        if !is_given_up && let Some(ill) = self.ill.iter().find(|ill| *ill != name) {
            wrong(format!("beside {ill}, which is not well"));
        }
        wrongs
    }

    /// What is wrong with removing a member: it leaves a majority, its machine goes (or is gone), and it does not lead.
    #[must_use]
    pub fn wrongs_of_removal(
        &self,
        member: &Member,
        leader: Option<u64>,
        does_machine_stay: bool,
    ) -> Vec<String> {
        let (id, name) = (member.id, &member.machine);
        let mut wrongs = Vec::new();
        // One without a vote has none to lose.
        if !member.learner && (!self.has_majority() || !self.is_safe(Some(id), 0)) {
            wrongs.push(format!(
                "the member {name} is removed and that leaves no majority"
            ));
        }
        if does_machine_stay {
            wrongs.push(format!(
                "the member of Machine {name}, which stays, is removed"
            ));
        }
        if self.leader == Some(id) && leader == Some(id) && !self.has_moved {
            wrongs.push(format!("the member {name} is removed while it leads"));
        }
        wrongs
    }

    /// What is wrong with letting a machine go that has others beside it: its member goes first, and not all go.
    #[must_use]
    pub fn wrongs_of_letting_go(&self, name: &str, member: Option<&Member>) -> Vec<String> {
        let mut wrongs = Vec::new();
        if member.is_some_and(|member| member.started) {
            wrongs.push(format!(
                "Machine {name} may go and its member is still there"
            ));
        }
        if self.staying == 0 {
            wrongs.push(format!(
                "Machine {name} may go although all others go as well"
            ));
        }
        wrongs
    }
}
