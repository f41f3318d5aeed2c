//! Snapshots of members that are slow, fall silent, or break off, in virtual time.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use capstan_core::material::KeyAlgorithm;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::channel::framed;
use super::identity::client_config;
use super::*;
use crate::pki;

/// What a member does in the middle of a snapshot.
#[derive(Clone, Copy)]
enum Nature {
    /// So much time is between its parts.
    Takes(Duration),
    /// The same, and it never ends.
    Trickles(Duration),
    FallsSilent,
    BreaksOff,
}

const PARTS: usize = 10;
const PART: &[u8] = b"a part";

type Frames = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

/// The answer of a member, which is whole only when it takes its time.
fn frames(nature: Nature) -> Frames {
    let part = || {
        let part = SnapshotResponse {
            blob: PART.to_vec(),
        };
        Ok(Frame::data(framed(&part.encode_to_vec())))
    };
    match nature {
        Nature::Takes(pause) => {
            let parts = stream::iter(0..PARTS).then(move |_| async move {
                tokio::time::sleep(pause).await;
                part()
            });
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let end = stream::iter([Ok(Frame::trailers(trailers))]);
            parts.chain(end).boxed()
        }
        Nature::Trickles(pause) => stream::repeat(())
            .then(move |()| async move {
                tokio::time::sleep(pause).await;
                part()
            })
            .boxed(),
        Nature::FallsSilent => stream::iter([part()]).chain(stream::pending()).boxed(),
        Nature::BreaksOff => stream::iter([part()]).boxed(),
    }
}

/// Members by their names.
struct Members {
    tls: TlsAcceptor,
    natures: Vec<(&'static str, Nature)>,
}

impl Dial for Members {
    fn dial<'a>(&'a self, member: &'a Address) -> BoxFuture<'a, Result<Box<dyn Duplex>, String>> {
        let natures = self.natures.iter();
        let nature = natures.clone().find(|(name, _)| *name == member.name);
        let (tls, nature) = (self.tls.clone(), nature.unwrap().1);
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let far = tls.accept(far).await.unwrap();
            let service = service_fn(move |_| async move {
                Ok::<_, Infallible>(Response::new(StreamBody::new(frames(nature))))
            });
            let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(far), service);
            // The client goes away when it has enough.
            let _ = serve.await;
        });
        async move { Ok(Box::new(near) as Box<dyn Duplex>) }.boxed()
    }
}

fn client(natures: &[(&'static str, Nature)]) -> Client {
    let now = Timestamp::now();
    let ca = pki::certificate_authority("etcd", KeyAlgorithm::EcdsaP256, 0, now).unwrap();
    let own = pki::server_certificate(&ca, "etcd", now).unwrap();
    let chain = CertificateDer::pem_slice_iter(own.public.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.private.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let members = Members {
        tls: TlsAcceptor::from(Arc::new(server)),
        natures: natures.to_vec(),
    };
    let tls = client_config(&ca.public, None, &[b"h2"]).unwrap();
    Client::new(Arc::new(members), tls, Tasks::default())
}

/// What comes of asking these members in their order, how long it takes, and what is in the directory then.
async fn taken(
    natures: &[(&'static str, Nature)],
) -> (Result<Snapshot, EtcdError>, Duration, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(dir.path().to_owned(), 1);
    let from = natures.iter().map(|(name, _)| Address {
        name: (*name).to_owned(),
        pod: ObjectKey::new("kube-system", *name),
        port: 2379,
    });
    let from: Vec<Address> = from.collect();
    let client = client(natures);
    let cluster = ObjectKey::new("n", "c");
    let at = "2026-01-01T00:00:01Z".parse().unwrap();
    let begun = Instant::now();
    let taken = client
        .snapshot(&from, &store, &cluster, at, &Progress::default())
        .await;
    let took = begun.elapsed();
    let left = std::fs::read_dir(dir.path().join("n.c")).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    (taken, took, left.collect())
}

const WHOLE: &str = "20260101T000001Z.db";

#[tokio::test(start_paused = true)]
async fn a_snapshot_may_take_as_long_as_something_comes() {
    // Longer than a reconcile, and longer than other connections live.
    let (taken, took, left) = taken(&[("slow", Nature::Takes(Duration::from_secs(25)))]).await;
    let bytes = u64::try_from(PART.len() * PARTS).unwrap();
    assert_eq!(taken.unwrap().bytes, bytes);
    assert!(took >= Duration::from_secs(250), "{took:?}");
    assert_eq!(left, [WHOLE]);
}

#[tokio::test(start_paused = true)]
async fn another_member_is_asked_after_one_that_falls_silent_or_breaks_off() {
    let quick = Nature::Takes(Duration::ZERO);
    for bad in [Nature::FallsSilent, Nature::BreaksOff] {
        let (taken, took, left) = taken(&[("bad", bad), ("good", quick)]).await;
        let bytes = u64::try_from(PART.len() * PARTS).unwrap();
        assert_eq!(taken.unwrap().bytes, bytes, "none of the other's");
        assert!(took < Duration::from_secs(40), "{took:?}");
        assert_eq!(left, [WHOLE]);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_when_no_member_gives_one() {
    let natures = [("a", Nature::FallsSilent), ("b", Nature::BreaksOff)];
    let (taken, _, left) = taken(&natures).await;
    let why = taken.unwrap_err().to_string();
    assert!(why.contains("the answer ended"), "{why}");
    assert!(left.is_empty(), "{left:?}");
    let (taken, _, _) = self::taken(&[("a", Nature::FallsSilent)]).await;
    let why = taken.unwrap_err().to_string();
    assert_eq!(why, "Maintenance/Snapshot: no answer within 30 s");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_ends_is_given_up_and_another_one_asked() {
    let trickles = Nature::Trickles(Duration::from_secs(29));
    let quick = Nature::Takes(Duration::ZERO);
    let (taken, took, left) = taken(&[("bad", trickles), ("good", quick)]).await;
    assert!(taken.is_ok());
    assert!(took >= SNAPSHOT_TIMEOUT, "{took:?}");
    assert_eq!(left, [WHOLE]);
}
