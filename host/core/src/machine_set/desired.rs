//! What the Machines of a MachineSet look like, with their infrastructure and bootstrap objects: new ones whole, existing ones
//! as patches of what differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::name::label_value;
use capstan_api::v1beta2::{API_VERSION, ContractVersionedObjectReference, MachineDeletionSpec};
use capstan_api::{annotation, finalizer, label};
use serde_json::{Value, json};

use super::observed::{MachineSeen, Observed};
use crate::clone::{CloneError, from_template, kind_of_template};
use crate::lookup::Lookup;
use crate::naming::{Endings, MACHINE_SET_DEFAULT, NamingError, from_template as name_from};
use crate::rollout::count::{label as label_of, name};
use crate::rollout::merge::{self, PROPAGATED, Propagated};

/// Seconds to keep trying to delete a Node when the template does not say.
const NODE_DELETION_TIMEOUT_S: i32 = 10;

/// A Machine with its objects, to be made in this order: the Machine, then both others with it as their controller.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMachine {
    /// The Machine.
    pub machine: Value,
    /// Infrastructure object, without owner.
    pub infra: Value,
    /// Bootstrap object, without owner.
    pub bootstrap: Option<Value>,
}

/// Objects that a Machine lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Name of the Machine.
    pub machine: String,
    /// Its UID, for the owner reference.
    pub uid: String,
    /// Objects without owner.
    pub objects: Vec<Value>,
}

/// Changes of a Machine and its objects that replace nothing. Objects first, the Machine last: it remembers what was passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Name of the Machine.
    pub machine: String,
    /// Merge patch of the Machine.
    pub patch: Option<Value>,
    /// Merge patches of its objects.
    pub objects: Vec<(ContractVersionedObjectReference, Value)>,
}

