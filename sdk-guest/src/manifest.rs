//! What a plugin says of itself: name, version, the kinds that it owns, the capabilities that it asks for.

use serde_json::{Value, json};

use crate::answer::each;
use crate::bindings::manifest::exports::capstan::plugin::manifest as wit;
use crate::context::{Extra, write_extra};
use crate::export::Exported;
use crate::schema::{self, Schema};

/// What every plugin has.
pub trait Plugin {
    /// What the plugin is. Called once per digest with every capability denied; must be pure.
    fn manifest() -> Manifest;
}

/// The whole manifest. The host checks it before use.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `<kind>-<name>`, such as `infrastructure-local`: lower case, digits and dashes, at most 63 characters.
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
    /// Room for growth.
    pub extra: Extra,
}

impl Manifest {
    /// A manifest without kinds and capabilities.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            description: String::new(),
            home_page: String::new(),
            kinds: Vec::new(),
            capabilities: Vec::new(),
            extra: Extra::new(),
        }
    }

    /// One sentence.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Where people read more.
    #[must_use]
    pub fn home_page(mut self, url: impl Into<String>) -> Self {
        self.home_page = url.into();
        self
    }

    /// Adds a kind.
    #[must_use]
    pub fn kind(mut self, kind: OwnedKind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Adds a capability that the plugin asks for. Asking is not being granted.
    #[must_use]
    pub fn asks_for(mut self, capability: CapabilityRequest) -> Self {
        self.capabilities.push(capability);
        self
    }
}

/// What objects of an owned kind are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindRole {
    /// What clusters need around their machines.
    InfraCluster,
    /// Template of it.
    InfraClusterTemplate,
    /// A machine.
    InfraMachine,
    /// Template of it.
    InfraMachineTemplate,
    /// What turns a machine into a node.
    BootstrapConfig,
    /// Template of it.
    BootstrapConfigTemplate,
    /// A control plane.
    ControlPlane,
    /// Template of it.
    ControlPlaneTemplate,
}

impl KindRole {
    /// The role's name in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InfraCluster => "infra-cluster",
            Self::InfraClusterTemplate => "infra-cluster-template",
            Self::InfraMachine => "infra-machine",
            Self::InfraMachineTemplate => "infra-machine-template",
            Self::BootstrapConfig => "bootstrap-config",
            Self::BootstrapConfigTemplate => "bootstrap-config-template",
            Self::ControlPlane => "control-plane",
            Self::ControlPlaneTemplate => "control-plane-template",
        }
    }
}

/// A Kubernetes kind that the plugin owns. The host installs its CustomResourceDefinition.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedKind {
    /// What its objects are for.
    pub role: KindRole,
    /// Such as `infrastructure.cluster.x-k8s.io`.
    pub group: String,
    /// Such as `v1beta2`.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Lower case.
    pub plural: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Of `spec` (for a template: of `spec.template.spec`), the provider's own fields only.
    pub spec: Schema,
    /// Of the provider's own fields in `status`.
    pub status: Schema,
    /// Printer columns beside the contract's.
    pub columns: Vec<Column>,
}

/// A printer column for `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Title.
    pub name: String,
    /// JSONPath below the object, such as `.spec.type`.
    pub json_path: String,
    /// `string`, `integer`, `boolean` or `date`.
    pub column_type: String,
    /// 0 is always shown; above 0 only with `-o wide`.
    pub priority: u32,
}

impl OwnedKind {
    /// A kind of version `v1beta2` without fields; its plural is the lower-case kind with an `s`.
    pub fn new(role: KindRole, group: impl Into<String>, kind: impl Into<String>) -> Self {
        let kind = kind.into();
        Self {
            role,
            group: group.into(),
            version: "v1beta2".to_owned(),
            plural: format!("{}s", kind.to_ascii_lowercase()),
            kind,
            short_names: Vec::new(),
            spec: schema::object(),
            status: schema::object(),
            columns: Vec::new(),
        }
    }

