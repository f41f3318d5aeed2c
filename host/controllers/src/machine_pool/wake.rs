//! Which MachinePools look again when something else changes.

use std::sync::Arc;

use capstan_api::label;
use capstan_api::name::{ObjectKey, label_value};
use serde_json::Value;

use super::locator;
use crate::ctx::Ctx;
use crate::kinds;
use crate::object::{Locator, Object};
use crate::store::Change;

/// Pools that own a provider object that changed, that refer to one which nobody owns yet, or whose label an infrastructure machine has.
pub(super) fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    let mut found: Vec<Locator> = object
        .owners()
        .filter(|owner| {
            owner.kind == kinds::MACHINE_POOL.kind && owner.group == kinds::MACHINE_POOL.group
        })
        .map(|owner| {
            let key = ObjectKey::new(object.key.namespace.clone(), owner.name);
            Locator::new(&kinds::MACHINE_POOL, &key)
        })
        .collect();
    if let (Some(name), Some(cluster)) = (object.label(label::POOL_NAME), object.cluster()) {
        let pools = ctx.store(&kinds::MACHINE_POOL).of_cluster(&cluster);
        let labelled = pools
            .iter()
            .filter(|pool| label_value(&pool.key.name) == name);
        found.extend(labelled.map(|pool| locator(pool)));
    }
    if found.is_empty() && object.controller().is_none() {
        let pools = ctx
            .store(&kinds::MACHINE_POOL)
            .in_namespace(&object.key.namespace);
        let naming = pools.iter().filter(|pool| refers(pool, object));
        found.extend(naming.map(|pool| locator(pool)));
    }
    found
}

/// Whether a pool names an object.
fn refers(pool: &Object, object: &Object) -> bool {
    let kind = object.group_kind();
    ["infrastructureRef", "bootstrap/configRef"]
        .iter()
        .filter_map(|field| pool.value.pointer(&format!("/spec/template/spec/{field}")))
        .any(|reference| {
            let is = |field: &str, text: &str| {
                reference.get(field).and_then(Value::as_str) == Some(text)
            };
            is("name", &object.key.name) && is("kind", &kind.kind) && is("apiGroup", &kind.group)
        })
}

/// The pool that controls a Machine.
pub(super) fn of_machine(_: &Ctx, change: &Change) -> Vec<Locator> {
    let owner = change.object().and_then(|machine| {
        let owner = machine.controller()?;
        let is_pool =
            owner.kind == kinds::MACHINE_POOL.kind && owner.group == kinds::MACHINE_POOL.group;
        let key = ObjectKey::new(machine.key.namespace.clone(), owner.name);
        is_pool.then(|| Locator::new(&kinds::MACHINE_POOL, &key))
    });
    owner.into_iter().collect()
}

/// The pools of a Cluster that came, or whose deletion began.
pub(super) fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let facts = |object: &Option<Arc<Object>>| object.as_ref().map(|o| o.is_deleting());
    if facts(&change.old) == facts(&change.new) {
        return Vec::new();
    }
    let cluster = change.object();
    cluster.map_or_else(Vec::new, |cluster| of(ctx, &cluster.key))
}

/// The pools that a Node is or was of, or all of a Cluster whose connection changed.
pub(super) fn of_workload(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    if object.kind() != "Node" {
        return of(ctx, &object.key);
    }
    let Some(cluster) = object.workload() else {
        return Vec::new();
    };
    let id = object.text("/spec/providerID");
    let has = |pool: &Object, list: &str, entry: &dyn Fn(&Value) -> bool| {
        let listed = pool.value.pointer(list).and_then(Value::as_array);
        listed.is_some_and(|all| all.iter().any(entry))
    };
    let pools = ctx.store(&kinds::MACHINE_POOL).of_cluster(cluster);
    let meant = pools.iter().filter(|pool| {
        has(pool, "/spec/providerIDList", &|entry| {
            id.is_some() && entry.as_str() == id
        }) || has(pool, "/status/nodeRefs", &|entry| {
            entry.get("name").and_then(Value::as_str) == Some(&*object.key.name)
        })
    });
    meant.map(|pool| locator(pool)).collect()
}

fn of(ctx: &Ctx, cluster: &ObjectKey) -> Vec<Locator> {
    let pools = ctx.store(&kinds::MACHINE_POOL).of_cluster(cluster);
    pools.iter().map(|pool| locator(pool)).collect()
}
