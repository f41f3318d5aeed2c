//! Reasons that only a MachinePool has.

words! {
    /// A reference of the MachinePool names something that a pool cannot be made of. The message names the field and what to name instead.
    REFERENCE_NOT_SUPPORTED = "ReferenceNotSupported",
}
