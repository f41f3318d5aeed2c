//! Bootstrap calls: `wit/v0.1/bootstrap.wit`.

use serde_json::Value;

use super::{Context, Endpoint, Extra, PluginCondition, SecretHandle};

/// What the machine will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first control-plane machine.
    Init,
    /// A further control-plane machine.
    JoinControlPlane,
    /// A worker.
    JoinWorker,
}

/// Input of `requirements` and `render`.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapInput {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Value,
    /// The Machine.
    pub machine: Value,
    /// The bootstrap config.
    pub config: Value,
    /// What the machine will be.
    pub role: Role,
    /// When known.
    pub control_plane_endpoint: Option<Endpoint>,
    /// With a leading v, or empty.
    pub kubernetes_version: String,
    /// With a leading v, or empty.
    pub control_plane_version: String,
    /// Room for growth.
    pub extra: Extra,
}

/// How secret bytes are put into the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// As they are.
    Plain,
    /// Every line preceded by so many spaces.
    Indent(u32),
    /// Standard alphabet, padded.
    Base64,
    /// As the inside of a JSON string, without the line ends at its end.
    JsonString,
    /// As a part of a URL.
    Percent,
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Public text.
    Text(String),
    /// Secret bytes that the host puts in.
    Secret(SecretHandle, SecretEncoding),
}

/// Answer of `render`.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapAnswer {
    /// Joined in order.
    pub parts: Vec<Part>,
    /// `cloud-config` or `ignition`.
    pub format: String,
    /// The provider's own conditions.
    pub conditions: Vec<PluginCondition>,
    /// Room for growth.
    pub extra: Extra,
}
