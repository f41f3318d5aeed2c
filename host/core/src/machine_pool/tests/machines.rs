//! Cases of the Machines of a pool.

use super::*;

fn infra_machine(name: &str, id: &str) -> Arc<Value> {
    json!({
        "apiVersion": "i/v1", "kind": "Host", "metadata": {"name": name}, "spec": {"providerID": id},
    })
    .into()
}

/// A pool whose provider has Machines made.
fn with_machines() -> Observed {
    let mut seen = settled();
    let spec = json!({"providerIDList": ["p://a", "p://b"]});
    let status = json!({"ready": true, "replicas": 2, "infrastructureMachineKind": "Host"});
    seen.infra = Lookup::Found(owned("ScaleSet", &spec, &status).into());
    seen.infra_machines = Lookup::Found(vec![
        infra_machine("a", "p://a"),
        infra_machine("b", "p://b"),
    ]);
    seen.pool.spec.template.metadata = Some(
        serde_json::from_value(json!({"labels": {"x": "1"}, "annotations": {"y": "2"}})).unwrap(),
    );
    seen
}

/// The Machines that are applied, taken in.
fn applied(seen: &Observed) -> Vec<Value> {
    let found = steps(seen).into_iter().find_map(|step| match step {
        Step::ApplyMachines(machines) => Some(machines),
        _ => None,
    });
    found.unwrap_or_default()
}

fn taken_in(seen: &mut Observed) {
    for mut machine in applied(seen) {
        let name = machine["metadata"]["name"].as_str().unwrap().to_owned();
        machine["metadata"]["uid"] = json!(format!("uid-{name}"));
        machine["spec"]["providerID"] = json!(format!("p://{name}"));
        seen.machines
            .push(Arc::new(serde_json::from_value(machine).unwrap()));
    }
}

#[test]
fn each_infrastructure_machine_gets_a_machine_once() {
    let mut seen = with_machines();
    let machines = applied(&seen);
    assert_eq!(machines.len(), 2);
    assert_eq!(
        machines[0],
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {
                "name": "a", "namespace": "n", "finalizers": ["machine.cluster.x-k8s.io"],
                "labels": {"x": "1", "cluster.x-k8s.io/pool-name": "p", "cluster.x-k8s.io/cluster-name": "c"},
                "annotations": {"y": "2", "capstan.dev/propagated-keys": "{\"annotations\":[\"y\"],\"labels\":[\"x\"]}"},
                "ownerReferences": [{
                    "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool", "name": "p",
                    "uid": "pool", "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "clusterName": "c", "version": "v1.36.3", "bootstrap": {"dataSecretName": ""},
                "infrastructureRef": {"apiGroup": "i", "kind": "Host", "name": "a"},
                "deletion": {"nodeDeletionTimeoutSeconds": 10},
            },
        })
    );
    taken_in(&mut seen);
    assert_eq!(steps(&seen), []);
    // A Node that cannot be seen takes no version away.
    let nodes = std::mem::replace(&mut seen.nodes, Lookup::Unknown("no connection".to_owned()));
    assert_eq!(steps(&seen), []);
    seen.nodes = nodes;
    // A label that leaves the template is taken back, by applying without it.
    let metadata = seen.pool.spec.template.metadata.as_mut().unwrap();
    metadata.labels.clear();
    let changed = applied(&seen);
    assert_eq!(changed.len(), 2);
    assert_eq!(changed[0]["metadata"]["labels"]["x"], Value::Null);
    assert_eq!(changed[0]["metadata"]["uid"], "uid-a");
}

#[test]
fn machines_of_others_and_machines_that_go_are_not_touched() {
    let mut seen = with_machines();
    seen.taken = vec!["a".to_owned()];
    let mut going = Value::clone(&infra_machine("b", "p://b"));
    going["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    seen.infra_machines = Lookup::Found(vec![infra_machine("a", "p://a"), going.into()]);
    assert_eq!(applied(&seen), Vec::<Value>::new());
    let available = said(&seen, condition_type::AVAILABLE);
    assert!(
        available.message.contains("Machines a belong to others"),
        "{available:?}"
    );
}

#[test]
fn a_machine_whose_machine_is_gone_goes_and_its_node_goes_with_it() {
    let mut seen = with_machines();
    taken_in(&mut seen);
    seen.infra_machines = Lookup::Found(vec![infra_machine("b", "p://b")]);
    assert_eq!(steps(&seen), [], "its provider ID is still listed");
    let spec = json!({"providerIDList": ["p://b"]});
    let status = json!({"ready": true, "replicas": 1, "infrastructureMachineKind": "Host"});
    seen.infra = Lookup::Found(owned("ScaleSet", &spec, &status).into());
    let mut machine = seen.machines[0].as_ref().clone();
    machine.status = serde_json::from_value(json!({"nodeRef": {"name": "a"}})).unwrap();
    seen.machines[0] = machine.into();
    let all = steps(&seen);
    assert!(
        all.contains(&Step::DeleteMachines(vec!["a".to_owned()])),
        "{all:?}"
    );
    assert!(
        !all.iter().any(|step| matches!(step, Step::DeleteNodes(_))),
        "the Machine drains its Node: {all:?}"
    );
    seen.infra_machines = Lookup::Unknown("no answer".to_owned());
    let all = steps(&seen);
    assert!(
        !all.iter()
            .any(|step| matches!(step, Step::DeleteMachines(_))),
        "{all:?}"
    );
}

#[test]
fn a_machine_that_a_health_check_gave_up_says_so_and_goes() {
    let mut seen = with_machines();
    taken_in(&mut seen);
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "False", "reason": "R", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    let mut machine = seen.machines[1].as_ref().clone();
    machine.status = serde_json::from_value(json!({"conditions": [
        condition("HealthCheckSucceeded"), condition("OwnerRemediated"),
    ]}))
    .unwrap();
    seen.machines[1] = machine.into();
    let all = steps(&seen);
    let [Step::Remediate(given_up)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(given_up[0].machine, "b");
    assert!(given_up[0].delete);
    let said = given_up[0]
        .conditions
        .iter()
        .find(|c| c.type_ == "OwnerRemediated");
    assert_eq!(said.unwrap().reason, machine::MACHINE_DELETING);
}

#[test]
fn numbers_are_those_of_machines_where_there_are_any() {
    let mut seen = with_machines();
    taken_in(&mut seen);
    let mut ready = seen.machines[0].as_ref().clone();
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    ready.status = serde_json::from_value(json!({"conditions": [
        condition("Ready"), condition("UpToDate"),
    ]}))
    .unwrap();
    seen.machines[0] = ready.into();
    let status = report(&seen, None, NOW).status;
    assert_eq!(
        [
            status.replicas,
            status.ready_replicas,
            status.available_replicas,
            status.up_to_date_replicas
        ],
        [Some(2), Some(1), Some(0), Some(1)]
    );
    assert_eq!(status.phase, Some(MachinePoolPhase::ScalingUp));
}
