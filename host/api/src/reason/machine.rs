//! Reasons on a Machine that the Machine controller and health checks set.

words! {
    /// The Machine has just become ready and must stay so for spec.minReadySeconds. Wait.
    WAITING_FOR_MIN_READY_SECONDS = "WaitingForMinReadySeconds",
    /// The Machine is being changed to what is asked for. Wait.
    UPDATING = "Updating",
    /// The host is being changed in place. Wait.
    IN_PLACE_UPDATING = "InPlaceUpdating",
    /// Changing the host in place failed. The message says why; deleting the Machine replaces it.
    IN_PLACE_UPDATE_FAILED = "InPlaceUpdateFailed",
    /// The host is not being changed in place. Nothing to do.
    NOT_UPDATING = "NotUpdating",
    /// The Machine names its bootstrap Secret itself and has no bootstrap object. Nothing to do.
    DATA_SECRET_PROVIDED = "DataSecretProvided",
    /// The Node reports Ready. Nothing to do.
    NODE_READY = "NodeReady",
    /// The Node reports that it is not ready. Look at the kubelet and the network plugin.
    NODE_NOT_READY = "NodeNotReady",
    /// The Node has stopped reporting. Check whether the host runs and reaches the API.
    NODE_READY_UNKNOWN = "NodeReadyUnknown",
    /// The Node is ready and under no pressure. Nothing to do.
    NODE_HEALTHY = "NodeHealthy",
    /// The Node is not ready or under pressure. The message names the Node's conditions.
    NODE_NOT_HEALTHY = "NodeNotHealthy",
    /// The Node has stopped reporting some of its conditions. Check whether the host runs and reaches the API.
    NODE_HEALTHY_UNKNOWN = "NodeHealthyUnknown",
    /// The Node was there and is gone. Delete the Machine if the host is gone too.
    NODE_DELETED = "NodeDeleted",
    /// There is no Node for the Machine. Wait, or check whether the host joined the cluster.
    NODE_DOES_NOT_EXIST = "NodeDoesNotExist",
    /// Pods are being evicted from the Node. The message names those that do not go.
    DRAINING_NODE = "DrainingNode",
    /// Volumes are still attached to the Node. The message names them.
    WAITING_FOR_VOLUME_DETACH = "WaitingForVolumeDetach",
    /// A hook must succeed before the Node is drained. Its owner removes the annotation named in the message.
    WAITING_FOR_PRE_DRAIN_HOOK = "WaitingForPreDrainHook",
    /// A hook must succeed before the host is deleted. Its owner removes the annotation named in the message.
    WAITING_FOR_PRE_TERMINATE_HOOK = "WaitingForPreTerminateHook",
    /// The bootstrap object still has to go. Look at its finalizers.
    WAITING_FOR_BOOTSTRAP_DELETION = "WaitingForBootstrapDeletion",
    /// The Node is being deleted from the workload cluster. If it stays check the connection to the workload cluster.
    DELETING_NODE = "DeletingNode",
    /// The Machine passes its health check. Nothing to do.
    HEALTH_CHECK_SUCCEEDED = "HealthCheckSucceeded",
    /// Somebody asked for the Machine to be replaced by annotation. Nothing to do.
    HAS_REMEDIATE_ANNOTATION = "HasRemediateAnnotation",
    /// A condition of the Machine was bad for too long. The message names it.
    UNHEALTHY_MACHINE = "UnhealthyMachine",
    /// A condition of the Node was bad for too long. The message names it.
    UNHEALTHY_NODE = "UnhealthyNode",
    /// No Node appeared within the time that the health check allows. Check whether the host joined the cluster.
    NODE_STARTUP_TIMEOUT = "NodeStartupTimeout",
    /// The Machine is to be replaced and nobody has begun yet. Wait, or look at the owner's Remediating condition.
    WAITING_FOR_REMEDIATION = "WaitingForRemediation",
    /// The template for an external remediation request does not exist. Create it or correct the MachineHealthCheck.
    REMEDIATION_TEMPLATE_NOT_FOUND = "RemediationTemplateNotFound",
    /// The external remediation request could not be created. The message says why.
    REMEDIATION_REQUEST_CREATION_FAILED = "RemediationRequestCreationFailed",
    /// The Machine is being deleted to replace it. Wait.
    MACHINE_DELETING = "MachineDeleting",
    /// The Machine will be replaced later. The message says what must come first.
    REMEDIATION_DEFERRED = "RemediationDeferred",
    /// The Machine cannot be replaced safely. The message says why; act by hand.
    CANNOT_BE_REMEDIATED = "CannotBeRemediated",
    /// All bound hooks of the phase have let the Machine go, or were passed over as the operator said. Nothing to do.
    HOOKS_SUCCEEDED = "HooksSucceeded",
    /// A bound hook holds the Machine. The message has its words; wait, or change the MachineHook.
    WAITING_FOR_HOOK = "WaitingForHook",
    /// A bound hook failed and is asked again. The message has its words; correct the cause, or set onFailure of the MachineHook to Proceed.
    HOOK_FAILED = "HookFailed",
    /// A bound hook did not let the Machine go in time and blocks. Find out why, or set onTimeout of the MachineHook to Proceed.
    HOOK_TIMED_OUT = "HookTimedOut",
    /// The plugin of a bound hook cannot be asked. Install it, or look at the conditions of the Plugin and the MachineHook.
    HOOK_NOT_AVAILABLE = "HookNotAvailable",
}
