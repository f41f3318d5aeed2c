//! The `workload` capability: granted verbs on granted resources of the one workload cluster that the call's object belongs to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_core::call::Mode;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::{Capabilities, on_host};
use crate::grant::{Target, WorkloadVerb};
use crate::limit::{
    JSON_BYTES_MAX, JSON_VALUES_MAX, MESSAGE_BYTES_MAX, WORKLOAD_ANSWER_BYTES_MAX, WORKLOAD_BURST,
    WORKLOAD_NEXT_BYTES_MAX, WORKLOAD_PAGE_MAX, WORKLOAD_RATE_PER_S, WORKLOAD_REQUESTS_MAX,
    WORKLOAD_SELECTOR_BYTES_MAX,
};
use crate::text::{clipped, json_values, one_line};
use crate::trace;

/// A resource as an API server's paths name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiResource {
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Lower-case plural.
    pub plural: String,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// None for resources without namespaces.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// A request to the workload cluster that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadRequest {
    /// One object.
    Get {
        /// Resource.
        resource: ApiResource,
        /// Which.
        name: ObjectName,
    },
    /// One page of a list.
    List {
        /// Resource.
        resource: ApiResource,
        /// One namespace, or all.
        namespace: Option<String>,
        /// Label selector; empty for all.
        labels: String,
        /// Field selector; empty for all.
        fields: String,
        /// Objects of the page.
        limit: u32,
        /// Where the page before ended; empty for the first.
        next: String,
    },
    /// Server-side apply.
    Apply {
        /// Resource.
        resource: ApiResource,
        /// Which: as the object says itself.
        name: ObjectName,
        /// The object.
        object: Value,
        /// Field manager.
        manager: String,
    },
    /// A patch.
    Patch {
        /// Resource.
        resource: ApiResource,
        /// Which.
        name: ObjectName,
        /// How `patch` is meant.
        kind: PatchKind,
        /// The patch.
        patch: Value,
        /// Field manager.
        manager: String,
    },
    /// A deletion; gone already is success.
    Delete {
        /// Resource.
        resource: ApiResource,
        /// Which.
        name: ObjectName,
        /// Only the object with this UID.
        uid: Option<String>,
    },
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// JSON merge patch.
    Merge,
    /// JSON patch.
    Json,
    /// Strategic merge patch.
    Strategic,
}

/// What the workload cluster answered.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadAnswer {
    /// The object as it is stored.
    Object(Value),
    /// Objects of a page, and where the next one begins.
    Page(Vec<Value>, Option<String>),
    /// Nothing to say: a deletion.
    Done,
}

/// Why there is no answer. The texts are for the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadError {
    /// Not granted, or forbidden by the API server.
    Denied(String),
    /// The call is a plan.
    Planned,
    /// No such object.
    NotFound(String),
    /// Somebody else was faster.
    Conflict(String),
    /// Not a request, or refused by the API server's validation.
    Invalid(String),
    /// Count, rate or size.
    Limit(String),
    /// No connection, or no answer.
    Unavailable(String),
}

impl WorkloadError {
    /// As in the WIT interface.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Planned => "planned",
            Self::NotFound(_) => "not-found",
            Self::Conflict(_) => "conflict",
            Self::Invalid(_) => "invalid",
            Self::Limit(_) => "limit",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// The API server of one workload cluster.
pub trait WorkloadApi: Send + Sync {
    /// Sends one request.
    fn request(
        &self,
        request: WorkloadRequest,
    ) -> BoxFuture<'_, Result<WorkloadAnswer, WorkloadError>>;
}

/// What one call may ask.
pub(crate) struct CallWorkload {
    api: Option<Arc<dyn WorkloadApi>>,
    pace: Arc<Pace>,
    requests: u32,
}

impl CallWorkload {
    pub(crate) fn new(api: Option<Arc<dyn WorkloadApi>>, pace: Arc<Pace>) -> Self {
        Self {
            api,
            pace,
            requests: 0,
        }
    }
}

/// The rate of one plugin: a bucket that fills with time.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// When the bucket would have been empty: the further back, the fuller it is.
    empty_at: Instant,
}

