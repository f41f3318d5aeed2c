//! Join tokens in workload clusters: Secrets that let a machine ask for its certificate (contract: kubeadm's bootstrap tokens).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use capstan_core::bootstrap::{Effect, TOKEN_TTL, Token};
use capstan_core::material;
use capstan_core::plan::Failure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{MANAGER, workload_failure};
use crate::ctx::Ctx;
use crate::kinds;
use crate::kube_api::{ApiError, Patch};
use crate::object::Object;
use crate::secrets::{SecretData, ensure::random_bytes};
use crate::workloads::Workload;

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
    // A server that hangs does not hold the workers of all.
    let Ok(_turn) = workload.tokens.try_acquire() else {
        return Token::NotItsTurn;
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
) -> Result<Effect, Failure> {
    let doing = "extending the join token";
    let Some(workload) = ctx.workloads.get(cluster) else {
        return Err(Failure::transient(
            "NotConnected",
            format!("{doing}: no connection to the workload cluster"),
        ));
    };
    let Ok(_turn) = workload.tokens.try_acquire() else {
        return Ok(Effect::NotItsTurn);
    };
    let patch = Patch::Merge(json!({"data": {"expiration": BASE64.encode(stamp(until))}}));
    let answer = workload
        .api
        .patch(&kinds::SECRET, &key(id), None, &patch, MANAGER)
        .await;
    answer
        .map(|_| Effect::Extended)
        .map_err(|error| workload_failure(doing, &error))
}

/// RFC 3339 in whole seconds.
fn stamp(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

/// What token is wanted.
pub(super) struct Wanted<'a> {
    /// How long it lives; zero for the usual time.
    pub(super) lifetime: Duration,
    /// Id of the one that it takes the place of, which lives on until its end: machines may be booting with it.
    pub(super) replaces: Option<&'a str>,
    /// Tokens come one after the other, as for a pool: one that was used before gets a new secret.
    pub(super) follows: bool,
}

/// A token, its id and `<id>.<secret>`: the one of this config if it exists, or a new one. `None` when others have their turn.
pub(super) async fn ensure(
    workload: &Workload,
    config: &Object,
    wanted: &Wanted<'_>,
    now: Timestamp,
) -> Result<Option<(String, String)>, Failure> {
    let doing = "making the join token";
    let Ok(_turn) = workload.tokens.try_acquire() else {
        return Ok(None);
    };
    let api = &workload.api;
    let lifetime = match SignedDuration::try_from(wanted.lifetime) {
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
        if wanted.replaces == Some(&*id) {
            continue;
        }
        let secret = random_secret()?;
        let object = token_object(&id, &secret, &description, until);
        match api
            .create(&kinds::SECRET, NAMESPACE, &object, MANAGER)
            .await
        {
            Ok(_) => return Ok(Some((id.clone(), format!("{id}.{secret}")))),
            Err(ApiError::AlreadyExists(_)) => {}
            Err(error) => return Err(workload_failure(doing, &error)),
        }
        // Made by us before a crash, or by chance another's.
        let existing = api.get(&kinds::SECRET, &key(&id)).await;
        let existing = existing.map_err(|error| workload_failure(doing, &error))?;
        let existing = SecretData::read(&existing);
        let is_ours = existing.text("description") == Some(&description);
        if is_ours && wanted.follows && is_old(&existing, lifetime, now) {
            // One that was replaced before: its secret is in data that was, and must not live again.
            let answer = api
                .patch(
                    &kinds::SECRET,
                    &key(&id),
                    None,
                    &renewed(&secret, until),
                    MANAGER,
                )
                .await;
            answer.map_err(|error| workload_failure(doing, &error))?;
            let token = format!("{id}.{secret}");
            return Ok(Some((id, token)));
        }
        if is_ours && let Some(secret) = existing.text("token-secret") {
            let token = format!("{id}.{secret}");
            let patch = Patch::Merge(json!({"data": {"expiration": BASE64.encode(stamp(until))}}));
            let answer = api
                .patch(&kinds::SECRET, &key(&id), None, &patch, MANAGER)
                .await;
            answer.map_err(|error| workload_failure(doing, &error))?;
            return Ok(Some((id, token)));
        }
    }
    Err(Failure::transient(
        "InternalError",
        format!("{doing}: all {SALTS} ids are taken by others"),
    ))
}

