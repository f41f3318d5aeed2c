//! What a Plugin object allows follows the object at once: what was taken away holds from the next call on, whatever its controller is
//! waiting for, a registry that does not answer or the compiler.

use std::sync::Arc;

use capstan_api::plugin::Plugin;

use super::{key_of, serve};
use crate::ctx::Ctx;
use crate::kinds;
use crate::machine::typed;
use crate::plugins::{ActivePlugin, Canary};
use crate::store::Change;

/// Gives the active component of a Plugin the grants, limits and config that the object has now, or takes its calls away.
pub(crate) fn follow(ctx: &Ctx, change: &Change) {
    let Some(object) = &change.new else {
        return;
    };
    let generation = |object: &Arc<crate::object::Object>| object.generation();
    if change.old.as_ref().map(generation) == Some(object.generation()) {
        return;
    }
    let active = ctx.plugins.get(&object.key.name);
    let Some(active) = active.filter(|active| active.key == object.key) else {
        return;
    };
    let Ok(plugin) = typed::<Plugin>(object) else {
        return;
    };
    if plugin.spec.suspend {
        ctx.plugins.deactivate(&active.name);
        return;
    }
    let canary = active.canary.as_ref().map(|canary| Canary {
        plugin: Arc::new(serve(&plugin, &canary.plugin.loaded)),
        spec: canary.spec.clone(),
    });
    // Its kinds are its own already.
    let _ = ctx.plugins.activate(ActivePlugin {
        canary,
        ..serve(&plugin, &active.loaded)
    });
}

/// The object as it is known now: a load takes its time, and what it was begun with may have been taken away since.
pub(super) fn newest(ctx: &Ctx, observed: &Plugin) -> Plugin {
    let now = ctx.get(&kinds::PLUGIN, &key_of(observed));
    let now = now.and_then(|object| typed::<Plugin>(&object).ok());
    let is_same = |now: &Plugin| now.metadata.uid == observed.metadata.uid;
    now.filter(is_same).unwrap_or_else(|| observed.clone())
}
