//! The errors of a workload API server, in the form that Kubernetes clients understand.

use serde_json::{Value, json};

use super::resources::Resource;

/// A refusal: what becomes a `Status` object with an HTTP code.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// HTTP code.
    pub(crate) code: u16,
    /// Machine-readable reason.
    pub(crate) reason: &'static str,
    /// The sentence that people see.
    pub(crate) message: String,
    /// `details`, or null.
    pub(crate) details: Value,
}

impl Status {
    /// A refusal without details.
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({"name": name, "group": resource.group, "kind": resource.plural});
        self
    }

    /// No such object.
    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", resource.qualified()),
        )
        .about(resource, name)
    }

    /// No such path.
    pub(crate) fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// An object of this name is there already.
    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", resource.qualified()),
        )
        .about(resource, name)
    }

    /// The write is based on an old version, or on another object of the same name.
    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            resource.qualified()
        );
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The write is based on an old version.
    pub(crate) fn stale(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The object breaks a rule; `field` is its path.
    pub(crate) fn invalid(resource: &Resource, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is invalid: {field}: {why}", resource.kind);
        let mut status = Self::new(422, "Invalid", message).about(resource, name);
        if let Some(details) = status.details.as_object_mut() {
            details.insert("kind".into(), json!(resource.kind));
            details.insert(
                "causes".into(),
                json!([{"reason": "FieldValueInvalid", "message": why, "field": field}]),
            );
        }
        status
    }

    /// The request does not parse.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The version asked for is no longer, or was never, in the history.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    /// The `Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let (Some(object), false) = (value.as_object_mut(), self.details.is_null()) {
            object.insert("details".into(), self.details.clone());
        }
        value
    }
}

/// The `Status` object of something that went well.
pub(crate) fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid},
    })
}
