//! What is applied where, in which order, and what the status says about it.

use std::time::Duration;

use capstan_api::addons::ResourceKind;
use serde_json::json;

use super::decide::Action;
use super::*;
use crate::plan::{Next, STEPS_MAX};

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("a time")
}

fn reference(name: &str) -> ResourceRef {
    ResourceRef {
        kind: ResourceKind::ConfigMap,
        name: name.to_owned(),
    }
}

fn manifest(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  a: b\n")
}

fn resource(name: &str) -> ResourceSeen {
    let data = BTreeMap::from([("a.yaml".to_owned(), manifest(name).into_bytes())]);
    ResourceSeen {
        reference: reference(name),
        held: Lookup::Found(Held {
            metadata: json!({
                "resourceVersion": "1", "labels": {"capstan.dev/cluster-resource-set": ""},
                "ownerReferences": [{"uid": "uid-s"}],
            }),
            wrong_type: None,
            content: content::read(&data),
        }),
    }
}

fn observed(strategy: &str, annotations: serde_json::Value) -> Observed {
    let set = json!({
        "apiVersion": "addons.cluster.x-k8s.io/v1beta2", "kind": "ClusterResourceSet",
        "metadata": {"name": "s", "namespace": "ns", "uid": "uid-s", "annotations": annotations},
        "spec": {
            "strategy": strategy,
            "clusterSelector": {"matchLabels": {"a": "b"}},
            "resources": [{"kind": "ConfigMap", "name": "one"}, {"kind": "ConfigMap", "name": "two"}],
        },
    });
    Observed {
        set: serde_json::from_value(set).expect("a set"),
        clusters: vec![ClusterSeen {
            name: "c".to_owned(),
            not_connected: None,
            memory: Arc::default(),
        }],
        resources: vec![resource("one"), resource("two")],
        bindings: Vec::new(),
    }
}

/// The binding of the cluster after all of this was applied.
fn bound(observed: &Observed) -> ClusterResourceSetBinding {
    let empty = binding::new(observed, "c");
    let mut empty: ClusterResourceSetBinding = serde_json::from_value(empty).expect("a binding");
    empty.metadata.resource_version = Some("7".to_owned());
    let results: Vec<(ResourceRef, ItemResult)> = observed
        .resources
        .iter()
        .map(|resource| {
            let content = decide::usable(&resource.held).expect("usable");
            let result = ItemResult {
                hash: content.hash.clone(),
                applied: Some(now()),
                ..ItemResult::default()
            };
            (resource.reference.clone(), result)
        })
        .collect();
    let inventory = observed.resources.iter().flat_map(|resource| {
        let content = decide::usable(&resource.held).expect("usable");
        content.objects.iter().filter_map(ObjectRef::of)
    });
    let inventory = observed.prunes().then(|| inventory.collect());
    let patch = binding::patch(observed, &empty, &results, inventory.as_ref());
    let mut object = json!(empty);
    crate::rollout::simulation::merge(&mut object, &patch.expect("something to record"));
    serde_json::from_value(object).expect("a binding")
}

fn synced(plan: &crate::plan::Plan<Step>) -> Vec<(String, Action)> {
    let steps = plan.steps.iter().filter_map(|step| match step {
        Step::Sync(sync) => Some(sync),
        _ => None,
    });
    steps
        .flat_map(|sync| &sync.items)
        .map(|item| (item.reference.name.clone(), item.action))
        .collect()
}

fn both(action: Action) -> Vec<(String, Action)> {
    vec![("one".to_owned(), action), ("two".to_owned(), action)]
}

#[test]
fn what_was_never_applied_is_created_and_bound() {
    let plan = decide(&observed("ApplyOnce", json!({})), now());
    assert!(matches!(plan.steps[0], Step::Bind(_)));
    assert_eq!(synced(&plan), both(Action::Create));
}

#[test]
fn apply_once_does_not_follow_changes_and_reconcile_does() {
    for (strategy, expected) in [
        ("ApplyOnce", Vec::new()),
        ("Reconcile", vec![("two".to_owned(), Action::Apply)]),
    ] {
        let mut observed = observed(strategy, json!({}));
        observed.bindings = vec![bound(&observed)];
        assert!(decide(&observed, now()).steps.is_empty(), "{strategy}");
        let mut changed = resource("other");
        changed.reference = reference("two");
        observed.resources[1] = changed;
        assert_eq!(synced(&decide(&observed, now())), expected, "{strategy}");
    }
}

#[test]
fn a_missing_resource_holds_up_only_those_that_wait() {
    let mut observed = observed("Reconcile", json!({}));
    observed.resources[0].held = Lookup::Missing;
    let plan = decide(&observed, now());
    assert_eq!(synced(&plan), [("two".to_owned(), Action::Apply)]);
    assert!(matches!(plan.next, Next::CheckAfter(_)), "it may come");
    let annotations = json!({"capstan.dev/wait-for-ready": "true"});
    observed.set.metadata.annotations = serde_json::from_value(annotations).expect("a map");
    assert!(synced(&decide(&observed, now())).is_empty());
    let reported = report(&observed, &BTreeMap::new(), None);
    assert_eq!(reported.conditions[0].reason, "InternalError");
    assert_eq!(
        reported.status.problems[0].resource.as_deref(),
        Some("ConfigMap/one")
    );
}

