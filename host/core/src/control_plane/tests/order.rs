//! Cases of which machine comes first, and of when a control plane is looked at again.

use super::super::{leave, remediation};
use super::*;

/// Conditions about a machine that decide who is replaced first, in their order.
const ORDER: [&str; 6] = [
    "EtcdMemberHealthy",
    "EtcdPodHealthy",
    "APIServerPodHealthy",
    "ControllerManagerPodHealthy",
    "SchedulerPodHealthy",
    "NodeKubeadmLabelsAndTaintsSet",
];

/// A machine that was given up and on which all is said to be well but this.
fn ill(name: &str, lacks: &str) -> Member {
    let well = ORDER.iter().filter(|type_| **type_ != lacks);
    well.fold(given_up(member(name, "a")), |member, type_| {
        with_condition(member, Report::yes(type_, "Healthy"))
    })
}

fn annotate(member: &mut Member, name: &str, value: &str) {
    let annotations = member.machine.metadata.annotations.as_mut().unwrap();
    annotations.insert(name.to_owned(), value.to_owned());
}

fn created(member: &mut Member, time: Timestamp) {
    member.machine.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
}

#[test]
fn who_is_worst_off_is_replaced_first() {
    // Names go the other way, since they are what decides last.
    let mut marked = ill("l", "");
    annotate(&mut marked, annotation::REMEDIATE_MACHINE, "");
    let nodeless = ill("k", "");
    let mut members = vec![marked, nodeless];
    let names = ["j", "i", "h", "g", "f", "e"];
    members.extend(
        names
            .iter()
            .zip(ORDER)
            .map(|(name, lacks)| ill(name, lacks)),
    );
    let mut oldest = ill("d", "");
    created(&mut oldest, now() - SignedDuration::from_hours(9));
    members.extend([oldest, ill("b", ""), ill("c", ""), member("a", "a")]);
    let mut seen = running(12, members);
    seen.members[1].machine.status.as_mut().unwrap().node_ref = None;
    view(&mut seen).members.remove(1);
    seen.members.reverse();
    let mut order = String::new();
    while let Some(first) = deleted(&Size::Do(decide(&seen, now()).steps)) {
        order.push_str(first);
        let first = first.to_owned();
        seen.members.retain(|member| member.name() != first);
        view(&mut seen).members.retain(|own| own.name != first);
    }
    assert_eq!(order, "lkjihgfedbc");
}

#[test]
fn who_was_deleted_first_leaves_etcd_first() {
    let waits = || Report::yes("Deleting", "WaitingForPreTerminateHook");
    let names = ["a", "b", "c", "d", "e"];
    let mut seen = running(5, names.map(|name| member(name, "a")).to_vec());
    for (at, time) in [(1, "00:59:00"), (2, "00:57:00"), (3, "00:58:00")] {
        let mut goes = with_condition(deleting(seen.members[at].clone()), waits());
        let time = format!("2026-01-01T{time}Z").parse().unwrap();
        goes.machine.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        seen.members[at] = goes;
    }
    let removes = leave::hook(&seen, now()).steps;
    assert!(
        matches!(removes.first(), Some(Step::RemoveEtcdMember { name, .. }) if name == "c"),
        "{removes:?}"
    );
}

#[test]
fn of_machines_that_are_outdated_one_that_is_ill_goes_first() {
    let mut seen = running(
        3,
        ["a", "b", "c", "d"].map(|name| member(name, "a")).to_vec(),
    );
    for at in [0, 1] {
        seen.members[at].machine.spec.version = Some("v1.35.0".to_owned());
    }
    assert_eq!(deleted(&size_of(&seen)), Some("a"));
    seen.members[1] = given_up(seen.members[1].clone());
    assert_eq!(
        deleted(&size_of(&seen)),
        Some("a"),
        "all that can be seen of it is well"
    );
    seen.members[1].components[0].pod = pod("False");
    assert_eq!(deleted(&size_of(&seen)), Some("b"));
    annotate(&mut seen.members[2], annotation::DELETE_MACHINE, "");
    assert!(
        matches!(size_of(&seen), Size::Wait(why) if why.contains("Machine b")),
        "who is marked comes before it, and not beside it"
    );
}

#[test]
fn tries_count_for_an_hour_unless_the_control_plane_says_otherwise() {
    let retry = |seconds_ago: i64| {
        let record = remediation::Record {
            machine: "gone".to_owned(),
            timestamp: now() - SignedDuration::from_secs(seconds_ago),
            retry_count: 4,
        };
        let mut again = given_up(member("a", "a"));
        annotate(&mut again, annotation::REMEDIATION_FOR, &record.text());
        let seen = running(3, vec![again, member("b", "a"), member("c", "a")]);
        let steps = remediation::decide(&seen, now()).steps.into_iter();
        let noted = steps.filter_map(|step| match step {
            Step::Annotate { annotations } => {
                let text = annotations[annotation::REMEDIATION_IN_PROGRESS].as_str()?;
                serde_json::from_str::<remediation::Record>(text).ok()
            }
            _ => None,
        });
        noted.map(|record| record.retry_count).collect::<Vec<_>>()
    };
    assert_eq!(retry(3599), [5]);
    assert_eq!(retry(3600), [0]);
}

#[test]
fn what_is_not_well_is_looked_at_every_twenty_seconds() {
    let twenty = Next::CheckAfter(std::time::Duration::from_secs(20));
    let mut seen = running(1, vec![member("a", "a")]);
    seen.members[0].components[1].pod = pod("False");
    assert_eq!(decide(&seen, now()).next, twenty);
    let mut seen = running(1, vec![member("a", "a")]);
    seen.initialized = Lookup::Missing;
    assert_eq!(decide(&seen, now()).next, twenty);
    // One that is coming up is well at any moment.
    created(&mut seen.members[0], now() - SignedDuration::from_secs(30));
    assert_eq!(
        decide(&seen, now()).next,
        Next::CheckAfter(std::time::Duration::from_secs(1))
    );
}
