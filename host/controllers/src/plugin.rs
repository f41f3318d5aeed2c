//! Plugin: fetches a source, has the engine load it, installs its kinds, and lets it answer calls.

mod grants;
mod install;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::Plugin;
use capstan_api::reason::plugin as reason;
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use capstan_core::plugin::{self as core, Active, Attempt, Candidate, Observed, Problem, Step};
use capstan_engine::{Engine, LoadError, Loaded};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controller::{Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind};
use crate::machine::typed;
use crate::object::{Locator, Object};
use crate::plugins::ActivePlugin;
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
}

#[derive(Clone)]
struct Loading {
    version: String,
    at: Timestamp,
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
                concurrency: 4,
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

    async fn load(&self, ctx: &Ctx, observed: &Observed, version: &str) -> Result<(), Failure> {
        let key = key_of(&observed.plugin);
        let result = match fetch(ctx, &observed.plugin).await? {
            Ok(bytes) => self
                .engine
                .load(bytes)
                .await
                .map_err(|error| problem(&error)),
            Err(problem) => Err(problem),
        };
        let loading = Loading {
            version: version.to_owned(),
            at: ctx.now(),
            result,
        };
        match &loading.result {
            Ok(loaded) => tracing::info!(
                plugin = %key, digest = loaded.digest(), cached = loaded.cached(),
                compile_ms = u64::try_from(loaded.compile_time().as_millis()).unwrap_or(u64::MAX),
                "loaded"
            ),
            Err(problem) => {
                tracing::warn!(plugin = %key, reason = %problem.reason, "{}", problem.message)
            }
        }
        self.remember(&key, |memory| memory.attempt = Some(loading));
        Ok(())
    }

    fn activate(&self, ctx: &Ctx, observed: &Observed) -> Result<(), Failure> {
        let key = key_of(&observed.plugin);
        let Some(loaded) = self.candidate(&key) else {
            return Ok(());
        };
        let spec = &observed.plugin.spec;
        ctx.plugins.activate(ActivePlugin {
            name: key.name.clone(),
            key: key.clone(),
            grants: Arc::new(grants::grants(spec)?),
            limits: grants::limits(spec),
            config: Value::Object(spec.config.clone().into_iter().collect()),
            credentials: grants::credentials(spec),
            loaded: Arc::clone(&loaded),
        });
        let active = Active {
            digest: loaded.digest().to_owned(),
            generation: observed.plugin.metadata.generation.unwrap_or_default(),
        };
        tracing::info!(plugin = %key, digest = loaded.digest(), "active");
        self.remember(&key, |memory| memory.active = Some(active));
        Ok(())
    }

    fn candidate(&self, key: &ObjectKey) -> Option<Arc<Loaded>> {
        self.remember(key, |memory| memory.attempt.as_ref()?.result.clone().ok())
    }

    /// Kinds of the candidate that another plugin, or another provider's definition, already has.
    fn conflicts(ctx: &Ctx, key: &ObjectKey, loaded: &Loaded) -> Vec<(String, String)> {
        let kinds = loaded.manifest().kinds.iter();
        kinds
            .filter_map(|owned| {
                let kind = GroupKind {
                    group: owned.group.clone(),
                    kind: owned.kind.clone(),
                };
                let owner = ctx
                    .plugins
                    .owner_of(&kind)
                    .filter(|owner| owner.key != *key)?;
                Some((kind.to_string(), format!("plugin {}", owner.name)))
            })
            .collect()
    }

    /// The memory of a Plugin as the pure side wants it.
    fn recall(&self, ctx: &Ctx, plugin: Plugin, source: Lookup<String>) -> Observed {
        let key = key_of(&plugin);
        let memory = self.remember(&key, |memory| memory.clone());
        let misplaced = (key.namespace != ctx.namespace).then(|| {
            format!(
                "this host loads plugins from namespace {} only; move the Plugin there",
                ctx.namespace
            )
        });
        let loaded = memory.attempt.as_ref().and_then(|a| a.result.as_ref().ok());
        let conflicts = loaded
            .map(|l| Self::conflicts(ctx, &key, l))
            .unwrap_or_default();
        let attempt = memory.attempt.map(|loading| Attempt {
            version: loading.version,
            result: loading
                .result
                .map(|loaded| candidate(&plugin, &loaded, loading.at)),
        });
        Observed {
            plugin,
            misplaced,
            source,
            attempt,
            active: memory.active,
            conflicts,
        }
    }
}

