//! One connection to one etcd member: TLS and HTTP/2 over any stream of bytes, and gRPC calls on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::EtcdError;
use crate::kube_api::Duplex;
use crate::tasks::Tasks;

/// How long making the connection may take (contract: upstream `DialTimeout`).
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one call may take (contract: upstream `CallTimeout`).
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection for calls within a reconcile that outlives its use by so much is cut: a reconcile ends before.
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(180);

/// The largest message: a list of members is a few kilobytes, a part of a snapshot 32 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The name in the URI; servers of etcd are known by their authority, not by their name.
const AUTHORITY: &str = "etcd";

/// The answers of one call as they come; after the last one, its end.
pub type Answers = BoxStream<'static, Result<Bytes, EtcdError>>;

/// A connection to one member: calls of gRPC with the bytes of their messages. Simulations bring their own.
pub trait Connection: Send + Sync {
    /// Begins a call, by its service and method.
    fn call<'a>(
        &'a self,
        method: &'static str,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Answers, EtcdError>>;
}

/// What takes longer has no answer.
pub(super) async fn within<T>(
    call: &'static str,
    after: Duration,
    work: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, EtcdError> {
    let done = tokio::time::timeout(after, work).await;
    done.map_err(|_| EtcdError::Deadline { call, after })?
}

/// One call that is answered by one message.
pub(super) async fn ask<Q: Message, A: Message + Default>(
    connection: &dyn Connection,
    method: &'static str,
    request: &Q,
) -> Result<A, EtcdError> {
    let answer = within(method, CALL_TIMEOUT, one(connection, method, request)).await?;
    A::decode(answer).map_err(|_| EtcdError::Broken {
        call: method,
        why: "the answer cannot be read".to_owned(),
    })
}

async fn one(
    connection: &dyn Connection,
    method: &'static str,
    request: &impl Message,
) -> Result<Bytes, EtcdError> {
    let broken = |why: &str| EtcdError::Broken {
        call: method,
        why: why.to_owned(),
    };
    let request = request.encode_to_vec().into();
    let mut answers = connection.call(method, request, CALL_TIMEOUT).await?;
    let first = answers.next().await;
    let answer = first.ok_or_else(|| broken("the answer ended early"))??;
    match answers.next().await {
        None => Ok(answer),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => Err(broken("more than one answer")),
    }
}

/// A connection over TLS and HTTP/2.
pub(super) struct Channel {
    sender: SendRequest<Full<Bytes>>,
}

impl Channel {
    /// Speaks TLS and HTTP/2 over this stream, which is cut after this time.
    pub(super) async fn open(
        stream: Box<dyn Duplex>,
        tls: Arc<ClientConfig>,
        tasks: &Tasks,
        lifetime: Duration,
    ) -> Result<Self, EtcdError> {
        let connect = |why: String| EtcdError::Connect(why);
        let name = ServerName::try_from(AUTHORITY).map_err(|error| connect(error.to_string()))?;
        let stream = TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|error| connect(format!("TLS: {error}")))?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| connect(format!("HTTP/2: {error}")))?;
        tasks.spawn("etcd connection", async move {
            // What ends it shows in the calls.
            let _ = tokio::time::timeout(lifetime, connection).await;
        });
        Ok(Self { sender })
    }

    async fn begin(
        &self,
        method: &'static str,
        request: &[u8],
        within: Duration,
    ) -> Result<Body, EtcdError> {
        let broken = |why: String| EtcdError::Broken { call: method, why };
        let request = Request::post(format!("https://{AUTHORITY}/etcdserverpb.{method}"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .header("grpc-timeout", format!("{}S", within.as_secs()))
            .body(Full::new(framed(request)))
            .map_err(|error| broken(error.to_string()))?;
        let mut sender = self.sender.clone();
        sender
            .ready()
            .await
            .map_err(|error| broken(error.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(error.to_string()))?;
        if answer.status() != http::StatusCode::OK {
            return Err(broken(format!("HTTP {}", answer.status())));
        }
        // A refusal may come without a body and without trailers.
        if let Some(outcome) = outcome(method, answer.headers()) {
            outcome?;
        }
        Ok(Body {
            method,
            body: answer.into_body(),
            held: BytesMut::new(),
        })
    }
}

impl Connection for Channel {
    fn call<'a>(
        &'a self,
        method: &'static str,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Answers, EtcdError>> {
        async move {
            let body = self.begin(method, &request, within).await?;
            let answers = stream::try_unfold(body, |mut body| async move {
                Ok(body.next().await?.map(|answer| (answer, body)))
            });
            Ok(answers.boxed())
        }
        .boxed()
    }
}

/// The messages of one answer.
struct Body {
    method: &'static str,
    body: Incoming,
    held: BytesMut,
}

impl Body {
    /// The next message; `None` when the call has ended well.
    async fn next(&mut self) -> Result<Option<Bytes>, EtcdError> {
        let call = self.method;
        let broken = |why: String| EtcdError::Broken { call, why };
        loop {
            match take(&mut self.held) {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(why) => return Err(broken(why)),
            }
            let Some(frame) = self.body.frame().await else {
                return Err(broken("the answer ended early".to_owned()));
            };
            let frame = frame.map_err(|error| broken(error.to_string()))?;
            match frame.into_data() {
                Ok(data) => self.held.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    outcome(call, &trailers).unwrap_or_else(|| {
                        Err(broken("the answer ended without a status".to_owned()))
                    })?;
                    return if self.held.is_empty() {
                        Ok(None)
                    } else {
                        Err(broken("the answer ended within a message".to_owned()))
                    };
                }
            }
        }
    }
}

