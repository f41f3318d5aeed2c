//! One cluster's task: connect, watch Nodes, probe; tell who wants to know.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::material::{self, KUBECONFIG, VALUE_KEY};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Connect, ConnectError, OwnPod};
use super::nodes::Workload;
use super::{Shared, State, WorkloadChange, WorkloadEvent, lock, words};
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Selection};
use crate::secrets::{SecretData, kubeconfig};
use crate::watcher;

/// Between probes of a connection, and how long one may take.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// So many failed probes in a row end a connection.
const FAILURES_MAX: u32 = 5;

/// After a failure to connect, to within a fifth: what is away for all clusters comes back for all of them.
const RECONNECT_AFTER: Duration = Duration::from_secs(30);

/// First lists of Nodes that are under way at once, of all clusters. They are the most that a connection costs, and after a start, or when a
/// network comes back, all clusters connect together.
pub(super) const FIRST_LISTS_AT_ONCE: usize = 32;
/// So long one waits for its turn, and then goes ahead: those that hang keep nobody away.
const TURN_PATIENCE: Duration = Duration::from_secs(30);

/// A cluster that was never connected is probably just coming up, and people wait for it: tries grow by an eighth, from and
/// to these, for so long.
const EAGER_FIRST: Duration = Duration::from_millis(250);
const EAGER_MAX: Duration = Duration::from_secs(5);
const EAGER_FOR: Duration = Duration::from_secs(600);

/// How long the first list of Nodes may take.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// When a last good probe is too old: for a Cluster's condition, and for its Machines' (seconds).
const STALE_AFTER_S: [i64; 2] = [50, 300];

pub(super) struct Keeper {
    pub(super) shared: Weak<Shared>,
    pub(super) cluster: ObjectKey,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) nudge: Arc<Notify>,
    pub(super) first_lists: Arc<Semaphore>,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The credentials are no longer good: they were probably renewed.
    Refused,
    /// No answer, again and again.
    Silent,
    /// The API server at its other end is not ready, and another one is.
    Elsewhere,
}

/// What an API server answers that can do its work: also its etcd is asked.
const READY: &str = "/readyz";
/// What it answers as long as it runs.
const ALIVE: &str = "/";

/// A client and the kubeconfig that it was made from.
struct Made {
    secret: Arc<SecretData>,
    api: Arc<dyn KubeApi>,
    /// Whether this host runs on that cluster; `None` when it has not looked yet.
    is_home: Option<bool>,
}

impl Made {
    /// Another client of the same kind.
    async fn again(&self, connect: &dyn Connect) -> Result<Arc<dyn KubeApi>, ConnectError> {
        let text = self.secret.text(VALUE_KEY).unwrap_or_default();
        if self.is_home == Some(true) {
            connect.connect_inside(text).await
        } else {
            connect.connect(text).await
        }
    }
}

/// A connection with its watch on Nodes, which goes on while it is polled.
struct Served<'a> {
    workload: Arc<Workload>,
    /// Whether changes of Nodes are told: before the connection is told of, nobody knows of its Nodes.
    told: Arc<AtomicBool>,
    nodes: BoxFuture<'a, ApiError>,
}

impl Served<'_> {
    /// Waits for the first list of Nodes, which begins when it is its turn.
    async fn synced(&mut self, turns: &Semaphore) -> Result<(), String> {
        let _turn = timeout(TURN_PATIENCE, turns.acquire()).await;
        let synced = timeout(SYNC_TIMEOUT, self.workload.nodes.synced());
        tokio::select! {
            biased;
            ended = &mut self.nodes => Err(ended.to_string()),
            synced = synced => synced
                .map_err(|_| format!("Nodes were not listed within {} s", SYNC_TIMEOUT.as_secs())),
        }
    }
}

#[derive(Debug)]
enum Failed {
    Refused(String),
    Other(String),
}

impl Keeper {
    /// Runs until the other end of `stopped` is dropped.
    pub(super) async fn run(self, mut stopped: watch::Receiver<()>) {
        tokio::select! {
            biased;
            () = self.keep() => {}
            _ = stopped.changed() => {}
        }
        // Who still holds the state sees no connection.
        *lock(&self.state) = State::default();
    }