#[test]
fn what_failed_is_tried_again_after_a_while_and_said() {
    let mut observed = observed("ApplyOnce", json!({}));
    let hash = decide::usable(&observed.resources[0].held)
        .expect("usable")
        .hash
        .clone();
    let failed = ItemResult {
        hash,
        errors: vec!["ConfigMap one: no".to_owned()],
        ..ItemResult::default()
    };
    let memory = Arc::make_mut(&mut observed.clusters[0].memory);
    memory.tried = Some(now());
    memory.results.insert(reference("one"), failed);
    let plan = decide(&observed, now());
    assert!(synced(&plan).is_empty());
    assert_eq!(plan.next, Next::CheckAfter(Duration::from_secs(15)));
    let later = now() + jiff::SignedDuration::from_secs(16);
    assert_eq!(synced(&decide(&observed, later)), both(Action::Create));
    let reported = report(&observed, &BTreeMap::new(), None);
    let condition = &reported.conditions[0];
    assert_eq!(condition.reason, "NotApplied");
    assert!(
        condition
            .message
            .contains("* c, ConfigMap/one: ConfigMap one: no"),
        "{}",
        condition.message
    );
}

#[test]
fn of_several_clusters_that_were_not_tried_for_longer_come_first() {
    let mut observed = observed("Reconcile", json!({}));
    let seen = |name: &str, tried: Option<i64>| ClusterSeen {
        name: name.to_owned(),
        not_connected: None,
        memory: Arc::new(Memory {
            tried: tried.map(|age| now() - jiff::SignedDuration::from_secs(age)),
            ..Memory::default()
        }),
    };
    observed.clusters = vec![
        seen("a", Some(1)),
        seen("b", Some(60)),
        seen("c", None),
        seen("d", None),
    ];
    let plan = decide(&observed, now());
    let clusters = plan.steps.iter().filter_map(|step| match step {
        Step::Sync(sync) => Some(sync.cluster.as_str()),
        _ => None,
    });
    assert_eq!(clusters.collect::<Vec<_>>(), ["c", "d", "b", "a"]);
}

#[test]
fn of_thousands_of_clusters_a_plan_has_as_many_as_it_may_and_they_share_the_objects() {
    let mut observed = observed("Reconcile", json!({"capstan.dev/prune": "true"}));
    let large = manifest("one").replace("a: b", &format!("a: {}", "b".repeat(1 << 20)));
    let data = BTreeMap::from([("a.yaml".to_owned(), large.into_bytes())]);
    let Lookup::Found(held) = &mut observed.resources[0].held else {
        panic!("it is there")
    };
    held.content = content::read(&data);
    // Bound already: each cluster is one step.
    let one = bound(&observed);
    let names: Vec<String> = (0..2000).map(|at| format!("c-{at}")).collect();
    observed.clusters = names
        .iter()
        .map(|name| ClusterSeen {
            name: name.clone(),
            not_connected: None,
            memory: Arc::default(),
        })
        .collect();
    observed.bindings = names
        .iter()
        .map(|name| {
            let mut other = one.clone();
            other.metadata.name = Some(name.clone());
            for entry in other
                .spec
                .bindings
                .iter_mut()
                .flat_map(|b| &mut b.resources)
            {
                entry.applied = false;
            }
            other
        })
        .collect();
    let plan = decide(&observed, now());
    assert_eq!(plan.steps.len(), STEPS_MAX);
    assert_eq!(plan.next, Next::CheckAfter(Duration::from_secs(1)));
    let objects = &decide::usable(&observed.resources[0].held)
        .expect("usable")
        .objects;
    for (step, name) in plan.steps.iter().zip(&names) {
        let Step::Sync(sync) = step else {
            panic!("{step:?}")
        };
        assert_eq!(sync.cluster, *name);
        assert!(Arc::ptr_eq(&sync.items[0].objects, objects));
    }
    // As many as it may have are not too many.
    observed.clusters.truncate(STEPS_MAX);
    let plan = decide(&observed, now());
    assert_eq!(plan.steps.len(), STEPS_MAX);
    assert_eq!(plan.next, Next::CheckAfter(Duration::from_secs(5)));
}

#[test]
fn what_left_the_resources_is_pruned_unless_something_cannot_be_seen() {
    let mut observed = observed("Reconcile", json!({"capstan.dev/prune": "true"}));
    observed.bindings = vec![bound(&observed)];
    assert!(decide(&observed, now()).steps.is_empty());
    observed.resources.pop();
    observed.set.spec.resources.pop();
    let pruned = |observed: &Observed| {
        let plan = decide(observed, now());
        plan.steps.iter().find_map(|step| match step {
            Step::Sync(sync) => Some(sync.prune.clone()),
            _ => None,
        })
    };
    let names: Vec<String> = pruned(&observed)
        .expect("something goes")
        .into_iter()
        .map(|object| object.name)
        .collect();
    assert_eq!(names, ["two"]);
    observed.resources[0].held = Lookup::Unknown("the server is away".to_owned());
    assert_eq!(pruned(&observed), None);
}

