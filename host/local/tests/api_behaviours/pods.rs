//! Pods: binding, graceful ends, evictions.

use http::Method;
use serde_json::json;

use crate::{Place, assert_refused, names, pod};

pub(crate) async fn a_bound_pod_ends_gracefully(place: Place) {
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

pub(crate) async fn pods_are_bound_once_and_found_by_node(place: Place) {
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

pub(crate) async fn evictions_respect_budgets(place: Place) {
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
