//! Cases of the control-plane decisions.

use capstan_api::condition::{ConditionStatus, Report};
use capstan_api::reason::{common, condition_type};
use jiff::SignedDuration;
use serde_json::json;

use super::etcd::{Address, Answer, EtcdMember, View};
use super::size::{Size, size};
use super::*;
use crate::call::control_plane::ObjectReference;
use crate::plan::{Next, Outcome, Plan};
use crate::rollout::merge::PROPAGATED;

const PODS: [&str; 4] = [
    "APIServerPodHealthy",
    "ControllerManagerPodHealthy",
    "SchedulerPodHealthy",
    "EtcdPodHealthy",
];

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

pub(crate) fn desired(replicas: u32) -> Desired {
    Desired {
        replicas,
        version: "v1.36.0".to_owned(),
        infrastructure_template: ObjectReference {
            group: "infrastructure.cluster.x-k8s.io".to_owned(),
            kind: "LocalMachineTemplate".to_owned(),
            name: "cp".to_owned(),
        },
        bootstrap_group: "bootstrap.cluster.x-k8s.io".to_owned(),
        bootstrap_kind: "KubeadmConfig".to_owned(),
        machine_labels: vec![("tier".to_owned(), "gold".to_owned())],
        machine_annotations: vec![],
        readiness_gates: json!([{"conditionType": "NodeKubeadmLabelsAndTaintsSet"}]),
        deletion: json!({}),
        taints: json!([]),
        machine_naming: String::new(),
        max_surge: 1,
        rollout_after_ms: None,
        rollout_before_expiry_days: None,
        remediation: json!({}),
        extra: vec![],
    }
}

fn observed(replicas: u32) -> Observed {
    Observed {
        object: json!({"kind": "KubeadmControlPlane", "metadata": {"name": "cp", "namespace": "n", "uid": "u"}}),
        cluster: Lookup::Found(
            serde_json::from_value(json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
                "metadata": {"name": "c", "namespace": "n"},
                "spec": {"controlPlaneEndpoint": {"host": "h", "port": 6443}},
                "status": {
                    "initialization": {"infrastructureProvisioned": true},
                    "failureDomains": [
                        {"name": "a", "controlPlane": true}, {"name": "b", "controlPlane": true}, {"name": "w"},
                    ],
                },
            }))
            .unwrap(),
        ),
        plugin: Some("control-plane-kubeadm".to_owned()),
        desired: Ok(desired(replicas)),
        material: Lookup::Found(MaterialState::default()),
        expects_etcd: true,
        template: Lookup::Found(Template { is_owned: true }),
        members: vec![],
        workers: vec![],
        pools: vec![],
        took: Duration::ZERO,
        connected: false,
        last_success: None,
        tried_since: None,
        connection_error: None,
        connection_said: None,
        initialized: Lookup::Missing,
        etcd: Lookup::Missing,
        keeps_snapshots: false,
        snapshot: None,
        foreign: vec![],
        stable_work: None,
        rotation: crate::control_plane::rotation::Seen::default(),
    }
}

fn pod(ready: &str) -> Lookup<Arc<Value>> {
    Lookup::Found(
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
            .into(),
    )
}

/// The annotation with the keys of labels and annotations that were passed on.
fn propagated(labels: &[&str], annotations: &[&str]) -> String {
    json!({"labels": labels, "annotations": annotations}).to_string()
}

fn member(name: &str, domain: &str) -> Member {
    Member {
        machine: serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {
                "name": name, "namespace": "n", "uid": format!("uid-{name}"),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {annotation::KCP_CLEANUP_HOOK: "", PROPAGATED: propagated(&["tier"], &[])},
                "labels": {
                    "tier": "gold", label::CLUSTER_NAME: "c", label::CONTROL_PLANE: "", label::CONTROL_PLANE_NAME: "cp",
                },
            },
            "spec": {
                "clusterName": "c", "version": "v1.36.0", "failureDomain": domain, "bootstrap": {},
                "deletion": {"nodeDeletionTimeoutSeconds": 10},
                "readinessGates": [{"conditionType": "NodeKubeadmLabelsAndTaintsSet"}],
                "infrastructureRef": {"apiGroup": "g", "kind": "LocalMachine", "name": name},
            },
            "status": {"nodeRef": {"name": name}},
        }))
        .unwrap(),
        config: Lookup::Unknown(String::new()),
        infra: Lookup::Unknown(String::new()),
        node: Lookup::Found(json!({
            "metadata": {"labels": {label::NODE_ROLE_CONTROL_PLANE: ""}},
            "spec": {"taints": [{"key": label::NODE_ROLE_CONTROL_PLANE, "effect": "NoSchedule"}]},
        }).into()),
        components: PODS
            .iter()
            .map(|type_| ComponentState { condition_type: (*type_).to_owned(), pod: pod("True") })
            .collect(),
        datastore: Some("EtcdPodHealthy".to_owned()),
        etcd: Some(Address {
            name: name.to_owned(),
            pod: capstan_api::name::ObjectKey::new("kube-system", format!("etcd-{name}")),
            port: 2379,
        }),
        expiry: Lookup::Missing,
        outdated: Ok(vec![]),
        unseen: None,
    }
}

