//! The `http` capability from the attacker's side, against a real server on this machine.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use capstan_core::call::Mode;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::probe::{cluster, grants_for, loaded, machine, note};
use crate::{
    CallEnv, Credential, CredentialGrant, CredentialScheme, CredentialSource, Grants, Limits,
    Loaded,
};

/// A server that remembers what it was asked: `METHOD path authorization body`.
pub(super) struct Server {
    pub(super) origin: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `/to?<url>` redirects with 307, `/see?<url>` with 303, `/large` answers 5 MiB, `/never` never answers.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = log.clone();
                let service = service_fn(move |request| answer(request, log.clone()));
                tokio::spawn(async move {
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            origin,
            asked,
            task,
        }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

pub(super) async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let auth = head
        .headers
        .get("authorization")
        .map_or("-", |v| v.to_str().unwrap());
    let key = head
        .headers
        .get("x-key")
        .map_or("", |v| v.to_str().unwrap());
    log.lock().unwrap().push(format!(
        "{} {} {auth}{key} {}",
        head.method,
        head.uri.path(),
        String::from_utf8_lossy(&body)
    ));
    let redirect = |status: StatusCode| {
        let to = head.uri.query().unwrap_or_default();
        Response::builder()
            .status(status)
            .header("location", to)
            .body(Full::default())
            .unwrap()
    };
    Ok(match head.uri.path() {
        "/to" => redirect(StatusCode::TEMPORARY_REDIRECT),
        "/see" => redirect(StatusCode::SEE_OTHER),
        "/large" => Response::new(Full::from(vec![b'x'; 5 << 20])),
        "/never" => std::future::pending().await,
        _ => Response::new(Full::from("hello")),
    })
}

struct OneSecret;

impl CredentialSource for OneSecret {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, String>> {
        let scheme = match name {
            "basic" => CredentialScheme::Basic,
            "header" => CredentialScheme::Header("x-key".to_owned()),
            _ => CredentialScheme::Bearer,
        };
        async {
            Ok(Credential {
                scheme,
                secret: b"t0ken:pw\n".to_vec(),
            })
        }
        .boxed()
    }
}

fn granted(grants: Arc<Grants>) -> CallEnv {
    CallEnv {
        grants,
        credentials: Arc::new(OneSecret),
        ..CallEnv::new("probe", "ProbeCluster default/a")
    }
}

async fn send(loaded: &Loaded, env: CallEnv, method: &str, url: &str, more: Value) -> Value {
    let mut config = json!({"do": "http", "method": method, "url": url});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    note(loaded, env, config).await
}

#[tokio::test]
async fn a_granted_origin_is_reached_and_no_other() {
    let (loaded, server, other) = (loaded().await, Server::start().await, Server::start().await);
    let env = granted(grants_for(&server.origin, &["GET"]));
    let url = format!("{}/x", server.origin);
    let ok = send(&loaded, env.clone(), "GET", &url, json!({})).await;
    assert_eq!((&ok["status"], &ok["body"]), (&json!(200), &json!("hello")));
    let method = send(&loaded, env.clone(), "DELETE", &url, json!({})).await;
    assert!(
        method["denied"]
            .as_str()
            .unwrap()
            .contains(r#""methods":["DELETE"]"#),
        "{method}"
    );
    let elsewhere = send(
        &loaded,
        env,
        "GET",
        &format!("{}/x", other.origin),
        json!({}),
    )
    .await;
    assert!(
        elsewhere["denied"]
            .as_str()
            .unwrap()
            .contains(&other.origin),
        "{elsewhere}"
    );
    assert!(other.asked().is_empty());
    // What was refused went nowhere, and is not counted.
    assert_eq!(loaded.http_answers(), [(server.origin.clone(), "2xx", 1)]);
}

#[tokio::test]
async fn inner_addresses_need_their_own_permission() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let mut grants = Grants::clone(&grants_for(&server.origin, &[]));
    grants.http[0].private = false;
    let answer = send(
        &loaded,
        granted(Arc::new(grants)),
        "GET",
        &server.origin,
        json!({}),
    )
    .await;
    assert!(
        answer["denied"].as_str().unwrap().contains("private: true"),
        "{answer}"
    );
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_name_is_checked_by_what_it_resolves_to() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let named = server.origin.replace("127.0.0.1", "localhost");
    let mut grants = Grants::clone(&grants_for(&named, &[]));
    grants.http[0].private = false;
    let answer = send(&loaded, granted(Arc::new(grants)), "GET", &named, json!({})).await;
    assert!(answer.get("denied").is_some(), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_invalid() {
    let loaded = loaded().await;
    let env = || granted(grants_for("http://127.0.0.1", &[]));
    for (method, url, more) in [
        ("GET", "ftp://127.0.0.1/", json!({})),
        ("GET", "http://user:pw@127.0.0.1/", json!({})),
        ("get me", "http://127.0.0.1/", json!({})),
        ("CONNECT", "http://127.0.0.1/", json!({})),
        (
            "GET",
            "http://127.0.0.1/",
            json!({"headers": {"Host": "other"}}),
        ),
        (
            "GET",
            "http://127.0.0.1/",
            json!({"headers": {"x": "a\r\nb: c"}}),
        ),
        ("GET", "http://127.0.0.1/", json!({"handle": 77})),
    ] {
        let answer = send(&loaded, env(), method, url, more.clone()).await;
        assert!(
            answer.get("invalid").is_some(),
            "{method} {url} {more}: {answer}"
        );
    }
}

fn with_credential(
    server: &Server,
    name: &str,
    scheme: CredentialScheme,
    at: &[&str],
) -> Arc<Grants> {
    let mut grants = Grants::clone(&grants_for(&server.origin, &[]));
    let origins = at.iter().map(|origin| origin.parse().unwrap()).collect();
    grants
        .credentials
        .insert(name.to_owned(), CredentialGrant { scheme, origins });
    Arc::new(grants)
}

#[tokio::test]
async fn credentials_are_added_by_the_host() {
    let (loaded, server) = (loaded().await, Server::start().await);
    for (name, scheme, seen) in [
        ("bearer", CredentialScheme::Bearer, "GET / Bearer t0ken:pw "),
        (
            "basic",
            CredentialScheme::Basic,
            "GET / Basic dDBrZW46cHc= ",
        ),
        (
            "header",
            CredentialScheme::Header("x-key".to_owned()),
            "GET / -t0ken:pw ",
        ),
    ] {
        let env = granted(with_credential(&server, name, scheme, &[&server.origin]));
        let answer = send(
            &loaded,
            env,
            "GET",
            &server.origin,
            json!({"credential": name}),
        )
        .await;
        assert_eq!(answer["status"], json!(200), "{answer}");
        assert_eq!(server.asked().last().unwrap(), seen);
    }
}

#[tokio::test]
async fn credentials_go_only_where_they_are_granted() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let bearer = CredentialScheme::Bearer;
    let cases = [
        (
            with_credential(&server, "bearer", bearer.clone(), &[]),
            "bearer",
        ),
        (
            with_credential(&server, "bearer", bearer, &["https://other.example.com"]),
            "bearer",
        ),
        (
            with_credential(
                &server,
                "bearer",
                CredentialScheme::Basic,
                &[&server.origin],
            ),
            "bearer",
        ),
        (grants_for(&server.origin, &[]), "unknown"),
    ];
    for (grants, name) in cases {
        let answer = send(
            &loaded,
            granted(grants),
            "GET",
            &server.origin,
            json!({"credential": name}),
        )
        .await;
        assert!(
            answer["denied"].as_str().unwrap().contains(name),
            "{answer}"
        );
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_is_checked_and_carries_no_credential_away() {
    let (loaded, server, other) = (loaded().await, Server::start().await, Server::start().await);
    let away = format!("{}/to?{}/landed", server.origin, other.origin);
    let only = with_credential(
        &server,
        "bearer",
        CredentialScheme::Bearer,
        &[&server.origin],
    );
    let refused = send(
        &loaded,
        granted(only.clone()),
        "GET",
        &away,
        json!({"credential": "bearer"}),
    )
    .await;
    assert!(refused.get("denied").is_some(), "{refused}");
    assert!(other.asked().is_empty());
    let mut both = Grants::clone(&only);
    both.http
        .extend(grants_for(&other.origin, &[]).http.clone());
    let both = Arc::new(both);
    let more =
        json!({"credential": "bearer", "headers": {"Authorization": "own", "Cookie": "a=b"}});
    let followed = send(&loaded, granted(both.clone()), "GET", &away, more).await;
    assert_eq!(followed["status"], json!(200), "{followed}");
    assert_eq!(other.asked(), ["GET /landed - "]);
    let mut env = granted(both);
    let handle = env.secrets.add(b"bootstrap data".to_vec());
    let kept = send(&loaded, env, "POST", &away, json!({"handle": handle.0})).await;
    assert!(
        kept["denied"].as_str().unwrap().contains("secrets"),
        "{kept}"
    );
    assert_eq!(other.asked().len(), 1);
}

#[tokio::test]
async fn a_see_other_becomes_a_get_without_the_body() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let env = granted(grants_for(&server.origin, &[]));
    let url = format!("{}/see?/landed", server.origin);
    send(&loaded, env, "POST", &url, json!({"body": "b"})).await;
    assert_eq!(server.asked(), ["POST /see - b", "GET /landed - "]);
}

#[tokio::test]
async fn redirects_end() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let env = granted(grants_for(&server.origin, &[]));
    let round = format!("{}/to?/to?/to?/to?/to?/to?/to?/to?/to", server.origin);
    let answer = send(&loaded, env, "GET", &round, json!({})).await;
    assert!(
        answer["limit"].as_str().unwrap().contains("redirects"),
        "{answer}"
    );
}

#[tokio::test]
async fn secrets_reach_the_server_and_not_the_guest() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let mut env = granted(grants_for(&server.origin, &["POST"]));
    let handle = env.secrets.add(b"a \"secret\"".to_vec());
    for (encoding, seen) in [
        ("plain", r#"POST / - data=a "secret""#),
        ("base64", "POST / - data=YSAic2VjcmV0Ig=="),
        ("json", r#"POST / - data=a \"secret\""#),
    ] {
        let config = json!({
            "do": "http", "method": "POST", "url": server.origin, "body": "data=", "encoding": encoding,
        });
        loaded
            .ensure_machine(env.clone(), machine(config, Some(handle)))
            .await
            .unwrap();
        assert_eq!(server.asked().last().unwrap(), seen);
    }
}

#[tokio::test]
async fn count_size_and_time_are_limited() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let mut env = granted(grants_for(&server.origin, &[]));
    env.limits = Limits {
        http_requests: 3,
        ..Limits::default()
    };
    let many = json!({"do": "http-many", "url": server.origin, "count": 5});
    assert_eq!(note(&loaded, env.clone(), many).await, json!(2));
    let large = send(
        &loaded,
        env.clone(),
        "GET",
        &format!("{}/large", server.origin),
        json!({}),
    )
    .await;
    assert!(
        large["limit"].as_str().unwrap().contains("bytes"),
        "{large}"
    );
    let never = format!("{}/never", server.origin);
    let late = send(
        &loaded,
        env.clone(),
        "GET",
        &never,
        json!({"timeoutMs": 100}),
    )
    .await;
    assert!(
        late["limit"].as_str().unwrap().contains("in time"),
        "{late}"
    );
    env.limits.http_body_bytes = 1000;
    let body = json!({"body": "x".repeat(2000)});
    let fat = send(&loaded, env, "POST", &server.origin, body).await;
    assert!(
        fat["limit"].as_str().unwrap().contains("1000 bytes"),
        "{fat}"
    );
}

#[tokio::test]
async fn a_closed_port_is_a_failure_and_not_a_trap() {
    let loaded = loaded().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let answer = send(
        &loaded,
        granted(grants_for(&origin, &[])),
        "GET",
        &origin,
        json!({}),
    )
    .await;
    assert!(
        answer["failed"]
            .as_str()
            .unwrap()
            .contains("cannot connect"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_plan_reads_but_does_not_act() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let env = granted(grants_for(&server.origin, &[]));
    let plan = |method: &str, path: &str| {
        let url = format!("{}{path}", server.origin);
        let mut input = cluster(json!({"do": "http", "method": method, "url": url}));
        input.context.mode = Mode::Plan;
        input
    };
    let post = loaded
        .ensure_cluster(env.clone(), plan("POST", "/make?key=hidden"))
        .await
        .unwrap();
    assert_eq!(post.status["note"], json!({"planned": true}));
    let get = loaded
        .ensure_cluster(env.clone(), plan("GET", "/look"))
        .await
        .unwrap();
    assert_eq!(get.status["note"]["status"], json!(200));
    assert_eq!(server.asked(), ["GET /look - "]);
    let planned: Vec<_> = env
        .planned
        .list()
        .into_iter()
        .map(|effect| effect.what)
        .collect();
    assert_eq!(planned, [format!("POST {}/make", server.origin)]);
}

#[tokio::test]
async fn a_redirect_in_a_plan_is_followed_only_to_read() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let env = granted(grants_for(&server.origin, &["GET"]));
    let url = format!("{}/to?/landed", server.origin);
    let mut input = cluster(json!({"do": "http", "method": "GET", "url": url}));
    input.context.mode = Mode::Plan;
    input.context.deadline = Duration::from_secs(20);
    loaded.ensure_cluster(env, input).await.unwrap();
    assert_eq!(server.asked(), ["GET /to - ", "GET /landed - "]);
}

/// Serves one answer after the other over TLS, with a certificate of its own for `localhost` that nobody has signed.
async fn secure() -> (String, String, tokio::task::JoinHandle<()>) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let service = service_fn(|request| answer(request, Arc::default()));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    (origin, own.cert.pem(), task)
}

#[tokio::test]
async fn tls_is_verified_against_public_and_granted_authorities() {
    let loaded = loaded().await;
    let (origin, pem, server) = secure().await;
    let unknown = send(
        &loaded,
        granted(grants_for(&origin, &[])),
        "GET",
        &origin,
        json!({}),
    )
    .await;
    assert!(
        unknown["failed"].as_str().unwrap().contains("no TLS with"),
        "{unknown}"
    );
    let mut grants = Grants::clone(&grants_for(&origin, &[]));
    grants.http[0].ca_pem = Some(pem);
    let known = send(
        &loaded,
        granted(Arc::new(grants)),
        "GET",
        &origin,
        json!({}),
    )
    .await;
    assert_eq!(known["status"], json!(200), "{known}");
    server.abort();
}
