//! Reasons on a Cluster.

words! {
    /// The workload cluster's API answers. Nothing to do.
    PROBE_SUCCEEDED = "ProbeSucceeded",
    /// The workload cluster's API has not answered yet or has stopped answering. Check the endpoint, the network and the kubeconfig Secret.
    PROBE_FAILED = "ProbeFailed",
    /// The workload cluster's API has answered once. Nothing to do.
    INITIALIZED = "Initialized",
    /// The workload cluster's API has not answered yet. Look at the control-plane object and its first Machine.
    NOT_INITIALIZED = "NotInitialized",
    /// The Cluster has no groups of workers. Nothing to do.
    NO_WORKERS = "NoWorkers",
    /// A hook that runs before deletion has not let the Cluster go yet. Look at the extension that answers it.
    WAITING_FOR_BEFORE_DELETE_HOOK = "WaitingForBeforeDeleteHook",
    /// The control-plane object still has to go. Look at its own conditions.
    WAITING_FOR_CONTROL_PLANE_DELETION = "WaitingForControlPlaneDeletion",
    /// The topology could not be turned into objects. The message says why.
    RECONCILE_FAILED = "ReconcileFailed",
    /// The ClusterClass has a change that is not reconciled yet. Look at the ClusterClass.
    CLUSTER_CLASS_NOT_RECONCILED = "ClusterClassNotReconciled",
}
