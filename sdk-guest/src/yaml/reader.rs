//! Reads YAML as Kubernetes' tools do: plain scalars have the types of YAML 1.1, so that `0644` is a file's mode.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};

/// How deep a document may nest: Container Linux Config needs eight, kubeadm's configuration five.
const DEPTH_MAX: usize = 32;

/// The one document in the text. Numbers with fractions stay text.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(text: &str) -> Result<Value, String> {
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("it is not YAML: {error}"))?;
        match event {
            Event::Alias(_) => {
                return Err(format!("line {}: aliases are not read", span.start.line()));
            }
            Event::DocumentStart(..) | Event::SequenceEnd | Event::MappingEnd => events.push(event),
            event if event.is_node() => events.push(event),
            _ => {}
        }
    }
    let mut events = events.into_iter();
    if !matches!(events.next(), Some(Event::DocumentStart(..))) {
        return Ok(Value::Null);
    }
    let value = match events.next() {
        Some(first) => node(first, &mut events, 0)?,
        None => Value::Null,
    };
    if events.next().is_some() {
        return Err("it has more than one document".to_owned());
    }
    Ok(value)
}

fn node<'a>(
    first: Event<'a>,
    events: &mut impl Iterator<Item = Event<'a>>,
    depth: usize,
) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("it nests deeper than {DEPTH_MAX}"));
    }
    let deeper = depth.saturating_add(1);
    let next = |events: &mut dyn Iterator<Item = Event<'a>>| {
        events.next().ok_or_else(|| "it ends too early".to_owned())
    };
    match first {
        Event::Scalar(text, ScalarStyle::Plain, _, None) => Ok(plain(&text)),
        Event::Scalar(text, _, _, None) => Ok(json!(text)),
        Event::SequenceStart(_, _, None) => {
            let mut items = Vec::new();
            loop {
                match next(events)? {
                    Event::SequenceEnd => return Ok(Value::Array(items)),
                    item => items.push(node(item, events, deeper)?),
                }
            }
        }
        Event::MappingStart(_, _, None) => {
            let mut fields = Map::new();
            loop {
                let key = match next(events)? {
                    Event::MappingEnd => return Ok(Value::Object(fields)),
                    Event::Scalar(text, _, _, None) => text.into_owned(),
                    _ => return Err("a key is not text".to_owned()),
                };
                let value = next(events)?;
                let value = node(value, events, deeper)?;
                if fields.insert(key.clone(), value).is_some() {
                    return Err(format!("the key {key:?} is there twice"));
                }
            }
        }
        Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
            Err("tags are not read".to_owned())
        }
        _ => Err("it has something that is neither text, list nor mapping".to_owned()),
    }
}

/// What a plain scalar means in YAML 1.1.
fn plain(text: &str) -> Value {
    let digits = |radix: u32, digits: &str| i64::from_str_radix(digits, radix).ok();
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => json!(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => json!(false),
        _ => {
            let number = if let Some(octal) = text.strip_prefix("0o") {
                digits(8, octal)
            } else if let Some(hexadecimal) = text.strip_prefix("0x") {
                digits(16, hexadecimal)
            } else if text.len() > 1 && text.starts_with('0') {
                digits(8, text)
            } else {
                text.parse().ok()
            };
            number.map_or_else(|| json!(text), |number| json!(number))
        }
    }
}
