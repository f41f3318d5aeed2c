//! `wit/v0.1/material.wit`.

use std::collections::BTreeSet;
use std::time::Duration;

use capstan_core::call::material::{Material, MaterialValue, Requirement};

use super::check::{self, Checked};
use super::imports::material as wit;

/// Algorithms of keys; empty for the host's default.
const ALGORITHMS: [&str; 6] = [
    "",
    "ECDSA-P256",
    "ECDSA-P384",
    "RSA-2048",
    "RSA-3072",
    "RSA-4096",
];

/// The longest validity that fits a certificate's dates with room to spare: a hundred years.
const VALIDITY_DAYS_MAX: u32 = 36_525;

/// Requirements of one call: a KubeadmConfig with all its 200 files and 100 users from Secrets, and what a cluster has.
const REQUIREMENTS_MAX: usize = 320;
/// Actions of one template.
const ACTIONS_MAX: usize = 16;

pub(super) fn given(material: Vec<Material>) -> Vec<wit::Material> {
    material
        .into_iter()
        .map(|piece| {
            let (text, secret) = match piece.value {
                MaterialValue::Text(text) => (Some(text), None),
                MaterialValue::Secret(handle) => (None, Some(handle.0)),
            };
            wit::Material {
                name: piece.name,
                part: piece.part,
                text,
                secret,
            }
        })
        .collect()
}

pub(super) fn requirements(requirements: Vec<wit::Requirement>) -> Checked<Vec<Requirement>> {
    check::rule(requirements.len() <= REQUIREMENTS_MAX, || {
        format!("requirements has more than {REQUIREMENTS_MAX} entries")
    })?;
    let mut names = BTreeSet::new();
    requirements
        .into_iter()
        .map(|requirement| {
            let requirement = checked(requirement)?;
            let name = name_of(&requirement);
            check::rule(names.insert(name.to_owned()), || {
                format!("requirements has {} twice", check::shown(name))
            })?;
            Ok(requirement)
        })
        .collect()
}

fn name_of(requirement: &Requirement) -> &str {
    match requirement {
        Requirement::CertificateAuthority { name, .. }
        | Requirement::KeyPair { name, .. }
        | Requirement::SharedSecret { name, .. }
        | Requirement::JoinToken { name, .. }
        | Requirement::SecretValue { name, .. } => name,
    }
}

/// A name that becomes a part of a Secret's name.
fn purpose(name: String) -> Checked<String> {
    check::rule(crate::manifest::is_label(&name), || {
        format!(
            "requirements has the name {}, which is not lower-case letters, digits and dashes",
            check::shown(&name)
        )
    })?;
    Ok(name)
}

fn algorithm(algorithm: String) -> Checked<String> {
    check::rule(ALGORITHMS.contains(&algorithm.as_str()), || {
        format!(
            "requirements has the algorithm {}",
            check::shown(&algorithm)
        )
    })?;
    Ok(algorithm)
}

fn checked(requirement: wit::Requirement) -> Checked<Requirement> {
    Ok(match requirement {
        wit::Requirement::CertificateAuthority(authority) => {
            check::rule(authority.validity_days <= VALIDITY_DAYS_MAX, || {
                format!("requirements has a validity of more than {VALIDITY_DAYS_MAX} days")
            })?;
            Requirement::CertificateAuthority {
                name: purpose(authority.name)?,
                common_name: check::name("requirements.commonName", authority.common_name)?,
                algorithm: algorithm(authority.algorithm)?,
                validity_days: authority.validity_days,
            }
        }
        wit::Requirement::KeyPair(pair) => Requirement::KeyPair {
            name: purpose(pair.name)?,
            algorithm: algorithm(pair.algorithm)?,
        },
        wit::Requirement::SharedSecret(shared) => {
            check::rule((16..=64).contains(&shared.bytes), || {
                format!(
                    "requirements has a shared secret of {} bytes, not 16 to 64",
                    shared.bytes
                )
            })?;
            Requirement::SharedSecret {
                name: purpose(shared.name)?,
                bytes: shared.bytes,
            }
        }
        wit::Requirement::JoinToken(token) => {
            check::rule(token.lifetime_ms >= 60_000, || {
                "requirements has a join token that lives less than a minute".to_owned()
            })?;
            Requirement::JoinToken {
                name: check::name("requirements.name", token.name)?,
                token_type: check::name("requirements.tokenType", token.token_type)?,
                lifetime: Duration::from_millis(token.lifetime_ms),
            }
        }
        wit::Requirement::SecretValue(value) => {
            check::rule(value.template.len() <= ACTIONS_MAX, || {
                format!("requirements has a template of more than {ACTIONS_MAX} actions")
            })?;
            Requirement::SecretValue {
                name: check::name("requirements.name", value.name)?,
                secret: check::name("requirements.secret", value.secret)?,
                key: check::name("requirements.key", value.key)?,
                template: value.template,
            }
        }
    })
}
