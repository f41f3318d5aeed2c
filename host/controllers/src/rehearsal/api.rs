//! An API server that nothing is written to: writes are noted, and answered as the server would if nobody else wrote. Who asks again
//! gets what was answered before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capstan_api::name::ObjectKey;
use capstan_core::rollout::simulation::merge;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::Serialize;
use serde_json::{Value, json};

use crate::kube_api::{
    ApiError, Duplex, KubeApi, Page, Patch, Preconditions, Resource, Selection, WatchEvent,
};
use crate::workloads::{Connect, ConnectError};

/// Something that would be done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// Where: `management`, `workload`, or the plugin's name.
    pub place: String,
    /// `create`, `patch`, `delete`, or a plugin's capability.
    pub verb: String,
    /// Kind and name, or what the plugin would do.
    pub what: String,
    /// The fields that would be written, by their paths, without what is in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Conditions that would be written, as `Type=Status (Reason): message`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// What would be done, in order. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Effects(Arc<Mutex<Vec<Effect>>>);

impl Effects {
    /// Takes out what was noted so far.
    #[must_use]
    pub fn take(&self) -> Vec<Effect> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, effect: Effect) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(effect);
    }
}

/// The server with nothing written to it.
pub(super) struct Rehearsed {
    inner: Arc<dyn KubeApi>,
    place: &'static str,
    effects: Effects,
    /// Objects as they would be by now.
    written: Mutex<HashMap<(Resource, ObjectKey), Value>>,
}

impl Rehearsed {
    /// The management cluster.
    #[must_use]
    pub(super) fn management(inner: Arc<dyn KubeApi>, effects: Effects) -> Self {
        Self::new(inner, "management", effects)
    }

    fn new(inner: Arc<dyn KubeApi>, place: &'static str, effects: Effects) -> Self {
        Self {
            inner,
            place,
            effects,
            written: Mutex::default(),
        }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<(Resource, ObjectKey), Value>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object as it would be by now.
    async fn present(&self, resource: &Resource, key: &ObjectKey) -> Result<Value, ApiError> {
        let known = self
            .written()
            .get(&(resource.clone(), key.clone()))
            .cloned();
        match known {
            Some(Value::Null) => Err(ApiError::NotFound(format!(
                "{} {key} would be gone",
                resource.kind
            ))),
            Some(object) => Ok(object),
            None => self.inner.get(resource, key).await,
        }
    }

    /// Keeps the object as it would be by now, as the next version of what it was.
    fn keep(&self, resource: &Resource, key: &ObjectKey, mut object: Value) -> Value {
        let version = object
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str);
        let version: u64 = version
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let next = version.saturating_add(1).to_string();
        merge(&mut object, &json!({"metadata": {"resourceVersion": next}}));
        self.written()
            .insert((resource.clone(), key.clone()), object.clone());
        object
    }

    fn note(&self, verb: &str, resource: &Resource, key: &ObjectKey, part: &str, body: &Value) {
        let part = if part.is_empty() {
            String::new()
        } else {
            format!(" {part}")
        };
        self.effects.note(Effect {
            place: self.place.to_owned(),
            verb: verb.to_owned(),
            what: format!("{} {key}{part}", resource.kind),
            fields: fields(body),
            conditions: conditions(body),
        });
    }
}

/// Connections to workload clusters that nothing is written to.
pub(super) struct RehearsedConnect<C> {
    inner: C,
    effects: Effects,
}

impl<C: Connect> RehearsedConnect<C> {
    /// Notes what would be written to any of them.
    #[must_use]
    pub(super) fn new(inner: C, effects: Effects) -> Self {
        Self { inner, effects }
    }
}

impl<C: Connect> Connect for RehearsedConnect<C> {
    fn connect<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        async move {
            let inner = self.inner.connect(kubeconfig).await?;
            let api = Rehearsed::new(inner, "workload", self.effects.clone());
            Ok(Arc::new(api) as Arc<dyn KubeApi>)
        }
        .boxed()
    }
}

