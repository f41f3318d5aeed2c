//! The administrator's kubeconfig of a cluster: made when there is none, renewed at half its life, taken over as it is otherwise.

use std::sync::Arc;

use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_core::material::{
    self, CERTIFICATE_KEY, CLUSTER_CA, KUBECONFIG, Kubeconfig, PRIVATE_KEY, SECRET_TYPE, VALUE_KEY,
};
use capstan_core::plan::Failure;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::SecretData;
use super::ensure::{Holder, adopt, owners_with_controller};
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::Patch;
use crate::pki::{self, Pair, PkiError};

/// What there is of the administrator's kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeconfigState {
    /// There is none.
    Missing,
    /// It is good, or not ours to change.
    Good,
    /// Its certificate is past half its life, it cannot be read, or it trusts other authorities than the cluster has after a rotation.
    Stale,
    /// It is good and this owner is not its controller yet.
    Unowned,
}

/// What becomes of a kubeconfig of Cluster API's type that another controller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfOthers {
    /// It stays the other's, who also renews it.
    Stays,
    /// It is taken over: whoever made it has stopped, as a Cluster does for a control plane.
    IsTaken,
}

/// How the kubeconfig Secret of a cluster is.
///
/// # Errors
/// When it cannot be read.
pub async fn state(
    ctx: &Ctx,
    cluster: &ObjectKey,
    owner_uid: &str,
    of_others: OfOthers,
) -> Result<KubeconfigState, Failure> {
    let secret = read(ctx, cluster, KUBECONFIG).await?;
    let Some(secret) = secret else {
        return Ok(KubeconfigState::Missing);
    };
    let is_other = secret
        .controller_uid()
        .is_some_and(|uid| uid != owner_uid && of_others == OfOthers::Stays);
    if secret.secret_type != SECRET_TYPE || is_other {
        return Ok(KubeconfigState::Good);
    }
    let ca = read(ctx, cluster, CLUSTER_CA).await?;
    let is_refused = ctx.workloads.status(cluster).said.is_some();
    Ok(if is_due(&secret, ca.as_deref(), is_refused, ctx.now()) {
        KubeconfigState::Stale
    } else if secret.controller_uid() == Some(owner_uid) {
        KubeconfigState::Good
    } else {
        KubeconfigState::Unowned
    })
}

async fn read(
    ctx: &Ctx,
    cluster: &ObjectKey,
    purpose: &str,
) -> Result<Option<Arc<SecretData>>, Failure> {
    let key = material::secret_key(cluster, purpose);
    let secret = ctx.secrets.get(&*ctx.api, &key).await;
    secret.map_err(|error| failure(&format!("reading Secret {key}"), &error))
}

/// Whether a kubeconfig has to be written anew. Where the authority signs elsewhere, who has its key renews it there.
/// `is_refused`: with this one nobody gets in, which another authority may change.
fn is_due(secret: &SecretData, ca: Option<&SecretData>, is_refused: bool, now: Timestamp) -> bool {
    let Some(pair) = ca.and_then(signing_pair) else {
        return false;
    };
    // Kubeconfigs follow an authority that the host has rotated once; others keep what they have until they are renewed.
    let is_rotated = ca.is_some_and(|ca| ca.annotation(annotation::CA_ROTATION).is_some());
    let trusted = authority(secret);
    let is_other = trusted
        .as_deref()
        .is_none_or(|trusted| trusted.trim() != pair.public.trim());
    let is_stranger = trusted.is_some_and(|trusted| !pki::is_among(&pair.public, &trusted));
    let is_lost = (is_rotated && is_other) || (is_refused && is_stranger);
    is_stale(secret, now) || (is_lost && !is_brought(secret))
}

/// The authority with its key; `None` when one of them is not there.
fn signing_pair(ca: &SecretData) -> Option<Pair> {
    Some(Pair {
        public: ca.text(CERTIFICATE_KEY)?.to_owned(),
        private: ca
            .text(PRIVATE_KEY)
            .filter(|key| !key.is_empty())?
            .to_owned(),
    })
}

