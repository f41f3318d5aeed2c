//! Reasons of the rotation of a cluster's certificate authorities.

words! {
    /// The rotation cannot begin, and nothing was changed. The message lists every reason.
    ROTATION_REFUSED = "RotationRefused",
    /// The rotation cannot go on. The message says what a person has to put right.
    ROTATION_BLOCKED = "RotationBlocked",
    /// Stage 1 of 4: machines are replaced so that all trust the new authorities beside the old ones. Take kubeconfigs again before the next stage. Removing the annotation capstan.dev/rotate-ca goes back.
    TRUSTING_NEW = "TrustingNewAuthorities",
    /// Stage 2 of 4: control-plane machines are replaced so that the new authorities sign. Removing the annotation capstan.dev/rotate-ca goes back.
    SIGNING_WITH_NEW = "SigningWithNewAuthorities",
    /// Stage 3 of 4: machines are replaced so that nothing is in use that the old authorities signed. Take kubeconfigs again before the next stage. Removing the annotation capstan.dev/rotate-ca goes back.
    RENEWING_SIGNATURES = "RenewingSignatures",
    /// Stage 4 of 4: machines are replaced so that none trusts the old authorities. Their keys are gone: there is no way back.
    DROPPING_OLD = "DroppingOldAuthorities",
    /// The rotation goes back to the old authorities because its annotation was removed. Wait.
    TAKING_BACK = "TakingRotationBack",
    /// The rotation was taken back: the old authorities are in use, the new ones are gone. Nothing to do.
    ROTATION_TAKEN_BACK = "RotationTakenBack",
    /// The new authorities are in use, the old ones are gone. Nothing to do.
    ROTATED = "Rotated",
}
