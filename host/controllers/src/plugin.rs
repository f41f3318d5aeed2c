//! Plugin: fetches a source, has the engine load it, installs its kinds, and lets it answer calls.

mod candidate;
mod claim;
mod grants;
mod install;
mod inventory;
mod news;
mod offline;
mod restore;
mod source;
mod terms;
mod warm;

pub use grants::ceiling;
pub use offline::{Terms, definitions};
pub use source::login_of;
pub(crate) use terms::follow;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::{OciSource, Plugin, PluginOwnedKindStatus, PluginSource};
use capstan_api::reason::plugin as reason;
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Next, Outcome, Plan};
use capstan_core::plugin::{
    self as core, Active, ActiveCanary, Observed, ObservedCanary, Problem, Step,
};
use capstan_engine::{BreakerState, Engine, LoadError, Loaded, PublicKey, SignaturePolicy, Trust};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::candidate::{attempt_of, calls_of};
use crate::access::Access;
use crate::controller::{Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, Writer};
use crate::event::{self, Event};
use crate::kinds;
use crate::kube_api::GroupKind;
use crate::machine::typed;
use crate::object::{Locator, Object};
use crate::plugins::{ActivePlugin, Canary};
use crate::store::Change;

/// The Plugin controller.
pub struct PluginController {
    spec: Spec,
    engine: Arc<Engine>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

/// What this process knows of a Plugin object beyond the object.
#[derive(Clone, Default)]
struct Memory {
    attempt: Option<Loading>,
    active: Option<Active>,
    /// What answered calls before, since when it does not, and a digest that was given up.
    previous: Option<Arc<Loaded>>,
    since: Option<Timestamp>,
    given_up: Option<(String, String)>,
    canary: Option<Loading>,
    /// What answered calls before this host started, and is not kept or cannot be used any more.
    lost: Option<String>,
    /// That calls are held back, until when by the breaker's clock, and in words.
    held_back: Option<(Instant, String)>,
    /// What references to registries meant, and when that was found out.
    resolved: Vec<(OciSource, String, Timestamp)>,
}

/// How long a component that has taken over is watched, and the one before it is kept for that.
const PROBATION: Duration = Duration::from_secs(600);

#[derive(Clone)]
struct Loading {
    version: String,
    at: Timestamp,
    pinned: Option<String>,
    /// `registry/repository@digest`.
    resolved: Option<String>,
    result: Result<Arc<Loaded>, Problem>,
}

impl PluginController {
    /// Loads through this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            spec: Spec {
                name: "plugin",
                manager: "capstan-plugin",
                primary: Primary::Kind(&kinds::PLUGIN),
                finalizer: None,
                pausable: false,
                // A pull may take two minutes and the compiler takes one at a time: others are looked at meanwhile.
                concurrency: 16,
                settle: Duration::from_millis(20),
                hold: Duration::ZERO,
            },
            engine,
            memory: Mutex::default(),
        }
    }

    fn remember<T>(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(key.clone()).or_default())
    }

    /// Makes what it can of a source, and tells the log.
    async fn load(
        &self,
        ctx: &Ctx,
        key: &ObjectKey,
        from: (&PluginSource, Option<&String>),
        version: &str,
    ) -> Result<Loading, Failure> {
        let (source, pinned) = from;
        let options = self.engine.sources();
        let fetched = source::fetch(ctx, options, key, source, version).await?;
        let mut resolved = None;
        let result = match fetched {
            Ok(fetched) => {
                resolved = fetched.resolved;
                let keys = self.keys(ctx).await?;
                let trust = Trust {
                    digest: pinned.cloned(),
                    policy: options.policy,
                    keys,
                    signatures: fetched.signatures,
                };
                let loaded = self.engine.load_trusted(fetched.bytes, trust).await;
                loaded.map_err(|error| problem(&error))
            }
            Err(problem) => Err(problem),
        };
        match &result {
            Ok(loaded) => tracing::info!(
                plugin = %key, digest = loaded.digest(), cached = loaded.cached(),
                compile_ms = u64::try_from(loaded.compile_time().as_millis()).unwrap_or(u64::MAX),
                "loaded"
            ),
            Err(problem) => {
                tracing::warn!(plugin = %key, reason = %problem.reason, "{}", problem.message);
            }
        }
        Ok(Loading {
            version: version.to_owned(),
            at: ctx.now(),
            pinned: pinned.cloned(),
            resolved,
            result,
        })
    }

    /// The keys that signatures are checked with; none where nobody looks.
    async fn keys(&self, ctx: &Ctx) -> Result<Vec<PublicKey>, Failure> {
        match self.engine.sources().policy {
            SignaturePolicy::Off => Ok(Vec::new()),
            SignaturePolicy::Warn | SignaturePolicy::Require => source::keys(ctx).await,
        }
    }

    /// Lets this component answer calls, with the grants, limits and config that the object has now. Grants that make no sense are
    /// none. What answered calls before is kept for a while.
    ///
    /// # Errors
    /// Terminal: a kind of its is another plugin's by now.
    fn activate(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        loaded: &Arc<Loaded>,
    ) -> Result<(), Failure> {
        let plugin = terms::newest(ctx, &observed.plugin);
        if plugin.spec.suspend {
            return Ok(());
        }
        let key = key_of(&plugin);
        let before = ctx.plugins.get(&key.name);
        let canary = before.as_ref().and_then(|before| before.canary.as_ref());
        let canary = canary.map(|canary| Canary {
            plugin: Arc::new(serve(&plugin, &canary.plugin.loaded)),
            spec: canary.spec.clone(),
        });
        // One that was looked at already answers for its objects from the first call on.
        let first = || {
            let loaded = self.remember(&key, |memory| memory.canary.as_ref()?.result.clone().ok());
            Some(Canary {
                plugin: Arc::new(serve(&plugin, &loaded?)),
                spec: plugin.spec.canary.clone()?,
            })
        };
        let canary = if before.is_none() && core::may_serve_beside(observed, loaded.manifest()) {
            canary.or_else(first)
        } else {
            canary
        };
        let active = Active {
            digest: loaded.digest().to_owned(),
            generation: plugin.metadata.generation.unwrap_or_default(),
        };
        let serving = ActivePlugin {
            canary,
            ..serve(&plugin, loaded)
        };
        ctx.plugins.activate(serving).map_err(taken)?;
        tracing::info!(plugin = %key, digest = loaded.digest(), "active");
        self.remember(&key, |memory| {
            if let Some(before) = before.filter(|before| before.loaded.digest() != loaded.digest())
            {
                memory.previous = Some(Arc::clone(&before.loaded));
                memory.since = Some(ctx.now());
            }
            if memory.lost.as_deref() == Some(loaded.digest()) {
                memory.lost = None;
            }
            memory.active = Some(active);
        });
        Ok(())
    }

    /// Lets the component before answer calls again; the one that did is given up unless the operator wants it so.
    fn fall_back(&self, ctx: &Ctx, observed: &Observed) -> Result<(), Failure> {
        let key = key_of(&observed.plugin);
        let Some(previous) = self.remember(&key, |memory| memory.previous.clone()) else {
            return Ok(());
        };
        if let Some(active) = observed.active.as_ref().filter(|_| observed.trapped) {
            let why = format!(
                "{} failed so often after it had taken over that {} answers calls again",
                active.digest,
                previous.digest()
            );
            tracing::warn!(plugin = %key, "{why}");
            let given_up = Some((active.digest.clone(), why));
            self.remember(&key, |memory| memory.given_up = given_up);
        }
        self.activate(ctx, observed, &previous)
    }

    /// Lets the canary answer for its objects, or no longer.
    fn route(&self, ctx: &Ctx, observed: &Observed, wanted: bool) -> Result<(), Failure> {
        let key = key_of(&observed.plugin);
        let Some(active) = ctx.plugins.get(&key.name) else {
            return Ok(());
        };
        let loaded = self.remember(&key, |memory| memory.canary.as_ref()?.result.clone().ok());
        let plugin = terms::newest(ctx, &observed.plugin);
        let spec = plugin.spec.canary.as_ref();
        let canary = match (loaded, spec) {
            (Some(loaded), Some(spec)) if wanted => Some(Canary {
                plugin: Arc::new(serve(&plugin, &loaded)),
                spec: spec.clone(),
            }),
            _ => None,
        };
        tracing::info!(plugin = %key, canary = ?canary, "canary");
        if canary.is_none() {
            self.remember(&key, |memory| memory.canary = None);
        }
        let plugin = ActivePlugin {
            canary,
            ..serve(&plugin, &active.loaded)
        };
        ctx.plugins.activate(plugin).map_err(taken)
    }

    fn candidate(&self, key: &ObjectKey) -> Option<Arc<Loaded>> {
        self.remember(key, |memory| memory.attempt.as_ref()?.result.clone().ok())
    }

    /// The memory of a Plugin as the pure side wants it.
    fn recall(&self, ctx: &Ctx, plugin: Plugin, versions: &Versions) -> Observed {
        let Versions { source, canary } = versions.clone();
        let key = key_of(&plugin);
        let recheck = source::recheck(&plugin.spec.source);
        let memory = self.remember(&key, |memory| memory.clone());
        let misplaced = (key.namespace != ctx.namespace).then(|| {
            format!(
                "this host loads plugins from namespace {} only; move the Plugin there",
                ctx.namespace
            )
        });
        let loaded = memory.attempt.as_ref().and_then(|a| a.result.as_ref().ok());
        let conflicts = loaded
            .map(|loaded| claim::conflicts(ctx, &plugin, loaded))
            .unwrap_or_default();
        let active = ctx
            .plugins
            .get(&key.name)
            .filter(|active| active.key == key);
        let route = active.as_ref().and_then(|active| active.canary.as_ref());
        let canary = (plugin.spec.canary.is_some() || route.is_some()).then(|| ObservedCanary {
            source: canary,
            attempt: memory.canary.map(|loading| attempt_of(&plugin, loading)),
            active: route.map(|canary| ActiveCanary {
                digest: canary.plugin.loaded.digest().to_owned(),
                spec: canary.spec.clone(),
            }),
            stopped: route.is_some_and(|canary| is_open(&canary.plugin.loaded)),
            recheck: plugin
                .spec
                .canary
                .as_ref()
                .and_then(|c| source::recheck(&c.source)),
        });
        let is_new = memory
            .since
            .is_some_and(|since| ctx.now().duration_since(since).unsigned_abs() < PROBATION);
        // What was given up takes over again only when the operator names it.
        let attempted = memory.attempt.as_ref().and_then(|a| a.result.as_ref().ok());
        let told = attempted.and_then(|loaded| restore::given_up(&plugin, loaded.digest()));
        let known_to_be_bad = memory.given_up.or(told);
        let given_up = known_to_be_bad.as_ref().map(|(digest, _)| digest.as_str());
        let pinned = plugin.spec.digest.as_deref();
        let previous = memory.previous.as_ref().filter(|previous| {
            let digest = Some(previous.digest());
            is_new && (given_up != digest || pinned == digest)
        });
        let loaded = active.as_ref().map(|active| &active.loaded);
        Observed {
            misplaced,
            source,
            attempt: memory.attempt.map(|loading| attempt_of(&plugin, loading)),
            active: memory
                .active
                .filter(|_| active.is_some() || plugin.spec.suspend),
            serving: loaded.map(|loaded| loaded.manifest().clone()),
            conflicts,
            recheck,
            previous: previous.map(|previous| previous.digest().to_owned()),
            trapped: previous.is_some() && loaded.is_some_and(|loaded| is_open(loaded)),
            last_good: restore::last_good(&plugin, memory.lost.as_deref()),
            lost: memory.lost,
            given_up: known_to_be_bad,
            canary,
            held_back: loaded.and_then(|loaded| self.held_back(ctx, &key, loaded)),
            calls: loaded.map(|loaded| calls_of(loaded)).unwrap_or_default(),
            forgotten_kinds: !ctx.plugins.knows(kinds_of(&plugin)),
            plugin,
        }
    }

    /// Why no calls reach this component now. The words stay the same as long as the pause does.
    fn held_back(&self, ctx: &Ctx, key: &ObjectKey, loaded: &Loaded) -> Option<String> {
        let (until, times) = match loaded.breaker() {
            BreakerState::Open { until, times } => (until, times),
            BreakerState::Trying => {
                return self.remember(key, |memory| Some(memory.held_back.clone()?.1));
            }
            BreakerState::Closed => {
                self.remember(key, |memory| memory.held_back = None);
                return None;
            }
        };
        self.remember(key, |memory| {
            if let Some((known, words)) = &memory.held_back
                && *known == until
            {
                return Some(words.clone());
            }
            let pause = until.saturating_duration_since(Instant::now());
            let at = ctx.now().checked_add(pause).unwrap_or_else(|_| ctx.now());
            let words = format!(
                "{} trapped or overran its limits again and again: calls are held back until {}, then one call is tried ({times} \
                 pauses in a row; each is longer)",
                loaded.digest(),
                at.strftime("%Y-%m-%dT%H:%M:%SZ")
            );
            memory.held_back = Some((until, words.clone()));
            Some(words)
        })
    }

    /// Tells what has changed since the Plugin was last looked at.
    async fn tell(&self, ctx: &Ctx, key: &ObjectKey, event: Option<Event>) {
        if let (Some(event), Some(object)) = (event, ctx.get(&kinds::PLUGIN, key)) {
            event::record(ctx, &self.writer(), &object, &event).await;
        }
    }

    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    async fn versions(&self, ctx: &Ctx, key: &ObjectKey, plugin: &Plugin) -> Versions {
        let canary = match &plugin.spec.canary {
            Some(canary) => self.version(ctx, key, &canary.source).await,
            None => Lookup::Missing,
        };
        Versions {
            source: self.version(ctx, key, &plugin.spec.source).await,
            canary,
        }
    }

    /// What changes when the source does; registries are asked now and then only.
    async fn version(&self, ctx: &Ctx, key: &ObjectKey, source: &PluginSource) -> Lookup<String> {
        let lately = self.remember(key, |memory| {
            memory.resolved.retain(|(.., at)| {
                ctx.now().duration_since(*at).unsigned_abs() < source::REGISTRY_EVERY
            });
            memory.resolved.clone()
        });
        let before = lately
            .into_iter()
            .find(|(of, ..)| source.oci.as_ref() == Some(of));
        let before = before.as_ref().map(|(_, digest, _)| digest.as_str());
        let version = source::version(ctx, self.engine.sources(), key, source, before).await;
        if let (None, Some(oci), Lookup::Found(digest)) = (before, &source.oci, &version) {
            let resolved = (oci.clone(), digest.clone(), ctx.now());
            self.remember(key, |memory| memory.resolved.push(resolved));
        }
        version
    }
}

