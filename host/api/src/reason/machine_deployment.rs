//! Reasons that only a MachineDeployment has.

words! {
    /// The number of available Machines is not known yet. Wait for the MachineSets to report.
    WAITING_FOR_AVAILABLE_REPLICAS_SET = "WaitingForAvailableReplicasSet",
    /// The upgrade strategy can go on, or there is nothing to upgrade. Nothing to do.
    NOT_BLOCKED = "NotBlocked",
    /// The upgrade strategy's settings cannot be used. Correct the annotation that the message names.
    STRATEGY_SETTINGS_INVALID = "StrategySettingsInvalid",
    /// No active plugin has the name of the upgrade strategy. Install it, or correct the annotation that names it.
    STRATEGY_NOT_ACTIVE = "StrategyNotActive",
    /// The upgrade strategy could not plan. Its own words in the message say what it needs; it is asked again from time to time.
    STRATEGY_FAILED = "StrategyFailed",
    /// The upgrade strategy's answer broke a rule of rollouts, so nothing of it was done. The message says which rule; report it to the plugin's author.
    STRATEGY_ANSWER_REFUSED = "StrategyAnswerRefused",
    /// The upgrade strategy changes nothing and does not say what it waits for. Report it to the plugin's author, or choose another strategy.
    STRATEGY_IDLE = "StrategyIdle",
    /// The upgrade strategy gave up on the current template and went back to the one before. Change spec.template, or restart the rollout.
    ROLLED_BACK = "RolledBack",
}
