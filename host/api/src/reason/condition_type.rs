//! Types of conditions.

words! {
    /// The object works as a whole, set by its controller from its other conditions. Read the message for what is missing.
    AVAILABLE = "Available",
    /// The object itself is in order, set by its controller from its other conditions. Read the message for what is missing.
    READY = "Ready",
    /// The Machine matches what its owner asks for, set by the owner's controller. False is normal during a rollout.
    UP_TO_DATE = "UpToDate",
    /// The host reaches the workload cluster's API, set by the Cluster controller. If False check the endpoint, the network and the kubeconfig Secret.
    REMOTE_CONNECTION_PROBE = "RemoteConnectionProbe",
    /// The Machine's bootstrap object is ready, copied from it by the Machine controller. If False look at the bootstrap object.
    BOOTSTRAP_CONFIG_READY = "BootstrapConfigReady",
    /// The infrastructure object is ready, copied from it by the owner's controller. If False look at the infrastructure object.
    INFRASTRUCTURE_READY = "InfrastructureReady",
    /// The workload cluster's API has answered once, set by the Cluster controller and never taken back. If False look at the first control-plane Machine.
    CONTROL_PLANE_INITIALIZED = "ControlPlaneInitialized",
    /// The control plane is available, copied from the control-plane object by the Cluster controller. If False look at that object.
    CONTROL_PLANE_AVAILABLE = "ControlPlaneAvailable",
    /// All groups of workers are available, set by the Cluster controller. If False look at the MachineDeployments named in the message.
    WORKERS_AVAILABLE = "WorkersAvailable",
    /// The certificate authorities of the workload cluster are there, set by the control-plane or bootstrap provider. If False check the Secrets named in the message.
    CERTIFICATES_AVAILABLE = "CertificatesAvailable",
    /// The certificate authorities and the service account key were replaced, set by the host on a control plane with the annotation capstan.dev/rotate-ca. If False the reason is the stage and the message what it waits for.
    CERTIFICATE_AUTHORITIES_ROTATED = "CertificateAuthoritiesRotated",
    /// The control plane has come up once, set by the control-plane provider and never taken back. If False look at its first Machine.
    INITIALIZED = "Initialized",
    /// The etcd members are healthy and known, set by the control-plane provider. If False look at the Machines' EtcdMemberHealthy.
    ETCD_CLUSTER_HEALTHY = "EtcdClusterHealthy",
    /// What the control-plane plugin looks after inside the workload cluster (as kube-proxy and CoreDNS) fits the control plane, set by the control-plane provider where it once did not. If False read the message.
    IN_CLUSTER_COMPONENTS_UP_TO_DATE = "InClusterComponentsUpToDate",
    /// The components of all control-plane Machines are healthy, set by the control-plane provider. If False look at the Machines' component conditions.
    CONTROL_PLANE_COMPONENTS_HEALTHY = "ControlPlaneComponentsHealthy",
    /// The Node is ready and under no pressure, set by the Machine controller. If False look at the Node's own conditions.
    NODE_HEALTHY = "NodeHealthy",
    /// The Node is ready, copied from it by the Machine controller. If False look at the kubelet and the network plugin.
    NODE_READY = "NodeReady",
    /// The machine's Node is ready, set for control planes whose plugin names no components to look at. If False look at the machine's services.
    CONTROL_PLANE_NODE_READY = "ControlPlaneNodeReady",
    /// The Node carries kubeadm's control-plane label and taint, set by the control-plane provider. If False kubeadm has not finished on the machine.
    NODE_KUBEADM_LABELS_AND_TAINTS_SET = "NodeKubeadmLabelsAndTaintsSet",
    /// The machine's etcd Pod runs, set by the control-plane provider. If False read the Pod's log.
    ETCD_POD_HEALTHY = "EtcdPodHealthy",
    /// The machine's etcd member is healthy, set by the control-plane provider. If False check alarms and disk of the member.
    ETCD_MEMBER_HEALTHY = "EtcdMemberHealthy",
    /// The machine's kube-apiserver Pod runs, set by the control-plane provider. If False read the Pod's log.
    API_SERVER_POD_HEALTHY = "APIServerPodHealthy",
    /// The machine's kube-controller-manager Pod runs, set by the control-plane provider. If False read the Pod's log.
    CONTROLLER_MANAGER_POD_HEALTHY = "ControllerManagerPodHealthy",
    /// The machine's kube-scheduler Pod runs, set by the control-plane provider. If False read the Pod's log.
    SCHEDULER_POD_HEALTHY = "SchedulerPodHealthy",
    /// The Machine passes its health check, set by the MachineHealthCheck controller. If False the Machine is to be replaced.
    HEALTH_CHECK_SUCCEEDED = "HealthCheckSucceeded",
    /// The owner has replaced an unhealthy Machine; False asks it to, set by the MachineHealthCheck controller and answered by the owner.
    OWNER_REMEDIATED = "OwnerRemediated",
    /// An external controller has repaired an unhealthy Machine; False asks it to, set by the MachineHealthCheck controller.
    EXTERNALLY_REMEDIATED = "ExternallyRemediated",
    /// The objects match the Cluster's topology, set by the topology controller. If False read the message.
    TOPOLOGY_RECONCILED = "TopologyReconciled",
    /// The Machine is being changed in place, set by the Machine controller. True is normal for a while.
    UPDATING = "Updating",
    /// Machines are being replaced because of a change. True is normal for a while.
    ROLLING_OUT = "RollingOut",
    /// The upgrade strategy of a MachineDeployment cannot go on, set by the host. If True read the message: it says what is wrong and what to change.
    UPGRADE_BLOCKED = "UpgradeBlocked",
    /// Unhealthy Machines are being replaced. If it stays True look at the Machines named in the message.
    REMEDIATING = "Remediating",
    /// There are more Machines than there should be and some are being removed. True is normal for a while.
    SCALING_DOWN = "ScalingDown",
    /// There are fewer Machines than there should be and some are being added. If it stays True read the message for what blocks it.
    SCALING_UP = "ScalingUp",
    /// All Machines of the object are ready. If False look at the Machines named in the message.
    MACHINES_READY = "MachinesReady",
    /// All control-plane Machines are ready, set by the Cluster controller. If False look at the Machines named in the message.
    CONTROL_PLANE_MACHINES_READY = "ControlPlaneMachinesReady",
    /// All worker Machines are ready, set by the Cluster controller. If False look at the Machines named in the message.
    WORKER_MACHINES_READY = "WorkerMachinesReady",
    /// All Machines of the object match what is asked for. False is normal during a rollout.
    MACHINES_UP_TO_DATE = "MachinesUpToDate",
    /// All control-plane Machines match what is asked for. False is normal during a rollout.
    CONTROL_PLANE_MACHINES_UP_TO_DATE = "ControlPlaneMachinesUpToDate",
    /// All worker Machines match what is asked for. False is normal during a rollout.
    WORKER_MACHINES_UP_TO_DATE = "WorkerMachinesUpToDate",
    /// Reconciliation is paused by Cluster.spec.paused or the paused annotation. Remove it to go on, also for a deletion to go on.
    PAUSED = "Paused",
    /// The object is being deleted, set by its controller. The reason and message say what the deletion waits for.
    DELETING = "Deleting",
    /// A MachineHealthCheck may have Machines replaced. If False too many Machines are unhealthy at once: find the common cause.
    REMEDIATION_ALLOWED = "RemediationAllowed",
    /// No other MachineHealthCheck selects a Machine of this one. If False give them selectors that have no Machine in common.
    TARGETS_EXCLUSIVE = "TargetsExclusive",
    /// The hooks that were bound to the Machine before its drain let it go, set by the Machine controller during a deletion. If False read the message.
    PRE_DRAIN_HOOKS_SUCCEEDED = "PreDrainHooksSucceeded",
    /// The hooks that were bound to the Machine before its termination let it go, set by the Machine controller during a deletion. If False read the message.
    PRE_TERMINATE_HOOKS_SUCCEEDED = "PreTerminateHooksSucceeded",
    /// The machine became a node, or has not said otherwise; False when it reported that its bootstrap failed. Read the message: it has the end of the machine's log.
    BOOTSTRAP_SUCCEEDED = "BootstrapSucceeded",
    /// The Secret with the bootstrap data is there, set by the bootstrap provider. If False read the message.
    DATA_SECRET_AVAILABLE = "DataSecretAvailable",
    /// Everything of a ClusterResourceSet is applied to all Clusters that it selects. If False status.problems says what is not.
    RESOURCES_APPLIED = "ResourcesApplied",
    /// The plugin's bytes were found and have the digest that was asked for. If False check spec.source and spec.digest.
    VERIFIED = "Verified",
    /// The plugin's bytes were compiled. If False the component is not valid or too large: read the message.
    COMPILED = "Compiled",
    /// The plugin exports an interface that this host knows. If False build the plugin for this host's version or upgrade the host.
    COMPATIBLE = "Compatible",
    /// Everything that the plugin needs was granted. If False status.missingGrants shows the lines to add to spec.grants.
    GRANTED = "Granted",
}
