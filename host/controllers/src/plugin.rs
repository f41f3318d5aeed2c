//! Plugin: fetches a source, has the engine load it, installs its kinds, and lets it answer calls.

mod candidate;
mod claim;
mod grants;
mod install;
mod inventory;
mod memory;
mod news;
mod offline;
mod registries;
mod restore;
mod signature;
mod source;
mod terms;
mod warm;
mod work;

pub use grants::ceiling;
pub use offline::{Terms, definitions};
pub use source::login_of;
pub(crate) use terms::follow;
pub(crate) use work::component;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::{Plugin, PluginOwnedKindStatus, PluginSource};
use capstan_api::reason::plugin as reason;
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Next, Outcome, Plan};
use capstan_core::plugin::{
    self as core, Active, ActiveCanary, Observed, ObservedCanary, Problem, Step, Underway,
};
use capstan_engine::{BreakerState, Engine, LoadError, Loaded};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::candidate::{attempt_of, calls_of};
use self::memory::{Job, Memories, Memory, Slot};
use self::work::{Request, Shared, Version};
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
    memories: Memories,
    shared: Arc<Shared>,
}

/// How long a component that has taken over is watched, and the one before it is kept for that.
const PROBATION: Duration = Duration::from_secs(600);

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
                // Sources are looked at beside this: what is left asks the API server.
                concurrency: 16,
                settle: Duration::from_millis(20),
                hold: Duration::ZERO,
            },
            engine,
            memories: Memories::default(),
            shared: Arc::default(),
        }
    }

    fn remember<T>(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        self.memories.change(key, change)
    }

    /// Begins to load a component of a Plugin, unless it is on its way.
    async fn begin_for(
        &self,
        ctx: &Ctx,
        key: &ObjectKey,
        slot: Slot,
        from: (&PluginSource, &Option<String>),
        version: &str,
    ) {
        if self.remember(key, |memory| memory.slot(slot).1.is_some()) {
            return;
        }
        let request = Request {
            key: key.clone(),
            slot,
            source: from.0.clone(),
            pinned: from.1.clone(),
            version: version.to_owned(),
        };
        self.begin(ctx, request).await;
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
        let (key, now) = (key_of(&plugin), ctx.now());
        let memory = self.remember(&key, |memory| memory.clone());
        let keys = memory.keys.as_ref().zip(versions.keys.as_ref());
        let loaded = memory.attempt.as_ref().and_then(|a| a.result.as_ref().ok());
        let conflicts = loaded
            .map(|loaded| claim::conflicts(ctx, &plugin, loaded))
            .unwrap_or_default();
        let active = ctx
            .plugins
            .get(&key.name)
            .filter(|active| active.key == key);
        let route = active.as_ref().and_then(|active| active.canary.as_ref());
        let of_canary = versions.canary.as_ref();
        let canary = (plugin.spec.canary.is_some() || route.is_some()).then(|| ObservedCanary {
            source: of_canary.map_or(Lookup::Missing, |of| of.lookup.clone()),
            underway: underway(memory.canary_load.as_ref(), of_canary, now),
            attempt: memory
                .canary
                .map(|loading| attempt_of(&plugin, loading, now)),
            active: route.map(active_canary),
            stopped: route.is_some_and(|canary| is_open(&canary.plugin.loaded)),
            recheck: of_canary.and_then(|of| of.again),
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
            misplaced: (key.namespace != ctx.namespace).then(|| misplaced(&ctx.namespace)),
            source: versions.source.lookup.clone(),
            underway: underway(memory.load.as_ref(), Some(&versions.source), now),
            keys_changed: keys.is_some_and(|(before, now)| before != now),
            attempt: memory
                .attempt
                .map(|loading| attempt_of(&plugin, loading, now)),
            active: memory
                .active
                .filter(|_| active.is_some() || plugin.spec.suspend),
            serving: loaded.map(|loaded| loaded.manifest().clone()),
            conflicts,
            recheck: versions.source.again,
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
        self.remember(key, |memory| memory.prune(plugin));
        let canary = match &plugin.spec.canary {
            Some(canary) => Some(match self.kept_canary(key, canary) {
                Some(version) => version,
                None => self.version(ctx, key, &canary.source).await,
            }),
            None => None,
        };
        Versions {
            source: self.version(ctx, key, &plugin.spec.source).await,
            canary,
            keys: self.work(ctx).keys_version().await,
        }
    }
}

/// Versions of both sources, and of the keys of signatures.
struct Versions {
    source: Version,
    canary: Option<Version>,
    /// None where nobody looks at signatures.
    keys: Option<String>,
}

/// What is being done with a source: it is loaded, or first of all asked for.
fn underway(job: Option<&Job>, version: Option<&Version>, now: Timestamp) -> Option<Underway> {
    let loads = job.map(|job| job.underway("the component is fetched and compiled", now));
    loads.or_else(|| version?.underway.clone())
}

fn misplaced(namespace: &str) -> String {
    format!("this host loads plugins from namespace {namespace} only; move the Plugin there")
}

fn active_canary(canary: &Canary) -> ActiveCanary {
    ActiveCanary {
        digest: canary.plugin.loaded.digest().to_owned(),
        spec: canary.spec.clone(),
    }
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
            Watch {
                source: Source::Kind(&kinds::SIGNING_KEY),
                map: |ctx, _| {
                    let plugins = ctx.store(&kinds::PLUGIN).in_namespace(&ctx.namespace);
                    let plugins = plugins.iter();
                    plugins
                        .map(|plugin| Locator::new(&kinds::PLUGIN, &plugin.key))
                        .collect()
                },
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
        self.memories.retain(|key| *key != locator.key);
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
        for (slot, attempt) in [
            (Slot::Main, observed.attempt.as_ref()),
            (
                Slot::Canary,
                observed.canary.as_ref().and_then(|c| c.attempt.as_ref()),
            ),
        ] {
            let is_told = self.remember(&object.key, |memory| {
                let loading = memory.slot(slot).0.as_mut();
                loading.is_none_or(|loading| std::mem::replace(&mut loading.is_told, true))
            });
            let news = attempt.filter(|_| !is_told);
            let news = news.and_then(|attempt| news::of_attempt(attempt, slot));
            self.tell(ctx, &object.key, news).await;
        }
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
                let from = (&spec.source, &spec.digest);
                self.begin_for(ctx, &key, Slot::Main, from, version).await;
            }
            Step::LoadCanary { version } => {
                if let Some(canary) = &observed.plugin.spec.canary {
                    let from = (&canary.source, &canary.digest);
                    self.begin_for(ctx, &key, Slot::Canary, from, version).await;
                }
            }
            Step::CheckSignatures => self.check_signatures(ctx, observed).await?,
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
                        attempt: memory.attempt.take(),
                        lost: memory.lost.take(),
                        resolutions: std::mem::take(&mut memory.resolutions),
                        load: memory.load.take(),
                        keys: memory.keys.take(),
                        ..Memory::default()
                    };
                });
                tracing::info!(plugin = %key, "no longer active");
            }
            Step::RecallKinds => ctx.plugins.recall(&key.name, kinds_of(&observed.plugin)),
        }
        let versions = self.versions(ctx, &key, &observed.plugin).await;
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
        let canary = after.canary.as_ref();
        let is_new = canary.is_some_and(|canary| canary.underway.is_none())
            && done.any(|(step, _)| matches!(step, Step::LoadCanary { .. }));
        let soon = is_new.then_some(Next::CheckAfter(Duration::ZERO));
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next.or(soon),
            ..Report::default()
        }
    }
}
