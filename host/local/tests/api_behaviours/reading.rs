//! Selecting, paging, watching, printing, and what a server says of itself.

use http::Method;
use serde_json::{Value, json};

use crate::{Place, assert_refused, names};

pub(crate) async fn selects_by_labels_and_fields(place: Place) {
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

pub(crate) async fn lists_by_pages(place: Place) {
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

pub(crate) async fn watches_see_every_change(place: Place) {
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

pub(crate) async fn a_watch_can_begin_with_what_is_there(place: Place) {
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

pub(crate) async fn prints_tables(place: Place) {
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

pub(crate) async fn says_what_it_serves(place: Place) {
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

pub(crate) async fn a_wrong_token_is_refused(place: Place) {
    let mut stranger = place.admin.clone();
    stranger.credentials.certificate = None;
    stranger.credentials.bearer = Some("aaaaaa.0123456789abcdef".into());
    assert_refused(&stranger.get("/healthz").await, 401, "Unauthorized");
}
