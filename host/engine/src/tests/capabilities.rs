//! `secret`, `workload` and `event` from the attacker's side, grants that are taken away, and the ceiling of the host.

use std::sync::{Arc, Mutex};

use capstan_core::call::Mode;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::probe::{cluster, engine, engine_below, env, loaded, note, tell, wasm, with_manifest};
use crate::{
    Allowed, CallEnv, CallError, Ceiling, EventSink, FoundSecret, Grants, GuestEvent, Loaded,
    SecretGrant, SecretSource, WorkloadAnswer, WorkloadApi, WorkloadError, WorkloadGrant,
    WorkloadRequest, WorkloadVerb,
};

/// Secrets of two namespaces; remembers what was read.
#[derive(Default)]
struct Vault(Mutex<Vec<String>>);

impl SecretSource for Vault {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<FoundSecret>, String>> {
        self.0
            .lock()
            .unwrap()
            .push(format!("{namespace}/{name}[{key}]"));
        let found = (name != "missing").then(|| FoundSecret {
            bytes: format!("hush-{namespace}-{name}").into_bytes(),
            secret_type: if name.ends_with("-ca") {
                "cluster.x-k8s.io/secret"
            } else {
                "Opaque"
            }
            .to_owned(),
        });
        async move { Ok(found) }.boxed()
    }
}

/// A workload cluster that answers everything and remembers it.
#[derive(Default)]
struct Recorded(Mutex<Vec<WorkloadRequest>>);

impl WorkloadApi for Recorded {
    fn request(
        &self,
        request: WorkloadRequest,
    ) -> BoxFuture<'_, Result<WorkloadAnswer, WorkloadError>> {
        let answer = match &request {
            WorkloadRequest::List { limit, .. } if *limit == 250 => {
                WorkloadAnswer::Page(vec![json!({"fill": "x".repeat(5 << 20)})], None)
            }
            WorkloadRequest::List { .. } => {
                WorkloadAnswer::Page(vec![json!({"kind": "Pod"})], Some("more".to_owned()))
            }
            WorkloadRequest::Delete { .. } => WorkloadAnswer::Done,
            _ => WorkloadAnswer::Object(json!({"kind": "Pod"})),
        };
        self.0.lock().unwrap().push(request);
        async move { Ok(answer) }.boxed()
    }
}

#[derive(Default)]
struct Board(Mutex<Vec<GuestEvent>>);

impl EventSink for Board {
    fn emit(&self, event: GuestEvent) -> BoxFuture<'_, ()> {
        self.0.lock().unwrap().push(event);
        async {}.boxed()
    }
}

/// One call's surroundings, with what they saw.
#[derive(Default)]
struct World {
    vault: Arc<Vault>,
    cluster: Arc<Recorded>,
    board: Arc<Board>,
}

impl World {
    fn env(&self, grants: Grants) -> CallEnv {
        CallEnv {
            grants: Arc::new(Grants {
                http: env().grants.http.clone(),
                ..grants
            }),
            namespace: "team-a".to_owned(),
            secret_source: Some(self.vault.clone()),
            workload: Some(self.cluster.clone()),
            events: Some(self.board.clone()),
            ..env()
        }
    }

    fn read(&self) -> Vec<String> {
        self.vault.0.lock().unwrap().clone()
    }

    fn asked(&self) -> Vec<WorkloadRequest> {
        self.cluster.0.lock().unwrap().clone()
    }

    fn events(&self) -> Vec<GuestEvent> {
        self.board.0.lock().unwrap().clone()
    }
}

fn secrets(entries: &[(Option<&str>, &str, bool)]) -> Grants {
    let grant = |(namespace, name, bytes): &(Option<&str>, &str, bool)| SecretGrant {
        namespace: namespace.map(str::to_owned),
        name: name.parse().unwrap(),
        keys: vec!["token".to_owned()],
        bytes: *bytes,
    };
    Grants {
        secrets: entries.iter().map(grant).collect(),
        ..Grants::default()
    }
}

fn on_pods(verbs: &[WorkloadVerb]) -> Grants {
    Grants {
        workload: vec![WorkloadGrant {
            groups: vec![String::new()],
            resources: vec!["pods".to_owned()],
            verbs: verbs.to_vec(),
            namespaces: vec!["kube-system".to_owned()],
            names: vec![],
        }],
        ..Grants::default()
    }
}

