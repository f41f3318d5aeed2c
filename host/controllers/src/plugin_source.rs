//! A ConfigMap labelled as a plugin is enough: makes the Plugin object for it, with no grants.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use serde_json::json;

use crate::access::Access;
use crate::controller::{Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::ApiError;
use crate::object::{Locator, Object};
use crate::store::Change;

/// The controller of labelled ConfigMaps.
pub struct PluginSourceController {
    spec: Spec,
}

impl Default for PluginSourceController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "plugin-source",
                manager: "capstan-plugin",
                primary: Primary::Kind(&kinds::CONFIG_MAP),
                finalizer: None,
                pausable: false,
                concurrency: 4,
                settle: Duration::from_millis(20),
                hold: Duration::ZERO,
            },
        }
    }
}

/// What is known of a labelled ConfigMap.
#[derive(Clone, Debug)]
pub struct Observed {
    config_map: ObjectKey,
    /// It is one of several.
    is_part: bool,
    /// Name of the Plugin object that it asks for.
    plugin: String,
    exists: bool,
}

/// The one step: create the Plugin object.
#[derive(Clone, Copy, Debug)]
pub struct CreatePlugin;

/// All labelled ConfigMaps, when a Plugin object went away.
fn of_plugin(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    if change.new.is_some() {
        return Vec::new();
    }
    let maps = ctx
        .stores
        .get(&kinds::CONFIG_MAP.group_kind())
        .map(|store| store.all());
    maps.into_iter()
        .flatten()
        .map(|o| Locator::new(&kinds::CONFIG_MAP, &o.key))
        .collect()
}

impl Controller for PluginSourceController {
    type Observed = Observed;
    type Step = CreatePlugin;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch {
            source: Source::Kind(&kinds::PLUGIN),
            map: of_plugin,
        }]
    }

    fn access() -> Vec<Access> {
        vec![Access::to(&kinds::PLUGIN, &["create"])]
    }

    fn cluster(&self, _: &Object) -> Option<ObjectKey> {
        None
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let plugin = object.label(label::PLUGIN).unwrap_or_default().to_owned();
        let plugins = ctx.store(&kinds::PLUGIN);
        plugins.synced().await;
        let key = ObjectKey {
            namespace: object.key.namespace.clone(),
            name: plugin.clone(),
        };
        let exists = plugins.get(&key).is_some();
        Ok(Observed {
            config_map: object.key.clone(),
            is_part: object.label(label::PLUGIN_PART).is_some(),
            plugin,
            exists,
        })
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Plan<CreatePlugin> {
        if observed.exists || observed.plugin.is_empty() {
            Plan::settled()
        } else {
            Plan::of(vec![CreatePlugin])
        }
    }

    async fn perform(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        _: &CreatePlugin,
    ) -> Result<(), Failure> {
        let writer = Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        };
        let source = if observed.is_part {
            json!({"configMapParts": {}})
        } else {
            json!({"configMap": {"name": observed.config_map.name}})
        };
        let plugin = json!({
            "apiVersion": kinds::PLUGIN.api_version(), "kind": kinds::PLUGIN.kind,
            "metadata": {"namespace": observed.config_map.namespace, "name": observed.plugin},
            "spec": {"source": source},
        });
        match ctx.create(&writer, &kinds::PLUGIN, &plugin).await {
            Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
            Err(error) => {
                let doing = format!(
                    "creating Plugin {} for ConfigMap {}",
                    observed.plugin, observed.config_map
                );
                Err(failure(&doing, &error))
            }
        }
    }

    fn report(
        &self,
        _: &Observed,
        _: &Plan<CreatePlugin>,
        _: &Outcome<CreatePlugin, ()>,
        _: Timestamp,
    ) -> Report {
        Report::default()
    }
}
