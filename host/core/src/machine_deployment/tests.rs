//! What a deployment makes of its sets and says of itself.

use capstan_api::annotation;
use capstan_api::condition::Report;
use capstan_api::v1beta2::{ConditionStatus, MachineSet};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::call::strategy::{Answer, Target};
use crate::lookup::Lookup;
use crate::rollout::count::annotation as annotation_of;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A deployment of three that has no sets yet.
fn observed(annotations: Value) -> Observed {
    let deployment = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment",
        "metadata": {"name": "d", "namespace": "ns", "uid": "uid-d", "annotations": annotations},
        "spec": {
            "clusterName": "c", "replicas": 3, "selector": {},
            "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}}},
            "template": {"spec": {
                "clusterName": "c", "bootstrap": {"dataSecretName": "s"},
                "infrastructureRef": {"apiGroup": "g", "kind": "InfraTemplate", "name": "t"},
            }},
        },
    });
    let deployment = serde_json::from_value(deployment).expect("a MachineDeployment");
    Observed {
        strategy: StrategySeen::select(&deployment, None),
        deployment,
        cluster: Lookup::Missing,
        sets: Vec::new(),
        templates: Vec::new(),
    }
}

/// The same with its set, as the strategy `rolling-update` would have it.
fn with_set(mut observed: Observed) -> Observed {
    let name = observed.current(NOW).name();
    let target = Target {
        machine_set: name.clone(),
        replicas: 3,
        create_disabled: false,
    };
    let answer = Answer {
        targets: vec![target],
        ..Answer::default()
    };
    observed.strategy.answer = StrategyAnswer::Answer(Box::new(answer));
    let set = desired::new_set(&observed, &name, &verdict(&observed, NOW), NOW);
    let set = serde_json::from_value(set).expect("a MachineSet");
    observed.sets = vec![SetSeen {
        set,
        machines: Vec::new(),
    }];
    observed
}

#[test]
fn a_set_made_for_a_rollout_counts_also_where_the_servers_clock_is_behind() {
    let mut observed = with_set(observed(json!({})));
    observed.sets[0].set.metadata.creation_timestamp = Some(Time(NOW));
    let after = NOW + SignedDuration::from_mins(1);
    let rollout = observed.deployment.spec.rollout.as_mut();
    rollout.expect("a rollout").after = Some(Time(after));
    let name = observed.current(after).name();
    assert_ne!(name, observed.sets[0].name());
    let set = desired::new_set(&observed, &name, &verdict(&observed, after), after);
    let mut set: MachineSet = serde_json::from_value(set).expect("a MachineSet");
    set.metadata.creation_timestamp = Some(Time(after - SignedDuration::from_secs(3)));
    observed.sets.push(SetSeen {
        set,
        machines: Vec::new(),
    });
    let current = observed.existing_current(after).map(SetSeen::name);
    assert_eq!(current, Some(name.as_str()));
    let next = after + SignedDuration::from_mins(1);
    let rollout = observed.deployment.spec.rollout.as_mut();
    rollout.expect("a rollout").after = Some(Time(next));
    assert!(observed.existing_current(next).is_none());
}

fn available(observed: &Observed) -> Report {
    let reported = report(observed, NOW);
    let found = reported
        .conditions
        .into_iter()
        .find(|c| c.type_ == "Available");
    found.expect("reported")
}

#[test]
fn a_set_has_its_deployments_numbers_and_annotations_but_not_those_that_are_not_passed_on() {
    let observed = with_set(observed(json!({
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "cluster.x-k8s.io/conversion-data": "x",
        "capstan.dev/record-calls": "true",
        "machinedeployment.clusters.x-k8s.io/revision": "7",
        "mine": "1",
    })));
    let [seen] = observed.sets.as_slice() else {
        panic!("one set");
    };
    assert_eq!(seen.set.spec.replicas, Some(3));
    let of_set = |key: &str| annotation_of(&seen.set.metadata, key);
    assert_eq!(of_set(annotation::DESIRED_REPLICAS), Some("3"));
    assert_eq!(of_set(annotation::MAX_REPLICAS), Some("5"));
    assert_eq!(of_set("mine"), Some("1"));
    for key in [
        "kubectl.kubernetes.io/last-applied-configuration",
        "cluster.x-k8s.io/conversion-data",
        "capstan.dev/record-calls",
    ] {
        assert_eq!(of_set(key), None, "{key}");
    }
    assert_ne!(of_set(annotation::REVISION), Some("7"), "its own is kept");
}

#[test]
fn numbers_and_annotations_of_a_set_follow_and_go() {
    let mut observed = with_set(observed(json!({"mine": "1"})));
    observed.deployment.spec.replicas = Some(4);
    observed.deployment.metadata.annotations = Some([("other".to_owned(), "2".to_owned())].into());
    let verdict = verdict(&observed, NOW);
    let patch = desired::set_patch(&observed, &observed.sets[0], &verdict, NOW);
    let annotations = patch.expect("a patch")["metadata"]["annotations"].clone();
    assert_eq!(annotations[annotation::DESIRED_REPLICAS], "4");
    assert_eq!(annotations[annotation::MAX_REPLICAS], "6");
    assert_eq!(annotations["other"], "2");
    assert_eq!(annotations["mine"], Value::Null);
    assert!(
        annotations
            .as_object()
            .is_some_and(|all| all.contains_key("mine")),
        "it is taken away: {annotations}"
    );
}

#[test]
fn availability_is_unknown_until_there_is_something_to_count() {
    let mut seen = observed(json!({}));
    let said = |seen: &Observed| {
        let said = available(seen);
        (said.status, said.reason, said.message)
    };
    let unknown = |reason: &str, message: &str| {
        (
            ConditionStatus::Unknown,
            reason.to_owned(),
            message.to_owned(),
        )
    };
    let waiting = "Waiting for status.availableReplicas set";
    assert_eq!(
        said(&seen),
        unknown("WaitingForAvailableReplicasSet", waiting)
    );
    let before = report(&seen, NOW).status;
    seen.deployment.status = Some(before);
    let missing = "0 available replicas, at least 3 required (spec.strategy.rollout.maxUnavailable is 0, spec.replicas is 3)";
    assert_eq!(
        said(&seen),
        (
            ConditionStatus::False,
            "NotAvailable".to_owned(),
            missing.to_owned()
        )
    );
    seen.deployment.spec.replicas = None;
    let waiting = "Waiting for spec.replicas set";
    assert_eq!(said(&seen), unknown("WaitingForReplicasSet", waiting));
    seen.deployment.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    let going = "Deletion in progress";
    assert_eq!(
        said(&seen),
        (
            ConditionStatus::False,
            "NotAvailable".to_owned(),
            going.to_owned()
        )
    );
}
