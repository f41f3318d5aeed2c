//! How objects go: finalizers, preconditions, collections, dependents, namespaces.

use http::Method;
use serde_json::{Value, json};

use crate::{Place, assert_refused, config_map, names};

pub(crate) async fn finalizers_hold_an_object(place: Place) {
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

pub(crate) async fn deletes_under_preconditions(place: Place) {
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

pub(crate) async fn deletes_collections(place: Place) {
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

pub(crate) async fn dependents_go_with_their_owner(place: Place) {
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

pub(crate) async fn a_deleted_namespace_is_emptied(place: Place) {
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
