//! What a workload API server does for each verb, on one cluster's store.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::identity::Identity;
use super::object::{self, Object, list_at, metadata, text_at};
use super::request::{Query, Target};
use super::selectors::Selector;
use super::status::{self, Status};
use super::store::{Store, Write, Wrote};
use super::{apply, patch, prepare, resources};

/// Stores a new object.
pub(crate) fn create(
    store: &Store,
    target: &Target,
    body: Value,
    query: &Query,
    who: &Identity,
) -> Result<Arc<Object>, Status> {
    if target.resource.namespaced {
        check_namespace(store, target)?;
    }
    let value = prepare::for_create(target, body, who)?;
    let name = object::name(&value).to_owned();
    let taken = || Status::already_exists(target.resource, &name);
    if dry(query)? {
        let present = store.get(target.resource, &target.namespace, &name);
        return if present.is_some() {
            Err(taken())
        } else {
            Ok(Arc::new(Object::new(value, 0)))
        };
    }
    let wrote = store.write(target.resource, &target.namespace, &name, |old| match old {
        Some(_) => Err(taken()),
        None => Ok(Write::Create(value)),
    })?;
    stored(wrote, target, &name)
}

fn check_namespace(store: &Store, target: &Target) -> Result<(), Status> {
    let Some(namespace) = store.get(resources::namespaces(), "", &target.namespace) else {
        return Err(Status::not_found(
            resources::namespaces(),
            &target.namespace,
        ));
    };
    if !object::is_deleting(&namespace.value) {
        return Ok(());
    }
    let message = format!(
        "{} is forbidden: unable to create new content in namespace {} because it is being terminated",
        target.resource.qualified(),
        target.namespace
    );
    Err(Status::new(403, "Forbidden", message))
}

fn dry(query: &Query) -> Result<bool, Status> {
    match query.get("dryRun") {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(Status::bad_request(format!(
            "dryRun {other:?} is not supported, use \"All\""
        ))),
    }
}

fn stored(wrote: Wrote, target: &Target, name: &str) -> Result<Arc<Object>, Status> {
    match wrote {
        Wrote::Stored(object) | Wrote::Removed(object) => Ok(object),
        Wrote::Nothing => Err(Status::not_found(target.resource, name)),
    }
}

/// One object.
pub(crate) fn get(store: &Store, target: &Target) -> Result<Arc<Object>, Status> {
    store
        .get(target.resource, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(target.resource, &target.name))
}

/// Replaces an object, or one of its subresources.
pub(crate) fn update(
    store: &Store,
    target: &Target,
    body: Value,
    query: &Query,
) -> Result<Arc<Object>, Status> {
    change(store, target, query, |old| {
        let mut body = body;
        if object::name(&body).is_empty() {
            metadata(&mut body).insert("name".into(), json!(target.name));
        }
        prepare::for_update(target, old, body)
    })
}

fn change(
    store: &Store,
    target: &Target,
    query: &Query,
    make: impl FnOnce(&Value) -> Result<Value, Status>,
) -> Result<Arc<Object>, Status> {
    if dry(query)? {
        let old = get(store, target)?;
        return Ok(Arc::new(Object::new(make(&old.value)?, old.rv)));
    }
    let wrote = store.write(
        target.resource,
        &target.namespace,
        &target.name,
        |old| match old {
            None => Err(Status::not_found(target.resource, &target.name)),
            Some(old) => Ok(Write::Update(make(&old.value)?)),
        },
    )?;
    stored(wrote, target, &target.name)
}

/// Patches an object. Server-side apply makes it when it is missing; then the answer's flag is set.
pub(crate) fn patch_object(
    store: &Store,
    target: &Target,
    content_type: &str,
    body: &Value,
    query: &Query,
    who: &Identity,
) -> Result<(Arc<Object>, bool), Status> {
    if content_type.starts_with("application/apply-patch") {
        return apply_object(store, target, body, query, who);
    }
    let object = change(store, target, query, |old| {
        let mut new = old.clone();
        match content_type {
            "application/json-patch+json" => patch::json_patch(&mut new, body)?,
            "application/merge-patch+json" => patch::merge(&mut new, body),
            "application/strategic-merge-patch+json" => patch::strategic(&mut new, body)?,
            other => {
                let message = format!("the body of the request was in an unknown format: {other}");
                return Err(Status::new(415, "UnsupportedMediaType", message));
            }
        }
        prepare::for_update(target, old, new)
    })?;
    Ok((object, false))
}

