//! Cases of the connection keeper, with an API server and a clock of our own. Time is virtual.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use capstan_core::material::{KUBECONFIG, secret_key, secret_object};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

mod endless;

use super::*;
use crate::ctx::SystemClock;
use crate::fence::Fence;
use crate::kube_api::{
    ApiError, Duplex, Page, Patch, Preconditions, Resource, Selection, WatchEvent,
};

/// What `GET /` answers.
const UP: u32 = 0;
const DOWN: u32 = 1;
/// 401, once.
const REFUSING: u32 = 2;
/// It answers, but its etcd does not, until another client is made.
const UNREADY: u32 = 3;

/// It does not even refuse.
const SILENT: u32 = 4;
/// No etcd is there for any of them.
const WITHOUT_ETCD: u32 = 5;

/// What a host has behind this fence.
pub(crate) fn host_behind(fence: Fence) -> Ctx {
    Ctx {
        fence,
        ..host_of(Fake::new())
    }
}

/// What a host of this management cluster has.
pub(crate) fn host_of(api: Arc<dyn KubeApi>) -> Ctx {
    let (connect, clock) = (Arc::new(RealConnect::default()), Arc::new(SystemClock));
    Ctx::new(api, connect, clock, Tasks::default(), "ns")
}

/// What becomes of an eviction.
type Evicting = Box<dyn Fn() -> BoxFuture<'static, Result<Value, ApiError>> + Send + Sync>;

/// Both clusters: the management cluster holds one Secret, the workload cluster some Nodes.
pub(crate) struct Fake {
    health: AtomicU32,
    probes: AtomicUsize,
    secret: Mutex<Option<Value>>,
    nodes: Mutex<Vec<Value>>,
    /// There is always another page.
    is_endless: AtomicBool,
    /// How many seconds a list takes.
    list_takes_s: AtomicU32,
    /// The only Pod.
    pod: Mutex<Option<Value>>,
    events: broadcast::Sender<WatchEvent>,
    evicting: OnceLock<Evicting>,
    /// Patches that were sent, which all fail.
    patches: Mutex<Vec<Patch>>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            health: AtomicU32::new(UP),
            probes: AtomicUsize::new(0),
            secret: Mutex::default(),
            nodes: Mutex::default(),
            is_endless: AtomicBool::new(false),
            list_takes_s: AtomicU32::new(0),
            pod: Mutex::default(),
            events: broadcast::channel(16).0,
            evicting: OnceLock::new(),
            patches: Mutex::default(),
        })
    }

    /// There is this Secret, whatever name is asked for.
    pub(crate) fn holds(&self, secret: Value) {
        *self.secret.lock().unwrap() = Some(secret);
    }

    /// The patches that were sent.
    pub(crate) fn patches(&self) -> Vec<Patch> {
        self.patches.lock().unwrap().clone()
    }

    /// Evictions end like this.
    pub(crate) fn evicts(
        &self,
        how: impl Fn() -> BoxFuture<'static, Result<Value, ApiError>> + Send + Sync + 'static,
    ) {
        assert!(self.evicting.set(Box::new(how)).is_ok());
    }

    /// Answers nothing any more, not even that it does not.
    pub(crate) fn fall_silent(&self) {
        self.be(SILENT);
    }

    fn be(&self, health: u32) {
        self.health.store(health, Ordering::SeqCst);
    }

    fn give_kubeconfig(&self) {
        self.give("kubeconfig");
    }

    fn give(&self, kubeconfig: &str) {
        let object = secret_object(
            &secret_key(&cluster(), KUBECONFIG),
            "c",
            None,
            &[("value", kubeconfig.as_bytes())],
        );
        self.holds(object);
    }
}

fn never<'a, T: 'a>() -> BoxFuture<'a, Result<T, ApiError>> {
    async { Err(ApiError::Invalid("not asked for in these tests".to_owned())) }.boxed()
}

