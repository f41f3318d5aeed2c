//! From a source to a plugin that can be called: verify, compile or find compiled, link, ask for the manifest with everything denied,
//! check it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use capstan_core::call::Mode;
use capstan_core::call::manifest::{Manifest, PluginKind};
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre};

use crate::abi::Abi;
use crate::breaker::{Breaker, BreakerState};
use crate::cache::Entry;
use crate::call::{CallEnv, CallFacts, CallState};
use crate::capability::http::HttpPool;
use crate::capability::workload::Pace;
use crate::compile::compile;
use crate::error::{CallError, LoadError};
use crate::grant::{Grants, MissingGrant, missing};
use crate::limit::{
    COMPILE_WALL, DESCRIBE_MEMORY_BYTES, Limits, MESSAGE_BYTES_MAX, POOL_MEMORIES_PER_COMPONENT,
    POOL_TABLES_PER_COMPONENT, TEXT_BYTES_MAX,
};
use crate::memory::OwnBytes;
use crate::native::Native;
use crate::runtime::Engine;
use crate::share::{Own, PluginTurns};
use crate::source::{Verified, digest_of, verify};
use crate::stats::{CallOutcome, Counters, Function, FunctionStats};
use crate::text::{chain_of, one_line};
use crate::trust::{PublicKey, SignaturePolicy, Signed, Trust};

/// A linked component with all that its calls share.
pub(crate) struct Prepared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) digest: Arc<str>,
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) abi: Abi,
    pub(crate) http: Arc<HttpPool>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) counters: Counters,
    breaker: Mutex<Breaker>,
    turns: Mutex<(usize, Arc<Semaphore>)>,
    pub(crate) own: Arc<Own>,
    pub(crate) own_bytes: Arc<OwnBytes>,
    pub(crate) thread_turns: PluginTurns,
    /// Processor time of all its calls.
    pub(crate) ticks: Arc<AtomicU64>,
}

impl Prepared {
    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turns of this plugin. When the limit changes, calls in flight keep theirs of the old one.
    pub(crate) fn turns(&self, concurrency: usize) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.0 != concurrency {
            *turns = (concurrency, Arc::new(Semaphore::new(concurrency)));
        }
        turns.1.clone()
    }

    /// Counts a call that was refused before it was tried.
    pub(crate) fn refused(&self, function: Function, result: &Result<(), CallError>) {
        let outcome = CallOutcome::of(result);
        for counters in [&self.counters, &*self.engine.counters] {
            counters.count(function, outcome, Duration::ZERO, Duration::ZERO);
        }
    }
}

/// What answers the calls of a plugin.
#[derive(Clone)]
pub(crate) enum Body {
    /// A component.
    Component(Arc<Prepared>),
    /// Code of this process.
    Native(Arc<dyn Native>),
}

/// One version of a plugin, ready to be called. Calls in flight keep it alive.
pub struct Loaded {
    pub(crate) body: Body,
    digest: Arc<str>,
    manifest: Manifest,
    kinds: BTreeSet<PluginKind>,
    imports: BTreeSet<String>,
    /// What the last call was granted, and what the manifest and the ceiling left of it.
    effective: Mutex<(Arc<Grants>, Arc<Grants>)>,
    signed: Mutex<Signed>,
    source_bytes: u64,
    compiled_bytes: u64,
    compile_time: Duration,
    cached: bool,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("digest", &self.digest())
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// A plugin that is code of this process instead of a component. Nothing loads one: it is how a simulation stands in for
    /// plugins, below everything that the host does with their answers.
    #[must_use]
    pub fn native(
        manifest: Manifest,
        kinds: BTreeSet<PluginKind>,
        native: Arc<dyn Native>,
    ) -> Arc<Self> {
        Arc::new(Self {
            body: Body::Native(native),
            digest: Arc::from(format!("native:{}", manifest.name)),
            manifest,
            kinds,
            imports: BTreeSet::new(),
            effective: Mutex::default(),
            signed: Mutex::new(Signed::Unchecked),
            source_bytes: 0,
            compiled_bytes: 0,
            compile_time: Duration::ZERO,
            cached: false,
        })
    }

    /// `sha256:<hex>` of the unpacked component.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the plugin says of itself, checked.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The plugin interfaces that it exports.
    #[must_use]
    pub fn kinds(&self) -> &BTreeSet<PluginKind> {
        &self.kinds
    }

