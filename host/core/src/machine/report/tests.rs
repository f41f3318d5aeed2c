//! Machine reports: a machine with everything, and what is said of each thing that is missing.

use std::sync::Arc;

use capstan_api::v1beta2::{
    Cluster, ClusterInitializationStatus, ClusterStatus, ConditionStatus, Machine,
};
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
        chosen: crate::machine::node::Chosen::default(),
        cluster: Lookup::Found(cluster),
        infra_is_own: false,
        infra: Lookup::Found(
            json!({
                "metadata": {"ownerReferences": [{"uid": "u", "controller": true}]},
                "spec": {"providerID": "x://1"},
                "status": {
                    "initialization": {"provisioned": true}, "failureDomain": "a",
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                },
            })
            .into(),
        ),
        bootstrap: Some(Lookup::Found(
            json!({
                "metadata": {"ownerReferences": [{"uid": "u", "controller": true}]},
                "status": {"initialization": {"dataSecretCreated": true}, "dataSecretName": "m"},
            })
            .into(),
        )),
        connection: Connection {
            connected: true,
            last_success: Some(Timestamp::UNIX_EPOCH),
            since: None,
        },
        node: NodeLookup::One(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "False"},
                {"type": "DiskPressure", "status": "False"}, {"type": "PIDPressure", "status": "False"},
            ]},
        }).into()),
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
    observed.infra = Lookup::Found(json!({}).into());
    assert_eq!(
        reported(&observed).status.phase,
        Some(MachinePhase::Provisioning)
    );
    observed.bootstrap = Some(Lookup::Found(json!({}).into()));
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
        let node = Arc::make_mut(node);
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

/// A Machine that was well, and whose Node was not looked at since.
fn unseen_since() -> Observed {
    let mut observed = observed();
    let first = reported(&observed);
    observed.machine.status = Some(MachineStatus {
        conditions: condition::merge(&[], first.conditions.clone(), None, Timestamp::UNIX_EPOCH),
        ..first.status
    });
    observed.node = NodeLookup::NotLooked;
    observed
}