/// With what a kubeconfig gets in that has no certificate in itself. Nothing renews it, and nothing overwrites it.
const CREDENTIALS: [&str; 6] = [
    "token:",
    "tokenFile:",
    "password:",
    "exec:",
    "auth-provider:",
    "client-certificate:",
];

/// Whether its certificate is past half its life or cannot be read. Other credentials are as good as who brought them says.
fn is_stale(secret: &SecretData, now: Timestamp) -> bool {
    match client_certificate(secret) {
        Some(pem) => pki::is_past_half_life(&pem, now),
        None => !has_credentials(secret),
    }
}

/// Whether somebody made it with credentials of their own: it is theirs, whatever the Secret's type and owner say.
pub fn is_brought(secret: &SecretData) -> bool {
    client_certificate(secret).is_none() && has_credentials(secret)
}

fn has_credentials(secret: &SecretData) -> bool {
    let text = secret.text(VALUE_KEY).unwrap_or_default();
    CREDENTIALS.iter().any(|key| field(text, key).is_some())
}

/// When the certificate of the administrator's kubeconfig ends, if there is one that was written by Cluster API.
///
/// # Errors
/// When the Secret cannot be read.
pub async fn end(ctx: &Ctx, cluster: &ObjectKey) -> Result<Option<Timestamp>, Failure> {
    let secret = read(ctx, cluster, KUBECONFIG).await?;
    Ok(secret.as_deref().and_then(not_after))
}

/// When the certificate in a kubeconfig ends, if there is one.
#[must_use]
pub fn not_after(secret: &SecretData) -> Option<Timestamp> {
    pki::earliest_not_after(&client_certificate(secret)?)
}

/// Why the kubeconfig says nothing about the cluster's authority: it trusts another one.
///
/// # Errors
/// When a Secret cannot be read.
pub async fn other_authority(ctx: &Ctx, cluster: &ObjectKey) -> Result<Option<String>, Failure> {
    let (Some(secret), Some(ca)) = (
        read(ctx, cluster, KUBECONFIG).await?,
        read(ctx, cluster, CLUSTER_CA).await?,
    ) else {
        return Ok(None);
    };
    let Some(trusted) = authority(&secret) else {
        return Ok(None);
    };
    let own = ca.text(CERTIFICATE_KEY).unwrap_or_default();
    Ok((!pki::is_among(own, &trusted)).then(|| {
        format!(
            "Secret {} does not trust the authority of Secret {}: correct one of them",
            material::secret_key(cluster, KUBECONFIG),
            material::secret_key(cluster, CLUSTER_CA),
        )
    }))
}

fn client_certificate(secret: &SecretData) -> Option<String> {
    let text = secret.text(VALUE_KEY)?;
    field(text, "client-certificate-data:").and_then(pki::decode_pem)
}

/// The certificates of authorities that a kubeconfig trusts.
fn authority(secret: &SecretData) -> Option<String> {
    let text = secret.text(VALUE_KEY)?;
    field(text, "certificate-authority-data:").and_then(pki::decode_pem)
}

/// `https://host:port` that a kubeconfig leads to.
#[must_use]
pub fn server(secret: &SecretData) -> Option<&str> {
    field(secret.text(VALUE_KEY)?, "server:")
}

/// The value of the first line with this key. Kubeconfigs of this kind are written by Cluster API, one field per line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text
        .lines()
        .map(|line| line.trim_start().trim_start_matches("- "))
        .find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().trim_matches('"'))
}

