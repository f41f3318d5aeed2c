//! Rules for what a plugin answers: each turns untrusted into trusted, or names the rule that is broken.

use std::net::IpAddr;

use capstan_core::call::{Extra, STATE_BYTES_MAX, State};
use serde::Serialize;
use serde_json::Value;
use wasmtime::Store;

use super::imports::types::NamedJson;
use crate::call::CallState;
use crate::error::{BadAnswer, CallError};
use crate::limit::{
    HOSTCALL_FUEL_BYTES, JSON_BYTES_MAX, JSON_VALUES_MAX, LIST_ENTRIES_MAX, MESSAGE_BYTES_MAX,
    REASON_CHARS_MAX, TEXT_BYTES_MAX,
};
use crate::text::{answer_bytes, clipped, json_values};

pub(super) type Checked<T> = Result<T, BadAnswer>;

/// The rule `what` must hold.
pub(super) fn rule(holds: bool, what: impl FnOnce() -> String) -> Checked<()> {
    if holds {
        Ok(())
    } else {
        Err(BadAnswer(what()))
    }
}

/// A value as it is shown in a rule.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", clipped(text, 64))
}

/// An answer as a whole, within what the plugin may answer. Up to [`HOSTCALL_FUEL_BYTES`] it was let through already.
pub(super) fn size(answer: &impl Serialize, limit: usize) -> Checked<()> {
    if limit >= HOSTCALL_FUEL_BYTES {
        return Ok(());
    }
    let bytes = answer_bytes(answer);
    rule(bytes <= limit, || {
        format!("the answer has {bytes} bytes, more than {limit}")
    })
}

/// The state of an answer, within what the plugin may keep.
pub(super) fn state_of(store: &Store<CallState>, state: Option<&State>) -> Checked<()> {
    let fits = |state: &State| store.data().capabilities.state.fits(state);
    state.map_or(Ok(()), fits).map_err(BadAnswer)
}

/// JSON of any type, within its size.
pub(super) fn json(field: &str, text: &str) -> Checked<Value> {
    rule(text.len() <= JSON_BYTES_MAX, || {
        format!(
            "{field} has {} bytes of JSON, more than {JSON_BYTES_MAX}",
            text.len()
        )
    })?;
    rule(json_values(text) <= JSON_VALUES_MAX, || {
        format!("{field} has more than {JSON_VALUES_MAX} values")
    })?;
    serde_json::from_str(text).map_err(|e| BadAnswer(format!("{field} is not JSON: {e}")))
}

/// A JSON object; an empty text counts as an empty one.
pub(super) fn json_object(field: &str, text: &str) -> Checked<Value> {
    if text.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let value = json(field, text)?;
    rule(value.is_object(), || {
        format!("{field} is not a JSON object")
    })?;
    Ok(value)
}

/// A JSON list; an empty text counts as an empty one.
pub(super) fn json_list(field: &str, text: &str) -> Checked<Value> {
    if text.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    let value = json(field, text)?;
    rule(value.is_array(), || format!("{field} is not a JSON list"))?;
    Ok(value)
}

/// Named values, each of them JSON.
pub(super) fn extra(values: Vec<NamedJson>) -> Checked<Extra> {
    list("extra", values.len())?;
    values
        .into_iter()
        .map(|named| {
            let value = json(&format!("extra.{}", clipped(&named.name, 64)), &named.value)?;
            Ok((text("extra", named.name)?, value))
        })
        .collect()
}

/// Not too many entries.
pub(super) fn list(field: &str, entries: usize) -> Checked<()> {
    rule(entries <= LIST_ENTRIES_MAX, || {
        format!("{field} has {entries} entries, more than {LIST_ENTRIES_MAX}")
    })
}

/// A short text without control characters; may be empty.
pub(super) fn text(field: &str, value: String) -> Checked<String> {
    rule(
        value.len() <= TEXT_BYTES_MAX && !value.chars().any(char::is_control),
        || format!("{field} is longer than {TEXT_BYTES_MAX} bytes or has control characters"),
    )?;
    Ok(value)
}

/// The same, not empty.
pub(super) fn name(field: &str, value: String) -> Checked<String> {
    rule(!value.is_empty(), || format!("{field} is empty"))?;
    text(field, value)
}

