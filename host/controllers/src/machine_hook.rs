//! MachineHook: shows whether its plugin can be asked, and which Machines wait for it. The Machine controller asks.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::machine_hook::MachineHook;
use capstan_api::name::ObjectKey;
use capstan_core::call::manifest::PluginKind;
use capstan_core::machine_hook::{self as core, Observed, Plugin, Waiting};
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use serde_json::json;

use crate::access::Access;
use crate::controller::{Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::Ctx;
use crate::kinds;
use crate::machine::{
    hook::{is_bound, records},
    typed,
};
use crate::object::{Locator, Object};
use crate::store::Change;

/// The controller of MachineHooks.
pub struct MachineHookController {
    spec: Spec,
}

impl Default for MachineHookController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "machine-hook",
                manager: "capstan-machinehook",
                primary: Primary::Kind(&kinds::MACHINE_HOOK),
                finalizer: None,
                pausable: false,
                concurrency: 4,
                settle: Duration::from_millis(100),
                hold: Duration::ZERO,
            },
        }
    }
}

/// What is known of a hook's plugin.
#[must_use]
pub fn plugin_of(ctx: &Ctx, name: &str) -> Plugin {
    match ctx.plugins.get(name) {
        Some(plugin) if plugin.loaded.kinds().contains(&PluginKind::PreDeleteHook) => Plugin::Ready,
        Some(_) => Plugin::NotAHook,
        None => {
            let key = ObjectKey::new(ctx.namespace.clone(), name);
            match ctx.get(&kinds::PLUGIN, &key) {
                Some(_) => Plugin::NotReady,
                None => Plugin::Missing,
            }
        }
    }
}

fn all(ctx: &Ctx) -> Vec<Locator> {
    let hooks = ctx.store(&kinds::MACHINE_HOOK).in_namespace(&ctx.namespace);
    hooks
        .iter()
        .map(|hook| Locator::new(&kinds::MACHINE_HOOK, &hook.key))
        .collect()
}

/// The hooks that a Machine's deletion has something written down about.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let written = |object: &Option<Arc<Object>>| {
        object
            .as_ref()
            .and_then(|o| o.annotation(annotation::HOOKS).map(str::to_owned))
    };
    if written(&change.old) == written(&change.new) {
        return Vec::new();
    }
    all(ctx)
}

/// All hooks: a Plugin came or went.
fn of_plugin(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    if change.old.is_some() && change.new.is_some() {
        return Vec::new();
    }
    all(ctx)
}

impl Controller for MachineHookController {
    type Observed = Observed;
    type Step = ();
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: of_machine,
            },
            Watch {
                source: Source::Kind(&kinds::PLUGIN),
                map: of_plugin,
            },
            // Also one that is no hook: who names it hears that.
            Watch {
                source: Source::Plugins,
                map: |_, _| Vec::new(),
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![Access::to_status(&kinds::MACHINE_HOOK)]
    }

    fn cluster(&self, _: &Object) -> Option<ObjectKey> {
        None
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let hook: MachineHook = typed(&object)?;
        let machines = ctx.store(&kinds::MACHINE).all();
        let deleting = machines.iter().filter(|machine| machine.is_deleting());
        let waiting = deleting.filter_map(|machine| {
            let mut written = records(ctx, machine);
            let record = written.remove(&object.key.name)?;
            let waits = record.done.is_none() && is_bound(ctx, &hook, machine);
            waits.then(|| Waiting {
                since: record.since,
                namespace: machine.key.namespace.clone(),
                machine: machine.key.name.clone(),
            })
        });
        Ok(Observed {
            plugin: plugin_of(ctx, &hook.spec.plugin),
            waiting: waiting.collect(),
            hook,
        })
    }

    fn decide(&self, _: &Observed, _: Timestamp) -> Plan<()> {
        Plan::settled()
    }

    async fn perform(&self, _: &Ctx, _: &Observed, (): &()) -> Result<(), Failure> {
        Ok(())
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<()>,
        _: &Outcome<(), ()>,
        _: Timestamp,
    ) -> Report {
        let (status, conditions) = core::report(observed);
        Report {
            status: json!(status),
            conditions,
            ..Report::default()
        }
    }
}