#[test]
fn a_short_silence_changes_nothing_and_a_long_one_is_unknown() {
    let mut observed = unseen_since();
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
fn a_new_host_lets_stand_what_the_last_one_saw_until_it_could_have_looked() {
    let mut observed = unseen_since();
    let at = |second| Timestamp::from_second(second).expect("in range");
    observed.connection = Connection {
        connected: false,
        last_success: None,
        since: Some(at(1000)),
    };
    let soon = report(&observed, &Outcome::default(), at(1100));
    assert!(!soon.conditions.iter().any(|c| c.type_ == "NodeHealthy"));
    assert_eq!(said(&soon, "Ready").status, ConditionStatus::True);
    assert_eq!(said(&soon, "Available").status, ConditionStatus::True);
    let late = report(&observed, &Outcome::default(), at(1300));
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
    // Nothing else wakes a Machine that has just become ready.
    assert_eq!(
        reported.next,
        Some(Next::CheckAfter(Duration::from_secs(30)))
    );
}

#[test]
fn a_drain_whose_turn_has_not_come_asks_again_soon() {
    let node = "n".to_owned();
    let outcome = Outcome {
        done: vec![(Step::Drain { node }, Effect::NotItsTurn)],
        failed: None,
    };
    let reported = report(&observed(), &outcome, Timestamp::UNIX_EPOCH);
    assert_eq!(reported.next, Some(Next::CheckAfter(TURN_RECHECK)));
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

#[test]
fn a_long_drain_names_what_delays_it() {
    let at = |second| Timestamp::from_second(second).expect("in range");
    let mut observed = observed();
    observed.machine.metadata.deletion_timestamp = Some(Time(at(0)));
    observed.deletion = deletion::Facts {
        active_control_plane_machines: 1,
        node: Some("n".to_owned()),
        node_exists: true,
        drain: Some(deletion::Turn {
            at: at(1000),
            left: vec![
                "* Pod ns/a: cannot evict pod as it would violate the pod's disruption budget."
                    .to_owned(),
            ],
        }),
        ..deletion::Facts::default()
    };
    let status = observed.machine.status.get_or_insert_default();
    status.deletion = Some(MachineDeletionStatus {
        node_drain_start_time: Some(Time(at(10))),
        ..MachineDeletionStatus::default()
    });
    let reported = report(&observed, &Outcome::default(), at(1001));
    let deleting = said(&reported, "Deleting");
    assert_eq!(deleting.reason, "DrainingNode");
    assert!(
        deleting
            .message
            .starts_with("Drain not completed yet (started at 1970-01-01T00:00:10Z):\n* Pod ns/a"),
        "{}",
        deleting.message
    );
    let ready = &said(&reported, "Ready").message;
    assert!(
        ready.contains(
            "since more than 15m, stage: DrainingNode, delay likely due to PodDisruptionBudgets"
        ),
        "{ready}"
    );
}

#[test]
fn readiness_gates_take_part_with_their_polarity() {
    let mut observed = observed();
    let gate = |type_: &str, polarity: &str| {
        serde_json::from_value(json!({"conditionType": type_, "polarity": polarity}))
            .expect("a readiness gate")
    };
    observed.machine.spec.readiness_gates =
        vec![gate("Checked", "Positive"), gate("Worn", "Negative")];
    let ready = |observed: &Observed| said(&reported(observed), "Ready").clone();
    assert_eq!(ready(&observed).reason, "ReadyUnknown");
    let set = |observed: &mut Observed, worn: ConditionStatus| {
        let status = observed.machine.status.get_or_insert_default();
        status.conditions = condition::merge(
            &[],
            [
                Report::yes("Checked", "Checked"),
                Report::new("Worn", worn, "Look"),
            ],
            None,
            Timestamp::UNIX_EPOCH,
        );
    };
    set(&mut observed, ConditionStatus::False);
    assert_eq!(ready(&observed).status, ConditionStatus::True);
    set(&mut observed, ConditionStatus::True);
    assert_eq!(ready(&observed).message, "* Worn: Look");
}

#[test]
fn the_certificates_expiry_comes_from_the_machine_or_its_config() {
    let mut observed = observed();
    let key = annotation::CERTIFICATES_EXPIRY;
    observed.bootstrap = Some(Lookup::Found(
        json!({"metadata": {"annotations": {key: "2027-01-02T03:04:05Z"}}}).into(),
    ));
    let expiry = |observed: &Observed| {
        let date = reported(observed).status.certificates_expiry_date;
        date.map(|date| date.0.to_string())
    };
    assert_eq!(expiry(&observed), None, "only of control-plane machines");
    let labels = observed.machine.metadata.labels.get_or_insert_default();
    labels.insert(capstan_api::label::CONTROL_PLANE.to_owned(), String::new());
    assert_eq!(expiry(&observed).as_deref(), Some("2027-01-02T03:04:05Z"));
    let annotations = observed
        .machine
        .metadata
        .annotations
        .get_or_insert_default();
    annotations.insert(key.to_owned(), "2028-01-02T03:04:05Z".to_owned());
    assert_eq!(expiry(&observed).as_deref(), Some("2028-01-02T03:04:05Z"));
}

#[test]
fn a_node_of_another_version_is_updating() {
    let mut observed = observed();
    observed.outdated = Some(Vec::new());
    observed.machine.spec.version = Some("v1.36.3".to_owned());
    let status = observed.machine.status.get_or_insert_default();
    status.node_info = Some(capstan_api::v1beta2::NodeSystemInfo {
        kubelet_version: "v1.36.1".to_owned(),
        ..Default::default()
    });
    let up_to_date = said(&reported(&observed), "UpToDate").clone();
    assert_eq!(up_to_date.reason, "Updating");
    assert!(up_to_date.message.contains("v1.36.1"));
}

/// What a look writes into the Machine.
fn patches(seen: &Observed) -> Vec<Value> {
    let steps = crate::machine::decide(seen, Timestamp::UNIX_EPOCH).steps;
    let patches = steps.into_iter().filter_map(|step| match step {
        Step::PatchMachine(patch) => Some(patch),
        _ => None,
    });
    patches.collect()
}

#[test]
fn the_name_of_the_data_waits_for_the_provider_id_only_where_nobody_waits_for_it() {
    let mut seen = observed();
    let both = json!({"spec": {"bootstrap": {"dataSecretName": "m"}, "providerID": "x://1"}});
    assert_eq!(patches(&seen).first(), Some(&both));
    seen.infra_is_own = true;
    assert_eq!(patches(&seen), [both]);
    let Lookup::Found(infra) = &mut seen.infra else {
        return;
    };
    let infra = Arc::make_mut(infra);
    infra["spec"] = json!({});
    infra["status"] = json!({});
    assert!(patches(&seen).is_empty());
    seen.infra_is_own = false;
    let name = json!({"spec": {"bootstrap": {"dataSecretName": "m"}}});
    assert_eq!(patches(&seen), [name]);
}

#[test]
fn bootstrap_data_that_the_user_gives_needs_no_config() {
    let mut seen = observed();
    seen.machine.spec.bootstrap.config_ref = None;
    seen.bootstrap = None;
    // The machine of a pool has booted with the pool's, and names none.
    for name in ["mine", ""] {
        seen.machine.spec.bootstrap.data_secret_name = Some(name.to_owned());
        let reported = reported(&seen);
        let ready = said(&reported, "BootstrapConfigReady");
        assert_eq!(
            (ready.status, ready.reason.as_str()),
            (ConditionStatus::True, "DataSecretProvided")
        );
        let done = reported.status.initialization.clone().expect("initialized");
        assert_eq!(done.bootstrap_data_secret_created, Some(true), "{name:?}");
    }
}

#[test]
fn two_nodes_of_one_provider_id_are_an_error_that_names_them() {
    let mut seen = observed();
    seen.node = NodeLookup::Several(vec!["a".to_owned(), "b".to_owned()]);
    let reported = reported(&seen);
    let healthy = said(&reported, "NodeHealthy");
    assert_eq!(healthy.status, ConditionStatus::Unknown);
    assert!(
        healthy.message.contains('a') && healthy.message.contains('b'),
        "{}",
        healthy.message
    );
}

#[test]
fn a_machine_that_was_just_changed_is_reported_with_its_new_generation_unless_something_was_found_out()
 {
    let outcome = |done: Vec<(Step, Effect)>| Outcome { done, failed: None };
    let patch = || (Step::PatchMachine(json!({})), Effect::Done);
    let drain = || {
        let node = "n".to_owned();
        (Step::Drain { node }, Effect::Drain(Vec::new()))
    };
    let next_time = crate::machine::reports_next_time;
    assert!(next_time(&outcome(vec![
        (Step::OwnInfra, Effect::Done),
        patch()
    ])));
    assert!(!next_time(&outcome(vec![(Step::OwnInfra, Effect::Done)])));
    assert!(!next_time(&outcome(vec![patch(), drain()])));
    assert!(!next_time(&outcome(Vec::new())));
}

#[test]
fn the_nodes_readiness_is_mirrored_with_its_time() {
    let mut seen = observed();
    let NodeLookup::One(node) = &mut seen.node else {
        return;
    };
    Arc::make_mut(node)["status"]["conditions"][0]["lastTransitionTime"] =
        json!("2026-01-02T03:04:05Z");
    let since = said(&reported(&seen), "NodeReady").transition;
    assert_eq!(since, "2026-01-02T03:04:05Z".parse().ok());
}

#[test]
fn data_without_a_name_are_an_error_of_the_bootstrap_provider() {
    let mut seen = observed();
    let config = json!({
        "metadata": {"ownerReferences": [{"uid": "u", "controller": true}]},
        "status": {
            "initialization": {"dataSecretCreated": true},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}],
        },
    });
    seen.machine.spec.bootstrap.data_secret_name = None;
    seen.bootstrap = Some(Lookup::Found(Arc::new(config)));
    let reported = reported(&seen);
    let ready = said(&reported, "BootstrapConfigReady");
    assert_eq!(ready.status, ConditionStatus::False, "{ready:?}");
    assert!(
        ready.message.ends_with("status.dataSecretName is empty"),
        "{ready:?}"
    );
}

