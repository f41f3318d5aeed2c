//! The `log` capability: a guest's messages in the host's log, bounded, attributed, without the call's secrets.

use super::Capabilities;
use crate::limit::{LOG_FIELDS_MAX, LOG_MESSAGE_COST_BYTES, MESSAGE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::text::{clipped, escaped};

/// Level of a guest's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// What is left of a call's log.
#[derive(Debug)]
pub(crate) struct LogBudget {
    left_bytes: usize,
    /// Messages that did not fit.
    pub(crate) dropped: u64,
}

impl LogBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            left_bytes: bytes,
            dropped: 0,
        }
    }

    /// Whether a message of this size still fits; takes its cost.
    fn admit(&mut self, bytes: usize) -> bool {
        let cost = bytes.saturating_add(LOG_MESSAGE_COST_BYTES);
        if let Some(left) = self.left_bytes.checked_sub(cost) {
            self.left_bytes = left;
            return true;
        }
        self.dropped = self.dropped.saturating_add(1);
        false
    }
}

impl Capabilities {
    /// Whether messages of this level are kept.
    pub(crate) fn log_enabled(&self, level: Level) -> bool {
        match level {
            Level::Error => tracing::enabled!(target: "plugin", tracing::Level::ERROR),
            Level::Warn => tracing::enabled!(target: "plugin", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "plugin", tracing::Level::INFO),
            Level::Debug => tracing::enabled!(target: "plugin", tracing::Level::DEBUG),
        }
    }

    /// Writes one message to the host's log, or drops and counts it.
    pub(crate) fn log_emit(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let bytes = fields.iter().fold(message.len(), |sum, (name, value)| {
            sum.saturating_add(name.len()).saturating_add(value.len())
        });
        if !self.log.admit(bytes) || !self.log_enabled(level) {
            return;
        }
        let message = escaped(&self.secrets.redact(clipped(message, MESSAGE_BYTES_MAX)));
        let mut shown = String::new();
        for (name, value) in fields.iter().take(LOG_FIELDS_MAX) {
            if !shown.is_empty() {
                shown.push(' ');
            }
            shown.push_str(&quoted(clipped(name, TEXT_BYTES_MAX)));
            shown.push('=');
            shown.push_str(&quoted(
                &self.secrets.redact(clipped(value, TEXT_BYTES_MAX)),
            ));
        }
        let id = &self.identity;
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "plugin", tracing::Level::$level,
                    plugin = %id.plugin, digest = %id.digest, object = %id.object,
                    call = id.function, call_id = %id.call, fields = %shown, "{message}"
                )
            };
        }
        match level {
            Level::Error => event!(ERROR),
            Level::Warn => event!(WARN),
            Level::Info => event!(INFO),
            Level::Debug => event!(DEBUG),
        }
    }
}

/// A name or a value of a field, in quotes where it could be taken for more than one.
fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains([' ', '=', '"', '\'']) {
        return format!("{text:?}");
    }
    escaped(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_budget_is_dropped_and_counted() {
        let mut log = LogBudget::new(1000);
        assert!(log.admit(500));
        assert!(!log.admit(500));
        assert!(log.admit(100));
        assert_eq!(log.dropped, 1);
    }

    #[test]
    fn a_field_is_one_field() {
        assert_eq!(quoted("plain-1"), "plain-1");
        assert_eq!(quoted("a plugin=other"), "\"a plugin=other\"");
        assert_eq!(quoted("a\nERROR"), "a\\nERROR");
        assert_eq!(quoted("a\" b"), "\"a\\\" b\"");
    }

    #[test]
    fn empty_messages_are_not_free() {
        let mut log = LogBudget::new(1000);
        let kept = (0..1000).filter(|_| log.admit(0)).count();
        assert_eq!(kept, 1000 / LOG_MESSAGE_COST_BYTES);
    }
}
