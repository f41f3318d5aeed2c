//! One suite of API behaviours, run against a light workload cluster and against a real kube-apiserver, so that the first does not drift.

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

use http::Method;
use kit::{Http, Reply};
use serde_json::{Value, json};

/// Where a behaviour is tried: a client that may do everything, and how to be somebody else.
struct Place {
    admin: Http,
    namespace: String,
}

impl Place {
    /// A namespace of its own, with the service account that pods need.
    async fn new(admin: Http, behaviour: &str) -> Self {
        let namespace = behaviour.replace('_', "-");
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let made = admin.post("/api/v1/namespaces", &body).await;
        assert_eq!(made.code, 201, "{}", made.text);
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let made = admin
            .post(
                &format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
                &account,
            )
            .await;
        assert!(matches!(made.code, 201 | 409), "{}", made.text);
        Self { admin, namespace }
    }

    fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    fn apps(&self, rest: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// Creates something that must be accepted.
    async fn make(&self, path: &str, body: &Value) -> Value {
        let made = self.admin.post(path, body).await;
        assert_eq!(made.code, 201, "{}", made.text);
        made.json()
    }

    async fn map(&self, name: &str, labels: Value) -> Value {
        self.make(&self.core("configmaps"), &config_map(name, labels))
            .await
    }
}

fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn pod(name: &str, node: Option<&str>) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

fn names(list: &Value) -> Vec<String> {
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .filter(|name| name != "kube-root-ca.crt")
        .collect()
}

fn assert_refused(reply: &Reply, code: u16, reason: &str) {
    assert_eq!(reply.code, code, "{}", reply.text);
    let status = reply.json();
    assert_eq!(
        (status["kind"].as_str(), status["reason"].as_str()),
        (Some("Status"), Some(reason)),
        "{}",
        reply.text
    );
}

async fn creates_an_object_once(place: Place) {
    let made = place.map("a", json!({})).await;
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(
            !made["metadata"][field].as_str().unwrap().is_empty(),
            "{field}"
        );
    }
    assert_eq!(made["metadata"]["namespace"], place.namespace.as_str());
    let again = place
        .admin
        .post(&place.core("configmaps"), &config_map("a", json!({})))
        .await;
    assert_refused(&again, 409, "AlreadyExists");
    assert_refused(
        &place.admin.get(&place.core("configmaps/none")).await,
        404,
        "NotFound",
    );
    let nowhere = place
        .admin
        .post(
            "/api/v1/namespaces/nowhere/configmaps",
            &config_map("a", json!({})),
        )
        .await;
    assert_refused(&nowhere, 404, "NotFound");
    assert_eq!(place.admin.get(&place.core("gizmos")).await.code, 404);
}

