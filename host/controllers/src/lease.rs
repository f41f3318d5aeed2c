//! Leader election by a Lease: waits for it, renews it, says when it is lost.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::lease::{self, HOLD, Observed, RETRY, Step};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch};

/// Field manager of the writes.
const MANAGER: &str = "capstan-lease";

/// A claim to a Lease.
pub struct Claim {
    api: Arc<dyn KubeApi>,
    key: ObjectKey,
    me: String,
    seen: Option<Seen>,
    renewed: Instant,
}

/// The Lease as it was last read, and since when it has been so.
struct Seen {
    version: String,
    lease: lease::Lease,
    since: Instant,
}

impl Claim {
    /// Claims the Lease of this name for `me`; asks for nothing yet.
    #[must_use]
    pub fn new(api: Arc<dyn KubeApi>, key: ObjectKey, me: String) -> Self {
        Self {
            api,
            key,
            me,
            seen: None,
            renewed: Instant::now(),
        }
    }

    /// Waits until the Lease is held. Requests that fail are repeated.
    pub async fn acquire(&mut self) {
        let mut told: Option<String> = None;
        loop {
            match self.try_once().await {
                Ok(true) => return,
                Ok(false) => {
                    let holder = self
                        .seen
                        .as_ref()
                        .and_then(|seen| seen.lease.holder.clone());
                    if holder != told {
                        let by = holder.as_deref().unwrap_or_default();
                        tracing::info!(lease = %self.key, holder = by, "another host works; standing by");
                        told = holder;
                    }
                }
                Err(error) => {
                    tracing::warn!(lease = %self.key, %error, "cannot read or write the lease")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease until it is lost; the answer says why, for a person.
    pub async fn keep(&mut self) -> String {
        loop {
            tokio::time::sleep(RETRY).await;
            // An answer that comes too late is as bad as none.
            let left = lease::RENEW_DEADLINE.saturating_sub(self.renewed.elapsed());
            match tokio::time::timeout(left, self.try_once()).await {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => {
                    let holder = self
                        .seen
                        .as_ref()
                        .and_then(|seen| seen.lease.holder.clone());
                    let holder = holder.unwrap_or_else(|| "nobody".to_owned());
                    return format!("lease {} is now held by {holder}", self.key);
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = %self.key, %error, "cannot renew the lease");
                }
                Err(_) => {}
            }
            if lease::is_lost(self.renewed.elapsed()) {
                let limit_s = lease::RENEW_DEADLINE.as_secs();
                return format!("lease {} could not be renewed for {limit_s} s", self.key);
            }
        }
    }

    /// Gives the Lease up, so that another need not wait for its end.
    pub async fn release(&mut self) {
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
        if let Err(error) = answer {
            tracing::warn!(lease = %self.key, %error, "the lease stays until it runs out");
        }
    }

    /// Looks once and does what follows. Whether the Lease is held now.
    async fn try_once(&mut self) -> Result<bool, ApiError> {
        let begun = Instant::now();
        if self
            .seen
            .as_ref()
            .is_none_or(|seen| seen.lease.holder.as_deref() != Some(&self.me))
        {
            self.look().await?;
        }
        let unchanged_for = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |s| s.since.elapsed());
        let lease = self.seen.as_ref().map(|seen| &seen.lease);
        let step = lease::decide(&Observed {
            me: &self.me,
            lease,
            unchanged_for,
        });
        let stored = match self.write(step).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(false),
            // Somebody else was faster, or the Lease is gone: look at what is there now.
            Err(ApiError::Conflict(_) | ApiError::AlreadyExists(_) | ApiError::NotFound(_)) => {
                self.look().await?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.take_in(&stored);
        self.renewed = begun;
        Ok(true)
    }

    async fn look(&mut self) -> Result<(), ApiError> {
        match self.api.get(&kinds::LEASE, &self.key).await {
            Ok(stored) => self.take_in(&stored),
            Err(ApiError::NotFound(_)) => self.seen = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write(&self, step: Step) -> Result<Option<Value>, ApiError> {
        let now = format!("{:.6}", Timestamp::now());
        let renewed = json!({
            "holderIdentity": self.me, "leaseDurationSeconds": HOLD.as_secs(), "renewTime": now,
        });
        let taken = |transitions: u64| {
            json!({
                "holderIdentity": self.me, "leaseDurationSeconds": HOLD.as_secs(), "renewTime": now,
                "acquireTime": now, "leaseTransitions": transitions,
            })
        };
        let spec = match step {
            Step::Wait => return Ok(None),
            Step::Renew => renewed,
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
                    .await
                    .map(Some);
            }
        };
        let version = self.seen.as_ref().map(|seen| seen.version.as_str());
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "spec": spec}));
        self.api
            .patch(&kinds::LEASE, &self.key, None, &patch, MANAGER)
            .await
            .map(Some)
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
