//! Light machines: what user data makes of them, and what they do as Nodes.

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{Ca, Join, TOKEN, World, join_data, quick, ready_is};

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
            &crate::kit::token_secret("abcdef", "0123456789abcdef", -5),
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
    let outsider = world.kube_as(crate::kit::Credentials {
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
        (include_str!("rsa-pkcs8.pem"), include_str!("rsa-pkcs1.pem")),
        (include_str!("ec-pkcs8.pem"), include_str!("ec-sec1.pem")),
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
