//! Inputs that do not fit the author's types, through the same glue that the host calls.

use std::time::Duration;

use capstan_sdk::__private::{Exported, infrastructure, manifest, upgrade_strategy};
use capstan_sdk::bindings::base::capstan::plugin::types;
use capstan_sdk::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, Infrastructure, MachineAnswer, MachineInput,
};
use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, KindRole, Manifest, OwnedKind, Plugin, schema};
use infrastructure::exports::capstan::plugin::infrastructure as wit;
use serde::{Deserialize, Serialize};

struct Cloud;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    zones: Vec<Zone>,
}

#[derive(Clone, Debug, Deserialize)]
struct Zone {
    size: u8,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Status {
    sizes: u32,
}

impl Plugin for Cloud {
    fn manifest() -> Manifest {
        let kind = OwnedKind::new(KindRole::InfraCluster, "a.example.org", "CloudCluster")
            .spec(schema::object().required("zones", schema::list(schema::any_object())));
        Manifest::new("infrastructure-cloud", "1.2.3").kind(kind)
    }
}

impl Infrastructure for Cloud {
    type ClusterSpec = Spec;
    type ClusterStatus = Status;
    type MachineSpec = Spec;
    type MachineStatus = Status;

    fn ensure_cluster(input: ClusterInput<Self>) -> Result<ClusterAnswer, Failure> {
        let sizes = input
            .infra_cluster
            .spec
            .zones
            .iter()
            .map(|zone| u32::from(zone.size))
            .sum();
        let before = input.infra_cluster.status.sizes;
        let message = format!("{before} before");
        Ok(
            ClusterAnswer::waiting("Growing", message, Duration::from_secs(2))
                .status(Status { sizes }),
        )
    }

    fn delete_cluster(_: ClusterInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }

    fn ensure_machine(_: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        Ok(MachineAnswer::ready("cloud://1"))
    }

    fn delete_machine(_: MachineInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }
}

fn ensure(infra_cluster: &str, config: &str) -> Result<wit::ClusterAnswer, types::Failure> {
    let context = types::CallContext {
        now_ms: 1,
        deadline_ms: 2,
        attempt: 1,
        idempotency_key: "key".to_owned(),
        mode: types::Mode::Apply,
        config: config.to_owned(),
        extra: Vec::new(),
    };
    <Exported<Cloud> as wit::Guest>::ensure_cluster(wit::ClusterInput {
        context,
        cluster: r#"{"metadata":{"name":"c","namespace":"default"},"spec":{}}"#.to_owned(),
        infra_cluster: infra_cluster.to_owned(),
        state: None,
        extra: Vec::new(),
    })
}

fn object(spec: &str, status: &str) -> String {
    format!(
        r#"{{"kind":"CloudCluster","metadata":{{"name":"c","namespace":"default"}},"spec":{spec},"status":{status}}}"#
    )
}

#[test]
fn typed_specs_go_in_and_typed_statuses_come_out() {
    let object = object(r#"{"zones":[{"size":3},{"size":4}]}"#, r#"{"sizes":5}"#);
    let answer = ensure(&object, "{}").unwrap();
    assert_eq!(answer.status, r#"{"sizes":7}"#);
    let types::Progress::Waiting(waiting) = answer.progress else {
        panic!("not waiting")
    };
    assert_eq!(
        (waiting.message.as_str(), waiting.check_after_ms),
        ("5 before", 2_000)
    );
}

#[test]
fn a_field_that_does_not_fit_is_named() {
    let failure = ensure(
        &object(r#"{"zones":[{"size":3},{"size":300}]}"#, "{}"),
        "{}",
    )
    .unwrap_err();
    assert_eq!(failure.kind, types::FailureKind::Terminal);
    let expected =
        "CloudCluster default/c: spec.zones[1].size: invalid value: integer `300`, expected u8";
    assert_eq!(failure.message, expected);
}

#[test]
fn a_status_that_cannot_be_read_counts_as_none() {
    let answer = ensure(&object(r#"{"zones":[]}"#, r#"{"sizes":"many"}"#), "{}").unwrap();
    let types::Progress::Waiting(waiting) = answer.progress else {
        panic!("not waiting")
    };
    assert_eq!(waiting.message, "0 before");
}

#[test]
fn text_that_is_not_json_is_a_failure_too() {
    let failure = ensure("{", "{}").unwrap_err();
    assert!(
        failure.message.starts_with("infra-cluster: not JSON: "),
        "{}",
        failure.message
    );
    let failure = ensure(&object(r#"{"zones":[]}"#, "{}"), "[").unwrap_err();
    assert!(
        failure
            .message
            .starts_with("Plugin spec.config: not JSON: "),
        "{}",
        failure.message
    );
}

#[test]
fn the_manifest_crosses_with_its_schemas() {
    use manifest::exports::capstan::plugin::manifest::Guest;
    let manifest = <Exported<Cloud> as Guest>::describe();
    let kind = &manifest.kinds[0];
    assert_eq!(
        (kind.role.as_str(), kind.plural.as_str()),
        ("infra-cluster", "cloudclusters")
    );
    assert!(
        kind.spec_schema.contains(r#""required":["zones"]"#),
        "{}",
        kind.spec_schema
    );
}

impl UpgradeStrategy for Cloud {
    type Settings = Spec;

    fn plan(_: Facts<Spec>) -> Result<Answer, Failure> {
        Ok(Answer::unchanged())
    }
}

#[test]
fn settings_that_do_not_fit_are_named() {
    use upgrade_strategy::exports::capstan::plugin::upgrade_strategy::{Facts, Guest};
    let failure = <Exported<Cloud> as Guest>::plan(Facts {
        now_ms: 0,
        deployment: "default/d".to_owned(),
        version: String::new(),
        replicas: 1,
        max_surge: 1,
        max_unavailable: 0,
        machine_sets: Vec::new(),
        settings: r#"{"zones":[{}]}"#.to_owned(),
        state: None,
        extra: Vec::new(),
    })
    .unwrap_err();
    assert_eq!(failure.message, "settings: zones[0]: missing field `size`");
}
