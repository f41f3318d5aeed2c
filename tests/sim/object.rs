//! Reading and changing objects as JSON.

use capstan_api::name::ObjectKey;
use serde_json::{Map, Value, json};

/// What is at a path of plain keys and places; `Value::pointer` makes a string of each of them.
fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer
        .split('/')
        .skip(1)
        .try_fold(object, |value, key| match value {
            Value::Object(fields) => fields.get(key),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        })
}

/// A text, empty when there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    at(object, pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A whole number.
#[must_use]
pub fn number(object: &Value, pointer: &str) -> Option<i64> {
    at(object, pointer).and_then(Value::as_i64)
}

/// Whether a flag is set.
#[must_use]
pub fn flag(object: &Value, pointer: &str) -> bool {
    at(object, pointer) == Some(&Value::Bool(true))
}

/// A list, empty when there is none.
#[must_use]
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    at(object, pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The name.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The UID.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Namespace and name.
#[must_use]
pub fn key(object: &Value) -> ObjectKey {
    ObjectKey::new(text(object, "/metadata/namespace"), name(object))
}

/// A label.
#[must_use]
pub fn label<'a>(object: &'a Value, label: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(label)?.as_str()
}

/// An annotation.
#[must_use]
pub fn annotation<'a>(object: &'a Value, annotation: &str) -> Option<&'a str> {
    object
        .pointer("/metadata/annotations")?
        .get(annotation)?
        .as_str()
}

/// Whether a pod is a kubelet's own, which nobody evicts.
#[must_use]
pub fn is_static(pod: &Value) -> bool {
    annotation(pod, "kubernetes.io/config.mirror").is_some()
}

/// Whether an annotation begins so.
#[must_use]
pub fn has_annotation_of(object: &Value, prefix: &str) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations
        .and_then(Value::as_object)
        .is_some_and(|all| all.keys().any(|key| key.starts_with(prefix)))
}

/// Whether it is being deleted.
#[must_use]
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Whether a condition has this status.
#[must_use]
pub fn is_condition(object: &Value, condition: &str, status: &str) -> bool {
    list(object, "/status/conditions")
        .iter()
        .any(|c| c["type"] == condition && c["status"] == status)
}

/// Whether it has an owner with this UID.
#[must_use]
pub fn is_owned_by(object: &Value, owner: &str) -> bool {
    list(object, "/metadata/ownerReferences")
        .iter()
        .any(|reference| reference["uid"] == owner)
}

/// UID of the managing controller.
#[must_use]
pub fn controller(object: &Value) -> Option<&str> {
    list(object, "/metadata/ownerReferences")
        .iter()
        .find(|reference| reference["controller"] == true)
        .map(|reference| text(reference, "/uid"))
}

/// The metadata, made when there is none.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// An object in an object, made when there is none.
pub fn child<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object[name].is_object() {
        object[name] = json!({});
    }
    object[name].as_object_mut().expect("was made an object")
}

/// Applies a JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().expect("was made an object");
    for (key, change) in changes {
        if change.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}
