//! Cases of the plugin's work inside the workload cluster.

use super::super::in_cluster::StableWork;
use super::*;
use crate::plan::Failure;

fn stable() -> Observed {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    seen
}

fn asks(seen: &Observed) -> bool {
    decide(seen, now()).steps.contains(&Step::AfterStable)
}

fn tried(ago_s: i64, failure: Option<Failure>) -> Option<StableWork> {
    let at = now() - SignedDuration::from_secs(ago_s);
    Some(StableWork { at, failure })
}

#[test]
fn a_stable_cluster_is_tended_once_and_again_after_a_while() {
    let mut seen = stable();
    assert!(asks(&seen));
    seen.stable_work = tried(599, None);
    assert!(!asks(&seen));
    seen.stable_work = tried(600, None);
    assert!(asks(&seen));
}

#[test]
fn nothing_is_tended_while_machines_come_go_or_are_not_well() {
    let mut seen = stable();
    seen.members[0].components[0].pod = pod("False");
    assert!(!asks(&seen));
    let mut seen = stable();
    seen.members[0].machine.spec.version = Some("v1.35.0".to_owned());
    assert!(!asks(&seen));
    let mut seen = stable();
    seen.connected = false;
    assert!(!asks(&seen));
    let mut seen = stable();
    seen.desired = Ok(desired(3));
    assert!(!asks(&seen));
}

#[test]
fn what_is_not_done_is_said_until_it_is() {
    let mut seen = stable();
    let type_ = condition_type::IN_CLUSTER_COMPONENTS_UP_TO_DATE;
    let says = |seen: &Observed| reported(seen).conditions.iter().any(|c| c.type_ == type_);
    assert!(!says(&seen), "nothing to say costs no write");
    seen.stable_work = tried(31, Some(Failure::denied("WorkloadDenied", "add this")));
    assert!(!asks(&seen), "a person has to act first");
    assert_eq!(status_of(&reported(&seen), type_), ConditionStatus::False);
    assert_eq!(message_of(&reported(&seen), type_), "add this");
    seen.stable_work = tried(31, Some(Failure::transient("WorkloadConflict", "later")));
    assert!(asks(&seen));
    // A host that starts anew has not tried yet.
    let stored = json!({"type": type_, "status": "False", "reason": "NotUpToDate", "message": "later",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    seen.object["status"]["conditions"] = json!([stored]);
    seen.stable_work = None;
    assert_eq!(message_of(&reported(&seen), type_), "later");
    seen.stable_work = tried(0, None);
    assert_eq!(status_of(&reported(&seen), type_), ConditionStatus::True);
}

#[test]
fn a_rollout_that_the_plugin_holds_says_why() {
    let mut seen = stable();
    seen.members[0].machine.spec.version = Some("v1.35.0".to_owned());
    let plan = decide(&seen, now());
    let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
    assert!(
        at(|s| *s == Step::BeforeJoin { is_rollout: true })
            < at(|s| matches!(s, Step::CreateMachine { .. })),
        "{:?}",
        plan.steps
    );
    let failure = Failure::denied("WorkloadDenied", "add this to spec.grants");
    let outcome = Outcome {
        done: vec![],
        failed: Some((Step::BeforeJoin { is_rollout: true }, failure)),
    };
    let said = report(&seen, &plan, &outcome, now());
    assert!(message_of(&said, "RollingOut").contains("add this to spec.grants"));
}
