//! MachineHook: whether its plugin can be asked, and which Machines wait for it.

use capstan_api::condition::Report;
use capstan_api::machine_hook::{MachineHook, MachineHookStatus, MachineHookWait};
use capstan_api::reason::condition_type::READY;
use capstan_api::reason::machine_hook as reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::selector::selects;

/// The most Machines that the status lists (its schema's bound).
const WAITING_MAX: usize = 20;

/// What is known of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// It answers calls.
    Ready,
    /// It is there and does not answer calls.
    NotReady,
    /// It is there and is no hook.
    NotAHook,
    /// There is no such Plugin.
    Missing,
}

impl Plugin {
    /// Why the plugin of this name cannot be asked; `None` when it can.
    #[must_use]
    pub fn problem(self, name: &str) -> Option<String> {
        match self {
            Self::Ready => None,
            Self::NotReady => Some(format!(
                "Plugin {name} does not answer calls: look at its conditions"
            )),
            Self::NotAHook => Some(format!(
                "Plugin {name} has no pre-delete hook: name another one in spec.plugin"
            )),
            Self::Missing => Some(format!(
                "Plugin {name} does not exist: install it, or name another one in spec.plugin"
            )),
        }
    }
}

/// A Machine that waits for the hook.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// When it was the hook's turn.
    pub since: Timestamp,
    /// Namespace of the Machine.
    pub namespace: String,
    /// Name of the Machine.
    pub machine: String,
}

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The MachineHook.
    pub hook: MachineHook,
    /// Its plugin.
    pub plugin: Plugin,
    /// Machines that wait for it.
    pub waiting: Vec<Waiting>,
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed) -> (MachineHookStatus, Vec<Report>) {
    let mut waiting = observed.waiting.clone();
    waiting.sort();
    let shown = waiting.iter().take(WAITING_MAX).map(|one| MachineHookWait {
        namespace: one.namespace.clone(),
        machine: one.machine.clone(),
        since: Time(Timestamp::from_second(one.since.as_second()).unwrap_or(one.since)),
    });
    let status = MachineHookStatus {
        waiting_machines: Some(i32::try_from(waiting.len()).unwrap_or(i32::MAX)),
        waiting: shown.collect(),
        ..MachineHookStatus::default()
    };
    (status, vec![ready(observed)])
}

fn ready(observed: &Observed) -> Report {
    let spec = &observed.hook.spec;
    let none = std::collections::BTreeMap::new();
    for (field, selector) in [
        ("spec.machineSelector", &spec.machine_selector),
        ("spec.clusterSelector", &spec.cluster_selector),
    ] {
        if let Some(Err(why)) = selector.as_ref().map(|selector| selects(selector, &none)) {
            return Report::no(READY, reason::SELECTOR_INVALID)
                .with_message(format!("{field}: {why}; the hook is bound to no Machine"));
        }
    }
    let word = match observed.plugin {
        Plugin::Ready => return Report::yes(READY, reason::HOOK_AVAILABLE),
        Plugin::NotReady => reason::PLUGIN_NOT_READY,
        Plugin::NotAHook => reason::NOT_A_HOOK,
        Plugin::Missing => reason::PLUGIN_NOT_FOUND,
    };
    Report::no(READY, word).with_message(observed.plugin.problem(&spec.plugin).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn observed(plugin: Plugin) -> Observed {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let waiting = |since, machine: &str| Waiting {
            since: at(since),
            namespace: "ns".to_owned(),
            machine: machine.to_owned(),
        };
        Observed {
            hook: serde_json::from_value(json!({
                "apiVersion": "capstan.dev/v1alpha1", "kind": "MachineHook", "metadata": {"name": "h"},
                "spec": {"plugin": "p", "phase": "PreDrain"},
            }))
            .expect("a MachineHook"),
            plugin,
            waiting: vec![waiting(20, "late"), waiting(10, "early")],
        }
    }

    #[test]
    fn those_that_wait_longest_are_shown_first() {
        let (status, conditions) = report(&observed(Plugin::Ready));
        assert_eq!(status.waiting_machines, Some(2));
        assert_eq!(status.waiting[0].machine, "early");
        assert_eq!(conditions[0].reason, "HookAvailable");
    }

    #[test]
    fn it_says_why_nothing_is_asked() {
        for (plugin, word) in [
            (Plugin::Missing, "PluginNotFound"),
            (Plugin::NotAHook, "NotAHook"),
            (Plugin::NotReady, "PluginNotReady"),
        ] {
            let (_, conditions) = report(&observed(plugin));
            assert_eq!(conditions[0].reason, word);
            assert!(conditions[0].message.contains("Plugin p"));
        }
        let mut broken = observed(Plugin::Ready);
        broken.hook.spec.machine_selector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}))
                .expect("a selector");
        let (_, conditions) = report(&broken);
        assert_eq!(conditions[0].reason, "SelectorInvalid");
        assert!(conditions[0].message.starts_with("spec.machineSelector"));
    }
}
