//! One suite of API behaviours, run against a light workload cluster and against a real kube-apiserver, so that the first does not drift.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first surprise"
)]

#[path = "api_behaviours/deleting.rs"]
mod deleting;
#[path = "cloud/kit.rs"]
mod kit;
#[path = "api_behaviours/pods.rs"]
mod pods;
#[path = "api_behaviours/reading.rs"]
mod reading;
#[path = "api_behaviours/writing.rs"]
mod writing;

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

macro_rules! behaviours {
    ($($group:ident::$name:ident),* $(,)?) => {
        mod light {
            $(
                #[tokio::test]
                async fn $name() {
                    let dir = tempfile::TempDir::new().unwrap();
                    let world = super::kit::World::new(super::kit::quick(&dir)).await;
                    super::$group::$name(super::Place::new(world.kube(), stringify!($name)).await).await;
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
                    super::$group::$name(super::Place::new(admin, stringify!($name)).await).await;
                }
            )*
        }
    };
}

behaviours!(
    writing::creates_an_object_once,
    writing::makes_up_names,
    writing::refuses_bad_objects,
    writing::an_update_needs_the_latest_version,
    writing::status_is_written_apart_and_generation_counts_the_spec,
    writing::patches_in_every_way,
    writing::strategic_patches_merge_conditions_and_replace_taints,
    writing::applies_with_ownership,
    reading::selects_by_labels_and_fields,
    reading::lists_by_pages,
    reading::watches_see_every_change,
    reading::a_watch_can_begin_with_what_is_there,
    deleting::finalizers_hold_an_object,
    deleting::deletes_under_preconditions,
    deleting::deletes_collections,
    pods::a_bound_pod_ends_gracefully,
    pods::pods_are_bound_once_and_found_by_node,
    pods::evictions_respect_budgets,
    deleting::dependents_go_with_their_owner,
    deleting::a_deleted_namespace_is_emptied,
    writing::secrets_take_plain_text,
    writing::dry_runs_change_nothing,
    reading::prints_tables,
    reading::says_what_it_serves,
    reading::a_wrong_token_is_refused,
);
