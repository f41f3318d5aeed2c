//! How an API server behaves as far as controllers depend on it: one set of behaviours for the simulated server and for a real one.

use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{
    ApiError, KubeApi, Patch, Preconditions, Resource, Selection, WatchEvent,
};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::object::{is_deleting, name, number, text, uid};

/// In whose name everything is written.
const MANAGER: &str = "behaviour";

/// How long what must come is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where behaviours are tried: a server with the host's kinds, and a namespace that holds nothing else.
pub struct Place<'a> {
    /// A client that may do everything.
    pub api: &'a dyn KubeApi,
    /// The namespace.
    pub namespace: &'a str,
}

impl Place<'_> {
    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace, name)
    }

    async fn create(&self, resource: &Resource, object: &Value) -> Result<Value, ApiError> {
        self.api
            .create(resource, self.namespace, object, MANAGER)
            .await
    }

    async fn patch(
        &self,
        resource: &Resource,
        name: &str,
        patch: Value,
    ) -> Result<Value, ApiError> {
        self.patch_part(resource, name, None, patch).await
    }

    async fn patch_part(
        &self,
        resource: &Resource,
        name: &str,
        subresource: Option<&str>,
        patch: Value,
    ) -> Result<Value, ApiError> {
        let key = self.key(name);
        self.api
            .patch(resource, &key, subresource, &Patch::Merge(patch), MANAGER)
            .await
    }

    async fn delete(
        &self,
        resource: &Resource,
        name: &str,
        uid: Option<&str>,
    ) -> Result<(), ApiError> {
        let preconditions = Preconditions {
            uid: uid.map(str::to_owned),
            resource_version: None,
        };
        self.api
            .delete(resource, &self.key(name), &preconditions)
            .await
    }

    async fn get(&self, resource: &Resource, name: &str) -> Result<Value, ApiError> {
        self.api.get(resource, &self.key(name)).await
    }
}

fn cluster(name: &str) -> Value {
    json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": name},
        "spec": {
            "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "SimCluster", "name": name},
        },
        "status": {"phase": "not the client's to say"},
    })
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

/// Creates once; the server says who, when and which version; a status is not taken; a namespace must exist.
pub async fn creates_an_object_once(place: &Place<'_>) {
    let made = place.create(&kinds::CLUSTER, &cluster("a")).await.unwrap();
    assert!(!uid(&made).is_empty());
    assert!(
        text(&made, "/metadata/resourceVersion")
            .parse::<u64>()
            .is_ok()
    );
    assert!(!text(&made, "/metadata/creationTimestamp").is_empty());
    assert_eq!(number(&made, "/metadata/generation"), Some(1));
    assert_eq!(made.get("status"), None);
    let again = place.create(&kinds::CLUSTER, &cluster("a")).await;
    assert!(
        matches!(again, Err(ApiError::AlreadyExists(_))),
        "{again:?}"
    );
    let nowhere = place
        .api
        .create(&kinds::CLUSTER, "nowhere", &cluster("a"), MANAGER)
        .await;
    assert!(matches!(nowhere, Err(ApiError::NotFound(_))), "{nowhere:?}");
    let none = place.get(&kinds::CLUSTER, "none").await;
    assert!(matches!(none, Err(ApiError::NotFound(_))), "{none:?}");
    let unknown = Resource::namespaced("nobody.example.com", "v1", "Thing", "things");
    let unknown = place
        .api
        .list(&unknown, &Selection::default(), 500, None)
        .await;
    assert!(matches!(unknown, Err(ApiError::NotServed(_))), "not served");
}

/// Defaults of the schema are filled in, at creation and later; a null is the same as nothing.
pub async fn fills_in_defaults(place: &Place<'_>) {
    let machine = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "metadata": {"name": "a"},
        "spec": {
            "clusterName": "a", "version": null, "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "SimMachine", "name": "a"},
        },
    });
    let made = place.create(&kinds::MACHINE, &machine).await.unwrap();
    assert_eq!(
        made["spec"]["deletion"],
        json!({"nodeDeletionTimeoutSeconds": 10})
    );
    assert_eq!(made["spec"].get("version"), None);
    let patch = json!({"spec": {"deletion": {"nodeDrainTimeoutSeconds": 5, "nodeDeletionTimeoutSeconds": null}}});
    let patched = place.patch(&kinds::MACHINE, "a", patch).await.unwrap();
    assert_eq!(
        patched["spec"]["deletion"],
        json!({"nodeDeletionTimeoutSeconds": 10, "nodeDrainTimeoutSeconds": 5})
    );
}

