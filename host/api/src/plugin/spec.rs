//! What is asked of a plugin: its source, grants, limits and configuration.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::status::PluginStatus;
use crate::schema::{self, string_enum};

/// A SHA-256 digest.
const DIGEST: &str = "^sha256:[a-f0-9]{64}$";

/// Name of a capability: words of lower case letters, joined by `-`.
const CAPABILITY: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

/// A key of a ConfigMap or Secret.
const DATA_KEY: &str = r"^[-._a-zA-Z0-9]+$";

/// Scheme, host (perhaps with `*.` before it) and port of an origin.
const ORIGIN: &str =
    r"^https?://(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$";

/// A name of an HTTP header.
const HEADER: &str = "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$";

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
        json_path = ".status.roles",
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
    /// Stops calls to the plugin; its objects stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Where a component is; exactly one member is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PluginSource {
    /// The component is in a ConfigMap of the Plugin's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
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

/// Permission to use one capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.http) || self.capability == 'http'", "message": "http belongs to the grant of capability http", "fieldPath": ".http"},
    {"rule": "!has(self.credentials) || self.capability == 'credentials' || self.capability == 'http'", "message": "credentials belong to the grant of capability credentials or http", "fieldPath": ".credentials"},
]))]
pub struct PluginGrant {
    /// Name of the capability.
    #[schemars(length(min = 1, max = 63), regex(pattern = CAPABILITY))]
    pub capability: String,
    /// Where the plugin may send HTTP requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpGrant>,
    /// Secrets that the host puts into the plugin's requests; the plugin never sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<CredentialGrant>,
}

/// Where a plugin may send HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGrant {
    /// Origins that the plugin may talk to.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["origin"]))]
    pub origins: Vec<OriginGrant>,
}

/// One origin that a plugin may talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginGrant {
    /// Scheme, host and port, such as http://127.0.0.1:3000 or https://*.example.org; *. stands for
    /// one or more labels.
    #[schemars(length(min = 1, max = 512), regex(pattern = ORIGIN))]
    pub origin: String,
    /// Methods that are allowed; all of them when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 16), regex(pattern = "^[A-Z]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub methods: Vec<String>,
    /// Whether the host may resolve to an address that is not public (private, loopback, link-local).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
    /// Certificates, in PEM, that are trusted for this origin instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
}

string_enum! {
    /// How a secret is put into a request.
    pub enum CredentialScheme {
        /// `Authorization: Bearer <secret>`.
        Bearer = "Bearer",
        /// `Authorization: Basic <secret>`; the secret is user and password joined by a colon.
        Basic = "Basic",
        /// The secret is the value of a header that is named.
        Header = "Header",
    }
}

/// A secret that the host puts into a plugin's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(self.scheme == 'Header') == has(self.header)", "message": "header is set if and only if scheme is Header", "fieldPath": ".header"},
]))]
pub struct CredentialGrant {
    /// Name by which the plugin refers to the credential.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub name: String,
    /// Where the secret is.
    pub secret_ref: SecretKeyRef,
    /// How the secret is put into a request: Bearer, Basic, or Header with a name of its own.
    pub scheme: CredentialScheme,
    /// Name of the header, for scheme Header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER))]
    pub header: Option<String>,
    /// Origins that the secret may be sent to; each must be granted.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 512), regex(pattern = ORIGIN)), extend("x-kubernetes-list-type" = "set"))]
    pub origins: Vec<String>,
}

/// A key of a Secret in the Plugin's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
    /// Key in the Secret's data.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// Limits of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct PluginLimits {
    /// Bytes of memory that a call may use, 1 MiB to 1 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576_i64, max = 1_073_741_824_i64))]
    pub memory_bytes: Option<i64>,
    /// Milliseconds of processor time that a call may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub cpu_ms: Option<i32>,
    /// Milliseconds that a call may take, with all its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub wall_ms: Option<i32>,
    /// How many calls may run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<i32>,
    /// How many HTTP requests a call may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub http_calls: Option<i32>,
}