    /// Another version than `v1beta2`.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// A plural that is not just an `s` more.
    #[must_use]
    pub fn plural(mut self, plural: impl Into<String>) -> Self {
        self.plural = plural.into();
        self
    }

    /// A short name for kubectl.
    #[must_use]
    pub fn short_name(mut self, name: impl Into<String>) -> Self {
        self.short_names.push(name.into());
        self
    }

    /// Schema of the provider's own spec fields.
    #[must_use]
    pub fn spec(mut self, schema: Schema) -> Self {
        self.spec = schema;
        self
    }

    /// Schema of the provider's own status fields.
    #[must_use]
    pub fn status(mut self, schema: Schema) -> Self {
        self.status = schema;
        self
    }

    /// A column that is always shown.
    #[must_use]
    pub fn column(self, name: &str, json_path: &str, column_type: &str) -> Self {
        self.push_column(name, json_path, column_type, 0)
    }

    /// A column for `-o wide`.
    #[must_use]
    pub fn wide_column(self, name: &str, json_path: &str, column_type: &str) -> Self {
        self.push_column(name, json_path, column_type, 10)
    }

    fn push_column(mut self, name: &str, path: &str, column_type: &str, priority: u32) -> Self {
        self.columns.push(Column {
            name: name.to_owned(),
            json_path: path.to_owned(),
            column_type: column_type.to_owned(),
            priority,
        });
        self
    }
}

/// A capability that the plugin asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct CapabilityRequest {
    /// Name of the interface: `http`.
    pub name: String,
    /// One sentence for the operator who decides.
    pub why: String,
    /// The plugin works without it.
    pub optional: bool,
    /// What to grant, as the entry of `spec.grants` of a Plugin object would say it.
    pub suggestion: Value,
}

impl CapabilityRequest {
    fn named(name: &str, why: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            why: why.into(),
            optional: false,
            suggestion: json!({}),
        }
    }

    /// Asks for `http`.
    pub fn http(why: impl Into<String>) -> Self {
        Self::named("http", why)
    }

    /// Asks for `secret`.
    pub fn secret(why: impl Into<String>) -> Self {
        Self::named("secret", why)
    }

    /// Asks for `workload`.
    pub fn workload(why: impl Into<String>) -> Self {
        Self::named("workload", why)
    }

    /// Asks for `files`.
    pub fn files(why: impl Into<String>) -> Self {
        Self::named("files", why)
    }

    /// The plugin works without it.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// What to grant, as the entry of `spec.grants` of a Plugin object would say it.
    #[must_use]
    pub fn suggest(mut self, suggestion: Value) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl From<OwnedKind> for wit::OwnedKind {
    fn from(kind: OwnedKind) -> Self {
        Self {
            role: kind.role.as_str().to_owned(),
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
            plural: kind.plural,
            short_names: kind.short_names,
            spec_schema: kind.spec.to_json().to_string(),
            status_schema: kind.status.to_json().to_string(),
            columns: each(kind.columns),
        }
    }
}

impl From<Column> for wit::Column {
    fn from(column: Column) -> Self {
        Self {
            name: column.name,
            json_path: column.json_path,
            column_type: column.column_type,
            priority: column.priority,
        }
    }
}

impl From<CapabilityRequest> for wit::CapabilityRequest {
    fn from(request: CapabilityRequest) -> Self {
        Self {
            name: request.name,
            why: request.why,
            optional: request.optional,
            suggestion: request.suggestion.to_string(),
        }
    }
}

impl<T: Plugin> wit::Guest for Exported<T> {
    fn describe() -> wit::Description {
        let manifest = T::manifest();
        wit::Description {
            name: manifest.name,
            version: manifest.version,
            description: manifest.description,
            home_page: manifest.home_page,
            kinds: each(manifest.kinds),
            capabilities: each(manifest.capabilities),
            extra: write_extra(manifest.extra),
        }
    }
}