async fn makes_up_names(place: Place) {
    let mut body = config_map("x", json!({}));
    body["metadata"] = json!({"generateName": "made-"});
    let (one, two) = (
        place.make(&place.core("configmaps"), &body).await,
        place.make(&place.core("configmaps"), &body).await,
    );
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("made-") && name.len() == 10, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

async fn refuses_bad_objects(place: Place) {
    let maps = place.core("configmaps");
    assert_refused(
        &place
            .admin
            .post(&maps, &config_map("Bad_Name", json!({})))
            .await,
        422,
        "Invalid",
    );
    assert_refused(
        &place.admin.post(&maps, &pod("a", None)).await,
        400,
        "BadRequest",
    );
    let mut other = config_map("a", json!({}));
    other["metadata"]["namespace"] = json!("elsewhere");
    assert_refused(&place.admin.post(&maps, &other).await, 400, "BadRequest");
    let mut empty = pod("a", None);
    empty["spec"]["containers"] = json!([]);
    assert_refused(
        &place.admin.post(&place.core("pods"), &empty).await,
        422,
        "Invalid",
    );
    let mut mismatch = deployment("d");
    mismatch["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    assert_refused(
        &place
            .admin
            .post(&place.apps("deployments"), &mismatch)
            .await,
        422,
        "Invalid",
    );
}

async fn an_update_needs_the_latest_version(place: Place) {
    let path = place.core("configmaps/a");
    let first = place.map("a", json!({})).await;
    let mut new = first.clone();
    new["data"]["a"] = json!("2");
    let second = place.admin.put(&path, &new).await;
    assert_eq!(second.code, 200, "{}", second.text);
    assert_ne!(
        second.json()["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    new["data"]["a"] = json!("3");
    assert_refused(&place.admin.put(&path, &new).await, 409, "Conflict");
    new["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    assert_eq!(place.admin.put(&path, &new).await.code, 200);
    let latest = place.admin.get(&path).await.json();
    let unchanged = place.admin.put(&path, &latest).await.json();
    assert_eq!(
        unchanged["metadata"]["resourceVersion"],
        latest["metadata"]["resourceVersion"]
    );
    new["metadata"]["uid"] = json!("11111111-2222-4333-8444-555555555555");
    assert_refused(&place.admin.put(&path, &new).await, 409, "Conflict");
    assert_refused(
        &place
            .admin
            .put(
                &place.core("configmaps/none"),
                &config_map("none", json!({})),
            )
            .await,
        404,
        "NotFound",
    );
}

async fn status_is_written_apart_and_generation_counts_the_spec(place: Place) {
    let path = place.apps("deployments/d");
    let mut body = deployment("d");
    body["status"] = json!({"replicas": 7});
    let made = place.make(&place.apps("deployments"), &body).await;
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(
        made["status"].get("replicas").is_none(),
        "{}",
        made["status"]
    );
    let status = json!({"status": {"replicas": 3}, "spec": {"replicas": 5}});
    let answered = place
        .admin
        .patch(&format!("{path}/status"), "merge-patch+json", &status)
        .await
        .json();
    assert_eq!(
        (
            &answered["status"]["replicas"],
            &answered["spec"]["replicas"]
        ),
        (&json!(3), &json!(0))
    );
    assert_eq!(answered["metadata"]["generation"], 1);
    let spec = json!({"status": {"replicas": 9}, "spec": {"paused": true}});
    let answered = place
        .admin
        .patch(&path, "merge-patch+json", &spec)
        .await
        .json();
    assert_eq!(
        (&answered["status"]["replicas"], &answered["spec"]["paused"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(answered["metadata"]["generation"], 2);
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "d", "b": "c"}}, "template": {"metadata": {"labels": {"b": "c"}}}}});
    assert_refused(
        &place
            .admin
            .patch(&path, "merge-patch+json", &selector)
            .await,
        422,
        "Invalid",
    );
}

async fn patches_in_every_way(place: Place) {
    let path = place.core("configmaps/a");
    place.map("a", json!({"x": "1"})).await;
    let merged = place
        .admin
        .patch(
            &path,
            "merge-patch+json",
            &json!({"data": {"a": null, "b": "2"}}),
        )
        .await
        .json();
    assert_eq!(merged["data"], json!({"b": "2"}));
    let operations = json!([{"op": "test", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/data/c", "value": "3"}]);
    assert_eq!(
        place
            .admin
            .patch(&path, "json-patch+json", &operations)
            .await
            .json()["data"]["c"],
        "3"
    );
    let failing = json!([{"op": "test", "path": "/data/b", "value": "other"}]);
    assert_eq!(
        place
            .admin
            .patch(&path, "json-patch+json", &failing)
            .await
            .code,
        422
    );
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"z": "1"}});
    assert_refused(
        &place.admin.patch(&path, "merge-patch+json", &stale).await,
        409,
        "Conflict",
    );
    assert_eq!(
        place.admin.patch(&path, "nonsense", &json!({})).await.code,
        415
    );
    assert_eq!(
        place
            .admin
            .patch(
                &place.core("configmaps/none"),
                "merge-patch+json",
                &json!({})
            )
            .await
            .code,
        404
    );
}

async fn strategic_patches_merge_conditions_and_replace_taints(place: Place) {
    let name = format!("node-{}", place.namespace);
    let path = format!("/api/v1/nodes/{name}");
    place
        .make(
            "/api/v1/nodes",
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
        )
        .await;
    let conditions = |type_: &str, status: &str| json!({"status": {"conditions": [{"type": type_, "status": status}]}});
    let kind = "strategic-merge-patch+json";
    for (type_, status) in [("A", "True"), ("B", "True"), ("A", "False")] {
        let done = place
            .admin
            .patch(&format!("{path}/status"), kind, &conditions(type_, status))
            .await;
        assert_eq!(done.code, 200, "{}", done.text);
    }
    let list = place.admin.get(&path).await.json()["status"]["conditions"].clone();
    let of = |type_: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == type_)
            .unwrap()["status"]
            .clone()
    };
    assert_eq!((of("A"), of("B")), (json!("False"), json!("True")));
    for key in ["one", "two"] {
        let taints = json!({"spec": {"taints": [{"key": key, "effect": "PreferNoSchedule"}]}});
        assert_eq!(place.admin.patch(&path, kind, &taints).await.code, 200);
    }
    let taints = place.admin.get(&path).await.json()["spec"]["taints"].clone();
    let keys: Vec<&str> = taints
        .as_array()
        .unwrap()
        .iter()
        .map(|taint| taint["key"].as_str().unwrap())
        .collect();
    assert!(keys.contains(&"two") && !keys.contains(&"one"), "{keys:?}");
    let provider = |id: &str| json!({"spec": {"providerID": id}});
    assert_eq!(
        place
            .admin
            .patch(&path, kind, &provider("local:///a"))
            .await
            .code,
        200
    );
    assert_refused(
        &place
            .admin
            .patch(&path, kind, &provider("local:///b"))
            .await,
        422,
        "Invalid",
    );
    assert_eq!(place.admin.delete(&path).await.code, 200);
}