#[test]
fn a_failure_domain_that_a_provider_chose_is_the_machines() {
    let mut seen = observed();
    assert!(
        !patches(&seen)
            .iter()
            .any(|patch| patch.pointer("/spec/failureDomain").is_some())
    );
    let Lookup::Found(infra) = &mut seen.infra else {
        return;
    };
    Arc::make_mut(infra)["spec"]["failureDomain"] = json!("b");
    let written = patches(&seen);
    let domain = |patch: &Value| patch["spec"]["failureDomain"] == json!("b");
    assert!(written.iter().any(domain), "{written:?}");
}

#[test]
fn a_machine_takes_over_from_the_clusters_control_plane_whatever_its_group() {
    let mut seen = observed();
    let Lookup::Found(cluster) = &mut seen.cluster else {
        return;
    };
    let plane = json!({"apiGroup": "example.com", "kind": "Plane", "name": "p"});
    cluster.spec.control_plane_ref = serde_json::from_value(plane).ok();
    let owner = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "uid": kind, "name": "x"});
    let object = json!({"metadata": {"ownerReferences": [
        owner("example.com/v1", "Plane"), owner("cluster.x-k8s.io/v1beta2", "MachineSet"),
        owner("controlplane.cluster.x-k8s.io/v1beta2", "OtherPlane"), owner("example.com/v1", "Inventory"),
    ]}});
    let patch = crate::machine::ownership_patch(&seen, &object);
    let owners = patch["metadata"]["ownerReferences"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let kinds: Vec<&str> = owners
        .iter()
        .filter_map(|owner| owner["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["Inventory", "Machine"]);
}

/// Status, reason and message of a condition.
fn told(observed: &Observed, name: &str) -> (ConditionStatus, String, String) {
    let reported = reported(observed);
    let said = said(&reported, name);
    (said.status, said.reason.clone(), said.message.clone())
}

fn no(reason: &str, message: &str) -> (ConditionStatus, String, String) {
    (
        ConditionStatus::False,
        reason.to_owned(),
        message.to_owned(),
    )
}

fn unknown(reason: &str, message: &str) -> (ConditionStatus, String, String) {
    (
        ConditionStatus::Unknown,
        reason.to_owned(),
        message.to_owned(),
    )
}

#[test]
fn objects_that_were_there_are_deleted_and_others_do_not_exist() {
    let mut seen = observed();
    let done = json!({"infrastructureProvisioned": true, "bootstrapDataSecretCreated": true});
    let status = seen.machine.status.get_or_insert_default();
    status.initialization = serde_json::from_value(done).ok();
    seen.infra = Lookup::Missing;
    seen.bootstrap = Some(Lookup::Missing);
    assert_eq!(
        told(&seen, "InfrastructureReady"),
        no(
            "ObjectDeleted",
            "InfraMachine m has been deleted while the Machine still exists"
        )
    );
    assert_eq!(
        told(&seen, "BootstrapConfigReady"),
        no("ObjectDoesNotExist", "Config m does not exist")
    );
    seen.machine.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(
        told(&seen, "InfrastructureReady"),
        no("ObjectDeleted", "InfraMachine m has been deleted")
    );
    assert_eq!(
        told(&seen, "BootstrapConfigReady"),
        no("ObjectDeleted", "Config m has been deleted")
    );
    seen.machine.status = None;
    assert_eq!(
        told(&seen, "InfrastructureReady"),
        no("ObjectDoesNotExist", "InfraMachine m does not exist")
    );
}

#[test]
fn a_node_that_is_gone_was_deleted_or_never_was() {
    let mut seen = observed();
    seen.node = NodeLookup::None;
    let waiting = "Waiting for a Node with spec.providerID x://1 to exist";
    assert_eq!(
        told(&seen, "NodeReady"),
        unknown("InspectionFailed", waiting)
    );
    seen.machine.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let never = unknown("NodeDoesNotExist", "Node does not exist");
    assert_eq!(told(&seen, "NodeReady"), never);
    seen.machine.status.get_or_insert_default().node_ref = Some(MachineNodeReference {
        name: "n".to_owned(),
    });
    let deleted = no("NodeDeleted", "Node n has been deleted");
    assert_eq!(told(&seen, "NodeHealthy"), deleted);
    seen.machine.metadata.deletion_timestamp = None;
    let deleted = no(
        "NodeDeleted",
        "Node n has been deleted while the Machine still exists",
    );
    assert_eq!(told(&seen, "NodeHealthy"), deleted);
}

/// A Machine whose Node says this.
fn with_node_conditions(conditions: Value) -> Observed {
    let mut seen = observed();
    let node = json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}});
    seen.node = NodeLookup::One(node.into());
    seen
}

