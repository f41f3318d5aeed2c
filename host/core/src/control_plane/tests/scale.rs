//! From nothing to as many machines as are wanted, and back.

use super::*;

#[test]
fn the_first_machine_comes_after_certificates_and_kubeconfig() {
    let mut seen = observed(3);
    seen.material = Lookup::Found(MaterialState {
        missing: vec!["c-ca".to_owned()],
        unowned: vec![],
        kubeconfig_due: true,
        ..MaterialState::default()
    });
    let steps = decide(&seen, now()).steps;
    assert_eq!(steps[0], Step::EnsureMaterial);
    assert_eq!(
        steps[1],
        Step::EnsureKubeconfig {
            server: "https://h:6443".to_owned()
        }
    );
    let Step::CreateMachine {
        name,
        role,
        failure_domain,
        ..
    } = &steps[2]
    else {
        panic!("{steps:?}")
    };
    assert!(name.starts_with("cp-"), "{name}");
    assert_eq!((*role, failure_domain.as_deref()), (Role::Init, Some("a")));
    assert_eq!(steps.len(), 3);
    assert_eq!(
        decide(&seen, now()).steps,
        steps,
        "the same name for the same state"
    );
}

#[test]
fn nothing_is_made_before_infrastructure_endpoint_and_template() {
    let mut seen = observed(1);
    seen.template = Lookup::Missing;
    assert!(decide(&seen, now()).steps.is_empty());
    assert!(message_of(&reported(&seen), "ScalingUp").contains("LocalMachineTemplate cp"));
    let mut seen = observed(1);
    if let Lookup::Found(cluster) = &mut seen.cluster {
        cluster.spec.control_plane_endpoint = None;
    }
    assert!(decide(&seen, now()).steps.is_empty());
    if let Lookup::Found(cluster) = &mut seen.cluster {
        cluster.status = None;
    }
    assert_eq!(decide(&seen, now()), Plan::settled());
}

#[test]
fn a_cluster_that_is_up_never_gets_new_certificates() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    seen.material = Lookup::Found(MaterialState {
        missing: vec!["c-ca".to_owned()],
        unowned: vec!["c-sa".to_owned()],
        kubeconfig_due: true,
        ..MaterialState::default()
    });
    let steps = decide(&seen, now()).steps;
    assert!(
        !steps
            .iter()
            .any(|s| matches!(s, Step::EnsureMaterial | Step::EnsureKubeconfig { .. })),
        "{steps:?}"
    );
    let reported = reported(&seen);
    assert_eq!(
        status_of(&reported, "CertificatesAvailable"),
        ConditionStatus::False
    );
    assert_eq!(status_of(&reported, "Available"), ConditionStatus::False);
}

#[test]
fn what_others_provide_is_watched_over_in_a_cluster_that_is_up() {
    let mut seen = running(3, vec![member("a", "a")]);
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    let gone =
        "Secret n/c-apiserver-etcd-client does not exist: create it with tls.crt and tls.key";
    seen.material = Lookup::Found(MaterialState {
        lost: vec![gone.to_owned()],
        kubeconfig_due: true,
        ..MaterialState::default()
    });
    let steps = decide(&seen, now()).steps;
    let makes = |step: &Step| matches!(step, Step::CreateMachine { .. });
    assert!(!steps.iter().any(makes), "{steps:?}");
    let renews = |step: &Step| matches!(step, Step::EnsureKubeconfig { .. });
    assert!(steps.iter().any(renews), "that needs none of it: {steps:?}");
    let said = reported(&seen);
    assert_eq!(
        status_of(&said, "CertificatesAvailable"),
        ConditionStatus::False
    );
    assert_eq!(message_of(&said, "CertificatesAvailable"), gone);
    assert!(message_of(&said, "ScalingUp").contains(gone));
}

#[test]
fn a_control_plane_whose_status_was_lost_gets_no_other_certificates() {
    let mut seen = running(3, vec![member("a", "a")]);
    (seen.connected, seen.initialized) = (false, Lookup::Missing);
    seen.material = Lookup::Found(MaterialState {
        missing: vec!["c-sa".to_owned()],
        ..MaterialState::default()
    });
    let ensures = |seen: &Observed| decide(seen, now()).steps.contains(&Step::EnsureMaterial);
    assert!(ensures(&seen), "nobody was given any");
    seen.members[0].machine.spec.bootstrap.data_secret_name = Some("a".to_owned());
    assert!(!ensures(&seen));
}

#[test]
fn there_is_one_machine_until_it_has_initialized_the_control_plane() {
    let mut seen = running(3, vec![member("a", "a")]);
    seen.initialized = Lookup::Missing;
    assert!(matches!(size_of(&seen), Size::Wait(_)));
    seen.initialized = Lookup::Found(());
    let Size::Do(steps) = size_of(&seen) else {
        panic!()
    };
    // A roll-out that was taken back may have left settings behind.
    let [
        Step::BeforeJoin { is_rollout: false },
        Step::CreateMachine {
            role,
            failure_domain,
            ..
        },
    ] = steps.as_slice()
    else {
        panic!("{steps:?}")
    };
    assert_eq!(
        (*role, failure_domain.as_deref()),
        (Role::JoinControlPlane, Some("b"))
    );
}

#[test]
fn nothing_joins_before_the_cluster_says_that_there_is_something_to_join() {
    let mut seen = running(3, vec![member("a", "a")]);
    assert!(matches!(size_of(&seen), Size::Do(_)));
    if let Lookup::Found(cluster) = &mut seen.cluster {
        let status = cluster.status.as_mut().unwrap();
        status
            .initialization
            .as_mut()
            .unwrap()
            .control_plane_initialized = None;
    }
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("Cluster")));
}

