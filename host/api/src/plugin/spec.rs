//! What is asked of a plugin: its source, grants, limits and configuration.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grant::PluginGrant;
use super::status::PluginStatus;
use crate::schema;

/// A SHA-256 digest.
const DIGEST: &str = "^sha256:[a-f0-9]{64}$";

/// A key of a ConfigMap or Secret.
pub(super) const DATA_KEY: &str = r"^[-._a-zA-Z0-9]+$";

/// Where a plugin is, what it may do and which limits it has.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "capstan.dev",
    version = "v1alpha1",
    kind = "Plugin",
    plural = "plugins",
    category = "capstan",
    namespaced,
    status = "PluginStatus",
    derive = "PartialEq",
    doc = "A Plugin is a WebAssembly component that provides infrastructure, bootstrap data, control planes, hooks or strategies: where it is, what it may do, and how it is doing.",
    printcolumn(
        name = "Kinds",
        type_ = "string",
        json_path = ".status.roles[*]",
        description = "What the plugin provides"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.manifest.version",
        description = "The plugin's own version"
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".status.activeDigestShort",
        description = "First digits of the digest of the bytes that answer calls"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the plugin answers calls"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it does or does not"
    ),
    printcolumn(
        name = "Calls",
        type_ = "integer",
        json_path = ".status.calls.total",
        description = "Calls of these bytes, counted every few minutes"
    ),
    printcolumn(
        name = "Failures",
        type_ = "integer",
        json_path = ".status.calls.failed",
        description = "Calls that failed because of the plugin"
    ),
    printcolumn(
        name = "Canary",
        type_ = "string",
        json_path = ".status.canary.state",
        priority = 1,
        description = "How the canary is doing"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the Plugin was created"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PluginSpec {
    /// Where the component is.
    pub source: PluginSource,
    /// The only digest that is accepted, as sha256: and 64 hexadecimal digits, of the bytes after
    /// decompression. Any bytes are accepted when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST))]
    pub digest: Option<String>,
    /// What the plugin may use; nothing but the harmless capabilities when it is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["capability"]))]
    pub grants: Vec<PluginGrant>,
    /// Limits of each call and of the plugin as a whole; the host's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<PluginLimits>,
    /// Configuration that the plugin gets with every call, in the plugin's own form. It is no place for secrets.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::any_object")]
    pub config: Map<String, Value>,
    /// A second component for some objects: a new version that is tried, or another one for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<PluginCanary>,
    /// Stops calls to the plugin; its objects stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// A second component of a plugin, with the same name and kinds. It has the grants, limits and configuration of the Plugin. An object
/// is its own when it is in one of the namespaces, or when its Cluster has the labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginCanary {
    /// Where the component is.
    pub source: PluginSource,
    /// The only digest that is accepted, as in spec.digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST))]
    pub digest: Option<String>,
    /// Namespaces whose objects it answers for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Labels of the Clusters whose objects it answers for: all of these with these values.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub match_labels: std::collections::BTreeMap<String, String>,
    /// It answers for all objects from now on. To go back, make it false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promoted: bool,
}

/// Where a component is; exactly one member is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PluginSource {
    /// The component is in a ConfigMap of the Plugin's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// The component is in several ConfigMaps of the Plugin's namespace, one behind the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_parts: Option<ConfigMapPartsSource>,
    /// The component is in a file of the host, below the directory that it was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
    /// The component is in an OCI registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciSource>,
}

/// A component in several ConfigMaps with the labels `capstan.dev/plugin`, `capstan.dev/plugin-part` (from 0) and
/// `capstan.dev/plugin-parts` (how many); it may be compressed as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapPartsSource {
    /// Value of the label `capstan.dev/plugin`; name of the Plugin when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub plugin: Option<String>,
}

/// A component in a file; it may be compressed with gzip or zstd. A signature is in the file of the same name with `.sig` behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileSource {
    /// Path below the host's directory of plugins.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

/// A component in an OCI registry, as `wkg oci push` puts it there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciSource {
    /// Registry, repository, and a tag or a digest: `registry.example.com/team/plugin:1.2.3`. A tag is looked up every five
    /// minutes; status.source.resolved says what it meant.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Name of a Secret of the type kubernetes.io/dockerconfigjson in the Plugin's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub pull_secret: Option<String>,
    /// Certificates, in PEM, that are trusted for the registry instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// Speak to the registry without TLS. Logins and components can be read and changed on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "plainHTTP")]
    pub plain_http: Option<bool>,
}

/// A component in a ConfigMap; it may be compressed with gzip or zstd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
    /// Key in the ConfigMap's binaryData; the only one when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: Option<String>,
}

/// Limits of a plugin. What is above the host's ceiling counts as the ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct PluginLimits {
    /// Bytes of memory that a call may use, 1 MiB to 256 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576_i64, max = 268_435_456_i64))]
    pub memory_bytes: Option<i64>,
    /// Milliseconds of processor time that a call may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub cpu_ms: Option<i32>,
    /// Milliseconds that a call may take, with all its requests. The host gives everything that it does about an object two minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub wall_ms: Option<i32>,
    /// How many calls may run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<i32>,
    /// How many HTTP requests a call may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub http_calls: Option<i32>,
    /// Bytes of the body of one HTTP request or answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub http_body_bytes: Option<i32>,
    /// Bytes that a call may write to the host's log; what is over that is dropped and counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub log_bytes: Option<i32>,
    /// Bytes of one answer of the plugin, as JSON; what is over that is refused whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub answer_bytes: Option<i32>,
    /// Bytes of the state that the plugin may have kept for an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_536))]
    pub state_bytes: Option<i32>,
}
