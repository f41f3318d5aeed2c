//! Whether a component is the one that was meant: by its digest, and by signatures of keys that the host's operator keeps.
//!
//! A signature is over the component's bytes as they are after unpacking (ECDSA P-256 with SHA-256, or Ed25519), over their SHA-256
//! alone (Ed25519), or, for components of a registry, over cosign's statement about their manifest.

use std::fmt;

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::LoadError;

/// What is done about components without a good signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// Signatures are not looked at.
    #[default]
    Off,
    /// They are loaded, and the Plugin object says so.
    Warn,
    /// They are not loaded.
    Require,
}

/// Keys of one public-key file.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Where it was found, for messages.
    name: String,
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Ed25519,
    EcdsaP256,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name, self.algorithm)
    }
}

/// `SubjectPublicKeyInfo` of an Ed25519 key, up to the key's 32 bytes (RFC 8410).
const ED25519_HEAD: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// `SubjectPublicKeyInfo` of a P-256 key, up to the point's 65 bytes (RFC 5480).
const P256_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl PublicKey {
    /// All keys of a PEM text.
    ///
    /// # Errors
    /// Names what is no key that this host knows.
    pub fn from_pem(name: &str, pem: &[u8]) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = der.map_err(|e| format!("{name} is not PEM: {e}"))?;
            let known = [
                (ED25519_HEAD, 32, Algorithm::Ed25519),
                (P256_HEAD, 65, Algorithm::EcdsaP256),
            ];
            let found = known.iter().find_map(|(head, length, algorithm)| {
                let bytes = der.as_ref().strip_prefix(*head)?;
                (bytes.len() == *length).then(|| Self {
                    name: name.to_owned(),
                    algorithm: *algorithm,
                    bytes: bytes.to_vec(),
                })
            });
            keys.push(found.ok_or_else(|| {
                format!("{name} has a key that is neither Ed25519 nor ECDSA P-256")
            })?);
        }
        if keys.is_empty() {
            return Err(format!("{name} has no PUBLIC KEY in PEM"));
        }
        Ok(keys)
    }

    /// Where it was found.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the same key, wherever it was found.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.bytes == other.bytes
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm {
            Algorithm::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature)
            }
            Algorithm::EcdsaP256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.bytes)
                .verify(message, signature),
        };
        verified.is_ok()
    }
}

/// A signature as it was found beside a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signature {
    /// Over the component.
    Component(Vec<u8>),
    /// Cosign's: over a statement about the manifest that the component was pulled by.
    Manifest {
        /// The statement.
        payload: Vec<u8>,
        /// Over the statement.
        signature: Vec<u8>,
        /// `sha256:<hex>` of the manifest.
        manifest: String,
    },
}

/// What must be true of a component before it is compiled.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The one digest that is accepted, if one is.
    pub digest: Option<String>,
    /// What is done about components without a good signature.
    pub policy: SignaturePolicy,
    /// Whose signatures are good.
    pub keys: Vec<PublicKey>,
    /// What was found.
    pub signatures: Vec<Signature>,
}

/// What is known of who signed a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Nobody looked.
    Unchecked,
    /// This key.
    By(PublicKey),
    /// Nobody, and the policy is to load it all the same; why not.
    Not(String),
}

impl Trust {
    /// Checks a component with its digest.
    pub(crate) fn check(&self, component: &[u8], digest: &str) -> Result<Signed, LoadError> {
        if let Some(wanted) = self.digest.as_ref().filter(|wanted| *wanted != digest) {
            return Err(LoadError::DigestMismatch {
                wanted: wanted.clone(),
                found: digest.to_owned(),
            });
        }
        if self.policy == SignaturePolicy::Off {
            return Ok(Signed::Unchecked);
        }
        let hash = Sha256::digest(component);
        for key in &self.keys {
            if self
                .signatures
                .iter()
                .any(|signature| is_by(key, signature, component, &hash))
            {
                return Ok(Signed::By(key.clone()));
            }
        }
        let why = match (self.keys.is_empty(), self.signatures.is_empty()) {
            (true, _) => "this host has no keys to check signatures with".to_owned(),
            (false, true) => "there is no signature".to_owned(),
            (false, false) => format!(
                "none of its {} signatures is of one of the {} keys of this host, over exactly this component",
                self.signatures.len(),
                self.keys.len()
            ),
        };
        match self.policy {
            SignaturePolicy::Require => Err(LoadError::NotSigned { why }),
            SignaturePolicy::Warn | SignaturePolicy::Off => Ok(Signed::Not(why)),
        }
    }
}

fn is_by(key: &PublicKey, signature: &Signature, component: &[u8], hash: &[u8]) -> bool {
    match signature {
        Signature::Component(signature) => {
            key.signed(component, signature)
                || (key.algorithm == Algorithm::Ed25519 && key.signed(hash, signature))
        }
        Signature::Manifest {
            payload,
            signature,
            manifest,
        } => key.signed(payload, signature) && states(payload, manifest),
    }
}

