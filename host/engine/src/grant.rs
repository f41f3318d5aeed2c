//! What an operator allows a plugin: parsed by the controllers from the Plugin object, checked here and nowhere else.

mod ceiling;
mod secret;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use capstan_core::call::manifest::Manifest;
use serde_json::{Map, Value, json};
use url::{Host, Url};

pub use crate::capability::sign::AwsScope;
pub use capstan_core::call::manifest::HARMLESS;
pub use ceiling::{Allowed, Ceiling};
pub use secret::{NamePattern, NamePatternError, SecretGrant};
pub(crate) use workload::Target;
pub use workload::{WorkloadGrant, WorkloadVerb};

/// Every capability of this host.
pub const CAPABILITIES: [&str; 7] = [
    "event", "files", "http", "log", "secret", "state", "workload",
];

/// All that one plugin may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Where it may send requests. The most exact origin that fits a request decides.
    pub http: Vec<HttpGrant>,
    /// Credentials that the host adds to its requests, by the name that the plugin uses.
    pub credentials: BTreeMap<String, CredentialGrant>,
    /// Secrets that it may read.
    pub secrets: Vec<SecretGrant>,
    /// What it may do in its object's workload cluster.
    pub workload: Vec<WorkloadGrant>,
    /// The directory below which it may read files.
    pub files: Option<FilesGrant>,
}

/// Permission to read files below one directory of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesGrant {
    /// What is opened by its path: links that lead to it are followed.
    pub(crate) root: PathBuf,
    /// The granted directory, relative to the root: no link leads out of the root.
    pub(crate) below: PathBuf,
}

impl FilesGrant {
    /// A directory by its absolute path. Only a [`Ceiling`] that names it, or one above it, makes it readable.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            root: directory.into(),
            below: PathBuf::new(),
        }
    }
}

/// What both lists allow, where an empty one allows everything; `None` when that is nothing.
fn both(granted: &[String], ceiling: &[String]) -> Option<Vec<String>> {
    if granted.is_empty() || ceiling.is_empty() {
        return Some([granted, ceiling].concat());
    }
    let kept: Vec<String> = granted
        .iter()
        .filter(|entry| ceiling.contains(entry))
        .cloned()
        .collect();
    (!kept.is_empty()).then_some(kept)
}

/// Permission to send requests to one origin, or to all origins below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// Scheme, host or `*.` and a domain, port.
    pub origin: OriginPattern,
    /// Upper-case methods; empty for all.
    pub methods: Vec<String>,
    /// Addresses of private networks, of this machine and of link-local networks are allowed.
    pub private: bool,
    /// Certificate authorities that are trusted for this origin instead of the public ones, as PEM.
    pub ca_pem: Option<String>,
}

/// Permission to use a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialGrant {
    /// How it is added.
    pub scheme: CredentialScheme,
    /// Where it may be sent; empty for nowhere.
    pub origins: Vec<OriginPattern>,
}

/// How a credential is added to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialScheme {
    /// `Authorization: Bearer <secret>`
    Bearer,
    /// `Authorization: Basic <base64 of the secret>`; the secret is `user:password`.
    Basic,
    /// `<name>: <secret>`
    Header(String),
    /// AWS Signature Version 4; the secret is `ID:SECRET`, or `ID:SECRET:TOKEN` for a key that ends.
    AwsSignatureV4(AwsScope),
    /// Shown when the connection is made; the secret is the chain of certificates and the private key, as PEM.
    ClientCertificate,
}

/// Transport of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port of one request: the host in lower case, without a final dot, IPv6 addresses without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Transport.
    pub scheme: Scheme,
    /// DNS name or address.
    pub host: String,
    /// Always present.
    pub port: u16,
    /// The host is an address.
    pub is_address: bool,
}

impl Origin {
    /// The origin of a URL; an error says what is wrong with it.
    pub fn of(url: &Url) -> Result<Self, String> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("the scheme {other} is neither http nor https")),
        };
        let (host, is_address) = match url.host() {
            Some(Host::Domain(name)) => (name.trim_end_matches('.').to_ascii_lowercase(), false),
            Some(Host::Ipv4(address)) => (address.to_string(), true),
            Some(Host::Ipv6(address)) => (address.to_string(), true),
            None => return Err("the URL has no host".to_owned()),
        };
        if host.is_empty() {
            return Err("the URL has no host".to_owned());
        }
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        Ok(Self {
            scheme,
            host,
            port,
            is_address,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_origin(f, self.scheme, &self.host, self.port)
    }
}

fn write_origin(f: &mut fmt::Formatter<'_>, scheme: Scheme, host: &str, port: u16) -> fmt::Result {
    write!(f, "{}://", scheme.as_str())?;
    if host.contains(':') {
        write!(f, "[{host}]")?;
    } else {
        f.write_str(host)?;
    }
    if port != scheme.default_port() {
        write!(f, ":{port}")?;
    }
    Ok(())
}

