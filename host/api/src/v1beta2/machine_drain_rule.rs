//! MachineDrainRule: says which Pods are drained from which Machines, and in which order.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, string_enum};

/// What to do with which Pods of which Machines.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineDrainRule",
    plural = "machinedrainrules",
    category = "cluster-api",
    namespaced,
    derive = "PartialEq",
    doc = "A MachineDrainRule says how Pods are treated when the Nodes of Machines are drained.",
    printcolumn(
        name = "Behavior",
        type_ = "string",
        json_path = ".spec.drain.behavior",
        description = "What happens to the Pods"
    ),
    printcolumn(
        name = "Order",
        type_ = "string",
        json_path = ".spec.drain.order",
        description = "When the Pods are drained; lower goes first"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the MachineDrainRule was created"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct MachineDrainRuleSpec {
    /// What happens to the Pods.
    pub drain: MachineDrainRuleDrainConfig,
    /// Which Machines the rule is for; all Machines of the namespace when left out. One matching entry is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self.all(x, self.exists_one(y, x == y))", "message": "entries must differ from each other"},
    ]))]
    pub machines: Vec<MachineDrainRuleMachineSelector>,
    /// Which Pods the rule is for; all Pods when left out. One matching entry is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self.all(x, self.exists_one(y, x == y))", "message": "entries must differ from each other"},
    ]))]
    pub pods: Vec<MachineDrainRulePodSelector>,
}

string_enum! {
    /// What happens to Pods when a Node is drained.
    pub enum MachineDrainRuleDrainBehavior {
        /// The Pods are evicted.
        Drain = "Drain",
        /// The Pods stay and are not waited for.
        Skip = "Skip",
        /// The Pods are not evicted, but the drain waits until they have completed.
        WaitCompleted = "WaitCompleted",
    }
}

/// What happens to the Pods, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.behavior == 'Drain' || !has(self.order)",
     "message": "order has no meaning unless behavior is Drain: remove it", "fieldPath": ".order"},
]))]
pub struct MachineDrainRuleDrainConfig {
    /// Drain evicts the Pods, Skip leaves them alone, WaitCompleted waits until they have finished.
    pub behavior: MachineDrainRuleDrainBehavior,
    /// Pods with a lower order are evicted first and must be gone before the next order begins; 0
    /// when left out. Only with behavior Drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
}

/// Selects Machines; everything that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDrainRuleMachineSelector {
    /// Selects by labels of the Machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub selector: Option<LabelSelector>,
    /// Selects by labels of the Machine's Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub cluster_selector: Option<LabelSelector>,
}

/// Selects Pods; everything that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDrainRulePodSelector {
    /// Selects by labels of the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub selector: Option<LabelSelector>,
    /// Selects by labels of the Pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub namespace_selector: Option<LabelSelector>,
}
