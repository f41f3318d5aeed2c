//! References to what is in registries: host, repository, and a tag or a digest.

use crate::text::clipped;

/// A reference that was taken apart: `registry.example.com:5000/team/plugin:1.2.3`, or with `@sha256:` and a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, perhaps with a port.
    pub(super) host: String,
    pub(super) repository: String,
    /// A tag, or `sha256:<hex>`.
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Tag(String),
    Digest(String),
}

impl Reference {
    /// Takes a reference apart. There is no default registry and no default tag: what runs is said whole.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{:?} is not a reference such as registry.example.com/team/plugin:1.2.3: {why}",
                clipped(text, 256)
            )
        };
        let (host, rest) = text
            .split_once('/')
            .ok_or_else(|| wrong("it has no registry"))?;
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err(wrong("its first part is not the host of a registry"));
        }
        let (rest, wanted) = if let Some((rest, digest)) = rest.split_once('@') {
            if !is_digest(digest) {
                return Err(wrong("what follows @ is not sha256: and 64 digits"));
            }
            // A tag beside a digest is for people.
            let rest = rest.split_once(':').map_or(rest, |(rest, _)| rest);
            (rest, Wanted::Digest(digest.to_owned()))
        } else {
            let (rest, tag) = rest
                .rsplit_once(':')
                .ok_or_else(|| wrong("it has neither tag nor digest"))?;
            let fits = (1..=128).contains(&tag.len())
                && tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            if !fits {
                return Err(wrong("its tag is none"));
            }
            (rest, Wanted::Tag(tag.to_owned()))
        };
        let is_part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        };
        let is_host = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
        if !is_host || rest.len() > 255 || !rest.split('/').all(is_part) {
            return Err(wrong("its repository is not lower case words joined by /"));
        }
        Ok(Self {
            host: host.to_owned(),
            repository: rest.to_owned(),
            wanted,
        })
    }

    /// Host of the registry, perhaps with a port: what pull secrets call it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same repository by a digest.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.host, self.repository)
    }

    /// The digest that is meant, when it is not a tag.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::Digest(digest) => Some(digest),
            Wanted::Tag(_) => None,
        }
    }

    pub(super) fn wanted(&self) -> &str {
        match &self.wanted {
            Wanted::Tag(text) | Wanted::Digest(text) => text,
        }
    }
}

pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart_and_say_all() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let parsed = Reference::parse("localhost:5000/team/plugin:1.2.3").unwrap();
        assert_eq!(parsed.host(), "localhost:5000");
        assert_eq!(parsed.wanted(), "1.2.3");
        assert_eq!(
            parsed.pinned(&digest),
            format!("localhost:5000/team/plugin@{digest}")
        );
        let both = Reference::parse(&format!("r.example.com/p:1@{digest}")).unwrap();
        assert_eq!(
            (both.repository.as_str(), both.wanted()),
            ("p", digest.as_str())
        );
        for wrong in [
            "plugin:1",
            "team/plugin:1",
            "r.example.com/plugin",
            "r.example.com/Plugin:1",
            "r.example.com/a/../b:1",
            "r.example.com/a?x=1:1",
            "r.example.com/p@sha256:abc",
            "u:p@r.example.com/p:1",
            "r.example.com/p:1/../../x",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }
}