/// Versions of both sources.
#[derive(Clone)]
struct Versions {
    source: Lookup<String>,
    canary: Lookup<String>,
}

/// The kinds that a component of the plugin had when it was last active.
fn kinds_of(plugin: &Plugin) -> &[PluginOwnedKindStatus] {
    let status = plugin.status.as_ref();
    status.map_or(&[], |status| &status.kinds)
}

/// That a kind was another's when it came to it.
fn taken((kind, owner): (GroupKind, String)) -> Failure {
    let message = format!("kind {kind} belongs to plugin {owner} already");
    Failure::terminal(reason::KIND_CONFLICT, message)
}

/// A component with the grants, limits and config of its object.
fn serve(plugin: &Plugin, loaded: &Arc<Loaded>) -> ActivePlugin {
    let (key, spec) = (key_of(plugin), &plugin.spec);
    let granted = grants::grants(spec);
    let credentials = match &granted {
        Ok(_) => grants::credentials(spec),
        Err(_) => BTreeMap::new(),
    };
    ActivePlugin {
        name: key.name.clone(),
        key,
        grants: Arc::new(granted.unwrap_or_default()),
        limits: grants::limits(spec),
        config: Value::Object(spec.config.clone().into_iter().collect()),
        credentials,
        loaded: Arc::clone(loaded),
        canary: None,
    }
}

