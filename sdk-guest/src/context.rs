//! What every call has in common: clock, deadline, idempotency key, mode, configuration, secret handles.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::Failure;
use crate::bindings::base::capstan::plugin::types as wit;
use crate::object::{parse, typed};

/// JSON values under names. Names that the receiver does not know are ignored: this is how inputs and answers grow.
pub type Extra = BTreeMap<String, Value>;

/// Refers to secret bytes that stay in the host. Means something only within the call that it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHandle(pub(crate) u64);

impl fmt::Display for SecretHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret({})", self.0)
    }
}

/// Whether effects happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Do it.
    #[default]
    Apply,
    /// Effects are recorded and refused as planned.
    Plan,
}

/// The same for every call.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Milliseconds since the Unix epoch: the only clock there is.
    pub now_ms: u64,
    /// When the host drops the call, in milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// 1 for the first try since the object or its answer last changed; grows with each failed one.
    pub attempt: u32,
    /// Stable for this object and operation, across retries, crashes and restarts. At most 64 characters of `[a-z0-9-]`.
    pub idempotency_key: String,
    /// Whether effects happen.
    pub mode: Mode,
    /// `spec.config` of the Plugin object, or `{}`.
    pub config: Value,
    /// Room for growth.
    pub extra: Extra,
}

impl Context {
    /// `spec.config` of the Plugin object as the plugin's own type.
    ///
    /// # Errors
    /// A terminal failure that names the field.
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        typed(&self.config, "Plugin spec.config")
    }

    /// How long the whole call may take.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.saturating_sub(self.now_ms))
    }

    pub(crate) fn read(context: wit::CallContext) -> Result<Self, Failure> {
        Ok(Self {
            now_ms: context.now_ms,
            deadline_ms: context.deadline_ms,
            attempt: context.attempt,
            idempotency_key: context.idempotency_key,
            mode: match context.mode {
                wit::Mode::Apply => Mode::Apply,
                wit::Mode::Plan => Mode::Plan,
            },
            config: parse(&context.config, "Plugin spec.config")?,
            extra: read_extra(context.extra)?,
        })
    }
}

pub(crate) fn read_extra(extra: Vec<wit::NamedJson>) -> Result<Extra, Failure> {
    let read = |named: wit::NamedJson| {
        let value = parse(&named.value, &named.name)?;
        Ok((named.name, value))
    };
    extra.into_iter().map(read).collect()
}

pub(crate) fn write_extra(extra: Extra) -> Vec<wit::NamedJson> {
    let write = |(name, value): (String, Value)| wit::NamedJson {
        name,
        value: value.to_string(),
    };
    extra.into_iter().map(write).collect()
}
