//! Semantic versions of Kubernetes, with or without a leading `v`.

use std::cmp::Ordering;
use std::fmt;

/// A semantic version.
///
/// Equality and order ignore what comes after `+`; [`Version::compare_with_build`] does not.
#[derive(Clone, Debug)]
pub struct Version {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Patch number.
    pub patch: u64,
    /// What comes after `-`, empty if there is nothing.
    pub pre: String,
    /// What comes after `+`, empty if there is nothing.
    pub build: String,
}

/// A text that is not a semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionError(String);

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a version: it has the form v1.36.0", self.0)
    }
}

impl std::error::Error for VersionError {}

impl Version {
    /// Reads a version with or without a leading `v`.
    ///
    /// # Errors
    /// If the text is not a semantic version; numbers with leading zeros are not.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        Self::read(text).ok_or_else(|| VersionError(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('v').unwrap_or(text);
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (core, pre) = match rest.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (rest, None),
        };
        let mut numbers = core.split('.').map(number);
        let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if numbers.next().is_some() {
            return None;
        }
        let identifiers = |text: &str| {
            text.split('.').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
        };
        let no_leading_zero = |text: &str| {
            text.split('.')
                .all(|part| !part.bytes().all(|b| b.is_ascii_digit()) || number(part).is_some())
        };
        let well_formed = pre.is_none_or(|pre| identifiers(pre) && no_leading_zero(pre))
            && build.is_none_or(identifiers);
        well_formed.then(|| Self {
            major,
            minor,
            patch,
            pre: pre.unwrap_or_default().to_owned(),
            build: build.unwrap_or_default().to_owned(),
        })
    }

    /// The order with what comes after `+`, for versions that only differ there.
    pub fn compare_with_build(&self, other: &Self) -> Ordering {
        self.cmp(other)
            .then_with(|| compare_identifiers(&self.build, &other.build))
    }
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Order of dotted identifiers: numbers by value and below words, words by the alphabet, longer above
/// shorter. The empty text is below everything.
fn compare_identifiers(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<String> {
        text.split('.')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (a, b) = (parts(a), parts(b));
    for (left, right) in a.iter().zip(&b) {
        let order = match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch)
            .cmp(&(other.major, other.minor, other.patch))
            .then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => compare_identifiers(&self.pre, &other.pre),
            })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre)?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn order_is_that_of_semantic_versions() {
        let ordered = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "v1.0.0",
            "v1.35.9",
            "v1.36.0",
        ];
        for pair in ordered.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("v1.2.3+a"), version("1.2.3+b"));
        assert!(
            version("v1.2.3+k3s1")
                .compare_with_build(&version("v1.2.3+k3s2"))
                .is_lt()
        );
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "", "v", "1.2", "1.2.3.4", "v01.2.3", "1.2.x", "vv1.2.3", "1.2.3-", "1.2.3-01",
            "1.2.3+",
        ] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert_eq!(version("1.36.0-rc.1+x").to_string(), "v1.36.0-rc.1+x");
    }
}
