//! Server-side apply: merges what a manager wants into an object, takes away what the manager no longer wants, and refuses to take over
//! what another applier owns.

use serde_json::{Map, Value, json};

use super::object::{self, as_object, list_at, metadata, text_at};
use super::patch::merge_key;
use super::request::Target;
use super::status::Status;

/// Applies `wanted` for this manager; conflicts are refused unless `force`.
#[expect(
    clippy::too_many_lines,
    reason = "one pass over the fields: create, change, give up, refuse"
)]
pub(crate) fn apply(
    target: &Target,
    object: &mut Value,
    wanted: &Value,
    manager: &str,
    force: bool,
) -> Result<(), Status> {
    let mut wanted = wanted.clone();
    if wanted
        .pointer("/metadata/managedFields")
        .is_some_and(|fields| fields != &json!([]) && !fields.is_null())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    metadata(&mut wanted).remove("managedFields");
    let mut owned = fields_of(&wanted, "");
    for own in ["f:apiVersion", "f:kind"] {
        as_object(&mut owned).remove(own);
    }
    if let Some(meta) = owned.get_mut("f:metadata") {
        for own in [
            "f:name",
            "f:namespace",
            "f:uid",
            "f:resourceVersion",
            "f:creationTimestamp",
        ] {
            as_object(meta).remove(own);
        }
    }
    if owned
        .get("f:metadata")
        .is_some_and(|meta| meta == &json!({}))
    {
        as_object(&mut owned).remove("f:metadata");
    }
    let mut managers: Vec<Value> = list_at(object, "/metadata/managedFields").to_vec();
    let is_mine = |entry: &Value| {
        text_at(entry, "/manager") == manager
            && text_at(entry, "/operation") == "Apply"
            && text_at(entry, "/subresource") == target.subresource
    };
    for entry in managers.iter_mut().filter(|entry| !is_mine(entry)) {
        let other = text_at(entry, "/manager").to_owned();
        let theirs = entry.get_mut("fieldsV1").unwrap_or(&mut Value::Null).take();
        let mut clashes = Vec::new();
        let kept = without_clashes(
            &theirs,
            &owned,
            Some(object),
            Some(&wanted),
            "",
            &mut clashes,
        );
        if !clashes.is_empty() && !force {
            return Err(conflict(&other, &clashes));
        }
        as_object(entry).insert("fieldsV1".into(), kept);
    }
    if let Some(before) = managers
        .iter()
        .find(|entry| is_mine(entry))
        .and_then(|entry| entry.get("fieldsV1"))
    {
        let others: Vec<&Value> = managers
            .iter()
            .filter(|entry| !is_mine(entry))
            .filter_map(|entry| entry.get("fieldsV1"))
            .collect();
        take_away(object, before, &owned, &others);
    }
    merge_applied(object, &wanted, "");
    managers.retain(|entry| {
        !is_mine(entry)
            && entry
                .get("fieldsV1")
                .is_some_and(|fields| fields != &json!({}))
    });
    let mut mine = json!({
        "manager": manager, "operation": "Apply", "apiVersion": target.resource.api_version(),
        "time": object::now_text(), "fieldsType": "FieldsV1", "fieldsV1": owned,
    });
    if !target.subresource.is_empty() {
        as_object(&mut mine).insert("subresource".into(), json!(target.subresource));
    }
    if let Some(before) = list_at(object, "/metadata/managedFields")
        .iter()
        .find(|entry| is_mine(entry))
        && before.get("fieldsV1") == mine.get("fieldsV1")
    {
        mine = before.clone();
    }
    managers.push(mine);
    metadata(object).insert("managedFields".into(), Value::Array(managers));
    Ok(())
}

