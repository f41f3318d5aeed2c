//! Pre-delete hooks that an operator bound: asked in order, before drain and termination, beside foreign annotations.

use capstan_tests::cluster::TestCluster;
use capstan_tests::endpoint::Endpoint;
use capstan_tests::host::{NAMESPACE, TestHost};
use capstan_tests::kube_client::{
    DEPLOYMENT, EVENT, Kube, LOCAL_MACHINE, MACHINE, MACHINE_HOOK, NODE, PLUGIN, condition,
    conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

/// A host that has a hook plugin with permission to ask the endpoint.
async fn host_with_hook(plugin_name: &str, endpoint: &Endpoint) -> TestHost {
    let host = TestHost::start().await;
    host.put_plugin(plugin_name, &wasm::gzip(&wasm::component(plugin_name)))
        .await;
    let plugin = json!({
        "apiVersion": PLUGIN.api_version, "kind": "Plugin",
        "metadata": {"namespace": NAMESPACE, "name": plugin_name},
        "spec": {
            "source": {"configMap": {"name": plugin_name}},
            "grants": [{
                "capability": "http",
                "http": {"origins": [{"origin": endpoint.origin(), "private": true}]},
            }],
        },
    });
    host.kube().apply(PLUGIN, &plugin).await;
    host.plugin_ready(plugin_name).await;
    host
}

/// A binding of the workers of a cluster to a path of the endpoint.
async fn bind(
    host: &TestHost,
    cluster: &TestCluster,
    name: &str,
    endpoint: &Endpoint,
    spec: Value,
) {
    let mut all = json!({
        "plugin": "pre-delete-http",
        "namespaces": [cluster.namespace],
        "machineSelector": {"matchLabels": {"cluster.x-k8s.io/deployment-name": cluster.deployment()}},
        "config": {"url": format!("{}/{name}", endpoint.origin())},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let hook = json!({
        "apiVersion": MACHINE_HOOK.api_version, "kind": "MachineHook",
        "metadata": {"namespace": NAMESPACE, "name": name}, "spec": all,
    });
    host.kube().apply(MACHINE_HOOK, &hook).await;
}

async fn a_worker(host: &TestHost, cluster: &TestCluster) -> Value {
    cluster.workers(host.kube()).await.remove(0)
}

/// Waits until the Machine says this.
async fn says(host: &TestHost, machine: &Value, type_: &str, reason: &str) -> Value {
    let namespace = machine["metadata"]["namespace"].as_str().unwrap();
    eventually(&format!("{type_} is {reason}"), PATIENCE, async || {
        let object = host.kube().get(MACHINE, namespace, &name(machine)).await;
        let object = object.ok_or("the Machine is gone")?;
        let said = condition(&object, type_);
        (said.reason == reason)
            .then(|| object.clone())
            .ok_or(conditions(&object))
    })
    .await
}

/// A cluster with one worker.
async fn available(host: &TestHost, namespace: &str, name: &str) -> TestCluster {
    let cluster = TestCluster::new(namespace, name, 1);
    cluster.create(host.kube()).await;
    cluster.available(host, 1).await;
    cluster
}

#[test]
fn bound_hooks_are_asked_in_order_beside_foreign_annotations() {
    run(async {
        let endpoint = Endpoint::start().await;
        let host = host_with_hook("pre-delete-http", &endpoint).await;
        let kube = host.kube();
        let cluster = available(&host, "hooks", "hooks").await;
        bind(
            &host,
            &cluster,
            "b-first",
            &endpoint,
            json!({"phase": "PreDrain", "order": -1}),
        )
        .await;
        bind(
            &host,
            &cluster,
            "a-second",
            &endpoint,
            json!({"phase": "PreDrain"}),
        )
        .await;
        bind(
            &host,
            &cluster,
            "last",
            &endpoint,
            json!({"phase": "PreTerminate"}),
        )
        .await;
        let machine = a_worker(&host, &cluster).await;
        let foreign = "pre-drain.delete.hook.machine.cluster.x-k8s.io/theirs";
        let annotate = |value: Value| json!({"metadata": {"annotations": {foreign: value}}});
        kube.merge(
            MACHINE,
            &cluster.namespace,
            &name(&machine),
            &annotate(json!("them")),
        )
        .await;
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;

        let waiting = says(&host, &machine, "PreDrainHooksSucceeded", "WaitingForHook").await;
        let deleting = condition(&waiting, "Deleting");
        assert_eq!(deleting.reason, "WaitingForPreDrainHook");
        assert_eq!(
            deleting.message,
            "Waiting for pre-drain hooks to succeed (hooks: pre-drain.delete.hook.machine.cluster.x-k8s.io/theirs,b-first,a-second)"
        );
        let said = condition(&waiting, "PreDrainHooksSucceeded").message;
        assert!(
            said.starts_with("* b-first (plugin pre-delete-http): waits since "),
            "{said}"
        );
        assert!(
            said.contains("not yet") && said.ends_with("waits for its turn"),
            "{said}"
        );
        assert!(waiting["status"]["deletion"]["waitForPreDrainHookStartTime"].is_string());
        eventually("the hook shows who waits", PATIENCE, async || {
            let hook = kube.get(MACHINE_HOOK, NAMESPACE, "b-first").await.unwrap();
            let first = &hook["status"]["waiting"][0];
            let shown = first["machine"] == name(&machine).as_str()
                && first["since"].is_string()
                && hook["status"]["waitingMachines"] == 1
                && condition(&hook, "Ready").status == "True";
            shown.then_some(()).ok_or(hook["status"].to_string())
        })
        .await;
        assert_eq!(endpoint.asked(), ["/b-first"]);

        endpoint.answers("/b-first", 200);
        endpoint.answers("/a-second", 200);
        says(&host, &machine, "PreDrainHooksSucceeded", "HooksSucceeded").await;
        assert_eq!(endpoint.asked(), ["/b-first", "/a-second"]);
        let held = says(&host, &machine, "Deleting", "WaitingForPreDrainHook").await;
        assert!(held["status"]["deletion"]["nodeDrainStartTime"].is_null());
        let node = machine["status"]["nodeRef"]["name"].as_str().unwrap();
        let workload = cluster.workload(kube).await;
        assert!(workload.get(NODE, "", node).await.unwrap()["spec"]["unschedulable"].is_null());

        kube.merge(
            MACHINE,
            &cluster.namespace,
            &name(&machine),
            &annotate(Value::Null),
        )
        .await;
        let held = says(&host, &machine, "Deleting", "WaitingForPreTerminateHook").await;
        assert!(held["status"]["deletion"]["nodeDrainStartTime"].is_string());
        says(
            &host,
            &machine,
            "PreTerminateHooksSucceeded",
            "WaitingForHook",
        )
        .await;
        let infra = kube
            .get(LOCAL_MACHINE, &cluster.namespace, &name(&machine))
            .await;
        assert!(infra.unwrap()["metadata"]["deletionTimestamp"].is_null());
        endpoint.answers("/last", 204);
        cluster.loses(kube, &name(&machine)).await;
        assert_eq!(endpoint.asked(), ["/b-first", "/a-second", "/last"]);
        let events = kube.list(EVENT, &cluster.namespace).await;
        for reason in ["HookWaiting", "HookProceeded"] {
            assert!(
                events.iter().any(|event| event["reason"] == reason),
                "{reason}"
            );
        }
        for hook in ["b-first", "a-second", "last"] {
            kube.delete(MACHINE_HOOK, NAMESPACE, hook).await;
        }
        cluster.delete(&host).await;
    });
}

#[test]
fn silence_failure_and_the_end_of_the_cluster_mean_what_the_operator_said() {
    run(async {
        let endpoint = Endpoint::start().await;
        let host = host_with_hook("pre-delete-http", &endpoint).await;
        let kube = host.kube();
        let cluster = available(&host, "hook-policies", "hook-policies").await;
        let lenient = json!({"phase": "PreDrain", "timeoutSeconds": 2, "onTimeout": "Proceed"});
        bind(&host, &cluster, "slow", &endpoint, lenient).await;
        endpoint.answers("/refused", 404);
        let lenient = json!({"phase": "PreDrain", "order": 1, "onFailure": "Proceed"});
        bind(&host, &cluster, "refused", &endpoint, lenient).await;
        let missing = json!({"phase": "PreTerminate", "plugin": "nobody", "onFailure": "Proceed"});
        bind(&host, &cluster, "missing", &endpoint, missing).await;
        let machine = a_worker(&host, &cluster).await;
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        says(&host, &machine, "Deleting", "WaitingForPreTerminateHook").await;
        let held = says(
            &host,
            &machine,
            "PreTerminateHooksSucceeded",
            "HookNotAvailable",
        )
        .await;
        let said = condition(&held, "PreDrainHooksSucceeded").message;
        assert!(
            said.contains("slow (plugin pre-delete-http): gave no answer in time"),
            "{said}"
        );
        assert!(
            said.contains("refused (plugin pre-delete-http): failed, passed over"),
            "{said}"
        );
        let hook = kube.get(MACHINE_HOOK, NAMESPACE, "missing").await.unwrap();
        assert_eq!(condition(&hook, "Ready").reason, "PluginNotFound");
        // A binding that goes lets go.
        kube.delete(MACHINE_HOOK, NAMESPACE, "missing").await;
        cluster.loses(kube, &name(&machine)).await;
        cluster.available(&host, 1).await;
        // Hooks before the drain are left out when the Cluster goes; one before termination is left out on request.
        for hook in ["slow", "refused"] {
            kube.delete(MACHINE_HOOK, NAMESPACE, hook).await;
        }
        bind(
            &host,
            &cluster,
            "drains",
            &endpoint,
            json!({"phase": "PreDrain"}),
        )
        .await;
        let skip = json!({"phase": "PreTerminate", "onClusterDeletion": "Skip"});
        bind(&host, &cluster, "skips", &endpoint, skip).await;
        cluster.delete(&host).await;
        let asked = endpoint.asked();
        assert!(
            !asked
                .iter()
                .any(|path| path == "/drains" || path == "/skips"),
            "{asked:?}"
        );
    });
}

/// Says how many replicas of a Deployment are ready, as its controller would.
async fn replicas_ready(workload: &Kube, name: &str, ready: u32) {
    let path = format!("{}/status", DEPLOYMENT.path("default", Some(name)));
    let status = json!({"status": {"readyReplicas": ready, "observedGeneration": 1}});
    let patch = "application/merge-patch+json";
    let answer = workload.send(http::Method::PATCH, &path, patch, Some(&status));
    answer.await.unwrap();
}

#[test]
fn a_machine_waits_while_a_workload_of_its_cluster_has_too_few_ready_replicas() {
    run(async {
        const PLUGIN_NAME: &str = "pre-delete-workload-check";
        let host = TestHost::start().await;
        let kube = host.kube();
        let component = wasm::gzip(&wasm::component(PLUGIN_NAME));
        host.put_plugin(PLUGIN_NAME, &component).await;
        let plugin = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": PLUGIN_NAME},
            "spec": {
                "source": {"configMap": {"name": PLUGIN_NAME}},
                "grants": [{"capability": "workload", "workload": [
                    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
                ]}],
            },
        });
        kube.apply(PLUGIN, &plugin).await;
        host.plugin_ready(PLUGIN_NAME).await;
        let cluster = available(&host, "hooks-workload", "checked").await;
        let workload = cluster.workload(kube).await;
        let deployment = json!({
            "apiVersion": DEPLOYMENT.api_version, "kind": "Deployment",
            "metadata": {"namespace": "default", "name": "shop", "labels": {"app": "shop"}},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "shop"}},
                "template": {
                    "metadata": {"labels": {"app": "shop"}},
                    "spec": {"containers": [{"name": "shop", "image": "shop"}]},
                },
            },
        });
        workload.try_create(DEPLOYMENT, &deployment).await.unwrap();
        replicas_ready(&workload, "shop", 1).await;
        let hook = json!({
            "apiVersion": MACHINE_HOOK.api_version, "kind": "MachineHook",
            "metadata": {"namespace": NAMESPACE, "name": "shop-is-whole"},
            "spec": {
                "plugin": PLUGIN_NAME, "phase": "PreDrain", "namespaces": [cluster.namespace],
                "config": {"labelSelector": "app=shop", "kinds": ["Deployment"]},
            },
        });
        kube.apply(MACHINE_HOOK, &hook).await;
        let machine = a_worker(&host, &cluster).await;
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        let waiting = says(&host, &machine, "PreDrainHooksSucceeded", "WaitingForHook").await;
        let message = condition(&waiting, "PreDrainHooksSucceeded").message;
        assert!(
            message.contains("Deployment default/shop has 1 of 2 replicas ready"),
            "{message}"
        );
        replicas_ready(&workload, "shop", 2).await;
        cluster.loses(kube, &name(&machine)).await;
        kube.delete(MACHINE_HOOK, NAMESPACE, "shop-is-whole").await;
        cluster.delete(&host).await;
    });
}

