//! From the data of a ConfigMap or Secret to objects, in the order in which they are applied, and a digest of all.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The most objects of one resource: a ConfigMap of 1 MiB holds fewer that do anything.
const OBJECTS_MAX: usize = 2000;

/// Kinds that others need, in this order; then everything else, and at last what could keep the others out.
const FIRST: [&str; 20] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "PriorityClass",
    "ServiceAccount",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Endpoints",
    "Service",
    "DaemonSet",
    "Deployment",
    "StatefulSet",
];

/// Kinds that come last.
const LAST: [&str; 2] = [
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

/// Manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// `sha256:<hex>` of all values, in the order of their keys.
    pub hash: String,
    /// Objects, in the order in which they are applied; the steps of all clusters share them.
    pub objects: Arc<[Value]>,
}

/// Names an object in a workload cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace as the manifest has it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl ObjectRef {
    /// The name of an object; `None` when it lacks what objects must have.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        let text = |pointer: &str| {
            let text = object.pointer(pointer).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Some(Self {
            api_version: text("/apiVersion")?,
            kind: text("/kind")?,
            namespace: text("/metadata/namespace").unwrap_or_default(),
            name: text("/metadata/name")?,
        })
    }
}

/// Reads manifests: each value is one or several YAML documents, or a JSON list.
///
/// # Errors
/// What cannot be read; the message names the key and never quotes the value.
pub fn read(data: &BTreeMap<String, Vec<u8>>) -> Result<Content, String> {
    let mut digest = Sha256::new();
    let mut objects = Vec::new();
    for (key, value) in data {
        digest.update(value);
        let text = std::str::from_utf8(value).map_err(|_| format!("{key}: not UTF-8"))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|_| format!("{key}: neither YAML documents nor a JSON list"))?;
        for document in documents {
            flatten(key, document, &mut objects)?;
        }
    }
    objects.sort_by_key(rank);
    let hash: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Content {
        hash: format!("sha256:{hash}"),
        objects: objects.into(),
    })
}

fn flatten(key: &str, document: Value, objects: &mut Vec<Value>) -> Result<(), String> {
    match document {
        Value::Null => {}
        Value::Array(items) => {
            for item in items {
                flatten(key, item, objects)?;
            }
        }
        Value::Object(mut fields) => {
            let is_list = fields
                .get("kind")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.ends_with("List"));
            if is_list && let Some(Value::Array(items)) = fields.remove("items") {
                for item in items {
                    flatten(key, item, objects)?;
                }
                return Ok(());
            }
            let object = Value::Object(fields);
            if ObjectRef::of(&object).is_none() {
                return Err(format!(
                    "{key}: an object lacks apiVersion, kind or metadata.name"
                ));
            }
            objects.push(object);
        }
        _ => return Err(format!("{key}: a document is not an object")),
    }
    if objects.len() > OBJECTS_MAX {
        return Err(format!("{key}: more than {OBJECTS_MAX} objects"));
    }
    Ok(())
}

fn rank(object: &Value) -> usize {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let place = |list: &[&str]| list.iter().position(|known| *known == kind);
    let middle = FIRST.len();
    place(&FIRST)
        .or_else(|| place(&LAST).map(|at| middle.saturating_add(1).saturating_add(at)))
        .unwrap_or(middle)
}
