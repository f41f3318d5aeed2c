//! The cloud's HTTP API: authorization, routing, fault rules, and one function per operation.

mod balancers;
mod debugging;
mod instances;
mod listing;
mod networks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::answer::Refusal;
use super::backend::Fault;
use super::backends::Backends;
use super::faults::{Faults, Rules};
use super::records::{Head, InstanceType, Record, TYPES, Tags};
use super::region::{Records, Region};
use super::requests;
use listing::{find, list};

/// Largest request body: user data in base64 and room to spare.
const MAX_BODY: usize = 4 * 1024 * 1024;

const OPERATIONS: &[&str] = &[
    "CreateNetwork",
    "GetNetwork",
    "ListNetworks",
    "DeleteNetwork",
    "CreateLoadBalancer",
    "GetLoadBalancer",
    "ListLoadBalancers",
    "DeleteLoadBalancer",
    "AddTarget",
    "RemoveTarget",
    "CreateInstance",
    "GetInstance",
    "ListInstances",
    "DeleteInstance",
    "GetConsole",
    "StopInstance",
    "StartInstance",
    "RebootInstance",
    "FaultInstance",
    "ExecInstance",
    "GetUnitLog",
    "ListInstanceTypes",
    "ListBackends",
];

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost, by a fault rule")]
struct LostAnswer;

/// Accepts connections until it is aborted.
pub(crate) async fn run(listener: TcpListener, region: Arc<Region>, token: String) {
    let token: Arc<str> = token.into();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&region), Arc::clone(&token)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the cloud could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, region: Arc<Region>, token: Arc<str>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let (region, token) = (Arc::clone(&region), Arc::clone(&token));
        async move { handle(region, &token, request).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::trace!(%error, "a connection to the cloud ended early");
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, content_type: &'static str, content: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(content)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", value.to_string())
}

fn refuse(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_answer(status, &refusal.to_value());
    if let Some(seconds) = refusal.retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A request, authorized and read.
struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    key: Option<String>,
    body: Bytes,
}

async fn handle(
    region: Arc<Region>,
    token: &str,
    request: Request<Incoming>,
) -> Result<Answer, LostAnswer> {
    if !is_authorized(request.headers(), token) {
        return Ok(refuse(&Refusal::unauthorized()));
    }
    let call = match read(request).await {
        Ok(call) => call,
        Err(refusal) => return Ok(refuse(&refusal)),
    };
    match answer_call(&region, &call).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(LostAnswer),
        Err(refusal) => Ok(refuse(&refusal)),
    }
}

fn is_authorized(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    given
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|given| {
            let differences = given
                .bytes()
                .zip(token.bytes())
                .fold(0_u8, |sum, (a, b)| sum | (a ^ b));
            given.len() == token.len() && differences == 0
        })
}

async fn read(request: Request<Incoming>) -> Result<Call, Refusal> {
    let key = match request.headers().get("idempotency-key") {
        None => None,
        Some(value) => {
            let key = value.to_str().unwrap_or_default().to_owned();
            requests::check_key(&key)?;
            Some(key)
        }
    };
    let path = request
        .uri()
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    let method = request.method().clone();
    let body = Limited::new(request.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|_| Refusal::invalid("the body could not be read or is larger than 4 MiB"))?
        .to_bytes();
    Ok(Call {
        method,
        path,
        query,
        key,
        body,
    })
}

