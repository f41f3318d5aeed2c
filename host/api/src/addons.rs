//! The kinds of `addons.cluster.x-k8s.io/v1beta2`: manifests that are applied to workload clusters, and what was applied where.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, string_enum};

/// API group of the kinds.
pub const GROUP: &str = "addons.cluster.x-k8s.io";

/// `apiVersion` of the kinds.
pub const API_VERSION: &str = "addons.cluster.x-k8s.io/v1beta2";

/// Type of the Secrets whose content may be applied.
pub const SECRET_TYPE: &str = "addons.cluster.x-k8s.io/resource-set";

/// Label of ConfigMaps and Secrets that a ClusterResourceSet names, put there by the host so that it sees their changes.
pub const RESOURCE_LABEL: &str = "capstan.dev/cluster-resource-set";

/// On a ClusterResourceSet: `true` waits until what a resource made is ready before the next one is applied.
pub const WAIT: &str = "capstan.dev/wait-for-ready";

/// On a ClusterResourceSet with strategy Reconcile: `true` deletes what was applied before and is in no resource any more.
pub const PRUNE: &str = "capstan.dev/prune";

/// On a ClusterResourceSet: `Report` or `Correct` looks from time to time whether the objects still are what was applied.
pub const DRIFT: &str = "capstan.dev/drift";

/// Beside it: how many seconds pass between two looks; 300 when left out, at least 5.
pub const DRIFT_CHECK_SECONDS: &str = "capstan.dev/drift-check-seconds";

/// Prefix of annotations of a ClusterResourceSetBinding with what a ClusterResourceSet applied; its name follows.
pub const INVENTORY_PREFIX: &str = "inventory.capstan.dev/";

/// Manifests for the clusters that a selector names.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "addons.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "ClusterResourceSet",
    plural = "clusterresourcesets",
    category = "cluster-api",
    namespaced,
    status = "ClusterResourceSetStatus",
    derive = "PartialEq",
    doc = "A ClusterResourceSet applies the manifests in ConfigMaps and Secrets to the workload clusters that it selects.",
    printcolumn(
        name = "Applied",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ResourcesApplied")].status"#,
        description = "Whether everything is applied to all selected clusters"
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
        description = "Time since the ClusterResourceSet was created"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(oldSelf.strategy) || (has(self.strategy) && self.strategy == oldSelf.strategy)",
     "message": "strategy cannot be changed once it is set: make another ClusterResourceSet", "fieldPath": ".strategy"},
]))]
pub struct ClusterResourceSetSpec {
    /// Which Clusters of the namespace. An empty selector is refused: it selects nothing.
    #[schemars(schema_with = "schema::selector", extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf", "message": "cannot be changed"},
        {"rule": "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
         "message": "must not be empty: an empty selector selects nothing"},
    ]))]
    pub cluster_selector: LabelSelector,
    /// What is applied, in this order.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<ResourceRef>,
    /// ApplyOnce creates what is missing, once; Reconcile also applies changes. ApplyOnce when left out.
    #[serde(default = "apply_once", skip_serializing_if = "Option::is_none")]
    pub strategy: Option<ClusterResourceSetStrategy>,
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn apply_once() -> Option<ClusterResourceSetStrategy> {
    Some(ClusterResourceSetStrategy::ApplyOnce)
}

string_enum! {
    /// How often manifests are applied.
    pub enum ClusterResourceSetStrategy {
        /// Once; what exists already stays as it is.
        ApplyOnce = "ApplyOnce",
        /// Again whenever they change.
        Reconcile = "Reconcile",
    }
}

string_enum! {
    /// Kinds that hold manifests.
    pub enum ResourceKind {
        /// A Secret of type `addons.cluster.x-k8s.io/resource-set`.
        Secret = "Secret",
        /// A ConfigMap.
        ConfigMap = "ConfigMap",
    }
}

/// Names an object that holds manifests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// ConfigMap or Secret.
    pub kind: ResourceKind,
    /// Its name, in the namespace of the ClusterResourceSet.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is known about a ClusterResourceSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterResourceSetStatus {
    /// Observations about the ClusterResourceSet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The metadata.generation that was last reconciled without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    /// What is not as it should be, by cluster and resource; the first 100. Not part of Cluster API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<ResourceProblem>,
}

/// One resource that is not as it should be in one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceProblem {
    /// The Cluster; none when it concerns all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub cluster: Option<String>,
    /// The resource, as `Kind/name`; none when it concerns the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub resource: Option<String>,
    /// What is wrong: Missing, WrongType, Invalid, NotConnected, Failed, NotReady or Drifted.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What was applied to one cluster.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "addons.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "ClusterResourceSetBinding",
    plural = "clusterresourcesetbindings",
    category = "cluster-api",
    namespaced,
    derive = "PartialEq",
    doc = "A ClusterResourceSetBinding says which resources of which ClusterResourceSets were applied to the Cluster of its name.",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterName",
        description = "Cluster"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the ClusterResourceSetBinding was created"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceSetBindingSpec {
    /// The Cluster.
    #[schemars(length(min = 1, max = 63), transform = schema::immutable)]
    pub cluster_name: String,
    /// By ClusterResourceSet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub bindings: Vec<ResourceSetBinding>,
}

/// What one ClusterResourceSet applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSetBinding {
    /// The ClusterResourceSet.
    #[schemars(length(min = 1, max = 253))]
    pub cluster_resource_set_name: String,
    /// Its resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<ResourceBinding>,
}

/// What became of one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceBinding {
    /// ConfigMap or Secret.
    pub kind: ResourceKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Digest of the content that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub hash: Option<String>,
    /// When it was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_time: Option<Time>,
    /// Whether all of it was applied.
    pub applied: bool,
}
