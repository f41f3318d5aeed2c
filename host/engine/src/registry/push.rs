//! Puts a component into a registry in the layout that hosts, `wkg` and `oci-wasm` read: one layer, and a config that names what
//! is imported and exported.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::json;
use url::Url;

use super::{
    LAYER, MANIFEST, PullError, Reference, Registry, RegistryAccess, collect, digest_of,
    unavailable, within,
};
use crate::anatomy::Anatomy;
use crate::limit::REGISTRY_DOCUMENT_BYTES_MAX;

/// Type of the config of a component.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// What a push has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:<hex>` of the manifest: what a reference pins.
    pub manifest: String,
    /// Bytes that were not there already.
    pub bytes: u64,
}

/// Pushes an unpacked component under a tag. `title` and `version` are what people see of it.
///
/// # Errors
/// See [`PullError`].
pub async fn push(
    reference: &Reference,
    access: &RegistryAccess,
    component: &Anatomy,
    title: &str,
    version: &str,
    now: Timestamp,
) -> Result<Pushed, PullError> {
    if reference.digest().is_some() {
        return Err(PullError::Invalid(
            "a push needs a tag: what the digest will be is not known before".to_owned(),
        ));
    }
    let config = json!({
        "created": now.to_string(),
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [component.digest],
        "component": {"imports": component.imports, "exports": component.exports, "target": null},
    });
    let config = Bytes::from(config.to_string());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(&config), "size": config.len()},
        "layers": [{"mediaType": LAYER, "digest": component.digest, "size": component.wasm.len()}],
        "annotations": {
            "org.opencontainers.image.title": title,
            "org.opencontainers.image.version": version,
        },
    });
    let manifest = Bytes::from(manifest.to_string());
    let mut registry = Registry::new(reference, access)?;
    within(async {
        let mut bytes = 0_u64;
        for blob in [&component.wasm, &config] {
            bytes = bytes.saturating_add(registry.put_blob(blob).await?);
        }
        let path = format!("manifests/{}", reference.wanted());
        let url = registry.at(&path)?;
        let body = Some((MANIFEST, manifest.clone()));
        registry
            .expect(Method::PUT, &url, body, StatusCode::CREATED)
            .await?;
        Ok(Pushed {
            manifest: digest_of(&manifest),
            bytes,
        })
    })
    .await
}

/// What a request with effects got.
struct Done {
    status: StatusCode,
    headers: HeaderMap,
}

impl Registry {
    fn at(&self, path: &str) -> Result<Url, PullError> {
        self.base
            .join(path)
            .map_err(|e| PullError::Invalid(format!("{path} is no path: {e}")))
    }

    /// Uploads a blob unless it is there; answers how many bytes went over the wire.
    async fn put_blob(&mut self, blob: &Bytes) -> Result<u64, PullError> {
        let digest = digest_of(blob);
        let there = self.at(&format!("blobs/{digest}"))?;
        if self.change(&Method::HEAD, &there, None).await?.status == StatusCode::OK {
            return Ok(0);
        }
        let uploads = self.at("blobs/uploads/")?;
        let begun = self
            .expect(Method::POST, &uploads, None, StatusCode::ACCEPTED)
            .await?;
        let location = begun.headers.get(LOCATION);
        let mut url = self.redirected(&uploads, location)?;
        url.query_pairs_mut().append_pair("digest", &digest);
        let body = Some(("application/octet-stream", blob.clone()));
        self.expect(Method::PUT, &url, body, StatusCode::CREATED)
            .await?;
        Ok(u64::try_from(blob.len()).unwrap_or(u64::MAX))
    }

    async fn expect(
        &mut self,
        method: Method,
        url: &Url,
        body: Option<(&'static str, Bytes)>,
        wanted: StatusCode,
    ) -> Result<Done, PullError> {
        let done = self.change(&method, url, body).await?;
        if done.status == wanted {
            return Ok(done);
        }
        let said = format!(
            "the registry answered {} for {method} {} of {}",
            done.status,
            url.path(),
            self.host()
        );
        Err(match done.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                PullError::Denied(format!("{said}: this login may not push there"))
            }
            StatusCode::NOT_FOUND => PullError::NotFound(said),
            status if status.is_client_error() => PullError::Invalid(said),
            _ => PullError::Unavailable(said),
        })
    }

    /// Sends a request, and once more with the login that the registry asks for: for a push it is another than for a pull.
    async fn change(
        &mut self,
        method: &Method,
        url: &Url,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Done, PullError> {
        let done = self.change_once(method, url, body.clone()).await?;
        let is_own = url.origin() == self.base.origin();
        if done.status != StatusCode::UNAUTHORIZED || !is_own {
            return Ok(done);
        }
        let challenge = done.headers.get(WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok());
        let challenge = challenge.unwrap_or_default().to_owned();
        self.authorization = Some(self.login(&challenge).await?);
        self.change_once(method, url, body).await
    }

    async fn change_once(
        &self,
        method: &Method,
        url: &Url,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Done, PullError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(url.as_str())
            .header(USER_AGENT, concat!("capstan/", env!("CARGO_PKG_VERSION")));
        let is_own = url.origin() == self.base.origin();
        if let Some(authorization) = self.authorization.as_ref().filter(|_| is_own) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let body = match body {
            Some((media, bytes)) => {
                request = request.header(CONTENT_TYPE, media);
                Full::new(bytes)
            }
            None => Full::default(),
        };
        let request = request
            .body(body)
            .map_err(|e| PullError::Invalid(e.to_string()))?;
        let response = self.client.request(request).await.map_err(unavailable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if method != Method::HEAD {
            // What a registry says beside the status is small, or not worth reading.
            let _ = collect(response, REGISTRY_DOCUMENT_BYTES_MAX).await;
        }
        Ok(Done { status, headers })
    }
}
