//! Secret bytes of one call, known to the guest by handle only.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_core::call::SecretHandle;

use crate::limit::REDACT_BYTES_MIN;

/// The secrets of one call. Handles count from 1, mean nothing outside of this table, and are harmless when printed.
///
/// Cloning is cheap and gives an independent table.
#[derive(Clone, Default)]
pub struct SecretTable {
    values: Vec<Arc<[u8]>>,
    /// How many of them the guest has opened itself; they are the last ones.
    opened: usize,
}

impl SecretTable {
    /// A table without secrets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps these bytes and says by which handle they are known.
    pub fn add(&mut self, bytes: impl Into<Arc<[u8]>>) -> SecretHandle {
        self.values.push(bytes.into());
        SecretHandle(u64::try_from(self.values.len()).unwrap_or(u64::MAX))
    }

    /// Keeps bytes that the guest asked for in the course of its call.
    pub(crate) fn open(&mut self, bytes: Vec<u8>) -> SecretHandle {
        let handle = self.add(bytes);
        self.opened = self.opened.saturating_add(1);
        handle
    }

    /// The bytes of a handle that came with the input: only those mean something to whoever reads the answer.
    pub(crate) fn given(&self, handle: SecretHandle) -> Option<&[u8]> {
        let given = self.values.len().saturating_sub(self.opened);
        let place = usize::try_from(handle.0).ok()?;
        (place <= given).then(|| self.resolve(handle)).flatten()
    }

    /// The bytes of a handle of this table.
    #[must_use]
    pub fn resolve(&self, handle: SecretHandle) -> Option<&[u8]> {
        let index = usize::try_from(handle.0).ok()?.checked_sub(1)?;
        self.values.get(index).map(AsRef::as_ref)
    }

    /// Bytes of each secret that came with the input, in the order of their handles.
    pub(crate) fn given_sizes(&self) -> Vec<usize> {
        let given = self.values.len().saturating_sub(self.opened);
        self.values
            .iter()
            .take(given)
            .map(|value| value.len())
            .collect()
    }

    /// The text without any secret of this table or of others, plain, in base64 or inside of JSON: for what is kept. It stays as long
    /// as it was, so that a replay sees the same lengths.
    pub(crate) fn redact_all(&self, text: &str, others: &[Vec<u8>]) -> String {
        let mut text = text.to_owned();
        for form in self.forms(others) {
            if let Ok(form) = std::str::from_utf8(&form)
                && text.contains(form)
            {
                text = text.replace(form, &covered(form.chars().count()));
            }
        }
        text
    }

    /// The same of bytes that are no text.
    pub(crate) fn redact_bytes(&self, bytes: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for form in self.forms(others) {
            let cover = covered(form.len());
            let mut at = 0;
            while let Some(rest) = bytes.get_mut(at..)
                && let Some(found) = rest.windows(form.len()).position(|part| part == form)
            {
                for (place, byte) in rest.iter_mut().skip(found).zip(cover.bytes()) {
                    *place = byte;
                }
                at = at.saturating_add(found).saturating_add(form.len());
            }
        }
        bytes
    }

    /// What secrets of this table and others look like where they are written down.
    fn forms(&self, others: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let own = self.values.iter().map(AsRef::as_ref);
        let all = own.chain(others.iter().map(Vec::as_slice));
        let mut forms = Vec::new();
        for value in all.map(<[u8]>::trim_ascii) {
            if value.len() < REDACT_BYTES_MIN {
                continue;
            }
            forms.push(STANDARD.encode(value).into_bytes());
            if let Ok(secret) = std::str::from_utf8(value) {
                let quoted = serde_json::Value::from(secret).to_string();
                forms.push(quoted.trim_matches('"').as_bytes().to_vec());
            }
            forms.push(value.to_vec());
        }
        // Of two that overlap the longer one goes whole.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms
    }

    /// The text with every secret of this table that occurs in it taken out, with or without the line end that it is kept with.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in self.values.iter().map(|value| value.trim_ascii()) {
            if value.len() < REDACT_BYTES_MIN {
                continue;
            }
            if let Ok(secret) = std::str::from_utf8(value)
                && text.contains(secret)
            {
                text = text.replace(secret, "[secret]");
            }
        }
        text
    }
}

/// What stands in the place of so many characters of a secret.
fn covered(count: usize) -> String {
    format!("{:*<count$}", "[secret]")
}

impl fmt::Debug for SecretTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretTable({} secrets)", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_finds_its_bytes_and_no_others() {
        let mut table = SecretTable::new();
        let first = table.add(b"one".to_vec());
        let second = table.add(b"two".to_vec());
        assert_eq!(table.resolve(first), Some(&b"one"[..]));
        assert_eq!(table.resolve(second), Some(&b"two"[..]));
        assert_eq!(table.resolve(SecretHandle(0)), None);
        assert_eq!(table.resolve(SecretHandle(3)), None);
        assert_eq!(table.resolve(SecretHandle(u64::MAX)), None);
    }

    #[test]
    fn what_a_guest_opens_has_no_place_in_its_answer() {
        let mut table = SecretTable::new();
        let given = table.add(b"given".to_vec());
        let opened = table.open(b"opened".to_vec());
        assert_eq!(table.given(given), Some(&b"given"[..]));
        assert_eq!(table.given(opened), None);
        assert_eq!(table.resolve(opened), Some(&b"opened"[..]));
        assert_eq!(table.given(SecretHandle(0)), None);
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let mut table = SecretTable::new();
        table.add(b"hunter2-hunter2".to_vec());
        assert!(!format!("{table:?}").contains("hunter"));
        assert_eq!(table.redact("it is hunter2-hunter2!"), "it is [secret]!");
        table.add(b"kept-with-a-line-end\n".to_vec());
        assert_eq!(table.redact("kept-with-a-line-end!"), "[secret]!");
        table.add(b"a\"b\"c\"d\"e".to_vec());
        let text = format!(
            "{} hunter2-hunter2 a\\\"b\\\"c\\\"d\\\"e injected",
            STANDARD.encode("hunter2-hunter2")
        );
        let redacted = table.redact_all(&text, &[b"injected\n".to_vec()]);
        assert_eq!(
            redacted,
            "[secret]************ [secret]******* [secret]***** [secret]"
        );
        let bytes = [
            &b"\xff\xfehunter2-hunter2\0"[..],
            STANDARD.encode("hunter2-hunter2").as_bytes(),
        ]
        .concat();
        let redacted = table.redact_bytes(&bytes, &[b"injected".to_vec()]);
        assert_eq!(redacted, b"\xff\xfe[secret]*******\0[secret]************");
    }
}
