//! Looking at what references name.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::ContractVersionedObjectReference;
use capstan_core::lookup::Lookup;

use crate::ctx::Ctx;
use crate::kube_api::GroupKind;
use crate::object::Object;

/// The kind that a reference names.
#[must_use]
pub fn reference_kind(reference: &ContractVersionedObjectReference) -> GroupKind {
    GroupKind {
        group: reference.api_group.clone(),
        kind: reference.kind.clone(),
    }
}

/// The object that a reference names. A kind that cannot be resolved makes it Unknown, not Missing.
pub async fn lookup(ctx: &Ctx, kind: &GroupKind, key: &ObjectKey) -> Lookup<Arc<Object>> {
    match ctx.external(kind).await {
        Ok(store) => store.get(key).map_or(Lookup::Missing, Lookup::Found),
        Err(failure) => Lookup::Unknown(failure.message),
    }
}