async fn applies_with_ownership(place: Place) {
    let path = |manager: &str, more: &str| {
        format!(
            "{}?fieldManager={manager}{more}",
            place.core("configmaps/a")
        )
    };
    let body = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let apply = "apply-patch+yaml";
    let made = place
        .admin
        .patch(&path("one", ""), apply, &body(json!({"a": "1", "b": "1"})))
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    let again = place
        .admin
        .patch(&path("one", ""), apply, &body(json!({"a": "1", "b": "1"})))
        .await;
    assert_eq!(again.code, 200);
    assert_eq!(
        again.json()["metadata"]["resourceVersion"],
        made.json()["metadata"]["resourceVersion"]
    );
    assert_eq!(
        made.json()["metadata"]["managedFields"][0]["manager"],
        "one"
    );
    let clash = place
        .admin
        .patch(&path("two", ""), apply, &body(json!({"a": "2"})))
        .await;
    assert_refused(&clash, 409, "Conflict");
    assert!(
        clash.json()["message"]
            .as_str()
            .unwrap()
            .contains(".data.a"),
        "{}",
        clash.text
    );
    let forced = place
        .admin
        .patch(&path("two", "&force=true"), apply, &body(json!({"a": "2"})))
        .await
        .json();
    assert_eq!(forced["data"], json!({"a": "2", "b": "1"}));
    let fewer = place
        .admin
        .patch(&path("one", ""), apply, &body(json!({})))
        .await
        .json();
    assert_eq!(
        fewer["data"],
        json!({"a": "2"}),
        "what one no longer applies goes, what two owns stays"
    );
    let nobody = place
        .admin
        .patch(&place.core("configmaps/a"), apply, &body(json!({})))
        .await;
    assert_refused(&nobody, 422, "Invalid");
}