/// Takes over the administrator's kubeconfig, or makes or renews it (contract: upstream `util/kubeconfig`): a certificate for
/// `kubernetes-admin` of `system:masters`, valid for a year. The server of an existing one stays, and so does all of it while it is good.
///
/// # Errors
/// When it has to be written and there is no usable certificate authority, or the Secret cannot be written.
pub async fn ensure(ctx: &Ctx, holder: Holder<'_>, server: &str) -> Result<(), Failure> {
    let key = material::secret_key(holder.cluster, KUBECONFIG);
    let ca_key = material::secret_key(holder.cluster, CLUSTER_CA);
    let ca = read(ctx, holder.cluster, CLUSTER_CA).await?;
    let existing = ctx.secrets.read(&*ctx.api, &key).await;
    let existing = existing.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
    let is_refused = ctx.workloads.status(holder.cluster).said.is_some();
    if let Some(secret) = &existing
        && (secret.secret_type != SECRET_TYPE
            || !is_due(secret, ca.as_deref(), is_refused, ctx.now()))
    {
        return adopt(ctx, holder, &key, Arc::clone(secret)).await.map(drop);
    }
    let Some(pair) = ca.as_deref().and_then(signing_pair) else {
        return Err(Failure::transient(
            "InternalError",
            format!(
                "Secret {ca_key} with {CERTIFICATE_KEY} and {PRIVATE_KEY} is needed to make Secret {key}: create it, or create {key}"
            ),
        ));
    };
    let cluster = &holder.cluster.name;
    let text = text(cluster, existing.as_deref(), server, &pair, ctx.now())
        .map_err(|error| Failure::terminal("InternalError", format!("Secret {ca_key}: {error}")))?;
    write(ctx, holder, &key, existing.as_deref(), &text).await?;
    ctx.workloads.nudge(holder.cluster);
    Ok(())
}

/// The administrator's kubeconfig. The server of an existing one stays: somebody may have had a reason.
fn text(
    cluster: &str,
    existing: Option<&SecretData>,
    server: &str,
    pair: &Pair,
    now: Timestamp,
) -> Result<String, PkiError> {
    let admin = pki::client_certificate(pair, "kubernetes-admin", "system:masters", now)?;
    let kept = existing.and_then(self::server);
    let kubeconfig = Kubeconfig {
        cluster,
        server: kept
            .filter(|kept| kept.starts_with("https://"))
            .unwrap_or(server),
        ca: &pair.public,
        certificate: &admin.public,
        key: &admin.private,
    };
    Ok(kubeconfig.yaml())
}

/// Writes the Secret, whose content is then ours.
async fn write(
    ctx: &Ctx,
    holder: Holder<'_>,
    key: &ObjectKey,
    existing: Option<&SecretData>,
    text: &str,
) -> Result<(), Failure> {
    let object = material::secret_object(
        key,
        &holder.cluster.name,
        Some(holder.owner),
        &[(VALUE_KEY, text.as_bytes())],
    );
    let stored = match existing {
        None => {
            ctx.api
                .create(&kinds::SECRET, &key.namespace, &object, holder.manager)
                .await
        }
        Some(secret) => {
            let mut patch = json!({
                "metadata": {
                    "uid": secret.metadata.get("uid"),
                    "resourceVersion": secret.metadata.get("resourceVersion"),
                },
                "data": object.get("data"),
            });
            if let Some(owners) = owners_with_controller(secret, holder.owner)
                && let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
            {
                metadata.insert("ownerReferences".to_owned(), Value::Array(owners));
            }
            let patch = Patch::Merge(patch);
            ctx.api
                .patch(&kinds::SECRET, key, None, &patch, holder.manager)
                .await
        }
    };
    ctx.secrets.forget(key);
    let stored = stored.map_err(|error| failure(&format!("writing Secret {key}"), &error))?;
    ctx.secrets.remember(key, &stored);
    Ok(())
}

#[cfg(test)]
mod tests {
    use capstan_core::material::KeyAlgorithm;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// An authority, and a kubeconfig that it made.
    fn made() -> (Pair, SecretData) {
        let ca =
            pki::certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let text = text("c", None, "https://1.2.3.4:6443", &ca, now()).unwrap();
        (ca, secret("kubeconfig", &[(VALUE_KEY, text.as_bytes())]))
    }

    fn secret(purpose: &str, data: &[(&str, &[u8])]) -> SecretData {
        let key = ObjectKey::new("n", format!("c-{purpose}"));
        SecretData::read(&material::secret_object(&key, "c", None, data))
    }

