//! Bootstrap tokens: their Secret, and the signature that proves that `cluster-info` comes from someone who knows the token.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::object::text_at;

/// Type of the Secrets that hold bootstrap tokens.
pub(crate) const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// A bootstrap token as its Secret describes it.
#[derive(Debug, Clone)]
pub(crate) struct BootstrapToken {
    /// Public part.
    pub(crate) id: String,
    /// Secret part.
    pub(crate) secret: String,
    /// When it stops being good.
    pub(crate) expires: Option<jiff::Timestamp>,
    /// Whether it may be used to authenticate.
    pub(crate) authenticates: bool,
    /// Whether `cluster-info` is signed with it.
    pub(crate) signs: bool,
    /// Groups beside `system:bootstrappers`.
    pub(crate) groups: Vec<String>,
}

/// A Secret's value as text.
pub(crate) fn secret_text(secret: &Value, key: &str) -> Option<String> {
    let encoded = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

impl BootstrapToken {
    /// Reads the Secret; absent when it has no id and secret.
    pub(crate) fn from_secret(secret: &Value) -> Option<Self> {
        let text = |key: &str| secret_text(secret, key);
        Some(Self {
            id: text("token-id")?,
            secret: text("token-secret")?,
            expires: text("expiration").and_then(|time| time.parse().ok()),
            authenticates: text("usage-bootstrap-authentication").as_deref() == Some("true"),
            signs: text("usage-bootstrap-signing").as_deref() == Some("true"),
            groups: text("auth-extra-groups")
                .map(|groups| groups.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        })
    }

    /// Whether it is past its time.
    pub(crate) fn is_expired(&self, now: jiff::Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The Secret of a token that `kubeadm init` was given; `ttl_s` of `None` never expires.
pub(crate) fn to_secret(
    id: &str,
    secret: &str,
    description: &str,
    ttl_s: Option<i64>,
    groups: &[String],
    usages: &[String],
) -> Value {
    let mut data = serde_json::Map::new();
    let mut put = |key: &str, value: &str| {
        data.insert(key.to_owned(), json!(STANDARD.encode(value)));
    };
    put("token-id", id);
    put("token-secret", secret);
    if !description.is_empty() {
        put("description", description);
    }
    if let Some(ttl_s) = ttl_s {
        let now = jiff::Timestamp::now();
        let expires = now
            .checked_add(jiff::SignedDuration::from_secs(ttl_s))
            .unwrap_or(jiff::Timestamp::MAX);
        put("expiration", &super::object::time_text(expires));
    }
    for usage in usages {
        put(&format!("usage-bootstrap-{usage}"), "true");
    }
    if !groups.is_empty() {
        put("auth-extra-groups", &groups.join(","));
    }
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "data": data,
    })
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > 64 {
        Sha256::digest(key).to_vec()
    } else {
        key.to_vec()
    };
    block.resize(64, 0);
    let pad = |with: u8| {
        block
            .iter()
            .map(move |byte| byte ^ with)
            .collect::<Vec<u8>>()
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

/// The detached JWS of `cluster-info`'s kubeconfig with this token, as the bootstrap signer makes it.
pub(crate) fn sign(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let payload = URL_SAFE_NO_PAD.encode(content);
    let signature = hmac(secret.as_bytes(), format!("{header}.{payload}").as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Checks a detached JWS: the key id in its header is the token's, and the signature is made with its secret.
pub(crate) fn is_signed(content: &str, jws: &str, id: &str, secret: &str) -> bool {
    let mut parts = jws.split('.');
    let (Some(header), Some(""), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Some(fields) = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
    else {
        return false;
    };
    let payload = URL_SAFE_NO_PAD.encode(content);
    let wanted = hmac(secret.as_bytes(), format!("{header}.{payload}").as_bytes());
    text_at(&fields, "/alg") == "HS256"
        && text_at(&fields, "/kid") == id
        && URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|given| given == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_the_published_vector() {
        let hex: String = hmac(b"key", b"The quick brown fox jumps over the lazy dog")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
        );
    }

    #[test]
    fn a_signature_is_good_for_its_content_and_token_only() {
        let jws = sign("content", "abcdef", "0123456789abcdef");
        assert!(is_signed("content", &jws, "abcdef", "0123456789abcdef"));
        assert!(!is_signed("other", &jws, "abcdef", "0123456789abcdef"));
        assert!(!is_signed("content", &jws, "abcdef", "0123456789abcdee"));
        assert!(!is_signed("content", &jws, "bbcdef", "0123456789abcdef"));
    }
}