#[test]
fn a_node_that_does_not_say_whether_it_is_ready_is_unknown() {
    let silent = with_node_conditions(json!([]));
    let words = "* Node.Ready: Condition not yet reported";
    assert_eq!(
        told(&silent, "NodeReady"),
        unknown("NodeReadyUnknown", words)
    );
    let all = "* Node.AllConditions: Condition not yet reported";
    assert_eq!(
        told(&silent, "NodeHealthy"),
        unknown("NodeHealthyUnknown", all)
    );
    let lost = "Kubelet stopped posting node status.";
    let lost = with_node_conditions(json!(
        ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
            .map(|type_| json!({"type": type_, "status": "Unknown", "message": lost}))
    ));
    let words = "* Node.Ready: Kubelet stopped posting node status.";
    assert_eq!(told(&lost, "NodeReady"), unknown("NodeReadyUnknown", words));
    let all = "* Node.AllConditions: Kubelet stopped posting node status.";
    assert_eq!(
        told(&lost, "NodeHealthy"),
        unknown("NodeHealthyUnknown", all)
    );
    let early = with_node_conditions(json!([
        {"type": "Ready", "status": "False", "reason": "KubeletNotReady"},
    ]));
    assert_eq!(
        told(&early, "NodeReady"),
        no("NodeNotReady", "* Node.Ready: KubeletNotReady")
    );
}

#[test]
fn components_of_a_control_plane_with_the_same_trouble_are_one_line() {
    const GATES: [&str; 4] = [
        "APIServerPodHealthy",
        "ControllerManagerPodHealthy",
        "SchedulerPodHealthy",
        "EtcdPodHealthy",
    ];
    let mut seen = observed();
    seen.machine.spec.readiness_gates = GATES
        .map(|gate| serde_json::from_value(json!({"conditionType": gate})).expect("a gate"))
        .into();
    let mut say = |messages: [&str; 4]| {
        let status = seen.machine.status.get_or_insert_default();
        let reports = GATES.iter().zip(messages).map(|(gate, message)| {
            Report::new(gate, ConditionStatus::Unknown, "Unseen").with_message(message)
        });
        status.conditions = condition::merge(&[], reports, None, Timestamp::UNIX_EPOCH);
        told(&seen, "Ready").2
    };
    let same = "Node n is unreachable";
    assert_eq!(
        say([same; 4]),
        "* Control plane components: Node n is unreachable"
    );
    let lines = say([same, same, same, "Pod etcd does not exist"]);
    assert_eq!(lines.lines().count(), 4, "{lines}");
}
