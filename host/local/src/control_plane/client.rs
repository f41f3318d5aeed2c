//! One HTTP request at a time, over TLS with a client certificate or in the clear, to an address of this machine.
//! Enough to ask "are you ready"; anything more wants a real Kubernetes client.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use crate::pki;

/// Why a request got no answer. The text is the whole story: it is only ever shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn error(what: &str, cause: impl std::fmt::Display) -> Error {
    Error(format!("{what}: {cause}"))
}

/// A server and who to be when talking to it.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    bearer: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Talks plain HTTP to a loopback port.
    pub fn plain(port: u16) -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: None,
            bearer: None,
        }
    }

    /// The same client, presenting a token.
    #[must_use]
    pub fn with_bearer(self, token: impl Into<String>) -> Self {
        Self {
            bearer: Some(token.into()),
            ..self
        }
    }

    /// Talks HTTPS to an address, trusting one authority and presenting one certificate.
    pub fn tls(address: SocketAddr, ca_pem: &str, identity: &pki::Pair) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|cause| error("CA certificate", cause))?;
            roots
                .add(certificate)
                .map_err(|cause| error("CA certificate", cause))?;
        }
        let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|cause| error("client certificate", cause))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
            .map_err(|_| Error("client key: not PEM".to_owned()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|cause| error("TLS", cause))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|cause| error("client certificate", cause))?;
        Ok(Self {
            address,
            tls: Some(Arc::new(config)),
            bearer: None,
        })
    }

    /// Sends one request and reads the whole answer. `body` is JSON.
    pub async fn send(
        &self,
        method: http::Method,
        path: &str,
        body: Option<String>,
    ) -> Result<(http::StatusCode, Bytes), Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.address.to_string())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::USER_AGENT, "capstan-local");
        if let Some(token) = &self.bearer {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|cause| error("request", cause))?;
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|cause| error("connect", cause))?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                let stream = tokio_rustls::TlsConnector::from(Arc::clone(config))
                    .connect(name, stream)
                    .await
                    .map_err(|cause| error("TLS", cause))?;
                exchange(stream, request).await
            }
        }
    }

    /// Whether `GET path` is answered with 200 now.
    pub async fn is_ok(&self, path: &str) -> bool {
        let answer = self.send(http::Method::GET, path, None).await;
        answer.is_ok_and(|(status, _)| status == http::StatusCode::OK)
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(http::StatusCode, Bytes), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| error("HTTP", cause))?;
    let ask = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|cause| error("HTTP", cause))?;
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(|cause| error("HTTP", cause))?;
        Ok((status, body.to_bytes()))
    };
    futures::pin_mut!(connection, ask);
    match futures::future::select(ask, connection).await {
        futures::future::Either::Left((answer, _)) => answer,
        // The connection may end just after the whole answer has been received.
        futures::future::Either::Right((_, ask)) => ask.await,
    }
}
