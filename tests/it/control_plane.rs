//! Control planes of several machines: created, scaled, rolled, remediated, and left alone when their etcd has lost its majority.

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane::{instance, leading, object as control_plane, settled};
use capstan_tests::host::{SNAPSHOTS_KEPT, TestHost};
use capstan_tests::kube_client::{
    CONTROL_PLANE, LOCAL_MACHINE_TEMPLATE, MACHINE, condition, conditions, name,
};
use capstan_tests::watcher::{Bounds, RolloutWatcher};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

/// A cluster without workers and with as many control-plane machines, available.
pub(crate) async fn made(host: &TestHost, name: &str, control_planes: u32) -> TestCluster {
    let mut cluster = TestCluster::new(name, name, 0);
    cluster.control_planes = control_planes;
    cluster.create(host.kube()).await;
    cluster.available(host, 0).await;
    cluster
}

async fn machines(host: &TestHost, cluster: &TestCluster) -> Vec<Value> {
    host.kube().list(MACHINE, &cluster.namespace).await
}

async fn scale(host: &TestHost, cluster: &mut TestCluster, replicas: u32) {
    let plane = cluster.control_plane();
    host.kube()
        .scale(CONTROL_PLANE, &cluster.namespace, &plane, replicas)
        .await;
    cluster.control_planes = replicas;
    settled(host, cluster, replicas).await;
}

/// Sets conditions on a Machine as a health check does.
pub(crate) async fn give_up(host: &TestHost, namespace: &str, machine: &str) {
    let kube = host.kube();
    eventually(
        "the health check's conditions are written",
        PATIENCE,
        async || {
            let object = kube.get(MACHINE, namespace, machine).await.unwrap();
            let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap();
            for (type_, reason) in [
                ("HealthCheckSucceeded", "UnhealthyNode"),
                ("OwnerRemediated", "WaitingForRemediation"),
            ] {
                conditions.retain(|condition| condition["type"] != type_);
                conditions.push(json!({
                    "type": type_, "status": "False", "reason": reason, "message": "set by a test",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }));
            }
            let patch = json!({
                "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
                "status": {"conditions": conditions},
            });
            let path = format!(
                "/apis/cluster.x-k8s.io/v1beta2/namespaces/{namespace}/machines/{machine}/status"
            );
            let written = kube
                .send(
                    http::Method::PATCH,
                    &path,
                    "application/merge-patch+json",
                    Some(&patch),
                )
                .await;
            written.map(drop).map_err(|refusal| refusal.message)
        },
    )
    .await;
}

#[test]
fn a_control_plane_grows_to_five_and_shrinks_to_one() {
    run(async {
        let host = TestHost::shared().await;
        let mut cluster = made(host, "cp-scale", 3).await;
        settled(host, &cluster, 3).await;
        scale(host, &mut cluster, 5).await;
        scale(host, &mut cluster, 1).await;
        let object = control_plane(host, &cluster).await;
        let noted = object["metadata"]["annotations"]["capstan.dev/etcd-snapshot"].as_str();
        let noted: Value = serde_json::from_str(noted.unwrap()).unwrap();
        let path = std::path::Path::new(noted["path"].as_str().unwrap());
        let kept = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(kept, SNAPSHOTS_KEPT, "the newest ones");
        assert_eq!(
            std::fs::metadata(path).unwrap().len(),
            noted["bytes"].as_u64().unwrap()
        );
        cluster.delete(host).await;
    });
}

