//! Where machines tell that they did not become nodes: one endpoint with a certificate of its own, and one token per machine, good for
//! one report within its hour.

mod serve;
mod token;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_core::material::KeyAlgorithm;
use capstan_core::plan::Failure;
use http::Uri;
use jiff::Timestamp;
use rand::TryRng as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::certificates::End;
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi};
use crate::object::Object;
use crate::pki::{self, Pair};
use crate::secrets::SecretData;

/// Secret in the host's namespace with the authority of the endpoint and the key of its tokens, so that data that was made before a
/// restart still leads here.
const SECRET: &str = "capstan-bootstrap-report";
const CERTIFICATE: &str = "tls.crt";
const PRIVATE: &str = "tls.key";
const TOKEN_KEY: &str = "token.key";

/// Bytes of the key of tokens: those of the hash.
const TOKEN_KEY_BYTES: usize = 32;

const MANAGER: &str = "capstan-bootstrap-report";

/// The port of an address that names none.
const HTTPS: u16 = 443;
const PATH: &str = "/v1/bootstrap-report";
const REASON: &str = "BootstrapReportUnavailable";

/// Where machines reach the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Without a slash at its end.
    text: String,
    host: String,
    port: u16,
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PublicUrl {
    /// An address of this machine, where machines are on it as well.
    #[must_use]
    pub fn of_address(address: SocketAddr) -> Self {
        Self {
            text: format!("https://{address}"),
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl std::str::FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not https://HOST:PORT as machines reach it");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let is_plain = uri.scheme_str() == Some("https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none();
        if !is_plain {
            return Err(wrong());
        }
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(HTTPS),
        })
    }
}

/// What data of machines says of the endpoint, and what the endpoint needs.
pub struct Reports {
    url: PublicUrl,
    authority: Pair,
    key: Vec<u8>,
    /// When the certificate of the endpoint ends, once it is served.
    served_until: OnceLock<Timestamp>,
}

/// What one machine is told.
pub(crate) struct Invitation {
    /// Where to post.
    pub(crate) url: String,
    /// Who vouches for the endpoint, PEM.
    pub(crate) authority: String,
    /// What lets it, once.
    pub(crate) token: String,
}

impl Reports {
    /// Makes keys, or finds those that an earlier host made.
    ///
    /// # Errors
    /// When the Secret cannot be read or made.
    pub async fn prepare(
        api: &dyn KubeApi,
        namespace: &str,
        url: PublicUrl,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let key = ObjectKey::new(namespace, SECRET);
        let doing = |doing: &str| format!("{doing} Secret {key}");
        let found = match api.get(&kinds::SECRET, &key).await {
            Err(ApiError::NotFound(_)) => {
                let fresh = fresh(&key, now)?;
                match api.create(&kinds::SECRET, namespace, &fresh, MANAGER).await {
                    // Another host was faster: its keys count.
                    Err(ApiError::AlreadyExists(_)) => api.get(&kinds::SECRET, &key).await,
                    made => made,
                }
            }
            found => found,
        };
        let found = found.map_err(|error| failure(&doing("reading"), &error))?;
        let secret = SecretData::read(&found);
        let text = |name: &str| {
            secret.text(name).map(str::to_owned).ok_or_else(|| {
                Failure::terminal(
                    REASON,
                    format!("Secret {key} has no {name}: delete it, and a new one is made"),
                )
            })
        };
        let authority = Pair {
            public: text(CERTIFICATE)?,
            private: text(PRIVATE)?,
        };
        let token_key = secret
            .data
            .get(TOKEN_KEY)
            .filter(|key| key.len() == TOKEN_KEY_BYTES);
        let token_key = token_key.cloned().ok_or_else(|| {
            Failure::terminal(
                REASON,
                format!("Secret {key}, key {TOKEN_KEY}: not {TOKEN_KEY_BYTES} bytes: delete the Secret, and a new one is made"),
            )
        })?;
        Ok(Self {
            url,
            authority,
            key: token_key,
            served_until: OnceLock::new(),
        })
    }

    /// Answers machines until the tasks are stopped.
    ///
    /// # Errors
    /// When there is no certificate for the endpoint.
    pub fn serve(self: &Arc<Self>, ctx: &Arc<Ctx>, listener: TcpListener) -> Result<(), Failure> {
        let certificate = pki::server_certificate(&self.authority, &self.url.host, ctx.now());
        let certificate =
            certificate.map_err(|error| Failure::terminal(REASON, error.to_string()))?;
        let tls = serve::tls(&certificate).map_err(|why| Failure::terminal(REASON, why))?;
        if let Some(end) = pki::earliest_not_after(&certificate.public) {
            self.served_until.get_or_init(|| end);
        }
        serve::start(Arc::clone(ctx), Arc::clone(self), listener, tls);
        Ok(())
    }

