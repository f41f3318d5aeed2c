//! The grants and limits of a Plugin object, and the ceiling of the host, in the engine's words.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_api::plugin::{
    CredentialGrant as ApiCredential, CredentialScheme as ApiScheme, HostCeiling, PluginGrant,
    PluginLimits, PluginSpec, WorkloadVerb as ApiVerb,
};
use capstan_api::reason::plugin as reason;
use capstan_core::plan::Failure;
use capstan_engine::{
    Allowed, AwsScope, Ceiling, CredentialGrant, CredentialScheme, FilesGrant, Grants, HttpGrant,
    Limits, OriginPattern, SecretGrant, WorkloadGrant, WorkloadVerb,
};

use crate::plugins::SecretSource;

/// What the plugin may do.
///
/// # Errors
/// Terminal: names the entry that is not well-formed.
pub(super) fn grants(spec: &PluginSpec) -> Result<Grants, Failure> {
    parse("spec.grants", &spec.grants)
}

/// The most that a host allows, as its file says it.
///
/// # Errors
/// Terminal: names the entry that is not well-formed.
pub fn ceiling(file: &HostCeiling) -> Result<(Ceiling, Limits), Failure> {
    let mut ceiling = Ceiling::nothing();
    for (index, grant) in file.grants.iter().enumerate() {
        let parsed = parse("grants", std::slice::from_ref(grant))?;
        match grant.capability.as_str() {
            "http" => {
                // Origins alone allow no credentials: what is not listed is not had.
                if grant.http.is_none() || !parsed.credentials.is_empty() {
                    allow(&mut ceiling.credentials, credentials_of(parsed.credentials));
                }
                allow(&mut ceiling.http, parsed.http);
            }
            "credentials" => {
                allow(&mut ceiling.credentials, credentials_of(parsed.credentials));
            }
            "secret" => allow(&mut ceiling.secrets, parsed.secrets),
            "workload" => allow(&mut ceiling.workload, parsed.workload),
            "files" => {
                let directory = grant.files.as_ref().map(|files| files.directory.as_str());
                let directory = directory.filter(|directory| directory.starts_with('/'));
                let directory = directory.ok_or_else(|| {
                    let message = format!("grants[{index}].files.directory: name an absolute path");
                    Failure::terminal(reason::GRANT_INVALID, message)
                })?;
                ceiling.directories.push(directory.into());
            }
            "event" | "log" | "state" => {}
            other => {
                let message = format!("grants[{index}].capability: this host has no {other}");
                return Err(Failure::terminal(reason::GRANT_INVALID, message));
            }
        }
    }
    Ok((ceiling, changed(Limits::ceilings(), file.limits.as_ref())))
}

/// Allows what an entry has, beside what others have. A capability without details is allowed whole.
fn allow<T>(allowed: &mut Allowed<T>, parsed: Vec<T>) {
    match allowed {
        Allowed::Only(_) if parsed.is_empty() => *allowed = Allowed::All,
        Allowed::Only(before) => before.extend(parsed),
        Allowed::All => {}
    }
}

fn credentials_of(parsed: BTreeMap<String, CredentialGrant>) -> Vec<CredentialGrant> {
    parsed.into_values().collect()
}

fn parse(field: &str, list: &[PluginGrant]) -> Result<Grants, Failure> {
    let mut grants = Grants::default();
    for (index, grant) in list.iter().enumerate() {
        let place = format!("{field}[{index}]");
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
                    scheme: scheme(credential),
                    origins,
                },
            );
        }
        for secret in &grant.secrets {
            let name = secret.name.parse().map_err(|error| {
                let message = format!("{place}.secrets: {error}");
                Failure::terminal(reason::GRANT_INVALID, message)
            })?;
            grants.secrets.push(SecretGrant {
                namespace: secret.namespace.clone(),
                name,
                keys: secret.keys.clone(),
                bytes: secret.bytes.unwrap_or(false),
            });
        }
        for rule in &grant.workload {
            grants.workload.push(WorkloadGrant {
                groups: rule.api_groups.clone(),
                resources: rule.resources.clone(),
                verbs: rule.verbs.iter().copied().map(verb).collect(),
                namespaces: rule.namespaces.clone(),
                names: rule.names.clone(),
            });
        }
        if let Some(files) = &grant.files {
            grants.files = Some(FilesGrant::new(&files.directory));
        }
    }
    Ok(grants)
}

