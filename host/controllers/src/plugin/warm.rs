//! What a standby does with plugins: it loads each as soon as it is there, so that nothing is left to compile when it takes over.

use std::sync::PoisonError;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::plugin::{Plugin, PluginSource};
use capstan_core::lookup::Lookup;
use capstan_core::plan::Failure;

use super::{Loading, PluginController};
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
            self.memory
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|key, _| plugins.get(key).is_some());
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
        let known = self.remember(key, |memory| memory.attempt.clone());
        let from = (&spec.source, spec.digest.as_ref());
        if let Some(loading) = self.newer(ctx, key, from, known, &versions.source).await? {
            self.remember(key, |memory| memory.attempt = Some(loading));
        }
        if let Some(canary) = &spec.canary {
            let known = self.remember(key, |memory| memory.canary.clone());
            let from = (&canary.source, canary.digest.as_ref());
            if let Some(loading) = self.newer(ctx, key, from, known, &versions.canary).await? {
                self.remember(key, |memory| memory.canary = Some(loading));
            }
        }
        Ok(())
    }

    /// What a source is now, unless that is known or it is not there.
    async fn newer(
        &self,
        ctx: &Ctx,
        key: &ObjectKey,
        from: (&PluginSource, Option<&String>),
        known: Option<Loading>,
        version: &Lookup<String>,
    ) -> Result<Option<Loading>, Failure> {
        let Lookup::Found(version) = version else {
            return Ok(None);
        };
        let is_known =
            |known: Loading| known.version == *version && known.pinned.as_ref() == from.1;
        if known.is_some_and(is_known) {
            return Ok(None);
        }
        self.load(ctx, key, from, version).await.map(Some)
    }
}
