//! The gRPC surface of one light etcd member: cluster and maintenance calls over TLS and HTTP/2, answered from the membership.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::super::cluster::Cluster;
use super::super::identity;
use super::message::{
    AlarmMember, AlarmRequest, AlarmResponse, Header, HeaderResponse, IdRequest, Member,
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, SnapshotResponse,
    StatusResponse,
};
use super::{Membership, NO_LEADER, NO_MAJORITY, NO_MEMBER, Refusal, Running, port};

/// The largest request: the ones that are answered hold a few numbers.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The version that it says it is.
const VERSION: &str = "3.6.4";

/// Raft's term says nothing here; elections are not counted.
const TERM: u64 = 2;

const UNIMPLEMENTED: Refusal = Refusal {
    code: 12,
    message: "unknown service or method of a light etcd",
};
const NO_VOTERS: Refusal = Refusal {
    code: 12,
    message: "members join a light etcd as learners",
};
const UNREADABLE: Refusal = Refusal {
    code: 13,
    message: "the request cannot be read",
};

/// Serves one connection to its end.
pub(crate) async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    tls: Arc<rustls::ServerConfig>,
    cluster: Arc<Cluster>,
    instance: String,
) {
    // A client that is not known learns it from TLS.
    let Ok(stream) = TlsAcceptor::from(tls).accept(io).await else {
        return;
    };
    let chain = stream.get_ref().1.peer_certificates();
    let client = chain
        .and_then(|chain| chain.first())
        .and_then(identity::from_certificate);
    let asker = client.unwrap_or_else(identity::Identity::anonymous).name;
    let service = service_fn(move |request| {
        let (cluster, instance) = (Arc::clone(&cluster), instance.clone());
        let asker = asker.clone();
        async move { Ok::<_, Infallible>(answer(&cluster, &instance, &asker, request).await) }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::trace!(%error, "a connection to a light etcd ended early");
    }
}

type Body = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(
    cluster: &Cluster,
    instance: &str,
    asker: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let method = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX)
        .collect()
        .await;
    if let Some(delay) = cluster.delay_of(instance) {
        tokio::time::sleep(delay).await;
    }
    let is_starved = cluster.starves_learners("");
    let outcome = match body {
        Ok(body) => {
            let bytes = body.to_bytes();
            match bytes.get(5..) {
                Some(message) => cluster.with_etcd(|membership, running| {
                    let question = Question {
                        instance,
                        asker,
                        is_starved,
                    };
                    call(membership, running, &question, &method, message)
                }),
                None => Err(UNREADABLE),
            }
        }
        Err(_) => Err(UNREADABLE),
    };
    let mut frames = Vec::new();
    let mut trailers = HeaderMap::new();
    let (code, message) = match outcome {
        Ok(bytes) => {
            frames.push(Ok(Frame::data(framed(&bytes))));
            (0, "")
        }
        Err(refusal) => (refusal.code, refusal.message),
    };
    trailers.insert("grpc-status", HeaderValue::from(code));
    if !message.is_empty() {
        trailers.insert("grpc-message", HeaderValue::from_static(message));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len().saturating_add(5));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|_| UNREADABLE)
}

/// Of which machine's member something is asked, who asks, and whether learners catch up.
struct Question<'a> {
    instance: &'a str,
    asker: &'a str,
    is_starved: bool,
}

