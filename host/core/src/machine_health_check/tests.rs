//! Health checks: what makes a Machine unhealthy, when that is looked at again, and who is asked to replace it.

use std::time::Duration;

use capstan_api::condition::{self, Report};
use capstan_api::v1beta2::ConditionStatus;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000_i64.saturating_add(second)).expect("in range")
}

fn when(second: i64) -> String {
    at(second).to_string()
}

fn is(type_: &str, status: &str, second: i64) -> Value {
    json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": when(second)})
}

fn check(spec: Value) -> MachineHealthCheck {
    let mut all = json!({"clusterName": "c", "selector": {"matchLabels": {"pool": "a"}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck",
        "metadata": {"name": "check", "namespace": "ns", "creationTimestamp": when(0)},
        "spec": all,
    }))
    .expect("a MachineHealthCheck")
}

fn machine(name: &str, status: Value) -> Machine {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "7",
            "creationTimestamp": when(0), "labels": {"cluster.x-k8s.io/cluster-name": "c", "pool": "a"},
        },
        "spec": {
            "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {"apiGroup": "i", "kind": "Infra", "name": name},
        },
        "status": status,
    }))
    .expect("a Machine")
}

/// A Machine whose Node is there since second 10.
fn running(name: &str) -> Target {
    target(
        machine(name, json!({"nodeRef": {"name": name}})),
        Some(Lookup::Found(
            json!({
                "metadata": {"name": name}, "status": {"conditions": [is("Ready", "True", 10)]},
            })
            .into(),
        )),
    )
}

fn target(machine: Machine, node: Option<Lookup<Arc<Value>>>) -> Target {
    Target {
        machine: machine.into(),
        node,
        request: Lookup::Missing,
        also: Vec::new(),
        acts: true,
    }
}

/// A running Machine whose Node is not ready since a second.
fn broken(name: &str, second: i64) -> Target {
    let mut broken = running(name);
    broken.node = Some(Lookup::Found(json!({
        "metadata": {"name": name},
        "status": {"conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": when(second),
        }]},
    }).into()));
    broken
}

fn observed(spec: Value, targets: Vec<Target>) -> Observed {
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns"}, "spec": {},
        "status": {"conditions": [is("InfrastructureReady", "True", 1), is("ControlPlaneInitialized", "True", 5)]},
    }))
    .expect("a Cluster");
    Observed {
        check: check(spec),
        cluster: Lookup::Found(cluster),
        nodes: Ok(()),
        targets,
        template: None,
    }
}

/// 300 s of an unknown or false Ready are too long.
fn usual() -> Value {
    json!({"checks": {"nodeStartupTimeoutSeconds": 600, "unhealthyNodeConditions": [
        {"type": "Ready", "status": "Unknown", "timeoutSeconds": 300},
        {"type": "Ready", "status": "False", "timeoutSeconds": 300},
    ]}})
}

fn verdict_of(observed: &Observed, second: i64) -> Verdict {
    verdict::verdict(observed, &observed.targets[0], at(second))
}

fn said(observed: &Observed, type_: &str, second: i64) -> Report {
    let all = report(observed, at(second)).conditions;
    all.into_iter()
        .find(|c| c.type_ == type_)
        .expect("reported")
}

/// The conditions that a plan writes to a Machine.
fn marked(plan: &crate::plan::Plan<Step>, machine: &str) -> Vec<(String, String, String)> {
    let marks = plan.steps.iter().flat_map(|step| match step {
        Step::Mark(marks) => marks.clone(),
        Step::Ask(request) => vec![request.mark.clone()],
        Step::TakeBack(_) | Step::TellRestricted(_) => Vec::new(),
    });
    marks
        .filter(|mark| mark.machine == machine)
        .flat_map(|mark| mark.conditions)
        .map(|c| (c.type_, c.status, c.reason))
        .collect()
}

fn row(type_: &str, status: &str, reason: &str) -> (String, String, String) {
    (type_.to_owned(), status.to_owned(), reason.to_owned())
}

