//! What a Cluster says and does, by what is there.

use std::sync::Arc;

use capstan_api::condition::{ConditionStatus, Report};
use capstan_api::reason::condition_type;
use capstan_api::v1beta2::{Cluster, Machine, MachinePool};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::lookup::Lookup;
use crate::plan::Next;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn cluster(spec: &Value, conditions: &Value) -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "cluster-uid"}, "spec": spec,
        "status": {
            "initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true},
            "conditions": conditions,
        },
    }))
    .expect("a Cluster")
}

/// A Cluster that is all there and answers.
fn observed(cluster: Cluster) -> Observed {
    let ready = |type_: &str| {
        json!({
            "metadata": {"ownerReferences": [{"uid": "cluster-uid"}], "labels": {"cluster.x-k8s.io/cluster-name": "c"}},
            "status": {
                "initialization": {"provisioned": true, "controlPlaneInitialized": true},
                "conditions": [{"type": type_, "status": "True", "reason": type_, "lastTransitionTime": "1970-01-01T00:00:00Z"}],
            },
        })
    };
    Observed {
        infra: Some(Lookup::Found(ready("Ready").into())),
        control_plane: Some(Lookup::Found(ready("Available").into())),
        machines: Vec::new(),
        sets: Vec::new(),
        deployments: Vec::new(),
        pools: Vec::new(),
        probe: Probe {
            last_success: Some(NOW),
            failures: 0,
            error: None,
        },
        kubeconfig: Kubeconfig::Good,
        cluster,
    }
}

fn whole(spec: &Value, conditions: &Value) -> Observed {
    let mut all = json!({
        "infrastructureRef": {"apiGroup": "i", "kind": "Infra", "name": "c"},
        "controlPlaneRef": {"apiGroup": "p", "kind": "Plane", "name": "c"},
        "controlPlaneEndpoint": {"host": "10.0.0.1", "port": 6443},
    });
    let extra = spec.as_object().expect("an object");
    all.as_object_mut()
        .expect("an object")
        .extend(extra.clone());
    observed(cluster(&all, conditions))
}

fn said(observed: &Observed, type_: &str) -> Report {
    let reported = report(observed, NOW).conditions;
    let found = reported.into_iter().find(|report| report.type_ == type_);
    found.expect("reported")
}

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "Said", "message": "by somebody", "lastTransitionTime": "1970-01-01T00:00:00Z"})
}

#[test]
fn availability_gates_take_part_with_their_polarity() {
    let available = |spec: &Value, conditions: &Value| {
        said(&whole(spec, conditions), condition_type::AVAILABLE)
    };
    let none = json!([]);
    assert_eq!(available(&json!({}), &none).status, ConditionStatus::True);
    let gate = json!({"availabilityGates": [{"conditionType": "DnsWorks"}]});
    let missing = available(&gate, &none);
    assert_eq!(missing.status, ConditionStatus::Unknown);
    assert_eq!(missing.message, "* DnsWorks: Condition not yet reported");
    let bad = available(&gate, &json!([condition("DnsWorks", "False")]));
    assert_eq!(bad.status, ConditionStatus::False);
    assert_eq!(bad.message, "* DnsWorks: by somebody");
    let good = available(&gate, &json!([condition("DnsWorks", "True")]));
    assert_eq!(good.status, ConditionStatus::True);
    let negative =
        json!({"availabilityGates": [{"conditionType": "Degraded", "polarity": "Negative"}]});
    let bad = available(&negative, &json!([condition("Degraded", "True")]));
    assert_eq!(bad.status, ConditionStatus::False);
    let good = available(&negative, &json!([condition("Degraded", "False")]));
    assert_eq!(good.status, ConditionStatus::True);
}

fn machine(name: &str, conditions: &Value) -> Machine {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {"name": name, "namespace": "ns", "labels": {"cluster.x-k8s.io/cluster-name": "c"}},
        "spec": {
            "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {"apiGroup": "i", "kind": "InfraMachine", "name": name},
        },
        "status": {"conditions": conditions},
    }))
    .expect("a Machine")
}

