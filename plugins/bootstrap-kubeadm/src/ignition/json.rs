//! JSON with secret bytes left as handles for the host, and how two configs become one.

use capstan_sdk::bootstrap::SecretEncoding;
use capstan_sdk::http::escaped;
use serde_json::Value;

use crate::yaml::{Part, Writer};

/// Fields by which an entry of a list is the same as another's.
const IDENTITIES: [&str; 3] = ["name", "path", "device"];

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// `true`, `1`.
    Literal(String),
    /// A string.
    Text(String),
    /// A string made of parts that need no more escaping.
    Parts(Vec<Part>),
    /// An array.
    List(Vec<Json>),
    /// An object, in this order.
    Map(Vec<(String, Json)>),
}

impl Json {
    /// An object.
    pub(crate) fn map<const N: usize>(entries: [(&str, Json); N]) -> Json {
        Json::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    /// A string.
    pub(crate) fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    /// `true` or `false`.
    pub(crate) fn bool(value: bool) -> Json {
        Json::Literal(value.to_string())
    }

    /// A URL that holds this text.
    pub(crate) fn data_url(text: &str) -> Json {
        Json::Parts(vec![Part::Text(format!("data:,{}", escaped(text)))])
    }

    /// A URL that holds these parts, which begin in the first column.
    pub(crate) fn data_url_of(parts: Vec<Part>) -> Json {
        let mut url = vec![Part::Text("data:,".to_owned())];
        url.extend(parts.into_iter().map(|part| match part {
            Part::Text(text) => Part::Text(escaped(&text)),
            Part::Secret { handle, .. } => Part::Secret {
                handle,
                encoding: SecretEncoding::Percent,
            },
        }));
        Json::Parts(url)
    }

    fn get(&self, wanted: &str) -> Option<&Json> {
        match self {
            Json::Map(entries) => entries
                .iter()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    fn is_same_entry(&self, other: &Json) -> bool {
        if !matches!((self, other), (Json::Map(_), Json::Map(_))) {
            return self == other;
        }
        let identity = IDENTITIES
            .into_iter()
            .find(|field| other.get(field).is_some());
        identity.is_some_and(|field| self.get(field) == other.get(field))
    }

    /// Takes another value over, as Ignition merges configs: objects field by field, lists by their entries' names, paths or
    /// devices, everything else whole.
    pub(crate) fn merge(&mut self, over: Json) {
        match (self, over) {
            (Json::Map(entries), Json::Map(over)) => {
                for (key, value) in over {
                    match entries.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, known)) => known.merge(value),
                        None => entries.push((key, value)),
                    }
                }
            }
            (Json::List(items), Json::List(over)) => {
                for item in over {
                    match items.iter_mut().find(|known| known.is_same_entry(&item)) {
                        Some(known) => known.merge(item),
                        None => items.push(item),
                    }
                }
            }
            (known, over) => *known = over,
        }
    }

    /// Writes it, with its lines after the first indented by so many spaces.
    pub(crate) fn write(&self, writer: &mut Writer, indent: usize) {
        let inner = indent.saturating_add(2);
        let line = |writer: &mut Writer, position: usize, indent: usize| {
            writer.text(if position > 0 { ",\n" } else { "\n" });
            writer.text(&" ".repeat(indent));
        };
        match self {
            Json::Literal(literal) => writer.text(literal),
            Json::Text(text) => writer.text(&Value::from(text.as_str()).to_string()),
            Json::Parts(parts) => {
                writer.text("\"");
                for part in parts {
                    match part {
                        Part::Text(text) => writer.text(text),
                        Part::Secret { handle, encoding } => writer.secret(*handle, *encoding),
                    }
                }
                writer.text("\"");
            }
            Json::List(items) => {
                writer.text("[");
                for (position, item) in items.iter().enumerate() {
                    line(writer, position, inner);
                    item.write(writer, inner);
                }
                line(writer, 0, indent);
                writer.text("]");
            }
            Json::Map(entries) => {
                writer.text("{");
                for (position, (key, value)) in entries.iter().enumerate() {
                    line(writer, position, inner);
                    writer.text(&Value::from(key.as_str()).to_string());
                    writer.text(": ");
                    value.write(writer, inner);
                }
                line(writer, 0, indent);
                writer.text("}");
            }
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        match value {
            Value::String(text) => Json::Text(text),
            Value::Array(items) => Json::List(items.into_iter().map(Json::from).collect()),
            Value::Object(entries) => Json::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, Json::from(value)))
                    .collect(),
            ),
            literal => Json::Literal(literal.to_string()),
        }
    }
}
