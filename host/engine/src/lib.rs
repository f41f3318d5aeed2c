//! Runs plugins: the only crate that knows wasmtime.
//!
//! ```text
//!   source -> verify -> compile (child process) -> link -> manifest -> Loaded -> one instance per call
//! ```
//!
//! A component is foreign code and its answers are foreign data: nothing that it does may cost more than its limits, reach what
//! was not granted, or disturb another plugin.

mod abi;
mod anatomy;
mod breaker;
mod bucket;
mod cache;
mod call;
mod capability;
mod compile;
mod directory;
mod error;
pub mod grant;
pub mod limit;
mod load;
mod manifest;
mod memory;
mod native;
mod registry;
mod replay;
mod runtime;
mod secret;
mod share;
mod source;
mod stats;
mod tape;
mod text;
mod trace;
mod trust;

pub use anatomy::{Anatomy, anatomy};
pub use breaker::BreakerState;
pub use bucket::{Bucket, BucketError, BucketPlace, Upload};
pub use call::CallEnv;
pub use capability::address::METADATA_V6;
pub use capability::event::{EventSink, GuestEvent};
pub use capability::secret::{FoundSecret, SecretSource};
pub use capability::workload::{
    ApiResource, ObjectName, PatchKind, WorkloadAnswer, WorkloadApi, WorkloadError, WorkloadRequest,
};
pub use capability::{
    Credential, CredentialSource, NoCredentials, PlannedEffect, PlannedEffects, StateStore,
};
pub use compile::{Compiler, compile_main};
pub use directory::{FileError, file_bytes, file_version};
pub use error::{CallError, EngineError, LoadCondition, LoadError};
pub use grant::{
    Allowed, AwsScope, Ceiling, CredentialGrant, CredentialScheme, FilesGrant, Grants, HttpGrant,
    MissingGrant, NamePattern, OriginPattern, SecretGrant, WorkloadGrant, WorkloadVerb,
};
pub use limit::Limits;
pub use load::Loaded;
pub use memory::{limit_bytes, share_of_guests};
pub use native::Native;
pub use registry::{PullError, Pulled, Pushed, Reference, RegistryAccess, pull, push, resolve};
pub use replay::{Question, Tried, example};
pub use runtime::{Engine, EngineOptions, SourceOptions};
pub use secret::SecretTable;
pub use stats::{
    BUCKETS_US, CallOutcome, CodeStats, Durations, EngineStats, Function, FunctionStats,
};
pub use tape::{CallRecord, Difference, Exchange, RECORD_FORM, RecordSink, RecordedOutcome};
pub use text::{escaped, json_values};
pub use trace::TRACE_TARGET;
pub use trust::{PublicKey, Signature, SignaturePolicy, Signed, Trust};

#[cfg(test)]
mod tests;
