//! What a granted plugin reaches through the API: a Secret, its object's own workload cluster, events; and that it ends with the
//! grant.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::namespace;
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::kube_client::{
    CLUSTER, CONFIG_MAP, EVENT, Kube, PLUGIN, SECRET, condition, conditions,
};
use capstan_tests::probe::{PROBE, PROBE_CLUSTER, probe_cluster};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

const OWN: &str = "capabilities";

/// Gives the plugin these grants beside `http`, and something to do.
async fn tell(kube: &Kube, grants: &[Value], todo: Value) {
    let http = json!({"capability": "http", "http": {"origins": [{"origin": "https://cloud.example.com"}]}});
    let mut all = vec![http];
    all.extend(grants.iter().cloned());
    let spec = json!({"spec": {"grants": all, "config": null}});
    kube.merge(PLUGIN, NAMESPACE, PROBE, &spec).await;
    let spec = json!({"spec": {"config": todo}});
    kube.merge(PLUGIN, NAMESPACE, PROBE, &spec).await;
    let object = plugin(kube, PROBE).await.unwrap();
    let generation = object["metadata"]["generation"].clone();
    eventually("the plugin has taken it in", PATIENCE, async || {
        let object = plugin(kube, PROBE).await.ok_or("no Plugin")?;
        let is_new = object["status"]["observedGeneration"] == generation
            && condition(&object, "Ready").status == "True";
        is_new.then_some(()).ok_or(conditions(&object))
    })
    .await;
}

/// What the plugin notes when it is asked again.
async fn noted(kube: &Kube, turn: u32, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut turn = turn * 1000;
    eventually("the plugin notes what is wanted", PATIENCE, async || {
        turn += 1;
        // A new generation is asked about again.
        let change = json!({"spec": {"size": turn.to_string()}});
        kube.merge(PROBE_CLUSTER, OWN, "probe", &change).await;
        let object = kube.get(PROBE_CLUSTER, OWN, "probe").await.unwrap();
        let note = object["status"]["note"].clone();
        wanted(&note)
            .then(|| note.clone())
            .ok_or(format!("{note} {}", conditions(&object)))
    })
    .await
}

async fn world(host: &TestHost) {
    let kube = host.kube();
    namespace(kube, OWN).await;
    let secret = |name: &str, key: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": OWN, "name": name},
            "data": {key: BASE64.encode(value)}})
    };
    kube.apply(SECRET, &secret("cloud", "token", "hush-hush"))
        .await;
    // The workload cluster is the management cluster: a real API server.
    let admin = host.plane.kubeconfig_text("workload", &["system:masters"]);
    kube.apply(
        SECRET,
        &secret("probe-kubeconfig", "value", &admin.unwrap()),
    )
    .await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "facts"}, "data": {"answer": "42"}});
    kube.apply(CONFIG_MAP, &map).await;
    host.put_plugin(PROBE, &wasm::gzip(&wasm::component("engine-probe")))
        .await;
    eventually("there is a Plugin", PATIENCE, async || {
        plugin(kube, PROBE).await.ok_or("none".to_owned())
    })
    .await;
}

#[test]
fn granted_capabilities_reach_what_they_say_and_end_with_the_grant() {
    run(async {
        let host = TestHost::start().await;
        let kube = host.kube();
        world(&host).await;
        let bytes = json!({"capability": "secret", "secrets": [{"name": "cloud", "keys": ["token"], "bytes": true}]});
        let read = json!({"do": "secret", "name": "cloud", "key": "token", "bytes": true, "then": "event"});
        tell(kube, std::slice::from_ref(&bytes), read.clone()).await;
        probe_cluster(kube, OWN).await;
        noted(kube, 1, |note| note["reversed"] == "hsuh-hsuh").await;
        let event = eventually("the event is written", PATIENCE, async || {
            let events = kube.list(EVENT, OWN).await;
            let found = events.iter().find(|event| event["reason"] == "Leaked");
            found.cloned().ok_or(format!("{} events", events.len()))
        })
        .await;
        assert_eq!(event["note"], "plugin infrastructure-probe: it is [secret]");
        assert_eq!(event["regarding"]["kind"], "ProbeCluster");

        // The grant is taken away: the next call is denied.
        tell(kube, &[], read).await;
        let denied = noted(kube, 2, |note| note["error"].is_string()).await;
        assert!(
            denied["error"].as_str().unwrap().contains("is not granted"),
            "{denied}"
        );

        let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "apply", "delete"],
            "namespaces": ["kube-system"]});
        let grant = [json!({"capability": "workload", "workload": [rule]})];
        let on_maps = |more: Value| {
            let mut todo = json!({"do": "workload", "plural": "configmaps", "namespace": "kube-system", "name": "facts"});
            for (key, value) in more.as_object().unwrap() {
                todo[key] = value.clone();
            }
            todo
        };
        tell(kube, &grant, on_maps(json!({}))).await;
        let is_ok = |note: &Value| !note["ok"].is_null();
        let got = noted(kube, 3, is_ok).await;
        let got: Value = serde_json::from_str(got["ok"].as_str().unwrap()).unwrap();
        assert_eq!(got["data"]["answer"], "42");

        tell(kube, &grant, on_maps(json!({"verb": "list", "limit": 1}))).await;
        let page = noted(kube, 4, |note| note["ok"]["count"] == 1).await;
        let first: Value = serde_json::from_str(page["ok"]["items"][0].as_str().unwrap()).unwrap();
        assert_eq!(first["kind"], "ConfigMap", "{first}");

        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "kube-system", "name": "made"}, "data": {"by": "plugin"}});
        tell(
            kube,
            &grant,
            on_maps(json!({"verb": "apply", "object": object.to_string()})),
        )
        .await;
        noted(kube, 5, |note| note["ok"].is_string()).await;
        let made = kube.get(CONFIG_MAP, "kube-system", "made").await.unwrap();
        assert_eq!(
            made["metadata"]["managedFields"][0]["manager"],
            "capstan-plugin-infrastructure-probe"
        );

        tell(kube, &grant, on_maps(json!({"plural": "secrets"}))).await;
        let denied = noted(kube, 6, |note| {
            note["error"]
                .as_str()
                .is_some_and(|e| e.contains("secrets"))
        })
        .await;
        assert!(denied.to_string().contains("is not granted"), "{denied}");

        tell(kube, &[], Value::Null).await;
        kube.delete(CLUSTER, OWN, "probe").await;
        eventually("the Cluster is gone", PATIENCE, async || {
            let left = kube.get(CLUSTER, OWN, "probe").await;
            left.map_or(Ok(()), |object| Err(conditions(&object)))
        })
        .await;
    });
}
