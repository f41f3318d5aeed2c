//! Joins the parts of bootstrap data: the one place where secret bytes get into text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::call::SecretHandle;
use crate::call::bootstrap::{Part, SecretEncoding};

/// Upper bound of rendered bootstrap data: what fits into a Secret with room for its metadata.
pub const DATA_BYTES_MAX: usize = 1_000_000;
/// What a URL begins with behind which base64 follows ends with this (RFC 2397).
const BASE64_URL: &[u8] = b";base64,";
/// Deepest indentation of a secret.
const INDENT_MAX: u32 = 64;

/// Why parts could not be joined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A handle of another call, or none at all.
    #[error("part {part} names secret handle {handle}, which this call did not get")]
    UnknownHandle {
        /// Position from 0.
        part: usize,
        /// The handle.
        handle: u64,
    },
    /// The secret is not text but should be put into text line by line.
    #[error("part {part} indents a secret that is not text")]
    NotText {
        /// Position from 0.
        part: usize,
    },
    /// The secret has characters that YAML has no place for, or that are line ends to some readers and not to others.
    #[error("part {part} indents a secret with control characters")]
    Unprintable {
        /// Position from 0.
        part: usize,
    },
    /// The secret is not text but should become the inside of a JSON string.
    #[error("part {part} puts a secret that is not text into a JSON string")]
    NotJson {
        /// Position from 0.
        part: usize,
    },
    /// More than an indentation can be.
    #[error("part {part} is indented by more than {INDENT_MAX} spaces")]
    Indent {
        /// Position from 0.
        part: usize,
    },
    /// Too much.
    #[error("the bootstrap data is larger than {DATA_BYTES_MAX} bytes")]
    TooLarge,
}

/// Joins the parts of bootstrap data; secrets are put in here and nowhere else.
///
/// An indented secret continues where the text before it has come to: every line of it is preceded by the spaces, empty
/// lines stay empty, and a line end at its end is left to the text that follows. Inside of a JSON string the line ends at its
/// end are left out; behind the head of a URL with base64 so is all white space, which means nothing there: who reads such a URL
/// stumbles over base64 that is wrapped in lines.
///
/// # Errors
/// Names the part, never its bytes.
pub fn join<'a>(
    parts: &[Part],
    resolve: impl Fn(SecretHandle) -> Option<&'a [u8]>,
) -> Result<Vec<u8>, JoinError> {
    let mut data = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => data.extend_from_slice(text.as_bytes()),
            Part::Secret(handle, encoding) => {
                let unknown = JoinError::UnknownHandle {
                    part: index,
                    handle: handle.0,
                };
                let bytes = resolve(*handle).ok_or(unknown)?;
                put_secret(&mut data, bytes, *encoding, index)?;
            }
        }
        if data.len() > DATA_BYTES_MAX {
            return Err(JoinError::TooLarge);
        }
    }
    Ok(data)
}

