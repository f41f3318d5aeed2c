//! What can go wrong: when the engine starts, when a component is loaded, when it is called. Each is a different thing, and the
//! object's condition says which.

use std::path::PathBuf;
use std::time::Duration;

use capstan_core::call::{PluginFailure, PluginFailureKind};
use capstan_core::plan::{Failure, FailureKind};

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cache directory cannot be used.
    #[error("cannot use {path} for compiled plugins: {why}")]
    CacheDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// The WebAssembly engine refused its configuration.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Wasm(String),
    /// Threads for guests could not be started.
    #[error("cannot start threads for plugins")]
    Threads(#[source] std::io::Error),
}

/// Which condition of the Plugin object a failure to load belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadCondition {
    /// The bytes are what they should be.
    Verified,
    /// They could be made into native code.
    Compiled,
    /// This host can serve what they are.
    Compatible,
}

impl LoadCondition {
    /// The condition's type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "Verified",
            Self::Compiled => "Compiled",
            Self::Compatible => "Compatible",
        }
    }
}

/// A component that cannot be used. Terminal until its bytes change, but for what [`LoadError::is_transient`] names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly at all.
    #[error("this is not a WebAssembly component: it begins with {begins}")]
    NotWasm {
        /// The first bytes, printable.
        begins: String,
    },
    /// The bytes end too early.
    #[error("the component is truncated: it ends at byte {at}, in the middle of its contents")]
    Truncated {
        /// Length.
        at: usize,
    },
    /// The bytes are not valid.
    #[error("the component is malformed at byte {at}: {why}")]
    Malformed {
        /// Offset.
        at: usize,
        /// What is wrong.
        why: String,
    },
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component: build it for the target wasm32-wasip2"
    )]
    CoreModule,
    /// Native code.
    #[error(
        "this is precompiled native code, which is never accepted: give the .wasm component instead"
    )]
    Precompiled,
    /// Over a limit.
    #[error("the {what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// Unpacks to far more than it is.
    #[error(
        "the source unpacks to more than {ratio} times its size of {packed} bytes, which no component does"
    )]
    Bomb {
        /// Limit.
        ratio: usize,
        /// Bytes.
        packed: usize,
    },
    /// The compressed source is damaged.
    #[error("the source cannot be unpacked as {format}: {why}")]
    Unpack {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Asks for something that no host of this version has.
    #[error("the component imports {name}, which this host does not offer")]
    UnknownImport {
        /// As in the binary.
        name: String,
    },
    /// Made for another version of the interfaces.
    #[error(
        "the component was built for {found}; this host serves {supported}: rebuild it with a matching SDK"
    )]
    AbiUnsupported {
        /// As in the binary.
        found: String,
        /// What the host has.
        supported: &'static str,
    },
    /// An import or export has the right name and the wrong type.
    #[error("the component's {interface} does not have the types that this host knows: {why}")]
    InterfaceMismatch {
        /// Interface.
        interface: String,
        /// What differs.
        why: String,
    },
    /// A component of something else.
    #[error(
        "the component exports none of the plugin interfaces (infrastructure, bootstrap, control-plane, pre-delete-hook, \
         upgrade-strategy)"
    )]
    NoPluginInterface,
    /// Half a plugin.
    #[error("the component does not export the interface {interface}")]
    MissingInterface {
        /// Interface.
        interface: &'static str,
    },
    /// Needs more of the pool than one call has.
    #[error("the component needs {what}, of which one call has at most {limit}")]
    TooDemanding {
        /// What, with the number.
        what: String,
        /// Limit.
        limit: usize,
    },
    /// Other bytes than the ones that were meant.
    #[error("spec.digest is {wanted}, and the component has {found}")]
    DigestMismatch {
        /// As the Plugin object says.
        wanted: String,
        /// As it is.
        found: String,
    },
    /// Nobody whose word counts has signed it.
    #[error("the component is not signed, and this host requires signatures: {why}")]
    NotSigned {
        /// What is missing.
        why: String,
    },
    /// The compiler refused it.
    #[error("the component cannot be compiled: {why}")]
    CompileFailed {
        /// The compiler's words.
        why: String,
    },
    /// Compilation took too long.
    #[error("compiling the component took longer than {} s", .limit.as_secs())]
    CompileTimeout {
        /// Limit.
        limit: Duration,
    },
    /// `describe` did not return.
    #[error("the component failed while it was asked for its manifest: {why}")]
    ManifestTrapped {
        /// The trap's words.
        why: String,
    },
    /// `describe` answered something impossible.
    #[error("the component's manifest is not valid: {field} {why}")]
    ManifestInvalid {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The host's own trouble; worth another try.
    #[error("the host could not load the component: {why}")]
    Host {
        /// What happened.
        why: String,
    },
}

