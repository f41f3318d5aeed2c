//! The control plane as the host sees it: Machines from its cache, members of etcd from their own answers.

use std::sync::Arc;

use capstan_api::condition::{self, Report};
use capstan_api::name::ObjectKey;
use capstan_api::{annotation, label};
use capstan_core::call::control_plane::{Desired, ObjectReference};
use capstan_core::control_plane::etcd::{Address, Answer, EtcdMember, View};
use capstan_core::control_plane::in_cluster::StableWork;
use capstan_core::control_plane::snapshot::Taking;
use capstan_core::control_plane::{ComponentState, MaterialState, Member, Observed, Template};
use capstan_core::lookup::Lookup;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::world::{Body, KUBELET_MISSED_AFTER, Machine, World};
use crate::membership::Member as EtcdsMember;

/// Static pods, by the conditions about them.
const PODS: [&str; 4] = [
    "APIServerPodHealthy",
    "ControllerManagerPodHealthy",
    "SchedulerPodHealthy",
    "EtcdPodHealthy",
];

/// The time of day so many seconds after the beginning.
pub fn timestamp(seconds: u64) -> Timestamp {
    let beginning: Timestamp = "2026-01-01T00:00:00Z".parse().expect("is a time");
    let since = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or_default());
    beginning.saturating_add(since).unwrap_or(Timestamp::MAX)
}

fn desired(world: &World) -> Desired {
    Desired {
        replicas: world.replicas,
        version: world.version.clone(),
        infrastructure_template: ObjectReference {
            group: "infrastructure.cluster.x-k8s.io".to_owned(),
            kind: "SimMachineTemplate".to_owned(),
            name: "cp".to_owned(),
        },
        bootstrap_group: "bootstrap.cluster.x-k8s.io".to_owned(),
        bootstrap_kind: "SimConfig".to_owned(),
        machine_labels: Vec::new(),
        machine_annotations: Vec::new(),
        readiness_gates: json!([]),
        deletion: json!({}),
        taints: json!([]),
        machine_naming: String::new(),
        max_surge: 1,
        rollout_after_ms: None,
        rollout_before_expiry_days: None,
        remediation: json!({}),
        extra: Vec::new(),
    }
}

fn cluster() -> Value {
    json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns"},
        "spec": {"controlPlaneEndpoint": {"host": "h", "port": 6443}},
        "status": {
            "initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true},
            "failureDomains": [
                {"name": "a", "controlPlane": true}, {"name": "b", "controlPlane": true}, {"name": "c", "controlPlane": true},
            ],
        },
    })
}

/// What the host sees now. `keeps_snapshots` is the operator's wish, `taking` the snapshot that is under way.
pub fn observe(
    world: &World,
    keeps_snapshots: bool,
    taking: Option<&Taking>,
    work: Option<&StableWork>,
) -> Observed {
    let connected = world.is_connected();
    Observed {
        object: world.object.clone(),
        cluster: Lookup::Found(serde_json::from_value(cluster()).expect("a Cluster")),
        plugin: Some("control-plane-sim".to_owned()),
        desired: Ok(desired(world)),
        material: Lookup::Found(MaterialState::default()),
        template: Lookup::Found(Template { is_owned: true }),
        members: world
            .cache
            .iter()
            .map(|machine| member(world, machine, connected))
            .collect(),
        workers: Vec::new(),
        pools: Vec::new(),
        took: std::time::Duration::ZERO,
        expects_etcd: true,
        connected,
        last_success: Some(timestamp(world.connected_at)),
        tried_since: Some(timestamp(0)),
        connection_error: (!connected).then(|| {
            let why = if world.has_server() {
                "etcdserver: request timed out"
            } else {
                "connection refused"
            };
            why.to_owned()
        }),
        connection_said: None,
        initialized: Lookup::Found(()),
        etcd: if connected {
            view(world)
        } else {
            Lookup::Unknown("the workload cluster does not answer".to_owned())
        },
        keeps_snapshots,
        snapshot: taking.cloned(),
        foreign: Vec::new(),
        stable_work: work.cloned(),
        rotation: capstan_core::control_plane::rotation::Seen::default(),
    }
}

