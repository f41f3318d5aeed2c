//! Control planes of several machines: whether one is whole, who leads its etcd, which instance a machine is.

use serde_json::{Value, json};

use crate::cluster::TestCluster;
use crate::etcd::TestEtcd;
use crate::eventually::{PATIENCE, eventually};
use crate::host::TestHost;
use crate::kube_client::{CONTROL_PLANE, MACHINE, condition, conditions, is_control_plane, name};

/// The control plane object.
pub async fn object(host: &TestHost, cluster: &TestCluster) -> Value {
    let name = cluster.control_plane();
    let object = host.kube().get(CONTROL_PLANE, &cluster.namespace, &name);
    object.await.unwrap()
}

/// As many machines as wanted, all up to date and available, each with its member of etcd, and nobody else in it; else what is missing.
///
/// # Errors
/// What is missing.
pub async fn is_settled(host: &TestHost, cluster: &TestCluster, wanted: u32) -> Result<(), String> {
    let object = object(host, cluster).await;
    let status = &object["status"];
    for field in [
        "replicas",
        "upToDateReplicas",
        "availableReplicas",
        "readyReplicas",
    ] {
        if status[field] != json!(wanted) {
            let all = conditions(&object);
            return Err(format!("{field} {}: {all}", status[field]));
        }
    }
    for (type_, is) in [
        ("Available", "True"),
        ("EtcdClusterHealthy", "True"),
        ("RollingOut", "False"),
        ("ScalingUp", "False"),
        ("ScalingDown", "False"),
        ("Remediating", "False"),
    ] {
        if condition(&object, type_).status != is {
            return Err(conditions(&object));
        }
    }
    // Counters and conditions may be those of a moment ago, before a machine went.
    are_there(host, cluster, wanted).await?;
    let etcd = TestEtcd::of_cluster(host.kube(), cluster).await;
    let view = etcd.view().await?;
    let mut members: Vec<&str> = view.members.iter().map(|m| m.name.as_str()).collect();
    let mut nodes: Vec<&str> = etcd.addresses.iter().map(|a| a.name.as_str()).collect();
    members.sort_unstable();
    nodes.sort_unstable();
    let is_well = view.has_quorum && view.members.iter().all(|m| !m.is_learner);
    (members == nodes && is_well)
        .then_some(())
        .ok_or(format!("members {members:?}, machines {nodes:?}"))
}

/// As many Machines as wanted, all of them with a Node and ready.
async fn are_there(host: &TestHost, cluster: &TestCluster, wanted: u32) -> Result<(), String> {
    let all = host.kube().list(MACHINE, &cluster.namespace).await;
    let of_control_plane = all.iter().filter(|machine| is_control_plane(machine));
    let machines: Vec<&Value> = of_control_plane.collect();
    let is_ready = |machine: &&&Value| {
        machine["metadata"]["deletionTimestamp"].is_null()
            && machine["status"]["nodeRef"]["name"].is_string()
            && condition(machine, "Ready").status == "True"
    };
    let ready = machines.iter().filter(is_ready).count();
    let wanted = usize::try_from(wanted).unwrap();
    (machines.len() == wanted && ready == wanted)
        .then_some(())
        .ok_or(format!(
            "{ready} of {} Machines are ready, {wanted} are wanted",
            machines.len()
        ))
}

/// Waits until it is settled, and its Nodes are those of its Machines.
pub async fn settled(host: &TestHost, cluster: &TestCluster, wanted: u32) {
    let what = format!(
        "{wanted} machines of {} with their etcd members",
        cluster.name
    );
    eventually(&what, PATIENCE, async || {
        is_settled(host, cluster, wanted).await
    })
    .await;
    cluster.nodes_match(host.kube()).await.unwrap();
}

/// Name of the machine whose member leads, if one does.
pub async fn leading(host: &TestHost, cluster: &TestCluster) -> Option<String> {
    let etcd = TestEtcd::try_of_cluster(host.kube(), cluster).await;
    let view = etcd.ok()?.view().await.ok()?;
    let node = view.leader()?.name.clone();
    let machines = host.kube().list(MACHINE, &cluster.namespace).await;
    let of_node = machines
        .iter()
        .find(|machine| machine["status"]["nodeRef"]["name"] == node.as_str());
    of_node.map(name)
}

/// The instance of a machine.
pub async fn instance(host: &TestHost, cluster: &TestCluster, machine: &str) -> String {
    try_instance(host, cluster, machine).await.unwrap()
}

/// The instance of a machine, while there is one.
pub async fn try_instance(host: &TestHost, cluster: &TestCluster, machine: &str) -> Option<String> {
    let instances = host
        .cloud
        .of_cluster("instances", &cluster.namespace, &cluster.name)
        .await;
    let instance = instances.iter().find(|i| i["name"] == machine)?;
    instance["id"].as_str().map(str::to_owned)
}