async fn selects_by_labels_and_fields(place: Place) {
    place.map("a", json!({"app": "x", "tier": "db"})).await;
    place.map("b", json!({"app": "x"})).await;
    place.map("c", json!({})).await;
    for (query, wanted) in [
        ("labelSelector=app%3Dx", vec!["a", "b"]),
        ("labelSelector=app%20in%20(x,y),!tier", vec!["b"]),
        ("labelSelector=app%3Dx,tier!%3Ddb", vec!["b"]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
        (
            "labelSelector=tier&fieldSelector=metadata.name!%3Da",
            vec![],
        ),
    ] {
        let list = place
            .admin
            .get(&format!("{}?{query}", place.core("configmaps")))
            .await
            .json();
        assert_eq!(names(&list), wanted, "{query}");
    }
    let bad = place
        .admin
        .get(&format!(
            "{}?fieldSelector=data.a%3D1",
            place.core("configmaps")
        ))
        .await;
    assert_refused(&bad, 400, "BadRequest");
}

async fn lists_by_pages(place: Place) {
    for name in ["a", "b", "c", "d", "e"] {
        place.map(name, json!({"page": "yes"})).await;
    }
    let base = format!(
        "{}?labelSelector=page%3Dyes&limit=2",
        place.core("configmaps")
    );
    let (mut path, mut seen, mut pages) = (base.clone(), Vec::new(), 0);
    loop {
        let list = place.admin.get(&path).await.json();
        assert_eq!(list["kind"], "ConfigMapList");
        seen.extend(names(&list));
        pages += 1;
        match list["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => path = format!("{base}&continue={token}"),
            _ => break,
        }
    }
    assert_eq!(
        (seen, pages),
        (["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), 3)
    );
    assert_refused(
        &place.admin.get(&format!("{base}&continue=nonsense")).await,
        400,
        "BadRequest",
    );
}

async fn watches_see_every_change(place: Place) {
    let maps = place.core("configmaps");
    place.map("before", json!({"w": "1"})).await;
    let rv = place.admin.get(&maps).await.json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut watch = place
        .admin
        .watch(&format!(
            "{maps}?watch=true&resourceVersion={rv}&labelSelector=w%3D1"
        ))
        .await
        .ok()
        .unwrap();
    place.map("other", json!({})).await;
    place.map("a", json!({"w": "1"})).await;
    let event = |type_: &str, name: &str| (type_.to_owned(), name.to_owned());
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    place
        .admin
        .patch(
            &place.core("configmaps/a"),
            "merge-patch+json",
            &json!({"data": {"b": "2"}}),
        )
        .await;
    assert_eq!(watch.next_name().await, event("MODIFIED", "a"));
    place
        .admin
        .patch(
            &place.core("configmaps/a"),
            "merge-patch+json",
            &json!({"metadata": {"labels": {"w": "2"}}}),
        )
        .await;
    assert_eq!(watch.next_name().await, event("DELETED", "a"));
    place
        .admin
        .patch(
            &place.core("configmaps/other"),
            "merge-patch+json",
            &json!({"metadata": {"labels": {"w": "1"}}}),
        )
        .await;
    assert_eq!(watch.next_name().await, event("ADDED", "other"));
    place.admin.delete(&place.core("configmaps/before")).await;
    assert_eq!(watch.next_name().await, event("DELETED", "before"));
}

async fn a_watch_can_begin_with_what_is_there(place: Place) {
    place.map("a", json!({"w": "1"})).await;
    let query = "watch=true&labelSelector=w%3D1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut watch = place
        .admin
        .watch(&format!("{}?{query}", place.core("configmaps")))
        .await
        .ok()
        .unwrap();
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    place.map("b", json!({"w": "1"})).await;
    assert_eq!(
        watch.next_name().await,
        ("ADDED".to_owned(), "b".to_owned())
    );
    let ends = format!("{}?watch=true&timeoutSeconds=1", place.core("secrets"));
    let mut short = place.admin.watch(&ends).await.ok().unwrap();
    while short.next().await.is_some() {}
}

async fn finalizers_hold_an_object(place: Place) {
    let path = place.core("configmaps/a");
    let mut body = config_map("a", json!({}));
    body["metadata"]["finalizers"] = json!(["example.com/one"]);
    place.make(&place.core("configmaps"), &body).await;
    assert_eq!(place.admin.delete(&path).await.code, 200);
    let held = place.admin.get(&path).await.json();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/two"]}});
    assert_refused(
        &place.admin.patch(&path, "merge-patch+json", &more).await,
        422,
        "Invalid",
    );
    let none = json!({"metadata": {"finalizers": []}});
    assert_eq!(
        place
            .admin
            .patch(&path, "merge-patch+json", &none)
            .await
            .code,
        200
    );
    assert_eq!(place.admin.get(&path).await.code, 404);
}

async fn deletes_under_preconditions(place: Place) {
    let path = place.core("configmaps/a");
    let made = place.map("a", json!({})).await;
    let with = |uid: &Value| json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let other = json!("11111111-2222-4333-8444-555555555555");
    assert_refused(
        &place.admin.send(Method::DELETE, &path, &with(&other)).await,
        409,
        "Conflict",
    );
    let gone = place
        .admin
        .send(Method::DELETE, &path, &with(&made["metadata"]["uid"]))
        .await;
    assert_eq!(
        (gone.code, gone.json()["status"].as_str()),
        (200, Some("Success"))
    );
    assert_refused(&place.admin.delete(&path).await, 404, "NotFound");
}

async fn deletes_collections(place: Place) {
    place.map("a", json!({"d": "1"})).await;
    place.map("b", json!({"d": "1"})).await;
    place.map("c", json!({})).await;
    assert_eq!(
        place
            .admin
            .delete(&format!("{}?labelSelector=d%3D1", place.core("configmaps")))
            .await
            .code,
        200
    );
    assert_eq!(
        names(&place.admin.get(&place.core("configmaps")).await.json()),
        ["c"]
    );
}

async fn a_bound_pod_ends_gracefully(place: Place) {
    let path = place.core("pods/a");
    place
        .make(&place.core("pods"), &pod("a", Some("no-such-node")))
        .await;
    let deleted = place.admin.delete(&path).await.json();
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(place.admin.get(&path).await.json()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(
        place
            .admin
            .send(Method::DELETE, &path, &json!({"gracePeriodSeconds": 0}))
            .await
            .code,
        200
    );
    assert_eq!(place.admin.get(&path).await.code, 404);
    place.make(&place.core("pods"), &pod("b", None)).await;
    assert_eq!(place.admin.delete(&place.core("pods/b")).await.code, 200);
    assert_eq!(
        place.admin.get(&place.core("pods/b")).await.code,
        404,
        "a pod without a node goes at once"
    );
}

async fn pods_are_bound_once_and_found_by_node(place: Place) {
    place.make(&place.core("pods"), &pod("a", None)).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "far-away"}});
    assert_eq!(
        place
            .admin
            .post(&place.core("pods/a/binding"), &binding)
            .await
            .code,
        201
    );
    assert_refused(
        &place
            .admin
            .post(&place.core("pods/a/binding"), &binding)
            .await,
        409,
        "Conflict",
    );
    let found = place
        .admin
        .get(&format!(
            "{}?fieldSelector=spec.nodeName%3Dfar-away",
            place.core("pods")
        ))
        .await
        .json();
    assert_eq!(names(&found), ["a"]);
    let moved = json!({"spec": {"nodeName": "elsewhere"}});
    assert_refused(
        &place
            .admin
            .patch(&place.core("pods/a"), "merge-patch+json", &moved)
            .await,
        422,
        "Invalid",
    );
}

async fn evictions_respect_budgets(place: Place) {
    place
        .make(&place.core("pods"), &pod("a", Some("no-such-node")))
        .await;
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(
        place
            .admin
            .patch(&place.core("pods/a/status"), "merge-patch+json", &running)
            .await
            .code,
        200
    );
    let budgets = format!(
        "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
        place.namespace
    );
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    place.make(&budgets, &budget).await;
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let refused = place
        .admin
        .post(&place.core("pods/a/eviction"), &eviction)
        .await;
    assert_refused(&refused, 429, "TooManyRequests");
    assert!(
        refused.headers.contains_key("retry-after"),
        "{}",
        refused.text
    );
    assert_eq!(place.admin.delete(&format!("{budgets}/b")).await.code, 200);
    assert_eq!(
        place
            .admin
            .post(&place.core("pods/a/eviction"), &eviction)
            .await
            .code,
        201
    );
    assert!(
        place.admin.get(&place.core("pods/a")).await.json()["metadata"]["deletionTimestamp"]
            .is_string()
    );
    assert_refused(
        &place
            .admin
            .post(&place.core("pods/none/eviction"), &eviction)
            .await,
        400,
        "BadRequest",
    );
    let nobody =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "none"}});
    assert_refused(
        &place
            .admin
            .post(&place.core("pods/none/eviction"), &nobody)
            .await,
        404,
        "NotFound",
    );
}

