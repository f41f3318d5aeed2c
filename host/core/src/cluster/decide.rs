//! What should happen with a Cluster next.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::label;
use capstan_api::v1beta2::{API_VERSION, ApiEndpoint};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::deletion::{Action, Children, stage};
use super::observed::{Kubeconfig, Observed};
use super::report::PROBE_GRACE;
use crate::lookup::Lookup;
use crate::material::server_url;
use crate::plan::{Next, Plan};
use crate::rollout::merge;

/// A missing infrastructure or control plane object, or certificate authority, is looked for again after this time: its kind may not be
/// watched.
const MISSING_RECHECK: Duration = Duration::from_secs(30);

/// What is being deleted is looked at again after this time.
const DELETION_RECHECK: Duration = Duration::from_secs(5);

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Label and owner of the infrastructure object: merge patch.
    PatchInfra(Value),
    /// Label and owner of the control plane object: merge patch.
    PatchControlPlane(Value),
    /// The endpoint: merge patch of the Cluster.
    PatchCluster(Value),
    /// Make or renew the administrator's kubeconfig.
    EnsureKubeconfig {
        /// `https://host:port`.
        server: String,
    },
    /// Keep a connection to the workload cluster; nothing is written.
    KeepConnection,
    /// Delete children.
    DeleteChildren(Children),
    /// Delete the control plane object.
    DeleteControlPlane,
    /// Delete the infrastructure object.
    DeleteInfra,
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, _: Timestamp) -> Plan<Step> {
    let mut steps = Vec::new();
    if observed.is_deleting() {
        if observed.is_provisioned() {
            steps.push(Step::KeepConnection);
        }
        match stage(observed).action {
            Action::Wait | Action::Finish => {}
            Action::Children(children) => steps.push(Step::DeleteChildren(children)),
            Action::ControlPlane => steps.push(Step::DeleteControlPlane),
            Action::Infra => steps.push(Step::DeleteInfra),
        }
        return Plan::of(steps).check_after(DELETION_RECHECK);
    }
    if observed.waits_for_topology() {
        return Plan::settled();
    }
    let adopt = |object: &Option<Lookup<Arc<Value>>>| {
        object
            .as_ref()
            .and_then(Lookup::found)
            .and_then(|object| adoption(observed, object))
    };
    steps.extend(adopt(&observed.infra).map(Step::PatchInfra));
    steps.extend(adopt(&observed.control_plane).map(Step::PatchControlPlane));
    let own = observed.cluster.spec.control_plane_endpoint.as_ref();
    if !own.is_some_and(ApiEndpoint::is_complete)
        && let Some(endpoint) = observed.endpoint()
    {
        steps.push(Step::PatchCluster(
            json!({"spec": {"controlPlaneEndpoint": endpoint}}),
        ));
    }
    if observed.kubeconfig == Kubeconfig::Due
        && let Some(endpoint) = observed.endpoint()
    {
        let server = server_url(&endpoint.host, endpoint.port);
        steps.push(Step::EnsureKubeconfig { server });
    }
    if observed.is_provisioned() {
        steps.push(Step::KeepConnection);
    }
    Plan {
        next: next(observed),
        ..Plan::of(steps)
    }
}

fn next(observed: &Observed) -> Next {
    let mut next = Next::Settled;
    if [&observed.infra, &observed.control_plane]
        .into_iter()
        .any(|object| {
            object
                .as_ref()
                .is_some_and(|object| object.found().is_none())
        })
        || observed.kubeconfig == Kubeconfig::NoAuthority
    {
        next = next.min(Next::CheckAfter(MISSING_RECHECK));
    }
    if observed.is_provisioned() {
        // So that a connection that stops answering is reported.
        next = next.min(Next::CheckAfter(PROBE_GRACE));
    }
    next
}

/// The merge patch that gives an object the Cluster's label and makes the Cluster its owner: the managing one only in a
/// topology, so that other controllers may own it otherwise. `None` when it has both.
fn adoption(observed: &Observed, object: &Value) -> Option<Value> {
    let metadata = &observed.cluster.metadata;
    let uid = metadata.uid.as_deref()?;
    let mut labels = Map::new();
    labels.insert(label::CLUSTER_NAME.to_owned(), json!(metadata.name));
    let managed = observed.cluster.spec.topology.is_some();
    let mut owner = json!({
        "apiVersion": API_VERSION, "kind": "Cluster", "name": metadata.name, "uid": uid,
    });
    if let (Some(owner), true) = (owner.as_object_mut(), managed) {
        owner.insert("controller".to_owned(), json!(true));
        owner.insert("blockOwnerDeletion".to_owned(), json!(true));
    }
    let listed = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let mut owners: Vec<Value> = listed.cloned().unwrap_or_default();
    let is_it = |reference: &Value| reference.get("uid").and_then(Value::as_str) == Some(uid);
    let is_managed = |reference: &Value| reference.get("controller") == Some(&json!(true));
    let has_owner = owners
        .iter()
        .any(|reference| is_it(reference) && (is_managed(reference) || !managed));
    if has_owner {
        return merge::patch(object, &json!({"metadata": {"labels": labels}}));
    }
    owners.retain(|reference| !is_it(reference));
    owners.push(owner);
    let version = object.pointer("/metadata/resourceVersion");
    merge::patch(
        object,
        &json!({"metadata": {
            "labels": labels, "ownerReferences": owners, "resourceVersion": version,
        }}),
    )
    // The version by itself is no change, but the patch of the owners is only right for it.
    .map(|mut patch| {
        if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        patch
    })
}