/// Whether a statement of cosign is about this manifest.
fn states(payload: &[u8], manifest: &str) -> bool {
    let Ok(statement) = serde_json::from_slice::<Value>(payload) else {
        return false;
    };
    let text = |pointer: &str| statement.pointer(pointer).and_then(Value::as_str);
    text("/critical/type") == Some("cosign container image signature")
        && text("/critical/image/docker-manifest-digest") == Some(manifest)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    fn pem(head: &[u8], key: &[u8]) -> Vec<u8> {
        let text = STANDARD.encode([head, key].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
    }

    struct Signer {
        ed: Ed25519KeyPair,
        ec: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl Signer {
        fn new() -> Self {
            let random = SystemRandom::new();
            let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Self {
                ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
                ec: EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap(),
                random,
            }
        }

        fn keys(&self) -> Vec<PublicKey> {
            let ed = pem(ED25519_HEAD, self.ed.public_key().as_ref());
            let ec = pem(P256_HEAD, self.ec.public_key().as_ref());
            let mut keys = PublicKey::from_pem("ed", &ed).unwrap();
            keys.extend(PublicKey::from_pem("ec", &ec).unwrap());
            keys
        }

        fn ed(&self, message: &[u8]) -> Vec<u8> {
            self.ed.sign(message).as_ref().to_vec()
        }

        fn ec(&self, message: &[u8]) -> Vec<u8> {
            self.ec
                .sign(&self.random, message)
                .unwrap()
                .as_ref()
                .to_vec()
        }
    }

    fn trust(signer: &Signer, signatures: Vec<Signature>) -> Trust {
        Trust {
            policy: SignaturePolicy::Require,
            keys: signer.keys(),
            signatures,
            ..Trust::default()
        }
    }

    const COMPONENT: &[u8] = b"a component";

    #[test]
    fn good_signatures_of_both_algorithms_are_told_by_their_key() {
        let signer = Signer::new();
        let hash = Sha256::digest(COMPONENT);
        for (signature, by) in [
            (signer.ed(COMPONENT), "ed"),
            (signer.ed(&hash), "ed"),
            (signer.ec(COMPONENT), "ec"),
        ] {
            let trust = trust(&signer, vec![Signature::Component(signature)]);
            let signed = trust.check(COMPONENT, "sha256:x").unwrap();
            assert!(matches!(&signed, Signed::By(key) if key.name() == by));
        }
    }

    #[test]
    fn signatures_of_others_and_over_others_are_refused() {
        let (signer, other) = (Signer::new(), Signer::new());
        for signature in [
            signer.ed(b"another component"),
            signer.ec(b"another component"),
            other.ed(COMPONENT),
            other.ec(COMPONENT),
            vec![],
            vec![0; 64],
        ] {
            let trust = trust(&signer, vec![Signature::Component(signature)]);
            let refused = trust.check(COMPONENT, "sha256:x");
            assert!(matches!(refused, Err(LoadError::NotSigned { .. })));
        }
    }

    #[test]
    fn a_statement_counts_for_its_own_manifest_only() {
        let signer = Signer::new();
        let statement = |kind: &str, digest: &str| {
            json!({"critical": {"type": kind, "image": {"docker-manifest-digest": digest}, "identity": {}}})
                .to_string()
                .into_bytes()
        };
        let check = |payload: Vec<u8>, manifest: &str| {
            let signature = Signature::Manifest {
                signature: signer.ec(&payload),
                payload,
                manifest: manifest.to_owned(),
            };
            trust(&signer, vec![signature]).check(COMPONENT, "sha256:x")
        };
        let kind = "cosign container image signature";
        assert!(check(statement(kind, "sha256:m"), "sha256:m").is_ok());
        assert!(check(statement(kind, "sha256:m"), "sha256:n").is_err());
        assert!(check(statement("attestation", "sha256:m"), "sha256:m").is_err());
        assert!(check(b"no statement".to_vec(), "sha256:m").is_err());
    }

    #[test]
    fn the_policy_decides_about_what_nobody_signed() {
        let signer = Signer::new();
        let mut trust = trust(&signer, vec![]);
        assert!(trust.check(COMPONENT, "sha256:x").is_err());
        trust.policy = SignaturePolicy::Warn;
        assert!(matches!(
            trust.check(COMPONENT, "sha256:x"),
            Ok(Signed::Not(_))
        ));
        trust.policy = SignaturePolicy::Off;
        assert_eq!(trust.check(COMPONENT, "sha256:x"), Ok(Signed::Unchecked));
        trust.digest = Some("sha256:y".to_owned());
        let refused = trust.check(COMPONENT, "sha256:x");
        assert!(matches!(refused, Err(LoadError::DigestMismatch { .. })));
    }

    #[test]
    fn what_is_no_key_is_named() {
        for text in [
            "",
            "hello",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            let error = PublicKey::from_pem("Secret a/b", text.as_bytes()).unwrap_err();
            assert!(error.contains("Secret a/b"), "{error}");
        }
    }
}
