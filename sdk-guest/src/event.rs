//! Kubernetes events on the call's object, for the people who look at it. Nothing to grant. Off wasm, they are kept by
//! [`testing::Host`](crate::testing::Host).

use std::fmt;

/// How an event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may have to do something.
    Warning,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The call is a plan.
    Planned,
    /// Not a reason or a message.
    Invalid(String),
    /// More than 8 events in one call.
    Limit(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned => f.write_str("not written: the call is a plan"),
            Self::Invalid(message) => write!(f, "invalid: {message}"),
            Self::Limit(message) => write!(f, "limit reached: {message}"),
        }
    }
}

impl std::error::Error for Error {}

/// Tells what happened. `reason` is CamelCase; an event that repeats an earlier one soon after it is counted there. That an event
/// was not written is seldom a reason to fail.
///
/// # Errors
/// See [`Error`].
pub fn emit(event_type: EventType, reason: &str, message: &str) -> Result<(), Error> {
    board::emit(event_type, reason, message)
}

#[cfg(target_arch = "wasm32")]
mod board {
    //! The host.

    use super::{Error, EventType};
    use crate::bindings::base::capstan::plugin::event as wit;

    pub(super) fn emit(event_type: EventType, reason: &str, message: &str) -> Result<(), Error> {
        let event_type = match event_type {
            EventType::Normal => wit::EventType::Normal,
            EventType::Warning => wit::EventType::Warning,
        };
        wit::emit(event_type, reason, message).map_err(|error| match error {
            wit::Error::Planned => Error::Planned,
            wit::Error::Invalid(message) => Error::Invalid(message),
            wit::Error::Limit(message) => Error::Limit(message),
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::board;
