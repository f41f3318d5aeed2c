//! Machines that were asked for without an answer. Their names are drawn anew at each try, so a set that forgot them would make too
//! many: it looks for them on the server before it decides again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use capstan_api::name::ObjectKey;
use capstan_core::plan::Failure;

use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::ApiError;
use crate::object::Object;
use crate::stores::Origin;

/// Names of Machines by the set that asked for them. At most those of one plan for each set: no other is made before these are
/// settled.
#[derive(Default)]
pub(super) struct Unconfirmed(Mutex<BTreeMap<ObjectKey, BTreeSet<String>>>);

impl Unconfirmed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, BTreeSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set asks for a Machine.
    pub(super) fn ask(&self, set: &ObjectKey, machine: &str) {
        let mut all = self.lock();
        let names = all.entry(set.clone()).or_default();
        names.insert(machine.to_owned());
    }

    /// It is known what became of that.
    pub(super) fn learn(&self, set: &ObjectKey, machine: &str) {
        let mut all = self.lock();
        if let Some(names) = all.get_mut(set) {
            names.remove(machine);
            if names.is_empty() {
                all.remove(set);
            }
        }
    }

    /// The set is gone.
    pub(super) fn forget(&self, set: &ObjectKey) {
        self.lock().remove(set);
    }

    /// Looks for what was asked for without an answer, and takes what is there into the cache.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub(super) async fn settle(
        &self,
        ctx: &Ctx,
        writer: &Writer,
        set: &ObjectKey,
    ) -> Result<(), Failure> {
        let names = self.lock().get(set).cloned().unwrap_or_default();
        for name in names {
            let key = ObjectKey::new(set.namespace.clone(), name.clone());
            if ctx.get(&kinds::MACHINE, &key).is_none() {
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
                    Err(ApiError::NotFound(_)) => {}
                    Err(error) => {
                        let doing = format!("looking whether Machine {key} was made");
                        return Err(failure(&doing, &error));
                    }
                }
            }
            self.learn(set, &name);
        }
        Ok(())
    }
}
