//! Reasons on a Plugin.

words! {
    /// The bytes were found and have the right digest. Nothing to do.
    VERIFIED = "Verified",
    /// The ConfigMap that should hold the plugin does not exist. Create it or correct spec.source.
    SOURCE_NOT_FOUND = "SourceNotFound",
    /// The ConfigMap does not hold exactly one plugin where one was looked for. Name the key in spec.source.configMap.key.
    SOURCE_INVALID = "SourceInvalid",
    /// The source cannot be looked at now. The message says why; it is tried again.
    SOURCE_UNAVAILABLE = "SourceUnavailable",
    /// The registry refuses the login. Name a Secret with another in spec.source.oci.pullSecret.
    SOURCE_DENIED = "SourceDenied",
    /// The source is asked for, or the component fetched and compiled. Wait; the message says since when.
    LOADING = "Loading",
    /// The component has grants, and any other that is put into its source has them as well. Name it in spec.digest, or sign it.
    ANY_COMPONENT = "AnyComponent",
    /// Nobody whose key this host has signed the component, and the host loads it all the same. Sign it, or give the host the key.
    SIGNATURE_MISSING = "SignatureMissing",
    /// Nobody whose key this host has signed the component, and the host requires it. Sign it, or give the host the key.
    NOT_SIGNED = "NotSigned",
    /// A Secret that should hold public keys for signatures holds something else. The message names it.
    KEY_INVALID = "KeyInvalid",
    /// The plugin is larger than the host accepts. Strip or compress it.
    SOURCE_TOO_LARGE = "SourceTooLarge",
    /// The bytes do not have the digest that spec.digest asks for. Correct the digest, or find out who changed the bytes.
    DIGEST_MISMATCH = "DigestMismatch",
    /// The component is compiled and kept. Nothing to do.
    COMPILED = "Compiled",
    /// The component is being compiled. Wait.
    COMPILING = "Compiling",
    /// The bytes are not a component that can be compiled. The message says why; build the plugin again.
    COMPILE_FAILED = "CompileFailed",
    /// The plugin exports an interface that this host knows. Nothing to do.
    COMPATIBLE = "Compatible",
    /// The plugin exports or imports an interface that this host does not know. Build it for this host's version or upgrade the host.
    INCOMPATIBLE = "Incompatible",
    /// The plugin did not answer for its manifest. The message says why.
    MANIFEST_INVALID = "ManifestInvalid",
    /// A kind of the plugin belongs to another plugin, or its definition to other software. Remove one of them, or name the definition in the
    /// annotation capstan.dev/replaces-definitions of the Plugin.
    KIND_CONFLICT = "KindConflict",
    /// Everything that the plugin needs was granted. Nothing to do.
    GRANTED = "Granted",
    /// The plugin needs something that was not granted. Add the lines from status.missingGrants to spec.grants if you agree.
    GRANT_MISSING = "GrantMissing",
    /// The plugin needs something that was granted, but that the host allows to no plugin. Ask the host's operator to raise its ceiling.
    ABOVE_CEILING = "AboveCeiling",
    /// A grant is not well-formed or names a Secret that does not exist. The message names it.
    GRANT_INVALID = "GrantInvalid",
    /// An earlier step has to succeed first. Look at the other conditions.
    WAITING = "Waiting",
    /// The plugin is suspended by spec.suspend and answers no calls. Remove it to go on.
    SUSPENDED = "Suspended",
    /// A new version of the plugin failed and the one before it answers calls. The message says why; replace the new version.
    FELL_BACK = "FellBack",
    /// A new version failed so often after it had taken over that the one before answers calls again. Replace the new version.
    GIVEN_UP = "GivenUp",
    /// The plugin failed so often that calls to it are held back for a while. Read status.lastError.
    CIRCUIT_OPEN = "CircuitOpen",
    /// The source holds no WebAssembly. Put the built component there.
    NOT_WEB_ASSEMBLY = "NotWebAssembly",
    /// The source holds a module and not a component. Build it for the target wasm32-wasip2.
    CORE_MODULE = "CoreModule",
    /// The source holds native code, which the host never loads from elsewhere. Put the component itself there.
    PRECOMPILED_CODE = "PrecompiledCode",
    /// The component is larger than the host takes. Strip or compress it.
    TOO_LARGE = "TooLarge",
    /// What the source unpacks to is larger than the host takes. Strip the component.
    UNPACKS_TOO_LARGE = "UnpacksTooLarge",
    /// The source is packed in a way that cannot be undone. Pack it with gzip or zstd again.
    CANNOT_UNPACK = "CannotUnpack",
    /// Compiling the component took too long. Strip it, or give the host more processor time.
    COMPILE_TIMED_OUT = "CompileTimedOut",
    /// The host could not compile, which is no mistake of the component. The message says why; look into the host's log.
    HOST_FAILED = "HostFailed",
    /// The component imports what no host offers. Build it with this version's SDK.
    UNKNOWN_IMPORT = "UnknownImport",
    /// The component is built for a version of the interface that this host does not have. Build it anew or upgrade the host.
    INTERFACE_VERSION_UNSUPPORTED = "InterfaceVersionUnsupported",
    /// The component's interface has the right name and another shape. Build it with this version's SDK.
    INTERFACE_MISMATCH = "InterfaceMismatch",
    /// The component exports no interface of a plugin. Put a plugin there.
    NO_PLUGIN_INTERFACE = "NoPluginInterface",
    /// The component says that it owns a kind whose interface it does not export. Report it to the plugin's author.
    MISSING_INTERFACE = "MissingInterface",
    /// The component needs more memories, tables or instances than a plugin may have. Report it to the plugin's author.
    TOO_DEMANDING = "TooDemanding",
    /// The component crashed when it was asked for its manifest. Report it to the plugin's author.
    MANIFEST_TRAPPED = "ManifestTrapped",
}
