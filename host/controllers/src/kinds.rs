//! The kinds that controllers know by name, as resources.

use std::sync::LazyLock;

use crate::kube_api::{GroupKind, Resource};

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $scope:ident($group:literal, $version:literal, $kind:literal, $plural:literal);)*) => {
        $($(#[$doc])* pub static $name: LazyLock<Resource> = LazyLock::new(|| Resource::$scope($group, $version, $kind, $plural));)*
    };
}

resources! {
    /// Cluster
    CLUSTER = namespaced("cluster.x-k8s.io", "v1beta2", "Cluster", "clusters");
    /// Machine
    MACHINE = namespaced("cluster.x-k8s.io", "v1beta2", "Machine", "machines");
    /// MachineSet
    MACHINE_SET = namespaced("cluster.x-k8s.io", "v1beta2", "MachineSet", "machinesets");
    /// MachineDeployment
    MACHINE_DEPLOYMENT = namespaced("cluster.x-k8s.io", "v1beta2", "MachineDeployment", "machinedeployments");
    /// MachinePool
    MACHINE_POOL = namespaced("cluster.x-k8s.io", "v1beta2", "MachinePool", "machinepools");
    /// MachineDrainRule
    MACHINE_DRAIN_RULE = namespaced("cluster.x-k8s.io", "v1beta2", "MachineDrainRule", "machinedrainrules");
    /// MachineHealthCheck
    MACHINE_HEALTH_CHECK = namespaced("cluster.x-k8s.io", "v1beta2", "MachineHealthCheck", "machinehealthchecks");
    /// ClusterResourceSet
    CLUSTER_RESOURCE_SET = namespaced("addons.cluster.x-k8s.io", "v1beta2", "ClusterResourceSet", "clusterresourcesets");
    /// ClusterResourceSetBinding
    CLUSTER_RESOURCE_SET_BINDING = namespaced("addons.cluster.x-k8s.io", "v1beta2", "ClusterResourceSetBinding", "clusterresourcesetbindings");
    /// ConfigMaps of ClusterResourceSets: a cache of its own, because that of ConfigMap holds plugins only
    RESOURCE_SET_CONFIG_MAP = namespaced("", "v1", "ConfigMap of a ClusterResourceSet", "configmaps");
    /// Secrets of ClusterResourceSets, metadata only
    RESOURCE_SET_SECRET = namespaced("", "v1", "Secret of a ClusterResourceSet", "secrets");
    /// Secrets with keys of signatures, metadata only
    SIGNING_KEY = namespaced("", "v1", "Secret with keys of signatures", "secrets");
    /// Plugin
    PLUGIN = namespaced("capstan.dev", "v1alpha1", "Plugin", "plugins");
    /// MachineHook
    MACHINE_HOOK = namespaced("capstan.dev", "v1alpha1", "MachineHook", "machinehooks");
    /// ConfigMap
    CONFIG_MAP = namespaced("", "v1", "ConfigMap", "configmaps");
    /// Secret
    SECRET = namespaced("", "v1", "Secret", "secrets");
    /// Event
    EVENT = namespaced("events.k8s.io", "v1", "Event", "events");
    /// Lease
    LEASE = namespaced("coordination.k8s.io", "v1", "Lease", "leases");
    /// Provider, in clusterctl's inventory
    PROVIDER = namespaced("clusterctl.cluster.x-k8s.io", "v1alpha3", "Provider", "providers");
    /// CustomResourceDefinition
    CRD = cluster_scoped("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
    /// Node, in workload clusters
    NODE = cluster_scoped("", "v1", "Node", "nodes");
    /// Pod, in workload clusters
    POD = namespaced("", "v1", "Pod", "pods");
    /// DaemonSet, in workload clusters
    DAEMON_SET = namespaced("apps", "v1", "DaemonSet", "daemonsets");
    /// VolumeAttachment, in workload clusters
    VOLUME_ATTACHMENT = cluster_scoped("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments");
    /// PersistentVolume, in workload clusters
    PERSISTENT_VOLUME = cluster_scoped("", "v1", "PersistentVolume", "persistentvolumes");
    /// Namespace
    NAMESPACE = cluster_scoped("", "v1", "Namespace", "namespaces");
}

/// Whether a kind is one that controllers know by name; all others were learned from references and plugins.
#[must_use]
pub fn is_known(kind: &GroupKind) -> bool {
    kind.group == CLUSTER.group
        || kind.group == PLUGIN.group
        || kind.group == CLUSTER_RESOURCE_SET.group
        || kind.group.is_empty()
        || kind.group == CRD.group
}
