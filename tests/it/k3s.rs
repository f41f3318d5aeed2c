//! The second pair of bootstrap and control-plane plugins, which the host has no line about: made, rolled, remediated and deleted like the first.

use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, Kind, LOCAL_CLUSTER, LOCAL_MACHINE_TEMPLATE, MACHINE, condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

use crate::control_plane::give_up;

const PLANE: Kind = Kind {
    api_version: "controlplane.cluster.x-k8s.io/v1beta2",
    plural: "k3scontrolplanes",
    namespaced: true,
};
const CONFIG: Kind = Kind {
    api_version: "bootstrap.cluster.x-k8s.io/v1beta2",
    plural: "k3sconfigs",
    namespaced: true,
};
const NAME: &str = "second-pair";
const TEMPLATE: &str = "LocalMachineTemplate";

fn template(name: &str, size: &str) -> Value {
    json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": TEMPLATE,
        "metadata": {"namespace": NAME, "name": name},
        "spec": {"template": {"spec": {"instanceType": size}}},
    })
}

fn cluster() -> Vec<(Kind, Value)> {
    let metadata = json!({"namespace": NAME, "name": NAME});
    let reference = |group: &str, kind: &str, name: &str| json!({"apiGroup": format!("{group}.cluster.x-k8s.io"), "kind": kind, "name": name});
    let plane = json!({
        "apiVersion": PLANE.api_version, "kind": "K3sControlPlane", "metadata": metadata,
        "spec": {
            "replicas": 3, "version": "v1.36.3+k3s1",
            "machineTemplate": {"spec": {"infrastructureRef": reference("infrastructure", TEMPLATE, "small")}},
        },
    });
    let cluster = json!({
        "apiVersion": CLUSTER.api_version, "kind": "Cluster", "metadata": metadata,
        "spec": {
            "infrastructureRef": reference("infrastructure", "LocalCluster", NAME),
            "controlPlaneRef": reference("controlplane", "K3sControlPlane", NAME),
        },
    });
    let local = json!({"apiVersion": LOCAL_CLUSTER.api_version, "kind": "LocalCluster", "metadata": metadata, "spec": {}});
    vec![
        (LOCAL_CLUSTER, local),
        (LOCAL_MACHINE_TEMPLATE, template("small", "small")),
        (PLANE, plane),
        (CLUSTER, cluster),
    ]
}

async fn machines(host: &TestHost) -> Vec<Value> {
    host.kube().list(MACHINE, NAME).await
}

async fn names(host: &TestHost) -> Vec<String> {
    machines(host).await.iter().map(name).collect()
}

/// Waits until there are three machines, all as they should be.
async fn settled(host: &TestHost, what: &str) {
    eventually(what, PATIENCE, async || {
        let plane = host.kube().get(PLANE, NAME, NAME).await.unwrap();
        let counts = ["replicas", "upToDateReplicas", "availableReplicas"];
        let counted = counts.iter().all(|count| plane["status"][*count] == 3);
        let says = [
            ("Available", "True"),
            ("RollingOut", "False"),
            ("Remediating", "False"),
        ];
        let said = says
            .iter()
            .all(|(type_, status)| condition(&plane, type_).status == *status);
        // Counters may be those of a moment ago.
        let all = machines(host).await;
        let are_nodes = all.len() == 3
            && all.iter().all(|machine| {
                machine["status"]["nodeRef"]["name"].is_string()
                    && condition(machine, "Ready").status == "True"
            });
        (counted && said && are_nodes)
            .then_some(())
            .ok_or_else(|| format!("{} {}", plane["status"], conditions(&plane)))
    })
    .await;
}

