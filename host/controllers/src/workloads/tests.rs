//! Cases of the connection keeper, with an API server and a clock of our own. Time is virtual.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use capstan_core::material::{KUBECONFIG, secret_key, secret_object};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;

mod endless;

use super::*;
use crate::ctx::SystemClock;
use crate::fence::Fence;
use crate::kube_api::staged::{Act, Staged};
use crate::kube_api::{ApiError, WatchEvent};

/// What is asked of a server that is looked at, and of one that may be ready.
const PROBE: &str = "get /";
const READY: &str = "get /readyz";

/// What a host has behind this fence.
pub(crate) fn host_behind(fence: Fence) -> Ctx {
    Ctx {
        fence,
        ..host_of(Staged::new())
    }
}

/// What a host of this management cluster has.
pub(crate) fn host_of(api: Arc<dyn KubeApi>) -> Ctx {
    let (connect, clock) = (Arc::new(RealConnect::default()), Arc::new(SystemClock));
    Ctx::new(api, connect, clock, Tasks::default(), "ns")
}

/// Nobody is at home.
fn down() -> Act {
    Act::Refuse(ApiError::Unavailable("connection refused".to_owned()))
}

struct FakeConnect {
    server: Arc<Staged>,
    /// Another server, for kubeconfigs with this beginning.
    other: Option<(&'static str, Arc<Staged>)>,
    /// The load balancer leads the next client to a server that is ready.
    leads_elsewhere: AtomicBool,
    made: AtomicUsize,
    own_pod: Option<OwnPod>,
    /// The server at the address inside.
    inside: Arc<Staged>,
}

impl Connect for FakeConnect {
    fn connect<'a>(
        &'a self,
        text: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        self.made.fetch_add(1, Ordering::SeqCst);
        if self.leads_elsewhere.swap(false, Ordering::SeqCst) {
            self.server.act(READY, None);
        }
        let other = self.other.iter().find(|(begin, _)| text.starts_with(begin));
        let api = Arc::clone(other.map_or(&self.server, |(_, api)| api)) as Arc<dyn KubeApi>;
        async move { Ok(api) }.boxed()
    }

    fn own_pod(&self) -> Option<&OwnPod> {
        self.own_pod.as_ref()
    }

    fn connect_inside<'a>(
        &'a self,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        let api = Arc::clone(&self.inside) as Arc<dyn KubeApi>;
        async move { Ok(api) }.boxed()
    }
}

/// Follows tokio's virtual time.
struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        start
            .saturating_add(jiff::SignedDuration::try_from(self.0.elapsed()).unwrap())
            .unwrap()
    }
}

/// Both clusters: the management cluster holds the kubeconfig, the workload cluster some Nodes.
struct World {
    api: Arc<Staged>,
    server: Arc<Staged>,
    connect: Arc<FakeConnect>,
    workloads: Workloads,
    changes: mpsc::Receiver<WorkloadChange>,
}

fn cluster() -> ObjectKey {
    ObjectKey::new("n", "c")
}

fn world() -> World {
    world_with(None, None)
}

fn world_with(other: Option<(&'static str, Arc<Staged>)>, own_pod: Option<OwnPod>) -> World {
    let (api, server) = (Staged::new(), Staged::new());
    let connect = Arc::new(FakeConnect {
        server: Arc::clone(&server),
        other,
        leads_elsewhere: AtomicBool::new(false),
        made: AtomicUsize::new(0),
        own_pod,
        inside: Staged::new(),
    });
    let workloads = Workloads::new(
        Arc::clone(&api) as Arc<dyn KubeApi>,
        Secrets::default(),
        Arc::clone(&connect) as Arc<dyn Connect>,
        Arc::new(VirtualClock(tokio::time::Instant::now())),
        Tasks::default(),
    );
    // Of thousands of clusters that are down, each is told to be silent twice.
    let (sender, changes) = mpsc::channel(8192);
    workloads.listen(move |change| sender.try_send(change.clone()).unwrap());
    World {
        api,
        server,
        connect,
        workloads,
        changes,
    }
}

impl World {
    async fn next(&mut self) -> &'static str {
        word(&self.changes.recv().await.unwrap())
    }

    fn give_kubeconfig(&self, text: &str) {
        give_kubeconfig(&self.api, &cluster(), text);
    }
}