/// The operation that a request asks for, and what it is about.
fn operation<'a>(method: &Method, path: &[&'a str]) -> Option<(&'static str, &'a str)> {
    let found = match (method.as_str(), path) {
        ("POST", ["networks"]) => ("CreateNetwork", ""),
        ("GET", ["networks"]) => ("ListNetworks", ""),
        ("GET", ["networks", id]) => ("GetNetwork", *id),
        ("DELETE", ["networks", id]) => ("DeleteNetwork", *id),
        ("POST", ["load-balancers"]) => ("CreateLoadBalancer", ""),
        ("GET", ["load-balancers"]) => ("ListLoadBalancers", ""),
        ("GET", ["load-balancers", id]) => ("GetLoadBalancer", *id),
        ("DELETE", ["load-balancers", id]) => ("DeleteLoadBalancer", *id),
        ("PUT", ["load-balancers", id, "targets", _]) => ("AddTarget", *id),
        ("DELETE", ["load-balancers", id, "targets", _]) => ("RemoveTarget", *id),
        ("POST", ["instances"]) => ("CreateInstance", ""),
        ("GET", ["instances"]) => ("ListInstances", ""),
        ("GET", ["instances", id]) => ("GetInstance", *id),
        ("DELETE", ["instances", id]) => ("DeleteInstance", *id),
        ("GET", ["instances", id, "console"]) => ("GetConsole", *id),
        ("POST", ["instances", id, "actions", "stop"]) => ("StopInstance", *id),
        ("POST", ["instances", id, "actions", "start"]) => ("StartInstance", *id),
        ("POST", ["instances", id, "actions", "reboot"]) => ("RebootInstance", *id),
        ("POST", ["instances", id, "actions", fault]) if Fault::parse(fault).is_some() => {
            ("FaultInstance", *id)
        }
        ("POST", ["instances", id, "exec"]) => ("ExecInstance", *id),
        ("GET", ["instances", id, "logs", _]) => ("GetUnitLog", *id),
        ("GET", ["instance-types"]) => ("ListInstanceTypes", ""),
        ("GET", ["backends"]) => ("ListBackends", ""),
        _ => return None,
    };
    Some(found)
}

/// Answers a request; absent when the answer is to be lost.
async fn answer_call(region: &Arc<Region>, call: &Call) -> Result<Option<Answer>, Refusal> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let no_path = || Refusal::not_found("path", &format!("/{}", call.path.join("/")));
    let Some(("v1", rest)) = path.split_first().map(|(first, rest)| (*first, rest)) else {
        return Err(no_path());
    };
    match (call.method.as_str(), rest) {
        ("GET", ["status"]) => return Ok(Some(json_answer(StatusCode::OK, &status(region)))),
        ("GET", ["faults"]) => {
            return Ok(Some(json_answer(
                StatusCode::OK,
                &json!(region.lock().faults.rules()),
            )));
        }
        ("PUT", ["faults"]) => {
            let rules: Rules = requests::parse(&call.body)?;
            Faults::check(&rules, OPERATIONS)?;
            let shown = json!(rules);
            region
                .set_rules(rules)
                .map_err(|error| Refusal::disk(&error))?;
            return Ok(Some(json_answer(StatusCode::OK, &shown)));
        }
        _ => {}
    }
    let (operation, id) = operation(&call.method, rest).ok_or_else(no_path)?;
    let verdict = {
        let mut records = region.lock();
        let count = records.requests.entry(operation.to_owned()).or_default();
        *count = count.saturating_add(1);
        let (name, tags) = subject(&records, &call.body, operation, id);
        records.faults.judge(operation, &name, &tags)
    };
    if let Some(refusal) = verdict.refusal {
        return Err(refusal);
    }
    if verdict.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(verdict.delay_ms)).await;
    }
    let answer = match operation {
        "CreateInstance" => instances::create_instance(region, call, verdict.fate),
        _ => perform(region, call, operation, rest, id).await,
    };
    if verdict.loses_answer {
        return Ok(None);
    }
    answer.map(Some)
}

/// Name and tags of what a request is about, for the fault rules.
fn subject(records: &Records, body: &[u8], operation: &str, id: &str) -> (String, Tags) {
    let of = |head: &Head| (head.name.clone(), head.tags.clone());
    if operation.starts_with("Create") {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = body
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let tags = body
            .get("tags")
            .cloned()
            .and_then(|tags| serde_json::from_value(tags).ok())
            .unwrap_or_default();
        return (name, tags);
    }
    let heads = [
        records.networks.get(id).map(|record| of(&record.head)),
        records.balancers.get(id).map(|record| of(&record.head)),
        records.instances.get(id).map(|record| of(&record.head)),
    ];
    heads.into_iter().flatten().next().unwrap_or_default()
}

