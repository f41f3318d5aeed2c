//! What machines of a template will have, before there is one: an autoscaler reads it to grow a group from zero (contract 5.6).
//!
//! The plugin is told the templates of a cluster with `ensure-cluster` and answers with what it knows of them, both in `extra`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::text;
use crate::answer::Violation;

/// Name of the input's extra: `[{"kind", "name", "spec"}]`, the spec being that of a machine.
pub const TEMPLATES: &str = "machineTemplates";

/// Name of the answer's extra: `[{"kind", "name", "capacity": {resource: quantity}, "nodeInfo": {"architecture", "operatingSystem"}}]`.
pub const CAPACITIES: &str = "machineCapacities";

/// Templates that are told at a time. A cluster has one for each of its deployments and some old ones; the newest come first.
pub const TEMPLATES_MAX: usize = 64;

/// Resources of one template: `cpu`, `memory`, `pods` and a few devices.
const RESOURCES_MAX: usize = 32;

/// Architectures that the contract knows (contract 2.4).
const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "s390x", "ppc64le"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    kind: String,
    name: String,
    #[serde(default)]
    capacity: BTreeMap<String, String>,
    #[serde(default)]
    node_info: NodeInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeInfo {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    operating_system: Option<String>,
}

/// What the plugin is told of the templates.
#[must_use]
pub fn told(templates: &[Arc<Value>]) -> Option<(String, Value)> {
    let told: Vec<Value> = templates
        .iter()
        .map(|template| {
            json!({
                "kind": text(template, "/kind"),
                "name": text(template, "/metadata/name"),
                "spec": template.pointer("/spec/template/spec").unwrap_or(&Value::Null),
            })
        })
        .collect();
    (!told.is_empty()).then(|| (TEMPLATES.to_owned(), Value::Array(told)))
}

/// Merge patches of the templates' statuses that an answer asks for, by position. What is so already needs none; a template that the
/// plugin says nothing about keeps what it has.
///
/// # Errors
/// When the answer speaks of something else, or says what the contract does not know.
pub fn patches(
    extra: &[(String, Value)],
    templates: &[Arc<Value>],
) -> Result<Vec<(usize, Value)>, Violation> {
    let mut patches = Vec::new();
    for (_, value) in extra.iter().filter(|(name, _)| name == CAPACITIES) {
        let all = Vec::<Told>::deserialize(value)
            .map_err(|error| Violation::new(format!("extra {CAPACITIES}: {error}")))?;
        for told in all {
            let asked = templates.iter().position(|template| {
                text(template, "/kind") == told.kind
                    && text(template, "/metadata/name") == told.name
            });
            let Some((position, template)) =
                asked.and_then(|position| Some((position, templates.get(position)?)))
            else {
                return Err(Violation::new(format!(
                    "extra {CAPACITIES} speaks of {} {}, which was not asked about",
                    told.kind, told.name
                )));
            };
            let wanted = status(&told).map_err(|why| {
                Violation::new(format!("extra {CAPACITIES}, {}: {why}", told.name))
            })?;
            let patch = difference(template, &wanted);
            patches.extend(patch.map(|patch| (position, patch)));
        }
    }
    Ok(patches)
}

fn status(told: &Told) -> Result<Value, String> {
    if told.capacity.len() > RESOURCES_MAX {
        return Err(format!("at most {RESOURCES_MAX} resources are taken"));
    }
    for (resource, quantity) in &told.capacity {
        if resource.is_empty() || resource.len() > 317 || !is_quantity(quantity) {
            return Err(format!(
                "{resource:?}: {quantity:?} is no resource with a quantity, such as \"memory\": \"4096Mi\""
            ));
        }
    }
    let mut node = serde_json::Map::new();
    if let Some(architecture) = &told.node_info.architecture {
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(format!(
                "architecture {architecture:?} is none of {}",
                ARCHITECTURES.join(", ")
            ));
        }
        node.insert("architecture".to_owned(), json!(architecture));
    }
    if let Some(system) = &told.node_info.operating_system {
        if system.is_empty() || system.len() > 64 {
            return Err("operatingSystem has 1 to 64 characters".to_owned());
        }
        node.insert("operatingSystem".to_owned(), json!(system));
    }
    Ok(json!({"capacity": told.capacity, "nodeInfo": node}))
}