impl LoadError {
    /// Which condition it makes false, and with which reason.
    #[must_use]
    pub fn condition(&self) -> (LoadCondition, &'static str) {
        use LoadCondition::{Compatible, Compiled, Verified};
        match self {
            Self::NotWasm { .. } => (Verified, "NotWebAssembly"),
            Self::Truncated { .. } => (Verified, "Truncated"),
            Self::Malformed { .. } => (Verified, "Malformed"),
            Self::CoreModule => (Verified, "CoreModule"),
            Self::Precompiled => (Verified, "PrecompiledCode"),
            Self::TooLarge { .. } => (Verified, "TooLarge"),
            Self::Bomb { .. } => (Verified, "UnpacksTooLarge"),
            Self::Unpack { .. } => (Verified, "CannotUnpack"),
            Self::DigestMismatch { .. } => (Verified, "DigestMismatch"),
            Self::NotSigned { .. } => (Verified, "NotSigned"),
            Self::CompileFailed { .. } => (Compiled, "CompileFailed"),
            Self::CompileTimeout { .. } => (Compiled, "CompileTimedOut"),
            Self::Host { .. } => (Compiled, "HostFailed"),
            Self::UnknownImport { .. } => (Compatible, "UnknownImport"),
            Self::AbiUnsupported { .. } => (Compatible, "InterfaceVersionUnsupported"),
            Self::InterfaceMismatch { .. } => (Compatible, "InterfaceMismatch"),
            Self::NoPluginInterface => (Compatible, "NoPluginInterface"),
            Self::MissingInterface { .. } => (Compatible, "MissingInterface"),
            Self::TooDemanding { .. } => (Compatible, "TooDemanding"),
            Self::ManifestTrapped { .. } => (Compatible, "ManifestTrapped"),
            Self::ManifestInvalid { .. } => (Compatible, "ManifestInvalid"),
        }
    }

    /// Whether the same bytes could load at another time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        // The key may be given to the host at any time, and nothing tells of it.
        matches!(
            self,
            Self::Host { .. } | Self::CompileTimeout { .. } | Self::NotSigned { .. }
        )
    }
}

/// A call that has no answer to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin said that it could not do it.
    #[error("the plugin answered {0}")]
    Plugin(PluginFailure),
    /// The guest trapped.
    #[error("the plugin trapped: {message}{}", within(.backtrace_last_line))]
    Trap {
        /// The panic's words, or the trap's.
        message: String,
        /// The innermost named frame, when there is one.
        backtrace_last_line: String,
    },
    /// The guest took too long.
    #[error("the plugin did not answer within {} ms", .limit.as_millis())]
    Deadline {
        /// Limit.
        limit: Duration,
    },
    /// The guest computed too long.
    #[error("the plugin used more than {} ms of CPU time", .limit.as_millis())]
    Cpu {
        /// Limit.
        limit: Duration,
    },
    /// The guest wanted too much memory.
    #[error("the plugin asked for more than {limit_bytes} bytes of memory")]
    Memory {
        /// Limit.
        limit_bytes: usize,
    },
    /// The guest wanted too large tables.
    #[error("the plugin asked for more than {limit} elements of its tables")]
    Table {
        /// Limit.
        limit: usize,
    },
    /// A capability is not granted.
    #[error("the capability {capability} is not granted: {why}")]
    Refused {
        /// Which.
        capability: String,
        /// Why it is needed and what to add.
        why: String,
    },
    /// The answer breaks a rule; nothing of it is used.
    #[error("the plugin's answer is refused: {rule}")]
    BadAnswer {
        /// The rule, with the field.
        rule: String,
    },
    /// The question is too large to be asked.
    #[error("the input is refused: {rule}")]
    BadInput {
        /// The rule, with the field.
        rule: String,
    },
    /// The plugin does not export the interface that was called.
    #[error("the plugin does not offer {interface}")]
    NotOffered {
        /// Interface.
        interface: &'static str,
    },
    /// Too many calls at once.
    #[error("the plugin is busy: no turn within {} ms", .waited.as_millis())]
    Busy {
        /// How long the call waited.
        waited: Duration,
    },
    /// There is no memory left for it beside what others use: nothing that the plugin did, unless its own calls are the others.
    #[error(
        "the plugin is busy: of the {budget_bytes} bytes that all plugins may use together too few are left for this call"
    )]
    Crowded {
        /// Of all calls in flight.
        budget_bytes: usize,
    },
    /// The plugin trapped too often lately.
    #[error("the plugin failed too often and is not called for another {} s", .retry_after.as_secs())]
    BreakerOpen {
        /// When a call is tried again, from now.
        retry_after: Duration,
    },
    /// The host's own trouble.
    #[error("the host could not run the plugin: {why}")]
    Host {
        /// What happened.
        why: String,
    },
}

