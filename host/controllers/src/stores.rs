//! All watch caches of one API server, and who is told of changes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use capstan_api::name::ObjectKey;
use tokio::sync::watch;

use crate::kube_api::{GroupKind, KubeApi, Resource, Selection};
use crate::object::Object;
use crate::store::{Change, Store};
use crate::watcher;

/// Told of every change that was new to a store.
pub trait Listener: Send + Sync + 'static {
    /// `origin` is the controller whose write brought the change, and whether it wrote only the status.
    fn changed(&self, resource: &Resource, change: &Change, origin: Option<Origin>);

    /// Objects of a kind can be seen that could not be seen before.
    fn listed(&self, resource: &Resource);
}

/// Whose write a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the controller.
    pub controller: &'static str,
    /// It wrote the status only: nothing that the controller itself has to look at again.
    pub status_only: bool,
}

/// Watch caches, made when first asked for.
pub struct Stores {
    api: Arc<dyn KubeApi>,
    stores: RwLock<HashMap<GroupKind, Kept>>,
    listener: OnceLock<Arc<dyn Listener>>,
    tasks: crate::tasks::Tasks,
}

/// The caches of one kind.
struct Kept {
    now: Watched,
    /// In another version, while its first list is not in.
    next: Option<Watched>,
}

/// A cache with its watch, which ends when this is dropped.
struct Watched {
    store: Arc<Store>,
    _stop: watch::Sender<()>,
}

impl Stores {
    /// No caches yet.
    #[must_use]
    pub fn new(api: Arc<dyn KubeApi>, tasks: crate::tasks::Tasks) -> Arc<Self> {
        Arc::new(Self {
            api,
            stores: RwLock::default(),
            listener: OnceLock::new(),
            tasks,
        })
    }

