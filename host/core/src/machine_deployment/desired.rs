//! What the MachineSets of a MachineDeployment look like: a new one whole, existing ones as patches of what differs.

use std::collections::BTreeMap;

use capstan_api::v1beta2::{API_VERSION, MachineSet, TemplateMetadata};
use capstan_api::{annotation, finalizer, label};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::observed::{Observed, SetSeen};
use super::verdict::Verdict;
use crate::machine_set::observed::selector_labels;
use crate::rollout::count::{annotation as annotation_of, label as label_of, name};
use crate::rollout::extra::{OVERLAY, Overlay};
use crate::rollout::merge::{self, PROPAGATED, Propagated};
use crate::rollout::{limits, template};

/// Annotations of a deployment that are not passed on to its sets.
const KEPT_BACK: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "cluster.x-k8s.io/conversion-data",
    annotation::REVISION,
    annotation::REVISION_HISTORY,
    annotation::DESIRED_REPLICAS,
    annotation::MAX_REPLICAS,
];

/// Annotations with this prefix are the host's own.
const OWN_PREFIX: &str = "capstan.dev/";

/// What the annotation `max-replicas` of a set says.
#[must_use]
pub fn max_replicas(set: &MachineSet) -> Option<u32> {
    annotation_of(&set.metadata, annotation::MAX_REPLICAS)?
        .parse()
        .ok()
}

