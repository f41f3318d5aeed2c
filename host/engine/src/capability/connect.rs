//! Opens connections for guests: resolves, checks every address, connects to a checked one, verifies TLS.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;

use super::address::{AddressClass, class_of};
use crate::limit::HTTP_CONNECT_TIMEOUT;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The address is not one that the grant allows.
    #[error("{0}")]
    Refused(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
}

/// Opens connections under one grant.
#[derive(Clone)]
pub(crate) struct CheckedConnector {
    private: bool,
    tls: Arc<ClientConfig>,
    /// Open connections of the same plugin, those that are kept for later included.
    connections: Arc<Semaphore>,
}

/// A client of the host's own.
pub(crate) type OwnClient = Client<CheckedConnector, Full<Bytes>>;

/// How long a connection of the host's own to a store or a registry is kept when it is not used.
const OWN_IDLE: Duration = Duration::from_secs(5);

/// A client of the host's own, for a server that the operator names: it may be anywhere, and at most so many connections are open.
pub(crate) fn own_client(ca_pem: Option<&str>, connections: usize) -> Result<OwnClient, String> {
    let connections = Arc::new(Semaphore::new(connections));
    let connector = CheckedConnector::new(true, ca_pem, None, connections)?;
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(OWN_IDLE)
        .build(connector))
}

impl CheckedConnector {
    /// A connector that trusts the authorities of `ca_pem`, or the public ones when there is none, and shows the certificate of
    /// `identity` (PEM, with its private key) to who asks for one.
    pub(crate) fn new(
        private: bool,
        ca_pem: Option<&str>,
        identity: Option<&[u8]>,
        connections: Arc<Semaphore>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca_pem {
            None => roots
                .roots
                .extend_from_slice(webpki_roots::TLS_SERVER_ROOTS),
            Some(pem) => add_authorities(&mut roots, pem)?,
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?
            .with_root_certificates(roots);
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let (chain, key) = certificate_and_key(pem)?;
                builder.with_client_auth_cert(chain, key).map_err(|_| {
                    "the certificate of the credential and its key do not fit".to_owned()
                })?
            }
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            private,
            tls: Arc::new(tls),
            connections,
        })
    }

    async fn open(self, uri: Uri) -> Result<TokioIo<Link>, ConnectError> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let failed = |what: &str, e: &dyn fmt::Display| {
            ConnectError::Failed(format!("{what} {host}:{port}: {e}"))
        };
        let waits = tokio::time::timeout(
            HTTP_CONNECT_TIMEOUT,
            self.connections.clone().acquire_owned(),
        );
        let permit = waits.await.ok().and_then(Result::ok).ok_or_else(|| {
            ConnectError::Failed(format!(
                "cannot connect to {host}:{port}: the plugin has as many connections open as it may"
            ))
        })?;
        let connect = async {
            let addresses = resolve(&host, port)
                .await
                .map_err(|e| failed("cannot resolve", &e))?;
            let allowed = self.allowed(&host, &addresses)?;
            first_of(&allowed)
                .await
                .map_err(|e| failed("cannot connect to", &e))
        };
        let tcp = tokio::time::timeout(HTTP_CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| failed("cannot connect to", &"no answer in time"))??;
        let _ = tcp.set_nodelay(true);
        if !secure {
            return Ok(TokioIo::new(Link {
                io: Box::new(tcp),
                h2: false,
                _permit: permit,
            }));
        }
        let name = ServerName::try_from(host.clone()).map_err(|e| failed("cannot verify", &e))?;
        let handshake = TlsConnector::from(self.tls.clone()).connect(name, tcp);
        let tls = tokio::time::timeout(HTTP_CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| failed("no TLS with", &"no answer in time"))?
            .map_err(|e| failed("no TLS with", &e))?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(TokioIo::new(Link {
            io: Box::new(tls),
            h2,
            _permit: permit,
        }))
    }

    /// The addresses that may be connected to. One that is refused among others that are not is passed over; a name that has only
    /// refused ones is refused.
    fn allowed(
        &self,
        host: &str,
        addresses: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.check(host, address.ip()) {
                Ok(()) => allowed.push(*address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(why) => Err(ConnectError::Refused(why)),
            None => Err(ConnectError::Failed(format!("{host} has no address"))),
        }
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), String> {
        match class_of(address) {
            AddressClass::Public => Ok(()),
            AddressClass::Private if self.private => Ok(()),
            AddressClass::Metadata if self.private && host.parse() == Ok(address) => Ok(()),
            AddressClass::Local if self.private && is_this_machine(host, address) => Ok(()),
            AddressClass::Local if self.private => Err(format!(
                "{host} is at {address}, which is this machine or its link: only this address itself, or localhost, leads there"
            )),
            AddressClass::Private | AddressClass::Local => Err(format!(
                "{host} is at the private address {address}: add \"private: true\" to the http grant to allow that"
            )),
            AddressClass::Metadata => Err(format!(
                "{host} is at {address}, where clouds keep credentials: that needs an http grant with \"private: true\" whose \
                 origin is this address itself"
            )),
            AddressClass::Never => Err(format!("{host} is at {address}, where no server can be")),
        }
    }
}