    /// Tells this listener of changes. The first call counts.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        // A second listener would be a programming error without consequence: the first stays.
        let _ = self.listener.set(listener);
    }

    /// The store of a kind that is already watched.
    #[must_use]
    pub fn get(&self, kind: &GroupKind) -> Option<Arc<Store>> {
        self.stores
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(kind)
            .map(|kept| Arc::clone(&kept.now.store))
    }

    /// All stores, by no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Store>> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let stores = stores.values();
        stores.map(|kept| Arc::clone(&kept.now.store)).collect()
    }

    /// The store of a resource; watches it from now on.
    pub fn ensure(self: &Arc<Self>, resource: &Resource, selection: Selection) -> Arc<Store> {
        let kind = resource.group_kind();
        if let Some(store) = self.get(&kind) {
            return store;
        }
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        let kept = stores.entry(kind).or_insert_with(|| Kept {
            now: self.watched(resource, selection),
            next: None,
        });
        Arc::clone(&kept.now.store)
    }

    /// The whole store of a resource, as [`Stores::ensure`] gives it. A kind that is watched in another version is watched in this one as well, which
    /// takes the other's place as soon as it is listed: until then, what is known stays known.
    pub fn turn_to(self: &Arc<Self>, resource: &Resource) -> Arc<Store> {
        let store = self.ensure(resource, Selection::default());
        if store.resource() == resource && !self.is_turning(resource) {
            return store;
        }
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = stores.get_mut(&resource.group_kind()) else {
            return store;
        };
        if kept.now.store.resource() == resource {
            kept.next = None;
        } else if !kept.now.store.is_synced() {
            // Nothing is known yet that could stay known.
            kept.now = self.watched(resource, Selection::default());
            kept.next = None;
        } else if kept
            .next
            .as_ref()
            .is_none_or(|next| next.store.resource() != resource)
        {
            kept.next = Some(self.watched(resource, Selection::default()));
        }
        Arc::clone(&kept.now.store)
    }

    fn is_turning(&self, resource: &Resource) -> bool {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let kept = stores.get(&resource.group_kind());
        kept.is_some_and(|kept| kept.next.is_some())
    }

    /// Begins to watch a resource.
    fn watched(self: &Arc<Self>, resource: &Resource, selection: Selection) -> Watched {
        let store = Arc::new(Store::new(resource.clone()));
        let (stop, mut stopped) = watch::channel(());
        let (api, stores) = (Arc::clone(&self.api), Arc::downgrade(self));
        let watched = Arc::clone(&store);
        self.tasks.spawn("watch", async move {
            let watch = watcher::run(api, Arc::clone(&watched), selection, |resource, change| {
                if let Some(stores) = stores.upgrade()
                    && stores.is_now(&watched)
                {
                    stores.notify(resource, &change, None);
                }
            });
            let late = async {
                loop {
                    watched.listed_late().await;
                    if let Some(stores) = stores.upgrade() {
                        stores.tell_listed(&watched);
                    }
                }
            };
            let turn = async {
                watched.synced().await;
                if let Some(stores) = stores.upgrade()
                    && stores.turn(&watched)
                {
                    stores.tell_listed(&watched);
                }
            };
            tokio::select! {
                biased;
                _ = stopped.changed() => {}
                _ = async { tokio::join!(watch, late, turn) } => {}
            }
        });
        Watched { store, _stop: stop }
    }

    /// Whether a store is the one that is asked.
    fn is_now(&self, store: &Arc<Store>) -> bool {
        let now = self.get(&store.resource().group_kind());
        now.is_some_and(|now| Arc::ptr_eq(&now, store))
    }

    /// Puts a store in the place of the one before, if it is to come there.
    fn turn(&self, store: &Arc<Store>) -> bool {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = stores.get_mut(&store.resource().group_kind()) else {
            return false;
        };
        let is_next = |next: &mut Watched| Arc::ptr_eq(&next.store, store);
        match kept.next.take_if(is_next) {
            Some(next) => {
                kept.now = next;
                true
            }
            None => false,
        }
    }

    fn tell_listed(&self, store: &Store) {
        if let Some(listener) = self.listener.get() {
            listener.listed(store.resource());
        }
    }

    /// Takes everything that is held for old, and has it listed anew: until then no kind counts as listed. A watch may be late, waiting to try
    /// again, or dead without knowing. The server is not asked how new it is, and the watch waited for: where nothing
    /// changes, servers say so once a minute only.
    pub fn doubt(&self) {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        for kept in stores.values() {
            kept.now.store.doubt();
            if let Some(next) = &kept.next {
                next.store.doubt();
            }
        }
    }

    /// Kinds whose first list is not in yet.
    #[must_use]
    pub fn unsynced(&self) -> Vec<GroupKind> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores
            .iter()
            .filter(|(_, kept)| !kept.now.store.is_synced())
            .map(|(kind, _)| kind.clone())
            .collect()
    }

    /// One object of a kind that is watched.
    #[must_use]
    pub fn object(&self, kind: &GroupKind, key: &ObjectKey) -> Option<Arc<Object>> {
        self.get(kind)?.get(key)
    }

    /// Takes the answer of a write in and tells of it.
    pub fn written(&self, resource: &Resource, object: impl Into<Arc<Object>>, origin: Origin) {
        if let Some(store) = self.get(&resource.group_kind())
            && let Some(change) = store.apply(object)
        {
            self.notify(resource, &change, Some(origin));
        }
    }

    /// Takes out an object that a request found gone.
    pub fn gone(&self, resource: &Resource, key: &ObjectKey, uid: &str) {
        if let Some(store) = self.get(&resource.group_kind())
            && let Some(change) = store.gone(key, uid)
        {
            self.notify(resource, &change, None);
        }
    }

    fn notify(&self, resource: &Resource, change: &Change, origin: Option<Origin>) {
        if let Some(listener) = self.listener.get() {
            listener.changed(resource, change, origin);
        }
    }
}

#[cfg(test)]
mod tests;