/// A member of etcd that is well.
fn etcd_member(id: u64, name: &str) -> EtcdMember {
    EtcdMember {
        id,
        name: name.to_owned(),
        is_learner: false,
        is_leader: false,
        alarms: vec![],
        answer: Lookup::Found(Answer::default()),
    }
}

/// The etcd of these machines: all are well, the first leads.
fn etcd_of(members: &[Member]) -> Lookup<View> {
    let members = members.iter().enumerate().map(|(at, member)| {
        let id = u64::try_from(at).unwrap() + 1;
        EtcdMember {
            is_leader: at == 0,
            ..etcd_member(id, member.node_name().unwrap())
        }
    });
    Lookup::Found(View {
        members: members.collect(),
        has_quorum: true,
        stale_alarms: vec![],
    })
}

fn view(seen: &mut Observed) -> &mut View {
    let Lookup::Found(view) = &mut seen.etcd else {
        panic!("there is no etcd")
    };
    view
}

fn with_condition(mut member: Member, report: Report) -> Member {
    let status = member.machine.status.get_or_insert_default();
    status.conditions = capstan_api::condition::merge(&status.conditions, [report], None, now());
    member
}

fn given_up(member: Member) -> Member {
    let member = with_condition(member, Report::no("HealthCheckSucceeded", "UnhealthyNode"));
    with_condition(
        member,
        Report::no("OwnerRemediated", "WaitingForRemediation"),
    )
}

fn running(replicas: u32, members: Vec<Member>) -> Observed {
    let mut seen = observed(replicas);
    seen.etcd = etcd_of(&members);
    seen.members = members;
    seen.connected = true;
    seen.initialized = Lookup::Found(());
    if let Lookup::Found(cluster) = &mut seen.cluster {
        let status = cluster.status.as_mut().unwrap();
        let initialization = status.initialization.as_mut().unwrap();
        initialization.control_plane_initialized = Some(true);
    }
    seen
}

fn deleting(mut member: Member) -> Member {
    let time = "2026-01-01T00:59:00Z".parse().unwrap();
    member.machine.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
    member
}

/// Notes the remediation of a machine that is gone, a minute ago.
fn noted(seen: &mut Observed, machine: &str, retry_count: i64) -> String {
    let record = super::remediation::Record {
        machine: machine.to_owned(),
        timestamp: now() - SignedDuration::from_secs(60),
        retry_count,
    };
    seen.object["metadata"]["annotations"] =
        json!({annotation::REMEDIATION_IN_PROGRESS: record.text()});
    record.text()
}

fn size_of(seen: &Observed) -> Size {
    size(
        seen,
        seen.cluster.found().unwrap(),
        seen.desired.as_ref().unwrap(),
        now(),
    )
}

fn reported(seen: &Observed) -> Reported {
    report(seen, &decide(seen, now()), &Outcome::default(), now())
}

use super::report::Reported;

fn status_of(reported: &Reported, type_: &str) -> ConditionStatus {
    reported
        .conditions
        .iter()
        .find(|report| report.type_ == type_)
        .unwrap()
        .status
}

fn message_of<'a>(reported: &'a Reported, type_: &str) -> &'a str {
    &reported
        .conditions
        .iter()
        .find(|report| report.type_ == type_)
        .unwrap()
        .message
}

/// The machine that is deleted by what is done.
fn deleted(size: &Size) -> Option<&str> {
    let Size::Do(steps) = size else { return None };
    steps.iter().find_map(|step| match step {
        Step::DeleteMachine { name, .. } => Some(name.as_str()),
        _ => None,
    })
}