/// Whether the host says itself that it is this machine: the address, or a name that is never looked up elsewhere.
fn is_this_machine(host: &str, address: IpAddr) -> bool {
    host.parse() == Ok(address) || host == "localhost" || host.ends_with(".localhost")
}

/// What an identity's PEM holds. What is wrong with it is never quoted: it has a private key in it.
fn certificate_and_key(
    pem: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "the credential is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err("the credential has no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "the credential has no private key".to_owned())?;
    Ok((chain, key))
}

fn add_authorities(roots: &mut RootCertStore, pem: &str) -> Result<(), String> {
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate
            .map_err(|e| format!("the certificate authority of the grant is not PEM: {e}"))?;
        roots
            .add(certificate)
            .map_err(|e| format!("the certificate authority of the grant is not usable: {e}"))?;
    }
    if roots.is_empty() {
        return Err("the certificate authority of the grant has no certificate".to_owned());
    }
    Ok(())
}

async fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    let found = super::blocking(move || (host.as_str(), port).to_socket_addrs());
    let found = found.await.map_err(std::io::Error::other)?;
    Ok(found?.collect())
}

async fn first_of(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

impl tower_service::Service<Uri> for CheckedConnector {
    type Response = TokioIo<Link>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open connection, with or without TLS.
pub(crate) struct Link {
    io: Box<dyn Duplex>,
    h2: bool,
    _permit: OwnedSemaphorePermit,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        if self.h2 {
            Connected::new().negotiated_h2()
        } else {
            Connected::new()
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(private: bool) -> CheckedConnector {
        CheckedConnector::new(private, None, None, Arc::new(Semaphore::new(1))).unwrap()
    }

    fn at(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses
            .iter()
            .map(|a| SocketAddr::new(a.parse().unwrap(), 80))
            .collect()
    }

    #[test]
    fn a_name_that_resolves_inwards_is_refused() {
        let refused = connector(false).allowed("rebind.example.com", &at(&["127.0.0.1"]));
        assert!(
            matches!(refused, Err(ConnectError::Refused(why)) if why.contains("private: true"))
        );
    }

    #[test]
    fn only_checked_addresses_of_a_mixed_name_are_used() {
        let allowed = connector(false).allowed("mixed.example.com", &at(&["10.0.0.1", "1.1.1.1"]));
        assert_eq!(allowed.unwrap(), at(&["1.1.1.1"]));
    }

    #[test]
    fn metadata_needs_its_own_origin() {
        let metadata = at(&["169.254.169.254"]);
        assert!(
            connector(true)
                .allowed("metadata.example.com", &metadata)
                .is_err()
        );
        assert!(
            connector(true)
                .allowed("169.254.169.254", &metadata)
                .is_ok()
        );
        assert!(
            connector(false)
                .allowed("169.254.169.254", &metadata)
                .is_err()
        );
    }

    #[test]
    fn no_name_of_others_leads_to_this_machine_or_its_links() {
        for local in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"] {
            let addresses = at(&[local]);
            let refused = connector(true).allowed("rebind.example.com", &addresses);
            assert!(
                matches!(&refused, Err(ConnectError::Refused(why)) if why.contains("this address itself")),
                "{refused:?}"
            );
            assert!(connector(true).allowed(local, &addresses).is_ok());
            assert!(connector(false).allowed(local, &addresses).is_err());
        }
        let own = at(&["127.0.0.1"]);
        assert!(connector(true).allowed("localhost", &own).is_ok());
        assert!(
            connector(true)
                .allowed("inner.example.com", &at(&["10.0.0.1"]))
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_plugin_has_only_so_many_connections_and_closed_ones_make_room() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let connector = connector(true);
        let first = connector.clone().open(uri.clone()).await.unwrap();
        let mut second = Box::pin(connector.clone().open(uri));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(connector.connections.available_permits(), 0);
        drop(first);
        assert!(second.await.is_ok());
    }

    #[test]
    fn a_grant_with_a_broken_authority_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [broken, "not PEM", ""] {
            assert!(
                CheckedConnector::new(false, Some(pem), None, Arc::new(Semaphore::new(1))).is_err(),
                "{pem}"
            );
        }
    }
}
