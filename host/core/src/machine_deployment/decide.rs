//! What should happen with a MachineDeployment next.

use std::time::Duration;

use capstan_api::annotation;
use capstan_api::v1beta2::ContractVersionedObjectReference;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::desired;
use super::observed::{Current, Observed};
use super::verdict::{Verdict, verdict};
use crate::clone::kind_of_template;
use crate::plan::{Next, Plan, STEPS_MAX};
use crate::rollout::check::Checked;
use crate::rollout::count::{
    annotation as annotation_of, has_annotation, is_available, is_deleting, name,
};
use crate::rollout::extra::Memory;
use crate::rollout::limits;

/// Bounds of how soon a waiting strategy is asked again.
const RECHECK_MIN: Duration = Duration::from_secs(1);
const RECHECK_MAX: Duration = Duration::from_secs(600);

/// Value of the annotation that makes machines go first when it is set for a strategy. People's marks, of any other value, stay.
const MARK: &str = "upgrade-strategy";

/// A strategy that failed is asked again after this time.
const STRATEGY_RETRY: Duration = Duration::from_secs(15);

/// A strategy that changes nothing, and does not say what it waits for, is asked again after this time.
const IDLE_RETRY: Duration = Duration::from_secs(60);

/// A missing template is looked for again after this time: its kind may not be watched.
const TEMPLATE_RETRY: Duration = Duration::from_secs(30);

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the Cluster an owner of a template.
    OwnTemplate {
        /// The template.
        reference: ContractVersionedObjectReference,
        /// Merge patch.
        patch: Value,
    },
    /// Merge patch of the deployment itself: its revision, its replicas.
    PatchDeployment(Value),
    /// Keep what the strategy answered for its next call, before anything is scaled.
    KeepState(Memory),
    /// Mark machines, by name, to go first.
    MarkMachines(Vec<String>),
    /// Take the marks of machines, by name, back: they are not to go first any more.
    UnmarkMachines(Vec<String>),
    /// Create the current MachineSet.
    CreateSet(Value),
    /// Change a MachineSet.
    PatchSet {
        /// Its name.
        name: String,
        /// Merge patch.
        patch: Value,
    },
    /// Delete MachineSets.
    DeleteSets(Vec<String>),
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if observed.is_deleting() {
        let left: Vec<String> = observed
            .sets
            .iter()
            .filter(|seen| !seen.is_deleting() && is_controlled(observed, &seen.set.metadata))
            .map(|seen| seen.name().to_owned())
            .collect();
        return if left.is_empty() {
            Plan::settled()
        } else {
            Plan::of(vec![Step::DeleteSets(left)])
        };
    }
    let verdict = verdict(observed, now);
    let mut steps = own_templates(observed);
    if let Some(patch) = own_fields(observed, now) {
        steps.push(Step::PatchDeployment(patch));
    }
    if let Verdict::Accepted(checked) = &verdict {
        steps.extend(memory(observed, checked, now).map(Step::KeepState));
        let unmarked = unmarked(observed, checked.delete_first());
        if !unmarked.is_empty() {
            steps.push(Step::MarkMachines(unmarked));
        }
        let no_longer = no_longer_marked(observed, checked);
        if !no_longer.is_empty() {
            steps.push(Step::UnmarkMachines(no_longer));
        }
        if let Current::New { name } = observed.current(now) {
            steps.push(Step::CreateSet(desired::new_set(
                observed, &name, &verdict, now,
            )));
        }
    }
    steps.extend(patch_sets(observed, &verdict, now));
    let empty = empty_sets(observed, &verdict, now);
    if !empty.is_empty() {
        steps.push(Step::DeleteSets(empty));
    }
    // What does not fit is seen again, because the sets change.
    steps.truncate(STEPS_MAX);
    Plan {
        next: next(observed, &verdict, now),
        ..Plan::of(steps)
    }
}

