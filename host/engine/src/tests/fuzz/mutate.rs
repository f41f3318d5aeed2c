//! Makes bad out of good: bytes, texts and JSON, changed in few places by chance.
#![expect(clippy::arithmetic_side_effects, reason = "numbers of a few elements")]

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Texts that something has gone wrong with before.
const ODD: [&str; 24] = [
    "",
    " ",
    ".",
    "..",
    "/",
    "../../etc/passwd",
    "\0",
    "\n",
    "\r\nx: y",
    "\u{202e}",
    "\u{feff}",
    "ÿ",
    "*",
    "%00",
    "a.b",
    "{}",
    "[]",
    "null",
    "{\"a\":",
    "-1",
    "18446744073709551616",
    "1e999",
    "Ready",
    "metadata",
];

/// Numbers at the ends.
const ENDS: [u64; 8] = [0, 1, 127, 255, 65_535, 65_536, u32::MAX as u64, u64::MAX];

pub(super) fn mutated_bytes(random: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => {
                let more = vec![random.random(); random.random_range(1..64)];
                bytes.splice(at..at, more);
            }
            4 => {
                let end = (at + random.random_range(1..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + random.random_range(1..256)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

pub(super) fn mutated_text(random: &mut StdRng, good: &str) -> String {
    match random.random_range(0..4) {
        0 => ODD[random.random_range(0..ODD.len())].to_owned(),
        1 => good.repeat(random.random_range(2..200)),
        _ => {
            let bytes = mutated_bytes(random, good.as_bytes());
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }
}

/// How many values there are, all that are within it included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

pub(super) fn mutated_json(random: &mut StdRng, good: &Value) -> Value {
    let mut value = good.clone();
    for _ in 0..random.random_range(1..4) {
        let mut place = random.random_range(0..count(&value));
        change(random, &mut value, &mut place);
    }
    value
}

/// Changes the value that is so many places further on.
fn change(random: &mut StdRng, value: &mut Value, place: &mut usize) -> bool {
    if *place == 0 {
        *value = instead(random, value);
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| change(random, item, place)),
        Value::Object(fields) => fields
            .values_mut()
            .any(|field| change(random, field, place)),
        _ => false,
    }
}

fn instead(random: &mut StdRng, value: &Value) -> Value {
    match value {
        // JSON within JSON is where the schemas and objects are.
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner) if inner.is_object() && random.random_bool(0.7) => {
                Value::String(mutated_json(random, &inner).to_string())
            }
            _ => Value::String(mutated_text(random, text)),
        },
        Value::Number(_) => json!(ENDS[random.random_range(0..ENDS.len())]),
        Value::Bool(bit) => json!(!bit),
        Value::Null => json!(ODD[random.random_range(0..ODD.len())]),
        Value::Array(items) => {
            let mut items = items.clone();
            match random.random_range(0..3) {
                0 => items.clear(),
                1 => items.truncate(1),
                _ => {
                    let more: Vec<Value> = items.first().cloned().into_iter().collect();
                    let times = random.random_range(1..1200);
                    items.extend(more.iter().cycle().take(times * more.len()).cloned());
                }
            }
            Value::Array(items)
        }
        Value::Object(fields) => {
            let mut fields = fields.clone();
            let name = fields
                .keys()
                .nth(random.random_range(0..fields.len().max(1)))
                .cloned()
                .unwrap_or_default();
            let before = fields.remove(&name).unwrap_or_default();
            if random.random_bool(0.5) {
                let name = mutated_text(random, &name);
                fields.insert(name, before);
            }
            Value::Object(fields)
        }
    }
}
