//! What is passed on to existing Machines in place, and taken back: labels, annotations, deletion timeouts, readiness gates and taints.

use std::collections::BTreeMap;

use capstan_api::{annotation, label};
use serde_json::{Map, Value, json};

use super::{Member, MemberPart, Observed, Step, machine_labels};
use crate::call::control_plane::Desired;
use crate::rollout::merge::{self, PROPAGATED, Propagated};

/// Seconds to keep trying to delete a Node when the control plane does not say.
const NODE_DELETION_TIMEOUT_S: i64 = 10;

/// How long the steps of a deletion may take.
const NODE_DELETION_TIMEOUT: &str = "nodeDeletionTimeoutSeconds";
const TIMEOUTS: [&str; 3] = [
    "nodeDrainTimeoutSeconds",
    "nodeVolumeDetachTimeoutSeconds",
    NODE_DELETION_TIMEOUT,
];

/// Labels that no template gives: these never go.
const FIXED: [&str; 3] = [
    label::CLUSTER_NAME,
    label::CONTROL_PLANE,
    label::CONTROL_PLANE_NAME,
];

/// The deletion timeouts of a Machine; null for those that it has none of.
#[must_use]
pub fn deletion(desired: &Desired) -> Value {
    let wanted = |name: &str| {
        let wanted = desired.deletion.get(name).cloned().unwrap_or_default();
        if wanted.is_null() && name == NODE_DELETION_TIMEOUT {
            json!(NODE_DELETION_TIMEOUT_S)
        } else {
            wanted
        }
    };
    let fields: Map<String, Value> = TIMEOUTS
        .iter()
        .map(|name| ((*name).to_owned(), wanted(name)))
        .collect();
    Value::Object(fields)
}

/// Annotations of a Machine: those of the control plane, and which keys it may take back.
#[must_use]
pub fn annotations(desired: &Desired) -> BTreeMap<String, String> {
    let mut annotations = passed_on(desired);
    if let Some(keys) = propagated(desired).write() {
        annotations.insert(PROPAGATED.to_owned(), keys);
    }
    annotations
}

/// What the control plane gives, but for what only the host writes down.
fn passed_on(desired: &Desired) -> BTreeMap<String, String> {
    let annotations = desired.machine_annotations.iter();
    annotations
        .filter(|(key, _)| key != annotation::HOOKS)
        .cloned()
        .collect()
}

/// Keys that a change of the control plane may take back.
fn propagated(desired: &Desired) -> Propagated {
    let labels = desired.machine_labels.iter().cloned().collect();
    let mut keys = Propagated::of(&labels, &passed_on(desired));
    keys.labels.retain(|key| !FIXED.contains(&key.as_str()));
    keys
}

/// Patches that bring a Machine and what belongs to it up to date without replacing it, the Machine's last: it remembers what was passed
/// on. A Machine that is being deleted gets its deletion timeouts and taints only.
#[must_use]
pub fn patches(observed: &Observed, member: &Member, cluster_name: &str) -> Vec<Step> {
    let Ok(desired) = &observed.desired else {
        return Vec::new();
    };
    let machine = serde_json::to_value(&member.machine).unwrap_or_default();
    let mut spec = Map::new();
    spec.insert("deletion".to_owned(), deletion(desired));
    spec.insert("taints".to_owned(), list(&desired.taints));
    let mut wanted = Map::new();
    let mut parts = Vec::new();
    if !member.is_deleting() {
        spec.insert("readinessGates".to_owned(), list(&desired.readiness_gates));
        let labels = machine_labels(desired, cluster_name, observed.name());
        let before = Propagated::read(member.machine.metadata.annotations.as_ref());
        parts = part_patches(member, desired, &labels, &before);
        let mut annotations = annotations(desired);
        if !parts.is_empty() {
            // One of them may be refused: what it still has is remembered until it is taken back.
            let mut keys = propagated(desired);
            keys.labels.extend(before.labels.iter().cloned());
            keys.annotations.extend(before.annotations.iter().cloned());
            annotations.extend(keys.write().map(|keys| (PROPAGATED.to_owned(), keys)));
        }
        let mut gone: Vec<String> = before.annotations.into_iter().collect();
        gone.push(PROPAGATED.to_owned());
        // Whoever took it away: without it the machine would go before its member.
        annotations.insert(annotation::KCP_CLEANUP_HOOK.to_owned(), String::new());
        let metadata = json!({
            "labels": merge::map(&labels, before.labels),
            "annotations": merge::map(&annotations, gone),
        });
        wanted.insert("metadata".to_owned(), metadata);
    }
    wanted.insert("spec".to_owned(), Value::Object(spec));
    let patch = merge::patch(&machine, &Value::Object(wanted));
    parts.extend(patch.map(|patch| (MemberPart::Machine, patch)));
    let step = |(part, patch)| Step::Patch {
        part,
        name: member.name().to_owned(),
        patch,
    };
    parts.into_iter().map(step).collect()
}

/// Patches of what belongs to a Machine.
fn part_patches(
    member: &Member,
    desired: &Desired,
    labels: &BTreeMap<String, String>,
    before: &Propagated,
) -> Vec<(MemberPart, Value)> {
    let mut patches = Vec::new();
    if let Some(expiry) = member.expiry.found() {
        let noted = json!({annotation::CERTIFICATES_EXPIRY: expiry.to_string()});
        patches.push((
            MemberPart::Config,
            json!({"metadata": {"annotations": noted}}),
        ));
    }
    let metadata = json!({
        "labels": merge::map(labels, before.labels.clone()),
        "annotations": merge::map(&passed_on(desired), before.annotations.clone()),
    });
    let wanted = json!({ "metadata": metadata });
    for (part, object) in [
        (MemberPart::Config, &member.config),
        (MemberPart::Infra, &member.infra),
    ] {
        let patch = object
            .found()
            .and_then(|object| merge::patch(object, &wanted));
        patches.extend(patch.map(|patch| (part, patch)));
    }
    patches
}

/// A list as a patch has it: the schema refuses empty lists.
fn list(wanted: &Value) -> Value {
    match wanted.as_array() {
        Some(items) if !items.is_empty() => wanted.clone(),
        _ => Value::Null,
    }
}

/// The patch that lets a Machine terminate.
#[must_use]
pub fn drop_hook(member: &Member) -> Step {
    Step::Patch {
        part: MemberPart::Machine,
        name: member.name().to_owned(),
        patch: json!({"metadata": {"annotations": {annotation::KCP_CLEANUP_HOOK: null}}}),
    }
}
