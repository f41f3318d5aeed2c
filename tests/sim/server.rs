//! An API server as the host's controllers see it: [`KubeApi`] over a [`crate::store::Store`], with latency, faults and watches.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{
    ApiError, Duplex, GroupKind, KubeApi, Page, Patch, Preconditions, Resource, Selection,
    WatchEvent,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use serde_json::Value;
use tokio::time::sleep;

use crate::fault::{Fate, REQUEST_TIMEOUT, WORKLOAD_REQUEST_TIMEOUT};
use crate::object;
use crate::rights::Ask;
use crate::store::{Store, Written, place};
use crate::world::{Actor, Server, State, World, Write};

/// What changes nothing.
const READS: [&str; 3] = ["get", "list", "watch"];

/// How long a server keeps a watch open.
const WATCH_SECONDS: u64 = 290;

/// How often a server says that nothing has changed.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long a pod takes to end after its eviction, at most.
pub const POD_GRACE_S: i64 = 30;

/// A client of one server, as the host has it.
pub struct HostApi {
    world: Arc<World>,
    server: Server,
}

impl HostApi {
    /// A client of this server.
    #[must_use]
    pub fn new(world: Arc<World>, server: Server) -> Self {
        Self { world, server }
    }

    /// One request: on the way there, what the server does, on the way back. Whoever drops it in between has not asked, or does
    /// not learn what came of it.
    async fn request<T>(
        &self,
        ask: Option<Ask<'_>>,
        effect: impl FnOnce(&mut State) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let fate = {
            let mut state = self.world.lock();
            if let Some(ask) = ask.filter(|ask| self.is_refused(ask)) {
                state.watchman.violated(format!(
                    "the host asks to {} without a right to",
                    ask.words()
                ));
            }
            let is_write = ask.is_some_and(|ask| !READS.contains(&ask.verb));
            let rates = state.rates();
            let timeout = match self.server {
                Server::Management => REQUEST_TIMEOUT,
                Server::Workload(_) => WORKLOAD_REQUEST_TIMEOUT,
            };
            Fate::draw(&mut state.network, rates, is_write, timeout)
        };
        sleep(fate.before).await;
        let wait = self.world.lock().unreachable_for(&self.server);
        if let Some(wait) = wait {
            sleep(wait).await;
            return Err(ApiError::Unavailable("no route to host".to_owned()));
        }
        if let Some(refusal) = fate.refusal {
            return Err(refusal);
        }
        // What is no object is asked whether the server is ready, which it is with its etcd.
        let needs_etcd = ask.is_none_or(|ask| !READS.contains(&ask.verb));
        if let Some(refusal) = self.etcd_refusal(needs_etcd) {
            sleep(fate.after).await;
            return Err(ApiError::Unavailable(refusal.to_owned()));
        }
        let result = {
            let mut state = self.world.lock();
            effect(&mut state)
        };
        self.world.changed();
        sleep(fate.after).await;
        if fate.is_lost {
            return Err(ApiError::Unavailable("the connection was lost".to_owned()));
        }
        result
    }
}

impl HostApi {
    fn etcd_refusal(&self, needs_etcd: bool) -> Option<&'static str> {
        match self.server {
            Server::Management => None,
            Server::Workload(_) => self.world.lock().etcd_refusal(needs_etcd),
        }
    }

    /// Whether no role allows it. What the host may do in workload clusters is theirs to say.
    fn is_refused(&self, ask: &Ask<'_>) -> bool {
        self.server == Server::Management && !ask.is_allowed()
    }
}

/// The end of one watch.
struct Watch {
    world: Arc<World>,
    server: Server,
    resource: Resource,
    place: GroupKind,
    selection: Selection,
    version: u64,
    ready: std::collections::VecDeque<(u64, WatchEvent)>,
    ends: tokio::time::Instant,
    /// When it last said that nothing has changed.
    heard: tokio::time::Instant,
    is_over: bool,
}

