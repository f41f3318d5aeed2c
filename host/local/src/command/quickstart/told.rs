//! What has been told of each object, so that only news are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Conditions in the order in which they become true; the first that is not says what is waited for.
const WAITS: [&str; 12] = [
    "BootstrapConfigReady",
    "InfrastructureReady",
    "ControlPlaneInitialized",
    "ControlPlaneAvailable",
    "ControlPlaneMachinesReady",
    "NodeReady",
    "NodeHealthy",
    "WorkersAvailable",
    "WorkerMachinesReady",
    "MachinesReady",
    "Ready",
    "Available",
];

/// The longest line of news, in characters.
const LINE_CHARS_MAX: usize = 160;

/// The last that was told of each object.
pub(super) struct Told {
    lines: BTreeMap<(String, String), Line>,
    news: Vec<String>,
    changed: Instant,
}

struct Line {
    text: String,
    is_done: bool,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            news: Vec::new(),
            changed: Instant::now(),
        }
    }
}

impl Told {
    /// Takes a look at an object of the cluster in.
    pub(super) fn object(&mut self, word: &str, object: &Value) {
        let phase = object.pointer("/status/phase").and_then(Value::as_str);
        let is_deleting = object.pointer("/metadata/deletionTimestamp").is_some();
        let waits = if is_deleting {
            says(object, "Deleting")
        } else {
            waits(object)
        };
        let is_done = waits.is_none() && !is_deleting && phase.is_some();
        let mut text = phase.unwrap_or("Pending").to_owned();
        if let Some(counts) = counts(object) {
            text = counts;
        }
        if let Some(waits) = waits {
            text = format!("{text} - {waits}");
        }
        self.take_in(word, object, text, is_done);
    }

    /// Takes a look at a Plugin in, which is ready or not yet.
    pub(super) fn plugin(&mut self, plugin: &Value, is_ready: bool) {
        let compiled_ms = plugin
            .pointer("/status/compiled/durationMs")
            .and_then(Value::as_u64);
        let text = match (is_ready, compiled_ms) {
            (true, Some(ms)) => format!("ready, compiled in {}.{} s", ms / 1000, ms % 1000 / 100),
            (true, None) => "ready, compiled earlier".to_owned(),
            // Ready with the bytes that it had before.
            (false, _) if condition(plugin, "Ready") == Some("True") => "changing".to_owned(),
            (false, _) => says(plugin, "Ready").unwrap_or_else(|| "Pending".to_owned()),
        };
        self.take_in("plugin", plugin, text, is_ready);
    }

    /// Objects of this kind that are not among these any more are gone.
    pub(super) fn only(&mut self, word: &str, objects: &[Value]) {
        let is_there = |name: &String| objects.iter().any(|object| name_of(object) == name);
        let gone: Vec<String> = self
            .lines
            .keys()
            .filter(|(kind, name)| kind == word && !is_there(name))
            .map(|(_, name)| name.clone())
            .collect();
        for name in gone {
            self.news.push(format!("{word} {name}: gone"));
            self.lines.remove(&(word.to_owned(), name));
            self.changed = Instant::now();
        }
    }

    fn take_in(&mut self, word: &str, object: &Value, text: String, is_done: bool) {
        let name = name_of(object);
        let key = (word.to_owned(), name.to_owned());
        if self.lines.get(&key).is_none_or(|line| line.text != text) {
            self.news.push(short(&format!("{word} {name}: {text}")));
            self.changed = Instant::now();
        }
        self.lines.insert(key, Line { text, is_done });
    }

    /// What has not been told yet.
    pub(super) fn new_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Since when there is nothing new.
    pub(super) fn unchanged_for(&self) -> Duration {
        self.changed.elapsed()
    }

    /// What is not done yet, a line for each.
    pub(super) fn unfinished(&self) -> String {
        let lines = self.lines.iter().filter(|(_, line)| !line.is_done);
        let lines: Vec<String> = lines
            .map(|((word, name), line)| format!("  {word} {name}: {}", line.text))
            .collect();
        if lines.is_empty() {
            "  (nothing that could be looked at)".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

fn name_of(object: &Value) -> &str {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default()
}

fn find<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .find(|condition| text(condition, "type") == name)
}

fn text<'a>(condition: &'a Value, key: &str) -> &'a str {
    condition
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Status of a condition.
pub(super) fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    Some(text(find(object, name)?, "status"))
}