fn with(base: Value, more: Value) -> Value {
    let mut config = base;
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

async fn secret(loaded: &Loaded, env: CallEnv, more: Value) -> Value {
    let base = json!({"do": "secret", "name": "cloud", "key": "token"});
    note(loaded, env, with(base, more)).await
}

async fn workload(loaded: &Loaded, env: CallEnv, more: Value) -> Value {
    let base = json!({"do": "workload", "plural": "pods", "namespace": "kube-system", "name": "a"});
    note(loaded, env, with(base, more)).await
}

fn says(answer: &Value, words: &str) {
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(text.contains(words), "{answer} does not say {words:?}");
}

#[tokio::test]
async fn only_granted_secrets_are_read_and_the_own_namespace_is_meant() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(secrets(&[
        (None, "cloud", false),
        (Some("shared"), "ca", false),
    ]));
    let own = secret(&loaded, env.clone(), json!({})).await;
    assert!(own["handle"].is_u64(), "{own}");
    let shared = secret(
        &loaded,
        env.clone(),
        json!({"name": "ca", "namespace": "shared"}),
    )
    .await;
    assert!(shared["handle"].is_u64(), "{shared}");
    for (more, words) in [
        (json!({"name": "other"}), r#"\"name\":\"other\""#),
        (json!({"key": "password"}), r#"\"keys\":[\"password\"]"#),
        (
            json!({"namespace": "team-b"}),
            r#"\"namespace\":\"team-b\""#,
        ),
        (json!({"name": "ca"}), "is not granted"),
        (json!({"name": "cloud/../other"}), "Invalid"),
        (json!({"name": ".."}), "Invalid"),
        (json!({"namespace": ""}), "Invalid"),
        (json!({"key": "a/b"}), "Invalid"),
    ] {
        says(&secret(&loaded, env.clone(), more).await, words);
    }
    assert_eq!(world.read(), ["team-a/cloud[token]", "shared/ca[token]"]);
}

#[tokio::test]
async fn bytes_of_a_secret_need_their_own_grant_and_stay_out_of_words() {
    let (loaded, world) = (loaded().await, World::default());
    let by_handle = world.env(secrets(&[(None, "cloud", false)]));
    let refused = secret(&loaded, by_handle, json!({"bytes": true})).await;
    says(&refused, r#"\"bytes\":true"#);
    assert!(world.read().is_empty());

    let env = world.env(secrets(&[(None, "cloud", true)]));
    let got = secret(&loaded, env.clone(), json!({"bytes": true})).await;
    assert_eq!(got["reversed"], "duolc-a-maet-hsuh");
    let more = json!({"bytes": true, "then": "event"});
    secret(&loaded, env.clone(), more).await;
    assert_eq!(world.events()[0].message, "it is [secret]");
    let trap =
        json!({"do": "secret", "name": "cloud", "key": "token", "bytes": true, "then": "trap"});
    let error = loaded.ensure_cluster(env, cluster(trap)).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("the secret is [secret]"), "{said}");
}

#[tokio::test]
async fn an_answer_that_shows_a_secret_is_refused() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(secrets(&[(None, "cloud", true)]));
    let show =
        json!({"do": "secret", "name": "cloud", "key": "token", "bytes": true, "then": "status"});
    let error = loaded.ensure_cluster(env, cluster(show)).await.unwrap_err();
    assert!(
        matches!(&error, CallError::BadAnswer { rule } if rule.contains("bytes of a Secret")),
        "{error}"
    );
}

#[tokio::test]
async fn a_handle_shows_nothing_of_its_secret_wherever_it_is_written() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(secrets(&[(None, "cloud", false)]));
    let show = json!({
        "do": "show-handle", "name": "cloud", "key": "token", "url": "https://cloud.example.com",
    });
    let answer = note(&loaded, env, show).await;
    assert_eq!(answer["shown"], "handle=1 1");
    let events = world.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].message, "handle=1 1");
    assert_eq!(world.read(), ["team-a/cloud[token]"], "it was opened");
}