fn conflict(manager: &str, clashes: &[String]) -> Status {
    let plural = if clashes.len() == 1 {
        "conflict"
    } else {
        "conflicts"
    };
    let mut status = Status::new(
        409,
        "Conflict",
        format!(
            "Apply failed with {} {plural}: conflicts with \"{manager}\": {}",
            clashes.len(),
            clashes.join(", ")
        ),
    );
    let causes: Vec<Value> = clashes
        .iter()
        .map(|field| json!({"reason": "FieldManagerConflict", "message": format!("conflict with \"{manager}\""), "field": field}))
        .collect();
    status.details = json!({"causes": causes});
    status
}

fn element_key(field: &str, element: &Value) -> Option<String> {
    let key = merge_key(field, element)?;
    if key.is_empty() {
        return Some(format!("v:{element}"));
    }
    let identity = element.get(key)?;
    Some(format!("k:{}", json!({key: identity})))
}

/// The set of fields of a value, as `fieldsV1` writes it.
fn fields_of(value: &Value, field: &str) -> Value {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let fields: Map<String, Value> = map
                .iter()
                .map(|(key, value)| (format!("f:{key}"), fields_of(value, key)))
                .collect();
            Value::Object(fields)
        }
        Value::Array(list) => {
            let keys: Option<Vec<String>> = list
                .iter()
                .map(|element| element_key(field, element))
                .collect();
            let Some(keys) = keys else { return json!({}) };
            let fields: Map<String, Value> = keys
                .into_iter()
                .zip(list)
                .map(|(key, element)| {
                    let mut inner = if key.starts_with("v:") {
                        json!({})
                    } else {
                        fields_of(element, "")
                    };
                    if key.starts_with("k:") {
                        as_object(&mut inner).insert(".".into(), json!({}));
                    }
                    (key, inner)
                })
                .collect();
            Value::Object(fields)
        }
        _ => json!({}),
    }
}

/// The part of the value that a `fieldsV1` key leads to.
fn step<'a>(value: Option<&'a Value>, field: &str, key: &str) -> Option<&'a Value> {
    let value = value?;
    if let Some(name) = key.strip_prefix("f:") {
        return value.get(name);
    }
    value
        .as_array()?
        .iter()
        .find(|element| element_key(field, element).as_deref() == Some(key))
}

/// Another manager's fields without those that are about to get a different value from us; these are listed in `clashes`.
fn without_clashes(
    theirs: &Value,
    ours: &Value,
    now: Option<&Value>,
    wanted: Option<&Value>,
    path: &str,
    clashes: &mut Vec<String>,
) -> Value {
    let Some(fields) = theirs.as_object() else {
        return theirs.clone();
    };
    let field = path.rsplit('.').next().unwrap_or_default().to_owned();
    let mut kept = Map::new();
    for (key, inner) in fields {
        let Some(mine) = ours.get(key) else {
            kept.insert(key.clone(), inner.clone());
            continue;
        };
        let shown = key.strip_prefix("f:").map_or_else(
            || format!("[{}]", key.get(2..).unwrap_or_default()),
            |name| format!(".{name}"),
        );
        let below = format!("{path}{shown}");
        let (now, wanted) = (step(now, &field, key), step(wanted, &field, key));
        let are_maps = wanted.is_some_and(Value::is_object) && now.is_none_or(Value::is_object);
        let is_leaf = !are_maps
            && (inner.as_object().is_none_or(Map::is_empty)
                || mine.as_object().is_none_or(Map::is_empty));
        if key == "." || (is_leaf && now == wanted) {
            kept.insert(key.clone(), inner.clone());
        } else if is_leaf {
            clashes.push(below);
        } else {
            let rest = without_clashes(inner, mine, now, wanted, &below, clashes);
            if rest != json!({}) || inner == &json!({}) {
                kept.insert(key.clone(), rest);
            }
        }
    }
    Value::Object(kept)
}

/// Removes from the object what this manager applied before, does not apply now, and nobody else owns.
fn take_away(value: &mut Value, before: &Value, after: &Value, others: &[&Value]) {
    take_away_below(value, before, after, others, "");
}