/// Time that one request costs.
fn cost() -> Duration {
    Duration::from_secs(1)
        .checked_div(WORKLOAD_RATE_PER_S)
        .unwrap_or_default()
}

impl Default for Pace {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Bucket {
            empty_at: now
                .checked_sub(cost().saturating_mul(WORKLOAD_BURST))
                .unwrap_or(now),
        }))
    }
}

impl Pace {
    /// When the next request may go.
    fn next(&self, now: Instant) -> Instant {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fullest = now
            .checked_sub(cost().saturating_mul(WORKLOAD_BURST))
            .unwrap_or(now);
        let taken = bucket.empty_at.max(fullest);
        let taken = taken.checked_add(cost()).unwrap_or(taken);
        bucket.empty_at = taken;
        taken.max(now)
    }
}

impl Capabilities {
    /// Sends a request to the object's own workload cluster.
    pub(crate) async fn workload_request(
        &mut self,
        request: WorkloadRequest,
    ) -> Result<WorkloadAnswer, WorkloadError> {
        let answer = self.answer(request).await;
        if let Err(error) = &answer {
            trace::refused(error.as_str());
        }
        answer
    }

    async fn answer(&mut self, request: WorkloadRequest) -> Result<WorkloadAnswer, WorkloadError> {
        check(&request)?;
        let target = target_of(&request);
        trace::workload(&target);
        let granted = &self.grants.workload;
        if !granted.iter().any(|grant| grant.is_for(&target)) {
            return Err(WorkloadError::Denied(denied(&target)));
        }
        if target.group.is_empty() && matches!(target.plural, "secrets" | "serviceaccounts") {
            self.tape
                .must_not_keep("the plugin has read Secrets of its workload cluster");
        }
        let changes = !matches!(target.verb, WorkloadVerb::Get | WorkloadVerb::List);
        if changes && self.mode == Mode::Plan {
            let what = described(&target);
            self.planned.add("workload", what);
            return Err(WorkloadError::Planned);
        }
        if self.workload.requests >= WORKLOAD_REQUESTS_MAX {
            return Err(WorkloadError::Limit(format!(
                "a call sends at most {WORKLOAD_REQUESTS_MAX} requests to its workload cluster"
            )));
        }
        self.workload.requests = self.workload.requests.saturating_add(1);
        let Some(api) = self.workload.api.clone() else {
            return Err(WorkloadError::Unavailable(
                "the object of this call belongs to no Cluster".to_owned(),
            ));
        };
        let turn = self.workload.pace.next(Instant::now());
        if turn >= self.http.deadline {
            return Err(WorkloadError::Limit(format!(
                "the plugin sends more than {WORKLOAD_RATE_PER_S} requests in a second to workload clusters"
            )));
        }
        let work = async move {
            tokio::time::sleep_until(turn).await;
            api.request(request).await
        };
        let answer = on_host(&self.host, work)
            .await
            .unwrap_or_else(|why| Err(WorkloadError::Unavailable(why)))
            .map_err(readable)?;
        fits(answer)
    }

    /// In whose name the plugin changes things.
    pub(crate) fn workload_manager(&self) -> String {
        format!("capstan-plugin-{}", self.identity.plugin)
    }
}

/// The API server's words, cut to what a plugin may pass on.
fn readable(error: WorkloadError) -> WorkloadError {
    let cut = |text: String| one_line(&text, MESSAGE_BYTES_MAX);
    match error {
        WorkloadError::Denied(why) => WorkloadError::Denied(cut(why)),
        WorkloadError::Planned => WorkloadError::Planned,
        WorkloadError::NotFound(why) => WorkloadError::NotFound(cut(why)),
        WorkloadError::Conflict(why) => WorkloadError::Conflict(cut(why)),
        WorkloadError::Invalid(why) => WorkloadError::Invalid(cut(why)),
        WorkloadError::Limit(why) => WorkloadError::Limit(cut(why)),
        WorkloadError::Unavailable(why) => WorkloadError::Unavailable(cut(why)),
    }
}