#[tokio::test]
async fn keys_of_clusters_are_not_had_by_the_beginning_of_a_name() {
    let (loaded, world) = (loaded().await, World::default());
    let open = world.env(secrets(&[(None, "*", true)]));
    for more in [
        json!({"name": "prod-ca"}),
        json!({"name": "prod-ca", "bytes": true}),
    ] {
        let refused = secret(&loaded, open.clone(), more).await;
        says(&refused, "only by their whole name");
    }
    // An exact grant of a handle does not make the bytes exact.
    let mixed = world.env(secrets(&[(None, "*", true), (None, "prod-ca", false)]));
    let refused = secret(
        &loaded,
        mixed.clone(),
        json!({"name": "prod-ca", "bytes": true}),
    )
    .await;
    says(&refused, "only by their whole name");
    let handle = secret(&loaded, mixed, json!({"name": "prod-ca"})).await;
    assert!(handle["handle"].is_u64(), "{handle}");
}

#[tokio::test]
async fn reads_of_secrets_are_counted_and_missing_ones_are_told() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(secrets(&[(None, "*", false)]));
    let missing = secret(&loaded, env.clone(), json!({"name": "missing"})).await;
    says(&missing, "NotFound");
    let last = secret(&loaded, env, json!({"times": 33})).await;
    says(&last, "at most 32");
    assert_eq!(world.read().len(), 33);
}

