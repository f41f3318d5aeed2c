//! Files of the host below the one directory that the operator granted. Off wasm, they are what
//! [`testing::Host`](crate::testing::Host) was given.

use std::fmt;

use crate::answer::Failure;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Size of a file.
    pub size_bytes: u64,
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not granted, or outside of the directory: the message says which.
    Denied(String),
    /// There is no such file or directory.
    NotFound(String),
    /// Not a path, or not a regular file.
    Invalid(String),
    /// A limit on count or size was reached: the message says which.
    Limit(String),
    /// It could not be read.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(message) => write!(f, "denied: {message}"),
            Self::NotFound(message) => write!(f, "not found: {message}"),
            Self::Invalid(message) => write!(f, "invalid: {message}"),
            Self::Limit(message) => write!(f, "limit reached: {message}"),
            Self::Failed(message) => write!(f, "not read: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Denied(_) => Self::denied("FileDenied", message),
            Error::NotFound(_) => Self::transient("FileNotFound", message),
            Error::Invalid(_) => Self::terminal("FileInvalid", message),
            Error::Limit(_) => Self::terminal("FileLimit", message),
            Error::Failed(_) => Self::transient("FileFailed", message),
        }
    }
}

/// A regular file of at most 1 MiB; the path is relative, with `/` between its parts.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn read(path: &str) -> Result<Vec<u8>, Error> {
    disk::read(path)
}

/// What is in a directory, in the order of names; an empty path is the granted directory.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn list_directory(path: &str) -> Result<Vec<Entry>, Error> {
    disk::list_directory(path)
}

#[cfg(target_arch = "wasm32")]
mod disk {
    //! The host.

    use super::{Entry, Error};
    use crate::bindings::base::capstan::plugin::files as wit;

    fn error(error: wit::Error) -> Error {
        match error {
            wit::Error::Denied(message) => Error::Denied(message),
            wit::Error::NotFound(message) => Error::NotFound(message),
            wit::Error::Invalid(message) => Error::Invalid(message),
            wit::Error::Limit(message) => Error::Limit(message),
            wit::Error::Failed(message) => Error::Failed(message),
        }
    }

    pub(super) fn read(path: &str) -> Result<Vec<u8>, Error> {
        wit::read(path).map_err(error)
    }

    pub(super) fn list_directory(path: &str) -> Result<Vec<Entry>, Error> {
        let entry = |entry: wit::Entry| Entry {
            name: entry.name,
            is_directory: entry.is_directory,
            size_bytes: entry.size_bytes,
        };
        wit::list_directory(path)
            .map(|entries| entries.into_iter().map(entry).collect())
            .map_err(error)
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::disk;
