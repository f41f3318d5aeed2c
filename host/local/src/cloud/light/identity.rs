//! Who is asking a workload API server: a client certificate, a bootstrap token, or nobody.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::object::text_at;
use super::resources;
use super::store::Store;
use super::token;

/// An authenticated (or anonymous) user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User name.
    pub(crate) name: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
}

impl Identity {
    /// Nobody in particular.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        }
    }

    /// Whether the user is in this group.
    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|mine| mine == group)
    }

    /// The node that a kubelet's identity stands for.
    pub(crate) fn node(&self) -> Option<&str> {
        self.name
            .strip_prefix("system:node:")
            .filter(|_| self.is_in("system:nodes"))
    }
}

fn authenticated(name: String, mut groups: Vec<String>) -> Identity {
    groups.push("system:authenticated".into());
    Identity { name, groups }
}

/// The subject of a verified client certificate: common name and organizations.
pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned)
        .collect();
    Some(authenticated(name, groups))
}

/// The user of a bearer token; absent when the token is not good for authentication, or no longer.
pub(crate) fn from_bearer(store: &Store, bearer: &str) -> Option<Identity> {
    let (id, secret) = bearer.split_once('.')?;
    let stored = store.get(
        resources::secrets(),
        "kube-system",
        &format!("bootstrap-token-{id}"),
    )?;
    if text_at(&stored.value, "/type") != token::SECRET_TYPE {
        return None;
    }
    let found = token::BootstrapToken::from_secret(&stored.value)?;
    if found.id != id
        || found.secret != secret
        || !found.authenticates
        || found.is_expired(jiff::Timestamp::now())
    {
        return None;
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    groups.extend(found.groups);
    Some(authenticated(format!("system:bootstrap:{id}"), groups))
}
