//! The provider against a cloud of a few lines.

use capstan_sdk::http::{Request, Response};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::testing::{Host, cluster_input, machine_input};
use capstan_sdk::{FailureKind, Progress};

use super::*;

fn cluster() -> ClusterInput<Harbour> {
    let mut input = cluster_input(json!({})).unwrap();
    input.context.config = json!({"endpoint": "https://cloud.example.com"});
    input
}

fn machine() -> MachineInput<Harbour> {
    let mut input = machine_input(json!({}), json!({"type": "small"})).unwrap();
    input.context.config = json!({"endpoint": "https://cloud.example.com"});
    input.failure_domain = Some("a".to_owned());
    input
}

fn page(items: &Value) -> Response {
    Response::new(200).with_json(&json!({"items": items}))
}

/// Has one of each, in these states.
fn cloud(network: Value, balancer: Value, instance: Value) -> Host {
    Host::serving(move |request: &Request| {
        let of = |kind: &str| request.url.contains(&format!("/v1/{kind}"));
        let found = match (of("networks"), of("load-balancers")) {
            (true, _) => &network,
            (_, true) => &balancer,
            _ => &instance,
        };
        Ok(match request.method.as_str() {
            "GET" if found.is_null() => page(&json!([])),
            "GET" => page(&json!([found])),
            "DELETE" => Response::new(202),
            _ => Response::new(201).with_json(&json!({
                "id": "new", "state": "pending", "providerId": "cloud://new", "host": "h", "port": 1,
            })),
        })
    })
}

fn network() -> Value {
    json!({"id": "n", "state": "active", "zones": ["a", "b"]})
}

fn balancer() -> Value {
    json!({"id": "l", "state": "active", "host": "192.0.2.1", "port": 6443})
}

fn running() -> Value {
    json!({"id": "i", "state": "running", "providerId": "cloud://i", "zone": "a",
        "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]})
}

#[test]
fn a_cluster_is_ready_with_its_network_and_its_load_balancer() {
    let _host = cloud(network(), balancer(), Value::Null);
    let answer = Harbour::ensure_cluster(cluster()).unwrap();
    assert_eq!(answer.progress, Progress::Ready);
    assert_eq!(answer.endpoint.unwrap().to_string(), "192.0.2.1:6443");
    assert_eq!(answer.failure_domains.len(), 2);
}

#[test]
fn what_is_missing_is_made_with_a_key_and_waited_for() {
    let host = cloud(Value::Null, Value::Null, Value::Null);
    let answer = Harbour::ensure_cluster(cluster()).unwrap();
    assert!(matches!(answer.progress, Progress::Waiting(_)));
    let requests = host.requests();
    let post = requests
        .iter()
        .find(|request| request.method == "POST")
        .unwrap();
    assert!(
        post.headers
            .iter()
            .any(|(name, _)| name == "idempotency-key")
    );
    assert_eq!(post.credential.as_deref(), Some("harbour"));
}

#[test]
fn a_machine_is_made_with_its_data_by_handle_and_found_afterwards() {
    let host = cloud(network(), balancer(), Value::Null);
    let answer = Harbour::ensure_machine(machine()).unwrap();
    assert_eq!(answer.provider_id.as_deref(), Some("cloud://new"));
    let requests = host.requests();
    let body = requests.last().unwrap().body_preview();
    assert!(
        body.contains(r#""userData":"secret(1)""#) && body.contains(r#""zone":"a""#),
        "{body}"
    );
    let host = cloud(network(), balancer(), running());
    let answer = Harbour::ensure_machine(machine()).unwrap();
    assert_eq!(answer.progress, Progress::Ready);
    assert!(
        host.requests()
            .iter()
            .all(|request| request.method == "GET")
    );
}

#[test]
fn an_instance_that_stopped_is_said_and_a_busy_cloud_is_asked_later() {
    let _host = cloud(
        network(),
        balancer(),
        json!({"id": "i", "state": "failed", "providerId": "cloud://i"}),
    );
    assert_eq!(
        Harbour::ensure_machine(machine()).unwrap_err().kind,
        FailureKind::Terminal
    );
    let _host = Host::serving(|_| Ok(Response::new(429).with_header("retry-after", "60")));
    let failure = Harbour::ensure_machine(machine()).unwrap_err();
    assert_eq!(
        (failure.kind, failure.retry_after),
        (FailureKind::Transient, Some(Duration::from_secs(60)))
    );
}

#[test]
fn deletion_goes_on_until_nothing_is_left() {
    let host = cloud(network(), balancer(), running());
    assert!(!Harbour::delete_machine(machine()).unwrap().is_gone());
    assert!(!Harbour::delete_cluster(cluster()).unwrap().is_gone());
    let deleted: Vec<String> = host
        .requests()
        .into_iter()
        .filter(|r| r.method == "DELETE")
        .map(|r| r.url)
        .collect();
    assert_eq!(
        deleted,
        [
            "https://cloud.example.com/v1/instances/i",
            "https://cloud.example.com/v1/load-balancers/l"
        ]
    );
    let _host = cloud(Value::Null, Value::Null, Value::Null);
    assert!(Harbour::delete_machine(machine()).unwrap().is_gone());
    assert!(Harbour::delete_cluster(cluster()).unwrap().is_gone());
}
