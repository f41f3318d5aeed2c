//! What happens to machines that break, and that they come back.

use capstan_tests::cluster::TestCluster;
use capstan_tests::eventually;
use capstan_tests::kube_client::{MACHINE, MACHINE_HEALTH_CHECK, condition, conditions, name};
use serde_json::{Value, json};

use crate::lab::{Lab, PATIENCE};
use crate::workload;
use capstan_tests::kubectl::Kubectl;

/// Waits until the Node of a machine is Ready, or not.
async fn node(kubectl: &Kubectl, machine: &Value, is_ready: bool) {
    let wanted = machine["status"]["nodeRef"]["name"].as_str().unwrap();
    let what = format!("Node {wanted} Ready={is_ready}");
    eventually(&what, PATIENCE, async || {
        let nodes = kubectl.get(&["nodes"]).await?;
        let node = nodes
            .iter()
            .find(|node| name(node) == wanted)
            .ok_or("there is no such Node")?;
        if (condition(node, "Ready").status == "True") == is_ready {
            Ok(())
        } else {
            Err(conditions(node))
        }
    })
    .await;
}

/// A machine that hangs and one without a network are missed, and are back when that ends; one that was killed is replaced by a health check.
pub async fn frozen_cut_off_and_killed(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl) {
    let workers = lab.machines(cluster, false).await;
    let [frozen, cut_off, killed] = workers.as_slice() else {
        panic!("there are {} workers, not 3", workers.len())
    };
    let kube = lab.host.kube();
    let checked = json!({"metadata": {"labels": {"checked": "yes"}}});
    kube.merge(MACHINE, &cluster.namespace, &name(killed), &checked)
        .await;
    let check = json!({
        "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
        "metadata": {"namespace": cluster.namespace, "name": "killed"},
        "spec": {
            "clusterName": cluster.name, "selector": {"matchLabels": {"checked": "yes"}},
            "checks": {"nodeStartupTimeoutSeconds": 0, "unhealthyNodeConditions": [
                {"type": "Ready", "status": "Unknown", "timeoutSeconds": 1},
            ]},
        },
    });
    kube.apply(MACHINE_HEALTH_CHECK, &check).await;
    lab.act(frozen, "freeze").await.unwrap();
    lab.act(cut_off, "link-down").await.unwrap();
    lab.act(killed, "kill").await.unwrap();
    node(kubectl, frozen, false).await;
    node(kubectl, cut_off, false).await;
    lab.act(frozen, "thaw").await.unwrap();
    lab.act(cut_off, "link-up").await.unwrap();
    node(kubectl, frozen, true).await;
    node(kubectl, cut_off, true).await;
    eventually("the killed machine is gone", PATIENCE, async || {
        let left = kube.get(MACHINE, &cluster.namespace, &name(killed)).await;
        left.map_or(Ok(()), |machine| Err(conditions(&machine)))
    })
    .await;
    lab.available(cluster, 3).await;
    let now = lab.machines(cluster, false).await;
    let now: Vec<String> = now.iter().map(name).collect();
    assert!(now.contains(&name(frozen)) && now.contains(&name(cut_off)));
    kube.delete(MACHINE_HEALTH_CHECK, &cluster.namespace, "killed")
        .await;
}

/// A control plane that is killed and started again on its disk has all that it had.
pub async fn killed_control_plane(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}});
    kubectl.apply(&map).await.unwrap();
    let machine = &lab.machines(cluster, true).await[0];
    lab.act(machine, "kill").await.unwrap();
    let instance = lab.instance(&name(machine)).await;
    assert_eq!(
        (&instance["state"], &instance["stateMessage"]),
        (&json!("stopped"), &json!("it was killed"))
    );
    kubectl.run(&["get", "--raw", "/readyz"]).await.unwrap_err();
    lab.act(machine, "start").await.unwrap();
    eventually("the API answers again", PATIENCE, async || {
        kubectl.run(&["get", "--raw", "/readyz"]).await
    })
    .await;
    let kept = kubectl
        .run(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])
        .await;
    assert_eq!(kept.as_deref(), Ok("b"));
    node(kubectl, machine, true).await;
    lab.available(cluster, 3).await;
    workload::system_pods_run(kubectl, 4).await;
}

/// A control plane whose disk is full does not take writes, and does again when there is room.
pub async fn full_disk(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl) {
    let machine = &lab.machines(cluster, true).await[0];
    match lab.act(machine, "fill-disk").await {
        // A host without loop devices has no small disks for machines.
        Err(refusal) if refusal.contains("Unsupported") => {
            eprintln!("SKIPPED: a full disk: {refusal}");
            return;
        }
        played => played.unwrap(),
    }
    let big = |number: u32| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("big-{number}")},
            "data": {"a": "x".repeat(200_000)},
        })
    };
    let mut number = 0;
    eventually("a write fails", PATIENCE, async || {
        number += 1;
        match kubectl.create(&big(number)).await {
            Err(_) => Ok(()),
            Ok(_) => Err(format!("write {number} succeeded")),
        }
    })
    .await;
    lab.act(machine, "free-disk").await.unwrap();
    eventually("a write succeeds", PATIENCE, async || {
        number += 1;
        kubectl.create(&big(number)).await
    })
    .await;
    lab.available(cluster, 3).await;
}