#[test]
fn remediating_says_of_which_machines_and_of_those_that_nobody_remediates() {
    let mut observed = whole(&json!({}), &json!([]));
    let remediating = |observed: &Observed| said(observed, condition_type::REMEDIATING);
    assert_eq!(remediating(&observed).status, ConditionStatus::False);
    assert_eq!(remediating(&observed).message, "");
    observed.machines =
        vec![machine("ill", &json!([condition("HealthCheckSucceeded", "False")])).into()];
    let left = remediating(&observed);
    assert_eq!(left.status, ConditionStatus::False);
    assert_eq!(
        left.message,
        "Machine ill is not healthy (not to be remediated)"
    );
    observed.machines = vec![
        machine(
            "ill",
            &json!([
                condition("HealthCheckSucceeded", "False"),
                condition("OwnerRemediated", "False")
            ]),
        )
        .into(),
    ];
    let going = remediating(&observed);
    assert_eq!(going.status, ConditionStatus::True);
    assert!(going.message.contains("Machine ill"), "{}", going.message);
    assert!(going.message.contains("by somebody"), "{}", going.message);
}

/// A Cluster whose machines are made one by one, or by hand.
fn without_control_plane(kubeconfig: Kubeconfig) -> Observed {
    let mut observed = whole(&json!({}), &json!([]));
    observed.cluster.spec.control_plane_ref = None;
    observed.control_plane = None;
    observed.kubeconfig = kubeconfig;
    observed
}

#[test]
fn without_a_control_plane_object_the_kubeconfig_is_made_for_the_endpoint() {
    let make = Step::EnsureKubeconfig {
        server: "https://10.0.0.1:6443".to_owned(),
    };
    let steps = |kubeconfig| decide(&without_control_plane(kubeconfig), NOW).steps;
    assert!(steps(Kubeconfig::Due).contains(&make));
    assert!(!steps(Kubeconfig::Good).contains(&make));
    assert!(!steps(Kubeconfig::NoAuthority).contains(&make));
}

#[test]
fn without_a_certificate_authority_it_is_named_and_looked_for_again() {
    let mut observed = without_control_plane(Kubeconfig::NoAuthority);
    observed.probe = Probe::default();
    let probe = said(&observed, condition_type::REMOTE_CONNECTION_PROBE);
    assert_eq!(probe.status, ConditionStatus::False);
    assert!(
        probe
            .message
            .contains("create Secret c-ca with tls.crt and tls.key"),
        "{}",
        probe.message
    );
    let next = decide(&observed, NOW).next;
    assert!(
        matches!(next, Next::CheckAfter(after) if after.as_secs() <= 30),
        "{next:?}"
    );
}

#[test]
fn why_a_cluster_does_not_answer_is_said_with_how_long() {
    let mut observed = whole(
        &json!({}),
        &json!([condition("RemoteConnectionProbe", "False")]),
    );
    let why = "it shows the wrong certificate";
    observed.probe = Probe {
        last_success: None,
        failures: 3,
        error: Some(why.to_owned()),
    };
    let message =
        |observed: &Observed| said(observed, condition_type::REMOTE_CONNECTION_PROBE).message;
    assert_eq!(
        message(&observed),
        format!("Remote connection not established yet: {why}")
    );
    observed.probe.last_success = Some(NOW - jiff::SignedDuration::from_mins(5));
    let message = message(&observed);
    assert!(
        message.contains("last succeeded at") && message.ends_with(why),
        "{message}"
    );
}