impl Watch {
    /// Waits for what comes next; `None` at the end.
    async fn next(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some((version, event)) = self.ready.pop_front() {
                let mut state = self.world.lock();
                let rates = state.rates();
                self.is_over = state.network.happens(rates.watch_ends);
                self.version = version;
                if let WatchEvent::Applied(object) = &event {
                    state.host_learns(object);
                }
                return Some(Ok(event));
            }
            // Made before the look: what changes after it is not missed.
            let world = Arc::clone(&self.world);
            let changes = world.changes();
            let found = {
                let mut state = self.world.lock();
                if state.unreachable_for(&self.server).is_some() {
                    self.is_over = true;
                    return Some(Err(ApiError::Unavailable(
                        "the connection was lost".to_owned(),
                    )));
                }
                let version = self.version;
                state.server(&self.server).and_then(|store| {
                    if store.is_same(&self.place, version) {
                        return Ok((Vec::new(), store.version()));
                    }
                    store.since(&self.resource, &self.selection, version)
                })
            };
            match found {
                Ok((events, _)) if !events.is_empty() => {
                    self.ready.extend(events);
                    // What comes meanwhile has a delay of its own: nothing is later than two of them.
                    let late = {
                        let mut state = self.world.lock();
                        let rates = state.rates();
                        if state.network.happens(rates.event_late) {
                            state.network.millis(500, 20_000)
                        } else {
                            state.network.millis(0, 15)
                        }
                    };
                    sleep(late).await;
                }
                Ok((_, version)) => {
                    self.version = self.version.max(version);
                    tokio::select! {
                        biased;
                        () = changes => {}
                        () = tokio::time::sleep_until(self.heard + BOOKMARK_EVERY) => {
                            self.heard = tokio::time::Instant::now();
                            return Some(Ok(WatchEvent::Bookmark(self.version.to_string())));
                        }
                        () = tokio::time::sleep_until(self.ends) => {
                            self.is_over = true;
                            return Some(Ok(WatchEvent::Bookmark(self.version.to_string())));
                        }
                    }
                }
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl HostApi {
    /// A request that changes something.
    async fn write(
        &self,
        by: &str,
        verb: &'static str,
        resource: &Resource,
        key: &ObjectKey,
        effect: impl FnOnce(&mut Store, &str) -> Result<Written, ApiError>,
    ) -> Result<Value, ApiError> {
        let is_status = verb == "patch-status";
        let ask = Ask {
            verb: if is_status { "patch" } else { verb },
            resource,
            subresource: is_status.then_some("status"),
            namespace: Some(&key.namespace),
        };
        let request = self.request(Some(ask), |state| {
            let write = Write {
                actor: Actor::Host,
                by,
                verb,
                resource,
                key,
            };
            state.write(&self.server, &write, effect)
        });
        let answer = request.await?;
        self.world.lock().host_learns(&answer);
        Ok(answer)
    }

    async fn evict(&self, pod: &ObjectKey) -> Result<Value, ApiError> {
        let ask = Ask {
            verb: "create",
            resource: &kinds::POD,
            subresource: Some("eviction"),
            namespace: Some(&pod.namespace),
        };
        self.request(Some(ask), |state| {
            let rates = state.rates();
            if state.network.happens(rates.eviction) {
                return Err(ApiError::TooManyRequests {
                    message: "Cannot evict pod as it would violate the pod's disruption budget."
                        .to_owned(),
                    retry_after_s: None,
                });
            }
            let write = Write {
                actor: Actor::Host,
                by: "eviction",
                verb: "evict",
                resource: &kinds::POD,
                key: pod,
            };
            state.write(&self.server, &write, |store, now| {
                store.delete(
                    &kinds::POD,
                    pod,
                    &Preconditions::default(),
                    now,
                    POD_GRACE_S,
                )
            })
        })
        .await
    }
}

impl KubeApi for HostApi {
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        _limit: u32,
        _next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        // A server may always answer with everything at once.
        let effect = |state: &mut State| {
            let (items, version) = state.server(&self.server)?.list(resource, selection)?;
            Ok(Page {
                items,
                resource_version: version.to_string(),
                next: None,
            })
        };
        let ask = Ask {
            verb: "list",
            resource,
            subresource: None,
            namespace: selection.namespace.as_deref(),
        };
        async move {
            let page = self.request(Some(ask), effect).await?;
            let mut state = self.world.lock();
            for item in &page.items {
                state.host_learns(item);
            }
            Ok(page)
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        resource_version: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, ApiError>>, ApiError>> {
        async move {
            let version: u64 = resource_version
                .parse()
                .map_err(|_| ApiError::Invalid(format!("invalid version {resource_version:?}")))?;
            let ask = Ask {
                verb: "watch",
                resource,
                subresource: None,
                namespace: selection.namespace.as_deref(),
            };
            self.request(Some(ask), |state| {
                let rates = state.rates();
                let expires = state.network.happens(rates.watch_expires);
                let store = state.server(&self.server)?;
                // What is forgotten stays so: only a list helps.
                if expires {
                    store.expire(resource, version);
                }
                if store.is_expired(resource, version) {
                    return Err(ApiError::Expired("too old resource version".to_owned()));
                }
                store.since(resource, selection, version)
            })
            .await?;
            let watch = Watch {
                world: Arc::clone(&self.world),
                server: self.server.clone(),
                resource: resource.clone(),
                place: place(resource),
                selection: selection.clone(),
                version,
                ready: std::collections::VecDeque::new(),
                ends: tokio::time::Instant::now() + Duration::from_secs(WATCH_SECONDS),
                heard: tokio::time::Instant::now(),
                is_over: false,
            };
            let events = stream::unfold(watch, |mut watch| async move {
                watch.next().await.map(|event| (event, watch))
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
            let ask = Ask {
                verb: "get",
                resource,
                subresource: None,
                namespace: Some(&key.namespace),
            };
            let request = self.request(Some(ask), |state| {
                let found = state.server(&self.server)?.get(resource, key)?;
                Ok((*found).clone())
            });
            let found = request.await?;
            self.world.lock().host_learns(&found);
            Ok(found)
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            let key = ObjectKey::new(namespace, object::name(object));
            self.write(manager, "create", resource, &key, |store, now| {
                store.create(resource, namespace, object, now)
            })
            .await
        }
        .boxed()
    }

    fn create_subresource<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: &'a str,
        _body: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        async move {
            if *resource == *kinds::POD && subresource == "eviction" {
                return self.evict(key).await;
            }
            let words = format!("{} have no subresource {subresource}", resource.plural);
            Err(ApiError::NotServed(words))
        }
        .boxed()
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        patch: &'a Patch,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        let verb = if subresource.is_some() {
            "patch-status"
        } else {
            "patch"
        };
        async move {
            if let Patch::Merge(patch) = patch {
                let mut state = self.world.lock();
                state.check_patch(manager, resource, key, patch);
            }
            self.write(manager, verb, resource, key, move |store, _| {
                store.patch(resource, key, subresource, patch)
            })
            .await
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        preconditions: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        async move {
            self.write("host", "delete", resource, key, |store, now| {
                store.delete(resource, key, preconditions, now, 0)
            })
            .await
            .map(drop)
        }
        .boxed()
    }

    fn port_forward<'a>(
        &'a self,
        _pod: &'a ObjectKey,
        _port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>> {
        async {
            Err(ApiError::Unavailable(
                "there are no containers here".to_owned(),
            ))
        }
        .boxed()
    }

    fn get_raw<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<String, ApiError>> {
        self.request(None, |state| {
            state.server(&self.server).map(|_| "{}".to_owned())
        })
        .boxed()
    }

    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>> {
        async { Ok(None) }.boxed()
    }
}
