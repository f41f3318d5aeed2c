//! Answers the HTTP requests of one workload API server.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::identity::{self, Identity};
use super::ills::Ill;
use super::object::Object;
use super::rbac::{self, Ask};
use super::request::{Query, Route, Target, route, verb};
use super::selectors::Selector;
use super::status::Status;
use super::verbs::{self, Deletion};
use super::{discovery, forward, pods, table, watching};

/// Largest request body, as kube-apiserver has it.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A whole body.
pub(crate) fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed_unsync()
}

/// A JSON answer.
pub(crate) fn json_answer(code: u16, value: &Value) -> Response<Body> {
    answer(code, "application/json", value.to_string())
}

/// An answer of any type.
pub(crate) fn answer(code: u16, content_type: &str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(content));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = header::HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// Answers a request as the API server of this machine; `peer` is the identity of the client certificate, if there was a good one.
pub(crate) async fn serve(
    cluster: Arc<Cluster>,
    instance: &str,
    peer: Option<Identity>,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Some(delay) = cluster.delay_of(instance) {
        tokio::time::sleep(delay).await;
    }
    let handled = match obstacle(&cluster, instance, peer.is_some(), &request) {
        None => handle(&cluster, peer, request).await,
        Some(status) => Err(status),
    };
    let mut response = match handled {
        Ok(response) => response,
        Err(status) => {
            let mut response = json_answer(status.code, &status.to_value());
            let retry = status
                .details
                .get("retryAfterSeconds")
                .and_then(Value::as_u64);
            if let Some(value) = retry.map(header::HeaderValue::from) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            response
        }
    };
    if let Ok(uid) = header::HeaderValue::from_str(&cluster.uid) {
        response.headers_mut().insert("x-capstan-cluster", uid);
    }
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// Why the API server of this machine answers nothing: its clock, or its etcd.
fn obstacle(
    cluster: &Cluster,
    instance: &str,
    has_certificate: bool,
    request: &Request<Incoming>,
) -> Option<Status> {
    if has_certificate && cluster.has_ill(instance, Ill::WrongClock) {
        return Some(Status::new(401, "Unauthorized", "Unauthorized"));
    }
    let method = request.method();
    let asks_only = ["/portforward", "accessreviews", "tokenreviews"];
    let path = request.uri().path();
    let writes = [Method::POST, Method::PUT, Method::PATCH].contains(method)
        && !asks_only.iter().any(|end| path.ends_with(end));
    // The rest is answered from memory.
    let needs_etcd = ["/api/", "/apis/", "/readyz", "/healthz", "/livez"]
        .iter()
        .any(|begin| path.starts_with(begin));
    let why = needs_etcd.then(|| cluster.unusable_etcd(instance, writes))??;
    Some(Status::new(500, "InternalError", why.message()))
}

fn who_asks(
    cluster: &Cluster,
    peer: Option<Identity>,
    request: &Request<Incoming>,
) -> Result<Identity, Status> {
    if let Some(peer) = peer {
        return Ok(peer);
    }
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return Ok(Identity::anonymous());
    };
    let bearer = value.to_str().unwrap_or_default();
    bearer
        .strip_prefix("Bearer ")
        .and_then(|token| identity::from_bearer(&cluster.store, token.trim()))
        .ok_or_else(|| Status::new(401, "Unauthorized", "Unauthorized"))
}

fn forbidden(who: &Identity, ask: Ask<'_>) -> Status {
    let Some(resource) = ask.resource else {
        return Status::new(
            403,
            "Forbidden",
            format!(
                "forbidden: User \"{}\" cannot {} path \"{}\"",
                who.name, ask.verb, ask.path
            ),
        );
    };
    let what = if ask.name.is_empty() {
        resource.qualified()
    } else {
        format!("{} \"{}\"", resource.qualified(), ask.name)
    };
    let of = if ask.subresource.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}/{}", resource.plural, ask.subresource)
    };
    let place = if ask.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", ask.namespace)
    };
    let message = format!(
        "{what} is forbidden: User \"{}\" cannot {} resource \"{of}\" in API group \"{}\" {place}",
        who.name, ask.verb, resource.group
    );
    Status::new(403, "Forbidden", message)
}