fn take_away_below(
    value: &mut Value,
    before: &Value,
    after: &Value,
    others: &[&Value],
    field: &str,
) {
    let Some(fields) = before.as_object() else {
        return;
    };
    for (key, inner) in fields.iter().filter(|(key, _)| *key != ".") {
        let below: Vec<&Value> = others.iter().filter_map(|fields| fields.get(key)).collect();
        let is_wanted = after.get(key).is_some() || !below.is_empty();
        let nothing = json!({});
        let after_inner = after.get(key).unwrap_or(&nothing);
        if let Some(name) = key.strip_prefix("f:") {
            if is_wanted {
                if let Some(child) = value.get_mut(name) {
                    take_away_below(child, inner, after_inner, &below, name);
                }
            } else if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                if let Some(child) = value.get_mut(name) {
                    take_away_below(child, inner, &nothing, &[], name);
                    if child == &json!({}) || child == &json!([]) {
                        as_object(value).remove(name);
                    }
                }
            } else {
                as_object(value).remove(name);
            }
        } else if let Some(list) = value.as_array_mut() {
            let at = list
                .iter()
                .position(|element| element_key(field, element).as_deref() == Some(key));
            match at.and_then(|at| list.get_mut(at)) {
                Some(element) if is_wanted => {
                    take_away_below(element, inner, after_inner, &below, "")
                }
                Some(_) => {
                    list.retain(|element| element_key(field, element).as_deref() != Some(key));
                }
                None => {}
            }
        }
    }
}

fn merge_applied(target: &mut Value, wanted: &Value, field: &str) {
    match wanted {
        Value::Object(changes) => {
            let object = as_object(target);
            for (key, change) in changes {
                merge_applied(
                    object.entry(key.clone()).or_insert(Value::Null),
                    change,
                    key,
                );
            }
        }
        Value::Array(elements) => {
            let keys: Option<Vec<String>> = elements
                .iter()
                .map(|element| element_key(field, element))
                .collect();
            let (Some(keys), Some(list)) = (keys, target.as_array_mut()) else {
                *target = wanted.clone();
                return;
            };
            for (key, element) in keys.iter().zip(elements) {
                let at = list
                    .iter()
                    .position(|other| element_key(field, other).as_ref() == Some(key));
                match at.and_then(|at| list.get_mut(at)) {
                    Some(present) => merge_applied(present, element, ""),
                    None => list.push(element.clone()),
                }
            }
        }
        _ => *target = wanted.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::light::resources;

    fn target() -> Target {
        Target {
            resource: resources::config_maps(),
            namespace: "a".into(),
            name: "b".into(),
            subresource: String::new(),
        }
    }

    #[test]
    fn takes_away_what_is_no_longer_applied_and_keeps_the_rest() {
        let mut object = json!({"data": {"other": "1"}});
        apply(
            &target(),
            &mut object,
            &json!({"data": {"a": "1", "b": "2"}}),
            "one",
            false,
        )
        .unwrap();
        apply(
            &target(),
            &mut object,
            &json!({"data": {"a": "1"}}),
            "one",
            false,
        )
        .unwrap();
        assert_eq!(object["data"], json!({"other": "1", "a": "1"}));
    }

    #[test]
    fn refuses_another_managers_field_unless_forced() {
        let mut object = json!({});
        apply(
            &target(),
            &mut object,
            &json!({"data": {"a": "1"}}),
            "one",
            false,
        )
        .unwrap();
        let refused = apply(
            &target(),
            &mut object.clone(),
            &json!({"data": {"a": "2"}}),
            "two",
            false,
        )
        .unwrap_err();
        assert_eq!(refused.code, 409);
        assert!(
            refused.message.contains("conflicts with \"one\": .data.a"),
            "{}",
            refused.message
        );
        apply(
            &target(),
            &mut object,
            &json!({"data": {"a": "1"}}),
            "two",
            false,
        )
        .unwrap();
        apply(
            &target(),
            &mut object,
            &json!({"data": {"a": "3"}}),
            "three",
            true,
        )
        .unwrap();
        assert_eq!(object["data"]["a"], "3");
        assert_eq!(
            object["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
