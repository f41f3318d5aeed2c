//! What follows the control plane's version inside a workload cluster: kubeadm's configuration before machines are replaced, kube-proxy
//! and CoreDNS after it; and what is said when the plugin may not.

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane::{object as control_plane, settled};
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::in_cluster::{DAEMON_SET, SYSTEM, configuration, image};
use capstan_tests::kube_client::{
    CONFIG_MAP, CONTROL_PLANE, DEPLOYMENT, Kind, Kube, MACHINE, PLUGIN, condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

use crate::control_plane::made;

const NEWER: &str = "v1.36.4";
const UP_TO_DATE: &str = "InClusterComponentsUpToDate";

const CLUSTER_ROLE_BINDING: Kind = Kind {
    api_version: "rbac.authorization.k8s.io/v1",
    plural: "clusterrolebindings",
    namespaced: false,
};

async fn change(host: &TestHost, cluster: &TestCluster, spec: Value) {
    let plane = cluster.control_plane();
    let patch = json!({ "spec": spec });
    host.kube()
        .merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
        .await;
}

async fn images_are(workload: &Kube, proxy: &str, dns: &str) {
    eventually("add-ons have these images", PATIENCE, async || {
        let now = (
            image(workload, DAEMON_SET, "kube-proxy").await?,
            image(workload, DEPLOYMENT, "coredns").await?,
        );
        (now.0 == proxy && now.1 == dns)
            .then_some(())
            .ok_or(format!("{now:?}"))
    })
    .await;
}

#[test]
fn an_upgrade_takes_the_clusters_own_settings_and_add_ons_along() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = made(host, "in-cluster", 1).await;
        settled(host, &cluster, 1).await;
        let workload = cluster.workload(host.kube()).await;
        let before = configuration(&workload).await.unwrap();
        // As if an older kubeadm had made the cluster.
        let binding = "kubeadm:apiserver-kubelet-client";
        workload.delete(CLUSTER_ROLE_BINDING, "", binding).await;
        let settings = json!({
            "apiServer": {"extraArgs": [{"name": "audit-log-path", "value": "-"}]},
            "dns": {"imageTag": "v1.14.2"},
        });
        change(
            host,
            &cluster,
            json!({"version": NEWER, "kubeadmConfigSpec": {"clusterConfiguration": settings}}),
        )
        .await;
        images_are(
            &workload,
            "registry.k8s.io/kube-proxy:v1.36.4",
            "registry.k8s.io/coredns/coredns:v1.14.2",
        )
        .await;
        settled(host, &cluster, 1).await;
        let mut expected = before;
        expected["kubernetesVersion"] = json!(NEWER);
        expected["apiServer"] = settings["apiServer"].clone();
        expected["dns"] = settings["dns"].clone();
        assert_eq!(configuration(&workload).await, Ok(expected));
        let found = workload.get(CLUSTER_ROLE_BINDING, "", binding).await;
        assert!(found.is_some(), "the binding is there again");
        let object = control_plane(host, &cluster).await;
        assert_eq!(
            condition(&object, UP_TO_DATE).status,
            "",
            "nothing was ever wrong"
        );

        // An older CoreDNS is refused, said, and nothing else stops for it. No machine goes for any of it.
        let same = machines(host, &cluster).await;
        change(
            host,
            &cluster,
            json!({"kubeadmConfigSpec": {"clusterConfiguration": {"dns": {"imageTag": "v1.11.0"}}}}),
        )
        .await;
        eventually("the refusal is said", PATIENCE, async || {
            let object = control_plane(host, &cluster).await;
            let said = condition(&object, UP_TO_DATE);
            let is_said = said.status == "False" && said.message.contains("does not go back");
            is_said.then_some(()).ok_or(conditions(&object))
        })
        .await;
        settled(host, &cluster, 1).await;
        change(
            host,
            &cluster,
            json!({"kubeadmConfigSpec": {"clusterConfiguration": {"dns": {"imageTag": "v1.14.2"}}}}),
        )
        .await;
        eventually("all is well again", PATIENCE, async || {
            let object = control_plane(host, &cluster).await;
            (condition(&object, UP_TO_DATE).status == "True")
                .then_some(())
                .ok_or(conditions(&object))
        })
        .await;
        assert_eq!(
            condition(&control_plane(host, &cluster).await, "RollingOut").status,
            "False"
        );
        assert_eq!(machines(host, &cluster).await, same);

        // Settings that a roll-out left in the cluster when it was taken back: machines that join take what the object says.
        let wanted = configuration(&workload).await.unwrap();
        let mut left = wanted.clone();
        left["apiServer"] = json!({"extraArgs": [{"name": "no-such-argument", "value": "1"}]});
        let patch = json!({"data": {"ClusterConfiguration": left.to_string()}});
        workload
            .merge(CONFIG_MAP, SYSTEM, "kubeadm-config", &patch)
            .await;
        change(host, &cluster, json!({"replicas": 3})).await;
        settled(host, &cluster, 3).await;
        assert_eq!(configuration(&workload).await, Ok(wanted));
        cluster.delete(host).await;
    });
}

#[test]
fn without_the_grant_a_rollout_waits_and_says_what_to_add() {
    run(async {
        let host = TestHost::start().await;
        let kube = host.kube();
        let cluster = made(&host, "ungranted", 1).await;
        let granted = plugin(kube, "control-plane-kubeadm").await.unwrap();
        let granted = granted["spec"]["grants"].clone();
        let grants = async |grants: &Value| {
            let patch = json!({"spec": {"grants": grants}});
            kube.merge(PLUGIN, NAMESPACE, "control-plane-kubeadm", &patch)
                .await;
        };
        grants(&Value::Null).await;
        eventually("the grant is taken away", PATIENCE, async || {
            let object = plugin(kube, "control-plane-kubeadm").await.unwrap();
            let status = &object["status"];
            let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
            (is_seen && status["capabilities"][0]["granted"] == false)
                .then_some(())
                .ok_or(status.to_string())
        })
        .await;
        // Machines that are like those before them need nothing of it.
        change(&host, &cluster, json!({"replicas": 3})).await;
        settled(&host, &cluster, 3).await;
        let before = machines(&host, &cluster).await;
        change(&host, &cluster, json!({"version": NEWER})).await;
        eventually(
            "the roll-out says what it waits for",
            PATIENCE,
            async || {
                let object = control_plane(&host, &cluster).await;
                let rolling = condition(&object, "RollingOut");
                let is_said = rolling.status == "True"
                    && rolling.message.contains("is not granted")
                    && rolling.message.contains("clusterrolebindings");
                is_said.then_some(()).ok_or(conditions(&object))
            },
        )
        .await;
        assert_eq!(machines(&host, &cluster).await, before);
        grants(&granted).await;
        eventually("the machine is another", PATIENCE, async || {
            let now = machines(&host, &cluster).await;
            now.iter()
                .all(|name| !before.contains(name))
                .then_some(())
                .ok_or(format!("{now:?}"))
        })
        .await;
        settled(&host, &cluster, 3).await;
        cluster.delete(&host).await;
    });
}

async fn machines(host: &TestHost, cluster: &TestCluster) -> Vec<String> {
    let machines = host.kube().list(MACHINE, &cluster.namespace).await;
    machines.iter().map(name).collect()
}
