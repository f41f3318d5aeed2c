//! Secrets of clusters: read when needed and kept for a moment; certificates, keys and kubeconfigs made when they are missing.
//!
//! Secrets are not watched: most of a management cluster's Secrets are nobody's business here, and their content must not
//! stay in memory.

pub mod ensure;
pub mod kubeconfig;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use serde_json::Value;
use tokio::time::Instant;

use crate::kinds;
use crate::kube_api::{ApiError, KubeApi};

/// How long a Secret that was read is believed to be unchanged.
const TTL: Duration = Duration::from_secs(30);

/// How much is kept at most, by content: a thousand Secrets of a cluster, or a few hundred of bootstrap data.
const BYTES_MAX: usize = 4 << 20;

/// A Secret as it was read.
#[derive(Clone, PartialEq)]
pub struct SecretData {
    /// Its content.
    pub data: BTreeMap<String, Vec<u8>>,
    /// `type`.
    pub secret_type: String,
    /// `metadata`, which holds nothing secret.
    pub metadata: Value,
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretData")
            .field("keys", &self.data.keys())
            .finish_non_exhaustive()
    }
}

impl SecretData {
    /// Reads a Secret out of its JSON; values that are not base64 are left out.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let fields = object.get("data").and_then(Value::as_object);
        let data = fields
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), BASE64.decode(value.as_str()?).ok()?)));
        Self {
            data: data.collect(),
            secret_type: object
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            metadata: object.get("metadata").cloned().unwrap_or_default(),
        }
    }

    /// A value as text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.data.get(key)?).ok()
    }

    /// Owner reference of the managing controller.
    #[must_use]
    pub fn controller(&self) -> Option<&Value> {
        let owners = self.metadata.get("ownerReferences")?.as_array()?;
        owners
            .iter()
            .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
    }

    /// UID of the managing controller.
    #[must_use]
    pub fn controller_uid(&self) -> Option<&str> {
        self.controller()?.get("uid")?.as_str()
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.get("annotations")?.get(name)?.as_str()
    }

    fn bytes(&self) -> usize {
        self.data
            .values()
            .map(Vec::len)
            .fold(512, usize::saturating_add)
    }
}

/// Secrets that were read or written lately. Clones share them.
#[derive(Clone, Default)]
pub struct Secrets {
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<ObjectKey, Entry>,
    bytes: usize,
}

struct Entry {
    secret: Arc<SecretData>,
    read: Instant,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} kept)", self.lock().entries.len())
    }
}

impl Secrets {
    /// A Secret, as it was at most half a minute ago; `None` when there is none.
    ///
    /// # Errors
    /// What the server said.
    pub async fn get(
        &self,
        api: &dyn KubeApi,
        key: &ObjectKey,
    ) -> Result<Option<Arc<SecretData>>, ApiError> {
        if let Some(secret) = self.lock().fresh(key, Instant::now()) {
            return Ok(Some(secret));
        }
        self.read(api, key).await
    }

    /// A Secret as it is now.
    ///
    /// # Errors
    /// What the server said.
    pub async fn read(
        &self,
        api: &dyn KubeApi,
        key: &ObjectKey,
    ) -> Result<Option<Arc<SecretData>>, ApiError> {
        match api.get(&kinds::SECRET, key).await {
            Ok(object) => Ok(Some(self.remember(key, &object))),
            Err(ApiError::NotFound(_)) => {
                self.forget(key);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a Secret in that a request answered with.
    pub fn remember(&self, key: &ObjectKey, object: &Value) -> Arc<SecretData> {
        let secret = Arc::new(SecretData::read(object));
        self.lock()
            .insert(key.clone(), Arc::clone(&secret), Instant::now());
        secret
    }

    /// The next [`Secrets::get`] asks the server.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn fresh(&mut self, key: &ObjectKey, now: Instant) -> Option<Arc<SecretData>> {
        let entry = self.entries.get(key)?;
        if now.saturating_duration_since(entry.read) < TTL {
            return Some(Arc::clone(&entry.secret));
        }
        self.remove(key);
        None
    }

    fn insert(&mut self, key: ObjectKey, secret: Arc<SecretData>, now: Instant) {
        self.remove(&key);
        let bytes = secret.bytes();
        if self.bytes.saturating_add(bytes) > BYTES_MAX {
            let old: Vec<ObjectKey> = self
                .entries
                .iter()
                .filter(|(_, e)| now.saturating_duration_since(e.read) >= TTL)
                .map(|(key, _)| key.clone())
                .collect();
            old.iter().for_each(|key| self.remove(key));
        }
        if self.bytes.saturating_add(bytes) > BYTES_MAX {
            // All of it is fresh and used: what is read again costs one request.
            self.entries.clear();
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.insert(key, Entry { secret, read: now });
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.secret.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_content_is_never_printed() {
        let secret =
            SecretData::read(&json!({"type": "t", "data": {"k": BASE64.encode("hunter2")}}));
        assert_eq!(secret.text("k"), Some("hunter2"));
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(format!("{secret:?}").contains('k'));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_in_time_and_size() {
        let secrets = Secrets::default();
        let key = |n: usize| ObjectKey::new("ns", format!("s{n}"));
        let big = json!({"data": {"k": BASE64.encode(vec![7; 1 << 20])}});
        for n in 0..8 {
            secrets.remember(&key(n), &big);
        }
        assert!(secrets.lock().bytes <= BYTES_MAX);
        assert!(secrets.lock().fresh(&key(7), Instant::now()).is_some());
        tokio::time::advance(TTL).await;
        assert!(secrets.lock().fresh(&key(7), Instant::now()).is_none());
        secrets.forget(&key(6));
        assert!(secrets.lock().bytes <= BYTES_MAX);
    }
}
