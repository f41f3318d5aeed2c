//! Pulls from registries that ask for logins, send people elsewhere, and lie.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::{Anatomy, PullError, Reference, RegistryAccess, Signature, pull, push, resolve};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", crate::source::hex(&Sha256::digest(bytes)))
}

/// What is answered, by path, and what was asked: path and `Authorization`.
#[derive(Default)]
struct Contents {
    answers: HashMap<String, (StatusCode, Vec<u8>)>,
    elsewhere: HashMap<String, String>,
    wants_token: bool,
    asked: Vec<(String, String)>,
}

#[derive(Clone)]
struct Registry {
    host: String,
    contents: Arc<Mutex<Contents>>,
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let contents = Arc::new(Mutex::new(Contents::default()));
        let registry = Self { host, contents };
        let served = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let served = served.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let answer = served.answer(&Request::from_parts(head, body));
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(async move {
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        registry
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<Full<Bytes>> {
        let mut contents = self.contents.lock().unwrap();
        let path = request.uri().path().to_owned();
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map_or("", |value| value.to_str().unwrap());
        contents
            .asked
            .push((path.clone(), authorization.to_owned()));
        let respond = |status: StatusCode, body: &[u8]| {
            Response::builder()
                .status(status)
                .header("docker-content-digest", digest(body))
                .body(Full::from(body.to_vec()))
                .unwrap()
        };
        if path == "/token" {
            let expected = format!("Basic {}", STANDARD.encode("user:pass"));
            let scope = request.uri().query().unwrap_or_default().to_owned();
            return if authorization == expected && scope.contains("scope=repository") {
                respond(StatusCode::OK, br#"{"token":"t0ken"}"#)
            } else {
                respond(StatusCode::UNAUTHORIZED, b"")
            };
        }
        if contents.wants_token && path.starts_with("/v2/") && authorization != "Bearer t0ken" {
            let challenge = format!(
                r#"Bearer realm="http://{}/token",service="r",scope="repository:team/plugin:pull""#,
                self.host
            );
            return Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .header("www-authenticate", challenge)
                .body(Full::default())
                .unwrap();
        }
        if let Some(to) = contents.elsewhere.get(&path) {
            return Response::builder()
                .status(StatusCode::TEMPORARY_REDIRECT)
                .header("location", to)
                .body(Full::default())
                .unwrap();
        }
        let body = request.body().to_vec();
        let found = StatusCode::OK;
        if request.method() == Method::POST && path.ends_with("/blobs/uploads/") {
            return Response::builder()
                .status(StatusCode::ACCEPTED)
                .header("location", "/v2/team/plugin/upload/7?state=a")
                .body(Full::default())
                .unwrap();
        }
        if request.method() == Method::PUT && path.ends_with("/upload/7") {
            let query = request.uri().query().unwrap().replace("%3A", ":");
            assert_eq!(query, format!("state=a&digest={}", digest(&body)));
            let blob = format!("/v2/team/plugin/blobs/{}", digest(&body));
            contents.answers.insert(blob, (found, body));
            return respond(StatusCode::CREATED, b"");
        }
        if request.method() == Method::PUT {
            let by_digest = format!("/v2/team/plugin/manifests/{}", digest(&body));
            contents.answers.insert(by_digest, (found, body.clone()));
            contents.answers.insert(path, (found, body));
            return respond(StatusCode::CREATED, b"");
        }
        match contents.answers.get(&path) {
            Some((status, body)) => respond(*status, body),
            None => respond(StatusCode::NOT_FOUND, b""),
        }
    }

    fn put(&self, path: &str, body: &[u8]) {
        let mut contents = self.contents.lock().unwrap();
        let path = format!("/v2/team/plugin/{path}");
        contents
            .answers
            .insert(path, (StatusCode::OK, body.to_vec()));
    }

    /// A component under the tag `1`; answers the digest of its manifest.
    fn put_component(&self) -> String {
        let manifest = json!({"schemaVersion": 2, "layers": [{
            "mediaType": "application/wasm", "digest": digest(COMPONENT), "size": COMPONENT.len(),
        }]})
        .to_string();
        let of = digest(manifest.as_bytes());
        self.put("manifests/1", manifest.as_bytes());
        self.put(&format!("manifests/{of}"), manifest.as_bytes());
        self.put(&format!("blobs/{}", digest(COMPONENT)), COMPONENT);
        of
    }

    fn reference(&self, wanted: &str) -> Reference {
        Reference::parse(&format!("{}/team/plugin{wanted}", self.host)).unwrap()
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.contents.lock().unwrap().asked.clone()
    }
}

fn plain() -> RegistryAccess {
    RegistryAccess {
        plain_http: true,
        ..RegistryAccess::default()
    }
}

#[tokio::test]
async fn a_tag_is_resolved_and_what_it_meant_is_pulled() {
    let registry = Registry::start().await;
    let of = registry.put_component();
    assert_eq!(
        resolve(&registry.reference(":1"), &plain()).await,
        Ok(of.clone())
    );
    let pinned = registry.reference(&format!("@{of}"));
    let pulled = pull(&pinned, &plain(), true).await.unwrap();
    assert_eq!((&pulled.source[..], &pulled.manifest), (COMPONENT, &of));
    assert!(pulled.signatures.is_empty());
    let missing = pull(&registry.reference(":2"), &plain(), false).await;
    assert!(matches!(missing, Err(PullError::NotFound(_))));
}

#[tokio::test]
async fn a_login_goes_to_the_registry_and_not_to_where_it_sends_people() {
    let (registry, storage) = (Registry::start().await, Registry::start().await);
    registry.put_component();
    registry.contents.lock().unwrap().wants_token = true;
    let blob = format!("blobs/{}", digest(COMPONENT));
    storage.put(&blob, COMPONENT);
    registry.contents.lock().unwrap().elsewhere.insert(
        format!("/v2/team/plugin/{blob}"),
        format!("http://{}/v2/team/plugin/{blob}", storage.host),
    );
    let access = RegistryAccess {
        login: Some(("user".to_owned(), "pass".to_owned())),
        ..plain()
    };
    let pulled = pull(&registry.reference(":1"), &access, false)
        .await
        .unwrap();
    assert_eq!(&pulled.source[..], COMPONENT);
    let elsewhere = storage.asked();
    assert_eq!(elsewhere.len(), 1);
    assert_eq!(elsewhere[0].1, "", "the login stays behind");
    let without = pull(&registry.reference(":1"), &plain(), false).await;
    assert!(matches!(&without, Err(PullError::Denied(why)) if why.contains("pullSecret")));
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused() {
    let registry = Registry::start().await;
    let of = registry.put_component();
    registry.put(&format!("blobs/{}", digest(COMPONENT)), b"\0asm\x0d\0\x01X");
    let lied = pull(&registry.reference(":1"), &plain(), false).await;
    assert!(matches!(lied, Err(PullError::Invalid(_))), "{lied:?}");
    registry.put(&format!("blobs/{}", digest(COMPONENT)), &vec![0; 1 << 20]);
    let larger = pull(&registry.reference(":1"), &plain(), false).await;
    assert!(
        matches!(larger, Err(PullError::Invalid(why)) if why.contains("more than the 8 bytes"))
    );
    registry.put(&format!("manifests/{of}"), br#"{"layers": []}"#);
    let other = pull(&registry.reference(&format!("@{of}")), &plain(), false).await;
    assert!(matches!(other, Err(PullError::Invalid(why)) if why.contains("answered manifest")));
}

#[tokio::test]
async fn without_the_setting_nothing_is_sent_in_the_clear() {
    let registry = Registry::start().await;
    registry.put_component();
    let refused = pull(&registry.reference(":1"), &RegistryAccess::default(), false).await;
    assert!(
        matches!(refused, Err(PullError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(registry.asked().is_empty());
}

#[tokio::test]
async fn signatures_are_found_beside_the_manifest() {
    let registry = Registry::start().await;
    let of = registry.put_component();
    let payload = json!({"critical": {"image": {"docker-manifest-digest": of}}}).to_string();
    let layer = |media: &str, annotations: Value| json!({"mediaType": media, "digest": digest(payload.as_bytes()), "annotations": annotations});
    let signature = json!({"dev.cosignproject.cosign/signature": STANDARD.encode("signed")});
    let cosign = "application/vnd.dev.cosign.simplesigning.v1+json";
    let signed = json!({"layers": [
        layer(cosign, signature.clone()), layer("text/plain", signature), layer(cosign, json!({})),
    ]});
    let tag = format!("manifests/{}.sig", of.replace(':', "-"));
    registry.put(&tag, signed.to_string().as_bytes());
    registry.put(
        &format!("blobs/{}", digest(payload.as_bytes())),
        payload.as_bytes(),
    );
    let pulled = pull(&registry.reference(":1"), &plain(), true)
        .await
        .unwrap();
    let expected = Signature::Manifest {
        payload: payload.into_bytes(),
        signature: b"signed".to_vec(),
        manifest: of,
    };
    assert_eq!(pulled.signatures, [expected]);
}

#[tokio::test]
async fn what_is_pushed_is_what_a_host_pulls() {
    let registry = Registry::start().await;
    registry.contents.lock().unwrap().wants_token = true;
    let access = RegistryAccess {
        login: Some(("user".to_owned(), "pass".to_owned())),
        ..plain()
    };
    let component = Anatomy {
        wasm: Bytes::from_static(COMPONENT),
        digest: digest(COMPONENT),
        exports: vec!["capstan:plugin/manifest@0.1.0".to_owned()],
        ..Anatomy::default()
    };
    let tag = registry.reference(":1.2.3");
    let now = jiff::Timestamp::UNIX_EPOCH;
    let pushed = push(&tag, &access, &component, "upgrade-x", "1.2.3", now)
        .await
        .unwrap();
    let pulled = pull(&tag, &access, false).await.unwrap();
    assert_eq!(&pulled.source[..], COMPONENT);
    assert_eq!(pulled.manifest, pushed.manifest);
    assert!(pushed.bytes > 8);
    let again = push(&tag, &access, &component, "upgrade-x", "1.2.3", now)
        .await
        .unwrap();
    assert_eq!((again.bytes, again.manifest), (0, pushed.manifest.clone()));
    let pinned = registry.reference(&format!("@{}", pushed.manifest));
    assert!(
        push(&pinned, &access, &component, "x", "1.0.0", now)
            .await
            .is_err()
    );
    let denied = push(&tag, &plain(), &component, "x", "1.0.0", now).await;
    assert!(matches!(denied, Err(PullError::Denied(_))), "{denied:?}");
}
