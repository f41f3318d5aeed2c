//! The guest's imports, each one line onto the capability core.

use std::time::Duration;

use capstan_core::call::SecretHandle;
use tracing::Instrument as _;

use super::imports::{event, files, http, log, secret, state, workload};
use crate::capability::Capabilities;
use crate::capability::event::EventError;
use crate::capability::files::FilesError;
use crate::capability::http::{BodyEncoding, BodyPart, HttpError, HttpRequest};
use crate::capability::log::Level;
use crate::capability::secret::{SecretError, SecretKey};
use crate::capability::state::StateRefusal;
use crate::capability::workload::{
    ApiResource, ObjectName, PatchKind, WorkloadAnswer, WorkloadError, WorkloadRequest, json_of,
    name_of,
};
use crate::error::HostTrouble;
use crate::tape::{self, Asked};
use crate::trace;

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
    }
}

/// Does what an import does, or answers what it did when the call was recorded, and keeps both for a record.
macro_rules! taped {
    ($self:ident, $import:literal, ($($argument:ident),*), $body:block) => {{
        let asked = if $self.tape.is_off() {
            Asked::Go(None)
        } else {
            let request = [$((stringify!($argument).to_owned(), $self.tape.value(&$argument))),*];
            let request = serde_json::Map::from_iter(request);
            $self
                .tape
                .asks($import, serde_json::Value::Object(request))
                .map_err(wasmtime::Error::new)?
        };
        match asked {
            Asked::Known(answer) => serde_json::from_value(tape::exact(answer)).map_err(|error| {
                wasmtime::Error::new(HostTrouble(format!("the record's answer of {}: {error}", $import)))
            }),
            Asked::Go(request) => {
                let span = trace::import($import);
                let answer: wasmtime::Result<_> = async { $body }.instrument(span).await;
                let answer = answer?;
                $self.tape.answers($import, request, &answer);
                Ok(answer)
            }
        }
    }};
}

impl log::Host for Capabilities {
    async fn enabled(&mut self, level: log::Level) -> wasmtime::Result<bool> {
        taped!(self, "log.enabled", (level), {
            Ok(self.log_enabled(level_of(level)))
        })
    }

    async fn emit(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        taped!(self, "log.emit", (level, message, fields), {
            self.log_emit(level_of(level), &message, &fields);
            Ok(())
        })
    }
}

impl state::Host for Capabilities {
    async fn get(&mut self) -> wasmtime::Result<Option<Vec<u8>>> {
        taped!(self, "state.get", (), {
            self.state_get().await.map_err(|why| {
                wasmtime::Error::new(HostTrouble(format!("the state cannot be read: {why}")))
            })
        })
    }

    async fn put(&mut self, value: Vec<u8>) -> wasmtime::Result<Result<(), state::Error>> {
        taped!(self, "state.put", (value), {
            Ok(self
                .state_put(value)
                .await
                .map_err(|refusal| match refusal {
                    StateRefusal::Planned => state::Error::Planned,
                    StateRefusal::Limit(why) => state::Error::Limit(why),
                    StateRefusal::Failed(why) => state::Error::Failed(why),
                }))
        })
    }
}

impl http::Host for Capabilities {
    async fn send(
        &mut self,
        request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, http::Error>> {
        taped!(self, "http.send", (request), {
            let request = HttpRequest {
                method: request.method,
                url: request.url,
                headers: request.headers,
                body: request.body.into_iter().map(part_of).collect(),
                credential: request.credential,
                timeout: (request.timeout_ms > 0)
                    .then(|| Duration::from_millis(request.timeout_ms)),
            };
            // The future is large; the guest's stack is not where it belongs.
            let answer = Box::pin(self.http_send(request)).await;
            if let Err(error) = &answer {
                trace::refused(error.as_str());
            }
            Ok(match answer {
                Ok(response) => Ok(http::Response {
                    status: response.status,
                    headers: response.headers,
                    body: response.body,
                }),
                Err(HttpError::Denied(why)) => Err(http::Error::Denied(why)),
                Err(HttpError::Planned) => Err(http::Error::Planned),
                Err(HttpError::Invalid(why)) => Err(http::Error::Invalid(why)),
                Err(HttpError::Limit(why)) => Err(http::Error::Limit(why)),
                Err(HttpError::Failed(why)) => Err(http::Error::Failed(why)),
            })
        })
    }
}

impl From<secret::SecretKey> for SecretKey {
    fn from(asked: secret::SecretKey) -> Self {
        Self {
            namespace: asked.namespace,
            name: asked.name,
            key: asked.key,
        }
    }
}

impl From<SecretError> for secret::Error {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Denied(why) => Self::Denied(why),
            SecretError::NotFound(why) => Self::NotFound(why),
            SecretError::Invalid(why) => Self::Invalid(why),
            SecretError::Limit(why) => Self::Limit(why),
            SecretError::Failed(why) => Self::Failed(why),
        }
    }
}