#[test]
fn domains_stay_and_what_was_provisioned_stays_provisioned_while_nothing_can_be_seen() {
    let mut observed = whole(&json!({}), &json!([]));
    let status = observed.cluster.status.as_mut().expect("a status");
    status.failure_domains =
        serde_json::from_value(json!([{"name": "a", "controlPlane": true}])).expect("domains");
    observed.infra = Some(Lookup::Unknown("the server does not answer".to_owned()));
    let reported = report(&observed, NOW);
    assert_eq!(reported.status.failure_domains.len(), 1);
    let done = reported.status.initialization.expect("initialized");
    assert_eq!(done.infrastructure_provisioned, Some(true));
    let ready = said(&observed, condition_type::INFRASTRUCTURE_READY);
    assert_eq!(ready.status, ConditionStatus::Unknown);
    assert!(
        !decide(&observed, NOW)
            .steps
            .iter()
            .any(|step| matches!(step, Step::PatchInfra(_) | Step::DeleteInfra))
    );
}

#[test]
fn failure_domains_follow_the_infrastructure_sorted_by_name() {
    let mut observed = whole(&json!({}), &json!([]));
    let Some(Lookup::Found(infra)) = &mut observed.infra else {
        return;
    };
    Arc::make_mut(infra)["status"]["failureDomains"] =
        json!([{"name": "b"}, {"name": "a", "controlPlane": true}]);
    let domains = report(&observed, NOW).status.failure_domains;
    let names: Vec<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(domains[1].control_plane, Some(false));
}

fn going(mut observed: Observed) -> Observed {
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW);
    observed.cluster.metadata.deletion_timestamp = Some(time);
    observed
}

#[test]
fn a_deletion_takes_workers_then_the_control_plane_then_the_infrastructure() {
    let mut observed = going(whole(&json!({}), &json!([])));
    let mut mine = machine("mine", &json!([]));
    mine.metadata.owner_references = serde_json::from_value(
        json!([{"apiVersion": "v1", "kind": "Cluster", "name": "c", "uid": "cluster-uid"}]),
    )
    .expect("owners");
    observed.machines = vec![machine("of-a-set", &json!([])).into(), mine.into()];
    let deletes = |observed: &Observed| -> Vec<Step> {
        let steps = decide(observed, NOW).steps;
        let is_deletion = |step: &Step| *step != Step::KeepConnection;
        steps.into_iter().filter(is_deletion).collect()
    };
    // Its own; what a set owns goes with the set.
    let children = deletion::Children {
        machines: vec!["mine".to_owned()],
        ..deletion::Children::default()
    };
    assert_eq!(deletes(&observed), [Step::DeleteChildren(children)]);
    let told = said(&observed, condition_type::DELETING);
    assert_eq!(told.reason, "WaitingForWorkersDeletion");
    assert_eq!(told.message, "* Worker Machines: of-a-set, mine");
    observed.machines.clear();
    assert_eq!(deletes(&observed), [Step::DeleteControlPlane]);
    observed.control_plane = Some(Lookup::Unknown("why".to_owned()));
    assert!(deletes(&observed).is_empty(), "unknown is not gone");
    observed.control_plane = Some(Lookup::Missing);
    assert_eq!(deletes(&observed), [Step::DeleteInfra]);
    assert!(!report(&observed, NOW).finished);
    observed.infra = Some(Lookup::Missing);
    assert!(deletes(&observed).is_empty());
    assert!(report(&observed, NOW).finished);
}

fn pool(name: &str, owners: &Value) -> MachinePool {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool",
        "metadata": {"name": name, "namespace": "ns", "ownerReferences": owners},
        "spec": {"clusterName": "c", "replicas": 3, "template": {"spec": {
            "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {"apiGroup": "i", "kind": "ScaleSet", "name": name},
        }}},
        "status": {
            "replicas": 2, "readyReplicas": 1, "availableReplicas": 1, "upToDateReplicas": 2,
            "versions": [{"version": "v1.36.3", "replicas": 2}],
        },
    }))
    .expect("a MachinePool")
}

