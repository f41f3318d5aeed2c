//! The Machines of a pool: one for each infrastructure machine that its provider makes, where it makes any (contract 2.4).

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::condition::{self, Report};
use capstan_api::name::label_value;
use capstan_api::reason::condition_type::{HEALTH_CHECK_SUCCEEDED, OWNER_REMEDIATED};
use capstan_api::v1beta2::{API_VERSION, Machine};
use capstan_api::{finalizer, label, reason};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::decide::controller_reference;
use super::observed::{Observed, text};
use crate::cluster::observed::is_deleting_value;
use crate::machine_set::remediation::Remediation;
use crate::rollout::count::{conditions, is_deleting, is_to_be_remediated, name};
use crate::rollout::merge::{self, PROPAGATED, Propagated};

/// What happens with Machines.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Made or changed.
    pub(super) apply: Vec<Value>,
    /// Given up.
    pub(super) remediate: Vec<Remediation>,
    /// Deleted because their machine is gone.
    pub(super) delete: Vec<String>,
}

/// What happens with Machines. Nothing goes while the infrastructure machines cannot be seen.
pub(super) fn changes(observed: &Observed, now: Timestamp) -> Changes {
    let Some(infra_machines) = observed.infra_machines.found() else {
        return Changes::default();
    };
    let by_infra: BTreeMap<&str, &Machine> = observed
        .bare_machines()
        .map(|machine| (machine.spec.infrastructure_ref.name.as_str(), machine))
        .collect();
    let mut changes = Changes::default();
    if observed.has_machines() && observed.is_provisioned() {
        for infra in infra_machines {
            let infra_name = text(infra, "/metadata/name").unwrap_or_default();
            let existing = by_infra.get(infra_name).copied();
            changes.apply.extend(match existing {
                Some(machine) if is_deleting(&machine.metadata) => None,
                Some(machine) => changed(observed, infra, machine),
                // One that goes without a Machine needs none any more.
                None if is_deleting_value(infra) => None,
                None if observed.taken.iter().any(|taken| taken == infra_name) => None,
                None => Some(new(observed, infra)),
            });
        }
    }
    changes.remediate = remediations(observed, now);
    let given_up: BTreeSet<&str> = changes
        .remediate
        .iter()
        .filter(|remediation| remediation.delete)
        .map(|remediation| remediation.machine.as_str())
        .collect();
    let there: BTreeSet<&str> = infra_machines
        .iter()
        .filter_map(|infra| text(infra, "/metadata/name"))
        .collect();
    if let Some(ids) = observed.provider_ids() {
        let gone = observed.bare_machines().filter(|machine| {
            let spec = &machine.spec;
            let is_listed = spec
                .provider_id
                .as_deref()
                .is_some_and(|id| ids.contains(&id));
            !there.contains(spec.infrastructure_ref.name.as_str())
                && !is_listed
                && !is_deleting(&machine.metadata)
                && !given_up.contains(name(&machine.metadata))
        });
        changes.delete = gone
            .map(|machine| name(&machine.metadata).to_owned())
            .collect();
    }
    changes
}

/// Machines that a health check has given up, and those that are well again. The provider replaces what it loses.
fn remediations(observed: &Observed, now: Timestamp) -> Vec<Remediation> {
    let standing = observed
        .bare_machines()
        .filter(|machine| !is_deleting(&machine.metadata));
    standing
        .filter_map(|machine| {
            let all = conditions(machine);
            let was_asked = condition::get(all, OWNER_REMEDIATED).is_some();
            if is_to_be_remediated(machine) {
                let said = Report::no(OWNER_REMEDIATED, reason::machine::MACHINE_DELETING)
                    .with_message("Machine is deleting");
                let after = condition::merge(all, [said], machine.metadata.generation, now);
                return Some(Remediation::of(machine, after, true));
            }
            if was_asked && condition::is_true(all, HEALTH_CHECK_SUCCEEDED) {
                let mut after = all.to_vec();
                condition::remove(&mut after, OWNER_REMEDIATED);
                return Some(Remediation::of(machine, after, false));
            }
            None
        })
        .collect()
}