/// Why a machine cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// The name template is not one.
    #[error("spec.machineNaming: {0}")]
    Naming(#[from] NamingError),
    /// A template cannot be copied.
    #[error("spec.template.spec: {0}")]
    Clone(#[from] CloneError),
    /// A template is not there.
    #[error("{0}")]
    Template(String),
}

/// Labels of Machines: the template's, and which set and deployment they belong to.
fn labels(observed: &Observed) -> BTreeMap<String, String> {
    let metadata = observed.set.spec.template.metadata.as_ref();
    let mut labels = metadata
        .map(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    labels.extend(fixed_labels(observed));
    labels
}

/// Labels that do not come from the template: these never go.
fn fixed_labels(observed: &Observed) -> BTreeMap<String, String> {
    let set = &observed.set;
    let mut labels = observed.selector_labels();
    labels.insert(label::SET_NAME.to_owned(), label_value(name(&set.metadata)));
    for copied in [label::DEPLOYMENT_NAME, label::MACHINE_TEMPLATE_HASH] {
        if let Some(value) = label_of(&set.metadata, copied) {
            labels.insert(copied.to_owned(), value.to_owned());
        }
    }
    labels
}

/// Annotations of the template, but for what only the host writes down.
fn annotations(observed: &Observed) -> BTreeMap<String, String> {
    let metadata = observed.set.spec.template.metadata.as_ref();
    let mut annotations = metadata
        .map(|metadata| metadata.annotations.clone())
        .unwrap_or_default();
    annotations.remove(annotation::HOOKS);
    annotations
}

/// Keys that a change of the template may take back.
fn propagated(observed: &Observed) -> Propagated {
    let fixed = fixed_labels(observed);
    let mut keys = Propagated::of(&labels(observed), &annotations(observed));
    keys.labels.retain(|key| !fixed.contains_key(key));
    keys
}

/// A new Machine of the set, complete.
///
/// # Errors
/// When a template is missing or cannot be copied, or the name template is bad.
pub fn new_machine(observed: &Observed, endings: &mut Endings) -> Result<NewMachine, MakeError> {
    let set = &observed.set;
    let template = set
        .spec
        .machine_naming
        .as_ref()
        .and_then(|naming| naming.template.as_deref());
    let variables = [
        ("cluster.name", set.spec.cluster_name.as_str()),
        ("machineSet.name", name(&set.metadata)),
    ];
    let machine_name = name_from(template.unwrap_or(MACHINE_SET_DEFAULT), &variables, endings)?;
    let mut spec = set.spec.template.spec.clone();
    spec.cluster_name.clone_from(&set.spec.cluster_name);
    spec.infrastructure_ref = copied_reference(&spec.infrastructure_ref, &machine_name);
    spec.bootstrap.config_ref = spec
        .bootstrap
        .config_ref
        .as_ref()
        .map(|config| copied_reference(config, &machine_name));
    spec.provider_id = None;
    let mut deletion = spec.deletion.unwrap_or_default();
    deletion
        .node_deletion_timeout_seconds
        .get_or_insert(NODE_DELETION_TIMEOUT_S);
    spec.deletion = Some(deletion);
    let mut annotations = annotations(observed);
    if let Some(keys) = propagated(observed).write() {
        annotations.insert(PROPAGATED.to_owned(), keys);
    }
    let mut metadata = json!({
        "name": machine_name,
        "namespace": set.metadata.namespace,
        "labels": labels(observed),
        "finalizers": [finalizer::MACHINE],
        "ownerReferences": [controller_reference(observed)],
    });
    if let (Some(metadata), false) = (metadata.as_object_mut(), annotations.is_empty()) {
        metadata.insert("annotations".to_owned(), json!(annotations));
    }
    Ok(NewMachine {
        machine: json!({
            "apiVersion": API_VERSION, "kind": "Machine", "metadata": metadata, "spec": spec,
        }),
        infra: copy(observed, &observed.infra_template, &machine_name)?,
        bootstrap: match &observed.bootstrap_template {
            Some(template) => Some(copy(observed, template, &machine_name)?),
            None => None,
        },
    })
}

fn copied_reference(
    template: &ContractVersionedObjectReference,
    machine: &str,
) -> ContractVersionedObjectReference {
    ContractVersionedObjectReference {
        api_group: template.api_group.clone(),
        kind: kind_of_template(&template.kind)
            .unwrap_or(&template.kind)
            .to_owned(),
        name: machine.to_owned(),
    }
}

fn copy(
    observed: &Observed,
    template: &Lookup<Arc<Value>>,
    machine: &str,
) -> Result<Value, MakeError> {
    let template = match template {
        Lookup::Found(template) => template,
        Lookup::Missing => return Err(MakeError::Template("a template does not exist".to_owned())),
        Lookup::Unknown(why) => return Err(MakeError::Template(why.clone())),
    };
    let namespace = observed
        .set
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    let (labels, annotations) = (labels(observed), annotations(observed));
    let cluster = &observed.set.spec.cluster_name;
    Ok(from_template(
        template,
        machine,
        namespace,
        cluster,
        &labels,
        &annotations,
        None,
    )?)
}

/// An owner reference to the set as the managing controller.
#[must_use]
pub fn controller_reference(observed: &Observed) -> Value {
    let metadata = &observed.set.metadata;
    json!({
        "apiVersion": API_VERSION,
        "kind": "MachineSet",
        "name": name(metadata),
        "uid": metadata.uid.clone().unwrap_or_default(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Objects that a Machine needs and does not have: it was made, and then the host stopped. `None` when there are none, when it
/// already has what they are for, or when nothing can be made.
#[must_use]
pub fn completion(observed: &Observed, seen: &MachineSeen) -> Option<Completion> {
    if seen.is_deleting() {
        return None;
    }
    let status = seen
        .machine
        .status
        .as_ref()
        .and_then(|status| status.initialization.as_ref());
    let has_infra = status.and_then(|done| done.infrastructure_provisioned) == Some(true);
    let has_data = status.and_then(|done| done.bootstrap_data_secret_created) == Some(true)
        || seen.machine.spec.bootstrap.data_secret_name.is_some();
    let (spec, own) = (&observed.set.spec.template.spec, &seen.machine.spec);
    let machine = seen.name();
    let mut objects = Vec::new();
    // Only what this set would have made under this name: references of adopted machines may lead elsewhere.
    if seen.infra.is_missing()
        && !has_infra
        && own.infrastructure_ref == copied_reference(&spec.infrastructure_ref, machine)
    {
        objects.extend(copy(observed, &observed.infra_template, machine).ok());
    }
    if let (Some(Lookup::Missing), Some(template), Some(config), Some(own_config)) = (
        &seen.bootstrap,
        &observed.bootstrap_template,
        &spec.bootstrap.config_ref,
        &own.bootstrap.config_ref,
    ) && !has_data
        && *own_config == copied_reference(config, machine)
    {
        objects.extend(copy(observed, template, machine).ok());
    }
    let uid = seen.machine.metadata.uid.clone()?;
    (!objects.is_empty()).then(|| Completion {
        machine: machine.to_owned(),
        uid,
        objects,
    })
}

/// What must change on a Machine and its objects to match the set's template where that replaces nothing; `None` when it does.
/// Of a Machine that is being deleted only what its deletion depends on changes.
#[must_use]
pub fn in_place(observed: &Observed, seen: &MachineSeen) -> Option<Change> {
    let spec = &observed.set.spec.template.spec;
    let deletion = spec.deletion.clone().unwrap_or_default();
    let fields = json!({
        "minReadySeconds": spec.min_ready_seconds,
        "readinessGates": (!spec.readiness_gates.is_empty()).then_some(&spec.readiness_gates),
        "taints": (!spec.taints.is_empty()).then_some(&spec.taints),
        "deletion": timeouts(&deletion),
    });
    let current = serde_json::to_value(&*seen.machine).unwrap_or_default();
    if seen.is_deleting() {
        let patch = merge::patch(&current, &json!({"spec": fields}))?;
        return Some(Change {
            machine: seen.name().to_owned(),
            patch: Some(patch),
            objects: Vec::new(),
        });
    }
    let before = Propagated::read(seen.machine.metadata.annotations.as_ref());
    let (labels, passed_on) = (labels(observed), annotations(observed));
    let metadata = json!({
        "labels": merge::map(&labels, before.labels.clone()),
        "annotations": merge::map(&passed_on, before.annotations.clone()),
    });
    let mut objects = Vec::new();
    let own = &seen.machine.spec;
    let parts = [
        (Some(&own.infrastructure_ref), Some(&seen.infra)),
        (own.bootstrap.config_ref.as_ref(), seen.bootstrap.as_ref()),
    ];
    for part in parts {
        let (Some(reference), Some(Lookup::Found(object))) = part else {
            continue;
        };
        if let Some(patch) = merge::patch(object, &json!({"metadata": metadata})) {
            objects.push((reference.clone(), patch));
        }
    }
    let mut annotations = passed_on;
    let mut gone: Vec<String> = before.annotations.into_iter().collect();
    match propagated(observed).write() {
        Some(keys) => {
            annotations.insert(PROPAGATED.to_owned(), keys);
        }
        None => gone.push(PROPAGATED.to_owned()),
    }
    let mut metadata = json!({
        "labels": merge::map(&labels, before.labels),
        "annotations": merge::map(&annotations, gone),
    });
    if let (Some(metadata), Some(owners)) =
        (metadata.as_object_mut(), adopted_owners(observed, seen))
    {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    let patch = merge::patch(&current, &json!({"metadata": metadata, "spec": fields}));
    let patch = patch.map(|patch| as_read(patch, seen));
    if patch.is_none() && objects.is_empty() {
        return None;
    }
    Some(Change {
        machine: seen.name().to_owned(),
        patch,
        objects,
    })
}

/// A patch of a Machine that replaces its owners only as they were read: others may adopt it in this moment.
fn as_read(mut patch: Value, seen: &MachineSeen) -> Value {
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.contains_key("ownerReferences")
    {
        let version = &seen.machine.metadata.resource_version;
        metadata.insert("resourceVersion".to_owned(), json!(version));
    }
    patch
}

/// Owner references with the set as controller, for a Machine that nobody controls.
fn adopted_owners(observed: &Observed, seen: &MachineSeen) -> Option<Value> {
    let owners = seen
        .machine
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    if owners.iter().any(|owner| owner.controller == Some(true)) {
        return None;
    }
    let uid = observed.set.metadata.uid.as_deref().unwrap_or_default();
    let others = owners
        .iter()
        .filter(|owner| owner.uid != uid)
        .map(|owner| json!(owner));
    Some(others.chain([controller_reference(observed)]).collect())
}

fn timeouts(deletion: &MachineDeletionSpec) -> Value {
    json!({
        "nodeDrainTimeoutSeconds": deletion.node_drain_timeout_seconds,
        "nodeVolumeDetachTimeoutSeconds": deletion.node_volume_detach_timeout_seconds,
        "nodeDeletionTimeoutSeconds":
            deletion.node_deletion_timeout_seconds.unwrap_or(NODE_DELETION_TIMEOUT_S),
    })
}
