//! Reasons on a MachineHealthCheck.

words! {
    /// Few enough Machines are unhealthy for them to be replaced. Nothing to do.
    REMEDIATION_ALLOWED = "RemediationAllowed",
    /// So many Machines are unhealthy that replacing them could do harm. Find the common cause, or change triggerIf.
    TOO_MANY_UNHEALTHY = "TooManyUnhealthy",
}
