//! Cases of the connection keeper, with an API server and a clock of our own. Time is virtual.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use capstan_core::material::{KUBECONFIG, secret_key, secret_object};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use super::*;
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

/// Both clusters: the management cluster holds one Secret, the workload cluster some Nodes.
struct Fake {
    health: AtomicU32,
    probes: AtomicUsize,
    secret: Mutex<Option<Value>>,
    nodes: Mutex<Vec<Value>>,
    events: broadcast::Sender<WatchEvent>,
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            health: AtomicU32::new(UP),
            probes: AtomicUsize::new(0),
            secret: Mutex::default(),
            nodes: Mutex::default(),
            events: broadcast::channel(16).0,
        })
    }

    fn be(&self, health: u32) {
        self.health.store(health, Ordering::SeqCst);
    }

    fn give_kubeconfig(&self) {
        let object = secret_object(
            &secret_key(&cluster(), KUBECONFIG),
            "c",
            None,
            &[("value", b"kubeconfig")],
        );
        *self.secret.lock().unwrap() = Some(object);
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
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        let items = self.nodes.lock().unwrap().clone();
        async move {
            Ok(Page {
                items,
                resource_version: "10".to_owned(),
                next: None,
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
        _: &'a Resource,
        _: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        let secret = self.secret.lock().unwrap().clone();
        async move { secret.ok_or_else(|| ApiError::NotFound("no such Secret".to_owned())) }.boxed()
    }

    fn create<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        _: &'a Value,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        never()
    }

    fn create_subresource<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a ObjectKey,
        _: &'a str,
        _: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        never()
    }

    fn patch<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a ObjectKey,
        _: Option<&'a str>,
        _: &'a Patch,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
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
            match health {
                UP => Ok(String::new()),
                UNREADY if path != "/readyz" => Ok(String::new()),
                REFUSING => Err(ApiError::Forbidden("Unauthorized".to_owned())),
                _ => Err(ApiError::Unavailable("connection refused".to_owned())),
            }
        }
        .boxed()
    }
}

struct FakeConnect {
    api: Arc<Fake>,
    made: AtomicUsize,
}

impl Connect for FakeConnect {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        self.made.fetch_add(1, Ordering::SeqCst);
        if self.api.health.load(Ordering::SeqCst) == UNREADY {
            // The load balancer leads it to another server.
            self.api.be(UP);
        }
        let api = Arc::clone(&self.api) as Arc<dyn KubeApi>;
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
    let fake = Fake::new();
    let connect = Arc::new(FakeConnect {
        api: Arc::clone(&fake),
        made: AtomicUsize::new(0),
    });
    let workloads = Workloads::new(
        Arc::clone(&fake) as Arc<dyn KubeApi>,
        Secrets::default(),
        Arc::clone(&connect) as Arc<dyn Connect>,
        Arc::new(VirtualClock(tokio::time::Instant::now())),
        Tasks::default(),
    );
    let (sender, changes) = mpsc::channel(64);
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
        match self.changes.recv().await.unwrap().event {
            WorkloadEvent::Connected => "connected",
            WorkloadEvent::Disconnected => "disconnected",
            WorkloadEvent::ProbeStale => "stale",
            WorkloadEvent::Node(_) => "node",
        }
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
    let marked = marked(change.new.as_ref().unwrap(), &cluster()).unwrap();
    assert_eq!(marked.annotation(annotation::CLUSTER_NAME), Some("c"));
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
    world.fake.be(DOWN);
    assert_eq!(world.next().await, "stale");
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
