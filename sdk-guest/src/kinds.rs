//! Cluster API's Cluster and Machine and Kubernetes' Node, with the fields that providers need; the rest is in `raw`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::answer::Endpoint;
use crate::object::Object;

/// Label with the name of the Cluster that an object belongs to.
pub const CLUSTER_NAME_LABEL: &str = "cluster.x-k8s.io/cluster-name";
/// Label of control-plane machines.
pub const CONTROL_PLANE_LABEL: &str = "cluster.x-k8s.io/control-plane";

/// A Cluster, `cluster.x-k8s.io/v1beta2`.
pub type Cluster = Object<ClusterSpec, ClusterStatus>;
/// A Machine, `cluster.x-k8s.io/v1beta2`.
pub type Machine = Object<MachineSpec, MachineStatus>;
/// A Node of a workload cluster.
pub type Node = Object<NodeSpec, NodeStatus>;

/// A reference within the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// API group.
    pub api_group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// `spec` of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// Pod and service networks.
    pub cluster_network: ClusterNetwork,
    /// Where the workload API server is reached, once known.
    pub control_plane_endpoint: ControlPlaneEndpoint,
    /// The control plane object.
    pub control_plane_ref: Option<Reference>,
    /// The infrastructure cluster object.
    pub infrastructure_ref: Option<Reference>,
    /// Present for clusters made from a class.
    pub topology: Option<Topology>,
}

/// The part of `spec.topology` that providers need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// With a leading v.
    pub version: String,
}

/// `spec.controlPlaneEndpoint` as stored: empty until known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ControlPlaneEndpoint {
    /// DNS name or IP address, or empty.
    pub host: String,
    /// 0 when unknown.
    pub port: u16,
}

/// `spec.clusterNetwork` of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetwork {
    /// Port that the API servers listen on, when the owner chose one.
    pub api_server_port: Option<u16>,
    /// Networks of pods.
    pub pods: NetworkRanges,
    /// Networks of services.
    pub services: NetworkRanges,
    /// Empty for Kubernetes' default, `cluster.local`.
    pub service_domain: String,
}

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkRanges {
    /// In CIDR notation.
    pub cidr_blocks: Vec<String>,
}

/// `status` of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// Where machines can be placed.
    pub failure_domains: Vec<ClusterFailureDomain>,
    /// Such as `Provisioned`.
    pub phase: String,
}

/// A failure domain in a Cluster's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterFailureDomain {
    /// Name.
    pub name: String,
    /// Suited for control-plane machines.
    pub control_plane: bool,
    /// The provider's own attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Cluster {
    /// Where the workload API server is reached, once known.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        let endpoint = &self.spec.control_plane_endpoint;
        let known = !endpoint.host.is_empty() && endpoint.port != 0;
        known.then(|| Endpoint::new(&endpoint.host, endpoint.port))
    }
}

/// `spec` of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    /// Name of the Cluster.
    pub cluster_name: String,
    /// Kubernetes version with a leading v, or empty.
    pub version: String,
    /// Where bootstrap data comes from.
    pub bootstrap: MachineBootstrap,
    /// The infrastructure machine object.
    pub infrastructure_ref: Reference,
    /// Set once the instance exists.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    /// Where the machine should be.
    pub failure_domain: Option<String>,
}

/// `spec.bootstrap` of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineBootstrap {
    /// The bootstrap config object.
    pub config_ref: Option<Reference>,
    /// Secret with the data.
    pub data_secret_name: Option<String>,
}

/// `status` of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    /// The Node, once it has joined.
    pub node_ref: Option<NodeReference>,
    /// Such as `Running`.
    pub phase: String,
    /// Where the machine is reached.
    pub addresses: Vec<NodeAddress>,
}

/// `status.nodeRef` of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeReference {
    /// Name of the Node.
    pub name: String,
}

impl Machine {
    /// Whether it is a control-plane machine.
    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        self.metadata.labels.contains_key(CONTROL_PLANE_LABEL)
    }
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Names the instance.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// Takes no new pods.
    pub unschedulable: bool,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Addresses.
    pub addresses: Vec<NodeAddress>,
    /// Conditions.
    pub conditions: Vec<NodeCondition>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// Such as `InternalIP`.
    #[serde(rename = "type")]
    pub address_type: String,
    /// The address.
    pub address: String,
}

/// A condition of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeCondition {
    /// Such as `Ready`.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}
