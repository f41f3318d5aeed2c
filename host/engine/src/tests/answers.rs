//! Answers are foreign data: what breaks a rule is refused whole, and the rule is named.

use std::time::Duration;

use capstan_core::call::bootstrap::{BootstrapInput, Part, Role, SecretEncoding};
use capstan_core::call::control_plane::{
    ControlPlaneInput, ControlPlaneMachineInput, InitializedWhen, MachineConfigInput,
};
use capstan_core::call::hook::{HookInput, Phase, Verdict};
use capstan_core::call::material::{Material, MaterialValue, Requirement};
use capstan_core::call::strategy::{Facts, MachineSetFacts};
use capstan_core::call::{Deletion, Progress};
use serde_json::{Value, json};

use super::probe::{cluster, context, env, loaded, machine, tell};
use crate::limit::{CHECK_AFTER_MAX, CHECK_AFTER_MIN};
use crate::{CallEnv, CallError};

fn rule_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result.unwrap_err() {
        CallError::BadAnswer { rule } => rule,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cluster_answer_that_breaks_a_rule_is_refused_with_the_rule() {
    let loaded = loaded().await;
    for (what, named) in [
        ("bad-json", "status is not JSON"),
        ("not-an-object", "status is not a JSON object"),
        ("huge", "status has"),
        ("giant", "crosses the boundary"),
        ("bad-port", "controlPlaneEndpoint.port is 0"),
        ("bad-domain", "failureDomains.name is empty"),
        (
            "contract-condition",
            "the condition Ready is the contract's",
        ),
        ("bad-condition", "is not a condition type"),
        ("huge-state", "state has"),
    ] {
        let rule = rule_of(tell(&loaded, env(), what).await);
        assert!(rule.contains(named), "{what}: {rule}");
    }
}

#[tokio::test]
async fn a_machine_answer_that_breaks_a_rule_is_refused_with_the_rule() {
    let loaded = loaded().await;
    for (what, named) in [
        ("bad-provider-id", "providerID"),
        ("bad-address", "addresses has the type"),
    ] {
        let rule = rule_of(
            loaded
                .ensure_machine(env(), machine(json!({"do": what}), None))
                .await,
        );
        assert!(rule.contains(named), "{what}: {rule}");
    }
    let fine = loaded
        .ensure_machine(env(), machine(json!({}), None))
        .await
        .unwrap();
    assert_eq!(fine.provider_id.as_deref(), Some("probe://1"));
}

#[tokio::test]
async fn waits_are_kept_within_their_bounds() {
    let loaded = loaded().await;
    for (asked, kept) in [
        (0, CHECK_AFTER_MIN),
        (2500, Duration::from_millis(2500)),
        (u64::MAX, CHECK_AFTER_MAX),
    ] {
        let input = cluster(json!({"do": "wait", "checkAfterMs": asked}));
        let answer = loaded.ensure_cluster(env(), input).await.unwrap();
        assert!(matches!(answer.progress, Progress::Waiting(wait) if wait.check_after == kept));
    }
}

#[tokio::test]
async fn deletions_end() {
    let loaded = loaded().await;
    let cluster = loaded
        .delete_cluster(env(), cluster(json!({})))
        .await
        .unwrap();
    assert_eq!(cluster.deletion, Deletion::Gone);
    let machine = loaded
        .delete_machine(env(), machine(json!({}), None))
        .await
        .unwrap();
    assert!(matches!(machine.deletion, Deletion::Waiting(_)));
}

fn bootstrap(config: Value) -> BootstrapInput {
    BootstrapInput {
        context: context(config),
        cluster: json!({}),
        machine: json!({}),
        config: json!({}),
        role: Role::Init,
        control_plane_endpoint: None,
        kubernetes_version: "v1.36.0".to_owned(),
        control_plane_version: String::new(),
        extra: vec![],
    }
}

#[tokio::test]
async fn bootstrap_data_names_secrets_only_by_handle() {
    let loaded = loaded().await;
    let wanted = loaded
        .bootstrap_requirements(env(), bootstrap(json!({})))
        .await
        .unwrap();
    assert!(
        matches!(&wanted[..], [Requirement::CertificateAuthority { name, .. }] if name == "ca")
    );
    let mut env = env();
    let key = env.secrets.add(b"private key".to_vec());
    let material = vec![Material {
        name: "ca".to_owned(),
        part: "key".to_owned(),
        value: MaterialValue::Secret(key),
    }];
    let call = |env: CallEnv, what: &str| {
        loaded.render(env, bootstrap(json!({"do": what})), material.clone())
    };
    let answer = call(env.clone(), "").await.unwrap();
    assert_eq!(
        answer.parts[1],
        Part::Secret(key, SecretEncoding::Indent(4))
    );
    assert!(rule_of(call(env.clone(), "bad-handle").await).contains("handle 999"));
    assert!(rule_of(call(env, "bad-format").await).contains("floppy"));
}

#[tokio::test]
async fn private_bytes_are_nowhere_in_a_guests_memory() {
    let loaded = loaded().await;
    let mut env = env();
    let private = "private key of the cluster, line 1 of 1";
    let key = env.secrets.add(private.as_bytes().to_vec());
    let public = "public certificate of the cluster, line 1 of 1";
    let material = |part: &str, value| Material {
        name: "ca".to_owned(),
        part: part.to_owned(),
        value,
    };
    let material = vec![
        material("certificate", MaterialValue::Text(public.to_owned())),
        material("key", MaterialValue::Secret(key)),
    ];
    let mut found = Vec::new();
    for needle in [public, private] {
        let inverted: Vec<u8> = needle.bytes().map(|byte| !byte).collect();
        let input = bootstrap(json!({"do": "search-memory", "inverted": inverted}));
        let answer = loaded.render(env.clone(), input, material.clone()).await;
        let Part::Text(count) = &answer.unwrap().parts[1] else {
            panic!("no count")
        };
        found.push(count.parse::<u32>().unwrap());
    }
    assert!(found[0] > 0, "what is public is found");
    assert_eq!(found[1], 0, "what is private is not");
}

fn plane(config: Value) -> ControlPlaneInput {
    ControlPlaneInput {
        context: context(config),
        cluster: json!({}),
        control_plane: json!({}),
        extra: vec![],
    }
}

#[tokio::test]
async fn a_control_plane_answers_every_question() {
    let loaded = loaded().await;
    let desired = loaded.desired(env(), plane(json!({}))).await.unwrap();
    assert_eq!((desired.replicas, desired.version.as_str()), (3, "v1.36.0"));
    let rule = rule_of(
        loaded
            .desired(env(), plane(json!({"do": "bad-version"})))
            .await,
    );
    assert!(rule.contains("version"), "{rule}");
    let machine = || ControlPlaneMachineInput {
        control_plane: plane(json!({})),
        machine: json!({}),
        bootstrap_config: None,
        infra_machine: Some(json!({})),
    };
    assert!(
        loaded
            .control_plane_requirements(env(), plane(json!({})))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(loaded.outdated(env(), machine()).await.unwrap().len(), 1);
    let components = loaded.components(env(), machine()).await.unwrap();
    assert_eq!(components.datastore.unwrap().port, 2379);
    let when = loaded.initialized(env(), plane(json!({}))).await.unwrap();
    assert_eq!(when, InitializedWhen::ApiServerAnswers);
    assert_eq!(
        loaded
            .before_rollout(env(), plane(json!({})))
            .await
            .unwrap(),
        Progress::Ready
    );
    let after = loaded.after_stable(env(), plane(json!({}))).await.unwrap();
    assert!(matches!(after, Progress::Waiting(wait) if wait.check_after == CHECK_AFTER_MIN));
    let config = MachineConfigInput {
        control_plane: plane(json!({})),
        role: Role::JoinControlPlane,
        machine_name: "m".to_owned(),
        control_plane_endpoint: None,
    };
    assert_eq!(
        loaded.machine_config(env(), config).await.unwrap(),
        json!({"spec": 1})
    );
}

#[tokio::test]
async fn a_hook_lets_go_or_waits() {
    let loaded = loaded().await;
    let input = |cluster_deleting| HookInput {
        context: context(json!({})),
        phase: Phase::PreDrain,
        machine: json!({}),
        cluster: json!({}),
        node: None,
        cluster_deleting,
        first_run_ms: 0,
        settings: json!({}),
        extra: vec![],
    };
    assert_eq!(
        loaded.run_hook(env(), input(true)).await.unwrap(),
        Verdict::Proceed
    );
    let waits = loaded.run_hook(env(), input(false)).await.unwrap();
    assert!(matches!(waits, Verdict::Waiting(wait) if wait.check_after == CHECK_AFTER_MAX));
}

#[tokio::test]
async fn a_strategy_speaks_only_of_its_own_deployment() {
    let loaded = loaded().await;
    let facts = |settings| Facts {
        now_ms: 1,
        deployment: "default/d".to_owned(),
        version: "v1.36.0".to_owned(),
        replicas: 3,
        max_surge: 1,
        max_unavailable: 0,
        machine_sets: vec![MachineSetFacts {
            name: "d-1".to_owned(),
            ..MachineSetFacts::default()
        }],
        settings,
        state: None,
        extra: vec![],
    };
    let answer = loaded.plan_upgrade(env(), facts(json!({}))).await.unwrap();
    assert_eq!(
        (
            answer.targets[0].machine_set.as_str(),
            answer.targets[0].replicas
        ),
        ("d-1", 3)
    );
    let rule = rule_of(
        loaded
            .plan_upgrade(env(), facts(json!({"do": "foreign-set"})))
            .await,
    );
    assert!(rule.contains("not of this deployment"), "{rule}");
}
