//! The host's own ceiling: the most that any Plugin object can grant, whoever wrote it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use capstan_core::call::manifest::Manifest;

use super::{
    CredentialGrant, FilesGrant, Grants, HttpGrant, OriginPattern, SecretGrant, WorkloadGrant, both,
};

/// How much of one capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed<T> {
    /// Whatever a Plugin object grants.
    All,
    /// What one of these covers; nothing when there is none.
    Only(Vec<T>),
}

/// The most that plugins of this host get. Files have no "all": each directory is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Origins, methods, private addresses.
    pub http: Allowed<HttpGrant>,
    /// Schemes and origins of credentials, whatever they are called. None of them goes to an origin that `http` does not leave.
    pub credentials: Allowed<CredentialGrant>,
    /// Secrets, keys, bytes.
    pub secrets: Allowed<SecretGrant>,
    /// Verbs and resources of workload clusters.
    pub workload: Allowed<WorkloadGrant>,
    /// Directories of the host, absolute.
    pub directories: Vec<PathBuf>,
}

impl Default for Ceiling {
    /// Everything but files.
    fn default() -> Self {
        Self {
            http: Allowed::All,
            credentials: Allowed::All,
            secrets: Allowed::All,
            workload: Allowed::All,
            directories: Vec::new(),
        }
    }
}

impl Ceiling {
    /// Nothing but the harmless capabilities.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            http: Allowed::Only(Vec::new()),
            credentials: Allowed::Only(Vec::new()),
            secrets: Allowed::Only(Vec::new()),
            workload: Allowed::Only(Vec::new()),
            directories: Vec::new(),
        }
    }

    /// What the plugin really has: asked for by its manifest, granted, and within the ceiling.
    #[must_use]
    pub fn effective(&self, manifest: &Manifest, granted: &Grants) -> Grants {
        let asked: BTreeSet<&str> = manifest
            .capabilities
            .iter()
            .map(|request| request.name.as_str())
            .collect();
        let http = asked.contains("http");
        let origins = kept(http, &granted.http, &self.http, below_http);
        let credentials = granted.credentials.iter().filter(|_| http);
        let credentials = credentials.map(|(name, credential)| {
            let below = self.below_credentials(credential, &origins);
            (name.clone(), below)
        });
        Grants {
            credentials: credentials.collect(),
            http: origins,
            secrets: kept(
                asked.contains("secret"),
                &granted.secrets,
                &self.secrets,
                SecretGrant::below,
            ),
            workload: kept(
                asked.contains("workload"),
                &granted.workload,
                &self.workload,
                WorkloadGrant::below,
            ),
            files: granted
                .files
                .as_ref()
                .filter(|_| asked.contains("files"))
                .and_then(|files| self.below_directory(files)),
        }
    }

    /// The credential with the origins that are left of it: those that can be reached, and where it may go with its scheme.
    fn below_credentials(
        &self,
        granted: &CredentialGrant,
        reached: &[HttpGrant],
    ) -> CredentialGrant {
        let reached: Vec<_> = reached.iter().map(|grant| &grant.origin).collect();
        let mut origins = narrowed(&granted.origins, &reached);
        if let Allowed::Only(ceilings) = &self.credentials {
            let fit = ceilings.iter().filter(|one| one.scheme == granted.scheme);
            let fit: Vec<_> = fit.flat_map(|ceiling| &ceiling.origins).collect();
            origins = narrowed(&origins, &fit);
        }
        CredentialGrant {
            scheme: granted.scheme.clone(),
            origins,
        }
    }

    /// What the ceiling leaves out of that which is granted and asked for, in words such as `http https://a.example.com (methods)`.
    #[must_use]
    pub fn cuts(&self, manifest: &Manifest, granted: &Grants) -> Vec<String> {
        let (whole, left) = (
            Self {
                directories: granted
                    .files
                    .iter()
                    .map(|files| files.root.clone())
                    .collect(),
                ..Self::default()
            }
            .effective(manifest, granted),
            self.effective(manifest, granted),
        );
        let mut cuts = Vec::new();
        for grant in &whole.http {
            let what = match left.http.iter().find(|one| one.origin == grant.origin) {
                None => String::new(),
                Some(one) if one.methods != grant.methods => " (methods)".to_owned(),
                Some(one) if one.private != grant.private => " (private)".to_owned(),
                Some(_) => continue,
            };
            cuts.push(format!("http {}{what}", grant.origin));
        }
        for (name, grant) in &whole.credentials {
            if left.credentials.get(name) != Some(grant) {
                cuts.push(format!("credentials {name}"));
            }
        }
        let secrets = whole
            .secrets
            .iter()
            .filter(|one| !left.secrets.contains(one));
        cuts.extend(secrets.map(|secret| format!("secrets {}", secret.name)));
        let rules = whole
            .workload
            .iter()
            .filter(|one| !left.workload.contains(one));
        cuts.extend(rules.map(|rule| format!("workload {}", rule.resources.join(", "))));
        if let (Some(files), None) = (&whole.files, &left.files) {
            cuts.push(format!("files {}", files.root.display()));
        }
        cuts
    }

    /// The granted directory, to be reached from the allowed one that it is in: links cannot lead out of that.
    fn below_directory(&self, granted: &FilesGrant) -> Option<FilesGrant> {
        let whole = granted.root.join(&granted.below);
        let is_plain = |path: &Path| {
            path.is_absolute()
                && path
                    .components()
                    .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        };
        if !is_plain(&whole) {
            return None;
        }
        self.directories
            .iter()
            .filter(|allowed| is_plain(allowed))
            .find_map(|allowed| {
                let below = whole.strip_prefix(allowed).ok()?;
                Some(FilesGrant {
                    root: allowed.clone(),
                    below: below.to_owned(),
                })
            })
    }
}

