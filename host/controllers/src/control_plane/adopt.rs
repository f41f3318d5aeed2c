//! Becomes the controller of machines that others made: one write each, and nothing on the machine itself.

use capstan_api::name::{ObjectKey, label_value};
use capstan_api::{annotation, label};
use capstan_core::plan::Failure;
use serde_json::json;

use super::{Seen, write_failure, writer};
use crate::controller::Adoption;
use crate::ctx::{Ctx, failure, owner_reference};
use crate::kinds;
use crate::kube_api::Patch;
use crate::object::Object;

/// Takes over a Machine that still has no controller.
pub(super) async fn machine(ctx: &Ctx, seen: &Seen, name: &str, uid: &str) -> Result<(), Failure> {
    let key = ObjectKey::new(seen.object.key.namespace.clone(), name);
    let machine = ctx.get(&kinds::MACHINE, &key);
    let Some(machine) = machine.filter(|m| m.uid == uid && m.controller().is_none()) else {
        return Err(Failure::transient(
            "Conflict",
            format!("Machine {name} has changed since it was looked at"),
        ));
    };
    still_there(ctx, seen).await?;
    let adoption = Adoption {
        owners: vec![owner_reference(&seen.object, true)],
        ..Adoption::default()
    };
    let Some(mut patch) = crate::status::adoption_patch(&machine, None, &adoption) else {
        return Ok(());
    };
    if let Some(metadata) = patch.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        // Its member of etcd must leave before it does, and this is how its control plane finds it.
        metadata.insert(
            "annotations".to_owned(),
            json!({annotation::KCP_CLEANUP_HOOK: ""}),
        );
        let name = label_value(&seen.object.key.name);
        metadata.insert(
            "labels".to_owned(),
            json!({label::CONTROL_PLANE_NAME: name}),
        );
    }
    let patched = ctx
        .patch(&writer(), &kinds::MACHINE, &key, &Patch::Merge(patch))
        .await;
    patched
        .map(drop)
        .map_err(|error| write_failure(&format!("taking over Machine {name}"), &error))
}

/// Asks the server: a control plane that goes, or has gone, would take with it what it did not make (contract 3.10: adoption).
async fn still_there(ctx: &Ctx, seen: &Seen) -> Result<(), Failure> {
    let resource = ctx.resolve(&seen.object.group_kind())?;
    let doing = format!("reading {} {}", resource.kind, seen.object.key);
    let stored = ctx.api.get(&resource, &seen.object.key).await;
    let stored = stored.map_err(|error| failure(&doing, &error))?;
    let is_same = Object::new(stored).is_some_and(|o| o.uid == seen.object.uid && !o.is_deleting());
    is_same.then_some(()).ok_or_else(|| {
        let name = &seen.object.key.name;
        Failure::transient(
            "Conflict",
            format!(
                "{} {name} goes: it takes over nothing any more",
                resource.kind
            ),
        )
    })
}