#[test]
fn pools_go_with_the_workers_and_hold_the_control_plane() {
    let mut observed = going(whole(&json!({}), &json!([])));
    let own = json!([{"apiVersion": "v1", "kind": "Cluster", "name": "c", "uid": "cluster-uid"}]);
    observed.pools = vec![pool("mine", &own), pool("strange", &json!([]))];
    let children = deletion::Children {
        pools: vec!["mine".to_owned()],
        ..deletion::Children::default()
    };
    let steps = decide(&observed, NOW).steps;
    assert!(steps.contains(&Step::DeleteChildren(children)), "{steps:?}");
    let told = said(&observed, condition_type::DELETING);
    assert_eq!(told.reason, "WaitingForWorkersDeletion");
    assert_eq!(told.message, "* MachinePools: mine, strange");
}

#[test]
fn pools_count_as_workers_and_their_machines_are_judged_by_them() {
    let mut observed = whole(&json!({}), &json!([]));
    observed.pools = vec![pool("p", &json!([]))];
    let mut ill = machine("ill", &json!([condition("Ready", "False")]));
    let labels = ill.metadata.labels.get_or_insert_default();
    labels.insert("cluster.x-k8s.io/pool-name".to_owned(), "p".to_owned());
    ill.metadata.owner_references = serde_json::from_value(json!([
        {"apiVersion": "v1", "kind": "MachinePool", "name": "p", "uid": "p", "controller": true},
    ]))
    .expect("owners");
    observed.machines = vec![ill.into()];
    let workers = report(&observed, NOW).status.workers.expect("counted");
    assert_eq!(
        [
            workers.desired_replicas,
            workers.replicas,
            workers.up_to_date_replicas,
            workers.ready_replicas,
            workers.available_replicas,
        ],
        [Some(3), Some(2), Some(2), Some(1), Some(1)]
    );
    assert_eq!(workers.versions[0].version, "v1.36.3");
    for type_ in [
        condition_type::WORKER_MACHINES_READY,
        condition_type::WORKER_MACHINES_UP_TO_DATE,
    ] {
        assert_eq!(said(&observed, type_).reason, "NoReplicas");
    }
}

#[test]
fn the_endpoint_comes_from_the_infrastructure_else_from_the_control_plane_and_never_replaces_one() {
    let endpoint = |host: &str| json!({"host": host, "port": 6443});
    let mut observed = whole(&json!({"controlPlaneEndpoint": null}), &json!([]));
    let given = |observed: &Observed| -> Option<Value> {
        let steps = decide(observed, NOW).steps;
        steps.into_iter().find_map(|step| match step {
            Step::PatchCluster(patch) => Some(patch["spec"]["controlPlaneEndpoint"].clone()),
            _ => None,
        })
    };
    assert_eq!(given(&observed), None);
    let Some(Lookup::Found(plane)) = &mut observed.control_plane else {
        return;
    };
    Arc::make_mut(plane)["spec"] = json!({"controlPlaneEndpoint": endpoint("plane")});
    assert_eq!(given(&observed), Some(endpoint("plane")));
    let Some(Lookup::Found(infra)) = &mut observed.infra else {
        return;
    };
    Arc::make_mut(infra)["spec"] = json!({"controlPlaneEndpoint": endpoint("infra")});
    assert_eq!(given(&observed), Some(endpoint("infra")));
    observed.cluster.spec.control_plane_endpoint =
        serde_json::from_value(endpoint("own")).expect("an endpoint");
    assert_eq!(given(&observed), None);
}

#[test]
fn a_cluster_without_infrastructure_is_provisioned_at_once() {
    let mut observed = whole(&json!({}), &json!([]));
    observed.cluster.status = None;
    observed.cluster.spec.infrastructure_ref = None;
    observed.infra = None;
    let done = report(&observed, NOW).status.initialization;
    assert_eq!(
        done.expect("initialized").infrastructure_provisioned,
        Some(true)
    );
}

