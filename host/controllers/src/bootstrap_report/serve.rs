//! The endpoint itself: TLS, one request per connection, everything bounded, nothing told to who has no token.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capstan_api::annotation;
use capstan_core::bootstrap::failure::{BootstrapFailure, LOG_BYTES_MAX};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{MANAGER, Reports, Subject, token};
use crate::ctx::{Ctx, Writer};
use crate::kube_api::{ApiError, GroupKind, Patch};
use crate::object::Object;

/// Machines that are heard at once: whole racks fail together, and each takes a moment.
const CONNECTIONS_MAX: usize = 64;
/// How long a machine may take for all of it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before listening on when the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a body: the log, and room for who sends a little more.
const BODY_BYTES_MAX: usize = 2 * LOG_BYTES_MAX;
/// Bytes of a request's head: a token and a path.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How often a lost race is tried again.
const TRIES: usize = 4;

/// Role of the kinds that machines report for.
const ROLE: &str = "bootstrap-config";

/// TLS with this certificate.
pub(super) fn tls(pair: &crate::pki::Pair) -> Result<TlsAcceptor, String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pair.public.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(pair.private.as_bytes())
        .map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts machines until the tasks are stopped.
pub(super) fn start(ctx: Arc<Ctx>, reports: Arc<Reports>, listener: TcpListener, tls: TlsAcceptor) {
    let tasks = ctx.tasks.clone();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tasks.clone().spawn("bootstrap-report", async move {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection of a machine can be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (ctx, reports, tls) = (Arc::clone(&ctx), Arc::clone(&reports), tls.clone());
            tasks.spawn("bootstrap-report", async move {
                let heard = tokio::time::timeout(TIMEOUT, hear(ctx, reports, stream, tls)).await;
                if let Ok(Err(why)) = heard {
                    tracing::debug!(why, "a connection to the bootstrap report ended");
                }
                drop(slot);
            });
        }
    });
}

async fn hear(
    ctx: Arc<Ctx>,
    reports: Arc<Reports>,
    stream: TcpStream,
    tls: TlsAcceptor,
) -> Result<(), String> {
    let stream = tls
        .accept(stream)
        .await
        .map_err(|error| error.to_string())?;
    let service = service_fn(move |request| {
        let (ctx, reports) = (Arc::clone(&ctx), Arc::clone(&reports));
        async move {
            // The host that works is another one, and machines may reach either.
            let (code, text) = if ctx.fence.is_open() {
                answer(&ctx, &reports, request).await
            } else {
                LATER
            };
            let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
            *response.status_mut() = code;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| error.to_string())
}

type Answer = (StatusCode, &'static str);

const NOT_FOUND: Answer = (StatusCode::NOT_FOUND, "there is nothing here");
const NOT_ALLOWED: Answer = (
    StatusCode::UNAUTHORIZED,
    "the token is not good for this machine",
);
const REPORTED: Answer = (StatusCode::GONE, "this machine has reported already");
const LATER: Answer = (StatusCode::SERVICE_UNAVAILABLE, "try again");

async fn answer(ctx: &Ctx, reports: &Reports, request: Request<Incoming>) -> Answer {
    let Some(subject) = Subject::read(request.uri().path()) else {
        return NOT_FOUND;
    };
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, "only POST is answered");
    }
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let config = given.and_then(|given| {
        let config = find(ctx, &subject)?;
        token::is_good(&reports.key, &subject.text(&config.uid), given, ctx.now()).then_some(config)
    });
    // Who has no token does not learn either what there is.
    let Some(config) = config else {
        return NOT_ALLOWED;
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let of_query = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value)
    };
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
    else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            "send only the end of the log",
        );
    };
    match BootstrapFailure::read(
        of_query("phase"),
        of_query("exitCode"),
        &body.to_bytes(),
        ctx.now(),
    ) {
        Ok(failure) => keep(ctx, config, &failure).await,
        Err(why) => (StatusCode::BAD_REQUEST, why),
    }
}

fn find(ctx: &Ctx, subject: &Subject) -> Option<Arc<Object>> {
    let kind = GroupKind {
        group: subject.group.clone(),
        kind: subject.kind.clone(),
    };
    if ctx.plugins.role_of(&kind).as_deref() != Some(ROLE) {
        return None;
    }
    ctx.stores.object(&kind, &subject.key)
}

/// Writes the report onto the config, unless there is one.
async fn keep(ctx: &Ctx, mut config: Arc<Object>, failure: &BootstrapFailure) -> Answer {
    let Some(store) = ctx.stores.get(&config.group_kind()) else {
        return LATER;
    };
    let writer = Writer {
        controller: "bootstrap-report",
        manager: MANAGER,
    };
    for _ in 0..TRIES {
        if config.annotation(annotation::BOOTSTRAP_REPORT).is_some() {
            return REPORTED;
        }
        let patch = Patch::Merge(json!({"metadata": {
            "uid": config.uid,
            "resourceVersion": config.resource_version.to_string(),
            "annotations": {annotation::BOOTSTRAP_REPORT: failure.record()},
        }}));
        match ctx
            .patch(&writer, store.resource(), &config.key, &patch)
            .await
        {
            Ok(_) => {
                tracing::info!(
                    object = %format!("{} {}", config.kind(), config.key), phase = failure.phase,
                    exit_code = failure.exit_code, "a machine reports that it is no node"
                );
                return (StatusCode::OK, "thank you");
            }
            Err(ApiError::Conflict(_)) => match ctx
                .api
                .get(store.resource(), &config.key)
                .await
                .ok()
                .and_then(Object::new)
            {
                Some(newer) if newer.uid == config.uid => config = Arc::new(newer),
                _ => return NOT_ALLOWED,
            },
            Err(error) => {
                tracing::warn!(%error, "a machine's report cannot be written");
                return LATER;
            }
        }
    }
    LATER
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::OnceLock;

    use capstan_core::material::KeyAlgorithm;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;

    use super::super::PublicUrl;
    use super::*;
    use crate::ctx::{Clock as _, SystemClock};
    use crate::etcd::identity::client_config;
    use crate::fence::Fence;
    use crate::pki;
    use crate::workloads::tests::host_behind;

    /// The first line of the answer to a request for nothing in particular.
    async fn status(address: SocketAddr, authority: &str) -> String {
        let tls = TlsConnector::from(client_config(authority, None, &[]).unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = tls.connect(name, stream).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: reports\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // The server may end without saying so in TLS.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_host_that_stands_by_has_machines_ask_again() {
        let now = SystemClock.now();
        let authority =
            pki::certificate_authority("reports", KeyAlgorithm::EcdsaP256, 30, now).unwrap();
        let public = authority.public.clone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let reports = Arc::new(Reports {
            url: PublicUrl::of_address(address),
            authority,
            key: Vec::new(),
            served_until: OnceLock::new(),
        });
        let fence = Fence::shut();
        let ctx = Arc::new(host_behind(fence.clone()));
        reports.serve(&ctx, listener).unwrap();
        assert_eq!(
            status(address, &public).await,
            "HTTP/1.1 503 Service Unavailable"
        );
        fence.open_until(Instant::now() + Duration::from_secs(3600));
        assert_eq!(status(address, &public).await, "HTTP/1.1 404 Not Found");
    }
}
