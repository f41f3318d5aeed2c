//! Makes sure that a cluster has the certificates and keys that it needs; what users brought is left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_core::call::material::Requirement;
use capstan_core::material::{
    self, CERTIFICATE_KEY, KeyAlgorithm, PRIVATE_KEY, SECRET_TYPE, VALUE_KEY,
};
use capstan_core::plan::Failure;
use futures::future::try_join_all;
use jiff::Timestamp;
use rand::TryRng as _;
use serde_json::{Value, json};

use super::SecretData;
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, Patch};
use crate::pki::{self, Pair, PkiError};

/// What a cluster has by purpose, such as `ca`; what is missing is not in it.
pub type Material = BTreeMap<String, Arc<SecretData>>;

/// Whose material it is.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The Cluster.
    pub cluster: &'a ObjectKey,
    /// Controller owner reference of what is made.
    pub owner: &'a Value,
    /// Field manager of writes.
    pub manager: &'static str,
}

/// Whether a requirement is kept in a Secret `<cluster>-<name>`.
fn is_kept(requirement: &Requirement) -> bool {
    matches!(
        requirement,
        Requirement::CertificateAuthority { .. }
            | Requirement::KeyPair { .. }
            | Requirement::SharedSecret { .. }
    )
}

/// How old what is read may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// As old as what is kept.
    Recent,
    /// As it is now.
    None,
}

/// What exists of the requirements that are kept in Secrets of the cluster.
///
/// # Errors
/// When a Secret cannot be read.
pub async fn look_up(
    ctx: &Ctx,
    cluster: &ObjectKey,
    requirements: &[Requirement],
    age: Age,
) -> Result<Material, Failure> {
    let reads = requirements
        .iter()
        .filter(|r| is_kept(r))
        .map(|requirement| async move {
            let name = material::requirement_name(requirement);
            let key = material::secret_key(cluster, name);
            let secret = match age {
                Age::Recent => ctx.secrets.get(&*ctx.api, &key).await,
                Age::None => ctx.secrets.read(&*ctx.api, &key).await,
            };
            let secret =
                secret.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
            if let Some(secret) = &secret {
                own(&key, secret, cluster)?;
            }
            Ok::<_, Failure>(secret.map(|secret| (name.to_owned(), secret)))
        });
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

/// Makes what is missing, all at once. What is there and of Cluster API's type gets the holder as its controller; what a user
/// brought (any other type) is used as it is.
///
/// # Errors
/// When a Secret cannot be read or written.
pub async fn ensure(
    ctx: &Ctx,
    holder: Holder<'_>,
    requirements: &[Requirement],
) -> Result<Material, Failure> {
    let each = requirements
        .iter()
        .filter(|r| is_kept(r))
        .map(|requirement| async move {
            let name = material::requirement_name(requirement);
            let key = material::secret_key(holder.cluster, name);
            let found = ctx.secrets.get(&*ctx.api, &key).await;
            let found = found.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
            let secret = match found {
                Some(secret) => {
                    own(&key, &secret, holder.cluster)?;
                    adopt(ctx, holder, &key, secret).await?
                }
                None => create(ctx, holder, &key, requirement.clone()).await?,
            };
            Ok::<_, Failure>((name.to_owned(), secret))
        });
    Ok(try_join_all(each).await?.into_iter().collect())
}

async fn create(
    ctx: &Ctx,
    holder: Holder<'_>,
    key: &ObjectKey,
    requirement: Requirement,
) -> Result<Arc<SecretData>, Failure> {
    let content = make(ctx, key, requirement).await?;
    let data: Vec<(&str, &[u8])> = content.iter().map(|(k, v)| (*k, v.as_slice())).collect();
    let object = material::secret_object(key, &holder.cluster.name, Some(holder.owner), &data);
    match ctx
        .api
        .create(&kinds::SECRET, &key.namespace, &object, holder.manager)
        .await
    {
        Ok(stored) => Ok(ctx.secrets.remember(key, &stored)),
        Err(ApiError::AlreadyExists(_)) => {
            let found = ctx.secrets.read(&*ctx.api, key).await;
            let found = found.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
            found.ok_or_else(|| {
                Failure::transient(
                    "Conflict",
                    format!("Secret {key} exists and does not: trying again"),
                )
            })
        }
        Err(error) => Err(failure(&format!("creating Secret {key}"), &error)),
    }
}

/// Makes the content of a Secret for a requirement.
///
/// # Errors
/// When a key or certificate cannot be made.
pub async fn make(
    ctx: &Ctx,
    key: &ObjectKey,
    requirement: Requirement,
) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let now = ctx.now();
    // Keys take from a tenth of a millisecond (ECDSA) to seconds (RSA) of computing.
    let made = tokio::task::spawn_blocking(move || generate(&requirement, now)).await;
    made.map_err(|_| {
        Failure::transient(
            "InternalError",
            format!("making Secret {key} was interrupted"),
        )
    })?
    .map_err(|error| Failure::terminal("InternalError", format!("making Secret {key}: {error}")))
}