fn kept<T: Clone>(
    asked: bool,
    granted: &[T],
    ceiling: &Allowed<T>,
    below: impl Fn(&T, &T) -> Option<T>,
) -> Vec<T> {
    match ceiling {
        _ if !asked => Vec::new(),
        Allowed::All => granted.to_vec(),
        Allowed::Only(ceilings) => granted
            .iter()
            .flat_map(|grant| ceilings.iter().filter_map(|ceiling| below(grant, ceiling)))
            .collect(),
    }
}

/// Of these patterns what is within the others.
fn narrowed(origins: &[OriginPattern], within: &[&OriginPattern]) -> Vec<OriginPattern> {
    let mut left: Vec<OriginPattern> = Vec::new();
    for origin in origins {
        for &other in within {
            let both = if other.covers(origin) {
                origin
            } else if origin.covers(other) {
                other
            } else {
                continue;
            };
            if !left.contains(both) {
                left.push(both.clone());
            }
        }
    }
    left
}

fn below_http(granted: &HttpGrant, ceiling: &HttpGrant) -> Option<HttpGrant> {
    let methods = both(&granted.methods, &ceiling.methods)?;
    ceiling.origin.covers(&granted.origin).then(|| HttpGrant {
        methods,
        private: granted.private && ceiling.private,
        ..granted.clone()
    })
}

#[cfg(test)]
mod tests {
    use capstan_core::call::manifest::CapabilityRequest;

    use super::*;
    use crate::grant::CredentialScheme;

    fn asking(names: &[&str]) -> Manifest {
        Manifest {
            name: "infrastructure-x".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            home_page: String::new(),
            kinds: vec![],
            capabilities: names
                .iter()
                .map(|name| CapabilityRequest {
                    name: (*name).to_owned(),
                    why: "a test".to_owned(),
                    optional: false,
                    suggestion: serde_json::Value::Null,
                })
                .collect(),
        }
    }