#[test]
fn a_bad_node_is_unhealthy_at_its_deadline_and_the_check_wakes_for_it() {
    let observed = observed(usual(), vec![broken("a", 100)]);
    assert_eq!(
        verdict_of(&observed, 130),
        Verdict::Pending(Some(Duration::from_secs(271)))
    );
    assert_eq!(
        decide(&observed, at(130)).next,
        crate::plan::Next::CheckAfter(Duration::from_secs(271))
    );
    let Verdict::Unhealthy { reason, message } = verdict_of(&observed, 400) else {
        panic!("not unhealthy");
    };
    assert_eq!(reason, "UnhealthyNode");
    assert_eq!(
        message,
        "Health check failed:\n  * Condition Ready on Node is reporting status Unknown with reason NodeStatusUnknown for more than 5m0s"
    );
}

#[test]
fn a_machine_condition_counts_beside_the_nodes_and_names_the_reason() {
    let mut spec = usual();
    spec["checks"]["unhealthyMachineConditions"] =
        json!([{"type": "DiskWorn", "status": "True", "timeoutSeconds": 60}]);
    let mut worn = broken("a", 0);
    worn.machine = machine(
        "a",
        json!({"nodeRef": {"name": "a"}, "conditions": [is("DiskWorn", "True", 0)]}),
    )
    .into();
    let observed = observed(spec, vec![worn]);
    let Verdict::Unhealthy { reason, message } = verdict_of(&observed, 300) else {
        panic!("not unhealthy");
    };
    assert_eq!(reason, "UnhealthyMachine");
    assert_eq!(message.lines().count(), 3, "{message}");
    assert!(
        matches!(verdict_of(&observed, 59), Verdict::Pending(Some(left)) if left == Duration::from_secs(2))
    );
}

#[test]
fn a_start_is_late_from_the_last_thing_that_it_waited_for() {
    let late = machine(
        "a",
        json!({"conditions": [is("InfrastructureReady", "True", 50)]}),
    );
    let started = observed(usual(), vec![target(late.clone(), None)]);
    assert_eq!(
        verdict_of(&started, 649),
        Verdict::Pending(Some(Duration::from_secs(2)))
    );
    let Verdict::Unhealthy { reason, message } = verdict_of(&started, 650) else {
        panic!("not unhealthy");
    };
    assert_eq!(
        (reason, message.as_str()),
        (
            "NodeStartupTimeout",
            "Health check failed:\n  * Node failed to report startup in 10m0s"
        )
    );
    let never = json!({"checks": {"nodeStartupTimeoutSeconds": 0}});
    let never = observed(never, vec![target(late, None)]);
    assert_eq!(verdict_of(&never, 100_000), Verdict::Pending(None));
}

#[test]
fn a_node_that_is_gone_is_unhealthy_and_one_that_cannot_be_seen_is_not() {
    let mut seen = observed(usual(), vec![running("a")]);
    assert_eq!(verdict_of(&seen, 100_000), Verdict::Healthy);
    seen.targets[0].node = Some(Lookup::Missing);
    assert!(matches!(
        verdict_of(&seen, 20),
        Verdict::Unhealthy {
            reason: "NodeDeleted",
            ..
        }
    ));
    seen.targets[0].node = Some(Lookup::Unknown("no connection".to_owned()));
    assert_eq!(verdict_of(&seen, 20), Verdict::Pending(None));
}

#[test]
fn nothing_is_judged_without_a_connection() {
    let mut blind = observed(usual(), vec![broken("a", 0)]);
    blind.nodes = Err("the connection is down".to_owned());
    let plan = decide(&blind, at(10_000));
    assert!(plan.steps.is_empty());
    assert_eq!(plan.waits[0].on, "ConnectionDown");
    let allowed = said(&blind, "RemediationAllowed", 10_000);
    assert_eq!(
        (allowed.status, allowed.reason.as_str()),
        (ConditionStatus::Unknown, "ConnectionDown")
    );
}

#[test]
fn workers_are_not_judged_before_there_is_a_control_plane() {
    let mut early = observed(usual(), vec![target(machine("a", json!({})), None)]);
    let Lookup::Found(cluster) = &mut early.cluster else {
        panic!("a Cluster");
    };
    let status = cluster.status.as_mut().expect("a status");
    condition::remove(&mut status.conditions, "ControlPlaneInitialized");
    assert_eq!(verdict_of(&early, 10_000), Verdict::Pending(None));
    Arc::make_mut(&mut early.targets[0].machine)
        .metadata
        .labels
        .get_or_insert_default()
        .insert(label::CONTROL_PLANE.to_owned(), String::new());
    assert!(matches!(
        verdict_of(&early, 10_000),
        Verdict::Unhealthy { .. }
    ));
}

