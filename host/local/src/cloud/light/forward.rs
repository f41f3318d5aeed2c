//! Port-forwards to the pods of a light cluster: a WebSocket on which each message begins with its channel, as the Kubernetes
//! client library speaks it (`v4.channel.k8s.io`, `v5.channel.k8s.io`). One port per connection.

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::api::{Body, full};
use super::cluster::Cluster;
use super::etcd::{self, service};
use super::object::text_at;
use super::request::{Query, Target};
use super::status::Status;
use super::{API_PORT, verbs};

/// What is on its way between the socket and the pod at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// Subprotocols, the preferred one first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Of the second subprotocol: a channel ends.
const CLOSE: u8 = 255;

/// What listens on the port of a pod.
enum Listener {
    Etcd {
        cluster: Arc<Cluster>,
        instance: String,
        tls: Arc<rustls::ServerConfig>,
        stopped: tokio::sync::watch::Receiver<()>,
    },
    Tcp(String),
    Nothing(String),
}

/// Switches the connection to a port-forward.
pub(crate) fn open(
    cluster: &Arc<Cluster>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let header = |name: header::HeaderName| {
        let value = request.headers().get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    let key = header(header::SEC_WEBSOCKET_KEY).to_owned();
    let offered = header(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = PROTOCOLS
        .into_iter()
        .find(|name| offered.split(',').any(|offer| offer.trim() == *name));
    let (Some(protocol), false) = (protocol, key.is_empty()) else {
        return Err(Status::bad_request(format!(
            "a port-forward to a light machine is a WebSocket with one of the subprotocols {}",
            PROTOCOLS.join(", ")
        )));
    };
    let port: u16 = query
        .get("ports")
        .parse()
        .map_err(|_| Status::bad_request("ports must be one port"))?;
    let pod = verbs::get(
        &cluster.store,
        &Target {
            subresource: String::new(),
            ..target.clone()
        },
    )?;
    let listener = listener(
        cluster,
        text_at(&pod.value, "/spec/nodeName"),
        &target.name,
        port,
    )?;
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            forward(socket, port, listener).await;
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(protocol),
    );
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

/// What listens there. The way leads through the Node's kubelet, which must be alive.
fn listener(cluster: &Arc<Cluster>, node: &str, pod: &str, port: u16) -> Result<Listener, Status> {
    let kubelet = cluster
        .kubelet(node)
        .filter(|kubelet| kubelet.silent_at.is_none_or(|at| Instant::now() < at));
    let Some(kubelet) = kubelet else {
        return Err(Status::new(
            500,
            "InternalError",
            format!("error dialing backend: the kubelet of node {node} does not answer"),
        ));
    };
    let refused = || Listener::Nothing(format!("dial tcp4 127.0.0.1:{port}: connection refused"));
    if pod == format!("etcd-{node}") && port == etcd::port::NUMBER {
        let running = cluster.etcd_of(&kubelet.instance);
        return Ok(
            running.map_or_else(refused, |(tls, stopped)| Listener::Etcd {
                cluster: Arc::clone(cluster),
                instance: kubelet.instance,
                tls,
                stopped,
            }),
        );
    }
    if pod == format!("kube-apiserver-{node}") && port == API_PORT {
        return Ok(Listener::Tcp(format!("{}:{API_PORT}", kubelet.address)));
    }
    Ok(refused())
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn forward(socket: Socket, port: u16, listener: Listener) {
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    match listener {
        Listener::Etcd {
            cluster,
            instance,
            tls,
            mut stopped,
        } => {
            let served = async {
                tokio::select! {
                    () = service::serve(far, tls, cluster, instance) => {}
                    // It never changes: the etcd has ended.
                    _ = stopped.changed() => {}
                }
            };
            tokio::join!(served, pump(socket, port, near, None));
        }
        Listener::Tcp(address) => {
            let (refused, copied) = match TcpStream::connect(&address).await {
                Ok(stream) => (None, Some(copy(stream, far))),
                Err(error) => (Some(error.to_string()), None),
            };
            let copied = async {
                if let Some(copied) = copied {
                    copied.await;
                }
            };
            tokio::join!(copied, pump(socket, port, near, refused));
        }
        Listener::Nothing(why) => {
            drop(far);
            pump(socket, port, near, Some(why)).await;
        }
    }
}

async fn copy(mut stream: TcpStream, mut far: DuplexStream) {
    // Either side may end it in any way; there is nobody to tell.
    drop(tokio::io::copy_bidirectional(&mut stream, &mut far).await);
}

/// Carries bytes between the socket's first channel and the pod, until either ends.
async fn pump(socket: Socket, port: u16, near: DuplexStream, refused: Option<String>) {
    let (mut sink, mut messages) = socket.split();
    let (mut from_pod, mut to_pod) = tokio::io::split(near);
    let [low, high] = port.to_le_bytes();
    let down = async {
        for channel in [0_u8, 1] {
            sink.send(Message::binary(vec![channel, low, high])).await?;
        }
        if let Some(why) = refused {
            let mut message = vec![1];
            message.extend_from_slice(why.as_bytes());
            sink.send(Message::binary(message)).await?;
        }
        let mut buffer = vec![0_u8; BUFFER_BYTES];
        loop {
            let read = from_pod.read(&mut buffer).await.unwrap_or_default();
            let Some(data) = buffer.get(..read).filter(|data| !data.is_empty()) else {
                break;
            };
            let mut message = vec![0];
            message.extend_from_slice(data);
            sink.send(Message::binary(message)).await?;
        }
        sink.close().await
    };
    let up = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) => {
                    let Some((channel, data)) = bytes.split_first() else {
                        continue;
                    };
                    let is_broken = *channel == 0 && to_pod.write_all(data).await.is_err();
                    if is_broken || *channel == CLOSE {
                        break;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        // The pod sees the end, and then the other direction ends.
        drop(to_pod.shutdown().await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = down => {}
        () = up => {}
    }
}
