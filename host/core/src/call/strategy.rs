//! Upgrade strategy calls: `wit/v0.1/upgrade-strategy.wit`.

use serde_json::Value;

use super::{Extra, State, Waiting};

/// A machine as a strategy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFacts {
    /// Name.
    pub name: String,
    /// Since creation.
    pub age_ms: u64,
    /// Condition Ready.
    pub ready: bool,
    /// Condition Available.
    pub available: bool,
    /// Has a deletion timestamp.
    pub deleting: bool,
    /// Not known to be unhealthy.
    pub healthy: bool,
    /// Failure domain.
    pub failure_domain: Option<String>,
    /// Class of scarce capacity.
    pub capacity_class: String,
    /// Selected labels.
    pub labels: Vec<(String, String)>,
    /// Selected annotations.
    pub annotations: Vec<(String, String)>,
}

/// A MachineSet as a strategy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineSetFacts {
    /// Name.
    pub name: String,
    /// Made from the current template.
    pub current: bool,
    /// Revision.
    pub revision: u64,
    /// Since creation.
    pub age_ms: u64,
    /// `spec.replicas`.
    pub desired_replicas: u32,
    /// `status.replicas`.
    pub actual_replicas: u32,
    /// `status.readyReplicas`.
    pub ready_replicas: u32,
    /// `status.availableReplicas`.
    pub available_replicas: u32,
    /// Its machines, by name.
    pub machines: Vec<MachineFacts>,
}

/// All that a strategy may know.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// `namespace/name`.
    pub deployment: String,
    /// Wanted version, or empty.
    pub version: String,
    /// Wanted machines.
    pub replicas: u32,
    /// Resolved.
    pub max_surge: u32,
    /// Resolved.
    pub max_unavailable: u32,
    /// Current first, then older ones, oldest last.
    pub machine_sets: Vec<MachineSetFacts>,
    /// The operator's settings.
    pub settings: Value,
    /// What the last answer kept.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}

/// How many machines a set should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the set.
    pub machine_set: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The set must not make machines.
    pub create_disabled: bool,
}

/// Answer of `plan`, not yet checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Sets that are not named keep their replicas.
    pub targets: Vec<Target>,
    /// Machines to delete first when their set shrinks.
    pub delete_first: Vec<String>,
    /// What the strategy waits for.
    pub waiting: Option<Waiting>,
    /// For the deployment's condition.
    pub message: String,
    /// Kept for the next call.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}
