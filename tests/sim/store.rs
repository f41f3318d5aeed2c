//! What an API server keeps and the rules by which it changes: versions, conflicts, finalizers, deletion, subresources, defaults
//! and a history for watches. No time passes here and nothing fails by luck; that is [`crate::server`]'s.

mod selection;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_controllers::kube_api::{
    ApiError, GroupKind, Patch, Preconditions, Resource, Selection, WatchEvent,
};
use serde_json::{Value, json};

use self::selection::{is_selected, shown};
use crate::object::{self, list, metadata, text};

/// Changes that a watch can go back.
const HISTORY_MAX: usize = 4000;

/// A kind that is served.
#[derive(Clone, Debug)]
struct Served {
    resource: Resource,
    /// Whether the status is written apart from the rest.
    has_status: bool,
    /// OpenAPI schema, of kinds that have one: for defaults.
    schema: Arc<Value>,
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    /// The version of the last change.
    changed: u64,
}

/// What a server has to know of a CustomResourceDefinition. Servers share it.
#[derive(Clone, Debug)]
pub struct Definition {
    resource: Resource,
    has_status: bool,
    schema: Arc<Value>,
}

impl Definition {
    /// Reads it.
    #[must_use]
    pub fn of(definition: &Value) -> Self {
        let version = &definition["spec"]["versions"][0];
        let names = &definition["spec"]["names"];
        Self {
            resource: Resource::namespaced(
                text(definition, "/spec/group"),
                text(version, "/name"),
                text(names, "/kind"),
                text(names, "/plural"),
            ),
            has_status: version.pointer("/subresources/status").is_some(),
            schema: Arc::new(version["schema"]["openAPIV3Schema"].clone()),
        }
    }
}

/// One change, in the order of versions.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    kind: GroupKind,
    /// As it was before; absent when it is new.
    old: Option<Arc<Value>>,
    /// As it is; absent when it is gone.
    new: Option<Arc<Value>>,
}

/// What a write did.
#[derive(Clone, Debug)]
pub struct Written {
    /// As it was.
    pub old: Option<Arc<Value>>,
    /// As it is; absent when it is gone.
    pub new: Option<Arc<Value>>,
    /// What the client is answered.
    pub answer: Value,
}

impl Written {
    fn unchanged(object: &Arc<Value>) -> Self {
        Self {
            old: Some(Arc::clone(object)),
            new: Some(Arc::clone(object)),
            answer: (**object).clone(),
        }
    }

    /// Whether anything is different now.
    #[must_use]
    pub fn is_change(&self) -> bool {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            _ => true,
        }
    }
}

/// The content of one API server.
#[derive(Debug, Default)]
pub struct Store {
    /// Makes UIDs of different servers different.
    prefix: String,
    kinds: BTreeMap<GroupKind, Served>,
    history: VecDeque<Change>,
    forgotten: u64,
    /// What of a kind nobody can begin to watch from any more.
    expired: BTreeMap<GroupKind, u64>,
    version: u64,
    made: u64,
}

