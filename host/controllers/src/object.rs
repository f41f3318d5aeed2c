//! An object as the stores keep it: its JSON with what is looked at often beside it.

use std::fmt;

use capstan_api::name::ObjectKey;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kube_api::{GroupKind, Resource};

/// One object of one resource; immutable.
pub struct Object {
    /// The whole object without managed fields.
    pub value: Value,
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Resource version, as a number so that newer can be told from older (KEP-5504: comparable since Kubernetes 1.35, and
    /// in practice since etcd 3).
    pub resource_version: u64,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are objects too: never the content.
        write!(
            f,
            "{} {} rv {}",
            self.kind(),
            self.key,
            self.resource_version
        )
    }
}

/// An owner reference, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
    /// Whether it is the managing controller.
    pub controller: bool,
}

impl Object {
    /// Reads the identity out of an object as the server sent it. `None` when it has no name.
    #[must_use]
    pub fn new(value: Value) -> Option<Self> {
        let text = |path: &str| {
            value
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let name = text("/metadata/name").to_owned();
        if name.is_empty() {
            return None;
        }
        Some(Self {
            key: ObjectKey {
                namespace: text("/metadata/namespace").to_owned(),
                name,
            },
            uid: text("/metadata/uid").to_owned(),
            resource_version: text("/metadata/resourceVersion")
                .parse()
                .unwrap_or_default(),
            value,
        })
    }

    /// The object as a typed one. The error names the field.
    ///
    /// # Errors
    /// When the object does not have the type's shape.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.value)
    }

    /// A string at a JSON pointer.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.value
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    }

    /// Kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind").unwrap_or_default()
    }

    /// Group and kind.
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        let api_version = self.text("/apiVersion").unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        GroupKind {
            group: group.to_owned(),
            kind: self.kind().to_owned(),
        }
    }

    /// `metadata.generation`.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.value
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.text("/metadata/deletionTimestamp").is_some()
    }

    /// A label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.value.pointer("/metadata/labels")?.get(name)?.as_str()
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value
            .pointer("/metadata/annotations")?
            .get(name)?
            .as_str()
    }

    /// Its finalizers.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.value
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// Its owners.
    pub fn owners(&self) -> impl Iterator<Item = Owner<'_>> {
        self.value
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|owner| {
                let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
                Owner {
                    group: text("apiVersion")
                        .split_once('/')
                        .map_or("", |(group, _)| group),
                    kind: text("kind"),
                    name: text("name"),
                    uid: text("uid"),
                    controller: owner
                        .get("controller")
                        .and_then(Value::as_bool)
                        .unwrap_or(false),
                }
            })
    }

    /// The managing controller.
    #[must_use]
    pub fn controller(&self) -> Option<Owner<'_>> {
        self.owners().find(|owner| owner.controller)
    }
}

/// Where an object is: its resource and key. What queues hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locator {
    /// Group and kind.
    pub kind: GroupKind,
    /// Namespace and name.
    pub key: ObjectKey,
}

impl Locator {
    /// Of an object of a resource.
    #[must_use]
    pub fn new(resource: &Resource, key: &ObjectKey) -> Self {
        Self {
            kind: resource.group_kind(),
            key: key.clone(),
        }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind, self.key)
    }
}