impl KubeApi for Fake {
    fn list<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a Selection,
        _: u32,
        at: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        let page = at.map_or(0, |at| at.parse::<usize>().unwrap());
        let is_endless = self.is_endless.load(Ordering::SeqCst);
        let items = self.nodes.lock().unwrap().clone();
        let takes = Duration::from_secs(self.list_takes_s.load(Ordering::SeqCst).into());
        async move {
            tokio::time::sleep(takes).await;
            Ok(Page {
                items,
                resource_version: "10".to_owned(),
                next: is_endless.then(|| page.saturating_add(1).to_string()),
            })
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a Selection,
        _: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, ApiError>>, ApiError>> {
        let events = self.events.subscribe();
        async move {
            let stream = stream::unfold(events, |mut events| async move {
                events.recv().await.ok().map(|event| (Ok(event), events))
            });
            Ok(stream.boxed())
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        let found = if resource.kind == "Pod" {
            self.pod.lock().unwrap().clone()
        } else if key.name.starts_with("of-many-") {
            // Their kubeconfigs say which they are.
            let name = key.name.as_bytes();
            Some(secret_object(key, "c", None, &[("value", name)]))
        } else {
            self.secret.lock().unwrap().clone()
        };
        async move { found.ok_or_else(|| ApiError::NotFound("no such object".to_owned())) }.boxed()
    }

    fn create<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        _: &'a Value,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        if self.secret.lock().unwrap().is_none() {
            return never();
        }
        async { Err(ApiError::AlreadyExists("the Secret is there".to_owned())) }.boxed()
    }

    fn create_subresource<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a ObjectKey,
        _: &'a str,
        _: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.evicting.get().map_or_else(never, |how| how())
    }

    fn patch<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a ObjectKey,
        _: Option<&'a str>,
        patch: &'a Patch,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.patches.lock().unwrap().push(patch.clone());
        never()
    }

    fn delete<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a ObjectKey,
        _: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        never()
    }

    fn port_forward<'a>(
        &'a self,
        _: &'a ObjectKey,
        _: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>> {
        never()
    }

    fn get_raw<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<String, ApiError>> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        let health = self.health.load(Ordering::SeqCst);
        if health == REFUSING {
            self.be(UP);
        }
        async move {
            if health == SILENT {
                std::future::pending::<()>().await;
            }
            match health {
                UP => Ok(String::new()),
                UNREADY | WITHOUT_ETCD if path != "/readyz" => Ok(String::new()),
                REFUSING => Err(ApiError::Forbidden("Unauthorized".to_owned())),
                _ => Err(ApiError::Unavailable("connection refused".to_owned())),
            }
        }
        .boxed()
    }

    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>> {
        async { Ok(None) }.boxed()
    }
}

