//! Statuses as JSON: what to write, whether it differs, and whether anybody waits for the difference. Pure.

use capstan_api::condition;
use capstan_api::{annotation, label};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::controller::{Adoption, Report};
use crate::object::Object;

/// Condition types whose status others act on: these are written at once.
const URGENT_CONDITIONS: [&str; 5] = [
    "Ready",
    "Available",
    "Deleting",
    "Paused",
    "HealthCheckSucceeded",
];

/// A condition whose loss people wait to hear of; that it is gained goes with other news.
const URGENT_LOSS: &str = "BootstrapConfigReady";

/// Status fields that others act on. All else (counters, addresses, messages, a provider's own fields) is for people and
/// clients that poll.
const URGENT_FIELDS: [&str; 4] = [
    "/initialization/controlPlaneInitialized",
    "/initialization/provisioned",
    "/initialization/dataSecretCreated",
    "/deletion",
];

/// A control plane's, which workers of a version wait for. Known for the first time it is that of machines which are still to come.
const URGENT_ONCE_KNOWN: &str = "/version";

/// A condition that others act on when it is lost or comes back; a new machine is up to date as a matter of course.
const URGENT_CHANGE: &str = "UpToDate";

/// A field of a Cluster like [`URGENT_FIELDS`]: its control plane and machines wait for it. A Machine has the field as well, for people.
const URGENT_IN_CLUSTER: &str = "/initialization/infrastructureProvisioned";

/// A field of a control plane's Machine like [`URGENT_FIELDS`]: the control plane looks at the Node. Of workers it is for people, and goes with
/// their being ready if that comes soon.
const URGENT_IN_MEMBER: &str = "/nodeRef";

/// Why an object is paused, in the words of its condition; `None` when it is not.
#[must_use]
pub fn paused_because(cluster: Option<&Object>, object: &Object) -> Option<String> {
    let mut why = Vec::new();
    let spec_paused = |o: &Object| {
        o.value
            .pointer("/spec/paused")
            .and_then(Value::as_bool)
            .unwrap_or(false)
    };
    if cluster.is_some_and(spec_paused) {
        why.push("Cluster spec.paused is set to true".to_owned());
    }
    if object.annotation(annotation::PAUSED).is_some() {
        why.push(format!(
            "{} has the {} annotation",
            object.kind(),
            annotation::PAUSED
        ));
    }
    (!why.is_empty()).then(|| why.join(", "))
}

/// The object's status with the condition `Paused` set to True.
#[must_use]
pub fn paused(object: &Object, why: &str, now: Timestamp) -> Value {
    let paused = condition::Report::yes("Paused", "Paused").with_message(why);
    with(object, [paused], now)
}

/// The object's status with these conditions, and otherwise as it is.
#[must_use]
pub fn with(
    object: &Object,
    conditions: impl IntoIterator<Item = condition::Report>,
    now: Timestamp,
) -> Value {
    let mut status = object
        .value
        .get("status")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let merged = condition::merge(
        &conditions_of(&status),
        conditions,
        Some(object.generation()),
        now,
    );
    set(&mut status, "conditions", json!(merged));
    status
}

