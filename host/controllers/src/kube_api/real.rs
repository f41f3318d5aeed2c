//! [`KubeApi`] over a real server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capstan_api::name::ObjectKey;
use futures::future::BoxFuture;
use futures::io::{AsyncBufRead, AsyncBufReadExt};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::{Method, Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::core::response::Status;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::answer::{Limits, MANAGEMENT, WORKLOAD, parse};
use super::shown::Shown;
use super::{
    ApiError, Duplex, KubeApi, Page, Patch, Preconditions, Resource, Selection, WatchEvent,
};

/// How long the server may keep a watch open. It ends well before common proxies' idle limits do.
const WATCH_SECONDS: u32 = 290;

/// Upper bound for one ordinary request, beyond the server's own 60 s limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// The same for a workload cluster's server (contract 3.1: 10 s): one that hangs must not hold the workers that other clusters need.
const WORKLOAD_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest line of a watch: an object (1.5 MiB in etcd) as JSON with its envelope.
const WATCH_LINE_BYTES_MAX: usize = 4 << 20;

const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// What a server says of a refusal: a Status with as many causes as an object has fields.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// A server behind a client.
#[derive(Clone)]
pub struct RealApi {
    client: Client,
    limits: Limits,
    request_timeout: Duration,
    shown: Option<Arc<Shown>>,
}

impl RealApi {
    /// Speaks through this client, with a server that is trusted.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            limits: MANAGEMENT,
            request_timeout: REQUEST_TIMEOUT,
            shown: None,
        }
    }

    /// The same with a server that may answer anything, and whose certificate can be seen where that is known.
    #[must_use]
    pub fn of_workload(client: Client, shown: Option<Shown>) -> Self {
        Self {
            client,
            limits: WORKLOAD,
            request_timeout: WORKLOAD_REQUEST_TIMEOUT,
            shown: shown.map(Arc::new),
        }
    }

    async fn text(&self, request: Request<Vec<u8>>) -> Result<String, ApiError> {
        self.text_within(self.request_timeout, request).await
    }

    async fn text_within(
        &self,
        limit: Duration,
        request: Request<Vec<u8>>,
    ) -> Result<String, ApiError> {
        let answer = async {
            let body = accepted(&self.client, request).await?;
            let bytes = whole(body, self.limits.answer_bytes).await?;
            String::from_utf8(bytes.into())
                .map_err(|_| ApiError::Unavailable("the API server's answer is no text".to_owned()))
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| {
                Err(ApiError::Unavailable(format!(
                    "the API server did not answer within {} s",
                    limit.as_secs()
                )))
            })
    }

    async fn object(&self, request: Request<Vec<u8>>) -> Result<Value, ApiError> {
        let text = self.text(request).await?;
        self.read(&text)
    }

    /// An object in an answer.
    fn read(&self, text: &str) -> Result<Value, ApiError> {
        let mut value = parse(text.as_bytes(), self.limits.object_values)?;
        project(&mut value);
        Ok(value)
    }

    async fn json(&self, request: Request<Vec<u8>>) -> Result<Value, ApiError> {
        let text = self.text(request).await?;
        parse(text.as_bytes(), self.limits.page_values)
    }
}

/// Sends a request. The body of the answer, unless it is a refusal.
async fn accepted(client: &Client, request: Request<Vec<u8>>) -> Result<Body, ApiError> {
    let answer = client.send(request.map(Body::from)).await;
    let answer = answer.map_err(translate)?;
    let code = answer.status();
    if !code.is_client_error() && !code.is_server_error() {
        return Ok(answer.into_body());
    }
    let bytes = whole(answer.into_body(), REFUSAL_BYTES_MAX).await?;
    let status = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        // A proxy's words, or those of a path that the server does not know.
        let words = String::from_utf8_lossy(&bytes);
        Status::failure(words.trim(), "").with_code(code.as_u16())
    });
    Err(translate(kube::Error::Api(Box::new(status))))
}

