//! Components from OCI registries: resolves a reference to a digest, pulls the one layer that is a component, and finds cosign's
//! signatures beside it.
//!
//! The layout is the one that `wkg` and `oci-wasm` push: a manifest with one layer of type `application/wasm`. What is pulled is
//! checked against its digests on the way in, and nothing is larger than a source may be.

mod push;
mod reference;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use crate::capability::connect::{OwnClient, own_client};
use crate::limit::{
    HTTP_CONNECTIONS_MAX, REGISTRY_DOCUMENT_BYTES_MAX, REGISTRY_REDIRECTS_MAX,
    REGISTRY_SIGNATURES_MAX, REGISTRY_TIMEOUT, SOURCE_BYTES_MAX, TEXT_BYTES_MAX,
};
use crate::source::hex;
use crate::text::one_line;
use crate::trust::Signature;

pub use push::{Pushed, push};
pub use reference::Reference;
use reference::is_digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/wasm";
const COSIGN_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const COSIGN_SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// How a registry is reached.
#[derive(Clone, Default)]
pub struct RegistryAccess {
    /// User and password.
    pub login: Option<(String, String)>,
    /// Certificate authorities in PEM that are trusted instead of the public ones.
    pub ca_pem: Option<String>,
    /// Without TLS, and without any protection of what goes over the wire.
    pub plain_http: bool,
}

impl std::fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAccess")
            .field("login", &self.login.is_some())
            .field("plain_http", &self.plain_http)
            .finish_non_exhaustive()
    }
}

/// What was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The layer, as it is stored.
    pub source: Bytes,
    /// `sha256:<hex>` of the manifest.
    pub manifest: String,
    /// Cosign's signatures of the manifest.
    pub signatures: Vec<Signature>,
}

/// Why nothing was pulled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// There is no such thing in the registry.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants another login, or none that has been given.
    #[error("{0}")]
    Denied(String),
    /// What is there is no component, or not what its digest says.
    #[error("{0}")]
    Invalid(String),
    /// No answer; worth another try.
    #[error("{0}")]
    Unavailable(String),
}

/// Digest of the manifest that a reference means now, without pulling it when the registry answers `HEAD`.
///
/// # Errors
/// See [`PullError`].
pub async fn resolve(reference: &Reference, access: &RegistryAccess) -> Result<String, PullError> {
    if let Some(digest) = reference.digest() {
        return Ok(digest.to_owned());
    }
    let mut registry = Registry::new(reference, access)?;
    let path = format!("manifests/{}", reference.wanted());
    let answer = within(registry.ask(Method::HEAD, &path, MANIFEST, 0)).await?;
    let said = answer.digest.filter(|digest| is_digest(digest));
    match said {
        Some(digest) => Ok(digest),
        None => within(registry.manifest(reference.wanted()))
            .await
            .map(|(_, digest)| digest),
    }
}

/// Pulls the component that a reference means now.
///
/// # Errors
/// See [`PullError`].
pub async fn pull(
    reference: &Reference,
    access: &RegistryAccess,
    with_signatures: bool,
) -> Result<Pulled, PullError> {
    let mut registry = Registry::new(reference, access)?;
    within(async {
        let (manifest, digest) = registry.manifest(reference.wanted()).await?;
        if let Some(wanted) = reference.digest()
            && wanted != digest
        {
            return Err(PullError::Invalid(format!(
                "the registry answered manifest {digest} for {wanted}"
            )));
        }
        let layer = component_layer(&manifest)?;
        let source = registry.blob(&layer.digest, layer.size).await?;
        let signatures = if with_signatures {
            registry.signatures(&digest).await?
        } else {
            Vec::new()
        };
        Ok(Pulled {
            source,
            manifest: digest,
            signatures,
        })
    })
    .await
}

async fn within<T>(work: impl Future<Output = Result<T, PullError>>) -> Result<T, PullError> {
    tokio::time::timeout(REGISTRY_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| {
            Err(PullError::Unavailable(format!(
                "the registry did not answer completely within {} s",
                REGISTRY_TIMEOUT.as_secs()
            )))
        })
}