#[tokio::test]
async fn only_granted_verbs_and_resources_reach_the_workload_cluster() {
    use WorkloadVerb::{Get, List};
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(on_pods(&[Get, List]));
    let got = workload(&loaded, env.clone(), json!({})).await;
    assert_eq!(got["ok"], r#"{"kind":"Pod"}"#);
    let listed = workload(&loaded, env.clone(), json!({"verb": "list"})).await;
    assert_eq!(
        (&listed["ok"]["count"], &listed["ok"]["next"]),
        (&json!(1), &json!("more"))
    );
    for (more, words) in [
        (json!({"verb": "delete"}), r#"\"verbs\":[\"delete\"]"#),
        (
            json!({"plural": "secrets"}),
            r#"\"resources\":[\"secrets\"]"#,
        ),
        (json!({"group": "apps"}), r#"\"apiGroups\":[\"apps\"]"#),
        (json!({"namespace": "default"}), "is not granted"),
        (json!({"namespace": null}), "is not granted"),
        (json!({"namespace": null, "verb": "list"}), "is not granted"),
        (json!({"verb": "patch", "patch": "{}"}), "is not granted"),
        (json!({"plural": "pods/exec"}), "Invalid"),
        (json!({"plural": "../secrets"}), "Invalid"),
        (
            json!({"version": "v1/namespaces/default/secrets?"}),
            "Invalid",
        ),
        (
            json!({"namespace": "kube-system/pods/a/../../secrets"}),
            "Invalid",
        ),
        (json!({"name": "a/log"}), "Invalid"),
        (json!({"name": ".."}), "Invalid"),
        (json!({"name": "a%2flog"}), "Invalid"),
        (json!({"verb": "list", "limit": 0}), "Invalid"),
        (json!({"verb": "list", "limit": 100_000}), "Invalid"),
    ] {
        says(&workload(&loaded, env.clone(), more).await, words);
    }
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test]
async fn an_applied_object_is_the_one_that_was_granted() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(on_pods(&[WorkloadVerb::Apply]));
    let apply = async |object: Value| {
        let more = json!({"verb": "apply", "object": object.to_string()});
        workload(&loaded, env.clone(), more).await
    };
    let pod = |namespace: &str, version: &str| json!({"apiVersion": version, "kind": "Pod", "metadata": {"namespace": namespace, "name": "a"}});
    says(&apply(pod("default", "v1")).await, "is not granted");
    says(&apply(pod("kube-system", "apps/v1")).await, "apiVersion");
    says(&apply(json!({"apiVersion": "v1"})).await, "metadata.name");
    says(&apply(json!("not an object")).await, "metadata.name");
    assert!(world.asked().is_empty());
    assert!(apply(pod("kube-system", "v1")).await["ok"].is_string());
    let asked = world.asked();
    let WorkloadRequest::Apply { manager, .. } = &asked[0] else {
        panic!("{asked:?}")
    };
    assert_eq!(manager, "capstan-plugin-probe");
}

#[tokio::test]
async fn requests_to_the_workload_cluster_are_counted_and_bounded() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(on_pods(&[WorkloadVerb::Get, WorkloadVerb::List]));
    let last = workload(&loaded, env.clone(), json!({"times": 65})).await;
    says(&last, "at most 64");
    assert_eq!(world.asked().len(), 64);
    let large = workload(&loaded, env.clone(), json!({"verb": "list", "limit": 250})).await;
    says(&large, "smaller pages");
    let homeless = CallEnv {
        workload: None,
        ..env
    };
    says(
        &workload(&loaded, homeless, json!({})).await,
        "belongs to no Cluster",
    );
}

#[tokio::test]
async fn a_plan_changes_nothing_in_the_workload_cluster_and_says_what_it_would() {
    use WorkloadVerb::{Delete, Get};
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(on_pods(&[Get, Delete]));
    let planned = async |verb: &str| {
        let config = json!({"do": "workload", "verb": verb, "plural": "pods", "namespace": "kube-system", "name": "a"});
        let mut input = cluster(config);
        input.context.mode = Mode::Plan;
        let answer = loaded.ensure_cluster(env.clone(), input).await.unwrap();
        answer.status["note"].clone()
    };
    says(&planned("delete").await, "Planned");
    assert!(planned("get").await["ok"].is_string());
    assert_eq!(world.asked().len(), 1);
    let effects = env.planned.list();
    assert_eq!(effects.len(), 1);
    assert_eq!(effects[0].what, "delete pods kube-system/a");
}

#[tokio::test]
async fn events_are_few_short_and_well_formed() {
    let (loaded, world) = (loaded().await, World::default());
    let env = world.env(Grants::default());
    let emit = async |more: Value| {
        let base = json!({"do": "event", "reason": "Made", "message": "made it"});
        note(&loaded, env.clone(), with(base, more)).await
    };
    let answers = emit(json!({"times": 10})).await;
    assert_eq!(answers[7], "Ok(())");
    assert!(
        answers[8].as_str().unwrap().contains("at most 8"),
        "{answers}"
    );
    assert_eq!(world.events().len(), 8);
    let odd = emit(json!({"reason": "not camel case"})).await;
    assert!(odd[0].as_str().unwrap().contains("CamelCase"), "{odd}");
    emit(json!({"message": "huge"})).await;
    assert_eq!(world.events()[8].message.len(), 1024);
}

#[tokio::test]
async fn what_is_taken_away_is_gone_from_the_next_call_on() {
    let (loaded, world) = (loaded().await, World::default());
    let before = world.env(secrets(&[(None, "cloud", true)]));
    assert!(secret(&loaded, before.clone(), json!({})).await["handle"].is_u64());
    let after = world.env(Grants::default());
    says(&secret(&loaded, after, json!({})).await, "is not granted");
    // The other way round as well: nothing of the last call is kept.
    assert!(secret(&loaded, before, json!({})).await["handle"].is_u64());
}

#[tokio::test]
async fn the_ceiling_of_the_host_is_over_every_grant() {
    let world = World::default();
    let granted = world.env(Grants {
        secrets: secrets(&[(None, "cloud", true)]).secrets,
        ..on_pods(&[WorkloadVerb::Get, WorkloadVerb::Delete])
    });
    let ceiling = Ceiling {
        workload: Allowed::Only(on_pods(&[WorkloadVerb::Get]).workload),
        http: Allowed::All,
        ..Ceiling::nothing()
    };
    let loaded = engine_below(ceiling).load(wasm()).await.unwrap();
    says(
        &secret(&loaded, granted.clone(), json!({})).await,
        "is not granted",
    );
    assert!(workload(&loaded, granted.clone(), json!({})).await["ok"].is_string());
    let deleted = workload(&loaded, granted.clone(), json!({"verb": "delete"})).await;
    says(&deleted, "is not granted");

    let strict = engine_below(Ceiling::nothing()).load(wasm()).await.unwrap();
    let error = tell(&strict, granted, "").await.unwrap_err();
    let CallError::Refused { capability, why } = error else {
        panic!("{error:?}")
    };
    assert_eq!(capability, "http");
    assert!(
        why.contains("ceiling") && why.contains("--ceiling"),
        "{why}"
    );
}

#[tokio::test]
async fn every_missing_grant_names_its_reason_and_its_lines() {
    let loaded = engine().load(with_manifest("needs")).await.unwrap();
    let missing = loaded.missing(&Arc::default());
    let said: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let text = said.join("\n");
    for words in [
        r#"{"capability":"files","files":{"directory":"/..."}}"#,
        r#"{"capability":"secret","secrets":[{"keys":["..."],"name":"..."}]}"#,
        r#"{"capability":"workload","workload":[{"apiGroups":[""],"resources":["..."],"verbs":["get"]}]}"#,
        "to try what workload lets through",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    assert_eq!(missing.len(), 4);
}
