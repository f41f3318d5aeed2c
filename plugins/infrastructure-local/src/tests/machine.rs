//! Instances.

use super::*;

fn with_cluster() -> (Model, Value) {
    let model = Model::new();
    let answer = Local::ensure_cluster(cluster_input(json!({}))).unwrap();
    let status = answer.status.json().clone();
    (model, status)
}

fn boots(model: &Model, bootstrap: &str) {
    model.set("instances", "state", json!("running"));
    model.set(
        "instances",
        "bootstrap",
        json!({"state": bootstrap, "message": "kubeadm exited with 1"}),
    );
}

#[test]
fn a_machine_is_ready_when_its_instance_has_bootstrapped() {
    let (model, cluster) = with_cluster();
    let mut input = machine_input(&cluster, "m", false);
    input.failure_domain = Some("zone-b".to_owned());
    let answer = Local::ensure_machine(input.clone()).unwrap();
    assert_eq!(wait_reason(&answer.progress), "InstanceProvisioning");
    assert_eq!(
        answer.provider_id.as_deref(),
        Some("local:///zone-a/instances-3")
    );
    keep_machine(&mut input, &answer);
    let made = &model.all("instances")[0];
    assert_eq!(
        (
            made["type"].as_str(),
            made["image"].as_str(),
            made["zone"].as_str()
        ),
        (Some("medium"), Some("v1.36.0"), Some("zone-b"))
    );
    assert_eq!(
        made["userData"],
        testing::secret(1).to_string(),
        "the bytes stay in the host"
    );
    assert_eq!(made["tags"]["machine"], "default/m");
    boots(&model, "running");
    assert_eq!(
        wait_reason(&Local::ensure_machine(input.clone()).unwrap().progress),
        "Bootstrapping"
    );
    boots(&model, "done");
    let answer = Local::ensure_machine(input).unwrap();
    assert_eq!(answer.progress, Progress::Ready);
    assert_eq!(answer.addresses.len(), 1);
    assert_eq!(answer.instance_state, "running");
    assert_eq!(answer.failure_domain.as_deref(), Some("zone-b"));
    assert_eq!(answer.conditions[0].status, ConditionStatus::True);
}

#[test]
fn a_settled_machine_answers_the_same_again() {
    let (model, cluster) = with_cluster();
    let mut input = machine_input(&cluster, "m", false);
    let first = Local::ensure_machine(input.clone()).unwrap();
    keep_machine(&mut input, &first);
    boots(&model, "done");
    let mut machine = input.machine.raw.clone();
    machine["status"]["nodeRef"] = json!({"name": "m"});
    input.machine = Object::from_value(machine).unwrap();
    let settled = Local::ensure_machine(input.clone()).unwrap();
    keep_machine(&mut input, &settled);
    input.context.now_ms = input.context.now_ms.saturating_add(600_000);
    input.context.attempt = 7;
    assert_eq!(Local::ensure_machine(input).unwrap(), settled);
}

#[test]
fn neither_lost_answers_nor_crashes_nor_throttling_make_a_second_instance() {
    let (model, cluster) = with_cluster();
    model.fault("POST instances", Fault::Throttle);
    model.fault("POST instances", Fault::LoseAnswer);
    let input = machine_input(&cluster, "m", true);
    let (_, failures) = until_it_answers(|| Local::ensure_machine(input.clone()));
    assert_eq!(failures, 2);
    // The host crashed before it kept the answer.
    Local::ensure_machine(input).unwrap();
    assert_eq!(model.all("instances").len(), 1);
    assert_eq!(model.made(), 3);
}

#[test]
fn control_plane_machines_are_targets_of_the_load_balancer_and_workers_are_not() {
    let (model, cluster) = with_cluster();
    Local::ensure_machine(machine_input(&cluster, "cp", true)).unwrap();
    Local::ensure_machine(machine_input(&cluster, "md", false)).unwrap();
    assert_eq!(
        model.all("load-balancers")[0]["targets"],
        json!(["instances-3"])
    );
    let answer = Local::delete_machine(machine_input(&cluster, "cp", true)).unwrap();
    assert_eq!(answer.waiting.unwrap().reason, "DeletingInstance");
    assert_eq!(model.all("load-balancers")[0]["targets"], json!([]));
}