fn put_secret(
    data: &mut Vec<u8>,
    bytes: &[u8],
    encoding: SecretEncoding,
    part: usize,
) -> Result<(), JoinError> {
    match encoding {
        SecretEncoding::Plain => data.extend_from_slice(bytes),
        SecretEncoding::Base64 => data.extend_from_slice(BASE64.encode(bytes).as_bytes()),
        SecretEncoding::JsonString => {
            let text = std::str::from_utf8(bytes).map_err(|_| JoinError::NotJson { part })?;
            let text = if data.ends_with(BASE64_URL) {
                text.split_ascii_whitespace().collect()
            } else {
                text.trim_end_matches('\n').to_owned()
            };
            let quoted = Value::from(text).to_string();
            let inside = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
            data.extend_from_slice(inside.unwrap_or_default().as_bytes());
        }
        SecretEncoding::Percent => {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
            for byte in bytes {
                // Unreserved characters of RFC 3986.
                if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                    data.push(*byte);
                } else {
                    data.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
        SecretEncoding::Indent(spaces) if spaces > INDENT_MAX => {
            return Err(JoinError::Indent { part });
        }
        SecretEncoding::Indent(spaces) => {
            let text = std::str::from_utf8(bytes).map_err(|_| JoinError::NotText { part })?;
            // One such character, and readers refuse the whole document, or take what follows it for a line that is not indented.
            if text.replace("\r\n", "\n").chars().any(is_unprintable) {
                return Err(JoinError::Unprintable { part });
            }
            let indent = " ".repeat(usize::try_from(spaces).unwrap_or_default());
            for (number, line) in text.trim_end_matches('\n').split('\n').enumerate() {
                if number > 0 {
                    data.push(b'\n');
                }
                if !line.is_empty() {
                    data.extend_from_slice(indent.as_bytes());
                    data.extend_from_slice(line.as_bytes());
                }
            }
        }
    }
    Ok(())
}

/// Whether a character cannot be in a block of YAML (1.1 and 1.2, `c-printable`), or begins a new line in YAML 1.1 only.
fn is_unprintable(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_that_is_wrapped_in_lines_is_one_url() {
        let bytes: &[u8] = b"aGVs\r\nbG8=\n";
        let joined = |before: &str| {
            let secret = Part::Secret(SecretHandle(1), SecretEncoding::JsonString);
            let parts = [
                Part::Text(before.to_owned()),
                secret,
                Part::Text("\"".to_owned()),
            ];
            let data = join(&parts, |_| Some(bytes)).unwrap();
            String::from_utf8(data).unwrap()
        };
        assert_eq!(joined("\"data:;base64,"), "\"data:;base64,aGVsbG8=\"");
        assert_eq!(
            joined("\"data:text/plain;base64,"),
            "\"data:text/plain;base64,aGVsbG8=\""
        );
        assert_eq!(joined("\""), "\"aGVs\\r\\nbG8=\"", "any other text stays");
    }

    #[test]
    fn secrets_are_put_into_text_as_asked() {
        let secret = |encoding| Part::Secret(SecretHandle(1), encoding);
        let parts = [
            Part::Text("a: |\n".to_owned()),
            secret(SecretEncoding::Indent(2)),
            Part::Text("\nb: ".to_owned()),
            secret(SecretEncoding::Base64),
            Part::Text("\n".to_owned()),
            secret(SecretEncoding::Plain),
        ];
        let bytes: &[u8] = b"x\n\ny\n";
        let data = join(&parts, |handle| (handle.0 == 1).then_some(bytes)).unwrap();
        assert_eq!(
            String::from_utf8(data).unwrap(),
            "a: |\n  x\n\n  y\nb: eAoKeQo=\nx\n\ny\n"
        );
    }

    #[test]
    fn an_indented_secret_has_no_characters_that_end_the_document_or_the_line() {
        let indented = |text: &str| {
            let parts = [Part::Secret(SecretHandle(1), SecretEncoding::Indent(2))];
            join(&parts, |_| Some(text.as_bytes()))
        };
        for wrong in [
            "a\u{7}",
            "\0",
            "a\rb: c",
            "\u{7f}",
            "a\u{85}b",
            "a\u{2028}b: c",
            "\u{ffff}",
        ] {
            assert_eq!(
                indented(wrong),
                Err(JoinError::Unprintable { part: 0 }),
                "{wrong:?}"
            );
        }
        for right in ["a\tb", "a\r\nb\r\n", "\u{a0}\u{e4}\u{1f600}", "\u{feff}a"] {
            assert!(indented(right).is_ok(), "{right:?}");
        }
    }

    #[test]
    fn a_handle_of_another_call_is_refused() {
        let parts = [Part::Secret(SecretHandle(9), SecretEncoding::Plain)];
        assert_eq!(
            join(&parts, |_| None),
            Err(JoinError::UnknownHandle { part: 0, handle: 9 })
        );
    }

    #[test]
    fn secrets_are_put_into_json_and_urls_without_changing_what_is_around_them() {
        let parts = [
            Part::Text("{\"a\": \"".to_owned()),
            Part::Secret(SecretHandle(1), SecretEncoding::JsonString),
            Part::Text("\", \"b\": \"data:,".to_owned()),
            Part::Secret(SecretHandle(1), SecretEncoding::Percent),
            Part::Text("\"}".to_owned()),
        ];
        let bytes: &[u8] = "$6$\"\\ \u{e4}\n".as_bytes();
        let data = join(&parts, |_| Some(bytes)).unwrap();
        let read: Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(read["a"], "$6$\"\\ \u{e4}");
        assert_eq!(read["b"], "data:,%246%24%22%5C%20%C3%A4%0A");
        let binary: &[u8] = &[0xff];
        assert_eq!(
            join(&parts, |_| Some(binary)),
            Err(JoinError::NotJson { part: 1 })
        );
    }
}
