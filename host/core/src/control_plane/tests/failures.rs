//! Cases of steps that fail: which condition says so, and what they keep from being done.

use super::*;

fn refused() -> Failure {
    Failure::terminal("Refused", "the webhook says no")
}

/// What is said once this step has failed.
fn after(seen: &Observed, step: Step, failure: Failure) -> Reported {
    let outcome = Outcome {
        done: vec![],
        failed: Some((step, failure)),
    };
    report(seen, &decide(seen, now()), &outcome, now())
}

/// The conditions that have these words, each with its status.
fn saying(reported: &Reported, words: &str) -> Vec<(String, ConditionStatus)> {
    let all = reported.conditions.iter();
    let saying = all.filter(|report| report.message.contains(words));
    saying
        .map(|report| (report.type_.clone(), report.status))
        .collect()
}

fn three() -> Observed {
    running(3, ["a", "b", "c"].map(|name| member(name, "a")).to_vec())
}

fn address(name: &str) -> Address {
    member(name, "a").etcd.unwrap()
}

fn snapshot() -> Step {
    Step::Snapshot {
        from: vec![address("b")],
        before: "a 1".to_owned(),
    }
}

fn patch() -> Step {
    Step::Patch {
        part: MemberPart::Infra,
        name: "a".to_owned(),
        patch: json!({}),
    }
}

fn complete() -> Step {
    Step::CompleteMachine {
        name: "a".to_owned(),
        role: Role::Init,
        config: false,
        infra: true,
    }
}

fn delete() -> Step {
    Step::DeleteMachine {
        name: "a".to_owned(),
        uid: "uid-a".to_owned(),
    }
}

#[test]
fn what_etcd_does_not_do_is_said_of_etcd() {
    let waits = Report::yes("Deleting", "WaitingForPreTerminateHook");
    let mut seen = three();
    seen.members[0] = with_condition(deleting(seen.members[0].clone()), waits);
    let moves = Step::MoveLeader {
        from: address("a"),
        to: 2,
        to_name: "b".to_owned(),
    };
    let removes = Step::RemoveEtcdMember {
        id: 1,
        name: "a".to_owned(),
        through: vec![address("b")],
    };
    for step in [snapshot(), moves, removes] {
        let failure = Failure::transient("EtcdRequestFailed", "the store is full");
        let said = saying(&after(&seen, step, failure), "the store is full");
        assert_eq!(
            said,
            [("EtcdClusterHealthy".to_owned(), ConditionStatus::True)]
        );
    }
}

#[test]
fn what_holds_up_a_replacement_is_said_of_it() {
    let mut seen = three();
    seen.members[0] = deleting(given_up(seen.members[0].clone()));
    noted(&mut seen, "a", 0);
    for (step, all) in [
        (snapshot(), &["EtcdClusterHealthy", "Remediating"][..]),
        (delete(), &["Remediating"]),
    ] {
        let said = saying(&after(&seen, step, refused()), "the webhook says no");
        let mut types: Vec<&str> = said.iter().map(|(type_, _)| type_.as_str()).collect();
        types.sort_unstable();
        assert_eq!(types, all);
    }
}

#[test]
fn what_nothing_else_says_is_said_where_machines_are_made() {
    let seen = three();
    for step in [patch(), complete(), Step::AdoptTemplate] {
        let said = saying(&after(&seen, step, refused()), "the webhook says no");
        assert_eq!(said, [("ScalingUp".to_owned(), ConditionStatus::False)]);
    }
    let race = Failure::transient("Conflict", "changed meanwhile");
    assert_eq!(saying(&after(&seen, patch(), race), "meanwhile"), []);
    let mut seen = three();
    seen.desired = Ok(desired(5));
    let told = after(&seen, complete(), refused());
    let said = message_of(&told, "ScalingUp");
    assert_eq!(said.matches("the webhook says no").count(), 1, "{said}");
}

#[test]
fn a_deletion_that_is_refused_says_so() {
    let mut seen = three();
    seen.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let told = after(&seen, delete(), refused());
    let said = told.conditions.iter().find(|it| it.type_ == "Deleting");
    let said = said.unwrap();
    assert_eq!(
        (said.status, said.reason.as_str()),
        (ConditionStatus::True, "InternalError")
    );
    assert_eq!(said.message, "the webhook says no\n* Machines: a, b, c");
}

#[test]
fn an_object_that_is_refused_keeps_nothing_else_from_being_done() {
    for step in [patch(), complete(), Step::AdoptTemplate] {
        assert!(step.is_on_its_own(false), "{step:?}");
    }
    // What comes after these needs them.
    let noted = Step::Annotate {
        annotations: json!({}),
    };
    for step in [
        snapshot(),
        noted,
        Step::BeforeJoin { is_rollout: true },
        Step::EnsureMaterial,
    ] {
        assert!(!step.is_on_its_own(false), "{step:?}");
    }
    assert!(!delete().is_on_its_own(false), "one at a time");
    assert!(delete().is_on_its_own(true), "all at once");
}