impl Store {
    /// An empty server.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..Self::default()
        }
    }

    /// Serves a kind without a schema.
    pub fn serve(&mut self, resource: &Resource, has_status: bool) {
        self.serve_with(resource, has_status, Arc::default());
    }

    fn serve_with(&mut self, resource: &Resource, has_status: bool, schema: Arc<Value>) {
        let served = Served {
            resource: resource.clone(),
            has_status,
            schema,
            objects: BTreeMap::new(),
            changed: 0,
        };
        self.kinds.insert(place(resource), served);
    }

    /// Serves the kind of a CustomResourceDefinition.
    pub fn serve_definition(&mut self, definition: &Definition) {
        self.serve_with(
            &definition.resource,
            definition.has_status,
            Arc::clone(&definition.schema),
        );
    }

    /// The newest version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    fn served(&self, resource: &Resource) -> Result<&Served, ApiError> {
        let found = self.kinds.get(&place(resource));
        found
            .filter(|served| served.resource.version == resource.version)
            .ok_or_else(|| {
                ApiError::NotServed("the server could not find the requested resource".to_owned())
            })
    }

    /// One object.
    ///
    /// # Errors
    /// When it, or its kind, does not exist.
    pub fn get(&self, resource: &Resource, key: &ObjectKey) -> Result<Arc<Value>, ApiError> {
        let found = self.served(resource)?.objects.get(key);
        found.cloned().ok_or_else(|| not_found(resource, key))
    }

    /// All objects of a kind, by namespace and name.
    pub fn all<'a>(
        &'a self,
        resource: &Resource,
    ) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        let served = self.kinds.get(&place(resource));
        served
            .into_iter()
            .flat_map(|served| served.objects.values())
    }

    /// The first object of a kind that is wanted.
    pub fn find(&self, resource: &Resource, wanted: impl Fn(&Value) -> bool) -> Option<Arc<Value>> {
        self.all(resource).find(|object| wanted(object)).cloned()
    }

    /// All objects of all kinds.
    pub fn everything(&self) -> impl Iterator<Item = (&Resource, &Arc<Value>)> {
        self.kinds.values().flat_map(|served| {
            served
                .objects
                .values()
                .map(|object| (&served.resource, object))
        })
    }

    /// What a list answers: all of it, after `after`, and the version.
    ///
    /// # Errors
    /// When the kind is not served.
    pub fn list(
        &self,
        resource: &Resource,
        selection: &Selection,
    ) -> Result<(Vec<Value>, u64), ApiError> {
        let served = self.served(resource)?;
        let chosen = served
            .objects
            .values()
            .filter(|object| is_selected(object, selection));
        let items = chosen.map(|object| shown(object, selection)).collect();
        Ok((items, self.version))
    }

    /// Whether nothing happened to a kind after a version. False when it is not served.
    #[must_use]
    pub fn is_same(&self, place: &GroupKind, version: u64) -> bool {
        let served = self.kinds.get(place);
        version >= self.forgotten && served.is_some_and(|served| served.changed <= version)
    }

    /// Forgets what happened to a kind up to a version, for whoever begins to watch it.
    pub fn expire(&mut self, resource: &Resource, version: u64) {
        let until = self.expired.entry(place(resource)).or_default();
        *until = version.max(*until);
    }

    /// Whether nobody can begin to watch a kind from a version.
    #[must_use]
    pub fn is_expired(&self, resource: &Resource, version: u64) -> bool {
        let until = self.expired.get(&place(resource));
        until.is_some_and(|until| version <= *until) && version < self.version
    }

    /// What happened to a kind after a version, and up to which version that is all.
    ///
    /// # Errors
    /// When that is too long ago.
    pub fn since(
        &self,
        resource: &Resource,
        selection: &Selection,
        version: u64,
    ) -> Result<(Vec<(u64, WatchEvent)>, u64), ApiError> {
        self.served(resource)?;
        if version < self.forgotten {
            return Err(ApiError::Expired(format!(
                "too old resource version: {version} ({})",
                self.forgotten
            )));
        }
        let kind = place(resource);
        let first = self
            .history
            .partition_point(|change| change.version <= version);
        let changes = self
            .history
            .range(first..)
            .filter(|change| change.kind == kind);
        let events = changes.filter_map(|change| {
            let here = |object: &Option<Arc<Value>>| {
                object
                    .as_ref()
                    .filter(|object| is_selected(object, selection))
                    .map(|object| shown(object, selection))
            };
            let event = match (here(&change.old), here(&change.new)) {
                (_, Some(new)) => WatchEvent::Applied(new),
                (Some(mut old), None) => {
                    // As it last was, with the version of its end.
                    metadata(&mut old).insert(
                        "resourceVersion".to_owned(),
                        json!(change.version.to_string()),
                    );
                    WatchEvent::Deleted(old)
                }
                (None, None) => return None,
            };
            Some((change.version, event))
        });
        Ok((events.collect(), self.version))
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// What a server says.
    pub fn create(
        &mut self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
        now: &str,
    ) -> Result<Written, ApiError> {
        let served = self.served(resource)?.clone_rules();
        let mut new = object.clone();
        let key = self.named(resource, namespace, &mut new)?;
        if self.get(resource, &key).is_ok() {
            return Err(ApiError::AlreadyExists(format!(
                "{} {:?} already exists",
                resource.plural, key.name
            )));
        }
        self.made += 1;
        let uid = format!("{}-{:06}", self.prefix, self.made);
        let fields = metadata(&mut new);
        for absent in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
            "selfLink",
        ] {
            fields.remove(absent);
        }
        fields.insert("uid".to_owned(), json!(uid));
        fields.insert("creationTimestamp".to_owned(), json!(now));
        if served.has_status {
            fields.insert("generation".to_owned(), json!(1));
        }
        prune_nulls(&mut new);
        if served.has_status
            && let Some(fields) = new.as_object_mut()
        {
            fields.remove("status");
        }
        defaults(&served.schema, &mut new);
        Ok(self.commit(resource, &key, None, Some(new)))
    }

    fn named(
        &mut self,
        resource: &Resource,
        namespace: &str,
        new: &mut Value,
    ) -> Result<ObjectKey, ApiError> {
        new["apiVersion"] = json!(resource.api_version());
        new["kind"] = json!(resource.kind);
        let generate = text(new, "/metadata/generateName").to_owned();
        let fields = metadata(new);
        if fields
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .is_empty()
        {
            if generate.is_empty() {
                return Err(ApiError::Invalid(
                    "name or generateName is required".to_owned(),
                ));
            }
            let name = format!("{generate}{:05}", self.made % 100_000);
            fields.insert("name".to_owned(), json!(name));
        }
        if resource.namespaced {
            let said = fields
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or(namespace);
            if said != namespace {
                return Err(ApiError::Invalid(
                    "the namespace of the provided object does not match the namespace sent on the request"
                        .to_owned(),
                ));
            }
            fields.insert("namespace".to_owned(), json!(namespace));
            let spaces = GroupKind {
                group: String::new(),
                kind: "namespaces".to_owned(),
            };
            let spaces = self.kinds.get(&spaces);
            if spaces.is_some_and(|s| !s.objects.contains_key(&ObjectKey::new("", namespace))) {
                return Err(ApiError::NotFound(format!(
                    "namespaces {namespace:?} not found"
                )));
            }
        }
        Ok(object::key(new))
    }

    /// Changes an object.
    ///
    /// # Errors
    /// What a server says.
    pub fn patch(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: &Patch,
    ) -> Result<Written, ApiError> {
        let Patch::Merge(patch) = patch else {
            return Err(ApiError::Invalid(
                "this server takes merge patches only, which is what controllers send".to_owned(),
            ));
        };
        let old = self.get(resource, key)?;
        let mut new = (*old).clone();
        object::merge(&mut new, patch);
        self.replace(resource, key, subresource, &old, new)
    }

    /// Replaces an object by one that was made from it.
    ///
    /// # Errors
    /// What a server says.
    pub fn replace(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        old: &Arc<Value>,
        mut new: Value,
    ) -> Result<Written, ApiError> {
        let served = self.served(resource)?.clone_rules();
        let differs = |pointer: &str| {
            let wanted = text(&new, pointer);
            !wanted.is_empty() && wanted != text(old, pointer)
        };
        if differs("/metadata/resourceVersion") {
            return Err(ApiError::Conflict(format!(
                "Operation cannot be fulfilled on {} {:?}: the object has been modified",
                resource.plural, key.name
            )));
        }
        if differs("/metadata/uid") {
            return Err(ApiError::Invalid(
                "metadata.uid: Invalid value: field is immutable".to_owned(),
            ));
        }
        match subresource {
            Some("status") if served.has_status => {
                let status = new.get("status").cloned();
                new = (**old).clone();
                match status {
                    Some(status) => new["status"] = status,
                    None => drop(
                        new.as_object_mut()
                            .and_then(|fields| fields.remove("status")),
                    ),
                }
            }
            Some(other) => {
                return Err(ApiError::NotServed(format!(
                    "there is no subresource {other}"
                )));
            }
            None => {
                self.keep_what_is_not_the_clients(&served, old, &mut new)?;
            }
        }
        prune_nulls(&mut new);
        defaults(&served.schema, &mut new);
        metadata(&mut new).insert(
            "resourceVersion".to_owned(),
            old["metadata"]["resourceVersion"].clone(),
        );
        if new == **old {
            return Ok(Written::unchanged(old));
        }
        let grace_s =
            object::number(&new, "/metadata/deletionGracePeriodSeconds").unwrap_or_default();
        let is_held = grace_s > 0 || !list(&new, "/metadata/finalizers").is_empty();
        if object::is_deleting(&new) && !is_held {
            let mut written = self.commit(resource, key, Some(old), None);
            metadata(&mut new).insert(
                "resourceVersion".to_owned(),
                json!(self.version.to_string()),
            );
            written.answer = new;
            return Ok(written);
        }
        Ok(self.commit(resource, key, Some(old), Some(new)))
    }

    fn keep_what_is_not_the_clients(
        &self,
        served: &Rules,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        if served.has_status {
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => drop(
                    new.as_object_mut()
                        .and_then(|fields| fields.remove("status")),
                ),
            }
        }
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "name",
            "namespace",
        ] {
            match old["metadata"].get(field) {
                Some(value) => drop(metadata(new).insert(field.to_owned(), value.clone())),
                None => drop(metadata(new).remove(field)),
            }
        }
        for (field, value) in [("apiVersion", &old["apiVersion"]), ("kind", &old["kind"])] {
            new[field] = value.clone();
        }
        if object::is_deleting(old) {
            let before = list(old, "/metadata/finalizers");
            if list(new, "/metadata/finalizers")
                .iter()
                .any(|f| !before.contains(f))
            {
                return Err(ApiError::Invalid(
                    "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"
                        .to_owned(),
                ));
            }
        }
        let part = |object: &Value| {
            let mut fields = object.as_object().cloned().unwrap_or_default();
            fields.remove("metadata");
            fields.remove("status");
            fields
        };
        if served.has_status && part(old) != part(new) {
            bump_generation(new);
        }
        Ok(())
    }

    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// What a server says.
    pub fn delete(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        preconditions: &Preconditions,
        now: &str,
        grace_s: i64,
    ) -> Result<Written, ApiError> {
        let has_status = self.served(resource)?.has_status;
        let old = self.get(resource, key)?;
        let differs = |wanted: &Option<String>, pointer: &str| {
            wanted
                .as_deref()
                .is_some_and(|wanted| wanted != text(&old, pointer))
        };
        if differs(&preconditions.uid, "/metadata/uid")
            || differs(&preconditions.resource_version, "/metadata/resourceVersion")
        {
            return Err(ApiError::Conflict(
                "Precondition failed: the object is another one or has changed".to_owned(),
            ));
        }
        if object::is_deleting(&old) {
            return Ok(Written::unchanged(&old));
        }
        if grace_s == 0 && list(&old, "/metadata/finalizers").is_empty() {
            return Ok(self.commit(resource, key, Some(&old), None));
        }
        let mut new = (*old).clone();
        let fields = metadata(&mut new);
        fields.insert("deletionTimestamp".to_owned(), json!(now));
        fields.insert("deletionGracePeriodSeconds".to_owned(), json!(grace_s));
        if has_status {
            bump_generation(&mut new);
        }
        Ok(self.commit(resource, key, Some(&old), Some(new)))
    }

    /// Takes an object out whatever holds it, as a kubelet does with a pod that has ended.
    pub fn remove(&mut self, resource: &Resource, key: &ObjectKey) -> Option<Written> {
        let old = self.get(resource, key).ok()?;
        Some(self.commit(resource, key, Some(&old), None))
    }

    fn commit(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        old: Option<&Arc<Value>>,
        new: Option<Value>,
    ) -> Written {
        self.version += 1;
        let version = self.version;
        let new = new.map(|mut new| {
            metadata(&mut new).insert("resourceVersion".to_owned(), json!(version.to_string()));
            Arc::new(new)
        });
        if let Some(served) = self.kinds.get_mut(&place(resource)) {
            served.changed = version;
            match &new {
                Some(new) => drop(served.objects.insert(key.clone(), Arc::clone(new))),
                None => drop(served.objects.remove(key)),
            }
        }
        self.history.push_back(Change {
            version,
            kind: place(resource),
            old: old.cloned(),
            new: new.clone(),
        });
        if self.history.len() > HISTORY_MAX
            && let Some(first) = self.history.pop_front()
        {
            self.forgotten = first.version;
        }
        Written {
            answer: new
                .as_ref()
                .or(old)
                .map(|object| (**object).clone())
                .unwrap_or_default(),
            old: old.cloned(),
            new,
        }
    }
}