/// One call, asked of one member.
fn call(
    membership: &mut Membership,
    running: &Running,
    question: &Question<'_>,
    method: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, Refusal> {
    membership.asked.look(running);
    let Question {
        instance,
        asker,
        is_starved,
    } = *question;
    // A member that was removed is not there any more.
    let me = membership.id_of(instance).ok_or(NO_MEMBER)?;
    // Who does not reach the others knows of no leader.
    let is_apart = !running.contains(instance);
    let leader = if is_apart {
        0
    } else {
        membership.leader(running)
    };
    let header = Some(Header {
        cluster_id: membership.cluster_id,
        member_id: me,
        revision: 1,
        raft_term: TERM,
    });
    match method {
        "/etcdserverpb.Maintenance/Status" => {
            Ok(status(membership, header, me, leader).encode_to_vec())
        }
        "/etcdserverpb.Cluster/MemberList" => {
            let request: MemberListRequest = read(bytes)?;
            if request.linearizable && leader == 0 {
                return Err(NO_MAJORITY);
            }
            membership.asked.listed(asker);
            Ok(list(membership, header))
        }
        "/etcdserverpb.Cluster/MemberAdd"
        | "/etcdserverpb.Cluster/MemberPromote"
        | "/etcdserverpb.Cluster/MemberRemove"
        | "/etcdserverpb.Maintenance/MoveLeader"
            if is_apart =>
        {
            Err(NO_MAJORITY)
        }
        "/etcdserverpb.Cluster/MemberAdd" => {
            Ok(add(membership, running, header, &read(bytes)?)?.encode_to_vec())
        }
        "/etcdserverpb.Cluster/MemberPromote" => {
            let request: IdRequest = read(bytes)?;
            membership.promote(running, request.id, is_starved)?;
            Ok(list(membership, header))
        }
        "/etcdserverpb.Cluster/MemberRemove" => {
            let request: IdRequest = read(bytes)?;
            membership.remove(running, asker, request.id)?;
            Ok(list(membership, header))
        }
        "/etcdserverpb.Maintenance/MoveLeader" => {
            let request: IdRequest = read(bytes)?;
            membership.move_leader(running, me, request.id)?;
            Ok(HeaderResponse { header }.encode_to_vec())
        }
        "/etcdserverpb.Maintenance/Snapshot" => snapshot(membership, header),
        "/etcdserverpb.Maintenance/Alarm" => {
            if leader == 0 {
                return Err(NO_MAJORITY);
            }
            let request: AlarmRequest = read(bytes)?;
            let alarms = alarm(membership, &request);
            Ok(AlarmResponse { header, alarms }.encode_to_vec())
        }
        _ => Err(UNIMPLEMENTED),
    }
}

/// What a member says of itself.
fn status(membership: &Membership, header: Option<Header>, me: u64, leader: u64) -> StatusResponse {
    let is_learner = membership.members.get(&me).is_some_and(|m| m.is_learner);
    let alarms = membership.alarms.iter().map(|(id, alarm)| {
        let name = if *alarm == 1 { "NOSPACE" } else { "CORRUPT" };
        format!("memberID:{id} alarm:{name} ")
    });
    let leaderless = (leader == 0).then(|| NO_LEADER.to_owned());
    StatusResponse {
        header,
        version: VERSION.to_owned(),
        db_size: 1 << 20,
        leader,
        raft_index: 1,
        raft_term: TERM,
        raft_applied_index: 1,
        errors: leaderless.into_iter().chain(alarms).collect(),
        db_size_in_use: 1 << 20,
        is_learner,
        db_size_quota: 2 << 30,
    }
}

fn add(
    membership: &mut Membership,
    running: &Running,
    header: Option<Header>,
    request: &MemberAddRequest,
) -> Result<MemberAddResponse, Refusal> {
    if !request.is_learner {
        return Err(NO_VOTERS);
    }
    let peer_url = request.peer_urls.first().map_or("", String::as_str);
    let id = membership.add(running, peer_url)?;
    let member = membership.members.get(&id);
    Ok(MemberAddResponse {
        header,
        member: member.map(|member| shown(id, member)),
        members: all(membership),
    })
}

/// What there is of a light etcd: its members, as blocks of 512 bytes with their digest behind, in which form etcd sends its database.
fn snapshot(membership: &Membership, header: Option<Header>) -> Result<Vec<u8>, Refusal> {
    let mut blob = serde_json::to_vec(membership).map_err(|_| UNREADABLE)?;
    blob.resize(blob.len().next_multiple_of(512), b' ');
    let digest = sha2::Sha256::digest(&blob);
    blob.extend_from_slice(&digest);
    Ok(SnapshotResponse {
        header,
        remaining_bytes: 0,
        blob,
    }
    .encode_to_vec())
}

/// A member as the others know it. One that has not started has no name, and serves nobody.
fn shown(id: u64, member: &super::Member) -> Member {
    let client_url = format!("https://{}:{}", member.name, port::NUMBER);
    Member {
        id,
        name: member.name.clone(),
        peer_urls: vec![member.peer_url()],
        client_urls: Vec::from_iter((!member.name.is_empty()).then_some(client_url)),
        is_learner: member.is_learner,
    }
}

fn all(membership: &Membership) -> Vec<Member> {
    let members = membership.members.iter();
    members.map(|(id, member)| shown(*id, member)).collect()
}

fn list(membership: &Membership, header: Option<Header>) -> Vec<u8> {
    MemberListResponse {
        header,
        members: all(membership),
    }
    .encode_to_vec()
}

fn alarm(membership: &mut Membership, request: &AlarmRequest) -> Vec<AlarmMember> {
    let asked = (request.member_id, request.alarm);
    match request.action {
        1 => {
            membership.alarms.insert(asked);
        }
        2 => {
            membership.alarms.remove(&asked);
        }
        _ => {}
    }
    let all = membership.alarms.iter().map(|(id, alarm)| AlarmMember {
        member_id: *id,
        alarm: *alarm,
    });
    all.filter(|found| request.alarm == 0 || found.alarm == request.alarm)
        .collect()
}
