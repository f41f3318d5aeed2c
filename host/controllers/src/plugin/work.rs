//! Looks at sources beside the reconciles: asks registries, fetches, verifies and compiles. However long that takes, and however it fails,
//! no other Plugin waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::plugin::{OciSource, Plugin, PluginSource};
use capstan_api::reason::plugin as reason;
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, FailureKind};
use capstan_core::plugin::{Problem, Underway};
use capstan_engine::{Engine, Loaded, PublicKey, Reference, SignaturePolicy, Trust};
use tokio::sync::Semaphore;

use super::memory::{Failed, Job, Loading, Memories, Slot, again};
use super::registries::{Registries, host_of};
use super::source::{self, Reach};
use super::{PluginController, problem};
use crate::ctx::Ctx;
use crate::plugins::Plugins;

/// Components that are unpacked, verified and compiled at the same time: each may have 16 MiB, and 32 unpacked. The compiler itself takes
/// them one at a time.
const LOADS_MAX: usize = 8;

/// What all work shares.
pub(super) struct Shared {
    registries: Registries,
    loads: Semaphore,
    jobs: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            registries: Registries::default(),
            loads: Semaphore::new(LOADS_MAX),
            jobs: AtomicU64::new(0),
        }
    }
}

/// A component that is wanted.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) key: ObjectKey,
    pub(super) slot: Slot,
    pub(super) source: PluginSource,
    pub(super) pinned: Option<String>,
    /// Version of the source that was seen; the pinned digest itself for what this host keeps.
    pub(super) version: String,
}

/// What work needs; tasks outlive the reconcile that begins them.
#[derive(Clone)]
pub(super) struct Work {
    engine: Arc<Engine>,
    reach: Reach,
    shared: Arc<Shared>,
    memories: Memories,
    plugins: Plugins,
}

/// What came of a source, and `registry/repository@digest` for what came from a registry.
type Made = Result<(Arc<Loaded>, Option<String>), Problem>;

/// What is known of a source's version.
pub(super) struct Version {
    pub(super) lookup: Lookup<String>,
    /// A registry is being asked for the first time.
    pub(super) underway: Option<Underway>,
    /// How soon it is looked at again.
    pub(super) again: Option<Duration>,
}

impl PluginController {
    pub(super) fn work(&self, ctx: &Ctx) -> Work {
        Work {
            engine: Arc::clone(&self.engine),
            reach: Reach::of(ctx),
            shared: Arc::clone(&self.shared),
            memories: self.memories.clone(),
            plugins: ctx.plugins.clone(),
        }
    }

    /// Begins to load what is wanted; in a rehearsal, which has nothing else to do, it is loaded at once.
    pub(super) async fn begin(&self, ctx: &Ctx, request: Request) {
        let work = self.work(ctx);
        let id = self.shared.jobs.fetch_add(1, Ordering::Relaxed);
        let (source, pinned) = (request.source.clone(), request.pinned.clone());
        let (job, gone) = Job::new(id, source, pinned, ctx.now());
        let (key, slot) = (request.key.clone(), request.slot);
        self.remember(&key, |memory| *memory.slot(slot).1 = Some(job));
        if ctx.planned.is_some() {
            return work.load_and_keep(request, id).await;
        }
        ctx.tasks.spawn("load", async move {
            tokio::select! {
                biased;
                _ = gone => {}
                () = work.load_and_keep(request, id) => {}
            }
        });
    }

