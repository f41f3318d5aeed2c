//! The plugin's state of the object of this call, within the call: what is put is durable when `put` returns, so that a note can be
//! written ahead of an effect. Nothing to grant. Off wasm, it is kept by [`testing::Host`](crate::testing::Host).

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::Failure;

/// Why nothing was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The call is a plan.
    Planned,
    /// Over 64 KiB, or too many writes in one call.
    Limit(String),
    /// The host could not store it.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned => f.write_str("not kept: the call is a plan"),
            Self::Limit(message) => write!(f, "limit reached: {message}"),
            Self::Failed(message) => write!(f, "not kept: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Planned => Self::transient("Planned", message),
            Error::Limit(_) => Self::terminal("StateLimit", message),
            Error::Failed(_) => Self::transient("StateFailed", message),
        }
    }
}

/// What was last put, or kept by an answer.
#[must_use]
pub fn get() -> Option<Vec<u8>> {
    store::get()
}

/// Keeps it now.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn put(value: &[u8]) -> Result<(), Error> {
    store::put(value)
}

/// The state as JSON; `None` when there is none.
///
/// # Errors
/// A terminal failure when it is not what is expected, such as after an incompatible change of the plugin.
pub fn get_json<T: DeserializeOwned>() -> Result<Option<T>, Failure> {
    let read = |bytes: Vec<u8>| {
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::terminal("InvalidState", format!("kept state: {error}")))
    };
    get().map(read).transpose()
}

/// Keeps JSON now.
///
/// # Errors
/// As for [`put`], and a terminal failure when the value is not JSON.
pub fn put_json(value: &impl Serialize) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Failure::terminal("InvalidState", format!("state to keep: {error}")))?;
    Ok(put(&bytes)?)
}

#[cfg(target_arch = "wasm32")]
mod store {
    //! The host.

    use super::Error;
    use crate::bindings::base::capstan::plugin::state as wit;

    pub(super) fn get() -> Option<Vec<u8>> {
        wit::get()
    }

    pub(super) fn put(value: &[u8]) -> Result<(), Error> {
        wit::put(value).map_err(|error| match error {
            wit::Error::Planned => Error::Planned,
            wit::Error::Limit(message) => Error::Limit(message),
            wit::Error::Failed(message) => Error::Failed(message),
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::store;
