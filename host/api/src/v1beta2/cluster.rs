//! Cluster: one workload cluster, its network, endpoint, control plane and infrastructure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{ConditionPolarity, ContractVersionedObjectReference, StatusVersion};
use super::topology::Topology;
use crate::schema::{self, string_enum};

/// What a Cluster should be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "Cluster",
    plural = "clusters",
    shortname = "cl",
    category = "cluster-api",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A Cluster is one workload cluster: where it runs, who makes its control plane and which workers it has.",
    printcolumn(
        name = "ClusterClass",
        type_ = "string",
        json_path = ".spec.topology.classRef.name",
        description = "ClusterClass that the Cluster is made from"
    ),
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Available")].status"#,
        description = "Whether the Cluster works"
    ),
    printcolumn(
        name = "CP Desired",
        type_ = "integer",
        json_path = ".status.controlPlane.desiredReplicas",
        description = "How many control-plane machines there should be"
    ),
    printcolumn(
        name = "CP Current",
        type_ = "integer",
        json_path = ".status.controlPlane.replicas",
        description = "How many control-plane machines there are",
        priority = 10
    ),
    printcolumn(
        name = "CP Ready",
        type_ = "integer",
        json_path = ".status.controlPlane.readyReplicas",
        description = "How many control-plane machines are ready",
        priority = 10
    ),
    printcolumn(
        name = "CP Available",
        type_ = "integer",
        json_path = ".status.controlPlane.availableReplicas",
        description = "How many control-plane machines are available"
    ),
    printcolumn(
        name = "CP Up-to-date",
        type_ = "integer",
        json_path = ".status.controlPlane.upToDateReplicas",
        description = "How many control-plane machines match what is asked for"
    ),
    printcolumn(
        name = "W Desired",
        type_ = "integer",
        json_path = ".status.workers.desiredReplicas",
        description = "How many worker machines there should be"
    ),
    printcolumn(
        name = "W Current",
        type_ = "integer",
        json_path = ".status.workers.replicas",
        description = "How many worker machines there are",
        priority = 10
    ),
    printcolumn(
        name = "W Ready",
        type_ = "integer",
        json_path = ".status.workers.readyReplicas",
        description = "How many worker machines are ready",
        priority = 10
    ),
    printcolumn(
        name = "W Available",
        type_ = "integer",
        json_path = ".status.workers.availableReplicas",
        description = "How many worker machines are available"
    ),
    printcolumn(
        name = "W Up-to-date",
        type_ = "integer",
        json_path = ".status.workers.upToDateReplicas",
        description = "How many worker machines match what is asked for"
    ),
    printcolumn(
        name = "Paused",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Paused")].status"#,
        description = "Whether reconciliation is paused",
        priority = 10
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the Cluster is in its life"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the Cluster was created"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.topology.version",
        description = "Kubernetes version of the Cluster's topology"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [
    {"rule": "has(self.infrastructureRef) || has(self.controlPlaneRef) || has(self.topology)",
     "message": "set infrastructureRef or controlPlaneRef: a Cluster without either has nothing to run on"},
    {"rule": "!has(oldSelf.infrastructureRef) || has(self.infrastructureRef)",
     "message": "infrastructureRef cannot be removed", "fieldPath": ".infrastructureRef"},
    {"rule": "!has(oldSelf.controlPlaneRef) || has(self.controlPlaneRef)",
     "message": "controlPlaneRef cannot be removed", "fieldPath": ".controlPlaneRef"},
    {"rule": "!has(oldSelf.topology) || has(self.topology)",
     "message": "topology cannot be removed", "fieldPath": ".topology"},
    // Objects that have one already, such as those of a management cluster that was Cluster API's, can still be changed elsewhere.
    {"rule": "!has(self.topology) || (oldSelf.hasValue() && has(oldSelf.value().topology))",
     "optionalOldSelf": true, "reason": "FieldValueForbidden", "fieldPath": ".topology",
     "message": "this host does not make Clusters from ClusterClasses: leave topology out, and set infrastructureRef and controlPlaneRef"},
]))]
pub struct ClusterSpec {
    /// Stops reconciliation of the Cluster and of everything that belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Network ranges and names inside of the workload cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_network: Option<ClusterNetwork>,
    /// Where the workload cluster's API is reached. Taken from the infrastructure or control-plane
    /// object when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<ApiEndpoint>,
    /// The object whose provider makes the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_ref: Option<ContractVersionedObjectReference>,
    /// The object whose provider makes the infrastructure that the whole Cluster shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure_ref: Option<ContractVersionedObjectReference>,
    /// Builds the Cluster from a ClusterClass instead of from single objects. Refused on Clusters that do not have it yet: this host
    /// does not do that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Further conditions that must be good before the Cluster counts as available.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub availability_gates: Vec<ClusterAvailabilityGate>,
}

