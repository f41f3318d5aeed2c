//! What keeps an object, in the words of its conditions, and what to do: `capstan explain machine/NAME`.

use capstan_api::reason::{self, Word, condition_type};
use serde_json::Value;

/// Conditions that are good when they are False.
const NEGATIVE: [&str; 8] = [
    condition_type::DELETING,
    condition_type::PAUSED,
    condition_type::REMEDIATING,
    condition_type::ROLLING_OUT,
    condition_type::SCALING_DOWN,
    condition_type::SCALING_UP,
    condition_type::UPDATING,
    condition_type::UPGRADE_BLOCKED,
];

/// These come first: they say what the others follow from.
const FIRST: [&str; 3] = [
    condition_type::DELETING,
    condition_type::PAUSED,
    condition_type::UPGRADE_BLOCKED,
];

/// These come last: they sum the others up.
const LAST: [&str; 2] = [condition_type::READY, condition_type::AVAILABLE];

/// Where objects name those that a condition is copied from.
const CAUSES: [(&str, &str); 3] = [
    (
        condition_type::INFRASTRUCTURE_READY,
        "/spec/infrastructureRef",
    ),
    (
        condition_type::BOOTSTRAP_CONFIG_READY,
        "/spec/bootstrap/configRef",
    ),
    (
        condition_type::CONTROL_PLANE_AVAILABLE,
        "/spec/controlPlaneRef",
    ),
];

/// What an object says: a paragraph for each condition that is not as it should be, the most telling one first.
pub(super) fn explain(object: &Value) -> String {
    let text = |pointer: &str| {
        let found = object.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default()
    };
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let listed = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let Some(listed) = listed.filter(|listed| !listed.is_empty()) else {
        return format!(
            "{kind} {name} has no conditions yet: see whether the host works, with `kubectl get plugins -A` and its log"
        );
    };
    let mut bad: Vec<Said<'_>> = listed
        .iter()
        .map(Said::of)
        .filter(|said| !said.is_good())
        .collect();
    bad.sort_by_key(Said::rank);
    if bad.is_empty() {
        return format!("{kind} {name}: every condition is as it should be");
    }
    let paragraphs = bad.iter().map(|said| said.paragraph(kind));
    let mut paragraphs: Vec<String> = paragraphs.collect();
    let causes = bad.iter().filter_map(|said| cause(object, said.type_));
    paragraphs.extend(causes.map(|cause| format!("More: `capstan explain {cause}`")));
    format!("{kind} {name}:\n{}", paragraphs.join("\n"))
}

/// The object that a condition is copied from, as `explain` takes it.
fn cause(object: &Value, type_: &str) -> Option<String> {
    let (_, place) = CAUSES.iter().find(|(copied, _)| *copied == type_)?;
    let reference = object.pointer(place)?;
    let field = |name: &str| reference.get(name).and_then(Value::as_str);
    let (kind, group, name) = (field("kind")?, field("apiGroup")?, field("name")?);
    let namespace = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str);
    let namespace = namespace.map(|namespace| format!(" -n {namespace}"));
    Some(format!(
        "{}.{group}/{name}{}",
        kind.to_lowercase(),
        namespace.unwrap_or_default()
    ))
}

/// A condition.
struct Said<'a> {
    type_: &'a str,
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl<'a> Said<'a> {
    fn of(condition: &'a Value) -> Self {
        let field = |name: &str| {
            let found = condition.get(name).and_then(Value::as_str);
            found.unwrap_or_default()
        };
        Self {
            type_: field("type"),
            status: field("status"),
            reason: field("reason"),
            message: field("message"),
        }
    }

    fn is_good(&self) -> bool {
        let good = if NEGATIVE.contains(&self.type_) {
            "False"
        } else {
            "True"
        };
        self.status == good
    }

    fn rank(&self) -> usize {
        let first = FIRST.iter().position(|type_| *type_ == self.type_);
        let is_last = LAST.contains(&self.type_);
        first.unwrap_or(FIRST.len().saturating_add(usize::from(is_last)))
    }

    /// Why, and what to do.
    fn paragraph(&self, kind: &str) -> String {
        let mut message = self.message.trim().replace('\n', "\n    ");
        if message.is_empty() {
            "no message".clone_into(&mut message);
        }
        let head = format!(
            "* {} is {} ({}): {message}",
            self.type_, self.status, self.reason
        );
        match meaning(self.reason, kind) {
            Some(word) => format!("{head}\n  {}", word.text),
            // A plugin's own word.
            None => head,
        }
    }
}

