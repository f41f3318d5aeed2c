//! Reasons that only a MachineSet has.

words! {
    /// Machines are missing but must not be created yet. The message names the preflight checks that failed.
    PREFLIGHT_CHECK_FAILED = "PreflightCheckFailed",
}