    /// What changes when a source does. A registry is asked beside everything else, now and then; what it said last counts meanwhile.
    pub(super) async fn version(
        &self,
        ctx: &Ctx,
        key: &ObjectKey,
        source: &PluginSource,
    ) -> Version {
        let asked = source.oci.as_ref().filter(|oci| {
            let reference = Reference::parse(&oci.image);
            reference.is_ok_and(|reference| reference.digest().is_none())
        });
        let Some(oci) = asked.filter(|_| ctx.planned.is_none()) else {
            let work = self.work(ctx);
            let options = self.engine.sources();
            return Version {
                lookup: source::version(&work.reach, options, key, source).await,
                underway: None,
                again: source::recheck(source),
            };
        };
        let now = ctx.now();
        let begun = self.remember(key, |memory| {
            let known = memory.resolution(oci)?;
            let is_fresh = known.known.as_ref().is_some_and(|(_, at)| {
                now.duration_since(*at).unsigned_abs() < source::REGISTRY_EVERY
            });
            let is_left_alone = known.failed.as_ref().and_then(|failed| failed.pause(now));
            if known.job.is_some() || is_fresh || is_left_alone.is_some() {
                return None;
            }
            let id = self.shared.jobs.fetch_add(1, Ordering::Relaxed);
            let (job, gone) = Job::new(id, source.clone(), None, now);
            known.job = Some(job);
            Some((id, gone))
        });
        if let Some((id, gone)) = begun {
            let (work, key, oci) = (self.work(ctx), key.clone(), oci.clone());
            ctx.tasks.spawn("resolve", async move {
                tokio::select! {
                    biased;
                    _ = gone => {}
                    () = work.resolve_and_keep(&key, &oci, id) => {}
                }
            });
        }
        self.remember(key, |memory| {
            let Some(known) = memory.resolution(oci) else {
                return Version {
                    lookup: Lookup::Missing,
                    underway: None,
                    again: None,
                };
            };
            let failed = known.failed.as_ref();
            let lookup = match (failed, &known.known) {
                (Some(failed), _) => Lookup::Unknown(failed.words()),
                (None, Some((digest, _))) => Lookup::Found(digest.clone()),
                (None, None) => Lookup::Unknown("spec.source.oci: not asked yet".to_owned()),
            };
            let is_first = failed.is_none() && known.known.is_none();
            let underway = known.job.as_ref().filter(|_| is_first).map(|job| {
                let what = format!(
                    "spec.source.oci: registry {} is asked what {} is",
                    host_of(&oci.image),
                    oci.image
                );
                job.underway(&what, now)
            });
            let again = failed.and_then(|failed| failed.pause(now));
            Version {
                lookup,
                underway,
                again: again.or_else(|| source::recheck(source)),
            }
        })
    }
}

impl Work {
    /// Loads, and keeps what came of it, also when that was a panic.
    async fn load_and_keep(&self, request: Request, id: u64) {
        let kept = self.memories.change(&request.key, |memory| {
            let before = memory.slot(request.slot).0.as_ref();
            let same = before.filter(|before| {
                before.source == request.source && before.pinned == request.pinned
            });
            same.map_or(0, |before| before.failures)
        });
        let mut end = End {
            work: self,
            request: &request,
            id,
            failures: kept,
            keys: self.keys_version().await.unwrap_or_default(),
            result: None,
        };
        end.result = Some(self.load(&request).await);
    }

    async fn load(&self, request: &Request) -> Made {
        match &request.pinned {
            Some(pinned) if *pinned == request.version => self.kept(pinned).await,
            _ => self.fetched(request).await,
        }
    }

    /// What the host keeps, whatever has become of its source.
    async fn kept(&self, digest: &str) -> Made {
        let policy = self.engine.sources().policy;
        let keys = self.keys().await.map_err(|failure| of_failure(&failure))?;
        let kept = self.engine.load_kept(digest, policy, keys).await;
        let loaded = kept.map_err(|error| problem(&error))?.ok_or_else(|| {
            let why = format!("{digest} is not kept by this host any more");
            Problem::new("Verified", reason::SOURCE_NOT_FOUND, why)
        })?;
        Ok((loaded, None))
    }

    async fn fetched(&self, request: &Request) -> Made {
        let options = self.engine.sources();
        let registries = &self.shared.registries;
        let from = &request.source;
        let fetch = source::fetch(&self.reach, options, &request.key, from, &request.version);
        let (fetched, _place) = if let Some(oci) = &from.oci {
            let turn = registries.pull(&oci.image).await;
            let fetched = fetch.await;
            drop(turn);
            (fetched, self.shared.loads.acquire().await)
        } else {
            let place = self.shared.loads.acquire().await;
            (fetch.await, place)
        };
        let fetched = fetched.map_err(|failure| of_failure(&failure))??;
        let keys = self.keys().await.map_err(|failure| of_failure(&failure))?;
        let trust = Trust {
            digest: request.pinned.clone(),
            policy: options.policy,
            keys,
            signatures: fetched.signatures,
        };
        let loaded = self.engine.load_trusted(fetched.bytes, trust).await;
        let loaded = loaded.map_err(|error| problem(&error))?;
        Ok((loaded, fetched.resolved))
    }

    /// Version of the keys; none where nobody looks.
    pub(super) async fn keys_version(&self) -> Option<String> {
        match self.engine.sources().policy {
            SignaturePolicy::Off => None,
            SignaturePolicy::Warn | SignaturePolicy::Require => {
                Some(self.reach.keys_version().await)
            }
        }
    }

