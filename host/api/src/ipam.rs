//! The kinds of `ipam.cluster.x-k8s.io/v1beta2`: addresses that infrastructure providers claim and IPAM providers give. The host only
//! serves them: both providers are others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// API group of the kinds.
pub const GROUP: &str = "ipam.cluster.x-k8s.io";

/// Which pool an address should come from.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ipam.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "IPAddressClaim",
    plural = "ipaddressclaims",
    category = "cluster-api",
    namespaced,
    status = "IpAddressClaimStatus",
    derive = "PartialEq",
    doc = "An IPAddressClaim asks the provider of a pool for one address.",
    printcolumn(
        name = "Pool Name",
        type_ = "string",
        json_path = ".spec.poolRef.name",
        description = "Pool that the address should come from"
    ),
    printcolumn(
        name = "Pool Kind",
        type_ = "string",
        json_path = ".spec.poolRef.kind",
        description = "Kind of the pool"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the IPAddressClaim was created"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "cannot be changed: make another IPAddressClaim"},
]))]
pub struct IpAddressClaimSpec {
    /// Name of the Cluster that the address is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: Option<String>,
    /// The pool.
    pub pool_ref: IpPoolReference,
}

/// What became of an IPAddressClaim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct IpAddressClaimStatus {
    /// Observations about the IPAddressClaim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The IPAddress that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_ref: Option<IpNameReference>,
}

/// An address that was given.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ipam.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "IPAddress",
    plural = "ipaddresses",
    category = "cluster-api",
    namespaced,
    derive = "PartialEq",
    doc = "An IPAddress is one address that a pool gave to an IPAddressClaim.",
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".spec.address",
        description = "The address"
    ),
    printcolumn(
        name = "Pool Name",
        type_ = "string",
        json_path = ".spec.poolRef.name",
        description = "Pool that the address comes from"
    ),
    printcolumn(
        name = "Pool Kind",
        type_ = "string",
        json_path = ".spec.poolRef.kind",
        description = "Kind of the pool"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the IPAddress was created"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "cannot be changed: make another IPAddress"},
    {"rule": "!isIP(self.address) || ip(self.address).family() == 6 || self.prefix <= 32",
     "message": "the prefix of an IPv4 address is at most 32", "fieldPath": ".prefix"},
]))]
pub struct IpAddressSpec {
    /// The IPAddressClaim that it was made for.
    pub claim_ref: IpNameReference,
    /// The pool that it comes from.
    pub pool_ref: IpPoolReference,
    /// The address, IPv4 or IPv6.
    #[schemars(length(min = 1, max = 39), extend("x-kubernetes-validations" = [
        {"rule": "isIP(self)", "message": "must be an IP address"},
    ]))]
    pub address: String,
    /// Length of the network's prefix in bits.
    #[schemars(range(min = 0, max = 128))]
    pub prefix: i32,
    /// The network's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 39), extend("x-kubernetes-validations" = [
        {"rule": "isIP(self)", "message": "must be an IP address"},
    ]))]
    pub gateway: Option<String>,
}

/// Names an IPAddressClaim or an IPAddress of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpNameReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
}

/// Names a pool, whose kind is its provider's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolReference {
    /// API group of the pool.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub api_group: String,
    /// Kind of the pool.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::KIND))]
    pub kind: String,
    /// Name of the pool.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
}
