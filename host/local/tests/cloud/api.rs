//! The cloud's API: what it keeps, lists, refuses, and lets go wrong on request.

use capstan_local::cloud::Cloud;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{Credentials, Http, Reply, World, client, quick, ready_is};

/// A cloud with one network, of which the ID is told.
async fn with_network(dir: &TempDir) -> (Cloud, Http, Value) {
    let cloud = Cloud::start(quick(dir)).await.unwrap();
    let http = client(&cloud);
    let network = http
        .post("/v1/networks", &json!({"name": "n"}))
        .await
        .json()["id"]
        .clone();
    (cloud, http, network)
}

#[tokio::test]
async fn what_light_machines_do_not_have_is_refused_with_a_sentence() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    let path = format!("/v1/instances/{}", world.first);
    let exec = format!("{path}/exec");
    let echo = json!({"command": ["echo"]});
    for (answer, code) in [
        (world.http.post(&exec, &echo).await, "Unsupported"),
        (
            world.http.post(&exec, &json!({"command": []})).await,
            "InvalidRequest",
        ),
        (
            world
                .http
                .post(&format!("{path}/actions/freeze"), &Value::Null)
                .await,
            "Unsupported",
        ),
        (
            world
                .http
                .post(&format!("{path}/actions/burn"), &Value::Null)
                .await,
            "NotFound",
        ),
        (
            world.http.get(&format!("{path}/logs/kubelet")).await,
            "Unsupported",
        ),
        (
            world.http.get(&format!("{path}/logs/cron")).await,
            "NotFound",
        ),
    ] {
        assert_eq!(answer.json()["error"]["code"], code, "{}", answer.text);
    }
    let killed = world
        .http
        .post(&format!("{path}/actions/kill"), &Value::Null)
        .await;
    assert_eq!(killed.code, 202);
    let instance = world.http.get(&path).await.json();
    assert_eq!(
        (&instance["state"], &instance["stateMessage"]),
        (&json!("stopped"), &json!("it was killed"))
    );
    assert_eq!(
        world
            .http
            .post(&format!("{path}/actions/kill"), &Value::Null)
            .await
            .code,
        409
    );
    let start = format!("{path}/actions/start");
    assert_eq!(world.http.post(&start, &Value::Null).await.code, 202);
    world
        .kube()
        .until("/readyz", |reply| reply.code == 200)
        .await;
}

#[tokio::test]
async fn networks_say_what_runs_them_and_types_what_they_have() {
    let dir = TempDir::new().unwrap();
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    let network = http
        .post("/v1/networks", &json!({"name": "n"}))
        .await
        .json();
    assert_eq!(
        (&network["backend"], &network["state"]),
        (&json!("light"), &json!("active"))
    );
    let odd = json!({"name": "n", "backend": "vapour"});
    let odd = http.post("/v1/networks", &odd).await;
    assert_eq!(odd.code, 400);
    assert!(odd.text.contains("backend: "), "{}", odd.text);
    let backends = http.get("/v1/backends").await.json();
    assert_eq!(backends["items"][0]["name"], "light");
    assert_eq!(backends["items"][0]["default"], true);
    let machines = &backends["items"][1];
    assert_eq!(
        machines["available"] == true,
        machines["message"] == "",
        "{machines}"
    );
    let types = http.get("/v1/instance-types").await.json();
    assert_eq!(types["items"][0]["capacity"]["memory"], "4096Mi");
    assert_eq!(types["items"][0]["operatingSystem"], "linux");
}

#[tokio::test]
async fn what_was_there_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    world.add_token().await;
    world.worker("w-1").await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "default"}, "data": {"a": "b"}});
    assert_eq!(
        world
            .kube()
            .post("/api/v1/namespaces/default/configmaps", &map)
            .await
            .code,
        201
    );
    let before = world.http.get("/v1/instances").await.json();
    let (kube, access) = (world.kube(), world.cloud.access().clone());
    let World { cloud, http, .. } = world;
    cloud.stop().await;
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    assert_eq!(
        (&cloud.access().endpoint, &cloud.access().token),
        (&access.endpoint, &access.token)
    );
    let kept = kube
        .until("/api/v1/namespaces/default/configmaps/kept", |reply| {
            reply.code == 200
        })
        .await
        .json();
    assert_eq!(kept["data"]["a"], "b");
    assert_eq!(http.get("/v1/instances").await.json(), before);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/w-1";
    let renewed = kube.get(lease).await.json()["spec"]["renewTime"].clone();
    kube.until(lease, |reply| reply.json()["spec"]["renewTime"] != renewed)
        .await;
    kube.until("/api/v1/nodes/w-1", ready_is("True")).await;
}