/// A message with its five bytes before: not compressed, its length.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = message.len();
    let mut bytes = BytesMut::with_capacity(length.saturating_add(5));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The first whole message among these bytes.
fn take(held: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some((head, rest)) = held.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let [compressed, a, b, c, d] = *head;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if compressed != 0 {
        return Err("a compressed message, which was not asked for".to_owned());
    }
    if length > ANSWER_BYTES_MAX {
        return Err(format!("a message over {ANSWER_BYTES_MAX} bytes"));
    }
    if rest.len() < length {
        return Ok(None);
    }
    held.advance(5);
    Ok(Some(held.split_to(length).freeze()))
}

/// How a call ended, where these headers say so.
fn outcome(method: &'static str, headers: &HeaderMap) -> Option<Result<(), EtcdError>> {
    let code: u32 = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    if code == 0 {
        return Some(Ok(()));
    }
    let message = headers
        .get("grpc-message")
        .map(|value| percent_decoded(value.as_bytes()))
        .unwrap_or_default();
    Some(Err(EtcdError::Refused {
        call: method,
        code,
        message,
    }))
}

fn percent_decoded(bytes: &[u8]) -> String {
    let hex = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            text.push(high.wrapping_shl(4) | low);
            rest = after;
        } else {
            text.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::message::{Member, MemberListResponse};
    use super::*;

    #[test]
    fn a_message_survives_its_frame() {
        let message = MemberListResponse {
            members: vec![Member {
                id: u64::MAX,
                name: "a".to_owned(),
                is_learner: true,
            }],
        };
        let bytes = framed(&message.encode_to_vec());
        let mut held = BytesMut::from(&bytes[..bytes.len() - 1]);
        assert_eq!(take(&mut held), Ok(None), "not whole yet");
        held.extend_from_slice(&bytes[bytes.len() - 1..]);
        held.extend_from_slice(&[0, 0]);
        let read = take(&mut held).unwrap().unwrap();
        assert_eq!(MemberListResponse::decode(read).unwrap(), message);
        assert_eq!(
            take(&mut held),
            Ok(None),
            "the head of the next is not whole"
        );
        assert!(take(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
        assert!(take(&mut BytesMut::from(&[0, 255, 0, 0, 0][..])).is_err());
    }

    #[test]
    fn a_refusal_is_read_from_headers_and_its_text_decoded() {
        let mut headers = HeaderMap::new();
        assert!(outcome("Cluster/MemberList", &headers).is_none());
        headers.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(outcome("Cluster/MemberList", &headers), Some(Ok(())));
        headers.insert("grpc-status", "9".parse().unwrap());
        headers.insert("grpc-message", "not%20leader %".parse().unwrap());
        let Some(Err(EtcdError::Refused { code, message, .. })) =
            outcome("Maintenance/MoveLeader", &headers)
        else {
            panic!()
        };
        assert_eq!((code, message.as_str()), (9, "not leader %"));
    }
}
