//! A load balancer's port: forwards TCP to the next good target.

mod health;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use health::Health;

/// How long a target may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where connections go.
type Targets = watch::Receiver<Vec<SocketAddr>>;

/// What is known about targets that are checked.
type Healths = watch::Receiver<BTreeMap<SocketAddr, Health>>;

/// A port that forwards. Dropping it closes the port and every connection through it.
#[derive(Debug)]
pub(crate) struct Balancer {
    targets: watch::Sender<Vec<SocketAddr>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Balancer {
    /// Forwards what this listener accepts. When readiness is checked, targets that are not ready are left out as long as there are others, and
    /// connections to one that does not answer any more are closed; otherwise a target is good that accepts a connection.
    pub(crate) fn start(listener: TcpListener, checks_readiness: bool) -> Self {
        let (targets, receiver) = watch::channel(Vec::new());
        let (healths, known) = watch::channel(BTreeMap::new());
        let mut tasks = vec![tokio::spawn(run(listener, receiver.clone(), known))];
        if checks_readiness {
            tasks.push(tokio::spawn(health::watch(receiver, healths)));
        }
        Self { targets, tasks }
    }

    /// Replaces the targets. Connections to one that is not among them any more are closed: its machine goes, and may do so without a word.
    pub(crate) fn set_targets(&self, targets: Vec<SocketAddr>) {
        self.targets.send_if_modified(|before| {
            let is_new = *before != targets;
            *before = targets;
            is_new
        });
    }
}

async fn run(listener: TcpListener, targets: Targets, healths: Healths) {
    let mut connections = JoinSet::new();
    let mut turn = 0_usize;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let candidates = candidates(&targets.borrow(), &healths.borrow(), turn);
                    if !candidates.is_empty() {
                        turn = turn.wrapping_add(1);
                        connections.spawn(forward(stream, candidates, targets.clone(), healths.clone()));
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

/// The targets in the order in which a connection tries them: the ready ones in turn; all when none is, since one of them may just have become so.
fn candidates(
    targets: &[SocketAddr],
    healths: &BTreeMap<SocketAddr, Health>,
    turn: usize,
) -> Vec<SocketAddr> {
    let is_ready = |target: &&SocketAddr| healths.get(target) == Some(&Health::Ready);
    let mut candidates: Vec<SocketAddr> = targets.iter().filter(is_ready).copied().collect();
    if candidates.is_empty() {
        candidates = targets.to_vec();
    }
    let first = turn.checked_rem(candidates.len()).unwrap_or(0);
    candidates.rotate_left(first);
    candidates
}

async fn forward(
    mut client: TcpStream,
    candidates: Vec<SocketAddr>,
    targets: Targets,
    healths: Healths,
) {
    for candidate in candidates {
        let Ok(Ok(mut target)) =
            tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(candidate)).await
        else {
            continue;
        };
        if client.set_nodelay(true).is_ok() && target.set_nodelay(true).is_ok() {
            tokio::select! {
                // Either side may end the connection in any way; there is nobody to tell.
                _ = copy_bidirectional(&mut client, &mut target) => {}
                () = silent(healths, candidate) => {}
                () = taken_out(targets, candidate) => {}
            }
        }
        return;
    }
}

/// Resolves when a target does not answer any more.
async fn silent(mut healths: Healths, target: SocketAddr) {
    let is_silent =
        |healths: &BTreeMap<SocketAddr, Health>| healths.get(&target) == Some(&Health::Silent);
    if healths.wait_for(is_silent).await.is_err() {
        // Nobody checks.
        std::future::pending::<()>().await;
    }
}

/// Resolves when a target is none any more.
async fn taken_out(mut targets: Targets, target: SocketAddr) {
    let is_out = |targets: &Vec<SocketAddr>| !targets.contains(&target);
    // An error is the end of the load balancer, which closes everything.
    drop(targets.wait_for(is_out).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        let address = |port: &u16| SocketAddr::from(([127, 0, 0, 1], *port));
        ports.iter().map(address).collect()
    }

    #[test]
    fn targets_take_turns_and_those_that_are_not_ready_are_left_out() {
        let all = addresses(&[1, 2, 3]);
        let nothing_known = BTreeMap::new();
        assert_eq!(candidates(&all, &nothing_known, 1), addresses(&[2, 3, 1]));
        let states = [Health::Ready, Health::Missed, Health::Ready];
        let mut healths: BTreeMap<_, _> = all.iter().copied().zip(states).collect();
        assert_eq!(candidates(&all, &healths, 0), addresses(&[1, 3]));
        assert_eq!(candidates(&all, &healths, 1), addresses(&[3, 1]));
        healths
            .values_mut()
            .for_each(|health| *health = Health::Silent);
        assert_eq!(candidates(&all, &healths, 0), all);
        assert_eq!(candidates(&[], &healths, 7), []);
    }

    /// A connection through a load balancer to a target that accepts and says nothing.
    struct Through {
        client: TcpStream,
        forwarding: JoinHandle<()>,
        address: SocketAddr,
        targets: watch::Sender<Vec<SocketAddr>>,
        healths: watch::Sender<BTreeMap<SocketAddr, Health>>,
        _target: (TcpListener, TcpStream),
    }

    impl Through {
        async fn open() -> Self {
            let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = target.local_addr().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let front = listener.local_addr().unwrap();
            let (targets, all) = watch::channel(vec![address]);
            let (healths, known) = watch::channel(BTreeMap::new());
            let client = TcpStream::connect(front).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let forwarding = tokio::spawn(forward(accepted, vec![address], all, known));
            let (held, _) = target.accept().await.unwrap();
            Self {
                client,
                forwarding,
                address,
                targets,
                healths,
                _target: (target, held),
            }
        }

        async fn is_open(&self) {
            tokio::task::yield_now().await;
            assert!(!self.forwarding.is_finished());
        }

        async fn closes(mut self) {
            use tokio::io::AsyncReadExt as _;

            assert_eq!(self.client.read(&mut [0; 1]).await.unwrap_or(0), 0);
            self.forwarding.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_to_a_target_that_falls_silent_is_closed() {
        let through = Through::open().await;
        let is = |health| {
            through
                .healths
                .send_replace([(through.address, health)].into())
        };
        is(Health::Missed);
        through.is_open().await;
        is(Health::Silent);
        through.closes().await;
    }

    #[tokio::test]
    async fn a_connection_to_a_target_that_is_taken_out_is_closed() {
        let through = Through::open().await;
        let other = addresses(&[1])[0];
        through.targets.send_replace(vec![other, through.address]);
        through.is_open().await;
        through.targets.send_replace(vec![other]);
        through.closes().await;
    }
}
