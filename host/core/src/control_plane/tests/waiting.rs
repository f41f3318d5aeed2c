//! Cases of what is said while nothing goes on: certificates that cannot be used, machines and members that are not well.

use super::*;

fn told(seen: &Observed) -> Vec<Step> {
    let mut steps = decide(seen, now()).steps;
    steps.retain(|step| matches!(step, Step::Tell { .. }));
    steps
}

fn initialized(minutes_ago: i64) -> Value {
    let since = now() - SignedDuration::from_mins(minutes_ago);
    json!({
        "initialization": {"controlPlaneInitialized": true},
        "conditions": [{"type": "Initialized", "status": "True", "reason": "Initialized", "lastTransitionTime": since.to_string()}],
    })
}

fn available(seen: &Observed) -> Report {
    let reported = reported(seen).conditions;
    let found = reported.into_iter().find(|it| it.type_ == "Available");
    found.unwrap()
}

#[test]
fn no_machine_is_made_of_certificates_that_cannot_be_used() {
    let mut seen = observed(3);
    seen.material = Lookup::Found(MaterialState {
        unusable: vec!["Secret n/c-sa: tls.key does not belong to tls.crt. Correct it".to_owned()],
        kubeconfig_due: true,
        ..MaterialState::default()
    });
    assert_eq!(decide(&seen, now()).steps, []);
    let said = reported(&seen);
    assert_eq!(
        status_of(&said, "CertificatesAvailable"),
        ConditionStatus::False
    );
    assert!(message_of(&said, "CertificatesAvailable").starts_with("Secret n/c-sa: tls.key"));
    assert!(message_of(&said, "ScalingUp").contains("Secret n/c-sa: tls.key"));
}

#[test]
fn machines_that_hold_the_others_are_an_event_once() {
    let mut seen = running(3, vec![member("a", "a")]);
    assert_eq!(told(&seen), []);
    seen.members[0].components[0].pod = pod("False");
    let why = "the components of Machine a are not all healthy";
    assert_eq!(
        told(&seen),
        [Step::Tell {
            reason: "ControlPlaneUnhealthy",
            note: why.to_owned(),
        }]
    );
    let message = message_of(&reported(&seen), "ScalingUp").to_owned();
    assert!(message.contains(why), "{message}");
    seen.object["status"] = json!({"conditions": [
        {"type": "ScalingUp", "status": "True", "reason": "ScalingUp", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]});
    assert_eq!(told(&seen), [], "it is known");
    seen.object["status"] = json!({});
    let young = now() - SignedDuration::from_mins(1);
    seen.members[0].machine.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(young));
    assert_eq!(told(&seen), [], "it is coming up");
}

#[test]
fn nobody_to_ask_is_not_available_for_two_minutes_and_then_unknown() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.etcd = Lookup::Unknown("no route".to_owned());
    for (minutes, status, reason) in [
        (1, ConditionStatus::False, common::NOT_AVAILABLE),
        (3, ConditionStatus::Unknown, common::INSPECTION_FAILED),
    ] {
        seen.object["status"] = initialized(minutes);
        let said = available(&seen);
        assert_eq!((said.status, said.reason.as_str()), (status, reason));
        assert!(said.message.contains("no route"), "{}", said.message);
    }
}

#[test]
fn members_and_machines_that_do_not_belong_together_are_not_available() {
    let mut seen = running(3, ["a", "b", "c"].map(|name| member(name, "a")).to_vec());
    seen.object["status"] = initialized(60);
    assert_eq!(available(&seen).status, ConditionStatus::True);
    let whole = seen.etcd.clone();
    view(&mut seen).members.push(etcd_member(4, "stranger"));
    let said = available(&seen);
    assert_eq!(said.status, ConditionStatus::False);
    assert!(
        said.message.contains("stranger has no Machine"),
        "{}",
        said.message
    );
    view(&mut seen).members.remove(2);
    seen.members[2].machine.status.as_mut().unwrap().node_ref = None;
    assert_eq!(
        available(&seen).status,
        ConditionStatus::True,
        "it may be the member of a machine that joins"
    );
    seen.members[2] = member("c", "a");
    seen.etcd = whole;
    view(&mut seen).members.pop();
    let said = available(&seen);
    assert!(
        said.message.contains("Machine c has no etcd member"),
        "{}",
        said.message
    );
    let joined = now() - SignedDuration::from_secs(20);
    seen.members[2].node =
        Lookup::Found(json!({"metadata": {"creationTimestamp": joined.to_string()}}).into());
    assert_eq!(
        available(&seen).status,
        ConditionStatus::True,
        "it is joining"
    );
}

#[test]
fn what_is_said_about_a_remediation_goes_with_the_recovery() {
    let forget = |member: Member| {
        let seen = running(3, vec![member]);
        decide(&seen, now())
            .steps
            .contains(&Step::ForgetRemediation {
                name: "a".to_owned(),
            })
    };
    let ill = given_up(member("a", "a"));
    assert!(!forget(ill.clone()));
    let healthy = Report::yes("HealthCheckSucceeded", "HealthCheckSucceeded");
    let well = with_condition(ill, healthy);
    assert!(forget(well.clone()));
    assert!(!forget(deleting(well)));
    assert!(!forget(member("a", "a")));
}

#[test]
fn a_cause_that_is_known_is_said_where_nothing_is_known() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    seen.connected = false;
    seen.tried_since = Some(now() - SignedDuration::from_mins(6));
    let healthy = "ControlPlaneComponentsHealthy";
    let message = |seen: &Observed| message_of(&reported(seen), healthy).to_owned();
    let before = message(&seen);
    seen.connection_said = Some("the wrong authority".to_owned());
    assert_eq!(message(&seen), format!("{before}: the wrong authority"));
}

#[test]
fn who_takes_long_to_look_at_is_looked_at_seldom() {
    let mut seen = running(3, vec![member("a", "a")]);
    seen.members[0].components[0].pod = pod("False");
    let next = |took: u64| {
        let mut seen = seen.clone();
        seen.took = Duration::from_secs(took);
        decide(&seen, now()).next
    };
    let usual = next(0);
    assert_eq!(next(19), usual);
    assert_eq!(next(60), Next::CheckAfter(Duration::from_secs(180)));
}