    async fn keep(&self) {
        let started = Instant::now();
        let mut eager = EAGER_FIRST;
        let mut was_connected = false;
        let mut made: Option<Made> = None;
        let mut stale_told = 0_usize;
        loop {
            let pause = match self.connect(&mut made).await {
                Ok(workload) => {
                    was_connected = true;
                    stale_told = 0;
                    match self.serve(workload, &mut made, &mut stale_told).await {
                        End::Elsewhere => Duration::ZERO,
                        // A client keeps its connections, and behind them may be a server of several that is bad.
                        End::Refused => {
                            made = None;
                            Duration::ZERO
                        }
                        End::Silent => {
                            made = None;
                            self.reconnect_after()
                        }
                    }
                }
                Err(failed) => {
                    let message = match failed {
                        Failed::Refused(message) => {
                            self.forget_kubeconfig(&mut made);
                            message
                        }
                        Failed::Other(message) => message,
                    };
                    self.failed(message, &mut stale_told);
                    if was_connected || started.elapsed() > EAGER_FOR {
                        self.reconnect_after()
                    } else {
                        let pause = eager;
                        let eighth = eager.checked_div(8).unwrap_or_default();
                        eager = eager.saturating_add(eighth).min(EAGER_MAX);
                        pause
                    }
                }
            };
            if self.shared.strong_count() == 0 {
                return;
            }
            tokio::select! {
                biased;
                () = sleep(pause) => {}
                () = self.nudge.notified() => eager = EAGER_FIRST,
            }
        }
    }

    /// A client that got an answer.
    async fn connect(&self, made: &mut Option<Made>) -> Result<Arc<Workload>, Failed> {
        let Some(shared) = self.shared.upgrade() else {
            return Err(Failed::Other("the host is shutting down".to_owned()));
        };
        let key = material::secret_key(&self.cluster, KUBECONFIG);
        let secret = shared.secrets.get(&*shared.api, &key).await;
        let secret =
            secret.map_err(|error| Failed::Other(format!("reading Secret {key}: {error}")))?;
        let Some(secret) = secret else {
            return Err(Failed::Other(format!("Secret {key} does not exist yet")));
        };
        if made
            .as_ref()
            .is_none_or(|made| made.secret.data != secret.data)
        {
            let text = secret.text(VALUE_KEY);
            let text = text.ok_or_else(|| {
                Failed::Other(format!("Secret {key}: it has no text under {VALUE_KEY:?}"))
            })?;
            let is_first = lock(&self.state).workload.is_none();
            if is_first {
                self.asks(&secret);
            }
            let api = shared.connect.connect(text).await;
            let api = api.map_err(|error| Failed::Other(format!("Secret {key}: {error}")))?;
            *made = Some(Made {
                secret,
                api,
                is_home: None,
            });
        }
        let connect = Arc::clone(&shared.connect);
        drop(shared);
        let Some(made) = made else {
            return Err(Failed::Other("there is no client".to_owned()));
        };
        probe(&*made.api, ALIVE).await?;
        if let (None, Some(own)) = (made.is_home, connect.own_pod()) {
            let is_home = is_home(&*made.api, own).await?;
            made.is_home = Some(is_home);
            if is_home {
                let inside = made.again(&*connect).await;
                made.api = inside.map_err(|error| {
                    made.is_home = None;
                    Failed::Other(format!("the address inside of the cluster: {error}"))
                })?;
                tracing::info!(cluster = %self.cluster, "this host runs on the cluster: it uses the address inside");
                probe(&*made.api, ALIVE).await?;
            }
        }
        Ok(Arc::new(Workload::new(Arc::clone(&made.api))))
    }

    /// From now on, what fails is said of the server that this kubeconfig names.
    fn asks(&self, secret: &SecretData) {
        let server = kubeconfig::server(secret).unwrap_or_default();
        server.clone_into(&mut lock(&self.state).server);
    }

    /// Waits until somebody says that there may be another kubeconfig, and there is.
    async fn renewed(&self, used: Option<&SecretData>) {
        loop {
            self.nudge.notified().await;
            let Some(shared) = self.shared.upgrade() else {
                continue;
            };
            let key = material::secret_key(&self.cluster, KUBECONFIG);
            if let Ok(Some(now)) = shared.secrets.get(&*shared.api, &key).await
                && used.is_none_or(|used| used.data != now.data)
            {
                return;
            }
        }
    }

    fn forget_kubeconfig(&self, made: &mut Option<Made>) {
        *made = None;
        if let Some(shared) = self.shared.upgrade() {
            shared
                .secrets
                .forget(&material::secret_key(&self.cluster, KUBECONFIG));
        }
    }