fn apply_object(
    store: &Store,
    target: &Target,
    body: &Value,
    query: &Query,
    who: &Identity,
) -> Result<(Arc<Object>, bool), Status> {
    let manager = query.get("fieldManager");
    if manager.is_empty() {
        return Err(Status::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let force = query.is_set("force");
    if store
        .get(target.resource, &target.namespace, &target.name)
        .is_none()
    {
        let mut fresh = json!({});
        apply::apply(target, &mut fresh, body, manager, force)?;
        metadata(&mut fresh).insert("name".into(), json!(target.name));
        match create(store, target, fresh, query, who) {
            Err(error) if error.reason == "AlreadyExists" => {}
            other => return Ok((other?, true)),
        }
    }
    let object = change(store, target, query, |old| {
        let mut new = old.clone();
        apply::apply(target, &mut new, body, manager, force)?;
        prepare::for_update(target, old, new)
    })?;
    Ok((object, false))
}

/// How an object is to be deleted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Deletion {
    grace_s: Option<i64>,
    uid: Option<String>,
    rv: Option<String>,
    policy: String,
    dry: bool,
}

impl Deletion {
    /// Reads `DeleteOptions` from body and query.
    pub(crate) fn parse(body: &Value, query: &Query) -> Result<Self, Status> {
        let text =
            |pointer: &str| Some(text_at(body, pointer).to_owned()).filter(|text| !text.is_empty());
        let policy =
            text("/propagationPolicy").unwrap_or_else(|| query.get("propagationPolicy").to_owned());
        if !matches!(policy.as_str(), "" | "Background" | "Foreground" | "Orphan") {
            return Err(Status::new(
                422,
                "Invalid",
                format!(
                    "DeleteOptions is invalid: propagationPolicy: Unsupported value: {policy:?}"
                ),
            ));
        }
        let grace = body.get("gracePeriodSeconds").and_then(Value::as_i64);
        Ok(Self {
            grace_s: grace.or_else(|| query.get("gracePeriodSeconds").parse().ok()),
            uid: text("/preconditions/uid"),
            rv: text("/preconditions/resourceVersion"),
            policy,
            dry: dry(query)? || list_at(body, "/dryRun").iter().any(|value| value == "All"),
        })
    }
}

/// Deletes an object, or begins to. The answer is the object while it is still there, a `Status` when it is gone.
pub(crate) fn delete(store: &Store, target: &Target, how: &Deletion) -> Result<Value, Status> {
    let (resource, name) = (target.resource, target.name.as_str());
    let wrote = store.write(resource, &target.namespace, name, |old| {
        let Some(old) = old else {
            return Err(Status::not_found(resource, name));
        };
        check_preconditions(target, &old.value, how)?;
        if how.dry {
            Ok(Write::Keep)
        } else {
            Ok(delete_decision(target, &old.value, how))
        }
    })?;
    match wrote {
        Wrote::Stored(object) => Ok(object.value.clone()),
        Wrote::Removed(object) => Ok(status::success(resource, name, object::uid(&object.value))),
        Wrote::Nothing => Err(Status::not_found(resource, name)),
    }
}

fn check_preconditions(target: &Target, old: &Value, how: &Deletion) -> Result<(), Status> {
    let is_other = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_some_and(|wanted| wanted != found)
    };
    if is_other(&how.uid, object::uid(old))
        || is_other(&how.rv, text_at(old, "/metadata/resourceVersion"))
    {
        return Err(Status::conflict(
            target.resource,
            &target.name,
            "Precondition failed: the object is another one or has changed",
        ));
    }
    Ok(())
}

fn delete_decision(target: &Target, old: &Value, how: &Deletion) -> Write {
    let resource = target.resource;
    let grace_s = if resource.plural == "pods" {
        pod_grace(old, how)
    } else {
        0
    };
    let mut new = old.clone();
    let extra = match how.policy.as_str() {
        "Foreground" => Some("foregroundDeletion"),
        "Orphan" => Some("orphan"),
        _ => None,
    };
    let meta = metadata(&mut new);
    if let Some(extra) = extra {
        let finalizers = meta.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|finalizer| finalizer == extra)
        {
            list.push(json!(extra));
        }
    }
    let before = old
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    if !object::is_deleting(old) || before.is_some_and(|before| grace_s < before) {
        let now = jiff::Timestamp::now();
        let at = now
            .checked_add(jiff::SignedDuration::from_secs(grace_s))
            .unwrap_or(now);
        meta.insert("deletionTimestamp".into(), json!(object::time_text(at)));
        meta.insert("deletionGracePeriodSeconds".into(), json!(grace_s));
        if !object::is_deleting(old) {
            prepare::bump_generation(&mut new);
        }
    }
    if resource.plural == "namespaces" {
        object::child(&mut new, "status").insert("phase".into(), json!("Terminating"));
    }
    Write::Update(new)
}

