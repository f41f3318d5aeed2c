//! A workload cluster whose list of Nodes does not end: the host says so, and is not kept from others.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_nodes_do_not_end_is_not_connected_and_says_why() {
    let mut world = world();
    world.server.act("list /api/v1/nodes", Act::Endless);
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let connection = world.workloads.status(&cluster());
    let error = connection.error.unwrap_or_default();
    assert!(error.contains("nodes of the cluster are more"), "{error}");
    assert!(world.workloads.get(&cluster()).is_none());
    world.server.act("list /api/v1/nodes", None);
    assert_eq!(world.next().await, "connected");
}
