//! What a standby does with plugins: it loads each as soon as it is there, so that nothing is left to compile when it takes over.

use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::plugin::{Plugin, PluginSource};
use capstan_core::lookup::Lookup;
use capstan_core::plan::Failure;

use super::PluginController;
use super::memory::Slot;
use crate::ctx::Ctx;
use crate::kube_api::{Resource, Selection};
use crate::machine::typed;
use crate::object::Object;
use crate::{kinds, registry};

/// How often the caches are looked at for something new. Nothing is asked of the server for that.
const LOOK: Duration = Duration::from_secs(2);

impl PluginController {
    /// Loads what is installed, and what changes, and lets nothing of it answer calls. Never ends by itself: a load that is under way
    /// when it is dropped begins anew.
    pub async fn keep_warm(&self, ctx: &Ctx) {
        for store in registry::known_stores(ctx) {
            store.synced().await;
        }
        let plugins = ctx.store(&kinds::PLUGIN);
        loop {
            self.memories.retain(|key| plugins.get(key).is_some());
            for object in plugins.in_namespace(&ctx.namespace) {
                if let Err(failure) = self.warm(ctx, &object).await {
                    tracing::debug!(plugin = %object.key, "not loaded ahead: {failure}");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn warm(&self, ctx: &Ctx, object: &Object) -> Result<(), Failure> {
        let plugin: Plugin = typed(object)?;
        for kind in plugin.status.iter().flat_map(|status| &status.kinds) {
            let resource =
                Resource::namespaced(&kind.group, &kind.version, &kind.kind, &kind.plural);
            ctx.stores.ensure(&resource, Selection::default());
        }
        if plugin.spec.suspend {
            return Ok(());
        }
        let (key, spec) = (&object.key, &plugin.spec);
        let versions = self.versions(ctx, key, &plugin).await;
        let from = (&spec.source, &spec.digest);
        let source = &versions.source.lookup;
        self.renew(ctx, key, Slot::Main, from, source).await;
        if let (Some(canary), Some(version)) = (&spec.canary, &versions.canary) {
            let from = (&canary.source, &canary.digest);
            let source = &version.lookup;
            self.renew(ctx, key, Slot::Canary, from, source).await;
        }
        Ok(())
    }

    /// Begins to load what a source is now, unless that is known, has just failed, or the source is not there.
    async fn renew(
        &self,
        ctx: &Ctx,
        key: &ObjectKey,
        slot: Slot,
        from: (&PluginSource, &Option<String>),
        version: &Lookup<String>,
    ) {
        let Lookup::Found(version) = version else {
            return;
        };
        let now = ctx.now();
        let is_known = self.remember(key, |memory| {
            let known = memory.slot(slot).0.as_ref();
            known.is_some_and(|known| {
                let may_be_better = known.result.as_ref().is_err_and(|p| p.is_transient);
                let is_over = may_be_better && known.pause(now).is_none();
                known.version == *version && known.pinned == *from.1 && !is_over
            })
        });
        if !is_known {
            self.begin_for(ctx, key, slot, from, version).await;
        }
    }
}
