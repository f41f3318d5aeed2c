//! The contents of one workload cluster: objects in memory with versions and a short history, every durable change in a journal.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::journal::{Entry, Journal};
use super::object::{self, Object};
use super::resources::{RESOURCES, Resource, place};
use super::status::Status;

/// How many changes per resource a watch can go back.
const HISTORY: usize = 1000;
/// Versions skipped after a restart, because writes that are not durable (heartbeats) used some.
const RESTART_GAP: u64 = 1_000_000;

/// One change of one object. `new` is absent when it was removed; then `old` carries the removal's version.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The version that the change made.
    pub(crate) rv: u64,
    /// The object before; absent when it was created.
    pub(crate) old: Option<Arc<Object>>,
    /// The object after; absent when it was removed.
    pub(crate) new: Option<Arc<Object>>,
}

/// What a write decided, given the present object.
pub(crate) enum Write {
    /// Store this new object.
    Create(Value),
    /// Replace the object.
    Update(Value),
    /// Leave everything.
    Keep,
}

/// What a write did.
#[derive(Debug, Clone)]
pub(crate) enum Wrote {
    /// The object is stored like this.
    Stored(Arc<Object>),
    /// The object is gone; this was its last version.
    Removed(Arc<Object>),
    /// There is no object and there was none.
    Nothing,
}

type Key = (String, String);

struct Table {
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Change>,
    forgotten_rv: u64,
    changed: watch::Sender<u64>,
}

struct Inner {
    rv: u64,
    tables: Vec<Table>,
    journal: Journal,
    reactions: VecDeque<(&'static Resource, Change)>,
}

/// A consistent list.
pub(crate) struct Listing {
    /// The objects, by namespace and name.
    pub(crate) items: Vec<Arc<Object>>,
    /// The version at which this was the content.
    pub(crate) rv: u64,
}

/// What a watch gets when it asks what happened since a version.
pub(crate) enum Since {
    /// The changes, and the version up to which these are all.
    Changes(Vec<Change>, u64),
    /// The history does not go back so far; the oldest version it can start from.
    TooOld(u64),
}

/// The content of one workload cluster.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    /// Woken on every durable change; the cluster's controllers wait on it.
    pub(crate) woken: Notify,
}