impl secret::Host for Capabilities {
    async fn open(
        &mut self,
        asked: secret::SecretKey,
    ) -> wasmtime::Result<Result<u64, secret::Error>> {
        taped!(self, "secret.open", (asked), {
            let answer = Box::pin(self.secret_open(asked.into())).await;
            Ok(answer.map(|handle| handle.0).map_err(Into::into))
        })
    }

    async fn read(
        &mut self,
        asked: secret::SecretKey,
    ) -> wasmtime::Result<Result<Vec<u8>, secret::Error>> {
        taped!(self, "secret.read", (asked), {
            Ok(Box::pin(self.secret_read(asked.into()))
                .await
                .map_err(Into::into))
        })
    }
}

impl From<WorkloadError> for workload::Error {
    fn from(error: WorkloadError) -> Self {
        match error {
            WorkloadError::Denied(why) => Self::Denied(why),
            WorkloadError::Planned => Self::Planned,
            WorkloadError::NotFound(why) => Self::NotFound(why),
            WorkloadError::Conflict(why) => Self::Conflict(why),
            WorkloadError::Invalid(why) => Self::Invalid(why),
            WorkloadError::Limit(why) => Self::Limit(why),
            WorkloadError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<workload::ApiResource> for ApiResource {
    fn from(resource: workload::ApiResource) -> Self {
        Self {
            group: resource.group,
            version: resource.version,
            plural: resource.plural,
        }
    }
}

impl From<workload::ObjectName> for ObjectName {
    fn from(name: workload::ObjectName) -> Self {
        Self {
            namespace: name.namespace,
            name: name.name,
        }
    }
}

impl Capabilities {
    /// Sends a request whose answer is one object.
    async fn object(&mut self, request: WorkloadRequest) -> Result<String, workload::Error> {
        match Box::pin(self.workload_request(request)).await? {
            WorkloadAnswer::Object(object) => Ok(object.to_string()),
            WorkloadAnswer::Page(..) | WorkloadAnswer::Done => Ok("{}".to_owned()),
        }
    }
}

impl workload::Host for Capabilities {
    async fn get(
        &mut self,
        resource: workload::ApiResource,
        name: workload::ObjectName,
    ) -> wasmtime::Result<Result<String, workload::Error>> {
        taped!(self, "workload.get", (resource, name), {
            let request = WorkloadRequest::Get {
                resource: resource.into(),
                name: name.into(),
            };
            Ok(self.object(request).await)
        })
    }

    async fn list_objects(
        &mut self,
        resource: workload::ApiResource,
        options: workload::ListOptions,
    ) -> wasmtime::Result<Result<workload::Page, workload::Error>> {
        taped!(self, "workload.list-objects", (resource, options), {
            let request = WorkloadRequest::List {
                resource: resource.into(),
                namespace: options.namespace,
                labels: options.label_selector,
                fields: options.field_selector,
                limit: options.limit,
                next: options.next,
            };
            Ok(match Box::pin(self.workload_request(request)).await {
                Ok(WorkloadAnswer::Page(items, next)) => Ok(workload::Page {
                    items: items.iter().map(ToString::to_string).collect(),
                    next: next.unwrap_or_default(),
                }),
                Ok(WorkloadAnswer::Object(_) | WorkloadAnswer::Done) => Ok(workload::Page {
                    items: Vec::new(),
                    next: String::new(),
                }),
                Err(error) => Err(error.into()),
            })
        })
    }

    async fn apply(
        &mut self,
        resource: workload::ApiResource,
        object: String,
    ) -> wasmtime::Result<Result<String, workload::Error>> {
        taped!(self, "workload.apply", (resource, object), {
            let parsed = json_of("the object", &object)
                .and_then(|object| name_of(&object).map(|name| (name, object)));
            let (name, object) = match parsed {
                Ok(parsed) => parsed,
                Err(error) => return Ok(Err(error.into())),
            };
            let request = WorkloadRequest::Apply {
                resource: resource.into(),
                name,
                object,
                manager: self.workload_manager(),
            };
            Ok(self.object(request).await)
        })
    }

    async fn patch(
        &mut self,
        resource: workload::ApiResource,
        name: workload::ObjectName,
        patch_type: workload::PatchType,
        patch: String,
    ) -> wasmtime::Result<Result<String, workload::Error>> {
        taped!(
            self,
            "workload.patch",
            (resource, name, patch_type, patch),
            {
                let patch = match json_of("the patch", &patch) {
                    Ok(patch) => patch,
                    Err(error) => return Ok(Err(error.into())),
                };
                let request = WorkloadRequest::Patch {
                    resource: resource.into(),
                    name: name.into(),
                    kind: match patch_type {
                        workload::PatchType::Merge => PatchKind::Merge,
                        workload::PatchType::JsonPatch => PatchKind::Json,
                        workload::PatchType::Strategic => PatchKind::Strategic,
                    },
                    patch,
                    manager: self.workload_manager(),
                };
                Ok(self.object(request).await)
            }
        )
    }

    async fn delete(
        &mut self,
        resource: workload::ApiResource,
        name: workload::ObjectName,
        uid: Option<String>,
    ) -> wasmtime::Result<Result<(), workload::Error>> {
        taped!(self, "workload.delete", (resource, name, uid), {
            let request = WorkloadRequest::Delete {
                resource: resource.into(),
                name: name.into(),
                uid,
            };
            let answer = Box::pin(self.workload_request(request)).await;
            Ok(answer.map(drop).map_err(Into::into))
        })
    }
}

impl From<FilesError> for files::Error {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Denied(why) => Self::Denied(why),
            FilesError::NotFound(why) => Self::NotFound(why),
            FilesError::Invalid(why) => Self::Invalid(why),
            FilesError::Limit(why) => Self::Limit(why),
            FilesError::Failed(why) => Self::Failed(why),
        }
    }
}

impl files::Host for Capabilities {
    async fn read(&mut self, path: String) -> wasmtime::Result<Result<Vec<u8>, files::Error>> {
        taped!(self, "files.read", (path), {
            Ok(Box::pin(self.files_read(path)).await.map_err(Into::into))
        })
    }