/// Where the objects of a resource are: a server knows resources by their plurals, whatever clients call their kinds.
#[must_use]
pub fn place(resource: &Resource) -> GroupKind {
    GroupKind {
        group: resource.group.clone(),
        kind: resource.plural.clone(),
    }
}

/// What is needed of a kind while its objects change.
struct Rules {
    has_status: bool,
    schema: Arc<Value>,
}

impl Served {
    fn clone_rules(&self) -> Rules {
        Rules {
            has_status: self.has_status,
            schema: Arc::clone(&self.schema),
        }
    }
}

fn not_found(resource: &Resource, key: &ObjectKey) -> ApiError {
    ApiError::NotFound(format!("{} {:?} not found", resource.plural, key.name))
}

fn bump_generation(object: &mut Value) {
    let generation = object::number(object, "/metadata/generation").unwrap_or_default();
    metadata(object).insert("generation".to_owned(), json!(generation + 1));
}

/// A null is the same as leaving the field out.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Fills in what the schema says.
fn defaults(schema: &Value, value: &mut Value) {
    if let Some(items) = value.as_array_mut() {
        for item in items {
            defaults(&schema["items"], item);
        }
        return;
    }
    let (Some(properties), Some(fields)) = (
        schema.get("properties").and_then(Value::as_object),
        value.as_object_mut(),
    ) else {
        return;
    };
    for (name, schema) in properties {
        if let Some(default) = schema.get("default")
            && !fields.contains_key(name)
        {
            fields.insert(name.clone(), default.clone());
        }
        if let Some(value) = fields.get_mut(name) {
            defaults(schema, value);
        }
    }
}
