//! All watch caches of one API server, and who is told of changes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use capstan_api::name::ObjectKey;

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
    stores: RwLock<HashMap<GroupKind, Arc<Store>>>,
    listener: OnceLock<Arc<dyn Listener>>,
    tasks: crate::tasks::Tasks,
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
            .cloned()
    }

    /// All stores, by no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Store>> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.values().cloned().collect()
    }

    /// The store of a resource; watches it from now on.
    pub fn ensure(self: &Arc<Self>, resource: &Resource, selection: Selection) -> Arc<Store> {
        let kind = resource.group_kind();
        if let Some(store) = self.get(&kind) {
            return store;
        }
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&kind) {
            return Arc::clone(store);
        }
        let store = Arc::new(Store::new(resource.clone()));
        stores.insert(kind, Arc::clone(&store));
        drop(stores);
        let api = Arc::clone(&self.api);
        let listener = Arc::downgrade(self);
        let watched = Arc::clone(&store);
        self.tasks.spawn("watch", async move {
            let watch = watcher::run(api, Arc::clone(&watched), selection, |resource, change| {
                if let Some(stores) = listener.upgrade() {
                    stores.notify(resource, &change, None);
                }
            });
            let late = async {
                loop {
                    watched.listed_late().await;
                    if let Some(stores) = listener.upgrade()
                        && let Some(listener) = stores.listener.get()
                    {
                        listener.listed(watched.resource());
                    }
                }
            };
            tokio::join!(watch, late);
        });
        store
    }

    /// Kinds whose first list is not in yet.
    #[must_use]
    pub fn unsynced(&self) -> Vec<GroupKind> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores
            .iter()
            .filter(|(_, store)| !store.is_synced())
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
            && let Some(change) = store.remove(key, uid, u64::MAX)
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
