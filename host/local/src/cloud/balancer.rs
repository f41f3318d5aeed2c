//! A load balancer's port: forwards TCP to the next target that accepts a connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long a target may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A port that forwards. Dropping it closes the port and every connection through it.
#[derive(Debug)]
pub(crate) struct Balancer {
    targets: watch::Sender<Vec<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Balancer {
    /// Forwards what this listener accepts.
    pub(crate) fn start(listener: TcpListener) -> Self {
        let (targets, receiver) = watch::channel(Vec::new());
        Self {
            targets,
            task: tokio::spawn(run(listener, receiver)),
        }
    }

    /// Replaces the targets, for connections from now on.
    pub(crate) fn set_targets(&self, targets: Vec<SocketAddr>) {
        self.targets.send_replace(targets);
    }
}

async fn run(listener: TcpListener, targets: watch::Receiver<Vec<SocketAddr>>) {
    let mut connections = JoinSet::new();
    let mut turn = 0_usize;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let mut candidates = targets.borrow().clone();
                    if !candidates.is_empty() {
                        let first = turn.checked_rem(candidates.len()).unwrap_or(0);
                        candidates.rotate_left(first);
                        turn = turn.wrapping_add(1);
                        connections.spawn(forward(stream, candidates));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a load balancer could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut client: TcpStream, candidates: Vec<SocketAddr>) {
    for candidate in candidates {
        let Ok(Ok(mut target)) =
            tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(candidate)).await
        else {
            continue;
        };
        if client.set_nodelay(true).is_ok() && target.set_nodelay(true).is_ok() {
            // Either side may end the connection in any way; there is nobody to tell.
            drop(copy_bidirectional(&mut client, &mut target).await);
        }
        return;
    }
}
