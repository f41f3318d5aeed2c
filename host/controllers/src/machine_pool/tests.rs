//! Nodes of pools in workload clusters, one of whose API servers hangs. Time is virtual.

use super::*;
use crate::kube_api::staged::{Act, Staged};

/// Nodes of one pool.
const NODES: usize = 100;

/// A cluster with a Node, and its server.
fn workload() -> (Workload, Arc<Staged>) {
    let server = Staged::new();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "n"}});
    server.hold(&kinds::NODE, node);
    (Workload::new(Arc::clone(&server) as _), server)
}

/// Writes all Nodes of one pool.
async fn write(workload: &Workload) -> Result<Effect, Failure> {
    let node = NodePatch {
        name: "n".to_owned(),
        patch: json!({}),
    };
    let writes = (0..NODES).map(|_| write_node(workload, &node).boxed());
    in_turn(workload, writes.collect()).await
}

#[tokio::test(start_paused = true)]
async fn a_workload_cluster_that_hangs_holds_few_pools_and_none_of_another() {
    let (hung, server) = workload();
    let (well, _) = workload();
    server.act("patch", Act::Hang);
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut worker = write(&hung).boxed();
        match (&mut worker).now_or_never() {
            None => held.push(worker),
            Some(done) => assert_eq!(done, Ok(Effect::NotItsTurn)),
        }
    }
    assert_eq!(held.len(), NODE_WRITES_AT_ONCE / NODES_AT_ONCE);
    assert_eq!(server.asked("patch").len(), NODE_WRITES_AT_ONCE);
    assert_eq!(write(&well).await, Ok(Effect::Done));
    // Who gives up makes room.
    held.pop();
    assert!(write(&hung).now_or_never().is_none(), "it is its turn");
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_nodes_take_long_goes_on_with_them_in_its_next_turn() {
    let (workload, _) = workload();
    let written = std::sync::atomic::AtomicUsize::new(0);
    let writes = (0..NODES).map(|_| {
        async {
            tokio::time::sleep(TURN).await;
            written.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    });
    let began = Instant::now();
    let done = in_turn(&workload, writes.collect()).await;
    assert_eq!(done, Ok(Effect::NotItsTurn));
    assert_eq!(began.elapsed(), TURN);
    assert_eq!(written.into_inner(), NODES_AT_ONCE);
}
