//! The plugin against a model of the cloud, with lost answers, throttling and crashes in the middle.

use std::time::Duration;

use capstan_sdk::infrastructure::{
    ClusterAnswer, ClusterInput, Infrastructure, MachineAnswer, MachineInput,
};
use capstan_sdk::testing;
use capstan_sdk::{ConditionStatus, Failure, FailureKind, Object, Plugin, Progress};
use serde_json::{Value, json};

use crate::Local;

mod cluster;
mod machine;
mod model;

use model::{Fault, Model};

fn config() -> Value {
    json!({"endpoint": "http://127.0.0.1:21080/"})
}

fn cluster_input(spec: Value) -> ClusterInput<Local> {
    let mut input = testing::cluster_input::<Local>(spec).unwrap();
    input.context.config = config();
    input
}

/// The next call after an answer: with its status and state, unless the host crashed before it wrote them.
fn keep_cluster(input: &mut ClusterInput<Local>, answer: &ClusterAnswer) {
    let mut raw = input.infra_cluster.raw.clone();
    raw["status"] = answer.status.json().clone();
    input.infra_cluster = Object::from_value(raw).unwrap();
    input.state = answer.state.clone();
}

fn machine_input(
    cluster_status: &Value,
    name: &str,
    is_control_plane: bool,
) -> MachineInput<Local> {
    let mut input =
        testing::machine_input::<Local>(json!({}), json!({"instanceType": "medium"})).unwrap();
    input.context.config = config();
    input.context.idempotency_key = format!("key-of-{name}");
    let mut machine = input.machine.raw.clone();
    machine["metadata"]["name"] = json!(name);
    if is_control_plane {
        machine["metadata"]["labels"]["cluster.x-k8s.io/control-plane"] = json!("");
    }
    input.machine = Object::from_value(machine).unwrap();
    let mut cluster = input.infra_cluster.raw.clone();
    cluster["status"] = cluster_status.clone();
    input.infra_cluster = Object::from_value(cluster).unwrap();
    input
}

fn keep_machine(input: &mut MachineInput<Local>, answer: &MachineAnswer) {
    input.state = answer.state.clone();
}

fn wait_reason(progress: &Progress) -> &str {
    match progress {
        Progress::Ready => "",
        Progress::Waiting(waiting) => &waiting.reason,
    }
}

/// Calls until it succeeds, as the host would after transient failures, and counts the failures.
fn until_it_answers<T>(mut call: impl FnMut() -> Result<T, Failure>) -> (T, usize) {
    for failures in 0..20 {
        match call() {
            Ok(answer) => return (answer, failures),
            Err(failure) => assert_eq!(failure.kind, FailureKind::Transient, "{failure}"),
        }
    }
    panic!("never answered");
}

#[test]
fn the_manifest_asks_for_http_alone_and_says_why() {
    let manifest = Local::manifest();
    assert_eq!(manifest.kinds.len(), 4);
    assert_eq!(manifest.capabilities.len(), 1);
    assert_eq!(manifest.capabilities[0].name, "http");
    assert_eq!(
        manifest.capabilities[0].suggestion["http"]["origins"][0]["private"],
        true
    );
}

#[test]
fn without_an_endpoint_it_says_where_to_put_it() {
    let host = testing::Host::new();
    let mut input = cluster_input(json!({}));
    input.context.config = json!({});
    let failure = Local::ensure_cluster(input).unwrap_err();
    assert!(
        failure.message.contains("spec.config.endpoint"),
        "{failure}"
    );
    assert!(host.requests().is_empty());
}
