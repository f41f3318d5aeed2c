//! Reasons of events: what happened, as `kubectl describe` lists it.

words! {
    /// All Pods that had to go are gone from the Machine's Node. Nothing to do.
    SUCCESSFUL_DRAIN_NODE = "SuccessfulDrainNode",
    /// The Machine's Node could not be drained yet. The note names the Pods and what holds them; the host goes on trying.
    FAILED_DRAIN_NODE = "FailedDrainNode",
    /// All volumes that had to be detached from the Machine's Node are. Nothing to do.
    NODE_VOLUMES_DETACHED = "NodeVolumesDetached",
    /// Whether volumes are attached to the Machine's Node could not be seen. The note says why; the host goes on trying.
    FAILED_WAIT_FOR_VOLUME_DETACH = "FailedWaitForVolumeDetach",
    /// The Node of a Machine that goes could not be deleted. The note has the API server's words; the host tries again for as long as
    /// spec.deletion.nodeDeletionTimeoutSeconds says.
    FAILED_DELETE_NODE = "FailedDeleteNode",
    /// Whose they are could not be written onto Nodes of a MachinePool's machines. The note has the API server's words; the host tries again.
    FAILED_SET_NODE_REF = "FailedSetNodeRef",
    /// A health check found a Machine unhealthy. The note says what was seen; the owner replaces it if it may.
    MACHINE_MARKED_UNHEALTHY = "MachineMarkedUnhealthy",
    /// So many Machines are unhealthy that none is replaced. Find what they have in common, or change triggerIf.
    REMEDIATION_RESTRICTED = "RemediationRestricted",
    /// A hook let a Machine's deletion go on. Nothing to do.
    HOOK_PROCEEDED = "HookProceeded",
    /// A hook holds a Machine's deletion. The note has its words and says who has the next move.
    HOOK_WAITING = "HookWaiting",
    /// A hook held a Machine's deletion for longer than spec.timeoutSeconds allows. What follows is what spec.onTimeout says.
    HOOK_TIMED_OUT = "HookTimedOut",
    /// A hook's plugin cannot be asked. Look at its Plugin object; what follows is what spec.onFailure says.
    HOOK_NOT_AVAILABLE = "HookNotAvailable",
    /// A hook failed. The note has its words; what follows is what spec.onFailure says.
    HOOK_FAILED = "HookFailed",
    /// A control plane took over a Machine that was made without it. Nothing to do.
    MACHINE_ADOPTED = "MachineAdopted",
    /// A control plane could not take over a Machine. The note says what stands against it, as `capstan plan adopt` does; the host tries again.
    ADOPTION_FAILED = "AdoptionFailed",
    /// The leadership of etcd went to another member before a machine goes. Nothing to do.
    ETCD_LEADER_MOVED = "EtcdLeaderMoved",
    /// The leadership of etcd could not be given to another member, so the machine that has it stays. The note says why; the host tries again.
    FAILED_MOVE_ETCD_LEADER = "FailedMoveEtcdLeader",
    /// A member was removed from etcd. Nothing to do.
    ETCD_MEMBER_REMOVED = "EtcdMemberRemoved",
    /// No snapshot of etcd could be taken, so its member stays. The note says why and what to do; the host tries again.
    FAILED_ETCD_SNAPSHOT = "FailedEtcdSnapshot",
    /// A snapshot of etcd was taken before a member was removed. The message has its place and size.
    ETCD_SNAPSHOT_TAKEN = "EtcdSnapshotTaken",
    /// A member could not be removed from etcd. The note says why; the host tries again.
    FAILED_REMOVE_ETCD_MEMBER = "FailedRemoveEtcdMember",
    /// A rotation of the certificate authorities reached its next stage. Nothing to do; the note says which.
    CERTIFICATE_AUTHORITIES_ROTATING = "CertificateAuthoritiesRotating",
    /// A step of a rotation of the certificate authorities failed. The note says why; the host tries again.
    FAILED_CERTIFICATE_AUTHORITY_ROTATION = "FailedCertificateAuthorityRotation",
    /// The first machine of a control plane could not be made. The note says why; the host tries again.
    FAILED_INITIALIZATION = "FailedInitialization",
    /// A machine could not be added to a control plane. The note says why; the host tries again.
    FAILED_SCALE_UP = "FailedScaleUp",
    /// A machine could not be taken from a control plane. The note says why; the host tries again.
    FAILED_SCALE_DOWN = "FailedScaleDown",
    /// Machines that are not well keep a control plane from changing the number of its machines. The note says which; look at its conditions.
    CONTROL_PLANE_UNHEALTHY = "ControlPlaneUnhealthy",
    /// A Machine or a MachineSet could not be made. The note has the API server's words; the host tries again.
    FAILED_CREATE = "FailedCreate",
    /// A Machine or a MachineSet that nobody controls could not be taken over by the set or deployment that selects it. The note has the
    /// API server's words; the host tries again.
    FAILED_ADOPT = "FailedAdopt",
    /// A Machine or a MachineSet could not be deleted, by its owner or with its control plane. The note has the API server's words; the host tries again.
    FAILED_DELETE = "FailedDelete",
    /// A MachineSet could not be changed in place. The note has the API server's words; the host tries again.
    FAILED_UPDATE = "FailedUpdate",
    /// The replicas of a MachineSet could not be changed. The note has the API server's words; the host tries again.
    FAILED_SCALE = "FailedScale",
    /// A component of a plugin answers calls now. Nothing to do.
    ACTIVATED = "Activated",
    /// The grants, limits and config of a plugin are those of its object's present generation. Nothing to do.
    REGRANTED = "Regranted",
    /// A plugin answers no calls any more: its source is gone or it is suspended. Nothing to do if that was meant.
    DEACTIVATED = "Deactivated",
    /// What answered a plugin's calls before the host was started is not kept or cannot be used. Give the source a component that works.
    NOT_RESTORED = "NotRestored",
    /// The canary of a plugin answers calls about its objects. Promote it when you trust it.
    CANARY_SERVING = "CanaryServing",
    /// The canary of a plugin answers all calls. Make it the source of the plugin when it stays.
    CANARY_PROMOTED = "CanaryPromoted",
    /// The canary of a plugin answers no calls any more. Nothing to do.
    CANARY_DROPPED = "CanaryDropped",
    /// Calls of a plugin that were held back go through again. Nothing to do.
    CIRCUIT_CLOSED = "CircuitClosed",
}
