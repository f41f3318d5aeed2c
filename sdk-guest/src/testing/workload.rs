//! `workload` off wasm: a cluster in memory. It knows no kinds and validates nothing; patches are merged.

use serde_json::{Map, Value};

use super::{FAKES, Host};
use crate::workload::{ApiResource, ObjectName};

impl Host {
    /// Puts an object into the workload cluster.
    pub fn set_workload_object(&self, resource: &ApiResource, object: Value) {
        let name = cluster::name_of(&object);
        FAKES.with_borrow_mut(|fakes| fakes.workload.insert((resource.clone(), name), object));
    }

    /// An object of the workload cluster.
    #[must_use]
    pub fn workload_object(&self, resource: &ApiResource, name: &ObjectName) -> Option<Value> {
        let key = (resource.clone(), name.clone());
        FAKES.with_borrow(|fakes| fakes.workload.get(&key).cloned())
    }
}

/// As a merge patch says.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

pub(crate) mod cluster {
    //! The functions of the capability.

    use serde_json::Value;

    use super::super::FAKES;
    use super::merge;
    use crate::workload::{ApiResource, Error, ListOptions, ObjectName, Page, Patch};

    pub(super) fn name_of(object: &Value) -> ObjectName {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        ObjectName {
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: text("/metadata/name").unwrap_or_default().to_owned(),
        }
    }

    fn missing(resource: &ApiResource, name: &ObjectName) -> Error {
        Error::NotFound(format!("{} {:?}", resource.plural, name.name))
    }

    pub(crate) fn get(resource: &ApiResource, name: &ObjectName) -> Result<Value, Error> {
        FAKES.with_borrow(|fakes| {
            let found = fakes.workload.get(&(resource.clone(), name.clone()));
            found.cloned().ok_or_else(|| missing(resource, name))
        })
    }

    /// Selectors of labels are honoured where they are `name=value`, joined by commas.
    pub(crate) fn list(resource: &ApiResource, options: &ListOptions) -> Result<Page, Error> {
        let wanted = |object: &Value| {
            options.label_selector.split(',').all(|part| {
                let Some((label, value)) = part.split_once('=') else {
                    return part.is_empty();
                };
                let labels = object.pointer("/metadata/labels");
                let found = labels.and_then(|labels| labels.get(label.trim()));
                found.and_then(Value::as_str) == Some(value.trim())
            })
        };
        let start: usize = options.next.parse().unwrap_or(0);
        let limit = usize::try_from(options.limit.clamp(1, 250)).unwrap_or(1);
        FAKES.with_borrow(|fakes| {
            let all: Vec<&Value> = fakes
                .workload
                .iter()
                .filter(|((of, name), object)| {
                    of == resource
                        && (options.namespace.is_none() || options.namespace == name.namespace)
                        && wanted(object)
                })
                .map(|(_, object)| object)
                .collect();
            let end = start.saturating_add(limit);
            let items = all.iter().skip(start).take(limit);
            Ok(Page {
                items: items.map(|object| (*object).clone()).collect(),
                next: if end < all.len() {
                    end.to_string()
                } else {
                    String::new()
                },
            })
        })
    }

    pub(crate) fn apply(resource: &ApiResource, object: &Value) -> Result<Value, Error> {
        let name = name_of(object);
        if name.name.is_empty() {
            return Err(Error::Invalid("the object has no metadata.name".to_owned()));
        }
        FAKES.with_borrow_mut(|fakes| {
            let stored = fakes
                .workload
                .entry((resource.clone(), name))
                .or_insert(Value::Null);
            merge(stored, object);
            Ok(stored.clone())
        })
    }

    pub(crate) fn patch(
        resource: &ApiResource,
        name: &ObjectName,
        patch: &Patch,
    ) -> Result<Value, Error> {
        let (Patch::Merge(patch) | Patch::Strategic(patch)) = patch else {
            return Err(Error::Invalid(
                "the fake host knows no JSON patches".to_owned(),
            ));
        };
        FAKES.with_borrow_mut(|fakes| {
            let key = (resource.clone(), name.clone());
            let stored = fakes.workload.get_mut(&key);
            let stored = stored.ok_or_else(|| missing(resource, name))?;
            merge(stored, patch);
            Ok(stored.clone())
        })
    }

    pub(crate) fn delete(
        resource: &ApiResource,
        name: &ObjectName,
        uid: Option<&str>,
    ) -> Result<(), Error> {
        FAKES.with_borrow_mut(|fakes| {
            let key = (resource.clone(), name.clone());
            let found = fakes.workload.get(&key);
            let other = uid.filter(|uid| {
                let of = found.and_then(|object| object.pointer("/metadata/uid"));
                of.and_then(Value::as_str).is_some_and(|of| of != *uid)
            });
            if other.is_some() {
                return Err(Error::Conflict("it is another object by now".to_owned()));
            }
            fakes.workload.remove(&key);
            Ok(())
        })
    }
}
