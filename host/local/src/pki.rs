//! One certificate authority per local control plane, and the certificates that it issues.
//!
//! The authority's key never leaves memory. Certificates are valid from yesterday (clocks differ)
//! for ten years: they are worthless outside a directory that is thrown away.

use jiff::{Span, Zoned};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A client certificate was asked for with more groups than a subject can carry here.
    #[error("a client certificate for {subject} can carry at most 2 groups, not {groups}")]
    TooManyGroups {
        /// The common name asked for.
        subject: String,
        /// How many groups were asked for.
        groups: usize,
    },
    /// Key generation or signing failed.
    #[error("could not make a certificate for {subject}")]
    Issue {
        /// The common name asked for.
        subject: String,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
}

/// A certificate and its private key, both PEM. `Debug` hides the key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pair")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate authority that lives as long as this value.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority with this common name.
    pub fn new(common_name: &str) -> Result<Self, Error> {
        let make = || {
            let mut params = subject(common_name, &[])?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::CrlSign,
                KeyUsagePurpose::DigitalSignature,
            ];
            CertifiedIssuer::self_signed(params, KeyPair::generate()?)
        };
        let issuer = make().map_err(|source| issue(common_name, source))?;
        Ok(Self { issuer })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A serving certificate for these DNS names and IP addresses.
    pub fn server(&self, common_name: &str, names: &[&str]) -> Result<Pair, Error> {
        let make = || {
            let mut params = subject(common_name, &[])?;
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            self.sign(params)
        };
        make().map_err(|source| issue(common_name, source))
    }

    /// A client certificate: Kubernetes reads the common name as the user and each organisation
    /// as a group. At most two groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pair, Error> {
        if groups.len() > 2 {
            let subject = user.to_owned();
            return Err(Error::TooManyGroups {
                subject,
                groups: groups.len(),
            });
        }
        let make = || {
            let mut params = subject(user, groups)?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            self.sign(params)
        };
        make().map_err(|source| issue(user, source))
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, rcgen::Error> {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// A signing key that belongs to no certificate (the API server's service account tokens).
pub(crate) struct SigningKey {
    /// The private half, PKCS#8 PEM.
    pub(crate) private_pem: String,
    /// The public half, PEM.
    pub(crate) public_pem: String,
}

impl SigningKey {
    /// Makes a new one.
    pub(crate) fn new() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|source| issue("service accounts", source))?;
        Ok(Self {
            private_pem: key.serialize_pem(),
            public_pem: key.public_key_pem(),
        })
    }
}

fn issue(subject: &str, source: rcgen::Error) -> Error {
    Error::Issue {
        subject: subject.to_owned(),
        source,
    }
}

fn subject(common_name: &str, organisations: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    // The library keeps one value per attribute type; the same type spelt as a bare identifier
    // counts as another, which gives room for a second organisation.
    let spellings = [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ];
    for (organisation, spelling) in organisations.iter().zip(spellings) {
        name.push(spelling, *organisation);
    }
    params.distinguished_name = name;
    let today = Zoned::now();
    let shifted = |span: Span| {
        let day = today
            .checked_add(span)
            .unwrap_or_else(|_| today.clone())
            .date();
        let part = |value: i8| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(day.year()), part(day.month()), part(day.day()))
    };
    params.not_before = shifted(Span::new().days(-1));
    params.not_after = shifted(Span::new().days(3650));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_carries_user_and_every_group() {
        let authority = Authority::new("test").unwrap();
        let pair = authority.client("capstan", &["a", "b"]).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let subject = certificate.subject();
        let common = subject.iter_common_name().next().unwrap().as_str().unwrap();
        let groups: Vec<_> = subject
            .iter_organization()
            .map(|o| o.as_str().unwrap())
            .collect();
        assert_eq!((common, groups), ("capstan", vec!["a", "b"]));
        assert!(certificate.validity().is_valid());
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
