//! What an upgrade strategy is told. All numbers come from the machines themselves, so that they agree with each other and
//! with what [`super::check`] holds an answer against.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use capstan_api::annotation;
use capstan_api::condition;
use capstan_api::label::CAPACITY_CLASS;
use capstan_api::v1beta2::Machine;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde_json::{Value, json};

use super::count::{
    age_ms, annotation as annotation_of, conditions, is_available, is_deleting, is_unhealthy, name,
};
use super::limits;
use crate::call::strategy::{Facts, MachineFacts, MachineSetFacts};
use crate::machine_deployment::observed::{Current, Observed, SetSeen};

/// Name of the extra fact with the deletion order of the sets.
pub const DELETION_ORDER: &str = "deletionOrder";

/// Name of the extra fact with the revision that the strategy rolled back, if it did.
pub const ROLLED_BACK_REVISION: &str = "rolledBackRevision";

/// Name of the extra fact with annotations of the deployment, by key: those under `capstan.dev/` and its subdomains that the
/// host does not keep for itself.
pub const DEPLOYMENT_ANNOTATIONS: &str = "deploymentAnnotations";

/// Name of the extra fact with the status of the deployment's conditions, by type.
pub const DEPLOYMENT_CONDITIONS: &str = "deploymentConditions";

/// Name of the extra fact with the status of conditions of Machines that Cluster API does not define, by Machine and type.
pub const MACHINE_CONDITIONS: &str = "machineConditions";

/// Prefixes of labels and annotations that a strategy sees.
const SELECTED: [&str; 3] = [
    "topology.kubernetes.io/",
    "node.cluster.x-k8s.io/",
    "capstan.dev/",
];

/// All that a strategy may know. The current set comes first, even while it does not exist yet; then older ones, oldest last.
#[must_use]
pub fn facts(observed: &Observed, now: Timestamp) -> Facts {
    let limits = limits::of(&observed.deployment);
    let current = observed.current(now);
    let current_name = current.name();
    let mut machine_sets = Vec::new();
    if let Current::New { name } = &current {
        machine_sets.push(MachineSetFacts {
            name: name.clone(),
            current: true,
            revision: observed.revision(now),
            ..MachineSetFacts::default()
        });
    }
    let mut sets: Vec<MachineSetFacts> = observed
        .sets
        .iter()
        .map(|seen| set_facts(seen, seen.name() == current_name, now))
        .collect();
    sets.sort_by(|a, b| {
        (Reverse(a.current), a.age_ms, &a.name).cmp(&(Reverse(b.current), b.age_ms, &b.name))
    });
    machine_sets.append(&mut sets);
    let order = observed
        .deployment
        .spec
        .deletion
        .as_ref()
        .and_then(|deletion| deletion.order.as_ref());
    let metadata = &observed.deployment.metadata;
    Facts {
        now_ms: u64::try_from(now.as_millisecond()).unwrap_or_default(),
        deployment: format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            name(metadata)
        ),
        version: observed
            .deployment
            .spec
            .template
            .spec
            .version
            .clone()
            .unwrap_or_default(),
        replicas: limits.replicas,
        max_surge: limits.max_surge,
        max_unavailable: limits.max_unavailable,
        machine_sets,
        settings: observed.strategy.settings.clone(),
        state: observed.strategy.state.clone(),
        extra: extra(
            observed,
            order.map_or(json!("Random"), |order| json!(order)),
        ),
    }
}

fn extra(observed: &Observed, order: Value) -> Vec<(String, Value)> {
    let metadata = &observed.deployment.metadata;
    let annotations = metadata.annotations.iter().flatten();
    let annotations: BTreeMap<&String, &String> = annotations
        .filter(|(key, _)| is_for_strategies(key))
        .collect();
    let own = observed.deployment.status.as_ref();
    let own = own.map(|status| status.conditions.as_slice());
    let of_machines: BTreeMap<&str, BTreeMap<&str, &str>> = observed
        .machines()
        .into_iter()
        .map(|machine| (name(&machine.metadata), foreign(conditions(machine))))
        .filter(|(_, conditions)| !conditions.is_empty())
        .collect();
    let mut extra = vec![(DELETION_ORDER.to_owned(), order)];
    let mut add = |name: &str, value: Value| extra.push((name.to_owned(), value));
    if let Some(revision) = observed.strategy.rolled_back {
        add(ROLLED_BACK_REVISION, json!(revision));
    }
    add(DEPLOYMENT_ANNOTATIONS, json!(annotations));
    add(
        DEPLOYMENT_CONDITIONS,
        json!(by_type(own.unwrap_or_default())),
    );
    add(MACHINE_CONDITIONS, json!(of_machines));
    extra
}