fn fits(answer: WorkloadAnswer) -> Result<WorkloadAnswer, WorkloadError> {
    let items = match &answer {
        WorkloadAnswer::Object(object) => std::slice::from_ref(object),
        WorkloadAnswer::Page(items, _) => items.as_slice(),
        WorkloadAnswer::Done => &[],
    };
    let bytes = items.iter().fold(0_usize, |sum, item| {
        sum.saturating_add(crate::text::json_bytes(item))
    });
    if bytes > WORKLOAD_ANSWER_BYTES_MAX {
        return Err(WorkloadError::Limit(format!(
            "the answer has more than {WORKLOAD_ANSWER_BYTES_MAX} bytes: ask for smaller pages"
        )));
    }
    Ok(answer)
}

fn target_of(request: &WorkloadRequest) -> Target<'_> {
    fn named<'a>(
        verb: WorkloadVerb,
        resource: &'a ApiResource,
        name: &'a ObjectName,
    ) -> Target<'a> {
        Target {
            verb,
            group: &resource.group,
            plural: &resource.plural,
            namespace: name.namespace.as_deref(),
            name: Some(&name.name),
        }
    }
    match request {
        WorkloadRequest::Get { resource, name } => named(WorkloadVerb::Get, resource, name),
        WorkloadRequest::Apply { resource, name, .. } => named(WorkloadVerb::Apply, resource, name),
        WorkloadRequest::Patch { resource, name, .. } => named(WorkloadVerb::Patch, resource, name),
        WorkloadRequest::Delete { resource, name, .. } => {
            named(WorkloadVerb::Delete, resource, name)
        }
        WorkloadRequest::List {
            resource,
            namespace,
            ..
        } => Target {
            verb: WorkloadVerb::List,
            group: &resource.group,
            plural: &resource.plural,
            namespace: namespace.as_deref(),
            name: None,
        },
    }
}

fn described(target: &Target<'_>) -> String {
    let mut text = format!("{} {}", target.verb, target.plural);
    if !target.group.is_empty() {
        text.push('.');
        text.push_str(target.group);
    }
    if let Some(name) = target.name {
        text.push(' ');
        if let Some(namespace) = target.namespace {
            text.push_str(namespace);
            text.push('/');
        }
        text.push_str(name);
    }
    text
}

/// Says what to add.
fn denied(target: &Target<'_>) -> String {
    let rule = serde_json::json!({
        "apiGroups": [target.group], "resources": [target.plural], "verbs": [target.verb.as_str()],
    });
    format!(
        "{} is not granted: add {rule} to workload of the grant of the capability workload in spec.grants of the Plugin",
        described(target)
    )
}

fn invalid<T>(why: String) -> Result<T, WorkloadError> {
    Err(WorkloadError::Invalid(why))
}

/// Whether a text is one part of a path and nothing else: what is checked here must be what the server reads.
fn is_segment(text: &str, max: usize, more: &[u8]) -> bool {
    (1..=max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b))
        && !matches!(text, "." | "..")
}

fn check(request: &WorkloadRequest) -> Result<(), WorkloadError> {
    match request {
        WorkloadRequest::Get { resource, name } => check_named(resource, name),
        WorkloadRequest::Delete {
            resource,
            name,
            uid,
        } => {
            check_named(resource, name)?;
            if uid.as_ref().is_some_and(|uid| !is_segment(uid, 128, b"")) {
                return invalid("the UID is none".to_owned());
            }
            Ok(())
        }
        WorkloadRequest::Patch {
            resource,
            name,
            patch,
            ..
        } => {
            check_named(resource, name)?;
            if !(patch.is_object() || patch.is_array()) {
                return invalid("the patch is neither an object nor a list".to_owned());
            }
            Ok(())
        }
        WorkloadRequest::Apply {
            resource,
            name,
            object,
            ..
        } => {
            check_named(resource, name)?;
            let version = if resource.group.is_empty() {
                resource.version.clone()
            } else {
                format!("{}/{}", resource.group, resource.version)
            };
            if object.get("apiVersion").and_then(Value::as_str) != Some(version.as_str()) {
                return invalid(format!("the object's apiVersion is not {version}"));
            }
            Ok(())
        }
        WorkloadRequest::List {
            resource,
            namespace,
            labels,
            fields,
            limit,
            next,
        } => {
            check_resource(resource)?;
            check_namespace(namespace.as_deref())?;
            if labels.len() > WORKLOAD_SELECTOR_BYTES_MAX
                || fields.len() > WORKLOAD_SELECTOR_BYTES_MAX
            {
                return invalid(format!(
                    "a selector has at most {WORKLOAD_SELECTOR_BYTES_MAX} bytes"
                ));
            }
            if next.len() > WORKLOAD_NEXT_BYTES_MAX {
                return invalid("next is not from a page before".to_owned());
            }
            if !(1..=WORKLOAD_PAGE_MAX).contains(limit) {
                return invalid(format!("a page has 1 to {WORKLOAD_PAGE_MAX} objects"));
            }
            Ok(())
        }
    }
}

