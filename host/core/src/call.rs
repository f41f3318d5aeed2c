//! What the host asks of plugins and what they answer, in the host's own words.
//!
//! One adapter per WIT version in the engine translates these to and from the records of `wit/`; nothing else knows those.
//! Objects are `serde_json::Value` without `metadata.managedFields`. Answers are untrusted until [`crate::answer`] has
//! checked them.

pub mod bootstrap;
pub mod control_plane;
pub mod hook;
pub mod infrastructure;
pub mod manifest;
pub mod material;
pub mod strategy;

use std::time::Duration;

use serde_json::Value;

/// An opaque blob that the host keeps for a plugin and an object; at most [`STATE_BYTES_MAX`].
pub type State = Vec<u8>;

/// Upper bound of [`State`]: what fits beside an object without making it expensive to watch.
pub const STATE_BYTES_MAX: usize = 64 * 1024;

/// JSON values under names; unknown names are ignored on both sides.
pub type Extra = Vec<(String, Value)>;

/// Whether effects happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Do it.
    #[default]
    Apply,
    /// Record effects and refuse them.
    Plan,
}

/// The same for every call.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Milliseconds since the Unix epoch: the guest's only clock.
    pub now_ms: u64,
    /// How long the call may take.
    pub deadline: Duration,
    /// 1 for the first try.
    pub attempt: u32,
    /// Stable for the object and the operation.
    pub idempotency_key: String,
    /// Apply or plan.
    pub mode: Mode,
    /// `spec.config` of the Plugin object.
    pub config: Value,
    /// Room for growth.
    pub extra: Extra,
}

/// What a plugin's own failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginFailureKind {
    /// Try again.
    Transient,
    /// Until the object changes.
    Terminal,
    /// A grant or a credential is missing.
    Denied,
    /// The plugin does not do this.
    Unsupported,
}

/// The plugin said that it could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct PluginFailure {
    /// What it means.
    pub kind: PluginFailureKind,
    /// CamelCase, the plugin's own.
    pub reason: String,
    /// For a person; quoted and attributed when shown.
    pub message: String,
    /// Not before this time has passed.
    pub retry_after: Option<Duration>,
}

/// Not done yet, and nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// CamelCase, the plugin's own.
    pub reason: String,
    /// What is waited for.
    pub message: String,
    /// Look again after this time at the latest.
    pub check_after: Duration,
}

/// Where an `ensure` has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Done.
    Ready,
    /// Not yet.
    Waiting(Waiting),
}

/// Where a deletion has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Nothing is left.
    Gone,
    /// Not yet.
    Waiting(Waiting),
}

/// A condition of the plugin's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginCondition {
    /// Condition type.
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// CamelCase.
    pub reason: String,
    /// For a person.
    pub message: String,
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// DNS name or IP address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// Refers to secret bytes that stay in the host; means something only within the call whose secret table made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHandle(pub u64);