/// A quantity as Kubernetes writes them, without a sign: digits, perhaps a fraction, perhaps a suffix.
fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = text.strip_prefix(number).unwrap_or_default();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 64
        && is_digits(whole)
        && is_digits(fraction)
        && matches!(
            suffix,
            "" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"
        )
}

/// The merge patch that makes the template's status say this, also without what it said before.
fn difference(template: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = serde_json::Map::new();
    for field in ["capacity", "nodeInfo"] {
        let empty = json!({});
        let present = template
            .get("status")
            .and_then(|status| status.get(field))
            .unwrap_or(&empty);
        let wanted = wanted.get(field).unwrap_or(&empty);
        if present == wanted {
            continue;
        }
        let mut change = wanted.clone();
        if let (Some(change), Some(present)) = (change.as_object_mut(), present.as_object()) {
            for key in present.keys() {
                change.entry(key.clone()).or_insert(Value::Null);
            }
        }
        patch.insert(field.to_owned(), change);
    }
    let uid = text(template, "/metadata/uid");
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str, status: Value) -> Arc<Value> {
        let template = json!({
            "kind": "LocalMachineTemplate", "metadata": {"name": name, "uid": "u"},
            "spec": {"template": {"spec": {"instanceType": "small"}}}, "status": status,
        });
        Arc::new(template)
    }

    fn answer(value: Value) -> Vec<(String, Value)> {
        vec![(CAPACITIES.to_owned(), value)]
    }

    fn of(name: &str, capacity: Value, node: Value) -> Value {
        json!({"kind": "LocalMachineTemplate", "name": name, "capacity": capacity, "nodeInfo": node})
    }

    #[test]
    fn the_plugin_is_told_what_machines_would_ask_for() {
        assert_eq!(told(&[]), None);
        let (name, value) = told(&[template("a", json!({}))]).unwrap();
        assert_eq!(name, TEMPLATES);
        let told =
            json!({"kind": "LocalMachineTemplate", "name": "a", "spec": {"instanceType": "small"}});
        assert_eq!(value, json!([told]));
    }

    #[test]
    fn statuses_become_what_the_plugin_says_and_are_written_once() {
        let capacity = json!({"cpu": "2", "memory": "4096Mi", "pods": "110"});
        let node = json!({"architecture": "amd64", "operatingSystem": "linux"});
        let extra = answer(json!([of("b", capacity.clone(), node.clone())]));
        let said = json!({"capacity": capacity, "nodeInfo": node});
        let templates = [template("a", json!({})), template("b", json!({}))];
        let patch = json!({"metadata": {"uid": "u"}, "status": said.clone()});
        assert_eq!(patches(&extra, &templates).unwrap(), [(1, patch)]);
        let templates = [template("a", json!({})), template("b", said)];
        assert_eq!(patches(&extra, &templates).unwrap(), []);
    }

    #[test]
    fn what_is_not_said_any_more_goes() {
        let templates = [template(
            "a",
            json!({"capacity": {"cpu": "2", "example.com/gpu": "1"}}),
        )];
        let extra = answer(json!([of("a", json!({"cpu": "2"}), json!({}))]));
        let patch = json!({"metadata": {"uid": "u"}, "status": {"capacity": {"cpu": "2", "example.com/gpu": null}}});
        assert_eq!(patches(&extra, &templates).unwrap(), [(0, patch)]);
        assert_eq!(
            patches(&[], &templates).unwrap(),
            [],
            "no answer is no news"
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_template_named() {
        let templates = [template("a", json!({}))];
        for (value, part) in [
            (json!({}), "machineCapacities"),
            (json!([of("b", json!({}), json!({}))]), "not asked about"),
            (
                json!([of("a", json!({"cpu": "many"}), json!({}))]),
                "\"cpu\": \"many\"",
            ),
            (
                json!([of("a", json!({"cpu": "-1"}), json!({}))]),
                "\"cpu\": \"-1\"",
            ),
            (
                json!([of("a", json!({}), json!({"architecture": "z80"}))]),
                "z80",
            ),
            (
                json!([of("a", json!({}), json!({"operatingSystem": ""}))]),
                "operatingSystem",
            ),
        ] {
            let refused = patches(&answer(value), &templates).unwrap_err();
            assert!(refused.rule.contains(part), "{refused:?}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["0", "2", "1.5", "100m", "4096Mi", "10Gi", "1k"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "Mi", "1.", "1.2.3", "-1", "+1", "1 Gi", "1mi", "1e3x"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