async fn dependents_go_with_their_owner(place: Place) {
    let owner = place.map("owner", json!({})).await;
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]);
    let mut dependent = config_map("dependent", json!({}));
    dependent["metadata"]["ownerReferences"] = reference.clone();
    place.make(&place.core("configmaps"), &dependent).await;
    let options = json!({"propagationPolicy": "Foreground"});
    assert_eq!(
        place
            .admin
            .send(Method::DELETE, &place.core("configmaps/owner"), &options)
            .await
            .code,
        200
    );
    place
        .admin
        .until(&place.core("configmaps/owner"), |reply| reply.code == 404)
        .await;
    assert_eq!(
        place
            .admin
            .get(&place.core("configmaps/dependent"))
            .await
            .code,
        404,
        "the owner goes last"
    );
    place.make(&place.core("configmaps"), &dependent).await;
    place
        .admin
        .until(&place.core("configmaps/dependent"), |reply| {
            reply.code == 404
        })
        .await;
}

async fn a_deleted_namespace_is_emptied(place: Place) {
    place.map("a", json!({})).await;
    let mut held = config_map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    place.make(&place.core("configmaps"), &held).await;
    let path = format!("/api/v1/namespaces/{}", place.namespace);
    assert_eq!(place.admin.delete(&path).await.code, 200);
    place
        .admin
        .until(&place.core("configmaps/a"), |reply| reply.code == 404)
        .await;
    assert_eq!(
        place.admin.get(&path).await.json()["status"]["phase"],
        "Terminating"
    );
    assert_refused(
        &place
            .admin
            .post(&place.core("configmaps"), &config_map("late", json!({})))
            .await,
        403,
        "Forbidden",
    );
    let none = json!({"metadata": {"finalizers": null}});
    assert_eq!(
        place
            .admin
            .patch(&place.core("configmaps/held"), "merge-patch+json", &none)
            .await
            .code,
        200
    );
    place.admin.until(&path, |reply| reply.code == 404).await;
}

