//! The certificate that a server shows: read from a connection of its own, which sends nothing.

use std::sync::Arc;
use std::time::Duration;

use kube::Config;
use kube::client::ConfigExt as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long the connection and its handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is, and whom a client of it trusts.
pub struct Shown {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Shown {
    /// By a client's configuration; `None` where it leads through a proxy, or speaks no TLS.
    pub fn of(config: &Config) -> Option<Self> {
        if config.proxy_url.is_some() || config.cluster_url.scheme_str() != Some("https") {
            return None;
        }
        let host = config.cluster_url.host()?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = config.tls_server_name.as_ref().unwrap_or(&host).clone();
        Some(Self {
            port: config.cluster_url.port_u16().unwrap_or(443),
            name: ServerName::try_from(name).ok()?,
            tls: Arc::new(config.rustls_client_config().ok()?),
            host,
        })
    }

    /// What it shows now, DER.
    ///
    /// # Errors
    /// Why there is no connection that is to be trusted.
    pub async fn read(&self) -> Result<Vec<u8>, String> {
        let read = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            certificate(Arc::clone(&self.tls), self.name.clone(), stream).await
        };
        let read = tokio::time::timeout(TIMEOUT, read).await;
        read.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
    }
}

/// The certificate that the server at the other end shows, DER.
///
/// # Errors
/// When it is not to be trusted, or the stream breaks.
pub async fn certificate(
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Vec<u8>, String> {
    let stream = TlsConnector::from(tls).connect(name, stream).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    let first = chain.first().ok_or("the server showed no certificate")?;
    Ok(first.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_reached_through_a_proxy_or_without_tls_shows_nothing() {
        let config = |url: &str| Config::new(url.parse().unwrap());
        let direct = Shown::of(&config("https://[2001:db8::1]:6443")).unwrap();
        assert_eq!((direct.host.as_str(), direct.port), ("2001:db8::1", 6443));
        assert!(Shown::of(&config("http://192.0.2.1")).is_none());
        let mut proxied = config("https://192.0.2.1");
        proxied.proxy_url = Some("http://192.0.2.2:3128".parse().unwrap());
        assert!(Shown::of(&proxied).is_none());
    }
}