fn give_kubeconfig(api: &Staged, cluster: &ObjectKey, text: &str) {
    let key = secret_key(cluster, KUBECONFIG);
    let secret = secret_object(&key, &cluster.name, None, &[("value", text.as_bytes())]);
    api.hold(&kinds::SECRET, secret);
}

/// The watch has to be open before something is sent on it.
async fn watched(server: &Staged) {
    while server.watched(&kinds::NODE) == 0 {
        tokio::task::yield_now().await;
    }
}

fn word(change: &WorkloadChange) -> &'static str {
    match change.event {
        WorkloadEvent::Connected => "connected",
        WorkloadEvent::Disconnected => "disconnected",
        WorkloadEvent::NotReady => "not ready",
        WorkloadEvent::Ready => "ready",
        WorkloadEvent::ProbeStale => "stale",
        WorkloadEvent::Node(_) => "node",
    }
}

fn node(name: &str, version: &str, ready: &str, beat: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": name, "resourceVersion": version},
        "spec": {"providerID": format!("p://{name}")},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": beat}]},
    })
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_is_noticed_soon_after_it_answers() {
    let mut world = world();
    world.server.act(PROBE, down());
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let connection = world.workloads.status(&cluster());
    assert!(
        !connection.connected && connection.failures > 10,
        "{connection:?}"
    );
    assert!(world.workloads.get(&cluster()).is_none());
    world.server.act(PROBE, None);
    let since = tokio::time::Instant::now();
    assert_eq!(world.next().await, "connected");
    assert!(since.elapsed() <= Duration::from_secs(5));
    assert!(world.workloads.status(&cluster()).connected);
    assert_eq!(
        world.connect.made.load(Ordering::SeqCst),
        1,
        "one client for one kubeconfig"
    );
}