#[test]
fn a_young_machine_may_say_nothing_yet_of_being_up_to_date() {
    let mut observed = whole(&json!({}), &json!([]));
    let mut young = machine("young", &json!([]));
    let created = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW);
    young.metadata.creation_timestamp = Some(created);
    observed.machines = vec![young.into()];
    let status_after = |seconds: i64| {
        let now = Timestamp::from_second(seconds).expect("in range");
        let reported = report(&observed, now).conditions;
        let type_ = condition_type::WORKER_MACHINES_UP_TO_DATE;
        let found = reported.into_iter().find(|report| report.type_ == type_);
        found.expect("reported").status
    };
    assert_eq!(status_after(9), ConditionStatus::True);
    assert_eq!(status_after(10), ConditionStatus::Unknown);
}

#[test]
fn a_connection_is_good_until_the_last_answer_is_older_than_fifty_seconds() {
    let mut observed = whole(&json!({}), &json!([]));
    let at = |observed: &Observed, seconds: i64| {
        let now = Timestamp::from_second(seconds).expect("in range");
        let reported = report(observed, now).conditions;
        let type_ = condition_type::REMOTE_CONNECTION_PROBE;
        reported.into_iter().find(|report| report.type_ == type_)
    };
    let good = at(&observed, 50).expect("reported");
    assert_eq!(good.status, ConditionStatus::True);
    assert_eq!(good.reason, "ProbeSucceeded");
    let old = at(&observed, 51).expect("reported");
    assert_eq!(
        (old.status, old.reason.as_str()),
        (ConditionStatus::False, "ProbeFailed")
    );
    assert_eq!(
        old.message,
        "Remote connection probe failed, probe last succeeded at 1970-01-01T00:00:00Z"
    );
    // Never reached: said at once when nothing was said before; else what was said stands for five failures.
    observed.probe.last_success = None;
    let never = at(&observed, 0).expect("reported");
    assert_eq!(never.message, "Remote connection not established yet");
    let before = condition("RemoteConnectionProbe", "True");
    observed.cluster = whole(&json!({}), &json!([before])).cluster;
    observed.probe.failures = 4;
    assert_eq!(at(&observed, 0), None);
    observed.probe.failures = 5;
    let never = at(&observed, 0).expect("reported");
    assert_eq!(never.status, ConditionStatus::False);
    assert_eq!(never.message, "Remote connection probe failed");
}

#[test]
fn each_phase_follows_from_what_is_there() {
    let phase = |observed: &Observed| {
        let phase = report(observed, NOW).status.phase;
        phase.expect("a phase").as_str()
    };
    let mut observed = whole(&json!({}), &json!([]));
    assert_eq!(phase(&observed), "Provisioned");
    assert_eq!(phase(&going(observed.clone())), "Deleting");
    observed.cluster.spec.control_plane_endpoint = None;
    assert_eq!(phase(&observed), "Provisioning", "there is no endpoint");
    observed.cluster = whole(&json!({}), &json!([])).cluster;
    observed.cluster.status = None;
    observed.infra = Some(Lookup::Missing);
    assert_eq!(phase(&observed), "Provisioning");
    let topology = json!({"classRef": {"name": "class"}, "version": "v1.36.0"});
    observed.cluster = cluster(&json!({ "topology": topology }), &json!([]));
    observed.cluster.status = None;
    (observed.infra, observed.control_plane) = (None, None);
    assert_eq!(phase(&observed), "Pending");
}

/// A MachineDeployment or a MachineSet of the Cluster's own.
fn group<T: serde::de::DeserializeOwned>(kind: &str, name: &str, conditions: &Value) -> T {
    let template = json!({"spec": {
        "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
        "infrastructureRef": {"apiGroup": "i", "kind": "InfraMachineTemplate", "name": name},
    }});
    let owner = json!({"apiVersion": "v1", "kind": "Cluster", "name": "c", "uid": "cluster-uid"});
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": kind,
        "metadata": {"name": name, "namespace": "ns", "ownerReferences": [owner]},
        "spec": {"clusterName": "c", "selector": {}, "template": template},
        "status": {"conditions": conditions},
    }))
    .expect("a group")
}

