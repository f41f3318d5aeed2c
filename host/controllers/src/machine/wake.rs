//! Which Machines look again when something else changes.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_api::{annotation, label};
use serde_json::Value;

use crate::ctx::Ctx;
use crate::kinds;
use crate::object::{Locator, Object};
use crate::store::Change;

/// Machines that own a provider object that changed, or refer to one that nobody owns yet.
pub(super) fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    if object.owners().next().is_none() {
        return referring(ctx, object);
    }
    let owners = object
        .owners()
        .filter(|o| o.kind == "Machine" && o.group == kinds::MACHINE.group);
    owners
        .map(|owner| machine(&object.key.namespace, owner.name))
        .collect()
}

/// Machines that refer to an object. Objects that the host makes have owners from the start; these are made by hand.
fn referring(ctx: &Ctx, object: &Object) -> Vec<Locator> {
    let kind = object.group_kind();
    let machines = ctx
        .store(&kinds::MACHINE)
        .in_namespace(&object.key.namespace);
    let refers = |machine: &Arc<Object>| {
        ["/spec/infrastructureRef", "/spec/bootstrap/configRef"]
            .iter()
            .filter_map(|pointer| machine.value.pointer(pointer))
            .any(|reference| {
                let is = |field: &str, text: &str| {
                    reference.get(field).and_then(Value::as_str) == Some(text)
                };
                is("name", &object.key.name)
                    && is("kind", &kind.kind)
                    && is("apiGroup", &kind.group)
            })
    };
    machines
        .iter()
        .filter(|machine| refers(machine))
        .map(|machine| Locator::new(&kinds::MACHINE, &machine.key))
        .collect()
}

fn machine(namespace: &str, name: &str) -> Locator {
    let key = ObjectKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Locator::new(&kinds::MACHINE, &key)
}

/// All Machines of a Cluster whose initialization or deletion changed.
pub(super) fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let facts = |o: &Option<Arc<Object>>| {
        o.as_ref().map(|o| {
            (
                o.value.pointer("/status/initialization").cloned(),
                o.is_deleting(),
            )
        })
    };
    if facts(&change.old) == facts(&change.new) {
        return Vec::new();
    }
    let Some(cluster) = change.object() else {
        return Vec::new();
    };
    let machines = ctx.store(&kinds::MACHINE).of_cluster(&cluster.key);
    machines
        .iter()
        .map(|m| Locator::new(&kinds::MACHINE, &m.key))
        .collect()
}

/// Machines of a MachineSet or MachineDeployment whose spec or revision changed: whether they are up to date may have changed.
pub(super) fn of_template(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return Vec::new();
    };
    let facts = |o: &Object| {
        (
            o.generation(),
            o.annotation(annotation::REVISION).map(str::to_owned),
        )
    };
    if facts(old) == facts(new) {
        return Vec::new();
    }
    let by = if new.kind() == "MachineSet" {
        label::SET_NAME
    } else {
        label::DEPLOYMENT_NAME
    };
    let Some(cluster) = new.cluster() else {
        return Vec::new();
    };
    let machines = ctx.store(&kinds::MACHINE).of_cluster(&cluster);
    let of_it = machines
        .iter()
        .filter(|m| m.label(by) == Some(&new.key.name));
    of_it
        .map(|m| Locator::new(&kinds::MACHINE, &m.key))
        .collect()
}

/// The Machine of a Node that changed, or all Machines of a Cluster whose connection did.
pub(super) fn of_workload(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    let machines = ctx.store(&kinds::MACHINE);
    if object.kind() == "Node" {
        let Some(cluster) = object.workload() else {
            return Vec::new();
        };
        let id = object.text("/spec/providerID");
        let meant = machines.of_node(cluster, &object.key.name, id);
        return meant
            .iter()
            .map(|m| Locator::new(&kinds::MACHINE, &m.key))
            .collect();
    }
    let of_cluster = machines.of_cluster(&object.key);
    of_cluster
        .iter()
        .map(|m| Locator::new(&kinds::MACHINE, &m.key))
        .collect()
}
