//! An object as the stores keep it: its JSON with what is looked at often beside it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use capstan_api::label;
use capstan_api::name::ObjectKey;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kinds;
use crate::kube_api::{GroupKind, Resource};

/// One object of one resource; immutable.
pub struct Object {
    /// The whole object without managed fields.
    pub value: Arc<Value>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Resource version, as a number so that newer can be told from older (KEP-5504: comparable since Kubernetes 1.35, and
    /// in practice since etcd 3).
    pub resource_version: u64,
    /// The Cluster of a Node of a workload cluster.
    workload: Option<ObjectKey>,
    /// The object as the type that it was first asked for.
    shared: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are objects too: never the content.
        write!(
            f,
            "{} {} rv {}",
            self.kind(),
            self.key,
            self.resource_version
        )
    }
}

/// An owner reference, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
    /// Whether it is the managing controller.
    pub controller: bool,
}

impl Object {
    /// Reads the identity out of an object as the server sent it. `None` when it has no name.
    #[must_use]
    pub fn new(value: impl Into<Arc<Value>>) -> Option<Self> {
        let value = value.into();
        let text = |path: &str| {
            value
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let name = text("/metadata/name").to_owned();
        if name.is_empty() {
            return None;
        }
        Some(Self {
            key: ObjectKey {
                namespace: text("/metadata/namespace").to_owned(),
                name,
            },
            uid: text("/metadata/uid").to_owned(),
            resource_version: text("/metadata/resourceVersion")
                .parse()
                .unwrap_or_default(),
            value,
            workload: None,
            shared: OnceLock::new(),
        })
    }

    /// A Node as one of this Cluster's, which Nodes do not say themselves. Its JSON is shared.
    #[must_use]
    pub fn in_workload(&self, cluster: &ObjectKey) -> Self {
        Self {
            value: Arc::clone(&self.value),
            key: self.key.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version,
            workload: Some(cluster.clone()),
            shared: OnceLock::new(),
        }
    }

    /// The Cluster whose Node it is, as the connection keeper gives Nodes to controllers' maps.
    #[must_use]
    pub fn workload(&self) -> Option<&ObjectKey> {
        self.workload.as_ref()
    }

    /// The object as a typed one. The error names the field.
    ///
    /// # Errors
    /// When the object does not have the type's shape.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&*self.value)
    }

    /// The object as a typed one, decoded once for all who ask for this type: for what is looked at by many, such as the Machines of a
    /// set each time that one of them changes.
    ///
    /// # Errors
    /// As [`Self::typed`].
    pub fn shared<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
    ) -> Result<Arc<T>, serde_json::Error> {
        let kept = self.shared.get().cloned();
        if let Some(kept) = kept.and_then(|kept| kept.downcast::<T>().ok()) {
            return Ok(kept);
        }
        let decoded = Arc::new(self.typed::<T>()?);
        // Another may have been faster, or asked for another type: either is as good.
        let _ = self.shared.set(decoded.clone());
        Ok(decoded)
    }

    /// A string at a JSON pointer, which has no `~`: maps of watches ask thousands of objects for each event, and nothing is allocated for it.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        let mut names = pointer.split('/').skip(1);
        let found = names.try_fold(&*self.value, |value, name| match value {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        });
        found?.as_str().filter(|text| !text.is_empty())
    }

    /// Whether a field of its spec, at any depth, is this text.
    #[must_use]
    pub fn has_in_spec(&self, text: &str) -> bool {
        self.value.get("spec").is_some_and(|spec| has(spec, text))
    }

    /// Kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind").unwrap_or_default()
    }

    /// Group and kind.
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        let api_version = self.text("/apiVersion").unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        GroupKind {
            group: group.to_owned(),
            kind: self.kind().to_owned(),
        }
    }

    /// The Cluster that it says it belongs to: objects of Cluster API's own group by `spec.clusterName`, others, whose spec is their
    /// provider's, by the label. One stands for the other where it is missing: the label comes with the first reconcile.
    #[must_use]
    pub fn cluster(&self) -> Option<ObjectKey> {
        let named = self.text("/spec/clusterName");
        let labelled = self.label(label::CLUSTER_NAME);
        let api_version = self.text("/apiVersion").unwrap_or_default();
        let is_own = api_version
            .strip_prefix(&*kinds::CLUSTER.group)
            .is_some_and(|rest| rest.starts_with('/'));
        let name = if is_own {
            named.or(labelled)
        } else {
            labelled.or(named)
        }?;
        Some(ObjectKey::new(self.key.namespace.clone(), name))
    }

    /// `metadata.generation`.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.value
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.text("/metadata/deletionTimestamp").is_some()
    }

    /// A label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.value.pointer("/metadata/labels")?.get(name)?.as_str()
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value
            .pointer("/metadata/annotations")?
            .get(name)?
            .as_str()
    }

    /// Its finalizers.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.value
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// Its owners.
    pub fn owners(&self) -> impl Iterator<Item = Owner<'_>> {
        self.value
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|owner| {
                let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
                Owner {
                    group: text("apiVersion")
                        .split_once('/')
                        .map_or("", |(group, _)| group),
                    kind: text("kind"),
                    name: text("name"),
                    uid: text("uid"),
                    controller: owner
                        .get("controller")
                        .and_then(Value::as_bool)
                        .unwrap_or(false),
                }
            })
    }

    /// The managing controller.
    #[must_use]
    pub fn controller(&self) -> Option<Owner<'_>> {
        self.owners().find(|owner| owner.controller)
    }
}