fn accept_of(request: &Request<Incoming>) -> String {
    let value = request.headers().get(header::ACCEPT);
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

async fn handle(
    cluster: &Arc<Cluster>,
    peer: Option<Identity>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let who = who_asks(cluster, peer, &request)?;
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let accept = accept_of(&request);
    let Some(route) = route(&path) else {
        return Err(Status::no_such_path());
    };
    match route {
        Route::Path(path) => {
            let verb = request.method().as_str().to_ascii_lowercase();
            let ask = Ask {
                verb: &verb,
                resource: None,
                namespace: "",
                name: "",
                subresource: "",
                path: &path,
            };
            if !rbac::allows(&cluster.store, &who, ask) {
                return Err(forbidden(&who, ask));
            }
            discovery::answer_path(cluster, &path, &accept).ok_or_else(Status::no_such_path)
        }
        Route::Objects(mut target) => {
            let method_not_allowed = || {
                Status::new(
                    405,
                    "MethodNotAllowed",
                    "the server does not allow this method on the requested resource",
                )
            };
            let verb = verb(request.method(), &target, &query).ok_or_else(method_not_allowed)?;
            let selector = Selector::parse(query.get("labelSelector"), query.get("fieldSelector"))?;
            if target.namespace.is_empty() && target.resource.namespaced && verb == "create" {
                return Err(method_not_allowed());
            }
            let asked = target.clone();
            let ask = Ask {
                verb,
                resource: Some(asked.resource),
                namespace: if asked.resource.plural == "namespaces" {
                    &asked.name
                } else {
                    &asked.namespace
                },
                name: &asked.name,
                subresource: &asked.subresource,
                path: "",
            };
            if !rbac::allows(&cluster.store, &who, ask) {
                return Err(forbidden(&who, ask));
            }
            if asked.subresource == "portforward" {
                return forward::open(cluster, &asked, &query, request);
            }
            if verb == "get" && query.is_set("watch") {
                target.name.clear();
            }
            objects(
                cluster, &target, verb, request, &query, &selector, &accept, &who,
            )
            .await
        }
    }
}

async fn body_of(request: Request<Incoming>) -> Result<Value, Status> {
    let content_type = content_type_of(&request);
    let bytes = Limited::new(request.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|_| {
            Status::new(
                413,
                "RequestEntityTooLarge",
                "the body could not be read or is larger than 3 MiB",
            )
        })?
        .to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if content_type.contains("protobuf") || content_type.contains("cbor") {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml (got {content_type})"
        );
        return Err(Status::new(415, "UnsupportedMediaType", message));
    }
    if content_type.contains("yaml") {
        let text =
            std::str::from_utf8(&bytes).map_err(|error| Status::bad_request(error.to_string()))?;
        return serde_saphyr::from_str(text)
            .map_err(|error| Status::bad_request(format!("error parsing YAML: {error}")));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Status::bad_request(format!("the body is not JSON: {error}")))
}

fn content_type_of(request: &Request<Incoming>) -> String {
    let value = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or("application/json");
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one request, taken apart by the only caller"
)]
async fn objects(
    cluster: &Arc<Cluster>,
    target: &Target,
    verb: &str,
    request: Request<Incoming>,
    query: &Query,
    selector: &Selector,
    accept: &str,
    who: &Identity,
) -> Result<Response<Body>, Status> {
    let store = &cluster.store;
    let is_write_below = request.method() == Method::POST && !target.subresource.is_empty();
    match verb {
        "get" if target.subresource == "log" => {
            verbs::get(store, target)?;
            Ok(answer(
                200,
                "text/plain",
                "a pod of the light backend prints nothing\n",
            ))
        }
        "get" => Ok(one(target, 200, &verbs::get(store, target)?, accept)),
        "watch" => watching::watch(cluster, target, query, selector, accept),
        "list" => {
            let page = verbs::list(store, target, query, selector)?;
            Ok(many(target, &page, accept))
        }
        "create" if is_write_below => {
            let body = body_of(request).await?;
            let value = match target.subresource.as_str() {
                "binding" => pods::bind(store, target, &body)?,
                "eviction" => pods::evict(store, target, &body, query)?,
                _ => return Err(Status::no_such_path()),
            };
            Ok(json_answer(201, &value))
        }
        "create" if target.name.is_empty() => {
            let body = body_of(request).await?;
            Ok(one(
                target,
                201,
                &verbs::create(store, target, body, query, who)?,
                accept,
            ))
        }
        "update" => {
            let body = body_of(request).await?;
            Ok(one(
                target,
                200,
                &verbs::update(store, target, body, query)?,
                accept,
            ))
        }
        "patch" => {
            let content_type = content_type_of(&request);
            let body = body_of(request).await?;
            let (object, is_new) =
                verbs::patch_object(store, target, &content_type, &body, query, who)?;
            Ok(one(target, if is_new { 201 } else { 200 }, &object, accept))
        }
        "delete" => {
            let how = Deletion::parse(&body_of(request).await?, query)?;
            Ok(json_answer(200, &verbs::delete(store, target, &how)?))
        }
        "deletecollection" => {
            let how = Deletion::parse(&body_of(request).await?, query)?;
            Ok(json_answer(
                200,
                &verbs::delete_collection(store, target, &how, selector)?,
            ))
        }
        _ => Err(Status::no_such_path()),
    }
}

fn one(target: &Target, code: u16, object: &Arc<Object>, accept: &str) -> Response<Body> {
    if table::is_wanted(accept) {
        let meta = json!({"resourceVersion": object.rv.to_string()});
        return json_answer(
            code,
            &table::table(target.resource, std::slice::from_ref(object), meta, true),
        );
    }
    answer(code, "application/json", object.text())
}

fn many(target: &Target, page: &verbs::Page, accept: &str) -> Response<Body> {
    if table::is_wanted(accept) {
        return json_answer(
            200,
            &table::table(target.resource, &page.items, page.metadata(), true),
        );
    }
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        target.resource.kind,
        target.resource.api_version(),
        page.metadata()
    );
    let mut text = Vec::from(head);
    for (at, object) in page.items.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&object.text());
    }
    text.extend_from_slice(b"]}");
    answer(200, "application/json", text)
}