/// Whether calls are held back because of what happened to earlier ones.
fn is_open(loaded: &Loaded) -> bool {
    loaded.breaker() != BreakerState::Closed
}

fn key_of(plugin: &Plugin) -> ObjectKey {
    ObjectKey {
        namespace: plugin.metadata.namespace.clone().unwrap_or_default(),
        name: plugin.metadata.name.clone().unwrap_or_default(),
    }
}

fn problem(error: &LoadError) -> Problem {
    let (condition, reason) = error.condition();
    Problem {
        is_transient: error.is_transient(),
        ..Problem::new(condition.as_str(), reason, error.to_string())
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
    let own = key_of(plugin);
    let from = &plugin.spec.source;
    let version = match source::version(ctx, options, &own, from, None).await {
        Lookup::Found(version) => version,
        Lookup::Missing | Lookup::Unknown(_) => String::new(),
    };
    let fetched = source::fetch(ctx, options, &own, from, &version).await?;
    Ok(fetched.map(|fetched| fetched.bytes))
}

/// Plugins whose source is this ConfigMap.
fn of_config_map(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(map) = change.object() else {
        return Vec::new();
    };
    let plugins = ctx.store(&kinds::PLUGIN).in_namespace(&map.key.namespace);
    let part_of = map.label(label::PLUGIN_PART).and(map.label(label::PLUGIN));
    let of_it = plugins.iter().filter(|plugin| {
        let parts = plugin.value.pointer("/spec/source/configMapParts");
        let wanted = parts.map(|parts| {
            let named = parts.get("plugin").and_then(Value::as_str);
            named.unwrap_or(&plugin.key.name)
        });
        let canary = plugin.value.pointer("/spec/canary/source");
        plugin.text("/spec/source/configMap/name") == Some(&map.key.name)
            || plugin.text("/spec/canary/source/configMap/name") == Some(&map.key.name)
            || canary.is_some_and(|canary| canary.get("configMapParts").is_some())
            || (wanted.is_some() && wanted == part_of)
    });
    of_it
        .map(|plugin| Locator::new(&kinds::PLUGIN, &plugin.key))
        .collect()
}

impl Controller for PluginController {
    type Observed = Observed;
    type Step = Step;
    /// What is known after the step.
    type Effect = Box<Observed>;

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::CONFIG_MAP),
                map: of_config_map,
            },
            // Another plugin may have given up a kind.
            Watch {
                source: Source::Plugins,
                map: |_, _| Vec::new(),
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to_status(&kinds::PLUGIN),
            // Components, what they are granted and pulled with, and the keys of signatures.
            Access::to(&kinds::CONFIG_MAP, &["get"]).in_own_namespace(),
            Access::to(&kinds::SECRET, &["get", "list"]).in_own_namespace(),
            // The kinds of plugins.
            Access::to(&kinds::CRD, &["create", "get", "patch"]),
            Access::to(&kinds::PROVIDER, &["create", "patch"]).in_own_namespace(),
        ]
    }

    fn cluster(&self, _: &Object) -> Option<ObjectKey> {
        None
    }

    fn forget(&self, ctx: &Ctx, locator: &Locator) {
        self.memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&locator.key);
        // Those of other namespaces never were active.
        if locator.key.namespace == ctx.namespace {
            ctx.plugins.remove(&locator.key.name);
        }
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let plugin: Plugin = typed(&object)?;
        let versions = self.versions(ctx, &object.key, &plugin).await;
        let was_held_back = self.remember(&object.key, |memory| memory.held_back.is_some());
        let observed = self.recall(ctx, plugin, &versions);
        let news = news::of_breaker(was_held_back, &observed);
        self.tell(ctx, &object.key, news).await;
        Ok(observed)
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Plan<Step> {
        core::decide(observed)
    }

    async fn perform(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        step: &Step,
    ) -> Result<Box<Observed>, Failure> {
        let key = key_of(&observed.plugin);
        match step {
            Step::Load { version } => {
                let spec = &observed.plugin.spec;
                let from = (&spec.source, spec.digest.as_ref());
                let loading = self.load(ctx, &key, from, version).await?;
                self.remember(&key, |memory| {
                    memory.given_up = None;
                    memory.attempt = Some(loading);
                });
            }
            Step::LoadCanary { version } => {
                if let Some(canary) = &observed.plugin.spec.canary {
                    let from = (&canary.source, canary.digest.as_ref());
                    let loading = self.load(ctx, &key, from, version).await?;
                    self.remember(&key, |memory| memory.canary = Some(loading));
                }
            }
            Step::ActivateCanary => self.route(ctx, observed, true)?,
            Step::DropCanary => self.route(ctx, observed, false)?,
            Step::FallBack => self.fall_back(ctx, observed)?,
            Step::Restore { digest } => self.restore(ctx, observed, digest).await?,
            Step::InstallKinds => {
                let writer = self.writer();
                if let Some(loaded) = self.candidate(&key) {
                    install::install(ctx, &writer, loaded.manifest(), &observed.plugin).await?;
                }
            }
            Step::Activate => {
                if let Some(loaded) = self.candidate(&key) {
                    self.activate(ctx, observed, &loaded)?;
                }
            }
            Step::Regrant => {
                if let Some(active) = ctx.plugins.get(&key.name) {
                    self.activate(ctx, observed, &active.loaded)?;
                }
            }
            Step::Deactivate => {
                ctx.plugins.deactivate(&key.name);
                self.remember(&key, |memory| {
                    *memory = Memory {
                        attempt: memory.attempt.clone(),
                        lost: memory.lost.clone(),
                        ..Memory::default()
                    };
                });
                tracing::info!(plugin = %key, "no longer active");
            }
            Step::RecallKinds => ctx.plugins.recall(&key.name, kinds_of(&observed.plugin)),
        }
        let canary = observed.canary.as_ref();
        let versions = Versions {
            source: observed.source.clone(),
            canary: canary.map_or(Lookup::Missing, |canary| canary.source.clone()),
        };
        let after = Box::new(self.recall(ctx, observed.plugin.clone(), &versions));
        self.tell(ctx, &key, news::of_step(step, observed, &after))
            .await;
        let digest = |observed: &Observed| observed.active.as_ref().map(|a| a.digest.clone());
        if digest(&after) != digest(observed)
            && let Some(active) = ctx.plugins.get(&key.name)
            && let Some(object) = ctx.get(&kinds::PLUGIN, &key)
        {
            inventory::mirror(ctx, &self.writer(), &object, &active.loaded).await;
        }
        Ok(after)
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        outcome: &Outcome<Step, Box<Observed>>,
        now: Timestamp,
    ) -> Report {
        let after = outcome.done.last().map_or(observed, |(_, after)| &**after);
        let reported = core::report(after, outcome, now);
        // What was waited for is there: nothing else wakes a plugin that answers no calls yet.
        let mut done = outcome.done.iter();
        let is_new = done.any(|(step, _)| matches!(step, Step::LoadCanary { .. }));
        let soon = is_new.then_some(Next::CheckAfter(Duration::ZERO));
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next.or(soon),
            finished: false,
            is_last_word: false,
        }
    }
}
