//! Makes infrastructure machines and bootstrap configurations from the templates that MachineSets and control planes name
//! (contract: upstream `util/template`, `internal/controllers/machineset`).

use std::collections::BTreeMap;

use capstan_api::annotation::{CLONED_FROM_GROUP_KIND, CLONED_FROM_NAME};
use capstan_api::label::CLUSTER_NAME;
use capstan_api::v1beta2::{API_VERSION, Cluster};
use serde_json::{Map, Value, json};

/// What the kinds of templates end in.
const SUFFIX: &str = "Template";

/// Why a template cannot be copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloneError {
    /// The kind's name does not follow the contract.
    #[error("kind {kind:?} does not end in Template: name a template")]
    NotATemplate {
        /// The kind.
        kind: String,
    },
    /// A field that every template has is missing or has another type.
    #[error("{kind} {name} has no object at {field}: a template keeps there what is copied")]
    Incomplete {
        /// Kind of the template.
        kind: String,
        /// Name of the template.
        name: String,
        /// The field.
        field: &'static str,
    },
}

/// The kind of the objects that a template's kind makes; `None` when it is not a template.
#[must_use]
pub fn kind_of_template(kind: &str) -> Option<&str> {
    kind.strip_suffix(SUFFIX).filter(|stem| !stem.is_empty())
}

/// The object that a template makes, complete but for what the server adds. Labels and annotations of the template come
/// first, those given next, and what the contract fixes last. `owner` is an owner reference.
///
/// # Errors
/// When `template` is not a template.
pub fn from_template(
    template: &Value,
    name: &str,
    namespace: &str,
    cluster_name: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    owner: Option<Value>,
) -> Result<Value, CloneError> {
    let text = |path: &str| {
        template
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (api_version, template_kind, template_name) =
        (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let Some(kind) = kind_of_template(template_kind) else {
        return Err(CloneError::NotATemplate {
            kind: template_kind.to_owned(),
        });
    };
    let incomplete = |field: &'static str| CloneError::Incomplete {
        kind: template_kind.to_owned(),
        name: template_name.to_owned(),
        field,
    };
    let body = template
        .pointer("/spec/template")
        .and_then(Value::as_object);
    let mut object = body.ok_or_else(|| incomplete("spec.template"))?.clone();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);

    let mut all_labels = texts(object.get("metadata"), "labels");
    all_labels.extend(
        labels
            .iter()
            .map(|(key, value)| (key.clone(), json!(value))),
    );
    all_labels.insert(CLUSTER_NAME.to_owned(), json!(cluster_name));
    let mut all_annotations = texts(object.get("metadata"), "annotations");
    all_annotations.extend(
        annotations
            .iter()
            .map(|(key, value)| (key.clone(), json!(value))),
    );
    all_annotations.insert(CLONED_FROM_NAME.to_owned(), json!(template_name));
    all_annotations.insert(
        CLONED_FROM_GROUP_KIND.to_owned(),
        json!(format!("{template_kind}.{group}")),
    );

    let mut metadata = json!({
        "name": name,
        "namespace": namespace,
        "labels": all_labels,
        "annotations": all_annotations,
    });
    if let (Some(metadata), Some(owner)) = (metadata.as_object_mut(), owner) {
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
    }
    object.insert("metadata".to_owned(), metadata);
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    object.remove("status");
    Ok(Value::Object(object))
}

/// The merge patch that makes the Cluster an owner (not the controller) of a template; `None` when it is one, or nothing can
/// be said because the Cluster has no UID.
#[must_use]
pub fn owner_patch(template: &Value, cluster: &Cluster) -> Option<Value> {
    let uid = cluster.metadata.uid.as_deref()?;
    let owners = template
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let mut owners: Vec<Value> = owners.cloned().unwrap_or_default();
    if owners
        .iter()
        .any(|owner| owner.get("uid").and_then(Value::as_str) == Some(uid))
    {
        return None;
    }
    // A Cluster of the same name that is gone is no owner any more.
    owners.retain(|owner| {
        owner.get("kind") != Some(&json!("Cluster"))
            || owner.get("name") != Some(&json!(cluster.metadata.name))
    });
    owners.push(json!({
        "apiVersion": API_VERSION, "kind": "Cluster", "name": cluster.metadata.name, "uid": uid,
    }));
    let version = template.pointer("/metadata/resourceVersion");
    Some(json!({"metadata": {"ownerReferences": owners, "resourceVersion": version}}))
}

/// A map of strings of an object's metadata.
fn texts(metadata: Option<&Value>, field: &str) -> Map<String, Value> {
    metadata
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Value {
        json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2",
            "kind": "LocalMachineTemplate",
            "metadata": {"name": "workers", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
            "spec": {"template": {
                "metadata": {"labels": {"a": "template", "b": "template"}, "annotations": {"x": "1"}, "finalizers": ["f"]},
                "spec": {"memory": "2Gi"},
            }},
        })
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_copy_has_the_templates_spec_and_says_where_it_comes_from() {
        let owner = json!({"kind": "Machine", "name": "m", "uid": "1"});
        let made = from_template(
            &template(),
            "m",
            "ns",
            "c",
            &map(&[("a", "machine")]),
            &map(&[("y", "2")]),
            Some(owner.clone()),
        );
        assert_eq!(
            made,
            Ok(json!({
                "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2",
                "kind": "LocalMachine",
                "metadata": {
                    "name": "m",
                    "namespace": "ns",
                    "labels": {"a": "machine", "b": "template", "cluster.x-k8s.io/cluster-name": "c"},
                    "annotations": {
                        "x": "1",
                        "y": "2",
                        "cluster.x-k8s.io/cloned-from-name": "workers",
                        "cluster.x-k8s.io/cloned-from-groupkind": "LocalMachineTemplate.infrastructure.cluster.x-k8s.io",
                    },
                    "ownerReferences": [owner],
                },
                "spec": {"memory": "2Gi"},
            }))
        );
    }

    #[test]
    fn what_is_not_a_template_is_refused() {
        let none = BTreeMap::new();
        let mut object = template();
        object["kind"] = json!("LocalMachine");
        assert!(matches!(
            from_template(&object, "m", "ns", "c", &none, &none, None),
            Err(CloneError::NotATemplate { .. })
        ));
        object["kind"] = json!("LocalMachineTemplate");
        object["spec"] = json!({"template": 3});
        assert!(matches!(
            from_template(&object, "m", "ns", "c", &none, &none, None),
            Err(CloneError::Incomplete {
                field: "spec.template",
                ..
            })
        ));
    }
}
