//! What an upgrade strategy is told. All numbers come from the machines themselves, so that they agree with each other and
//! with what [`super::check`] holds an answer against.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use capstan_api::annotation;
use capstan_api::condition;
use capstan_api::v1beta2::Machine;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::count::{
    age_ms, annotation as annotation_of, conditions, is_available, is_deleting, is_unhealthy, name,
};
use super::limits;
use crate::call::strategy::{Facts, MachineFacts, MachineSetFacts};
use crate::machine_deployment::observed::{Current, Observed, SetSeen};

/// Name of the extra fact with the deletion order of the sets.
pub const DELETION_ORDER: &str = "deletionOrder";

/// Prefixes of labels and annotations that a strategy sees.
const SELECTED: [&str; 3] = [
    "topology.kubernetes.io/",
    "node.cluster.x-k8s.io/",
    "capstan.dev/",
];

/// Label of a Machine with the class of scarce capacity that it uses.
pub const CAPACITY_CLASS: &str = "capstan.dev/capacity-class";

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
        extra: vec![(
            DELETION_ORDER.to_owned(),
            order.map_or(json!("Random"), |order| json!(order)),
        )],
    }
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

/// The settings of a strategy as its annotation holds them; an empty object when there is none.
///
/// # Errors
/// When the annotation is not a JSON object; the message names it.
pub fn settings(observed: &capstan_api::v1beta2::MachineDeployment) -> Result<Value, String> {
    let Some(text) = annotation_of(&observed.metadata, STRATEGY_SETTINGS) else {
        return Ok(json!({}));
    };
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(format!(
            "annotation {STRATEGY_SETTINGS} must be a JSON object"
        )),
        Err(error) => Err(format!(
            "annotation {STRATEGY_SETTINGS} must be a JSON object: {error}"
        )),
    }
}

/// On a MachineDeployment: name of the plugin that plans its rollouts, instead of the one for its `rollout.strategy.type`.
pub const STRATEGY: &str = "capstan.dev/upgrade-strategy";

/// On a MachineDeployment: settings for that plugin, a JSON object.
pub const STRATEGY_SETTINGS: &str = "capstan.dev/upgrade-strategy-settings";
