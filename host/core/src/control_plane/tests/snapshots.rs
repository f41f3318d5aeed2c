//! Snapshots of etcd before a member is removed: one at a time, each for one removal, and nothing is removed without.

use super::super::leave;
use super::super::snapshot::{State, Taken, Taking};
use super::membership::{drops_hook, steps, three, waiting};
use super::*;

/// Three machines of which the second one goes, and the operator wants snapshots.
fn leaving() -> Observed {
    let mut seen = three();
    seen.keeps_snapshots = true;
    seen.members[1] = waiting(seen.members[1].clone());
    seen
}

fn at(time: &str) -> Timestamp {
    format!("2026-01-01T{time}Z").parse().unwrap()
}

fn taking(before: &str, state: State) -> Option<Taking> {
    Some(Taking {
        before: before.to_owned(),
        since: at("00:30:00"),
        state,
        failed_before: None,
    })
}

fn running_from_c() -> State {
    State::Running {
        from: "c".to_owned(),
        bytes: 5 << 20,
    }
}

fn taken(whole: &str) -> Taken {
    Taken {
        path: "p".to_owned(),
        bytes: 1,
        not_pruned: None,
        at: at(whole),
    }
}

/// As the control plane has it when it is noted.
fn noted(seen: &mut Observed, before: &str, whole: &str) {
    let taking = taking(before, running_from_c()).unwrap();
    seen.object["metadata"]["annotations"] = taking.noted(&taken(whole));
}

fn wait(seen: &Observed) -> String {
    leave::decide(seen, now()).wait.unwrap()
}

#[test]
fn a_removal_is_decided_anew_when_its_snapshot_is_there() {
    let mut seen = leaving();
    let begun = steps(&seen);
    let [Step::Snapshot { from, before }] = begun.as_slice() else {
        panic!("{begun:?}")
    };
    assert_eq!(before, "b 2");
    assert_eq!(from.len(), 2, "not from the one that goes");
    seen.snapshot = taking(before, running_from_c());
    assert!(steps(&seen).is_empty());
    let said = "a snapshot of etcd is being taken from c since 2026-01-01T00:30:00Z, 5 MiB so far";
    assert!(wait(&seen).contains(said), "{}", wait(&seen));
    seen.snapshot = taking(before, State::Taken(taken("00:59:30")));
    let done = steps(&seen);
    assert!(
        matches!(done.as_slice(), [Step::NoteSnapshot { .. }]),
        "{done:?}"
    );
    seen.snapshot = None;
    noted(&mut seen, before, "00:59:30");
    let done = steps(&seen);
    assert!(
        matches!(done.as_slice(), [Step::RemoveEtcdMember { id: 2, .. }, hook] if drops_hook(hook, "b")),
        "{done:?}"
    );
    // What was seen when it was begun counts no more.
    view(&mut seen).members[2].alarms = vec!["NOSPACE".to_owned()];
    assert!(steps(&seen).is_empty());
    assert!(wait(&seen).contains("2 are needed"), "{}", wait(&seen));
}

#[test]
fn a_person_who_deleted_a_machine_reads_what_it_waits_for() {
    let mut seen = leaving();
    let said = |seen: &Observed| {
        let plan = decide(seen, now());
        let all = report(seen, &plan, &Outcome::default(), now()).conditions;
        let mut all = all.into_iter();
        let of_etcd = all.find(|it| it.type_ == condition_type::ETCD_CLUSTER_HEALTHY);
        of_etcd.unwrap()
    };
    let before = said(&seen);
    seen.snapshot = taking("b 2", running_from_c());
    let report = said(&seen);
    assert_eq!(report.status, before.status, "that is as it was");
    assert!(report.message.contains("is being taken"), "{report:?}");
}

#[test]
fn a_leader_hands_over_when_the_snapshot_is_there_and_not_before() {
    let mut seen = leaving();
    view(&mut seen).members[0].is_leader = false;
    view(&mut seen).members[1].is_leader = true;
    let begun = steps(&seen);
    assert!(
        matches!(begun.as_slice(), [Step::Snapshot { .. }]),
        "{begun:?}"
    );
    noted(&mut seen, "b 2", "00:59:30");
    let done = steps(&seen);
    assert!(
        matches!(
            done.as_slice(),
            [Step::MoveLeader { .. }, Step::RemoveEtcdMember { .. }, _]
        ),
        "{done:?}"
    );
}

#[test]
fn a_snapshot_is_good_for_one_removal_and_a_short_time() {
    let takes = |seen: &Observed| matches!(steps(seen).as_slice(), [Step::Snapshot { .. }]);
    let mut seen = leaving();
    noted(&mut seen, "b 2", "00:50:00");
    assert!(takes(&seen), "too old");
    noted(&mut seen, "other 7", "00:59:30");
    assert!(takes(&seen), "of another removal");
    // It may have taken long: what counts is when it was whole.
    noted(&mut seen, "b 2", "00:59:30");
    assert!(!takes(&seen));
}

#[test]
fn one_snapshot_is_taken_at_a_time() {
    let mut seen = leaving();
    view(&mut seen).members.push(etcd_member(9, "gone"));
    seen.snapshot = taking("b 2", running_from_c());
    assert!(steps(&seen).is_empty(), "the one without a Machine waits");
    seen.snapshot = taking("gone 9", running_from_c());
    assert!(steps(&seen).is_empty(), "the one whose Machine goes waits");
}

#[test]
fn a_snapshot_that_fails_is_said_and_tried_again_later_each_time() {
    let failed = |at: Timestamp, times: u32| State::Failed {
        why: "the disk is full".to_owned(),
        at,
        times,
    };
    let told = |plan: &Plan<Step>| {
        plan.steps.iter().any(
            |step| matches!(step, Step::Tell { reason: "FailedEtcdSnapshot", note } if note == "the disk is full"),
        )
    };
    let mut seen = leaving();
    for (times, seconds) in [(1, 1), (2, 2), (3, 4), (7, 60), (4_000_000_000, 60)] {
        seen.snapshot = taking("b 2", failed(now(), times));
        let plan = decide(&seen, now());
        assert!(told(&plan) && steps(&seen).is_empty(), "{plan:?}");
        let pause = std::time::Duration::from_secs(seconds);
        assert_eq!(
            plan.next,
            Next::CheckAfter(pause.min(std::time::Duration::from_secs(30)))
        );
        let earlier = now() - SignedDuration::try_from(pause).unwrap();
        seen.snapshot = taking("b 2", failed(earlier, times));
        let again = steps(&seen);
        assert!(
            matches!(again.as_slice(), [Step::Snapshot { .. }]),
            "{again:?}"
        );
        let said = "the etcd member b stays: no snapshot of etcd could be taken: the disk is full";
        assert_eq!(wait(&seen), said, "also while it is tried again");
    }
    seen.snapshot = taking("b 2", failed(now() - SignedDuration::from_mins(11), 9));
    assert!(!told(&decide(&seen, now())), "it is no news any more");
    assert_eq!(leave::decide(&seen, now()).wait, None);
    let mut again = taking("b 2", running_from_c()).unwrap();
    again.failed_before = Some("the disk is full".to_owned());
    seen.snapshot = Some(again);
    let said = "5 MiB so far; the last one failed: the disk is full";
    assert!(wait(&seen).ends_with(said), "{}", wait(&seen));
}
