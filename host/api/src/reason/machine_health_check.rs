//! Reasons on a MachineHealthCheck.

words! {
    /// Few enough Machines are unhealthy for them to be replaced. Nothing to do.
    REMEDIATION_ALLOWED = "RemediationAllowed",
    /// So many Machines are unhealthy that replacing them could do harm. Find the common cause, or change triggerIf.
    TOO_MANY_UNHEALTHY = "TooManyUnhealthy",
    /// Each Machine is selected by one MachineHealthCheck only. Nothing to do.
    NO_SHARED_TARGETS = "NoSharedTargets",
    /// Several MachineHealthChecks select the same Machine; the oldest acts on it. Change the selector of one of them.
    SHARED_TARGETS = "SharedTargets",
}