struct Layer {
    digest: String,
    size: usize,
}

fn layers(manifest: &Value) -> impl Iterator<Item = &Value> {
    let layers = manifest.get("layers").and_then(Value::as_array);
    layers.into_iter().flatten()
}

fn component_layer(manifest: &Value) -> Result<Layer, PullError> {
    let text =
        |layer: &Value, name: &str| layer.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut found = layers(manifest)
        .filter(|layer| layer.get("mediaType").and_then(Value::as_str) == Some(LAYER));
    let (Some(layer), None) = (found.next(), found.next()) else {
        return Err(PullError::Invalid(format!(
            "the manifest does not have exactly one layer of the type {LAYER}: push the component with wkg or oras"
        )));
    };
    let digest = text(layer, "digest").filter(|digest| is_digest(digest));
    let digest = digest.ok_or_else(|| {
        PullError::Invalid("the layer's digest is not sha256: and 64 digits".to_owned())
    })?;
    let size = layer
        .get("size")
        .and_then(Value::as_u64)
        .unwrap_or(u64::MAX);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > SOURCE_BYTES_MAX {
        return Err(PullError::Invalid(format!(
            "the layer is larger than the limit of {SOURCE_BYTES_MAX} bytes"
        )));
    }
    Ok(Layer { digest, size })
}

/// Lower-case digest of bytes.
fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

struct Answer {
    digest: Option<String>,
    body: Bytes,
}

/// One repository, with the login that it asked for.
struct Registry {
    client: OwnClient,
    base: Url,
    access: RegistryAccess,
    authorization: Option<HeaderValue>,
}

