//! MachineDeployment: rolls a change of the machine template out over MachineSets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::machine_set::MachineTemplateSpec;
use super::shared::{MachineNamingSpec, MachineSetDeletionOrder, StatusVersion};
use crate::schema::{self, string_enum};

/// What a MachineDeployment should keep.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineDeployment",
    plural = "machinedeployments",
    shortname = "md",
    category = "cluster-api",
    namespaced,
    status = "MachineDeploymentStatus",
    derive = "PartialEq",
    doc = "A MachineDeployment keeps a number of Machines and replaces them step by step when their template changes.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterName",
        description = "Cluster that the MachineDeployment belongs to"
    ),
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Available")].status"#,
        description = "Whether enough Machines are available"
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
        description = "Whether Machines are being added or removed"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the MachineDeployment was created"
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
    {"rule": "!has(self.selector.matchLabels) || self.selector.matchLabels.all(key, has(self.template.metadata) && has(self.template.metadata.labels) && key in self.template.metadata.labels && self.template.metadata.labels[key] == self.selector.matchLabels[key])",
     "message": "selector.matchLabels must be among template.metadata.labels, otherwise the Machines would not belong to this object", "fieldPath": ".selector"},
    {"rule": "!has(self.template.spec.taints) || self.template.spec.taints.all(taint, taint.key != 'node-role.kubernetes.io/control-plane')",
     "message": "the taint node-role.kubernetes.io/control-plane is not for workers", "fieldPath": ".template.spec.taints"},
]))]
pub struct MachineDeploymentSpec {
    /// Name of the Cluster that the MachineDeployment belongs to. It cannot be changed.
    #[schemars(length(min = 1, max = 63), transform = schema::immutable)]
    pub cluster_name: String,
    /// How many Machines there should be. When left out: the autoscaler's minimum if the object
    /// carries its annotations, otherwise 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// When and how a changed template is rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}))]
    pub rollout: Option<MachineDeploymentRolloutSpec>,
    /// Which Machines belong to the MachineDeployment; it must select the template's labels. An empty
    /// selector is filled in.
    #[schemars(schema_with = "schema::selector")]
    pub selector: LabelSelector,
    /// What the Machines are made from; a change replaces them.
    pub template: MachineTemplateSpec,
    /// How Machines get their names; the MachineSet's name and five random characters when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_naming: Option<MachineNamingSpec>,
    /// How unhealthy Machines are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<MachineDeploymentRemediationSpec>,
    /// How Machines are chosen for deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion: Option<MachineDeploymentDeletionSpec>,
    /// Stops rollouts of this MachineDeployment; scaling goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// When and how a MachineDeployment rolls out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentRolloutSpec {
    /// Machines that were created before this time are replaced once the time has come, even if
    /// nothing else changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
    /// How Machines are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}))]
    pub strategy: Option<MachineDeploymentRolloutStrategy>,
}

string_enum! {
    /// What makes a MachineDeployment replace a Machine.
    pub enum MachineDeploymentRolloutStrategyType {
        /// Old Machines are replaced step by step.
        RollingUpdate = "RollingUpdate",
        /// An old Machine is replaced when somebody deletes it.
        OnDelete = "OnDelete",
    }
}

/// How a MachineDeployment replaces Machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentRolloutStrategy {
    /// RollingUpdate replaces step by step; OnDelete waits for somebody to delete old Machines.
    #[serde(rename = "type")]
    pub type_: MachineDeploymentRolloutStrategyType,
    /// Limits of RollingUpdate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = {"maxSurge": 1, "maxUnavailable": 0}))]
    pub rolling_update: Option<RollingUpdateSpec>,
}

/// Limits of a rolling update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [
    {"rule": "!((has(self.maxSurge) && type(self.maxSurge) == int && self.maxSurge == 0) && (!has(self.maxUnavailable) || (type(self.maxUnavailable) == int && self.maxUnavailable == 0)))",
     "message": "maxSurge and maxUnavailable cannot both be 0: no Machine could ever be replaced"},
]))]
pub struct RollingUpdateSpec {
    /// How many Machines there may be above replicas, as a count or a percentage of replicas rounded
    /// up; 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_percent", extend("default" = 1))]
    pub max_surge: Option<IntOrString>,
    /// How many Machines may be unavailable below replicas, as a count or a percentage of replicas
    /// rounded down; 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_percent", extend("default" = 0))]
    pub max_unavailable: Option<IntOrString>,
}

/// How a MachineDeployment replaces unhealthy Machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentRemediationSpec {
    /// How many unhealthy Machines may be replaced at the same time, as a count or a percentage of
    /// replicas rounded up; no limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_percent")]
    pub max_in_flight: Option<IntOrString>,
}

/// How a MachineDeployment chooses Machines for deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentDeletionSpec {
    /// Which Machines go first when there are too many; passed on to the MachineSets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<MachineSetDeletionOrder>,
}

string_enum! {
    /// Whether a MachineDeployment adds or removes Machines, for a person to read.
    pub enum MachineDeploymentPhase {
        /// Machines are being added.
        ScalingUp = "ScalingUp",
        /// Machines are being removed.
        ScalingDown = "ScalingDown",
        /// There are as many Machines as there should be.
        Running = "Running",
        /// Something failed for good.
        Failed = "Failed",
        /// None of the others fits.
        Unknown = "Unknown",
    }
}

/// What is known about a MachineDeployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentStatus {
    /// Observations about the MachineDeployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    /// The selector as text, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub selector: Option<String>,
    /// How many Machines there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many Machines are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// How many Machines are available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// How many Machines match what is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to_date_replicas: Option<i32>,
    /// Which Kubernetes versions the Machines run, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["version"]))]
    pub versions: Vec<StatusVersion>,
    /// Whether Machines are being added or removed; programs read the conditions instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachineDeploymentPhase>,
}
