//! Names: keys of objects, digests, versions, and names and label values that must stay short.

pub mod version;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use version::{Version, VersionError};

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Names a plugin: namespace and name of its Plugin object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PluginName(pub ObjectKey);

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of a plugin's bytes, `sha256:` and 64 lower case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestError(String);

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a digest: it has the form sha256: and 64 lower case hexadecimal digits",
            self.0
        )
    }
}

impl std::error::Error for DigestError {}

impl Digest {
    /// Reads a digest.
    ///
    /// # Errors
    /// If the text does not have the form.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let is_hex = |hex: &str| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if text.strip_prefix("sha256:").is_some_and(is_hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DigestError(text.to_owned()))
        }
    }

    /// The digest for a hash that has been computed.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The first 12 hexadecimal digits, for people and file names.
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Characters of generated names: no vowels and no digits that look like letters.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many characters are generated.
const SUFFIX_LEN: usize = 5;

/// The longest generated name, which is also the longest label value and host name.
const NAME_MAX: usize = 63;

/// Five characters from the alphabet of generated names; `random` gives any number.
pub fn random_suffix(mut random: impl FnMut() -> u32) -> String {
    let len = u32::try_from(ALPHABET.len()).unwrap_or(u32::MAX);
    (0..SUFFIX_LEN)
        .map(|_| {
            let index =
                usize::try_from(random().checked_rem(len).unwrap_or_default()).unwrap_or_default();
            char::from(ALPHABET.get(index).copied().unwrap_or(b'b'))
        })
        .collect()
}

/// A name that starts with `base`, cut to 58 characters, and ends in five random ones.
pub fn generate(base: &str, random: impl FnMut() -> u32) -> String {
    let kept = NAME_MAX.saturating_sub(SUFFIX_LEN);
    let base: String = base.chars().take(kept).collect();
    format!("{base}{}", random_suffix(random))
}

/// A name as it is, or cut and made unique if it is longer than 63 characters.
pub fn bounded(name: &str, random: impl FnMut() -> u32) -> String {
    if name.chars().count() <= NAME_MAX {
        name.to_owned()
    } else {
        generate(name, random)
    }
}

/// A name as a label value: itself if it fits (63 characters), otherwise its hash as `hash_<base64>_z`.
pub fn label_value(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return name.to_owned();
    }
    let hash = fnv32a(name.as_bytes()).to_be_bytes();
    format!("hash_{}_z", base64_url(&hash))
}

/// The 32-bit FNV-1a hash.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// URL-safe base64 without padding.
fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        for (place, byte) in group.iter_mut().zip(chunk) {
            *place = *byte;
        }
        let [a, b, c] = group.map(u32::from);
        let bits = (a << 16) | (b << 8) | c;
        let digits = chunk.len().saturating_add(1);
        for shift in [18_u32, 12, 6, 0].into_iter().take(digits) {
            let index = usize::try_from((bits >> shift) & 63).unwrap_or_default();
            text.push(char::from(DIGITS.get(index).copied().unwrap_or(b'A')));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_have_63_characters_at_most() {
        let mut seed = 0_u32;
        let mut next = || {
            seed = seed.wrapping_add(11);
            seed
        };
        let long = "m".repeat(80);
        let name = generate(&long, &mut next);
        assert_eq!(name.len(), 63);
        assert!(name.starts_with(&"m".repeat(58)));
        assert_eq!(generate("md-", &mut next).len(), 8);
        assert_eq!(bounded("short", next), "short");
    }

    #[test]
    fn long_label_values_are_hashed() {
        assert_eq!(label_value("short"), "short");
        let hashed = label_value(&"x".repeat(64));
        assert!(
            hashed.starts_with("hash_") && hashed.ends_with("_z") && hashed.len() == 13,
            "{hashed}"
        );
        assert_eq!(fnv32a(b"a"), 0xe40c_292c);
        assert_eq!(base64_url(&[0xff, 0xef, 0x00, 0x01]), "_-8AAQ");
    }

    #[test]
    fn digests_are_checked() {
        let digest = Digest::from_sha256([0xab; 32]);
        assert_eq!(digest.short(), "abababababab");
        assert_eq!(Digest::parse(digest.as_str()), Ok(digest));
        assert!(Digest::parse("sha256:ABC").is_err());
        assert!(Digest::parse("md5:00").is_err());
    }
}