    /// A connection to the cluster with another kubeconfig, as soon as there is one that works and its Nodes are known. Until then the
    /// one that is used stays as good as it is.
    async fn replacement(&self, used: Option<&SecretData>) -> (Made, Served<'_>) {
        loop {
            self.renewed(used).await;
            loop {
                let mut made = None;
                let failed = match self.connect(&mut made).await {
                    Ok(workload) => {
                        let mut served = self.watched(workload);
                        match (served.synced(&self.first_lists).await, made) {
                            (Ok(()), Some(made)) => return (made, served),
                            (Ok(()), None) => break,
                            (Err(message), _) => message,
                        }
                    }
                    Err(Failed::Refused(message) | Failed::Other(message)) => message,
                };
                tracing::debug!(cluster = %self.cluster, failed, "the new kubeconfig does not work yet");
                // What is in the Secret may change again.
                self.forget_kubeconfig(&mut None);
                tokio::select! {
                    biased;
                    () = sleep(self.reconnect_after()) => {}
                    () = self.nudge.notified() => {}
                }
            }
        }
    }

    /// Begins to watch the Nodes of a connection.
    fn watched(&self, workload: Arc<Workload>) -> Served<'_> {
        let told = Arc::new(AtomicBool::new(false));
        let (watched, is_told) = (Arc::clone(&workload), Arc::clone(&told));
        let nodes = watcher::run(
            Arc::clone(&workload.api),
            Arc::clone(&workload.nodes),
            Selection::default(),
            move |_, change| {
                if watched.changed(&change) && is_told.load(Ordering::Acquire) {
                    self.tell(WorkloadEvent::Node(change));
                }
            },
        );
        Served {
            nodes: nodes.boxed(),
            workload,
            told,
        }
    }

    /// Serves a connection to its end; one with a renewed kubeconfig takes its place without a gap.
    async fn serve(
        &self,
        workload: Arc<Workload>,
        made: &mut Option<Made>,
        stale_told: &mut usize,
    ) -> End {
        let mut served = self.watched(workload);
        if let Err(message) = served.synced(&self.first_lists).await {
            self.failed(message, stale_told);
            return End::Silent;
        }
        let end = loop {
            served.told.store(true, Ordering::Release);
            lock(&self.state).workload = Some(Arc::clone(&served.workload));
            self.succeeded();
            // Also of one that takes another's place: what happened between its list and the other's last news is told to nobody else.
            self.tell(WorkloadEvent::Connected);
            let used = made.as_ref().map(|made| Arc::clone(&made.secret));
            let (fresh, next) = tokio::select! {
                biased;
                end = self.probe_on(&*served.workload.api, made, stale_told) => break end,
                ended = &mut served.nodes => {
                    self.failed(ended.to_string(), stale_told);
                    break End::Silent;
                }
                next = self.replacement(used.as_deref()) => next,
            };
            self.asks(&fresh.secret);
            *made = Some(fresh);
            served = next;
        };
        if end == End::Refused {
            self.forget_kubeconfig(&mut None);
        }
        let was_told = {
            let mut state = lock(&self.state);
            state.connection.connected = false;
            state.workload.take().is_some()
        };
        if was_told {
            self.tell(WorkloadEvent::Disconnected);
        }
        end
    }

    async fn probe_on(
        &self,
        api: &dyn KubeApi,
        made: &mut Option<Made>,
        stale_told: &mut usize,
    ) -> End {
        let mut failures = 0_u32;
        let mut was_ready = true;
        loop {
            sleep(PROBE_EVERY).await;
            let mut answer = probe(api, READY).await;
            let is_ready = answer.is_ok();
            if matches!(answer, Err(Failed::Other(_))) {
                if self.is_ready_elsewhere(made).await {
                    return End::Elsewhere;
                }
                if was_ready {
                    self.tell(WorkloadEvent::NotReady);
                }
                answer = probe(api, ALIVE).await;
            }
            if is_ready && !was_ready {
                self.tell(WorkloadEvent::Ready);
            }
            was_ready = is_ready;
            match answer {
                Ok(()) => {
                    failures = 0;
                    *stale_told = 0;
                    self.succeeded();
                }
                Err(Failed::Refused(message)) => {
                    self.failed(message, stale_told);
                    return End::Refused;
                }
                Err(Failed::Other(message)) => {
                    failures = failures.saturating_add(1);
                    self.failed(message, stale_told);
                    if failures >= FAILURES_MAX {
                        return End::Silent;
                    }
                }
            }
        }
    }

    /// Makes a new client, whose connection a load balancer may lead to another API server, and keeps it when that is ready.
    async fn is_ready_elsewhere(&self, made: &mut Option<Made>) -> bool {
        let (Some(shared), Some(made)) = (self.shared.upgrade(), made) else {
            return false;
        };
        let Ok(fresh) = made.again(&*shared.connect).await else {
            return false;
        };
        drop(shared);
        let is_ready = probe(&*fresh, READY).await.is_ok();
        if is_ready {
            made.api = fresh;
        }
        is_ready
    }

    fn reconnect_after(&self) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.cluster.hash(&mut hasher);
        let percent = u32::try_from(hasher.finish() % 41).unwrap_or_default();
        let hundredfold = RECONNECT_AFTER.saturating_mul(percent.saturating_add(80));
        hundredfold.checked_div(100).unwrap_or(RECONNECT_AFTER)
    }

    fn now(&self) -> Option<Timestamp> {
        self.shared.upgrade().map(|shared| shared.clock.now())
    }

    fn succeeded(&self) {
        let now = self.now();
        let mut state = lock(&self.state);
        state.connection.connected = true;
        state.connection.failures = 0;
        state.connection.error = None;
        state.connection.said = None;
        state.words = words::Words::default();
        state.connection.last_success = now.or(state.connection.last_success);
    }

    fn failed(&self, error: String, stale_told: &mut usize) {
        let now = self.now();
        let (last, is_news) = {
            let mut state = lock(&self.state);
            let State {
                connection,
                server,
                words,
                ..
            } = &mut *state;
            connection.failures = connection.failures.saturating_add(1);
            tracing::debug!(cluster = %self.cluster, failures = connection.failures, %error, "workload cluster");
            let cause = words::cause(&self.cluster, server, &error);
            let is_news = words.failed(cause, &mut connection.said);
            connection.error = Some(error);
            (connection.last_success.max(connection.since), is_news)
        };
        let (Some(last), Some(now)) = (last, now) else {
            return;
        };
        let age_s = now.duration_since(last).as_secs();
        let stale = STALE_AFTER_S
            .iter()
            .filter(|limit| age_s >= **limit)
            .count();
        if stale > *stale_told || is_news {
            *stale_told = stale.max(*stale_told);
            self.tell(WorkloadEvent::ProbeStale);
        }
    }

    fn tell(&self, event: WorkloadEvent) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(listener) = shared.listener.get()
        {
            listener(&WorkloadChange {
                cluster: self.cluster.clone(),
                event,
            });
        }
    }
}