/// Which origins a grant is for: `https://api.example.com`, `https://*.example.com:8443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    scheme: Scheme,
    /// Without the leading `*.`.
    host: String,
    below: bool,
    port: u16,
}

/// A text that is no [`OriginPattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an origin such as https://api.example.com or https://*.example.com:8443: {why}"
)]
pub struct OriginPatternError {
    text: String,
    why: String,
}

impl FromStr for OriginPattern {
    type Err = OriginPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| OriginPatternError {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("it has no scheme"))?;
        let (below, rest) = match rest.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, rest),
        };
        if rest.contains('*') {
            return Err(wrong(
                "a * stands only for the whole first part of the host",
            ));
        }
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|e| wrong(&e.to_string()))?;
        let plain = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return Err(wrong("it says more than scheme, host and port"));
        }
        let origin = Origin::of(&url).map_err(|e| wrong(&e))?;
        if below && (origin.is_address || !origin.host.contains('.')) {
            return Err(wrong("a * needs a domain of at least two parts after it"));
        }
        Ok(Self {
            scheme: origin.scheme,
            host: origin.host,
            below,
            port: origin.port,
        })
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below {
            write_origin(f, self.scheme, &format!("*.{}", self.host), self.port)
        } else {
            write_origin(f, self.scheme, &self.host, self.port)
        }
    }
}

impl OriginPattern {
    /// Whether the pattern is for this origin.
    #[must_use]
    pub fn matches(&self, origin: &Origin) -> bool {
        if self.scheme != origin.scheme || self.port != origin.port {
            return false;
        }
        if !self.below {
            return self.host == origin.host;
        }
        !origin.is_address
            && origin
                .host
                .strip_suffix(self.host.as_str())
                .and_then(|head| head.strip_suffix('.'))
                .is_some_and(|head| !head.is_empty())
    }

    /// Whether every origin that `other` is for is one that this is for.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        if self.scheme != other.scheme || self.port != other.port {
            return false;
        }
        if !self.below {
            return !other.below && self.host == other.host;
        }
        if other.below && other.host == self.host {
            return true;
        }
        other
            .host
            .strip_suffix(self.host.as_str())
            .and_then(|head| head.strip_suffix('.'))
            .is_some_and(|head| !head.is_empty())
    }

    /// Exact hosts before domains, longer domains before shorter ones.
    fn exactness(&self) -> (bool, usize) {
        (!self.below, self.host.len())
    }
}

impl Grants {
    /// Whether the capability may be used at all.
    #[must_use]
    pub fn allows(&self, capability: &str) -> bool {
        match capability {
            "http" => !self.http.is_empty(),
            "secret" => !self.secrets.is_empty(),
            "workload" => !self.workload.is_empty(),
            "files" => self.files.is_some(),
            other => HARMLESS.contains(&other),
        }
    }

    /// The place in [`Grants::http`] of the grant that decides about this request.
    pub(crate) fn http_grant(&self, origin: &Origin, method: &str) -> Option<usize> {
        self.http
            .iter()
            .enumerate()
            .filter(|(_, grant)| grant.origin.matches(origin))
            .filter(|(_, grant)| {
                grant.methods.is_empty() || grant.methods.iter().any(|granted| granted == method)
            })
            .max_by_key(|(index, grant)| {
                (grant.origin.exactness(), usize::MAX.saturating_sub(*index))
            })
            .map(|(index, _)| index)
    }
}

/// A capability that a plugin needs and does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingGrant {
    /// Which.
    pub capability: String,
    /// The plugin's reason.
    pub why: String,
    /// The entry of `spec.grants` of the Plugin object that would grant it, as flow YAML.
    pub yaml: String,
    /// It is granted; what forbids it is the ceiling of the host.
    pub by_ceiling: bool,
}

impl fmt::Display for MissingGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_ceiling {
            return write!(
                f,
                "the capability {} is granted, but the ceiling of this host allows nothing of it (the plugin's reason: {}); to \
                 allow it, add to grants of the file that the host was given with --ceiling: {}",
                self.capability, self.why, self.yaml
            );
        }
        write!(
            f,
            "the capability {} is not granted (the plugin's reason: {}); to grant it, add to spec.grants of the Plugin: {}",
            self.capability, self.why, self.yaml
        )
    }
}

