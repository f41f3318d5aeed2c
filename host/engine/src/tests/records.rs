//! Calls are recorded whole, without secrets, and come out the same when they are replayed with nothing outside.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use capstan_core::call::State;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::probe::{cluster, engine, grants_for, loaded, machine, patched};
use crate::{
    CallEnv, CallError, CallRecord, Credential, CredentialGrant, CredentialScheme,
    CredentialSource, FoundSecret, Function, Grants, Question, RecordSink, SecretGrant,
    SecretSource, SecretTable, StateStore,
};

#[derive(Default)]
struct Kept(Mutex<Vec<CallRecord>>);

impl RecordSink for Kept {
    fn keep(&self, record: CallRecord) {
        self.0.lock().unwrap().push(record);
    }
}

impl Kept {
    fn only(&self) -> CallRecord {
        let mut kept = self.0.lock().unwrap();
        assert_eq!(kept.len(), 1);
        kept.pop().unwrap()
    }
}

struct Cellar;

impl CredentialSource for Cellar {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, String>> {
        async move {
            let (scheme, secret) = match name {
                "login" => (CredentialScheme::Basic, &b"user:pass:word-of-it\n"[..]),
                _ => (CredentialScheme::Bearer, &b"injected-token\n"[..]),
            };
            Ok(Credential {
                scheme,
                secret: secret.to_vec(),
            })
        }
        .boxed()
    }
}

impl SecretSource for Cellar {
    fn read<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<FoundSecret>, String>> {
        async {
            Ok(Some(FoundSecret {
                bytes: b"cellar-secret".to_vec(),
                secret_type: "Opaque".to_owned(),
            }))
        }
        .boxed()
    }
}

impl StateStore for Cellar {
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>> {
        async { Ok(Some(b"before".to_vec())) }.boxed()
    }

    fn put(&self, _: State) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}

/// A server that answers with everything that it was told: a cloud that echoes what it should not.
async fn echo() -> (String, tokio::task::JoinHandle<()>) {
    use http_body_util::BodyExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let auth = request.headers().get("authorization").cloned();
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let basic = auth.as_ref().and_then(|auth| auth.to_str().ok());
                let basic = basic.and_then(|auth| auth.strip_prefix("Basic "));
                let basic = basic.and_then(|pair| STANDARD.decode(pair).ok());
                let password = basic.map(|pair| String::from_utf8(pair).unwrap());
                let password = password.as_ref().and_then(|pair| pair.split_once(':'));
                let said = format!("{auth:?} {password:?} {}", String::from_utf8_lossy(&body));
                let said = match path.as_str() {
                    "/no-text" => [&b"\xff\xfe"[..], said.as_bytes()].concat(),
                    "/json" => json!({ said: 1 }).to_string().into_bytes(),
                    _ => said.into_bytes(),
                };
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(said)))
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (origin, task)
}

fn env(origin: &str, kept: &Arc<Kept>) -> CallEnv {
    let mut grants = Grants::clone(&grants_for(origin, &[]));
    grants.credentials.insert(
        "api".to_owned(),
        CredentialGrant {
            scheme: CredentialScheme::Bearer,
            origins: vec![origin.parse().unwrap()],
        },
    );
    grants.credentials.insert(
        "login".to_owned(),
        CredentialGrant {
            scheme: CredentialScheme::Basic,
            origins: vec![origin.parse().unwrap()],
        },
    );
    grants.secrets.push(SecretGrant {
        namespace: None,
        name: "*".parse().unwrap(),
        keys: vec![],
        bytes: true,
    });
    let cellar = Arc::new(Cellar);
    CallEnv {
        grants: Arc::new(grants),
        credentials: cellar.clone(),
        namespace: "default".to_owned(),
        secret_source: Some(cellar.clone()),
        state: Some(cellar),
        recorder: Some(kept.clone()),
        ..CallEnv::new("probe", "ProbeCluster default/a")
    }
}

