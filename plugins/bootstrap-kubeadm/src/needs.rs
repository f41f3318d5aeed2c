//! Decides what material the host must have ready for a machine.

use serde_json::Value;

use crate::files::is_template;
use crate::question::{Question, Role};

/// Name of the cluster's certificate authority.
pub(crate) const CA: &str = "ca";
/// Name of etcd's certificate authority.
pub(crate) const ETCD: &str = "etcd";
/// Name of the front proxy's certificate authority.
pub(crate) const PROXY: &str = "proxy";
/// Name of the key pair for service account tokens.
pub(crate) const SERVICE_ACCOUNT: &str = "sa";
/// Name of the join token.
pub(crate) const TOKEN: &str = "join";
/// How long a join token lives unless the host keeps it alive: 15 minutes (contract: upstream `--bootstrap-token-ttl`).
pub(crate) const TOKEN_LIFETIME_MS: u64 = 15 * 60 * 1000;

/// A piece of material, by what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A certificate authority.
    Authority {
        /// Name.
        name: &'static str,
        /// Subject.
        common_name: &'static str,
        /// Empty for the host's default.
        algorithm: String,
        /// 0 for the host's default.
        validity_days: u32,
    },
    /// A key pair.
    KeyPair {
        /// Name.
        name: &'static str,
        /// Empty for the host's default.
        algorithm: String,
    },
    /// A bootstrap token in the workload cluster.
    JoinToken,
    /// A value of a Secret in the object's namespace.
    SecretValue {
        /// Name of the material.
        name: String,
        /// Name of the Secret.
        secret: String,
        /// Key in the Secret.
        key: String,
        /// The value is a template.
        is_template: bool,
    },
}

/// All that the machine's data will refer to.
pub(crate) fn needs(question: &Question<'_>) -> Vec<Need> {
    let mut needs = Vec::new();
    match question.role {
        Role::Init | Role::JoinControlPlane => control_plane_needs(question, &mut needs),
        Role::JoinWorker => needs.push(authority(question, CA, "kubernetes")),
    }
    if question.role.joins() && wants_token(question) {
        needs.push(Need::JoinToken);
    }
    needs.extend(secret_values(question));
    needs
}

/// Whether the machine joins with a token that the host makes.
pub(crate) fn wants_token(question: &Question<'_>) -> bool {
    question
        .spec
        .pointer("/joinConfiguration/discovery/file")
        .is_none()
        && question
            .text("/joinConfiguration/discovery/bootstrapToken/token")
            .is_none()
}

/// Whether etcd is run by others.
pub(crate) fn has_external_etcd(question: &Question<'_>) -> bool {
    question
        .spec
        .pointer("/clusterConfiguration/etcd/external")
        .is_some()
}

/// Name of the material of a file's content.
pub(crate) fn file_material(position: usize) -> String {
    format!("file-{position}")
}

/// Name of the material of a user's password hash.
pub(crate) fn user_material(position: usize) -> String {
    format!("user-{position}")
}

/// Names of the material of an external etcd's certificates, with the Secret's suffix and key, and the field with the path.
pub(crate) const EXTERNAL_ETCD: [(&str, &str, &str, &str); 3] = [
    ("external-etcd-ca", "etcd", "tls.crt", "caFile"),
    (
        "external-etcd-certificate",
        "apiserver-etcd-client",
        "tls.crt",
        "certFile",
    ),
    (
        "external-etcd-key",
        "apiserver-etcd-client",
        "tls.key",
        "keyFile",
    ),
];

fn control_plane_needs(question: &Question<'_>, needs: &mut Vec<Need>) {
    needs.push(authority(question, CA, "kubernetes"));
    if has_external_etcd(question) {
        needs.extend(
            EXTERNAL_ETCD
                .iter()
                .map(|(name, suffix, key, _)| Need::SecretValue {
                    name: (*name).to_owned(),
                    secret: format!("{}-{suffix}", question.cluster_name()),
                    key: (*key).to_owned(),
                    is_template: false,
                }),
        );
    } else {
        needs.push(authority(question, ETCD, "etcd-ca"));
    }
    needs.push(authority(question, PROXY, "front-proxy-ca"));
    needs.push(Need::KeyPair {
        name: SERVICE_ACCOUNT,
        algorithm: algorithm(question),
    });
}

fn authority(question: &Question<'_>, name: &'static str, common_name: &'static str) -> Need {
    let days = question
        .spec
        .pointer("/clusterConfiguration/caCertificateValidityPeriodDays")
        .and_then(Value::as_u64);
    Need::Authority {
        name,
        common_name,
        algorithm: algorithm(question),
        validity_days: days.and_then(|days| u32::try_from(days).ok()).unwrap_or(0),
    }
}

fn algorithm(question: &Question<'_>) -> String {
    question
        .text("/clusterConfiguration/encryptionAlgorithm")
        .unwrap_or_default()
        .to_owned()
}

fn secret_values(question: &Question<'_>) -> Vec<Need> {
    let value = |name: String, from: &Value, is_template: bool| {
        let part = |field: &str| {
            from.get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Need::SecretValue {
            name,
            secret: part("name"),
            key: part("key"),
            is_template,
        }
    };
    let files = question
        .list("/files")
        .iter()
        .enumerate()
        .filter_map(|(position, file)| {
            file.pointer("/contentFrom/secret")
                .map(|from| value(file_material(position), from, is_template(file)))
        });
    let users = question
        .list("/users")
        .iter()
        .enumerate()
        .filter_map(|(position, user)| {
            user.pointer("/passwdFrom/secret")
                .map(|from| value(user_material(position), from, false))
        });
    files.chain(users).collect()
}