async fn perform(
    region: &Arc<Region>,
    call: &Call,
    operation: &str,
    path: &[&str],
    id: &str,
) -> Result<Answer, Refusal> {
    let ok = |value: Value| Ok(json_answer(StatusCode::OK, &value));
    match operation {
        "CreateNetwork" => networks::create_network(region, call).await,
        "ListNetworks" => ok(list(region.lock().networks.values(), &call.query)?),
        "GetNetwork" => ok(find(&region.lock().networks, id)?.view()),
        "DeleteNetwork" => networks::delete_network(region, id).await,
        "CreateLoadBalancer" => balancers::create_balancer(region, call),
        "ListLoadBalancers" => ok(list(region.lock().balancers.values(), &call.query)?),
        "GetLoadBalancer" => ok(find(&region.lock().balancers, id)?.view()),
        "DeleteLoadBalancer" => balancers::delete_balancer(region, id),
        "AddTarget" => {
            balancers::set_target(region, id, path.get(3).copied().unwrap_or_default(), true)
        }
        "RemoveTarget" => {
            balancers::set_target(region, id, path.get(3).copied().unwrap_or_default(), false)
        }
        "ListInstances" => ok(list(region.lock().instances.values(), &call.query)?),
        "GetInstance" => ok(find(&region.lock().instances, id)?.view()),
        "DeleteInstance" => instances::delete_instance(region, id),
        "GetConsole" => {
            find(&region.lock().instances, id)?;
            let text = region
                .console(id)
                .read()
                .map_err(|error| Refusal::disk(&error))?;
            Ok(answer(StatusCode::OK, "text/plain; charset=utf-8", text))
        }
        "StopInstance" | "StartInstance" | "RebootInstance" => {
            instances::act(region, id, operation).await
        }
        "FaultInstance" => {
            let name = path.get(3).copied().unwrap_or_default();
            let fault = Fault::parse(name).ok_or_else(|| Refusal::not_found("fault", name))?;
            debugging::fault(region, id, name, fault).await
        }
        "ExecInstance" => debugging::exec(region, call, id).await,
        "GetUnitLog" => debugging::unit_log(region, id, path.get(3).copied().unwrap_or_default()),
        "ListBackends" => ok(with_backends(region, Backends::view).await?),
        _ => ok(json!({"items": TYPES.iter().map(InstanceType::view).collect::<Vec<_>>()})),
    }
}

fn key_of<T: serde::Serialize>(call: &Call, body: &T) -> Result<Option<(String, String)>, Refusal> {
    match &call.key {
        Some(key) => Ok(Some((key.clone(), requests::digest(body)?))),
        None => Ok(None),
    }
}

/// Looks at the backends; the first look at real machines takes a moment.
async fn with_backends<T: Send + 'static>(
    region: &Arc<Region>,
    look: impl FnOnce(&Backends) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let region = Arc::clone(region);
    let looked = tokio::task::spawn_blocking(move || look(&region.backends)).await;
    looked.map_err(|error| Refusal::machine(error.to_string()))
}

/// How long an answer waits for what it started, so that it can tell the result.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for work that was started, not longer than an answer may take.
async fn patiently(ended: oneshot::Receiver<()>) {
    // Ended or too slow: the answer tells the state as it is then.
    drop(tokio::time::timeout(PATIENCE, ended).await);
}

fn status(region: &Region) -> Value {
    let counts = region.backends.counts();
    let records = region.lock();
    let mut by_state: BTreeMap<&str, u64> = BTreeMap::new();
    for instance in records.instances.values() {
        let count = by_state.entry(instance.state.as_str()).or_default();
        *count = count.saturating_add(1);
    }
    json!({
        "networks": records.networks.len(), "loadBalancers": records.balancers.len(), "instances": records.instances.len(),
        "instancesByState": by_state, "workloadClusters": counts.clusters, "workloadNodes": counts.nodes,
        "etcdRefusals": counts.etcd_refusals,
        "idempotencyKeys": records.keys.len(), "requests": records.requests.values().sum::<u64>(),
        "requestsByOperation": records.requests,
    })
}
