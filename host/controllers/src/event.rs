//! Events: what happened to an object, for people and for clients that follow them. One for each thing that happened, counted when it
//! happens again, few per object.
//!
//! An event is news, not state: when it cannot be written, that is logged and nothing waits for it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::Access;
use crate::ctx::{Ctx, Writer};
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch};
use crate::object::Object;

/// Who reports what plugins want to be said, as Kubernetes names controllers.
pub const PLUGINS: &str = "capstan.dev/host";

/// The process, as far as anybody needs to know.
const INSTANCE: &str = "capstan";

/// Field manager of events.
const MANAGER: &str = "capstan-events";

/// How long the same words about the same object count as the same event. The API server forgets events after an hour.
const SAME_FOR: Duration = Duration::from_secs(600);

/// How often a count is written while something happens again and again.
const COUNTED_EVERY: Duration = Duration::from_secs(60);

/// Different events about one object within [`SAME_FOR`]: what is over says nothing to a person.
const PER_OBJECT_MAX: u32 = 25;

/// Objects that are remembered: enough for a burst over many clusters. Forgetting one costs at most another event.
const OBJECTS_MAX: usize = 4096;

/// The API server's own limit of a note.
const NOTE_BYTES_MAX: usize = 1024;

/// Writing events, and counting those that happen again.
#[must_use]
pub fn access() -> Vec<Access> {
    vec![Access::to(&kinds::EVENT, &["create", "patch"])]
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Warning` and not `Normal`: somebody should look.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// For a person.
    pub note: String,
    /// What was done, or tried, one CamelCase word.
    pub action: &'static str,
}

impl Event {
    /// Something that is as it should be.
    #[must_use]
    pub fn normal(reason: &str, action: &'static str, note: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason: reason.to_owned(),
            action,
            note: note.into(),
        }
    }

    /// Something that somebody should look at.
    #[must_use]
    pub fn warning(reason: &str, action: &'static str, note: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::normal(reason, action, note)
        }
    }
}

/// Writes an event of a controller about an object, unless it has said enough about it lately.
pub async fn record(ctx: &Ctx, writer: &Writer, about: &Object, event: &Event) {
    let by = format!("capstan-{}", writer.controller);
    let about = Regarding::from(about);
    ctx.events
        .emit(&*ctx.api, ctx.now(), &by, &about, event)
        .await;
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regarding {
    api_version: String,
    kind: String,
    key: ObjectKey,
    uid: String,
}

impl From<&Object> for Regarding {
    fn from(object: &Object) -> Self {
        Self {
            api_version: object.text("/apiVersion").unwrap_or_default().to_owned(),
            kind: object.kind().to_owned(),
            key: object.key.clone(),
            uid: object.uid.clone(),
        }
    }
}

/// What was reported lately. Clones share it.
#[derive(Clone, Default)]
pub struct Events {
    objects: Arc<Mutex<HashMap<String, Recent>>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// What was reported of one object.
struct Recent {
    since: Timestamp,
    events: HashMap<u64, Seen>,
}

struct Seen {
    name: String,
    count: u32,
    written: Timestamp,
}

/// What has to be written.
#[derive(Debug, PartialEq, Eq)]
enum Write {
    Nothing,
    New(String),
    Again(String, u32),
}

fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

impl Events {
    /// Writes an event, or counts it. What cannot be written is logged: an event is never a reason to fail.
    pub async fn emit(
        &self,
        api: &dyn KubeApi,
        now: Timestamp,
        by: &str,
        object: &Regarding,
        event: &Event,
    ) {
        let (write, namespace) = (self.admit(now, object, event), namespace_of(object));
        let time = micros(now);
        let answer = match write {
            Write::Nothing => return,
            Write::New(name) => {
                let body = body(&name, &time, by, object, event);
                let answer = api.create(&kinds::EVENT, namespace, &body, MANAGER).await;
                answer.map(drop)
            }
            Write::Again(name, count) => {
                let patch = json!({"series": {"count": count, "lastObservedTime": time}});
                let key = ObjectKey::new(namespace, &name);
                let patch = Patch::Merge(patch);
                let answer = api.patch(&kinds::EVENT, &key, None, &patch, MANAGER).await;
                answer.map(drop)
            }
        };
        match answer {
            // Forgotten by the server, or the namespace is on its way out.
            Ok(()) | Err(ApiError::NotFound(_)) => {}
            Err(error) => {
                tracing::debug!(object = %object.key, reason = %event.reason, %error, "event not written");
            }
        }
    }

    fn admit(&self, now: Timestamp, object: &Regarding, event: &Event) -> Write {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if objects.len() >= OBJECTS_MAX && !objects.contains_key(&object.uid) {
            objects.retain(|_, recent| passed(recent.since, now) < SAME_FOR);
            if objects.len() >= OBJECTS_MAX {
                objects.clear();
            }
        }
        let recent = objects.entry(object.uid.clone()).or_insert_with(|| Recent {
            since: now,
            events: HashMap::new(),
        });
        if passed(recent.since, now) >= SAME_FOR {
            recent.since = now;
            recent.events.clear();
        }
        let mut hasher = DefaultHasher::new();
        (event.warning, &event.reason, &event.note).hash(&mut hasher);
        let words = hasher.finish();
        let different = recent.events.len();
        match recent.events.get_mut(&words) {
            Some(seen) => {
                seen.count = seen.count.saturating_add(1);
                if passed(seen.written, now) < COUNTED_EVERY {
                    return Write::Nothing;
                }
                seen.written = now;
                Write::Again(seen.name.clone(), seen.count)
            }
            None if different >= usize::try_from(PER_OBJECT_MAX).unwrap_or(usize::MAX) => {
                Write::Nothing
            }
            None => {
                let suffix = format!("{:x}{:04x}", now.as_millisecond(), words & 0xffff);
                let stem: String = object.key.name.chars().take(200).collect();
                let name = format!("{stem}.{suffix}");
                let seen = Seen {
                    name: name.clone(),
                    count: 1,
                    written: now,
                };
                recent.events.insert(words, seen);
                Write::New(name)
            }
        }
    }
}

/// Events of objects without a namespace are in `default`, where kubectl looks for them.
fn namespace_of(object: &Regarding) -> &str {
    match object.key.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

/// As Kubernetes writes its micro times.
fn micros(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn body(name: &str, time: &str, by: &str, object: &Regarding, event: &Event) -> Value {
    let end = event.note.floor_char_boundary(NOTE_BYTES_MAX);
    json!({
        "apiVersion": kinds::EVENT.api_version(), "kind": kinds::EVENT.kind,
        "metadata": {"namespace": namespace_of(object), "name": name},
        "eventTime": time,
        "reportingController": by, "reportingInstance": INSTANCE,
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason, "action": event.action,
        "note": event.note.get(..end).unwrap_or_default(),
        "regarding": {
            "apiVersion": object.api_version, "kind": object.kind,
            "namespace": object.key.namespace, "name": object.key.name, "uid": object.uid,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Regarding {
        Regarding {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            key: ObjectKey::new("a", "b"),
            uid: "u".to_owned(),
        }
    }

    fn event(note: &str) -> Event {
        Event::normal("Made", "Make", note)
    }

    #[test]
    fn what_happens_again_is_counted_and_seldom_written() {
        let (events, object) = (Events::default(), object());
        let at = |s| Timestamp::from_second(s).unwrap();
        assert!(matches!(
            events.admit(at(0), &object, &event("x")),
            Write::New(_)
        ));
        assert_eq!(events.admit(at(1), &object, &event("x")), Write::Nothing);
        let again = events.admit(at(70), &object, &event("x"));
        assert!(matches!(again, Write::Again(_, 3)), "{again:?}");
        assert!(matches!(
            events.admit(at(700), &object, &event("x")),
            Write::New(_)
        ));
    }

    #[test]
    fn one_object_has_few_different_events() {
        let (events, object) = (Events::default(), object());
        let now = Timestamp::UNIX_EPOCH;
        let written = (0..100)
            .filter(|n| events.admit(now, &object, &event(&n.to_string())) != Write::Nothing);
        assert_eq!(written.count(), 25);
    }

    #[test]
    fn an_event_has_all_that_the_server_wants() {
        let event = Event::warning("FailedDrainNode", "Drain", "\u{e9}".repeat(NOTE_BYTES_MAX));
        let time = micros(Timestamp::UNIX_EPOCH);
        let body = body("b.7", &time, "capstan-machine", &object(), &event);
        assert_eq!(body["metadata"], json!({"namespace": "a", "name": "b.7"}));
        assert_eq!(body["type"], "Warning");
        assert_eq!(body["regarding"]["uid"], "u");
        let note = body["note"].as_str().unwrap();
        assert!(!note.is_empty() && note.len() <= NOTE_BYTES_MAX);
    }

    #[test]
    fn times_have_microseconds() {
        assert_eq!(micros(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }
}