/// Whether strategies see an annotation of the deployment.
fn is_for_strategies(key: &str) -> bool {
    let own = [
        annotation::STRATEGY,
        annotation::STRATEGY_SETTINGS,
        annotation::STRATEGY_STATE,
        annotation::PLUGIN_STATE,
    ];
    let (domain, _) = key.split_once('/').unwrap_or_default();
    (domain == "capstan.dev" || domain.ends_with(".capstan.dev")) && !own.contains(&key)
}

fn by_type(conditions: &[Condition]) -> BTreeMap<&str, &str> {
    let pairs = conditions.iter();
    pairs
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .collect()
}

/// Conditions that Cluster API does not define.
fn foreign(conditions: &[Condition]) -> BTreeMap<&str, &str> {
    let mut all = by_type(conditions);
    all.retain(|type_, _| !condition::is_contract(type_));
    all
}

fn set_facts(seen: &SetSeen, current: bool, now: Timestamp) -> MachineSetFacts {
    let mut machines: Vec<MachineFacts> = seen
        .machines
        .iter()
        .map(|machine| machine_facts(machine, now))
        .collect();
    if seen.is_deleting() {
        // All of them go with it.
        for machine in &mut machines {
            machine.deleting = true;
            machine.available = false;
        }
    }
    let count = |is: fn(&MachineFacts) -> bool| {
        u32::try_from(machines.iter().filter(|machine| is(machine)).count()).unwrap_or(u32::MAX)
    };
    MachineSetFacts {
        name: seen.name().to_owned(),
        current,
        revision: seen.revision(),
        age_ms: age_ms(&seen.set.metadata, now),
        desired_replicas: seen.desired(),
        actual_replicas: count(|_| true),
        ready_replicas: count(|machine| machine.ready && !machine.deleting),
        available_replicas: count(|machine| machine.available),
        machines,
    }
}

fn machine_facts(machine: &Machine, now: Timestamp) -> MachineFacts {
    let selected = |all: &Option<BTreeMap<String, String>>| -> Vec<(String, String)> {
        let all = all.iter().flatten();
        let wanted = all.filter(|(key, _)| {
            [annotation::DELETE_MACHINE, annotation::UPDATE_IN_PROGRESS].contains(&key.as_str())
                || SELECTED.iter().any(|prefix| key.starts_with(prefix))
        });
        wanted
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let metadata = &machine.metadata;
    let placed = machine
        .status
        .as_ref()
        .and_then(|status| status.failure_domain.clone());
    let class = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CAPACITY_CLASS))
        .cloned();
    MachineFacts {
        name: name(metadata).to_owned(),
        age_ms: age_ms(metadata, now),
        ready: condition::is_true(conditions(machine), "Ready"),
        available: is_available(machine),
        deleting: is_deleting(metadata),
        healthy: !is_unhealthy(machine),
        failure_domain: placed.or_else(|| machine.spec.failure_domain.clone()),
        capacity_class: class.unwrap_or_default(),
        labels: selected(&metadata.labels),
        annotations: selected(&metadata.annotations),
    }
}

/// The settings of a strategy as an annotation of this object holds them; an empty object when there is none. `of` names the
/// object for people.
///
/// # Errors
/// When the annotation is not a JSON object; the message names it.
pub fn settings(metadata: &ObjectMeta, of: &str) -> Result<Value, String> {
    let Some(text) = annotation_of(metadata, annotation::STRATEGY_SETTINGS) else {
        return Ok(json!({}));
    };
    let at = annotation::STRATEGY_SETTINGS;
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(format!("annotation {at} of {of} must be a JSON object")),
        Err(error) => Err(format!(
            "annotation {at} of {of} must be a JSON object: {error}"
        )),
    }
}