#[tokio::test]
async fn an_idempotency_key_makes_one_thing_and_outlives_it() {
    let dir = TempDir::new().unwrap();
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    let key = [("idempotency-key", "k-1")];
    let make = async |http: &Http, name: &str| {
        http.try_send(Method::POST, "/v1/networks", &key, &json!({"name": name}))
            .await
            .unwrap()
    };
    let first = make(&http, "a").await;
    let again = make(&http, "a").await;
    assert_eq!((first.code, again.code), (201, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(
        make(&http, "b").await.json()["error"]["code"],
        "IdempotencyMismatch"
    );
    cloud.stop().await;
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    assert_eq!(make(&http, "a").await.json(), first.json());
    let path = format!("/v1/networks/{}", first.json()["id"].as_str().unwrap());
    assert_eq!(http.delete(&path).await.code, 204);
    assert_eq!(
        make(&http, "a").await.json()["error"]["code"],
        "IdempotencyKeyUsed"
    );
    assert_eq!(http.get("/v1/status").await.json()["networks"], 0);
}

#[tokio::test]
async fn lists_are_filtered_and_come_by_pages() {
    let dir = TempDir::new().unwrap();
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    for at in 0..5 {
        let body = json!({"name": format!("n-{at}"), "tags": {"odd": (at % 2 == 1).to_string()}});
        assert_eq!(http.post("/v1/networks", &body).await.code, 201);
    }
    let names = |reply: &Reply| -> Vec<String> {
        reply.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = http.get("/v1/networks?limit=2").await;
    assert_eq!(names(&first), ["n-0", "n-1"]);
    let token = first.json()["nextPageToken"].as_str().unwrap().to_owned();
    let second = http
        .get(&format!("/v1/networks?limit=3&pageToken={token}"))
        .await;
    assert_eq!(names(&second), ["n-2", "n-3", "n-4"]);
    assert!(second.json().get("nextPageToken").is_none());
    assert_eq!(
        names(&http.get("/v1/networks?tag=odd=true").await),
        ["n-1", "n-3"]
    );
    assert_eq!(
        names(&http.get("/v1/networks?tag=odd=true&name=n-3").await),
        ["n-3"]
    );
    assert_eq!(http.get("/v1/networks?limit=0").await.code, 400);
}

#[tokio::test]
async fn refusals_name_the_field() {
    let dir = TempDir::new().unwrap();
    let (cloud, http, network) = with_network(&dir).await;
    let good = json!({"name": "a", "networkId": network, "type": "small", "image": "v1.36.3"});
    for (field, value) in [
        ("name", json!("Bad_Name")),
        ("type", json!("huge")),
        ("image", json!("latest")),
        ("backend", json!("machines")),
        ("userData", json!("%%%")),
        ("userDataFormat", json!("ignition")),
        ("zone", json!("zone-z")),
        ("flavour", json!("x")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let refused = http.post("/v1/instances", &body).await;
        assert_eq!(refused.code, 400, "{field}");
        assert!(
            refused.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(field),
            "{}",
            refused.text
        );
    }
    let mut body = good.clone();
    body["networkId"] = json!("net-none");
    assert_eq!(
        http.post("/v1/instances", &body).await.json()["error"]["code"],
        "NotFound"
    );
    let stranger = Http::new(&cloud.access().endpoint, Credentials::default());
    assert_eq!(stranger.get("/v1/status").await.code, 401);
    assert_eq!(http.post("/v1/instances", &good).await.code, 202);
    let path = format!("/v1/networks/{}", network.as_str().unwrap());
    assert_eq!(http.delete(&path).await.json()["error"]["code"], "InUse");
}

#[expect(
    clippy::too_many_lines,
    reason = "one rule after the other on the same cloud"
)]
#[tokio::test]
async fn faults_do_what_their_rules_say() {
    let dir = TempDir::new().unwrap();
    let (_cloud, http, network) = with_network(&dir).await;
    let rule = |operation: &str, part: &str, effect: Value| json!({"match": {"operation": operation, "nameContains": part, "first": 1}, "effect": effect});
    let rules = json!({"rules": [
        rule("CreateInstance", "fails", json!({"type": "fail", "message": "no capacity"})),
        rule("CreateInstance", "never", json!({"type": "never"})),
        rule("CreateInstance", "goes", json!({"type": "disappear", "afterMs": 10})),
        rule("CreateInstance", "lost", json!({"type": "loseAnswer"})),
        rule("ListInstances", "", json!({"type": "status", "status": 429, "retryAfterS": 3})),
    ]});
    assert_eq!(http.put("/v1/faults", &rules).await.code, 200);
    let body = |name: &str| json!({"name": name, "networkId": network, "type": "small", "image": "v1.36.3"});
    let throttled = http.get("/v1/instances").await;
    assert_eq!(
        (
            throttled.code,
            throttled.headers["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    let key = [("idempotency-key", "k")];
    assert!(
        http.try_send(Method::POST, "/v1/instances", &key, &body("lost"))
            .await
            .is_err()
    );
    assert_eq!(
        http.try_send(Method::POST, "/v1/instances", &key, &body("lost"))
            .await
            .unwrap()
            .code,
        200
    );
    assert_eq!(
        http.get("/v1/instances").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let make = async |name: &str| {
        format!(
            "/v1/instances/{}",
            http.post("/v1/instances", &body(name)).await.json()["id"]
                .as_str()
                .unwrap()
        )
    };
    let fails = make("fails").await;
    let failed = http
        .until(&fails, |reply| reply.json()["state"] == "failed")
        .await;
    assert_eq!(failed.json()["stateMessage"], "no capacity");
    let goes = make("goes").await;
    http.until(&goes, |reply| reply.code == 404).await;
    let never = make("never").await;
    http.until(&never, |reply| {
        reply.json()["stateMessage"] == "waiting for capacity"
    })
    .await;
    assert_eq!(http.get(&never).await.json()["state"], "pending");
    assert_eq!(http.delete(&never).await.code, 202);
    http.until(&never, |reply| reply.code == 404).await;
    assert_eq!(
        http.put(
            "/v1/faults",
            &json!({"rules": [{"effect": {"type": "explode"}}]})
        )
        .await
        .code,
        400
    );
}