fn check_resource(resource: &ApiResource) -> Result<(), WorkloadError> {
    let group = resource.group.is_empty() || is_segment(&resource.group, 253, b".");
    if !group || !is_segment(&resource.version, 63, b"") || !is_segment(&resource.plural, 63, b"") {
        return invalid(format!(
            "{:?} of group {:?} and version {:?} is not a resource: give the plural, without a subresource",
            clipped(&resource.plural, 64),
            clipped(&resource.group, 64),
            clipped(&resource.version, 64)
        ));
    }
    Ok(())
}

fn check_namespace(namespace: Option<&str>) -> Result<(), WorkloadError> {
    match namespace {
        Some(namespace) if !is_segment(namespace, 63, b"") => {
            invalid(format!("{:?} is not a namespace", clipped(namespace, 64)))
        }
        _ => Ok(()),
    }
}

fn check_named(resource: &ApiResource, name: &ObjectName) -> Result<(), WorkloadError> {
    check_resource(resource)?;
    check_namespace(name.namespace.as_deref())?;
    // Names of roles and bindings have colons.
    if !is_segment(&name.name, 253, b".:_") {
        return invalid(format!("{:?} is not a name", clipped(&name.name, 64)));
    }
    Ok(())
}

/// A guest's JSON, within its size.
pub(crate) fn json_of(what: &str, text: &str) -> Result<Value, WorkloadError> {
    if text.len() > JSON_BYTES_MAX {
        return Err(WorkloadError::Limit(format!(
            "{what} has more than {JSON_BYTES_MAX} bytes"
        )));
    }
    if json_values(text) > JSON_VALUES_MAX {
        return Err(WorkloadError::Limit(format!(
            "{what} has more than {JSON_VALUES_MAX} values"
        )));
    }
    serde_json::from_str(text)
        .map_err(|e| WorkloadError::Invalid(format!("{what} is not JSON: {e}")))
}

/// What an object to apply says of itself.
pub(crate) fn name_of(object: &Value) -> Result<ObjectName, WorkloadError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let Some(name) = text("/metadata/name") else {
        return invalid("the object has no metadata.name".to_owned());
    };
    Ok(ObjectName {
        namespace: text("/metadata/namespace").map(str::to_owned),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_a_guest_is_bounded_by_bytes_and_by_values() {
        assert!(json_of("object", r#"{"a":[1,2]}"#).is_ok());
        let lists = format!("[{}]", vec!["[]"; JSON_VALUES_MAX].join(","));
        assert!(lists.len() < JSON_BYTES_MAX);
        for (text, says) in [(lists, "values"), (" ".repeat(JSON_BYTES_MAX + 1), "bytes")] {
            let error = json_of("object", &text).unwrap_err();
            assert!(
                matches!(&error, WorkloadError::Limit(why) if why.contains(says)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_after_the_other() {
        let pace = Pace::default();
        let now = Instant::now();
        for _ in 0..WORKLOAD_BURST.saturating_sub(1) {
            assert_eq!(pace.next(now), now);
        }
        let later: Vec<Instant> = (0..10).map(|_| pace.next(now)).collect();
        assert!(later.windows(2).all(|two| two[0] < two[1] || two[0] == now));
        assert!(*later.last().unwrap() > now);
    }
}
