//! Reasons that several kinds share.

words! {
    /// The host failed at something that is not the user's doing; it tries again. If it stays look into the host's log.
    INTERNAL_ERROR = "InternalError",
    /// A provider reported a condition that cannot be read. Its status and times must be well-formed: tell the provider's author.
    INVALID_CONDITION_REPORTED = "InvalidConditionReported",
    /// A provider reported a condition without a reason. Nothing to do.
    NO_REASON_REPORTED = "NoReasonReported",
    /// The object works. Nothing to do.
    AVAILABLE = "Available",
    /// The object does not work yet or no longer. The message says what is missing.
    NOT_AVAILABLE = "NotAvailable",
    /// Something that decides about availability could not be observed. The message says what.
    AVAILABLE_UNKNOWN = "AvailableUnknown",
    /// The object is in order. Nothing to do.
    READY = "Ready",
    /// The object is not in order. The message says what is missing.
    NOT_READY = "NotReady",
    /// Something that decides about readiness could not be observed. The message says what.
    READY_UNKNOWN = "ReadyUnknown",
    /// All of them match what is asked for. Nothing to do.
    UP_TO_DATE = "UpToDate",
    /// Something differs from what is asked for; it will be replaced or changed. The message says what differs.
    NOT_UP_TO_DATE = "NotUpToDate",
    /// Whether something differs could not be observed. The message says why.
    UP_TO_DATE_UNKNOWN = "UpToDateUnknown",
    /// Reconciliation is paused. Remove Cluster.spec.paused or the paused annotation to go on.
    PAUSED = "Paused",
    /// Reconciliation is not paused. Nothing to do.
    NOT_PAUSED = "NotPaused",
    /// The object is not being deleted. Nothing to do.
    NOT_DELETING = "NotDeleting",
    /// Deletion has begun. The message says how far it is.
    DELETING = "Deleting",
    /// Everything that had to go before the object is gone. Nothing to do.
    DELETION_COMPLETED = "DeletionCompleted",
    /// The referenced object was there and is gone. During a deletion this is normal; otherwise restore it or replace its owner.
    OBJECT_DELETED = "ObjectDeleted",
    /// The referenced object does not exist. Create it or correct the reference.
    OBJECT_DOES_NOT_EXIST = "ObjectDoesNotExist",
    /// There are no Machines to look at. Nothing to do.
    NO_REPLICAS = "NoReplicas",
    /// spec.replicas is not set yet. Set it if nobody else does.
    WAITING_FOR_REPLICAS_SET = "WaitingForReplicasSet",
    /// Machines are being replaced because of a change. Wait, or read the message for what differs.
    ROLLING_OUT = "RollingOut",
    /// No Machine is being replaced because of a change. Nothing to do.
    NOT_ROLLING_OUT = "NotRollingOut",
    /// Whether Machines are being replaced could not be observed. The message says why.
    ROLLING_OUT_UNKNOWN = "RollingOutUnknown",
    /// Machines are being added. The message says what blocks it, if anything does.
    SCALING_UP = "ScalingUp",
    /// No Machine has to be added. Nothing to do.
    NOT_SCALING_UP = "NotScalingUp",
    /// Whether Machines are being added could not be observed. The message says why.
    SCALING_UP_UNKNOWN = "ScalingUpUnknown",
    /// Machines are being removed. The message names those that take long.
    SCALING_DOWN = "ScalingDown",
    /// No Machine has to be removed. Nothing to do.
    NOT_SCALING_DOWN = "NotScalingDown",
    /// Whether Machines are being removed could not be observed. The message says why.
    SCALING_DOWN_UNKNOWN = "ScalingDownUnknown",
    /// Unhealthy Machines are being replaced. The message names them.
    REMEDIATING = "Remediating",
    /// No Machine is being replaced because of its health. Nothing to do.
    NOT_REMEDIATING = "NotRemediating",
    /// The host has lost its connection to the workload cluster for too long. Check the endpoint, the network and the kubeconfig Secret.
    CONNECTION_DOWN = "ConnectionDown",
    /// The state could not be read from the workload cluster. The message says what is waited for.
    INSPECTION_FAILED = "InspectionFailed",
    /// The workers still have to go before this can. Look at the objects named in the message.
    WAITING_FOR_WORKERS_DELETION = "WaitingForWorkersDeletion",
    /// The infrastructure object still has to go. Look at its own conditions.
    WAITING_FOR_INFRASTRUCTURE_DELETION = "WaitingForInfrastructureDeletion",
}
