//! MachineHealthCheck: which Machines are unhealthy, whether so many may be replaced, and who is asked to replace them.
//!
//! Contract: upstream `internal/controllers/machinehealthcheck`, contract 3.6.

pub mod decide;
pub mod limit;
pub mod report;
pub mod verdict;

use std::sync::Arc;

use capstan_api::v1beta2::{Cluster, Machine, MachineHealthCheck};
use capstan_api::{annotation, label};
use serde_json::Value;

pub use decide::{Mark, Request, Step, decide};
pub use report::{Reported, report};
pub use verdict::Verdict;

use crate::lookup::Lookup;
use crate::rollout::count::{has_annotation, is_deleting, label as label_of, name};
use crate::selector::selects;

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The health check.
    pub check: MachineHealthCheck,
    /// Its Cluster.
    pub cluster: Lookup<Cluster>,
    /// Whether the workload cluster's Nodes can be seen; `Err` says why they cannot.
    pub nodes: Result<(), String>,
    /// The Machines that it checks, by name.
    pub targets: Vec<Target>,
    /// The template of external requests; `None` when owners replace Machines.
    pub template: Option<Lookup<Arc<Value>>>,
}

/// A Machine that is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The Machine.
    pub machine: Arc<Machine>,
    /// The Node that its status names; `None` when it names none.
    pub node: Option<Lookup<Arc<Value>>>,
    /// The external request of its name; Missing when owners replace Machines.
    pub request: Lookup<Arc<Value>>,
    /// Other health checks that select it, by name.
    pub also: Vec<String>,
    /// Among several health checks of this Machine, this one acts on it.
    pub acts: bool,
}

impl Target {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        name(&self.machine.metadata)
    }
}

impl Observed {
    /// Why nothing can be said about the Machines now; `None` when something can.
    #[must_use]
    pub fn blind(&self) -> Option<&str> {
        match (&self.cluster, &self.nodes) {
            (Lookup::Missing, _) => Some("the Cluster does not exist"),
            (Lookup::Unknown(why), _) => Some(why),
            (Lookup::Found(_), Err(why)) => Some(why),
            (Lookup::Found(_), Ok(())) => None,
        }
    }

    /// Whether the check itself is being deleted: nothing is begun any more.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        is_deleting(&self.check.metadata)
    }
}

/// Whether a health check is about a Machine: of its Cluster, selected, and neither paused nor left out by annotation. A
/// selector that is empty or cannot be read selects nothing.
#[must_use]
pub fn is_target(check: &MachineHealthCheck, machine: &Machine) -> bool {
    let metadata = &machine.metadata;
    let cluster = Some(check.spec.cluster_name.as_str());
    let selector = &check.spec.selector;
    let is_empty = selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty);
    metadata.namespace == check.metadata.namespace
        && label_of(metadata, label::CLUSTER_NAME) == cluster
        && !is_empty
        && selects(selector, &metadata.labels.clone().unwrap_or_default()).unwrap_or(false)
        && !has_annotation(metadata, annotation::PAUSED)
        && !has_annotation(metadata, annotation::SKIP_REMEDIATION)
}

/// Which of several health checks acts on a Machine that all select: the one that was there first, then the first by name.
#[must_use]
pub fn acting<'a>(
    checks: impl IntoIterator<Item = &'a MachineHealthCheck>,
) -> Option<&'a MachineHealthCheck> {
    checks.into_iter().min_by_key(|check| {
        (
            check.metadata.creation_timestamp.as_ref().map(|t| t.0),
            name(&check.metadata),
        )
    })
}

#[cfg(test)]
mod tests;
