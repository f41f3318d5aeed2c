//! Kubernetes objects as plugins see them: the metadata that matters, typed spec and status, and the whole as JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::Failure;
use crate::slim::{FromJson, field, slim};

/// Status type of kinds whose provider has no status fields of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct NoStatus {}

slim! {
    /// Metadata of an object.
    pub struct Metadata {
        /// Name.
        pub name: String = "name",
        /// Namespace; empty for objects that have none.
        pub namespace: String = "namespace",
        /// Unique for the object's whole life.
        pub uid: String = "uid",
        /// Grows with every change of the spec.
        pub generation: i64 = "generation",
        /// Labels.
        pub labels: BTreeMap<String, String> = "labels",
        /// Annotations.
        pub annotations: BTreeMap<String, String> = "annotations",
        /// RFC 3339; present when the object is being deleted.
        pub deletion_timestamp: Option<String> = "deletionTimestamp",
        /// Owners.
        pub owner_references: Vec<OwnerReference> = "ownerReferences",
    }
}

slim! {
    /// An owner of an object.
    pub struct OwnerReference {
        /// Such as `cluster.x-k8s.io/v1beta2`.
        pub api_version: String = "apiVersion",
        /// Kind.
        pub kind: String = "kind",
        /// Name.
        pub name: String = "name",
        /// UID.
        pub uid: String = "uid",
        /// The owner that manages it.
        pub controller: bool = "controller",
    }
}

/// A Kubernetes object with the provider's own types for spec and status.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<Spec, Status = Value> {
    /// Such as `infrastructure.cluster.x-k8s.io/v1beta2`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Metadata.
    pub metadata: Metadata,
    /// Spec; what is absent counts as `{}`.
    pub spec: Spec,
    /// Status, or its default when there is none that can be read: a status can always be made again.
    pub status: Status,
    /// The whole object, for fields that the types leave out.
    pub raw: Value,
}

impl<Spec: DeserializeOwned, Status: DeserializeOwned + Default> Object<Spec, Status> {
    /// Reads an object.
    ///
    /// # Errors
    /// A terminal failure that names the object and the field.
    pub fn from_value(raw: Value) -> Result<Self, Failure> {
        let kind: String = field(&raw, "kind");
        let metadata: Metadata = field(&raw, "metadata");
        let at = format!("{kind} {}/{}", metadata.namespace, metadata.name);
        let empty = Value::Object(serde_json::Map::new());
        let spec = typed_below(raw.get("spec").unwrap_or(&empty), &at, "spec")?;
        let status = Status::deserialize(raw.get("status").unwrap_or(&empty)).unwrap_or_default();
        Ok(Self {
            api_version: field(&raw, "apiVersion"),
            kind,
            metadata,
            spec,
            status,
            raw,
        })
    }

    /// Reads an object from text; `what` is its name in the input.
    pub(crate) fn read(text: &str, what: &str) -> Result<Self, Failure> {
        Self::from_value(parse(text, what)?)
    }
}

#[expect(
    private_bounds,
    reason = "only this crate makes objects of the host's kinds"
)]
impl<Spec: FromJson, Status: FromJson> Object<Spec, Status> {
    /// Reads an object of a kind that is not the author's, which the server has checked.
    pub(crate) fn read_foreign(text: &str, what: &str) -> Result<Self, Failure> {
        let raw = parse(text, what)?;
        Ok(Self {
            api_version: field(&raw, "apiVersion"),
            kind: field(&raw, "kind"),
            metadata: field(&raw, "metadata"),
            spec: field(&raw, "spec"),
            status: field(&raw, "status"),
            raw,
        })
    }

    /// The same for an object that may be absent.
    pub(crate) fn read_optional(text: Option<String>, what: &str) -> Result<Option<Self>, Failure> {
        text.map(|text| Self::read_foreign(&text, what)).transpose()
    }
}

impl<Spec, Status> Object<Spec, Status> {
    /// Name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.get(key).map(String::as_str)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// Parses JSON text; `what` is its name in the input.
pub(crate) fn parse(text: &str, what: &str) -> Result<Value, Failure> {
    if text.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_str(text).map_err(|error| invalid(format!("{what}: not JSON: {error}")))
}

/// Reads a value as the author's type; `at` names the value for the person who has to correct it.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value, at: &str) -> Result<T, Failure> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        invalid(if path == "." {
            format!("{at}: {}", error.into_inner())
        } else {
            format!("{at}: {path}: {}", error.into_inner())
        })
    })
}

/// The same for a field of an object: the path starts with the field's name.
fn typed_below<T: DeserializeOwned>(value: &Value, at: &str, field: &str) -> Result<T, Failure> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." {
            field.to_owned()
        } else {
            format!("{field}.{path}")
        };
        invalid(format!("{at}: {path}: {}", error.into_inner()))
    })
}

fn invalid(message: String) -> Failure {
    Failure::terminal("InvalidInput", message)
}
