//! The `event` capability: Kubernetes events on the object of the call, few and short.

use std::sync::Arc;

use capstan_core::call::Mode;
use futures::future::BoxFuture;

use super::{Capabilities, on_host};
use crate::limit::{EVENT_MESSAGE_BYTES_MAX, EVENT_REASON_CHARS_MAX, EVENTS_MAX};
use crate::text::one_line;

/// An event that a guest wants on its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestEvent {
    /// `Warning` and not `Normal`.
    pub warning: bool,
    /// CamelCase, the plugin's own.
    pub reason: String,
    /// For a person, without the call's secrets.
    pub message: String,
}

/// Writes events on the object of one call.
pub trait EventSink: Send + Sync {
    /// Writes one. What cannot be written is the host's to log: an event is never a reason to fail.
    fn emit(&self, event: GuestEvent) -> BoxFuture<'_, ()>;
}

/// What one call may write.
pub(crate) struct CallEvents {
    sink: Option<Arc<dyn EventSink>>,
    events: u32,
}

impl CallEvents {
    pub(crate) fn new(sink: Option<Arc<dyn EventSink>>) -> Self {
        Self { sink, events: 0 }
    }
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventError {
    Planned,
    Invalid(String),
    Limit(String),
}

impl Capabilities {
    /// Writes one event.
    pub(crate) async fn event_emit(
        &mut self,
        warning: bool,
        reason: String,
        message: &str,
    ) -> Result<(), EventError> {
        let is_reason = reason.starts_with(|c: char| c.is_ascii_uppercase())
            && reason.len() <= EVENT_REASON_CHARS_MAX
            && reason.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_reason {
            return Err(EventError::Invalid(format!(
                "the reason is not CamelCase of at most {EVENT_REASON_CHARS_MAX} characters"
            )));
        }
        let message = one_line(&self.secrets.redact(message), EVENT_MESSAGE_BYTES_MAX);
        if message.is_empty() {
            return Err(EventError::Invalid("the message is empty".to_owned()));
        }
        if self.events.events >= EVENTS_MAX {
            return Err(EventError::Limit(format!(
                "a call writes at most {EVENTS_MAX} events"
            )));
        }
        self.events.events = self.events.events.saturating_add(1);
        if self.mode == Mode::Plan {
            self.planned.add("event", format!("{reason}: {message}"));
            return Err(EventError::Planned);
        }
        let event = GuestEvent {
            warning,
            reason,
            message,
        };
        if let Some(sink) = self.events.sink.clone() {
            // The host stops: nobody reads it any more.
            let _ = on_host(&self.host, async move { sink.emit(event).await }).await;
        }
        Ok(())
    }
}