/// A body that is at most so long.
async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, bytes_max).collect().await;
    let collected = collected.map_err(|error| {
        ApiError::Unavailable(if error.is::<LengthLimitError>() {
            format!("the API server's answer has more than {bytes_max} bytes")
        } else {
            chain(&*error)
        })
    })?;
    Ok(collected.to_bytes())
}

/// Drops what nobody reads and everybody would keep in memory.
fn project(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    if object.get("kind").and_then(Value::as_str) == Some("Node")
        && let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
    {
        status.remove("images");
    }
}

fn translate(error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => {
            let message = status.message.clone();
            match (status.code, status.reason.as_str()) {
                (404, _) if names_object(&status) => ApiError::NotFound(message),
                (404, _) => ApiError::NotServed(message),
                (409, "AlreadyExists") => ApiError::AlreadyExists(message),
                (409, _) => ApiError::Conflict(message),
                (410, _) => ApiError::Expired(message),
                (400 | 405 | 413 | 415 | 422, _) => ApiError::Invalid(message),
                (401 | 403, _) => ApiError::Forbidden(message),
                (429, _) => ApiError::TooManyRequests {
                    message: with_causes(message, status.details.as_ref()),
                    retry_after_s: status
                        .details
                        .as_ref()
                        .map(|d| u64::from(d.retry_after_seconds))
                        .filter(|s| *s > 0),
                },
                _ => ApiError::Unavailable(message),
            }
        }
        other => ApiError::Unavailable(chain(&other)),
    }
}

/// Whether a refusal is about an object: then the server knows its kind. Of a path that it does not serve it says nothing more.
fn names_object(status: &Status) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| !details.name.is_empty())
}

/// A message with the causes that the server gives beside it: of a refused eviction, which budget it is and what that lacks.
fn with_causes(message: String, details: Option<&kube::core::response::StatusDetails>) -> String {
    let causes = details.iter().flat_map(|details| &details.causes);
    let causes: Vec<&str> = causes.map(|cause| cause.message.as_str()).collect();
    if causes.is_empty() {
        message
    } else {
        format!("{message} {}", causes.join(","))
    }
}

/// An error with its causes, which carry the useful part ("connection refused").
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

fn request(
    method: Method,
    uri: String,
    accept: &str,
    body: Option<(&str, Vec<u8>)>,
) -> Result<Request<Vec<u8>>, ApiError> {
    let mut builder = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::ACCEPT, accept);
    let body = match body {
        Some((content_type, bytes)) => {
            builder = builder.header(header::CONTENT_TYPE, content_type);
            bytes
        }
        None => Vec::new(),
    };
    builder
        .body(body)
        .map_err(|error| ApiError::Invalid(format!("not a request: {error}")))
}

fn encode(value: &Value) -> Vec<u8> {
    Bytes::from(value.to_string()).to_vec()
}

/// A query string from pairs; values are percent-encoded.
fn query(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                    text.push(char::from(byte));
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

fn selectors(selection: &Selection) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    if let Some(labels) = &selection.labels {
        pairs.push(("labelSelector", labels.clone()));
    }
    if let Some(fields) = &selection.fields {
        pairs.push(("fieldSelector", fields.clone()));
    }
    pairs
}

fn of_key(resource: &Resource, key: &ObjectKey) -> String {
    resource.path(Some(&key.namespace), Some(&key.name))
}

