//! Keys of Secrets that the operator granted by name: by a handle for [`http`](crate::http) or, with a stronger grant, their bytes.
//! Off wasm, they are what [`testing::Host`](crate::testing::Host) was given.

use std::fmt;

use crate::answer::Failure;
use crate::context::SecretHandle;

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// The namespace of the call's object when left out.
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
    /// Key in its data.
    pub key: String,
}

impl SecretKey {
    /// A key of a Secret in the namespace of the call's object.
    pub fn new(name: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            namespace: None,
            name: name.into(),
            key: key.into(),
        }
    }

    /// In this namespace, which the grant must name.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}[{}]", self.name, self.key)
    }
}

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not granted: the message says what to grant.
    Denied(String),
    /// There is no such Secret, or it has no such key.
    NotFound(String),
    /// Not a name of a Secret or of a key.
    Invalid(String),
    /// Too many reads in one call.
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
            Error::Denied(_) => Self::denied("SecretDenied", message),
            // It may be made at any time.
            Error::NotFound(_) => Self::transient("SecretNotFound", message),
            Error::Invalid(_) => Self::terminal("SecretInvalid", message),
            Error::Limit(_) => Self::terminal("SecretLimit", message),
            Error::Failed(_) => Self::transient("SecretFailed", message),
        }
    }
}

/// A handle for the body of an HTTP request.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn open(secret: &SecretKey) -> Result<SecretHandle, Error> {
    vault::open(secret)
}

/// The bytes themselves.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn read(secret: &SecretKey) -> Result<Vec<u8>, Error> {
    vault::read(secret)
}

#[cfg(target_arch = "wasm32")]
mod vault {
    //! The host.

    use super::{Error, SecretHandle, SecretKey};
    use crate::bindings::base::capstan::plugin::secret as wit;

    fn asked(secret: &SecretKey) -> wit::SecretKey {
        wit::SecretKey {
            namespace: secret.namespace.clone(),
            name: secret.name.clone(),
            key: secret.key.clone(),
        }
    }

    fn error(error: wit::Error) -> Error {
        match error {
            wit::Error::Denied(message) => Error::Denied(message),
            wit::Error::NotFound(message) => Error::NotFound(message),
            wit::Error::Invalid(message) => Error::Invalid(message),
            wit::Error::Limit(message) => Error::Limit(message),
            wit::Error::Failed(message) => Error::Failed(message),
        }
    }

    pub(super) fn open(secret: &SecretKey) -> Result<SecretHandle, Error> {
        wit::open(&asked(secret)).map(SecretHandle).map_err(error)
    }

    pub(super) fn read(secret: &SecretKey) -> Result<Vec<u8>, Error> {
        wit::read(&asked(secret)).map_err(error)
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::vault;
