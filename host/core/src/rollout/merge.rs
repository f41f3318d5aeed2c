//! Merge patches that contain only what differs, and which labels and annotations were passed on before.

use std::collections::{BTreeMap, BTreeSet};

pub use capstan_api::annotation::PROPAGATED;
use serde_json::{Map, Value, json};

/// The merge patch that makes `current` have what `desired` has; a null in `desired` removes. What `desired` does not name
/// stays. `None` when nothing differs.
#[must_use]
pub fn patch(current: &Value, desired: &Value) -> Option<Value> {
    let Some(wanted) = desired.as_object() else {
        return (current != desired).then(|| desired.clone());
    };
    let mut patch = Map::new();
    for (name, value) in wanted {
        match current.get(name) {
            None | Some(Value::Null) if value.is_null() => {}
            None | Some(Value::Null) => {
                // An object of nothing, or of nothing but removals, changes nothing.
                if let Some(value) = without_nulls(value) {
                    patch.insert(name.clone(), value);
                }
            }
            Some(before) if before.is_object() && value.is_object() => {
                if let Some(inner) = self::patch(before, value) {
                    patch.insert(name.clone(), inner);
                }
            }
            Some(before) if before != value => {
                patch.insert(name.clone(), value.clone());
            }
            Some(_) => {}
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn without_nulls(value: &Value) -> Option<Value> {
    let Some(fields) = value.as_object() else {
        return Some(value.clone());
    };
    let kept: Map<String, Value> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(name, value)| Some((name.clone(), without_nulls(value)?)))
        .collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// A map with nulls for the keys that go.
#[must_use]
pub fn map(set: &BTreeMap<String, String>, gone: impl IntoIterator<Item = String>) -> Value {
    let mut map: Map<String, Value> = gone
        .into_iter()
        .filter(|key| !set.contains_key(key))
        .map(|key| (key, Value::Null))
        .collect();
    map.extend(set.iter().map(|(key, value)| (key.clone(), json!(value))));
    Value::Object(map)
}

/// Keys that were passed on to an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Propagated {
    /// Of labels.
    pub labels: BTreeSet<String>,
    /// Of annotations.
    pub annotations: BTreeSet<String>,
}

impl Propagated {
    /// The keys of these maps.
    #[must_use]
    pub fn of(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Self {
        Self {
            labels: labels.keys().cloned().collect(),
            annotations: annotations.keys().cloned().collect(),
        }
    }

    /// What the annotation says; nothing when it is absent or cannot be read.
    #[must_use]
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let text = annotations.and_then(|annotations| annotations.get(PROPAGATED));
        let value: Value = text
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let keys = |name: &str| {
            let listed = value.get(name).and_then(Value::as_array);
            listed
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        Self {
            labels: keys("labels"),
            annotations: keys("annotations"),
        }
    }

    /// The annotation's value; `None` when there is nothing to remember.
    #[must_use]
    pub fn write(&self) -> Option<String> {
        let is_empty = self.labels.is_empty() && self.annotations.is_empty();
        (!is_empty)
            .then(|| json!({"labels": self.labels, "annotations": self.annotations}).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_patched() {
        let current = json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1]});
        assert_eq!(
            patch(
                &current,
                &json!({"a": 1, "b": {"c": 2}, "l": [1], "z": null})
            ),
            None
        );
        assert_eq!(patch(&current, &json!({"m": {}, "n": {"x": {}}})), None);
        assert_eq!(
            patch(
                &current,
                &json!({"a": 2, "b": {"c": null, "e": {"f": 1, "g": null}}, "n": {"x": null}})
            ),
            Some(json!({"a": 2, "b": {"c": null, "e": {"f": 1}}}))
        );
    }

    #[test]
    fn passed_on_keys_are_remembered_only_when_there_are_any() {
        let none = Propagated::default();
        assert_eq!(none.write(), None);
        let some = Propagated {
            labels: BTreeSet::from(["a".to_owned()]),
            annotations: BTreeSet::new(),
        };
        let written = BTreeMap::from([(PROPAGATED.to_owned(), some.write().expect("keys"))]);
        assert_eq!(Propagated::read(Some(&written)), some);
        assert_eq!(Propagated::read(None), none);
    }
}
