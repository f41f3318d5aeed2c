//! HTTP requests to the origins that the operator granted. The host resolves, connects, verifies TLS, injects credentials and
//! bounds everything. Off wasm, requests go to [`testing::Host`](crate::testing::Host).

mod client;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::{Failure, FailureKind};
use crate::context::SecretHandle;

pub use client::{Client, Next};

/// How secret bytes are put into a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// As they are.
    Plain,
    /// Standard alphabet, padded.
    Base64,
    /// As the inside of a JSON string.
    JsonString,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPart {
    /// Public bytes.
    Bytes(Vec<u8>),
    /// Secret bytes that the host puts in.
    Secret(SecretHandle, SecretEncoding),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    /// Upper case, such as `GET`.
    pub method: String,
    /// Absolute, `http` or `https`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Joined in order.
    pub body: Vec<BodyPart>,
    /// Name of a granted credential, which the host adds to the request.
    pub credential: Option<String>,
    /// `None` for the host's default of 30 s; never beyond the call's deadline.
    pub timeout: Option<Duration>,
    invalid: Option<String>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            credential: None,
            timeout: None,
            invalid: None,
        }
    }

    /// `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// `PUT`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// `DELETE`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a parameter to the query, escaped.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url
            .push(if self.url.contains('?') { '&' } else { '?' });
        self.url.push_str(&escaped(name));
        self.url.push('=');
        self.url.push_str(&escaped(value));
        self
    }

    /// Adds public bytes to the body.
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body.push(BodyPart::Bytes(bytes.into()));
        self
    }

    /// Adds secret bytes to the body.
    pub fn secret(mut self, secret: SecretHandle, encoding: SecretEncoding) -> Self {
        self.body.push(BodyPart::Secret(secret, encoding));
        self
    }

    /// Makes the body this JSON, and says so in `content-type`.
    pub fn json(self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self
                .header("content-type", "application/json")
                .only(vec![BodyPart::Bytes(bytes)]),
            Err(error) => self.broken(format!("the body is not JSON: {error}")),
        }
    }

    /// The same with secret bytes as the text at a JSON pointer such as `/userData`. The field need not exist; its parent must.
    /// With [`SecretEncoding::Plain`] the bytes must need no escaping.
    pub fn json_with_secret(
        self,
        body: &impl Serialize,
        pointer: &str,
        secret: SecretHandle,
        encoding: SecretEncoding,
    ) -> Self {
        match split_at_pointer(body, pointer) {
            Ok((before, after)) => self.header("content-type", "application/json").only(vec![
                BodyPart::Bytes(before.into_bytes()),
                BodyPart::Secret(secret, encoding),
                BodyPart::Bytes(after.into_bytes()),
            ]),
            Err(message) => self.broken(message),
        }
    }

    /// Lets the host add a granted credential.
    pub fn credential(mut self, name: impl Into<String>) -> Self {
        self.credential = Some(name.into());
        self
    }

    /// Bounds the request; never beyond the call's deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the whole response, whatever its status.
    ///
    /// # Errors
    /// See [`Error`]; it turns into a [`Failure`] by `?`.
    pub fn send(self) -> Result<Response, Error> {
        match &self.invalid {
            Some(message) => Err(Error::Invalid(message.clone())),
            None => transport::send(self),
        }
    }

    /// All public bytes of the body as text, with `secret(7)` where secret bytes go: for people and tests.
    #[must_use]
    pub fn body_preview(&self) -> String {
        let shown = |part: &BodyPart| match part {
            BodyPart::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            BodyPart::Secret(handle, _) => handle.to_string(),
        };
        self.body.iter().map(shown).collect()
    }

    fn only(mut self, body: Vec<BodyPart>) -> Self {
        self.body = body;
        self
    }

    fn broken(mut self, message: String) -> Self {
        self.invalid = Some(message);
        self
    }
}

/// Text as a part of a URL: everything is escaped but what is never special in one (RFC 3986, unreserved characters).
#[must_use]
pub fn escaped(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map(|d| char::from(*d));
    let mut url = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push('%');
            url.extend(digit(byte >> 4).into_iter().chain(digit(byte & 15)));
        }
    }
    url
}