/// What is still to be granted before the plugin can be called: each capability that its binary imports or its manifest asks for,
/// that needs a grant, has none, and that the plugin cannot do without. `granted` is what the Plugin object says, `effective` what
/// the ceiling leaves of it.
pub(crate) fn missing(
    manifest: &Manifest,
    imports: &BTreeSet<String>,
    granted: &Grants,
    effective: &Grants,
) -> Vec<MissingGrant> {
    let mut names: BTreeSet<&str> = imports.iter().map(String::as_str).collect();
    names.extend(
        manifest
            .capabilities
            .iter()
            .map(|request| request.name.as_str()),
    );
    names
        .into_iter()
        .filter(|name| !effective.allows(name))
        .filter_map(|name| {
            let request = manifest
                .capabilities
                .iter()
                .find(|request| request.name == name);
            if request.is_some_and(|request| request.optional) {
                return None;
            }
            Some(MissingGrant {
                capability: name.to_owned(),
                why: request.map_or_else(
                    || "its binary imports it".to_owned(),
                    |request| request.why.clone(),
                ),
                yaml: yaml_for(name, request.map(|request| &request.suggestion)),
                by_ceiling: granted.allows(name),
            })
        })
        .collect()
}

/// An entry of `spec.grants` as flow YAML, which is what JSON is.
fn yaml_for(name: &str, suggestion: Option<&Value>) -> String {
    suggested(name, suggestion).to_string()
}

/// An entry of `spec.grants` for a capability: the plugin's suggestion, or a pattern to fill in.
#[must_use]
pub fn suggested(name: &str, suggestion: Option<&Value>) -> Value {
    let mut entry = match suggestion {
        Some(Value::Object(suggested)) => suggested.clone(),
        _ => Map::new(),
    };
    entry.insert("capability".to_owned(), Value::String(name.to_owned()));
    let pattern = match name {
        "http" => json!({"origins": [{"origin": "https://...", "methods": ["GET"]}]}),
        "secret" => json!([{"name": "...", "keys": ["..."]}]),
        "workload" => json!([{"apiGroups": [""], "resources": ["..."], "verbs": ["get"]}]),
        "files" => json!({"directory": "/..."}),
        _ => Value::Null,
    };
    let member = if name == "secret" { "secrets" } else { name };
    if !pattern.is_null() && !entry.contains_key(member) {
        entry.insert(member.to_owned(), pattern);
    }
    Value::Object(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&Url::parse(url).unwrap()).unwrap()
    }

    fn pattern(text: &str) -> OriginPattern {
        text.parse().unwrap()
    }

    #[test]
    fn an_exact_origin_matches_only_itself() {
        let granted = pattern("https://api.example.com");
        assert!(granted.matches(&origin("https://API.example.com./v1?x=1")));
        for other in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://api.example.com.evil.org/",
            "https://xapi.example.com/",
            "https://example.com/",
            "https://api.example.com@evil.org/",
        ] {
            assert!(!granted.matches(&origin(other)), "{other}");
        }
    }

    #[test]
    fn a_domain_matches_what_is_below_it_and_no_addresses() {
        let granted = pattern("https://*.example.com");
        assert!(granted.matches(&origin("https://a.example.com")));
        assert!(granted.matches(&origin("https://a.b.example.com")));
        for other in [
            "https://example.com",
            "https://badexample.com",
            "https://10.0.0.1",
        ] {
            assert!(!granted.matches(&origin(other)), "{other}");
        }
    }

    #[test]
    fn disguised_addresses_are_seen_as_what_they_are() {
        for disguised in ["http://0x7f.1/", "http://2130706433/", "http://127.1/"] {
            assert_eq!(origin(disguised).host, "127.0.0.1", "{disguised}");
        }
        assert_eq!(
            origin("http://[::ffff:127.0.0.1]/").to_string(),
            "http://[::ffff:127.0.0.1]"
        );
    }

    #[test]
    fn patterns_that_say_too_little_or_too_much_are_refused() {
        for wrong in [
            "api.example.com",
            "ftp://x.org",
            "https://*",
            "https://*.com",
            "https://a.*.org",
            "https://x.org/path",
            "https://u:p@x.org",
            "https://*.10.0.0.1",
        ] {
            assert!(wrong.parse::<OriginPattern>().is_err(), "{wrong}");
        }
        for right in [
            "https://*.example.com:8443",
            "http://127.0.0.1:8080",
            "https://[fd00::1]",
        ] {
            assert_eq!(pattern(right).to_string(), right);
        }
    }

    #[test]
    fn the_most_exact_grant_decides() {
        let grant = |text: &str, methods: &[&str]| HttpGrant {
            origin: pattern(text),
            methods: methods.iter().map(|m| (*m).to_owned()).collect(),
            private: false,
            ca_pem: None,
        };
        let grants = Grants {
            http: vec![
                grant("https://*.example.com", &["GET"]),
                grant("https://*.api.example.com", &[]),
                grant("https://a.api.example.com", &["POST"]),
            ],
            ..Grants::default()
        };
        let to = origin("https://a.api.example.com");
        assert_eq!(grants.http_grant(&to, "POST"), Some(2));
        assert_eq!(grants.http_grant(&to, "GET"), Some(1));
        assert_eq!(
            grants.http_grant(&origin("https://b.example.com"), "GET"),
            Some(0)
        );
        assert_eq!(
            grants.http_grant(&origin("https://b.example.com"), "DELETE"),
            None
        );
    }
}
