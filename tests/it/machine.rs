//! Single Machines: those made by hand, before what they need, for a Cluster that is not there, and one taken out of its set.

use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CLUSTER, LOCAL_MACHINE, MACHINE, MACHINE_SET, condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

use crate::bootstrap::{bare_cluster, data, hand_made};

#[test]
fn a_machine_that_is_made_before_what_it_refers_to_goes_on_when_that_comes() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "before-its-parts");
        bare_cluster(kube, ns).await;
        let [config, infra, machine] = hand_made(ns, "first", json!({"format": "cloud-config"}));
        kube.apply(MACHINE, &machine).await;
        eventually("the Machine names what is missing", PATIENCE, async || {
            let machine = kube.get(MACHINE, ns, "first").await.unwrap();
            let said = condition(&machine, "InfrastructureReady");
            said.message
                .contains("LocalMachine first")
                .then_some(())
                .ok_or_else(|| conditions(&machine))
        })
        .await;
        // The one that comes last finds a Machine that waits only for it.
        kube.apply(LOCAL_MACHINE, &infra).await;
        kube.apply(BOOTSTRAP_CONFIG, &config).await;
        data(kube, ns, "first").await;
        eventually("the Machine has its instance", PATIENCE, async || {
            let machine = kube.get(MACHINE, ns, "first").await.unwrap();
            machine["spec"]["providerID"]
                .as_str()
                .map(drop)
                .ok_or_else(|| conditions(&machine))
        })
        .await;
        // It belongs to its Cluster, and what it refers to belongs to it.
        let machine = kube.get(MACHINE, ns, "first").await.unwrap();
        assert_eq!(owners(&machine), ["Cluster before-its-parts"]);
        let infra = kube.get(LOCAL_MACHINE, ns, "first").await.unwrap();
        assert_eq!(owners(&infra), ["Machine first"]);
        kube.delete(CLUSTER, ns, ns).await;
        eventually("all is gone", PATIENCE, async || {
            let left = kube.list(MACHINE, ns).await.len();
            (left == 0).then_some(()).ok_or(format!("{left} Machines"))
        })
        .await;
    });
}

#[test]
fn a_machine_of_a_cluster_that_does_not_exist_says_so() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "no-cluster");
        namespace(kube, ns).await;
        let [_, _, machine] = hand_made("no-cluster", "lost", json!({}));
        kube.apply(MACHINE, &machine).await;
        eventually("the Machine names its Cluster", PATIENCE, async || {
            let machine = kube.get(MACHINE, ns, "lost").await.unwrap();
            let ready = condition(&machine, "Ready");
            let wanted = "spec.clusterName: Cluster no-cluster/no-cluster does not exist";
            (ready.status == "Unknown" && ready.message == wanted)
                .then_some(())
                .ok_or_else(|| conditions(&machine))
        })
        .await;
        kube.delete(MACHINE, ns, "lost").await;
    });
}

#[test]
fn a_machine_that_is_relabelled_is_left_alone_and_replaced() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "relabelled");
        let cluster = TestCluster::new(ns, "isolates", 2);
        cluster.create(kube).await;
        cluster.available(host, 2).await;
        let set = kube.list(MACHINE_SET, ns).await.remove(0);
        let label = "cluster.x-k8s.io/deployment-name";
        let workers = async || -> Vec<Value> {
            let mut machines = kube.list(MACHINE, ns).await;
            machines.retain(|machine| owners(machine) == [format!("MachineSet {}", name(&set))]);
            machines
        };
        let taken_out = name(&workers().await.remove(0));
        let relabel = json!({"metadata": {"labels": {label: "under-repair"}}});
        kube.merge(MACHINE, ns, &taken_out, &relabel).await;
        eventually("another Machine takes its place", PATIENCE, async || {
            let machines = workers().await;
            let ready = machines.iter().filter(|machine| {
                machine["metadata"]["labels"][label] == cluster.deployment()
                    && machine["status"]["phase"] == "Running"
            });
            let ready = ready.count();
            (ready == 2)
                .then_some(())
                .ok_or(format!("{ready} that are Running of {}", machines.len()))
        })
        .await;
        let machine = kube.get(MACHINE, ns, &taken_out).await.unwrap();
        assert_eq!(machine["metadata"]["labels"][label], "under-repair");
        assert!(machine["metadata"]["deletionTimestamp"].is_null());
        cluster.delete(host).await;
    });
}

/// Kind and name of each owner.
fn owners(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .map(|owner| {
            format!(
                "{} {}",
                owner["kind"].as_str().unwrap(),
                owner["name"].as_str().unwrap()
            )
        })
        .collect()
}
