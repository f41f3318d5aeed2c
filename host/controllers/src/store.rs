//! The watch cache of one resource, shared by all controllers, with the indexes that they ask for.
//!
//! A write's answer goes into the store at once, so that a controller never decides on an object older than its own last
//! write. Events that are not newer than what is known change nothing and wake nobody.

mod index;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::index::Index;
use crate::flag::Flag;
use crate::kube_api::{ApiError, Resource, memory_bytes, too_large};
use crate::object::Object;

/// How many UIDs of deleted objects are remembered, so that a late answer to an earlier write does not bring one back.
const TOMBSTONES_MAX: usize = 4096;

/// How long a reconcile waits for the first list of a kind: many times what a server takes, and little of what a reconcile may take.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// Objects of one resource.
pub struct Store {
    resource: Resource,
    /// How much it holds at most, as it is in memory; `None` where the server is trusted.
    bytes_max: Option<usize>,
    inner: RwLock<Inner>,
    synced: Flag,
    listing: Mutex<Listing>,
    /// The first list is in after somebody has waited for it in vain.
    late: Notify,
    /// What is held may be old.
    doubted: Notify,
}

/// What is known of a list that is not in.
#[derive(Default)]
struct Listing {
    /// Somebody has waited for it in vain.
    is_late: bool,
    /// What failed last.
    failure: Option<String>,
    /// Number of the first list that is new enough.
    counts_from: u64,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    index: Index,
    /// What the objects are in memory, where that is bounded.
    bytes: usize,
    /// When the objects of these UIDs went.
    gone: HashMap<String, Gone>,
    /// The same UIDs, in the order in which they went.
    went: VecDeque<String>,
    /// Lists that were begun.
    lists: u64,
}

/// When an object went.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    /// The last version at which it did.
    at: Option<u64>,
    /// A request did not find it when so many lists had been begun.
    unseen: Option<u64>,
}

/// A change that was new to the store.
#[derive(Clone, Debug)]
pub struct Change {
    /// As it was; `None` when it is new.
    pub old: Option<Arc<Object>>,
    /// As it is; `None` when it is gone.
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// The newest that is known of the object.
    #[must_use]
    pub fn object(&self) -> Option<&Arc<Object>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(resource: Resource) -> Self {
        Self {
            resource,
            bytes_max: None,
            inner: RwLock::default(),
            synced: Flag::default(),
            listing: Mutex::default(),
            late: Notify::new(),
            doubted: Notify::new(),
        }
    }

    /// An empty store of objects of a server that is not trusted: its watch ends when they would be more than so much in memory.
    #[must_use]
    pub fn bounded(resource: Resource, bytes_max: usize) -> Self {
        Self {
            bytes_max: Some(bytes_max),
            ..Self::new(resource)
        }
    }

    /// How much it holds at most.
    #[must_use]
    pub fn bytes_max(&self) -> Option<usize> {
        self.bytes_max
    }

    /// Checks that there is room for an object as it is now.
    ///
    /// # Errors
    /// When there is none.
    pub fn check_room(&self, object: &Object) -> Result<(), ApiError> {
        let Some(bytes_max) = self.bytes_max else {
            return Ok(());
        };
        let inner = self.read();
        let old = inner.objects.get(&object.key);
        let without = inner
            .bytes
            .saturating_sub(old.map_or(0, |old| self.size(old)));
        if without.saturating_add(self.size(object)) > bytes_max {
            return Err(too_large(&self.resource, bytes_max));
        }
        Ok(())
    }

    /// What an object counts.
    fn size(&self, object: &Object) -> usize {
        self.bytes_max.map_or(0, |_| memory_bytes(&object.value))
    }