fn member(world: &World, machine: &Machine, connected: bool) -> Member {
    let truth = world.machines.iter().find(|own| own.name == machine.name);
    let is_up = truth.is_some_and(|own| {
        let dead = own.kubelet_dead_since;
        world.is_up(own) && dead.is_none_or(|since| world.now < since + KUBELET_MISSED_AFTER)
    });
    let is_dropped = truth.is_some_and(|own| own.is_node_dropped);
    let is_member_off = truth.is_some_and(|own| own.member_off_until > world.now);
    let is_server_off = truth.is_some_and(|own| own.server_off_until > world.now);
    let has_member = world
        .etcd
        .members
        .iter()
        .any(|member| member.machine == machine.name && member.started);
    let mut annotations = json!({});
    if machine.hook {
        annotations[annotation::KCP_CLEANUP_HOOK] = json!("");
    }
    if let Some(record) = &machine.remediation_for {
        annotations[annotation::REMEDIATION_FOR] = json!(record);
    }
    let mut conditions = machine.conditions.clone();
    if truth.is_none_or(|own| own.body == Body::Gone) {
        let report = Report::no("InfrastructureReady", "Gone");
        conditions = condition::merge(&conditions, [report], None, timestamp(world.now));
    }
    let node_ref = machine.node.then(|| json!({"name": machine.name}));
    let object = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {
            "name": machine.name, "namespace": "ns", "uid": machine.uid,
            "creationTimestamp": timestamp(machine.created).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "deletionTimestamp": machine.deleted.map(|at| timestamp(at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            "annotations": annotations,
            "labels": {label::CLUSTER_NAME: "c", label::CONTROL_PLANE: "", label::CONTROL_PLANE_NAME: "cp"},
        },
        "spec": {
            "clusterName": "c", "version": machine.version, "failureDomain": machine.domain, "bootstrap": {},
            "deletion": {"nodeDeletionTimeoutSeconds": 10},
            "infrastructureRef": {"apiGroup": "g", "kind": "SimMachine", "name": machine.name},
        },
        "status": {
            "nodeRef": node_ref, "conditions": conditions,
            "initialization": {"infrastructureProvisioned": true, "bootstrapDataSecretCreated": true},
        },
    });
    let pod = |type_: &str| {
        if !connected {
            return Lookup::Unknown("the workload cluster does not answer".to_owned());
        }
        if is_dropped {
            return Lookup::Missing;
        }
        let is_off = match type_ {
            "EtcdPodHealthy" => is_member_off,
            "APIServerPodHealthy" => is_member_off || is_server_off,
            _ => false,
        };
        let runs = is_up && !is_off && (has_member || type_ == "SchedulerPodHealthy");
        let ready = if runs { "True" } else { "False" };
        Lookup::Found(json!({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
        }}))
    };
    Member {
        machine: serde_json::from_value(object).expect("a Machine"),
        config: Lookup::Unknown(String::new()),
        infra: Lookup::Unknown(String::new()),
        node: if is_dropped {
            Lookup::Missing
        } else {
            Lookup::Found(
                json!({"metadata": {"labels": {label::NODE_ROLE_CONTROL_PLANE: ""}}}).into(),
            )
        },
        components: PODS
            .iter()
            .map(|type_| ComponentState {
                condition_type: (*type_).to_owned(),
                pod: pod(type_).map(Arc::new),
            })
            .collect(),
        datastore: Some("EtcdPodHealthy".to_owned()),
        etcd: machine.node.then(|| Address {
            name: machine.name.clone(),
            pod: ObjectKey::new("kube-system", format!("etcd-{}", machine.name)),
            port: 2379,
        }),
        expiry: Lookup::Missing,
        outdated: Ok(Vec::new()),
        unseen: None,
    }
}

/// What the members answer to whom knows their machines.
fn view(world: &World) -> Lookup<View> {
    let is_asked = |name: &str| {
        let mut cache = world.cache.iter();
        cache.any(|machine| machine.name == name && machine.node)
    };
    let reached = |member: &&EtcdsMember| is_asked(&member.machine) && world.reaches(member);
    if !world.etcd.members.iter().any(|member| reached(&member)) {
        return Lookup::Unknown("no member answers".to_owned());
    }
    let answers = world.answers();
    let members = world.etcd.members.iter().map(|member| EtcdMember {
        id: member.id,
        name: if member.started {
            member.machine.clone()
        } else {
            String::new()
        },
        is_learner: member.learner,
        is_leader: answers && world.etcd.leader == Some(member.id),
        alarms: world
            .etcd
            .alarms
            .iter()
            .filter(|alarm| answers && alarm.member == member.id)
            .map(|alarm| alarm.name.clone())
            .collect(),
        answer: if reached(&member) {
            Lookup::Found(Answer::default())
        } else {
            Lookup::Unknown("no answer within 10 s".to_owned())
        },
    });
    let is_known = |id: u64| world.etcd.members.iter().any(|member| member.id == id);
    Lookup::Found(View {
        members: members.collect(),
        has_quorum: answers,
        stale_alarms: world
            .etcd
            .alarms
            .iter()
            .filter(|alarm| answers && !is_known(alarm.member))
            .cloned()
            .collect(),
    })
}