impl Registry {
    fn new(reference: &Reference, access: &RegistryAccess) -> Result<Self, PullError> {
        let scheme = if access.plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}/", reference.host, reference.repository);
        let base = Url::parse(&base)
            .map_err(|e| PullError::Invalid(format!("{} is not a host: {e}", reference.host)))?;
        let client = own_client(access.ca_pem.as_deref(), HTTP_CONNECTIONS_MAX);
        Ok(Self {
            client: client.map_err(PullError::Invalid)?,
            base,
            access: access.clone(),
            authorization: None,
        })
    }

    async fn manifest(&mut self, wanted: &str) -> Result<(Value, String), PullError> {
        let path = format!("manifests/{wanted}");
        let answer = self
            .ask(Method::GET, &path, MANIFEST, REGISTRY_DOCUMENT_BYTES_MAX)
            .await?;
        let digest = digest_of(&answer.body);
        let manifest = serde_json::from_slice(&answer.body)
            .map_err(|e| PullError::Invalid(format!("the manifest is not JSON: {e}")))?;
        Ok((manifest, digest))
    }

    async fn blob(&mut self, digest: &str, size: usize) -> Result<Bytes, PullError> {
        let path = format!("blobs/{digest}");
        let answer = self.ask(Method::GET, &path, "*/*", size).await?;
        let found = digest_of(&answer.body);
        if found != digest {
            return Err(PullError::Invalid(format!(
                "the registry answered {found} for blob {digest}"
            )));
        }
        Ok(answer.body)
    }

    /// What cosign keeps under the tag that is made of the manifest's digest.
    async fn signatures(&mut self, manifest: &str) -> Result<Vec<Signature>, PullError> {
        let tag = format!("{}.sig", manifest.replace(':', "-"));
        let signed = match self.manifest(&tag).await {
            Ok((signed, _)) => signed,
            Err(PullError::NotFound(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut signatures = Vec::new();
        for layer in layers(&signed).take(REGISTRY_SIGNATURES_MAX) {
            let text = |pointer: &str| layer.pointer(pointer).and_then(Value::as_str);
            let signature = layer
                .get("annotations")
                .and_then(|annotations| annotations.get(COSIGN_SIGNATURE))
                .and_then(Value::as_str)
                .and_then(|signature| STANDARD.decode(signature).ok());
            let digest = text("/digest").filter(|digest| is_digest(digest));
            let (Some(signature), Some(digest), Some(COSIGN_LAYER)) =
                (signature, digest, text("/mediaType"))
            else {
                continue;
            };
            let payload = self.blob(digest, REGISTRY_DOCUMENT_BYTES_MAX).await?;
            signatures.push(Signature::Manifest {
                payload: payload.to_vec(),
                signature,
                manifest: manifest.to_owned(),
            });
        }
        Ok(signatures)
    }

    /// Asks, and asks again with a login when the registry wants one.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        accept: &'static str,
        bytes_max: usize,
    ) -> Result<Answer, PullError> {
        let url = self
            .base
            .join(path)
            .map_err(|e| PullError::Invalid(format!("{path} is no path: {e}")))?;
        let answer = self.send(&method, &url, accept, bytes_max).await?;
        let challenge = match answer {
            Sent::Answer(answer) => return Ok(answer),
            Sent::Challenge(challenge) => challenge,
        };
        self.authorization = Some(self.login(&challenge).await?);
        match self.send(&method, &url, accept, bytes_max).await? {
            Sent::Answer(answer) => Ok(answer),
            Sent::Challenge(_) => Err(PullError::Denied(format!(
                "the registry {} refuses the login: name another Secret in pullSecret",
                self.host()
            ))),
        }
    }

    fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        accept: &'static str,
        bytes_max: usize,
    ) -> Result<Sent, PullError> {
        let mut url = url.clone();
        for _ in 0..=REGISTRY_REDIRECTS_MAX {
            let is_own = url.origin() == self.base.origin();
            let mut request = Request::builder()
                .method(method.clone())
                .uri(url.as_str())
                .header(ACCEPT, accept)
                .header(USER_AGENT, concat!("capstan/", env!("CARGO_PKG_VERSION")));
            // Where a registry sends people for blobs is somebody else's server.
            if let Some(authorization) = self.authorization.as_ref().filter(|_| is_own) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let request = request
                .body(Full::default())
                .map_err(|e| PullError::Invalid(e.to_string()))?;
            let response = self.client.request(request).await.map_err(unavailable)?;
            let status = response.status();
            if status.is_redirection() {
                url = self.redirected(&url, response.headers().get(LOCATION))?;
                continue;
            }
            let shown = || format!("{} of {}", url.path(), self.host());
            return match status {
                StatusCode::OK => collect(response, bytes_max).await.map(Sent::Answer),
                StatusCode::UNAUTHORIZED if is_own => {
                    let challenge = response.headers().get(WWW_AUTHENTICATE);
                    let challenge = challenge.and_then(|value| value.to_str().ok());
                    Ok(Sent::Challenge(challenge.unwrap_or_default().to_owned()))
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(PullError::Denied(format!(
                        "the registry refuses {}: name a Secret in pullSecret",
                        shown()
                    )))
                }
                StatusCode::NOT_FOUND => {
                    Err(PullError::NotFound(format!("there is no {}", shown())))
                }
                other => Err(PullError::Unavailable(format!(
                    "the registry answered {other} for {}",
                    shown()
                ))),
            };
        }
        Err(PullError::Unavailable(format!(
            "more than {REGISTRY_REDIRECTS_MAX} redirects"
        )))
    }

    fn redirected(&self, from: &Url, location: Option<&HeaderValue>) -> Result<Url, PullError> {
        let location = location.and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| from.join(location).ok());
        let url = url.ok_or_else(|| {
            PullError::Unavailable("the registry redirects to what is no URL".to_owned())
        })?;
        let is_safe = url.scheme() == "https" || (self.access.plain_http && url.scheme() == "http");
        if is_safe {
            return Ok(url);
        }
        Err(PullError::Invalid(format!(
            "the registry redirects to {}, which is not encrypted",
            url.origin().ascii_serialization()
        )))
    }

    /// The header that a registry asks for: the login itself, or a token that the login gets.
    async fn login(&self, challenge: &str) -> Result<HeaderValue, PullError> {
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        let basic = self.access.login.as_ref().map(|(user, password)| {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {pair}")
        });
        let value = if scheme.eq_ignore_ascii_case("basic") {
            basic.ok_or_else(|| {
                PullError::Denied(format!(
                    "the registry {} wants a login: name a Secret in pullSecret",
                    self.host()
                ))
            })?
        } else if scheme.eq_ignore_ascii_case("bearer") {
            format!("Bearer {}", self.token(rest, basic.as_deref()).await?)
        } else {
            return Err(PullError::Denied(format!(
                "the registry {} wants a login of a kind that this host does not know",
                self.host()
            )));
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| PullError::Denied("the login does not fit into a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(&self, challenge: &str, basic: Option<&str>) -> Result<String, PullError> {
        let odd = |why: &str| {
            PullError::Denied(format!(
                "the registry {} asks for a token in a way that cannot be followed: {why}",
                self.host()
            ))
        };
        let of = |name: &str| parameter(challenge, name);
        let realm = of("realm").ok_or_else(|| odd("it names no realm"))?;
        let mut url = Url::parse(&realm).map_err(|_| odd("its realm is no URL"))?;
        let is_safe = url.scheme() == "https"
            || (self.access.plain_http && url.host_str() == self.base.host_str());
        if !is_safe {
            return Err(odd("its realm is not encrypted"));
        }
        for name in ["service", "scope"] {
            if let Some(value) = of(name) {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        let mut request = Request::builder().method(Method::GET).uri(url.as_str());
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let request = request
            .body(Full::default())
            .map_err(|e| PullError::Invalid(e.to_string()))?;
        let response = self.client.request(request).await.map_err(unavailable)?;
        if response.status() != StatusCode::OK {
            return Err(PullError::Denied(format!(
                "the login for the registry {} is refused with {}: name another Secret in pullSecret",
                self.host(),
                response.status()
            )));
        }
        let answer = collect(response, REGISTRY_DOCUMENT_BYTES_MAX).await?;
        let answer: Value =
            serde_json::from_slice(&answer.body).map_err(|_| odd("its token is not JSON"))?;
        let token = answer.get("token").or_else(|| answer.get("access_token"));
        token
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| odd("it answers no token"))
    }
}

enum Sent {
    Answer(Answer),
    /// `WWW-Authenticate`.
    Challenge(String),
}

/// One quoted parameter of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let start = challenge.find(&format!("{name}=\""))?;
    let rest = challenge.get(start..)?.split_once('"')?.1;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

async fn collect(
    response: http::Response<hyper::body::Incoming>,
    bytes_max: usize,
) -> Result<Answer, PullError> {
    let (head, mut incoming) = response.into_parts();
    let digest = head
        .headers
        .get("docker-content-digest")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame =
            frame.map_err(|e| PullError::Unavailable(format!("the registry broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            if body.len().saturating_add(data.len()) > bytes_max {
                return Err(PullError::Invalid(format!(
                    "the registry answered more than the {bytes_max} bytes that were expected"
                )));
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(Answer {
        digest,
        body: Bytes::from(body),
    })
}

fn unavailable(error: hyper_util::client::legacy::Error) -> PullError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    PullError::Unavailable(one_line(&text, TEXT_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge =
            r#"realm="https://auth.example.com/token",service="r",scope="repository:a:pull""#;
        assert_eq!(
            parameter(challenge, "realm").as_deref(),
            Some("https://auth.example.com/token")
        );
        assert_eq!(
            parameter(challenge, "scope").as_deref(),
            Some("repository:a:pull")
        );
        assert_eq!(parameter(challenge, "error"), None);
    }

    #[test]
    fn a_manifest_has_one_component() {
        let layer = |media: &str, size: u64| serde_json::json!({"mediaType": media, "digest": format!("sha256:{}", "b".repeat(64)), "size": size});
        let manifest = |layers: Vec<Value>| serde_json::json!({"layers": layers});
        assert!(component_layer(&manifest(vec![layer(LAYER, 10)])).is_ok());
        for wrong in [
            vec![],
            vec![layer("application/x-tar", 10)],
            vec![layer(LAYER, 10), layer(LAYER, 11)],
            vec![layer(LAYER, 1 << 40)],
        ] {
            assert!(component_layer(&manifest(wrong)).is_err());
        }
    }
}
