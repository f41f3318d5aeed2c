//! Prints JSON values as YAML: block style, keys in the order of the value, texts quoted where needed.

use serde_json::Value;

/// The value as a YAML document, with a line end after it.
pub fn print(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// Writes a value that starts on a line of its own.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, member) in object {
                pad(indent, out);
                out.push_str(&scalar(key));
                out.push(':');
                after(member, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                pad(indent, out);
                out.push('-');
                entry(item, indent, out);
            }
        }
        other => {
            pad(indent, out);
            out.push_str(&flat(other));
            out.push('\n');
        }
    }
}

/// Writes a member's value after its key.
fn after(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            out.push('\n');
            block(value, indent.saturating_add(2), out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, indent, out);
        }
        other => {
            out.push(' ');
            out.push_str(&flat(other));
            out.push('\n');
        }
    }
}

/// Writes an item after its dash; an object's first member stands on the same line.
fn entry(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let mut inner = String::new();
            block(value, indent.saturating_add(2), &mut inner);
            out.push(' ');
            out.push_str(inner.trim_start_matches(' '));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, indent.saturating_add(2), out);
        }
        other => {
            out.push(' ');
            out.push_str(&flat(other));
            out.push('\n');
        }
    }
}

/// A value without members.
fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text, plain if no reader of YAML could take it for anything else, otherwise quoted as in JSON.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | ".inf" | ".nan"
        )
        && !text.chars().all(|c| c == '.' || c.is_ascii_digit());
    if plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn printed_documents_read_back_as_the_same_value() {
        let value = json!({
            "a": {"b": [1, -2.5, "x: y", {"c": [], "d": {}, "e": [["deep"], "no"]}]},
            "on": "true", "long": "two\nlines # \"quoted\" \u{e9}", "v": "1.0", "empty": "", "~": null,
        });
        let read: Value = serde_saphyr::from_str(&print(&value)).unwrap();
        assert_eq!(read, value);
    }
}
