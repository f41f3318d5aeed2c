//! Reading and writing parts of Kubernetes objects that are plain JSON.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// One version of a stored object; never changed once it is stored.
#[derive(Debug)]
pub(crate) struct Object {
    /// The whole object.
    pub(crate) value: Value,
    /// Its resource version.
    pub(crate) rv: u64,
    text: OnceLock<Bytes>,
}

impl Object {
    /// Wraps a value that carries this resource version.
    pub(crate) fn new(value: Value, rv: u64) -> Self {
        Self {
            value,
            rv,
            text: OnceLock::new(),
        }
    }

    /// The object as JSON text, made once.
    pub(crate) fn text(&self) -> Bytes {
        self.text
            .get_or_init(|| Bytes::from(self.value.to_string()))
            .clone()
    }
}

/// The string at a JSON pointer, or the empty string.
pub(crate) fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a JSON pointer, or the empty list.
pub(crate) fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(value: &Value) -> &str {
    text_at(value, "/metadata/name")
}

/// `metadata.namespace`.
pub(crate) fn namespace(value: &Value) -> &str {
    text_at(value, "/metadata/namespace")
}

/// `metadata.uid`.
pub(crate) fn uid(value: &Value) -> &str {
    text_at(value, "/metadata/uid")
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(value: &Value) -> bool {
    !text_at(value, "/metadata/deletionTimestamp").is_empty()
}

/// The object behind a key, made when it is missing or not an object.
pub(crate) fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let object = as_object(value);
    as_object(object.entry(key.to_owned()).or_insert_with(|| json!({})))
}

/// The value as an object, made one when it is not.
pub(crate) fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was made an object above"),
    }
}

/// `metadata`, made when it is missing.
pub(crate) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    child(value, "metadata")
}

/// Now, as `metav1.Time` writes it.
pub(crate) fn now_text() -> String {
    time_text(jiff::Timestamp::now())
}

/// A moment, as `metav1.Time` writes it.
pub(crate) fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A moment, as `metav1.MicroTime` writes it.
pub(crate) fn micro_time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The status of the condition of this type, or the empty string.
pub(crate) fn condition_status<'a>(value: &'a Value, type_: &str) -> &'a str {
    list_at(value, "/status/conditions")
        .iter()
        .find(|condition| text_at(condition, "/type") == type_)
        .map(|condition| text_at(condition, "/status"))
        .unwrap_or_default()
}

/// Sets a condition of a Node or Pod; the transition time moves only when the status does.
pub(crate) fn set_condition(
    value: &mut Value,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let now = now_text();
    let conditions = child(value, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    let old = list
        .iter()
        .position(|condition| text_at(condition, "/type") == type_);
    let since = old
        .and_then(|at| list.get(at))
        .filter(|condition| text_at(condition, "/status") == status)
        .map(|condition| text_at(condition, "/lastTransitionTime").to_owned())
        .unwrap_or_else(|| now.clone());
    let condition = json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": since,
    });
    match old.and_then(|at| list.get_mut(at)) {
        Some(place) => *place = condition,
        None => list.push(condition),
    }
}

/// A random version 4 UUID.
pub(crate) fn new_uid() -> String {
    let bits: u128 = rand::random();
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

/// Random lower-case letters and digits, without vowels, as `generateName` adds them.
pub(crate) fn random_suffix(length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..length)
        .map(|_| {
            let at = rand::random_range(0..ALPHABET.len());
            ALPHABET.get(at).copied().map(char::from).unwrap_or('x')
        })
        .collect()
}
