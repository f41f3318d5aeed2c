//! Finalizers of Cluster API, by the kind that they hold.

/// Holds a Cluster until everything in it is gone.
pub const CLUSTER: &str = "cluster.cluster.x-k8s.io";
/// Holds a Machine until its host is gone.
pub const MACHINE: &str = "machine.cluster.x-k8s.io";
/// Holds a MachineSet until its Machines are gone.
pub const MACHINE_SET: &str = "cluster.x-k8s.io/machineset";
/// Holds a MachineDeployment until its MachineSets are gone.
pub const MACHINE_DEPLOYMENT: &str = "cluster.x-k8s.io/machinedeployment";
/// Holds a MachinePool until its infrastructure is gone.
pub const MACHINE_POOL: &str = "machinepool.cluster.x-k8s.io";
/// Holds a ClusterResourceSet until its bindings are updated.
pub const CLUSTER_RESOURCE_SET: &str = "addons.cluster.x-k8s.io";
/// Holds a KubeadmControlPlane until its Machines are gone.
pub const KUBEADM_CONTROL_PLANE: &str = "kubeadm.controlplane.cluster.x-k8s.io";
/// Holds a MachineDeployment of a topology until its templates are gone.
pub const TOPOLOGY_MACHINE_DEPLOYMENT: &str = "machinedeployment.topology.cluster.x-k8s.io";
/// Holds a MachineSet of a topology until its templates are gone.
pub const TOPOLOGY_MACHINE_SET: &str = "machineset.topology.cluster.x-k8s.io";
/// Holds an infrastructure or bootstrap object of a plugin until the plugin has let go of it.
pub const PLUGIN_OBJECT: &str = "capstan.dev/provider";