#[test]
fn a_new_template_replaces_every_machine_and_etcd_goes_with_them() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = made(host, "cp-roll", 3).await;
        let before: Vec<String> = machines(host, &cluster).await.iter().map(name).collect();
        let template = json!({
            "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
            "metadata": {"namespace": cluster.namespace, "name": "larger"},
            "spec": {"template": {"spec": {"instanceType": "medium"}}},
        });
        host.kube().apply(LOCAL_MACHINE_TEMPLATE, &template).await;
        let bounds = Bounds {
            machines_max: 4,
            available_min: 2,
        };
        let watcher = RolloutWatcher::of_control_plane(host.kube(), &cluster, bounds).await;
        let plane = cluster.control_plane();
        let patch = json!({"spec": {"machineTemplate": {"spec": {"infrastructureRef": {"name": "larger"}}}}});
        host.kube()
            .merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
            .await;
        eventually("all machines are others", PATIENCE, async || {
            let now: Vec<String> = machines(host, &cluster).await.iter().map(name).collect();
            let old: Vec<&String> = before.iter().filter(|name| now.contains(name)).collect();
            old.is_empty()
                .then_some(())
                .ok_or(format!("{old:?} are left"))
        })
        .await;
        settled(host, &cluster, 3).await;
        watcher.assert_kept();
        cluster.delete(host).await;
    });
}

#[test]
fn the_leader_is_remediated_and_the_record_stays() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = made(host, "cp-remediate", 3).await;
        let leader = leading(host, &cluster).await.unwrap();
        give_up(host, &cluster.namespace, &leader).await;
        eventually("the leader's machine is gone", PATIENCE, async || {
            let left = machines(host, &cluster).await;
            let left: Vec<String> = left.iter().map(name).collect();
            let object = control_plane(host, &cluster).await;
            (!left.contains(&leader))
                .then_some(())
                .ok_or(format!("{left:?} {}", conditions(&object)))
        })
        .await;
        settled(host, &cluster, 3).await;
        let object = control_plane(host, &cluster).await;
        assert_eq!(
            object["status"]["lastRemediation"]["machine"],
            leader.as_str()
        );
        assert_eq!(object["status"]["lastRemediation"]["retryCount"], 0);
        let annotations = &object["metadata"]["annotations"];
        assert!(annotations["controlplane.cluster.x-k8s.io/remediation-in-progress"].is_null());
        cluster.delete(host).await;
    });
}

#[test]
fn a_leader_whose_machine_is_dead_is_remediated_through_the_others() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = made(host, "cp-dead-leader", 3).await;
        let leader = leading(host, &cluster).await.unwrap();
        let id = instance(host, &cluster, &leader).await;
        // Its kubelet, its API server and its etcd are gone at once; only the others can be asked.
        host.cloud.stop_instance(&id).await;
        give_up(host, &cluster.namespace, &leader).await;
        eventually("the dead machine is gone", PATIENCE, async || {
            let all = machines(host, &cluster).await;
            let object = control_plane(host, &cluster).await;
            let dead = all.iter().find(|machine| name(machine) == leader);
            match dead {
                None => Ok(()),
                Some(dead) => Err(format!("{} {}", conditions(&object), conditions(dead))),
            }
        })
        .await;
        settled(host, &cluster, 3).await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_lost_majority_is_said_and_nothing_is_removed() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = made(host, "cp-lost", 3).await;
        let all: Vec<String> = machines(host, &cluster).await.iter().map(name).collect();
        for machine in &all[..2] {
            let id = instance(host, &cluster, machine).await;
            host.cloud.delete_instance(&id).await;
        }
        give_up(host, &cluster.namespace, &all[0]).await;
        eventually("the lost majority is said", PATIENCE, async || {
            let object = control_plane(host, &cluster).await;
            let etcd = condition(&object, "EtcdClusterHealthy");
            let is_said = etcd.status == "False"
                && etcd.message.contains("lost its majority")
                && etcd.message.contains("--force-new-cluster");
            let machines = machines(host, &cluster).await;
            let all: String = machines.iter().map(conditions).collect();
            (is_said && condition(&object, "Available").status == "False")
                .then_some(())
                .ok_or(format!("{} {all}", conditions(&object)))
        })
        .await;
        for machine in machines(host, &cluster).await {
            assert!(
                machine["metadata"]["deletionTimestamp"].is_null(),
                "{machine}"
            );
        }
        assert_eq!(machines(host, &cluster).await.len(), 3);
        cluster.delete(host).await;
    });
}
