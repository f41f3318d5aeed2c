//! What this process knows of a Plugin object beyond the object.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::name::ObjectKey;
use capstan_api::plugin::{OciSource, Plugin, PluginSource};
use capstan_core::plugin::{Active, Problem, Underway};
use capstan_engine::Loaded;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::queue::backoff;

/// How soon what failed for a passing reason is tried again; each further time twice as late.
const PAUSE_FIRST: Duration = Duration::from_secs(10);

/// The latest: as often as a registry is asked that answers.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What takes longer than this is not waited for when something else can answer calls: a registry that answers does so within a second,
/// and most components are compiled within some.
const LONG: Duration = Duration::from_secs(10);

/// What is known of one Plugin.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) attempt: Option<Loading>,
    pub(super) active: Option<Active>,
    /// What answered calls before, since when it does not, and a digest that was given up.
    pub(super) previous: Option<Arc<Loaded>>,
    pub(super) since: Option<Timestamp>,
    pub(super) given_up: Option<(String, String)>,
    pub(super) canary: Option<Loading>,
    /// What answered calls before this host started, and is not kept or cannot be used any more.
    pub(super) lost: Option<String>,
    /// That calls are held back, until when by the breaker's clock, and in words.
    pub(super) held_back: Option<(Instant, String)>,
    /// What references to registries meant.
    pub(super) resolutions: Vec<Resolution>,
    /// What is being loaded.
    pub(super) load: Option<Job>,
    pub(super) canary_load: Option<Job>,
    /// Version of the keys that all of this was checked with; empty when not all was with the same.
    pub(super) keys: Option<String>,
}

/// Which of a Plugin's components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Of `spec.source`.
    Main,
    /// Of `spec.canary.source`.
    Canary,
}

impl Memory {
    /// What came of the source, and the job that looks at it.
    pub(super) fn slot(&mut self, slot: Slot) -> (&mut Option<Loading>, &mut Option<Job>) {
        match slot {
            Slot::Main => (&mut self.attempt, &mut self.load),
            Slot::Canary => (&mut self.canary, &mut self.canary_load),
        }
    }

    /// Forgets what is about sources that the object does not name any more. Jobs end with that.
    pub(super) fn prune(&mut self, plugin: &Plugin) {
        let canary = plugin.spec.canary.as_ref();
        let (main, canary) = (
            Some((&plugin.spec.source, &plugin.spec.digest)),
            canary.map(|canary| (&canary.source, &canary.digest)),
        );
        for (slot, said) in [(Slot::Main, main), (Slot::Canary, canary)] {
            let (attempt, job) = self.slot(slot);
            let is_meant = |source: &PluginSource, pinned: &Option<String>| {
                said.is_some_and(|said| said == (source, pinned))
            };
            if job
                .as_ref()
                .is_some_and(|job| !is_meant(&job.source, &job.pinned))
            {
                *job = None;
            }
            let failed = attempt.as_ref().filter(|attempt| attempt.result.is_err());
            let is_outdated = failed
                .is_some_and(|failed| said.is_none_or(|(source, _)| *source != failed.source));
            if is_outdated {
                *attempt = None;
            }
        }
        let named = [main, canary];
        self.resolutions.retain(|resolution| {
            let mut named = named.iter().flatten();
            named.any(|(source, _)| source.oci.as_ref() == Some(&resolution.of))
        });
    }

    /// What is known of a reference, from now on.
    pub(super) fn resolution(&mut self, of: &OciSource) -> Option<&mut Resolution> {
        if !self.resolutions.iter().any(|known| known.of == *of) {
            self.resolutions.push(Resolution {
                of: of.clone(),
                known: None,
                failed: None,
                job: None,
            });
        }
        self.resolutions.iter_mut().find(|known| known.of == *of)
    }
}

/// What became of a source.
#[derive(Clone)]
pub(super) struct Loading {
    pub(super) source: PluginSource,
    pub(super) version: String,
    pub(super) at: Timestamp,
    pub(super) pinned: Option<String>,
    /// `registry/repository@digest`.
    pub(super) resolved: Option<String>,
    pub(super) result: Result<Arc<Loaded>, Problem>,
    /// How often in a row it failed for a passing reason.
    pub(super) failures: u32,
    /// It was told of as an event.
    pub(super) is_told: bool,
}

impl Loading {
    /// How long it is left alone from now on.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Duration> {
        let problem = self.result.as_ref().err();
        problem.filter(|problem| problem.is_transient)?;
        left(self.at, pause(self.failures), now)
    }
}

