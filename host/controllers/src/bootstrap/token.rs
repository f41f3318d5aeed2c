//! Join tokens in workload clusters: Secrets that let a machine ask for its certificate (contract: kubeadm's bootstrap tokens).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use capstan_core::bootstrap::{TOKEN_TTL, Token};
use capstan_core::material;
use capstan_core::plan::Failure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{MANAGER, workload_failure};
use crate::ctx::Ctx;
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch};
use crate::object::Object;
use crate::secrets::{SecretData, ensure::random_bytes};

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Longest life that a plugin can ask for.
const LIFETIME_MAX: SignedDuration = SignedDuration::from_hours(24);

/// How many ids are tried when others have taken them.
const SALTS: u32 = 4;

fn key(id: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, format!("bootstrap-token-{id}"))
}

/// How a token is.
pub(super) async fn look(ctx: &Ctx, cluster: &ObjectKey, id: &str) -> Token {
    let Some(workload) = ctx.workloads.get(cluster) else {
        return Token::Unknown("there is no connection to the workload cluster".to_owned());
    };
    match workload.api.get(&kinds::SECRET, &key(id)).await {
        Ok(object) => match expiration(&SecretData::read(&object)) {
            Some(at) => Token::Expires {
                id: id.to_owned(),
                at,
            },
            // Somebody made it live for ever.
            None => Token::Settled,
        },
        Err(ApiError::NotFound(_)) => Token::Gone { id: id.to_owned() },
        Err(error) => Token::Unknown(error.to_string()),
    }
}

fn expiration(secret: &SecretData) -> Option<Timestamp> {
    secret.text("expiration")?.parse().ok()
}

/// Lets a token live longer.
pub(super) async fn extend(
    ctx: &Ctx,
    cluster: &ObjectKey,
    id: &str,
    until: Timestamp,
) -> Result<(), Failure> {
    let doing = "extending the join token";
    let Some(workload) = ctx.workloads.get(cluster) else {
        return Err(Failure::transient(
            "NotConnected",
            format!("{doing}: no connection to the workload cluster"),
        ));
    };
    let patch = Patch::Merge(json!({"data": {"expiration": BASE64.encode(stamp(until))}}));
    let answer = workload
        .api
        .patch(&kinds::SECRET, &key(id), None, &patch, MANAGER)
        .await;
    answer
        .map(drop)
        .map_err(|error| workload_failure(doing, &error))
}

/// RFC 3339 in whole seconds.
fn stamp(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

/// A token, `<id>.<secret>`: the one of this config if it exists, or a new one.
pub(super) async fn ensure(
    api: &dyn KubeApi,
    config: &Object,
    lifetime: Duration,
    now: Timestamp,
) -> Result<(String, String), Failure> {
    let doing = "making the join token";
    let lifetime = match SignedDuration::try_from(lifetime) {
        Ok(lifetime) if !lifetime.is_zero() => {
            lifetime.min(LIFETIME_MAX).max(SignedDuration::from_mins(1))
        }
        _ => TOKEN_TTL,
    };
    let until = now.saturating_add(lifetime).unwrap_or(now);
    let description = format!(
        "made for {} {} (uid {})",
        config.kind(),
        config.key,
        config.uid
    );
    for salt in 0..SALTS {
        let id = material::token_id(&config.uid, salt);
        let secret = random_secret()?;
        let object = token_object(&id, &secret, &description, until);
        match api
            .create(&kinds::SECRET, NAMESPACE, &object, MANAGER)
            .await
        {
            Ok(_) => return Ok((id.clone(), format!("{id}.{secret}"))),
            Err(ApiError::AlreadyExists(_)) => {}
            Err(error) => return Err(workload_failure(doing, &error)),
        }
        // Made by us before a crash, or by chance another's.
        let existing = api.get(&kinds::SECRET, &key(&id)).await;
        let existing = existing.map_err(|error| workload_failure(doing, &error))?;
        let existing = SecretData::read(&existing);
        if existing.text("description") == Some(&description)
            && let Some(secret) = existing.text("token-secret")
        {
            let token = format!("{id}.{secret}");
            let patch = Patch::Merge(json!({"data": {"expiration": BASE64.encode(stamp(until))}}));
            let answer = api
                .patch(&kinds::SECRET, &key(&id), None, &patch, MANAGER)
                .await;
            answer.map_err(|error| workload_failure(doing, &error))?;
            return Ok((id, token));
        }
    }
    Err(Failure::transient(
        "InternalError",
        format!("{doing}: all {SALTS} ids are taken by others"),
    ))
}

fn random_secret() -> Result<String, Failure> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0_u8; 16];
    random_bytes(&mut random)
        .map_err(|error| Failure::transient("InternalError", error.to_string()))?;
    // 32 characters: every byte gives five unbiased bits.
    let characters = random
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)));
    Ok(characters.map(|c| char::from(*c)).collect())
}

fn token_object(id: &str, secret: &str, description: &str, until: Timestamp) -> Value {
    let data = |text: &str| BASE64.encode(text);
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": NAMESPACE, "name": key(id).name},
        "type": SECRET_TYPE,
        "data": {
            "token-id": data(id),
            "token-secret": data(secret),
            "expiration": data(&stamp(until)),
            "usage-bootstrap-signing": data("true"),
            "usage-bootstrap-authentication": data("true"),
            "auth-extra-groups": data("system:bootstrappers:kubeadm:default-node-token"),
            "description": data(description),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_kubeadm_expects() {
        let secret = random_secret().unwrap();
        assert!(
            secret.len() == 16
                && secret
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_ne!(secret, random_secret().unwrap());
        let until = "2026-01-01T00:15:00.75Z".parse().unwrap();
        let object = token_object("abcdef", &secret, "d", until);
        assert_eq!(object["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(object["type"], SECRET_TYPE);
        let read = SecretData::read(&object);
        assert_eq!(read.text("expiration"), Some("2026-01-01T00:15:00Z"));
        assert_eq!(read.text("token-id"), Some("abcdef"));
        assert_eq!(read.text("usage-bootstrap-authentication"), Some("true"));
        assert_eq!(expiration(&read), "2026-01-01T00:15:00Z".parse().ok());
    }
}