fn verb(verb: ApiVerb) -> WorkloadVerb {
    match verb {
        ApiVerb::Get => WorkloadVerb::Get,
        ApiVerb::List => WorkloadVerb::List,
        ApiVerb::Apply => WorkloadVerb::Apply,
        ApiVerb::Patch => WorkloadVerb::Patch,
        ApiVerb::Delete => WorkloadVerb::Delete,
    }
}

fn pattern(place: &str, origin: &str) -> Result<OriginPattern, Failure> {
    origin.parse().map_err(|error| {
        Failure::terminal(
            reason::GRANT_INVALID,
            format!("{place}: {origin:?}: {error}"),
        )
    })
}

fn scheme(said: &ApiCredential) -> CredentialScheme {
    match said.scheme {
        ApiScheme::Bearer => CredentialScheme::Bearer,
        ApiScheme::Basic => CredentialScheme::Basic,
        ApiScheme::Header => {
            let header = said.header.as_deref().unwrap_or("authorization");
            CredentialScheme::Header(header.to_owned())
        }
        ApiScheme::AwsSignatureV4 => {
            let scope = said.aws.clone().unwrap_or_default();
            CredentialScheme::AwsSignatureV4(AwsScope {
                region: scope.region,
                service: scope.service,
            })
        }
        ApiScheme::ClientCertificate => CredentialScheme::ClientCertificate,
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
                scheme: scheme(credential),
            },
        )
    })
    .collect()
}

/// What a call may use: the engine's defaults unless the object says otherwise. The engine's ceilings apply on top.
pub(super) fn limits(spec: &PluginSpec) -> Limits {
    changed(Limits::default(), spec.limits.as_ref())
}

/// What the engine's ceilings take away of the limits that the object names.
pub(super) fn cuts(spec: &PluginSpec, ceilings: Limits) -> Vec<String> {
    changed(ceilings, spec.limits.as_ref()).cuts(ceilings)
}

