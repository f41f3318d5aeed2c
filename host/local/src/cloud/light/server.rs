//! A control-plane machine's API server: TLS on the machine's address, for as long as the value lives.

use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::api;
use super::cluster::Cluster;
use super::identity;

/// A running API server. Dropping it closes the port and every connection.
pub(crate) struct ApiServer {
    task: JoinHandle<()>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ApiServer {
    /// Serves the cluster on this listener.
    pub(crate) fn start(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cluster: Arc<Cluster>,
    ) -> Self {
        let acceptor = TlsAcceptor::from(tls);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(connection(acceptor.clone(), stream, Arc::clone(&cluster)));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "an API server could not accept a connection");
                            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        }
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { task }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, cluster: Arc<Cluster>) {
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
        async move { Ok::<_, std::convert::Infallible>(api::serve(cluster, peer, request).await) }
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
