//! Evictions of many Nodes of one cluster at once: how many are under way, and what a server without room makes of them. Time is virtual.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::kube_api::staged::{Act, Staged};
use crate::workloads::nodes::EVICTIONS_AT_ONCE;

/// Nodes that are drained at once, and pods of each.
const NODES: usize = 40;
const PODS: usize = 20;

/// Evictions are requests that begin so.
const EVICT: &str = "create /api/v1/namespaces/ns/pods/";

fn plan(node: usize) -> Drain {
    let pods = (0..PODS).map(|pod| ("ns".to_owned(), format!("pod-{node}-{pod}")));
    Drain {
        evict: pods.collect(),
        ..Drain::default()
    }
}

/// Drains all Nodes; what was refused.
async fn drain_all(api: &Arc<Staged>) -> Vec<BTreeMap<Refusal, Vec<String>>> {
    let workload = Workload::new(Arc::clone(api) as Arc<dyn KubeApi>);
    let plans: Vec<Drain> = (0..NODES).map(plan).collect();
    let drains = plans.iter().map(|plan| evict(&workload, plan, false));
    futures::future::join_all(drains).await
}

#[tokio::test(start_paused = true)]
async fn dozens_of_nodes_are_drained_at_once_with_few_evictions_under_way() {
    let api = Staged::new();
    let (now, most, all) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (running, peak, made) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&all));
    let evicting = move || {
        let (running, peak, made) = (Arc::clone(&running), Arc::clone(&peak), Arc::clone(&made));
        async move {
            let under_way = running.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(under_way, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            made.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    };
    api.act(EVICT, Act::Do(Arc::new(evicting)));
    let begun = Instant::now();
    let refused = drain_all(&api).await;
    assert!(refused.iter().all(BTreeMap::is_empty), "{refused:?}");
    assert_eq!(all.load(Ordering::SeqCst), NODES * PODS);
    assert_eq!(most.load(Ordering::SeqCst), EVICTIONS_AT_ONCE);
    // 800 of them, 16 at a time: nobody waits for nothing.
    let fewest = NODES * PODS / EVICTIONS_AT_ONCE;
    assert!(begun.elapsed() <= Duration::from_millis(100 * (fewest as u64 + 2)));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_room_is_asked_nothing_more_in_a_turn() {
    let api = Staged::new();
    let evicting = || {
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(ApiError::TooManyRequests {
                message: "too many requests, please try again later".to_owned(),
                retry_after_s: Some(1),
            })
        }
        .boxed()
    };
    api.act(EVICT, Act::Do(Arc::new(evicting)));
    let refused = drain_all(&api).await;
    for of_node in &refused {
        let pods: usize = of_node.values().map(Vec::len).sum();
        assert_eq!(pods, PODS, "nothing is lost");
        let is_busy = |refusal: &Refusal| matches!(refusal, Refusal::Busy(_));
        assert!(of_node.keys().all(is_busy), "{of_node:?}");
    }
    let asked = api.asked(EVICT).len();
    assert!(
        asked <= NODES * EVICTIONS_PER_NODE,
        "{asked} evictions: each Node has those that were under way when it heard of it"
    );
}
