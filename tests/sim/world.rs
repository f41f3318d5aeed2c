//! A simulated world: its servers, its cloud, its luck, and what happened in it. One lock holds all of it, because one thread runs
//! all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::ctx::Clock;
use capstan_controllers::kube_api::{ApiError, Resource};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::check::Watchman;
use crate::cloud::Cloud;
use crate::fault::Rates;
use crate::hook::Hooks;
use crate::object::{list, text};
use crate::random::Random;
use crate::stacked::Stacked;
use crate::store::{Store, Written};
use crate::trace::Trace;

/// When every world begins.
const BEGINNING: &str = "2026-01-01T00:00:00Z";

/// One of the API servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Of the management cluster.
    Management,
    /// Of a workload cluster, by its Cluster.
    Workload(ObjectKey),
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The host under test.
    Host,
    /// A person.
    User,
    /// Everything else: providers, kubelets, garbage collection.
    Nature,
}

/// A write as the world sees it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Who.
    pub actor: Actor,
    /// In whose name.
    pub by: &'a str,
    /// What is done.
    pub verb: &'static str,
    /// To what kind.
    pub resource: &'a Resource,
    /// To which object.
    pub key: &'a ObjectKey,
}

/// A workload cluster.
#[derive(Debug)]
pub struct Workload {
    /// Its API server's content.
    pub store: Store,
    /// Does not answer until then.
    pub down_until: Duration,
}

/// Everything.
#[derive(Debug)]
pub struct State {
    started: Instant,
    beginning: Timestamp,
    /// What happened.
    pub trace: Trace,
    /// Luck of requests and watches.
    pub network: Random,
    /// Luck of plugins and the cloud.
    pub plugins: Random,
    /// Luck of kubelets, providers and everything else.
    pub nature: Random,
    /// Luck of the host itself.
    pub host: Random,
    /// How often things go wrong.
    pub worst: Rates,
    /// No faults any more.
    pub is_calm: bool,
    /// Something changed of which watches were not told.
    is_news: bool,
    /// The management cluster.
    pub management: Store,
    /// The management cluster does not answer until then.
    pub down_until: Duration,
    /// Workload clusters that have a control plane.
    pub workloads: BTreeMap<ObjectKey, Workload>,
    /// The cloud.
    pub cloud: Cloud,
    /// What hooks were asked.
    pub hooks: Hooks,
    /// The control plane of Machines, in worlds that have one.
    pub stacked: Option<Stacked>,
    /// What must stay true.
    pub watchman: Watchman,
}

impl State {
    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time of day.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.now()).unwrap_or(SignedDuration::MAX);
        self.beginning
            .saturating_add(since)
            .unwrap_or(Timestamp::MAX)
    }

    /// The time as objects have it.
    #[must_use]
    pub fn now_text(&self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// How often things go wrong now.
    #[must_use]
    pub fn rates(&self) -> Rates {
        if self.is_calm {
            Rates::default()
        } else {
            self.worst
        }
    }

    /// Something changed that is no write.
    pub fn stir(&mut self) {
        self.is_news = true;
    }

    /// Something happened.
    pub fn note(&mut self, words: &str) {
        let now = self.now();
        self.trace.note(now, words);
    }

    /// How long a client of this server waits before it knows that there is no answer.
    pub fn unreachable_for(&mut self, server: &Server) -> Option<Duration> {
        let now = self.now();
        let down_until = match server {
            Server::Management => self.down_until,
            Server::Workload(cluster) => match self.workloads.get(cluster) {
                Some(workload) => workload.down_until,
                None => Duration::MAX,
            },
        };
        let is_silent = matches!(server, Server::Workload(_)) && self.is_silent();
        (down_until > now || is_silent).then(|| self.network.millis(1, 10_000))
    }

    /// The content of a server.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn server(&mut self, server: &Server) -> Result<&mut Store, ApiError> {
        match server {
            Server::Management => Ok(&mut self.management),
            Server::Workload(cluster) => self
                .workloads
                .get_mut(cluster)
                .map(|workload| &mut workload.store)
                .ok_or_else(|| ApiError::Unavailable("no route to host".to_owned())),
        }
    }

    /// One write: done, noted, and held against what must stay true.
    ///
    /// # Errors
    /// What the server says.
    pub fn write(
        &mut self,
        server: &Server,
        write: &Write<'_>,
        effect: impl FnOnce(&mut Store, &str) -> Result<Written, ApiError>,
    ) -> Result<Value, ApiError> {
        let now = self.now_text();
        let result = effect(self.server(server)?, &now);
        let place = match server {
            Server::Management => "",
            Server::Workload(_) => " (workload)",
        };
        let what = format!(
            "{} {} {} {}{place}",
            write.by, write.verb, write.resource.kind, write.key
        );
        match result {
            Ok(written) => {
                let is_change = written.is_change();
                let news = match (&written.old, &written.new) {
                    (Some(old), Some(new)) if is_change => news(old, new),
                    _ if is_change => String::new(),
                    _ => " (same)".to_owned(),
                };
                self.note(&format!("{what}{news}"));
                if write.actor == Actor::Host {
                    self.watchman.host_wrote(&what);
                }
                if is_change {
                    self.is_news = true;
                    self.check(server, write, &written);
                }
                Ok(written.answer)
            }
            Err(error) => {
                self.note(&format!("{what}: {error}"));
                Err(error)
            }
        }
    }
}

