//! One cluster's task: connect, watch Nodes, probe; tell who wants to know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::material::{self, KUBECONFIG, VALUE_KEY};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::nodes::Workload;
use super::{Shared, State, WorkloadChange, WorkloadEvent, lock, words};
use crate::kube_api::{ApiError, KubeApi, Selection};
use crate::secrets::{SecretData, kubeconfig};
use crate::watcher;

/// Between probes of a connection, and how long one may take.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// So many failed probes in a row end a connection.
const FAILURES_MAX: u32 = 5;

/// After a failure to connect.
const RECONNECT_AFTER: Duration = Duration::from_secs(30);

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
                            RECONNECT_AFTER
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
                        RECONNECT_AFTER
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
        let api = match made {
            Some(made) if made.secret.data == secret.data => Arc::clone(&made.api),
            _ => {
                let text = secret.text(VALUE_KEY);
                let text = text.ok_or_else(|| {
                    Failed::Other(format!("Secret {key}: it has no text under {VALUE_KEY:?}"))
                })?;
                let server = kubeconfig::server(&secret).unwrap_or_default();
                server.clone_into(&mut lock(&self.state).server);
                let api = shared.connect.connect(text).await;
                let api = api.map_err(|error| Failed::Other(format!("Secret {key}: {error}")))?;
                *made = Some(Made {
                    secret,
                    api: Arc::clone(&api),
                });
                api
            }
        };
        drop(shared);
        probe(&*api, ALIVE).await?;
        Ok(Arc::new(Workload::new(api)))
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

    /// Serves a connection to its end.
    async fn serve(
        &self,
        workload: Arc<Workload>,
        made: &mut Option<Made>,
        stale_told: &mut usize,
    ) -> End {
        let used = made.as_ref().map(|made| Arc::clone(&made.secret));
        let told = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&workload);
        let is_told = Arc::clone(&told);
        let nodes = watcher::run(
            Arc::clone(&workload.api),
            Arc::clone(&workload.nodes),
            Selection::default(),
            move |_, change| {
                // Before the connection is told of, nobody knows of its Nodes.
                if watched.changed(&change) && is_told.load(Ordering::Acquire) {
                    self.tell(WorkloadEvent::Node(change));
                }
            },
        );
        let probes = async {
            if timeout(SYNC_TIMEOUT, workload.nodes.synced())
                .await
                .is_err()
            {
                let message = format!("Nodes were not listed within {} s", SYNC_TIMEOUT.as_secs());
                self.failed(message, stale_told);
                return End::Silent;
            }
            told.store(true, Ordering::Release);
            lock(&self.state).workload = Some(Arc::clone(&workload));
            self.succeeded();
            self.tell(WorkloadEvent::Connected);
            self.probe_on(&*workload.api, made, stale_told).await
        };
        let end = tokio::select! {
            biased;
            end = probes => end,
            () = nodes => End::Silent,
            () = self.renewed(used.as_deref()) => End::Refused,
        };
        if end == End::Refused
            && let Some(shared) = self.shared.upgrade()
        {
            shared
                .secrets
                .forget(&material::secret_key(&self.cluster, KUBECONFIG));
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
        loop {
            sleep(PROBE_EVERY).await;
            let mut answer = probe(api, READY).await;
            if matches!(answer, Err(Failed::Other(_))) {
                if self.is_ready_elsewhere(made).await {
                    return End::Elsewhere;
                }
                answer = probe(api, ALIVE).await;
            }
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
        let Some(text) = made.secret.text(VALUE_KEY) else {
            return false;
        };
        let Ok(fresh) = shared.connect.connect(text).await else {
            return false;
        };
        drop(shared);
        let is_ready = probe(&*fresh, READY).await.is_ok();
        if is_ready {
            made.api = fresh;
        }
        is_ready
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
        Ok(Ok(_) | Err(ApiError::NotFound(_))) => Ok(()),
        Ok(Err(ApiError::Forbidden(message))) => Err(Failed::Refused(message)),
        Ok(Err(error)) => Err(Failed::Other(error.to_string())),
        Err(_) => Err(Failed::Other(format!(
            "no answer within {} s",
            PROBE_TIMEOUT.as_secs()
        ))),
    }
}
