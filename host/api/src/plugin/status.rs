//! How a plugin is doing: which bytes answer calls, what they provide, and what they lack.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::Role;
use crate::schema::{self, string_enum};

/// How a plugin is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Observations about the plugin: Verified, Compiled, Compatible, Granted and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Digest of the bytes that were last found in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub observed_digest: Option<String>,
    /// Digest of the bytes that answer calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub active_digest: Option<String>,
    /// First 12 digits of activeDigest, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12))]
    pub active_digest_short: Option<String>,
    /// What was found in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PluginSourceStatus>,
    /// How the component was compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiled: Option<PluginCompiledStatus>,
    /// What the plugin says about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PluginManifestStatus>,
    /// What the plugin provides, such as infrastructure or bootstrap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub roles: Vec<String>,
    /// The kinds that belong to the plugin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "kind"]))]
    pub kinds: Vec<PluginOwnedKindStatus>,
    /// The capabilities that the plugin asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub capabilities: Vec<PluginCapabilityStatus>,
    /// What the plugin cannot work without and was not granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["capability"]))]
    pub missing_grants: Vec<PluginMissingGrant>,
    /// How the second component of spec.canary is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<PluginCanaryStatus>,
    /// Components that answered calls, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub history: Vec<PluginVersionStatus>,
    /// How many calls there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<PluginCallsStatus>,
    /// The last call that failed because of the plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<PluginLastError>,
}

string_enum! {
    /// How a canary is doing.
    pub enum PluginCanaryState {
        /// It is being loaded, or waits for the component beside it.
        Waiting = "Waiting",
        /// It answers calls about its objects.
        Serving = "Serving",
        /// It answers all calls.
        Promoted = "Promoted",
        /// It failed too often; the component beside it answers for its objects for a while.
        Stopped = "Stopped",
        /// It cannot be used.
        Failed = "Failed",
    }
}

/// How the second component of a plugin is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginCanaryStatus {
    /// Its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Its own version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// Waiting, Serving, Promoted, Stopped or Failed.
    pub state: PluginCanaryState,
    /// Whether it is promoted.
    #[serde(default)]
    pub promoted: bool,
    /// Why it does not serve, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
}

string_enum! {
    /// What became of a component.
    pub enum PluginVersionState {
        /// It answers calls.
        Active = "Active",
        /// Another one took over.
        Replaced = "Replaced",
        /// It failed so often that the one before took over again.
        GivenUp = "GivenUp",
    }
}

/// A component that answered calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginVersionStatus {
    /// Its digest.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// Its own version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// Since when it answered calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Active, Replaced or GivenUp.
    pub state: PluginVersionState,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
}

/// Calls of the component that answers them; the metrics have them exactly, this follows every few minutes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginCallsStatus {
    /// The component.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// When they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_time: Option<Time>,
    /// All calls.
    #[serde(default)]
    pub total: i64,
    /// Those that trapped, took too long or too much memory, or were answered with what is not allowed.
    #[serde(default)]
    pub failed: i64,
}

/// What was found in a plugin's source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginSourceStatus {
    /// Version of the object that holds the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Size of the component in bytes, after decompression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// What a reference to a registry meant: the same repository by a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 640))]
    pub resolved: Option<String>,
    /// Whose signature the component has: where its public key is. Left out when nobody looked or nobody signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub signed_by: Option<String>,
    /// How the bytes were compressed: gzip, zstd, or left out for not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed: Option<String>,
}

/// How a component was compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginCompiledStatus {
    /// When it was compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_time: Option<Time>,
    /// Milliseconds that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Size of the native code in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
}

/// What a plugin says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginManifestStatus {
    /// Name of the plugin.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The plugin's own version.
    #[schemars(length(max = 256))]
    pub version: String,
    /// What it does, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Where its documentation is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub home_page: Option<String>,
    /// Version of the interfaces that it was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub abi: Option<String>,
}

/// A kind that belongs to a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginOwnedKindStatus {
    /// What the kind is for.
    pub role: Role,
    /// API group.
    pub group: String,
    /// Version that is served and stored.
    pub version: String,
    /// Name of the kind.
    pub kind: String,
    /// Name of the kind in addresses.
    pub plural: String,
}

/// A capability that a plugin asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginCapabilityStatus {
    /// Name of the capability.
    pub name: String,
    /// Why the plugin asks for it, in the plugin's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub why: String,
    /// Whether the plugin works without it.
    #[serde(default)]
    pub optional: bool,
    /// Whether it was granted.
    #[serde(default)]
    pub granted: bool,
}

/// Something that a plugin cannot work without and was not granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginMissingGrant {
    /// Name of the capability.
    pub capability: String,
    /// Why the plugin asks for it, in the plugin's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub why: String,
    /// The entry to add to spec.grants, as YAML.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub yaml: String,
}

/// A call that failed because of the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginLastError {
    /// When it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Why, as one word.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Why, for a person.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,
}
