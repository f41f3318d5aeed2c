//! What should happen with a MachineSet next.

use std::time::Duration;

use capstan_api::v1beta2::{ContractVersionedObjectReference, MachineSetDeletionOrder};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::desired::{self, Change, Completion, MakeError, NewMachine};
use super::observed::Observed;
use super::preflight;
use super::priority::ranked;
use super::remediation::{Remediation, remediations};
use crate::clone::{kind_of_template, owner_patch};
use crate::naming::Endings;
use crate::plan::{Next, Plan};
use crate::rollout::count::{is_deleting, name};
use crate::rollout::limits::default_replicas;
use crate::rollout::merge;

/// How many machines are made in one plan; the next plan goes on as soon as these are there.
pub const CREATE_MAX: usize = 50;

/// How soon failed preflight checks and missing templates are looked at again.
const RECHECK: Duration = Duration::from_secs(15);

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Merge patch of the set: selector, template labels and replicas that every set has.
    PatchSet(Value),
    /// Make the Cluster an owner of a template.
    OwnTemplate {
        /// The template.
        reference: ContractVersionedObjectReference,
        /// Merge patch.
        patch: Value,
    },
    /// Adopt Machines and change them in place.
    Change(Vec<Change>),
    /// Make objects that Machines lack.
    Complete(Vec<Completion>),
    /// Make Machines.
    Create(Vec<NewMachine>),
    /// Say to unhealthy Machines what becomes of them, and delete those that are replaced now.
    Remediate(Vec<Remediation>),
    /// Delete Machines, by name.
    Delete(Vec<String>),
}

/// What keeps machines from being made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocked {
    /// One sentence each.
    pub because: Vec<String>,
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    let mut steps = Vec::new();
    if observed.is_deleting() {
        let left: Vec<String> = observed
            .machines
            .iter()
            .filter(|seen| !seen.is_deleting())
            .map(|seen| seen.name().to_owned())
            .collect();
        if !left.is_empty() {
            steps.push(Step::Delete(left));
        }
        return Plan::of(steps);
    }
    steps.extend(own_selector(observed).map(Step::PatchSet));
    steps.extend(own_templates(observed));
    let remediations = remediations(observed, now);
    if !remediations.machines.is_empty() {
        steps.push(Step::Remediate(remediations.machines));
    }
    let mut next = remediations.recheck.map_or(Next::Settled, Next::CheckAfter);
    let changes: Vec<Change> = observed
        .machines
        .iter()
        .filter_map(|seen| desired::in_place(observed, seen))
        .collect();
    if !changes.is_empty() {
        steps.push(Step::Change(changes));
    }
    let completions: Vec<Completion> = observed
        .machines
        .iter()
        .filter_map(|seen| desired::completion(observed, seen))
        .collect();
    if !completions.is_empty() {
        steps.push(Step::Complete(completions));
    }
    let Some(wanted) = wanted(observed) else {
        return Plan {
            next,
            ..Plan::of(steps)
        };
    };
    if observed.machines.len() < wanted {
        match new_machines(observed, wanted.saturating_sub(observed.machines.len())) {
            Ok(made) if made.is_empty() => {}
            Ok(made) => steps.push(Step::Create(made)),
            Err(_) => next = Next::CheckAfter(RECHECK),
        }
    } else {
        let surplus = surplus(observed, wanted, now);
        if !surplus.is_empty() {
            steps.push(Step::Delete(surplus));
        }
    }
    Plan {
        next,
        ..Plan::of(steps)
    }
}

/// `spec.replicas`; `None` while it is not set.
#[must_use]
pub fn wanted(observed: &Observed) -> Option<usize> {
    observed
        .set
        .spec
        .replicas
        .and_then(|replicas| usize::try_from(replicas).ok())
}

/// What keeps machines from being made; empty when nothing does.
#[must_use]
pub fn blocked(observed: &Observed) -> Vec<String> {
    let mut because = observed.missing_templates();
    if because.is_empty() {
        because = preflight::failures(observed);
    }
    if because.is_empty()
        && let Err(error) = desired::new_machine(observed, &mut Endings::new(observed.seed))
    {
        because.push(error.to_string());
    }
    because
}

fn new_machines(observed: &Observed, missing: usize) -> Result<Vec<NewMachine>, Blocked> {
    if observed.is_create_disabled() {
        return Ok(Vec::new());
    }
    let because = blocked(observed);
    if !because.is_empty() {
        return Err(Blocked { because });
    }
    let mut endings = Endings::new(observed.seed);
    let made: Result<Vec<NewMachine>, MakeError> = (0..missing.min(CREATE_MAX))
        .map(|_| desired::new_machine(observed, &mut endings))
        .collect();
    made.map_err(|error| Blocked {
        because: vec![error.to_string()],
    })
}

/// Machines that are too many and not going yet.
fn surplus(observed: &Observed, wanted: usize, now: Timestamp) -> Vec<String> {
    let order = observed
        .set
        .spec
        .deletion
        .as_ref()
        .and_then(|deletion| deletion.order);
    let order = order.unwrap_or(MachineSetDeletionOrder::Random);
    let too_many = observed.machines.len().saturating_sub(wanted);
    ranked(observed.bare_machines(), &order, now)
        .into_iter()
        .take(too_many)
        .filter(|machine| !is_deleting(&machine.metadata))
        .map(|machine| name(&machine.metadata).to_owned())
        .collect()
}

/// Selector, template labels and replicas as every set has them.
fn own_selector(observed: &Observed) -> Option<Value> {
    let labels = observed.selector_labels();
    let replicas = observed.set.spec.replicas;
    let desired = json!({"spec": {
        "replicas": replicas.unwrap_or_else(|| default_replicas(&observed.set.metadata)),
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}},
    }});
    merge::patch(
        &serde_json::to_value(&observed.set).unwrap_or_default(),
        &desired,
    )
}

/// Templates that the Cluster does not own yet.
fn own_templates(observed: &Observed) -> Vec<Step> {
    let Some(cluster) = observed.cluster.found() else {
        return Vec::new();
    };
    let steps = observed
        .templates()
        .into_iter()
        .filter_map(|(reference, seen)| {
            kind_of_template(&reference.kind)?;
            let patch = owner_patch(seen.found()?, cluster)?;
            Some(Step::OwnTemplate {
                reference: reference.clone(),
                patch,
            })
        });
    steps.collect()
}
