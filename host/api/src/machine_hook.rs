//! `capstan.dev/v1alpha1` MachineHook: binds a pre-delete hook plugin to Machines.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema::{self, string_enum};

/// Which hook runs for which Machines, when, and what its silence means.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "capstan.dev",
    version = "v1alpha1",
    kind = "MachineHook",
    plural = "machinehooks",
    category = "capstan",
    namespaced,
    status = "MachineHookStatus",
    derive = "PartialEq",
    doc = "A MachineHook has a plugin asked before Machines are drained or terminated. It lies in the host's namespace, beside the Plugin.",
    printcolumn(
        name = "Plugin",
        type_ = "string",
        json_path = ".spec.plugin",
        description = "The plugin that is asked"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".spec.phase",
        description = "When it is asked"
    ),
    printcolumn(
        name = "Order",
        type_ = "integer",
        json_path = ".spec.order",
        description = "Its place among the hooks of its phase; lower goes first"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the plugin can be asked"
    ),
    printcolumn(
        name = "Waiting",
        type_ = "integer",
        json_path = ".status.waitingMachines",
        description = "How many Machines wait for it"
    ),
    printcolumn(
        name = "Machine",
        type_ = "string",
        json_path = ".status.waiting[0].machine",
        description = "The Machine that waits longest"
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.waiting[0].since",
        description = "For how long that Machine has been waiting"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the MachineHook was created"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct MachineHookSpec {
    /// Name of the Plugin object whose hook is asked.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub plugin: String,
    /// When it is asked: PreDrain before the Node is cordoned and drained, PreTerminate after drain and volume
    /// detachment and before the host is deleted.
    pub phase: MachineHookPhase,
    /// Namespaces whose Machines are meant; all when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Selects by labels of the Machine's Cluster; all Clusters when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub cluster_selector: Option<LabelSelector>,
    /// Selects by labels of the Machine; all Machines when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub machine_selector: Option<LabelSelector>,
    /// Hooks of a phase are asked one after the other, those with a lower order first, then by name.
    #[serde(default)]
    #[schemars(extend("default" = 0))]
    pub order: i32,
    /// Seconds that a Machine may wait for this hook, from its turn on; it waits for ever when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<i32>,
    /// What happens when the time is over: Block goes on asking and waiting, Proceed goes on with the deletion.
    #[serde(default)]
    #[schemars(extend("default" = "Block"))]
    pub on_timeout: MachineHookPolicy,
    /// What happens when the hook fails: Block asks again, Proceed goes on with the deletion, at once when the failure is
    /// final and after three tries when it may pass. A plugin that is missing is waited for, whatever is set here.
    #[serde(default)]
    #[schemars(extend("default" = "Block"))]
    pub on_failure: MachineHookPolicy,
    /// What happens when the whole Cluster is being deleted: Default as annotations have it (PreDrain is left out,
    /// PreTerminate is not), Run asks in any case, Skip asks in no case.
    #[serde(default)]
    #[schemars(extend("default" = "Default"))]
    pub on_cluster_deletion: MachineHookOnClusterDeletion,
    /// Settings that the hook gets with every call, in the plugin's own form. It is no place for secrets.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::any_object")]
    pub config: Map<String, Value>,
}

string_enum! {
    /// When a hook is asked.
    pub enum MachineHookPhase {
        /// Before the Node is cordoned and drained.
        PreDrain = "PreDrain",
        /// After drain and volume detachment, before the host is deleted.
        PreTerminate = "PreTerminate",
    }
}

string_enum! {
    /// What a timeout or a failure means.
    #[derive(Default)]
    pub enum MachineHookPolicy {
        /// The deletion waits.
        #[default]
        Block = "Block",
        /// The deletion goes on.
        Proceed = "Proceed",
    }
}

string_enum! {
    /// What the deletion of the whole Cluster means for a hook.
    #[derive(Default)]
    pub enum MachineHookOnClusterDeletion {
        /// As with annotations: hooks before the drain are left out, those before termination are not.
        #[default]
        Default = "Default",
        /// It is asked in any case.
        Run = "Run",
        /// It is not asked.
        Skip = "Skip",
    }
}

/// What is known about a MachineHook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineHookStatus {
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Observations about the hook: Ready says whether its plugin can be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many Machines wait for the hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub waiting_machines: Option<i32>,
    /// Machines that wait for the hook, those that wait longest first; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub waiting: Vec<MachineHookWait>,
}

/// A Machine that waits for a hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineHookWait {
    /// Namespace of the Machine.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the Machine.
    #[schemars(length(max = 253))]
    pub machine: String,
    /// When it was the hook's turn.
    pub since: Time,
}
