//! Machines come, go and are replaced, with pods on them.

use capstan_tests::cluster::TestCluster;
use capstan_tests::eventually;
use capstan_tests::kube_client::{
    LOCAL_MACHINE_TEMPLATE, MACHINE, MACHINE_DEPLOYMENT, condition, conditions, name,
};
use serde_json::json;

use crate::lab::{Lab, PATIENCE};
use crate::workload::{self, SAMPLE};
use capstan_tests::kubectl::Kubectl;

/// Scales the workers.
pub async fn scale(lab: &Lab, cluster: &TestCluster, workers: u32) {
    let kube = lab.host.kube();
    kube.scale(
        MACHINE_DEPLOYMENT,
        &cluster.namespace,
        &cluster.deployment(),
        workers,
    )
    .await;
    lab.available(cluster, workers).await;
}

/// A Machine that is deleted goes only when the budget of the pods on it allows that, and is replaced.
pub async fn drain_respects_budgets(
    lab: &Lab,
    cluster: &TestCluster,
    kubectl: &Kubectl,
    workers: u32,
) {
    let replicas = usize::try_from(workers).unwrap();
    kubectl.apply(&workload::sample(workers)).await.unwrap();
    workload::sample_is_ready(kubectl, replicas).await;
    let budget = |available: u32| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": SAMPLE},
            "spec": {"minAvailable": available, "selector": {"matchLabels": {"app": SAMPLE}}},
        })
    };
    kubectl.apply(&budget(workers)).await.unwrap();
    let pods = kubectl.get(&["pods", "-l", "app=sample"]).await.unwrap();
    let node = pods[0]["spec"]["nodeName"].as_str().unwrap().to_owned();
    let machines = lab.machines(cluster, false).await;
    let victim = machines
        .iter()
        .find(|machine| machine["status"]["nodeRef"]["name"] == node.as_str());
    let victim = name(victim.expect("pods run on workers"));
    let kube = lab.host.kube();
    kube.delete(MACHINE, &cluster.namespace, &victim).await;
    eventually("the drain waits for the budget", PATIENCE, async || {
        let machine = kube
            .get(MACHINE, &cluster.namespace, &victim)
            .await
            .expect("it is not drained yet");
        let deleting = condition(&machine, "Deleting");
        if deleting.message.contains(SAMPLE) {
            Ok(())
        } else {
            Err(conditions(&machine))
        }
    })
    .await;
    let pods = kubectl.get(&["pods", "-l", "app=sample"]).await.unwrap();
    assert!(
        pods.iter()
            .any(|pod| pod["spec"]["nodeName"] == node.as_str()),
        "no pod was evicted against the budget"
    );
    kubectl.apply(&budget(1)).await.unwrap();
    eventually("the machine is gone", PATIENCE, async || {
        let left = kube.get(MACHINE, &cluster.namespace, &victim).await;
        left.map_or(Ok(()), |machine| Err(conditions(&machine)))
    })
    .await;
    lab.available(cluster, workers).await;
    workload::sample_is_ready(kubectl, replicas).await;
}

/// Workers are replaced one by one when their template is another one, and the sample answers on the new ones.
pub async fn replace_all(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl, workers: u32) {
    let before: Vec<String> = lab
        .machines(cluster, false)
        .await
        .iter()
        .map(name)
        .collect();
    let kube = lab.host.kube();
    let template = format!("{}-larger", cluster.deployment());
    let larger = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
        "metadata": {"namespace": cluster.namespace, "name": template},
        "spec": {"template": {"spec": {"instanceType": "medium"}}},
    });
    kube.apply(LOCAL_MACHINE_TEMPLATE, &larger).await;
    let patch = json!({"spec": {"template": {"spec": {"infrastructureRef": {"name": template}}}}});
    kube.merge(
        MACHINE_DEPLOYMENT,
        &cluster.namespace,
        &cluster.deployment(),
        &patch,
    )
    .await;
    eventually("all workers replaced", PATIENCE, async || {
        let now = lab.machines(cluster, false).await;
        let old: Vec<String> = now
            .iter()
            .map(name)
            .filter(|name| before.contains(name))
            .collect();
        if old.is_empty() {
            Ok(())
        } else {
            Err(format!("{old:?} are still there"))
        }
    })
    .await;
    lab.available(cluster, workers).await;
    for machine in lab.machines(cluster, false).await {
        assert_eq!(lab.instance(&name(&machine)).await["type"], "medium");
    }
    let nodes = usize::try_from(workers).unwrap() + 1;
    workload::nodes_are_real(kubectl, nodes).await;
    workload::system_pods_run(kubectl, nodes).await;
    workload::answers_through_service_and_dns(kubectl).await;
}
