//! Certificates, keys and tokens that the host makes and keeps: what a plugin asks for, and what it gets.

use std::time::Duration;

use crate::answer::{Failure, millis};
use crate::bindings::base::capstan::plugin::material as wit;
use crate::context::SecretHandle;

/// Something that the host must have ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Kept in the Secret `<cluster>-<name>` under `tls.crt` and `tls.key`.
    CertificateAuthority {
        /// Purpose, such as `ca`.
        name: String,
        /// Subject common name.
        common_name: String,
        /// `ECDSA-P256`, `ECDSA-P384`, `RSA-2048`, `RSA-3072`, `RSA-4096`; empty for the host's default.
        algorithm: String,
        /// 0 for the host's default of 3650.
        validity_days: u32,
    },
    /// Kept in the Secret `<cluster>-<name>`: public key in `tls.crt`, private in `tls.key`.
    KeyPair {
        /// Purpose, such as `sa`.
        name: String,
        /// As for a certificate authority.
        algorithm: String,
    },
    /// Random bytes, kept in the Secret `<cluster>-<name>` under `value`, as hexadecimal text.
    SharedSecret {
        /// Purpose.
        name: String,
        /// 16 to 64.
        bytes: u32,
    },
    /// A token with which a machine joins, kept alive by the host until the machine has joined.
    JoinToken {
        /// Name in the material.
        name: String,
        /// `bootstrap.kubernetes.io/token` is the only one so far.
        token_type: String,
        /// How long it is good for at least.
        lifetime: Duration,
    },
    /// A value from a Secret in the object's namespace: of one that the object names, or of one of the cluster's own,
    /// `<cluster>-<purpose>`, that somebody else must provide.
    SecretValue {
        /// Name in the material.
        name: String,
        /// Secret.
        secret: String,
        /// Key.
        key: String,
        /// When not empty, the value is a template: the host puts the second text in place of `{{ <first> }}`.
        template: Vec<(String, String)>,
    },
}

impl Requirement {
    /// A certificate authority with the host's default algorithm and validity.
    pub fn certificate_authority(name: impl Into<String>, common_name: impl Into<String>) -> Self {
        Self::CertificateAuthority {
            name: name.into(),
            common_name: common_name.into(),
            algorithm: String::new(),
            validity_days: 0,
        }
    }

    /// A key pair with the host's default algorithm.
    pub fn key_pair(name: impl Into<String>) -> Self {
        Self::KeyPair {
            name: name.into(),
            algorithm: String::new(),
        }
    }

    /// Random bytes.
    pub fn shared_secret(name: impl Into<String>, bytes: u32) -> Self {
        Self::SharedSecret {
            name: name.into(),
            bytes,
        }
    }

    /// A Kubernetes bootstrap token.
    pub fn join_token(name: impl Into<String>, lifetime: Duration) -> Self {
        Self::JoinToken {
            name: name.into(),
            token_type: "bootstrap.kubernetes.io/token".to_owned(),
            lifetime,
        }
    }

    /// A value from a Secret that the object names.
    pub fn secret_value(
        name: impl Into<String>,
        secret: impl Into<String>,
        key: impl Into<String>,
    ) -> Self {
        Self::SecretValue {
            name: name.into(),
            secret: secret.into(),
            key: key.into(),
            template: Vec::new(),
        }
    }
}

impl From<Requirement> for wit::Requirement {
    fn from(requirement: Requirement) -> Self {
        match requirement {
            Requirement::CertificateAuthority {
                name,
                common_name,
                algorithm,
                validity_days,
            } => Self::CertificateAuthority(wit::CertificateAuthority {
                name,
                common_name,
                algorithm,
                validity_days,
            }),
            Requirement::KeyPair { name, algorithm } => {
                Self::KeyPair(wit::KeyPair { name, algorithm })
            }
            Requirement::SharedSecret { name, bytes } => {
                Self::SharedSecret(wit::SharedSecret { name, bytes })
            }
            Requirement::JoinToken {
                name,
                token_type,
                lifetime,
            } => Self::JoinToken(wit::JoinToken {
                name,
                token_type,
                lifetime_ms: millis(lifetime),
            }),
            Requirement::SecretValue {
                name,
                secret,
                key,
                template,
            } => Self::SecretValue(wit::SecretValue {
                name,
                secret,
                key,
                template,
            }),
        }
    }
}

/// Public text, or a handle on private bytes that stay in the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaterialValue {
    /// PEM or text.
    Text(String),
    /// Goes into the data as a part.
    Secret(SecretHandle),
}

/// All that the host has ready, by requirement and part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material(Vec<(String, String, MaterialValue)>);

impl Material {
    /// Adds a part; for tests.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        part: impl Into<String>,
        value: MaterialValue,
    ) -> Self {
        self.0.push((name.into(), part.into(), value));
        self
    }

    /// A part, when it is there.
    #[must_use]
    pub fn get(&self, name: &str, part: &str) -> Option<&MaterialValue> {
        self.0
            .iter()
            .find(|(n, p, _)| n == name && p == part)
            .map(|(_, _, value)| value)
    }

    /// A certificate, as PEM.
    ///
    /// # Errors
    /// A terminal failure when the host did not give it: the plugin has not asked for it in `requirements`.
    pub fn certificate(&self, name: &str) -> Result<&str, Failure> {
        self.text(name, "certificate")
    }

    /// The public half of a key pair, as PEM.
    ///
    /// # Errors
    /// As for [`certificate`](Self::certificate).
    pub fn public_key(&self, name: &str) -> Result<&str, Failure> {
        self.text(name, "public-key")
    }

    /// `sha256:<hex of the public key info>` of a certificate authority.
    ///
    /// # Errors
    /// As for [`certificate`](Self::certificate).
    pub fn hash(&self, name: &str) -> Result<&str, Failure> {
        self.text(name, "hash")
    }

    /// A private key, as PEM.
    ///
    /// # Errors
    /// As for [`certificate`](Self::certificate).
    pub fn key(&self, name: &str) -> Result<SecretHandle, Failure> {
        self.secret(name, "key")
    }

    /// A join token.
    ///
    /// # Errors
    /// As for [`certificate`](Self::certificate).
    pub fn token(&self, name: &str) -> Result<SecretHandle, Failure> {
        self.secret(name, "token")
    }

    /// A shared secret or a value from a Secret.
    ///
    /// # Errors
    /// As for [`certificate`](Self::certificate).
    pub fn value(&self, name: &str) -> Result<SecretHandle, Failure> {
        self.secret(name, "value")
    }

    fn text(&self, name: &str, part: &str) -> Result<&str, Failure> {
        match self.get(name, part) {
            Some(MaterialValue::Text(text)) => Ok(text),
            _ => Err(missing(name, part)),
        }
    }

    fn secret(&self, name: &str, part: &str) -> Result<SecretHandle, Failure> {
        match self.get(name, part) {
            Some(MaterialValue::Secret(handle)) => Ok(*handle),
            _ => Err(missing(name, part)),
        }
    }

    pub(crate) fn read(parts: Vec<wit::Material>) -> Self {
        let read = |part: wit::Material| {
            let value = match (part.secret, part.text) {
                (Some(handle), _) => MaterialValue::Secret(SecretHandle(handle)),
                (None, text) => MaterialValue::Text(text.unwrap_or_default()),
            };
            (part.name, part.part, value)
        };
        Self(parts.into_iter().map(read).collect())
    }
}

fn missing(name: &str, part: &str) -> Failure {
    Failure::terminal(
        "MaterialMissing",
        format!("the host gave no {part} of {name:?}: the plugin must list it in its requirements"),
    )
}
