//! Reasons of the kubeadm bootstrap and control-plane kinds.

words! {
    /// The machine reported that its bootstrap failed. The message has the end of its log; a MachineHealthCheck or a deletion replaces it.
    BOOTSTRAP_FAILED = "BootstrapFailed",
    /// The machine reported that one of its postKubeadmCommands failed. It is a node all the same, and nothing is held back for it: the message has the end of its log.
    POST_KUBEADM_COMMANDS_FAILED = "PostKubeadmCommandsFailed",
    /// The machine reported a failure and became a node all the same. Nothing to do.
    BOOTSTRAP_SUCCEEDED = "BootstrapSucceeded",
    /// The join token in the bootstrap data is gone from the workload cluster, and the machine has not joined: it cannot any more. Delete the Machine, so that it is replaced.
    JOIN_TOKEN_GONE = "JoinTokenGone",
    /// The components or members are healthy. Nothing to do.
    HEALTHY = "Healthy",
    /// A component or member is not healthy. The message names it.
    NOT_HEALTHY = "NotHealthy",
    /// The health of a component or member could not be observed. The message says why.
    HEALTH_UNKNOWN = "HealthUnknown",
    /// The component's Pod runs and is ready. Nothing to do.
    RUNNING = "Running",
    /// The component's Pod has not come up yet. Wait.
    PROVISIONING = "Provisioning",
    /// The component's Pod failed. Read its log on the host.
    FAILED = "Failed",
    /// The component's Pod does not exist. Check the static Pod manifests on the host.
    DOES_NOT_EXIST = "DoesNotExist",
    /// The Node carries the control-plane label and taint. Nothing to do.
    SET = "Set",
    /// The Node lacks the control-plane label or taint. Check whether kubeadm finished on the host.
    NOT_SET = "NotSet",
    /// The control-plane Machines still have to go. Look at the Machines named in the message.
    WAITING_FOR_MACHINE_DELETION = "WaitingForMachineDeletion",
}
