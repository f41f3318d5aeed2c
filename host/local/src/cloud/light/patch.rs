//! JSON patch, JSON merge patch and strategic merge patch.

use serde_json::{Map, Value};

use super::object::as_object;
use super::status::Status;

/// RFC 7396.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let object = as_object(target);
    for (key, change) in changes {
        if change.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// The fields that identify an element of the list in this field, when the list is merged by key instead of replaced.
///
/// contract: the `patchMergeKey` tags of the built-in types. Node taints have none: they are replaced as a whole.
pub(crate) fn merge_key(field: &str, element: &Value) -> Option<&'static str> {
    let has = |key: &str| element.get(key).is_some();
    let key = match field {
        "conditions" | "addresses" => "type",
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets" => "name",
        "ports" if has("containerPort") => "containerPort",
        "ports" => "port",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        "podCIDRs" | "finalizers" => "",
        _ => return None,
    };
    Some(key)
}

/// Kubernetes' own merge patch, which merges some lists by key.
pub(crate) fn strategic(target: &mut Value, patch: &Value) -> Result<(), Status> {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut whole = changes.clone();
            whole.remove("$patch");
            *target = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            return Err(Status::bad_request(format!(
                "unknown $patch directive {other:?}"
            )));
        }
    }
    let object = as_object(target);
    for (key, change) in changes {
        if key == "$patch" || key == "$retainKeys" || key.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (object.get_mut(field), change)
            {
                list.retain(|element| !gone.contains(element));
            }
            continue;
        }
        match change {
            Value::Null => {
                object.remove(key);
            }
            Value::Array(elements) => {
                let list = object
                    .entry(key.clone())
                    .or_insert_with(|| Value::Array(Vec::new()));
                merge_list(key, list, elements)?;
            }
            _ => strategic(object.entry(key.clone()).or_insert(Value::Null), change)?,
        }
    }
    Ok(())
}

fn merge_list(field: &str, target: &mut Value, elements: &[Value]) -> Result<(), Status> {
    let by = elements
        .iter()
        .find_map(|element| merge_key(field, element));
    let (Some(by), Some(list)) = (by, target.as_array_mut()) else {
        *target = Value::Array(elements.to_vec());
        return Ok(());
    };
    if elements
        .iter()
        .any(|element| element.get("$patch").and_then(Value::as_str) == Some("replace"))
    {
        list.clear();
    }
    for element in elements {
        if by.is_empty() {
            if !list.contains(element) {
                list.push(element.clone());
            }
            continue;
        }
        let Some(identity) = element.get(by) else {
            if element.get("$patch").is_some() {
                continue;
            }
            return Err(Status::bad_request(format!(
                "an element of {field} does not have the merge key {by}"
            )));
        };
        let at = list
            .iter()
            .position(|other| other.get(by) == Some(identity));
        let deletes = element.get("$patch").and_then(Value::as_str) == Some("delete");
        match at {
            Some(at) if deletes => {
                list.remove(at);
            }
            Some(at) => {
                if let Some(present) = list.get_mut(at) {
                    strategic(present, element)?;
                }
            }
            None if deletes => {}
            None => list.push(element.clone()),
        }
    }
    Ok(())
}

/// RFC 6902.
pub(crate) fn json_patch(target: &mut Value, operations: &Value) -> Result<(), Status> {
    let Some(operations) = operations.as_array() else {
        return Err(Status::bad_request("a JSON patch is a list of operations"));
    };
    for operation in operations {
        let path = operation
            .get("path")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let from = operation
            .get("from")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let value = operation.get("value").cloned().unwrap_or(Value::Null);
        let failed = |what: &str| {
            Status::new(
                422,
                "Invalid",
                format!(
                    "the server rejected our request due to an error in our request: {what} {path:?}"
                ),
            )
        };
        let done = match operation.get("op").and_then(Value::as_str) {
            Some("add") => add(target, path, value),
            Some("remove") => remove(target, path).map(|_| ()),
            Some("replace") => target.pointer_mut(path).map(|place| *place = value),
            Some("test") => target
                .pointer(path)
                .filter(|present| **present == value)
                .map(|_| ()),
            Some("move") => remove(target, from).and_then(|moved| add(target, path, moved)),
            Some("copy") => target
                .pointer(from)
                .cloned()
                .and_then(|copy| add(target, path, copy)),
            _ => return Err(failed("unknown operation at")),
        };
        done.ok_or_else(|| failed("the operation does not apply at"))?;
    }
    Ok(())
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(object) => {
            object.insert(last, value);
        }
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let at: usize = last.parse().ok().filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(object) => object.remove(&last),
        Value::Array(list) => {
            let at: usize = last.parse().ok().filter(|at| *at < list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_conditions_by_type_and_replaces_taints() {
        let mut node = json!({"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]},
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let patch = json!({"status": {"conditions": [{"type": "B", "status": "False"}, {"type": "C", "status": "True"}]},
            "spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}});
        strategic(&mut node, &patch).unwrap();
        assert_eq!(node["status"]["conditions"].as_array().unwrap().len(), 3);
        assert_eq!(node["status"]["conditions"][1]["status"], "False");
        assert_eq!(
            node["spec"]["taints"],
            json!([{"key": "b", "effect": "NoExecute"}])
        );
    }

    #[test]
    fn deletes_list_elements_by_directive() {
        let mut pod =
            json!({"containers": [{"name": "a"}, {"name": "b"}], "finalizers": ["x", "y"]});
        let patch = json!({"containers": [{"name": "a", "$patch": "delete"}], "$deleteFromPrimitiveList/finalizers": ["x"]});
        strategic(&mut pod, &patch).unwrap();
        assert_eq!(
            pod,
            json!({"containers": [{"name": "b"}], "finalizers": ["y"]})
        );
    }

    #[test]
    fn applies_every_json_patch_operation() {
        let mut value = json!({"a": [1, 2], "b": {"c/d": 1}});
        let patch = json!([
            {"op": "test", "path": "/b/c~1d", "value": 1},
            {"op": "add", "path": "/a/1", "value": 9},
            {"op": "remove", "path": "/a/0"},
            {"op": "copy", "from": "/a", "path": "/e"},
            {"op": "move", "from": "/b", "path": "/f"},
            {"op": "replace", "path": "/a/0", "value": 7}
        ]);
        json_patch(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"a": [7, 2], "e": [9, 2], "f": {"c/d": 1}}));
        assert!(
            json_patch(
                &mut value,
                &json!([{"op": "test", "path": "/a", "value": 1}])
            )
            .is_err()
        );
        assert!(json_patch(&mut value, &json!([{"op": "remove", "path": "/nope"}])).is_err());
    }
}
