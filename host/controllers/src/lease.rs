//! Leader election by a Lease: waits for it, renews it, says when it is lost.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::lease::{self, Observed, Step, Terms};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::access::Access;
use crate::fence::Fence;
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch, Selection, WatchEvent};

/// Field manager of the writes.
const MANAGER: &str = "capstan-lease";

/// Name of the Lease that hosts compete for.
pub const NAME: &str = "capstan";

/// What a host does with its Lease.
#[must_use]
pub fn access() -> Vec<Access> {
    let to_lease = |verbs| Access::to(&kinds::LEASE, verbs).in_own_namespace();
    vec![
        to_lease(&["create"]),
        to_lease(&["get", "watch", "patch"]).named(NAME),
    ]
}

/// A claim to a Lease.
pub struct Claim {
    api: Arc<dyn KubeApi>,
    key: ObjectKey,
    me: String,
    terms: Terms,
    fence: Fence,
    seen: Option<Seen>,
    renewed: Instant,
}

/// What a look at the Lease came to.
enum Turn {
    /// It is mine.
    Held,
    /// It is somebody else's, at least for this time unless it changes.
    Wait(Duration),
}

/// The Lease as it was last read, and since when it has been so.
struct Seen {
    version: String,
    lease: lease::Lease,
    since: Instant,
}

impl Claim {
    /// Claims the Lease [`NAME`] of this namespace for `me`; asks for nothing yet. The fence is open while it is held.
    #[must_use]
    pub fn new(
        api: Arc<dyn KubeApi>,
        namespace: &str,
        me: String,
        terms: Terms,
        fence: Fence,
    ) -> Self {
        Self {
            api,
            key: ObjectKey::new(namespace, NAME),
            me,
            terms,
            fence,
            seen: None,
            renewed: Instant::now(),
        }
    }

    /// Waits until the Lease is held. Requests that fail are repeated.
    pub async fn acquire(&mut self) {
        let mut told: Option<String> = None;
        loop {
            let wait = match self.try_once().await {
                Ok(Turn::Held) => return,
                Ok(Turn::Wait(wait)) => {
                    let holder = self.holder();
                    if holder != told {
                        let by = holder.as_deref().unwrap_or_default();
                        tracing::info!(lease = %self.key, holder = by, "another host works; standing by");
                        told = holder;
                    }
                    wait
                }
                Err(error) => {
                    tracing::warn!(lease = %self.key, %error, "cannot read or write the lease");
                    self.terms.retry
                }
            };
            self.changed(wait).await;
        }
    }

    fn holder(&self) -> Option<String> {
        self.seen.as_ref()?.lease.holder.clone()
    }

    /// Waits until the Lease may be free: for this time since it last changed, or until it is given up or deleted. Every renewal is
    /// seen when it is made, so that the time is counted from then and not from a later look.
    async fn changed(&mut self, wait: Duration) {
        let begun = Instant::now();
        let mut until = begun.checked_add(wait).unwrap_or(begun);
        let Some(version) = self.seen.as_ref().map(|seen| seen.version.clone()) else {
            return sleep_until(until).await;
        };
        let selection = Selection {
            namespace: Some(self.key.namespace.clone()),
            fields: Some(format!("metadata.name={}", self.key.name)),
            ..Selection::default()
        };
        let api = Arc::clone(&self.api);
        let watch = api.watch(&kinds::LEASE, &selection, &version);
        let Ok(Ok(mut events)) = timeout_at(until, watch).await else {
            // Asked again by looking.
            let soon = begun.checked_add(self.terms.retry).unwrap_or(begun);
            return sleep_until(until.min(soon)).await;
        };
        loop {
            match timeout_at(until, events.next()).await {
                Ok(Some(Ok(WatchEvent::Applied(stored)))) => {
                    self.take_in(&stored);
                    match self.decide() {
                        Step::Wait(left) => {
                            let now = Instant::now();
                            until = now.checked_add(left).unwrap_or(now);
                        }
                        _ => return,
                    }
                }
                Ok(Some(Ok(WatchEvent::Bookmark(_)))) => {}
                Ok(Some(Ok(WatchEvent::Deleted(_)))) | Err(_) => return,
                Ok(None | Some(Err(_))) => {
                    let now = Instant::now();
                    let soon = now.checked_add(self.terms.retry).unwrap_or(now);
                    return sleep_until(until.min(soon)).await;
                }
            }
        }
    }

    /// Renews the Lease until it is lost; the answer says why, for a person.
    pub async fn keep(&mut self) -> String {
        let why = self.kept().await;
        self.fence.close();
        why
    }

