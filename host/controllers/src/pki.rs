//! Makes certificate authorities, key pairs and client certificates, and reads what is needed of them.

mod check;

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_core::material::{KeyAlgorithm, VALIDITY_DAYS};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
};
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;

pub use self::check::{Shape, check_pair, is_among};

/// Certificates are valid from a little before they were made: clocks differ (contract: upstream `util/certs`).
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// How long the administrator's certificate is valid (contract: upstream `util/certs`).
const CLIENT_VALIDITY: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What went wrong with a key or a certificate. Never contains their bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The crypto library refused.
    #[error("cannot make {what}: {why}")]
    Make {
        /// What.
        what: &'static str,
        /// The library's words.
        why: String,
    },
    /// Not what it should be.
    #[error("cannot read {what}: {why}")]
    Read {
        /// What.
        what: &'static str,
        /// The library's words.
        why: String,
    },
}

fn make(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |error| PkiError::Make {
        what,
        why: error.to_string(),
    }
}

/// A certificate or public key with its private key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificate, or public key.
    pub public: String,
    /// Private key, PKCS #8.
    pub private: String,
}

/// A new key. RSA keys take a second or more of computing: not for the async runtime's threads.
///
/// # Errors
/// When the library refuses.
pub fn generate_key(algorithm: KeyAlgorithm) -> Result<KeyPair, PkiError> {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => {
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make("a key"))
        }
        KeyAlgorithm::EcdsaP384 => {
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(make("a key"))
        }
        KeyAlgorithm::Rsa(bits) => {
            // The crypto provider signs with RSA keys but does not make them.
            let failed = |why: String| PkiError::Make {
                what: "an RSA key",
                why,
            };
            let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, usize::from(bits))
                .map_err(|error| failed(error.to_string()))?;
            let pem = key
                .to_pkcs8_pem(LineEnding::LF)
                .map_err(|error| failed(error.to_string()))?;
            KeyPair::from_pem(&pem).map_err(make("an RSA key"))
        }
    }
}

/// A self-signed certificate authority that signs no other authorities.
///
/// # Errors
/// When the library refuses.
pub fn certificate_authority(
    common_name: &str,
    algorithm: KeyAlgorithm,
    validity_days: u32,
    now: Timestamp,
) -> Result<Pair, PkiError> {
    let days = if validity_days == 0 {
        VALIDITY_DAYS
    } else {
        validity_days
    };
    let key = generate_key(algorithm)?;
    let validity = SignedDuration::from_hours(i64::from(days).saturating_mul(24));
    let mut params = params(common_name, None, validity, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ];
    let certificate = params
        .self_signed(&key)
        .map_err(make("a certificate authority"))?;
    Ok(Pair {
        public: certificate.pem(),
        private: key.serialize_pem(),
    })
}

/// A key pair without a certificate.
///
/// # Errors
/// When the library refuses.
pub fn key_pair(algorithm: KeyAlgorithm) -> Result<Pair, PkiError> {
    let key = generate_key(algorithm)?;
    Ok(Pair {
        public: key.public_key_pem(),
        private: key.serialize_pem(),
    })
}

/// A certificate with which a client proves who it is, valid for a year or as long as its authority.
///
/// # Errors
/// When the authority cannot be read.
pub fn client_certificate(
    ca: &Pair,
    common_name: &str,
    organization: &str,
    now: Timestamp,
) -> Result<Pair, PkiError> {
    let ca_key = read_key(&ca.private)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.public, ca_key).map_err(|error| PkiError::Read {
        what: "the cluster's certificate authority",
        why: error.to_string(),
    })?;
    let key = generate_key(KeyAlgorithm::EcdsaP256)?;
    let mut params = params(common_name, Some(organization), CLIENT_VALIDITY, now);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(make("a client certificate"))?;
    Ok(Pair {
        public: certificate.pem(),
        private: key.serialize_pem(),
    })
}

