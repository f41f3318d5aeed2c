//! MachineHealthCheck: finds unhealthy Machines and has them replaced.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, string_enum};

/// Which Machines to watch, when they are unhealthy, and what happens then.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineHealthCheck",
    plural = "machinehealthchecks",
    shortname = "mhc",
    shortname = "mhcs",
    category = "cluster-api",
    namespaced,
    status = "MachineHealthCheckStatus",
    derive = "PartialEq",
    doc = "A MachineHealthCheck finds unhealthy Machines and has them replaced, unless too many are unhealthy at once.",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterName",
        description = "Cluster whose Machines are checked"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".status.expectedMachines",
        description = "How many Machines are checked"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "integer",
        json_path = ".status.currentHealthy",
        description = "How many of them are healthy"
    ),
    printcolumn(
        name = "Paused",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Paused")].status"#,
        description = "Whether reconciliation is paused",
        priority = 10
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the MachineHealthCheck was created"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",
     "message": "an empty selector would select every Machine: set matchLabels or matchExpressions", "fieldPath": ".selector"},
    {"rule": "!has(self.selector.matchLabels) || !('cluster.x-k8s.io/cluster-name' in self.selector.matchLabels) || self.selector.matchLabels['cluster.x-k8s.io/cluster-name'] == self.clusterName",
     "message": "the label cluster.x-k8s.io/cluster-name in the selector must be the same as clusterName", "fieldPath": ".selector"},
]))]
pub struct MachineHealthCheckSpec {
    /// Name of the Cluster whose Machines are checked. It cannot be changed.
    #[schemars(length(min = 1, max = 63), transform = schema::immutable)]
    pub cluster_name: String,
    /// Which Machines of the Cluster are checked; it cannot be empty.
    #[schemars(schema_with = "schema::selector")]
    pub selector: LabelSelector,
    /// When a Machine is unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = {"nodeStartupTimeoutSeconds": 600}))]
    pub checks: Option<MachineHealthCheckChecks>,
    /// What happens to unhealthy Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<MachineHealthCheckRemediation>,
}

/// When a Machine is unhealthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineHealthCheckChecks {
    /// Seconds within which a new Machine must get a Node; 0 switches this check off, otherwise it is
    /// at least 30. 600 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 600, "x-kubernetes-validations" = [
        {"rule": "self == 0 || self >= 30", "message": "must be 0 (no limit) or at least 30"},
    ]))]
    pub node_startup_timeout_seconds: Option<i32>,
    /// Conditions of the Node that make the Machine unhealthy; one is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unhealthy_node_conditions: Vec<UnhealthyNodeCondition>,
    /// Conditions of the Machine that make it unhealthy; one is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unhealthy_machine_conditions: Vec<UnhealthyMachineCondition>,
}

/// A status of a Node condition that makes the Machine unhealthy when it lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyNodeCondition {
    /// Type of the Node's condition.
    #[serde(rename = "type")]
    #[schemars(length(min = 1))]
    pub type_: String,
    /// The status that is unhealthy.
    #[schemars(length(min = 1))]
    pub status: String,
    /// Seconds that the status must last.
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
}

string_enum! {
    /// The status of a condition.
    pub enum ConditionStatus {
        /// It holds.
        True = "True",
        /// It does not hold.
        False = "False",
        /// It is not known whether it holds.
        Unknown = "Unknown",
    }
}

/// A status of a Machine condition that makes the Machine unhealthy when it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyMachineCondition {
    /// Type of the Machine's condition. Those that health checks themselves change are refused.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316), regex(pattern = schema::CONDITION_TYPE), extend("x-kubernetes-validations" = [
        {"rule": "!(self in ['Ready', 'Available', 'HealthCheckSucceeded', 'OwnerRemediated', 'ExternallyRemediated'])",
         "message": "Ready, Available, HealthCheckSucceeded, OwnerRemediated and ExternallyRemediated depend on the health check itself: name another condition"},
    ]))]
    pub type_: String,
    /// The status that is unhealthy.
    pub status: ConditionStatus,
    /// Seconds that the status must last.
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
}

/// What happens to unhealthy Machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineHealthCheckRemediation {
    /// When so many Machines are unhealthy that replacing them would do harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_if: Option<MachineHealthCheckRemediationTriggerIf>,
    /// Template of the request that an external remediation controller answers; when left out, the
    /// Machine's owner replaces the Machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<MachineHealthCheckRemediationTemplateReference>,
}

/// How many Machines may be unhealthy for remediation to go ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineHealthCheckRemediationTriggerIf {
    /// Remediation goes ahead while at most so many Machines are unhealthy: a count, or a percentage
    /// of the checked Machines rounded down. 100% when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_percent")]
    pub unhealthy_less_than_or_equal_to: Option<IntOrString>,
    /// Remediation goes ahead while the number of unhealthy Machines is in this range, such as
    /// `[3-5]`; it takes precedence over unhealthyLessThanOrEqualTo.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = schema::COUNT_RANGE))]
    pub unhealthy_in_range: Option<String>,
}

/// Names the template of an external remediation request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineHealthCheckRemediationTemplateReference {
    /// Kind of the template.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::KIND))]
    pub kind: String,
    /// Name of the template.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
    /// API group and version of the template.
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::API_VERSION))]
    pub api_version: String,
}

/// What is known about a MachineHealthCheck.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineHealthCheckStatus {
    /// Observations about the MachineHealthCheck.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many Machines are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub expected_machines: Option<i32>,
    /// How many of them are healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub current_healthy: Option<i32>,
    /// How many more may become unhealthy before remediation stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub remediations_allowed: Option<i32>,
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    /// Names of the Machines that are checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<String>,
}
