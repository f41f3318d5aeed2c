//! What the capabilities of a call reach in Kubernetes: Secrets, the object's own workload cluster, events on the object.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_engine::{
    ApiResource, EventSink, FoundSecret, GuestEvent, ObjectName, PatchKind, SecretSource,
    WorkloadAnswer, WorkloadApi, WorkloadError, WorkloadRequest,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::ctx::{Clock, Ctx};
use crate::event::{self, Event, Events, Regarding};
use crate::kube_api::{ApiError, KubeApi, Patch, Preconditions, Resource, Selection};
use crate::object::Object;
use crate::secrets::Secrets;
use crate::workloads::Workloads;

/// Secrets of the management cluster. Which of them a call may read, the engine has checked.
pub(super) struct ObjectSecrets {
    api: Arc<dyn KubeApi>,
    secrets: Secrets,
}

impl ObjectSecrets {
    pub(super) fn of(ctx: &Ctx) -> Self {
        Self {
            api: Arc::clone(&ctx.api),
            secrets: ctx.secrets.clone(),
        }
    }
}

impl SecretSource for ObjectSecrets {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<FoundSecret>, String>> {
        async move {
            let secret = ObjectKey::new(namespace, name);
            let found = self
                .secrets
                .get(&*self.api, &secret)
                .await
                .map_err(|error| format!("reading Secret {secret}: {error}"))?;
            Ok(found.and_then(|found| {
                Some(FoundSecret {
                    bytes: found.data.get(key)?.clone(),
                    secret_type: found.secret_type.clone(),
                })
            }))
        }
        .boxed()
    }
}

/// The one workload cluster that an object belongs to: its name comes from the object, its namespace is the object's.
pub(super) struct OwnCluster {
    workloads: Workloads,
    cluster: ObjectKey,
}

impl OwnCluster {
    pub(super) fn of(ctx: &Ctx, object: &Object) -> Option<Arc<dyn WorkloadApi>> {
        let cluster = super::cluster_of(object)?;
        Some(Arc::new(Self {
            workloads: ctx.workloads.clone(),
            cluster,
        }))
    }

    async fn send(&self, request: WorkloadRequest) -> Result<WorkloadAnswer, WorkloadError> {
        let Some(workload) = self.workloads.get(&self.cluster) else {
            return Err(WorkloadError::Unavailable(format!(
                "there is no connection to Cluster {}",
                self.cluster
            )));
        };
        let api = &*workload.api;
        let answer = match request {
            WorkloadRequest::Get { resource, name } => api
                .get(
                    &resource_of(&resource, name.namespace.as_ref()),
                    &key(&name),
                )
                .await
                .map(WorkloadAnswer::Object),
            WorkloadRequest::List {
                resource,
                namespace,
                labels,
                fields,
                limit,
                next,
            } => {
                let some = |text: String| (!text.is_empty()).then_some(text);
                let selection = Selection {
                    labels: some(labels),
                    fields: some(fields),
                    metadata_only: false,
                    namespace,
                };
                let resource = resource_of(&resource, selection.namespace.as_ref());
                let next = some(next);
                api.list(&resource, &selection, limit, next.as_deref())
                    .await
                    .map(|page| WorkloadAnswer::Page(page.items, page.next))
            }
            change => changed(api, change).await,
        };
        answer.map_err(refused)
    }
}

/// Sends what changes an object.
async fn changed(api: &dyn KubeApi, request: WorkloadRequest) -> Result<WorkloadAnswer, ApiError> {
    match request {
        WorkloadRequest::Apply {
            resource,
            name,
            object,
            manager,
        } => {
            let resource = resource_of(&resource, name.namespace.as_ref());
            let patch = Patch::Apply(object);
            api.patch(&resource, &key(&name), None, &patch, &manager)
                .await
                .map(WorkloadAnswer::Object)
        }
        WorkloadRequest::Patch {
            resource,
            name,
            kind,
            patch,
            manager,
        } => {
            let resource = resource_of(&resource, name.namespace.as_ref());
            let patch = match kind {
                PatchKind::Merge => Patch::Merge(patch),
                PatchKind::Json => Patch::Json(patch),
                PatchKind::Strategic => Patch::Strategic(patch),
            };
            api.patch(&resource, &key(&name), None, &patch, &manager)
                .await
                .map(WorkloadAnswer::Object)
        }
        WorkloadRequest::Delete {
            resource,
            name,
            uid,
        } => {
            let resource = resource_of(&resource, name.namespace.as_ref());
            let preconditions = Preconditions {
                uid,
                resource_version: None,
            };
            match api.delete(&resource, &key(&name), &preconditions).await {
                Ok(()) | Err(ApiError::NotFound(_) | ApiError::NotServed(_)) => {
                    Ok(WorkloadAnswer::Done)
                }
                Err(error) => Err(error),
            }
        }
        WorkloadRequest::Get { .. } | WorkloadRequest::List { .. } => Ok(WorkloadAnswer::Done),
    }
}

impl WorkloadApi for OwnCluster {
    fn request(
        &self,
        request: WorkloadRequest,
    ) -> BoxFuture<'_, Result<WorkloadAnswer, WorkloadError>> {
        self.send(request).boxed()
    }
}

/// The kind is not known and not needed: paths are made of plurals.
fn resource_of(resource: &ApiResource, namespace: Option<&String>) -> Resource {
    Resource {
        group: resource.group.clone(),
        version: resource.version.clone(),
        kind: String::new(),
        plural: resource.plural.clone(),
        namespaced: namespace.is_some(),
    }
}

fn key(name: &ObjectName) -> ObjectKey {
    ObjectKey::new(name.namespace.as_deref().unwrap_or_default(), &name.name)
}

fn refused(error: ApiError) -> WorkloadError {
    let message = error.to_string();
    match error {
        ApiError::NotFound(_) | ApiError::NotServed(_) => WorkloadError::NotFound(message),
        ApiError::AlreadyExists(_) | ApiError::Conflict(_) | ApiError::Expired(_) => {
            WorkloadError::Conflict(message)
        }
        ApiError::Invalid(_) => WorkloadError::Invalid(message),
        ApiError::Forbidden(_) => WorkloadError::Denied(format!(
            "the workload cluster refuses it to the host: {message}"
        )),
        ApiError::TooLarge(_) => WorkloadError::Limit(message),
        ApiError::TooManyRequests { .. } | ApiError::Unavailable(_) => {
            WorkloadError::Unavailable(message)
        }
    }
}

/// Events on the object of a call, in the plugin's name.
pub(super) struct ObjectEvents {
    api: Arc<dyn KubeApi>,
    events: Events,
    clock: Arc<dyn Clock>,
    object: Regarding,
    plugin: String,
}

impl ObjectEvents {
    pub(super) fn of(ctx: &Ctx, object: &Object, plugin: &str) -> Self {
        Self {
            api: Arc::clone(&ctx.api),
            events: ctx.events.clone(),
            clock: Arc::clone(&ctx.clock),
            object: Regarding::from(object),
            plugin: plugin.to_owned(),
        }
    }
}

impl EventSink for ObjectEvents {
    fn emit(&self, event: GuestEvent) -> BoxFuture<'_, ()> {
        async move {
            let event = Event {
                warning: event.warning,
                reason: event.reason,
                note: format!("plugin {}: {}", self.plugin, event.message),
                action: "CallPlugin",
            };
            self.events
                .emit(
                    &*self.api,
                    self.clock.now(),
                    event::PLUGINS,
                    &self.object,
                    &event,
                )
                .await;
        }
        .boxed()
    }
}
