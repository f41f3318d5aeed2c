//! ClusterResourceSets: manifests in the management cluster become objects in workload clusters, once or for good.

use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CLUSTER_RESOURCE_SET, CLUSTER_RESOURCE_SET_BINDING, CONFIG_MAP, Kube, NAMESPACE,
    SECRET, condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

/// A ConfigMap in a workload cluster, as a manifest.
fn manifest(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\ndata:\n  value: \"{value}\"\n"
    )
}

async fn put(kube: &Kube, namespace: &str, name: &str, text: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": {"manifests.yaml": text},
    });
    kube.apply(CONFIG_MAP, &map).await;
}

async fn resource_set(
    kube: &Kube,
    namespace: &str,
    name: &str,
    strategy: &str,
    annotations: Value,
    resources: &[(&str, &str)],
) {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(kind, name)| json!({"kind": kind, "name": name}))
        .collect();
    let set = json!({
        "apiVersion": CLUSTER_RESOURCE_SET.api_version, "kind": "ClusterResourceSet",
        "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
        "spec": {
            "strategy": strategy, "resources": resources,
            "clusterSelector": {"matchLabels": {"addons": "yes"}},
        },
    });
    kube.apply(CLUSTER_RESOURCE_SET, &set).await;
}

async fn applied(kube: &Kube, namespace: &str, name: &str, status: &str, words: &str) {
    let what = format!("ClusterResourceSet {name}: {status} {words:?}");
    eventually(&what, PATIENCE, async || {
        let set = kube.get(CLUSTER_RESOURCE_SET, namespace, name).await;
        let set = set.ok_or("it does not exist")?;
        let found = condition(&set, "ResourcesApplied");
        let says = found.reason == words || set["status"].to_string().contains(words);
        if found.status == status && says {
            return Ok(());
        }
        Err(format!("{} {}", conditions(&set), set["status"]))
    })
    .await;
}

/// A ConfigMap of the workload cluster has this value, or does not exist.
async fn has(workload: &Kube, name: &str, value: Option<&str>) {
    let what = format!("ConfigMap {name} is {value:?}");
    eventually(&what, PATIENCE, async || {
        let map = workload.get(CONFIG_MAP, "default", name).await;
        let found = map.map(|map| map["data"]["value"].as_str().unwrap_or_default().to_owned());
        (found.as_deref() == value)
            .then_some(())
            .ok_or(format!("{found:?}"))
    })
    .await;
}

async fn labelled_cluster(host: &TestHost, namespace: &str) -> (TestCluster, Kube) {
    let cluster = TestCluster::new(namespace, namespace, 0);
    cluster.create(host.kube()).await;
    cluster.available(host, 0).await;
    let label = json!({"metadata": {"labels": {"addons": "yes"}}});
    host.kube()
        .merge(CLUSTER, namespace, namespace, &label)
        .await;
    let workload = cluster.workload(host.kube()).await;
    (cluster, workload)
}

#[test]
fn manifests_are_applied_once_or_kept_applied_and_pruned() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, namespace) = (host.kube(), "addons");
        let (cluster, workload) = labelled_cluster(host, namespace).await;
        put(kube, namespace, "once", &manifest("once", "1")).await;
        put(kube, namespace, "kept", &manifest("kept", "1")).await;
        put(kube, namespace, "more", &manifest("more", "1")).await;
        resource_set(
            kube,
            namespace,
            "once",
            "ApplyOnce",
            json!({}),
            &[("ConfigMap", "once")],
        )
        .await;
        let prunes = json!({"capstan.dev/prune": "true"});
        let both = [("ConfigMap", "kept"), ("ConfigMap", "more")];
        resource_set(kube, namespace, "kept", "Reconcile", prunes.clone(), &both).await;
        for name in ["once", "kept"] {
            applied(kube, namespace, name, "True", "Applied").await;
        }
        for name in ["once", "kept", "more"] {
            has(&workload, name, Some("1")).await;
        }
        let binding = kube
            .get(CLUSTER_RESOURCE_SET_BINDING, namespace, namespace)
            .await
            .unwrap();
        assert_eq!(binding["spec"]["clusterName"], namespace);
        assert_eq!(binding["spec"]["bindings"].as_array().unwrap().len(), 2);
        let entry = &binding["spec"]["bindings"][0]["resources"][0];
        assert_eq!(entry["applied"], true, "{binding}");
        assert!(entry["hash"].as_str().unwrap().starts_with("sha256:"));

        put(kube, namespace, "kept", &manifest("kept", "2")).await;
        has(&workload, "kept", Some("2")).await;
        put(kube, namespace, "once", &manifest("once", "2")).await;
        // What is in no resource any more goes, also when the resource stays.
        put(kube, namespace, "more", &manifest("moved", "1")).await;
        has(&workload, "moved", Some("1")).await;
        has(&workload, "more", None).await;
        has(&workload, "once", Some("1")).await;

        // Without the set the objects stay, and the binding keeps the other.
        kube.delete(CLUSTER_RESOURCE_SET, namespace, "kept").await;
        eventually("the set is gone from the binding", PATIENCE, async || {
            let set = kube.get(CLUSTER_RESOURCE_SET, namespace, "kept").await;
            let binding = kube
                .get(CLUSTER_RESOURCE_SET_BINDING, namespace, namespace)
                .await
                .unwrap();
            let names: Vec<&Value> = binding["spec"]["bindings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| &entry["clusterResourceSetName"])
                .collect();
            (set.is_none() && names == ["once"])
                .then_some(())
                .ok_or(format!("{names:?}"))
        })
        .await;
        has(&workload, "kept", Some("2")).await;
        cluster.delete(host).await;
        eventually("the binding goes with its Cluster", PATIENCE, async || {
            let left = kube.list(CLUSTER_RESOURCE_SET_BINDING, namespace).await;
            left.is_empty().then_some(()).ok_or(format!("{left:?}"))
        })
        .await;
    });
}