/// Where an object is: its resource and key. What queues hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locator {
    /// Group and kind.
    pub kind: GroupKind,
    /// Namespace and name.
    pub key: ObjectKey,
}

impl Locator {
    /// Of an object of a resource.
    #[must_use]
    pub fn new(resource: &Resource, key: &ObjectKey) -> Self {
        Self {
            kind: resource.group_kind(),
            key: key.clone(),
        }
    }

    /// Of an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        Self {
            kind: object.group_kind(),
            key: object.key.clone(),
        }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind, self.key)
    }
}

fn has(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text,
        Value::Array(items) => items.iter().any(|item| has(item, text)),
        Value::Object(fields) => fields.values().any(|field| has(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::v1beta2::Machine;
    use serde_json::json;

    use super::*;

    fn object(api_version: &str, label: Option<&str>, named: Option<&str>) -> Object {
        Object::new(json!({
            "apiVersion": api_version, "kind": "Machine",
            "metadata": {"name": "m", "namespace": "ns", "labels": {"cluster.x-k8s.io/cluster-name": label}},
            "spec": {"clusterName": named},
        }))
        .unwrap()
    }

    #[test]
    fn the_cluster_is_the_specs_in_cluster_apis_own_kinds_and_the_labels_in_others() {
        let (own, other) = (
            "cluster.x-k8s.io/v1beta2",
            "infrastructure.cluster.x-k8s.io/v1",
        );
        for (api_version, label, named, cluster) in [
            (own, Some("label"), Some("spec"), Some("spec")),
            (own, Some("label"), None, Some("label")),
            (other, Some("label"), Some("spec"), Some("label")),
            (other, None, Some("spec"), Some("spec")),
            (own, None, None, None),
        ] {
            let found = object(api_version, label, named).cluster();
            let wanted = cluster.map(|name| ObjectKey::new("ns", name));
            assert_eq!(found, wanted, "{api_version} {label:?} {named:?}");
        }
    }

    #[test]
    fn texts_are_found_at_a_place_or_anywhere_in_the_spec() {
        let object = Object::new(json!({
            "kind": "ControlPlane", "metadata": {"name": "m"},
            "spec": {"version": "v1", "machineTemplate": {"references": [{"name": ""}, {"name": "template", "size": 3}]}},
        }));
        let object = object.unwrap();
        let places = [
            ("/spec/machineTemplate/references/1/name", Some("template")),
            ("/spec/machineTemplate/references/0/name", None),
            ("/spec/machineTemplate/references/2/name", None),
            ("/spec/machineTemplate/references/1/size", None),
            ("/spec/version/name", None),
        ];
        for (pointer, text) in places {
            assert_eq!(object.text(pointer), text, "{pointer}");
        }
        assert!(object.has_in_spec("template") && object.has_in_spec("v1"));
        assert!(!object.has_in_spec("m") && !object.has_in_spec("name"));
    }

    #[test]
    fn what_is_asked_for_by_many_is_decoded_once_and_another_type_is_still_had() {
        let object = object("cluster.x-k8s.io/v1beta2", None, Some("c"));
        let first = object.shared::<Value>().unwrap();
        assert!(Arc::ptr_eq(&first, &object.shared::<Value>().unwrap()));
        assert!(object.shared::<u32>().is_err());
        let wrong: Result<Arc<Machine>, _> = object.shared();
        assert!(wrong.is_err(), "a Machine needs an infrastructureRef");
    }
}
