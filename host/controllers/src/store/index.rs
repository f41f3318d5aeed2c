//! The indexes of a store: keys of objects by what is asked for often.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::name::ObjectKey;

use crate::object::Object;

/// Indexes of the objects of one store.
#[derive(Default)]
pub(super) struct Index {
    by_owner: BTreeMap<String, BTreeSet<ObjectKey>>,
    by_cluster: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Those that are being deleted.
    deleting: BTreeSet<ObjectKey>,
}

impl Index {
    pub(super) fn add(&mut self, object: &Object) {
        if object.is_deleting() {
            self.deleting.insert(object.key.clone());
        }
        for owner in object.owners() {
            self.by_owner
                .entry(owner.uid.to_owned())
                .or_default()
                .insert(object.key.clone());
        }
        if let Some(cluster) = object.cluster() {
            self.by_cluster
                .entry(cluster)
                .or_default()
                .insert(object.key.clone());
        }
    }

    /// Takes out an object as it was taken in.
    pub(super) fn remove(&mut self, object: &Object) {
        self.deleting.remove(&object.key);
        for owner in object.owners() {
            if let Some(keys) = self.by_owner.get_mut(owner.uid) {
                keys.remove(&object.key);
                if keys.is_empty() {
                    self.by_owner.remove(owner.uid);
                }
            }
        }
        if let Some(cluster) = object.cluster()
            && let Some(keys) = self.by_cluster.get_mut(&cluster)
        {
            keys.remove(&object.key);
            if keys.is_empty() {
                self.by_cluster.remove(&cluster);
            }
        }
    }

    /// With an owner reference to this UID.
    pub(super) fn owned_by(&self, uid: &str) -> impl Iterator<Item = &ObjectKey> {
        self.by_owner.get(uid).into_iter().flatten()
    }

    /// Of this cluster.
    pub(super) fn of_cluster(&self, cluster: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_cluster.get(cluster).into_iter().flatten()
    }

    /// Those that are being deleted.
    pub(super) fn deleting(&self) -> impl Iterator<Item = &ObjectKey> {
        self.deleting.iter()
    }
}
