//! Labels of Cluster API and where they are found.

/// On everything that belongs to a Cluster: the Cluster's name.
pub const CLUSTER_NAME: &str = "cluster.x-k8s.io/cluster-name";
/// On control-plane Machines and their objects; the value is empty.
pub const CONTROL_PLANE: &str = "cluster.x-k8s.io/control-plane";
/// On control-plane Machines: name of the control-plane object.
pub const CONTROL_PLANE_NAME: &str = "cluster.x-k8s.io/control-plane-name";
/// On Machines of a MachineSet: name of the MachineSet, hashed if it is longer than a label value.
pub const SET_NAME: &str = "cluster.x-k8s.io/set-name";
/// On MachineSets and Machines of a MachineDeployment: name of the MachineDeployment.
pub const DEPLOYMENT_NAME: &str = "cluster.x-k8s.io/deployment-name";
/// On Machines of a MachinePool: name of the pool, hashed if it is longer than a label value.
pub const POOL_NAME: &str = "cluster.x-k8s.io/pool-name";
/// On Nodes whose host the cloud may take away; the value is empty.
pub const INTERRUPTIBLE: &str = "cluster.x-k8s.io/interruptible";
/// Of upstream's managers that look at objects with one value only. This host looks at all objects, whatever their value.
pub const WATCH_FILTER: &str = "cluster.x-k8s.io/watch-filter";
/// On CustomResourceDefinitions and inventory: `<type>-<name>` of the provider.
pub const PROVIDER: &str = "cluster.x-k8s.io/provider";
/// On Pods: how a drain treats them (`skip`, `wait-completed`).
pub const DRAIN: &str = "cluster.x-k8s.io/drain";
/// On MachineSets and Machines of a MachineDeployment: tells templates apart.
pub const MACHINE_TEMPLATE_HASH: &str = "machine-template-hash";
/// On objects that a Cluster's topology made; the value is empty.
pub const TOPOLOGY_OWNED: &str = "topology.cluster.x-k8s.io/owned";
/// On MachineDeployments that a topology made: name of the group in the topology.
pub const TOPOLOGY_DEPLOYMENT_NAME: &str = "topology.cluster.x-k8s.io/deployment-name";
/// On MachinePools that a topology made: name of the group in the topology.
pub const TOPOLOGY_POOL_NAME: &str = "topology.cluster.x-k8s.io/pool-name";
/// On what `clusterctl` installed or should find; the value is empty.
pub const CLUSTERCTL: &str = "clusterctl.cluster.x-k8s.io";
/// On `clusterctl`'s own parts: `inventory` or `cert-manager`.
pub const CLUSTERCTL_CORE: &str = "clusterctl.cluster.x-k8s.io/core";
/// On objects, or kinds, that `clusterctl move` takes along; the value is empty.
pub const CLUSTERCTL_MOVE: &str = "clusterctl.cluster.x-k8s.io/move";
/// On objects, or kinds, that `clusterctl move` takes along with all they own; the value is empty.
pub const CLUSTERCTL_MOVE_HIERARCHY: &str = "clusterctl.cluster.x-k8s.io/move-hierarchy";
/// On CustomResourceDefinitions: the versions that follow the v1beta2 contract, joined by `_`.
pub const CONTRACT_V1BETA2: &str = "cluster.x-k8s.io/v1beta2";
/// On CustomResourceDefinitions: the versions that follow the v1beta1 contract, joined by `_`.
pub const CONTRACT_V1BETA1: &str = "cluster.x-k8s.io/v1beta1";
/// On ClusterRoles whose rules the manager's role includes; the value is `true`.
pub const AGGREGATE_TO_MANAGER: &str = "cluster.x-k8s.io/aggregate-to-manager";
/// On control-plane Nodes, set by kubeadm; the value is empty.
pub const NODE_ROLE_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// On the ConfigMap that holds a plugin; any value. A Plugin object is made for it.
pub const PLUGIN: &str = "capstan.dev/plugin";
/// On a ConfigMap that holds a part of a plugin: which, from 0.
pub const PLUGIN_PART: &str = "capstan.dev/plugin-part";
/// On a ConfigMap that holds a part of a plugin: how many there are.
pub const PLUGIN_PARTS: &str = "capstan.dev/plugin-parts";
/// On Secrets of the host's namespace with public keys: signatures of plugins are checked with them; any value.
pub const SIGNING_KEY: &str = "capstan.dev/signing-key";
/// On a Machine: the class of scarce capacity that it uses, for upgrade strategies.
pub const CAPACITY_CLASS: &str = "capstan.dev/capacity-class";
