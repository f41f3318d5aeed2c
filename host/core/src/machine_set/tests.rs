//! MachineSets: what keeps machines from being made, which orphans are taken in.

use std::sync::Arc;

use capstan_api::annotation;
use capstan_api::v1beta2::{Cluster, ContractVersionedObjectReference};
use serde_json::{Value, json};

use super::preflight::failures;
use super::remediation::tests::{at, machine, observed};
use super::{Observed, Step, decide};
use crate::lookup::Lookup;

/// A set of workers of a version, below a control plane that runs another.
fn below(control_plane: &str, version: &str) -> Observed {
    let mut seen = observed(Value::Null, Vec::new());
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "c", "namespace": "ns"},
        "spec": {"controlPlaneRef": {"apiGroup": "controlplane.cluster.x-k8s.io", "kind": "Plane", "name": "p"}},
    }))
    .expect("a Cluster");
    seen.cluster = Lookup::Found(cluster);
    seen.control_plane = Lookup::Found(json!({
        "kind": "Plane", "metadata": {"name": "p"},
        "spec": {"version": control_plane},
        "status": {"version": control_plane, "versions": [{"version": control_plane, "replicas": 1}]},
    }).into());
    seen.set.spec.template.spec.version = Some(version.to_owned());
    seen.infra_template = Lookup::Found(
        json!({
            "apiVersion": "i/v1", "kind": "InfraTemplate", "metadata": {"name": "t"},
            "spec": {"template": {"spec": {}}},
        })
        .into(),
    );
    seen
}

fn makes(seen: &Observed) -> bool {
    let steps = decide(seen, at(0)).steps;
    steps.iter().any(|step| matches!(step, Step::Create(_)))
}

#[test]
fn preflight_checks_hold_new_machines_and_can_be_skipped() {
    assert!(makes(&below("v1.36.3", "v1.36.1")));
    let mut newer = below("v1.36.3", "v1.37.0");
    let said = failures(&newer);
    assert!(
        said[0].ends_with("(\"KubernetesVersionSkew\" preflight check failed)"),
        "{said:?}"
    );
    assert!(!makes(&newer));
    let skip = |seen: &mut Observed, checks: &str| {
        let annotations = seen.set.metadata.annotations.get_or_insert_default();
        annotations.insert(
            annotation::SKIP_PREFLIGHT_CHECKS.to_owned(),
            checks.to_owned(),
        );
    };
    skip(&mut newer, "ControlPlaneIsStable, KubernetesVersionSkew");
    assert!(makes(&newer));
    let mut old = below("v1.36.3", "v1.32.9");
    assert_eq!(failures(&old).len(), 1);
    skip(&mut old, "All");
    assert!(failures(&old).is_empty());
}

/// What is said of workers of a version below a control plane of v1.36.3, after a change.
fn said(version: &str, change: impl Fn(&mut Observed)) -> Vec<String> {
    let mut seen = below("v1.36.3", version);
    change(&mut seen);
    failures(&seen)
}

fn set_plane(seen: &mut Observed, field: &str, value: Value) {
    let Lookup::Found(plane) = &mut seen.control_plane else {
        return;
    };
    Arc::make_mut(plane)[field] = value;
}

fn set_topology(seen: &mut Observed, version: &str) {
    let Lookup::Found(cluster) = &mut seen.cluster else {
        return;
    };
    let topology = json!({"version": version, "classRef": {"name": "x"}});
    cluster.spec.topology = Some(serde_json::from_value(topology).expect("a topology"));
}

fn failed(check: &str, why: &str) -> [String; 1] {
    [format!("{why} (\"{check}\" preflight check failed)")]
}

#[test]
fn workers_wait_until_the_control_plane_is_stable() {
    let check = "ControlPlaneIsStable";
    let provisioning = said("v1.36.3", |seen| set_plane(seen, "status", json!({})));
    assert_eq!(provisioning, failed(check, "Plane is provisioning"));
    let upgrading = said("v1.36.3", |seen| {
        let older = json!({"versions": [{"version": "v1.35.0", "replicas": 1}]});
        set_plane(seen, "status", older);
    });
    assert_eq!(upgrading, failed(check, "Plane is upgrading to v1.36.3"));
    let pending = said("v1.36.3", |seen| set_topology(seen, "v1.37.0"));
    let why = "Plane has a pending version upgrade to v1.37.0";
    assert_eq!(pending, failed(check, why));
    let step = said("v1.36.3", |seen| {
        set_topology(seen, "v1.37.0");
        let step = json!({annotation::TOPOLOGY_UPGRADE_STEP: "v1.36.3"});
        set_plane(seen, "metadata", json!({"name": "p", "annotations": step}));
    });
    assert!(
        step.is_empty(),
        "a step of several is not pending: {step:?}"
    );
}