/// A certificate for a server under one name or address, valid as long as its authority.
///
/// # Errors
/// When the authority cannot be read, or the host is neither a name nor an address.
pub fn server_certificate(ca: &Pair, host: &str, now: Timestamp) -> Result<Pair, PkiError> {
    let ca_key = read_key(&ca.private)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.public, ca_key).map_err(|error| PkiError::Read {
        what: "the server's certificate authority",
        why: error.to_string(),
    })?;
    let key = generate_key(KeyAlgorithm::EcdsaP256)?;
    let validity = SignedDuration::from_hours(i64::from(VALIDITY_DAYS).saturating_mul(24));
    let mut params = params(host, None, validity, now);
    let named = CertificateParams::new([host.to_owned()]).map_err(make("a server certificate"))?;
    params.subject_alt_names = named.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(make("a server certificate"))?;
    Ok(Pair {
        public: certificate.pem(),
        private: key.serialize_pem(),
    })
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    validity: SignedDuration,
    now: Timestamp,
) -> CertificateParams {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.not_before = SystemTime::from(now.saturating_sub(BACKDATE).unwrap_or(now)).into();
    params.not_after =
        SystemTime::from(now.saturating_add(validity).unwrap_or(Timestamp::MAX)).into();
    params.distinguished_name = name;
    params
}

/// Reads a private key in any of the forms in which users bring them: PKCS #8, PKCS #1 (`RSA PRIVATE KEY`), SEC 1
/// (`EC PRIVATE KEY`).
fn read_key(pem: &str) -> Result<KeyPair, PkiError> {
    let unreadable = |why: String| PkiError::Read {
        what: "the private key of the certificate authority",
        why,
    };
    if pem.contains("BEGIN RSA PRIVATE KEY") {
        let key = rsa::RsaPrivateKey::from_pkcs1_pem(pem)
            .map_err(|error| unreadable(error.to_string()))?;
        let pkcs8 = key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| unreadable(error.to_string()))?;
        return KeyPair::from_pem(&pkcs8).map_err(|error| unreadable(error.to_string()));
    }
    if let Some(start) = pem.find("-----BEGIN EC PRIVATE KEY-----") {
        // Key files may begin with a block of curve parameters.
        let block = pem.get(start..).unwrap_or_default();
        let (_, block) = x509_parser::pem::parse_x509_pem(block.as_bytes())
            .map_err(|error| unreadable(error.to_string()))?;
        return sec1_to_pkcs8(&block.contents)
            .and_then(|der| KeyPair::try_from(der).ok())
            .ok_or_else(|| unreadable("it is not an EC key on P-256 or P-384".to_owned()));
    }
    KeyPair::from_pem(pem).map_err(|error| unreadable(error.to_string()))
}

/// Wraps a SEC 1 key (RFC 5915) as PKCS #8 (RFC 5208), which is what the crypto provider takes.
fn sec1_to_pkcs8(sec1: &[u8]) -> Option<Vec<u8>> {
    const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    let curve = [P256, P384]
        .into_iter()
        .find(|curve| sec1.windows(curve.len()).any(|w| w == *curve))?;
    let mut algorithm = EC_PUBLIC_KEY.to_vec();
    algorithm.extend_from_slice(curve);
    let mut content = vec![0x02, 0x01, 0x00];
    content.extend(der(0x30, &algorithm));
    content.extend(der(0x04, sec1));
    Some(der(0x30, &content))
}

/// One DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    let length = content.len();
    match u8::try_from(length) {
        Ok(short) if short < 128 => value.push(short),
        Ok(long) => value.extend([0x81, long]),
        // Keys are far below 64 KiB.
        Err(_) => {
            value.push(0x82);
            value.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    value.extend_from_slice(content);
    value
}

fn first_certificate(pem: &str) -> Result<Pem, PkiError> {
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| PkiError::Read {
            what: "a certificate",
            why: error.to_string(),
        })?;
    Ok(block)
}