    /// When the endpoint's certificates end, by their names.
    #[must_use]
    pub fn ends(&self) -> Vec<End> {
        let authority = pki::earliest_not_after(&self.authority.public);
        let authority = authority.map(|end| ("bootstrap-report-ca".to_owned(), end));
        let served = self.served_until.get();
        let served = served.map(|end| ("bootstrap-report".to_owned(), *end));
        authority.into_iter().chain(served).collect()
    }

    /// What the machine of a bootstrap config is told; nothing where somebody does not want it to be.
    pub(crate) fn invite(
        &self,
        config: &Object,
        around: &[&Object],
        now: Timestamp,
    ) -> Option<Invitation> {
        let declines =
            |object: &Object| object.annotation(annotation::NO_BOOTSTRAP_REPORT).is_some();
        if declines(config) || around.iter().any(|object| declines(object)) {
            return None;
        }
        let subject = Subject::of(config);
        Some(Invitation {
            url: format!("{}{PATH}/{}", self.url.text, subject.path()),
            authority: self.authority.public.clone(),
            token: token::make(&self.key, &subject.text(&config.uid), now),
        })
    }
}

/// The bootstrap config that a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    group: String,
    kind: String,
    key: ObjectKey,
}

impl Subject {
    fn of(config: &Object) -> Self {
        let kind = config.group_kind();
        Self {
            group: kind.group,
            kind: kind.kind,
            key: config.key.clone(),
        }
    }

    fn path(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.group, self.kind, self.key.namespace, self.key.name
        )
    }

    /// Reads the part of a path after [`PATH`].
    fn read(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix(PATH)?.strip_prefix('/')?.split('/');
        let mut next = || {
            parts
                .next()
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
        };
        let (group, kind, namespace, name) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            group,
            kind,
            key: ObjectKey::new(namespace, name),
        })
    }

    /// What a token is for.
    fn text(&self, uid: &str) -> String {
        format!("{}/{uid}", self.path())
    }
}

fn fresh(key: &ObjectKey, now: Timestamp) -> Result<Value, Failure> {
    let failed = |why: String| Failure::terminal(REASON, why);
    let authority =
        pki::certificate_authority("capstan-bootstrap-report", KeyAlgorithm::EcdsaP256, 0, now);
    let authority = authority.map_err(|error| failed(error.to_string()))?;
    let mut token_key = [0_u8; TOKEN_KEY_BYTES];
    rand::rngs::SysRng
        .try_fill_bytes(&mut token_key)
        .map_err(|error| failed(format!("no random bytes: {error}")))?;
    let data = json!({
        CERTIFICATE: BASE64.encode(&authority.public),
        PRIVATE: BASE64.encode(&authority.private),
        TOKEN_KEY: BASE64.encode(token_key),
    });
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"namespace": key.namespace, "name": key.name},
        "data": data,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_object_and_nothing_else() {
        let subject = Subject {
            group: "bootstrap.cluster.x-k8s.io".to_owned(),
            kind: "KubeadmConfig".to_owned(),
            key: ObjectKey::new("n", "c"),
        };
        let path = format!("{PATH}/{}", subject.path());
        assert_eq!(Subject::read(&path), Some(subject));
        for wrong in [
            "",
            "/v1/bootstrap-report",
            "/v1/bootstrap-report/a/b/c",
            "/v1/bootstrap-report/a/b//d",
            "/v1/bootstrap-report/a/b/c/d/e",
        ] {
            assert_eq!(Subject::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_authority_and_what_is_served_end_at_times_of_their_own() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let authority =
            pki::certificate_authority("reports", KeyAlgorithm::EcdsaP256, 30, now).unwrap();
        let reports = Reports {
            url: "https://a:1".parse().unwrap(),
            authority,
            key: Vec::new(),
            served_until: OnceLock::new(),
        };
        let end = "2026-01-31T00:00:00Z".parse().unwrap();
        let authority = ("bootstrap-report-ca".to_owned(), end);
        assert_eq!(reports.ends(), std::slice::from_ref(&authority));
        let served = pki::server_certificate(&reports.authority, "a", now).unwrap();
        let end = pki::earliest_not_after(&served.public).unwrap();
        reports.served_until.set(end).unwrap();
        assert_eq!(
            reports.ends(),
            [authority, ("bootstrap-report".to_owned(), end)]
        );
    }

    #[test]
    fn a_url_is_one_that_machines_can_use() {
        let url: PublicUrl = "https://[fd00::1]:9443/".parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), url.host.as_str(), url.port()),
            ("https://[fd00::1]:9443", "fd00::1", 9443)
        );
        let url: PublicUrl = "https://reports.example.com".parse().unwrap();
        assert_eq!(url.port(), 443);
        for wrong in [
            "http://a:1",
            "a:1",
            "https://a/b",
            "https://",
            "https://a/?x",
        ] {
            assert!(wrong.parse::<PublicUrl>().is_err(), "{wrong}");
        }
    }
}