    /// Version of the WIT package, such as `0.1`.
    #[must_use]
    pub fn abi(&self) -> &'static str {
        match &self.body {
            Body::Component(prepared) => prepared.abi.version(),
            Body::Native(_) => "native",
        }
    }

    /// Names of the capabilities that the binary imports.
    #[must_use]
    pub fn imports(&self) -> &BTreeSet<String> {
        &self.imports
    }

    /// What the plugin really has of what a Plugin object grants: what its manifest asks for, within the host's ceiling. The same
    /// grants give the same answer, so that connections are kept.
    #[must_use]
    pub fn effective(&self, granted: &Arc<Grants>) -> Arc<Grants> {
        let prepared = match &self.body {
            Body::Component(prepared) => prepared,
            Body::Native(_) => return granted.clone(),
        };
        let mut last = self
            .effective
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&last.0, granted) {
            let ceiling = &prepared.engine.options.ceiling;
            let effective = Arc::new(ceiling.effective(&self.manifest, granted));
            *last = (granted.clone(), effective);
        }
        last.1.clone()
    }

    /// What is still to be granted, or to be allowed by the host's ceiling, before the plugin can be called.
    #[must_use]
    pub fn missing(&self, granted: &Arc<Grants>) -> Vec<MissingGrant> {
        let effective = self.effective(granted);
        missing(&self.manifest, &self.imports, granted, &effective)
    }

    /// What the host's ceiling leaves out of that which is granted and asked for.
    #[must_use]
    pub fn cuts(&self, granted: &Grants) -> Vec<String> {
        match &self.body {
            Body::Component(prepared) => {
                let ceiling = &prepared.engine.options.ceiling;
                ceiling.cuts(&self.manifest, granted)
            }
            Body::Native(_) => Vec::new(),
        }
    }

    /// The most that a call may use, whatever a Plugin object says.
    #[must_use]
    pub fn ceilings(&self) -> Limits {
        match &self.body {
            Body::Component(prepared) => prepared.engine.options.ceilings,
            Body::Native(_) => Limits::ceilings(),
        }
    }

    /// Who has signed it, as far as anybody looked.
    #[must_use]
    pub fn signed(&self) -> Signed {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.clone()
    }

    /// Bytes of the unpacked component.
    #[must_use]
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }

    /// Bytes of the native code.
    #[must_use]
    pub fn compiled_bytes(&self) -> u64 {
        self.compiled_bytes
    }

    /// How long compiling took, also when it was an earlier host that did it.
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// The native code was there already.
    #[must_use]
    pub fn cached(&self) -> bool {
        self.cached
    }

    /// Whether it is being called.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        match &self.body {
            Body::Component(prepared) => prepared.breaker().state(),
            Body::Native(_) => BreakerState::Closed,
        }
    }

    /// Ticks of processor time that its calls have used so far, those in flight included.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        match &self.body {
            Body::Component(prepared) => prepared.ticks.load(Ordering::Relaxed),
            Body::Native(_) => 0,
        }
    }

    /// The most memory that one call has had, in bytes.
    #[must_use]
    pub fn memory_peak(&self) -> usize {
        match &self.body {
            Body::Component(prepared) => prepared.own_bytes.peak(),
            Body::Native(_) => 0,
        }
    }

    /// Answers to its HTTP requests so far: granted origin, kind of status (`2xx`, or `none` without an answer), how many.
    #[must_use]
    pub fn http_answers(&self) -> Vec<(String, &'static str, u64)> {
        match &self.body {
            Body::Component(prepared) => prepared.http.counts(),
            Body::Native(_) => Vec::new(),
        }
    }

    /// The engine that runs the component.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        match &self.body {
            Body::Component(prepared) => &prepared.engine,
            Body::Native(_) => unreachable!("tests of the engine load components"),
        }
    }

    /// Counters of its calls.
    #[must_use]
    pub fn stats(&self) -> Vec<FunctionStats> {
        match &self.body {
            Body::Component(prepared) => prepared.counters.read(),
            Body::Native(_) => Vec::new(),
        }
    }
}

/// Native code and where it came from.
struct Compiled {
    component: Component,
    bytes: u64,
    took: Duration,
    cached: bool,
}

impl Compiled {
    fn of(component: Component, entry: &Entry, cached: bool) -> Self {
        Self {
            component,
            bytes: entry.bytes,
            took: Duration::from_millis(entry.compile_ms),
            cached,
        }
    }
}

impl Engine {
    /// Makes a component callable: plain, gzip or zstd. Other plugins are not affected by anything that happens here.
    pub async fn load(self: &Arc<Self>, source: Bytes) -> Result<Arc<Loaded>, LoadError> {
        self.load_trusted(source, Trust::default()).await
    }