impl KubeApi for RealApi {
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        limit: u32,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        async move {
            let mut pairs = selectors(selection);
            pairs.push(("limit", limit.to_string()));
            if let Some(next) = next {
                pairs.push(("continue", next.to_owned()));
            }
            let path = resource.path(selection.namespace.as_deref(), None) + &query(&pairs);
            let accept = if selection.metadata_only {
                METADATA_LIST
            } else {
                "application/json"
            };
            let mut list = self.json(request(Method::GET, path, accept, None)?).await?;
            let mut items = match list.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            // Items of built-in kinds do not say what they are; who knows only the plural learns it from the list.
            let of_list = list.get("kind").and_then(Value::as_str).unwrap_or_default();
            let kind = if resource.kind.is_empty() {
                of_list.trim_end_matches("List").to_owned()
            } else {
                resource.kind.clone()
            };
            for item in &mut items {
                project(item);
                if let Some(object) = item.as_object_mut() {
                    object.entry("kind").or_insert_with(|| json!(kind));
                    object
                        .entry("apiVersion")
                        .or_insert_with(|| json!(resource.api_version()));
                }
            }
            let metadata = |name: &str| {
                list.pointer(&format!("/metadata/{name}"))
                    .and_then(Value::as_str)
                    .filter(|s| !s.is_empty())
                    .map(str::to_owned)
            };
            Ok(Page {
                items,
                resource_version: metadata("resourceVersion").unwrap_or_default(),
                next: metadata("continue"),
            })
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        resource_version: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, ApiError>>, ApiError>> {
        async move {
            let mut pairs = selectors(selection);
            pairs.push(("watch", "true".to_owned()));
            pairs.push(("allowWatchBookmarks", "true".to_owned()));
            pairs.push(("resourceVersion", resource_version.to_owned()));
            pairs.push(("timeoutSeconds", WATCH_SECONDS.to_string()));
            let path = resource.path(selection.namespace.as_deref(), None) + &query(&pairs);
            let accept = if selection.metadata_only {
                METADATA
            } else {
                "application/json"
            };
            let request = request(Method::GET, path, accept, None)?;
            let body = accepted(&self.client, request).await?;
            let body = body.into_data_stream().map_err(std::io::Error::other);
            Ok(events(body.into_async_read(), self.limits.object_values))
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            self.object(request(
                Method::GET,
                of_key(resource, key),
                "application/json",
                None,
            )?)
            .await
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let path = resource.path(Some(namespace), None)
                + &query(&[("fieldManager", manager.to_owned())]);
            let body = Some(("application/json", encode(object)));
            self.object(request(Method::POST, path, "application/json", body)?)
                .await
        }
        .boxed()
    }

    fn create_subresource<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: &'a str,
        body: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let path = format!("{}/{subresource}", of_key(resource, key));
            let body = Some(("application/json", encode(body)));
            let request = request(Method::POST, path, "application/json", body)?;
            // An eviction may take the server's whole time: it asks webhooks, and tries again itself. Who evicts has a bound of its own.
            let text = self.text_within(REQUEST_TIMEOUT, request).await?;
            self.read(&text)
        }
        .boxed()
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        patch: &'a Patch,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let mut path = of_key(resource, key);
            if let Some(subresource) = subresource {
                path.push('/');
                path.push_str(subresource);
            }
            let mut pairs = vec![("fieldManager", manager.to_owned())];
            let (content_type, body) = match patch {
                Patch::Merge(body) => ("application/merge-patch+json", body),
                Patch::Json(body) => ("application/json-patch+json", body),
                Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
                Patch::Apply(body) => {
                    pairs.push(("force", "true".to_owned()));
                    ("application/apply-patch+yaml", body)
                }
            };
            path.push_str(&query(&pairs));
            let body = Some((content_type, encode(body)));
            self.object(request(Method::PATCH, path, "application/json", body)?)
                .await
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        preconditions: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        async move {
            let mut conditions = serde_json::Map::new();
            if let Some(uid) = &preconditions.uid {
                conditions.insert("uid".to_owned(), json!(uid));
            }
            if let Some(version) = &preconditions.resource_version {
                conditions.insert("resourceVersion".to_owned(), json!(version));
            }
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions",
                "propagationPolicy": "Background", "preconditions": conditions,
            });
            let body = Some(("application/json", encode(&options)));
            let path = of_key(resource, key);
            self.text(request(Method::DELETE, path, "application/json", body)?)
                .await
                .map(drop)
        }
        .boxed()
    }

    fn port_forward<'a>(
        &'a self,
        pod: &'a ObjectKey,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>> {
        async move {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
            let ports = [port];
            let opened = tokio::time::timeout(REQUEST_TIMEOUT, pods.portforward(&pod.name, &ports));
            let mut forwarder = match opened.await {
                Ok(Ok(forwarder)) => forwarder,
                Ok(Err(error)) => return Err(translate(error)),
                Err(_) => {
                    return Err(ApiError::Unavailable(format!(
                        "the API server did not open a port-forward within {} s",
                        REQUEST_TIMEOUT.as_secs()
                    )));
                }
            };
            // What the kubelet says later about a port that cannot be used ends the stream.
            let stream = forwarder.take_stream(port);
            stream
                .map(|stream| Box::new(stream) as Box<dyn Duplex>)
                .ok_or_else(|| ApiError::Unavailable("the port was not forwarded".to_owned()))
        }
        .boxed()
    }

    fn get_raw<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<String, ApiError>> {
        async move {
            self.text(request(Method::GET, path.to_owned(), "*/*", None)?)
                .await
        }
        .boxed()
    }

    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>> {
        async {
            let Some(shown) = &self.shown else {
                return Ok(None);
            };
            let read = shown.read().await;
            read.map(Some).map_err(ApiError::Unavailable)
        }
        .boxed()
    }
}

