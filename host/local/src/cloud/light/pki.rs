//! Certificates of a workload cluster: what a control-plane machine makes from the CA that it was given, and what a kubelet asks for.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate or a key is of no use. Never contains key material.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// Not PEM, or not what it should be.
    #[error("{0} is not a PEM {1}")]
    NotPem(String, &'static str),
    /// A key of a kind that is not supported.
    #[error("{0}: the key is neither RSA of 2048 to 4096 bits nor ECDSA on P-256 or P-384")]
    Key(String),
    /// Key and certificate do not belong together.
    #[error("{0} and {1} do not belong together")]
    Mismatch(String, String),
    /// Making a certificate failed.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// TLS does not accept it.
    #[error("the certificates cannot be served")]
    Tls(#[from] rustls::Error),
    /// TLS does not accept the CA.
    #[error("the CA cannot verify clients")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Whom a server lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Those with a certificate of its authority.
    Known,
    /// Those without a certificate, too.
    Anybody,
}

/// A cluster's certificate authority with its key, and those that are trusted beside it.
pub(crate) struct Authority {
    /// The certificate as it was given.
    pub(crate) pem: String,
    /// All certificates of it: the first signs, each is trusted.
    trusted: Vec<CertificateDer<'static>>,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn der_length(length: usize) -> Vec<u8> {
    let bytes: Vec<u8> = length
        .to_be_bytes()
        .into_iter()
        .skip_while(|byte| *byte == 0)
        .collect();
    match u8::try_from(length) {
        Ok(short) if short < 128 => vec![short],
        _ => {
            let count = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
            std::iter::once(0x80 | count).chain(bytes).collect()
        }
    }
}

fn der_value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    value.extend(der_length(content.len()));
    value.extend_from_slice(content);
    value
}

/// Wraps a key of an older form into PKCS #8, the only form that the signer reads.
fn pkcs8(algorithm: &[u8], key: &[u8]) -> PrivatePkcs8KeyDer<'static> {
    let mut inner = vec![0x02, 0x01, 0x00];
    inner.extend(der_value(0x30, algorithm));
    inner.extend(der_value(0x04, key));
    PrivatePkcs8KeyDer::from(der_value(0x30, &inner))
}

const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
const P384: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];

/// Reads a private key: PKCS #8, PKCS #1 or SEC 1.
fn key_from_pem(path: &str, pem: &str) -> Result<KeyPair, PkiError> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| PkiError::NotPem(path.to_owned(), "private key"))?;
    let candidates = match &der {
        PrivateKeyDer::Pkcs8(key) => vec![key.clone_key()],
        PrivateKeyDer::Pkcs1(key) => vec![pkcs8(RSA, key.secret_pkcs1_der())],
        PrivateKeyDer::Sec1(key) => vec![
            pkcs8(P256, key.secret_sec1_der()),
            pkcs8(P384, key.secret_sec1_der()),
        ],
        _ => Vec::new(),
    };
    candidates
        .into_iter()
        .find_map(|key| KeyPair::try_from(&key).ok())
        .ok_or_else(|| PkiError::Key(path.to_owned()))
}

/// The `sha256:...` pin of a certificate's public key, as `kubeadm join` takes it.
pub(crate) fn public_key_pin(der: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let digest = Sha256::digest(parsed.public_key().raw);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sha256:{hex}"))
}

/// The certificates in a PEM text.
pub(crate) fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

/// Moves a certificate's validity to start five minutes ago and end in so many days.
fn set_validity(params: &mut CertificateParams, days: u64) {
    let now = std::time::SystemTime::now();
    let minutes_ago = now
        .checked_sub(std::time::Duration::from_secs(300))
        .unwrap_or(now);
    let later = now
        .checked_add(std::time::Duration::from_secs(days.saturating_mul(86_400)))
        .unwrap_or(now);
    params.not_before = minutes_ago.into();
    params.not_after = later.into();
}

impl Authority {
    /// Reads certificate and key; the paths are for messages.
    pub(crate) fn from_pem(
        cert_path: &str,
        cert: &str,
        key_path: &str,
        key: &str,
    ) -> Result<Self, PkiError> {
        let not_pem = || PkiError::NotPem(cert_path.to_owned(), "certificate");
        let trusted = certificates(cert);
        let der = trusted.first().cloned().ok_or_else(not_pem)?;
        let key = key_from_pem(key_path, key)?;
        let public = X509Certificate::from_der(&der)
            .map(|(_, parsed)| parsed.public_key().subject_public_key.data.to_vec())
            .map_err(|_| not_pem())?;
        if public != key.public_key_raw() {
            return Err(PkiError::Mismatch(
                cert_path.to_owned(),
                key_path.to_owned(),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self {
            pem: cert.to_owned(),
            trusted,
            der,
            issuer,
        })
    }

    /// The certificate that signs.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whether what another authority signed is accepted.
    pub(crate) fn trusts(&self, other: &CertificateDer<'static>) -> bool {
        self.trusted.contains(other)
    }

    /// The TLS configuration of a server of this name: a serving certificate for these names, and client certificates checked against this CA.
    pub(crate) fn server_config(
        &self,
        common_name: &str,
        names: &[String],
        addresses: &[IpAddr],
        clients: Clients,
    ) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        for name in names {
            if let Ok(name) = name.as_str().try_into() {
                params.subject_alt_names.push(SanType::DnsName(name));
            }
        }
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 8]>()));
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, 365);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let mut roots = RootCertStore::empty();
        for certificate in &self.trusted {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = match clients {
            Clients::Known => verifier.build()?,
            Clients::Anybody => verifier.allow_unauthenticated().build()?,
        };
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Signs a certificate request as the controller manager's signer does: for client authentication, for a year.
    pub(crate) fn sign_client(&self, request: &str) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 8]>()));
        set_validity(&mut request.params, 365);
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// The TLS configuration of a server that has got the certificates of some other cluster.
pub(crate) fn foreign_server_config() -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "another-ca");
    set_validity(&mut params, 365);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let authority = Authority {
        pem: certificate.pem(),
        trusted: vec![certificate.der().clone()],
        der: certificate.der().clone(),
        issuer: Issuer::new(params, key),
    };
    authority.server_config("another", &["localhost".to_owned()], &[], Clients::Known)
}

/// A kubelet's new key and its certificate request.
pub(crate) struct NodeRequest {
    /// Key, PKCS #8 DER.
    pub(crate) key: Vec<u8>,
    /// Request, PEM.
    pub(crate) pem: String,
}

/// Makes the request for a node's client certificate.
pub(crate) fn node_request(node: &str) -> Result<NodeRequest, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("system:node:{node}"));
    let key = KeyPair::generate()?;
    let pem = params.serialize_request(&key)?.pem()?;
    Ok(NodeRequest {
        key: key.serialize_der(),
        pem,
    })
}

/// Common name and organizations that a certificate request asks for.
pub(crate) fn requested_subject(request: &str) -> Option<(String, Vec<String>)> {
    let request = CertificateSigningRequestParams::from_pem(request).ok()?;
    let mut name = String::new();
    let mut groups = Vec::new();
    for (kind, value) in request.params.distinguished_name.iter() {
        let text = match value {
            rcgen::DnValue::Utf8String(text) => text.clone(),
            rcgen::DnValue::PrintableString(text) => text.as_str().to_owned(),
            _ => continue,
        };
        match kind {
            DnType::CommonName => name = text,
            DnType::OrganizationName => groups.push(text),
            _ => {}
        }
    }
    Some((name, groups))
}