fn labels(observed: &Observed) -> BTreeMap<String, String> {
    let metadata = observed.pool.spec.template.metadata.as_ref();
    let mut labels = metadata.map(|own| own.labels.clone()).unwrap_or_default();
    let own = label_value(name(&observed.pool.metadata));
    labels.insert(label::POOL_NAME.to_owned(), own);
    labels.insert(
        label::CLUSTER_NAME.to_owned(),
        observed.pool.spec.cluster_name.clone(),
    );
    labels
}

/// Annotations of Machines, with what was passed on: a key that leaves the template changes this, and server-side apply takes it back.
fn annotations(observed: &Observed) -> BTreeMap<String, String> {
    let metadata = observed.pool.spec.template.metadata.as_ref();
    let Some(metadata) = metadata else {
        return BTreeMap::new();
    };
    let mut annotations = metadata.annotations.clone();
    let keys = Propagated::of(&metadata.labels, &metadata.annotations);
    annotations.extend(keys.write().map(|keys| (PROPAGATED.to_owned(), keys)));
    annotations
}

/// The Machine of an infrastructure machine, as the pool wants it. Its bootstrap data is the pool's, which it needs no more.
fn new(observed: &Observed, infra: &Value) -> Value {
    desired(observed, infra, None)
}

fn desired(observed: &Observed, infra: &Value, existing: Option<&Machine>) -> Value {
    let template = &observed.pool.spec.template.spec;
    let part = |pointer| text(infra, pointer).unwrap_or_default();
    let group = part("/apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let mut spec = json!({
        "clusterName": observed.pool.spec.cluster_name,
        "bootstrap": {"dataSecretName": ""},
        "infrastructureRef": {"apiGroup": group, "kind": part("/kind"), "name": part("/metadata/name")},
    });
    if let Some(fields) = spec.as_object_mut() {
        let running = text(infra, "/spec/providerID")
            .and_then(|id| observed.node(id))
            .and_then(|node| text(node, "/status/nodeInfo/kubeletVersion"));
        // While the Node cannot be seen, it runs what it ran.
        let before = existing.and_then(|machine| machine.spec.version.as_deref());
        let more = [
            ("version", running.or(before).map(|version| json!(version))),
            ("deletion", template.deletion.as_ref().map(|own| json!(own))),
            (
                "minReadySeconds",
                template.min_ready_seconds.map(|own| json!(own)),
            ),
            (
                "readinessGates",
                (!template.readiness_gates.is_empty()).then(|| json!(template.readiness_gates)),
            ),
        ];
        let more = more.into_iter();
        fields.extend(more.filter_map(|(field, value)| Some((field.to_owned(), value?))));
    }
    let machine_name = existing.map_or(part("/metadata/name"), |machine| name(&machine.metadata));
    let mut metadata = Map::new();
    let mut set = |field: &str, value: Value| metadata.insert(field.to_owned(), value);
    set("name", json!(machine_name));
    set("namespace", json!(observed.pool.metadata.namespace));
    set("labels", json!(labels(observed)));
    set("ownerReferences", json!([controller_reference(observed)]));
    set("finalizers", json!([finalizer::MACHINE]));
    let annotations = annotations(observed);
    if !annotations.is_empty() {
        set("annotations", json!(annotations));
    }
    if let Some(machine) = existing {
        // Another one of the name would be somebody else's.
        set("uid", json!(machine.metadata.uid));
    }
    json!({"apiVersion": API_VERSION, "kind": "Machine", "metadata": metadata, "spec": spec})
}

/// What to apply to a Machine that is there; `None` when it has all, and nothing that has left the template.
fn changed(observed: &Observed, infra: &Value, machine: &Machine) -> Option<Value> {
    let desired = desired(observed, infra, Some(machine));
    let current = serde_json::to_value(machine).unwrap_or_default();
    let mut compared = desired.clone();
    if let Some(metadata) = compared.get_mut("metadata").and_then(Value::as_object_mut) {
        // Whose it is was seen, and the finalizer is its controller's.
        for field in ["ownerReferences", "finalizers"] {
            metadata.remove(field);
        }
    }
    let passed_on = |annotations: Option<&BTreeMap<String, String>>| {
        annotations.and_then(|all| all.get(PROPAGATED).cloned())
    };
    let is_taken_back =
        passed_on(machine.metadata.annotations.as_ref()) != passed_on(Some(&annotations(observed)));
    (is_taken_back || merge::patch(&current, &compared).is_some()).then_some(desired)
}
