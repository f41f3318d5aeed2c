//! Bootstrap configs of MachinePools: the pool that owns one, and what stands for a machine of it.
//!
//! A pool has no Machine when its data is made. Plugins are asked about a Machine as the pool's template describes it, named as the pool: what
//! the data of all its machines may depend on.

use std::sync::Arc;

use capstan_api::label;
use capstan_api::name::{ObjectKey, label_value};
use serde_json::{Map, Value, json};

use super::named_config;
use crate::ctx::Ctx;
use crate::kinds;
use crate::object::{Locator, Object};
use crate::store::Change;

/// Where a pool names its config.
const CONFIG_REF: &str = "/spec/template/spec/bootstrap/configRef";

/// The MachinePool that owns a config.
pub(super) fn owner(ctx: &Ctx, config: &Object) -> Option<Arc<Object>> {
    let owner = config.owners().find(|owner| {
        owner.group == kinds::MACHINE_POOL.group && owner.kind == kinds::MACHINE_POOL.kind
    })?;
    let key = ObjectKey::new(config.key.namespace.clone(), owner.name);
    ctx.get(&kinds::MACHINE_POOL, &key)
        .filter(|pool| pool.uid == owner.uid)
}

/// A machine of a pool: the template's metadata and spec under the pool's name, with the first of the pool's Nodes. It is a worker, whatever
/// labels the template has.
pub(super) fn machine(pool: &Object) -> Option<Object> {
    let template = pool.value.pointer("/spec/template")?;
    let own = |field: &str| {
        let found = template.pointer(&format!("/metadata/{field}"));
        found
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let mut labels = own("labels");
    labels.remove(label::CONTROL_PLANE);
    let cluster = pool.text("/spec/clusterName").unwrap_or_default();
    labels.insert(label::CLUSTER_NAME.to_owned(), json!(cluster));
    let name = label_value(&pool.key.name);
    labels.insert(label::POOL_NAME.to_owned(), json!(name));
    let mut status = Map::new();
    if let Some(node) = pool.text("/status/nodeRefs/0/name") {
        status.insert("nodeRef".to_owned(), json!({ "name": node }));
    }
    Object::new(json!({
        "apiVersion": kinds::MACHINE.api_version(),
        "kind": kinds::MACHINE.kind,
        "metadata": {
            "namespace": pool.key.namespace, "name": pool.key.name, "uid": pool.uid,
            "labels": labels, "annotations": own("annotations"),
        },
        "spec": template.get("spec"),
        "status": status,
    }))
}

/// The config that a pool names, when something changed that the config waits for.
pub(super) fn of_pool(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(pool) = &change.new else {
        return Vec::new();
    };
    let watched = |pool: &Object| {
        (
            pool.text("/spec/template/spec/bootstrap/dataSecretName")
                .is_some(),
            pool.text("/status/nodeRefs/0/name").is_some(),
        )
    };
    if change
        .old
        .as_ref()
        .is_some_and(|old| watched(old) == watched(pool))
    {
        return Vec::new();
    }
    named_config(ctx, pool, CONFIG_REF).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use capstan_api::v1beta2::Machine;

    use super::*;

    #[test]
    fn a_machine_of_a_pool_is_a_worker_as_the_template_says() {
        let pool = Object::new(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool",
            "metadata": {"namespace": "n", "name": "p", "uid": "u"},
            "spec": {"clusterName": "c", "template": {
                "metadata": {"labels": {"a": "b", label::CONTROL_PLANE: ""}, "annotations": {"x": "y"}},
                "spec": {
                    "clusterName": "c", "version": "v1.36.3", "bootstrap": {"dataSecretName": "s"},
                    "infrastructureRef": {"apiGroup": "g", "kind": "K", "name": "p"},
                },
            }},
            "status": {"nodeRefs": [{"name": "first"}, {"name": "second"}]},
        }))
        .unwrap();
        let machine = machine(&pool).unwrap();
        let typed: Machine = machine.typed().unwrap();
        assert_eq!(typed.spec.version.as_deref(), Some("v1.36.3"));
        assert_eq!(typed.status.unwrap().node_ref.unwrap().name, "first");
        assert_eq!(machine.label("a"), Some("b"));
        assert_eq!(machine.label(label::POOL_NAME), Some("p"));
        assert_eq!(machine.label(label::CONTROL_PLANE), None);
        assert_eq!(machine.annotation("x"), Some("y"));
        assert_eq!(machine.cluster(), Some(ObjectKey::new("n", "c")));
        let fresh = Object::new(json!({
            "metadata": {"name": "p"}, "spec": {"clusterName": "c", "template": {"spec": {}}},
        }));
        let fresh = super::machine(&fresh.unwrap()).unwrap();
        assert_eq!(fresh.text("/status/nodeRef/name"), None);
    }
}
