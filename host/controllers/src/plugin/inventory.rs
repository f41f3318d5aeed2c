//! The entry of a plugin in clusterctl's inventory. It belongs to the Plugin object and goes with it.

use capstan_api::inventory;
use capstan_api::name::ObjectKey;
use capstan_engine::Loaded;
use serde_json::json;

use crate::ctx::{Ctx, Writer, owner_reference};
use crate::kinds;
use crate::kube_api::Patch;
use crate::object::Object;

/// Writes which version of a provider answers calls. What clusterctl is told is no reason for a plugin not to work: a failure is logged.
pub(super) async fn mirror(ctx: &Ctx, writer: &Writer, plugin: &Object, loaded: &Loaded) {
    let manifest = loaded.manifest();
    let namespace = &plugin.key.namespace;
    let Some(mut entry) = inventory::provider(namespace, &manifest.name, &manifest.version) else {
        return;
    };
    if let Some(metadata) = entry.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        let owner = owner_reference(plugin, false);
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
    }
    let key = ObjectKey::new(namespace, &manifest.name);
    let patch = Patch::Apply(entry);
    let answer = ctx
        .api
        .patch(&kinds::PROVIDER, &key, None, &patch, writer.manager)
        .await;
    if let Err(error) = answer {
        tracing::warn!(plugin = %plugin.key, %error, "not in clusterctl's inventory");
    }
}
