//! The connection keeper: one connection to each workload cluster, shared by all controllers, with a watch on its Nodes.
//!
//! Each cluster has one task: connect, watch Nodes, probe, connect again (contract: upstream `controllers/clustercache`).
//! Nothing stays of a cluster that is dropped.

mod any_server;
pub mod connect;
mod keeper;
pub mod nodes;
mod words;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use capstan_api::name::ObjectKey;
use capstan_core::plan::Failure;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};

pub use self::connect::{Connect, ConnectError, OwnPod, RealConnect};
pub use self::nodes::Workload;
use crate::ctx::{Clock, Ctx};
use crate::kinds;
use crate::kube_api::KubeApi;
use crate::object::Object;
use crate::secrets::Secrets;
use crate::store::Change;
use crate::tasks::Tasks;

/// What is known of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Whether there is one.
    pub connected: bool,
    /// When the cluster last answered a probe.
    pub last_success: Option<Timestamp>,
    /// Since when this host has tried.
    pub since: Option<Timestamp>,
    /// Failures since then.
    pub failures: u32,
    /// What failed last, if it was the last thing that happened.
    pub error: Option<String>,
    /// The cause, in words for people, where it is certain and somebody has to end it.
    pub said: Option<String>,
}

/// Something happened to a workload cluster.
#[derive(Clone, Debug)]
pub struct WorkloadChange {
    /// The Cluster.
    pub cluster: ObjectKey,
    /// What happened.
    pub event: WorkloadEvent,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum WorkloadEvent {
    /// There is a connection.
    Connected,
    /// There is none any more.
    Disconnected,
    /// No API server that answers is ready any more: etcd may have lost its majority.
    NotReady,
    /// One is again.
    Ready,
    /// The last good probe has become too old for somebody (50 s: Cluster; 5 min: Machines).
    ProbeStale,
    /// A Node changed in more than its heartbeat.
    Node(Change),
}

impl WorkloadChange {
    /// The change as controllers' maps take it. A Node says which Cluster it belongs to, by [`Object::workload`]; for everything else the
    /// object is the Cluster. `None` when the Cluster is gone.
    #[must_use]
    pub fn as_change(&self, ctx: &Ctx) -> Option<Change> {
        let cluster = ctx.get(&kinds::CLUSTER, &self.cluster)?;
        let WorkloadEvent::Node(change) = &self.event else {
            return Some(Change {
                old: Some(Arc::clone(&cluster)),
                new: Some(cluster),
            });
        };
        let marked = |object: &Option<Arc<Object>>| {
            let object = object.as_ref();
            object.map(|object| Arc::new(object.in_workload(&self.cluster)))
        };
        Some(Change {
            old: marked(&change.old),
            new: marked(&change.new),
        })
    }
}

/// Connections to all workload clusters. Clones share them.
#[derive(Clone)]
pub struct Workloads {
    shared: Arc<Shared>,
}

type Listener = Box<dyn Fn(&WorkloadChange) + Send + Sync>;

struct Shared {
    api: Arc<dyn KubeApi>,
    secrets: Secrets,
    connect: Arc<dyn Connect>,
    clock: Arc<dyn Clock>,
    started: Timestamp,
    tasks: Tasks,
    listener: OnceLock<Listener>,
    /// Turns of first lists.
    first_lists: Arc<Semaphore>,
    clusters: Mutex<HashMap<ObjectKey, Kept>>,
}

/// One cluster that is kept. Dropping it ends its task.
struct Kept {
    state: Arc<Mutex<State>>,
    nudge: Arc<Notify>,
    _stop: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    workload: Option<Arc<Workload>>,
    connection: Connection,
    /// URL of the server that the kubeconfig names.
    server: String,
    words: words::Words,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Workloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workloads({} kept)", self.clusters().len())
    }
}

impl Workloads {
    /// Keeps no connections yet. `api` is the management cluster, where the kubeconfigs are.
    #[must_use]
    pub fn new(
        api: Arc<dyn KubeApi>,
        secrets: Secrets,
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                api,
                secrets,
                connect,
                started: clock.now(),
                clock,
                tasks,
                listener: OnceLock::new(),
                first_lists: Arc::new(Semaphore::new(keeper::FIRST_LISTS_AT_ONCE)),
                clusters: Mutex::default(),
            }),
        }
    }

    /// Calls this when something happens. The first listener counts.
    pub fn listen(&self, listener: impl Fn(&WorkloadChange) + Send + Sync + 'static) {
        // A second listener would be a programming error without consequence: the first stays.
        let _ = self.shared.listener.set(Box::new(listener));
    }

    /// Keeps a connection to this cluster from now on.
    pub fn keep(&self, cluster: &ObjectKey) {
        let mut clusters = self.clusters();
        if clusters.contains_key(cluster) {
            return;
        }
        let (stop, stopped) = watch::channel(());
        let kept = Kept {
            state: Arc::new(Mutex::new(State {
                connection: Connection {
                    since: Some(self.shared.clock.now()),
                    ..Connection::default()
                },
                ..State::default()
            })),
            nudge: Arc::default(),
            _stop: stop,
        };
        let task = keeper::Keeper {
            // Weak: the task must not keep alive what ends it.
            shared: Arc::downgrade(&self.shared),
            cluster: cluster.clone(),
            state: Arc::clone(&kept.state),
            nudge: Arc::clone(&kept.nudge),
            first_lists: Arc::clone(&self.shared.first_lists),
        };
        clusters.insert(cluster.clone(), kept);
        drop(clusters);
        self.shared.tasks.spawn("workload", task.run(stopped));
    }

    /// Keeps no connection to this cluster any more.
    pub fn drop(&self, cluster: &ObjectKey) {
        self.clusters().remove(cluster);
    }

    /// Tries to connect at once if there is no connection: something that it depends on has come.
    pub fn nudge(&self, cluster: &ObjectKey) {
        if let Some(kept) = self.clusters().get(cluster) {
            kept.nudge.notify_one();
        }
    }

    /// The connection to a cluster, if there is one.
    #[must_use]
    pub fn get(&self, cluster: &ObjectKey) -> Option<Arc<Workload>> {
        let clusters = self.clusters();
        let kept = clusters.get(cluster)?;
        lock(&kept.state).workload.clone()
    }

    /// All connections that there are.
    #[must_use]
    pub fn all(&self) -> Vec<(ObjectKey, Arc<Workload>)> {
        let clusters = self.clusters();
        let connected = clusters.iter().filter_map(|(cluster, kept)| {
            let workload = lock(&kept.state).workload.clone()?;
            Some((cluster.clone(), workload))
        });
        connected.collect()
    }

    /// The connection to a cluster that a step needs.
    ///
    /// # Errors
    /// Transient, when there is none.
    pub fn connected(&self, cluster: &ObjectKey) -> Result<Arc<Workload>, Failure> {
        self.get(cluster).ok_or_else(|| {
            Failure::transient(
                "ConnectionDown",
                format!("the connection to the workload cluster {cluster} is down"),
            )
        })
    }

    /// What is known of a connection. One that is not kept yet has been tried since the start.
    #[must_use]
    pub fn status(&self, cluster: &ObjectKey) -> Connection {
        let clusters = self.clusters();
        let kept = clusters.get(cluster);
        kept.map_or_else(
            || Connection {
                since: Some(self.shared.started),
                ..Connection::default()
            },
            |kept| lock(&kept.state).connection.clone(),
        )
    }

    fn clusters(&self) -> MutexGuard<'_, HashMap<ObjectKey, Kept>> {
        self.shared
            .clusters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests;
