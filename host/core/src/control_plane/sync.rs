//! What is passed on to existing Machines in place: labels, annotations, deletion timeouts, readiness gates and taints.

use std::collections::BTreeMap;

use capstan_api::annotation;
use serde_json::{Map, Value, json};

use super::{Member, MemberPart, Observed, Step, machine_labels};

/// Patches that bring a Machine and what belongs to it up to date without replacing it. A Machine that is being deleted gets
/// its deletion timeouts and taints only.
#[must_use]
pub fn patches(observed: &Observed, member: &Member, cluster_name: &str) -> Vec<Step> {
    let Ok(desired) = &observed.desired else {
        return Vec::new();
    };
    let labels = machine_labels(desired, cluster_name, observed.name());
    let annotations: BTreeMap<String, String> =
        desired.machine_annotations.iter().cloned().collect();
    let machine = serde_json::to_value(&member.machine).unwrap_or_default();
    let mut spec = Map::new();
    if let Some(wanted) = desired.deletion.as_object() {
        let stored = machine.pointer("/spec/deletion");
        let lacking: Map<String, Value> = wanted
            .iter()
            .filter(|(name, value)| {
                stored.and_then(|stored| stored.get(name.as_str())) != Some(value)
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !lacking.is_empty() {
            spec.insert("deletion".to_owned(), Value::Object(lacking));
        }
    }
    put_list(&mut spec, "taints", &desired.taints, &machine);
    if !member.is_deleting() {
        put_list(
            &mut spec,
            "readinessGates",
            &desired.readiness_gates,
            &machine,
        );
    }
    let mut metadata = Map::new();
    if !member.is_deleting() {
        metadata = metadata_patch(&machine, &labels, &annotations);
    }
    let mut steps = Vec::new();
    let mut patch = Map::new();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    let mut push = |part, patch: Value| {
        steps.push(Step::Patch {
            part,
            name: member.name().to_owned(),
            patch,
        });
    };
    if !patch.is_empty() {
        push(MemberPart::Machine, Value::Object(patch));
    }
    if !member.is_deleting() {
        for (part, patch) in part_patches(member, &labels, &annotations) {
            push(part, patch);
        }
    }
    steps
}

/// Patches of what belongs to a Machine.
fn part_patches(
    member: &Member,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Vec<(MemberPart, Value)> {
    let mut patches = Vec::new();
    if let Some(expiry) = member.expiry.found() {
        let noted = json!({annotation::CERTIFICATES_EXPIRY: expiry.to_string()});
        patches.push((
            MemberPart::Config,
            json!({"metadata": {"annotations": noted}}),
        ));
    }
    for (part, object) in [
        (MemberPart::Config, &member.config),
        (MemberPart::Infra, &member.infra),
    ] {
        if let Some(object) = object.found() {
            let metadata = metadata_patch(object, labels, annotations);
            if !metadata.is_empty() {
                patches.push((part, json!({ "metadata": metadata })));
            }
        }
    }
    patches
}

/// A list field that differs. An empty list and none are the same.
fn put_list(spec: &mut Map<String, Value>, name: &str, wanted: &Value, machine: &Value) {
    let empty = json!([]);
    let stored = machine.pointer(&format!("/spec/{name}")).unwrap_or(&empty);
    let wanted = if wanted.is_array() { wanted } else { &empty };
    if stored != wanted {
        let is_empty = wanted.as_array().is_some_and(Vec::is_empty);
        // The schema refuses empty lists.
        spec.insert(
            name.to_owned(),
            if is_empty {
                Value::Null
            } else {
                wanted.clone()
            },
        );
    }
}

fn metadata_patch(
    object: &Value,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let mut metadata = Map::new();
    for (field, wanted) in [("labels", labels), ("annotations", annotations)] {
        let stored = object.pointer(&format!("/metadata/{field}"));
        let lacking: Map<String, Value> = wanted
            .iter()
            .filter(|(name, value)| {
                stored
                    .and_then(|all| all.get(name.as_str()))
                    .and_then(Value::as_str)
                    != Some(value.as_str())
            })
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        if !lacking.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(lacking));
        }
    }
    metadata
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
