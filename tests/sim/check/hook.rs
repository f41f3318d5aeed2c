//! Bound hooks: asked in their order, at their time, about Machines that go; passed over for no other reason than what their operator
//! said; and waited for from one moment on, whatever becomes of the host.

use std::sync::Arc;

use capstan_api::annotation;
use capstan_controllers::kinds;
use capstan_core::call::hook::{HookInput, Phase};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::cluster_of;
use crate::object::{annotation as annotation_of, is_deleting, key, list, name, number, text, uid};
use crate::world::State;

/// Failures that may pass, after which a hook is passed over where its operator wants that.
const TRIES: u32 = 3;

/// What is written down of hooks on a Machine, by name of the hook.
fn records(machine: &Value) -> Map<String, Value> {
    let text = annotation_of(machine, annotation::HOOKS).unwrap_or("{}");
    serde_json::from_str(text).unwrap_or_default()
}

fn is_bound(hook: &Value, machine: &Value) -> bool {
    let namespaces = list(hook, "/spec/namespaces");
    let own = text(machine, "/metadata/namespace");
    namespaces.is_empty() || namespaces.iter().any(|namespace| namespace == own)
}

/// Whether a hook is asked while its Machine's Cluster goes as well, or stays.
fn is_asked(hook: &Value, is_going: bool) -> bool {
    match text(hook, "/spec/onClusterDeletion") {
        "Run" => true,
        "Skip" => !is_going,
        _ => !is_going || text(hook, "/spec/phase") == "PreTerminate",
    }
}

fn place(hook: &Value) -> (i64, &str) {
    (number(hook, "/spec/order").unwrap_or_default(), name(hook))
}

impl State {
    /// Hooks of a phase that a Machine still has to wait for, in their order.
    pub(super) fn open_hooks(&self, machine: &Value, phase: &str) -> Vec<Arc<Value>> {
        let (is_going, records) = (self.is_cluster_going(machine), records(machine));
        let mut open: Vec<Arc<Value>> = self
            .management
            .all(&kinds::MACHINE_HOOK)
            .filter(|hook| {
                text(hook, "/spec/phase") == phase
                    && is_bound(hook, machine)
                    && is_asked(hook, is_going)
                    && records
                        .get(name(hook))
                        .is_none_or(|record| text(record, "/done").is_empty())
            })
            .cloned()
            .collect();
        open.sort_by(|a, b| place(a).cmp(&place(b)));
        open
    }

    /// Goes on to something that hooks of a phase come before.
    pub(super) fn check_hooks_are_over(&mut self, machine: &Value, phase: &str, what: &str) {
        if let Some(hook) = self.open_hooks(machine, phase).first() {
            self.violated(format!(
                "{what} before hook {} of Machine {} has let go",
                name(hook),
                name(machine)
            ));
        }
    }

    /// A hook is asked about a Machine.
    pub fn check_hook_is_asked(&mut self, input: &HookInput) {
        let its = uid(&input.machine);
        let of_it = |machine: &Value| uid(machine) == its;
        let (Some(machine), now) = (self.management.find(&kinds::MACHINE, of_it), self.now())
        else {
            return;
        };
        let hook = text(&input.settings, "/name").to_owned();
        let asked = format!("hook {hook} is asked about Machine {}", name(&machine));
        if !is_deleting(&machine) {
            self.violated(format!("{asked}, which stays"));
        }
        let cluster = cluster_of(&machine);
        if cluster.is_some_and(|cluster| self.watchman.is_paused(&cluster, now)) {
            self.violated(format!("{asked} although its Cluster is paused"));
        }
        let bindings: Vec<Arc<Value>> =
            self.management.all(&kinds::MACHINE_HOOK).cloned().collect();
        let Some(binding) = bindings.iter().find(|binding| name(binding) == hook) else {
            return;
        };
        if !is_bound(binding, &machine) {
            self.violated(format!("{asked}, which it is not bound to"));
        }
        let phase = text(binding, "/spec/phase");
        let first = self.open_hooks(&machine, phase);
        if let Some(first) = first.first().filter(|first| place(first) < place(binding)) {
            self.violated(format!("{asked} before hook {}", name(first)));
        }
        if input.phase == Phase::PreTerminate {
            self.check_is_drained(&machine, &asked);
        }
    }

    /// The host writes down what became of hooks.
    pub(super) fn check_records(&mut self, old: &Value, new: &Value) {
        let (before, after) = (records(old), records(new));
        if before == after {
            return;
        }
        for hook in before.keys().filter(|hook| !after.contains_key(*hook)) {
            self.violated(format!(
                "Machine {} forgets what became of hook {hook}",
                name(new)
            ));
        }
        for (hook, record) in &after {
            let was = before.get(hook);
            if was == Some(record) {
                continue;
            }
            let since = text(record, "/since");
            let its = format!("hook {hook} of Machine {}", name(new));
            if let Some(was) = was
                && (text(was, "/since") != since || !text(was, "/done").is_empty())
            {
                self.violated(format!("{its} was {was} and is {record}"));
            }
            let now = self.timestamp();
            let began = text(new, "/metadata/deletionTimestamp").parse::<Timestamp>();
            let is_sound = since
                .parse::<Timestamp>()
                .is_ok_and(|since| since <= now && began.is_ok_and(|began| began <= since));
            if !is_sound {
                self.violated(format!("{its} cannot have waited since {since:?}"));
            }
            if !text(record, "/done").is_empty() {
                self.check_outcome(new, hook, record, &its);
            }
        }
    }

    /// A Machine goes on without a hook, or with its blessing.
    fn check_outcome(&mut self, machine: &Value, hook: &str, record: &Value, its: &str) {
        let asked = self.hooks.of(uid(machine), hook);
        let named = |binding: &Value| name(binding) == hook;
        let Some(binding) = self.management.find(&kinds::MACHINE_HOOK, named) else {
            return;
        };
        let timeout = number(&binding, "/spec/timeoutSeconds");
        let since = text(record, "/since").parse::<Timestamp>();
        let is_late = timeout.zip(since.ok()).is_some_and(|(timeout, since)| {
            self.timestamp().duration_since(since) >= SignedDuration::from_secs(timeout)
        });
        let proceeds = |policy: &str| text(&binding, policy) == "Proceed";
        let is_right = match text(record, "/outcome") {
            "Proceeded" => asked.has_let_go,
            "TimedOut" => proceeds("/spec/onTimeout") && is_late,
            "Failed" => {
                let is_final = asked.has_failed_for_good || asked.failures >= TRIES;
                proceeds("/spec/onFailure") && is_final
            }
            _ => false,
        };
        if !is_right {
            self.violated(format!(
                "{its} is passed over with {record}, and said {asked:?}"
            ));
        }
    }

    /// Whether bindings know that nothing waits for them any more.
    pub(super) fn hooks_not_settled(&self) -> Vec<String> {
        let all = self.management.all(&kinds::MACHINE_HOOK);
        let waiting = all.filter(|hook| number(hook, "/status/waitingMachines") != Some(0));
        waiting
            .map(|hook| format!("the status of MachineHook {} is old", key(hook)))
            .collect()
    }
}
