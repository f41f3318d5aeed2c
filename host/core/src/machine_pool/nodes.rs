//! The Nodes of a pool's machines: which they are, what is written onto them, and which go because their machine went.

use std::collections::BTreeSet;

use capstan_api::v1beta2::MachinePoolNodeReference;
use capstan_api::{annotation, condition};
use serde_json::{Map, Value, json};

use super::observed::{Observed, text};
use crate::machine::node::UNINITIALIZED;

/// A merge patch of a Node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePatch {
    /// Name.
    pub name: String,
    /// Merge patch, with the version that it was made from.
    pub patch: Value,
}

/// A Node that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDeletion {
    /// Name.
    pub name: String,
    /// UID: a machine may come back under the name.
    pub uid: String,
}

impl NodeDeletion {
    /// Of a Node.
    pub(super) fn of(node: &Value) -> Self {
        let part = |pointer| text(node, pointer).unwrap_or_default().to_owned();
        Self {
            name: part("/metadata/name"),
            uid: part("/metadata/uid"),
        }
    }
}

/// References to the Nodes of the machines, in the order of the provider IDs; those of the status while nothing can be seen.
#[must_use]
pub fn references(observed: &Observed) -> Vec<MachinePoolNodeReference> {
    let (Some(_), Some(ids)) = (observed.nodes.found(), observed.provider_ids()) else {
        return observed.status().node_refs;
    };
    let nodes = ids.iter().filter_map(|id| observed.node(id));
    nodes.map(reference).collect()
}

fn reference(node: &Value) -> MachinePoolNodeReference {
    MachinePoolNodeReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: text(node, "/metadata/name").map(str::to_owned),
        uid: text(node, "/metadata/uid").map(str::to_owned),
        ..MachinePoolNodeReference::default()
    }
}

/// Whether a Node says that it is ready.
#[must_use]
pub fn is_ready(node: &Value) -> bool {
    condition::read(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// What is written onto the Nodes of the machines: whose they are, and that they may be used.
pub(super) fn patches(observed: &Observed) -> Vec<NodePatch> {
    let ids = observed.provider_ids().unwrap_or_default();
    let nodes = ids.iter().filter_map(|id| observed.node(id));
    nodes.filter_map(|node| patch(observed, node)).collect()
}

fn patch(observed: &Observed, node: &Value) -> Option<NodePatch> {
    let metadata = &observed.pool.metadata;
    let wanted = [
        (
            annotation::CLUSTER_NAME,
            Some(&observed.pool.spec.cluster_name),
        ),
        (annotation::CLUSTER_NAMESPACE, metadata.namespace.as_ref()),
        (annotation::OWNER_KIND, Some(&"MachinePool".to_owned())),
        (annotation::OWNER_NAME, metadata.name.as_ref()),
    ]
    .map(|(key, value)| (key, value.cloned().unwrap_or_default()));
    let current = node.pointer("/metadata/annotations");
    let annotations: Map<String, Value> = wanted
        .into_iter()
        .filter(|(key, value)| {
            let current = current.and_then(|all| all.get(*key));
            current.and_then(Value::as_str) != Some(value)
        })
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    let taints: Vec<&Value> = taints.into_iter().flatten().collect();
    let kept: Vec<&&Value> = taints
        .iter()
        .filter(|taint| text(taint, "/key") != Some(UNINITIALIZED))
        .collect();
    let is_initialized = kept.len() == taints.len();
    if annotations.is_empty() && is_initialized {
        return None;
    }
    let mut patch = json!({"metadata": {
        "resourceVersion": text(node, "/metadata/resourceVersion").unwrap_or_default(),
        "annotations": annotations,
    }});
    if let Some(fields) = patch.as_object_mut().filter(|_| !is_initialized) {
        fields.insert("spec".to_owned(), json!({ "taints": kept }));
    }
    Some(NodePatch {
        name: text(node, "/metadata/name").unwrap_or_default().to_owned(),
        patch,
    })
}

/// Nodes that the status names and whose provider ID has left the list. That of a Machine goes with the Machine, which drains it first.
pub(super) fn gone(observed: &Observed) -> Vec<NodeDeletion> {
    let (Some(nodes), Some(ids)) = (observed.nodes.found(), observed.provider_ids()) else {
        return Vec::new();
    };
    let ids: BTreeSet<&str> = ids.into_iter().collect();
    let of_machines: BTreeSet<&str> = observed
        .bare_machines()
        .filter_map(|machine| Some(machine.status.as_ref()?.node_ref.as_ref()?.name.as_str()))
        .collect();
    let gone = nodes.named.iter().filter(|node| {
        let name = text(node, "/metadata/name").unwrap_or_default();
        let id = text(node, "/spec/providerID");
        // A Node that has lost its provider ID is nobody's to delete.
        id.is_some_and(|id| !ids.contains(id)) && !of_machines.contains(name)
    });
    gone.map(|node| NodeDeletion::of(node)).collect()
}
