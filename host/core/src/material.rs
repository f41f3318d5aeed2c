//! Certificates, keys and tokens: what may be asked for, which Secrets hold it, and how secret bytes get into text.

mod join;
mod template;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::label;
use capstan_api::name::ObjectKey;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::call::material::Requirement;

pub use self::join::{DATA_BYTES_MAX, JoinError, join};
pub use self::template::{TemplateError, fill_in};
pub use capstan_api::contract::{
    SECRET_CERTIFICATE_KEY as CERTIFICATE_KEY, SECRET_FORMAT_KEY as FORMAT_KEY,
    SECRET_PRIVATE_KEY_KEY as PRIVATE_KEY, SECRET_TYPE, SECRET_VALUE_KEY as VALUE_KEY,
};

/// Purpose of the Secret with the administrator's kubeconfig; no plugin can ask for it.
pub const KUBECONFIG: &str = "kubeconfig";
/// Purpose of the Secret with the cluster's certificate authority.
pub const CLUSTER_CA: &str = "ca";
/// The one type of join token.
pub const BOOTSTRAP_TOKEN: &str = "bootstrap.kubernetes.io/token";

/// Days that a certificate authority is valid unless asked otherwise.
pub const VALIDITY_DAYS: u32 = 3650;
/// Upper bound of the same: a hundred years, as far as X.509 tools agree.
const VALIDITY_DAYS_MAX: u32 = 36_500;
/// How many things one object can ask for: a KubeadmConfig with all its 200 files and 100 users from Secrets, and what a cluster has.
const REQUIREMENTS_MAX: usize = 320;

/// How a key is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256: the default, because making one costs nothing.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with so many bits.
    Rsa(u16),
}

impl KeyAlgorithm {
    /// By name; empty is the default.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "ECDSA-P256" => Some(Self::EcdsaP256),
            "ECDSA-P384" => Some(Self::EcdsaP384),
            "RSA-2048" => Some(Self::Rsa(2048)),
            "RSA-3072" => Some(Self::Rsa(3072)),
            "RSA-4096" => Some(Self::Rsa(4096)),
            _ => None,
        }
    }
}

/// A plugin asked for material that the host does not give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin's requirement {name:?} is refused: {why}")]
pub struct Refused {
    /// Name of the requirement.
    pub name: String,
    /// Which rule it breaks.
    pub why: String,
}

/// The requirement's name.
#[must_use]
pub fn requirement_name(requirement: &Requirement) -> &str {
    match requirement {
        Requirement::CertificateAuthority { name, .. }
        | Requirement::KeyPair { name, .. }
        | Requirement::SharedSecret { name, .. }
        | Requirement::JoinToken { name, .. }
        | Requirement::SecretValue { name, .. } => name,
    }
}

/// Checks what a plugin asked for. `object` is the object of the call: a Secret of its namespace is only given when its own
/// spec names it, or when it is one of the cluster's own.
///
/// # Errors
/// The first rule that is broken.
pub fn check_requirements(
    requirements: &[Requirement],
    object: &Value,
    cluster_name: &str,
) -> Result<(), Refused> {
    let refuse = |name: &str, why: String| {
        Err(Refused {
            name: name.to_owned(),
            why,
        })
    };
    if requirements.len() > REQUIREMENTS_MAX {
        return refuse("", format!("more than {REQUIREMENTS_MAX} requirements"));
    }
    let mut names = BTreeSet::new();
    for requirement in requirements {
        let name = requirement_name(requirement);
        if !is_purpose(name) {
            return refuse(
                name,
                "a name has 1 to 40 of a-z, 0-9 and inner -".to_owned(),
            );
        }
        if name == KUBECONFIG {
            return refuse(
                name,
                "the administrator's kubeconfig is not material".to_owned(),
            );
        }
        if !names.insert(name) {
            return refuse(name, "it is asked for twice".to_owned());
        }
        if let Some(why) = broken_rule(requirement, object, cluster_name) {
            return refuse(name, why);
        }
    }
    Ok(())
}

