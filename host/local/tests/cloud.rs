//! The local cloud and its light machines, over real HTTP and TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first surprise"
)]

#[path = "cloud/kit.rs"]
mod kit;

use capstan_local::cloud::Cloud;
use http::Method;
use kit::{Ca, Join, Reply, TOKEN, World, client, join_data, quick, ready_is};
use serde_json::{Value, json};
use tempfile::TempDir;

#[tokio::test]
async fn a_control_plane_machine_serves_with_the_certificates_it_was_given() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    let kube = world.kube();
    let node = kube
        .until("/api/v1/nodes/cp-1", ready_is("True"))
        .await
        .json();
    let instance = world
        .http
        .get(&format!("/v1/instances/{}", world.first))
        .await
        .json();
    assert_eq!(node["spec"]["providerID"], instance["providerId"]);
    assert_eq!(
        node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"],
        ""
    );
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}])
    );
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.3");
    for component in [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "etcd",
    ] {
        let pod = kube
            .get(&format!(
                "/api/v1/namespaces/kube-system/pods/{component}-cp-1"
            ))
            .await;
        assert_eq!(pod.json()["status"]["phase"], "Running", "{}", pod.text);
    }
    let config = kube
        .get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
        .await
        .json();
    let text = config["data"]["ClusterConfiguration"].as_str().unwrap();
    assert!(
        text.contains("clusterName: quick") && text.contains(&world.endpoint),
        "{text}"
    );
    for path in [
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
        "/api/v1/namespaces/kube-system/configmaps/coredns",
        "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
        "/apis/apps/v1/namespaces/kube-system/deployments/coredns",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:cluster-admins",
        "/",
        "/version",
        "/readyz",
    ] {
        assert_eq!(kube.get(path).await.code, 200, "{path}");
    }
    world.cloud.stop().await;
}

#[tokio::test]
async fn a_worker_joins_with_pin_token_and_certificate_request() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    world.add_token().await;
    let id = world.worker("w-1").await;
    let kube = world.kube();
    let node = kube
        .until("/api/v1/nodes/w-1", ready_is("True"))
        .await
        .json();
    assert_eq!(
        node["spec"]["providerID"],
        world.http.get(&format!("/v1/instances/{id}")).await.json()["providerId"]
    );
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node.cluster.x-k8s.io/uninitialized", "effect": "NoSchedule"}])
    );
    assert_eq!(node["metadata"]["labels"]["pool"], "a");
    let requests = kube
        .get("/apis/certificates.k8s.io/v1/certificatesigningrequests")
        .await
        .json();
    assert_eq!(
        requests["items"][0]["spec"]["username"],
        "system:bootstrap:abcdef"
    );
    assert_eq!(
        kube.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/w-1")
            .await
            .code,
        200
    );
    assert!(
        world
            .console(&id)
            .await
            .contains("this node has joined the cluster")
    );
}

#[tokio::test]
async fn an_instance_that_is_deleted_leaves_a_node_that_becomes_unknown() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    world.add_token().await;
    let id = world.worker("w-1").await;
    world
        .kube()
        .until("/api/v1/nodes/w-1", ready_is("True"))
        .await;
    assert_eq!(
        world.http.delete(&format!("/v1/instances/{id}")).await.code,
        202
    );
    world
        .http
        .until(&format!("/v1/instances/{id}"), |reply| reply.code == 404)
        .await;
    let node = world
        .kube()
        .until("/api/v1/nodes/w-1", ready_is("Unknown"))
        .await
        .json();
    let taints: Vec<&str> = node["spec"]["taints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["key"].as_str().unwrap())
        .collect();
    assert!(
        taints.contains(&"node.kubernetes.io/unreachable"),
        "{taints:?}"
    );
}

