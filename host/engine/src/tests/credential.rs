//! Credentials that are more than a header: requests that are signed, connections with a certificate.

use std::sync::Arc;

use capstan_core::call::infrastructure::ClusterInput;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::http::{Server, answer};
use super::probe::{cluster, grants_for, loaded};
use crate::{
    AwsScope, CallEnv, Credential, CredentialGrant, CredentialScheme, CredentialSource, Grants,
    Loaded,
};

/// One secret for everything.
struct Kept(CredentialScheme, Vec<u8>);

impl CredentialSource for Kept {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Credential, String>> {
        let credential = Credential {
            scheme: self.0.clone(),
            secret: self.1.clone(),
        };
        async move { Ok(credential) }.boxed()
    }
}

fn env(origin: &str, ca: Option<String>, scheme: CredentialScheme, secret: &[u8]) -> CallEnv {
    let mut grants = Grants::clone(&grants_for(origin, &[]));
    grants.http[0].ca_pem = ca;
    grants.credentials.insert(
        "own".to_owned(),
        CredentialGrant {
            scheme: scheme.clone(),
            origins: vec![origin.parse().unwrap()],
        },
    );
    CallEnv {
        grants: Arc::new(grants),
        credentials: Arc::new(Kept(scheme, secret.to_vec())),
        ..CallEnv::new("probe", "ProbeCluster default/a")
    }
}

fn question(method: &str, url: &str, more: &[(&str, Value)]) -> ClusterInput {
    let mut config = json!({"do": "http", "method": method, "url": url});
    for (key, value) in more {
        config[*key] = value.clone();
    }
    cluster(config)
}

async fn send(loaded: &Loaded, env: CallEnv, input: ClusterInput) -> Value {
    let answer = loaded.ensure_cluster(env, input).await.unwrap();
    answer.status["note"].clone()
}

fn aws() -> CredentialScheme {
    CredentialScheme::AwsSignatureV4(AwsScope {
        region: "eu-central-1".to_owned(),
        service: "ec2".to_owned(),
    })
}

#[tokio::test]
async fn requests_are_signed_by_the_host_each_anew_and_with_nothing_of_the_guests() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let own = ("credential", json!("own"));
    let headers = json!({"x-amz-date": "19700101T000000Z", "authorization": "mine"});
    // Redirected within the origin: another path, and so another signature.
    let url = format!("{}/to?/landed", server.origin);
    let input = question(
        "POST",
        &url,
        &[own.clone(), ("headers", headers), ("body", json!("b"))],
    );
    let secret = b"AKID:hush-hush:token-1";
    let answer = send(&loaded, env(&server.origin, None, aws(), secret), input).await;
    assert_eq!(answer["status"], json!(200), "{answer}");
    let asked = server.asked();
    let signatures: Vec<&str> = asked
        .iter()
        .map(|line| line.split("Signature=").nth(1).unwrap())
        .collect();
    assert_eq!(signatures.len(), 2, "{asked:?}");
    assert_ne!(signatures[0], signatures[1]);
    for line in &asked {
        assert!(line.contains("AWS4-HMAC-SHA256 Credential=AKID/"), "{line}");
        assert!(line.contains("/eu-central-1/ec2/aws4_request"), "{line}");
        assert!(
            line.contains("=host;x-amz-date;x-amz-security-token,"),
            "{line}"
        );
        assert!(
            !line.contains("19700101") && !line.contains("mine"),
            "{line}"
        );
        assert!(!line.contains("hush-hush"), "{line}");
    }
    let odd = env(&server.origin, None, aws(), b"no key at all");
    let answer = send(&loaded, odd, question("GET", &server.origin, &[own])).await;
    assert!(
        answer["denied"].as_str().unwrap().contains("ID:SECRET"),
        "{answer}"
    );
    assert!(!answer.to_string().contains("no key at all"), "{answer}");
}

/// A server that lets in who shows the certificate that it knows, and its own certificate.
async fn guarded(client: &rcgen::Certificate) -> (String, String, tokio::task::JoinHandle<()>) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut known = rustls::RootCertStore::empty();
    known.add(client.der().clone()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(known.into(), provider.clone())
            .build()
            .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(|request| answer(request, Arc::default()));
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (format!("https://localhost:{port}"), own.cert.pem(), task)
}

#[tokio::test]
async fn a_certificate_is_shown_by_the_host_to_those_it_is_granted_for() {
    let loaded = loaded().await;
    let mine = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
    let (origin, ca, _server) = guarded(&mine.cert).await;
    let pem = format!("{}{}", mine.cert.pem(), mine.signing_key.serialize_pem());
    let certificate = CredentialScheme::ClientCertificate;
    let env = |pem: &str| {
        env(
            &origin,
            Some(ca.clone()),
            certificate.clone(),
            pem.as_bytes(),
        )
    };
    let with = || question("GET", &origin, &[("credential", json!("own"))]);
    let shown = send(&loaded, env(&pem), with()).await;
    assert_eq!(shown["status"], json!(200), "{shown}");
    // A request without the credential does not get the connection that was made with it.
    let without = send(&loaded, env(&pem), question("GET", &origin, &[])).await;
    assert!(without.get("failed").is_some(), "{without}");
    let other = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
    let pem = format!("{}{}", other.cert.pem(), other.signing_key.serialize_pem());
    let refused = send(&loaded, env(&pem), with()).await;
    assert!(refused.get("failed").is_some(), "{refused}");
    let broken = send(&loaded, env("-----BEGIN nothing"), with()).await;
    assert!(
        broken["failed"].as_str().unwrap().contains("is not PEM"),
        "{broken}"
    );
}

#[tokio::test]
async fn a_certificate_is_not_for_plain_connections() {
    let (loaded, server) = (loaded().await, Server::start().await);
    let env = env(
        &server.origin,
        None,
        CredentialScheme::ClientCertificate,
        b"pem",
    );
    let input = question("GET", &server.origin, &[("credential", json!("own"))]);
    let answer = send(&loaded, env, input).await;
    assert!(
        answer["denied"].as_str().unwrap().contains("only https"),
        "{answer}"
    );
    assert!(server.asked().is_empty());
}