#[test]
fn a_running_control_plane_is_available_and_settled() {
    let mut seen = running(1, vec![member("a", "a")]);
    let plan = decide(&seen, now());
    let [Step::ReportMachine { name, conditions }] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(name, "a");
    assert!(
        conditions.iter().all(|c| c.status == ConditionStatus::True),
        "{conditions:?}"
    );
    let types: Vec<&str> = conditions.iter().map(|c| c.type_.as_str()).collect();
    let expected = [
        "APIServerPodHealthy",
        "ControllerManagerPodHealthy",
        "SchedulerPodHealthy",
        "EtcdPodHealthy",
        "EtcdMemberHealthy",
        "NodeKubeadmLabelsAndTaintsSet",
        "UpToDate",
    ];
    assert_eq!(types, expected);
    let merged = capstan_api::condition::merge(&[], conditions.clone(), None, now());
    seen.members[0].machine.status.as_mut().unwrap().conditions = merged;
    let plan = decide(&seen, now());
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    assert_eq!(
        plan.next,
        Next::CheckAfter(std::time::Duration::from_secs(180))
    );
    let reported = reported(&seen);
    for type_ in [
        "Available",
        "Initialized",
        "CertificatesAvailable",
        "EtcdClusterHealthy",
        "ControlPlaneComponentsHealthy",
    ] {
        assert_eq!(
            status_of(&reported, type_),
            ConditionStatus::True,
            "{type_}"
        );
    }
    for type_ in [
        "RollingOut",
        "ScalingUp",
        "ScalingDown",
        "Remediating",
        "Deleting",
    ] {
        assert_eq!(
            status_of(&reported, type_),
            ConditionStatus::False,
            "{type_}"
        );
    }
    assert_eq!(
        reported.status["selector"],
        "cluster.x-k8s.io/cluster-name=c,cluster.x-k8s.io/control-plane"
    );
    assert_eq!(reported.status["version"], "v1.36.0");
    assert_eq!(
        reported.status["versions"],
        json!([{"version": "v1.36.0", "replicas": 1}])
    );
    assert_eq!(
        reported.status["initialization"]["controlPlaneInitialized"],
        true
    );
    assert_eq!(reported.status["upToDateReplicas"], 1);
}

#[test]
fn a_lost_connection_is_forgiven_for_a_while_and_then_nothing_is_known() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.object["status"] = json!({
        "initialization": {"controlPlaneInitialized": true},
        "conditions": [{"type": "Available", "status": "True", "reason": "Available"}],
    });
    seen.connected = false;
    seen.last_success = Some(now() - SignedDuration::from_mins(4));
    assert_eq!(
        status_of(&reported(&seen), "Available"),
        ConditionStatus::True
    );
    (seen.last_success, seen.tried_since) = (None, Some(now() - SignedDuration::from_mins(4)));
    assert_eq!(
        status_of(&reported(&seen), "Available"),
        ConditionStatus::True,
        "a new host lets stand what the last one saw"
    );
    seen.tried_since = Some(now() - SignedDuration::from_mins(7));
    seen.last_success = Some(now() - SignedDuration::from_mins(6));
    let later = reported(&seen);
    assert_eq!(status_of(&later, "Available"), ConditionStatus::Unknown);
    assert_eq!(
        status_of(&later, "EtcdClusterHealthy"),
        ConditionStatus::Unknown
    );
    assert_eq!(
        later.status["initialization"]["controlPlaneInitialized"], true,
        "once true it stays"
    );
}

#[test]
fn a_machine_that_is_coming_up_is_written_once() {
    let mut young = member("a", "a");
    young.components[2].pod = Lookup::Missing;
    let time = now() - SignedDuration::from_secs(20);
    young.machine.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
    let mut seen = running(1, vec![young]);
    assert!(decide(&seen, now()).steps.is_empty());
    assert_eq!(
        decide(&seen, now()).next,
        Next::CheckAfter(std::time::Duration::from_secs(1))
    );
    seen.members[0].components[2].pod = pod("True");
    assert!(matches!(
        decide(&seen, now()).steps.as_slice(),
        [Step::ReportMachine { .. }]
    ));
}

