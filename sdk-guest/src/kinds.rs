//! Cluster API's Cluster and Machine and Kubernetes' Node, with the fields that providers need; the rest is in `raw`.

use std::collections::BTreeMap;

use crate::answer::Endpoint;
use crate::object::Object;
use crate::slim::slim;

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

slim! {
    /// A reference within the namespace.
    pub struct Reference {
        /// API group.
        pub api_group: String = "apiGroup",
        /// Kind.
        pub kind: String = "kind",
        /// Name.
        pub name: String = "name",
    }
}

slim! {
    /// `spec` of a Cluster.
    pub struct ClusterSpec {
        /// Pod and service networks.
        pub cluster_network: ClusterNetwork = "clusterNetwork",
        /// Where the workload API server is reached, once known.
        pub control_plane_endpoint: ControlPlaneEndpoint = "controlPlaneEndpoint",
        /// The control plane object.
        pub control_plane_ref: Option<Reference> = "controlPlaneRef",
        /// The infrastructure cluster object.
        pub infrastructure_ref: Option<Reference> = "infrastructureRef",
        /// Present for clusters made from a class.
        pub topology: Option<Topology> = "topology",
    }
}

slim! {
    /// The part of `spec.topology` that providers need.
    pub struct Topology {
        /// With a leading v.
        pub version: String = "version",
    }
}

slim! {
    /// `spec.controlPlaneEndpoint` as stored: empty until known.
    pub struct ControlPlaneEndpoint {
        /// DNS name or IP address, or empty.
        pub host: String = "host",
        /// 0 when unknown.
        pub port: u16 = "port",
    }
}

slim! {
    /// `spec.clusterNetwork` of a Cluster.
    pub struct ClusterNetwork {
        /// Port that the API servers listen on, when the owner chose one.
        pub api_server_port: Option<u16> = "apiServerPort",
        /// Networks of pods.
        pub pods: NetworkRanges = "pods",
        /// Networks of services.
        pub services: NetworkRanges = "services",
        /// Empty for Kubernetes' default, `cluster.local`.
        pub service_domain: String = "serviceDomain",
    }
}

slim! {
    /// A list of networks.
    pub struct NetworkRanges {
        /// In CIDR notation.
        pub cidr_blocks: Vec<String> = "cidrBlocks",
    }
}

slim! {
    /// `status` of a Cluster.
    pub struct ClusterStatus {
        /// Where machines can be placed.
        pub failure_domains: Vec<ClusterFailureDomain> = "failureDomains",
        /// Such as `Provisioned`.
        pub phase: String = "phase",
    }
}

slim! {
    /// A failure domain in a Cluster's status.
    pub struct ClusterFailureDomain {
        /// Name.
        pub name: String = "name",
        /// Suited for control-plane machines.
        pub control_plane: bool = "controlPlane",
        /// The provider's own attributes.
        pub attributes: BTreeMap<String, String> = "attributes",
    }
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

slim! {
    /// `spec` of a Machine.
    pub struct MachineSpec {
        /// Name of the Cluster.
        pub cluster_name: String = "clusterName",
        /// Kubernetes version with a leading v, or empty.
        pub version: String = "version",
        /// Where bootstrap data comes from.
        pub bootstrap: MachineBootstrap = "bootstrap",
        /// The infrastructure machine object.
        pub infrastructure_ref: Reference = "infrastructureRef",
        /// Set once the instance exists.
        pub provider_id: Option<String> = "providerID",
        /// Where the machine should be.
        pub failure_domain: Option<String> = "failureDomain",
    }
}

slim! {
    /// `spec.bootstrap` of a Machine.
    pub struct MachineBootstrap {
        /// The bootstrap config object.
        pub config_ref: Option<Reference> = "configRef",
        /// Secret with the data.
        pub data_secret_name: Option<String> = "dataSecretName",
    }
}

slim! {
    /// `status` of a Machine.
    pub struct MachineStatus {
        /// The Node, once it has joined.
        pub node_ref: Option<NodeReference> = "nodeRef",
        /// Such as `Running`.
        pub phase: String = "phase",
        /// Where the machine is reached.
        pub addresses: Vec<NodeAddress> = "addresses",
    }
}

slim! {
    /// `status.nodeRef` of a Machine.
    pub struct NodeReference {
        /// Name of the Node.
        pub name: String = "name",
    }
}

impl Machine {
    /// Whether it is a control-plane machine.
    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        self.metadata.labels.contains_key(CONTROL_PLANE_LABEL)
    }
}

slim! {
    /// `spec` of a Node.
    pub struct NodeSpec {
        /// Names the instance.
        pub provider_id: String = "providerID",
        /// Takes no new pods.
        pub unschedulable: bool = "unschedulable",
    }
}

slim! {
    /// `status` of a Node.
    pub struct NodeStatus {
        /// Addresses.
        pub addresses: Vec<NodeAddress> = "addresses",
        /// Conditions.
        pub conditions: Vec<NodeCondition> = "conditions",
    }
}

slim! {
    /// An address.
    pub struct NodeAddress {
        /// Such as `InternalIP`.
        pub address_type: String = "type",
        /// The address.
        pub address: String = "address",
    }
}

slim! {
    /// A condition of a Node.
    pub struct NodeCondition {
        /// Such as `Ready`.
        pub condition_type: String = "type",
        /// `True`, `False` or `Unknown`.
        pub status: String = "status",
    }
}
