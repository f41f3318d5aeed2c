//! MachinePool: a number of machines that the infrastructure keeps as one thing, such as a scaling group of a cloud.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::machine::MachineSpec;
use super::shared::{StatusVersion, TemplateMetadata};
use crate::schema::{self, string_enum};

/// What a MachinePool should keep.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachinePool",
    plural = "machinepools",
    shortname = "mp",
    category = "cluster-api",
    namespaced,
    status = "MachinePoolStatus",
    derive = "PartialEq",
    doc = "A MachinePool is a number of machines that the infrastructure keeps as one thing. Its infrastructure object is of a provider that runs beside this host: plugins make single machines.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas"
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterName",
        description = "Cluster that the MachinePool belongs to"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "How many Machines there should be"
    ),
    printcolumn(
        name = "Current",
        type_ = "integer",
        json_path = ".status.replicas",
        description = "How many Machines there are"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "How many Machines are ready"
    ),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.availableReplicas",
        description = "How many Machines are available"
    ),
    printcolumn(
        name = "Up-to-date",
        type_ = "integer",
        json_path = ".status.upToDateReplicas",
        description = "How many Machines match what is asked for"
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
        description = "How far the machines are"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the MachinePool was created"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.template.spec.version",
        description = "Kubernetes version of the Machines"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.clusterName == self.template.spec.clusterName",
     "message": "template.spec.clusterName must be the same as clusterName", "fieldPath": ".template.spec.clusterName"},
    {"rule": "!has(self.template.spec.taints)", "reason": "FieldValueForbidden",
     "message": "taints of MachinePools are not propagated to Nodes: leave them out, and have the bootstrap provider set them", "fieldPath": ".template.spec.taints"},
]))]
pub struct MachinePoolSpec {
    /// Name of the Cluster that the MachinePool belongs to. It cannot be changed.
    #[schemars(length(min = 1, max = 63), transform = schema::immutable)]
    pub cluster_name: String,
    /// How many machines there should be. When left out: the autoscaler's minimum if the object
    /// carries its annotations, otherwise 1. With the annotation cluster.x-k8s.io/replicas-managed-by
    /// the infrastructure provider writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What the machines are made from.
    pub template: MachinePoolTemplateSpec,
    /// Provider IDs of the machines, copied from the infrastructure object.
    #[serde(
        rename = "providerIDList",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 10000), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub provider_id_list: Vec<String>,
    /// Failure domains over which the infrastructure provider should spread the machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub failure_domains: Vec<String>,
}

/// What the machines of a MachinePool are made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachinePoolTemplateSpec {
    /// Labels and annotations of the Machines, where the infrastructure provider has them made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// What the machines should be. Its references name the pool's own objects, not templates: all
    /// machines share the bootstrap object and its data.
    pub spec: MachineSpec,
}

string_enum! {
    /// How far a MachinePool's machines are, for a person to read.
    pub enum MachinePoolPhase {
        /// Nothing has been provisioned yet.
        Pending = "Pending",
        /// Bootstrap data is there and the infrastructure is being made.
        Provisioning = "Provisioning",
        /// The infrastructure is there and Nodes have come.
        Provisioned = "Provisioned",
        /// As many machines are ready as there should be.
        Running = "Running",
        /// Fewer machines are ready than there should be.
        ScalingUp = "ScalingUp",
        /// More machines are ready than there should be.
        ScalingDown = "ScalingDown",
        /// The numbers differ, and something else decides about the number of machines.
        Scaling = "Scaling",
        /// Deletion has begun.
        Deleting = "Deleting",
        /// Something failed for good.
        Failed = "Failed",
        /// None of the others fits.
        Unknown = "Unknown",
    }
}

/// What is known about a MachinePool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachinePoolStatus {
    /// Observations about the MachinePool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What has been achieved; these follow what the providers say now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialization: Option<MachinePoolInitializationStatus>,
    /// The Nodes that the machines became.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_refs: Vec<MachinePoolNodeReference>,
    /// How many machines there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many machines are ready: Machines with condition Ready, or all where there are no Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// How many machines are available: Machines with condition Available, or all where there are no
    /// Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// How many machines match what is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to_date_replicas: Option<i32>,
    /// Which Kubernetes versions the machines run, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["version"]))]
    pub versions: Vec<StatusVersion>,
    /// How far the machines are; programs read the conditions instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePoolPhase>,
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
}

/// What a MachinePool has achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachinePoolInitializationStatus {
    /// The infrastructure provider has made the machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure_provisioned: Option<bool>,
    /// The bootstrap provider has made the Secret with the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_data_secret_created: Option<bool>,
}

/// Names a Node of the workload cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct MachinePoolNodeReference {
    /// API version of the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Part of the object that is meant; not set by this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
    /// Kind: Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace; Nodes have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Version of the object that is meant; not set by this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// UID of the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}