fn broken_rule(requirement: &Requirement, object: &Value, cluster_name: &str) -> Option<String> {
    match requirement {
        Requirement::CertificateAuthority {
            algorithm,
            common_name,
            validity_days,
            ..
        } => {
            if KeyAlgorithm::parse(algorithm).is_none() {
                return Some(format!("there is no key algorithm {algorithm:?}"));
            }
            if common_name.is_empty() || common_name.len() > 64 {
                return Some("a common name has 1 to 64 bytes".to_owned());
            }
            (*validity_days > VALIDITY_DAYS_MAX)
                .then(|| format!("it would be valid for more than {VALIDITY_DAYS_MAX} days"))
        }
        Requirement::KeyPair { algorithm, .. } => KeyAlgorithm::parse(algorithm)
            .is_none()
            .then(|| format!("there is no key algorithm {algorithm:?}")),
        Requirement::SharedSecret { bytes, .. } => (!(16..=64).contains(bytes))
            .then(|| format!("a shared secret has 16 to 64 bytes, not {bytes}")),
        Requirement::JoinToken { token_type, .. } => (token_type != BOOTSTRAP_TOKEN)
            .then(|| format!("there is no token type {token_type:?}")),
        Requirement::SecretValue { secret, .. } => (!is_named(object, secret)
            && !is_own(cluster_name, secret))
        .then(|| format!("the object's spec does not name Secret {secret}")),
    }
}

/// Whether an object's spec names a Secret.
#[must_use]
pub fn is_named(object: &Value, secret: &str) -> bool {
    object.get("spec").is_some_and(|spec| names(spec, secret))
}

/// Whether a Secret has the name of one of the cluster's own that plugins may use: its authorities are material anyway, its
/// kubeconfig never is. Whether it belongs to the cluster is seen when it is read.
fn is_own(cluster_name: &str, secret: &str) -> bool {
    secret
        .strip_prefix(cluster_name)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|purpose| is_purpose(purpose) && purpose != KUBECONFIG)
}

/// Whether labels of a Secret say that it is another cluster's. `a-b-ca` is the authority of `a-b`, not the `b-ca` of `a`.
#[must_use]
pub fn is_foreign(metadata: &Value, cluster_name: &str) -> bool {
    let labels = metadata.get("labels");
    let named = labels.and_then(|labels| labels.get(label::CLUSTER_NAME)?.as_str());
    named.is_some_and(|named| named != cluster_name)
}

/// Whether a string occurs as a value somewhere.
fn names(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Array(items) => items.iter().any(|item| names(item, wanted)),
        Value::Object(fields) => fields.values().any(|field| names(field, wanted)),
        _ => false,
    }
}

fn is_purpose(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Key of the Secret that holds a cluster's material of a purpose.
#[must_use]
pub fn secret_key(cluster: &ObjectKey, purpose: &str) -> ObjectKey {
    ObjectKey {
        namespace: cluster.namespace.clone(),
        name: format!("{}-{purpose}", cluster.name),
    }
}

/// A Secret of a cluster, ready to be created: type, cluster-name label, owner and data.
#[must_use]
pub fn secret_object(
    key: &ObjectKey,
    cluster_name: &str,
    owner: Option<&Value>,
    data: &[(&str, &[u8])],
) -> Value {
    let data: Map<String, Value> = data
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), json!(BASE64.encode(bytes))))
        .collect();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": {label::CLUSTER_NAME: cluster_name},
        },
        "type": SECRET_TYPE,
        "data": data,
    });
    if let Some(owner) = owner
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
    }
    object
}

/// The id of the join token of a bootstrap config: always the same for the same config, so that a crash between making the
/// token and remembering it leaves one token, not many. `salt` makes another one when the id is taken.
#[must_use]
pub fn token_id(config_uid: &str, salt: u32) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digest = Sha256::digest(format!("capstan join token {salt} {config_uid}"));
    digest
        .iter()
        .take(6)
        .filter_map(|byte| ALPHABET.iter().cycle().nth(usize::from(*byte)))
        .map(|c| char::from(*c))
        .collect()
}

/// A kubeconfig with one administrator.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// Certificates of the cluster's authority, PEM.
    pub ca: &'a str,
    /// Client certificate, PEM.
    pub certificate: &'a str,
    /// Client key, PEM.
    pub key: &'a str,
}

impl Kubeconfig<'_> {
    /// The text: cluster `<cluster>`, user `<cluster>-admin`, context `<cluster>-admin@<cluster>` (contract: upstream
    /// `util/kubeconfig`). Names are quoted: `123` and `null` are names too.
    #[must_use]
    pub fn yaml(&self) -> String {
        let cluster = json!(self.cluster);
        let user = json!(format!("{}-admin", self.cluster));
        let context = json!(format!("{}-admin@{}", self.cluster, self.cluster));
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n    certificate-authority-data: {ca}\n    \
             server: {server}\ncontexts:\n- name: {context}\n  context:\n    cluster: {cluster}\n    user: {user}\n\
             current-context: {context}\npreferences: {{}}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: \
             {certificate}\n    client-key-data: {key}\n",
            ca = BASE64.encode(self.ca),
            server = json!(self.server),
            certificate = BASE64.encode(self.certificate),
            key = BASE64.encode(self.key),
        )
    }
}

