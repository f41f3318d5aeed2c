//! The API server of the Cluster that the call's object belongs to; only the verbs and resources that the operator granted. Off
//! wasm, it is an empty cluster that [`testing::Host`](crate::testing::Host) keeps.

use std::fmt;

use serde_json::Value;

use crate::answer::Failure;

/// A resource as the API server's paths name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiResource {
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Lower-case plural, such as `deployments`.
    pub plural: String,
}

impl ApiResource {
    /// `ApiResource::new("apps", "v1", "deployments")`
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        plural: impl Into<String>,
    ) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
        }
    }

    /// A resource of the core group, version `v1`.
    pub fn core(plural: impl Into<String>) -> Self {
        Self::new("", "v1", plural)
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Left out for resources without namespaces.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// An object in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// An object of a resource without namespaces.
    pub fn cluster_scoped(name: impl Into<String>) -> Self {
        Self {
            namespace: None,
            name: name.into(),
        }
    }
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// All namespaces when left out.
    pub namespace: Option<String>,
    /// Empty for all.
    pub label_selector: String,
    /// Empty for all.
    pub field_selector: String,
    /// Objects of one page: 1 to 250.
    pub limit: u32,
    /// `next` of the page before; empty for the first.
    pub next: String,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            namespace: None,
            label_selector: String::new(),
            field_selector: String::new(),
            limit: 100,
            next: String::new(),
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Objects.
    pub items: Vec<Value>,
    /// Empty when this was the last page.
    pub next: String,
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// JSON merge patch.
    Merge(Value),
    /// JSON patch.
    Json(Value),
    /// Strategic merge patch, for built-in kinds.
    Strategic(Value),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not granted, or refused by the API server: the message says which.
    Denied(String),
    /// The call is a plan: the change was recorded and not made.
    Planned,
    /// No such object.
    NotFound(String),
    /// Somebody else was faster: read it again.
    Conflict(String),
    /// Not a request, or refused by validation.
    Invalid(String),
    /// A limit on count, rate or size was reached: the message says which.
    Limit(String),
    /// The cluster has no connection or did not answer. The request may have had its effect.
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(message) => write!(f, "denied: {message}"),
            Self::Planned => f.write_str("not done: the call is a plan"),
            Self::NotFound(message) => write!(f, "not found: {message}"),
            Self::Conflict(message) => write!(f, "conflict: {message}"),
            Self::Invalid(message) => write!(f, "invalid: {message}"),
            Self::Limit(message) => write!(f, "limit reached: {message}"),
            Self::Unavailable(message) => write!(f, "no answer: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Denied(_) => Self::denied("WorkloadDenied", message),
            Error::Planned => Self::transient("Planned", message),
            Error::NotFound(_) => Self::transient("WorkloadNotFound", message),
            Error::Conflict(_) => Self::transient("WorkloadConflict", message),
            Error::Invalid(_) => Self::terminal("WorkloadInvalid", message),
            Error::Limit(_) => Self::terminal("WorkloadLimit", message),
            Error::Unavailable(_) => Self::transient("WorkloadUnavailable", message),
        }
    }
}

/// One object.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn get(resource: &ApiResource, name: &ObjectName) -> Result<Value, Error> {
    cluster::get(resource, name)
}

/// One object, or `None` when there is none.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn find(resource: &ApiResource, name: &ObjectName) -> Result<Option<Value>, Error> {
    match get(resource, name) {
        Ok(object) => Ok(Some(object)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One page of a list.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn list(resource: &ApiResource, options: &ListOptions) -> Result<Page, Error> {
    cluster::list(resource, options)
}

/// All objects of a list, page by page.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn list_all(resource: &ApiResource, options: &ListOptions) -> Result<Vec<Value>, Error> {
    let mut options = options.clone();
    let mut all = Vec::new();
    loop {
        let page = list(resource, &options)?;
        all.extend(page.items);
        if page.next.is_empty() {
            return Ok(all);
        }
        options.next = page.next;
    }
}

/// Server-side apply in the plugin's own name; takes over fields that others own. The answer is the object as stored.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn apply(resource: &ApiResource, object: &Value) -> Result<Value, Error> {
    cluster::apply(resource, object)
}