    async fn kept(&mut self) -> String {
        let lost = |claim: &Self| {
            let limit_s = claim.terms.renew_deadline.as_secs();
            format!("lease {} could not be renewed for {limit_s} s", claim.key)
        };
        loop {
            tokio::time::sleep(self.terms.retry).await;
            // The process may have been stopped meanwhile: then another holds it, and nothing is asked any more.
            if self.terms.is_lost(self.renewed.elapsed()) {
                return lost(self);
            }
            // An answer that comes too late is as bad as none.
            let left = self
                .terms
                .renew_deadline
                .saturating_sub(self.renewed.elapsed());
            match tokio::time::timeout(left, self.try_once()).await {
                Ok(Ok(Turn::Held)) => continue,
                Ok(Ok(Turn::Wait(_))) => {
                    let holder = self.holder().unwrap_or_else(|| "nobody".to_owned());
                    return format!("lease {} is now held by {holder}", self.key);
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = %self.key, %error, "cannot renew the lease");
                }
                Err(_) => {}
            }
            if self.terms.is_lost(self.renewed.elapsed()) {
                return lost(self);
            }
        }
    }

    /// Gives the Lease up, so that another need not wait for its end.
    pub async fn release(&mut self) {
        self.fence.close();
        let Some(seen) = self
            .seen
            .as_ref()
            .filter(|s| s.lease.holder.as_deref() == Some(&self.me))
        else {
            return;
        };
        let patch = json!({
            "metadata": {"resourceVersion": seen.version},
            "spec": {"holderIdentity": null, "leaseDurationSeconds": 1},
        });
        let patch = Patch::Merge(patch);
        let answer = self
            .api
            .patch(&kinds::LEASE, &self.key, None, &patch, MANAGER)
            .await;
        match answer {
            Ok(_) => tracing::info!(lease = %self.key, "the lease is given back"),
            Err(error) => {
                tracing::warn!(lease = %self.key, %error, "the lease stays until it runs out");
            }
        }
    }

    /// Looks once and does what follows.
    async fn try_once(&mut self) -> Result<Turn, ApiError> {
        let begun = Instant::now();
        if self.holder().as_deref() != Some(&self.me) {
            self.look().await?;
        }
        let step = self.decide();
        if let Step::Wait(left) = step {
            return Ok(Turn::Wait(left));
        }
        let stored = match self.write(step).await {
            Ok(stored) => stored,
            // Somebody else was faster, or the Lease is gone: look at what is there now.
            Err(ApiError::Conflict(_) | ApiError::AlreadyExists(_) | ApiError::NotFound(_)) => {
                self.look().await?;
                return Ok(match self.decide() {
                    Step::Wait(left) => Turn::Wait(left),
                    _ => Turn::Wait(Duration::ZERO),
                });
            }
            Err(error) => return Err(error),
        };
        self.take_in(&stored);
        self.renewed = begun;
        let until = begun.checked_add(self.terms.renew_deadline);
        self.fence.open_until(until.unwrap_or(begun));
        Ok(Turn::Held)
    }

    fn decide(&self) -> Step {
        let seen = self.seen.as_ref();
        lease::decide(&Observed {
            me: &self.me,
            lease: seen.map(|seen| &seen.lease),
            unchanged_for: seen.map_or(Duration::ZERO, |seen| seen.since.elapsed()),
        })
    }

    async fn look(&mut self) -> Result<(), ApiError> {
        match self.api.get(&kinds::LEASE, &self.key).await {
            Ok(stored) => self.take_in(&stored),
            Err(ApiError::NotFound(_)) => self.seen = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write(&self, step: Step) -> Result<Value, ApiError> {
        let now = format!("{:.6}", Timestamp::now());
        let hold_s = self.terms.hold.as_secs();
        let taken = |transitions: u64| {
            json!({
                "holderIdentity": self.me, "leaseDurationSeconds": hold_s, "renewTime": now,
                "acquireTime": now, "leaseTransitions": transitions,
            })
        };
        let spec = match step {
            Step::Renew | Step::Wait(_) => {
                json!({"holderIdentity": self.me, "leaseDurationSeconds": hold_s, "renewTime": now})
            }
            Step::Take { transitions } => taken(transitions),
            Step::Create => {
                let lease = json!({
                    "apiVersion": kinds::LEASE.api_version(), "kind": kinds::LEASE.kind,
                    "metadata": {"namespace": self.key.namespace, "name": self.key.name},
                    "spec": taken(0),
                });
                let namespace = &self.key.namespace;
                return self
                    .api
                    .create(&kinds::LEASE, namespace, &lease, MANAGER)
                    .await;
            }
        };
        let version = self.seen.as_ref().map(|seen| seen.version.as_str());
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "spec": spec}));
        self.api
            .patch(&kinds::LEASE, &self.key, None, &patch, MANAGER)
            .await
    }

    fn take_in(&mut self, stored: &Value) {
        let text = |path: &str| {
            stored
                .pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let number = |path: &str| stored.pointer(path).and_then(Value::as_u64);
        let version = text("/metadata/resourceVersion").unwrap_or_default();
        if self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.version == version)
        {
            return;
        }
        let lease = lease::Lease {
            holder: text("/spec/holderIdentity").filter(|holder| !holder.is_empty()),
            duration: number("/spec/leaseDurationSeconds").map(Duration::from_secs),
            transitions: number("/spec/leaseTransitions").unwrap_or_default(),
        };
        self.seen = Some(Seen {
            version,
            lease,
            since: Instant::now(),
        });
    }
}

/// A name for this process that no other has: the machine's name and something random.
#[must_use]
pub fn identity() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Some(machine.trim())
        .filter(|name| !name.is_empty())
        .unwrap_or("host")
        .to_owned();
    format!("{machine}_{:016x}", rand::random::<u64>())
}