#[test]
fn versions_of_workers_fit_the_control_planes() {
    let three_older = said("v1.33.0", |_| {});
    assert!(three_older.is_empty(), "{three_older:?}");
    let kubeadm = |seen: &mut Observed| {
        let template = ContractVersionedObjectReference {
            api_group: "bootstrap.cluster.x-k8s.io".to_owned(),
            kind: "KubeadmConfigTemplate".to_owned(),
            name: "t".to_owned(),
        };
        seen.set.spec.template.spec.bootstrap.config_ref = Some(template);
    };
    let why = "MachineSet version (v1.35.0) and control plane version (v1.36.3) have different minor versions, kubeadm cannot join";
    assert_eq!(said("v1.35.0", kubeadm), failed("KubeadmVersionSkew", why));
    let skipped = said("v1.35.0", |seen| {
        kubeadm(seen);
        let checks = json!({annotation::SKIP_PREFLIGHT_CHECKS: "KubeadmVersionSkew"});
        let template = json!({"metadata": {"annotations": checks}});
        seen.bootstrap_template = Some(Lookup::Found(Arc::new(template)));
    });
    assert!(
        skipped.is_empty(),
        "the bootstrap template may leave checks out: {skipped:?}"
    );
    let differs = said("v1.36.2", |seen| set_topology(seen, "v1.36.3"));
    let why = "MachineSet version (v1.36.2) differs from the control plane version (v1.36.3)";
    assert_eq!(differs, failed("ControlPlaneVersionSkew", why));
}

#[test]
fn a_set_that_must_not_make_machines_makes_none() {
    let mut seen = below("v1.36.3", "v1.36.3");
    let annotations = seen.set.metadata.annotations.get_or_insert_default();
    annotations.insert(
        annotation::DISABLE_MACHINE_CREATE.to_owned(),
        "true".to_owned(),
    );
    assert!(!makes(&seen));
}

#[test]
fn a_machine_that_the_server_refused_is_said_in_the_condition() {
    let seen = below("v1.36.3", "v1.36.3");
    let why = "creating a Machine: denied by a policy";
    let reported = super::report(&seen, Some(why), at(0)).conditions;
    let scaling = reported.iter().find(|report| report.type_ == "ScalingUp");
    let message = &scaling.expect("reported").message;
    assert!(
        message.contains("is blocked because:") && message.contains(why),
        "{message}"
    );
}

#[test]
fn a_template_answers_for_no_hook_of_its_machines() {
    let mut seen = below("v1.36.3", "v1.36.1");
    let annotations = [("note", "x"), (annotation::HOOKS, "{}")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let metadata = seen.set.spec.template.metadata.get_or_insert_default();
    metadata.annotations = annotations.into();
    let steps = decide(&seen, at(0)).steps;
    let made = steps.iter().find_map(|step| match step {
        Step::Create(made) => Some(&made[0].machine["metadata"]["annotations"]),
        _ => None,
    });
    let made = made.expect("a Machine");
    assert_eq!(
        (&made["note"], made.get(annotation::HOOKS)),
        (&json!("x"), None)
    );
    let mut existing = observed(Value::Null, vec![machine("m", 1, json!([]))]);
    existing.set = seen.set;
    let change = super::desired::in_place(&existing, &existing.machines[0]).expect("differs");
    let given = &change.patch.expect("a patch")["metadata"]["annotations"];
    assert_eq!(
        (&given["note"], given.get(annotation::HOOKS)),
        (&json!("x"), None)
    );
}

#[test]
fn an_orphan_is_taken_in_and_a_machine_of_another_is_left() {
    let mut seen = observed(Value::Null, vec![machine("orphan", 1, json!([]))]);
    seen.set.metadata.uid = Some("set".to_owned());
    Arc::make_mut(&mut seen.machines[0].machine)
        .metadata
        .resource_version = Some("7".to_owned());
    let adopted = super::desired::in_place(&seen, &seen.machines[0]).expect("differs");
    let metadata = &adopted.patch.expect("a patch")["metadata"];
    assert_eq!(metadata["resourceVersion"], "7", "only as it was read");
    let owners = &metadata["ownerReferences"];
    assert_eq!(
        (&owners[0]["uid"], &owners[0]["controller"]),
        (&json!("set"), &json!(true))
    );
    let theirs = json!([{"apiVersion": "x/v1", "kind": "Other", "name": "o", "uid": "o", "controller": true}]);
    Arc::make_mut(&mut seen.machines[0].machine)
        .metadata
        .owner_references = serde_json::from_value(theirs).expect("owners");
    let change = super::desired::in_place(&seen, &seen.machines[0]).expect("labels differ");
    assert_eq!(
        change.patch.expect("a patch")["metadata"]["ownerReferences"],
        Value::Null
    );
}