/// The first condition that is not True yet, with what it says.
fn waits(object: &Value) -> Option<String> {
    let not_true = |name: &&str| condition(object, name).is_some_and(|status| status != "True");
    says(object, WAITS.iter().find(|name| not_true(name))?)
}

/// What a condition says, in one line, or its reason.
fn says(object: &Value, name: &str) -> Option<String> {
    let condition = find(object, name)?;
    let message = text(condition, "message");
    let lines = message
        .lines()
        .map(|line| line.trim().trim_start_matches("* "));
    let said = lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let said = if said.is_empty() {
        text(condition, "reason")
    } else {
        &said
    };
    Some(format!("{name}: {said}"))
}

/// A line that fits a terminal; the whole is shown when something does not get on.
fn short(line: &str) -> String {
    let mut chars = line.chars();
    let mut short: String = chars.by_ref().take(LINE_CHARS_MAX).collect();
    if chars.next().is_some() {
        short.push_str("...");
    }
    short
}

/// Whether a Cluster's counters have caught up with its machines: they follow its conditions by a moment.
pub(super) fn is_counted(cluster: &Value) -> bool {
    ["controlPlane", "workers"].iter().all(|part| {
        let count = |key: &str| cluster.pointer(&format!("/status/{part}/{key}"));
        count("availableReplicas") == count("desiredReplicas")
    })
}

/// Replicas of those objects that have them.
fn counts(object: &Value) -> Option<String> {
    let wanted = object.pointer("/spec/replicas")?.as_u64()?;
    let count = |key: &str| {
        let count = object.pointer("/status").and_then(|status| status.get(key));
        count.and_then(Value::as_u64).unwrap_or_default()
    };
    let (available, up_to_date) = (count("availableReplicas"), count("upToDateReplicas"));
    Some(format!(
        "{available} of {wanted} available, {up_to_date} up to date"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_cluster_is_counted_when_all_wanted_replicas_are_available() {
        let cluster = |available: u64| {
            json!({"status": {
                "controlPlane": {"desiredReplicas": 1, "availableReplicas": 1},
                "workers": {"desiredReplicas": 2, "availableReplicas": available},
            }})
        };
        assert!(is_counted(&cluster(2)));
        assert!(!is_counted(&cluster(0)));
    }

    use super::*;

    fn machine(phase: &str, conditions: &Value) -> Value {
        json!({"metadata": {"name": "m"}, "status": {"phase": phase, "conditions": conditions}})
    }

    #[test]
    fn a_machine_is_told_with_what_it_waits_for_and_only_when_that_changes() {
        let mut told = Told::default();
        let waiting = machine(
            "Provisioning",
            &json!([
                {"type": "Ready", "status": "False", "message": "* InfrastructureReady: instance is pending"},
                {"type": "InfrastructureReady", "status": "False", "message": "instance is pending"},
                {"type": "BootstrapConfigReady", "status": "True"},
            ]),
        );
        told.object("machine", &waiting);
        told.object("machine", &waiting);
        let line = "machine m: Provisioning - InfrastructureReady: instance is pending";
        assert_eq!(told.new_lines(), [line]);
        assert!(told.unfinished().contains("instance is pending"));
        told.object(
            "machine",
            &machine("Running", &json!([{"type": "Ready", "status": "True"}])),
        );
        assert_eq!(told.new_lines(), ["machine m: Running"]);
        told.only("machine", &[]);
        assert_eq!(told.new_lines(), ["machine m: gone"]);
    }

    #[test]
    fn a_plugin_is_told_with_the_time_it_took_or_with_what_is_wrong() {
        let mut told = Told::default();
        let mut plugin = json!({"metadata": {"name": "p"}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "GrantMissing", "message": "http is not granted"},
        ]}});
        told.plugin(&plugin, false);
        plugin["status"] = json!({
            "compiled": {"durationMs": 2345}, "conditions": [{"type": "Ready", "status": "True"}],
        });
        told.plugin(&plugin, true);
        assert_eq!(
            told.new_lines(),
            [
                "plugin p: Ready: http is not granted",
                "plugin p: ready, compiled in 2.3 s"
            ]
        );
    }
}