    /// What it holds.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Whether the first list is in, or, since it was doubted, a new one.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.is_raised()
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        self.synced.raised().await;
    }

    /// Waits for the first list, but for a moment only: once that was in vain, everybody is answered at once until it is in.
    ///
    /// # Errors
    /// Why it is not in, in words.
    pub async fn listed(&self) -> Result<(), String> {
        let is_late = self.listing().is_late;
        if !is_late && timeout(FIRST_LIST, self.synced()).await.is_ok() {
            return Ok(());
        }
        let mut listing = self.listing();
        if self.is_synced() {
            return Ok(());
        }
        listing.is_late = true;
        let why = listing.failure.as_deref().unwrap_or("no answer yet");
        let (plural, version) = (&self.resource.plural, self.resource.api_version());
        Err(format!("{plural} of {version} cannot be listed: {why}"))
    }

    /// Marks the list that began with this number as in.
    pub fn mark_synced(&self, begun: u64) {
        let mut listing = self.listing();
        if begun < listing.counts_from {
            return;
        }
        self.synced.raise();
        listing.failure = None;
        if std::mem::take(&mut listing.is_late) {
            self.late.notify_one();
        }
    }

    /// Takes what is held for old: the store counts as not listed until a list is in that begins from now on.
    pub fn doubt(&self) {
        let mut listing = self.listing();
        listing.counts_from = self.read().lists.saturating_add(1);
        listing.is_late = false;
        self.synced.lower();
        self.doubted.notify_one();
    }

    /// Completes when what is held was taken for old.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Remembers why there is no list.
    pub fn not_listed(&self, why: String) {
        self.listing().failure = Some(why);
    }

    /// Completes when the first list is in although somebody was told that it cannot be had.
    pub async fn listed_late(&self) {
        self.late.notified().await;
    }

    fn listing(&self) -> MutexGuard<'_, Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.read().objects.values().cloned().collect()
    }

    /// All objects of a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        let from = ObjectKey {
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        self.read()
            .objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Objects with an owner reference to this UID.
    #[must_use]
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        let inner = self.read();
        inner.found(inner.index.owned_by(uid))
    }

    /// Objects with the cluster-name label of this cluster, in its namespace.
    #[must_use]
    pub fn of_cluster(&self, cluster: &ObjectKey) -> Vec<Arc<Object>> {
        let inner = self.read();
        inner.found(inner.index.of_cluster(cluster))
    }

    /// Machines of a Cluster that name this Node or have its provider ID.
    #[must_use]
    pub fn of_node(&self, cluster: &ObjectKey, name: &str, id: Option<&str>) -> Vec<Arc<Object>> {
        let inner = self.read();
        inner.found(inner.index.of_node(cluster, name, id).into_iter())
    }

    /// Objects that are being deleted.
    #[must_use]
    pub fn deleting(&self) -> Vec<Arc<Object>> {
        let inner = self.read();
        inner.found(inner.index.deleting())
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().objects.is_empty()
    }

    /// Takes an object in, unless something as new is known or it was deleted.
    pub fn apply(&self, object: impl Into<Arc<Object>>) -> Option<Change> {
        let new: Arc<Object> = object.into();
        let mut inner = self.write();
        let is_over = |gone: &Gone| gone.unseen.is_some() || gone.at >= Some(new.resource_version);
        if inner.gone.get(&new.uid).is_some_and(is_over) {
            return None;
        }
        let old = inner.objects.get(&new.key).cloned();
        if old
            .as_ref()
            .is_some_and(|old| old.uid == new.uid && old.resource_version >= new.resource_version)
        {
            return None;
        }
        if let Some(old) = &old {
            inner.index.remove(old);
            inner.bytes = inner.bytes.saturating_sub(self.size(old));
        }
        inner.index.add(&new);
        inner.bytes = inner.bytes.saturating_add(self.size(&new));
        inner.objects.insert(new.key.clone(), Arc::clone(&new));
        Some(Change {
            old,
            new: Some(new),
        })
    }

    /// Takes an object out that went at this version. What is newer of it brings it back: it may have lost a label that the store selects
    /// by, and have it again.
    pub fn remove(&self, key: &ObjectKey, uid: &str, at: u64) -> Option<Change> {
        self.take_out(key, uid, |_, gone| gone.at = gone.at.max(Some(at)))
    }

    /// Takes an object out that a request did not find. The watch may still bring what it was before, which is nothing new; only a list that
    /// is begun later, and has it, knows better than that request.
    pub fn gone(&self, key: &ObjectKey, uid: &str) -> Option<Change> {
        self.take_out(key, uid, |lists, gone| gone.unseen = Some(lists))
    }

    fn take_out(
        &self,
        key: &ObjectKey,
        uid: &str,
        note: impl FnOnce(u64, &mut Gone),
    ) -> Option<Change> {
        let mut inner = self.write();
        let change = inner.take_out(key, uid, note)?;
        let size = change.old.as_deref().map_or(0, |old| self.size(old));
        inner.bytes = inner.bytes.saturating_sub(size);
        Some(change)
    }

    /// A list begins; its number.
    pub fn begin_list(&self) -> u64 {
        let mut inner = self.write();
        inner.lists = inner.lists.saturating_add(1);
        inner.lists
    }

    /// Takes some objects in of a list that began with this number, and notes that they are on it.
    pub fn take_listed(
        &self,
        objects: Vec<Object>,
        begun: u64,
        listed: &mut BTreeSet<ObjectKey>,
    ) -> Vec<Change> {
        self.write().raise(&objects, begun);
        listed.extend(objects.iter().map(|object| object.key.clone()));
        let changes = objects.into_iter().filter_map(|object| self.apply(object));
        changes.collect()
    }

    /// Takes out what is not on a list. Objects that were written while the list was under way are newer than its version and stay.
    pub fn end_list(&self, listed: &BTreeSet<ObjectKey>, version: u64) -> Vec<Change> {
        let gone: Vec<(ObjectKey, String)> = self
            .read()
            .objects
            .values()
            .filter(|object| object.resource_version <= version && !listed.contains(&object.key))
            .map(|object| (object.key.clone(), object.uid.clone()))
            .collect();
        let changes = gone.into_iter();
        let changes = changes.filter_map(|(key, uid)| self.remove(&key, &uid, version));
        changes.collect()
    }

    /// Puts the list of a server that has begun anew, or was restored, in the place of everything: versions of before say nothing there.
    pub fn start_over(&self, objects: Vec<Object>) -> Vec<Change> {
        let mut before = {
            let mut inner = self.write();
            let lists = inner.lists;
            let before = std::mem::take(&mut *inner);
            inner.lists = lists;
            before.objects
        };
        let listed = objects.into_iter().filter_map(|object| {
            let old = before.remove(&object.key);
            let change = self.apply(object)?;
            Some(Change { old, ..change })
        });
        let mut changes: Vec<Change> = listed.collect();
        changes.extend(before.into_values().map(|old| Change {
            old: Some(old),
            new: None,
        }));
        changes
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn found<'a>(&self, keys: impl Iterator<Item = &'a ObjectKey>) -> Vec<Arc<Object>> {
        keys.filter_map(|key| self.objects.get(key).cloned())
            .collect()
    }

    fn take_out(
        &mut self,
        key: &ObjectKey,
        uid: &str,
        note: impl FnOnce(u64, &mut Gone),
    ) -> Option<Change> {
        if !uid.is_empty() {
            if !self.gone.contains_key(uid) {
                self.went.push_back(uid.to_owned());
            }
            note(self.lists, self.gone.entry(uid.to_owned()).or_default());
            if self.went.len() > TOMBSTONES_MAX
                && let Some(first) = self.went.pop_front()
            {
                self.gone.remove(&first);
            }
        }
        let old = self
            .objects
            .get(key)
            .filter(|old| uid.is_empty() || old.uid == uid)
            .cloned()?;
        self.objects.remove(key);
        self.index.remove(&old);
        Some(Change {
            old: Some(old),
            new: None,
        })
    }

    /// Forgets that requests did not find objects that a list has which was begun later.
    fn raise(&mut self, listed: &[Object], begun: u64) {
        for object in listed {
            if let Some(gone) = self.gone.get_mut(&object.uid) {
                gone.unseen = gone.unseen.filter(|lists| *lists >= begun);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> Object {
        Object::new(json!({
            "apiVersion": "v1", "kind": "Thing",
            "metadata": {
                "name": name, "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
                "labels": {"cluster.x-k8s.io/cluster-name": "c"},
                "ownerReferences": [{"apiVersion": "g/v1", "kind": "O", "name": "o", "uid": "owner"}],
            },
        }))
        .expect("has a name")
    }

    fn store() -> Store {
        Store::new(Resource::namespaced("", "v1", "Thing", "things"))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn an_object_without_the_label_belongs_to_the_cluster_that_it_names() {
        let store = store();
        let fresh = json!({
            "apiVersion": "v1", "kind": "Thing",
            "metadata": {"name": "a", "namespace": "ns", "uid": "1", "resourceVersion": "1"},
            "spec": {"clusterName": "c"},
        });
        store.apply(Object::new(fresh).expect("has a name"));
        assert_eq!(store.of_cluster(&key("c")).len(), 1);
        store.apply(object("a", "1", 2));
        assert_eq!(store.of_cluster(&key("c")).len(), 1);
    }

    /// A list of these objects.
    fn listed(store: &Store, objects: Vec<Object>, version: u64, begun: u64) -> Vec<Change> {
        let mut listed = BTreeSet::new();
        let mut changes = store.take_listed(objects, begun, &mut listed);
        changes.extend(store.end_list(&listed, version));
        changes
    }

    #[test]
    fn what_is_not_newer_changes_nothing() {
        let store = store();
        assert!(store.apply(object("a", "1", 5)).is_some());
        assert!(store.apply(object("a", "1", 5)).is_none());
        assert!(store.apply(object("a", "1", 4)).is_none());
        assert!(store.apply(object("a", "1", 6)).is_some());
        assert!(
            store.apply(object("a", "2", 3)).is_some(),
            "another object of the same name"
        );
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let store = store();
        store.apply(object("a", "1", 5));
        assert!(store.remove(&key("a"), "1", 8).is_some());
        for late in [4, 7, 8] {
            assert!(store.apply(object("a", "1", late)).is_none());
        }
        assert!(store.owned_by("owner").is_empty());
        assert!(store.of_cluster(&key("c")).is_empty());
    }

    #[test]
    fn what_a_request_did_not_find_comes_back_with_a_list_that_was_begun_later() {
        let store = store();
        store.apply(object("a", "1", 5));
        let under_way = store.begin_list();
        assert!(store.gone(&key("a"), "1").is_some());
        assert!(store.apply(object("a", "1", 6)).is_none(), "a late event");
        listed(&store, vec![object("a", "1", 6)], 6, under_way);
        assert!(store.is_empty(), "the list may be older than the request");
        let later = store.begin_list();
        let changes = listed(&store, vec![object("a", "1", 6)], 9, later);
        assert_eq!(changes.len(), 1);
        assert!(store.get(&key("a")).is_some());
    }

    #[test]
    fn a_store_that_is_doubted_is_believed_again_with_a_list_that_was_begun_later() {
        let store = store();
        store.mark_synced(store.begin_list());
        assert!(store.is_synced());
        let under_way = store.begin_list();
        store.doubt();
        store.mark_synced(under_way);
        assert!(!store.is_synced(), "it is from before the doubt");
        store.mark_synced(store.begin_list());
        assert!(store.is_synced());
    }

    #[test]
    fn those_that_are_being_deleted_are_found_without_a_walk() {
        let going = |name: &str, uid: &str, version| {
            let mut value = Value::clone(&object(name, uid, version).value);
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            Object::new(value).expect("has a name")
        };
        let store = store();
        let names = || {
            let deleting = store.deleting();
            let names = deleting.iter().map(|it| it.key.name.clone());
            names.collect::<Vec<_>>()
        };
        for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
            store.apply(object(name, &at.to_string(), 5));
        }
        assert!(names().is_empty());
        store.apply(going("a", "0", 6));
        store.apply(going("b", "1", 7));
        assert_eq!(names(), ["a", "b"]);
        store.remove(&key("a"), "0", 8);
        assert_eq!(names(), ["b"]);
        // Another object of the name is another.
        store.apply(object("b", "3", 9));
        assert!(names().is_empty());
        let begun = store.begin_list();
        listed(&store, vec![going("c", "2", 10)], 11, begun);
        assert_eq!(names(), ["c"]);
        store.start_over(vec![object("c", "2", 1), going("d", "4", 2)]);
        assert_eq!(names(), ["d"]);
    }

    #[test]
    fn what_leaves_a_selection_and_enters_it_again_is_seen_again() {
        let store = store();
        store.apply(object("a", "1", 5));
        assert!(store.remove(&key("a"), "1", 6).is_some());
        assert!(store.apply(object("a", "1", 7)).is_some());
        assert!(store.get(&key("a")).is_some());
    }

    #[test]
    fn a_fresh_list_removes_what_is_gone_and_keeps_what_was_written_meanwhile() {
        let store = store();
        store.apply(object("old", "1", 5));
        store.apply(object("kept", "2", 6));
        store.apply(object("written", "3", 20));
        let begun = store.begin_list();
        let changes = listed(&store, vec![object("kept", "2", 6)], 10, begun);
        assert_eq!(changes.len(), 1);
        assert_eq!(store.len(), 2);
        assert!(store.get(&key("written")).is_some());
        assert_eq!(store.owned_by("owner").len(), 2);
        assert_eq!(store.of_cluster(&key("c")).len(), 2);
    }

    #[test]
    fn of_a_server_that_has_begun_anew_only_what_it_lists_is_there() {
        let store = store();
        store.apply(object("gone", "1", 50));
        store.apply(object("again", "2", 60));
        store.remove(&key("back"), "3", 70);
        let changes = store.start_over(vec![object("again", "4", 5), object("back", "3", 6)]);
        let uid = |object: &Option<Arc<Object>>| {
            let object = object.as_ref();
            object.map(|it| it.uid.clone()).unwrap_or_default()
        };
        let told = changes.iter().map(|it| (uid(&it.old), uid(&it.new)));
        let told: BTreeSet<(String, String)> = told.collect();
        let pairs = [("1", ""), ("2", "4"), ("", "3")];
        assert_eq!(
            told,
            pairs
                .map(|(old, new)| (old.to_owned(), new.to_owned()))
                .into()
        );
        assert_eq!(store.len(), 2);
        assert_eq!(store.get(&key("again")).unwrap().uid, "4");
        assert!(store.apply(object("again", "4", 7)).is_some());
    }

    #[test]
    fn a_bounded_store_has_room_for_so_much_and_gets_it_back() {
        let size = memory_bytes(&object("a", "1", 5).value);
        let store = Store::bounded(
            Resource::cluster_scoped("", "v1", "Node", "nodes"),
            2 * size,
        );
        for name in ["a", "b"] {
            assert_eq!(store.check_room(&object(name, name, 5)), Ok(()));
            store.apply(object(name, name, 5));
        }
        let third = object("c", "c", 5);
        assert!(matches!(
            store.check_room(&third),
            Err(ApiError::TooLarge(_))
        ));
        // One that takes the place of another needs no more.
        assert_eq!(store.check_room(&object("a", "a", 6)), Ok(()));
        store.apply(object("a", "a", 6));
        store.remove(&key("b"), "b", 6);
        assert_eq!(store.check_room(&third), Ok(()));
    }
}