/// For a person; may be empty and have lines.
pub(super) fn message(field: &str, value: String) -> Checked<String> {
    rule(value.len() <= MESSAGE_BYTES_MAX, || {
        format!(
            "{field} has {} bytes, more than {MESSAGE_BYTES_MAX}",
            value.len()
        )
    })?;
    Ok(value)
}

/// CamelCase as Kubernetes has it in reasons: a letter, then letters, digits, `_`, `,` or `:`, not ending in the last two.
pub(super) fn reason(field: &str, value: String) -> Checked<String> {
    let fits = (1..=REASON_CHARS_MAX).contains(&value.len())
        && value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ':'))
        && !value.ends_with([',', ':']);
    rule(fits, || {
        format!("{field} {} is not a CamelCase reason", shown(&value))
    })?;
    Ok(value)
}

/// At most what the host keeps.
pub(super) fn state(value: Option<Vec<u8>>) -> Checked<Option<State>> {
    if let Some(bytes) = &value {
        rule(bytes.len() <= STATE_BYTES_MAX, || {
            format!(
                "state has {} bytes, more than {STATE_BYTES_MAX}",
                bytes.len()
            )
        })?;
    }
    Ok(value)
}

/// `v1.36.0`.
pub(super) fn version(field: &str, value: String) -> Checked<String> {
    let fits = value
        .strip_prefix('v')
        .is_some_and(crate::manifest::is_semantic_version);
    rule(fits, || {
        format!("{field} {} is not a version such as v1.36.0", shown(&value))
    })?;
    Ok(value)
}

/// A DNS name or an address.
pub(super) fn host(field: &str, value: String) -> Checked<String> {
    let is_name = || {
        value.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
    };
    let fits = (1..=512).contains(&value.len()) && (value.parse::<IpAddr>().is_ok() || is_name());
    rule(fits, || {
        format!(
            "{field} {} is neither a DNS name nor an address",
            shown(&value)
        )
    })?;
    Ok(value)
}

/// 1 to 65535.
pub(super) fn port(field: &str, value: u16) -> Checked<u16> {
    rule(value != 0, || format!("{field} is 0"))?;
    Ok(value)
}

/// Labels or annotations: no key twice, each key once checked.
pub(super) fn pairs(field: &str, pairs: Vec<(String, String)>) -> Checked<Vec<(String, String)>> {
    list(field, pairs.len())?;
    for (index, (key, value)) in pairs.iter().enumerate() {
        rule(!key.is_empty() && key.len() <= 317, || {
            format!("{field} has the key {}", shown(key))
        })?;
        rule(value.len() <= JSON_BYTES_MAX / 4, || {
            format!("{field}[{key}] is too long")
        })?;
        let twice = pairs
            .iter()
            .skip(index.saturating_add(1))
            .any(|(other, _)| other == key);
        rule(!twice, || {
            format!("{field} has the key {} twice", shown(key))
        })?;
    }
    Ok(pairs)
}

/// JSON text of an object for the guest.
pub(super) fn json_text(field: &str, value: &Value) -> Result<String, CallError> {
    let mut text = value.to_string();
    // It stays for as long as the call does, and has grown by doubling.
    text.shrink_to_fit();
    if text.len() > JSON_BYTES_MAX {
        return Err(CallError::BadInput {
            rule: format!(
                "{field} has {} bytes of JSON, more than {JSON_BYTES_MAX}",
                text.len()
            ),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_kubernetes() {
        for good in ["Ready", "waitingForIP", "Error:404x", "A_b,c"] {
            assert!(reason("reason", good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "not camel", "9Lives", "Ends:", "Umlaüt"] {
            assert!(reason("reason", bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for good in ["a.example.com", "10.0.0.1", "fd00::1", "localhost"] {
            assert!(host("host", good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "a b", "http://x", "a..b", "x/y"] {
            assert!(host("host", bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_there_once() {
        let pair = |k: &str| (k.to_owned(), String::new());
        assert!(pairs("labels", vec![pair("a"), pair("b")]).is_ok());
        assert!(pairs("labels", vec![pair("a"), pair("a")]).is_err());
    }
}