struct FakeConnect {
    api: Arc<Fake>,
    /// Another server, for kubeconfigs with this beginning.
    other: Option<(&'static str, Arc<Fake>)>,
    made: AtomicUsize,
    own_pod: Option<OwnPod>,
    /// The server at the address inside.
    inside: Arc<Fake>,
}

impl Connect for FakeConnect {
    fn connect<'a>(
        &'a self,
        text: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        self.made.fetch_add(1, Ordering::SeqCst);
        if self.api.health.load(Ordering::SeqCst) == UNREADY {
            // The load balancer leads it to another server.
            self.api.be(UP);
        }
        let other = self.other.iter().find(|(begin, _)| text.starts_with(begin));
        let api = Arc::clone(other.map_or(&self.api, |(_, api)| api)) as Arc<dyn KubeApi>;
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

struct World {
    fake: Arc<Fake>,
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

fn world_with(other: Option<(&'static str, Arc<Fake>)>, own_pod: Option<OwnPod>) -> World {
    let fake = Fake::new();
    let connect = Arc::new(FakeConnect {
        api: Arc::clone(&fake),
        other,
        made: AtomicUsize::new(0),
        own_pod,
        inside: Fake::new(),
    });
    let workloads = Workloads::new(
        Arc::clone(&fake) as Arc<dyn KubeApi>,
        Secrets::default(),
        Arc::clone(&connect) as Arc<dyn Connect>,
        Arc::new(VirtualClock(tokio::time::Instant::now())),
        Tasks::default(),
    );
    // Of thousands of clusters that are down, each is told to be silent twice.
    let (sender, changes) = mpsc::channel(8192);
    workloads.listen(move |change| sender.try_send(change.clone()).unwrap());
    World {
        fake,
        connect,
        workloads,
        changes,
    }
}

impl World {
    async fn next(&mut self) -> &'static str {
        word(&self.changes.recv().await.unwrap())
    }
}

fn word(change: &WorkloadChange) -> &'static str {
    match change.event {
        WorkloadEvent::Connected => "connected",
        WorkloadEvent::Disconnected => "disconnected",
        WorkloadEvent::NotReady => "not ready",
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
    world.fake.be(DOWN);
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let connection = world.workloads.status(&cluster());
    assert!(
        !connection.connected && connection.failures > 10,
        "{connection:?}"
    );
    assert!(world.workloads.get(&cluster()).is_none());
    world.fake.be(UP);
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
    world.fake.give_kubeconfig();
    let since = tokio::time::Instant::now();
    world.workloads.nudge(&cluster());
    assert_eq!(world.next().await, "connected");
    assert!(since.elapsed() < Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn nodes_are_found_and_heartbeats_wake_nobody() {
    let mut world = world();
    world.fake.give_kubeconfig();
    *world.fake.nodes.lock().unwrap() = vec![node("a", "1", "True", "x")];
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let workload = world.workloads.get(&cluster()).unwrap();
    assert_eq!(workload.nodes_by_provider_id("p://a").len(), 1);
    assert!(workload.nodes_by_provider_id("p://b").is_empty());
    // The watch has to be open before something is sent on it.
    while world.fake.events.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    world
        .fake
        .events
        .send(WatchEvent::Applied(node("a", "11", "True", "y")))
        .unwrap();
    world
        .fake
        .events
        .send(WatchEvent::Applied(node("a", "12", "False", "y")))
        .unwrap();
    let change = world.changes.recv().await.unwrap();
    let WorkloadEvent::Node(change) = change.event else {
        panic!("{change:?}")
    };
    assert_eq!(
        change.new.as_ref().unwrap().resource_version,
        12,
        "the heartbeat was not news"
    );
    let seen = change.new.as_ref().unwrap();
    let marked = seen.in_workload(&cluster());
    assert_eq!(marked.workload(), Some(&cluster()));
    assert!(Arc::ptr_eq(&marked.value, &seen.value), "it is not copied");
    world
        .fake
        .events
        .send(WatchEvent::Deleted(node("a", "13", "False", "y")))
        .unwrap();
    assert_eq!(world.next().await, "node");
    assert!(workload.nodes_by_provider_id("p://a").is_empty());
}

#[tokio::test(start_paused = true)]
async fn five_failed_probes_end_a_connection_and_old_news_is_told() {
    let mut world = world();
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let last = world.workloads.status(&cluster()).last_success;
    let since = tokio::time::Instant::now();
    world.fake.be(DOWN);
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
    world.fake.be(UP);
    assert_eq!(world.next().await, "connected");
    assert_eq!(world.workloads.status(&cluster()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_etcd_is_dead_is_left_for_another_one() {
    let mut world = world();
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    world.fake.be(UNREADY);
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
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    for _ in 0..2 {
        world.fake.be(WITHOUT_ETCD);
        let since = tokio::time::Instant::now();
        assert_eq!(world.next().await, "not ready");
        assert!(since.elapsed() <= Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(world.workloads.status(&cluster()).connected);
        world.fake.be(UP);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert!(world.changes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_read_again_at_once() {
    let mut world = world();
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let renewed = secret_object(
        &secret_key(&cluster(), KUBECONFIG),
        "c",
        None,
        &[("value", b"renewed")],
    );
    *world.fake.secret.lock().unwrap() = Some(renewed);
    world.fake.be(REFUSING);
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
    world.fake.give_kubeconfig();
    world.workloads.keep(&cluster());
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    world.workloads.drop(&cluster());
    assert!(world.workloads.get(&cluster()).is_none());
    let status = world.workloads.status(&cluster());
    assert!(!status.connected && status.last_success.is_none());
    assert!(status.since.is_some(), "tried since the start");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probes = world.fake.probes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.fake.probes.load(Ordering::SeqCst), probes);
    assert_eq!(
        Arc::strong_count(&world.fake),
        3,
        "the world's, the connector's and the management cluster's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_renewed_kubeconfig_takes_over_without_a_gap() {
    let other = Fake::new();
    other.list_takes_s.store(20, Ordering::SeqCst);
    *other.nodes.lock().unwrap() = vec![node("b", "1", "True", "x")];
    let mut world = world_with(Some(("renewed", Arc::clone(&other))), None);
    world.fake.give_kubeconfig();
    *world.fake.nodes.lock().unwrap() = vec![node("a", "1", "True", "x")];
    world.workloads.keep(&cluster());
    assert_eq!(world.next().await, "connected");
    let knows = |world: &World, id: &str| {
        let workload = world.workloads.get(&cluster()).expect("never without one");
        !workload.nodes_by_provider_id(id).is_empty()
    };
    // The new one does not lead to a server that answers: nothing changes.
    other.be(DOWN);
    world.fake.give("renewed");
    world
        .workloads
        .shared
        .secrets
        .forget(&secret_key(&cluster(), KUBECONFIG));
    world.workloads.nudge(&cluster());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(knows(&world, "p://a") && world.workloads.status(&cluster()).connected);
    // It answers: the one that is used stays until the Nodes are known.
    other.be(UP);
    world.workloads.nudge(&cluster());
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert!(knows(&world, "p://a") && world.workloads.status(&cluster()).connected);
    assert!(world.changes.try_recv().is_err(), "nobody noticed");
    assert_eq!(world.next().await, "connected");
    assert!(knows(&world, "p://b") && !knows(&world, "p://a"));
    // From now on its Nodes count, and the other's do not.
    while other.events.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.fake.events.receiver_count(), 0);
    let change = WatchEvent::Applied(node("b", "12", "False", "y"));
    other.events.send(change).unwrap();
    assert_eq!(world.next().await, "node");
    let probes = world.fake.probes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.fake.probes.load(Ordering::SeqCst), probes);
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
        *world.fake.pod.lock().unwrap() = pod.map(|uid| json!({"metadata": {"uid": uid}}));
        *world.connect.inside.nodes.lock().unwrap() = vec![node("a", "1", "True", "x")];
        world.fake.give_kubeconfig();
        world.workloads.keep(&cluster());
        assert_eq!(world.next().await, "connected");
        let workload = world.workloads.get(&cluster()).unwrap();
        assert_eq!(workload.nodes_by_provider_id("p://a").len() == 1, is_home);
        let outside = world.fake.probes.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let probed = world.fake.probes.load(Ordering::SeqCst) > outside;
        assert_eq!(probed, !is_home, "{pod:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_clusters_that_are_down_do_not_slow_the_healthy_ones() {
    const DOWN_CLUSTERS: usize = 2000;
    const HEALTHY: usize = 20;
    let down = Fake::new();
    // The worst kind: every question waits for its whole time.
    down.be(SILENT);
    let mut world = world_with(Some(("of-many-down", Arc::clone(&down))), None);
    *world.fake.nodes.lock().unwrap() = vec![node("a", "1", "True", "x")];
    for index in 0..DOWN_CLUSTERS {
        let key = ObjectKey::new("n", format!("of-many-down-{index}"));
        world.workloads.keep(&key);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let healthy: Vec<ObjectKey> = (0..HEALTHY)
        .map(|index| ObjectKey::new("n", format!("of-many-up-{index}")))
        .collect();
    let since = tokio::time::Instant::now();
    for key in &healthy {
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
    let (asked, probed) = (
        down.probes.load(Ordering::SeqCst),
        world.fake.probes.load(Ordering::SeqCst),
    );
    tokio::time::sleep(some_time).await;
    let asked = down.probes.load(Ordering::SeqCst) - asked;
    let per_cluster = asked / DOWN_CLUSTERS;
    assert!((40..120).contains(&per_cluster), "{per_cluster} each");
    let probed = world.fake.probes.load(Ordering::SeqCst) - probed;
    assert!(probed / HEALTHY >= 115, "{probed} of {HEALTHY}");
    while let Ok(change) = world.changes.try_recv() {
        let is_healthy = healthy.contains(&change.cluster);
        assert!(!is_healthy, "{}: {}", change.cluster, word(&change));
    }
    let since = tokio::time::Instant::now();
    let change = WatchEvent::Applied(node("a", "12", "False", "y"));
    world.fake.events.send(change).unwrap();
    for _ in &healthy {
        assert_eq!(world.next().await, "node");
    }
    assert!(since.elapsed() < Duration::from_secs(1));
}
