//! What the host does for guests: one core for all versions of the WIT interfaces, so that no version has its own permission check.

pub(crate) mod address;
pub(crate) mod ambient;
pub(crate) mod connect;
pub(crate) mod event;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod secret;
pub(crate) mod sign;
pub(crate) mod state;
pub(crate) mod workload;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_core::call::{Mode, State};
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::grant::{CredentialScheme, Grants};
use crate::limit::GUEST_BLOCKING_MAX;
use crate::secret::SecretTable;
use crate::tape::Tape;
use crate::trace::CallId;

/// Keeps a plugin's state of one object; made for each call, for the object of that call.
pub trait StateStore: Send + Sync {
    /// What was last kept. The error is for a log line and names no secret.
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>>;
    /// Keeps it; durable when the future ends well.
    fn put(&self, value: State) -> BoxFuture<'_, Result<(), String>>;
}

/// Finds the secret of a granted credential.
pub trait CredentialSource: Send + Sync {
    /// The credential that the Plugin object calls `name`. The error is shown to the plugin and names no secret.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, String>>;
}

/// A secret and how it is added to a request.
#[derive(Clone)]
pub struct Credential {
    /// Must be what the grant says.
    pub scheme: CredentialScheme,
    /// The token, `user:password`, the header's value, a key of AWS, or a certificate with its private key as PEM.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}

/// A source for calls without credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCredentials;

impl CredentialSource for NoCredentials {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, String>> {
        let why = format!("no credential is named {name}");
        Box::pin(async move { Err(why) })
    }
}

/// An effect that a call in plan mode would have had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEffect {
    /// Capability.
    pub capability: &'static str,
    /// One line for a person: method and URL, or the size of a state.
    pub what: String,
}

/// Collects the effects of one call in plan mode; clones share what they collect.
#[derive(Clone, Debug, Default)]
pub struct PlannedEffects(Arc<Mutex<Vec<PlannedEffect>>>);

impl PlannedEffects {
    /// All effects so far, in order.
    #[must_use]
    pub fn list(&self) -> Vec<PlannedEffect> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes out what was collected.
    #[must_use]
    pub fn take(&self) -> Vec<PlannedEffect> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, capability: &'static str, what: String) {
        let mut effects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if effects.len() < crate::limit::LIST_ENTRIES_MAX {
            effects.push(PlannedEffect { capability, what });
        }
    }
}

/// Whose call it is: added to everything that is logged.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) plugin: String,
    pub(crate) object: String,
    pub(crate) digest: Arc<str>,
    pub(crate) function: &'static str,
    pub(crate) call: CallId,
}

/// Everything that one call may reach.
pub(crate) struct Capabilities {
    pub(crate) identity: Identity,
    pub(crate) mode: Mode,
    pub(crate) grants: Arc<Grants>,
    pub(crate) secrets: SecretTable,
    pub(crate) planned: PlannedEffects,
    pub(crate) log: log::LogBudget,
    pub(crate) state: state::ObjectState,
    /// Of one answer, see [`crate::Limits::answer_bytes`].
    pub(crate) answer_bytes_max: usize,
    pub(crate) http: http::CallHttp,
    pub(crate) secret_reads: secret::CallSecrets,
    pub(crate) workload: workload::CallWorkload,
    /// Reads of files and directories so far.
    pub(crate) files_operations: u32,
    pub(crate) events: event::CallEvents,
    /// What goes through, for a record or from one.
    pub(crate) tape: Tape,
    /// Where host work runs: never on the guests' threads.
    pub(crate) host: tokio::runtime::Handle,
}

/// What guests make the host's threads wait for: names and files.
static BLOCKING: Semaphore = Semaphore::const_new(GUEST_BLOCKING_MAX);

/// Runs what blocks, as soon as fewer than [`GUEST_BLOCKING_MAX`] others do. It keeps its place until it has ended, also when nobody waits for
/// it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let broken = || "the host is stopping".to_owned();
    let place = BLOCKING.acquire().await.map_err(|_| broken())?;
    let work = move || {
        let _place = place;
        work()
    };
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| broken())
}

/// Runs host work on the host's threads and drops it when the call is dropped.
pub(crate) async fn on_host<T: Send + 'static>(
    host: &tokio::runtime::Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let task = crate::call::AbortOnDrop(host.spawn(work));
    task.join()
        .await
        .map_err(|_| "the host is stopping".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn what_guests_wait_for_leaves_threads_to_the_host() {
        let gate = Arc::new(Barrier::new(GUEST_BLOCKING_MAX.saturating_add(1)));
        let begun = Arc::new(Semaphore::new(0));
        let held: Vec<_> = (0..GUEST_BLOCKING_MAX)
            .map(|_| {
                let (gate, begun) = (gate.clone(), begun.clone());
                tokio::spawn(blocking(move || {
                    begun.add_permits(1);
                    gate.wait();
                }))
            })
            .collect();
        let all = u32::try_from(GUEST_BLOCKING_MAX).unwrap();
        begun.acquire_many(all).await.unwrap().forget();
        let mut next = Box::pin(blocking(|| 1));
        assert!(futures::poll!(&mut next).is_pending());
        let host = tokio::task::spawn_blocking(move || gate.wait());
        assert!(host.await.is_ok());
        for call in held {
            assert_eq!(call.await.unwrap(), Ok(()));
        }
        assert_eq!(next.await, Ok(1));
    }
}