/// A condition of the Cluster that must be good before the Cluster counts as available.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAvailabilityGate {
    /// Type of the condition. While it is missing it counts as unknown.
    #[schemars(length(min = 1, max = 316), regex(pattern = schema::CONDITION_TYPE))]
    pub condition_type: String,
    /// Which status of the condition is the good one; Positive when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polarity: Option<ConditionPolarity>,
}

/// Network ranges and names inside of a workload cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterNetwork {
    /// Port that the API servers listen on; 6443 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub api_server_port: Option<i32>,
    /// Ranges that Services get their addresses from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<NetworkRanges>,
    /// Ranges that Pods get their addresses from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NetworkRanges>,
    /// Domain of Services inside of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_domain: Option<String>,
}

/// Ranges of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    /// Ranges in CIDR notation, such as 10.0.0.0/16; one of each family for dual stack.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 43)), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self.all(range, isCIDR(range))", "message": "each entry must be a range in CIDR notation, such as 10.0.0.0/16"},
        {"rule": "size(self) < 2 || !self.all(range, isCIDR(range)) || size(self) == 2 && cidr(self[0]).ip().family() != cidr(self[1]).ip().family()", "message": "a cluster has one range, or with two stacks one of IPv4 and one of IPv6: remove the others"},
    ]))]
    pub cidr_blocks: Vec<String>,
}

/// Where an API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ApiEndpoint {
    /// Host name or address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 512))]
    pub host: String,
    /// Port.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Whether a port is unset; an endpoint without one is incomplete.
fn is_zero(port: &i32) -> bool {
    *port == 0
}

impl ApiEndpoint {
    /// Whether host and port are both set.
    pub fn is_complete(&self) -> bool {
        !self.host.is_empty() && self.port > 0
    }
}

string_enum! {
    /// Where a Cluster is in its life, for a person to read.
    pub enum ClusterPhase {
        /// Nothing has been provisioned yet.
        Pending = "Pending",
        /// The infrastructure is being made.
        Provisioning = "Provisioning",
        /// The infrastructure is there and the endpoint is known.
        Provisioned = "Provisioned",
        /// Deletion has begun.
        Deleting = "Deleting",
        /// Something failed for good.
        Failed = "Failed",
        /// None of the others fits.
        Unknown = "Unknown",
    }
}

/// What is known about a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterStatus {
    /// Observations about the Cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What has been achieved once; these never go back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialization: Option<ClusterInitializationStatus>,
    /// Numbers and versions of the control-plane machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ClusterReplicasStatus>,
    /// Numbers and versions of the worker machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<ClusterReplicasStatus>,
    /// Failure domains that the infrastructure offers, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub failure_domains: Vec<FailureDomain>,
    /// Where the Cluster is in its life; programs read the conditions instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<ClusterPhase>,
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
}

/// What a Cluster has achieved once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterInitializationStatus {
    /// The infrastructure that the whole Cluster shares has been made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure_provisioned: Option<bool>,
    /// The workload cluster's API has been reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_initialized: Option<bool>,
}

/// Numbers and versions of the machines of one part of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReplicasStatus {
    /// How many machines there should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// How many machines there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many machines match what is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to_date_replicas: Option<i32>,
    /// How many machines are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// How many machines are available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// Which Kubernetes versions the machines run, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub versions: Vec<StatusVersion>,
    /// The versions that a running upgrade still goes through, in order; empty when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub upgrade_plan: Vec<ClusterUpgradePlanStep>,
}

/// One step of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterUpgradePlanStep {
    /// The Kubernetes version that this step leads to.
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
}

/// A place that fails on its own, such as an availability zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureDomain {
    /// Name of the failure domain.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Whether control-plane machines may be placed here; no when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<bool>,
    /// What the infrastructure provider says about the failure domain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}
