//! What a plugin says of itself: `wit/v0.1/manifest.wit`.

use serde_json::Value;

/// Capabilities that everybody has.
pub const HARMLESS: [&str; 3] = ["event", "log", "state"];

/// What a plugin can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginKind {
    /// `infrastructure`
    Infrastructure,
    /// `bootstrap`
    Bootstrap,
    /// `control-plane`
    ControlPlane,
    /// `pre-delete-hook`
    PreDeleteHook,
    /// `upgrade-strategy`
    UpgradeStrategy,
}

impl PluginKind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Infrastructure,
        Self::Bootstrap,
        Self::ControlPlane,
        Self::PreDeleteHook,
        Self::UpgradeStrategy,
    ];

    /// The kind of plugin that owns kinds of this role.
    #[must_use]
    pub fn of_role(role: &str) -> Option<Self> {
        match role {
            "infra-cluster"
            | "infra-cluster-template"
            | "infra-machine"
            | "infra-machine-template" => Some(Self::Infrastructure),
            "bootstrap-config" | "bootstrap-config-template" => Some(Self::Bootstrap),
            "control-plane" | "control-plane-template" => Some(Self::ControlPlane),
            _ => None,
        }
    }

    /// Name of the WIT interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infrastructure => "infrastructure",
            Self::Bootstrap => "bootstrap",
            Self::ControlPlane => "control-plane",
            Self::PreDeleteHook => "pre-delete-hook",
            Self::UpgradeStrategy => "upgrade-strategy",
        }
    }
}

/// A printer column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Title.
    pub name: String,
    /// JSONPath.
    pub json_path: String,
    /// OpenAPI type.
    pub column_type: String,
    /// 0 is always shown.
    pub priority: u32,
}

/// A Kubernetes kind that a plugin owns.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedKind {
    /// `infra-cluster`, `infra-machine-template`, ...
    pub role: String,
    /// API group.
    pub group: String,
    /// CRD version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Lower-case plural.
    pub plural: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Schema of the provider's own spec fields.
    pub spec_schema: Value,
    /// Schema of the provider's own status fields.
    pub status_schema: Value,
    /// Printer columns.
    pub columns: Vec<Column>,
}

/// A capability that a plugin asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct CapabilityRequest {
    /// Name of the interface.
    pub name: String,
    /// For the operator who decides.
    pub why: String,
    /// Works without it.
    pub optional: bool,
    /// Suggested `grants` entry.
    pub suggestion: Value,
}

/// The whole manifest. Checked by the host before use.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `<kind>-<name>`.
    pub name: String,
    /// Semantic version without a leading v.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// URL, or empty.
    pub home_page: String,
    /// Kinds that it owns.
    pub kinds: Vec<OwnedKind>,
    /// What it asks for.
    pub capabilities: Vec<CapabilityRequest>,
}
