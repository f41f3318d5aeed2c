//! Cases of the decisions about pools.

mod machines;

use std::sync::Arc;

use capstan_api::annotation;
use capstan_api::condition::{ConditionStatus, Report};
use capstan_api::reason::{common, condition_type, machine, machine_pool as reason};
use capstan_api::v1beta2::{Cluster, MachinePool, MachinePoolPhase};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::nodes::NodeDeletion;
use super::*;
use crate::lookup::Lookup;
use crate::plan::{Next, Outcome, Plan};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What is other than in a settled pool.
type Change = fn(&mut Observed);

fn pool(spec: &Value, status: &Value) -> MachinePool {
    let mut object = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool",
        "metadata": {"name": "p", "namespace": "n", "uid": "pool"},
        "spec": {
            "clusterName": "c", "replicas": 2,
            "template": {"spec": {
                "clusterName": "c",
                "bootstrap": {"configRef": {"apiGroup": "b", "kind": "Config", "name": "p"}},
                "infrastructureRef": {"apiGroup": "i", "kind": "ScaleSet", "name": "p"},
                "deletion": {"nodeDeletionTimeoutSeconds": 10},
            }},
        },
        "status": status,
    });
    let own = object["spec"].as_object_mut().unwrap();
    own.extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn owned(kind: &str, spec: &Value, status: &Value) -> Value {
    json!({
        "apiVersion": "i/v1", "kind": kind,
        "metadata": {
            "name": "p", "resourceVersion": "7",
            "labels": {"cluster.x-k8s.io/cluster-name": "c"},
            "ownerReferences": [{"kind": "MachinePool", "name": "p", "uid": "pool", "controller": true}],
        },
        "spec": spec, "status": status,
    })
}

fn scale_set(ids: &[&str], replicas: i32) -> Lookup<Arc<Value>> {
    let status = json!({"ready": true, "replicas": replicas});
    Lookup::Found(owned("ScaleSet", &json!({"providerIDList": ids}), &status).into())
}

fn config(secret: Option<&str>) -> Option<Lookup<Arc<Value>>> {
    let created = secret.is_some();
    let status =
        json!({"dataSecretName": secret, "initialization": {"dataSecretCreated": created}});
    Some(Lookup::Found(owned("Config", &json!({}), &status).into()))
}

/// A Node that the pool has been told of, and that knows whose it is.
fn node(name: &str, id: &str) -> Arc<Value> {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "3", "annotations": {
            annotation::CLUSTER_NAME: "c", annotation::CLUSTER_NAMESPACE: "n",
            annotation::OWNER_KIND: "MachinePool", annotation::OWNER_NAME: "p",
        }},
        "spec": {"providerID": id},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.36.3"},
        },
    })
    .into()
}

fn cluster(metadata: &Value) -> Lookup<Cluster> {
    let object = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": metadata, "spec": {},
    });
    Lookup::Found(serde_json::from_value(object).unwrap())
}

/// Two machines, two Nodes, everything copied.
fn settled() -> Observed {
    let nodes = [("a", "p://a"), ("b", "p://b")];
    let references: Vec<Value> = nodes
        .iter()
        .map(|(name, _)| json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid-{name}")}))
        .collect();
    let mut pool = pool(
        &json!({"providerIDList": ["p://a", "p://b"]}),
        &json!({"nodeRefs": references}),
    );
    pool.spec.template.spec.bootstrap.data_secret_name = Some("p".to_owned());
    Observed {
        pool,
        cluster: cluster(&json!({"name": "c"})),
        infra: scale_set(&["p://a", "p://b"], 2),
        bootstrap: config(Some("p")),
        plugin: None,
        infra_machines: Lookup::Found(Vec::new()),
        machines: Vec::new(),
        taken: Vec::new(),
        nodes: Lookup::Found(Nodes {
            by_id: nodes
                .map(|(name, id)| (id.to_owned(), vec![node(name, id)]))
                .into(),
            named: nodes.map(|(name, id)| node(name, id)).into(),
        }),
    }
}

fn deleting(mut observed: Observed) -> Observed {
    observed.pool.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("1970-01-01T00:00:00Z")).unwrap());
    observed
}

fn said(observed: &Observed, type_: &str) -> Report {
    let all = report(observed, None, NOW).conditions;
    all.into_iter().find(|said| said.type_ == type_).unwrap()
}

fn steps(observed: &Observed) -> Vec<Step> {
    decide(observed, NOW).steps
}

