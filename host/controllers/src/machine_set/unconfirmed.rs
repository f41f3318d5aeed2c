//! Machines that were asked for, or asked to go, while the cache does not show it yet: the answer was lost, or the watch is late.
//!
//! A set that forgot them would ask again, and for others: new names are drawn at each try, and the order of deletion changes with
//! what is seen. So it looks at the server before it decides again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use capstan_api::name::ObjectKey;
use capstan_core::plan::Failure;

use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::ApiError;
use crate::object::Object;
use crate::stores::Origin;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// That a Machine is made.
    Made,
    /// That a Machine goes.
    Gone,
}

impl Wish {
    /// Whether what the cache has shows what became of it.
    fn is_shown(self, seen: Option<&Object>) -> bool {
        match self {
            Self::Made => seen.is_some(),
            Self::Gone => seen.is_none_or(Object::is_deleting),
        }
    }
}

/// Wishes by the set that has them and the Machine's name. At most those of one plan for each set: all are settled before the next.
#[derive(Default)]
pub(super) struct Unconfirmed(Mutex<BTreeMap<ObjectKey, BTreeMap<String, Wish>>>);

impl Unconfirmed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, BTreeMap<String, Wish>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set asks for something.
    pub(super) fn ask(&self, set: &ObjectKey, machine: &str, wish: Wish) {
        let mut all = self.lock();
        let wishes = all.entry(set.clone()).or_default();
        wishes.insert(machine.to_owned(), wish);
    }

    /// The cache shows what became of that.
    pub(super) fn learn(&self, set: &ObjectKey, machine: &str) {
        let mut all = self.lock();
        if let Some(wishes) = all.get_mut(set) {
            wishes.remove(machine);
            if wishes.is_empty() {
                all.remove(set);
            }
        }
    }

    /// The set is gone.
    pub(super) fn forget(&self, set: &ObjectKey) {
        self.lock().remove(set);
    }

    /// Looks for what the cache does not show yet, and takes what is there into it.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub(super) async fn settle(
        &self,
        ctx: &Ctx,
        writer: &Writer,
        set: &ObjectKey,
    ) -> Result<(), Failure> {
        let wishes = self.lock().get(set).cloned().unwrap_or_default();
        for (name, wish) in wishes {
            let key = ObjectKey::new(set.namespace.clone(), name.clone());
            let seen = ctx.get(&kinds::MACHINE, &key);
            if !wish.is_shown(seen.as_deref()) {
                match ctx.api.get(&kinds::MACHINE, &key).await {
                    Ok(found) => {
                        let origin = Origin {
                            controller: writer.controller,
                            status_only: false,
                        };
                        if let Some(machine) = Object::new(found) {
                            ctx.stores.written(&kinds::MACHINE, machine, origin);
                        }
                    }
                    Err(ApiError::NotFound(_)) => {
                        if let Some(seen) = seen {
                            ctx.stores.gone(&kinds::MACHINE, &key, &seen.uid);
                        }
                    }
                    Err(error) => {
                        let doing = format!("looking what became of Machine {key}");
                        return Err(failure(&doing, &error));
                    }
                }
            }
            self.learn(set, &name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn machine(deleted: Option<&str>) -> Object {
        let object = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {
                "name": "m", "namespace": "ns", "uid": "u", "resourceVersion": "1", "deletionTimestamp": deleted,
            },
        });
        Object::new(object).expect("an object")
    }

    #[test]
    fn a_wish_is_open_until_the_cache_shows_what_became_of_it() {
        let (alive, going) = (machine(None), machine(Some("2026-01-01T00:00:00Z")));
        assert!(!Wish::Made.is_shown(None));
        assert!(Wish::Made.is_shown(Some(&alive)));
        assert!(
            !Wish::Gone.is_shown(Some(&alive)),
            "a late watch shows what was"
        );
        assert!(Wish::Gone.is_shown(Some(&going)));
        assert!(Wish::Gone.is_shown(None));
    }

    #[test]
    fn wishes_are_kept_by_set_until_they_are_settled() {
        let wishes = Unconfirmed::default();
        let (one, other) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"));
        wishes.ask(&one, "m", Wish::Made);
        wishes.ask(&one, "n", Wish::Gone);
        wishes.ask(&other, "m", Wish::Gone);
        wishes.learn(&one, "m");
        wishes.learn(&one, "unheard of");
        assert_eq!(
            wishes.lock().get(&one),
            Some(&BTreeMap::from([("n".to_owned(), Wish::Gone)]))
        );
        wishes.forget(&one);
        wishes.learn(&other, "m");
        assert!(wishes.lock().is_empty(), "nothing is kept of what is over");
    }
}