/// Where a trap happened, as the end of a sentence.
fn within(frame: &str) -> String {
    if frame.is_empty() {
        String::new()
    } else {
        format!(" (in {frame})")
    }
}

impl CallError {
    /// CamelCase, for a condition. A plugin's own failure keeps the plugin's reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Plugin(failure) => &failure.reason,
            Self::Trap { .. } => "PluginTrapped",
            Self::Deadline { .. } => "PluginDeadlineExceeded",
            Self::Cpu { .. } => "PluginCpuExceeded",
            Self::Memory { .. } | Self::Table { .. } => "PluginOutOfMemory",
            Self::Refused { .. } => "PluginRefused",
            Self::BadAnswer { .. } => "PluginBadAnswer",
            Self::BadInput { .. } => "PluginInputTooLarge",
            Self::NotOffered { .. } => "PluginInterfaceMissing",
            Self::Busy { .. } | Self::Crowded { .. } => "PluginBusy",
            Self::BreakerOpen { .. } => "PluginStopped",
            Self::Host { .. } => "PluginHostFailed",
        }
    }

    /// The same as the controllers' kind of failure.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let kind = match self {
            Self::Plugin(failure) => match failure.kind {
                PluginFailureKind::Transient => FailureKind::Transient,
                PluginFailureKind::Terminal | PluginFailureKind::Unsupported => {
                    FailureKind::Terminal
                }
                PluginFailureKind::Denied => FailureKind::Denied,
            },
            Self::Refused { .. } => FailureKind::Denied,
            Self::BadInput { .. } | Self::NotOffered { .. } => FailureKind::Terminal,
            Self::Trap { .. }
            | Self::Deadline { .. }
            | Self::Cpu { .. }
            | Self::Memory { .. }
            | Self::Table { .. }
            | Self::BadAnswer { .. }
            | Self::Busy { .. }
            | Self::Crowded { .. }
            | Self::BreakerOpen { .. }
            | Self::Host { .. } => FailureKind::Transient,
        };
        let retry_after = match self {
            Self::Plugin(failure) => failure.retry_after,
            Self::BreakerOpen { retry_after } => Some(*retry_after),
            _ => None,
        };
        let message = match self {
            Self::Plugin(failure) => failure.message.clone(),
            other => other.to_string(),
        };
        Failure {
            kind,
            reason: self.reason().to_owned(),
            message,
            retry_after,
        }
    }

    /// Whether it counts against the plugin in its circuit breaker.
    #[must_use]
    pub fn is_strike(&self) -> bool {
        matches!(
            self,
            Self::Trap { .. }
                | Self::Deadline { .. }
                | Self::Cpu { .. }
                | Self::Memory { .. }
                | Self::Table { .. }
        )
    }
}

/// The host's own trouble within a host call: it ends the call, and is not the guest's fault.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HostTrouble(pub(crate) String);

/// A plugin's answer breaks this rule. Made where answers are read, and nowhere else.
#[derive(Debug)]
pub(crate) struct BadAnswer(pub(crate) String);

impl From<BadAnswer> for CallError {
    fn from(bad: BadAnswer) -> Self {
        Self::BadAnswer { rule: bad.0 }
    }
}
