//! Upgrade strategies on real servers: which one is asked, with which settings, and what becomes of answers that break a rule.

use capstan_tests::cluster::{TestCluster, VERSION, VERSION_NEXT};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    self as kube, MACHINE_DEPLOYMENT, NODE, condition, conditions, name,
};
use capstan_tests::watcher::{Bounds, RolloutWatcher};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

/// The shared host with a plugin that usual hosts do not have.
async fn host_with(plugin: &str) -> &'static TestHost {
    let host = TestHost::shared().await;
    host.put_plugin(plugin, &wasm::gzip(&wasm::component(plugin)))
        .await;
    host.plugin_ready(plugin).await;
    host
}

fn new_version() -> Value {
    json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}})
}

/// A cluster whose deployment has these annotations and limits, all of it available.
async fn cluster(
    host: &TestHost,
    namespace: &str,
    workers: u32,
    annotations: Value,
    rolling: Value,
) -> TestCluster {
    let mut cluster = TestCluster::new(namespace, namespace, workers);
    cluster.rollout =
        Some(json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
    cluster.create(host.kube()).await;
    let patch = json!({"metadata": {"annotations": annotations}});
    host.kube()
        .merge(MACHINE_DEPLOYMENT, namespace, &cluster.deployment(), &patch)
        .await;
    cluster.available(host, workers).await;
    cluster
}

async fn deployment(host: &TestHost, cluster: &TestCluster) -> Value {
    let object = host
        .kube()
        .get(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &cluster.deployment(),
        )
        .await;
    object.unwrap()
}

async fn change(host: &TestHost, cluster: &TestCluster, patch: &Value) {
    host.kube()
        .merge(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &cluster.deployment(),
            patch,
        )
        .await;
}

/// Workers of a version.
async fn workers(host: &TestHost, cluster: &TestCluster, version: &str) -> Vec<Value> {
    let mut machines = cluster.workers(host.kube()).await;
    machines.retain(|machine| {
        machine["spec"]["version"] == version && machine["metadata"]["deletionTimestamp"].is_null()
    });
    machines
}

/// The deployment's condition says this, with this status.
async fn says(host: &TestHost, cluster: &TestCluster, type_: &str, status: &str, words: &str) {
    let what = format!("{type_} {status} with {words:?}");
    eventually(&what, PATIENCE, async || {
        let object = deployment(host, cluster).await;
        let found = condition(&object, type_);
        let says = found.message.contains(words) || found.reason == words;
        (found.status == status && says)
            .then_some(())
            .ok_or_else(|| conditions(&object))
    })
    .await;
}

async fn has(host: &TestHost, cluster: &TestCluster, old: usize, new: usize) {
    let what = format!("{old} old and {new} new workers");
    eventually(&what, PATIENCE, async || {
        let seen = (
            workers(host, cluster, VERSION).await.len(),
            workers(host, cluster, VERSION_NEXT).await.len(),
        );
        if seen == (old, new) {
            return Ok(());
        }
        Err(format!(
            "{seen:?}, {}",
            conditions(&deployment(host, cluster).await)
        ))
    })
    .await;
}

#[test]
fn a_namespace_has_a_default_strategy_and_a_canary_waits_at_its_gate() {
    run(async {
        let host = host_with("upgrade-canary").await;
        let limits = json!({"maxSurge": 1, "maxUnavailable": 0});
        let cluster = cluster(host, "canary", 2, json!({}), limits).await;
        let settings = json!({"steps": [{"replicas": 1}], "gates": [{"annotation": "approved"}]});
        let default = json!({"metadata": {"annotations": {
            "capstan.dev/upgrade-strategy": "upgrade-canary",
            "capstan.dev/upgrade-strategy-settings": settings.to_string(),
        }}});
        host.kube()
            .merge(kube::NAMESPACE, "", "canary", &default)
            .await;
        let bounds = Bounds {
            machines_max: 3,
            available_min: 2,
        };
        let watcher = RolloutWatcher::start(host.kube(), &cluster, bounds).await;
        change(host, &cluster, &new_version()).await;
        says(
            host,
            &cluster,
            "RollingOut",
            "True",
            "upgrade-canary waits: annotation canary.capstan.dev/approved to be 2=pass",
        )
        .await;
        has(host, &cluster, 1, 1).await;
        let state = deployment(host, &cluster).await;
        let state = &state["metadata"]["annotations"]["capstan.dev/upgrade-strategy-state"];
        assert!(
            state
                .as_str()
                .unwrap()
                .contains("\"strategy\":\"upgrade-canary\""),
            "{state}"
        );
        let approve =
            json!({"metadata": {"annotations": {"canary.capstan.dev/approved": "2=pass"}}});
        change(host, &cluster, &approve).await;
        has(host, &cluster, 0, 2).await;
        cluster.available(host, 2).await;
        watcher.assert_kept();
        says(host, &cluster, "UpgradeBlocked", "False", "NotBlocked").await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_canary_whose_gate_fails_is_rolled_back() {
    run(async {
        let host = host_with("upgrade-canary").await;
        let annotations = json!({
            "capstan.dev/upgrade-strategy": "upgrade-canary",
            "capstan.dev/upgrade-strategy-settings":
                json!({"steps": [{"replicas": 1}], "gates": [{"annotation": "metrics"}]}).to_string(),
        });
        let limits = json!({"maxSurge": 1, "maxUnavailable": 0});
        let cluster = cluster(host, "canary-back", 2, annotations, limits).await;
        change(host, &cluster, &new_version()).await;
        has(host, &cluster, 1, 1).await;
        let fail = json!({"metadata": {"annotations": {"canary.capstan.dev/metrics": "2=fail"}}});
        change(host, &cluster, &fail).await;
        says(host, &cluster, "UpgradeBlocked", "True", "RolledBack").await;
        has(host, &cluster, 2, 0).await;
        cluster.available(host, 2).await;
        let state = deployment(host, &cluster).await;
        let state = &state["metadata"]["annotations"]["capstan.dev/upgrade-strategy-state"];
        assert!(
            state.as_str().unwrap().contains("\"rolledBackRevision\":2"),
            "{state}"
        );
        cluster.delete(host).await;
    });
}

#[test]
fn blue_green_marks_the_nodes_that_are_live() {
    run(async {
        let host = host_with("upgrade-blue-green").await;
        let annotations = json!({
            "capstan.dev/upgrade-strategy": "upgrade-blue-green",
            "capstan.dev/upgrade-strategy-settings": json!({"switch": "Manual", "keepSeconds": 1}).to_string(),
        });
        let limits = json!({"maxSurge": "100%", "maxUnavailable": 0});
        let cluster = cluster(host, "blue-green", 1, annotations, limits).await;
        change(host, &cluster, &new_version()).await;
        has(host, &cluster, 1, 1).await;
        let workload = cluster.workload(host.kube()).await;
        let marked = async |version: &str, value: &str| {
            let what = format!("the Node of {version} is {value}");
            eventually(&what, PATIENCE, async || {
                let machines = workers(host, &cluster, version).await;
                let node = machines.first().map(name).unwrap_or_default();
                let nodes = workload.list(NODE, "").await;
                let label = |node: &Value| {
                    node["metadata"]["labels"]["node.cluster.x-k8s.io/blue-green"].clone()
                };
                let found = nodes.iter().find(|n| name(n) == node).map(label);
                (found == Some(json!(value)))
                    .then_some(())
                    .ok_or_else(|| format!("{node}: {found:?}"))
            })
            .await;
        };
        marked(VERSION, "live").await;
        marked(VERSION_NEXT, "idle").await;
        says(host, &cluster, "RollingOut", "True", "WaitingForSwitch").await;
        let switch = json!({"metadata": {"annotations": {"blue-green.capstan.dev/switch": "2"}}});
        change(host, &cluster, &switch).await;
        marked(VERSION_NEXT, "live").await;
        has(host, &cluster, 0, 1).await;
        cluster.available(host, 1).await;
        cluster.delete(host).await;
    });
}

#[test]
fn an_answer_that_breaks_a_rule_is_refused_whole_and_said() {
    run(async {
        let host = host_with("upgrade-reckless").await;
        let annotations = json!({"capstan.dev/upgrade-strategy": "upgrade-reckless"});
        let limits = json!({"maxSurge": 1, "maxUnavailable": 0});
        let cluster = cluster(host, "refused", 1, annotations, limits).await;
        change(host, &cluster, &new_version()).await;
        says(
            host,
            &cluster,
            "UpgradeBlocked",
            "True",
            "StrategyAnswerRefused",
        )
        .await;
        says(
            host,
            &cluster,
            "UpgradeBlocked",
            "True",
            "only 0 available machines could be left, at least 1 are required",
        )
        .await;
        has(host, &cluster, 1, 0).await;
        // Settings that are none, and a strategy that is none.
        let bad =
            json!({"metadata": {"annotations": {"capstan.dev/upgrade-strategy-settings": "["}}});
        change(host, &cluster, &bad).await;
        says(
            host,
            &cluster,
            "UpgradeBlocked",
            "True",
            "StrategySettingsInvalid",
        )
        .await;
        let none = json!({"metadata": {"annotations": {
            "capstan.dev/upgrade-strategy": "upgrade-none",
            "capstan.dev/upgrade-strategy-settings": null,
        }}});
        change(host, &cluster, &none).await;
        says(
            host,
            &cluster,
            "UpgradeBlocked",
            "True",
            "StrategyNotActive",
        )
        .await;
        // Another strategy finishes what was begun.
        let other = json!({"metadata": {"annotations": {"capstan.dev/upgrade-strategy": null}}});
        change(host, &cluster, &other).await;
        has(host, &cluster, 0, 1).await;
        says(host, &cluster, "UpgradeBlocked", "False", "NotBlocked").await;
        cluster.delete(host).await;
    });
}

/// Runs `capstan plan rollout`; the exit code and what it printed.
fn plan(host: &TestHost, arguments: &[&str]) -> (i32, String) {
    let output = host.plan(&[&["rollout"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), text + &errors)
}

#[test]
fn a_plan_shows_the_steps_of_the_real_strategy_and_changes_nothing() {
    run(async {
        let host = host_with("upgrade-canary").await;
        let limits = json!({"maxSurge": 1, "maxUnavailable": 0});
        let cluster = cluster(host, "planned", 2, json!({}), limits).await;
        let before = deployment(host, &cluster).await;
        let deployment_name = cluster.deployment();
        let mut arguments = vec![deployment_name.as_str(), "-n", "planned", "--version"];
        arguments.push(VERSION_NEXT);
        let (code, text) = plan(host, &arguments);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("with upgrade-rolling-update: 2 replicas"),
            "{text}"
        );
        assert!(text.contains("done: all machines match"), "{text}");
        let settings = json!({"steps": [{"replicas": 1, "pauseSeconds": 600}]}).to_string();
        arguments.extend(["--strategy", "upgrade-canary", "--settings", &settings]);
        arguments.extend(["-o", "json"]);
        let (code, text) = plan(host, &arguments);
        assert_eq!(code, 0, "{text}");
        let planned: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(planned["ending"], "done", "{planned}");
        assert_eq!(planned["machinesMax"], 3);
        let steps = planned["steps"].as_array().unwrap();
        let made: u64 = steps
            .iter()
            .map(|step| step["made"].as_u64().unwrap())
            .sum();
        assert_eq!(made, 2, "{planned}");
        let last = &steps.last().unwrap()["afterSeconds"];
        assert!(last.as_u64().unwrap() >= 600, "the pause counts: {planned}");
        let (code, text) = plan(
            host,
            &[
                &deployment_name,
                "-n",
                "planned",
                "--version",
                VERSION_NEXT,
                "--strategy",
                "upgrade-none",
            ],
        );
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("plugin upgrade-none is not active"), "{text}");
        let after = deployment(host, &cluster).await;
        assert_eq!(
            before["metadata"]["generation"],
            after["metadata"]["generation"]
        );
        assert_eq!(workers(host, &cluster, VERSION).await.len(), 2);
        cluster.delete(host).await;
    });
}