impl KubeApi for Rehearsed {
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        limit: u32,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        self.inner.list(resource, selection, limit, next)
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        resource_version: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, ApiError>>, ApiError>> {
        self.inner.watch(resource, selection, resource_version)
    }

    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.present(resource, key).boxed()
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let name = object.pointer("/metadata/name").and_then(Value::as_str);
            let key = ObjectKey::new(namespace, name.unwrap_or_default());
            self.note("create", resource, &key, "", &Value::Null);
            let mut made = object.clone();
            let uid = format!("planned-{}-{}", resource.plural, key.name);
            merge(
                &mut made,
                &json!({"metadata": {"uid": uid, "generation": 1}}),
            );
            Ok(self.keep(resource, &key, made))
        }
        .boxed()
    }

    fn create_subresource<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: &'a str,
        _: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.note("create", resource, key, subresource, &Value::Null);
        async { Ok(json!({})) }.boxed()
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        patch: &'a Patch,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let (Patch::Merge(body)
            | Patch::Json(body)
            | Patch::Strategic(body)
            | Patch::Apply(body)) = patch;
            self.note(
                "patch",
                resource,
                key,
                subresource.unwrap_or_default(),
                body,
            );
            let mut object = match (self.present(resource, key).await, patch) {
                (Err(ApiError::NotFound(_)), Patch::Apply(object)) => object.clone(),
                (found, _) => found?,
            };
            let is_json = matches!(patch, Patch::Json(_));
            if !is_json {
                let mut body = body.clone();
                // What a write must still find is no part of what it writes.
                if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("resourceVersion");
                    metadata.remove("uid");
                }
                merge(&mut object, &body);
            }
            Ok(self.keep(resource, key, object))
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        _: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        self.note("delete", resource, key, "", &Value::Null);
        let place = (resource.clone(), key.clone());
        self.written().insert(place, Value::Null);
        async { Ok(()) }.boxed()
    }

    fn port_forward<'a>(
        &'a self,
        pod: &'a ObjectKey,
        _: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>> {
        // What is said through it cannot be seen from here, and might be a write.
        let message = format!("a plan makes no connection to pod {pod}");
        async { Err(ApiError::Unavailable(message)) }.boxed()
    }

    fn get_raw<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<String, ApiError>> {
        self.inner.get_raw(path)
    }

    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>> {
        self.inner.shown_certificate()
    }
}

/// How deep paths go: down to fields of a spec's parts.
const DEPTH_MAX: usize = 4;

/// Paths of what a patch writes, without conditions and what only guards the write.
fn fields(patch: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() && depth < DEPTH_MAX => {
                for (name, value) in fields {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(value, &path, depth.saturating_add(1), found);
                }
            }
            _ if matches!(path, "" | "apiVersion" | "kind" | "status.conditions") => {}
            _ if path.starts_with("metadata.")
                && ["uid", "resourceVersion", "name", "namespace"]
                    .contains(&path.trim_start_matches("metadata.")) => {}
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk(patch, "", 0, &mut found);
    found
}

fn conditions(patch: &Value) -> Vec<String> {
    let all = patch
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let text = |condition: &Value, field: &str| {
        let text = condition.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    all.into_iter()
        .flatten()
        .map(|condition| {
            let message = text(condition, "message");
            let colon = if message.is_empty() { "" } else { ": " };
            format!(
                "{}={} ({}){colon}{message}",
                text(condition, "type"),
                text(condition, "status"),
                text(condition, "reason"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_paths_and_conditions_are_sentences() {
        let patch = json!({
            "metadata": {"uid": "u", "resourceVersion": "1", "annotations": {"a/b": "secret"}},
            "spec": {"replicas": 3, "template": {"spec": {"version": "v1", "bootstrap": {"dataSecretName": "s"}}}},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "False", "reason": "NotReady", "message": "wait"},
                {"type": "Paused", "status": "False", "reason": "NotPaused"},
            ]},
        });
        assert_eq!(
            fields(&patch),
            [
                "metadata.annotations.a/b",
                "spec.replicas",
                "spec.template.spec.bootstrap",
                "spec.template.spec.version",
                "status.phase",
            ]
        );
        assert_eq!(
            conditions(&patch),
            ["Ready=False (NotReady): wait", "Paused=False (NotPaused)"]
        );
    }
}