async fn secrets_take_plain_text(place: Place) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hi"}});
    let made = place.make(&place.core("secrets"), &secret).await;
    assert_eq!(
        (&made["data"]["a"], &made["type"]),
        (&json!("aGk="), &json!("Opaque"))
    );
    assert!(made.get("stringData").is_none());
    let other = json!({"type": "example.com/other"});
    assert_refused(
        &place
            .admin
            .patch(&place.core("secrets/s"), "merge-patch+json", &other)
            .await,
        422,
        "Invalid",
    );
}

async fn dry_runs_change_nothing(place: Place) {
    let path = format!("{}?dryRun=All", place.core("configmaps"));
    assert_eq!(
        place
            .admin
            .post(&path, &config_map("a", json!({})))
            .await
            .code,
        201
    );
    assert_eq!(place.admin.get(&place.core("configmaps/a")).await.code, 404);
    place.map("a", json!({})).await;
    let one = format!("{}?dryRun=All", place.core("configmaps/a"));
    let patched = place
        .admin
        .patch(&one, "merge-patch+json", &json!({"data": {"a": "9"}}))
        .await
        .json();
    assert_eq!(patched["data"]["a"], "9");
    assert_eq!(place.admin.delete(&one).await.code, 200);
    assert_eq!(
        place.admin.get(&place.core("configmaps/a")).await.json()["data"]["a"],
        "1"
    );
}