/// What a reference to a registry means.
#[derive(Clone)]
pub(super) struct Resolution {
    pub(super) of: OciSource,
    /// A digest, and when it was found out.
    pub(super) known: Option<(String, Timestamp)>,
    pub(super) failed: Option<Failed>,
    pub(super) job: Option<Job>,
}

/// Why a registry's last answer was none.
#[derive(Clone)]
pub(super) struct Failed {
    pub(super) why: String,
    pub(super) at: Timestamp,
    /// How often in a row.
    pub(super) times: u32,
}

impl Failed {
    /// How long the registry is left alone from now on.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Duration> {
        left(self.at, pause(self.times), now)
    }

    /// With when it is asked again.
    pub(super) fn words(&self) -> String {
        again(&self.why, self.at, self.times)
    }
}

/// The words with the time at which it is tried again.
pub(super) fn again(why: &str, at: Timestamp, failures: u32) -> String {
    let next = at.checked_add(pause(failures)).unwrap_or(at);
    format!("{why}; tried again at {}", shown(next))
}

fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn pause(failures: u32) -> Duration {
    backoff(PAUSE_FIRST, PAUSE_MAX, failures.saturating_sub(1))
}

/// What is left of a time that began then.
fn left(began: Timestamp, whole: Duration, now: Timestamp) -> Option<Duration> {
    let passed = now.duration_since(began).unsigned_abs();
    let left = whole.checked_sub(passed)?;
    (!left.is_zero()).then_some(left)
}

/// Work in the background. It ends when nobody has its job any more.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) source: PluginSource,
    pub(super) pinned: Option<String>,
    pub(super) since: Timestamp,
    _alive: Arc<oneshot::Sender<()>>,
}

impl Job {
    /// A job, and what tells that nobody has it any more.
    pub(super) fn new(
        id: u64,
        source: PluginSource,
        pinned: Option<String>,
        since: Timestamp,
    ) -> (Self, oneshot::Receiver<()>) {
        let (alive, gone) = oneshot::channel();
        let job = Self {
            id,
            source,
            pinned,
            since,
            _alive: Arc::new(alive),
        };
        (job, gone)
    }

    /// As the pure side wants it.
    pub(super) fn underway(&self, what: &str, now: Timestamp) -> Underway {
        Underway {
            what: format!("{what} since {}", shown(self.since)),
            long_after: left(self.since, LONG, now),
        }
    }
}

/// What is known of all Plugins. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Memories(Arc<Mutex<HashMap<ObjectKey, Memory>>>);

impl Memories {
    /// Changes what is known of a Plugin.
    pub(super) fn change<T>(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(key.clone()).or_default())
    }

    /// The same, unless it was forgotten.
    pub(super) fn change_known(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = all.get_mut(key) {
            change(memory);
        }
    }

    /// Forgets those that are not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&ObjectKey) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(image: &str) -> Plugin {
        serde_json::from_value(json!({
            "apiVersion": "capstan.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"namespace": "ns", "name": "p"},
            "spec": {"source": {"oci": {"image": image}}},
        }))
        .unwrap()
    }

    #[test]
    fn what_fails_is_left_alone_longer_each_time_and_not_for_ever() {
        let seconds = |failures| pause(failures).as_secs();
        assert_eq!(
            [1, 2, 3, 5, 6, 100].map(seconds),
            [10, 20, 40, 160, 300, 300]
        );
        let began = Timestamp::UNIX_EPOCH;
        let at = |second| Timestamp::from_second(second).unwrap();
        let failed = Failed {
            why: "no answer".to_owned(),
            at: began,
            times: 2,
        };
        assert_eq!(failed.pause(at(5)), Some(Duration::from_secs(15)));
        assert_eq!(failed.pause(at(20)), None);
        let words = "no answer; tried again at 1970-01-01T00:00:20Z";
        assert_eq!(failed.words(), words);
    }

    #[test]
    fn work_ends_when_the_object_names_another_source() {
        let mut memory = Memory::default();
        let (first, next) = (plugin("r.example/a:1"), plugin("r.example/a:2"));
        let source = first.spec.source.clone();
        let (job, mut gone) = Job::new(1, source.clone(), None, Timestamp::UNIX_EPOCH);
        memory.load = Some(job);
        let oci = source.oci.unwrap();
        assert!(memory.resolution(&oci).is_some());
        memory.prune(&first);
        assert!(
            gone.try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
        );
        assert_eq!(memory.resolutions.len(), 1);
        memory.prune(&next);
        assert!(memory.load.is_none() && memory.resolutions.is_empty());
        assert!(
            gone.try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
    }
}
