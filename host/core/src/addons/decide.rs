//! What should happen next for a ClusterResourceSet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use capstan_api::addons::{ClusterResourceSetBinding, RESOURCE_LABEL, ResourceRef};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::content::ObjectRef;
use super::{ClusterSeen, Content, Drift, Held, Observed, binding};
use crate::lookup::Lookup;
use crate::plan::{Next, Plan, STEPS_MAX};

/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(15);

/// What is not ready is looked at again after this time: its cluster is not watched for it.
const READY_CHECK: Duration = Duration::from_secs(5);

/// A resource that is missing carries no label yet by which its coming would be seen.
const MISSING_CHECK: Duration = Duration::from_secs(15);

/// What happens with the objects of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create what is missing.
    Create,
    /// Create what is missing, change what differs.
    Apply,
    /// Only look.
    Check,
}

/// One resource for one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The resource.
    pub reference: ResourceRef,
    /// Digest of its content.
    pub hash: String,
    /// Its objects, in their order.
    pub objects: Arc<[Value]>,
    /// What happens with them.
    pub action: Action,
}

/// Everything for one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// The Cluster.
    pub cluster: String,
    /// Resources, in their order.
    pub items: Vec<Item>,
    /// What an item made has to be ready before the next one is begun.
    pub waits: bool,
    /// Look for drift.
    pub looks_for_drift: bool,
    /// Objects to delete once all items are applied.
    pub prune: Vec<ObjectRef>,
    /// What is recorded as applied then; `None` when that is not kept.
    pub inventory: Option<Arc<BTreeSet<ObjectRef>>>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the set an owner of a resource, and label it.
    Own {
        /// The resource.
        reference: ResourceRef,
        /// Merge patch.
        patch: Value,
    },
    /// Create the binding of a cluster.
    Bind(Value),
    /// Bring a cluster to what it should have, and record it.
    Sync(Box<Sync>),
    /// Take the set out of a binding; without a patch the binding goes.
    Unbind {
        /// Its name.
        binding: String,
        /// Merge patch.
        patch: Option<Value>,
    },
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if observed.is_deleting() {
        let steps = observed.bindings.iter().map(|binding| Step::Unbind {
            binding: binding.metadata.name.clone().unwrap_or_default(),
            patch: binding::without(observed, binding),
        });
        return Plan::of(steps.take(STEPS_MAX).collect());
    }
    let mut steps: Vec<Step> = observed
        .resources
        .iter()
        .filter_map(|resource| {
            let held = resource.held.found()?;
            Some(Step::Own {
                reference: resource.reference.clone(),
                patch: own(observed, held)?,
            })
        })
        .collect();
    let mut next = Next::Settled;
    if observed.resources.iter().any(|r| r.held.found().is_none()) {
        next = next.min(Next::CheckAfter(MISSING_CHECK));
    }
    let mut clusters: Vec<&ClusterSeen> = observed.clusters.iter().collect();
    // One that takes all of the time there is does so once.
    clusters.sort_by_key(|cluster| cluster.memory.tried);
    let bindings: BTreeMap<&str, &ClusterResourceSetBinding> = observed
        .bindings
        .iter()
        .filter_map(|bound| Some((bound.metadata.name.as_deref()?, bound)))
        .collect();
    let inventory = inventory(observed).map(Arc::new);
    for cluster in clusters {
        // The others have their turn next time.
        if steps.len() > STEPS_MAX {
            break;
        }
        if cluster.not_connected.is_some() {
            continue;
        }
        let bound = bindings.get(&*cluster.name).copied();
        if bound.is_none() {
            steps.push(Step::Bind(binding::new(observed, &cluster.name)));
        }
        match sync(observed, cluster, bound, inventory.as_ref(), now) {
            Ok(Some(sync)) => {
                steps.push(Step::Sync(Box::new(sync)));
                // What comes of it is not known yet.
                next = next.min(Next::CheckAfter(READY_CHECK));
            }
            Ok(None) => {}
            Err(wait) => next = next.min(Next::CheckAfter(wait)),
        }
        if observed.drift().is_some() {
            next = next.min(Next::CheckAfter(observed.drift_every()));
        }
    }
    if steps.len() > STEPS_MAX {
        steps.truncate(STEPS_MAX);
        next = Next::CheckAfter(Duration::from_secs(1));
    }
    Plan {
        next,
        ..Plan::of(steps)
    }
}