/// An owner reference to the deployment as the managing controller.
#[must_use]
pub fn controller_reference(observed: &Observed) -> Value {
    let metadata = &observed.deployment.metadata;
    json!({
        "apiVersion": API_VERSION,
        "kind": "MachineDeployment",
        "name": name(metadata),
        "uid": metadata.uid.clone().unwrap_or_default(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Annotations that are passed on from the deployment's own metadata.
fn passed_on(observed: &Observed) -> BTreeMap<String, String> {
    let all = observed
        .deployment
        .metadata
        .annotations
        .clone()
        .unwrap_or_default();
    all.into_iter()
        .filter(|(key, _)| !KEPT_BACK.contains(&key.as_str()) && !key.starts_with(OWN_PREFIX))
        .collect()
}

/// Labels of the template in a set with this hash.
fn template_labels(observed: &Observed, hash: Option<&str>) -> BTreeMap<String, String> {
    let metadata = observed.deployment.spec.template.metadata.as_ref();
    let mut labels = metadata
        .map(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    // What the selector asks for when admission did not fill the template in.
    labels.extend(observed.selector_labels());
    if let Some(hash) = hash {
        labels.insert(label::MACHINE_TEMPLATE_HASH.to_owned(), hash.to_owned());
    }
    labels
}

fn template_annotations(observed: &Observed) -> BTreeMap<String, String> {
    let metadata: Option<&TemplateMetadata> = observed.deployment.spec.template.metadata.as_ref();
    metadata
        .map(|metadata| metadata.annotations.clone())
        .unwrap_or_default()
}

fn set_labels(observed: &Observed, hash: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = template_labels(observed, hash);
    labels.insert(
        label::DEPLOYMENT_NAME.to_owned(),
        name(&observed.deployment.metadata).to_owned(),
    );
    labels
}

fn bookkeeping(observed: &Observed) -> BTreeMap<String, String> {
    let limits = limits::of(&observed.deployment);
    BTreeMap::from([
        (
            annotation::DESIRED_REPLICAS.to_owned(),
            limits.replicas.to_string(),
        ),
        (
            annotation::MAX_REPLICAS.to_owned(),
            limits.ceiling().to_string(),
        ),
    ])
}

/// What a new set says of itself.
fn new_annotations(observed: &Observed, now: Timestamp) -> BTreeMap<String, String> {
    let mut annotations = bookkeeping(observed);
    annotations.insert(
        annotation::REVISION.to_owned(),
        observed.revision(now).to_string(),
    );
    annotations.insert(
        annotation::DISABLE_MACHINE_CREATE.to_owned(),
        "false".to_owned(),
    );
    if let Some(time) = observed.last_rollout(now) {
        annotations.insert(annotation::ROLLED_OUT_AFTER.to_owned(), time.to_string());
    }
    annotations
}

/// The current set, complete, with the replicas that the verdict gives it.
#[must_use]
pub fn new_set(observed: &Observed, set_name: &str, verdict: &Verdict, now: Timestamp) -> Value {
    let deployment = &observed.deployment;
    let hash = format!(
        "{}-{}",
        template::hash(&deployment.spec.template),
        observed.new_ending(now)
    );
    let mut selector = deployment.spec.selector.clone();
    let mut match_labels = observed.selector_labels();
    match_labels.insert(label::MACHINE_TEMPLATE_HASH.to_owned(), hash.clone());
    selector.match_labels = Some(match_labels);
    let passed_on = passed_on(observed);
    let overlay = verdict.overlay(set_name).unwrap_or_default();
    let mut machine_labels = template_labels(observed, Some(&hash));
    machine_labels.extend(overlay.labels.clone());
    let mut annotations = new_annotations(observed, now);
    if let Some(overlay) = overlay.write() {
        annotations.insert(OVERLAY.to_owned(), overlay);
    }
    if let Some(keys) = Propagated::of(&BTreeMap::new(), &passed_on).write() {
        annotations.insert(PROPAGATED.to_owned(), keys);
    }
    annotations.extend(passed_on);
    let mut spec = json!({
        "clusterName": deployment.spec.cluster_name,
        "replicas": verdict.replicas(set_name).unwrap_or_default(),
        "selector": selector,
        "template": {
            "metadata": metadata(&machine_labels, &template_annotations(observed)),
            "spec": deployment.spec.template.spec,
        },
    });
    if let (Some(spec), Some(naming)) = (spec.as_object_mut(), &deployment.spec.machine_naming) {
        spec.insert("machineNaming".to_owned(), json!(naming));
    }
    if let (Some(spec), Some(deletion)) = (spec.as_object_mut(), &deployment.spec.deletion)
        && deletion.order.is_some()
    {
        spec.insert("deletion".to_owned(), json!({"order": deletion.order}));
    }
    if let Some(fields) = spec
        .pointer_mut("/template/spec")
        .and_then(Value::as_object_mut)
        && !overlay.taints.is_empty()
    {
        let taints = overlay.taints(&deployment.spec.template.spec.taints);
        fields.insert("taints".to_owned(), json!(taints));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "MachineSet",
        "metadata": {
            "name": set_name,
            "namespace": deployment.metadata.namespace,
            "labels": set_labels(observed, Some(&hash)),
            "annotations": annotations,
            "ownerReferences": [controller_reference(observed)],
            "finalizers": [finalizer::MACHINE_SET],
        },
        "spec": spec,
    })
}

/// Template metadata without empty maps, which the server refuses.
fn metadata(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Value {
    json!(TemplateMetadata {
        labels: labels.clone(),
        annotations: annotations.clone()
    })
}

/// The patch that brings an existing set's in-place fields, bookkeeping and replicas to what they should be; `None` when they
/// are.
#[must_use]
pub fn set_patch(
    observed: &Observed,
    seen: &SetSeen,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Value> {
    if seen.is_deleting() {
        return None;
    }
    let before = seen.set.spec.template.metadata.clone().unwrap_or_default();
    let hash = label_of(&seen.set.metadata, label::MACHINE_TEMPLATE_HASH).or_else(|| {
        before
            .labels
            .get(label::MACHINE_TEMPLATE_HASH)
            .map(String::as_str)
    });
    let mut labels = template_labels(observed, hash);
    let overlay = verdict
        .overlay(seen.name())
        .unwrap_or_else(|| Overlay::of(&seen.set));
    labels.extend(overlay.labels.clone());
    // An adopted set may select by more.
    labels.extend(selector_labels(&seen.set));
    let template_annotations = template_annotations(observed);
    let template = json!({
        "metadata": {
            "labels": merge::map(&labels, before.labels.keys().cloned()),
            "annotations": merge::map(&template_annotations, before.annotations.keys().cloned()),
        },
        "spec": in_place_fields(observed, &overlay),
    });
    let deployment = &observed.deployment.spec;
    let order = deployment
        .deletion
        .as_ref()
        .and_then(|deletion| deletion.order.as_ref());
    let mut spec = json!({
        "template": template,
        "machineNaming": deployment.machine_naming,
        "deletion": order.map(|order| json!({"order": order})),
    });
    if let (Some(spec), Some(replicas)) = (spec.as_object_mut(), verdict.replicas(seen.name())) {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    let desired = json!({
        "metadata": {
            "labels": merge::map(&set_labels(observed, hash), before.labels.keys().cloned()),
            "annotations": set_annotations(observed, seen, verdict, &overlay, now),
        },
        "spec": spec,
    });
    merge::patch(
        &serde_json::to_value(&seen.set).unwrap_or_default(),
        &desired,
    )
}

fn set_annotations(
    observed: &Observed,
    seen: &SetSeen,
    verdict: &Verdict,
    overlay: &Overlay,
    now: Timestamp,
) -> Value {
    let passed_on = passed_on(observed);
    let before = Propagated::read(seen.set.metadata.annotations.as_ref());
    let mut annotations = passed_on.clone();
    annotations.extend(bookkeeping(observed));
    let is_current = observed.existing_current(now).map(SetSeen::name) == Some(seen.name());
    let revision = observed.revision(now);
    if is_current && seen.revision() != revision {
        annotations.insert(annotation::REVISION.to_owned(), revision.to_string());
        if seen.revision() > 0 {
            let history = annotation_of(&seen.set.metadata, annotation::REVISION_HISTORY);
            let old = seen.revision().to_string();
            let history = history.filter(|history| !history.is_empty());
            let history = history.map_or_else(|| old.clone(), |history| format!("{history},{old}"));
            annotations.insert(annotation::REVISION_HISTORY.to_owned(), history);
        }
    }
    let disabled = annotation_of(&seen.set.metadata, annotation::DISABLE_MACHINE_CREATE);
    if let Some(disable) = verdict.create_disabled(seen.name())
        && (disable || disabled.is_some())
    {
        annotations.insert(
            annotation::DISABLE_MACHINE_CREATE.to_owned(),
            disable.to_string(),
        );
    } else if is_current && disabled == Some("true") {
        // A rollback makes an old set the current one.
        annotations.insert(
            annotation::DISABLE_MACHINE_CREATE.to_owned(),
            "false".to_owned(),
        );
    }
    let mut gone: Vec<String> = before.annotations.into_iter().collect();
    match overlay.write() {
        Some(text) => {
            annotations.insert(OVERLAY.to_owned(), text);
        }
        None => gone.push(OVERLAY.to_owned()),
    }
    match Propagated::of(&BTreeMap::new(), &passed_on).write() {
        Some(keys) => {
            annotations.insert(PROPAGATED.to_owned(), keys);
        }
        None => gone.push(PROPAGATED.to_owned()),
    }
    merge::map(&annotations, gone)
}

/// Fields of machines that change without replacing them; null where they are not set.
fn in_place_fields(observed: &Observed, overlay: &Overlay) -> Value {
    let spec = &observed.deployment.spec.template.spec;
    let taints = overlay.taints(&spec.taints);
    let deletion = spec.deletion.clone().unwrap_or_default();
    json!({
        "minReadySeconds": spec.min_ready_seconds,
        "readinessGates": (!spec.readiness_gates.is_empty()).then_some(&spec.readiness_gates),
        "taints": (!taints.is_empty()).then_some(taints),
        "deletion": spec.deletion.as_ref().map(|_| json!({
            "nodeDrainTimeoutSeconds": deletion.node_drain_timeout_seconds,
            "nodeVolumeDetachTimeoutSeconds": deletion.node_volume_detach_timeout_seconds,
            "nodeDeletionTimeoutSeconds": deletion.node_deletion_timeout_seconds,
        })),
    })
}