/// `sha256:<hex>` of a certificate's public key info: how a joining machine recognizes its cluster.
///
/// # Errors
/// When it is not a certificate.
pub fn public_key_hash(certificate: &str) -> Result<String, PkiError> {
    let block = first_certificate(certificate)?;
    let parsed = block.parse_x509().map_err(|error| PkiError::Read {
        what: "a certificate",
        why: error.to_string(),
    })?;
    let digest = Sha256::digest(parsed.public_key().raw);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// Whether less than half of a certificate's life is left, or it cannot be read.
#[must_use]
pub fn is_past_half_life(certificate: &str, now: Timestamp) -> bool {
    let Ok(block) = first_certificate(certificate) else {
        return true;
    };
    let Ok(parsed) = block.parse_x509() else {
        return true;
    };
    let from = parsed.validity().not_before.timestamp();
    let until = parsed.validity().not_after.timestamp();
    let half = until
        .saturating_sub(from)
        .checked_div(2)
        .unwrap_or_default();
    until.saturating_sub(now.as_second()) < half
}

/// When a certificate ends, DER.
///
/// # Errors
/// When it is not a certificate.
pub fn not_after(der: &[u8]) -> Result<Timestamp, PkiError> {
    let unreadable = |why: String| PkiError::Read {
        what: "a certificate",
        why,
    };
    let (_, parsed) =
        x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(error.to_string()))?;
    Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|error| unreadable(error.to_string()))
}

/// When the first of the certificates in a PEM text ends: what is a bundle is whole until then.
#[must_use]
pub fn earliest_not_after(pem: &str) -> Option<Timestamp> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    let certificates = blocks.filter(|block| block.label == "CERTIFICATE");
    certificates
        .filter_map(|block| not_after(&block.contents).ok())
        .min()
}

/// Certificates without those that have the subject of a current one and are not current: what a rotation left behind. `None` when there are none.
#[must_use]
pub fn without_predecessors(certificates: &str, current: &str) -> Option<String> {
    let blocks = |pem: &str| -> Vec<Pem> {
        Pem::iter_from_buffer(pem.as_bytes())
            .filter_map(Result::ok)
            .collect()
    };
    let subject = |block: &Pem| {
        let parsed = block.parse_x509().ok()?;
        Some(parsed.subject().as_raw().to_vec())
    };
    let (all, current) = (blocks(certificates), blocks(current));
    let is_predecessor = |block: &&Pem| {
        let is_current = current.iter().any(|own| own.contents == block.contents);
        let name = subject(block);
        !is_current && name.is_some() && current.iter().any(|own| subject(own) == name)
    };
    let left: Vec<&Pem> = all.iter().filter(|block| !is_predecessor(block)).collect();
    (left.len() < all.len()).then(|| left.into_iter().map(pem_text).collect())
}