    /// The keys that signatures are checked with; none where nobody looks.
    pub(super) async fn keys(&self) -> Result<Vec<PublicKey>, Failure> {
        match self.engine.sources().policy {
            SignaturePolicy::Off => Ok(Vec::new()),
            SignaturePolicy::Warn | SignaturePolicy::Require => source::keys(&self.reach).await,
        }
    }

    async fn resolve_and_keep(&self, key: &ObjectKey, oci: &OciSource, id: u64) {
        let turn = self.shared.registries.question(&oci.image).await;
        let found = source::resolve(&self.reach, key, oci).await;
        drop(turn);
        let now = self.reach.now();
        self.memories.change_known(key, |memory| {
            let mut all = memory.resolutions.iter_mut();
            let own = all.find(|known| known.job.as_ref().is_some_and(|job| job.id == id));
            let Some(known) = own else {
                return;
            };
            known.job = None;
            match found {
                Ok(digest) => {
                    known.failed = None;
                    known.known = Some((digest, now));
                }
                Err(why) => {
                    let before = known.failed.as_ref().map_or(0, |failed| failed.times);
                    known.failed = Some(Failed {
                        why: format!("spec.source.oci: {why}"),
                        at: now,
                        times: before.saturating_add(1),
                    });
                }
            }
        });
        self.plugins.look_at(key);
    }
}

/// Keeps what came of a load when it is dropped.
struct End<'a> {
    work: &'a Work,
    request: &'a Request,
    id: u64,
    /// How often in a row it had failed before.
    failures: u32,
    keys: String,
    result: Option<Made>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let at = self.work.reach.now();
        let broken = || {
            let why = "loading it was broken off; the host's log may say why".to_owned();
            Err(Problem {
                is_transient: true,
                ..Problem::new("Verified", reason::HOST_FAILED, why)
            })
        };
        let result = self.result.take().unwrap_or_else(broken);
        tell(&self.request.key, &result);
        let mut failures = 0;
        let (result, resolved) = match result {
            Ok((loaded, resolved)) => (Ok(loaded), resolved),
            Err(mut problem) => {
                if problem.is_transient {
                    failures = self.failures.saturating_add(1);
                    problem.message = again(&problem.message, at, failures);
                }
                (Err(problem), None)
            }
        };
        let (memories, key) = (&self.work.memories, &self.request.key);
        let loading = Loading {
            source: self.request.source.clone(),
            version: self.request.version.clone(),
            at,
            pinned: self.request.pinned.clone(),
            resolved,
            result,
            failures,
            is_told: false,
        };
        memories.change_known(key, |memory| {
            let (attempt, job) = memory.slot(self.request.slot);
            if job.as_ref().is_none_or(|job| job.id != self.id) {
                return;
            }
            *job = None;
            *attempt = Some(loading);
            let keys = std::mem::take(&mut self.keys);
            let is_same = memory.keys.as_ref().is_none_or(|before| *before == keys);
            // What was checked with others is checked again.
            memory.keys = Some(if is_same { keys } else { String::new() });
            if self.request.slot == Slot::Main {
                memory.given_up = None;
            }
        });
        self.work.plugins.look_at(key);
    }
}

fn tell(key: &ObjectKey, result: &Made) {
    match result {
        Ok((loaded, _)) => tracing::info!(
            plugin = %key, digest = loaded.digest(), cached = loaded.cached(),
            compile_ms = u64::try_from(loaded.compile_time().as_millis()).unwrap_or(u64::MAX),
            "loaded"
        ),
        Err(problem) => {
            tracing::warn!(plugin = %key, reason = %problem.reason, "{}", problem.message);
        }
    }
}

fn of_failure(failure: &Failure) -> Problem {
    Problem {
        is_transient: failure.kind == FailureKind::Transient,
        ..Problem::new("Verified", &failure.reason, failure.message.clone())
    }
}

/// The bytes of an installed plugin, for what runs it outside of this controller.
///
/// # Errors
/// What may be better at another time.
pub(crate) async fn component(
    ctx: &Ctx,
    options: &capstan_engine::SourceOptions,
    plugin: &Plugin,
) -> Result<Result<bytes::Bytes, Problem>, Failure> {
    let (own, reach) = (super::key_of(plugin), Reach::of(ctx));
    let from = &plugin.spec.source;
    let version = match source::version(&reach, options, &own, from).await {
        Lookup::Found(version) => version,
        Lookup::Missing | Lookup::Unknown(_) => String::new(),
    };
    let fetched = source::fetch(&reach, options, &own, from, &version).await?;
    Ok(fetched.map(|fetched| fetched.bytes))
}