    /// The same for a component that must be what `trust` says, which is checked before anything is compiled.
    pub async fn load_trusted(
        self: &Arc<Self>,
        source: Bytes,
        trust: Trust,
    ) -> Result<Arc<Loaded>, LoadError> {
        let signatures = trust.signatures.clone();
        let checked = blocking(move || {
            let verified = verify(&source)?;
            let signed = trust.check(&verified.wasm, &verified.digest)?;
            Ok::<_, LoadError>((verified, signed))
        });
        let (verified, signed) = checked.await??;
        let compiled = self.compiled(&verified).await?;
        fits_the_pool(&compiled.component)?;
        let pre = self
            .linker
            .instantiate_pre(&compiled.component)
            .map_err(|e| {
                let why = chain_of(&e, TEXT_BYTES_MAX);
                LoadError::InterfaceMismatch {
                    interface: "imports".to_owned(),
                    why,
                }
            })?;
        let abi = Abi::of(&pre, &verified.kinds)?;
        let prepared = Arc::new(Prepared {
            engine: self.clone(),
            digest: Arc::from(verified.digest.as_str()),
            pre,
            abi,
            http: Arc::default(),
            pace: Arc::default(),
            counters: Counters::default(),
            breaker: Mutex::default(),
            turns: Mutex::new((0, Arc::new(Semaphore::new(0)))),
            own: Arc::default(),
            own_bytes: Arc::default(),
            thread_turns: self.turns.of_plugin(),
            ticks: Arc::default(),
        });
        let manifest = describe(&prepared).await?;
        crate::manifest::check(&manifest, &verified.kinds, &verified.imports)?;
        let (engine, digest, wasm) = (self.clone(), verified.digest.clone(), verified.wasm.clone());
        let kept = blocking(move || engine.cache.keep_source(&digest, &wasm, &signatures));
        if let Err(why) = kept.await? {
            tracing::warn!(digest = %verified.digest, why, "not kept for the case that a later version fails");
        }
        Ok(Arc::new(Loaded {
            digest: prepared.digest.clone(),
            body: Body::Component(prepared),
            manifest,
            kinds: verified.kinds,
            imports: verified.imports,
            effective: Mutex::default(),
            signed: Mutex::new(signed),
            source_bytes: u64::try_from(verified.wasm.len()).unwrap_or(u64::MAX),
            compiled_bytes: compiled.bytes,
            compile_time: compiled.took,
            cached: compiled.cached,
        }))
    }

    /// Whether a component with this digest is kept. Whether it can be used, only [`Engine::load_kept`] finds out.
    #[must_use]
    pub fn keeps(&self, digest: &str) -> bool {
        self.cache.has_source(digest)
    }

    /// A component that was loaded before, by this host or an earlier one with the same cache, and need not be in any source any more.
    /// `None` when it is not kept. It must still be what `policy` asks for.
    pub async fn load_kept(
        self: &Arc<Self>,
        digest: &str,
        policy: SignaturePolicy,
        keys: Vec<PublicKey>,
    ) -> Result<Option<Arc<Loaded>>, LoadError> {
        let (engine, of) = (self.clone(), digest.to_owned());
        let kept = blocking(move || engine.cache.source(&of)).await?;
        let Some((wasm, signatures)) = kept else {
            return Ok(None);
        };
        let trust = Trust {
            digest: Some(digest.to_owned()),
            policy,
            keys,
            signatures,
        };
        self.load_trusted(Bytes::from(wasm), trust).await.map(Some)
    }

    /// Looks again who has signed a component that was loaded, now that these are the keys.
    ///
    /// # Errors
    /// [`LoadError::NotSigned`] when that is required and nobody with one of the keys has; others when it could not be found out.
    pub async fn check_again(
        self: &Arc<Self>,
        loaded: &Loaded,
        keys: &[PublicKey],
    ) -> Result<(), LoadError> {
        let policy = self.options.sources.policy;
        if policy == SignaturePolicy::Off {
            return Ok(());
        }
        let before = loaded.signed();
        let same = match &before {
            Signed::By(key) => keys.iter().find(|other| other.is(key)),
            Signed::Unchecked | Signed::Not(_) => None,
        };
        let signed = if let Some(same) = same {
            Signed::By(same.clone())
        } else {
            let (engine, digest) = (self.clone(), loaded.digest().to_owned());
            let mut trust = Trust {
                digest: Some(digest.clone()),
                policy,
                keys: keys.to_vec(),
                signatures: Vec::new(),
            };
            let check = move || {
                let kept = engine.cache.source(&digest);
                let kept = kept.filter(|(wasm, _)| digest_of(wasm) == digest);
                // Signatures that are not kept are not there.
                let (wasm, signatures) = kept.unwrap_or_default();
                trust.signatures = signatures;
                trust.check(&wasm, &digest)
            };
            blocking(check).await??
        };
        *loaded.signed.lock().unwrap_or_else(PoisonError::into_inner) = signed;
        Ok(())
    }