    async fn list_directory(
        &mut self,
        path: String,
    ) -> wasmtime::Result<Result<Vec<files::Entry>, files::Error>> {
        taped!(self, "files.list-directory", (path), {
            let entries = Box::pin(self.files_list(path)).await;
            Ok(entries
                .map(|entries| {
                    entries
                        .into_iter()
                        .map(|entry| files::Entry {
                            name: entry.name,
                            is_directory: entry.is_directory,
                            size_bytes: entry.size_bytes,
                        })
                        .collect()
                })
                .map_err(Into::into))
        })
    }
}

impl event::Host for Capabilities {
    async fn emit(
        &mut self,
        event_type: event::EventType,
        reason: String,
        message: String,
    ) -> wasmtime::Result<Result<(), event::Error>> {
        taped!(self, "event.emit", (event_type, reason, message), {
            let warning = matches!(event_type, event::EventType::Warning);
            let answer = Box::pin(self.event_emit(warning, reason, &message)).await;
            Ok(answer.map_err(|error| match error {
                EventError::Planned => event::Error::Planned,
                EventError::Invalid(why) => event::Error::Invalid(why),
                EventError::Limit(why) => event::Error::Limit(why),
            }))
        })
    }
}

fn part_of(part: http::BodyPart) -> BodyPart {
    match part {
        http::BodyPart::Bytes(bytes) => BodyPart::Bytes(bytes),
        http::BodyPart::Secret(secret) => BodyPart::Secret(
            SecretHandle(secret.secret),
            match secret.encoding {
                http::SecretEncoding::Plain => BodyEncoding::Plain,
                http::SecretEncoding::Base64 => BodyEncoding::Base64,
                http::SecretEncoding::JsonString => BodyEncoding::JsonString,
            },
        ),
    }
}