#[test]
fn drift_is_looked_for_at_intervals_and_corrected_when_asked() {
    let mut observed = observed("ApplyOnce", json!({"capstan.dev/drift": "Correct"}));
    observed.bindings = vec![bound(&observed)];
    assert_eq!(synced(&decide(&observed, now())), both(Action::Check));
    let hash = decide::usable(&observed.resources[0].held)
        .expect("usable")
        .hash
        .clone();
    let drifted = ItemResult {
        hash,
        drift: vec!["ConfigMap one: data.a".to_owned()],
        ..ItemResult::default()
    };
    let memory = Arc::make_mut(&mut observed.clusters[0].memory);
    memory.checked = Some(now());
    memory.results.insert(reference("one"), drifted);
    assert_eq!(
        synced(&decide(&observed, now())),
        [("one".to_owned(), Action::Apply)]
    );
    let reported = report(&observed, &BTreeMap::new(), None);
    assert_eq!(reported.status.problems[0].reason, "Drifted");
}

#[test]
fn deletion_takes_the_set_out_of_bindings_and_leaves_others() {
    let mut observed = observed("ApplyOnce", json!({}));
    let mut shared = bound(&observed);
    shared
        .spec
        .bindings
        .push(capstan_api::addons::ResourceSetBinding {
            cluster_resource_set_name: "other".to_owned(),
            resources: Vec::new(),
        });
    observed.bindings = vec![bound(&observed), shared];
    observed.set.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let plan = decide(&observed, now());
    let patches: Vec<bool> = plan
        .steps
        .iter()
        .map(|step| matches!(step, Step::Unbind { patch: Some(_), .. }))
        .collect();
    assert_eq!(patches, [false, true]);
    assert!(!report(&observed, &BTreeMap::new(), None).finished);
    observed.bindings.clear();
    assert!(report(&observed, &BTreeMap::new(), None).finished);
}

#[test]
fn content_is_read_from_documents_and_lists_and_sorted() {
    let data = BTreeMap::from([
        (
            "a".to_owned(),
            b"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: spaces}\n".to_vec(),
        ),
        (
            "b".to_owned(),
            br#"[{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"}}]"#.to_vec(),
        ),
    ]);
    let content = content::read(&data).expect("readable");
    let kinds: Vec<&str> = content
        .objects
        .iter()
        .filter_map(|o| o["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["Namespace", "Service", "Deployment"]);
    assert!(content.hash.starts_with("sha256:") && content.hash.len() == 71);
    let bad = BTreeMap::from([("k".to_owned(), b"kind: X\n".to_vec())]);
    assert!(content::read(&bad).expect_err("refused").starts_with("k: "));
    let secret = BTreeMap::from([("k".to_owned(), b"password: [hunter2".to_vec())]);
    assert!(
        !content::read(&secret)
            .expect_err("refused")
            .contains("hunter2")
    );
}

#[test]
fn drift_is_what_the_manifest_says_and_the_object_does_not() {
    let manifest = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [
            {"name": "c", "image": "i:1", "env": [], "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}},
        ]}}},
    });
    let mut live = json!({
        "metadata": {"name": "d", "labels": {"a": "b", "added": "x"}, "uid": "u"},
        "spec": {"replicas": 2, "paused": true, "template": {"spec": {"dnsPolicy": "ClusterFirst", "containers": [
            {"name": "c", "image": "i:1", "imagePullPolicy": "Always", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
        ]}}},
        "status": {"replicas": 2},
    });
    assert!(drift::differences(&manifest, &live).is_empty());
    live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
    live["metadata"]["labels"] = json!({});
    assert_eq!(
        drift::differences(&manifest, &live),
        [
            "metadata.labels.a",
            "spec.template.spec.containers[0].image"
        ]
    );
}

#[test]
fn readiness_is_known_for_the_kinds_that_have_one() {
    let ready = |object: serde_json::Value| drift::not_ready(&object);
    assert_eq!(ready(json!({"kind": "ConfigMap"})), None);
    assert_eq!(
        ready(json!({"kind": "Namespace", "status": {"phase": "Active"}})),
        None
    );
    let deployment =
        json!({"kind": "Deployment", "spec": {"replicas": 2}, "status": {"availableReplicas": 1}});
    assert_eq!(
        ready(deployment),
        Some("1 of 2 replicas available".to_owned())
    );
    let definition = json!({"kind": "CustomResourceDefinition", "status": {"conditions": [
        {"type": "Established", "status": "True"},
    ]}});
    assert_eq!(ready(definition), None);
    assert!(ready(json!({"kind": "CustomResourceDefinition"})).is_some());
}