impl Store {
    /// Opens the journal in `dir` (made when missing) and loads what it holds.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let (journal, entries, last_rv) = Journal::open(dir)?;
        let rv = if last_rv == 0 {
            0
        } else {
            last_rv.saturating_add(RESTART_GAP)
        };
        let mut tables: Vec<Table> = RESOURCES
            .iter()
            .map(|_| Table {
                objects: BTreeMap::new(),
                history: VecDeque::new(),
                forgotten_rv: rv,
                changed: watch::channel(rv).0,
            })
            .collect();
        for entry in entries {
            let Some(table) = super::resources::find(&entry.group, &entry.plural)
                .and_then(|resource| tables.get_mut(place(resource)))
            else {
                continue;
            };
            let key = (entry.namespace, entry.name);
            match entry.value {
                Some(value) => {
                    table
                        .objects
                        .insert(key, Arc::new(Object::new(value, entry.rv)));
                }
                None => {
                    table.objects.remove(&key);
                }
            }
        }
        let inner = Inner {
            rv,
            tables,
            journal,
            reactions: VecDeque::new(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            woken: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, if there is one.
    pub(crate) fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        let inner = self.lock();
        let table = inner.tables.get(place(resource))?;
        table
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// All objects, of one namespace or of all.
    pub(crate) fn list(&self, resource: &Resource, namespace: Option<&str>) -> Listing {
        let inner = self.lock();
        let Some(table) = inner.tables.get(place(resource)) else {
            return Listing {
                items: Vec::new(),
                rv: inner.rv,
            };
        };
        let items = match namespace {
            None => table.objects.values().cloned().collect(),
            Some(namespace) => {
                let from = Bound::Included((namespace.to_owned(), String::new()));
                table
                    .objects
                    .range((from, Bound::Unbounded))
                    .take_while(|((ns, _), _)| ns == namespace)
                    .map(|(_, object)| Arc::clone(object))
                    .collect()
            }
        };
        Listing {
            items,
            rv: inner.rv,
        }
    }

    /// Everything in the cluster that `wanted` accepts.
    pub(crate) fn find(
        &self,
        wanted: impl Fn(&'static Resource, &Value) -> bool,
    ) -> Vec<(&'static Resource, Arc<Object>)> {
        let inner = self.lock();
        let mut found = Vec::new();
        for (resource, table) in RESOURCES.iter().zip(&inner.tables) {
            for object in table.objects.values() {
                if wanted(resource, &object.value) {
                    found.push((resource, Arc::clone(object)));
                }
            }
        }
        found
    }

    /// How many objects of this resource there are.
    pub(crate) fn count(&self, resource: &Resource) -> usize {
        self.lock()
            .tables
            .get(place(resource))
            .map_or(0, |table| table.objects.len())
    }

    /// The newest version.
    pub(crate) fn rv(&self) -> u64 {
        self.lock().rv
    }

    /// Wakes when something of this resource changes.
    pub(crate) fn subscribe(&self, resource: &Resource) -> Option<watch::Receiver<u64>> {
        self.lock()
            .tables
            .get(place(resource))
            .map(|table| table.changed.subscribe())
    }

    /// What happened to this resource after version `rv`.
    pub(crate) fn since(&self, resource: &Resource, rv: u64) -> Since {
        let inner = self.lock();
        let Some(table) = inner.tables.get(place(resource)) else {
            return Since::Changes(Vec::new(), inner.rv);
        };
        if rv < table.forgotten_rv {
            return Since::TooOld(table.forgotten_rv);
        }
        let first = table.history.partition_point(|change| change.rv <= rv);
        Since::Changes(table.history.range(first..).cloned().collect(), inner.rv)
    }

    /// Decides and does one write atomically. `decide` sees the present object.
    pub(crate) fn write(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        decide: impl FnOnce(Option<&Arc<Object>>) -> Result<Write, Status>,
    ) -> Result<Wrote, Status> {
        self.write_as(resource, namespace, name, true, decide)
    }

    /// The same for a heartbeat: watchers see it, but the disk does not, and neither do controllers.
    pub(crate) fn write_fleeting(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        decide: impl FnOnce(Option<&Arc<Object>>) -> Result<Write, Status>,
    ) -> Result<Wrote, Status> {
        self.write_as(resource, namespace, name, false, decide)
    }

    fn write_as(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        durable: bool,
        decide: impl FnOnce(Option<&Arc<Object>>) -> Result<Write, Status>,
    ) -> Result<Wrote, Status> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let key = (namespace.to_owned(), name.to_owned());
        let Some(table) = inner.tables.get_mut(place(resource)) else {
            return Err(Status::no_such_path());
        };
        let old = table.objects.get(&key).cloned();
        let rv = inner.rv.saturating_add(1);
        let (new, last) = match (decide(old.as_ref())?, &old) {
            (Write::Keep, Some(old)) => return Ok(Wrote::Stored(Arc::clone(old))),
            (Write::Keep, None) => return Ok(Wrote::Nothing),
            (Write::Create(value), _) => (Some(stamped(value, rv)), None),
            (Write::Update(value), Some(present)) if is_same(&value, &present.value) => {
                return Ok(Wrote::Stored(Arc::clone(present)));
            }
            (Write::Update(value), _) if is_finished(&value) => (None, Some(stamped(value, rv))),
            (Write::Update(value), _) => (Some(stamped(value, rv)), None),
        };
        if durable {
            let entry = Entry {
                rv,
                group: resource.group.to_owned(),
                plural: resource.plural.to_owned(),
                namespace: key.0.clone(),
                name: key.1.clone(),
                value: new.as_ref().map(|object| object.value.clone()),
            };
            if let Err(error) = inner.journal.append(&entry) {
                return Err(Status::new(
                    500,
                    "InternalError",
                    format!("the journal cannot be written: {error}"),
                ));
            }
        }
        inner.rv = rv;
        let wrote = match (&new, &last) {
            (Some(object), _) => {
                table.objects.insert(key, Arc::clone(object));
                Wrote::Stored(Arc::clone(object))
            }
            (None, Some(last)) => {
                table.objects.remove(&key);
                Wrote::Removed(Arc::clone(last))
            }
            (None, None) => Wrote::Nothing,
        };
        let change = Change {
            rv,
            old: if new.is_none() { last } else { old },
            new,
        };
        if durable {
            inner.reactions.push_back((resource, change.clone()));
        }
        table.history.push_back(change);
        while table.history.len() > HISTORY {
            if let Some(gone) = table.history.pop_front() {
                table.forgotten_rv = gone.rv;
            }
        }
        table.changed.send_replace(rv);
        if inner.journal.is_due() {
            compact(inner);
        }
        drop(guard);
        if durable {
            self.woken.notify_one();
        }
        Ok(wrote)
    }

    /// The durable changes that the controllers have not seen yet.
    pub(crate) fn take_reactions(&self) -> VecDeque<(&'static Resource, Change)> {
        std::mem::take(&mut self.lock().reactions)
    }
}

/// Writes the whole content as one snapshot and empties the journal.
fn compact(inner: &mut Inner) {
    let mut entries = Vec::new();
    for (resource, table) in RESOURCES.iter().zip(&inner.tables) {
        for ((namespace, name), object) in &table.objects {
            entries.push(Entry {
                rv: object.rv,
                group: resource.group.to_owned(),
                plural: resource.plural.to_owned(),
                namespace: namespace.clone(),
                name: name.clone(),
                value: Some(object.value.clone()),
            });
        }
    }
    if let Err(error) = inner.journal.compact(&entries, inner.rv) {
        tracing::warn!(%error, "a workload cluster's journal could not be compacted; it goes on growing");
    }
}

fn stamped(mut value: Value, rv: u64) -> Arc<Object> {
    object::metadata(&mut value).insert("resourceVersion".into(), json!(rv.to_string()));
    Arc::new(Object::new(value, rv))
}

/// Equal but for the version, which the store gives.
fn is_same(new: &Value, old: &Value) -> bool {
    let mut new = new.clone();
    let version = object::text_at(old, "/metadata/resourceVersion").to_owned();
    object::metadata(&mut new).insert("resourceVersion".into(), json!(version));
    new == *old
}

/// Whether deletion has begun and nothing holds the object any more.
fn is_finished(value: &Value) -> bool {
    if !object::is_deleting(value) || !object::list_at(value, "/metadata/finalizers").is_empty() {
        return false;
    }
    let grace = value
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    let held = object::text_at(value, "/kind") == "Namespace"
        && !object::list_at(value, "/spec/finalizers").is_empty();
    grace.unwrap_or(0) == 0 && !held
}