async fn probe(api: &dyn KubeApi, path: &str) -> Result<(), Failed> {
    match timeout(PROBE_TIMEOUT, api.get_raw(path)).await {
        // What does not know the path runs.
        Ok(Ok(_) | Err(ApiError::NotFound(_) | ApiError::NotServed(_))) => Ok(()),
        Ok(Err(ApiError::Forbidden(message))) => Err(Failed::Refused(message)),
        Ok(Err(error)) => Err(Failed::Other(error.to_string())),
        Err(_) => Err(Failed::Other(format!(
            "no answer within {} s",
            PROBE_TIMEOUT.as_secs()
        ))),
    }
}

/// Whether the cluster has the Pod that this host is: then it runs there.
async fn is_home(api: &dyn KubeApi, own: &OwnPod) -> Result<bool, Failed> {
    let key = ObjectKey::new(&own.namespace, &own.name);
    match timeout(PROBE_TIMEOUT, api.get(&kinds::POD, &key)).await {
        Ok(Ok(pod)) => {
            let uid = pod.pointer("/metadata/uid");
            Ok(uid.and_then(serde_json::Value::as_str) == Some(&own.uid))
        }
        Ok(Err(ApiError::NotFound(_) | ApiError::NotServed(_) | ApiError::Forbidden(_))) => {
            Ok(false)
        }
        Ok(Err(error)) => Err(Failed::Other(format!("reading Pod {key}: {error}"))),
        Err(_) => Err(Failed::Other(format!("reading Pod {key}: no answer"))),
    }
}
