//! Builds the CustomResourceDefinition of a provider's kind from what its plugin says about it.
//!
//! The plugin gives only its own fields; the contract's fields, labels, printer columns and
//! subresources are added here, so that a change of the contract is made once for all plugins.

mod columns;
mod fields;
mod sanity;

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::contract::{Role, plural};
use crate::label;

pub use sanity::SCHEMA_MAX_BYTES;

/// A kind that a plugin owns, in the plugin's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnedKind {
    /// What the kind is for.
    pub role: Role,
    /// API group.
    pub group: String,
    /// The version that is served and stored.
    pub version: String,
    /// Name of the kind.
    pub kind: String,
    /// Name of the kind in addresses; it must be the canonical plural, because references are resolved
    /// without asking the server.
    pub plural: String,
    /// Short names for kubectl.
    #[serde(default)]
    pub short_names: Vec<String>,
    /// Schema of the provider's own fields in `spec` (for templates: of the copies' spec).
    pub spec_schema: Value,
    /// Schema of the provider's own fields in `status`; may be null or `{}`. Templates have none.
    #[serde(default)]
    pub status_schema: Value,
    /// Further printer columns.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// `<type>-<name>` of the provider, such as `infrastructure-local`.
    pub plugin: String,
}

impl OwnedKind {
    /// The schema of the provider's own part of the status, if it has one: null and `{}` are none.
    fn own_status(&self) -> Option<&Value> {
        let is_none = self.status_schema.is_null()
            || self.status_schema.as_object().is_some_and(Map::is_empty);
        (!is_none).then_some(&self.status_schema)
    }
}

/// A printer column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Heading.
    pub name: String,
    /// Where the value is, such as `.spec.size`.
    pub json_path: String,
    /// Type of the value: string, integer, number, boolean or date.
    #[serde(rename = "type")]
    pub type_: String,
    /// 0 for columns that are always printed; more for those of `-o wide`.
    #[serde(default)]
    pub priority: i32,
}

/// What is wrong with a kind that a plugin wants to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrdError {
    /// The kind.
    pub kind: String,
    /// Where in the kind's facts, such as `specSchema.properties.size`.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

impl fmt::Display for CrdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kind {:?}: {}: {}", self.kind, self.path, self.problem)
    }
}

impl std::error::Error for CrdError {}

/// The definition of a provider's kind.
///
/// Templates stay mutable: topology reconciliation compares them by dry runs, and rules cannot tell a
/// dry run from a change.
///
/// # Errors
/// If a name is not usable, a schema is not that of an object, is larger than [`SCHEMA_MAX_BYTES`],
/// refers to other schemas, or gives a field of the contract another type.
pub fn provider_crd(owned: &OwnedKind) -> Result<CustomResourceDefinition, CrdError> {
    sanity::check(owned)?;
    let value = definition(owned)?;
    serde_json::from_value(value).map_err(|error| CrdError {
        kind: owned.kind.clone(),
        path: "specSchema".to_owned(),
        problem: format!("is not a schema of Kubernetes: {error}"),
    })
}

/// The definition as JSON.
fn definition(owned: &OwnedKind) -> Result<Value, CrdError> {
    let contract_labels = json!({
        label::CONTRACT_V1BETA2: owned.version,
        label::PROVIDER: owned.plugin,
        label::CLUSTERCTL: "",
    });
    let mut subresources = Map::new();
    let has_status = !owned.role.is_template() || owned.role == Role::InfraMachineTemplate;
    if has_status {
        subresources.insert("status".to_owned(), json!({}));
    }
    if owned.role == Role::ControlPlane
        && owned.spec_schema.pointer("/properties/replicas").is_some()
    {
        subresources.insert(
            "scale".to_owned(),
            json!({
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            }),
        );
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", owned.plural, owned.group), "labels": contract_labels},
        "spec": {
            "group": owned.group,
            "scope": "Namespaced",
            "conversion": {"strategy": "None"},
            "names": {
                "kind": owned.kind,
                "listKind": format!("{}List", owned.kind),
                "plural": owned.plural,
                "singular": owned.kind.to_lowercase(),
                "shortNames": owned.short_names,
                "categories": ["cluster-api"],
            },
            "versions": [{
                "name": owned.version,
                "served": true,
                "storage": true,
                "subresources": subresources,
                "additionalPrinterColumns": columns::of(owned),
                "schema": {"openAPIV3Schema": root(owned, has_status)?},
            }],
        },
    }))
}

/// The schema of the whole object.
fn root(owned: &OwnedKind, has_status: bool) -> Result<Value, CrdError> {
    let role = owned.role;
    let spec = if role.is_template() {
        fields::template_spec(owned)?
    } else {
        fields::spec(owned, role)?
    };
    let mut properties = json!({
        "apiVersion": {"type": "string", "description": "API group and version of the object."},
        "kind": {"type": "string", "description": "Kind of the object."},
        "metadata": {"type": "object"},
        "spec": spec,
    });
    if has_status && let Value::Object(properties) = &mut properties {
        properties.insert("status".to_owned(), fields::status(owned)?);
    }
    let mut root = json!({
        "type": "object",
        "description": format!("{} is a kind of the plugin {}.", owned.kind, owned.plugin),
        "properties": properties,
    });
    if role.is_template()
        && let Value::Object(root) = &mut root
    {
        root.insert("required".to_owned(), json!(["spec"]));
    }
    Ok(root)
}

/// The canonical plural, which the definition must have.
fn canonical_plural(owned: &OwnedKind) -> String {
    plural(&owned.kind)
}

#[cfg(test)]
mod tests;
