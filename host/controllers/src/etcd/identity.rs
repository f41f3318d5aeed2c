//! With what the host shows itself to the etcd of each cluster: a client certificate that it makes once and keeps in memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capstan_api::contract::SecretPurpose;
use capstan_api::name::ObjectKey;
use capstan_core::material::{CERTIFICATE_KEY, PRIVATE_KEY, secret_key};
use jiff::{SignedDuration, Timestamp};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::ctx::Ctx;
use crate::kube_api::ApiError;
use crate::object::Locator;
use crate::pki::{self, Pair};
use crate::secrets::SecretData;

/// Who the host is for etcd, which asks for any certificate of its authority.
const USER: &str = "capstan";
const GROUP: &str = "system:masters";

/// A certificate is made anew after half of its year.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(180 * 24);

/// Clusters whose certificate is kept: a few kilobytes each. More than that are made again when they are needed.
const KEPT_MAX: usize = 4096;

/// Secret with a client certificate, for clusters whose etcd authority came without its key.
const CLIENT: SecretPurpose = SecretPurpose::ApiServerEtcdClient;

/// Client certificates by control plane.
#[derive(Default)]
pub struct Identities {
    kept: Mutex<HashMap<Locator, Kept>>,
}

struct Kept {
    /// Of the Secrets that it was made from.
    digest: [u8; 32],
    made: Timestamp,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({} kept)", self.lock().len())
    }
}

impl Identities {
    /// How to connect to the etcd of a cluster, for its control plane. `authority` is the purpose of the Secret with etcd's certificate authority.
    ///
    /// # Errors
    /// What is missing or unreadable, by the name of its Secret.
    pub async fn of(
        &self,
        ctx: &Ctx,
        control_plane: &Locator,
        cluster: &ObjectKey,
        authority: &str,
    ) -> Result<Arc<ClientConfig>, String> {
        let key = secret_key(cluster, authority);
        let ca = read(ctx, &key)
            .await?
            .ok_or_else(|| format!("Secret {key} does not exist"))?;
        let public = text(&ca, &key, CERTIFICATE_KEY)?.to_owned();
        let private = ca.text(PRIVATE_KEY).unwrap_or_default().to_owned();
        let given = if private.is_empty() {
            let key = secret_key(cluster, CLIENT.as_str());
            let client = read(ctx, &key).await?.ok_or_else(|| {
                format!("the etcd authority has no key, and Secret {key} with a client certificate does not exist")
            })?;
            Some(Pair {
                public: text(&client, &key, CERTIFICATE_KEY)?.to_owned(),
                private: text(&client, &key, PRIVATE_KEY)?.to_owned(),
            })
        } else {
            None
        };
        let mut digest = Sha256::new();
        digest.update(&public);
        digest.update(&private);
        if let Some(given) = &given {
            digest.update(&given.public);
            digest.update(&given.private);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let now = ctx.now();
        if let Some(kept) = self.lock().get(control_plane)
            && kept.digest == digest
            && now.duration_since(kept.made) < RENEW_AFTER
        {
            return Ok(Arc::clone(&kept.config));
        }
        let ca = Pair { public, private };
        let client = match given {
            Some(given) => given,
            None => pki::client_certificate(&ca, USER, GROUP, now)
                .map_err(|error| format!("Secret {key}: {error}"))?,
        };
        if let Some(end) = pki::earliest_not_after(&client.public) {
            ctx.certificates.note_own(cluster, end);
        }
        let config = client_config(&ca.public, Some(&client), &[b"h2"])
            .map_err(|error| format!("the certificates of Secret {key} are not usable: {error}"))?;
        let new = Kept {
            digest,
            made: now,
            config: Arc::clone(&config),
        };
        self.keep(control_plane, new);
        Ok(config)
    }

    fn keep(&self, control_plane: &Locator, new: Kept) {
        let mut kept = self.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(control_plane.clone(), new);
    }

    /// Keeps nothing of a control plane any more.
    pub fn forget(&self, control_plane: &Locator) {
        self.lock().remove(control_plane);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Locator, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the client certificate ends that somebody brought for this etcd authority, by its purpose: one with a key needs none.
///
/// # Errors
/// When the Secret cannot be read.
pub async fn brought_end(
    ctx: &Ctx,
    cluster: &ObjectKey,
    authority: &SecretData,
) -> Result<Option<(String, Timestamp)>, ApiError> {
    if authority
        .text(PRIVATE_KEY)
        .is_some_and(|key| !key.is_empty())
    {
        return Ok(None);
    }
    let key = secret_key(cluster, CLIENT.as_str());
    let client = ctx.secrets.get(&*ctx.api, &key).await?;
    let public = client.as_ref().and_then(|it| it.text(CERTIFICATE_KEY));
    let end = public.and_then(pki::earliest_not_after);
    Ok(end.map(|end| (CLIENT.to_string(), end)))
}

async fn read(ctx: &Ctx, key: &ObjectKey) -> Result<Option<Arc<SecretData>>, String> {
    let read = ctx.secrets.get(&*ctx.api, key).await;
    read.map_err(|error| format!("reading Secret {key}: {error}"))
}

fn text<'a>(secret: &'a SecretData, key: &ObjectKey, field: &str) -> Result<&'a str, String> {
    secret
        .text(field)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| format!("Secret {key} has no {field}"))
}

/// TLS for a client with this certificate, or without one, towards servers of this authority under any name.
///
/// # Errors
/// When a certificate or key cannot be used.
pub fn client_config(
    authority: &str,
    client: Option<&Pair>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let unreadable = |what: &str| Error::General(format!("no {what} in PEM"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(|_| unreadable("certificate authority"))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName { inner }));
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain: Vec<CertificateDer<'static>> =
                CertificateDer::pem_slice_iter(client.public.as_bytes())
                    .collect::<Result<_, _>>()
                    .map_err(|_| unreadable("client certificate"))?;
            let key = PrivateKeyDer::from_pem_slice(client.private.as_bytes())
                .map_err(|_| unreadable("client key"))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Accepts every server that the authority vouches for: members are reached through a port-forward, under no name
/// (contract: upstream `etcd/util`). All other checks are those of the library.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last: what is wrong with anything else comes first.
        match self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::material::KeyAlgorithm;

    use super::*;
    use crate::kube_api::GroupKind;

    #[test]
    fn nothing_stays_of_a_control_plane_that_is_gone() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let ca = pki::certificate_authority("etcd", KeyAlgorithm::EcdsaP256, 0, now).unwrap();
        let config = client_config(&ca.public, None, &[]).unwrap();
        let of = |name: &str| Locator {
            kind: GroupKind {
                group: "controlplane.cluster.x-k8s.io".to_owned(),
                kind: "KubeadmControlPlane".to_owned(),
            },
            key: ObjectKey::new("n", name),
        };
        let identities = Identities::default();
        for name in ["a", "b"] {
            let kept = Kept {
                digest: [0; 32],
                made: now,
                config: Arc::clone(&config),
            };
            identities.keep(&of(name), kept);
        }
        identities.forget(&of("a"));
        let left: Vec<Locator> = identities.lock().keys().cloned().collect();
        assert_eq!(left, [of("b")]);
    }
}
