//! A version change replaces workers within what the strategy allows, seen at every event.

use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{MACHINE, MACHINE_DEPLOYMENT, MACHINE_SET, NODE, condition, name};
use capstan_tests::watcher::{Bounds, RolloutWatcher};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

fn new_version() -> Value {
    json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}})
}

/// All workers have the new version, in Machine and Node alike. The control plane has it from the beginning.
async fn rolled(host: &TestHost, cluster: &TestCluster, workers: u32) {
    let kube = host.kube();
    eventually("all workers have the new version", PATIENCE, async || {
        let workers = cluster.workers(kube).await;
        let old: Vec<String> = workers
            .iter()
            .filter(|m| m["spec"]["version"] != VERSION_NEXT)
            .map(name)
            .collect();
        if old.is_empty() {
            Ok(())
        } else {
            Err(format!("{old:?} have the old one"))
        }
    })
    .await;
    cluster.available(host, workers).await;
    let nodes = cluster.workload(kube).await.list(NODE, "").await;
    let new = nodes
        .iter()
        .filter(|node| node["status"]["nodeInfo"]["kubeletVersion"] == VERSION_NEXT);
    assert_eq!(new.count(), usize::try_from(workers).unwrap() + 1);
}

async fn rolls_within(namespace: &str, workers: u32, rolling: Value, bounds: Bounds) {
    let host = TestHost::shared().await;
    let mut cluster = TestCluster::new(namespace, namespace, workers);
    cluster.rollout =
        Some(json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
    cluster.create(host.kube()).await;
    cluster.available(host, workers).await;
    let watcher = RolloutWatcher::start(host.kube(), &cluster, bounds).await;
    let deployment = cluster.deployment();
    host.kube()
        .merge(MACHINE_DEPLOYMENT, namespace, &deployment, &new_version())
        .await;
    rolled(host, &cluster, workers).await;
    let seen = watcher.assert_kept();
    assert!(seen.events > usize::try_from(workers).unwrap(), "{seen:?}");
    eventually("the empty old MachineSet goes", PATIENCE, async || {
        let sets = host.kube().list(MACHINE_SET, namespace).await.len();
        (sets == 1).then_some(()).ok_or(format!("{sets} sets"))
    })
    .await;
    cluster.delete(host).await;
}

#[test]
fn surges_before_it_removes() {
    run(rolls_within(
        "surges",
        3,
        json!({"maxSurge": 1, "maxUnavailable": 0}),
        Bounds {
            machines_max: 4,
            available_min: 3,
        },
    ));
}

#[test]
fn without_surge_it_removes_before_it_adds() {
    run(rolls_within(
        "no-surge",
        3,
        json!({"maxSurge": 0, "maxUnavailable": 1}),
        Bounds {
            machines_max: 3,
            available_min: 2,
        },
    ));
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    run(rolls_within(
        "percent",
        4,
        json!({"maxSurge": "30%", "maxUnavailable": "30%"}),
        Bounds {
            machines_max: 6,
            available_min: 3,
        },
    ));
}

#[test]
fn on_delete_replaces_only_what_a_person_deletes() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let mut cluster = TestCluster::new("on-delete", "on-delete", 2);
        cluster.rollout = Some(json!({"strategy": {"type": "OnDelete"}}));
        cluster.create(kube).await;
        cluster.available(host, 2).await;
        let (namespace, deployment) = (&cluster.namespace, cluster.deployment());
        kube.merge(MACHINE_DEPLOYMENT, namespace, &deployment, &new_version())
            .await;
        eventually("the rollout is noticed", PATIENCE, async || {
            let object = kube
                .get(MACHINE_DEPLOYMENT, namespace, &deployment)
                .await
                .unwrap();
            let sets = kube.list(MACHINE_SET, namespace).await.len();
            let rolling = condition(&object, "RollingOut");
            (sets == 2 && rolling.status == "True")
                .then_some(())
                .ok_or(format!("{sets} sets, {rolling:?}"))
        })
        .await;
        let with_version = async |version: &str| {
            let machines = kube.list(MACHINE, namespace).await;
            let workers = machines.iter().filter(|m| {
                m["metadata"]["labels"]["cluster.x-k8s.io/deployment-name"] == deployment.as_str()
                    && m["spec"]["version"] == version
            });
            workers.map(name).collect::<Vec<String>>()
        };
        assert!(with_version(VERSION_NEXT).await.is_empty());
        for left in (0..2).rev() {
            let old = with_version(capstan_tests::cluster::VERSION).await;
            kube.delete(MACHINE, namespace, &old[0]).await;
            eventually("the deleted one is replaced", PATIENCE, async || {
                let old = with_version(capstan_tests::cluster::VERSION).await.len();
                let new = with_version(VERSION_NEXT).await.len();
                (old == left && new == 2 - left)
                    .then_some(())
                    .ok_or(format!("{old} old and {new} new machines"))
            })
            .await;
            cluster.available(host, 2).await;
        }
        cluster.delete(host).await;
    });
}
