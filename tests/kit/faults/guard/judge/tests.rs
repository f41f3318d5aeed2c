//! What a guard must find, in looks that are made up.

use capstan_core::control_plane::etcd::EtcdMember;
use capstan_core::lookup::Lookup;
use serde_json::json;

use super::*;

/// A story: Machines on Nodes of the same names, and what is seen of them.
struct Story {
    judge: Judge,
    known: Known,
    machines: Vec<Value>,
    begun: Instant,
}

fn machine(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "deletionTimestamp": null},
        "status": {"nodeRef": {"name": name}},
    })
}

fn view(names: &[&str]) -> View {
    let members = names.iter().zip(1..).map(|(name, id)| EtcdMember {
        id,
        name: (*name).to_owned(),
        is_learner: false,
        is_leader: id == 1,
        alarms: Vec::new(),
        answer: Lookup::Missing,
    });
    View {
        members: members.collect(),
        has_quorum: true,
        stale_alarms: Vec::new(),
    }
}

impl Story {
    /// All is well, and was looked at.
    fn of(names: &[&str]) -> Self {
        let mut story = Self {
            judge: Judge::default(),
            known: Known::default(),
            machines: names.iter().map(|name| machine(name)).collect(),
            begun: Instant::now(),
        };
        story.fine(0);
        story.etcd_fine(names);
        story
    }

    fn breaks(&mut self, name: &str) {
        self.known.broken.push(name.to_owned());
        self.fine(0);
    }

    fn delete(&mut self, name: &str) {
        let mut machines = self.machines.iter_mut();
        let found = machines.find(|machine| machine["metadata"]["name"] == name);
        found.unwrap()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }

    fn forget(&mut self, name: &str) {
        self.machines
            .retain(|machine| machine["metadata"]["name"] != name);
    }

    /// Looks at the Machines after so many seconds.
    fn look(&mut self, after_s: u64) -> Vec<String> {
        let now = self.begun + Duration::from_secs(after_s);
        self.judge.machines(&self.machines, &self.known, now)
    }

    fn fine(&mut self, after_s: u64) {
        assert_eq!(self.look(after_s), Vec::<String>::new());
    }

    /// Looks at etcd, which has these members.
    fn etcd(&mut self, names: &[&str]) -> Vec<String> {
        self.judge.etcd(view(names), &self.known)
    }

    fn etcd_fine(&mut self, names: &[&str]) {
        assert_eq!(self.etcd(names), Vec::<String>::new());
    }
}

#[track_caller]
fn says(wrong: &[String], what: &str) {
    assert!(
        wrong.len() == 1 && wrong[0].contains(what),
        "{wrong:?} does not say {what:?}"
    );
}

#[test]
fn a_machine_that_etcd_can_spare_may_go() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.breaks("a");
    story.delete("a");
    story.fine(1);
    story.etcd_fine(&["b", "c"]);
    story.forget("a");
    story.fine(2);
    story.known.broken.clear();
    story.delete("b");
    story.fine(3);
    story.etcd_fine(&["c"]);
    story.fine(4);
}

#[test]
fn a_machine_that_etcd_needs_must_not_be_deleted() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.breaks("a");
    story.delete("b");
    says(&story.look(4), "Machine b was deleted although etcd needs");
}

#[test]
fn a_machine_that_was_chosen_just_before_the_break_may_go() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.breaks("a");
    story.delete("b");
    story.fine(2);
    story.etcd_fine(&["a", "b", "c"]);
    story.forget("b");
    story.fine(9);
    says(
        &story.etcd(&["a", "c"]),
        "the member b was removed although etcd needs it",
    );
}

#[test]
fn a_machine_that_is_gone_between_two_looks_was_deleted() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.breaks("a");
    story.forget("b");
    says(&story.look(4), "Machine b was deleted although etcd needs");
    story.fine(2);
}

#[test]
fn what_broke_after_the_last_look_was_not_known_to_who_deleted() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.delete("b");
    story.known.broken.push("a".to_owned());
    story.fine(1);
}

#[test]
fn the_member_of_a_live_machine_must_not_go() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.etcd_fine(&["a", "b"]);
    says(&story.look(1), "the member of the live Machine c went away");
    story.fine(2);
}

#[test]
fn the_member_of_a_machine_that_goes_may_go_between_two_looks() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.etcd_fine(&["a", "b"]);
    story.delete("c");
    story.fine(1);
}

#[test]
fn what_a_fault_takes_is_not_the_hosts() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.known.excused.push("c".to_owned());
    story.known.taken.push("c".to_owned());
    story.etcd_fine(&["a", "b"]);
    story.fine(1);
}

#[test]
fn a_member_that_etcd_needs_must_not_be_removed_although_its_machine_goes() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.delete("c");
    story.fine(1);
    story.breaks("a");
    let wrong = story.etcd(&["a", "b"]);
    says(&wrong, "the member c was removed although etcd needs it");
}

#[test]
fn no_machine_comes_while_there_is_no_majority() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.breaks("a");
    story.breaks("b");
    // It may have been on its way.
    story.machines.push(machine("d"));
    story.fine(5);
    story.machines.push(machine("e"));
    says(
        &story.look(60),
        "Machine e was made although etcd has no majority",
    );
    story.fine(61);
}

#[test]
fn a_machine_may_come_when_the_majority_is_back() {
    let mut story = Story::of(&["a", "b", "c"]);
    story.breaks("a");
    story.breaks("b");
    story.fine(60);
    story.known.broken.clear();
    story.machines.push(machine("d"));
    story.fine(61);
}

#[test]
fn removals_that_etcd_refused_are_wrong_when_who_asked_knew() {
    let story = Story::of(&["a", "b", "c"]);
    let refusal = |asker: &str, member: &str, lists: u64| json!({"asker": asker, "member": member, "lists": lists});
    let fine = [
        refusal("capstan", "a", 1),
        refusal(CLIENT, "a", 9),
        refusal("capstan", "of-another-cluster", 9),
    ];
    assert_eq!(story.judge.refusals(&fine), Vec::<String>::new());
    let wrong = story.judge.refusals(&[refusal("capstan", "a", 2)]);
    says(&wrong, "without which it has no majority, and knew");
}