/// The lines of a watch as events. The stream ends after the first error.
fn events(
    body: impl AsyncBufRead + Send + 'static,
    values_max: usize,
) -> BoxStream<'static, Result<WatchEvent, ApiError>> {
    stream::unfold(
        Some((Box::pin(body), Vec::new())),
        move |state| async move {
            let (mut body, mut line) = state?;
            line.clear();
            loop {
                let chunk = match body.fill_buf().await {
                    Ok([]) => return None,
                    Ok(chunk) => chunk,
                    Err(error) => {
                        return Some((Err(ApiError::Unavailable(chain(&error))), None));
                    }
                };
                let end = chunk.iter().position(|b| *b == b'\n');
                let (taken, complete) = match end {
                    Some(end) => (end.saturating_add(1), true),
                    None => (chunk.len(), false),
                };
                line.extend(chunk.iter().take(taken));
                body.consume_unpin(taken);
                if line.len() > WATCH_LINE_BYTES_MAX {
                    let message = format!("a watch event is over {WATCH_LINE_BYTES_MAX} bytes");
                    return Some((Err(ApiError::Unavailable(message)), None));
                }
                if complete && line.len() > 1 {
                    return match event(&line, values_max) {
                        Ok(event) => Some((Ok(event), Some((body, line)))),
                        Err(error) => Some((Err(error), None)),
                    };
                }
                if complete {
                    line.clear();
                }
            }
        },
    )
    .boxed()
}

fn event(line: &[u8], values_max: usize) -> Result<WatchEvent, ApiError> {
    let mut event = parse(line, values_max)?;
    let mut object = event.get_mut("object").map(Value::take).unwrap_or_default();
    match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => {
            project(&mut object);
            Ok(WatchEvent::Applied(object))
        }
        Some("DELETED") => {
            project(&mut object);
            Ok(WatchEvent::Deleted(object))
        }
        Some("BOOKMARK") => Ok(WatchEvent::Bookmark(
            object
                .pointer("/metadata/resourceVersion")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        )),
        Some("ERROR") => {
            let message = object
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            match object.get("code").and_then(Value::as_u64) {
                Some(410) => Err(ApiError::Expired(message)),
                Some(401 | 403) => Err(ApiError::Forbidden(message)),
                _ => Err(ApiError::Unavailable(message)),
            }
        }
        other => Err(ApiError::Unavailable(format!(
            "unknown watch event {other:?}"
        ))),
    }
}

#[cfg(test)]
mod tests;
