//! The one narrow way to a Kubernetes API server: list, watch, get, create, patch, delete.
//!
//! Controllers see only this trait, for the management cluster and for workload clusters alike. [`real::RealApi`] speaks to a
//! server; a simulator can stand in its place.

mod answer;
pub mod management;
pub mod real;
mod room;
pub mod shown;
#[cfg(test)]
pub(crate) mod staged;

use std::fmt;

use capstan_api::name::ObjectKey;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::room::WORKLOAD_LIST_BYTES_MAX;
pub(crate) use self::room::{Room, memory_bytes, too_large};

/// A kind as a server serves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// API version, such as `v1beta2`.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Lower-case plural.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A namespaced resource.
    #[must_use]
    pub fn namespaced(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced: true,
        }
    }

    /// A cluster-scoped resource.
    #[must_use]
    pub fn cluster_scoped(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            namespaced: false,
            ..Self::namespaced(group, version, kind, plural)
        }
    }

    /// `group/version`, or `version` in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `Kind.group`.
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        GroupKind {
            group: self.group.clone(),
            kind: self.kind.clone(),
        }
    }

    /// Path of the collection or of one object.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|n| self.namespaced && !n.is_empty()) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

/// A kind without a version: what references name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.group)
    }
}

/// What to list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
    /// Metadata only.
    pub metadata_only: bool,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Objects.
    pub items: Vec<Value>,
    /// Of the list: where a watch goes on.
    pub resource_version: String,
    /// Present when there is more.
    pub next: Option<String>,
}

/// What a watch brings.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// Added or modified.
    Applied(Value),
    /// Deleted, as it last was.
    Deleted(Value),
    /// Nothing changed up to here.
    Bookmark(String),
}

/// How an object is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// JSON merge patch.
    Merge(Value),
    /// JSON patch.
    Json(Value),
    /// Strategic merge patch, for built-in kinds.
    Strategic(Value),
    /// Server-side apply, forced.
    Apply(Value),
}

/// What must still be true of an object that is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Its UID.
    pub uid: Option<String>,
    /// Its resource version.
    pub resource_version: Option<String>,
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 404: there is no such object
    #[error("{0}")]
    NotFound(String),
    /// 404: there is no such path, so nothing is known of objects there: the version or the kind is not served
    #[error("{0}")]
    NotServed(String),
    /// 409 with reason `AlreadyExists`
    #[error("{0}")]
    AlreadyExists(String),
    /// 409
    #[error("{0}")]
    Conflict(String),
    /// 410: the resource version is too old
    #[error("{0}")]
    Expired(String),
    /// 400 and 422: the server refuses the object
    #[error("{0}")]
    Invalid(String),
    /// 401 and 403
    #[error("{0}")]
    Forbidden(String),
    /// 429
    #[error("{message}")]
    TooManyRequests {
        /// What the server said.
        message: String,
        /// Seconds to wait, when it said so.
        retry_after_s: Option<u64>,
    },
    /// There is more than the host takes of a server that it does not trust
    #[error("{0}")]
    TooLarge(String),
    /// 5xx, or no answer: the request may have had its effect
    #[error("{0}")]
    Unavailable(String),
}

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// Objects per page of a list, as many as API servers' own clients ask for: 500 Machines are about 4 MB.
pub const PAGE: u32 = 500;

/// All objects of a list, page by page: at most so much as it is in memory, where the server is not trusted.
///
/// # Errors
/// The first refusal, or that there is more.
pub async fn list_all(
    api: &dyn KubeApi,
    resource: &Resource,
    selection: &Selection,
    page: u32,
    bytes_max: Option<usize>,
) -> Result<Vec<Value>, ApiError> {
    let (mut objects, mut next) = (Vec::new(), None::<String>);
    let mut room = Room::new(bytes_max);
    loop {
        let page = api.list(resource, selection, page, next.as_deref()).await?;
        room.take(resource, &page)?;
        objects.extend(page.items);
        next = page.next;
        if next.is_none() {
            return Ok(objects);
        }
    }
}

/// One API server.
pub trait KubeApi: Send + Sync + 'static {
    /// One page of a list.
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        limit: u32,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>>;

    /// Changes after a resource version, until the server ends the stream.
    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        resource_version: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, ApiError>>, ApiError>>;

    /// One object.
    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>>;

    /// Creates an object; the answer is the object as stored.
    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>>;

    /// Creates a subresource, such as an eviction.
    fn create_subresource<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: &'a str,
        body: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>>;

    /// Changes an object or its subresource; the answer is the object as stored.
    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        patch: &'a Patch,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>>;

    /// Deletes an object, in the background where it owns others.
    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        preconditions: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>>;

    /// A connection to a port of a pod, through the server and the pod's kubelet.
    fn port_forward<'a>(
        &'a self,
        pod: &'a ObjectKey,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>>;

    /// `GET` of a path outside the resources, such as `/` or `/version`; the answer's text.
    fn get_raw<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<String, ApiError>>;

    /// The certificate that the server shows, DER; `None` where that cannot be seen, as through a proxy.
    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>>;
}
