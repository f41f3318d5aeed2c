//! Reasons on a MachineHook.

words! {
    /// The hook's plugin can be asked. Nothing to do.
    HOOK_AVAILABLE = "HookAvailable",
    /// The Plugin that the hook names does not exist. Install it or correct spec.plugin.
    PLUGIN_NOT_FOUND = "PluginNotFound",
    /// The Plugin that the hook names does not answer calls. Look at its conditions.
    PLUGIN_NOT_READY = "PluginNotReady",
    /// The Plugin that the hook names is of another kind. Correct spec.plugin.
    NOT_A_HOOK = "NotAHook",
    /// A selector of the hook cannot be read, so that it is bound to no Machine. The message names the field.
    SELECTOR_INVALID = "SelectorInvalid",
}
