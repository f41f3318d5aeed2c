//! Why bootstrap data cannot be written.

use std::fmt;

/// What would have to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Time: something is not known yet.
    Later,
    /// The object.
    Object,
    /// The plugin: it does not do this.
    Plugin,
}

/// Bootstrap data cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What would have to change.
    pub(crate) remedy: Remedy,
    /// CamelCase.
    pub(crate) reason: &'static str,
    /// Names the field and the way out.
    pub(crate) message: String,
}

impl Refusal {
    /// Something is not known yet.
    pub(crate) fn later(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            remedy: Remedy::Later,
            reason,
            message: message.into(),
        }
    }

    /// The object asks for what cannot be.
    pub(crate) fn object(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            remedy: Remedy::Object,
            reason,
            message: message.into(),
        }
    }

    /// The object asks for what this plugin does not do.
    pub(crate) fn plugin(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            remedy: Remedy::Plugin,
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}
