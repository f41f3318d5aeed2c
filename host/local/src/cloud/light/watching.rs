//! Watches: the present content first when it is asked for, then every change, filtered, with bookmarks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::api::{Body, answer};
use super::cluster::Cluster;
use super::object::{self, Object};
use super::request::{Query, Target};
use super::selectors::Selector;
use super::status::Status;
use super::store::{Change, Since};
use super::table;

/// How often a quiet watch gets a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts when the client does not say.
const DEFAULT_TIMEOUT_S: u64 = 1800;

struct Watch {
    cluster: Arc<Cluster>,
    target: Target,
    selector: Selector,
    as_table: bool,
    bookmarks: bool,
    cursor: u64,
    changed: watch::Receiver<u64>,
    ready: VecDeque<Bytes>,
    ends: Instant,
    next_bookmark: Instant,
    is_over: bool,
}

/// Begins a watch.
pub(crate) fn watch(
    cluster: &Arc<Cluster>,
    target: &Target,
    query: &Query,
    selector: &Selector,
    accept: &str,
) -> Result<Response<Body>, Status> {
    let asked = query.get("resourceVersion");
    let sends_initial = query.get("sendInitialEvents");
    let from: u64 = match asked {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| Status::bad_request(format!("invalid resource version {text:?}")))?,
    };
    let mut changed = cluster
        .store
        .subscribe(target.resource)
        .ok_or_else(Status::no_such_path)?;
    changed.mark_unchanged();
    let seconds = query
        .get("timeoutSeconds")
        .parse()
        .unwrap_or(DEFAULT_TIMEOUT_S);
    let now = Instant::now();
    let mut state = Watch {
        cluster: Arc::clone(cluster),
        target: target.clone(),
        selector: selector.clone(),
        as_table: table::is_wanted(accept),
        bookmarks: query.is_set("allowWatchBookmarks"),
        cursor: from,
        changed,
        ready: VecDeque::new(),
        ends: now.checked_add(Duration::from_secs(seconds)).unwrap_or(now),
        next_bookmark: now.checked_add(BOOKMARK_EVERY).unwrap_or(now),
        is_over: false,
    };
    if sends_initial == "true" || (from == 0 && sends_initial != "false") {
        state.send_present(sends_initial == "true");
    } else if from == 0 {
        state.cursor = cluster.store.rv();
    }
    state.take_changes();
    let stream = futures::stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), state))
    });
    let mut response = answer(200, "application/json", Bytes::new());
    *response.body_mut() = StreamBody::new(stream).boxed_unsync();
    Ok(response)
}

impl Watch {
    fn is_here(&self, value: &Value) -> bool {
        (self.target.namespace.is_empty() || object::namespace(value) == self.target.namespace)
            && self.selector.accepts(value)
    }

    fn send_present(&mut self, with_end: bool) {
        let namespace =
            Some(self.target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let listing = self.cluster.store.list(self.target.resource, namespace);
        self.cursor = listing.rv;
        for object in listing.items {
            if self.is_here(&object.value) {
                self.push("ADDED", &object);
            }
        }
        if with_end {
            self.push_bookmark(true);
        }
    }

    fn push(&mut self, type_: &str, object: &Arc<Object>) {
        let text = if self.as_table {
            let meta = json!({"resourceVersion": object.rv.to_string()});
            let value = table::table(
                self.target.resource,
                std::slice::from_ref(object),
                meta,
                true,
            );
            format!("{{\"type\":\"{type_}\",\"object\":{value}}}\n").into_bytes()
        } else {
            let mut text = format!("{{\"type\":\"{type_}\",\"object\":").into_bytes();
            text.extend_from_slice(&object.text());
            text.extend_from_slice(b"}\n");
            text
        };
        self.ready.push_back(text.into());
    }

    fn push_bookmark(&mut self, ends_initial: bool) {
        let mut meta =
            json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if ends_initial {
            object::as_object(&mut meta).insert(
                "annotations".into(),
                json!({"k8s.io/initial-events-end": "true"}),
            );
        }
        let resource = self.target.resource;
        let event = json!({"type": "BOOKMARK", "object": {
            "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta}});
        self.ready.push_back(format!("{event}\n").into());
    }

    fn take_changes(&mut self) {
        match self.cluster.store.since(self.target.resource, self.cursor) {
            Since::Changes(changes, rv) => {
                for change in &changes {
                    self.push_change(change);
                }
                self.cursor = rv.max(self.cursor);
            }
            Since::TooOld(oldest) => {
                let status = Status::expired(self.cursor, oldest).to_value();
                self.ready
                    .push_back(format!("{}\n", json!({"type": "ERROR", "object": status})).into());
                self.is_over = true;
            }
        }
    }

    fn push_change(&mut self, change: &Change) {
        let before = change
            .old
            .as_ref()
            .filter(|object| self.is_here(&object.value));
        let after = change
            .new
            .as_ref()
            .filter(|object| self.is_here(&object.value));
        match (before.cloned(), after.cloned()) {
            (None, Some(new)) => self.push("ADDED", &new),
            (Some(_), Some(new)) => self.push("MODIFIED", &new),
            (Some(old), None) => {
                let mut value = old.value.clone();
                object::metadata(&mut value)
                    .insert("resourceVersion".into(), json!(change.rv.to_string()));
                self.push("DELETED", &Arc::new(Object::new(value, change.rv)));
            }
            (None, None) => {}
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.is_over {
                return None;
            }
            let wake = self.ends.min(self.next_bookmark);
            tokio::select! {
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    self.take_changes();
                }
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= self.ends {
                        return None;
                    }
                    self.next_bookmark = now.checked_add(BOOKMARK_EVERY).unwrap_or(now);
                    // As on real servers, one that asked for what is still to come hears nothing until then.
                    if self.bookmarks && self.cluster.store.rv() >= self.cursor {
                        self.take_changes();
                        self.push_bookmark(false);
                    }
                }
            }
        }
    }
}