#[test]
fn a_machine_waits_for_a_snapshot_of_its_instance_which_is_taken_once() {
    run(async {
        let endpoint = Endpoint::start().await;
        let host = host_with_hook("pre-delete-snapshot", &endpoint).await;
        let kube = host.kube();
        let cluster = available(&host, "hook-snapshot", "kept").await;
        let settings = json!({
            "plugin": "pre-delete-snapshot",
            "phase": "PreTerminate",
            "config": {
                "url": format!("{}/snapshots/{{name}}", endpoint.origin()),
                "create": {
                    "method": "POST", "url": format!("{}/snapshots", endpoint.origin()),
                    "body": {"name": "{name}", "instance": "{instance}"},
                },
            },
        });
        bind(&host, &cluster, "snapshot", &endpoint, settings).await;
        let machine = a_worker(&host, &cluster).await;
        let uid = machine["metadata"]["uid"].as_str().unwrap();
        let snapshot = format!("pre-delete-{}-{}", name(&machine), &uid[..8]);
        let path = format!("/snapshots/{snapshot}");
        endpoint.answers(&path, 404);
        endpoint.answers("/snapshots", 201);
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        says(
            &host,
            &machine,
            "PreTerminateHooksSucceeded",
            "WaitingForHook",
        )
        .await;
        eventually("the snapshot is asked for", PATIENCE, async || {
            let asked = endpoint.asked();
            asked
                .contains(&"/snapshots".to_owned())
                .then_some(())
                .ok_or(format!("{asked:?}"))
        })
        .await;
        endpoint.replies(&path, 200, r#"{"state": "pending"}"#);
        eventually("it says how far the snapshot is", PATIENCE, async || {
            let found = kube
                .get(MACHINE, &cluster.namespace, &name(&machine))
                .await
                .ok_or("the Machine is gone")?;
            let said = condition(&found, "PreTerminateHooksSucceeded").message;
            said.contains(&format!("snapshot {snapshot} is pending"))
                .then_some(())
                .ok_or(said)
        })
        .await;
        // The instance is there for as long as the snapshot is not.
        let infra = kube
            .get(LOCAL_MACHINE, &cluster.namespace, &name(&machine))
            .await;
        assert!(infra.unwrap()["metadata"]["deletionTimestamp"].is_null());
        endpoint.replies(&path, 200, r#"{"state": "available"}"#);
        cluster.loses(kube, &name(&machine)).await;
        let asked = endpoint.asked();
        let made = asked.iter().filter(|path| *path == "/snapshots").count();
        assert_eq!(made, 1, "{asked:?}");
        kube.delete(MACHINE_HOOK, NAMESPACE, "snapshot").await;
        cluster.delete(&host).await;
    });
}