/// These limits with what somebody says of them.
fn changed(mut limits: Limits, said: Option<&PluginLimits>) -> Limits {
    let Some(said) = said else {
        return limits;
    };
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    if let Some(bytes) = said.memory_bytes {
        limits.memory_bytes = usize::try_from(bytes).unwrap_or(limits.memory_bytes);
    }
    if let Some(ms) = said.cpu_ms {
        limits.cpu = millis(ms);
    }
    if let Some(ms) = said.wall_ms {
        limits.wall = millis(ms);
    }
    if let Some(count) = said.concurrency {
        limits.concurrency = usize::try_from(count).unwrap_or(limits.concurrency);
    }
    if let Some(count) = said.http_calls {
        limits.http_requests = u32::try_from(count).unwrap_or(limits.http_requests);
    }
    if let Some(bytes) = said.http_body_bytes {
        limits.http_body_bytes = usize::try_from(bytes).unwrap_or(limits.http_body_bytes);
    }
    if let Some(bytes) = said.log_bytes {
        limits.log_bytes = usize::try_from(bytes).unwrap_or(limits.log_bytes);
    }
    if let Some(bytes) = said.answer_bytes {
        limits.answer_bytes = usize::try_from(bytes).unwrap_or(limits.answer_bytes);
    }
    if let Some(bytes) = said.state_bytes {
        limits.state_bytes = usize::try_from(bytes).unwrap_or(limits.state_bytes);
    }
    limits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(value: serde_json::Value) -> HostCeiling {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_ceiling_allows_what_it_lists_and_nothing_else() {
        let listed = file(json!({
            "grants": [
                {"capability": "http", "http": {"origins": [{"origin": "https://*.example.com"}]}, "credentials": [{
                    "name": "any", "secretRef": {"name": "any", "key": "any"}, "scheme": "Bearer", "origins": ["https://*.example.com"],
                }]},
                {"capability": "workload"},
                {"capability": "files", "files": {"directory": "/srv/a"}},
                {"capability": "files", "files": {"directory": "/srv/b"}},
            ],
            "limits": {"cpuMs": 100, "logBytes": 10, "httpBodyBytes": 20, "answerBytes": 30, "stateBytes": 0},
        }));
        let (ceiling, limits) = super::ceiling(&listed).unwrap();
        assert!(matches!(&ceiling.http, Allowed::Only(origins) if origins.len() == 1));
        assert!(matches!(&ceiling.credentials, Allowed::Only(all) if all.len() == 1));
        assert_eq!(ceiling.secrets, Allowed::Only(vec![]));
        assert_eq!(ceiling.workload, Allowed::All);
        assert_eq!(ceiling.directories.len(), 2);
        assert_eq!(limits.cpu, Duration::from_millis(100));
        assert_eq!((limits.log_bytes, limits.http_body_bytes), (10, 20));
        assert_eq!((limits.answer_bytes, limits.state_bytes), (30, 0));
        assert_eq!(limits.wall, Limits::ceilings().wall);
        // What a Plugin object says beyond them does not count.
        let said = serde_json::from_value(json!({
            "source": {"file": {"path": "p"}}, "limits": {"answerBytes": 40, "stateBytes": 50, "logBytes": 5},
        }));
        let said = said.unwrap();
        let within = super::limits(&said).within(limits);
        assert_eq!(
            (within.answer_bytes, within.state_bytes, within.log_bytes),
            (30, 0, 5)
        );
        let cut = ["limits answerBytes above 30", "limits stateBytes above 0"];
        assert_eq!(super::cuts(&said, limits), cut);
    }

    #[test]
    fn credentials_are_had_only_where_a_ceiling_lists_them() {
        let of = |grants: serde_json::Value| {
            let (ceiling, _) = super::ceiling(&file(json!({"grants": grants}))).unwrap();
            ceiling
        };
        let origins = json!({"origins": [{"origin": "https://*.example.com"}]});
        let login = |name: &str, scheme: &str| {
            json!({
                "name": name, "secretRef": {"name": "any", "key": "any"}, "scheme": scheme,
                "origins": ["https://*.example.com"],
            })
        };
        let none = Allowed::Only(vec![]);
        assert_eq!(of(json!([])).credentials, none);
        let only_origins = of(json!([{"capability": "http", "http": origins}]));
        assert_eq!(only_origins.credentials, none);
        // Whole, with its credentials.
        assert_eq!(
            of(json!([{"capability": "http"}])),
            Ceiling {
                http: Allowed::All,
                credentials: Allowed::All,
                ..Ceiling::nothing()
            }
        );
        let any =
            of(json!([{"capability": "http", "http": origins}, {"capability": "credentials"}]));
        assert_eq!(any.credentials, Allowed::All);
        assert!(matches!(&any.http, Allowed::Only(one) if one.len() == 1));
        // What entries list is had together.
        let two = of(json!([
            {"capability": "http", "http": origins, "credentials": [login("a", "Bearer")]},
            {"capability": "http", "http": {"origins": [{"origin": "https://example.org"}]}, "credentials": [login("a", "Basic")]},
        ]));
        assert!(matches!(&two.http, Allowed::Only(both) if both.len() == 2));
        assert!(matches!(&two.credentials, Allowed::Only(both) if both.len() == 2));
    }

    #[test]
    fn a_ceiling_that_makes_no_sense_is_named() {
        for wrong in [
            json!({"grants": [{"capability": "shell"}]}),
            json!({"grants": [{"capability": "files"}]}),
            json!({"grants": [{"capability": "http", "http": {"origins": [{"origin": "x"}]}}]}),
        ] {
            let error = super::ceiling(&file(wrong.clone())).unwrap_err();
            assert!(error.message.starts_with("grants[0]"), "{wrong}: {error}");
        }
    }
}
