//! A workload cluster whose list of Nodes does not end: the host says so, and is not kept from others.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_nodes_do_not_end_is_not_connected_and_says_why() {
    let mut world = world();
    world.fake.is_endless.store(true, Ordering::SeqCst);
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let connection = world.workloads.status(&cluster());
    let error = connection.error.unwrap_or_default();
    assert!(error.contains("nodes of the cluster are more"), "{error}");
    assert!(world.workloads.get(&cluster()).is_none());
    world.fake.is_endless.store(false, Ordering::SeqCst);
    assert_eq!(world.next().await, "connected");
}
