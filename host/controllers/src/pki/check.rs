//! Whether certificates and keys that somebody brought are what they should be: seen before a machine depends on them.

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::read_key;

/// What a Secret should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The certificate of an authority, with its key or without.
    Authority,
    /// A public key with its private one.
    KeyPair,
    /// A certificate that is shown, with its key.
    Certificate,
}

/// What is wrong with a pair, in the words of the Secret's fields; `None` when it can be used. An authority's key may be elsewhere.
#[must_use]
pub fn check_pair(shape: Shape, public: &str, private: &str, now: Timestamp) -> Option<String> {
    let Some(block) = Pem::iter_from_buffer(public.as_bytes()).find_map(Result::ok) else {
        return Some("tls.crt has nothing in PEM".to_owned());
    };
    let key = match public_key(&block, shape, now) {
        Ok(key) => key,
        Err(why) => return Some(why),
    };
    if private.trim().is_empty() {
        return (shape != Shape::Authority).then(|| "tls.key is missing".to_owned());
    }
    match read_key(private) {
        Ok(own) if own.der_bytes() == key => None,
        Ok(_) => Some("tls.key does not belong to tls.crt".to_owned()),
        Err(_) => Some(
            "tls.key cannot be read: it has to be an RSA key, or an EC key on P-256 or P-384, in PEM"
                .to_owned(),
        ),
    }
}

/// The public key in a block, as key pairs have it.
fn public_key(block: &Pem, shape: Shape, now: Timestamp) -> Result<Vec<u8>, String> {
    let label = block.label.as_str();
    match (label, shape) {
        ("CERTIFICATE", _) => {}
        ("RSA PUBLIC KEY", Shape::KeyPair) => return Ok(block.contents.clone()),
        ("PUBLIC KEY", Shape::KeyPair) => {
            let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents)
                .map_err(|_| "tls.crt is not a public key".to_owned())?;
            return Ok(info.subject_public_key.data.to_vec());
        }
        (_, Shape::KeyPair) => return Err("tls.crt is not a public key".to_owned()),
        _ => return Err("tls.crt is not a certificate".to_owned()),
    }
    let parsed = block
        .parse_x509()
        .map_err(|_| "tls.crt is not a certificate".to_owned())?;
    if shape == Shape::Authority && !parsed.is_ca() {
        return Err("tls.crt is not the certificate of an authority (CA:TRUE)".to_owned());
    }
    let end = parsed.validity().not_after.timestamp();
    if shape != Shape::KeyPair && end <= now.as_second() {
        let end = Timestamp::from_second(end).unwrap_or(Timestamp::MIN);
        return Err(format!("tls.crt has ended at {end}"));
    }
    Ok(parsed.public_key().subject_public_key.data.to_vec())
}

/// Whether the first of some certificates is among others. Their order and what stands between them does not matter.
#[must_use]
pub fn is_among(certificate: &str, others: &str) -> bool {
    let Some(wanted) = Pem::iter_from_buffer(certificate.as_bytes()).find_map(Result::ok) else {
        return false;
    };
    Pem::iter_from_buffer(others.as_bytes())
        .filter_map(Result::ok)
        .any(|other| other.contents == wanted.contents)
}

#[cfg(test)]
mod tests {
    use capstan_core::material::KeyAlgorithm;

    use super::super::{certificate_authority, client_certificate, key_pair};
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn wrong(shape: Shape, public: &str, private: &str) -> String {
        check_pair(shape, public, private, now()).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_field() {
        let make =
            || certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let (ca, other) = (make(), make());
        let client = client_certificate(&ca, "a", "b", now()).unwrap();
        let sa = key_pair(KeyAlgorithm::EcdsaP384).unwrap();
        for (shape, public, private) in [
            (Shape::Authority, &ca.public, &ca.private),
            (Shape::Authority, &ca.public, &String::new()),
            (Shape::KeyPair, &sa.public, &sa.private),
            (Shape::KeyPair, &ca.public, &ca.private),
            (Shape::Certificate, &client.public, &client.private),
        ] {
            assert_eq!(wrong(shape, public, private), "", "{shape:?}");
        }
        for (shape, public, private, says) in [
            (
                Shape::Authority,
                &ca.public,
                &other.private,
                "does not belong",
            ),
            (Shape::Authority, &client.public, &client.private, "CA:TRUE"),
            (
                Shape::Authority,
                &sa.public,
                &sa.private,
                "not a certificate",
            ),
            (Shape::KeyPair, &sa.public, &ca.private, "does not belong"),
            (Shape::KeyPair, &sa.private, &sa.private, "not a public key"),
            (
                Shape::Certificate,
                &client.public,
                &String::new(),
                "is missing",
            ),
        ] {
            let said = wrong(shape, public, private);
            assert!(said.contains(says), "{shape:?} {said}");
        }
        assert!(wrong(Shape::Authority, "garbage", &ca.private).contains("nothing in PEM"));
        assert!(wrong(Shape::KeyPair, &sa.public, "garbage").contains("tls.key cannot be read"));
        let late = "2037-01-01T00:00:00Z".parse().unwrap();
        let ended = check_pair(Shape::Authority, &ca.public, &ca.private, late);
        assert!(ended.unwrap().contains("has ended at 2035-12-30"));
    }

    #[test]
    fn rsa_keys_are_compared_in_every_form() {
        let sa = key_pair(KeyAlgorithm::Rsa(2048)).unwrap();
        assert_eq!(wrong(Shape::KeyPair, &sa.public, &sa.private), "");
        let pkcs1 = {
            use rsa::pkcs1::EncodeRsaPublicKey;
            use rsa::pkcs8::DecodePublicKey;
            let key = rsa::RsaPublicKey::from_public_key_pem(&sa.public).unwrap();
            key.to_pkcs1_pem(rsa::pkcs8::LineEnding::LF).unwrap()
        };
        assert!(pkcs1.starts_with("-----BEGIN RSA PUBLIC KEY-----"));
        assert_eq!(wrong(Shape::KeyPair, &pkcs1, &sa.private), "");
    }

    #[test]
    fn a_certificate_is_found_among_others() {
        let make =
            || certificate_authority("kubernetes", KeyAlgorithm::EcdsaP256, 0, now()).unwrap();
        let (one, other) = (make().public, make().public);
        assert!(is_among(&one, &format!("{other}\n{one}")));
        assert!(!is_among(&one, &other));
        assert!(!is_among("", &one));
    }
}