#[test]
fn workers_are_available_when_every_deployment_is() {
    let mut observed = whole(&json!({}), &json!([]));
    let available = |observed: &Observed| said(observed, condition_type::WORKERS_AVAILABLE);
    assert_eq!(available(&observed).reason, "NoWorkers");
    let deployment = |name: &str, status: &str| {
        group(
            "MachineDeployment",
            name,
            &json!([condition("Available", status)]),
        )
    };
    observed.deployments = vec![deployment("a", "True"), deployment("b", "True")];
    assert_eq!(available(&observed).status, ConditionStatus::True);
    observed.deployments = vec![deployment("a", "True"), deployment("b", "False")];
    let bad = available(&observed);
    assert_eq!(bad.status, ConditionStatus::False);
    assert_eq!(bad.message, "* MachineDeployment b: by somebody");
    let of_cluster = said(&observed, condition_type::AVAILABLE);
    assert_eq!(of_cluster.status, ConditionStatus::False);
    assert!(
        of_cluster.message.contains("WorkersAvailable"),
        "{}",
        of_cluster.message
    );
    observed.deployments = vec![group("MachineDeployment", "new", &json!([]))];
    assert_eq!(available(&observed).status, ConditionStatus::Unknown);
}

#[test]
fn ready_machines_are_told_apart_by_control_plane_and_workers() {
    let mut observed = whole(&json!({}), &json!([]));
    let of = |observed: &Observed, type_: &str| said(observed, type_);
    let (plane, workers) = (
        condition_type::CONTROL_PLANE_MACHINES_READY,
        condition_type::WORKER_MACHINES_READY,
    );
    for type_ in [plane, workers] {
        assert_eq!(of(&observed, type_).status, ConditionStatus::True);
        assert_eq!(of(&observed, type_).reason, "NoReplicas");
    }
    let mut leader = machine("leader", &json!([condition("Ready", "True")]));
    let labels = leader.metadata.labels.get_or_insert_default();
    labels.insert("cluster.x-k8s.io/control-plane".to_owned(), String::new());
    observed.machines = vec![
        leader.into(),
        machine("worker", &json!([condition("Ready", "False")])).into(),
    ];
    assert_eq!(of(&observed, plane).status, ConditionStatus::True);
    let bad = of(&observed, workers);
    assert_eq!(bad.status, ConditionStatus::False);
    assert_eq!(bad.message, "* Machine worker: by somebody");
}

#[test]
fn scaling_is_told_of_the_control_plane_of_deployments_and_of_sets_of_their_own() {
    let quiet = whole(&json!({}), &json!([]));
    for type_ in ["ScalingUp", "ScalingDown", "RollingOut"] {
        let none = said(&quiet, type_);
        assert_eq!(none.status, ConditionStatus::False);
        assert_eq!(none.reason, format!("Not{type_}"));
        let conditions = json!([condition(type_, "True")]);
        let mut of_deployment = quiet.clone();
        of_deployment.deployments = vec![group("MachineDeployment", "d", &conditions)];
        let told = said(&of_deployment, type_);
        assert_eq!(
            (told.status, told.reason.as_str()),
            (ConditionStatus::True, type_)
        );
        assert_eq!(told.message, "* MachineDeployment d: by somebody");
        let mut of_set = quiet.clone();
        of_set.sets = vec![group("MachineSet", "s", &conditions)];
        let is_scaling = said(&of_set, type_).status == ConditionStatus::True;
        assert_eq!(is_scaling, type_ != "RollingOut", "sets do not roll out");
        let mut of_plane = quiet.clone();
        let Some(Lookup::Found(plane)) = &mut of_plane.control_plane else {
            return;
        };
        Arc::make_mut(plane)["kind"] = json!("Plane");
        Arc::make_mut(plane)["metadata"]["name"] = json!("p");
        Arc::make_mut(plane)["status"]["conditions"] = conditions;
        assert_eq!(said(&of_plane, type_).message, "* Plane p: by somebody");
        of_plane.control_plane = Some(Lookup::Missing);
        assert_eq!(said(&of_plane, type_).status, ConditionStatus::False);
    }
}
