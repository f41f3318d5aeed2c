//! What of an object is no longer as its manifest says. What the manifest does not say belongs to others.

use serde_json::Value;

/// The most differences that are named for one object.
const NAMED_MAX: usize = 3;

/// Fields that differ, as paths; empty when the object is as its manifest says.
#[must_use]
pub fn differences(manifest: &Value, live: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let fields = manifest.as_object().into_iter().flatten();
    for (name, wanted) in fields {
        match name.as_str() {
            // Set by the server, or what the server makes something else of.
            "apiVersion" | "kind" | "status" | "stringData" => {}
            "metadata" => {
                for part in ["labels", "annotations"] {
                    if let Some(wanted) = wanted.get(part) {
                        let path = format!("metadata.{part}");
                        let is = live.pointer(&format!("/metadata/{part}"));
                        compare(&path, wanted, is.unwrap_or(&Value::Null), &mut found);
                    }
                }
            }
            _ => {
                let is = live.get(name).unwrap_or(&Value::Null);
                compare(name, wanted, is, &mut found);
            }
        }
    }
    let more = found.len().saturating_sub(NAMED_MAX);
    found.truncate(NAMED_MAX);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    found
}

fn compare(path: &str, wanted: &Value, is: &Value, found: &mut Vec<String>) {
    match (wanted, is) {
        (Value::Object(wanted), Value::Object(is)) => {
            for (name, wanted) in wanted {
                let is = is.get(name).unwrap_or(&Value::Null);
                compare(&format!("{path}.{name}"), wanted, is, found);
            }
        }
        (Value::Array(wanted), Value::Array(is)) if wanted.len() == is.len() => {
            for (at, (wanted, is)) in wanted.iter().zip(is).enumerate() {
                compare(&format!("{path}[{at}]"), wanted, is, found);
            }
        }
        _ if is_nothing(wanted) && is_nothing(is) => {}
        _ if same_text(wanted, is) => {}
        _ => found.push(path.to_owned()),
    }
}

/// The server leaves out what is empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(on) => !on,
        Value::Number(_) => false,
    }
}

/// Quantities may be written as numbers, and come back as texts.
fn same_text(wanted: &Value, is: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match (text(wanted), text(is)) {
        (Some(wanted), Some(is)) => {
            wanted == is || quantity(&wanted).is_some_and(|q| Some(q) == quantity(&is))
        }
        _ => wanted == is,
    }
}

/// Thousandths of a quantity such as `100m`, `2` or `1Gi`; `None` for other texts.
fn quantity(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut digits: String = fraction.chars().take(3).collect();
    while digits.len() < 3 {
        digits.push('0');
    }
    let thousandths = whole
        .parse::<u128>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(digits.parse().ok()?)?;
    let factor: u128 = match unit {
        "" => 1,
        "m" => return thousandths.checked_div(1000),
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    thousandths.checked_mul(factor)
}

/// What an object still lacks to be of use; `None` when it is ready or of a kind that has no such notion.
#[must_use]
pub fn not_ready(live: &Value) -> Option<String> {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_u64);
    let condition = |type_: &str| {
        let conditions = live.pointer("/status/conditions")?.as_array()?;
        let found = conditions
            .iter()
            .find(|condition| condition.get("type").and_then(Value::as_str) == Some(type_))?;
        found
            .get("status")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let counted = |have: Option<u64>, want: u64, what: &str| {
        let have = have.unwrap_or_default();
        (have < want).then(|| format!("{have} of {want} {what}"))
    };
    let observed = number("/status/observedGeneration");
    let is_seen = observed >= number("/metadata/generation");
    match live.get("kind").and_then(Value::as_str)? {
        "CustomResourceDefinition" => (condition("Established").as_deref() != Some("True"))
            .then(|| "not established".to_owned()),
        "Namespace" => (live.pointer("/status/phase").and_then(Value::as_str) != Some("Active"))
            .then(|| "not active".to_owned()),
        "Deployment" => {
            let want = number("/spec/replicas").unwrap_or(1);
            let short = counted(
                number("/status/availableReplicas"),
                want,
                "replicas available",
            );
            short.or_else(|| (!is_seen).then(|| "not seen by its controller".to_owned()))
        }
        "StatefulSet" => {
            let want = number("/spec/replicas").unwrap_or(1);
            counted(number("/status/readyReplicas"), want, "replicas ready")
        }
        "DaemonSet" if !is_seen => Some("not seen by its controller".to_owned()),
        "DaemonSet" => {
            let want = number("/status/desiredNumberScheduled").unwrap_or_default();
            counted(number("/status/numberAvailable"), want, "Pods available")
        }
        "Job" => {
            (condition("Complete").as_deref() != Some("True")).then(|| "not complete".to_owned())
        }
        "APIService" => {
            (condition("Available").as_deref() != Some("True")).then(|| "not available".to_owned())
        }
        _ => None,
    }
}