#[tokio::test]
async fn a_stopped_machine_falls_silent_and_comes_back_when_it_is_started() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    world.add_token().await;
    let id = world.worker("w-1").await;
    let kube = world.kube();
    kube.until("/api/v1/nodes/w-1", ready_is("True")).await;
    let stop = format!("/v1/instances/{id}/actions/stop");
    assert_eq!(
        world.http.post(&stop, &Value::Null).await.json()["state"],
        "stopped"
    );
    assert_eq!(world.http.post(&stop, &Value::Null).await.code, 409);
    kube.until("/api/v1/nodes/w-1", ready_is("Unknown")).await;
    assert_eq!(
        world
            .http
            .post(&format!("/v1/instances/{id}/actions/start"), &Value::Null)
            .await
            .code,
        202
    );
    let node = kube
        .until("/api/v1/nodes/w-1", ready_is("True"))
        .await
        .json();
    assert_eq!(
        node["spec"]["taints"].as_array().unwrap().len(),
        1,
        "{}",
        node["spec"]["taints"]
    );
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
async fn bad_user_data_makes_a_machine_that_does_not_join_and_says_why() {
    let dir = TempDir::new().unwrap();
    let mut options = quick(&dir);
    options.tempo.kubeadm_timeout = std::time::Duration::from_millis(300);
    let world = World::new(options).await;
    world.add_token().await;
    let (pin, other) = (world.ca.pin(), Ca::new("other").pin());
    let data = |pin: &str, token: &str| {
        join_data(&Join {
            endpoint: &world.endpoint,
            pin,
            token,
            control_plane_of: None,
        })
    };
    for (name, user_data, why) in [
        (
            "not-cloud-config",
            "#!/bin/sh\n".to_owned(),
            "#cloud-config",
        ),
        (
            "bad-yaml",
            "#cloud-config\nruncmd: [".into(),
            "not valid YAML",
        ),
        (
            "no-file",
            "#cloud-config\nruncmd: ['kubeadm join --config /none']\n".into(),
            "/none: no such file",
        ),
        ("wrong-pin", data(&other, TOKEN), "are pinned"),
        (
            "wrong-secret",
            data(&pin, "abcdef.0000000000000000"),
            "cannot be trusted",
        ),
        (
            "unknown-token",
            data(&pin, "zzzzzz.0123456789abcdef"),
            "could not find a JWS signature",
        ),
        ("not-a-token", data(&pin, "nonsense"), "is not of the form"),
    ] {
        let (id, bootstrap) = world.machine(name, &user_data).await;
        assert_eq!(bootstrap["state"], "failed", "{name}");
        let console = world.console(&id).await;
        assert!(console.contains(why), "{name}: {console}");
        assert!(
            !console.contains("0123456789abcdef"),
            "{name} leaks the token: {console}"
        );
        assert_eq!(
            world
                .kube()
                .get(&format!("/api/v1/nodes/{name}"))
                .await
                .code,
            404,
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut options = quick(&dir);
    options.tempo.kubeadm_timeout = std::time::Duration::from_millis(300);
    let world = World::new(options).await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let made = world
        .kube()
        .post(
            secrets,
            &kit::token_secret("abcdef", "0123456789abcdef", -5),
        )
        .await;
    assert_eq!(made.code, 201);
    let data = join_data(&Join {
        endpoint: &world.endpoint,
        pin: &world.ca.pin(),
        token: TOKEN,
        control_plane_of: None,
    });
    let (_, bootstrap) = world.machine("late", &data).await;
    assert_eq!(bootstrap["state"], "failed");
    let who = world.kube_as(world.ca.bearer(TOKEN));
    assert_eq!(who.get("/api/v1/nodes/cp-1").await.code, 401);
    world
        .kube()
        .until(&format!("{secrets}/bootstrap-token-abcdef"), |reply| {
            reply.code == 404
        })
        .await;
}

#[tokio::test]
async fn two_of_three_control_plane_machines_go_on_serving_the_same_cluster() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    world.add_token().await;
    let data = join_data(&Join {
        endpoint: &world.endpoint,
        pin: &world.ca.pin(),
        token: TOKEN,
        control_plane_of: Some(&world.ca),
    });
    let mut ids = Vec::new();
    for (name, targets) in [("cp-2", 2), ("cp-3", 3)] {
        let (id, bootstrap) = world.machine(name, &data).await;
        assert_eq!(bootstrap["state"], "done", "{}", world.console(&id).await);
        let target = format!("/v1/load-balancers/{}/targets/{id}", world.balancer);
        let balancer = world.http.put(&target, &Value::Null).await.json();
        assert_eq!(balancer["targets"].as_array().unwrap().len(), targets);
        ids.push(id);
    }
    assert_eq!(
        world
            .http
            .delete(&format!("/v1/instances/{}", world.first))
            .await
            .code,
        202
    );
    world
        .http
        .until(&format!("/v1/instances/{}", world.first), |reply| {
            reply.code == 404
        })
        .await;
    let kube = world.kube();
    kube.until("/api/v1/nodes/cp-2", ready_is("True")).await;
    assert_eq!(
        kube.get("/api/v1/namespaces/kube-system/pods/etcd-cp-2")
            .await
            .code,
        200
    );
    for id in ids {
        let instance = format!("/v1/instances/{id}");
        assert_eq!(world.http.delete(&instance).await.code, 202);
    }
    world
        .http
        .until("/v1/status", |reply| {
            reply.json()["workloadClusters"] == 0 && reply.json()["instances"] == 0
        })
        .await;
    assert!(
        kube.try_send(Method::GET, "/", &[], &Value::Null)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_idempotency_key_makes_one_thing_and_outlives_it() {
    let dir = TempDir::new().unwrap();
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    let key = [("idempotency-key", "k-1")];
    let make = async |http: &kit::Http, name: &str| {
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
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    let network = http
        .post("/v1/networks", &json!({"name": "n"}))
        .await
        .json()["id"]
        .clone();
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
    let stranger = kit::Http::new(&cloud.access().endpoint, kit::Credentials::default());
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
    let cloud = Cloud::start(quick(&dir)).await.unwrap();
    let http = client(&cloud);
    let network = http
        .post("/v1/networks", &json!({"name": "n"}))
        .await
        .json()["id"]
        .clone();
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

#[tokio::test]
async fn strangers_and_kubelets_see_only_what_is_theirs() {
    let dir = TempDir::new().unwrap();
    let world = World::new(quick(&dir)).await;
    world.add_token().await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let stranger = world.kube_as(world.ca.anonymous());
    for (path, code) in [
        ("/healthz", 200),
        ("/version", 200),
        (
            "/api/v1/namespaces/kube-public/configmaps/cluster-info",
            200,
        ),
        ("/api", 403),
        ("/api/v1/nodes", 403),
        (secrets, 403),
    ] {
        assert_eq!(stranger.get(path).await.code, code, "{path}");
    }
    let bootstrapper = world.kube_as(world.ca.bearer(TOKEN));
    assert_eq!(bootstrapper.get("/api/v1/nodes/cp-1").await.code, 200);
    assert_eq!(bootstrapper.get(secrets).await.code, 403);
    let kubelet = world.kube_as(world.ca.client("system:node:cp-1", "system:nodes"));
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(
        kubelet
            .patch("/api/v1/nodes/cp-1", "merge-patch+json", &label)
            .await
            .code,
        200
    );
    assert_eq!(
        kubelet
            .patch("/api/v1/nodes/other", "merge-patch+json", &label)
            .await
            .code,
        403
    );
    let outsider = Ca::new("kubernetes").admin();
    let outsider = world.kube_as(kit::Credentials {
        ca: Some(world.ca.der.clone()),
        ..outsider
    });
    assert!(
        outsider
            .try_send(Method::GET, "/", &[], &Value::Null)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_ca_key_may_have_any_of_the_usual_forms() {
    for (pkcs8, older) in [
        (
            include_str!("cloud/rsa-pkcs8.pem"),
            include_str!("cloud/rsa-pkcs1.pem"),
        ),
        (
            include_str!("cloud/ec-pkcs8.pem"),
            include_str!("cloud/ec-sec1.pem"),
        ),
    ] {
        let key = || rcgen::KeyPair::from_pem(pkcs8).unwrap();
        for pem in [pkcs8, older] {
            let dir = TempDir::new().unwrap();
            let ca = Ca::with_key("kubernetes", key(), Some(pem.to_owned()));
            let world = World::with_ca(quick(&dir), ca).await;
            world.add_token().await;
            world.worker("w-1").await;
            world.cloud.stop().await;
        }
    }
}
