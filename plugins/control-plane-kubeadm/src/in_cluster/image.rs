//! Names of images, and versions as tags have them.

use std::fmt;

/// An image by its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// All before the last `/`; empty when there is none.
    pub(super) repository: String,
    /// The last part of its path.
    pub(super) name: String,
    /// Empty when it is named by digest only.
    pub(super) tag: String,
}

impl Image {
    /// Reads `repository/name:tag@digest`.
    pub(super) fn parse(text: &str) -> Self {
        let named = text.split_once('@').map_or(text, |(named, _)| named);
        let (repository, rest) = named.rsplit_once('/').unwrap_or(("", named));
        let (name, tag) = rest.split_once(':').unwrap_or((rest, ""));
        Self {
            repository: repository.to_owned(),
            name: name.to_owned(),
            tag: tag.to_owned(),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.repository.is_empty() {
            write!(f, "{}/", self.repository)?;
        }
        f.write_str(&self.name)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        Ok(())
    }
}

/// A repository as people write it, without a slash at its end.
pub(super) fn repository(text: &str) -> &str {
    text.trim_end_matches('/')
}

/// Major, minor and patch of a version with or without its v; what follows them does not count.
pub(super) fn release(text: &str) -> Option<(u64, u64, u64)> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+', '_']).unwrap_or(text.len());
    let mut numbers = text.get(..end)?.split('.').map(str::parse::<u64>);
    match (
        numbers.next(),
        numbers.next(),
        numbers.next(),
        numbers.next(),
    ) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Some((major, minor, patch)),
        _ => None,
    }
}

/// Major and minor of a version.
pub(super) fn minor(text: &str) -> Option<(u64, u64)> {
    release(text).map(|(major, minor, _)| (major, minor))
}

/// A version as a tag: tags have no plus.
pub(super) fn tag(version: &str) -> String {
    version.replace('+', "_")
}