/// Changes an object; the answer is the object as stored.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn patch(resource: &ApiResource, name: &ObjectName, patch: &Patch) -> Result<Value, Error> {
    cluster::patch(resource, name, patch)
}

/// Deletes an object; gone already is success. With a UID, only that very object.
///
/// # Errors
/// See [`Error`]; it turns into a [`Failure`] by `?`.
pub fn delete(resource: &ApiResource, name: &ObjectName, uid: Option<&str>) -> Result<(), Error> {
    cluster::delete(resource, name, uid)
}

#[cfg(target_arch = "wasm32")]
mod cluster {
    //! The host.

    use serde_json::Value;

    use super::{ApiResource, Error, ListOptions, ObjectName, Page, Patch};
    use crate::bindings::base::capstan::plugin::workload as wit;

    fn resource(of: &ApiResource) -> wit::ApiResource {
        wit::ApiResource {
            group: of.group.clone(),
            version: of.version.clone(),
            plural: of.plural.clone(),
        }
    }

    fn name(of: &ObjectName) -> wit::ObjectName {
        wit::ObjectName {
            namespace: of.namespace.clone(),
            name: of.name.clone(),
        }
    }

    fn error(error: wit::Error) -> Error {
        match error {
            wit::Error::Denied(message) => Error::Denied(message),
            wit::Error::Planned => Error::Planned,
            wit::Error::NotFound(message) => Error::NotFound(message),
            wit::Error::Conflict(message) => Error::Conflict(message),
            wit::Error::Invalid(message) => Error::Invalid(message),
            wit::Error::Limit(message) => Error::Limit(message),
            wit::Error::Unavailable(message) => Error::Unavailable(message),
        }
    }

    fn object(text: Result<String, wit::Error>) -> Result<Value, Error> {
        serde_json::from_str(&text.map_err(error)?)
            .map_err(|error| Error::Unavailable(format!("the answer is not JSON: {error}")))
    }

    pub(super) fn get(of: &ApiResource, which: &ObjectName) -> Result<Value, Error> {
        object(wit::get(&resource(of), &name(which)))
    }

    pub(super) fn list(of: &ApiResource, options: &ListOptions) -> Result<Page, Error> {
        let options = wit::ListOptions {
            namespace: options.namespace.clone(),
            label_selector: options.label_selector.clone(),
            field_selector: options.field_selector.clone(),
            limit: options.limit,
            next: options.next.clone(),
        };
        let page = wit::list_objects(&resource(of), &options).map_err(error)?;
        let items = page.items.into_iter().map(|item| object(Ok(item)));
        Ok(Page {
            items: items.collect::<Result<_, _>>()?,
            next: page.next,
        })
    }

    pub(super) fn apply(of: &ApiResource, value: &Value) -> Result<Value, Error> {
        object(wit::apply(&resource(of), &value.to_string()))
    }

    pub(super) fn patch(
        of: &ApiResource,
        which: &ObjectName,
        patch: &Patch,
    ) -> Result<Value, Error> {
        let (patch_type, patch) = match patch {
            Patch::Merge(patch) => (wit::PatchType::Merge, patch),
            Patch::Json(patch) => (wit::PatchType::JsonPatch, patch),
            Patch::Strategic(patch) => (wit::PatchType::Strategic, patch),
        };
        object(wit::patch(
            &resource(of),
            &name(which),
            patch_type,
            &patch.to_string(),
        ))
    }

    pub(super) fn delete(
        of: &ApiResource,
        which: &ObjectName,
        uid: Option<&str>,
    ) -> Result<(), Error> {
        wit::delete(&resource(of), &name(which), uid).map_err(error)
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::cluster;
