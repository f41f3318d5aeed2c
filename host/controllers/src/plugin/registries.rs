//! Turns at registries: one that hangs holds a few tasks that ask it, and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_engine::Reference;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions to one registry at the same time: the answers to two come one behind the other on a usual line anyway.
const PER_REGISTRY: usize = 2;

/// Pulls at the same time: eight sources of 16 MiB are an eighth of what a host's container has.
const PULLS_MAX: usize = 8;

/// Registries that are remembered, those that are asked now apart.
const REGISTRIES_MAX: usize = 64;

/// Whose turn it is.
pub(super) struct Registries {
    own: Mutex<HashMap<String, Arc<Semaphore>>>,
    pulls: Arc<Semaphore>,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            own: Mutex::default(),
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
        }
    }
}

/// Permission to ask a registry.
pub(super) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _pull: Option<OwnedSemaphorePermit>,
}

impl Registries {
    /// Waits for a turn to ask about this image.
    pub(super) async fn question(&self, image: &str) -> Turn {
        let own = self.own(&host_of(image));
        Turn {
            _own: own.acquire_owned().await.ok(),
            _pull: None,
        }
    }

    /// The same to pull it.
    pub(super) async fn pull(&self, image: &str) -> Turn {
        let turn = self.question(image).await;
        let pull = Arc::clone(&self.pulls).acquire_owned().await;
        Turn {
            _pull: pull.ok(),
            ..turn
        }
    }

    fn own(&self, host: &str) -> Arc<Semaphore> {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REGISTRIES_MAX {
            all.retain(|_, turns| {
                Arc::strong_count(turns) > 1 || turns.available_permits() < PER_REGISTRY
            });
        }
        let turns = all
            .entry(host.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(PER_REGISTRY)));
        Arc::clone(turns)
    }
}

/// The registry of an image; one that is not well-formed is refused before anybody is asked.
pub(super) fn host_of(image: &str) -> String {
    let reference = Reference::parse(image);
    reference.map_or_else(|_| String::new(), |reference| reference.host().to_owned())
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn a_registry_that_hangs_keeps_only_its_own_waiting() {
        let all = Registries::default();
        let slow = "slow.example.com/team/plugin:1";
        let mut held = Vec::new();
        for _ in 0..PER_REGISTRY {
            held.push(all.pull(slow).now_or_never().unwrap());
        }
        let mut next = Box::pin(all.question(slow));
        assert!(poll!(&mut next).is_pending());
        assert!(all.pull("other.example.com/p:1").now_or_never().is_some());
        held.pop();
        assert!(poll!(&mut next).is_ready());
    }

    #[tokio::test]
    async fn registries_are_remembered_within_bounds() {
        let all = Registries::default();
        let held = all.question("held.example.com/p:1").await;
        for n in 0..REGISTRIES_MAX * 2 {
            drop(all.question(&format!("r{n}.example.com/p:1")).await);
        }
        let known = all.own.lock().unwrap();
        assert!(known.len() <= REGISTRIES_MAX && known.contains_key("held.example.com"));
        drop(held);
    }
}
