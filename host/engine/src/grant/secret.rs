//! Which keys of which Secrets a plugin may read.

use std::fmt;
use std::str::FromStr;

use super::both;

/// Permission to read keys of the Secrets of one name, or of all names with one beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretGrant {
    /// Another namespace than the one of the call's object.
    pub namespace: Option<String>,
    /// Which Secrets.
    pub name: NamePattern,
    /// Which keys; empty for all.
    pub keys: Vec<String>,
    /// The plugin may have the bytes themselves, not only a handle.
    pub bytes: bool,
}

/// A name, or all names that begin with a text: `aws`, `aws-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    open: bool,
}

/// A text that is no [`NamePattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name such as credentials, or credentials-* for all that begin so")]
pub struct NamePatternError {
    text: String,
}

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, open) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        if (name.is_empty() && !open) || name.contains(['*', '/']) {
            return Err(NamePatternError {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            text: name.to_owned(),
            open,
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.open { "*" } else { "" })
    }
}

impl NamePattern {
    /// Whether the name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.open {
            name.starts_with(self.text.as_str())
        } else {
            name == self.text
        }
    }

    /// Whether it says one name exactly.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.open
    }

    /// Whether everything that `other` means is meant.
    fn covers(&self, other: &Self) -> bool {
        if self.open {
            other.text.starts_with(self.text.as_str())
        } else {
            self == other
        }
    }
}

impl SecretGrant {
    /// Whether the grant is for this key; `own` is the namespace of the call's object.
    pub(crate) fn is_for(&self, own: &str, namespace: &str, name: &str, key: &str) -> bool {
        self.namespace.as_deref().unwrap_or(own) == namespace
            && self.name.matches(name)
            && (self.keys.is_empty() || self.keys.iter().any(|granted| granted == key))
    }

    /// What is left of it below a ceiling.
    pub(super) fn below(&self, ceiling: &Self) -> Option<Self> {
        let fits = self.namespace == ceiling.namespace && ceiling.name.covers(&self.name);
        let keys = both(&self.keys, &ceiling.keys)?;
        fits.then(|| Self {
            keys,
            bytes: self.bytes && ceiling.bytes,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(namespace: Option<&str>, name: &str, keys: &[&str], bytes: bool) -> SecretGrant {
        SecretGrant {
            namespace: namespace.map(str::to_owned),
            name: name.parse().unwrap(),
            keys: keys.iter().map(|k| (*k).to_owned()).collect(),
            bytes,
        }
    }

    #[test]
    fn a_grant_is_for_the_objects_own_namespace_unless_it_says_another() {
        let own = grant(None, "cloud", &["token"], false);
        assert!(own.is_for("team-a", "team-a", "cloud", "token"));
        assert!(!own.is_for("team-a", "team-b", "cloud", "token"));
        assert!(!own.is_for("team-a", "team-a", "cloud", "password"));
        assert!(!own.is_for("team-a", "team-a", "cloud-2", "token"));
        let other = grant(Some("shared"), "cloud-*", &[], false);
        assert!(other.is_for("team-a", "shared", "cloud-2", "any"));
        assert!(!other.is_for("team-a", "team-a", "cloud-2", "any"));
    }

    #[test]
    fn a_ceiling_takes_away_names_keys_and_bytes() {
        let ceiling = grant(None, "cloud-*", &["token", "user"], false);
        let cut = grant(None, "cloud-a", &["token", "ca"], true).below(&ceiling);
        assert_eq!(cut, Some(grant(None, "cloud-a", &["token"], false)));
        assert_eq!(grant(None, "c*", &[], false).below(&ceiling), None);
        assert_eq!(
            grant(Some("x"), "cloud-a", &[], false).below(&ceiling),
            None
        );
        assert_eq!(grant(None, "cloud-a", &["ca"], false).below(&ceiling), None);
    }

    #[test]
    fn patterns_are_names_or_beginnings() {
        for wrong in ["", "a*b", "*a", "a/b"] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
        assert!("*".parse::<NamePattern>().unwrap().matches("anything"));
    }
}
