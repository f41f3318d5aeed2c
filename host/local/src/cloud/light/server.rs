//! A control-plane machine's API server: TLS on the machine's address, for as long as the value lives.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::api;
use super::cluster::Cluster;
use super::identity;

/// How soon a port is tried again that is still taken.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// A running API server. Dropping it closes the port and every connection.
pub(crate) struct ApiServer {
    task: JoinHandle<()>,
    listens: watch::Sender<bool>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ApiServer {
    /// Serves the cluster on this listener, as the API server of this machine.
    pub(crate) fn start(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cluster: Arc<Cluster>,
        instance: String,
    ) -> Self {
        let (listens, listening) = watch::channel(true);
        let serving = Serving {
            acceptor: TlsAcceptor::from(tls),
            cluster,
            instance: instance.into(),
        };
        Self {
            task: tokio::spawn(serving.run(listener, listening)),
            listens,
        }
    }

    /// Closes the port and every connection, or opens it again.
    pub(crate) fn listen(&self, listens: bool) {
        self.listens.send_if_modified(|before| {
            let is_changed = *before != listens;
            *before = listens;
            is_changed
        });
    }
}

struct Serving {
    acceptor: TlsAcceptor,
    cluster: Arc<Cluster>,
    instance: Arc<str>,
}

impl Serving {
    async fn run(self, mut listener: TcpListener, mut listening: watch::Receiver<bool>) {
        let Ok(address) = listener.local_addr() else {
            return;
        };
        loop {
            self.accept(listener, &mut listening).await;
            if !until(&mut listening, true).await {
                return;
            }
            listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(error) => {
                        tracing::warn!(%error, %address, "an API server cannot listen");
                        tokio::time::sleep(BETWEEN_TRIES).await;
                    }
                }
            };
        }
    }

    /// Accepts until it is told to close.
    async fn accept(&self, listener: TcpListener, listening: &mut watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (cluster, instance) = (Arc::clone(&self.cluster), Arc::clone(&self.instance));
                        connections.spawn(connection(self.acceptor.clone(), stream, cluster, instance));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an API server could not accept a connection");
                        tokio::time::sleep(BETWEEN_TRIES).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                _ = until(listening, false) => return,
            }
        }
    }
}

/// Waits until it is to listen, or not to; `false` when there is nobody left to say.
async fn until(listening: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    let told = listening.wait_for(|listens| *listens == wanted);
    told.await.is_ok()
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    cluster: Arc<Cluster>,
    instance: Arc<str>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(tls) = acceptor.accept(stream).await else {
        return;
    };
    let peer = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(identity::from_certificate);
    let service = service_fn(move |request| {
        let (cluster, peer) = (Arc::clone(&cluster), peer.clone());
        let instance = Arc::clone(&instance);
        async move {
            Ok::<_, std::convert::Infallible>(api::serve(cluster, &instance, peer, request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250);
    if let Err(error) = builder
        .serve_connection_with_upgrades(TokioIo::new(tls), service)
        .await
    {
        tracing::trace!(%error, "a connection to a workload API server ended early");
    }
}
