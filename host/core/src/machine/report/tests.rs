//! Machine reports: a machine with everything, and what is said of each thing that is missing.

use capstan_api::v1beta2::{Cluster, ClusterInitializationStatus, ClusterStatus, Machine};
use serde_json::json;

use super::*;
use crate::machine::Connection;

/// A worker whose providers are done and whose Node is ready.
pub(in crate::machine) fn observed() -> Observed {
    let machine: Machine = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {"name": "m", "namespace": "ns", "uid": "u"},
        "spec": {
            "clusterName": "c",
            "bootstrap": {"configRef": {"apiGroup": "b", "kind": "Config", "name": "m"}},
            "infrastructureRef": {"apiGroup": "i", "kind": "InfraMachine", "name": "m"},
        },
    }))
    .expect("a Machine");
    let mut cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns"}, "spec": {},
    }))
    .expect("a Cluster");
    cluster.status = Some(ClusterStatus {
        initialization: Some(ClusterInitializationStatus {
            infrastructure_provisioned: Some(true),
            control_plane_initialized: Some(true),
        }),
        ..ClusterStatus::default()
    });
    Observed {
        machine,
        cluster: Lookup::Found(cluster),
        infra: Lookup::Found(json!({
            "metadata": {"ownerReferences": [{"uid": "u", "controller": true}]},
            "spec": {"providerID": "x://1"},
            "status": {
                "initialization": {"provisioned": true}, "failureDomain": "a",
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            },
        })),
        bootstrap: Some(Lookup::Found(json!({
            "metadata": {"ownerReferences": [{"uid": "u", "controller": true}]},
            "status": {"initialization": {"dataSecretCreated": true}, "dataSecretName": "m"},
        }))),
        connection: Connection {
            connected: true,
            last_success: Some(Timestamp::UNIX_EPOCH),
        },
        node: NodeLookup::One(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "False"},
                {"type": "DiskPressure", "status": "False"}, {"type": "PIDPressure", "status": "False"},
            ]},
        })),
        outdated: None,
        outdated_revision: false,
        deletion: deletion::Facts::default(),
    }
}

fn said<'a>(reported: &'a Reported, name: &str) -> &'a Report {
    reported
        .conditions
        .iter()
        .find(|c| c.type_ == name)
        .expect("reported")
}

fn reported(observed: &Observed) -> Reported {
    report(observed, &Outcome::default(), Timestamp::UNIX_EPOCH)
}

#[test]
fn a_machine_with_everything_runs_and_is_ready_and_available() {
    let reported = reported(&observed());
    assert_eq!(reported.status.phase, Some(MachinePhase::Running));
    assert_eq!(
        reported.status.node_ref.as_ref().map(|n| n.name.as_str()),
        Some("n")
    );
    assert_eq!(reported.status.failure_domain.as_deref(), Some("a"));
    for name in [
        "Ready",
        "Available",
        "NodeHealthy",
        "NodeReady",
        "InfrastructureReady",
        "BootstrapConfigReady",
    ] {
        assert_eq!(
            said(&reported, name).status,
            ConditionStatus::True,
            "{name}"
        );
    }
}

#[test]
fn each_phase_follows_from_what_is_there() {
    let mut observed = observed();
    observed.node = NodeLookup::None;
    assert_eq!(
        reported(&observed).status.phase,
        Some(MachinePhase::Provisioned)
    );
    observed.infra = Lookup::Found(json!({}));
    assert_eq!(
        reported(&observed).status.phase,
        Some(MachinePhase::Provisioning)
    );
    observed.bootstrap = Some(Lookup::Found(json!({})));
    assert_eq!(
        reported(&observed).status.phase,
        Some(MachinePhase::Pending)
    );
    assert_eq!(
        said(&reported(&observed), "NodeHealthy").message,
        "Waiting for InfraMachine to report spec.providerID"
    );
}

#[test]
fn an_object_that_cannot_be_seen_is_unknown_and_not_missing() {
    let mut observed = observed();
    observed.infra = Lookup::Unknown("no CustomResourceDefinition".to_owned());
    let reported = reported(&observed);
    assert_eq!(
        said(&reported, "InfrastructureReady").reason,
        "InternalError"
    );
    assert_eq!(said(&reported, "Ready").reason, "ReadyUnknown");
}

#[test]
fn a_node_that_is_not_healthy_says_which_condition() {
    let mut observed = observed();
    if let NodeLookup::One(node) = &mut observed.node {
        node["status"]["conditions"][2]["status"] = json!("True");
        node["status"]["conditions"][2]["message"] = json!("disk is full");
    }
    let healthy = said(&reported(&observed), "NodeHealthy").clone();
    assert_eq!(
        (healthy.reason.as_str(), healthy.message.as_str()),
        ("NodeNotHealthy", "* Node.DiskPressure: disk is full")
    );
    let ready = said(&reported(&observed), "Ready").clone();
    assert!(
        ready.message.contains("Node.DiskPressure"),
        "{}",
        ready.message
    );
}

#[test]
fn a_short_silence_changes_nothing_and_a_long_one_is_unknown() {
    let mut observed = observed();
    let first = reported(&observed);
    observed.machine.status = Some(MachineStatus {
        conditions: condition::merge(&[], first.conditions.clone(), None, Timestamp::UNIX_EPOCH),
        ..first.status
    });
    observed.node = NodeLookup::NotLooked;
    observed.connection.connected = false;
    let soon = report(
        &observed,
        &Outcome::default(),
        Timestamp::from_second(100).expect("in range"),
    );
    assert!(!soon.conditions.iter().any(|c| c.type_ == "NodeHealthy"));
    assert_eq!(said(&soon, "Ready").status, ConditionStatus::True);
    let late = report(
        &observed,
        &Outcome::default(),
        Timestamp::from_second(400).expect("in range"),
    );
    assert_eq!(said(&late, "NodeHealthy").reason, "ConnectionDown");
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut observed = observed();
    observed.machine.spec.min_ready_seconds = Some(30);
    let reported = reported(&observed);
    assert_eq!(
        said(&reported, "Available").reason,
        "WaitingForMinReadySeconds"
    );
}

#[test]
fn a_deletion_shows_its_stage() {
    let mut observed = observed();
    observed.machine.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    observed.deletion.cluster_deleting = true;
    let reported = reported(&observed);
    assert_eq!(reported.status.phase, Some(MachinePhase::Deleting));
    assert_eq!(
        said(&reported, "Deleting").reason,
        "WaitingForInfrastructureDeletion"
    );
    assert_eq!(
        said(&reported, "Deleting").message,
        "Waiting for InfraMachine m to be deleted"
    );
    assert!(
        said(&reported, "Ready")
            .message
            .contains("stage: WaitingForInfrastructureDeletion")
    );
}
