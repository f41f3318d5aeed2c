//! An API server for unit tests: it holds what it is given, answers as it is told, and notes what it is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    ApiError, Duplex, KubeApi, Page, Patch, Preconditions, Resource, Selection, WatchEvent,
};

type Event = Result<WatchEvent, ApiError>;

/// Events that a test may give before anybody reads them.
const EVENTS_MAX: usize = 100;

/// What a test does while a request is under way.
type Doing = Arc<dyn Fn() -> BoxFuture<'static, Result<(), ApiError>> + Send + Sync>;

/// What becomes of a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// It is refused.
    Refuse(ApiError),
    /// It is never answered.
    Hang,
    /// It is answered after this time.
    Wait(Duration),
    /// It is answered once this is done.
    Do(Doing),
    /// A watch ends at once.
    End,
    /// A list does not end: there is always another page.
    Endless,
}

/// Where an object is, by what it says itself.
fn key_of(object: &Value) -> ObjectKey {
    let text = |of: &str| object["metadata"][of].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

/// The server. It begins at version 10.
#[derive(Default)]
pub(crate) struct Staged(Mutex<State>);

#[derive(Default)]
struct State {
    /// Objects by the path of their collection, and by their namespace and name.
    objects: BTreeMap<String, BTreeMap<ObjectKey, Value>>,
    /// How often something was changed.
    changes: u64,
    /// What becomes of requests, by what their words begin with.
    acts: BTreeMap<String, Act>,
    asked: Vec<String>,
    patches: Vec<Patch>,
    watches: Vec<(String, mpsc::Sender<Event>)>,
}

impl State {
    fn version(&self) -> String {
        self.changes.saturating_add(10).to_string()
    }
}

impl Staged {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Has an object from now on, and tells nobody of it.
    pub(crate) fn hold(&self, resource: &Resource, mut object: Value) -> Value {
        let mut state = self.lock();
        state.changes = state.changes.saturating_add(1);
        object["metadata"]["resourceVersion"] = state.version().into();
        let all = state.objects.entry(resource.path(None, None)).or_default();
        all.insert(key_of(&object), object.clone());
        object
    }

    /// Has an object from now on, and tells who watches.
    pub(crate) fn give(&self, resource: &Resource, object: Value) {
        let object = self.hold(resource, object);
        self.tell(resource, Ok(WatchEvent::Applied(object)));
    }

    /// Tells who watches.
    pub(crate) fn tell(&self, resource: &Resource, event: Event) {
        let path = resource.path(None, None);
        let mut state = self.lock();
        let watches = state.watches.iter().filter(|(of, _)| *of == path);
        for (_, watch) in watches {
            // A watch that somebody gave up is told nothing.
            let _ = watch.try_send(event.clone());
        }
        state.watches.retain(|(_, watch)| !watch.is_closed());
    }

    /// From now on this becomes of requests whose words (such as `list /apis/g/v1/things`) begin so; `None`: what is usual.
    pub(crate) fn act(&self, words: &str, act: impl Into<Option<Act>>) {
        match act.into() {
            Some(act) => self.lock().acts.insert(words.to_owned(), act),
            None => self.lock().acts.remove(words),
        };
    }

    /// What was asked whose words begin so.
    pub(crate) fn asked(&self, words: &str) -> Vec<String> {
        let state = self.lock();
        let asked = state.asked.iter().filter(|asked| asked.starts_with(words));
        asked.cloned().collect()
    }

    /// The patches that were sent.
    pub(crate) fn patches(&self) -> Vec<Patch> {
        self.lock().patches.clone()
    }

    /// How many watch these.
    pub(crate) fn watched(&self, resource: &Resource) -> usize {
        let path = resource.path(None, None);
        let state = self.lock();
        let open = state.watches.iter();
        open.filter(|(of, watch)| *of == path && !watch.is_closed())
            .count()
    }

    /// Notes a request and does what is told of it. What is left of that is for who answers.
    async fn note(&self, words: String) -> Result<Option<Act>, ApiError> {
        let act = {
            let mut state = self.lock();
            let mut acts = state.acts.iter();
            let act = acts.find(|(begin, _)| words.starts_with(begin.as_str()));
            let act = act.map(|(_, act)| act.clone());
            state.asked.push(words);
            act
        };
        match act {
            None | Some(Act::End | Act::Endless) => Ok(act),
            Some(Act::Refuse(error)) => Err(error),
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Wait(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Some(Act::Do(doing)) => doing().await.map(|()| None),
        }
    }

    fn find(&self, resource: &Resource, key: &ObjectKey) -> Result<Value, ApiError> {
        let state = self.lock();
        let all = state.objects.get(&resource.path(None, None));
        let found = all.and_then(|all| all.get(key));
        let missing = || ApiError::NotFound(format!("{} {key} not found", resource.plural));
        found.cloned().ok_or_else(missing)
    }
}

impl KubeApi for Staged {
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a Selection,
        limit: u32,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        async move {
            let path = resource.path(None, None);
            let words = from.map_or_else(String::new, |from| format!(" from {from}"));
            let act = self.note(format!("list {path}{words}")).await?;
            let from: usize = from.map_or(0, |from| from.parse().unwrap());
            let next = from.saturating_add(limit as usize);
            let state = self.lock();
            let objects = state.objects.get(&path);
            let is_over = next >= objects.map_or(0, BTreeMap::len);
            let page = objects
                .into_iter()
                .flatten()
                .skip(from)
                .take(limit as usize);
            Ok(Page {
                items: page.map(|(_, object)| object.clone()).collect(),
                resource_version: state.version(),
                next: (!is_over || matches!(act, Some(Act::Endless))).then(|| next.to_string()),
            })
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a Selection,
        resource_version: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Event>, ApiError>> {
        async move {
            let path = resource.path(None, None);
            let act = self
                .note(format!("watch {path} after {resource_version}"))
                .await?;
            let (watch, events) = mpsc::channel(EVENTS_MAX);
            if !matches!(act, Some(Act::End)) {
                self.lock().watches.push((path, watch));
            }
            let events = futures::stream::unfold(events, |mut events| async move {
                events.recv().await.map(|event| (event, events))
            });
            Ok(events.boxed())
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let path = resource.path(Some(&key.namespace), Some(&key.name));
            self.note(format!("get {path}")).await?;
            self.find(resource, key)
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let path = resource.path(Some(namespace), None);
            self.note(format!("create {path}")).await?;
            if self.find(resource, &key_of(object)).is_ok() {
                let words = format!("{} are there already", resource.plural);
                return Err(ApiError::AlreadyExists(words));
            }
            Ok(self.hold(resource, object.clone()))
        }
        .boxed()
    }

    fn create_subresource<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: &'a str,
        body: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let path = resource.path(Some(&key.namespace), Some(&key.name));
            self.note(format!("create {path}/{subresource}")).await?;
            Ok(body.clone())
        }
        .boxed()
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        _: Option<&'a str>,
        patch: &'a Patch,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let path = resource.path(Some(&key.namespace), Some(&key.name));
            self.lock().patches.push(patch.clone());
            self.note(format!("patch {path}")).await?;
            self.find(resource, key)
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        _: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        async move {
            let path = resource.path(Some(&key.namespace), Some(&key.name));
            self.note(format!("delete {path}")).await?;
            self.find(resource, key).map(drop)
        }
        .boxed()
    }

    fn port_forward<'a>(
        &'a self,
        pod: &'a ObjectKey,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>> {
        async move {
            self.note(format!("forward {pod}:{port}")).await?;
            Err(ApiError::Unavailable("there are no pods here".to_owned()))
        }
        .boxed()
    }

    fn get_raw<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<String, ApiError>> {
        async move {
            self.note(format!("get {path}")).await?;
            Ok(String::new())
        }
        .boxed()
    }

    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>> {
        async { Ok(None) }.boxed()
    }
}
