//! Pre-delete hook calls: `wit/v0.1/pre-delete-hook.wit`.

use serde_json::Value;

use super::{Context, Extra, Waiting};

/// When the hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before cordon and drain.
    PreDrain,
    /// After drain and volume detachment.
    PreTerminate,
}

/// Input of `run`.
#[derive(Clone, Debug, PartialEq)]
pub struct HookInput {
    /// The same for every call.
    pub context: Context,
    /// When it runs.
    pub phase: Phase,
    /// The Machine.
    pub machine: Value,
    /// The Cluster.
    pub cluster: Value,
    /// The Node, when reachable.
    pub node: Option<Value>,
    /// The whole Cluster is being deleted.
    pub cluster_deleting: bool,
    /// When the hook first ran, in milliseconds since the Unix epoch.
    pub first_run_ms: u64,
    /// The operator's settings.
    pub settings: Value,
    /// Room for growth.
    pub extra: Extra,
}

/// Answer of `run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The machine may go on.
    Proceed,
    /// Not yet.
    Waiting(Waiting),
}