#[tokio::test(start_paused = true)]
async fn a_nudge_is_quicker_than_waiting() {
    let mut world = world();
    world.workloads.keep(&cluster());
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(
        world
            .workloads
            .status(&cluster())
            .error
            .unwrap()
            .contains("c-kubeconfig")
    );
    world.give_kubeconfig("kubeconfig");
    let since = tokio::time::Instant::now();
    world.workloads.nudge(&cluster());
    assert_eq!(world.next().await, "connected");
    assert!(since.elapsed() < Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn nodes_are_found_and_heartbeats_wake_nobody() {
    let mut world = world();
    world.give_kubeconfig("kubeconfig");
    world.server.hold(&kinds::NODE, node("a", "1", "True", "x"));
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let workload = world.workloads.get(&cluster()).unwrap();
    assert_eq!(workload.nodes_by_provider_id("p://a").len(), 1);
    assert!(workload.nodes_by_provider_id("p://b").is_empty());
    watched(&world.server).await;
    world.server.tell(
        &kinds::NODE,
        Ok(WatchEvent::Applied(node("a", "12", "True", "y"))),
    );
    world.server.tell(
        &kinds::NODE,
        Ok(WatchEvent::Applied(node("a", "13", "False", "y"))),
    );
    let change = world.changes.recv().await.unwrap();
    let WorkloadEvent::Node(change) = change.event else {
        panic!("{change:?}")
    };
    assert_eq!(
        change.new.as_ref().unwrap().resource_version,
        13,
        "the heartbeat was not news"
    );
    let seen = change.new.as_ref().unwrap();
    let marked = seen.in_workload(&cluster());
    assert_eq!(marked.workload(), Some(&cluster()));
    assert!(Arc::ptr_eq(&marked.value, &seen.value), "it is not copied");
    world.server.tell(
        &kinds::NODE,
        Ok(WatchEvent::Deleted(node("a", "14", "False", "y"))),
    );
    assert_eq!(world.next().await, "node");
    assert!(workload.nodes_by_provider_id("p://a").is_empty());
}

#[tokio::test(start_paused = true)]
async fn five_failed_probes_end_a_connection_and_old_news_is_told() {
    let mut world = world();
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let last = world.workloads.status(&cluster()).last_success;
    let since = tokio::time::Instant::now();
    world.server.act(PROBE, down());
    assert_eq!(world.next().await, "not ready");
    // When the Cluster's RemoteConnectionProbe becomes False.
    assert_eq!(world.next().await, "stale");
    let told = since.elapsed().as_secs();
    assert!((50..60).contains(&told), "{told} s");
    assert_eq!(world.next().await, "disconnected");
    assert!(world.workloads.get(&cluster()).is_none());
    let connection = world.workloads.status(&cluster());
    assert!(!connection.connected);
    assert_eq!((connection.failures, connection.last_success), (5, last));
    assert_eq!(world.next().await, "stale", "again after five minutes");
    world.server.act(PROBE, None);
    assert_eq!(world.next().await, "connected");
    assert_eq!(world.workloads.status(&cluster()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_etcd_is_dead_is_left_for_another_one() {
    let mut world = world();
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    world.server.act(READY, down());
    world.connect.leads_elsewhere.store(true, Ordering::SeqCst);
    let since = tokio::time::Instant::now();
    assert_eq!(world.next().await, "disconnected");
    assert_eq!(world.next().await, "connected");
    assert!(since.elapsed() <= Duration::from_secs(10));
    assert_eq!(
        world.connect.made.load(Ordering::SeqCst),
        2,
        "a client of its own, since the old one keeps its connection"
    );
}

#[tokio::test(start_paused = true)]
async fn that_no_server_is_ready_any_more_is_told_once_each_time() {
    let mut world = world();
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    for _ in 0..2 {
        world.server.act(READY, down());
        let since = tokio::time::Instant::now();
        assert_eq!(world.next().await, "not ready");
        assert!(since.elapsed() <= Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(world.workloads.status(&cluster()).connected);
        world.server.act(READY, None);
        assert_eq!(world.next().await, "ready");
    }
    assert!(world.changes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_read_again_at_once() {
    let mut world = world();
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    world.give_kubeconfig("renewed");
    let refused = ApiError::Forbidden("Unauthorized".to_owned());
    world.server.act(READY, Act::Refuse(refused));
    assert_eq!(world.next().await, "disconnected");
    let since = tokio::time::Instant::now();
    assert_eq!(world.next().await, "connected");
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(world.connect.made.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_of_a_cluster_that_is_dropped() {
    let mut world = world();
    world.give_kubeconfig("kubeconfig");
    world.workloads.keep(&cluster());
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    world.workloads.drop(&cluster());
    assert!(world.workloads.get(&cluster()).is_none());
    let status = world.workloads.status(&cluster());
    assert!(!status.connected && status.last_success.is_none());
    assert!(status.since.is_some(), "tried since the start");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probes = world.server.asked(PROBE).len();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.server.asked(PROBE).len(), probes);
    assert_eq!(
        Arc::strong_count(&world.server),
        2,
        "the world's and the connector's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_renewed_kubeconfig_takes_over_without_a_gap() {
    let other = Staged::new();
    let takes = Act::Wait(Duration::from_secs(20));
    other.act("list /api/v1/nodes", takes);
    other.hold(&kinds::NODE, node("b", "1", "True", "x"));
    let mut world = world_with(Some(("renewed", Arc::clone(&other))), None);
    world.give_kubeconfig("kubeconfig");
    world.server.hold(&kinds::NODE, node("a", "1", "True", "x"));
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let knows = |world: &World, id: &str| {
        let workload = world.workloads.get(&cluster()).expect("never without one");
        !workload.nodes_by_provider_id(id).is_empty()
    };
    // The new one does not lead to a server that answers: nothing changes.
    other.act(PROBE, down());
    world.give_kubeconfig("renewed");
    world
        .workloads
        .shared
        .secrets
        .forget(&secret_key(&cluster(), KUBECONFIG));
    world.workloads.nudge(&cluster());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(knows(&world, "p://a") && world.workloads.status(&cluster()).connected);
    // It answers: the one that is used stays until the Nodes are known.
    other.act(PROBE, None);
    world.workloads.nudge(&cluster());
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert!(knows(&world, "p://a") && world.workloads.status(&cluster()).connected);
    assert!(world.changes.try_recv().is_err(), "nobody noticed");
    assert_eq!(world.next().await, "connected");
    assert!(knows(&world, "p://b") && !knows(&world, "p://a"));
    // From now on its Nodes count, and the other's do not.
    watched(&other).await;
    assert_eq!(world.server.watched(&kinds::NODE), 0);
    let change = WatchEvent::Applied(node("b", "12", "False", "y"));
    other.tell(&kinds::NODE, Ok(change));
    assert_eq!(world.next().await, "node");
    let probes = world.server.asked(PROBE).len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.server.asked(PROBE).len(), probes);
    assert!(world.changes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_the_host_runs_on_is_reached_from_inside() {
    let own = OwnPod {
        namespace: "capstan-system".to_owned(),
        name: "capstan-0".to_owned(),
        uid: "mine".to_owned(),
    };
    for (pod, is_home) in [
        (None, false),
        (Some("of-another-cluster"), false),
        (Some("mine"), true),
    ] {
        let mut world = world_with(None, Some(own.clone()));
        if let Some(uid) = pod {
            let (namespace, name) = (&own.namespace, &own.name);
            let pod = json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}});
            world.server.hold(&kinds::POD, pod);
        }
        world
            .connect
            .inside
            .hold(&kinds::NODE, node("a", "1", "True", "x"));
        world.give_kubeconfig("kubeconfig");
        world.workloads.keep(&cluster());
        assert_eq!(world.next().await, "connected");
        let workload = world.workloads.get(&cluster()).unwrap();
        assert_eq!(workload.nodes_by_provider_id("p://a").len() == 1, is_home);
        let outside = world.server.asked(PROBE).len();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let probed = world.server.asked(PROBE).len() > outside;
        assert_eq!(probed, !is_home, "{pod:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_that_come_back_together_are_listed_some_at_a_time() {
    const CLUSTERS: usize = 200;
    let other = Staged::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (Arc::clone(&now), Arc::clone(&most));
    let listing = move || {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        async move {
            let under_way = running.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(under_way, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    };
    other.act("list /api/v1/nodes", Act::Do(Arc::new(listing)));
    let mut world = world_with(Some(("of-many", Arc::clone(&other))), None);
    let since = tokio::time::Instant::now();
    for index in 0..CLUSTERS {
        let key = ObjectKey::new("n", format!("of-many-{index}"));
        give_kubeconfig(&world.api, &key, &key.name);
        world.workloads.keep(&key);
    }
    for _ in 0..CLUSTERS {
        assert_eq!(world.next().await, "connected");
    }
    assert_eq!(most.load(Ordering::SeqCst), keeper::FIRST_LISTS_AT_ONCE);
    assert!(
        since.elapsed() < Duration::from_secs(8),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn thousands_of_clusters_that_are_down_do_not_slow_the_healthy_ones() {
    const DOWN_CLUSTERS: usize = 2000;
    const HEALTHY: usize = 20;
    let down = Staged::new();
    // The worst kind: every question waits for its whole time.
    down.act(PROBE, Act::Hang);
    let mut world = world_with(Some(("of-many-down", Arc::clone(&down))), None);
    world.server.hold(&kinds::NODE, node("a", "1", "True", "x"));
    for index in 0..DOWN_CLUSTERS {
        let key = ObjectKey::new("n", format!("of-many-down-{index}"));
        give_kubeconfig(&world.api, &key, &key.name);
        world.workloads.keep(&key);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let healthy: Vec<ObjectKey> = (0..HEALTHY)
        .map(|index| ObjectKey::new("n", format!("of-many-up-{index}")))
        .collect();
    let since = tokio::time::Instant::now();
    for key in &healthy {
        give_kubeconfig(&world.api, key, &key.name);
        world.workloads.keep(key);
    }
    let mut connected = 0;
    while connected < HEALTHY {
        let change = world.changes.recv().await.unwrap();
        connected += usize::from(word(&change) == "connected");
    }
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    // Some time: healthy ones are probed as always and hear of their Nodes at once; what is down is asked seldom.
    let some_time = Duration::from_secs(1200);
    let (asked, probed) = (down.asked(PROBE).len(), world.server.asked(PROBE).len());
    tokio::time::sleep(some_time).await;
    let asked = down.asked(PROBE).len() - asked;
    let per_cluster = asked / DOWN_CLUSTERS;
    assert!((40..120).contains(&per_cluster), "{per_cluster} each");
    let probed = world.server.asked(PROBE).len() - probed;
    assert!(probed / HEALTHY >= 115, "{probed} of {HEALTHY}");
    while let Ok(change) = world.changes.try_recv() {
        let is_healthy = healthy.contains(&change.cluster);
        assert!(!is_healthy, "{}: {}", change.cluster, word(&change));
    }
    let since = tokio::time::Instant::now();
    let change = WatchEvent::Applied(node("a", "12", "False", "y"));
    world.server.tell(&kinds::NODE, Ok(change));
    for _ in &healthy {
        assert_eq!(world.next().await, "node");
    }
    assert!(since.elapsed() < Duration::from_secs(1));
}
