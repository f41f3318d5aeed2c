//! Events: what happened to an object, for people and for clients that follow them.
//!
//! An event is news, not state: when it cannot be written, that is logged and nothing waits for it.

use capstan_api::name::ObjectKey;
use serde_json::{Value, json};

use crate::ctx::{Ctx, Writer};
use crate::kinds;
use crate::object::Object;

/// What the server takes of a note (`events.k8s.io/v1`), in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// What an event's name keeps of the object's: names have at most 253 bytes, and 17 are added.
const STEM_BYTES_MAX: usize = 253 - 17;

/// Whether an event is about something that should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is as it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether somebody should look.
    pub severity: Severity,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What the controller did or tried, one CamelCase word.
    pub action: &'static str,
    /// For a person.
    pub note: String,
}

impl Event {
    /// Something that is as it should be.
    #[must_use]
    pub fn normal(reason: &'static str, action: &'static str, note: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            action,
            note: note.into(),
        }
    }

    /// Something that somebody should look at.
    #[must_use]
    pub fn warning(reason: &'static str, action: &'static str, note: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::normal(reason, action, note)
        }
    }
}

/// Writes an event about an object.
pub async fn record(ctx: &Ctx, writer: &Writer, about: &Object, event: &Event) {
    let object = object(
        about,
        writer.controller,
        event,
        &ctx.now().to_string(),
        ctx.clock.luck(),
    );
    let namespace = namespace(&about.key);
    let answer = ctx
        .api
        .create(&kinds::EVENT, namespace, &object, writer.manager)
        .await;
    if let Err(error) = answer {
        tracing::debug!(reason = event.reason, about = %about.key, "event not written: {error}");
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(key: &ObjectKey) -> &str {
    if key.namespace.is_empty() {
        "default"
    } else {
        &key.namespace
    }
}

fn object(about: &Object, controller: &str, event: &Event, now: &str, ending: u64) -> Value {
    let mut note = event.note.clone();
    note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
    let mut stem = about.key.name.clone();
    stem.truncate(stem.floor_char_boundary(STEM_BYTES_MAX));
    let severity = match event.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    json!({
        "apiVersion": kinds::EVENT.api_version(), "kind": kinds::EVENT.kind,
        "metadata": {
            "namespace": namespace(&about.key),
            "name": format!("{stem}.{ending:016x}"),
        },
        "eventTime": microseconds(now),
        "reportingController": format!("capstan-{controller}"),
        "reportingInstance": "capstan",
        "type": severity, "reason": event.reason, "action": event.action, "note": note,
        "regarding": {
            "apiVersion": about.text("/apiVersion").unwrap_or_default(), "kind": about.kind(),
            "namespace": about.key.namespace, "name": about.key.name, "uid": about.uid,
            "resourceVersion": about.resource_version.to_string(),
        },
    })
}

/// The server takes times of events with microseconds.
fn microseconds(now: &str) -> String {
    let whole = now.trim_end_matches('Z');
    let (seconds, fraction) = whole.split_once('.').unwrap_or((whole, ""));
    let mut digits: String = fraction.chars().take(6).collect();
    while digits.len() < 6 {
        digits.push('0');
    }
    format!("{seconds}.{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_all_that_the_server_wants() {
        let about = Object::new(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"namespace": "ns", "name": "m", "uid": "u", "resourceVersion": "5"},
        }))
        .expect("has a name");
        let event = Event::warning("FailedDrainNode", "Drain", "\u{e9}".repeat(NOTE_BYTES_MAX));
        let object = object(
            &about,
            "machine",
            &event,
            "2026-01-02T03:04:05.123456789Z",
            7,
        );
        assert_eq!(object["eventTime"], "2026-01-02T03:04:05.123456Z");
        assert_eq!(object["metadata"]["name"], "m.0000000000000007");
        assert_eq!(object["regarding"]["uid"], "u");
        assert!(
            object["note"]
                .as_str()
                .is_some_and(|note| note.len() <= NOTE_BYTES_MAX)
        );
        assert_eq!(
            microseconds("2026-01-02T03:04:05Z"),
            "2026-01-02T03:04:05.000000Z"
        );
    }
}
