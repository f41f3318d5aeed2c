//! The answers of the cloud's API that are refusals.

use serde_json::{Value, json};

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// Machine-readable code.
    pub(crate) code: &'static str,
    /// Sentence.
    pub(crate) message: String,
    /// Value of `Retry-After`, in seconds.
    pub(crate) retry_after_s: Option<u64>,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// The request is wrong; the message names the field.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidRequest", message)
    }

    /// No token or a wrong one.
    pub(crate) fn unauthorized() -> Self {
        Self::new(
            401,
            "Unauthorized",
            "the Authorization header must be \"Bearer <token>\" with this cloud's token",
        )
    }

    /// No such thing.
    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(404, "NotFound", format!("there is no {kind} {id:?}"))
    }

    /// Something is in the way.
    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(409, code, message)
    }

    /// The backend does not have this.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(400, "Unsupported", message)
    }

    /// A machine does not do what it should.
    pub(crate) fn machine(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// By a fault rule.
    pub(crate) fn by_fault(status: u16, retry_after_s: Option<u64>, rule: &str) -> Self {
        let message = format!("refused by the fault rule {rule:?}");
        if status == 429 {
            return Self {
                retry_after_s: retry_after_s.or(Some(1)),
                ..Self::new(429, "Throttled", message)
            };
        }
        Self {
            retry_after_s,
            ..Self::new(status, "InternalError", message)
        }
    }

    /// The disk cannot be written.
    pub(crate) fn disk(error: &std::io::Error) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("the cloud's disk cannot be written: {error}"),
        )
    }

    /// The body.
    pub(crate) fn to_value(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message}})
    }
}