/// What the strategy wants kept, if that is not what is kept already.
fn memory(observed: &Observed, checked: &Checked, now: Timestamp) -> Option<Memory> {
    let seen = &observed.strategy;
    let revision = observed.revision(now);
    let rolled_back = match checked.roll_back() {
        Some(_) => Some(revision),
        // What was given up stays so until there is another template.
        None => seen.rolled_back.filter(|given_up| *given_up == revision),
    };
    let state = checked.state().cloned().or_else(|| seen.state.clone());
    let differs = state != seen.state || rolled_back != seen.rolled_back;
    differs.then(|| Memory {
        strategy: seen.name.clone(),
        state,
        rolled_back,
    })
}

fn is_controlled(
    observed: &Observed,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    let uid = observed
        .deployment
        .metadata
        .uid
        .as_deref()
        .unwrap_or_default();
    owners
        .into_iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Templates that the Cluster does not own yet.
fn own_templates(observed: &Observed) -> Vec<Step> {
    let Some(cluster) = observed.cluster.found() else {
        return Vec::new();
    };
    let steps = observed.templates.iter().filter_map(|seen| {
        kind_of_template(&seen.reference.kind)?;
        let patch = crate::clone::owner_patch(seen.object.found()?, cluster)?;
        Some(Step::OwnTemplate {
            reference: seen.reference.clone(),
            patch,
        })
    });
    steps.collect()
}

/// The revision of the current set, mirrored on the deployment, and its replicas where admission did not fill them in.
fn own_fields(observed: &Observed, now: Timestamp) -> Option<Value> {
    let metadata = &observed.deployment.metadata;
    let mut patch = Map::new();
    if observed.deployment.spec.replicas.is_none() {
        patch.insert(
            "spec".to_owned(),
            json!({"replicas": limits::default_replicas(metadata)}),
        );
    }
    let revision = observed.revision(now).to_string();
    let is_made = observed.existing_current(now).is_some() || !observed.is_paused();
    if is_made && annotation_of(metadata, annotation::REVISION) != Some(&revision) {
        let mut annotations = Map::new();
        annotations.insert(annotation::REVISION.to_owned(), json!(revision));
        patch.insert("metadata".to_owned(), json!({"annotations": annotations}));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Of these machines, those that are not marked yet.
fn unmarked(observed: &Observed, machines: &[String]) -> Vec<String> {
    let marked = |wanted: &str| {
        observed.machines().iter().any(|machine| {
            name(&machine.metadata) == wanted
                && has_annotation(&machine.metadata, annotation::DELETE_MACHINE)
        })
    };
    machines
        .iter()
        .filter(|machine| !marked(machine))
        .cloned()
        .collect()
}

/// Machines that were marked for a strategy which names them no longer, and that are available: they would go before others that are not.
/// In a set that has machines to remove the marks stay, since they say which.
fn no_longer_marked(observed: &Observed, checked: &Checked) -> Vec<String> {
    let mut names = Vec::new();
    for seen in &observed.sets {
        let stay = seen
            .machines
            .iter()
            .filter(|machine| !is_deleting(&machine.metadata));
        let target = checked
            .target(seen.name())
            .map_or(0, |target| target.replicas);
        let wanted = usize::try_from(target.min(seen.desired())).unwrap_or(usize::MAX);
        if stay.clone().count() > wanted {
            continue;
        }
        let marked = stay.filter(|machine| {
            let mark = annotation_of(&machine.metadata, annotation::DELETE_MACHINE);
            mark == Some(MARK) && is_available(machine)
        });
        names.extend(marked.map(|machine| name(&machine.metadata).to_owned()));
    }
    names.retain(|name| !checked.delete_first().contains(name));
    names
}

/// Adoption, in-place fields and replicas of existing sets, one patch each: the current set first, then the oldest.
fn patch_sets(observed: &Observed, verdict: &Verdict, now: Timestamp) -> Vec<Step> {
    let sets = observed
        .existing_current(now)
        .into_iter()
        .chain(observed.old_sets(now));
    let steps = sets.filter_map(|seen| {
        let mut patch = desired::set_patch(observed, seen, verdict, now);
        if !is_controlled(observed, &seen.set.metadata) && !seen.is_deleting() {
            let mut owners: Vec<Value> = seen
                .set
                .metadata
                .owner_references
                .iter()
                .flatten()
                .map(|owner| json!(owner))
                .collect();
            owners.push(desired::controller_reference(observed));
            let adoption = json!({"metadata": {
                "ownerReferences": owners, "resourceVersion": seen.set.metadata.resource_version,
            }});
            patch = Some(joined(patch.unwrap_or_else(|| json!({})), adoption));
        }
        Some(Step::PatchSet {
            name: seen.name().to_owned(),
            patch: patch?,
        })
    });
    steps.collect()
}

/// Two merge patches as one.
fn joined(mut one: Value, other: Value) -> Value {
    if let (Some(fields), Some(more)) = (one.as_object_mut(), other.as_object()) {
        for (key, value) in more {
            let before = fields.remove(key).unwrap_or(Value::Null);
            let both = before.is_object() && value.is_object();
            fields.insert(
                key.clone(),
                if both {
                    joined(before, value.clone())
                } else {
                    value.clone()
                },
            );
        }
    }
    one
}

/// Old sets that have nothing any more, once the rollout is complete.
fn empty_sets(observed: &Observed, verdict: &Verdict, now: Timestamp) -> Vec<String> {
    let Some(current) = observed.existing_current(now) else {
        return Vec::new();
    };
    let replicas = limits::replicas(&observed.deployment);
    let complete = *verdict == Verdict::Settled
        && current.available() == replicas
        && current.machines.len() == usize::try_from(replicas).unwrap_or(usize::MAX);
    if !complete {
        return Vec::new();
    }
    let old = observed.old_sets(now);
    let empty = old.iter().filter(|seen| {
        !seen.is_deleting()
            && seen.desired() == 0
            && seen.machines.is_empty()
            && seen
                .set
                .status
                .as_ref()
                .is_none_or(|status| status.replicas.unwrap_or_default() == 0)
    });
    empty.map(|seen| seen.name().to_owned()).collect()
}

fn next(observed: &Observed, verdict: &Verdict, now: Timestamp) -> Next {
    let mut next = match verdict {
        // It may have been a passing mistake, and nothing that is watched will change.
        Verdict::Accepted(checked) if checked.is_idle() => Next::CheckAfter(IDLE_RETRY),
        Verdict::Accepted(checked) => checked.waiting().map_or(Next::Settled, |waiting| {
            Next::CheckAfter(waiting.check_after.clamp(RECHECK_MIN, RECHECK_MAX))
        }),
        Verdict::Failed(failure) => Next::CheckAfter(
            failure
                .retry_after
                .unwrap_or(STRATEGY_RETRY)
                .clamp(RECHECK_MIN, RECHECK_MAX),
        ),
        Verdict::Refused(_) => Next::CheckAfter(STRATEGY_RETRY),
        Verdict::NoTemplate => Next::CheckAfter(TEMPLATE_RETRY),
        _ => Next::Settled,
    };
    if let Some(after) = observed.next_rollout(now) {
        let left = Duration::try_from(after.duration_since(now)).unwrap_or(RECHECK_MAX);
        // A little later, so that it has passed.
        next = next.min(Next::CheckAfter(left.saturating_add(RECHECK_MIN)));
    }
    next
}

/// The merge patch that marks a machine, or takes the mark back.
#[must_use]
pub fn mark_patch(is_marked: bool) -> Value {
    let mut annotations = Map::new();
    let mark = is_marked.then_some(MARK);
    annotations.insert(annotation::DELETE_MACHINE.to_owned(), json!(mark));
    json!({"metadata": {"annotations": annotations}})
}