fn generate(
    requirement: &Requirement,
    now: Timestamp,
) -> Result<Vec<(&'static str, Vec<u8>)>, PkiError> {
    let algorithm = |name: &str| KeyAlgorithm::parse(name).unwrap_or(KeyAlgorithm::EcdsaP256);
    let of_pair = |pair: Pair| {
        vec![
            (CERTIFICATE_KEY, pair.public.into_bytes()),
            (PRIVATE_KEY, pair.private.into_bytes()),
        ]
    };
    match requirement {
        Requirement::CertificateAuthority {
            common_name,
            algorithm: name,
            validity_days,
            ..
        } => pki::certificate_authority(common_name, algorithm(name), *validity_days, now)
            .map(of_pair),
        Requirement::KeyPair {
            algorithm: name, ..
        } => pki::key_pair(algorithm(name)).map(of_pair),
        Requirement::SharedSecret { bytes, .. } => {
            let mut random = vec![0; usize::try_from(*bytes).unwrap_or(32)];
            random_bytes(&mut random)?;
            let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(vec![(VALUE_KEY, hex.into_bytes())])
        }
        Requirement::JoinToken { .. } | Requirement::SecretValue { .. } => Ok(Vec::new()),
    }
}

/// Fills a buffer with randomness of the operating system.
///
/// # Errors
/// When the operating system has none.
pub fn random_bytes(buffer: &mut [u8]) -> Result<(), PkiError> {
    rand::rngs::SysRng
        .try_fill_bytes(buffer)
        .map_err(|error| PkiError::Make {
            what: "random bytes",
            why: error.to_string(),
        })
}

/// Checks that a Secret is not another cluster's, whose name begins like this one's.
///
/// # Errors
/// Names both.
pub fn own(key: &ObjectKey, secret: &SecretData, cluster: &ObjectKey) -> Result<(), Failure> {
    if material::is_foreign(&secret.metadata, &cluster.name) {
        return Err(Failure::terminal(
            "SecretOfAnotherCluster",
            format!(
                "Secret {key} is labelled as another cluster's: Cluster {} cannot use it, rename one of the clusters",
                cluster.name
            ),
        ));
    }
    Ok(())
}

/// Makes the holder the controller of the Secret as it is now, if there is one of Cluster API's type that passes the check.
///
/// # Errors
/// When it cannot be read or written.
pub async fn take_over(
    ctx: &Ctx,
    holder: Holder<'_>,
    key: &ObjectKey,
    check: impl FnOnce(&SecretData) -> Result<(), String>,
) -> Result<(), Failure> {
    let found = ctx.secrets.read(&*ctx.api, key).await;
    let found = found.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
    if let Some(secret) = found.filter(|secret| check(secret).is_ok()) {
        adopt(ctx, holder, key, secret).await?;
    }
    Ok(())
}

/// Makes the holder the controller of a Secret of Cluster API's type.
///
/// # Errors
/// When it cannot be written.
pub(super) async fn adopt(
    ctx: &Ctx,
    holder: Holder<'_>,
    key: &ObjectKey,
    secret: Arc<SecretData>,
) -> Result<Arc<SecretData>, Failure> {
    let Some(owners) = owners_with_controller(&secret, holder.owner) else {
        return Ok(secret);
    };
    let patch = Patch::Merge(json!({"metadata": {
        "uid": secret.metadata.get("uid"),
        "resourceVersion": secret.metadata.get("resourceVersion"),
        "ownerReferences": owners,
    }}));
    let answer = ctx
        .api
        .patch(&kinds::SECRET, key, None, &patch, holder.manager)
        .await;
    ctx.secrets.forget(key);
    let stored = answer.map_err(|error| failure(&format!("taking over Secret {key}"), &error))?;
    Ok(ctx.secrets.remember(key, &stored))
}

/// The owner references that a Secret should have when this owner manages it; `None` when it has them or is not ours.
pub(super) fn owners_with_controller(secret: &SecretData, owner: &Value) -> Option<Vec<Value>> {
    let uid = owner.get("uid").and_then(Value::as_str);
    if secret.secret_type != SECRET_TYPE || secret.controller_uid() == uid {
        return None;
    }
    let mut owners: Vec<Value> = secret
        .metadata
        .get("ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    owners.retain(|other| {
        other.get("uid").and_then(Value::as_str) != uid
            && other.get("controller").and_then(Value::as_bool) != Some(true)
    });
    owners.push(owner.clone());
    Some(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(secret_type: &str, owners: &Value) -> SecretData {
        SecretData::read(&json!({"type": secret_type, "metadata": {"ownerReferences": owners}}))
    }

    #[test]
    fn another_controller_is_replaced_and_users_own_secrets_are_left_alone() {
        let owner = json!({"uid": "me", "controller": true});
        let others = json!([{"uid": "old", "controller": true}, {"uid": "friend"}]);
        assert_eq!(
            owners_with_controller(&secret(SECRET_TYPE, &others), &owner),
            Some(vec![json!({"uid": "friend"}), owner.clone()])
        );
        assert_eq!(
            owners_with_controller(&secret(SECRET_TYPE, &json!([owner])), &owner),
            None
        );
        assert_eq!(
            owners_with_controller(&secret("Opaque", &others), &owner),
            None
        );
    }

    #[test]
    fn generated_material_is_what_was_asked_for() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let shared = Requirement::SharedSecret {
            name: "token".to_owned(),
            bytes: 32,
        };
        let made = generate(&shared, now).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!((made[0].0, made[0].1.len()), (VALUE_KEY, 64));
        let sa = Requirement::KeyPair {
            name: "sa".to_owned(),
            algorithm: String::new(),
        };
        let keys: Vec<&str> = generate(&sa, now)
            .unwrap()
            .iter()
            .map(|(k, _)| *k)
            .collect();
        assert_eq!(keys, [CERTIFICATE_KEY, PRIVATE_KEY]);
    }
}