#[tokio::test]
async fn a_call_with_effects_is_replayed_without_any() {
    let (origin, server) = echo().await;
    let kept = Arc::new(Kept::default());
    let loaded = loaded().await;
    let mut secrets = SecretTable::new();
    let handle = secrets.add(b"bootstrap-secret".to_vec());
    let config = json!({
        "do": "http", "method": "POST", "url": format!("{origin}/x"), "body": "to the cloud: ", "credential": "api",
    });
    let env = CallEnv {
        secrets,
        ..env(&origin, &kept)
    };
    let answer = loaded
        .ensure_machine(env, machine(config, Some(handle)))
        .await;
    let note = answer.unwrap().status["note"].clone();
    assert!(
        note.to_string().contains("bootstrap-secret"),
        "the cloud echoes: {note}"
    );
    server.abort();
    let record = kept.only();
    let text = serde_json::to_string(&record).unwrap();
    for secret in ["bootstrap-secret", "injected-token"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(
        text.contains("to the cloud: ") && text.contains("[secret]"),
        "{text}"
    );
    assert_eq!(
        (record.function.as_str(), record.secrets.as_slice()),
        ("ensure-machine", &[16][..])
    );
    assert_eq!(
        record
            .imports
            .iter()
            .filter(|x| x.import == "http.send")
            .count(),
        1
    );
    // The server is gone, and nothing is granted.
    let read_back = CallRecord::parse(text.as_bytes()).unwrap();
    let again = loaded.replay(&read_back).await.unwrap();
    assert_eq!(again.result, Ok(()));
    assert_eq!(record.differences(&again.record), []);
    assert_eq!(again.record.outcome, record.outcome);
    assert_eq!(again.record.imports, record.imports);
}

#[tokio::test]
async fn secrets_are_hidden_in_bytes_that_are_no_text_in_names_and_in_parts() {
    let (origin, server) = echo().await;
    let loaded = loaded().await;
    for path in ["text", "no-text", "json"] {
        let kept = Arc::new(Kept::default());
        let mut secrets = SecretTable::new();
        let handle = secrets.add(b"bootstrap-secret".to_vec());
        let config = json!({
            "do": "http", "method": "POST", "url": format!("{origin}/{path}"), "body": "", "credential": "login",
        });
        let env = CallEnv {
            secrets,
            ..env(&origin, &kept)
        };
        // What is no text the probe may refuse: the record is what counts.
        let _ = loaded
            .ensure_machine(env, machine(config, Some(handle)))
            .await;
        let record = kept.only();
        assert!(record.incomplete.is_none(), "{:?}", record.incomplete);
        let sent = record.imports.iter().find(|x| x.import == "http.send");
        let sent = sent.unwrap_or_else(|| panic!("{path}: nothing was sent"));
        assert!(sent.answer.to_string().len() > 50, "{}", sent.answer);
        let text = serde_json::to_string(&record).unwrap();
        // As it is, and as bytes that are written in base64.
        let mut all = vec![text.into_bytes()];
        decoded(&json!(record), &mut all);
        let is_no_text = path == "no-text";
        assert_eq!(all.len() > 1, is_no_text, "{path}");
        for hidden in ["bootstrap-secret", "pass:word-of-it"] {
            for forms in [hidden.to_owned(), STANDARD.encode(hidden)] {
                let found = all.iter().any(|bytes| {
                    let mut parts = bytes.windows(forms.len());
                    parts.any(|part| part == forms.as_bytes())
                });
                assert!(!found, "{path}: {hidden}");
            }
        }
    }
    server.abort();
}

/// Bytes of a record that are no text.
fn decoded(value: &Value, found: &mut Vec<Vec<u8>>) {
    match value {
        Value::Object(fields) => {
            if let Some(bytes) = fields.get("base64").and_then(Value::as_str) {
                found.extend(STANDARD.decode(bytes));
            }
            fields.values().for_each(|value| decoded(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| decoded(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn state_clock_and_randomness_come_from_the_record() {
    let kept = Arc::new(Kept::default());
    let loaded = loaded().await;
    for config in [
        json!({"do": "state", "value": "after"}),
        json!({"do": "ambient"}),
    ] {
        let env = env("https://cloud.example.com", &kept);
        loaded.ensure_cluster(env, cluster(config)).await.unwrap();
        let record = kept.only();
        // Another digest has other randomness of its own; a replay has that of the record.
        let other = patched("capstan-manifest:plain..", "capstan-manifest:plain.,");
        let other = engine().load(other).await.unwrap();
        assert_ne!(other.digest(), record.digest);
        let again = other.replay(&record).await.unwrap();
        assert_eq!(record.differences(&again.record), []);
        assert_eq!(again.record.outcome, record.outcome);
    }
}

#[tokio::test]
async fn a_build_that_does_something_else_is_told_from_the_record() {
    let kept = Arc::new(Kept::default());
    let loaded = loaded().await;
    let env = || env("https://cloud.example.com", &kept);
    loaded
        .ensure_cluster(env(), cluster(json!({"do": "state", "value": "a"})))
        .await
        .unwrap();
    let mut record = kept.only();
    let fails = patched("capstan-behaves:plain...", "capstan-behaves:fails...");
    let again = engine()
        .load(fails)
        .await
        .unwrap()
        .replay(&record)
        .await
        .unwrap();
    let paths: Vec<String> = record
        .differences(&again.record)
        .into_iter()
        .map(|d| d.path)
        .collect();
    assert!(paths.iter().any(|path| path == "answer.Err"), "{paths:?}");
    let traps = patched("capstan-behaves:plain...", "capstan-behaves:traps...");
    let again = engine()
        .load(traps)
        .await
        .unwrap()
        .replay(&record)
        .await
        .unwrap();
    assert!(again.result.is_err());
    assert!(
        again
            .record
            .outcome
            .error
            .unwrap()
            .contains("this version traps")
    );
    // An import that the record does not know ends the replay, and says which.
    record
        .imports
        .retain(|exchange| exchange.import != "state.put");
    let again = loaded.replay(&record).await.unwrap();
    let said = again.result.unwrap_err().to_string();
    assert!(
        said.contains("the record has no answer for state.put"),
        "{said}"
    );
    assert!(!record.differences(&again.record).is_empty());
}

#[tokio::test]
async fn what_a_plugin_makes_of_bytes_of_a_secret_is_not_written_down() {
    let kept = Arc::new(Kept::default());
    let loaded = loaded().await;
    let config = json!({"do": "secret", "bytes": true, "name": "s", "key": "k"});
    let env = env("https://cloud.example.com", &kept);
    let answer = loaded.ensure_cluster(env, cluster(config)).await.unwrap();
    let note = answer.status["note"].to_string();
    assert!(
        note.contains("terces-rallec"),
        "the probe has read it: {note}"
    );
    let record = kept.only();
    assert!(
        record
            .incomplete
            .as_ref()
            .unwrap()
            .contains("bytes of a Secret")
    );
    assert!(!serde_json::to_string(&record).unwrap().contains("cellar"));
    assert_eq!((record.input, record.imports.len()), (json!({}), 0));
}

#[tokio::test]
async fn every_function_can_be_asked_in_json_and_is_checked_like_any_other() {
    let loaded = loaded().await;
    let kept = Arc::new(Kept::default());
    for function in Function::ALL {
        let question = Question::completed(function, json!({})).unwrap();
        let env = env("https://cloud.example.com", &kept);
        let mut env = CallEnv {
            recorder: None,
            ..env
        };
        env.secrets.add(b"data".to_vec());
        let tried = loaded.try_call(env, question).await.unwrap();
        let told = (function, &tried.result, &tried.record.outcome);
        assert!(tried.record.outcome.answer.is_some(), "{told:?}");
        let again = loaded.replay(&tried.record).await.unwrap();
        assert_eq!(tried.record.differences(&again.record), [], "{function:?}");
    }
    let config = json!({"context": {"config": {"do": "contract-condition"}}});
    let question = Question::completed(Function::EnsureCluster, config).unwrap();
    let env = env("https://cloud.example.com", &kept);
    let tried = loaded.try_call(env, question).await.unwrap();
    assert!(tried.record.outcome.answer.is_some());
    assert!(
        matches!(tried.result, Err(CallError::BadAnswer { .. })),
        "{:?}",
        tried.result
    );
}
