//! Cases of what is said of a machine's pods and its Node, and of machines that are too old.

use capstan_api::reason::kubeadm;

use super::*;

/// Reason and message of a machine's condition.
fn said(member: Member, type_: &str) -> (ConditionStatus, String, String) {
    let seen = running(1, vec![member]);
    let reports = health::machine_conditions(&seen, &seen.members[0], now());
    let found = reports.into_iter().find(|report| report.type_ == type_);
    let found = found.unwrap();
    (found.status, found.reason, found.message)
}

fn with_pod(pod: Lookup<Value>) -> (ConditionStatus, String, String) {
    let mut member = member("a", "a");
    member.components[0].pod = pod.map(Arc::new);
    said(member, "APIServerPodHealthy")
}

#[test]
fn a_pod_says_how_far_it_is_and_what_keeps_it() {
    let pod = |phase: &str, done: &[&str], container: Value| {
        let conditions: Vec<Value> = done
            .iter()
            .map(|type_| json!({"type": type_, "status": "True"}))
            .collect();
        Lookup::Found(json!({"status": {
            "phase": phase, "conditions": conditions, "containerStatuses": [{"name": "c", "state": container}],
        }}))
    };
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let cases = [
        (
            pod("Pending", &[], json!({})),
            kubeadm::PROVISIONING,
            "scheduled",
        ),
        (
            pod("Pending", &["PodScheduled"], json!({})),
            kubeadm::PROVISIONING,
            "init containers",
        ),
        (
            pod("Pending", &["PodScheduled", "Initialized"], json!({})),
            kubeadm::PROVISIONING,
            "its containers",
        ),
        (
            pod("Running", &[], waiting("ContainerCreating")),
            kubeadm::PROVISIONING,
            "probes",
        ),
        (
            pod("Running", &[], waiting("CrashLoopBackOff")),
            kubeadm::FAILED,
            "container c waits: CrashLoopBackOff",
        ),
        (
            pod("Running", &[], json!({"terminated": {"exitCode": 3}})),
            kubeadm::FAILED,
            "container c ended with code 3",
        ),
        (
            pod("Succeeded", &[], json!({})),
            kubeadm::FAILED,
            "have ended",
        ),
        (
            pod("Failed", &[], json!({})),
            kubeadm::FAILED,
            "with an error",
        ),
        (Lookup::Missing, kubeadm::DOES_NOT_EXIST, "does not exist"),
    ];
    for (pod, reason, words) in cases {
        let (status, got, message) = with_pod(pod);
        assert_eq!((status, got.as_str()), (ConditionStatus::False, reason));
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_pod_that_goes_that_runs_or_that_cannot_be_seen() {
    let phase = |phase: &str, done: Value| {
        Lookup::Found(json!({"status": {"phase": phase, "conditions": done}}))
    };
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
    assert_eq!(with_pod(Lookup::Found(going)).1, common::DELETING);
    for unknown in [
        phase("Unknown", json!([])),
        Lookup::Unknown("no answer".to_owned()),
    ] {
        let (status, reason, _) = with_pod(unknown);
        assert_eq!(
            (status, reason.as_str()),
            (ConditionStatus::Unknown, common::INSPECTION_FAILED)
        );
    }
    let ready = json!([{"type": "Ready", "status": "True"}]);
    assert_eq!(with_pod(phase("Running", ready)).1, kubeadm::RUNNING);
}

#[test]
fn what_pods_say_is_not_believed_of_a_node_that_is_silent() {
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let taint = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
    let judged = |conditions: Value, taints: Value| {
        let mut member = member("a", "a");
        member.node = Lookup::Found(
            json!({"spec": {"taints": taints}, "status": {"conditions": conditions}}).into(),
        );
        PODS.map(|type_| said(member.clone(), type_).1)
    };
    assert_eq!(judged(ready("True"), json!([])), [kubeadm::RUNNING; 4]);
    assert_eq!(
        judged(ready("False"), json!([])),
        [kubeadm::RUNNING; 4],
        "it still tells"
    );
    assert_eq!(
        judged(ready("Unknown"), json!([])),
        [common::INSPECTION_FAILED; 4]
    );
    assert_eq!(judged(ready("True"), taint), [common::INSPECTION_FAILED; 4]);
    let mut silent = member("a", "a");
    silent.node = Lookup::Found(json!({"status": {"conditions": ready("Unknown")}}).into());
    assert_eq!(
        said(silent.clone(), "EtcdMemberHealthy").0,
        ConditionStatus::True,
        "the member was asked itself"
    );
    let seen = running(3, vec![silent]);
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("not all healthy")));
}

#[test]
fn a_node_has_kubeadms_label_and_the_taint_unless_the_config_leaves_it_out() {
    let key = label::NODE_ROLE_CONTROL_PLANE;
    let judged = |node: Value, config: Lookup<Arc<Value>>| {
        let mut member = member("a", "a");
        member.node = Lookup::Found(node.into());
        member.config = config;
        said(member, "NodeKubeadmLabelsAndTaintsSet")
    };
    let none = || Lookup::Unknown(String::new());
    let labels = json!({ key: "" });
    let bare = judged(json!({"metadata": {}}), none());
    assert_eq!(
        (bare.0, bare.1.as_str()),
        (ConditionStatus::False, kubeadm::NOT_SET)
    );
    assert!(bare.2.contains("no label"), "{}", bare.2);
    let untainted = json!({"metadata": {"labels": labels}});
    let lacking = judged(untainted.clone(), none());
    assert_eq!(lacking.1, kubeadm::NOT_SET);
    assert!(lacking.2.contains("no taint"), "{}", lacking.2);
    let on_purpose = json!({"spec": {"initConfiguration": {"nodeRegistration": {"taints": []}}}});
    let left_out = judged(untainted, Lookup::Found(on_purpose.into()));
    assert_eq!(left_out.1, kubeadm::SET);
    let whole = json!({"metadata": {"labels": labels}, "spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    assert_eq!(judged(whole, none()).1, kubeadm::SET);
}

#[test]
fn machines_that_are_older_than_the_time_for_all_of_them_are_outdated_once_it_has_come() {
    // The machine is an hour old.
    let mut seen = running(1, vec![member("a", "a")]);
    let mut outdated = |minutes_ago: i64| {
        let after = now() - SignedDuration::from_mins(minutes_ago);
        if let Ok(desired) = &mut seen.desired {
            desired.rollout_after_ms = Some(u64::try_from(after.as_millisecond()).unwrap());
        }
        !seen.outdated(&seen.members[0], now()).is_empty()
    };
    assert!(outdated(30));
    assert!(!outdated(90), "it was made afterwards");
    assert!(!outdated(-30), "not yet");
}
