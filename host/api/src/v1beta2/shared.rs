//! Types that several kinds of the group use: references, metadata, gates, taints, versions, timeouts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, string_enum};

/// Names an object of the Cluster's namespace without a version: the version is looked up in the
/// contract labels of the kind's CustomResourceDefinition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContractVersionedObjectReference {
    /// API group of the referenced object.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub api_group: String,
    /// Kind of the referenced object.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::KIND))]
    pub kind: String,
    /// Name of the referenced object.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
}

/// Labels and annotations that are passed on to the objects made from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct TemplateMetadata {
    /// Labels to put on the objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on the objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    /// Whether there is nothing to pass on (an empty object would be refused by the server).
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

string_enum! {
    /// Which status of a condition is the good one.
    pub enum ConditionPolarity {
        /// True is good.
        Positive = "Positive",
        /// False is good.
        Negative = "Negative",
    }
}

/// A condition of the Machine that must be good before the Machine counts as ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineReadinessGate {
    /// Type of the condition. While it is missing it counts as unknown.
    #[schemars(length(min = 1, max = 316), regex(pattern = schema::CONDITION_TYPE))]
    pub condition_type: String,
    /// Which status of the condition is the good one; Positive when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polarity: Option<ConditionPolarity>,
}

string_enum! {
    /// What a taint does to Pods that do not tolerate it.
    pub enum TaintEffect {
        /// New Pods are not scheduled to the Node.
        NoSchedule = "NoSchedule",
        /// New Pods go elsewhere if they can.
        PreferNoSchedule = "PreferNoSchedule",
        /// New Pods are not scheduled and running ones are evicted.
        NoExecute = "NoExecute",
    }
}

string_enum! {
    /// When a taint is put on the Node.
    pub enum TaintPropagation {
        /// The taint is kept on the Node for as long as the Machine asks for it.
        Always = "Always",
        /// The taint is set once, when the Node appears; whoever removes it later is not overruled.
        OnInitialization = "OnInitialization",
    }
}

/// A taint for the Machine's Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(self.key in ['node.cluster.x-k8s.io/uninitialized', 'node.cluster.x-k8s.io/outdated-revision', 'node-role.kubernetes.io/master'])",
     "message": "this taint key is set by Cluster API itself or no longer in use: choose another key", "fieldPath": ".key"},
    {"rule": "!self.key.startsWith('node.kubernetes.io/') || self.key == 'node.kubernetes.io/out-of-service'",
     "message": "taint keys under node.kubernetes.io/ belong to Kubernetes; only node.kubernetes.io/out-of-service may be set here", "fieldPath": ".key"},
    {"rule": "!self.key.startsWith('node.cloudprovider.kubernetes.io/')",
     "message": "taint keys under node.cloudprovider.kubernetes.io/ belong to the cloud provider", "fieldPath": ".key"},
]))]
pub struct MachineTaint {
    /// Key of the taint. Keys that Kubernetes or Cluster API manage themselves are refused.
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::TAINT_KEY))]
    pub key: String,
    /// Value of the taint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL_VALUE))]
    pub value: Option<String>,
    /// What the taint does to Pods that do not tolerate it.
    pub effect: TaintEffect,
    /// Whether the taint is kept on the Node (Always) or only set when the Node appears (OnInitialization).
    pub propagation: TaintPropagation,
}

/// A Kubernetes version and how many machines run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusVersion {
    /// The Kubernetes version.
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
    /// How many machines run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub replicas: Option<i32>,
}

string_enum! {
    /// Which Machines go first when there are too many.
    pub enum MachineSetDeletionOrder {
        /// No preference by age; marked and unhealthy Machines still go first.
        Random = "Random",
        /// The most recently created go first.
        Newest = "Newest",
        /// The longest running go first.
        Oldest = "Oldest",
    }
}

/// How Machines get their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineNamingSpec {
    /// Template of the name: `{{ .cluster.name }}`, `{{ .machineSet.name }}` and `{{ .random }}`
    /// (five characters, required) are replaced. Results over 63 characters are cut and made unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('[{][{] *[.]random *[}][}]')",
         "message": "must contain {{ .random }}, otherwise every Machine would get the same name"},
        {"rule": "self.replace('{{ .cluster.name }}', 'a').replace('{{ .machineSet.name }}', 'a').replace('{{ .random }}', 'a').matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$') || self.matches('[{][{]([^ ]|  |-)')",
         "message": "outside of {{ .cluster.name }}, {{ .machineSet.name }} and {{ .random }}, a name has lower case letters, digits, '-' and '.', and starts and ends with a letter or digit"},
    ]))]
    pub template: Option<String>,
}

string_enum! {
    /// The kind of address of a machine.
    pub enum MachineAddressType {
        /// A host name.
        Hostname = "Hostname",
        /// An address that is reachable from outside of the network.
        ExternalIp = "ExternalIP",
        /// An address inside of the network.
        InternalIp = "InternalIP",
        /// A DNS name that resolves outside of the network.
        ExternalDns = "ExternalDNS",
        /// A DNS name that resolves inside of the network.
        InternalDns = "InternalDNS",
    }
}

/// One address of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineAddress {
    /// What kind of address this is.
    #[serde(rename = "type")]
    pub type_: MachineAddressType,
    /// The address.
    #[schemars(length(min = 1, max = 256))]
    pub address: String,
}

/// How long each part of a Machine's deletion may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeletionSpec {
    /// Seconds that draining the Node may take; 0 or left out waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_drain_timeout_seconds: Option<i32>,
    /// Seconds to wait for volumes to be detached from the Node; 0 or left out waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_volume_detach_timeout_seconds: Option<i32>,
    /// Seconds to keep trying to delete the Node after the machine is gone; 0 tries for ever.
    /// Machines get 10 when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 10))]
    pub node_deletion_timeout_seconds: Option<i32>,
}