/// A pod that no kubelet has, or that has ended, goes at once.
fn pod_grace(pod: &Value, how: &Deletion) -> i64 {
    let ended = matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed");
    if text_at(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    let own = pod
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    how.grace_s.or(own).unwrap_or(30).max(0)
}

/// Deletes every object of the collection that the selector accepts; gives what was there.
pub(crate) fn delete_collection(
    store: &Store,
    target: &Target,
    how: &Deletion,
    selector: &Selector,
) -> Result<Value, Status> {
    let namespace = Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let listing = store.list(target.resource, namespace);
    let mut items = Vec::new();
    for object in listing
        .items
        .iter()
        .filter(|object| selector.accepts(&object.value))
    {
        let one = Target {
            name: object::name(&object.value).to_owned(),
            namespace: object::namespace(&object.value).to_owned(),
            ..target.clone()
        };
        match delete(store, &one, how) {
            Err(error) if error.code != 404 => return Err(error),
            _ => items.push(object.value.clone()),
        }
    }
    Ok(list_value(target, items, store.rv(), None))
}

fn list_value(target: &Target, items: Vec<Value>, rv: u64, more: Option<(String, usize)>) -> Value {
    let mut meta = json!({"resourceVersion": rv.to_string()});
    if let (Some((token, remaining)), Some(object)) = (more, meta.as_object_mut()) {
        object.insert("continue".into(), json!(token));
        if remaining > 0 {
            object.insert("remainingItemCount".into(), json!(remaining));
        }
    }
    json!({
        "kind": format!("{}List", target.resource.kind), "apiVersion": target.resource.api_version(),
        "metadata": meta, "items": items,
    })
}

/// One page of a list.
pub(crate) struct Page {
    /// The objects.
    pub(crate) items: Vec<Arc<Object>>,
    /// Version of the list.
    pub(crate) rv: u64,
    /// Where the next page starts, and how many objects are left (0 when that is not known).
    pub(crate) more: Option<(String, usize)>,
}

impl Page {
    /// `metadata` of the list.
    pub(crate) fn metadata(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.rv.to_string()});
        if let (Some((token, remaining)), Some(object)) = (&self.more, meta.as_object_mut()) {
            object.insert("continue".into(), json!(token));
            if *remaining > 0 {
                object.insert("remainingItemCount".into(), json!(remaining));
            }
        }
        meta
    }
}

/// Lists a collection, by pages when the request has a limit.
pub(crate) fn list(
    store: &Store,
    target: &Target,
    query: &Query,
    selector: &Selector,
) -> Result<Page, Status> {
    let namespace = Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let listing = store.list(target.resource, namespace);
    let start = parse_continue(query.get("continue"))?;
    let rv = start.as_ref().map_or(listing.rv, |(rv, _, _)| *rv);
    let mut items: Vec<Arc<Object>> = listing
        .items
        .into_iter()
        .filter(|object| {
            let after = start.as_ref().is_none_or(|(_, namespace, name)| {
                (
                    object::namespace(&object.value),
                    object::name(&object.value),
                ) > (namespace.as_str(), name.as_str())
            });
            after && selector.accepts(&object.value)
        })
        .collect();
    let limit: usize = query.get("limit").parse().unwrap_or(0);
    let mut more = None;
    if limit > 0 && items.len() > limit {
        let left = items.len().saturating_sub(limit);
        items.truncate(limit);
        if let Some(last) = items.last() {
            let position = json!([
                rv,
                object::namespace(&last.value),
                object::name(&last.value)
            ]);
            let remaining = if selector.is_empty() { left } else { 0 };
            more = Some((URL_SAFE_NO_PAD.encode(position.to_string()), remaining));
        }
    }
    Ok(Page { items, rv, more })
}

fn parse_continue(token: &str) -> Result<Option<(u64, String, String)>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .map(Some)
        .ok_or_else(|| Status::bad_request("continue key is not valid"))
}
