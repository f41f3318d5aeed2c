//! Looking at what references name.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::contract;
use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::ContractVersionedObjectReference;
use capstan_core::lookup::Lookup;
use serde_json::Value;

use crate::ctx::Ctx;
use crate::kube_api::{GroupKind, Resource, Selection};
use crate::object::Object;
use crate::store::Store;

/// How long a reconcile waits for the first list of a kind: many times what a server takes.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// The kind that a reference names.
#[must_use]
pub fn reference_kind(reference: &ContractVersionedObjectReference) -> GroupKind {
    GroupKind {
        group: reference.api_group.clone(),
        kind: reference.kind.clone(),
    }
}

/// The object that a reference names, in the words of the current contract. A kind that cannot be resolved makes it Unknown, not
/// Missing.
pub async fn lookup(ctx: &Ctx, kind: &GroupKind, key: &ObjectKey) -> Lookup<Arc<Object>> {
    let store = match ctx.external(kind).await {
        Ok(store) => store,
        Err(failure) => return Lookup::Unknown(failure.message),
    };
    let Some(object) = store.get(key) else {
        return Lookup::Missing;
    };
    let translated =
        contract::v1beta1::translated(&object.value).filter(|_| ctx.is_of_older_contract(kind));
    Lookup::Found(translated.and_then(Object::new).map_or(object, Arc::new))
}

/// A kind that a reference names with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    group: String,
    version: String,
    kind: String,
}

impl Pinned {
    /// Of an `apiVersion` and a kind.
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
        }
    }

    /// Of an object.
    #[must_use]
    pub fn of_object(object: &Value) -> Self {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        Self::new(text("apiVersion"), text("kind"))
    }

    /// The kind as it is served.
    #[must_use]
    pub fn resource(&self) -> Resource {
        let plural = contract::plural(&self.kind);
        Resource::namespaced(&self.group, &self.version, &self.kind, &plural)
    }
}

/// The objects of a kind that is looked for in one version.
pub enum Objects {
    /// They are watched.
    Watched(Arc<Store>),
    /// The kind is not installed: there are none.
    None,
    /// They cannot be seen; why.
    Unknown(String),
}

impl Objects {
    /// One of them.
    #[must_use]
    pub fn one(&self, key: &ObjectKey) -> Lookup<Arc<Object>> {
        match self {
            Self::Watched(store) => store.get(key).map_or(Lookup::Missing, Lookup::Found),
            Self::None => Lookup::Missing,
            Self::Unknown(why) => Lookup::Unknown(why.clone()),
        }
    }
}

/// The objects of a kind in the version that a reference names; watches them from now on. A version that is not served keeps
/// nobody waiting.
pub async fn pinned(ctx: &Ctx, kind: &Pinned) -> Objects {
    let resource = kind.resource();
    if ctx.is_not_installed(&resource.group_kind()).await {
        return Objects::None;
    }
    let store = ctx.stores.ensure(&resource, Selection::default());
    match tokio::time::timeout(FIRST_LIST, store.synced()).await {
        Ok(()) => Objects::Watched(store),
        Err(_) => Objects::Unknown(format!(
            "{} of {} cannot be listed: is this version served?",
            resource.plural,
            resource.api_version()
        )),
    }
}