/// What is of interest of a change: replicas, the end, marks, and conditions whose status is another.
fn news(old: &Value, new: &Value) -> String {
    let mut words = String::new();
    for field in [
        "/spec/replicas",
        "/metadata/deletionTimestamp",
        "/metadata/annotations",
        "/metadata/finalizers",
    ] {
        let (was, is) = (old.pointer(field), new.pointer(field));
        if was != is {
            let show =
                |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
            let name = field.rsplit('/').next().unwrap_or_default();
            words.push_str(&format!(", {name} {} -> {}", show(was), show(is)));
        }
    }
    for condition in list(new, "/status/conditions") {
        let mut before = list(old, "/status/conditions").iter();
        let before = before.find(|c| c["type"] == condition["type"]);
        let status = |c: &Value| text(c, "/status").to_owned();
        let was = before.map_or_else(|| "none".to_owned(), status);
        if was != status(condition) {
            words.push_str(&format!(
                ", {} {was} -> {}",
                text(condition, "/type"),
                status(condition)
            ));
        }
    }
    words
}

/// A world that its inhabitants share.
pub struct World {
    state: Mutex<State>,
    changes: Notify,
}

impl World {
    /// A world that follows from a seed, in which things go wrong so often.
    #[must_use]
    pub fn new(seed: u64, worst: Rates) -> Arc<Self> {
        let random = Random::new(seed);
        let state = State {
            started: Instant::now(),
            beginning: BEGINNING.parse().expect("is a time"),
            trace: Trace::default(),
            network: random.fork(1),
            plugins: random.fork(2),
            nature: random.fork(3),
            host: random.fork(4),
            worst,
            is_calm: false,
            is_news: false,
            management: Store::new("m"),
            down_until: Duration::ZERO,
            workloads: BTreeMap::new(),
            cloud: Cloud::default(),
            hooks: Hooks::default(),
            stacked: None,
            watchman: Watchman::default(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changes: Notify::new(),
        })
    }

    /// Everything. Not to be held over an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes watches, if there is something to see.
    pub fn changed(&self) {
        if std::mem::take(&mut self.lock().is_news) {
            // In the order in which they began to wait: other channels wake at random.
            self.changes.notify_waiters();
        }
    }

    /// Completes when something changed from now on.
    pub fn changes(&self) -> Notified<'_> {
        self.changes.notified()
    }

    /// Something happened.
    pub fn note(&self, words: &str) {
        self.lock().note(words);
    }
}

/// The world's time and the host's luck.
pub struct WorldClock(pub Arc<World>);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.0.lock().timestamp()
    }

    fn luck(&self) -> u64 {
        self.0.lock().host.draw()
    }
}