#[test]
fn three_servers_come_roll_are_remediated_and_go() {
    run(async {
        let host = TestHost::start().await;
        let kube = host.kube();
        for plugin in ["bootstrap-k3s", "control-plane-k3s"] {
            host.put_plugin(plugin, &wasm::gzip(&wasm::component(plugin)))
                .await;
            host.plugin_ready(plugin).await;
        }
        namespace(kube, NAME).await;
        for (kind, object) in cluster() {
            kube.apply(kind, &object).await;
        }
        settled(&host, "three servers").await;
        for (change, words) in [
            (
                json!({"replicas": 2}),
                "must be odd without config.datastore",
            ),
            (
                json!({"version": "v1.99.0+k3s1"}),
                "one minor version at a time",
            ),
            (
                json!({"config": {"datastore": {"name": "a", "key": "b"}}}),
                "may not gain or lose its datastore",
            ),
        ] {
            let mut plane = kube.get(PLANE, NAME, NAME).await.unwrap();
            for (field, value) in change.as_object().unwrap() {
                plane["spec"][field] = value.clone();
            }
            plane["metadata"] = json!({"namespace": NAME, "name": NAME});
            let refusal = kube.try_apply(PLANE, &plane).await.unwrap_err();
            assert_eq!(refusal.code, 422, "{}", refusal.message);
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
        let mut domains: Vec<String> = machines(&host)
            .await
            .iter()
            .map(|machine| machine["spec"]["failureDomain"].to_string())
            .collect();
        domains.sort();
        domains.dedup();
        assert_eq!(domains.len(), 3, "one in each domain: {domains:?}");
        assert_eq!(kube.list(CONFIG, NAME).await.len(), 3);
        let whole = TestCluster::new(NAME, NAME, 0);
        whole.nodes_match(kube).await.unwrap();

        // What servers show at their endpoint is listed like the rest.
        let plane = kube.get(PLANE, NAME, NAME).await.unwrap();
        let listed = plane["status"]["certificates"].as_array().unwrap();
        let listed: Vec<&str> = listed
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        for certificate in ["ca", "kubeconfig", "apiserver"] {
            assert!(listed.contains(&certificate), "{listed:?}");
        }

        let before = names(&host).await;
        kube.apply(LOCAL_MACHINE_TEMPLATE, &template("medium", "medium"))
            .await;
        let reference = json!({"spec": {"machineTemplate": {"spec": {"infrastructureRef": {"name": "medium"}}}}});
        kube.merge(PLANE, NAME, NAME, &reference).await;
        eventually("all servers are others", PATIENCE, async || {
            let now = names(&host).await;
            let is_new = now.len() == 3 && now.iter().all(|name| !before.contains(name));
            is_new.then_some(()).ok_or_else(|| format!("{now:?}"))
        })
        .await;
        settled(&host, "the roll-out is over").await;

        let lost = names(&host).await[0].clone();
        give_up(&host, NAME, &lost).await;
        eventually("the server is replaced", PATIENCE, async || {
            let now = names(&host).await;
            let is_replaced = now.len() == 3 && !now.contains(&lost);
            let plane = kube.get(PLANE, NAME, NAME).await.unwrap();
            is_replaced
                .then_some(())
                .ok_or_else(|| format!("{now:?} {}", conditions(&plane)))
        })
        .await;
        settled(&host, "the replacement is a server").await;
        let record = "controlplane.cluster.x-k8s.io/remediation-for";
        let all = machines(&host).await;
        let records = all
            .iter()
            .filter_map(|machine| machine["metadata"]["annotations"][record].as_str());
        let of_lost = records.filter(|record| record.contains(&lost)).count();
        assert_eq!(of_lost, 1, "the replacement says what it was made for");
        // It goes with other news of the status.
        eventually("the control plane says so, too", PATIENCE, async || {
            let plane = kube.get(PLANE, NAME, NAME).await.unwrap();
            let last = &plane["status"]["lastRemediation"];
            (last["machine"] == lost.as_str())
                .then_some(())
                .ok_or_else(|| plane["status"].to_string())
        })
        .await;
        whole.nodes_match(kube).await.unwrap();

        whole.delete(&host).await;
        for kind in [PLANE, CONFIG] {
            assert_eq!(kube.list(kind, NAME).await, Vec::<Value>::new());
        }
    });
}
