//! What should happen with a MachinePool next.

use std::time::Duration;

use capstan_api::label;
use capstan_api::reason::{common, machine_pool as reason};
use capstan_api::v1beta2::{API_VERSION, ContractVersionedObjectReference};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::nodes::{self, NodeDeletion, NodePatch};
use super::observed::{Observed, text};
use super::{deletion, machines};
use crate::cluster::observed::is_deleting_value;
use crate::lookup::Lookup;
use crate::machine::report::TURN_RECHECK;
use crate::machine::{created_secret, is_controlled_by};
use crate::machine_set::remediation::Remediation;
use crate::plan::{Next, Outcome, Plan};

/// How soon an object that is not there, and Nodes that have not come, are looked for again (upstream: 30 s).
const RECHECK: Duration = Duration::from_secs(30);

/// Objects that one step writes; the next plan goes on.
pub const BATCH: usize = 100;

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the pool the controller of an object that it names: merge patch.
    Own {
        /// The object.
        reference: ContractVersionedObjectReference,
        /// Merge patch.
        patch: Value,
    },
    /// Merge patch of the pool's own spec.
    PatchPool(Value),
    /// Apply Machines, by server-side apply.
    ApplyMachines(Vec<Value>),
    /// Say to Machines that they are given up, and delete them.
    Remediate(Vec<Remediation>),
    /// Delete Machines whose machine is gone, by name.
    DeleteMachines(Vec<String>),
    /// Write onto Nodes whose they are.
    PatchNodes(Vec<NodePatch>),
    /// Delete Nodes whose machine is gone.
    DeleteNodes(Vec<NodeDeletion>),
    /// Delete an object that the pool names.
    Delete(ContractVersionedObjectReference),
}

/// What a step answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing to say.
    Done,
    /// To `PatchNodes` and `DeleteNodes`: some are left, other Nodes of the cluster have their turn now.
    NotItsTurn,
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if observed.is_deleting() {
        return deletion::decide(observed, now);
    }
    if let Some(why) = observed.refusal() {
        return Plan::settled().waiting(reason::REFERENCE_NOT_SUPPORTED, why);
    }
    let mut plan = Plan::settled();
    let config = observed.config_ref().zip(observed.config());
    let infra = Some(observed.infra_ref()).zip(observed.infra.found());
    for (reference, object) in config.into_iter().chain(infra) {
        if let Some(patch) = ownership_patch(observed, object) {
            let reference = reference.clone();
            plan.steps.push(Step::Own { reference, patch });
        }
    }
    plan.steps.extend(spec_patch(observed).map(Step::PatchPool));
    let changes = machines::changes(observed, now);
    let mut is_more = false;
    plan.steps
        .extend(some(changes.apply, &mut is_more).map(Step::ApplyMachines));
    plan.steps
        .extend(some(changes.remediate, &mut is_more).map(Step::Remediate));
    plan.steps
        .extend(some(changes.delete, &mut is_more).map(Step::DeleteMachines));
    plan.steps
        .extend(some(nodes::patches(observed), &mut is_more).map(Step::PatchNodes));
    plan.steps
        .extend(some(nodes::gone(observed), &mut is_more).map(Step::DeleteNodes));
    if is_more {
        return plan.check_after(Duration::ZERO);
    }
    let is_missing =
        observed.infra.is_missing() || observed.bootstrap.as_ref().is_some_and(Lookup::is_missing);
    let ids = observed.provider_ids().unwrap_or_default();
    let lacks_nodes = ids.iter().any(|id| observed.node(id).is_none());
    if let Lookup::Unknown(why) = &observed.nodes {
        plan = plan.waiting(common::CONNECTION_DOWN, why.clone());
    }
    if is_missing || lacks_nodes {
        plan = plan.check_after(RECHECK);
    }
    plan
}

/// The first of many, and whether there are more.
fn some<T>(mut all: Vec<T>, is_more: &mut bool) -> Option<Vec<T>> {
    *is_more |= all.len() > BATCH;
    all.truncate(BATCH);
    (!all.is_empty()).then_some(all)
}

/// Whether what was done has changed the pool itself: the status of the changed one is written, once.
#[must_use]
pub fn reports_next_time(outcome: &Outcome<Step, Effect>) -> bool {
    let is_own = |(step, _): &(Step, Effect)| matches!(step, Step::PatchPool(_));
    outcome.done.iter().any(is_own)
}

/// When Nodes whose turn has not come are looked at again.
#[must_use]
pub fn until_turn(outcome: &Outcome<Step, Effect>) -> Option<Next> {
    let mut effects = outcome.done.iter().map(|(_, effect)| *effect);
    effects
        .any(|effect| effect == Effect::NotItsTurn)
        .then_some(Next::CheckAfter(TURN_RECHECK))
}

/// The merge patch that makes the pool the controller of an object and gives it the Cluster's label; `None` when it has both.
fn ownership_patch(observed: &Observed, object: &Value) -> Option<Value> {
    if is_deleting_value(object) {
        return None;
    }
    let cluster = &observed.pool.spec.cluster_name;
    let labels = object.pointer("/metadata/labels");
    let is_labelled =
        labels.and_then(|labels| labels.get(label::CLUSTER_NAME)) == Some(&json!(cluster));
    if is_labelled && is_controlled_by(object, observed.uid()) {
        return None;
    }
    let mut owners: Vec<Value> = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    owners.retain(|owner| text(owner, "/uid") != Some(observed.uid()));
    owners.push(controller_reference(observed));
    Some(json!({"metadata": {
        "resourceVersion": text(object, "/metadata/resourceVersion").unwrap_or_default(),
        "labels": {label::CLUSTER_NAME: cluster},
        "ownerReferences": owners,
    }}))
}

/// An owner reference to the pool as the managing controller.
pub(super) fn controller_reference(observed: &Observed) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "MachinePool",
        "name": observed.pool.metadata.name.as_deref().unwrap_or_default(),
        "uid": observed.uid(), "controller": true, "blockOwnerDeletion": true,
    })
}

/// The merge patch of the pool's spec, if it differs: the name of the Secret with the data, read anew each time, and the provider IDs.
fn spec_patch(observed: &Observed) -> Option<Value> {
    let spec = &observed.pool.spec;
    let mut patch = Map::new();
    if let Some(name) = observed.config().and_then(|config| created_secret(config))
        && spec.template.spec.bootstrap.data_secret_name.as_deref() != Some(name)
    {
        let bootstrap = json!({"dataSecretName": name});
        patch.insert(
            "template".to_owned(),
            json!({"spec": {"bootstrap": bootstrap}}),
        );
    }
    if let Some(ids) = observed.provider_ids()
        && spec.provider_id_list != ids
    {
        let ids = if ids.is_empty() {
            Value::Null
        } else {
            json!(ids)
        };
        patch.insert("providerIDList".to_owned(), ids);
    }
    (!patch.is_empty()).then(|| json!({ "spec": patch }))
}