/// The conditions in a status; those that cannot be read are left out.
#[must_use]
pub fn conditions_of(status: &Value) -> Vec<Condition> {
    let listed = status
        .get("conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    listed
        .filter_map(|condition| Condition::deserialize(condition).ok())
        .collect()
}

/// The complete status that a report asks for. Conditions of other owners stay.
#[must_use]
pub fn desired(
    object: &Object,
    generation: i64,
    report: Report,
    now: Timestamp,
    pausable: bool,
    success: bool,
) -> Value {
    let current = object.value.get("status").unwrap_or(&Value::Null);
    if report.status.is_null() && report.conditions.is_empty() && !pausable {
        // The kind has no status.
        return if current.is_null() {
            json!({})
        } else {
            current.clone()
        };
    }
    let mut status = if report.status.is_object() {
        report.status
    } else {
        json!({})
    };
    let mut owned = report.conditions;
    if pausable {
        owned.push(condition::Report::no("Paused", "NotPaused"));
    }
    let conditions = condition::merge(&conditions_of(current), owned, Some(generation), now);
    if !conditions.is_empty() {
        set(&mut status, "conditions", json!(conditions));
    }
    let observed = if success {
        json!(generation)
    } else {
        current
            .get("observedGeneration")
            .cloned()
            .unwrap_or(Value::Null)
    };
    if observed.as_i64().is_some_and(|generation| generation > 0) {
        set(&mut status, "observedGeneration", observed);
    }
    status
}

fn set(status: &mut Value, name: &str, value: Value) {
    if let Some(status) = status.as_object_mut() {
        status.insert(name.to_owned(), value);
    }
}

/// The merge patch from one status to another; `None` when they are the same. Nulls and absent fields are the same.
#[must_use]
pub fn difference(current: &Value, desired: &Value) -> Option<Value> {
    let (Some(current), Some(desired)) = (current.as_object(), desired.as_object()) else {
        return (current != desired).then(|| desired.clone());
    };
    let mut patch = Map::new();
    for (name, value) in desired {
        let before = current.get(name).unwrap_or(&Value::Null);
        if before == value {
            continue;
        }
        if before.is_object() && value.is_object() {
            if let Some(inner) = difference(before, value) {
                patch.insert(name.clone(), inner);
            }
        } else {
            patch.insert(name.clone(), value.clone());
        }
    }
    for name in current.keys().filter(|name| !desired.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Whether more differs than the generations that conditions were observed at.
#[must_use]
pub fn says_something_new(current: &Value, desired: &Value) -> bool {
    let words = |status: &Value| {
        let mut status = status.clone();
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.remove("observedGeneration");
            }
        }
        status
    };
    difference(&words(current), &words(desired)).is_some()
}

/// Whether somebody may be waiting for this difference: a field that controllers act on changed, or an important condition
/// changed its status. Everything else may wait a moment for company.
#[must_use]
pub fn is_urgent(object: &Object, current: &Value, desired: &Value) -> bool {
    let of_kind = (object.kind() == "Cluster").then_some(&URGENT_IN_CLUSTER);
    let of_member = object.label(label::CONTROL_PLANE).is_some();
    if URGENT_FIELDS
        .iter()
        .chain(of_kind)
        .chain(of_member.then_some(&URGENT_IN_MEMBER))
        .any(|field| current.pointer(field) != desired.pointer(field))
    {
        return true;
    }
    let version = current.pointer(URGENT_ONCE_KNOWN);
    if version.is_some() && version != desired.pointer(URGENT_ONCE_KNOWN) {
        return true;
    }
    let status = |value: &Value, wanted: &str| {
        value
            .get("conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|c| c.get("type").and_then(Value::as_str) == Some(wanted))
            .and_then(|c| c.get("status"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let is_lost = status(current, URGENT_LOSS).as_deref() == Some("True")
        && status(desired, URGENT_LOSS).as_deref() == Some("False");
    let up_to_date = status(current, URGENT_CHANGE);
    let is_changed = up_to_date.is_some() && up_to_date != status(desired, URGENT_CHANGE);
    is_lost
        || is_changed
        || URGENT_CONDITIONS.iter().any(|wanted| {
            let before = status(current, wanted);
            let after = status(desired, wanted);
            // A first "not yet" is news to nobody.
            before != after && !(before.is_none() && after.as_deref() != Some("True"))
        })
}

/// The merge patch that gives an object its finalizer, labels, annotations and owners; `None` when it has them.
#[must_use]
pub fn adoption_patch(
    object: &Object,
    finalizer: Option<&str>,
    adoption: &Adoption,
) -> Option<Value> {
    let mut metadata = Map::new();
    if let Some(finalizer) = finalizer
        && !object.finalizers().any(|f| f == finalizer)
    {
        let all: Vec<&str> = object.finalizers().chain([finalizer]).collect();
        metadata.insert("finalizers".to_owned(), json!(all));
    }
    let labels: Map<String, Value> = adoption
        .labels
        .iter()
        .filter(|(name, value)| object.label(name) != Some(value))
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    let annotations: Map<String, Value> = adoption
        .annotations
        .iter()
        .filter(|(name, _)| object.annotation(name).is_none())
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(annotations));
    }
    if let Some(owners) = owners_with(object, adoption) {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    if metadata.is_empty() {
        return None;
    }
    // Lists are replaced whole: only if the object is still the one that was read.
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(object.resource_version.to_string()),
    );
    metadata.insert("uid".to_owned(), json!(object.uid));
    Some(json!({ "metadata": metadata }))
}

/// The owner references that an object should have, if it has others.
fn owners_with(object: &Object, adoption: &Adoption) -> Option<Value> {
    let current = object
        .value
        .pointer("/metadata/ownerReferences")
        .cloned()
        .unwrap_or(json!([]));
    let mut owners = current.as_array().cloned().unwrap_or_default();
    let uid = |owner: &Value| {
        owner
            .get("uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    owners.retain(|owner| !adoption.drop_owners.contains(&uid(owner)));
    for wanted in &adoption.owners {
        match owners.iter_mut().find(|owner| uid(owner) == uid(wanted)) {
            Some(owner) => *owner = wanted.clone(),
            None => owners.push(wanted.clone()),
        }
    }
    let owners = Value::Array(owners);
    (owners != current).then_some(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_statuses_have_no_difference() {
        let status = json!({"a": 1, "b": {"c": [1]}});
        assert_eq!(difference(&status, &status), None);
    }

    #[test]
    fn a_difference_is_a_merge_patch() {
        let current = json!({"a": 1, "gone": 2, "deep": {"x": 1, "y": 2}});
        let desired = json!({"a": 1, "new": 3, "deep": {"x": 1, "y": 3}});
        let patch = difference(&current, &desired);
        assert_eq!(
            patch,
            Some(json!({"new": 3, "gone": null, "deep": {"y": 3}}))
        );
    }

    #[test]
    fn another_generation_alone_is_no_news() {
        let said = |generation: i64, message: &str| json!({"conditions": [{"type": "Ready", "observedGeneration": generation, "message": message}]});
        assert!(!says_something_new(&said(1, "a"), &said(2, "a")));
        assert!(says_something_new(&said(1, "a"), &said(1, "b")));
    }

    #[test]
    fn what_controllers_act_on_is_urgent_and_words_are_not() {
        let object = |value: Value| Object::new(value).expect("has a name");
        let machine = object(json!({"kind": "Machine", "metadata": {"name": "a"}}));
        let cluster = object(json!({"kind": "Cluster", "metadata": {"name": "a"}}));
        let member = object(json!({
            "kind": "Machine", "metadata": {"name": "a", "labels": {label::CONTROL_PLANE: ""}},
        }));
        let ready = |status: &str, message: &str| json!({"conditions": [{"type": "Ready", "status": status, "message": message}], "phase": message});
        assert!(!is_urgent(
            &machine,
            &ready("False", "a"),
            &ready("False", "b")
        ));
        assert!(is_urgent(
            &machine,
            &ready("False", "a"),
            &ready("True", "a")
        ));
        assert!(
            !is_urgent(&machine, &json!({}), &ready("False", "a")),
            "a first not-yet"
        );
        assert!(is_urgent(
            &machine,
            &json!({}),
            &json!({"initialization": {"provisioned": true}})
        ));
        assert!(!is_urgent(
            &machine,
            &json!({}),
            &json!({"replicas": 1, "addresses": []})
        ));
        let node = json!({"nodeRef": {"name": "n"}});
        assert!(!is_urgent(&machine, &json!({}), &node));
        assert!(is_urgent(&member, &json!({}), &node));
        // Workers wait for another version; the first one is that of machines which are still to come.
        let version = |version: &str| json!({"version": version});
        assert!(!is_urgent(&machine, &json!({}), &version("v1.36.3")));
        assert!(is_urgent(
            &machine,
            &version("v1.36.3"),
            &version("v1.37.0")
        ));
        let up_to_date =
            |status: &str| json!({"conditions": [{"type": "UpToDate", "status": status}]});
        assert!(!is_urgent(&machine, &json!({}), &up_to_date("True")));
        assert!(is_urgent(
            &machine,
            &up_to_date("True"),
            &up_to_date("False")
        ));
        let provisioned = json!({"initialization": {"infrastructureProvisioned": true}});
        assert!(is_urgent(&cluster, &json!({}), &provisioned));
        assert!(!is_urgent(&machine, &json!({}), &provisioned));
    }

    #[test]
    fn adoption_is_one_patch_and_none_when_nothing_is_missing() {
        let object = Object::new(json!({"metadata": {
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "finalizers": ["f"],
            "labels": {"l": "v"}, "annotations": {"a": "1"}, "ownerReferences": [{"uid": "o"}],
        }}))
        .expect("has a name");
        let have = Adoption {
            labels: vec![("l".to_owned(), "v".to_owned())],
            annotations: vec![("a".to_owned(), "1".to_owned())],
            owners: vec![json!({"uid": "o"})],
            drop_owners: vec![],
        };
        assert_eq!(adoption_patch(&object, Some("f"), &have), None);
        let want = Adoption {
            annotations: vec![
                ("a".to_owned(), "2".to_owned()),
                ("b".to_owned(), "2".to_owned()),
            ],
            owners: vec![json!({"uid": "p"})],
            drop_owners: vec!["o".to_owned()],
            ..have
        };
        let patch = adoption_patch(&object, Some("g"), &want).expect("differs");
        assert_eq!(patch["metadata"]["finalizers"], json!(["f", "g"]));
        assert_eq!(patch["metadata"]["ownerReferences"], json!([{"uid": "p"}]));
        assert_eq!(patch["metadata"]["annotations"], json!({"b": "2"}));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