async fn prints_tables(place: Place) {
    place.map("a", json!({"t": "1"})).await;
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let path = format!("{}?labelSelector=t%3D1", place.core("configmaps"));
    let table = place
        .admin
        .try_send(Method::GET, &path, &accept, &Value::Null)
        .await
        .unwrap()
        .json();
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        (table["kind"].as_str(), columns),
        (Some("Table"), vec!["Name", "Data", "Age"])
    );
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
}

async fn says_what_it_serves(place: Place) {
    let core = place.admin.get("/api/v1").await.json();
    let pods = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|resource| resource["name"] == "pods")
        .unwrap()
        .clone();
    assert_eq!(
        (&pods["kind"], &pods["namespaced"], &pods["shortNames"]),
        (&json!("Pod"), &json!(true), &json!(["po"]))
    );
    assert_eq!(
        place.admin.get("/apis/apps/v1").await.json()["groupVersion"],
        "apps/v1"
    );
    assert_eq!(
        place.admin.get("/apis/apps").await.json()["preferredVersion"]["version"],
        "v1"
    );
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    )];
    let aggregated = place
        .admin
        .try_send(Method::GET, "/apis", &accept, &Value::Null)
        .await
        .unwrap()
        .json();
    assert_eq!(aggregated["kind"], "APIGroupDiscoveryList");
    assert_eq!(place.admin.get("/version").await.json()["major"], "1");
    assert_eq!(place.admin.get("/healthz").await.text, "ok");
    assert_eq!(place.admin.get("/nonsense").await.code, 404);
}

async fn a_wrong_token_is_refused(place: Place) {
    let mut stranger = place.admin.clone();
    stranger.credentials.certificate = None;
    stranger.credentials.bearer = Some("aaaaaa.0123456789abcdef".into());
    assert_refused(&stranger.get("/healthz").await, 401, "Unauthorized");
}

macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        mod light {
            $(
                #[tokio::test]
                async fn $name() {
                    let dir = tempfile::TempDir::new().unwrap();
                    let world = super::kit::World::new(super::kit::quick(&dir)).await;
                    super::$name(super::Place::new(world.kube(), stringify!($name)).await).await;
                    world.cloud.stop().await;
                }
            )*
        }

        mod real {
            $(
                #[tokio::test]
                async fn $name() {
                    let control_plane = capstan_local::control_plane::shared().await.unwrap();
                    let admin = super::kit::from_kubeconfig(&control_plane.admin_kubeconfig());
                    super::$name(super::Place::new(admin, stringify!($name)).await).await;
                }
            )*
        }
    };
}

behaviours!(
    creates_an_object_once,
    makes_up_names,
    refuses_bad_objects,
    an_update_needs_the_latest_version,
    status_is_written_apart_and_generation_counts_the_spec,
    patches_in_every_way,
    strategic_patches_merge_conditions_and_replace_taints,
    applies_with_ownership,
    selects_by_labels_and_fields,
    lists_by_pages,
    watches_see_every_change,
    a_watch_can_begin_with_what_is_there,
    finalizers_hold_an_object,
    deletes_under_preconditions,
    deletes_collections,
    a_bound_pod_ends_gracefully,
    pods_are_bound_once_and_found_by_node,
    evictions_respect_budgets,
    dependents_go_with_their_owner,
    a_deleted_namespace_is_emptied,
    secrets_take_plain_text,
    dry_runs_change_nothing,
    prints_tables,
    says_what_it_serves,
    a_wrong_token_is_refused,
);
