//! MachineHook: shows whether its plugin can be asked, and which Machines wait for it. The Machine controller asks.

use std::collections::BTreeSet;
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

/// The hooks of which something else is written down in a Machine's deletion.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let written = |object: &Option<Arc<Object>>| {
        object
            .as_ref()
            .and_then(|o| o.annotation(annotation::HOOKS).map(str::to_owned))
    };
    if written(&change.old) == written(&change.new) {
        return Vec::new();
    }
    let of = |object: &Option<Arc<Object>>| {
        let object = object.as_ref();
        object.map(|o| records(ctx, o)).unwrap_or_default()
    };
    let (old, new) = (of(&change.old), of(&change.new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    let hooks = changed.filter_map(|name| {
        let key = ObjectKey::new(ctx.namespace.clone(), name.clone());
        ctx.get(&kinds::MACHINE_HOOK, &key)
    });
    hooks
        .map(|hook| Locator::new(&kinds::MACHINE_HOOK, &hook.key))
        .collect()
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
        let deleting = ctx.store(&kinds::MACHINE).deleting();
        let waiting = deleting.iter().filter_map(|machine| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two_clusters;

    #[tokio::test(start_paused = true)]
    async fn what_is_written_down_of_a_hook_wakes_that_hook() {
        let (ctx, _) = two_clusters().await;
        for name in ["first", "second"] {
            let hook = json!({"kind": "MachineHook", "metadata": {
                "name": name, "namespace": ctx.namespace, "resourceVersion": "1",
            }});
            let hook = Object::new(hook).unwrap();
            ctx.store(&kinds::MACHINE_HOOK).apply(hook);
        }
        let asked = json!({"since": ctx.now()});
        let done = json!({"since": ctx.now(), "done": ctx.now(), "outcome": "Proceeded"});
        let machine = |records: serde_json::Value| {
            let value = json!({"kind": "Machine", "metadata": {
                "name": "m", "namespace": "ns", "deletionTimestamp": "2020-01-01T00:00:00Z",
                "annotations": {annotation::HOOKS: records.to_string()},
            }});
            Object::new(value).map(Arc::new)
        };
        let none = machine(json!({}));
        let first = machine(json!({"first": asked}));
        let second = machine(json!({"first": done, "second": asked}));
        let third = machine(json!({"first": done, "second": asked, "gone": asked}));
        let expected: [(_, _, &[&str]); 6] = [
            (&none, &first, &["first"]),
            (&first, &first, &[]),
            (&first, &second, &["first", "second"]),
            // There is no hook of the name.
            (&second, &third, &[]),
            (&first, &None, &["first"]),
            (&None, &second, &["first", "second"]),
        ];
        for (old, new, names) in expected {
            let (old, new) = (old.clone(), new.clone());
            let woken = of_machine(&ctx, &Change { old, new });
            let woken: Vec<&str> = woken.iter().map(|it| &*it.key.name).collect();
            assert_eq!(woken, names);
        }
    }
}
