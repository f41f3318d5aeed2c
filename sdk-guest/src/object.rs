//! Kubernetes objects as plugins see them: the metadata that matters, typed spec and status, and the whole as JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::Failure;

/// Status type of kinds whose provider has no status fields of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct NoStatus {}

/// Metadata of an object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; empty for objects that have none.
    pub namespace: String,
    /// Unique for the object's whole life.
    pub uid: String,
    /// Grows with every change of the spec.
    pub generation: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339; present when the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Owners.
    pub owner_references: Vec<OwnerReference>,
}

/// An owner of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Such as `cluster.x-k8s.io/v1beta2`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// The owner that manages it.
    pub controller: bool,
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Head {
    api_version: String,
    kind: String,
    metadata: Metadata,
}

impl<Spec: DeserializeOwned, Status: DeserializeOwned + Default> Object<Spec, Status> {
    /// Reads an object.
    ///
    /// # Errors
    /// A terminal failure that names the object and the field.
    pub fn from_value(raw: Value) -> Result<Self, Failure> {
        Self::from_value_with(raw, typed_below)
    }

    /// `read_spec` turns the spec, or `{}`, into the author's type.
    fn from_value_with(
        raw: Value,
        read_spec: fn(&Value, &str, &str) -> Result<Spec, Failure>,
    ) -> Result<Self, Failure> {
        let head = Head::deserialize(&raw).map_err(|error| invalid(format!("object: {error}")))?;
        let at = format!(
            "{} {}/{}",
            head.kind, head.metadata.namespace, head.metadata.name
        );
        let empty = Value::Object(serde_json::Map::new());
        let spec = read_spec(raw.get("spec").unwrap_or(&empty), &at, "spec")?;
        let status = Status::deserialize(raw.get("status").unwrap_or(&empty)).unwrap_or_default();
        Ok(Self {
            api_version: head.api_version,
            kind: head.kind,
            metadata: head.metadata,
            spec,
            status,
            raw,
        })
    }

    /// Reads an object from text; `what` is its name in the input.
    pub(crate) fn read(text: &str, what: &str) -> Result<Self, Failure> {
        Self::from_value(parse(text, what)?)
    }

    /// Reads an object of a kind that is not the author's. The server has checked it, so that the path within the spec is not worth
    /// the tens of kilobytes that it costs in a guest.
    pub(crate) fn read_foreign(text: &str, what: &str) -> Result<Self, Failure> {
        Self::from_value_with(parse(text, what)?, |spec, at, field| {
            Spec::deserialize(spec).map_err(|error| invalid(format!("{at}: {field}: {error}")))
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
