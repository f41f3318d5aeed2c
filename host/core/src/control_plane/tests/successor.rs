//! Cases of machines that go for one that comes: what its coming needs is there before.

use super::super::adoption::Foreign;
use super::super::remediation;
use super::*;

fn three() -> Observed {
    let members = [("a", "a"), ("b", "b"), ("c", "a")];
    running(
        3,
        members.map(|(name, domain)| member(name, domain)).to_vec(),
    )
}

#[test]
fn without_surge_the_cluster_is_prepared_before_a_machine_goes() {
    let mut seen = three();
    let mut wanted = desired(3);
    wanted.max_surge = 0;
    wanted.version = "v1.36.1".to_owned();
    seen.desired = Ok(wanted);
    let Size::Do(steps) = size_of(&seen) else {
        panic!("{:?}", size_of(&seen))
    };
    assert!(
        matches!(
            steps.as_slice(),
            [
                Step::BeforeJoin { is_rollout: true },
                Step::MoveLeader { .. },
                Step::DeleteMachine { .. }
            ]
        ),
        "{steps:?}"
    );
    let whole = seen.material.clone();
    seen.material = Lookup::Found(MaterialState {
        missing: vec!["c-ca".to_owned()],
        ..MaterialState::default()
    });
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("c-ca")));
    let gone = "Secret n/c-apiserver-etcd-client does not exist: create it with tls.crt";
    seen.material = Lookup::Found(MaterialState {
        lost: vec![gone.to_owned()],
        ..MaterialState::default()
    });
    assert!(matches!(size_of(&seen), Size::Wait(why) if why == gone));
    // One that goes for good needs nobody to come.
    seen.desired = Ok(desired(1));
    let Size::Do(steps) = size_of(&seen) else {
        panic!("{:?}", size_of(&seen))
    };
    assert!(
        !steps.contains(&Step::BeforeJoin { is_rollout: true }),
        "{steps:?}"
    );
    seen.material = whole;
    assert_eq!(deleted(&size_of(&seen)), Some("a"));
}

#[test]
fn no_machine_is_given_up_that_nothing_can_take_the_place_of() {
    let mut whole = three();
    whole.members[0] = given_up(whole.members[0].clone());
    let refusal = |seen: &Observed| {
        let deletes = |step: &Step| matches!(step, Step::DeleteMachine { .. });
        assert!(!decide(seen, now()).steps.iter().any(deletes));
        let (_, report) = remediation::decide(seen, now()).refused.unwrap();
        assert_eq!(report.reason, "RemediationDeferred");
        report.message
    };
    assert!(
        remediation::decide(&whole, now()).refused.is_none(),
        "nothing is in the way"
    );
    let mut seen = whole.clone();
    seen.template = Lookup::Missing;
    assert_eq!(
        refusal(&seen),
        "waiting for LocalMachineTemplate cp to exist"
    );
    // Nor the next one, once one has gone.
    let record = remediation::Record {
        machine: "gone".to_owned(),
        timestamp: now() - SignedDuration::from_secs(60),
        retry_count: 0,
    };
    seen.object["metadata"]["annotations"] =
        json!({annotation::REMEDIATION_IN_PROGRESS: record.text()});
    view(&mut seen).members[0].answer = Lookup::Unknown("silent".to_owned());
    seen.desired = Ok(desired(5));
    assert_eq!(
        remediation::decide(&seen, now()),
        remediation::Remedy::default()
    );
    let mut seen = whole.clone();
    seen.foreign = vec![Foreign {
        name: "theirs".to_owned(),
        owner: Some("Other o".to_owned()),
        ..Foreign::default()
    }];
    assert!(refusal(&seen).contains("theirs: it belongs to Other o"));
    let mut seen = whole.clone();
    let material = MaterialState {
        missing: vec!["c-ca".to_owned()],
        ..MaterialState::default()
    };
    seen.material = Lookup::Found(material);
    assert!(refusal(&seen).contains("c-ca"));
}
