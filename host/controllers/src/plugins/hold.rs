//! Workers of controllers that plugins hold while they are called. A plugin that is slow gets one more only while more are free than it
//! holds: alone it can have half of them, and objects that need another plugin, or none, find a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who holds how many, by controller and plugin.
#[derive(Debug, Default)]
pub(super) struct Workers(Mutex<BTreeMap<Holder, usize>>);

type Holder = (&'static str, String);

/// A worker that a plugin holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    workers: Arc<Workers>,
    holder: Holder,
}

impl Workers {
    pub(super) fn hold(
        self: &Arc<Self>,
        controller: &'static str,
        workers: usize,
        plugin: &str,
    ) -> Option<Held> {
        let holder = (controller, plugin.to_owned());
        let mut held = self.lock();
        let of_controller = held.iter().filter(|((of, _), _)| *of == controller);
        let taken = of_controller.fold(0_usize, |sum, (_, count)| sum.saturating_add(*count));
        let own = held.get(&holder).copied().unwrap_or_default();
        if own >= workers.saturating_sub(taken) {
            return None;
        }
        held.insert(holder.clone(), own.saturating_add(1));
        drop(held);
        Some(Held {
            workers: Arc::clone(self),
            holder,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Holder, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.workers.lock();
        let left = held
            .get(&self.holder)
            .map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            held.remove(&self.holder);
        } else {
            held.insert(self.holder.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_plugin_leaves_workers_for_others_and_gets_them_back() {
        let workers = Arc::new(Workers::default());
        let take = |plugin: &str| workers.hold("machine", 50, plugin);
        let slow: Vec<Held> = std::iter::from_fn(|| take("slow")).collect();
        assert_eq!(slow.len(), 25);
        let other: Vec<Held> = std::iter::from_fn(|| take("other")).collect();
        assert_eq!(other.len(), 13);
        assert!(take("slow").is_none() && take("third").is_some());
        // Workers of another controller are others.
        assert!(workers.hold("machine-deployment", 50, "slow").is_some());
        drop((slow, other));
        assert!(workers.lock().is_empty());
        assert!(take("slow").is_some());
    }
}