/// Whether a token was made long ago, and not by a try just now whose end was lost.
fn is_old(secret: &SecretData, lifetime: SignedDuration, now: Timestamp) -> bool {
    let half = lifetime.checked_div(2).unwrap_or(lifetime);
    expiration(secret).is_some_and(|at| at.duration_since(now) < half)
}

/// The patch that gives a token another secret.
fn renewed(secret: &str, until: Timestamp) -> Patch {
    Patch::Merge(json!({"data": {
        "token-secret": BASE64.encode(secret), "expiration": BASE64.encode(stamp(until)),
    }}))
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
    use futures::FutureExt;

    use super::*;
    use crate::kube_api::staged::Act;
    use crate::machine::tests::two_clusters;
    use crate::workloads::nodes::TOKENS_AT_ONCE;

    /// Looks at a token, extends it or makes one; whether that had its turn.
    async fn ask(ctx: &Ctx, cluster: &str, at: usize) -> bool {
        let key = ObjectKey::new("ns", cluster);
        let now = ctx.now();
        match at % 3 {
            0 => look(ctx, &key, "abcdef").await != Token::NotItsTurn,
            1 => extend(ctx, &key, "abcdef", now).await != Ok(Effect::NotItsTurn),
            _ => {
                let config = json!({"kind": "Config", "metadata": {
                    "name": "m", "namespace": "ns", "uid": at.to_string(),
                }});
                let config = Object::new(config).unwrap();
                let wanted = Wanted {
                    lifetime: Duration::ZERO,
                    replaces: None,
                    follows: false,
                };
                let workload = ctx.workloads.connected(&key).unwrap();
                let made = ensure(&workload, &config, &wanted, now).await;
                made.unwrap().is_some()
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_cluster_that_hangs_holds_few_workers_and_none_of_another() {
        let (ctx, servers) = two_clusters().await;
        let token = token_object("abcdef", "secret", "d", ctx.now());
        servers["well"].hold(&kinds::SECRET, token);
        for words in ["get /api/v1/namespaces/kube-system", "patch", "create"] {
            servers["hangs"].act(words, Act::Hang);
        }
        let mut held = Vec::new();
        for at in 0..16 {
            let mut worker = ask(&ctx, "hangs", at).boxed();
            match (&mut worker).now_or_never() {
                None => held.push(worker),
                Some(had_turn) => assert!(!had_turn, "{at}"),
            }
        }
        assert_eq!(held.len(), TOKENS_AT_ONCE);
        for at in 0..16 {
            assert!(ask(&ctx, "well", at).await, "{at}");
        }
        // Who gives up makes room.
        held.pop();
        let next = ask(&ctx, "hangs", 0);
        assert!(next.now_or_never().is_none(), "it is its turn");
    }

    #[test]
    fn a_token_of_long_ago_gets_another_secret_and_one_of_just_now_keeps_it() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let ends = |seconds: i64| {
            let until = now + SignedDuration::from_secs(seconds);
            SecretData::read(&token_object("abcdef", "secret", "d", until))
        };
        for (seconds, old) in [(899, false), (451, false), (449, true), (-5, true)] {
            assert_eq!(is_old(&ends(seconds), TOKEN_TTL, now), old, "{seconds}");
        }
        let Patch::Merge(patch) = renewed("other", now) else {
            panic!("not a merge patch");
        };
        assert_eq!(patch["data"]["token-secret"], BASE64.encode("other"));
        assert_eq!(
            patch["data"]["expiration"],
            BASE64.encode("2026-01-01T00:00:00Z")
        );
    }

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