fn candidate(plugin: &Plugin, loaded: &Loaded, at: Timestamp) -> Candidate {
    let grants = grants::grants(&plugin.spec).unwrap_or_default();
    let manifest = loaded.manifest().clone();
    let missing = capstan_engine::missing(&manifest, loaded.imports(), &grants);
    let granted = manifest
        .capabilities
        .iter()
        .map(|request| request.name.clone())
        .filter(|name| grants.allows(name))
        .collect();
    Candidate {
        digest: loaded.digest().to_owned(),
        abi: loaded.abi().to_owned(),
        source_bytes: loaded.source_bytes(),
        compiled_bytes: loaded.compiled_bytes(),
        compile_time: (!loaded.cached()).then(|| loaded.compile_time()),
        loaded_at: at,
        roles: loaded
            .kinds()
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        missing: missing
            .into_iter()
            .map(|m| (m.capability, m.why, m.yaml))
            .collect(),
        granted,
        manifest,
    }
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

/// The bytes of the source as they are stored.
async fn fetch(ctx: &Ctx, plugin: &Plugin) -> Result<Result<Bytes, Problem>, Failure> {
    let own = key_of(plugin);
    let Some(source) = &plugin.spec.source.config_map else {
        let message = "spec.source: name a ConfigMap in configMap";
        return Ok(Err(Problem::new(
            "Verified",
            reason::SOURCE_INVALID,
            message,
        )));
    };
    let key = ObjectKey {
        namespace: own.namespace,
        name: source.name.clone(),
    };
    let map = match ctx.api.get(&kinds::CONFIG_MAP, &key).await {
        Ok(map) => map,
        Err(ApiError::NotFound(_)) => {
            let message = format!("spec.source.configMap.name: ConfigMap {key} does not exist");
            return Ok(Err(Problem::new(
                "Verified",
                reason::SOURCE_NOT_FOUND,
                message,
            )));
        }
        Err(error) => return Err(failure(&format!("reading ConfigMap {key}"), &error)),
    };
    let data = map.get("binaryData").and_then(Value::as_object);
    let entries = data.into_iter().flatten();
    let mut meant: Vec<(&String, &Value)> = entries
        .filter(|(name, _)| source.key.as_ref().is_none_or(|wanted| wanted == *name))
        .collect();
    let Some((_, value)) = meant.pop().filter(|_| meant.is_empty()) else {
        let names: Vec<&str> = data
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        let message = match &source.key {
            Some(wanted) => format!(
                "spec.source.configMap.key: binaryData of ConfigMap {key} has no {wanted}, but [{}]",
                names.join(", ")
            ),
            None => format!(
                "binaryData of ConfigMap {key} has [{}]: put one component there, or name one in spec.source.configMap.key",
                names.join(", ")
            ),
        };
        return Ok(Err(Problem::new(
            "Verified",
            reason::SOURCE_INVALID,
            message,
        )));
    };
    let decoded = BASE64.decode(value.as_str().unwrap_or_default());
    Ok(decoded.map(Bytes::from).map_err(|error| {
        let message = format!("binaryData of ConfigMap {key} is not base64: {error}");
        Problem::new("Verified", reason::SOURCE_INVALID, message)
    }))
}

/// Plugins whose source is this ConfigMap.
fn of_config_map(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(map) = change.object() else {
        return Vec::new();
    };
    let plugins = ctx.store(&kinds::PLUGIN).in_namespace(&map.key.namespace);
    let of_it = plugins
        .iter()
        .filter(|plugin| plugin.text("/spec/source/configMap/name") == Some(&map.key.name));
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
        let maps = ctx.stores.get(&kinds::CONFIG_MAP.group_kind());
        let source = match (&maps, &plugin.spec.source.config_map) {
            (Some(maps), Some(source)) => {
                maps.synced().await;
                let key = ObjectKey {
                    namespace: object.key.namespace.clone(),
                    name: source.name.clone(),
                };
                let entry = source.key.as_deref().unwrap_or_default();
                maps.get(&key).map_or(Lookup::Missing, |map| {
                    Lookup::Found(format!("{}/{entry}", map.resource_version))
                })
            }
            _ => Lookup::Missing,
        };
        Ok(self.recall(ctx, plugin, source))
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
            Step::Load { version } => self.load(ctx, observed, version).await?,
            Step::InstallKinds => {
                let writer = Writer {
                    controller: self.spec.name,
                    manager: self.spec.manager,
                };
                if let Some(loaded) = self.candidate(&key) {
                    install::install(ctx, &writer, loaded.manifest()).await?;
                }
            }
            Step::Activate => self.activate(ctx, observed)?,
            Step::Deactivate => {
                ctx.plugins.deactivate(&key.name);
                self.remember(&key, |memory| memory.active = None);
                tracing::info!(plugin = %key, "no longer active");
            }
        }
        Ok(Box::new(self.recall(
            ctx,
            observed.plugin.clone(),
            observed.source.clone(),
        )))
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
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next,
            finished: false,
        }
    }
}