#[test]
fn deletion_waits_for_workers_and_then_deletes_all_machines() {
    let mut seen = running(3, vec![member("a", "a"), deleting(member("b", "b"))]);
    seen.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    seen.workers = vec!["w".to_owned()];
    assert!(decide(&seen, now()).steps.is_empty());
    let waiting = reported(&seen);
    let deleting = waiting
        .conditions
        .iter()
        .find(|c| c.type_ == condition_type::DELETING)
        .unwrap();
    assert_eq!(deleting.reason, common::WAITING_FOR_WORKERS_DELETION);
    assert_eq!(deleting.message, "* Machines: w");
    assert!(!waiting.finished);
    seen.workers = ["w1", "w2", "w3", "w4", "w5"].map(str::to_owned).to_vec();
    assert_eq!(
        message_of(&reported(&seen), "Deleting"),
        "* Machines: w1, w2, w3, ... (2 more)"
    );
    seen.pools = vec!["p".to_owned()];
    assert_eq!(
        message_of(&reported(&seen), "Deleting"),
        "* MachinePools: p\n* Machines: w1, w2, w3, ... (2 more)"
    );
    seen.workers.clear();
    assert!(decide(&seen, now()).steps.is_empty());
    assert_eq!(
        message_of(&reported(&seen), "Deleting"),
        "* MachinePools: p"
    );
    seen.pools.clear();
    assert_eq!(message_of(&reported(&seen), "Deleting"), "* Machines: a, b");
    let steps = decide(&seen, now()).steps;
    let deleted = |name: &str| {
        steps
            .iter()
            .any(|s| matches!(s, Step::DeleteMachine { name: n, .. } if n == name))
    };
    assert!(
        deleted("a") && !deleted("b"),
        "what is being deleted is not asked twice"
    );
    assert_eq!(
        steps
            .iter()
            .filter(|s| matches!(s, Step::Patch { .. }))
            .count(),
        2,
        "hooks of both"
    );
    seen.members.clear();
    assert!(reported(&seen).finished);
}

#[test]
fn a_workload_cluster_that_goes_with_its_machines_is_not_asked_any_more() {
    let mut seen = running(2, vec![]);
    assert!(
        seen.asks_about([true, true]),
        "machines may go for another reason"
    );
    seen.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(seen.asks_about([false, true]), "one still serves");
    assert!(!seen.asks_about([true, true]));
    assert!(!seen.asks_about([]));
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    let gone = "not looked at";
    let mut going = deleting(member("a", "a"));
    going.node = Lookup::Unknown(gone.to_owned());
    for component in &mut going.components {
        component.pod = Lookup::Unknown(gone.to_owned());
    }
    seen.members = vec![going];
    let reported = reported(&seen);
    let healthy = "ControlPlaneComponentsHealthy";
    assert_eq!(status_of(&reported, healthy), ConditionStatus::Unknown);
    assert!(message_of(&reported, healthy).contains(gone));
}

#[test]
fn what_a_crash_left_out_is_made() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.initialized = Lookup::Missing;
    seen.members[0].config = Lookup::Missing;
    let own = &seen.members[0];
    assert!(
        !is_completed(&seen),
        "what it refers to is somebody's: {:?}",
        own.machine.spec.bootstrap
    );
    seen.members[0].machine.spec.bootstrap = serde_json::from_value(json!({"configRef": {
        "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfig", "name": "a",
    }}))
    .unwrap();
    let expected = Step::CompleteMachine {
        name: "a".to_owned(),
        role: Role::Init,
        config: true,
        infra: false,
    };
    assert!(decide(&seen, now()).steps.contains(&expected));
    let status = seen.members[0].machine.status.as_mut().unwrap();
    status.initialization = Some(capstan_api::v1beta2::MachineInitializationStatus {
        bootstrap_data_secret_created: Some(true),
        infrastructure_provisioned: None,
    });
    assert!(!is_completed(&seen));
}

fn is_completed(seen: &Observed) -> bool {
    let steps = decide(seen, now()).steps;
    steps
        .iter()
        .any(|s| matches!(s, Step::CompleteMachine { .. }))
}

#[test]
fn a_machine_that_was_restored_before_its_parts_gets_no_others() {
    let mut seen = running(1, vec![member("a", "a")]);
    let restored = &mut seen.members[0];
    (restored.infra, restored.config) = (Lookup::Missing, Lookup::Missing);
    restored.machine.status = None;
    restored.machine.spec = serde_json::from_value(json!({
        "clusterName": "c", "version": "v1.36.0", "providerID": "local://a",
        "bootstrap": {
            "configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfig", "name": "a"},
            "dataSecretName": "a",
        },
        "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": "a"},
    }))
    .unwrap();
    assert!(!is_completed(&seen));
    seen.members[0].machine.spec.provider_id = None;
    assert!(is_completed(&seen), "it has no instance yet");
}

#[test]
fn the_end_of_certificates_is_noted_and_rolls_in_time() {
    let mut seen = running(1, vec![member("a", "a")]);
    let end: Timestamp = "2026-01-20T00:00:00Z".parse().unwrap();
    seen.members[0].expiry = Lookup::Found(end);
    let noted = json!({annotation::CERTIFICATES_EXPIRY: "2026-01-20T00:00:00Z"});
    assert!(decide(&seen, now()).steps.contains(&Step::Patch {
        part: MemberPart::Config,
        name: "a".to_owned(),
        patch: json!({"metadata": {"annotations": noted}}),
    }));
    seen.members[0].expiry = Lookup::Missing;
    seen.members[0].config = Lookup::Found(json!({"metadata": {"annotations": noted}}).into());
    let mut wanted = desired(1);
    for (days, rolls) in [(18, false), (20, true)] {
        wanted.rollout_before_expiry_days = Some(days);
        seen.desired = Ok(wanted.clone());
        assert_eq!(
            !seen.outdated(&seen.members[0], now()).is_empty(),
            rolls,
            "{days}"
        );
    }
}

