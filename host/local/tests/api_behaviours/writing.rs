//! Creating, updating and patching objects.

use serde_json::{Value, json};

use crate::{Place, assert_refused, config_map, deployment, pod};

pub(crate) async fn creates_an_object_once(place: Place) {
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

pub(crate) async fn makes_up_names(place: Place) {
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

pub(crate) async fn refuses_bad_objects(place: Place) {
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

pub(crate) async fn an_update_needs_the_latest_version(place: Place) {
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

pub(crate) async fn status_is_written_apart_and_generation_counts_the_spec(place: Place) {
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

pub(crate) async fn patches_in_every_way(place: Place) {
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

pub(crate) async fn strategic_patches_merge_conditions_and_replace_taints(place: Place) {
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

pub(crate) async fn applies_with_ownership(place: Place) {
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

pub(crate) async fn secrets_take_plain_text(place: Place) {
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

pub(crate) async fn dry_runs_change_nothing(place: Place) {
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