fn pem_text(block: &Pem) -> String {
    let encoded = BASE64.encode(&block.contents);
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    let label = &block.label;
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// Base64 of PEM, as kubeconfigs have it, decoded.
#[must_use]
pub fn decode_pem(base64: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(base64).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_bundle_ends_when_the_first_of_its_certificates_does() {
        let made = |at: &str| {
            certificate_authority("a", KeyAlgorithm::EcdsaP256, 0, at.parse().unwrap()).unwrap()
        };
        let (old, new) = (made("2020-01-01T00:00:00Z"), made("2026-01-01T00:00:00Z"));
        let end = |pem: &str| earliest_not_after(pem);
        assert!(end(&old.public) < end(&new.public));
        for bundle in [
            format!("{}{}", new.public, old.public),
            format!("{}{}", old.public, new.public),
            format!("{}{}{}", new.private, new.public, old.public),
        ] {
            assert_eq!(end(&bundle), end(&old.public));
        }
        assert_eq!(end(&new.private), None);
        assert_eq!(end(""), None);
    }

    #[test]
    fn an_authority_signs_machines_and_no_other_authorities() {
        let pair = certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let block = first_certificate(&pair.public).unwrap();
        let ca = block.parse_x509().unwrap();
        assert!(ca.is_ca());
        assert_eq!(ca.subject().to_string(), "CN=kubernetes");
        let constraints = ca.basic_constraints().unwrap().unwrap().value;
        assert_eq!(constraints.path_len_constraint, Some(0));
        assert_eq!(
            ca.validity().not_before.timestamp(),
            now().as_second() - 300
        );
        assert_eq!(
            ca.validity().not_after.timestamp(),
            now().as_second() + 3650 * 86_400
        );
        assert!(ca.verify_signature(None).is_ok());
        assert!(pair.private.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn a_client_certificate_is_signed_by_the_authority() {
        let ca = certificate_authority("kubernetes", KeyAlgorithm::EcdsaP384, 100, now()).unwrap();
        let client = client_certificate(&ca, "kubernetes-admin", "system:masters", now()).unwrap();
        let (ca_block, block) = (
            first_certificate(&ca.public).unwrap(),
            first_certificate(&client.public).unwrap(),
        );
        let (ca, client) = (ca_block.parse_x509().unwrap(), block.parse_x509().unwrap());
        assert!(client.verify_signature(Some(ca.public_key())).is_ok());
        assert_eq!(
            client.subject().to_string(),
            "O=system:masters, CN=kubernetes-admin"
        );
        assert_eq!(client.issuer().to_string(), "CN=kubernetes");
        assert!(
            client
                .extended_key_usage()
                .unwrap()
                .unwrap()
                .value
                .client_auth
        );
    }

    #[test]
    fn rsa_keys_are_made_when_asked_for_and_sign() {
        let ca = certificate_authority("kubernetes", KeyAlgorithm::Rsa(2048), 0, now()).unwrap();
        assert!(client_certificate(&ca, "a", "b", now()).is_ok());
        let pkcs1 = {
            use rsa::pkcs1::EncodeRsaPrivateKey;
            use rsa::pkcs8::DecodePrivateKey;
            let key = rsa::RsaPrivateKey::from_pkcs8_pem(&ca.private).unwrap();
            key.to_pkcs1_pem(LineEnding::LF).unwrap().to_string()
        };
        let users_own = Pair {
            private: pkcs1,
            ..ca
        };
        assert!(client_certificate(&users_own, "a", "b", now()).is_ok());
    }

    #[test]
    fn what_a_rotation_left_behind_is_told_from_what_others_added() {
        let make = |name: &str| {
            certificate_authority(name, KeyAlgorithm::EcdsaP256, 0, now())
                .unwrap()
                .public
        };
        let (old, new, other) = (make("kubernetes"), make("kubernetes"), make("other"));
        let left = without_predecessors(&format!("{old}{new}{other}"), &new).unwrap();
        let bytes = |pem: &str| -> Vec<Vec<u8>> {
            let blocks = Pem::iter_from_buffer(pem.as_bytes());
            blocks.map(|block| block.unwrap().contents).collect()
        };
        assert_eq!(bytes(&left), bytes(&format!("{new}{other}")));
        assert_eq!(without_predecessors(&left, &new), None);
    }

    #[test]
    fn a_key_pair_has_a_public_key() {
        let pair = key_pair(KeyAlgorithm::EcdsaP256).unwrap();
        assert!(pair.public.starts_with("-----BEGIN PUBLIC KEY-----"));
        assert!(pair.private.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn a_hash_is_of_the_public_key_info() {
        let ca = certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let hash = public_key_hash(&ca.public).unwrap();
        let key = KeyPair::from_pem(&ca.private).unwrap();
        use rcgen::PublicKeyData;
        let digest = Sha256::digest(key.subject_public_key_info());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, format!("sha256:{hex}"));
    }

    #[test]
    fn a_certificate_is_renewed_after_half_its_life() {
        let ca = certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let client = client_certificate(&ca, "a", "b", now()).unwrap();
        let later = |days: i64| now() + SignedDuration::from_hours(days * 24);
        assert!(!is_past_half_life(&client.public, later(180)));
        assert!(is_past_half_life(&client.public, later(184)));
        assert!(is_past_half_life("not a certificate", now()));
    }

    #[test]
    fn users_bring_ec_keys_in_the_older_form() {
        let ca = certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let pkcs8 = KeyPair::from_pem(&ca.private).unwrap().serialize_der();
        // PKCS #8 of a P-256 key: the SEC 1 key is the octet string after 26 bytes of header and its own two; it lacks the
        // curve, which files have.
        let inner = &pkcs8[pkcs8.len() - 109..];
        let scalar = &inner[7..39];
        let mut body = vec![0x02, 0x01, 0x01, 0x04, 0x20];
        body.extend_from_slice(scalar);
        body.extend([
            0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
        ]);
        let public = &inner[inner.len() - 65..];
        body.extend([0xa1, 0x44, 0x03, 0x42, 0x00]);
        body.extend_from_slice(public);
        let sec1 = der(0x30, &body);
        let pem = format!(
            "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
            BASE64.encode(&sec1)
        );
        assert!(read_key(&pem).is_ok());
    }
}
