//! What all answers are made of: failures, waits, conditions, endpoints.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::bindings::base::capstan::plugin::types as wit;

/// What a failure means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Try again, with back-off.
    Transient,
    /// Trying again is of no use until the object changes.
    Terminal,
    /// A grant or a credential is missing or refused.
    Denied,
    /// The plugin does not do this.
    Unsupported,
}

/// The call could not be done. Waiting is not a failure: see [`Waiting`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the next try.
    pub kind: FailureKind,
    /// CamelCase, the plugin's own, at most 256 characters. Ends up as a condition's reason.
    pub reason: String,
    /// For a person, at most 4 KiB. Never put a secret in it.
    pub message: String,
    /// Not before this time has passed. The host may wait longer.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Worth another try, with the host's back-off.
    pub fn transient(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Transient, reason.into(), message.into())
    }

    /// Stays until the object changes.
    pub fn terminal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Terminal, reason.into(), message.into())
    }

    /// A grant or a credential is missing; the message says which.
    pub fn denied(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Denied, reason.into(), message.into())
    }

    /// The plugin does not do this.
    pub fn unsupported(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unsupported, reason.into(), message.into())
    }

    /// Asks the host not to try again before this time has passed.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    fn new(kind: FailureKind, reason: String, message: String) -> Self {
        Self {
            kind,
            reason,
            message,
            retry_after: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            kind: match failure.kind {
                FailureKind::Transient => wit::FailureKind::Transient,
                FailureKind::Terminal => wit::FailureKind::Terminal,
                FailureKind::Denied => wit::FailureKind::Denied,
                FailureKind::Unsupported => wit::FailureKind::Unsupported,
            },
            reason: failure.reason,
            message: failure.message,
            retry_after_ms: failure.retry_after.map(millis),
        }
    }
}

/// Not done yet, and nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// CamelCase, the plugin's own, at most 256 characters.
    pub reason: String,
    /// What is waited for and who makes the next move, at most 4 KiB.
    pub message: String,
    /// Look again after this time at the latest; 100 ms to 10 min.
    pub check_after: Duration,
}

impl Waiting {
    /// A wait.
    pub fn new(
        reason: impl Into<String>,
        message: impl Into<String>,
        check_after: Duration,
    ) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            check_after,
        }
    }
}

impl From<Waiting> for wit::Waiting {
    fn from(waiting: Waiting) -> Self {
        Self {
            reason: waiting.reason,
            message: waiting.message,
            check_after_ms: millis(waiting.check_after),
        }
    }
}

/// Where an `ensure` has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All that was asked for exists and works.
    Ready,
    /// Not yet.
    Waiting(Waiting),
}

impl Progress {
    /// Not yet.
    pub fn waiting(
        reason: impl Into<String>,
        message: impl Into<String>,
        check_after: Duration,
    ) -> Self {
        Self::Waiting(Waiting::new(reason, message, check_after))
    }
}

impl From<Progress> for wit::Progress {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Ready => Self::Ready,
            Progress::Waiting(waiting) => Self::Waiting(waiting.into()),
        }
    }
}

/// Status of a [`Condition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`
    Unknown,
}

/// A condition of the plugin's own on its own object. Types that Cluster API's contract defines (`Ready`, ...) are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Such as `VolumesAttached`.
    pub condition_type: String,
    /// Its status.
    pub status: ConditionStatus,
    /// CamelCase.
    pub reason: String,
    /// For a person; may be empty.
    pub message: String,
}

impl Condition {
    /// A condition.
    pub fn new(
        condition_type: impl Into<String>,
        status: ConditionStatus,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            condition_type: condition_type.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

impl From<Condition> for wit::Condition {
    fn from(condition: Condition) -> Self {
        Self {
            condition_type: condition.condition_type,
            status: match condition.status {
                ConditionStatus::True => wit::ConditionStatus::IsTrue,
                ConditionStatus::False => wit::ConditionStatus::IsFalse,
                ConditionStatus::Unknown => wit::ConditionStatus::IsUnknown,
            },
            reason: condition.reason,
            message: condition.message,
        }
    }
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Endpoint {
    /// DNS name or IP address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl fmt::Display for Endpoint {
    /// `host:port`, with brackets around an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<Endpoint> for wit::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            host: endpoint.host,
            port: endpoint.port,
        }
    }
}

impl From<wit::Endpoint> for Endpoint {
    fn from(endpoint: wit::Endpoint) -> Self {
        Self {
            host: endpoint.host,
            port: endpoint.port,
        }
    }
}

/// Milliseconds of a duration, as WIT carries them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The provider's own status fields of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Status(Result<Value, String>);

impl Default for Status {
    fn default() -> Self {
        Self(Ok(Value::Object(serde_json::Map::new())))
    }
}

impl Status {
    /// What serde makes of it. An error is kept and makes the call fail when it is answered.
    pub(crate) fn of(status: impl Serialize) -> Self {
        Self(serde_json::to_value(status).map_err(|error| error.to_string()))
    }

    /// The JSON object; `null` when serialization failed.
    pub fn json(&self) -> &Value {
        self.0.as_ref().unwrap_or(&Value::Null)
    }

    /// Text for the wire.
    pub(crate) fn into_text(self) -> Result<String, Failure> {
        self.0.map(|value| value.to_string()).map_err(|error| {
            Failure::terminal("InvalidAnswer", format!("the status is not JSON: {error}"))
        })
    }
}

/// Turns a list into the wire's.
pub(crate) fn each<A: Into<B>, B>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(Into::into).collect()
}