#[test]
fn the_machines_own_end_of_certificates_comes_before_its_configs() {
    let mut member = member("a", "a");
    let ends = |member: &Member| member.certificates_end().map(|end| end.to_string());
    assert_eq!(ends(&member), None);
    let status = member.machine.status.as_mut().unwrap();
    status.certificates_expiry_date = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        "2026-04-01T00:00:00Z".parse().unwrap(),
    ));
    assert_eq!(ends(&member).as_deref(), Some("2026-04-01T00:00:00Z"));
    let noted = json!({annotation::CERTIFICATES_EXPIRY: "2026-03-01T00:00:00Z"});
    member.config = Lookup::Found(json!({"metadata": {"annotations": noted}}).into());
    assert_eq!(ends(&member).as_deref(), Some("2026-03-01T00:00:00Z"));
    let own = member.machine.metadata.annotations.as_mut().unwrap();
    own.insert(
        annotation::CERTIFICATES_EXPIRY.to_owned(),
        "2026-02-01T00:00:00Z".to_owned(),
    );
    assert_eq!(ends(&member).as_deref(), Some("2026-02-01T00:00:00Z"));
}

#[test]
fn why_a_machine_is_outdated_is_said_in_cluster_apis_words() {
    let mut seen = running(1, vec![member("a", "a")]);
    let mut wanted = desired(1);
    wanted.version = "v1.36.1".to_owned();
    wanted.rollout_after_ms = Some(u64::try_from(now().as_millisecond()).unwrap());
    wanted.rollout_before_expiry_days = Some(30);
    seen.desired = Ok(wanted);
    let own = &mut seen.members[0];
    own.infra = Lookup::Found(
        json!({"kind": "LocalMachine", "metadata": {"annotations": {annotation::CLONED_FROM_NAME: "older"}}})
            .into(),
    );
    let noted = json!({annotation::CERTIFICATES_EXPIRY: "2026-01-20T00:00:00Z"});
    own.config = Lookup::Found(json!({"metadata": {"annotations": noted}}).into());
    let expected = [
        "Version v1.36.0, v1.36.1 required",
        "LocalMachine is not up-to-date",
        "KubeadmControlPlane spec.rolloutAfter expired",
        "Certificates will expire soon",
    ];
    assert_eq!(seen.outdated(&seen.members[0], now()), expected);
}

#[test]
fn a_plugin_that_fails_changes_nothing_and_is_heard() {
    let mut seen = running(1, vec![member("a", "a")]);
    seen.desired = Err(Failure::terminal(
        "InvalidMaxSurge",
        "maxSurge must be 0 or 1",
    ));
    assert!(decide(&seen, now()).steps.is_empty());
    let reported = reported(&seen);
    assert_eq!(status_of(&reported, "ScalingUp"), ConditionStatus::Unknown);
    assert!(message_of(&reported, "ScalingUp").contains("maxSurge"));
}

/// A member of a control plane whose plugin names nothing to look at.
fn plain_member(name: &str, ready: &str) -> Member {
    let mut member = member(name, "a");
    member.components.clear();
    member.datastore = None;
    member.node = Lookup::Found(
        json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}).into(),
    );
    member
}

#[test]
fn a_machine_without_components_is_as_well_as_its_node() {
    let judged = |ready: &str| {
        let mut seen = running(3, vec![plain_member("m1", ready)]);
        if let Ok(desired) = &mut seen.desired {
            desired.readiness_gates = json!([]);
        }
        let reports = health::machine_conditions(&seen, &seen.members[0], now());
        let types: Vec<&str> = reports.iter().map(|report| report.type_.as_str()).collect();
        assert_eq!(
            types,
            ["ControlPlaneNodeReady", "UpToDate"],
            "and no kubeadm"
        );
        health::is_healthy(&reports)
    };
    assert_eq!(judged("True"), Some(true));
    assert_eq!(judged("False"), Some(false));
    assert_eq!(judged("Unknown"), None);
}

mod adoption;
mod alarms;
mod certificates;
mod components;
mod failures;
mod faults;
mod in_cluster;
mod membership;
mod order;
mod propagation;
mod recovery;
mod remediation;
mod rotation;
mod scale;
mod snapshots;
mod successor;
mod unasked;
mod waiting;
