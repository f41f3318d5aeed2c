//! What a plugin may do: one grant per capability. The ceiling of a host is written in the same words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::{DATA_KEY, PluginLimits};
use crate::schema::{self, string_enum};

/// Name of a capability: words of lower case letters, joined by `-`.
const CAPABILITY: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

/// Scheme, host (perhaps with `*.` before it) and port of an origin.
const ORIGIN: &str =
    r"^https?://(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$";

/// A name of an HTTP header.
const HEADER: &str = "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$";

/// A name, perhaps with a `*` at its end.
const NAME_PATTERN: &str = r"^([-a-z0-9.]+\*?|\*)$";

/// A plural of a resource, or `*`.
const PLURAL: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?|\*)$";

/// Permission to use one capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.http) || self.capability == 'http'", "message": "http belongs to the grant of capability http", "fieldPath": ".http"},
    {"rule": "!has(self.secrets) || self.capability == 'secret'", "message": "secrets belong to the grant of capability secret", "fieldPath": ".secrets"},
    {"rule": "!has(self.workload) || self.capability == 'workload'", "message": "workload belongs to the grant of capability workload", "fieldPath": ".workload"},
    {"rule": "!has(self.files) || self.capability == 'files'", "message": "files belongs to the grant of capability files", "fieldPath": ".files"},
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
    /// Secrets that the plugin may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secrets: Vec<SecretGrant>,
    /// What the plugin may do in the workload cluster that an object belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub workload: Vec<WorkloadRule>,
    /// Which files of the host the plugin may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesGrant>,
}

/// Secrets that a plugin may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretGrant {
    /// Name of the Secret; with a * at its end, of all Secrets whose names begin so. Secrets with keys of clusters, bootstrap
    /// tokens and service accounts must be named exactly.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// Namespace of the Secret; the one of the object that a call is about when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub namespace: Option<String>,
    /// Keys that may be read; all of them when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = DATA_KEY)), extend("x-kubernetes-list-type" = "set"))]
    pub keys: Vec<String>,
    /// Whether the plugin may have the bytes themselves. Without it, it has a handle, and the host puts the bytes into requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<bool>,
}

string_enum! {
    /// What a plugin may do to a resource.
    pub enum WorkloadVerb {
        /// Read one object.
        Get = "get",
        /// Read many.
        List = "list",
        /// Create or change by server-side apply.
        Apply = "apply",
        /// Change by a patch.
        Patch = "patch",
        /// Delete.
        Delete = "delete",
    }
}

/// Verbs on resources of a workload cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRule {
    /// API groups, the empty text for the core group, * for all.
    #[schemars(length(min = 1, max = 16), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub api_groups: Vec<String>,
    /// Plurals of resources, * for all. Subresources cannot be granted.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63), regex(pattern = PLURAL)), extend("x-kubernetes-list-type" = "set"))]
    pub resources: Vec<String>,
    /// What may be done: get, list, apply, patch or delete.
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub verbs: Vec<WorkloadVerb>,
    /// Namespaces in which it may be done; in all, and to resources without namespaces, when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Names of the objects; all when left out. A rule with names does not list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub names: Vec<String>,
}

/// Files of the host that a plugin may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesGrant {
    /// Absolute path of a directory; what is below it can be read. The host's ceiling must name it, or one above it.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub directory: String,
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
        /// The host signs each request with AWS Signature Version 4; the secret is `ID:SECRET`, or `ID:SECRET:TOKEN`.
        AwsSignatureV4 = "AWSSignatureV4",
        /// The host shows a certificate when it connects; the secret is the certificates and the private key, in PEM.
        ClientCertificate = "ClientCertificate",
    }
}

/// A secret that the host puts into a plugin's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(self.scheme == 'Header') == has(self.header)", "message": "header is set if and only if scheme is Header", "fieldPath": ".header"},
    {"rule": "(self.scheme == 'AWSSignatureV4') == has(self.aws)", "message": "aws is set if and only if scheme is AWSSignatureV4", "fieldPath": ".aws"},
]))]
pub struct CredentialGrant {
    /// Name by which the plugin refers to the credential.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub name: String,
    /// Where the secret is.
    pub secret_ref: SecretKeyRef,
    /// How the secret is used: Bearer, Basic, or Header with a name of its own put it into requests, AWSSignatureV4 signs them with
    /// it, ClientCertificate shows it when connecting.
    pub scheme: CredentialScheme,
    /// Name of the header, for scheme Header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER))]
    pub header: Option<String>,
    /// What signatures are for, for scheme AWSSignatureV4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsScope>,
    /// Origins that the secret may be sent to; each must be granted.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 512), regex(pattern = ORIGIN)), extend("x-kubernetes-list-type" = "set"))]
    pub origins: Vec<String>,
}

/// Where a signature of AWS is good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsScope {
    /// Region, such as `eu-central-1`.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub region: String,
    /// Name of the service, such as `ec2`.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub service: String,
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

/// The most that a host allows its plugins, whatever their objects say: the content of the file that `capstan run --ceiling` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostCeiling {
    /// Only what one of these grants covers. A capability that is listed without details is allowed whole; one that is not listed
    /// is not allowed. Files need a directory each. Credentials are listed like everything else, with their scheme and origins; a
    /// ceiling's names and Secrets of credentials mean nothing. The entry `capability: credentials` allows all of them.
    #[serde(default)]
    pub grants: Vec<PluginGrant>,
    /// The most that a call may use; the host's own limits where left out.
    #[serde(default)]
    pub limits: Option<PluginLimits>,
}