/// Owner reference and label of a resource, if it lacks one.
fn own(observed: &Observed, held: &Held) -> Option<Value> {
    let owners = binding::owned(observed, held.metadata.get("ownerReferences"));
    let labels = held.metadata.get("labels");
    let labelled = labels
        .and_then(|labels| labels.get(RESOURCE_LABEL))
        .is_some();
    if owners.is_none() && labelled {
        return None;
    }
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        held.metadata
            .get("resourceVersion")
            .cloned()
            .unwrap_or_default(),
    );
    if let Some(owners) = owners {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    let mut labels = Map::new();
    labels.insert(RESOURCE_LABEL.to_owned(), json!(""));
    metadata.insert("labels".to_owned(), Value::Object(labels));
    Some(json!({"metadata": metadata}))
}

/// The content of a resource, if it may be applied.
#[must_use]
pub fn usable(held: &Lookup<Held>) -> Option<&Content> {
    let held = held.found()?;
    held.content
        .as_ref()
        .ok()
        .filter(|_| held.wrong_type.is_none())
}

/// What one cluster needs now; nothing; or how long to wait before something that failed is tried again.
fn sync(
    observed: &Observed,
    cluster: &ClusterSeen,
    bound: Option<&ClusterResourceSetBinding>,
    inventory: Option<&Arc<BTreeSet<ObjectRef>>>,
    now: Timestamp,
) -> Result<Option<Sync>, Duration> {
    let memory = &cluster.memory;
    let since = |time: Option<Timestamp>| {
        time.and_then(|time| Duration::try_from(now.duration_since(time)).ok())
    };
    let drift_is_due = observed.drift().is_some()
        && since(memory.checked).is_none_or(|age| age >= observed.drift_every());
    let Due {
        items,
        failed,
        unready,
    } = due(observed, cluster, bound, drift_is_due);
    let before = bound.map(|bound| binding::inventory(bound, observed.name()));
    let before = before.unwrap_or_default();
    let prune: Vec<ObjectRef> = match inventory {
        Some(inventory) => before.difference(inventory).cloned().collect(),
        None => Vec::new(),
    };
    let unrecorded = inventory.is_some_and(|inventory| **inventory != before);
    if items.is_empty() && !unrecorded {
        return Ok(None);
    }
    let pause = match (failed, unready) {
        (true, _) => Some(RETRY),
        (false, true) => Some(READY_CHECK),
        (false, false) => None,
    };
    if let (Some(pause), Some(age)) = (pause, since(memory.tried))
        && age < pause
    {
        return Err(pause.saturating_sub(age));
    }
    Ok(Some(Sync {
        cluster: cluster.name.clone(),
        items,
        waits: observed.waits(),
        looks_for_drift: drift_is_due,
        prune,
        inventory: inventory.cloned(),
    }))
}

/// What one cluster needs, whether or not it is time.
#[derive(Default)]
struct Due {
    items: Vec<Item>,
    /// One of them failed last time.
    failed: bool,
    /// One of them was not ready last time.
    unready: bool,
}

fn due(
    observed: &Observed,
    cluster: &ClusterSeen,
    bound: Option<&ClusterResourceSetBinding>,
    drift_is_due: bool,
) -> Due {
    let mut due = Due::default();
    for resource in &observed.resources {
        let Some(content) = usable(&resource.held) else {
            if observed.waits() {
                break;
            }
            continue;
        };
        let reference = &resource.reference;
        let recorded = bound.and_then(|bound| binding::recorded(bound, observed.name(), reference));
        let result = cluster
            .memory
            .results
            .get(reference)
            .filter(|result| result.hash == content.hash);
        let drifted = observed.drift() == Some(Drift::Correct)
            && result.is_some_and(|result| !result.drift.is_empty());
        let needed = drifted
            || recorded.is_none_or(|recorded| {
                !recorded.applied
                    || (observed.reconciles() && recorded.hash.as_ref() != Some(&content.hash))
            });
        let looks = drift_is_due
            || (observed.waits() && result.is_none_or(|result| !result.not_ready.is_empty()));
        let action = match (needed, observed.reconciles() || drifted) {
            (true, true) => Action::Apply,
            (true, false) => Action::Create,
            (false, _) if looks => Action::Check,
            (false, _) => continue,
        };
        due.failed |= result.is_some_and(|result| !result.errors.is_empty());
        due.unready |= result.is_some_and(|result| !result.not_ready.is_empty());
        due.items.push(Item {
            reference: reference.clone(),
            hash: content.hash.clone(),
            objects: Arc::clone(&content.objects),
            action,
        });
    }
    due
}

/// All objects of all resources; `None` when pruning is off, or something could not be seen: then nothing is deleted.
fn inventory(observed: &Observed) -> Option<BTreeSet<ObjectRef>> {
    if !observed.prunes() {
        return None;
    }
    let mut all = BTreeSet::new();
    for resource in &observed.resources {
        let content = usable(&resource.held)?;
        all.extend(content.objects.iter().filter_map(ObjectRef::of));
    }
    (all.len() <= binding::INVENTORY_MAX).then_some(all)
}
