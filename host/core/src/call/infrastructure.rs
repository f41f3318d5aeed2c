//! Infrastructure calls: `wit/v0.1/infrastructure.wit`.

use serde_json::Value;

use super::{Context, Deletion, Endpoint, Extra, PluginCondition, Progress, SecretHandle, State};

/// Input of `ensure-cluster` and `delete-cluster`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterInput {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Value,
    /// The infrastructure cluster.
    pub infra_cluster: Value,
    /// What the last answer kept.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}

/// A failure domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureDomain {
    /// Unique within the cluster.
    pub name: String,
    /// Suited for control-plane machines.
    pub control_plane: bool,
    /// Free attributes.
    pub attributes: Vec<(String, String)>,
}

/// Answer of `ensure-cluster`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterAnswer {
    /// Provisioned or waiting.
    pub progress: Progress,
    /// The endpoint that the provider makes.
    pub control_plane_endpoint: Option<Endpoint>,
    /// Failure domains.
    pub failure_domains: Vec<FailureDomain>,
    /// The provider's own status fields.
    pub status: Value,
    /// The provider's own conditions.
    pub conditions: Vec<PluginCondition>,
    /// Kept for the next call.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}

/// Bootstrap data by handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapData {
    /// The bytes, by handle.
    pub data: SecretHandle,
    /// `cloud-config` or `ignition`.
    pub format: String,
}

/// Input of `ensure-machine` and `delete-machine`.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineInput {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Value,
    /// The infrastructure cluster.
    pub infra_cluster: Value,
    /// The Machine.
    pub machine: Value,
    /// The infrastructure machine.
    pub infra_machine: Value,
    /// Where to place it.
    pub failure_domain: Option<String>,
    /// Present for `ensure-machine`.
    pub bootstrap: Option<BootstrapData>,
    /// The whole Cluster is being deleted.
    pub cluster_deleting: bool,
    /// What the last answer kept.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}

/// Answer of `ensure-machine`.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineAnswer {
    /// Provisioned or waiting.
    pub progress: Progress,
    /// Must not change once given.
    pub provider_id: Option<String>,
    /// Type and address.
    pub addresses: Vec<(String, String)>,
    /// Where the machine really is.
    pub failure_domain: Option<String>,
    /// The cloud may take it away at any time.
    pub interruptible: bool,
    /// By when the cloud will take it away, in milliseconds since the Unix epoch.
    pub interruption_deadline_ms: Option<u64>,
    /// The instance's state in the cloud's words.
    pub instance_state: String,
    /// The provider's own status fields.
    pub status: Value,
    /// The provider's own conditions.
    pub conditions: Vec<PluginCondition>,
    /// Kept for the next call.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}

/// Answer of `delete-cluster` and `delete-machine`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeletionAnswer {
    /// Gone or waiting.
    pub deletion: Deletion,
    /// The provider's own status fields.
    pub status: Value,
    /// The provider's own conditions.
    pub conditions: Vec<PluginCondition>,
    /// Kept for the next call.
    pub state: Option<State>,
    /// Room for growth.
    pub extra: Extra,
}
