//! The host's own ceiling: the most that any Plugin object can grant, whoever wrote it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use capstan_core::call::manifest::Manifest;

use super::{FilesGrant, Grants, HttpGrant, SecretGrant, WorkloadGrant, both};

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
        Grants {
            http: kept(http, &granted.http, &self.http, below_http),
            credentials: if http {
                granted.credentials.clone()
            } else {
                Default::default()
            },
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
