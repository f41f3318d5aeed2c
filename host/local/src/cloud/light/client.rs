//! A machine's small HTTPS client: one request per connection, trusting nothing, or one CA.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cloud::tls;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// HTTP code.
    pub(crate) code: u16,
    /// Body; null when it is not JSON.
    pub(crate) value: Value,
    /// The cluster that answered, as its API server says.
    pub(crate) cluster: String,
}

/// A client of one API endpoint.
#[derive(Clone)]
pub(crate) struct Client {
    endpoint: String,
    tls: Arc<ClientConfig>,
    bearer: Option<String>,
}

impl Client {
    /// A client that does not check who it talks to: for public data that is checked otherwise.
    pub(crate) fn trusting_anyone(endpoint: &str) -> Result<Self, rustls::Error> {
        Ok(Self {
            endpoint: endpoint.to_owned(),
            tls: tls::config_without_verification()?,
            bearer: None,
        })
    }

    /// A client that trusts these CAs, with a bearer token or a client certificate if given.
    pub(crate) fn trusting(
        endpoint: &str,
        ca: &[CertificateDer<'static>],
        bearer: Option<String>,
        certificate: Option<(Vec<CertificateDer<'static>>, Vec<u8>)>,
    ) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in ca {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match certificate {
            Some((chain, key)) => builder.with_client_auth_cert(
                chain,
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
            )?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            endpoint: endpoint.to_owned(),
            tls: Arc::new(config),
            bearer,
        })
    }

    /// Sends one request. The error is a sentence for the console.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        let body = body.map(|body| body.to_string().into_bytes());
        let body = body.unwrap_or_default();
        self.send_bytes(method, path, content_type, body).await
    }

    /// Sends one request with a body that need not be JSON.
    pub(crate) async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Reply, String> {
        tokio::time::timeout(TIMEOUT, self.send_now(method, path, content_type, body))
            .await
            .map_err(|_| {
                format!(
                    "https://{} did not answer within {} s",
                    self.endpoint,
                    TIMEOUT.as_secs()
                )
            })?
    }

    /// Reads one thing.
    pub(crate) async fn get(&self, path: &str) -> Result<Reply, String> {
        self.send(Method::GET, path, "application/json", None).await
    }

    async fn send_now(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Reply, String> {
        let endpoint = &self.endpoint;
        let failed = |what: &str, error: &dyn std::error::Error| {
            format!("https://{endpoint}: {what}: {error}")
        };
        let host = endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |(host, _)| host);
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host).map_err(|error| failed("bad host", &error))?;
        let stream = TcpStream::connect(endpoint)
            .await
            .map_err(|error| failed("connect", &error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| failed("connect", &error))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(|error| failed("TLS", &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| failed("HTTP", &error))?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, endpoint.as_str())
            .header(header::CONTENT_TYPE, content_type);
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed("HTTP", &error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed("HTTP", &error))?;
        let code = response.status().as_u16();
        let cluster = response
            .headers()
            .get("x-capstan-cluster")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = Limited::new(response.into_body(), 4 * 1024 * 1024)
            .collect()
            .await
            .map_err(|error| format!("https://{endpoint}: the answer could not be read: {error}"))?
            .to_bytes();
        driver.abort();
        Ok(Reply {
            code,
            value: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            cluster,
        })
    }
}
