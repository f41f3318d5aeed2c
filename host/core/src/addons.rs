//! ClusterResourceSet: which manifests are applied to which workload clusters, in which order, and what became of them (contract:
//! upstream `internal/controllers/clusterresourceset`, contract 3.8).

pub mod binding;
pub mod content;
pub mod decide;
pub mod drift;
pub mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::addons::{
    ClusterResourceSet, ClusterResourceSetBinding, ClusterResourceSetStrategy, DRIFT,
    DRIFT_CHECK_SECONDS, PRUNE, ResourceRef, WAIT,
};
use jiff::Timestamp;
use serde_json::Value;

pub use content::{Content, ObjectRef};
pub use decide::{Item, Step, Sync, decide};
pub use report::{Reported, report};

use crate::lookup::Lookup;
use crate::rollout::count::annotation;

/// How many seconds pass between two looks for drift.
const DRIFT_EVERY_S: u64 = 300;

/// The fewest: each look is one request for each object.
const DRIFT_EVERY_S_MIN: u64 = 5;

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The ClusterResourceSet.
    pub set: ClusterResourceSet,
    /// Clusters that it selects and that are not being deleted, by name.
    pub clusters: Vec<ClusterSeen>,
    /// Its resources, in their order.
    pub resources: Vec<ResourceSeen>,
    /// Bindings of its namespace that have an entry of it, or it as an owner.
    pub bindings: Vec<ClusterResourceSetBinding>,
}

/// A selected Cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSeen {
    /// Name.
    pub name: String,
    /// Why there is no connection, when there is none.
    pub not_connected: Option<String>,
    /// What the host did there last, in this process.
    pub memory: Arc<Memory>,
}

/// What the host did in one cluster for one ClusterResourceSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When all objects were looked at last.
    pub checked: Option<Timestamp>,
    /// When something was last tried.
    pub tried: Option<Timestamp>,
    /// What became of each resource.
    pub results: BTreeMap<ResourceRef, ItemResult>,
}

/// What became of one resource in one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemResult {
    /// Digest of the content that this is about.
    pub hash: String,
    /// What could not be applied, one sentence each.
    pub errors: Vec<String>,
    /// What is not ready yet.
    pub not_ready: Vec<String>,
    /// What somebody changed.
    pub drift: Vec<String>,
    /// When applying it was tried, if it was this time.
    pub applied: Option<Timestamp>,
}

/// A resource of the set.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSeen {
    /// Its name.
    pub reference: ResourceRef,
    /// What it holds.
    pub held: Lookup<Held>,
}

/// What a ConfigMap or Secret holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its metadata.
    pub metadata: Value,
    /// A Secret of another type than that of resources.
    pub wrong_type: Option<String>,
    /// The manifests.
    pub content: Result<Content, String>,
}

impl Observed {
    /// Name of the set.
    #[must_use]
    pub fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    /// UID of the set.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.set.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether the set is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.set.metadata.deletion_timestamp.is_some()
    }

    /// Whether changes are applied.
    #[must_use]
    pub fn reconciles(&self) -> bool {
        self.set.spec.strategy == Some(ClusterResourceSetStrategy::Reconcile)
    }

    /// Whether each resource is waited for.
    #[must_use]
    pub fn waits(&self) -> bool {
        annotation(&self.set.metadata, WAIT) == Some("true")
    }

    /// Whether what is no longer in any resource is deleted.
    #[must_use]
    pub fn prunes(&self) -> bool {
        self.reconciles() && annotation(&self.set.metadata, PRUNE) == Some("true")
    }

    /// Whether drift is looked for, and corrected.
    #[must_use]
    pub fn drift(&self) -> Option<Drift> {
        match annotation(&self.set.metadata, DRIFT) {
            Some("Report") => Some(Drift::Report),
            Some("Correct") => Some(Drift::Correct),
            _ => None,
        }
    }

    /// How long objects are believed to be what was applied: they are read one by one.
    #[must_use]
    pub fn drift_every(&self) -> Duration {
        let seconds = annotation(&self.set.metadata, DRIFT_CHECK_SECONDS);
        let seconds = seconds.and_then(|seconds| seconds.parse().ok());
        Duration::from_secs(seconds.unwrap_or(DRIFT_EVERY_S).max(DRIFT_EVERY_S_MIN))
    }
}

/// What happens with objects that somebody changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The status names them.
    Report,
    /// They are applied again.
    Correct,
}

#[cfg(test)]
mod tests;