#[test]
fn what_cannot_be_applied_is_said_by_resource_and_comes_when_it_can() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, namespace) = (host.kube(), "addons-bad");
        let (cluster, workload) = labelled_cluster(host, namespace).await;
        let secret = |type_: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": type_,
                "metadata": {"namespace": namespace, "name": "secret"},
                "stringData": {"a.yaml": manifest("secret", "1")},
            })
        };
        kube.apply(SECRET, &secret("Opaque")).await;
        let in_namespace =
            manifest("inside", "1").replace("namespace: default", "namespace: later");
        put(kube, namespace, "inside", &in_namespace).await;
        put(kube, namespace, "good", &manifest("good", "1")).await;
        let resources = [
            ("Secret", "secret"),
            ("ConfigMap", "inside"),
            ("ConfigMap", "missing"),
            ("ConfigMap", "good"),
        ];
        resource_set(kube, namespace, "set", "Reconcile", json!({}), &resources).await;
        applied(kube, namespace, "set", "False", "WrongSecretType").await;
        has(&workload, "good", Some("1")).await;
        has(&workload, "secret", None).await;
        for words in ["ConfigMap/missing", "ConfigMap/inside"] {
            applied(kube, namespace, "set", "False", words).await;
        }
        kube.delete(SECRET, namespace, "secret").await;
        kube.apply(SECRET, &secret("addons.cluster.x-k8s.io/resource-set"))
            .await;
        put(kube, namespace, "missing", &manifest("missing", "1")).await;
        applied(kube, namespace, "set", "False", "NotApplied").await;
        has(&workload, "secret", Some("1")).await;
        let later = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}});
        workload.apply(NAMESPACE, &later).await;
        applied(kube, namespace, "set", "True", "Applied").await;
        has(&workload, "missing", Some("1")).await;
        kube.delete(SECRET, namespace, "secret").await;
        cluster.delete(host).await;
    });
}

#[test]
fn resources_wait_for_those_before_them_and_drift_is_corrected() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, namespace) = (host.kube(), "addons-order");
        let (cluster, workload) = labelled_cluster(host, namespace).await;
        put(kube, namespace, "first", &manifest("first", "1")).await;
        put(kube, namespace, "last", &manifest("last", "1")).await;
        let annotations = json!({
            "capstan.dev/wait-for-ready": "true", "capstan.dev/drift": "Correct",
            "capstan.dev/drift-check-seconds": "5",
        });
        let resources = [
            ("ConfigMap", "first"),
            ("ConfigMap", "middle"),
            ("ConfigMap", "last"),
        ];
        resource_set(kube, namespace, "set", "Reconcile", annotations, &resources).await;
        has(&workload, "first", Some("1")).await;
        applied(kube, namespace, "set", "False", "ConfigMap/middle").await;
        has(&workload, "last", None).await;
        put(kube, namespace, "middle", &manifest("middle", "1")).await;
        has(&workload, "last", Some("1")).await;
        applied(kube, namespace, "set", "True", "Applied").await;
        // Somebody changes what was applied.
        let changed = json!({"data": {"value": "changed"}});
        workload
            .merge(CONFIG_MAP, "default", "first", &changed)
            .await;
        has(&workload, "first", Some("1")).await;
        cluster.delete(host).await;
    });
}