#[test]
fn a_settled_pool_is_left_alone_and_runs() {
    let seen = settled();
    assert_eq!(decide(&seen, NOW), Plan::settled());
    let reported = report(&seen, None, NOW);
    let status = reported.status;
    assert_eq!(status.phase, Some(MachinePoolPhase::Running));
    assert_eq!(
        [
            status.replicas,
            status.ready_replicas,
            status.available_replicas,
            status.up_to_date_replicas
        ],
        [Some(2); 4]
    );
    assert_eq!(status.node_refs, seen.status().node_refs);
    assert_eq!(status.versions[0].version, "v1.36.3");
    assert_eq!(status.versions[0].replicas, Some(2));
    let initialization = status.initialization.unwrap();
    assert_eq!(initialization.infrastructure_provisioned, Some(true));
    assert_eq!(initialization.bootstrap_data_secret_created, Some(true));
    assert_eq!(
        said(&seen, condition_type::AVAILABLE).status,
        ConditionStatus::True
    );
    assert!(!reported.finished);
}

#[test]
fn what_the_pool_names_becomes_its_own_and_carries_the_clusters_label() {
    let mut seen = settled();
    let bare = json!({"kind": "ScaleSet", "metadata": {
        "name": "p", "resourceVersion": "7", "ownerReferences": [{"kind": "Other", "uid": "other"}],
    }});
    seen.infra = Lookup::Found(bare.into());
    let all = steps(&seen);
    let Some(Step::Own { reference, patch }) = all.first() else {
        panic!("{all:?}");
    };
    assert_eq!(reference.kind, "ScaleSet");
    let metadata = &patch["metadata"];
    assert_eq!(metadata["labels"]["cluster.x-k8s.io/cluster-name"], "c");
    assert_eq!(metadata["resourceVersion"], "7");
    let owners = metadata["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 2);
    assert_eq!(owners[1]["uid"], "pool");
    assert_eq!(owners[1]["controller"], true);
}

#[test]
fn secret_and_provider_ids_are_copied_in_one_write_whenever_they_change() {
    let mut seen = settled();
    seen.infra = scale_set(&["p://b", "p://x"], 2);
    seen.bootstrap = config(Some("other"));
    let patches: Vec<Step> = steps(&seen)
        .into_iter()
        .filter(|step| matches!(step, Step::PatchPool(_)))
        .collect();
    let patch = json!({"spec": {
        "providerIDList": ["p://b", "p://x"],
        "template": {"spec": {"bootstrap": {"dataSecretName": "other"}}},
    }});
    assert_eq!(patches, [Step::PatchPool(patch)]);
    // To nothing, by a provider that says that there is nothing.
    seen.bootstrap = config(Some("p"));
    seen.infra = scale_set(&[], 0);
    let patch = json!({"spec": {"providerIDList": null}});
    assert!(steps(&seen).contains(&Step::PatchPool(patch)));
    // A list that is still to come says nothing.
    seen.infra = scale_set(&[], 2);
    assert_eq!(steps(&seen), []);
}

#[test]
fn nodes_of_machines_that_went_are_deleted_and_those_that_cannot_be_judged_stay() {
    let gone = Step::DeleteNodes(vec![NodeDeletion {
        name: "a".to_owned(),
        uid: "uid-a".to_owned(),
    }]);
    let mut seen = settled();
    seen.infra = scale_set(&["p://b"], 1);
    assert!(steps(&seen).contains(&gone));
    assert_eq!(report(&seen, None, NOW).status.node_refs.len(), 1);
    let unsure: [Change; 6] = [
        |seen| seen.infra = Lookup::Unknown("no answer".to_owned()),
        |seen| seen.infra = Lookup::Missing,
        |seen| seen.infra = scale_set(&[], 1),
        |seen| {
            let spec = json!({"providerIDList": ["p://b"]});
            seen.infra = Lookup::Found(owned("ScaleSet", &spec, &json!({"replicas": 1})).into());
        },
        |seen| seen.nodes = Lookup::Unknown("no connection".to_owned()),
        |seen| seen.plugin = Some("infrastructure-local".to_owned()),
    ];
    for change in unsure {
        let mut seen = seen.clone();
        change(&mut seen);
        let all = steps(&seen);
        assert!(
            !all.iter().any(|step| matches!(step, Step::DeleteNodes(_))),
            "{all:?}"
        );
    }
}

/// What may be seen of the infrastructure, and whether it says for sure which machines there are.
fn infras(ids: &[&str]) -> Vec<(Lookup<Arc<Value>>, bool)> {
    let count = i32::try_from(ids.len()).unwrap();
    let with = |status: Value, going: bool| {
        let mut set = owned("ScaleSet", &json!({"providerIDList": ids}), &status);
        if going {
            set["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        }
        Lookup::Found(Arc::new(set))
    };
    let ready = json!({"ready": true, "replicas": count});
    vec![
        (Lookup::Missing, false),
        (Lookup::Unknown("no answer".to_owned()), false),
        (with(ready.clone(), false), true),
        (with(ready, true), false),
        (
            with(
                json!({"ready": true, "replicas": count.saturating_add(1)}),
                false,
            ),
            !ids.is_empty(),
        ),
        (with(json!({"ready": true}), false), !ids.is_empty()),
        (with(json!({"replicas": count}), false), false),
    ]
}

#[test]
fn whatever_is_seen_only_nodes_go_whose_machine_is_known_to_be_gone() {
    let subsets: [&[&str]; 8] = [
        &[],
        &["p://a"],
        &["p://b"],
        &["p://c"],
        &["p://a", "p://b"],
        &["p://c", "p://a"],
        &["p://b", "p://c"],
        &["p://a", "p://b", "p://c"],
    ];
    for listed in subsets {
        for (infra, is_sure) in infras(listed) {
            for sees_nodes in [true, false] {
                let mut seen = settled();
                seen.infra = infra.clone();
                if !sees_nodes {
                    seen.nodes = Lookup::Unknown("no connection".to_owned());
                }
                let gone: Vec<String> = steps(&seen)
                    .into_iter()
                    .filter_map(|step| match step {
                        Step::DeleteNodes(nodes) => Some(nodes),
                        _ => None,
                    })
                    .flatten()
                    .map(|node| node.name)
                    .collect();
                let expected: Vec<&str> = ["a", "b"]
                    .into_iter()
                    .filter(|name| !listed.contains(&&*format!("p://{name}")))
                    .filter(|_| is_sure && sees_nodes)
                    .collect();
                assert_eq!(gone, expected, "{listed:?} {infra:?} {sees_nodes}");
                // And nobody takes a settled pool's Nodes out of its status because something could not be seen.
                let kept = report(&seen, None, NOW).status.node_refs.len();
                assert!(is_sure && sees_nodes || kept == 2, "{listed:?} {infra:?}");
            }
        }
    }
}

#[test]
fn nodes_learn_whose_they_are_and_lose_the_taint_of_new_ones() {
    let mut seen = settled();
    let mut fresh = Value::clone(&node("a", "p://a"));
    fresh["metadata"]["annotations"] = json!({"own": "1"});
    fresh["spec"]["taints"] = json!([
        {"key": "node.cluster.x-k8s.io/uninitialized", "effect": "NoSchedule"},
        {"key": "mine", "effect": "NoSchedule"},
    ]);
    let Lookup::Found(nodes) = &mut seen.nodes else {
        unreachable!();
    };
    nodes.by_id.insert("p://a".to_owned(), vec![fresh.into()]);
    let all = steps(&seen);
    let [Step::PatchNodes(patches)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(patches[0].name, "a");
    assert_eq!(
        patches[0].patch,
        json!({
            "metadata": {"resourceVersion": "3", "annotations": {
                annotation::CLUSTER_NAME: "c", annotation::CLUSTER_NAMESPACE: "n",
                annotation::OWNER_KIND: "MachinePool", annotation::OWNER_NAME: "p",
            }},
            "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
        })
    );
}

#[test]
fn two_nodes_of_one_provider_id_are_named_and_neither_is_taken() {
    let mut seen = settled();
    let Lookup::Found(nodes) = &mut seen.nodes else {
        unreachable!();
    };
    let twins = vec![node("a", "p://a"), node("twin", "p://a")];
    nodes.by_id.insert("p://a".to_owned(), twins);
    let available = said(&seen, condition_type::AVAILABLE);
    assert_eq!(available.status, ConditionStatus::False);
    assert!(available.message.contains("a, twin"), "{available:?}");
    let status = report(&seen, None, NOW).status;
    assert_eq!(status.node_refs.len(), 1);
    assert_eq!(
        decide(&seen, NOW).next,
        Next::CheckAfter(std::time::Duration::from_secs(30))
    );
}

#[test]
fn phases_follow_providers_and_numbers() {
    let phase = |change: &dyn Fn(&mut Observed)| {
        let mut seen = settled();
        change(&mut seen);
        report(&seen, None, NOW).status.phase.unwrap()
    };
    let none = |seen: &mut Observed| {
        seen.infra = Lookup::Missing;
        seen.pool.status = None;
    };
    assert_eq!(
        phase(&|seen| {
            none(seen);
            seen.bootstrap = config(None);
        }),
        MachinePoolPhase::Pending
    );
    assert_eq!(phase(&none), MachinePoolPhase::Provisioning);
    assert_eq!(
        phase(&|seen| seen.infra = Lookup::Missing),
        MachinePoolPhase::Provisioned,
        "Nodes are there, and nobody says any more that they should be"
    );
    assert_eq!(phase(&|_| ()), MachinePoolPhase::Running);
    let replicas = |wanted: i32, by: Option<&str>| {
        phase(&|seen: &mut Observed| {
            seen.pool.spec.replicas = Some(wanted);
            let by = by.map(|by| (annotation::REPLICAS_MANAGED_BY.to_owned(), by.to_owned()));
            seen.pool.metadata.annotations = Some(by.into_iter().collect());
        })
    };
    assert_eq!(replicas(3, None), MachinePoolPhase::ScalingUp);
    assert_eq!(replicas(1, None), MachinePoolPhase::ScalingDown);
    assert_eq!(replicas(3, Some("cloud")), MachinePoolPhase::Scaling);
    assert_eq!(replicas(1, Some("")), MachinePoolPhase::Scaling);
    assert_eq!(replicas(1, Some("false")), MachinePoolPhase::ScalingDown);
    assert_eq!(
        report(&deleting(settled()), None, NOW).status.phase,
        Some(MachinePoolPhase::Deleting)
    );
}

#[test]
fn flags_follow_what_providers_say_and_stay_while_they_cannot_be_seen() {
    let flags = |seen: &Observed| {
        let done = report(seen, None, NOW).status.initialization.unwrap();
        [
            done.infrastructure_provisioned,
            done.bootstrap_data_secret_created,
        ]
    };
    let mut seen = settled();
    seen.pool.status.as_mut().unwrap().initialization =
        report(&seen, None, NOW).status.initialization;
    seen.infra = Lookup::Unknown("no answer".to_owned());
    seen.bootstrap = Some(Lookup::Unknown("no answer".to_owned()));
    assert_eq!(flags(&seen), [Some(true); 2]);
    seen.infra = Lookup::Found(owned("ScaleSet", &json!({}), &json!({"ready": false})).into());
    seen.bootstrap = config(None);
    assert_eq!(flags(&seen), [Some(false); 2]);
}

#[test]
fn what_a_pool_cannot_be_made_of_is_named_and_nothing_is_done() {
    let refusals: [(Change, &str); 4] = [
        (
            |seen| seen.plugin = Some("infrastructure-local".to_owned()),
            "spec.template.spec.infrastructureRef: ScaleSet is a kind of plugin infrastructure-local",
        ),
        (
            |seen| {
                seen.pool.spec.template.spec.infrastructure_ref.kind = "ScaleSetTemplate".to_owned()
            },
            "spec.template.spec.infrastructureRef: ScaleSetTemplate is a template",
        ),
        (
            |seen| {
                let reference = &mut seen.pool.spec.template.spec.bootstrap.config_ref;
                reference.as_mut().unwrap().kind = "ConfigTemplate".to_owned();
            },
            "spec.template.spec.bootstrap.configRef: ConfigTemplate is a template",
        ),
        (
            |seen| {
                let mut config = owned("Config", &json!({}), &json!({}));
                config["metadata"]["ownerReferences"] = json!([
                    {"kind": "Machine", "name": "m", "uid": "m", "controller": true},
                ]);
                seen.bootstrap = Some(Lookup::Found(config.into()));
            },
            "spec.template.spec.bootstrap.configRef: Config p belongs to Machine m",
        ),
    ];
    for (change, words) in refusals {
        let mut seen = settled();
        seen.infra = Lookup::Found(json!({"kind": "ScaleSet", "metadata": {"name": "p"}}).into());
        change(&mut seen);
        assert_eq!(steps(&seen), [], "{words}");
        let told = said(&seen, condition_type::INFRASTRUCTURE_READY);
        assert_eq!(told.reason, reason::REFERENCE_NOT_SUPPORTED);
        assert!(told.message.contains(words), "{}", told.message);
        assert!(
            said(&seen, condition_type::AVAILABLE)
                .message
                .contains(words)
        );
        let mut config = Value::clone(seen.config().unwrap());
        if config["metadata"]["ownerReferences"][0]["kind"] == "MachinePool" {
            config["metadata"]["ownerReferences"] = json!([]);
            seen.bootstrap = Some(Lookup::Found(config.into()));
        }
        seen.pool.status = None;
        let going = deleting(seen);
        assert_eq!(steps(&going), [], "nothing of others is deleted");
        assert!(report(&going, None, NOW).finished);
    }
}

#[test]
fn providers_go_first_then_nodes_then_the_pool() {
    let mut seen = deleting(settled());
    let kinds = |seen: &Observed| -> Vec<String> {
        let all = steps(seen).into_iter();
        all.filter_map(|step| match step {
            Step::Delete(reference) => Some(reference.kind),
            _ => None,
        })
        .collect()
    };
    assert_eq!(kinds(&seen), ["Config", "ScaleSet"]);
    assert_eq!(
        said(&seen, condition_type::DELETING).reason,
        common::WAITING_FOR_INFRASTRUCTURE_DELETION
    );
    // One of them is going already, the other is gone.
    let mut going = owned("ScaleSet", &json!({}), &json!({}));
    going["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    seen.bootstrap = Some(Lookup::Missing);
    seen.infra = Lookup::Found(going.into());
    assert_eq!(steps(&seen), []);
    seen.infra = Lookup::Unknown("no answer".to_owned());
    assert_eq!(steps(&seen), [], "what cannot be seen is not gone");
    seen.infra = Lookup::Missing;
    let nodes = ["a", "b"].map(|name| NodeDeletion {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    });
    assert_eq!(steps(&seen), [Step::DeleteNodes(nodes.into())]);
    assert_eq!(
        said(&seen, condition_type::DELETING).reason,
        machine::DELETING_NODE
    );
    assert!(!report(&seen, None, NOW).finished);
    seen.nodes = Lookup::Found(Nodes::default());
    assert!(report(&seen, None, NOW).finished);
}

#[test]
fn nodes_that_cannot_be_deleted_are_given_up_in_time() {
    let mut seen = deleting(settled());
    seen.bootstrap = Some(Lookup::Missing);
    seen.infra = Lookup::Missing;
    seen.nodes = Lookup::Unknown("no connection".to_owned());
    let finished = |seen: &Observed, after_s: i64| {
        let now = NOW.checked_add(SignedDuration::from_secs(after_s)).unwrap();
        report(seen, None, now).finished
    };
    assert!(!finished(&seen, 9));
    assert!(finished(&seen, 10));
    let timeout = |seen: &mut Observed, seconds| {
        let deletion = seen.pool.spec.template.spec.deletion.as_mut().unwrap();
        deletion.node_deletion_timeout_seconds = seconds;
    };
    for never in [None, Some(0)] {
        timeout(&mut seen, never);
        assert!(!finished(&seen, 1_000_000));
    }
    // Nobody misses the Nodes of a cluster that goes.
    seen.cluster = cluster(&json!({"name": "c", "deletionTimestamp": "1970-01-01T00:00:00Z"}));
    assert!(finished(&seen, 0));
}

#[test]
fn many_objects_are_written_in_several_plans() {
    let ids: Vec<String> = (0..250).map(|n| format!("p://{n}")).collect();
    let listed: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut seen = settled();
    seen.infra = scale_set(&listed, 250);
    seen.pool.spec.provider_id_list.clone_from(&ids);
    let fresh = |id: &String| {
        let mut node = Value::clone(&node("x", id));
        node["metadata"]["annotations"] = Value::Null;
        (id.clone(), vec![Arc::new(node)])
    };
    seen.nodes = Lookup::Found(Nodes {
        by_id: ids.iter().map(fresh).collect(),
        named: Vec::new(),
    });
    let plan = decide(&seen, NOW);
    let [Step::PatchNodes(patches)] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps);
    };
    assert_eq!(patches.len(), decide::BATCH);
    assert_eq!(plan.next, Next::CheckAfter(std::time::Duration::ZERO));
}

#[test]
fn nodes_whose_turn_has_not_come_are_asked_for_again_soon() {
    let outcome = |effect| Outcome {
        done: vec![(Step::DeleteNodes(Vec::new()), effect)],
        failed: None,
    };
    let soon = Next::CheckAfter(std::time::Duration::from_secs(2));
    assert_eq!(until_turn(&outcome(Effect::NotItsTurn)), Some(soon));
    assert_eq!(until_turn(&outcome(Effect::Done)), None);
}