#[test]
fn machines_join_one_by_one_and_only_beside_healthy_ones() {
    let mut seen = running(3, vec![member("a", "a")]);
    seen.members[0].components[0].pod = pod("False");
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("Machine a")));
    let mut seen = running(3, vec![member("a", "a")]);
    seen.members[0].machine.status = None;
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("no Node")));
    let seen = running(3, vec![member("a", "a"), deleting(member("b", "b"))]);
    assert!(matches!(size_of(&seen), Size::Wait(_)));
    let mut seen = running(3, vec![member("a", "a")]);
    seen.connected = false;
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    assert!(
        matches!(size_of(&seen), Size::Wait(_)),
        "what cannot be seen is not healthy"
    );
}

#[test]
fn without_a_datastore_the_oldest_of_the_fullest_domain_goes() {
    let mut seen = running(
        1,
        vec![member("a", "a"), member("b", "b"), member("c", "a")],
    );
    for member in &mut seen.members {
        member.datastore = None;
        member.etcd = None;
    }
    assert_eq!(deleted(&size_of(&seen)), Some("a"));
}

#[test]
fn a_machine_in_a_domain_that_the_cluster_has_no_more_goes_before_others() {
    for gone in ["gone", "w"] {
        let mut members = vec![member("a", "a"), member("b", "a"), member("c", gone)];
        for member in &mut members {
            member.datastore = None;
            member.etcd = None;
        }
        assert_eq!(deleted(&size_of(&running(1, members))), Some("c"), "{gone}");
    }
}

#[test]
fn a_version_that_is_too_far_ahead_is_waited_with_and_the_way_is_named() {
    for (has, replicas) in [("v1.34.2", 1), ("v1.34.2", 3), ("v0.36.0", 3)] {
        let mut seen = running(
            replicas,
            vec![member("a", "a"), member("b", "b"), member("c", "a")],
        );
        if replicas == 1 {
            seen.members.truncate(1);
            seen.etcd = etcd_of(&seen.members);
        }
        for member in &mut seen.members {
            member.machine.spec.version = Some(has.to_owned());
        }
        let first = if has == "v0.36.0" { "v0.37" } else { "v1.35" };
        for surge in [1, 0] {
            seen.desired.as_mut().unwrap().max_surge = surge;
            let said = format!("above {has} of Machine a: set spec.version to {first} first");
            assert!(
                matches!(size_of(&seen), Size::Wait(why) if why.contains(&said)),
                "{said}"
            );
        }
        assert!(message_of(&reported(&seen), "RollingOut").contains("more than one minor version"));
    }
    // Fewer are possible at any time.
    let mut seen = running(
        1,
        vec![member("a", "a"), member("b", "b"), member("c", "a")],
    );
    seen.members[1].machine.spec.version = Some("v1.34.2".to_owned());
    assert_eq!(deleted(&size_of(&seen)), Some("b"));
}

#[test]
fn a_marked_machine_goes_first() {
    let mut seen = running(
        1,
        vec![member("a", "a"), member("b", "a"), member("c", "b")],
    );
    let annotations = seen.members[2]
        .machine
        .metadata
        .annotations
        .as_mut()
        .unwrap();
    annotations.insert(annotation::DELETE_MACHINE.to_owned(), String::new());
    assert_eq!(deleted(&size_of(&seen)), Some("c"));
}

#[test]
fn an_outdated_machine_is_replaced_before_it_is_deleted() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.members[0].machine.spec.version = Some("v1.35.0".to_owned());
    assert!(
        matches!(size_of(&seen), Size::Do(steps) if matches!(steps.as_slice(), [Step::BeforeJoin { is_rollout: true }, Step::CreateMachine { .. }]))
    );
    assert_eq!(
        status_of(&reported(&seen), "RollingOut"),
        ConditionStatus::True
    );
    seen.members.push(member("b", "b"));
    seen.etcd = etcd_of(&seen.members);
    assert_eq!(deleted(&size_of(&seen)), Some("a"));
}

#[test]
fn a_first_machine_that_goes_leaves_nothing_that_could_be_joined() {
    let is_called_initialized = |seen: &Observed| {
        let told = reported(seen);
        let is = told.status.get("initialization").is_some();
        assert_eq!(status_of(&told, "Initialized") == ConditionStatus::True, is);
        is
    };
    let mut seen = running(3, vec![member("a", "a")]);
    assert!(is_called_initialized(&seen));
    // kubeadm was done in the moment in which somebody deleted it.
    seen.members = vec![deleting(member("a", "a"))];
    assert!(!is_called_initialized(&seen));
    seen.members = vec![given_up(member("a", "a"))];
    assert!(!is_called_initialized(&seen));
    let deletes = |step: &Step| matches!(step, Step::DeleteMachine { .. });
    assert!(decide(&seen, now()).steps.iter().any(deletes));
    // The connection outlives the machine for a moment.
    seen.members.clear();
    assert!(!is_called_initialized(&seen));
    let steps = decide(&seen, now()).steps;
    let begins = |step: &Step| {
        matches!(
            step,
            Step::CreateMachine {
                role: Role::Init,
                ..
            }
        )
    };
    assert!(steps.iter().any(begins), "{steps:?}");
    // One of several leaves the others, and what has been said stays.
    seen.members = vec![deleting(member("a", "a")), member("b", "a")];
    assert!(is_called_initialized(&seen));
    seen.members.pop();
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    assert!(is_called_initialized(&seen));
    // There are control planes without machines.
    let mut seen = running(0, vec![]);
    seen.etcd = Lookup::Missing;
    assert!(is_called_initialized(&seen));
}