/// What a reason means on a kind; what it means elsewhere when that kind has no meaning of its own.
fn meaning(reason: &str, kind: &str) -> Option<&'static Word> {
    let of_kind = format!("reason of a {kind}");
    let mut meanings = reason::all()
        .iter()
        .filter(|word| word.word == reason && word.of.starts_with("reason"));
    let first = meanings.clone().next();
    meanings.find(|word| word.of == of_kind).or(first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": message})
    }

    #[test]
    fn what_is_not_as_it_should_be_is_said_with_what_to_do_the_cause_first() {
        let machine = json!({
            "kind": "Machine", "metadata": {"name": "m"},
            "status": {"conditions": [
                condition("Ready", "False", "NotReady", "* Deleting: it goes"),
                condition("InfrastructureReady", "True", "Ready", ""),
                condition("NodeHealthy", "Unknown", "Odd", "somebody's own word"),
                condition("Deleting", "True", "DrainingNode", "Drain not completed yet\n* Pod a/b: stays"),
                condition("Paused", "False", "NotPaused", ""),
            ]},
        });
        let text = explain(&machine);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "Machine m:",
                "* Deleting is True (DrainingNode): Drain not completed yet",
                "    * Pod a/b: stays",
                "  Pods are being evicted from the Node. The message names those that do not go.",
                "* NodeHealthy is Unknown (Odd): somebody's own word",
            ]
        );
        assert!(lines[5].starts_with("* Ready is False"), "{text}");
        assert!(!text.contains("Paused") && !text.contains("InfrastructureReady"));
    }

    #[test]
    fn the_object_that_a_bad_condition_is_copied_from_is_named() {
        let machine = |status: &str| {
            json!({
                "kind": "Machine", "metadata": {"name": "m", "namespace": "ns"},
                "spec": {
                    "infrastructureRef": {"apiGroup": "i.example.com", "kind": "LocalMachine", "name": "m"},
                    "bootstrap": {"configRef": {"apiGroup": "b.example.com", "kind": "Config", "name": "m"}},
                },
                "status": {"conditions": [
                    condition("InfrastructureReady", status, "NotReady", "somebody's words"),
                    condition("BootstrapConfigReady", "True", "Ready", ""),
                ]},
            })
        };
        let text = explain(&machine("False"));
        let last = text.lines().last();
        assert_eq!(
            last,
            Some("More: `capstan explain localmachine.i.example.com/m -n ns`")
        );
        assert_eq!(text.matches("More:").count(), 1);
        assert!(!explain(&machine("True")).contains("More:"));
    }

    #[test]
    fn a_reason_is_explained_as_its_kind_means_it() {
        let allowed = "RemediationAllowed";
        let check = json!({
            "kind": "MachineHealthCheck", "metadata": {"name": "c"},
            "status": {"conditions": [condition(allowed, "False", "TooManyUnhealthy", "3 of 4")]},
        });
        let text = explain(&check);
        assert!(
            text.contains("Find the common cause, or change triggerIf."),
            "{text}"
        );
        let fine = json!({
            "kind": "MachineHealthCheck", "metadata": {"name": "c"},
            "status": {"conditions": [condition(allowed, "True", allowed, "")]},
        });
        assert_eq!(
            explain(&fine),
            "MachineHealthCheck c: every condition is as it should be"
        );
        let new = json!({"kind": "Machine", "metadata": {"name": "m"}});
        assert!(explain(&new).contains("no conditions yet"));
    }
}
