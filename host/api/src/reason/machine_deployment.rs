//! Reasons that only a MachineDeployment has.

words! {
    /// The number of available Machines is not known yet. Wait for the MachineSets to report.
    WAITING_FOR_AVAILABLE_REPLICAS_SET = "WaitingForAvailableReplicasSet",
}
