//! What a ClusterResourceSetBinding says about one set: entries as they should be, and what was applied.

use std::collections::BTreeSet;

use capstan_api::addons::{
    API_VERSION, ClusterResourceSetBinding, INVENTORY_PREFIX, ResourceBinding, ResourceRef,
    ResourceSetBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

use super::content::ObjectRef;
use super::{ItemResult, Observed};

/// The most objects that an inventory names: 1000 names of 100 characters are a third of what an object may hold.
pub const INVENTORY_MAX: usize = 1000;

/// The entry of a set.
#[must_use]
pub fn entry<'a>(
    binding: &'a ClusterResourceSetBinding,
    set: &str,
) -> Option<&'a ResourceSetBinding> {
    binding
        .spec
        .bindings
        .iter()
        .find(|entry| entry.cluster_resource_set_name == set)
}

/// What is recorded of a resource.
#[must_use]
pub fn recorded<'a>(
    binding: &'a ClusterResourceSetBinding,
    set: &str,
    resource: &ResourceRef,
) -> Option<&'a ResourceBinding> {
    entry(binding, set)?
        .resources
        .iter()
        .find(|recorded| recorded.kind == resource.kind && recorded.name == resource.name)
}

fn owner(observed: &Observed) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "ClusterResourceSet",
        "name": observed.name(), "uid": observed.uid(),
    })
}

/// The owner references of a thing with the set among them; `None` when it is.
#[must_use]
pub fn owned(observed: &Observed, owners: Option<&Value>) -> Option<Value> {
    let mut owners = owners
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let is_it = |owner: &Value| owner.get("uid").and_then(Value::as_str) == Some(observed.uid());
    if owners.iter().any(is_it) {
        return None;
    }
    owners.push(owner(observed));
    Some(Value::Array(owners))
}

/// A new binding for a cluster, which records that the set is about to be applied.
#[must_use]
pub fn new(observed: &Observed, cluster: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "ClusterResourceSetBinding",
        "metadata": {
            "name": cluster, "namespace": observed.set.metadata.namespace,
            "ownerReferences": [owner(observed)],
        },
        "spec": {
            "clusterName": cluster,
            "bindings": [{"clusterResourceSetName": observed.name()}],
        },
    })
}

/// The merge patch that records results and the inventory, guarded by the binding's resource version; `None` when all of it is
/// there. Only resources of the spec stay.
#[must_use]
pub fn patch(
    observed: &Observed,
    binding: &ClusterResourceSetBinding,
    results: &[(ResourceRef, ItemResult)],
    inventory: Option<&BTreeSet<ObjectRef>>,
) -> Option<Value> {
    let mut entries = binding.spec.bindings.clone();
    let name = observed.name();
    if entry(binding, name).is_none() {
        entries.push(ResourceSetBinding {
            cluster_resource_set_name: name.to_owned(),
            resources: Vec::new(),
        });
    }
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.cluster_resource_set_name == name)
    {
        let resources = observed.resources.iter().filter_map(|resource| {
            let reference = &resource.reference;
            let before = recorded(binding, name, reference);
            let result = results.iter().find(|(of, _)| of == reference);
            let Some((_, result)) = result else {
                return before.cloned();
            };
            let Some(tried) = result.applied else {
                // It was only looked at.
                return before.cloned();
            };
            Some(ResourceBinding {
                kind: reference.kind,
                name: reference.name.clone(),
                hash: Some(result.hash.clone()),
                last_applied_time: Some(Time(tried)),
                applied: result.errors.is_empty(),
            })
        });
        entry.resources = resources.collect();
    }
    let mut metadata = Map::new();
    let owners = json!(binding.metadata.owner_references);
    if let Some(owners) = owned(observed, Some(&owners)) {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    if let Some(inventory) = inventory {
        let key = format!("{INVENTORY_PREFIX}{name}");
        let text = json!(inventory).to_string();
        let annotations = binding.metadata.annotations.as_ref();
        if annotations.and_then(|all| all.get(&key)) != Some(&text) {
            let mut annotations = Map::new();
            annotations.insert(key, Value::from(text));
            metadata.insert("annotations".to_owned(), Value::Object(annotations));
        }
    }
    let mut patch = Map::new();
    if entries != binding.spec.bindings {
        patch.insert("spec".to_owned(), json!({"bindings": entries}));
    }
    if metadata.is_empty() && patch.is_empty() {
        return None;
    }
    let version = json!(binding.metadata.resource_version);
    metadata.insert("resourceVersion".to_owned(), version);
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    Some(Value::Object(patch))
}

/// What the set applied to a cluster before, as far as it was recorded.
#[must_use]
pub fn inventory(binding: &ClusterResourceSetBinding, set: &str) -> BTreeSet<ObjectRef> {
    let annotations = binding.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(&format!("{INVENTORY_PREFIX}{set}")));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// What becomes of a binding without the set: a merge patch, or nothing when no entry is left and it goes.
#[must_use]
pub fn without(observed: &Observed, binding: &ClusterResourceSetBinding) -> Option<Value> {
    let name = observed.name();
    let left: Vec<&ResourceSetBinding> = binding
        .spec
        .bindings
        .iter()
        .filter(|entry| entry.cluster_resource_set_name != name)
        .collect();
    if left.is_empty() {
        return None;
    }
    let owners = binding.metadata.owner_references.iter().flatten();
    let owners: Vec<Value> = owners
        .filter(|owner| owner.uid != observed.uid())
        .map(|owner| json!(owner))
        .collect();
    let mut annotations = Map::new();
    annotations.insert(format!("{INVENTORY_PREFIX}{name}"), Value::Null);
    Some(json!({
        "metadata": {
            "resourceVersion": binding.metadata.resource_version,
            "ownerReferences": owners, "annotations": annotations,
        },
        "spec": {"bindings": left},
    }))
}