/// `https://host:port` of an endpoint; IPv6 addresses get their brackets.
#[must_use]
pub fn server_url(host: &str, port: i32) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca(name: &str) -> Requirement {
        Requirement::CertificateAuthority {
            name: name.to_owned(),
            common_name: "kubernetes".to_owned(),
            algorithm: String::new(),
            validity_days: 0,
        }
    }

    #[test]
    fn what_kubeadm_asks_for_is_given() {
        let sa = Requirement::KeyPair {
            name: "sa".to_owned(),
            algorithm: "RSA-2048".to_owned(),
        };
        let all = [ca("ca"), ca("etcd"), ca("proxy"), sa];
        assert_eq!(check_requirements(&all, &json!({}), "c"), Ok(()));
    }

    #[test]
    fn no_plugin_gets_at_the_kubeconfig_or_at_secrets_that_its_object_does_not_name() {
        let sa = |name: &str| Requirement::KeyPair {
            name: name.to_owned(),
            algorithm: String::new(),
        };
        for name in ["kubeconfig", "", "-a", "A", "a/b", "a.b"] {
            assert!(
                check_requirements(&[sa(name)], &json!({}), "c").is_err(),
                "{name}"
            );
        }
        assert!(
            check_requirements(&[sa("a"), ca("a")], &json!({}), "c").is_err(),
            "twice"
        );
        let value = Requirement::SecretValue {
            name: "file".to_owned(),
            secret: "registry".to_owned(),
            key: "k".to_owned(),
            template: Vec::new(),
        };
        let naming =
            json!({"spec": {"files": [{"contentFrom": {"secret": {"name": "registry"}}}]}});
        assert_eq!(
            check_requirements(std::slice::from_ref(&value), &naming, "c"),
            Ok(())
        );
        assert!(check_requirements(&[value], &json!({"spec": {}}), "c").is_err());
    }

    #[test]
    fn a_cluster_may_have_secrets_that_others_provide() {
        let value = |secret: &str| Requirement::SecretValue {
            name: "etcd-key".to_owned(),
            secret: secret.to_owned(),
            key: "tls.key".to_owned(),
            template: Vec::new(),
        };
        let is_given =
            |secret: &str| check_requirements(&[value(secret)], &json!({}), "one").is_ok();
        assert!(is_given("one-apiserver-etcd-client"));
        for other in ["one-kubeconfig", "one", "one-", "two-etcd", "onetwo-etcd"] {
            assert!(!is_given(other), "{other}");
        }
        let of = |name: &str| json!({"labels": {label::CLUSTER_NAME: name}});
        assert!(is_foreign(&of("one-two"), "one"));
        assert!(!is_foreign(&of("one"), "one") && !is_foreign(&json!({}), "one"));
    }

    #[test]
    fn a_config_has_one_token_id() {
        let id = token_id("3f0c", 0);
        assert_eq!(id, token_id("3f0c", 0));
        assert_ne!(id, token_id("3f0c", 1));
        assert!(
            id.len() == 6
                && id
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
    }

    #[test]
    fn a_kubeconfig_has_upstreams_names() {
        let kubeconfig = Kubeconfig {
            cluster: "one",
            server: &server_url("10.0.0.1", 6443),
            ca: "CA",
            certificate: "CERT",
            key: "KEY",
        };
        let expected = "apiVersion: v1\nkind: Config\nclusters:\n- name: \"one\"\n  cluster:\n    \
                        certificate-authority-data: Q0E=\n    server: \"https://10.0.0.1:6443\"\ncontexts:\n- name: \
                        \"one-admin@one\"\n  context:\n    cluster: \"one\"\n    user: \"one-admin\"\n\
                        current-context: \"one-admin@one\"\npreferences: {}\nusers:\n- name: \"one-admin\"\n  user:\n    \
                        client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\n";
        assert_eq!(kubeconfig.yaml(), expected);
        assert_eq!(server_url("::1", 6443), "https://[::1]:6443");
    }
}
