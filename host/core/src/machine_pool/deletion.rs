//! The order of a pool's deletion: bootstrap config and infrastructure, then the Nodes of its machines (contract 3.7). What cannot be seen
//! is waited for, never taken for gone.

use std::time::Duration;

use capstan_api::condition::combine::names;
use capstan_api::reason::{common, machine};
use capstan_api::v1beta2::ContractVersionedObjectReference;
use jiff::Timestamp;
use serde_json::Value;

use super::decide::{BATCH, Step};
use super::nodes::NodeDeletion;
use super::observed::Observed;
use crate::cluster::observed::is_deleting_value;
use crate::lookup::Lookup;
use crate::machine::is_controlled_by;
use crate::plan::Plan;
use crate::rollout::count;

/// Nodes that could not be deleted are tried again after this time.
const NODES_RECHECK: Duration = Duration::from_secs(5);

/// What is being deleted is looked at again after this time.
const DELETION_RECHECK: Duration = Duration::from_secs(30);

/// Where a deletion has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Objects that the pool names are still there.
    Objects {
        /// Kind and name of each.
        left: Vec<String>,
        /// Those that are not going yet.
        delete: Vec<ContractVersionedObjectReference>,
    },
    /// It cannot be seen whether they are; why.
    Unseen(String),
    /// Nodes of machines are still there; none while they cannot be seen.
    Nodes(Vec<NodeDeletion>),
    /// Everything is gone.
    Completed,
}

/// Where the deletion has come to.
#[must_use]
pub fn stage(observed: &Observed, now: Timestamp) -> Stage {
    if let Some(stage) = objects(observed) {
        return stage;
    }
    let is_over = gives_up_at(observed).is_some_and(|at| now >= at);
    let status = observed.status();
    if status.node_refs.is_empty() || is_over || !cluster_stays(observed) {
        return Stage::Completed;
    }
    let Some(nodes) = observed.nodes.found() else {
        return Stage::Nodes(Vec::new());
    };
    if nodes.named.is_empty() {
        return Stage::Completed;
    }
    Stage::Nodes(
        nodes
            .named
            .iter()
            .map(|node| NodeDeletion::of(node))
            .collect(),
    )
}

/// What is left of the objects that the pool names. Those of others are left alone, and those that the pool could not be made of.
fn objects(observed: &Observed) -> Option<Stage> {
    let config = observed.config_ref().zip(observed.bootstrap.as_ref());
    let infra = (observed.infra_ref(), &observed.infra);
    let is_refused = observed.refusal().is_some();
    let goes = |object: &Value| {
        is_controlled_by(object, observed.uid()) || (!is_refused && observed.is_own(object))
    };
    let (mut left, mut delete) = (Vec::new(), Vec::new());
    for (reference, seen) in config.into_iter().chain([infra]) {
        match seen {
            Lookup::Missing => {}
            Lookup::Unknown(why) => return Some(Stage::Unseen(why.clone())),
            Lookup::Found(object) if !goes(object) => {}
            Lookup::Found(object) => {
                left.push(format!("{} {}", reference.kind, reference.name));
                delete.extend(is_standing(object).then(|| reference.clone()));
            }
        }
    }
    (!left.is_empty()).then_some(Stage::Objects { left, delete })
}

fn is_standing(object: &Value) -> bool {
    !is_deleting_value(object)
}

/// Whether the workload cluster is there tomorrow: of one that goes, Nodes need not be deleted.
fn cluster_stays(observed: &Observed) -> bool {
    let cluster = observed.cluster.found();
    cluster.is_some_and(|cluster| !count::is_deleting(&cluster.metadata))
}

/// When Nodes are given up; never, without a timeout.
fn gives_up_at(observed: &Observed) -> Option<Timestamp> {
    let deletion = observed.pool.spec.template.spec.deletion.as_ref()?;
    let timeout = deletion.node_deletion_timeout_seconds.filter(|s| *s > 0)?;
    let since = observed.pool.metadata.deletion_timestamp.as_ref()?;
    let timeout = jiff::SignedDuration::from_secs(timeout.into());
    since.0.checked_add(timeout).ok()
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    match stage(observed, now) {
        Stage::Objects { left, delete } => {
            let steps = delete.into_iter().map(Step::Delete).collect();
            Plan::of(steps)
                .waiting(common::WAITING_FOR_INFRASTRUCTURE_DELETION, lines(&left))
                .check_after(DELETION_RECHECK)
        }
        Stage::Unseen(why) => Plan::settled()
            .waiting(common::INTERNAL_ERROR, why)
            .check_after(DELETION_RECHECK),
        Stage::Nodes(mut nodes) => {
            nodes.truncate(BATCH);
            let steps = (!nodes.is_empty()).then_some(Step::DeleteNodes(nodes));
            let left = gives_up_at(observed).map(|at| at.duration_since(now).unsigned_abs());
            let again = left.map_or(NODES_RECHECK, |left| left.min(NODES_RECHECK));
            Plan::of(steps.into_iter().collect())
                .waiting(machine::DELETING_NODE, "the Nodes of the machines")
                .check_after(again)
        }
        Stage::Completed => Plan::settled(),
    }
}

fn lines(left: &[String]) -> String {
    let left: Vec<String> = left.iter().map(|object| format!("* {object}")).collect();
    left.join("\n")
}

impl Stage {
    /// Reason of the condition `Deleting`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Objects { .. } => common::WAITING_FOR_INFRASTRUCTURE_DELETION,
            Self::Unseen(_) => common::INTERNAL_ERROR,
            Self::Nodes(_) => machine::DELETING_NODE,
            Self::Completed => common::DELETION_COMPLETED,
        }
    }

    /// Its message.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Objects { left, .. } => {
                format!("Waiting for these to be deleted:\n{}", lines(left))
            }
            Self::Unseen(why) => format!(
                "Waiting because it cannot be seen whether an object still exists: {why}"
            ),
            Self::Nodes(nodes) if nodes.is_empty() => {
                "Waiting for a connection to the workload cluster, to delete the Nodes of the machines"
                    .to_owned()
            }
            Self::Nodes(nodes) => {
                let all: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                format!("Deleting Nodes {}", names(&all))
            }
            Self::Completed => "Deletion completed".to_owned(),
        }
    }
}
