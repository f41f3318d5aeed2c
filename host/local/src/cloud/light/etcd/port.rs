//! The port of a light etcd on its machine, for clients that do not come through an API server.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::super::cluster::Cluster;
use super::super::ills::Ill;
use super::service;

/// Where clients find an etcd.
pub(crate) const NUMBER: u16 = 2379;

/// After a connection that could not be accepted.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// An open port. Dropping it closes it, and ends what came through it.
pub(crate) struct Port(JoinHandle<()>);

impl Drop for Port {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Port {
    /// Listens for the etcd of a machine.
    pub(crate) async fn open(
        address: &str,
        cluster: &Arc<Cluster>,
        instance: &str,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((address, NUMBER)).await?;
        let (cluster, instance) = (Arc::downgrade(cluster), instance.to_owned());
        Ok(Self(tokio::spawn(accept(listener, cluster, instance))))
    }
}

async fn accept(listener: TcpListener, cluster: Weak<Cluster>, instance: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, cluster.clone(), instance.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a light etcd could not accept a connection");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves a connection until the etcd ends. One that faults keep from it ends at once.
async fn connection(stream: TcpStream, cluster: Weak<Cluster>, instance: String) {
    let Some(cluster) = cluster.upgrade() else {
        return;
    };
    if cluster.has_ill(&instance, Ill::NoLink) {
        return;
    }
    let Some((tls, mut stopped)) = cluster.etcd_of(&instance) else {
        return;
    };
    tokio::select! {
        () = service::serve(stream, tls, cluster, instance) => {}
        // It never changes: the etcd has ended.
        _ = stopped.changed() => {}
    }
}
