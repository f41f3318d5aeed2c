//! Which unhealthy Machines go first, how many at a time, and what the others are told.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::lookup::Lookup;
use crate::machine_set::MachineSeen;

pub(in crate::machine_set) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000_i64.saturating_add(second)).expect("in range")
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": at(0).to_string()})
}

/// A Machine that a health check gave up.
fn given_up(name: &str, age_s: i64) -> Value {
    machine(
        name,
        age_s,
        json!([
            condition("HealthCheckSucceeded", "False", "UnhealthyNode"),
            condition("OwnerRemediated", "False", "WaitingForRemediation"),
        ]),
    )
}

pub(in crate::machine_set) fn machine(name: &str, age_s: i64, conditions: Value) -> Value {
    json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "3",
            "creationTimestamp": at(0_i64.saturating_sub(age_s)).to_string(),
        },
        "spec": {
            "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {"apiGroup": "i", "kind": "Infra", "name": name},
        },
        "status": {"conditions": conditions},
    })
}

pub(in crate::machine_set) fn observed(max_in_flight: Value, machines: Vec<Value>) -> Observed {
    let template = json!({"spec": {
        "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
        "infrastructureRef": {"apiGroup": "i", "kind": "InfraTemplate", "name": "t"},
    }});
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": kind,
            "metadata": {"name": "d", "namespace": "ns", "annotations": {"machinedeployment.clusters.x-k8s.io/revision": "2"}},
            "spec": spec,
        })
    };
    let mut spec =
        json!({"clusterName": "c", "replicas": 10, "selector": {}, "template": template});
    let set = object("MachineSet", spec.clone());
    if !max_in_flight.is_null() {
        spec["remediation"] = json!({"maxInFlight": max_in_flight});
    }
    let deployment = object("MachineDeployment", spec);
    let seen = |machine| MachineSeen {
        machine: Arc::new(serde_json::from_value(machine).expect("a Machine")),
        infra: Lookup::Missing,
        bootstrap: None,
    };
    Observed {
        set: serde_json::from_value(set).expect("a MachineSet"),
        cluster: Lookup::Missing,
        deployment: Lookup::Found(serde_json::from_value(deployment).expect("a MachineDeployment")),
        machines: machines.into_iter().map(seen).collect(),
        infra_template: Lookup::Missing,
        bootstrap_template: None,
        control_plane: Lookup::Missing,
        seed: 1,
    }
}

/// Machines with what they are told, and whether they go.
fn told(observed: &Observed) -> Vec<(String, String, bool)> {
    let all = remediations(observed, at(0)).machines;
    let row = |one: Remediation| {
        let said = condition::get(&one.conditions, OWNER_REMEDIATED);
        let reason = said.map_or_else(|| "-".to_owned(), |c| c.reason.clone());
        (one.machine, reason, one.delete)
    };
    all.into_iter().map(row).collect()
}

fn row(machine: &str, reason: &str, delete: bool) -> (String, String, bool) {
    (machine.to_owned(), reason.to_owned(), delete)
}

#[test]
fn all_go_at_once_when_nothing_bounds_them() {
    let seen = observed(Value::Null, vec![given_up("a", 10), given_up("b", 20)]);
    assert_eq!(
        told(&seen),
        [
            row("a", "MachineDeleting", true),
            row("b", "MachineDeleting", true)
        ]
    );
}

#[test]
fn those_that_were_asked_for_go_first_then_the_newest() {
    let mut asked = given_up("c", 30);
    asked["metadata"]["annotations"] = json!({"cluster.x-k8s.io/remediate-machine": ""});
    let machines = vec![given_up("a", 20), given_up("b", 10), asked];
    let seen = observed(json!(2), machines);
    assert_eq!(
        told(&seen),
        [
            row("a", "RemediationDeferred", false),
            row("c", "MachineDeleting", true),
            row("b", "MachineDeleting", true),
        ]
    );
}

#[test]
fn those_under_way_count_and_percentages_round_up() {
    let mut going = given_up("a", 20);
    going["status"]["conditions"][1]["reason"] = json!("MachineDeleting");
    going["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
    let machines = vec![going, given_up("b", 10), given_up("c", 5)];
    // 11 % of 10 are 2.
    let seen = observed(json!("11%"), machines);
    assert_eq!(
        told(&seen),
        [
            row("b", "RemediationDeferred", false),
            row("c", "MachineDeleting", true),
        ]
    );
    let mut full = seen;
    full.deployment = observed(json!(1), Vec::new()).deployment;
    assert_eq!(
        told(&full),
        [
            row("c", "RemediationDeferred", false),
            row("b", "RemediationDeferred", false),
        ]
    );
}

#[test]
fn machines_of_an_old_set_wait_for_the_rollout() {
    let mut seen = observed(Value::Null, vec![given_up("a", 10)]);
    seen.set
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(annotation::REVISION.to_owned(), "1".to_owned());
    assert_eq!(told(&seen), [row("a", "CannotBeRemediated", false)]);
}

#[test]
fn what_was_said_is_not_said_again() {
    let mut seen = observed(json!(0), vec![given_up("a", 10)]);
    let said = remediations(&seen, at(0)).machines;
    let status = Arc::make_mut(&mut seen.machines[0].machine)
        .status
        .get_or_insert_default();
    status.conditions.clone_from(&said[0].conditions);
    assert_eq!(remediations(&seen, at(1)), Remediations::default());
}

#[test]
fn a_machine_that_recovered_is_not_asked_for_any_more() {
    let recovered = machine(
        "a",
        10,
        json!([
            condition("HealthCheckSucceeded", "True", "HealthCheckSucceeded"),
            condition("OwnerRemediated", "False", "WaitingForRemediation"),
        ]),
    );
    let seen = observed(Value::Null, vec![recovered]);
    assert_eq!(told(&seen), [row("a", "-", false)]);
}
