//! Runs plugins: the only crate that knows wasmtime.
//!
//! ```text
//!   source -> verify -> compile (child process) -> link -> manifest -> Loaded -> one instance per call
//! ```
//!
//! A component is foreign code and its answers are foreign data: nothing that it does may cost more than its limits, reach what
//! was not granted, or disturb another plugin.

mod abi;
mod breaker;
mod cache;
mod call;
mod capability;
mod compile;
mod error;
pub mod grant;
pub mod limit;
mod load;
mod manifest;
mod runtime;
mod secret;
mod source;
mod stats;
mod text;

pub use breaker::BreakerState;
pub use call::CallEnv;
pub use capability::{
    Credential, CredentialSource, NoCredentials, PlannedEffect, PlannedEffects, StateStore,
};
pub use compile::{Compiler, compile_main};
pub use error::{CallError, EngineError, LoadCondition, LoadError};
pub use grant::{
    CredentialGrant, CredentialScheme, Grants, HttpGrant, MissingGrant, OriginPattern, missing,
};
pub use limit::Limits;
pub use load::Loaded;
pub use runtime::{Engine, EngineOptions};
pub use secret::SecretTable;
pub use stats::{CallOutcome, EngineStats, Function, FunctionStats};

#[cfg(test)]
mod tests;