    fn http(origin: &str, methods: &[&str], private: bool) -> HttpGrant {
        HttpGrant {
            origin: origin.parse().unwrap(),
            methods: methods.iter().map(|m| (*m).to_owned()).collect(),
            private,
            ca_pem: None,
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_had() {
        let granted = Grants {
            http: vec![http("https://a.example.com", &[], false)],
            ..Grants::default()
        };
        let ceiling = Ceiling::default();
        assert!(ceiling.effective(&asking(&[]), &granted).http.is_empty());
        assert_eq!(ceiling.effective(&asking(&["http"]), &granted), granted);
    }

    #[test]
    fn the_ceiling_cuts_origins_methods_and_private_addresses() {
        let ceiling = Ceiling {
            http: Allowed::Only(vec![http("https://*.example.com", &["GET", "POST"], false)]),
            ..Ceiling::nothing()
        };
        let granted = Grants {
            http: vec![
                http("https://a.example.com", &["GET", "DELETE"], true),
                http("https://*.example.com", &[], false),
                http("https://*.com.example.org", &[], false),
                http("https://example.com", &[], false),
                http("http://a.example.com", &[], false),
            ],
            ..Grants::default()
        };
        let effective = ceiling.effective(&asking(&["http"]), &granted);
        assert_eq!(
            effective.http,
            [
                http("https://a.example.com", &["GET"], false),
                http("https://*.example.com", &["GET", "POST"], false),
            ]
        );
    }

    #[test]
    fn credentials_go_no_further_than_the_ceiling_and_what_it_cuts_is_said() {
        let credential = |scheme, origins: &[&str]| CredentialGrant {
            scheme,
            origins: origins
                .iter()
                .map(|origin| origin.parse().unwrap())
                .collect(),
        };
        let granted = Grants {
            http: vec![http("https://*.example.com", &[], false)],
            credentials: [
                (
                    "api",
                    credential(CredentialScheme::Bearer, &["https://*.example.com"]),
                ),
                (
                    "login",
                    credential(CredentialScheme::Basic, &["https://a.example.com"]),
                ),
                (
                    "else",
                    credential(CredentialScheme::Bearer, &["https://a.example.org"]),
                ),
            ]
            .map(|(name, grant)| (name.to_owned(), grant))
            .into(),
            ..Grants::default()
        };
        let manifest = asking(&["http"]);
        let origins = |ceiling: &Ceiling, name: &str| {
            let effective = ceiling.effective(&manifest, &granted);
            let origins = effective.credentials[name].origins.iter();
            origins.map(ToString::to_string).collect::<Vec<_>>()
        };
        let none = Vec::<String>::new();
        let open = Ceiling::default();
        assert_eq!(origins(&open, "api"), ["https://*.example.com"]);
        assert_eq!(origins(&open, "else"), none, "it goes where requests go");
        assert_eq!(open.cuts(&manifest, &granted), none);
        let ceiling = Ceiling {
            http: Allowed::Only(vec![http("https://*.example.com", &["GET"], false)]),
            credentials: Allowed::Only(vec![credential(
                CredentialScheme::Bearer,
                &["https://a.example.com", "https://b.example.com"],
            )]),
            ..Ceiling::nothing()
        };
        assert_eq!(
            origins(&ceiling, "api"),
            ["https://a.example.com", "https://b.example.com"]
        );
        assert_eq!(origins(&ceiling, "login"), none, "another scheme");
        assert_eq!(
            ceiling.cuts(&manifest, &granted),
            [
                "http https://*.example.com (methods)",
                "credentials api",
                "credentials login"
            ]
        );
        assert_eq!(ceiling.cuts(&asking(&[]), &granted), none);
    }

    #[test]
    fn directories_are_had_only_below_named_ones() {
        let ceiling = Ceiling {
            directories: vec![PathBuf::from("/srv/plugins")],
            ..Ceiling::default()
        };
        let of = |ceiling: &Ceiling, path: &str| {
            let granted = Grants {
                files: Some(FilesGrant::new(path)),
                ..Grants::default()
            };
            ceiling.effective(&asking(&["files"]), &granted).files
        };
        let expected = FilesGrant {
            root: PathBuf::from("/srv/plugins"),
            below: PathBuf::from("a/b"),
        };
        assert_eq!(of(&ceiling, "/srv/plugins/a/b"), Some(expected));
        for outside in [
            "/srv",
            "/srv/plugins-2",
            "/srv/plugins/../secret",
            "/",
            "srv/plugins",
        ] {
            assert_eq!(of(&ceiling, outside), None, "{outside}");
        }
        assert_eq!(of(&Ceiling::default(), "/srv/plugins/a"), None);
    }
}