/// A patch of what was not the latest is a conflict, and one of another object of the same name is not valid. One that changes
/// nothing makes no new version.
pub async fn patches_under_preconditions(place: &Place<'_>) {
    let made = place
        .create(&kinds::CONFIG_MAP, &config_map("a"))
        .await
        .unwrap();
    let old = text(&made, "/metadata/resourceVersion");
    let first = json!({"metadata": {"resourceVersion": old}, "data": {"a": "2", "b": "1"}});
    let patched = place
        .patch(&kinds::CONFIG_MAP, "a", first.clone())
        .await
        .unwrap();
    assert_ne!(
        patched["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let late = place.patch(&kinds::CONFIG_MAP, "a", first).await;
    assert!(matches!(late, Err(ApiError::Conflict(_))), "{late:?}");
    let other =
        json!({"metadata": {"uid": "11111111-2222-4333-8444-555555555555"}, "data": {"a": "3"}});
    let other = place.patch(&kinds::CONFIG_MAP, "a", other).await;
    assert!(matches!(other, Err(ApiError::Invalid(_))), "{other:?}");
    let same = place
        .patch(&kinds::CONFIG_MAP, "a", json!({"data": {"a": "2"}}))
        .await
        .unwrap();
    assert_eq!(
        same["metadata"]["resourceVersion"],
        patched["metadata"]["resourceVersion"]
    );
    let less = place
        .patch(&kinds::CONFIG_MAP, "a", json!({"data": {"b": null}}))
        .await
        .unwrap();
    assert_eq!(less["data"], json!({"a": "2"}));
    let none = place
        .patch(&kinds::CONFIG_MAP, "none", json!({"data": {}}))
        .await;
    assert!(matches!(none, Err(ApiError::NotFound(_))), "{none:?}");
}

/// The status is written apart, and the generation counts changes of the spec.
pub async fn a_status_is_written_apart(place: &Place<'_>) {
    place.create(&kinds::CLUSTER, &cluster("a")).await.unwrap();
    let both = json!({"spec": {"paused": true}, "status": {"phase": "Pending"}});
    let patched = place
        .patch(&kinds::CLUSTER, "a", both.clone())
        .await
        .unwrap();
    assert_eq!(patched.get("status"), None);
    assert_eq!(number(&patched, "/metadata/generation"), Some(2));
    let spec = json!({"spec": {"paused": false}, "status": {"phase": "Pending"}});
    let patched = place
        .patch_part(&kinds::CLUSTER, "a", Some("status"), spec)
        .await
        .unwrap();
    assert_eq!(patched["status"]["phase"], "Pending");
    assert_eq!(patched["spec"]["paused"], true);
    assert_eq!(number(&patched, "/metadata/generation"), Some(2));
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = place.patch(&kinds::CLUSTER, "a", labelled).await.unwrap();
    assert_eq!(number(&patched, "/metadata/generation"), Some(2));
    assert_eq!(patched["status"]["phase"], "Pending");
    let late = json!({"metadata": {"resourceVersion": "1"}, "status": {"phase": "Failed"}});
    let late = place
        .patch_part(&kinds::CLUSTER, "a", Some("status"), late)
        .await;
    assert!(matches!(late, Err(ApiError::Conflict(_))), "{late:?}");
}

/// Finalizers hold an object that is being deleted; none can be added then; the last one that goes takes it along.
pub async fn finalizers_hold_an_object(place: &Place<'_>) {
    let mut object = cluster("a");
    object["metadata"]["finalizers"] = json!(["example.com/one", "example.com/two"]);
    let made = place.create(&kinds::CLUSTER, &object).await.unwrap();
    let other = place
        .delete(
            &kinds::CLUSTER,
            "a",
            Some("11111111-2222-4333-8444-555555555555"),
        )
        .await;
    assert!(matches!(other, Err(ApiError::Conflict(_))), "{other:?}");
    place
        .delete(&kinds::CLUSTER, "a", Some(uid(&made)))
        .await
        .unwrap();
    let held = place.get(&kinds::CLUSTER, "a").await.unwrap();
    assert!(is_deleting(&held));
    assert_eq!(number(&held, "/metadata/generation"), Some(2));
    place.delete(&kinds::CLUSTER, "a", None).await.unwrap();
    let again = place.get(&kinds::CLUSTER, "a").await.unwrap();
    assert_eq!(
        held["metadata"]["deletionTimestamp"], again["metadata"]["deletionTimestamp"],
        "deleting twice changes nothing"
    );
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/three"]}});
    let more = place.patch(&kinds::CLUSTER, "a", more).await;
    assert!(matches!(more, Err(ApiError::Invalid(_))), "{more:?}");
    let fewer = json!({"metadata": {"finalizers": ["example.com/two"]}});
    place.patch(&kinds::CLUSTER, "a", fewer).await.unwrap();
    let none = json!({"metadata": {"finalizers": []}});
    let last = place.patch(&kinds::CLUSTER, "a", none).await.unwrap();
    assert_eq!(
        name(&last),
        "a",
        "the last patch is answered with the object"
    );
    let gone = place.get(&kinds::CLUSTER, "a").await;
    assert!(matches!(gone, Err(ApiError::NotFound(_))), "{gone:?}");
    let gone = place.delete(&kinds::CLUSTER, "a", None).await;
    assert!(matches!(gone, Err(ApiError::NotFound(_))), "{gone:?}");
}

/// A list has a version from which a watch goes on, and the watch brings every change in order; a deletion comes as the object last
/// was, with a version of its own.
pub async fn a_watch_goes_on_where_a_list_ended(place: &Place<'_>) {
    place
        .create(&kinds::CONFIG_MAP, &config_map("a"))
        .await
        .unwrap();
    let selection = Selection {
        namespace: Some(place.namespace.to_owned()),
        ..Selection::default()
    };
    let page = place
        .api
        .list(&kinds::CONFIG_MAP, &selection, 500, None)
        .await
        .unwrap();
    assert!(
        page.items
            .iter()
            .any(|item| name(item) == "a" && item["kind"] == "ConfigMap")
    );
    place
        .create(&kinds::CONFIG_MAP, &config_map("b"))
        .await
        .unwrap();
    place
        .patch(&kinds::CONFIG_MAP, "b", json!({"data": {"a": "2"}}))
        .await
        .unwrap();
    place.delete(&kinds::CONFIG_MAP, "b", None).await.unwrap();
    let watch = place
        .api
        .watch(&kinds::CONFIG_MAP, &selection, &page.resource_version);
    let mut events = watch.await.unwrap();
    let mut seen: Vec<(&str, String, u64)> = Vec::new();
    while seen.len() < 3 {
        let event = tokio::time::timeout(PATIENCE, events.next())
            .await
            .unwrap()
            .unwrap();
        let (what, object) = match event.unwrap() {
            WatchEvent::Applied(object) => ("applied", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            WatchEvent::Bookmark(_) => continue,
        };
        if name(&object) != "b" {
            continue;
        }
        let version = text(&object, "/metadata/resourceVersion").parse().unwrap();
        seen.push((what, text(&object, "/data/a").to_owned(), version));
    }
    let told: Vec<(&str, &str)> = seen
        .iter()
        .map(|(what, a, _)| (*what, a.as_str()))
        .collect();
    assert_eq!(told, [("applied", "1"), ("applied", "2"), ("deleted", "2")]);
    assert!(
        seen.is_sorted_by_key(|(_, _, version)| *version),
        "{seen:?}"
    );
}

/// A watch that selects by label sees an object go that loses the label.
pub async fn what_is_no_longer_selected_is_deleted_to_a_watch(place: &Place<'_>) {
    let selection = Selection {
        namespace: Some(place.namespace.to_owned()),
        labels: Some("wanted".to_owned()),
        metadata_only: true,
        ..Selection::default()
    };
    let page = place
        .api
        .list(&kinds::CONFIG_MAP, &selection, 500, None)
        .await
        .unwrap();
    assert!(page.items.is_empty());
    let mut object = config_map("a");
    object["metadata"]["labels"] = json!({"wanted": "yes"});
    place.create(&kinds::CONFIG_MAP, &object).await.unwrap();
    place
        .patch(
            &kinds::CONFIG_MAP,
            "a",
            json!({"metadata": {"labels": null}}),
        )
        .await
        .unwrap();
    let watch = place
        .api
        .watch(&kinds::CONFIG_MAP, &selection, &page.resource_version);
    let mut events = watch.await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match tokio::time::timeout(PATIENCE, events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            WatchEvent::Applied(object) => {
                assert_eq!(object.get("data"), None, "metadata only");
                seen.push("applied");
            }
            WatchEvent::Deleted(_) => seen.push("deleted"),
            WatchEvent::Bookmark(_) => {}
        }
    }
    assert_eq!(seen, ["applied", "deleted"]);
}

/// What has no owner any more is deleted in the background; what has another one stays.
pub async fn dependents_go_with_their_owners(place: &Place<'_>) {
    let one = place
        .create(&kinds::CONFIG_MAP, &config_map("one"))
        .await
        .unwrap();
    let two = place
        .create(&kinds::CONFIG_MAP, &config_map("two"))
        .await
        .unwrap();
    let reference = |owner: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name(owner), "uid": uid(owner)});
    let mut of_one = config_map("of-one");
    of_one["metadata"]["ownerReferences"] = json!([reference(&one)]);
    let mut of_both = config_map("of-both");
    of_both["metadata"]["ownerReferences"] = json!([reference(&one), reference(&two)]);
    place.create(&kinds::CONFIG_MAP, &of_one).await.unwrap();
    place.create(&kinds::CONFIG_MAP, &of_both).await.unwrap();
    place.delete(&kinds::CONFIG_MAP, "one", None).await.unwrap();
    let until_gone = async {
        while place.get(&kinds::CONFIG_MAP, "of-one").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_gone)
        .await
        .expect("of-one goes");
    assert!(place.get(&kinds::CONFIG_MAP, "of-both").await.is_ok());
}

/// Calls this macro with the names of all behaviours.
#[macro_export]
macro_rules! behaviours {
    ($macro:ident) => {
        $macro! {
            creates_an_object_once,
            fills_in_defaults,
            patches_under_preconditions,
            a_status_is_written_apart,
            finalizers_hold_an_object,
            a_watch_goes_on_where_a_list_ended,
            what_is_no_longer_selected_is_deleted_to_a_watch,
            dependents_go_with_their_owners,
        }
    };
}