#[test]
fn an_annotation_asks_for_replacement_at_once() {
    let mut asked = running("a");
    Arc::make_mut(&mut asked.machine)
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(annotation::REMEDIATE_MACHINE.to_owned(), String::new());
    let observed = observed(usual(), vec![asked]);
    let plan = decide(&observed, at(20));
    assert_eq!(
        marked(&plan, "a"),
        [
            row("HealthCheckSucceeded", "False", "HasRemediateAnnotation"),
            row("OwnerRemediated", "False", "WaitingForRemediation"),
        ]
    );
}

#[test]
fn who_is_left_out_is_no_target() {
    let check = check(usual());
    let plain = machine("a", json!({}));
    assert!(is_target(&check, &plain));
    for key in [annotation::PAUSED, annotation::SKIP_REMEDIATION] {
        let mut left_out = plain.clone();
        left_out
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(key.to_owned(), String::new());
        assert!(!is_target(&check, &left_out), "{key}");
    }
    let mut other = plain.clone();
    other.metadata.namespace = Some("elsewhere".to_owned());
    assert!(!is_target(&check, &other));
    let mut other = plain;
    other
        .metadata
        .labels
        .get_or_insert_default()
        .insert(label::CLUSTER_NAME.to_owned(), "d".to_owned());
    assert!(!is_target(&check, &other));
}

#[test]
fn too_many_unhealthy_machines_are_marked_and_not_replaced() {
    let mut spec = usual();
    spec["remediation"] = json!({"triggerIf": {"unhealthyLessThanOrEqualTo": "40%"}});
    let mut many = observed(spec, vec![broken("a", 0), broken("b", 0), running("c")]);
    let plan = decide(&many, at(10_000));
    assert_eq!(
        marked(&plan, "a"),
        [row("HealthCheckSucceeded", "False", "UnhealthyNode")]
    );
    assert!(
        plan.steps
            .iter()
            .any(|step| matches!(step, Step::TellRestricted(_)))
    );
    let allowed = said(&many, "RemediationAllowed", 10_000);
    assert_eq!(allowed.reason, "TooManyUnhealthy");
    assert!(
        allowed.message.contains("total: 3, unhealthy: 2"),
        "{}",
        allowed.message
    );
    let status = report(&many, at(10_000)).status;
    assert_eq!(
        (
            status.expected_machines,
            status.current_healthy,
            status.remediations_allowed
        ),
        (Some(3), Some(1), Some(0))
    );
    many.targets.push(running("d"));
    many.targets.push(running("e"));
    let plan = decide(&many, at(10_000));
    assert!(marked(&plan, "b").contains(&row("OwnerRemediated", "False", "WaitingForRemediation")));
}

#[test]
fn an_external_controller_is_not_asked_for_too_many_machines() {
    let mut spec = usual();
    spec["remediation"] = json!({
        "triggerIf": {"unhealthyLessThanOrEqualTo": 1},
        "templateRef": {"apiVersion": "infra.io/v1", "kind": "RebootTemplate", "name": "t"},
    });
    let mut seen = observed(spec, vec![broken("a", 0), broken("b", 0)]);
    let template = json!({
        "apiVersion": "infra.io/v1", "kind": "RebootTemplate", "metadata": {"name": "t"},
        "spec": {"template": {"spec": {}}},
    });
    seen.template = Some(Lookup::Found(template.into()));
    let asks = |seen: &Observed| {
        let steps = decide(seen, at(10_000)).steps;
        let asks = steps.iter().filter(|step| matches!(step, Step::Ask(_)));
        asks.count()
    };
    assert_eq!(asks(&seen), 0);
    seen.targets.pop();
    assert_eq!(asks(&seen), 1);
}