    #[test]
    fn a_kubeconfig_is_stale_after_half_a_year() {
        let (_, secret) = made();
        assert_eq!(server(&secret), Some("https://1.2.3.4:6443"));
        assert!(!is_stale(&secret, now()));
        assert!(is_stale(&secret, "2026-07-10T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_renewed_kubeconfig_keeps_its_server() {
        let (ca, old) = made();
        let renewed = |old: Option<&SecretData>| {
            let text = text("c", old, "https://other:6443", &ca, now()).unwrap();
            assert_ne!(old.and_then(|old| old.text(VALUE_KEY)), Some(text.as_str()));
            server(&secret("kubeconfig", &[(VALUE_KEY, text.as_bytes())])).map(str::to_owned)
        };
        assert_eq!(renewed(None).as_deref(), Some("https://other:6443"));
        assert_eq!(renewed(Some(&old)).as_deref(), Some("https://1.2.3.4:6443"));
        let odd = secret("kubeconfig", &[(VALUE_KEY, b"server: ftp://x")]);
        assert_eq!(renewed(Some(&odd)).as_deref(), Some("https://other:6443"));
    }

    #[test]
    fn what_others_wrote_is_only_renewed_where_its_time_can_be_seen() {
        let late = "2030-01-01T00:00:00Z".parse().unwrap();
        let with = |user: &str| {
            let text = format!("users:\n- name: u\n  user:\n    {user}\n");
            is_stale(&secret("kubeconfig", &[(VALUE_KEY, text.as_bytes())]), late)
        };
        for key in CREDENTIALS {
            assert!(!with(&format!("{key} something")), "{key}");
        }
        assert!(with("client-certificate-data: garbage"));
        assert!(with(""), "nobody gets in with this");
    }

    #[test]
    fn without_the_authoritys_key_nothing_is_due() {
        let (ca, kubeconfig) = made();
        let late = "2030-01-01T00:00:00Z".parse().unwrap();
        let authority = |private: &str| {
            let (public, private) = (ca.public.as_bytes(), private.as_bytes());
            secret("ca", &[(CERTIFICATE_KEY, public), (PRIVATE_KEY, private)])
        };
        let whole = authority(&ca.private);
        assert!(is_due(&kubeconfig, Some(&whole), false, late));
        assert!(!is_due(&kubeconfig, Some(&whole), false, now()));
        assert!(!is_due(&kubeconfig, Some(&whole), true, now()));
        assert!(!is_due(&kubeconfig, Some(&authority("")), false, late));
        assert!(!is_due(&kubeconfig, None, false, late));
    }

    #[test]
    fn one_of_another_authority_stays_while_it_is_good_for_something() {
        let ((_, kubeconfig), (other, _)) = (made(), made());
        let (public, private) = (other.public.as_bytes(), other.private.as_bytes());
        let ca = secret("ca", &[(CERTIFICATE_KEY, public), (PRIVATE_KEY, private)]);
        assert!(!is_due(&kubeconfig, Some(&ca), false, now()));
        assert!(is_due(&kubeconfig, Some(&ca), true, now()));
        assert!(!is_brought(&kubeconfig));
    }

    #[test]
    fn credentials_that_somebody_brought_are_never_overwritten() {
        let (ca, _) = made();
        let (public, private) = (ca.public.as_bytes(), ca.private.as_bytes());
        let data = [(CERTIFICATE_KEY, public), (PRIVATE_KEY, private)];
        let mut rotated = material::secret_object(&ObjectKey::new("n", "c-ca"), "c", None, &data);
        rotated["metadata"]["annotations"] =
            serde_json::json!({annotation::CA_ROTATION: "new/first"});
        let rotated = SecretData::read(&rotated);
        let (_, other) = made();
        let theirs = other.text(VALUE_KEY).unwrap();
        let authority = field(theirs, "certificate-authority-data:").unwrap();
        let text = format!(
            "clusters:\n- cluster:\n    certificate-authority-data: {authority}\n    server: https://balancer\nusers:\n- user:\n    token: t\n"
        );
        let brought = secret("kubeconfig", &[(VALUE_KEY, text.as_bytes())]);
        assert!(is_brought(&brought));
        for is_refused in [false, true] {
            assert!(!is_due(&brought, Some(&rotated), is_refused, now()));
            assert!(is_due(&other, Some(&rotated), is_refused, now()));
        }
    }
}
