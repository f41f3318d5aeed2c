//! `Cluster.spec.topology`: a Cluster described by a ClusterClass and the choices made for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine_deployment::MachineDeploymentRolloutStrategy;
use super::machine_health_check::{
    MachineHealthCheckChecks, MachineHealthCheckRemediation,
    MachineHealthCheckRemediationTemplateReference, MachineHealthCheckRemediationTriggerIf,
};
use super::shared::{
    MachineDeletionSpec, MachineReadinessGate, MachineSetDeletionOrder, MachineTaint,
    TemplateMetadata,
};
use crate::schema;

/// A Cluster described by a ClusterClass and the choices made for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// The ClusterClass that the Cluster is made from.
    pub class_ref: ClusterClassRef,
    /// Kubernetes version of the whole Cluster, as a semantic version; a leading v is added.
    #[schemars(length(min = 1, max = 256), transform = schema::version_rule)]
    pub version: String,
    /// Choices for the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlaneTopology>,
    /// The groups of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersTopology>,
    /// Values for the variables that the ClusterClass defines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variables: Vec<ClusterVariable>,
}

/// Names a ClusterClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterClassRef {
    /// Name of the ClusterClass.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
    /// Namespace of the ClusterClass; that of the Cluster when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub namespace: Option<String>,
}

/// Choices for the control plane of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneTopology {
    /// Labels and annotations for the control plane and its machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// How many control-plane machines there should be; left to the control-plane provider when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// When the machines are replaced without any other change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<ControlPlaneTopologyRolloutSpec>,
    /// Whether and how unhealthy machines are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<ControlPlaneTopologyHealthCheck>,
    /// Timeouts of a machine's deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::without_defaults)]
    pub deletion: Option<MachineDeletionSpec>,
    /// Further conditions that must be good before a machine counts as ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<MachineReadinessGate>,
    /// Taints for the machines' Nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    /// Values of variables that differ for the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<VariableOverrides>,
}

/// When control-plane machines are replaced without any other change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneTopologyRolloutSpec {
    /// Machines that were created before this time are replaced once the time has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
}

/// Whether and how unhealthy control-plane machines are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneTopologyHealthCheck {
    /// Whether machines are checked; decided by the presence of a definition here or in the ClusterClass when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// When a machine is unhealthy; replaces the ClusterClass's definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::without_defaults)]
    pub checks: Option<MachineHealthCheckChecks>,
    /// What happens to unhealthy machines; replaces the ClusterClass's definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<MachineHealthCheckRemediation>,
}

/// The groups of workers of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct WorkersTopology {
    /// Groups whose machines are made one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub machine_deployments: Vec<MachineDeploymentTopology>,
    /// Groups whose machines the infrastructure makes as one pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub machine_pools: Vec<MachinePoolTopology>,
}

/// A group of workers whose machines are made one by one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.replicas) || !has(self.metadata) || !has(self.metadata.annotations) || !('cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size' in self.metadata.annotations || 'cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size' in self.metadata.annotations)",
     "message": "replicas must be left out while the autoscaler's annotations are set", "fieldPath": ".replicas"},
]))]
pub struct MachineDeploymentTopology {
    /// Labels and annotations for the MachineDeployment and its machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Name of the worker class in the ClusterClass.
    #[schemars(length(min = 1, max = 256))]
    pub class: String,
    /// Name of the group, unique in the Cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
    /// Failure domain of the machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    /// How many machines there should be; must be left out for a group that the autoscaler sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Whether and how unhealthy machines are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<MachineDeploymentTopologyHealthCheck>,
    /// How machines are chosen for deletion, and timeouts of their deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion: Option<MachineDeploymentTopologyDeletion>,
    /// Seconds that a machine must be ready before it counts as available.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    /// Further conditions that must be good before a machine counts as ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<MachineReadinessGate>,
    /// When and how changes are rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::without_defaults)]
    pub rollout: Option<MachineDeploymentTopologyRolloutSpec>,
    /// Taints for the machines' Nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    /// Values of variables that differ for this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<VariableOverrides>,
}

/// When and how changes of a group of workers are rolled out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentTopologyRolloutSpec {
    /// Machines that were created before this time are replaced once the time has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
    /// How machines are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<MachineDeploymentRolloutStrategy>,
}

/// How machines of a group are chosen for deletion, and timeouts of their deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentTopologyDeletion {
    /// Which machines go first when there are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<MachineSetDeletionOrder>,
    /// Seconds that draining the Node may take; 0 waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_drain_timeout_seconds: Option<i32>,
    /// Seconds to wait for volumes to be detached from the Node; 0 waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_volume_detach_timeout_seconds: Option<i32>,
    /// Seconds to keep trying to delete the Node after the machine is gone; 0 tries for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_deletion_timeout_seconds: Option<i32>,
}

/// Whether and how unhealthy machines of a group are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentTopologyHealthCheck {
    /// Whether machines are checked; decided by the presence of a definition here or in the ClusterClass when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// When a machine is unhealthy; replaces the ClusterClass's definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::without_defaults)]
    pub checks: Option<MachineHealthCheckChecks>,
    /// What happens to unhealthy machines; replaces the ClusterClass's definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<MachineDeploymentTopologyRemediation>,
}

/// What happens to unhealthy machines of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentTopologyRemediation {
    /// How many unhealthy machines may be replaced at the same time, as a count or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_percent")]
    pub max_in_flight: Option<IntOrString>,
    /// When so many machines are unhealthy that replacing them would do harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_if: Option<MachineHealthCheckRemediationTriggerIf>,
    /// Template of the request that an external remediation controller answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<MachineHealthCheckRemediationTemplateReference>,
}

/// A group of workers that the infrastructure makes as one pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachinePoolTopology {
    /// Labels and annotations for the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Name of the pool class in the ClusterClass.
    #[schemars(length(min = 1, max = 256))]
    pub class: String,
    /// Name of the group, unique in the Cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
    /// Failure domains over which the pool is spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub failure_domains: Vec<String>,
    /// Timeouts of a machine's deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::without_defaults)]
    pub deletion: Option<MachineDeletionSpec>,
    /// Seconds that a machine must be ready before it counts as available.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    /// Taints for the machines' Nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    /// How many machines there should be; must be left out for a group that the autoscaler sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Values of variables that differ for this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<VariableOverrides>,
}

/// Values of variables that differ for one part of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct VariableOverrides {
    /// The values that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub overrides: Vec<ClusterVariable>,
}

/// A value for a variable that the ClusterClass defines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterVariable {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The value, of the type that the ClusterClass gives the variable.
    #[schemars(schema_with = "schema::any_value")]
    pub value: Value,
}
