//! The `secret` capability: granted keys of Secrets, by a handle for `http` or, with a stronger grant, by their bytes.

use std::fmt;
use std::sync::Arc;

use capstan_core::call::SecretHandle;
use futures::future::BoxFuture;
use serde::Serialize;

use super::{Capabilities, on_host};
use crate::grant::SecretGrant;
use crate::limit::{SECRET_READS_MAX, TEXT_BYTES_MAX};
use crate::stats::Function;
use crate::text::{clipped, one_line};

/// Reads Secrets for one call.
pub trait SecretSource: Send + Sync {
    /// One key of a Secret; `None` when there is no such Secret or key. The error is shown to the plugin and names no secret.
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<FoundSecret>, String>>;
}

/// A key of a Secret.
#[derive(Clone)]
pub struct FoundSecret {
    /// Its value.
    pub bytes: Vec<u8>,
    /// `type` of the Secret.
    pub secret_type: String,
}

impl fmt::Debug for FoundSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundSecret")
            .field("secret_type", &self.secret_type)
            .finish_non_exhaustive()
    }
}

/// Types of Secrets that a grant must name exactly: private keys and kubeconfigs of clusters, bootstrap tokens, service accounts. A
/// beginning such as `a-*` is written with other Secrets in mind.
const EXACT_TYPES: [&str; 3] = [
    "cluster.x-k8s.io/secret",
    "bootstrap.kubernetes.io/token",
    "kubernetes.io/service-account-token",
];

/// What one call may read.
pub(crate) struct CallSecrets {
    source: Option<Arc<dyn SecretSource>>,
    /// Of the call's object.
    namespace: String,
    reads: u32,
    /// The guest has bytes of a Secret in its memory.
    has_bytes: bool,
}

impl CallSecrets {
    pub(crate) fn new(source: Option<Arc<dyn SecretSource>>, namespace: String) -> Self {
        Self {
            source,
            namespace,
            reads: 0,
            has_bytes: false,
        }
    }
}

/// A guest's question.
#[derive(Clone, Debug)]
pub(crate) struct SecretKey {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) key: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretError {
    Denied(String),
    NotFound(String),
    Invalid(String),
    Limit(String),
    Failed(String),
}

impl Capabilities {
    /// A handle for the secret.
    pub(crate) async fn secret_open(
        &mut self,
        asked: SecretKey,
    ) -> Result<SecretHandle, SecretError> {
        let bytes = self.secret(&asked, false).await?;
        Ok(self.secrets.open(bytes))
    }

    /// The secret itself. It is kept out of logs and events all the same.
    pub(crate) async fn secret_read(&mut self, asked: SecretKey) -> Result<Vec<u8>, SecretError> {
        let bytes = self.secret(&asked, true).await?;
        self.tape.must_not_keep(
            "the plugin has read the bytes of a Secret, and what it makes of them cannot be told",
        );
        self.secrets.open(bytes.clone());
        self.secret_reads.has_bytes = true;
        Ok(bytes)
    }

    /// Whether an answer has in it what the call has read of Secrets. Answers end up in objects, which more people read than
    /// Secrets. Bootstrap data does not: it is a Secret itself.
    pub(crate) fn shows_secrets(&self, answer: &impl Serialize) -> bool {
        if !self.secret_reads.has_bytes || self.identity.function == Function::Render.as_str() {
            return false;
        }
        let Ok(text) = serde_json::to_string(answer) else {
            return true;
        };
        // Objects are JSON text within the answer: what is in them is quoted twice.
        let inside = text.replace(r"\\", r"\");
        [text, inside]
            .iter()
            .any(|text| self.secrets.redact_all(text, &[]) != *text)
    }

    async fn secret(&mut self, asked: &SecretKey, as_bytes: bool) -> Result<Vec<u8>, SecretError> {
        check(asked)?;
        let namespace = asked
            .namespace
            .clone()
            .unwrap_or_else(|| self.secret_reads.namespace.clone());
        let shown = format!("key {} of Secret {namespace}/{}", asked.key, asked.name);
        let grants = self.secret_grants(&namespace, asked);
        if grants.is_empty() {
            return Err(SecretError::Denied(
                self.secret_denied(&shown, &namespace, asked, as_bytes),
            ));
        }
        if as_bytes && !grants.iter().any(|grant| grant.bytes) {
            return Err(SecretError::Denied(format!(
                "{shown} is granted by handle only: add \"bytes\":true to its entry in secrets of the grant of the capability \
                 secret in spec.grants of the Plugin"
            )));
        }
        let is_exact = grants
            .iter()
            .any(|grant| grant.name.is_exact() && (grant.bytes || !as_bytes));
        if self.secret_reads.reads >= SECRET_READS_MAX {
            return Err(SecretError::Limit(format!(
                "a call reads at most {SECRET_READS_MAX} secrets"
            )));
        }
        self.secret_reads.reads = self.secret_reads.reads.saturating_add(1);
        let Some(source) = self.secret_reads.source.clone() else {
            return Err(SecretError::Failed(
                "this call has no object whose Secrets could be read".to_owned(),
            ));
        };
        let (name, key) = (asked.name.clone(), asked.key.clone());
        let found = on_host(&self.host, async move {
            source.read(&namespace, &name, &key).await
        })
        .await
        .and_then(|answer| answer)
        .map_err(|why| SecretError::Failed(one_line(&why, TEXT_BYTES_MAX)))?;
        match found {
            None => Err(SecretError::NotFound(format!("there is no {shown}"))),
            Some(found) if !is_exact && EXACT_TYPES.contains(&found.secret_type.as_str()) => {
                Err(SecretError::Denied(format!(
                    "{shown} is of the type {}: such Secrets are granted only by their whole name",
                    found.secret_type
                )))
            }
            Some(found) => Ok(found.bytes),
        }
    }

    fn secret_grants(&self, namespace: &str, asked: &SecretKey) -> Vec<&SecretGrant> {
        let own = self.secret_reads.namespace.as_str();
        self.grants
            .secrets
            .iter()
            .filter(|grant| grant.is_for(own, namespace, &asked.name, &asked.key))
            .collect()
    }

    /// Says what to add.
    fn secret_denied(
        &self,
        shown: &str,
        namespace: &str,
        asked: &SecretKey,
        as_bytes: bool,
    ) -> String {
        let mut entry = serde_json::json!({"name": asked.name, "keys": [asked.key]});
        if let Some(entry) = entry.as_object_mut() {
            if namespace != self.secret_reads.namespace {
                entry.insert("namespace".to_owned(), namespace.into());
            }
            if as_bytes {
                entry.insert("bytes".to_owned(), true.into());
            }
        }
        format!(
            "{shown} is not granted: add {entry} to secrets of the grant of the capability secret in spec.grants of the Plugin"
        )
    }
}

/// Names as Kubernetes has them: nothing that could mean another path.
fn check(asked: &SecretKey) -> Result<(), SecretError> {
    let fits = |text: &str, max: usize, more: &[u8]| {
        (1..=max).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || more.contains(&b))
            && !matches!(text, "." | "..")
    };
    let wrong = |what: &str, text: &str| {
        SecretError::Invalid(format!("{:?} is not {what}", clipped(text, 64)))
    };
    if let Some(namespace) = &asked.namespace
        && !fits(namespace, 63, b"")
    {
        return Err(wrong("a namespace", namespace));
    }
    if !fits(&asked.name, 253, b"") {
        return Err(wrong("a name of a Secret", &asked.name));
    }
    if !fits(&asked.key, 253, b"_") {
        return Err(wrong("a key of a Secret", &asked.key));
    }
    Ok(())
}
