//! Cases of what cannot be found out, or is not there yet: nothing is taken for done, and what is waited for is said.

use super::super::adoption::Foreign;
use super::*;

fn silent() -> Failure {
    Failure::transient("PluginFailed", "the plugin does not answer")
}

fn find<'a>(reported: &'a Reported, type_: &str) -> Option<&'a Report> {
    reported.conditions.iter().find(|it| it.type_ == type_)
}

#[test]
fn without_an_endpoint_everything_says_what_is_waited_for() {
    let mut seen = observed(1);
    if let Lookup::Found(cluster) = &mut seen.cluster {
        cluster.spec.control_plane_endpoint = None;
    }
    let told = reported(&seen);
    let why = "waiting for Cluster spec.controlPlaneEndpoint to be set";
    for type_ in ["EtcdClusterHealthy", "ControlPlaneComponentsHealthy"] {
        let said = find(&told, type_).unwrap();
        assert_eq!(
            (said.status, said.reason.as_str(), said.message.as_str()),
            (ConditionStatus::Unknown, common::INSPECTION_FAILED, why)
        );
    }
    let said = message_of(&told, "ScalingUp");
    assert_eq!(said, format!("from 0 to 1 machines\n* {why}"));
}

#[test]
fn who_cannot_be_asked_has_not_said_that_all_is_up_to_date() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.object["status"] = json!({
        "upToDateReplicas": 0,
        "conditions": [{"type": "CertificatesAvailable", "status": "True", "reason": "Available"}],
    });
    assert_eq!(reported(&seen).status["upToDateReplicas"], 1);
    assert!(!reported(&seen).keeps_generation);
    seen.desired = Err(silent());
    seen.material = Lookup::Missing;
    let told = reported(&seen);
    assert_eq!(told.status["upToDateReplicas"], 0);
    assert!(told.keeps_generation);
    assert_eq!(status_of(&told, "RollingOut"), ConditionStatus::Unknown);
    assert_eq!(
        status_of(&told, "CertificatesAvailable"),
        ConditionStatus::True,
        "it is nothing to the certificates"
    );
    seen.object["status"] = json!({});
    let told = reported(&seen);
    assert!(told.status.get("upToDateReplicas").is_none());
    let said = find(&told, "CertificatesAvailable").unwrap();
    assert_eq!(said.status, ConditionStatus::Unknown);
    assert_eq!(said.message, "the plugin does not answer");
}

#[test]
fn nothing_comes_or_goes_while_it_is_not_known_what_is_outdated() {
    let mut seen = running(1, ["a", "b"].map(|name| member(name, "a")).to_vec());
    assert_eq!(deleted(&size_of(&seen)), Some("a"));
    // This one would stay.
    seen.members[1].outdated = Err(silent());
    assert!(matches!(size_of(&seen), Size::Wait(why) if why == "the plugin does not answer"));
    let told = reported(&seen);
    let said = find(&told, "RollingOut").unwrap();
    assert_eq!(said.status, ConditionStatus::Unknown);
    assert_eq!(said.message, "the plugin does not answer");
    assert!(told.status.get("upToDateReplicas").is_none());
    assert_eq!(
        status_of(&told, "MachinesUpToDate"),
        ConditionStatus::Unknown
    );
}

#[test]
fn what_would_keep_machines_from_being_made_is_said_before_one_is_wanted() {
    let mut seen = running(1, vec![member("a", "a")]);
    assert_eq!(message_of(&reported(&seen), "ScalingUp"), "");
    seen.template = Lookup::Missing;
    let told = reported(&seen);
    assert_eq!(status_of(&told, "ScalingUp"), ConditionStatus::False);
    assert_eq!(
        message_of(&told, "ScalingUp"),
        "scaling up would be blocked\n* waiting for LocalMachineTemplate cp to exist"
    );
    seen.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(message_of(&reported(&seen), "ScalingUp"), "");
}

