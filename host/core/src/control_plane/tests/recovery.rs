//! A majority of etcd that is lost: that it is said, what people do then, and which member goes on.

use super::membership::{steps, three, waiting};
use super::*;

#[test]
fn a_lost_majority_is_said_with_the_way_out_and_nothing_is_done() {
    let mut seen = three();
    seen.desired = Ok(desired(5));
    view(&mut seen).has_quorum = false;
    view(&mut seen).members[0].is_leader = false;
    for at in [0, 1] {
        view(&mut seen).members[at].answer = Lookup::Unknown("connection refused".to_owned());
    }
    view(&mut seen).members[2].answer = at_index(7);
    seen.members[0] = given_up(seen.members[0].clone());
    seen.members[1] = waiting(seen.members[1].clone());
    assert!(
        !steps(&seen).iter().any(|s| matches!(
            s,
            Step::DeleteMachine { .. }
                | Step::RemoveEtcdMember { .. }
                | Step::CreateMachine { .. }
                | Step::Patch { .. }
        )),
        "{:?}",
        steps(&seen)
    );
    let told = reported(&seen);
    let message = message_of(&told, "EtcdClusterHealthy");
    for part in [
        "2 of 3 members",
        "(a, b)",
        "bring one of them back",
        "go on with c, whose raft index 7 is the highest, and stop etcd on all other machines first, 2.",
        "--force-new-cluster",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(
        status_of(&told, "EtcdClusterHealthy"),
        ConditionStatus::False
    );
    assert_eq!(status_of(&told, "Available"), ConditionStatus::False);
}

fn at_index(raft_index: u64) -> Lookup<Answer> {
    Lookup::Found(Answer {
        raft_index,
        ..Answer::default()
    })
}

#[test]
fn of_those_that_are_left_the_one_that_knows_most_goes_on_alone() {
    let mut seen = running(5, ["a", "b", "c", "d", "e"].map(|n| member(n, "a")).into());
    let all = view(&mut seen);
    all.has_quorum = false;
    for (at, answer) in [
        (0, Lookup::Unknown("connection refused".to_owned())),
        (1, at_index(90)),
        (2, Lookup::Unknown("connection refused".to_owned())),
        (3, at_index(100)),
        (4, Lookup::Unknown("connection refused".to_owned())),
    ] {
        all.members[at].is_leader = false;
        all.members[at].answer = answer;
    }
    let said = |seen: &Observed| message_of(&reported(seen), "EtcdClusterHealthy").to_owned();
    for part in [
        "3 of 5 members are gone or do not answer (a, c, e)",
        "bring one of them back",
        "1. go on with d, whose raft index 100 is the highest, and stop etcd on all other machines first (b still answers)",
        "the flag must not stay in its manifest",
        "3. delete the Machines of all others",
    ] {
        assert!(said(&seen).contains(part), "{part}: {}", said(&seen));
    }
    // What a learner has, nobody has voted on.
    view(&mut seen).members[3].is_learner = true;
    assert!(said(&seen).contains("go on with b, whose raft index 90"));
    view(&mut seen).members[3].is_learner = false;
    view(&mut seen).members[3].answer = Lookup::Unknown("connection refused".to_owned());
    assert!(
        said(&seen).contains("bring 2 of them back"),
        "{}",
        said(&seen)
    );
    // A member that does not say how far it is.
    view(&mut seen).members[1].answer = at_index(0);
    assert!(said(&seen).contains("`etcdctl endpoint status`"));
}

#[test]
fn the_page_has_the_sections_that_messages_name() {
    let page = include_str!("../../../../docs/etcd.md");
    let seen = three();
    let again = etcd::start_again(&seen);
    assert!(
        again.starts_with("keep the Secrets c-ca, c-etcd, c-proxy and c-sa, "),
        "{again}"
    );
    let mut lost = etcd_of(&seen.members);
    let Lookup::Found(view) = &mut lost else {
        panic!("there is no etcd")
    };
    view.has_quorum = false;
    view.members[0].answer = Lookup::Unknown("silent".to_owned());
    view.members[1].answer = Lookup::Unknown("silent".to_owned());
    for said in [again, etcd::lost_majority_of(view).unwrap()] {
        let (_, named) = said.split_once("host/docs/etcd.md, \"").unwrap();
        let (section, _) = named.split_once('"').unwrap();
        let heading = format!("## {section}");
        assert!(page.lines().any(|line| line == heading), "{heading}");
    }
}

#[test]
fn without_an_api_server_what_is_known_of_the_machines_tells() {
    let mut seen = three();
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    seen.connected = false;
    seen.etcd = Lookup::Missing;
    assert_eq!(etcd::lost_majority(&seen), None);
    for at in [0, 1] {
        let mut gone = with_condition(
            seen.members[at].clone(),
            Report::no("InfrastructureReady", "NotReady"),
        );
        let status = gone.machine.status.as_mut().unwrap();
        status.initialization = Some(capstan_api::v1beta2::MachineInitializationStatus {
            bootstrap_data_secret_created: Some(true),
            infrastructure_provisioned: Some(true),
        });
        seen.members[at] = gone;
        assert_eq!(etcd::lost_majority(&seen).is_some(), at == 1);
    }
    let told = reported(&seen);
    let said = message_of(&told, "EtcdClusterHealthy");
    for part in [
        "(a, b)",
        "go on with c, and stop etcd on all other machines",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // An API server may answer while its etcd does not.
    seen.connected = true;
    assert_eq!(etcd::lost_majority(&seen), None, "nobody was asked");
    seen.etcd = Lookup::Unknown("port-forward: tls handshake eof".to_owned());
    assert!(
        message_of(&reported(&seen), "EtcdClusterHealthy").contains("has lost its majority: 2")
    );
}

#[test]
fn an_api_server_that_misses_its_etcd_tells() {
    let mut seen = three();
    seen.etcd = Lookup::Unknown("port-forward: connection refused".to_owned());
    assert_eq!(etcd::lost_majority(&seen), None);
    seen.etcd = Lookup::Unknown("port-forward: etcdserver: request timed out".to_owned());
    assert!(message_of(&reported(&seen), "EtcdClusterHealthy").contains("lost its majority"));
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    seen.connected = false;
    seen.etcd = Lookup::Missing;
    assert_eq!(etcd::lost_majority(&seen), None);
    seen.connection_error = Some("etcdserver: request timed out".to_owned());
    assert!(message_of(&reported(&seen), "EtcdClusterHealthy").contains("--force-new-cluster"));
    assert_eq!(
        status_of(&reported(&seen), "Available"),
        ConditionStatus::False
    );
}

#[test]
fn a_long_silence_names_the_page() {
    let mut seen = three();
    seen.etcd = Lookup::Unknown("port-forward: tls handshake eof".to_owned());
    for (at, is_long) in [("00:58:00", false), ("00:57:00", true)] {
        seen.object["status"] = json!({"conditions": [{
            "type": "EtcdClusterHealthy", "status": "Unknown", "reason": "HealthUnknown",
            "lastTransitionTime": format!("2026-01-01T{at}Z"),
        }]});
        let told = reported(&seen);
        let said = message_of(&told, "EtcdClusterHealthy");
        let is_named = said.contains("host/docs/etcd.md, \"A lost majority\"");
        assert_eq!(is_named, is_long, "{said}");
        assert_eq!(
            status_of(&told, "EtcdClusterHealthy"),
            ConditionStatus::Unknown
        );
    }
}
