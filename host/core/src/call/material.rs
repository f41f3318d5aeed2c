//! Certificates, keys and tokens that the host makes: `wit/v0.1/material.wit`.

use std::time::Duration;

use super::SecretHandle;

/// Something that the host must have ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Kept in the Secret `<cluster>-<name>`, keys `tls.crt` and `tls.key`.
    CertificateAuthority {
        /// Purpose, such as `ca`, `etcd`, `proxy`.
        name: String,
        /// Subject common name.
        common_name: String,
        /// `ECDSA-P256`, `RSA-2048`, ...; empty for the default.
        algorithm: String,
        /// 0 for 3650.
        validity_days: u32,
    },
    /// Kept in the Secret `<cluster>-<name>`: public key in `tls.crt`, private in `tls.key`.
    KeyPair {
        /// Purpose, such as `sa`.
        name: String,
        /// As above.
        algorithm: String,
    },
    /// Kept in the Secret `<cluster>-<name>`, key `value`, hexadecimal.
    SharedSecret {
        /// Purpose.
        name: String,
        /// 16 to 64.
        bytes: u32,
    },
    /// Made in the workload cluster.
    JoinToken {
        /// Name in the material.
        name: String,
        /// `bootstrap.kubernetes.io/token`.
        token_type: String,
        /// Kept alive until the machine has joined.
        lifetime: Duration,
    },
    /// From a Secret in the object's namespace.
    SecretValue {
        /// Name in the material.
        name: String,
        /// Secret.
        secret: String,
        /// Key.
        key: String,
        /// Actions that the value's template may have and what they become; empty when it is no template.
        template: Vec<(String, String)>,
    },
}

/// Public text or a handle on private bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaterialValue {
    /// PEM or text.
    Text(String),
    /// Stays in the host.
    Secret(SecretHandle),
}

/// One part of a piece of material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The requirement's name.
    pub name: String,
    /// `certificate`, `key`, `public-key`, `token`, `value` or `hash`.
    pub part: String,
    /// The thing itself.
    pub value: MaterialValue,
}