#[test]
fn strangers_beside_machines_of_its_own_are_named_and_told_of_once() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.foreign = ["x", "y"]
        .map(|name| Foreign {
            name: name.to_owned(),
            owner: Some("Other o".to_owned()),
            ..Foreign::default()
        })
        .to_vec();
    let told = |seen: &Observed| {
        let steps = decide(seen, now()).steps.into_iter();
        let tells = steps.filter(
            |step| matches!(step, Step::Tell { reason, .. } if *reason == "AdoptionFailed"),
        );
        tells.count()
    };
    assert_eq!(told(&seen), 1);
    let report = reported(&seen);
    let said = message_of(&report, "ScalingUp").to_owned();
    for name in ["x", "y"] {
        let line = format!("\n* Machine {name}: it belongs to Other o");
        assert!(said.contains(&line), "{said}");
    }
    seen.object["status"] = json!({"conditions": [
        {"type": "ScalingUp", "status": "False", "reason": "NotScalingUp", "message": said, "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]});
    assert_eq!(told(&seen), 0, "it is known");
}

#[test]
fn an_etcd_that_is_to_come_is_not_known_and_one_that_nobody_looks_after_is_not_spoken_of() {
    let mut seen = observed(1);
    let told = reported(&seen);
    let said = find(&told, "EtcdClusterHealthy").unwrap();
    assert_eq!(said.status, ConditionStatus::Unknown);
    assert_eq!(said.reason, common::INSPECTION_FAILED);
    assert_eq!(
        said.message,
        "waiting for the control plane to be initialized"
    );
    if let Lookup::Found(cluster) = &mut seen.cluster {
        cluster.status = None;
    }
    let told = reported(&seen);
    let said = message_of(&told, "EtcdClusterHealthy");
    assert!(said.contains("infrastructureProvisioned"), "{said}");
    seen.expects_etcd = false;
    assert!(find(&reported(&seen), "EtcdClusterHealthy").is_none());
}

#[test]
fn nothing_is_available_whose_certificates_cannot_be_looked_at() {
    let mut seen = running(3, ["a", "b", "c"].map(|name| member(name, "a")).to_vec());
    assert_eq!(
        status_of(&reported(&seen), "Available"),
        ConditionStatus::True
    );
    seen.material = Lookup::Unknown("Secrets cannot be read".to_owned());
    let told = reported(&seen);
    let said = find(&told, "Available").unwrap();
    assert_eq!(
        (said.status, said.reason.as_str(), said.message.as_str()),
        (
            ConditionStatus::Unknown,
            common::AVAILABLE_UNKNOWN,
            "certificates: Secrets cannot be read"
        )
    );
    // That is no reason to doubt what is known to be bad.
    for at in [0, 1] {
        view(&mut seen).members[at].answer = Lookup::Unknown("silent".to_owned());
    }
    let told = reported(&seen);
    assert_eq!(status_of(&told, "Available"), ConditionStatus::False);
}

#[test]
fn the_last_version_stays_when_no_machine_has_one() {
    let mut seen = observed(1);
    assert!(reported(&seen).status.get("version").is_none());
    seen.object["status"] = json!({"version": "v1.35.2"});
    let told = reported(&seen);
    assert_eq!(told.status["version"], "v1.35.2");
    assert!(told.status.get("versions").is_none());
    seen.members = ["v1.10.0", "v1.9.1", "v1.9.1"]
        .iter()
        .zip(["a", "b", "c"])
        .map(|(version, name)| {
            let mut member = member(name, "a");
            member.machine.spec.version = Some((*version).to_owned());
            member
        })
        .collect();
    let told = reported(&seen);
    assert_eq!(told.status["version"], "v1.9.1");
    assert_eq!(
        told.status["versions"],
        json!([{"version": "v1.9.1", "replicas": 2}, {"version": "v1.10.0", "replicas": 1}]),
        "as versions, not as words"
    );
}

#[test]
fn machines_without_components_are_as_healthy_as_their_nodes() {
    let type_ = "ControlPlaneComponentsHealthy";
    for (ready, status) in [
        ("True", ConditionStatus::True),
        ("False", ConditionStatus::False),
        ("Unknown", ConditionStatus::Unknown),
    ] {
        let mut seen = running(
            3,
            vec![
                plain_member("a", "True"),
                plain_member("b", ready),
                plain_member("c", "True"),
            ],
        );
        seen.etcd = Lookup::Missing;
        let told = reported(&seen);
        assert_eq!(status_of(&told, type_), status);
        let names_it = message_of(&told, type_).contains("* Machine b: ControlPlaneNodeReady");
        assert_eq!(names_it, ready != "True");
    }
}