#[test]
fn after_a_move_the_cloud_tells_what_belongs_to_the_cluster() {
    let (model, cluster) = with_cluster();
    let first = Local::ensure_machine(machine_input(&cluster, "cp", true)).unwrap();
    // Neither status nor state was moved, and the UID is another one.
    let mut moved = machine_input(&json!({}), "cp", true);
    moved.context.idempotency_key = "after-the-move".to_owned();
    assert_eq!(
        Local::ensure_machine(moved.clone()).unwrap().provider_id,
        first.provider_id
    );
    Local::ensure_machine(machine_input(&json!({}), "another", true)).unwrap();
    assert_eq!(
        model.all("load-balancers")[0]["targets"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let mut cluster = cluster_input(json!({}));
    cluster.context.idempotency_key = "after-the-move".to_owned();
    Local::ensure_cluster(cluster).unwrap();
    assert_eq!(model.made(), 4);
}

#[test]
fn an_instance_that_is_gone_is_never_replaced_silently() {
    let (model, cluster) = with_cluster();
    let fresh = machine_input(&cluster, "m", false);
    let mut kept = fresh.clone();
    keep_machine(&mut kept, &Local::ensure_machine(fresh.clone()).unwrap());
    let mut provided = fresh.clone();
    let mut raw = provided.infra_machine.raw.clone();
    raw["spec"]["providerID"] = json!("local:///zone-a/instances-3");
    provided.infra_machine = Object::from_value(raw).unwrap();
    model.set("instances", "state", json!("terminating"));
    assert_eq!(
        Local::ensure_machine(kept.clone()).unwrap_err().reason,
        "InstanceGone"
    );
    model.clear("instances");
    // Whether the host, the object or only the cloud remembers it; also with other bootstrap data than before.
    let mut changed = fresh.clone();
    changed.machine.spec.version = "v1.36.1".to_owned();
    for input in [kept, provided, fresh, changed] {
        let failure = Local::ensure_machine(input).unwrap_err();
        assert_eq!(
            (failure.kind, failure.reason.as_str()),
            (FailureKind::Terminal, "InstanceGone")
        );
    }
    assert_eq!(model.made(), 3);
}

#[test]
fn a_failed_bootstrap_shows_the_end_of_the_console() {
    let (model, cluster) = with_cluster();
    let input = machine_input(&cluster, "m", false);
    Local::ensure_machine(input.clone()).unwrap();
    boots(&model, "failed");
    let lines: Vec<String> = (0..40).map(|number| format!("line {number}")).collect();
    model.print(&lines.join("\n\n"));
    let answer = Local::ensure_machine(input).unwrap();
    assert_eq!(wait_reason(&answer.progress), "BootstrapFailed");
    let condition = &answer.conditions[0];
    assert_eq!(condition.status, ConditionStatus::False);
    assert!(
        condition.message.contains("kubeadm exited with 1"),
        "{}",
        condition.message
    );
    assert!(
        condition.message.ends_with("line 39") && !condition.message.contains("line 29\n"),
        "{}",
        condition.message
    );
}

#[test]
fn a_machine_that_does_not_get_on_shows_the_end_of_its_console() {
    let (model, cluster) = with_cluster();
    let mut input = machine_input(&cluster, "m", false);
    let first = Local::ensure_machine(input.clone()).unwrap();
    keep_machine(&mut input, &first);
    model.print("kubeadm: waiting for the kubelet");
    boots(&model, "running");
    let answer = Local::ensure_machine(input.clone()).unwrap();
    assert!(answer.conditions.is_empty(), "it is early");
    input.context.now_ms = input.context.now_ms.saturating_add(200_000);
    let answer = Local::ensure_machine(input.clone()).unwrap();
    let slow = &answer.conditions[0];
    assert_eq!(
        (slow.status, slow.reason.as_str()),
        (ConditionStatus::Unknown, "BootstrapSlow")
    );
    assert!(slow.message.ends_with("waiting for the kubelet"));
    boots(&model, "done");
    let answer = Local::ensure_machine(input.clone()).unwrap();
    assert_eq!(answer.progress, Progress::Ready);
    let missing = &answer.conditions[1];
    assert_eq!(
        (missing.condition_type.as_str(), missing.reason.as_str()),
        ("NodeJoined", "NodeMissing")
    );
    assert!(missing.message.ends_with("waiting for the kubelet"));
    let mut machine = input.machine.raw.clone();
    machine["status"]["nodeRef"] = json!({"name": "m"});
    input.machine = Object::from_value(machine).unwrap();
    assert_eq!(Local::ensure_machine(input).unwrap().conditions.len(), 1);
}

#[test]
fn a_machine_that_went_off_says_why() {
    let (model, cluster) = with_cluster();
    let input = machine_input(&cluster, "m", false);
    Local::ensure_machine(input.clone()).unwrap();
    model.set("instances", "state", json!("stopped"));
    model.set("instances", "stateMessage", json!("it was killed"));
    let answer = Local::ensure_machine(input).unwrap();
    let Progress::Waiting(waiting) = answer.progress else {
        panic!("ready")
    };
    assert_eq!(waiting.reason, "InstanceStopped");
    assert!(
        waiting.message.contains("it was killed"),
        "{}",
        waiting.message
    );
}

#[test]
fn what_the_cloud_cannot_make_is_a_terminal_failure() {
    let (model, cluster) = with_cluster();
    let input = machine_input(&cluster, "m", false);
    Local::ensure_machine(input.clone()).unwrap();
    model.set("instances", "state", json!("failed"));
    model.set("instances", "stateMessage", json!("no capacity"));
    let failure = Local::ensure_machine(input).unwrap_err();
    assert_eq!(
        (failure.kind, failure.reason.as_str()),
        (FailureKind::Terminal, "InstanceFailed")
    );
    assert!(failure.message.contains("no capacity"));
}

#[test]
fn waits_grow_with_the_time_waited() {
    let (_model, cluster) = with_cluster();
    let mut input = machine_input(&cluster, "m", false);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let answer = Local::ensure_machine(input.clone()).unwrap();
        keep_machine(&mut input, &answer);
        let Progress::Waiting(waiting) = answer.progress else {
            panic!("ready")
        };
        waits.push(waiting.check_after.as_millis());
        input.context.now_ms = input.context.now_ms.saturating_add(4000);
    }
    assert_eq!(waits, [250, 2000, 4000]);
}

#[test]
fn deletion_ends_when_the_instance_is_gone_and_is_repeatable() {
    let (model, cluster) = with_cluster();
    let input = machine_input(&cluster, "m", false);
    assert!(
        Local::delete_machine(input.clone()).unwrap().is_gone(),
        "what was never made is gone"
    );
    model.fault("POST instances", Fault::LoseAnswer);
    Local::ensure_machine(input.clone()).unwrap_err();
    model.fault("DELETE instances", Fault::LoseAnswer);
    let (answer, failures) = until_it_answers(|| Local::delete_machine(input.clone()));
    assert_eq!(failures, 1);
    assert!(!answer.is_gone());
    assert_eq!(model.all("instances")[0]["state"], "terminating");
    model.clear("instances");
    assert!(Local::delete_machine(input).unwrap().is_gone());
}

#[test]
fn an_instance_of_another_machine_is_not_deleted_whatever_the_object_names() {
    let (model, cluster) = with_cluster();
    let made = Local::ensure_machine(machine_input(&cluster, "theirs", false)).unwrap();
    let mut named = machine_input(&cluster, "m", false);
    let mut raw = named.infra_machine.raw.clone();
    raw["spec"]["providerID"] = json!(made.provider_id);
    named.infra_machine = Object::from_value(raw).unwrap();
    let mut remembered = machine_input(&cluster, "m", false);
    keep_machine(&mut remembered, &made);
    for input in [named, remembered] {
        assert!(Local::delete_machine(input).unwrap().is_gone());
        assert_ne!(model.all("instances")[0]["state"], "terminating");
    }
}

#[test]
fn machines_wait_for_their_clusters_infrastructure() {
    let _model = Model::new();
    let failure = Local::ensure_machine(machine_input(&json!({}), "m", false)).unwrap_err();
    assert_eq!(
        (failure.kind, failure.reason.as_str()),
        (FailureKind::Transient, "ClusterInfrastructureMissing")
    );
}