/// The JSON text before and after the text at the pointer. The marker is chosen so that it occurs nowhere else, whatever users
/// have written into the body.
fn split_at_pointer(body: &impl Serialize, pointer: &str) -> Result<(String, String), String> {
    let mut body =
        serde_json::to_value(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let text = body.to_string();
    let mut marker = "capstan-secret".to_owned();
    while text.contains(&marker) {
        marker.push('.');
    }
    let (parent, field) = pointer
        .rsplit_once('/')
        .ok_or_else(|| format!("{pointer:?} is not a JSON pointer"))?;
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            fields.insert(field.to_owned(), Value::String(marker.clone()));
        }
        _ => return Err(format!("the body has no object at {parent:?}")),
    }
    let text = body.to_string();
    text.split_once(&marker)
        .map(|(before, after)| (before.to_owned(), after.to_owned()))
        .ok_or_else(|| format!("nothing can be put at {pointer:?}"))
}

/// A response, of any status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// At most 4 MiB.
    pub body: Vec<u8>,
}

impl Response {
    /// A response without a body; for tests.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// With a JSON body; for tests.
    #[must_use]
    pub fn with_json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.with_header("content-type", "application/json")
    }

    /// With a header; for tests.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Whether the status is 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// A transient failure: the other side may answer better next time.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::transient(
                "InvalidResponse",
                format!("the response is not as expected: {error}"),
            )
        })
    }

    /// `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// What a status means when it is not a success: 401 and 403 denied, 408, 429 and 5xx transient, all others terminal. The
    /// message is `doing` and the status, never the body: it may hold what must not be shown.
    pub fn failure(&self, reason: impl Into<String>, doing: &str) -> Failure {
        let message = format!("{doing}: the server answered with status {}", self.status);
        let mut failure = match self.status {
            401 | 403 => Failure::denied(reason, message),
            408 | 429 | 500.. => Failure::transient(reason, message),
            _ => Failure::terminal(reason, message),
        };
        if failure.kind == FailureKind::Transient {
            failure.retry_after = self.retry_after();
        }
        failure
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not granted: the message says what to grant.
    Denied(String),
    /// The call is a plan: the request was recorded and not sent.
    Planned,
    /// Not a request: the message says why.
    Invalid(String),
    /// A limit on count, size or time was reached.
    Limit(String),
    /// Name resolution, connection or TLS failed, or the other side broke off. The request may have had its effect.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(message) => write!(f, "not granted: {message}"),
            Self::Planned => f.write_str("recorded, not sent: the call is a plan"),
            Self::Invalid(message) => write!(f, "not a request: {message}"),
            Self::Limit(message) => write!(f, "limit reached: {message}"),
            Self::Failed(message) => write!(f, "no response: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Denied(_) => Self::denied("HttpDenied", message),
            Error::Planned => Self::transient("Planned", message),
            Error::Invalid(_) => Self::terminal("InvalidRequest", message),
            Error::Limit(_) => Self::transient("HttpLimit", message),
            Error::Failed(_) => Self::transient("HttpFailed", message),
        }
    }
}

/// Lets time pass within the call.
#[cfg(target_arch = "wasm32")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::pause;

#[cfg(target_arch = "wasm32")]
mod transport {
    //! The host.

    use super::{BodyPart, Error, Request, Response, SecretEncoding, SecretHandle};
    use crate::answer::millis;
    use crate::bindings::base::capstan::plugin::http as wit;

    pub(super) fn send(request: Request) -> Result<Response, Error> {
        let part = |part| match part {
            BodyPart::Bytes(bytes) => wit::BodyPart::Bytes(bytes),
            BodyPart::Secret(SecretHandle(secret), encoding) => {
                let encoding = match encoding {
                    SecretEncoding::Plain => wit::SecretEncoding::Plain,
                    SecretEncoding::Base64 => wit::SecretEncoding::Base64,
                    SecretEncoding::JsonString => wit::SecretEncoding::JsonString,
                };
                wit::BodyPart::Secret(wit::SecretPart { secret, encoding })
            }
        };
        let sent = wit::send(&wit::Request {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body.into_iter().map(part).collect(),
            credential: request.credential,
            timeout_ms: request.timeout.map_or(0, |timeout| millis(timeout).max(1)),
        });
        match sent {
            Ok(response) => Ok(Response {
                status: response.status,
                headers: response.headers,
                body: response.body,
            }),
            Err(wit::Error::Denied(message)) => Err(Error::Denied(message)),
            Err(wit::Error::Planned) => Err(Error::Planned),
            Err(wit::Error::Invalid(message)) => Err(Error::Invalid(message)),
            Err(wit::Error::Limit(message)) => Err(Error::Limit(message)),
            Err(wit::Error::Failed(message)) => Err(Error::Failed(message)),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::transport;
