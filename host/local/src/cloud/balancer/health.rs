//! Judges targets by `GET /readyz` over TLS. The certificate is not verified: this asks whether a server is ready, not who it is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::cloud::tls;

/// Between two checks of a target.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take. An API server on a busy machine takes some 100 ms.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is known about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers, and is ready.
    Ready,
    /// It answers that it is not ready, refuses connections, or did not answer once.
    Missed,
    /// It has not answered twice in a row, though connections to it do not fail: a machine that hangs or is cut off.
    Silent,
}

/// What one check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ready,
    NotReady,
    None,
}

/// Checks the targets, as they are at the time, for ever.
pub(super) async fn watch(
    mut targets: watch::Receiver<Vec<SocketAddr>>,
    healths: watch::Sender<BTreeMap<SocketAddr, Health>>,
) {
    let config = match tls::config_without_verification() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "targets of load balancers cannot be checked");
            return;
        }
    };
    loop {
        let now = targets.borrow_and_update().clone();
        healths.send_if_modified(|known| {
            let before = known.len();
            known.retain(|target, _| now.contains(target));
            known.len() != before
        });
        let mut checks = JoinSet::new();
        for target in now {
            checks.spawn(check_for_ever(target, config.clone(), healths.clone()));
        }
        // Checks end when they are dropped, here or with this task.
        if targets.changed().await.is_err() {
            return;
        }
    }
}

async fn check_for_ever(
    target: SocketAddr,
    config: Arc<ClientConfig>,
    healths: watch::Sender<BTreeMap<SocketAddr, Health>>,
) {
    loop {
        let answer = check(target, &config).await;
        healths.send_if_modified(|known| {
            let before = known.get(&target).copied();
            let health = next(before, answer);
            known.insert(target, health);
            before != Some(health)
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

fn next(before: Option<Health>, answer: Answer) -> Health {
    match (answer, before) {
        (Answer::Ready, _) => Health::Ready,
        (Answer::None, Some(Health::Missed | Health::Silent)) => Health::Silent,
        (Answer::None | Answer::NotReady, _) => Health::Missed,
    }
}

async fn check(target: SocketAddr, config: &Arc<ClientConfig>) -> Answer {
    match tokio::time::timeout(TIMEOUT, ask(target, config)).await {
        Err(_) => Answer::None,
        // A server that wants to know who asks serves.
        Ok(Ok(200 | 401 | 403)) => Answer::Ready,
        Ok(Ok(_) | Err(_)) => Answer::NotReady,
    }
}

/// The status code of `GET /readyz`.
async fn ask(target: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<u16> {
    let stream = TcpStream::connect(target).await?;
    let name = ServerName::from(target.ip());
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, stream).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // "HTTP/1.1 200"
    let mut start = [0_u8; 12];
    stream.read_exact(&mut start).await?;
    let code = std::str::from_utf8(&start)
        .ok()
        .and_then(|start| start.get(9..));
    code.and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_answer_leaves_a_target_out_and_two_make_it_silent() {
        let one = next(Some(Health::Ready), Answer::None);
        assert_eq!(one, Health::Missed);
        assert_eq!(next(Some(one), Answer::None), Health::Silent);
        assert_eq!(next(Some(Health::Silent), Answer::None), Health::Silent);
        assert_eq!(next(Some(Health::Silent), Answer::Ready), Health::Ready);
        assert_eq!(next(Some(Health::Silent), Answer::NotReady), Health::Missed);
        assert_eq!(next(None, Answer::NotReady), Health::Missed);
    }

    #[tokio::test]
    async fn a_target_that_refuses_connections_is_not_ready_and_a_silent_one_gives_no_answer() {
        let config = tls::config_without_verification().unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        assert_eq!(check(address, &config).await, Answer::NotReady);
        // Connections wait in the backlog, and nobody answers.
        let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = hanging.local_addr().unwrap();
        assert_eq!(check(address, &config).await, Answer::None);
    }
}