    /// One compilation at a time; who waited for the same component finds it compiled.
    async fn compiled(self: &Arc<Self>, verified: &Verified) -> Result<Compiled, LoadError> {
        if let Some(found) = self.find(&verified.digest).await? {
            self.code_counters.hit();
            return Ok(found);
        }
        let Some(_turn) = self.compiling.turn(&verified.digest).await else {
            return Err(LoadError::CompileTimeout {
                limit: COMPILE_WALL,
            });
        };
        if let Some(found) = self.find(&verified.digest).await? {
            self.code_counters.hit();
            return Ok(found);
        }
        let mark = self.cache.compiling(&verified.digest);
        let _mark = mark.map_err(|why| LoadError::CompileFailed { why })?;
        let scratch = Scratch(self.cache.scratch(&verified.digest));
        self.code_counters.miss();
        let started = Instant::now();
        let compiling = compile(&self.options.compiler, verified.wasm.clone(), &scratch.0).await;
        self.code_counters
            .compiled(started.elapsed(), compiling.is_ok());
        let took = compiling.inspect_err(|error| {
            if let LoadError::CompileTimeout { .. } = error {
                self.compiling.gave_up(&verified.digest);
            }
        })?;
        self.compiling.compiled(&verified.digest);
        let (engine, digest) = (self.clone(), verified.digest.clone());
        let kept = blocking(move || {
            engine.cache.keep(&digest, &scratch.0, took)?;
            Ok(engine.cache.kept(&engine.wasm, &digest))
        });
        let (component, entry) = kept
            .await?
            .map_err(|why: String| host(&format!("cannot keep the compiled component: {why}")))?
            .map_err(|why| LoadError::CompileFailed {
                why: format!("its code does not fit this host's limits: {why}"),
            })?;
        Ok(Compiled::of(component, &entry, false))
    }

    async fn find(self: &Arc<Self>, digest: &str) -> Result<Option<Compiled>, LoadError> {
        let (engine, digest) = (self.clone(), digest.to_owned());
        blocking(move || {
            let (component, entry) = engine.cache.find(&engine.wasm, &digest)?;
            Some(Compiled::of(component, &entry, true))
        })
        .await
    }
}

/// A file that is gone when nobody took it over.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        if e.is_panic() {
            return LoadError::Malformed {
                at: 0,
                why: "reading it made the host panic".to_owned(),
            };
        }
        host(&e)
    })
}

fn host(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Host {
        why: one_line(&error.to_string(), MESSAGE_BYTES_MAX),
    }
}

/// A component that needs more than a slot is refused when it is loaded, not when it is called.
fn fits_the_pool(component: &Component) -> Result<(), LoadError> {
    let Some(needed) = component.resources_required() else {
        return Ok(());
    };
    let fits = |what: &str, count: u32, limit: u32| {
        if count <= limit {
            return Ok(());
        }
        Err(LoadError::TooDemanding {
            what: format!("{count} {what}"),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        })
    };
    fits("memories", needed.num_memories, POOL_MEMORIES_PER_COMPONENT)?;
    fits("tables", needed.num_tables, POOL_TABLES_PER_COMPONENT)
}

/// Asks for the manifest, with every capability denied.
async fn describe(prepared: &Arc<Prepared>) -> Result<Manifest, LoadError> {
    // Languages with large runtimes start slowly; a plugin's own limits are not known yet.
    let limits = Limits {
        memory_bytes: DESCRIBE_MEMORY_BYTES,
        cpu: Duration::from_secs(5),
        ..Limits::default()
    };
    let env = CallEnv {
        limits,
        ..CallEnv::new("(loading)", "(manifest)")
    };
    let facts = CallFacts {
        now_ms: 0,
        deadline: Duration::from_secs(10),
        mode: Mode::Plan,
        seed: "describe".to_owned(),
        replay: None,
        tried: false,
    };
    crate::abi::describe(prepared, env, facts)
        .await
        .map_err(|error| match error {
            CallError::BadAnswer { rule } => {
                let (field, why) = rule.split_once(' ').unwrap_or(("manifest", rule.as_str()));
                LoadError::ManifestInvalid {
                    field: field.to_owned(),
                    why: why.to_owned(),
                }
            }
            CallError::Host { why } => LoadError::Host { why },
            CallError::Busy { .. } | CallError::Crowded { .. } => host(&error),
            other => LoadError::ManifestTrapped {
                why: one_line(&other.to_string(), TEXT_BYTES_MAX),
            },
        })
}