#[test]
fn a_machine_that_recovered_is_healthy_again_and_a_settled_world_is_left_alone() {
    let mut seen = observed(usual(), vec![broken("a", 0)]);
    for second in [10_000, 10_001] {
        for step in decide(&seen, at(second)).steps {
            let Step::Mark(marks) = step else {
                panic!("{step:?}");
            };
            assert_eq!(second, 10_000, "marked again");
            let status = Arc::make_mut(&mut seen.targets[0].machine)
                .status
                .get_or_insert_default();
            status.conditions.clone_from(&marks[0].conditions);
        }
    }
    let node = running("a").node;
    seen.targets[0].node = node;
    let plan = decide(&seen, at(10_002));
    assert!(marked(&plan, "a").contains(&row(
        "HealthCheckSucceeded",
        "True",
        "HealthCheckSucceeded"
    )));
}

#[test]
fn an_external_controller_is_asked_once_and_the_request_is_taken_back() {
    let mut spec = usual();
    spec["remediation"] = json!({"templateRef": {"apiVersion": "infra.io/v1", "kind": "RebootTemplate", "name": "t"}});
    let mut seen = observed(spec, vec![broken("a", 0)]);
    seen.template = Some(Lookup::Missing);
    let missing = decide(&seen, at(10_000));
    assert!(marked(&missing, "a").contains(&row(
        "ExternallyRemediated",
        "False",
        "RemediationTemplateNotFound"
    )));
    seen.template = Some(Lookup::Found(
        json!({
            "apiVersion": "infra.io/v1", "kind": "RebootTemplate", "metadata": {"name": "t"},
            "spec": {"template": {"spec": {"times": 3}}},
        })
        .into(),
    ));
    let plan = decide(&seen, at(10_000));
    let Some(Step::Ask(request)) = plan.steps.first() else {
        panic!("{plan:?}");
    };
    assert_eq!(request.object["kind"], "Reboot");
    assert_eq!(request.object["metadata"]["name"], "a");
    assert_eq!(
        request.object["metadata"]["ownerReferences"][0]["name"],
        "a"
    );
    assert!(request.object["metadata"]["ownerReferences"][0]["controller"].is_null());
    assert_eq!(request.object["spec"]["times"], 3);
    assert!(marked(&plan, "a").contains(&row(
        "ExternallyRemediated",
        "False",
        "WaitingForRemediation"
    )));
    let status = Arc::make_mut(&mut seen.targets[0].machine)
        .status
        .get_or_insert_default();
    status.conditions.clone_from(&request.mark.conditions);
    seen.targets[0].request = Lookup::Found(request.object.clone().into());
    assert!(decide(&seen, at(10_001)).steps.is_empty(), "asked once");
    seen.targets[0].node = running("a").node;
    let healthy = decide(&seen, at(10_002));
    assert!(
        healthy
            .steps
            .iter()
            .any(|step| matches!(step, Step::TakeBack(_)))
    );
    assert_eq!(
        marked(&healthy, "a"),
        [row("HealthCheckSucceeded", "True", "HealthCheckSucceeded")]
    );
}

#[test]
fn two_checks_of_one_machine_say_so_and_only_the_older_acts() {
    let mut shared = broken("a", 0);
    shared.also = vec!["other".to_owned()];
    shared.acts = false;
    let seen = observed(usual(), vec![shared, broken("b", 0)]);
    let plan = decide(&seen, at(10_000));
    assert!(marked(&plan, "a").is_empty());
    assert!(!marked(&plan, "b").is_empty());
    let exclusive = said(&seen, "TargetsExclusive", 10_000);
    assert_eq!(exclusive.status, ConditionStatus::False);
    assert!(
        exclusive
            .message
            .starts_with("Machines a are also selected by MachineHealthCheck other"),
        "{}",
        exclusive.message
    );
    let mut younger = check(usual());
    younger.metadata.name = Some("a-younger".to_owned());
    younger.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(9)));
    let older = check(usual());
    assert_eq!(acting([&younger, &older]), Some(&older));
}

#[test]
fn a_machine_that_is_being_deleted_is_not_asked_for_again() {
    let mut going = broken("a", 0);
    Arc::make_mut(&mut going.machine)
        .metadata
        .deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    let observed = observed(usual(), vec![going]);
    assert_eq!(
        marked(&decide(&observed, at(10_000)), "a"),
        [row("HealthCheckSucceeded", "False", "UnhealthyNode")]
    );
}
