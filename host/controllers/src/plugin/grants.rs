//! The grants and limits of a Plugin object in the engine's words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capstan_api::plugin::{CredentialScheme as ApiScheme, PluginSpec};
use capstan_api::reason::plugin as reason;
use capstan_core::plan::Failure;
use capstan_engine::{CredentialGrant, CredentialScheme, Grants, HttpGrant, Limits, OriginPattern};

use crate::plugins::SecretSource;

/// What the plugin may do.
///
/// # Errors
/// Terminal: names the entry that is not well-formed.
pub(super) fn grants(spec: &PluginSpec) -> Result<Grants, Failure> {
    let mut grants = Grants {
        capabilities: BTreeSet::new(),
        ..Grants::default()
    };
    for (index, grant) in spec.grants.iter().enumerate() {
        let place = format!("spec.grants[{index}]");
        if grant.capability != "http" {
            grants.capabilities.insert(grant.capability.clone());
        }
        for origin in grant.http.iter().flat_map(|http| &http.origins) {
            grants.http.push(HttpGrant {
                origin: pattern(&format!("{place}.http.origins"), &origin.origin)?,
                methods: origin.methods.clone(),
                private: origin.private.unwrap_or(false),
                ca_pem: origin.ca_bundle.clone(),
            });
        }
        for credential in &grant.credentials {
            let origins = credential.origins.iter();
            let origins = origins
                .map(|origin| {
                    pattern(
                        &format!("{place}.credentials[{}].origins", credential.name),
                        origin,
                    )
                })
                .collect::<Result<Vec<_>, _>>()?;
            grants.credentials.insert(
                credential.name.clone(),
                CredentialGrant {
                    scheme: scheme(credential.scheme, credential.header.as_deref()),
                    origins,
                },
            );
        }
    }
    Ok(grants)
}

fn pattern(place: &str, origin: &str) -> Result<OriginPattern, Failure> {
    origin.parse().map_err(|error| {
        Failure::terminal(
            reason::GRANT_INVALID,
            format!("{place}: {origin:?}: {error}"),
        )
    })
}

fn scheme(scheme: ApiScheme, header: Option<&str>) -> CredentialScheme {
    match scheme {
        ApiScheme::Bearer => CredentialScheme::Bearer,
        ApiScheme::Basic => CredentialScheme::Basic,
        ApiScheme::Header => CredentialScheme::Header(header.unwrap_or("authorization").to_owned()),
    }
}

/// Where the secrets of its credentials are.
pub(super) fn credentials(spec: &PluginSpec) -> BTreeMap<String, SecretSource> {
    let all = spec.grants.iter().flat_map(|grant| &grant.credentials);
    all.map(|credential| {
        (
            credential.name.clone(),
            SecretSource {
                secret: credential.secret_ref.name.clone(),
                key: credential.secret_ref.key.clone(),
                scheme: scheme(credential.scheme, credential.header.as_deref()),
            },
        )
    })
    .collect()
}

/// What a call may use: the engine's defaults unless the object says otherwise. The engine's ceilings apply on top.
pub(super) fn limits(spec: &PluginSpec) -> Limits {
    let mut limits = Limits::default();
    let Some(asked) = &spec.limits else {
        return limits;
    };
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    if let Some(bytes) = asked.memory_bytes {
        limits.memory_bytes = usize::try_from(bytes).unwrap_or(limits.memory_bytes);
    }
    if let Some(ms) = asked.cpu_ms {
        limits.cpu = millis(ms);
    }
    if let Some(ms) = asked.wall_ms {
        limits.wall = millis(ms);
    }
    if let Some(count) = asked.concurrency {
        limits.concurrency = usize::try_from(count).unwrap_or(limits.concurrency);
    }
    if let Some(count) = asked.http_calls {
        limits.http_requests = u32::try_from(count).unwrap_or(limits.http_requests);
    }
    limits
}
