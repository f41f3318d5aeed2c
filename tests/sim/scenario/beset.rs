//! What most worlds do not have: many machines that break at once, bound hooks, rules of drains, people who replace Machines themselves, others who mend them.

use std::time::Duration;

use capstan_controllers::kinds;
use capstan_controllers::kube_api::Resource;
use serde_json::{Value, json};

use super::{Deed, NAMESPACE, Plan, Step};
use crate::random::Random;

/// What becomes of the last pods of Nodes that are drained. Before them go those that are late, and first all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastPods {
    /// They stay, and nobody waits for them.
    Stay,
    /// They are waited for until they have done their work.
    Complete,
}

impl LastPods {
    /// The rules, with the kind of which they are.
    pub(super) fn rules(self) -> Vec<(&'static Resource, Value)> {
        let last = match self {
            Self::Stay => json!({"behavior": "Skip"}),
            Self::Complete => json!({"behavior": "WaitCompleted"}),
        };
        let late = json!({"behavior": "Drain", "order": 10});
        let rules = [("late", late), ("last", last)].map(|(app, drain)| {
            let pods = json!([{"selector": {"matchLabels": {"app": app}}}]);
            let rule = json!({"metadata": {"name": app}, "spec": {"drain": drain, "pods": pods}});
            (&*kinds::MACHINE_DRAIN_RULE, rule)
        });
        rules.to_vec()
    }
}

/// A hook as somebody binds it to Machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Before the drain, or before the infrastructure goes.
    pub before_drain: bool,
    /// Its place among the hooks of its phase.
    pub order: u32,
    /// How long Machines wait for it, in seconds, and whether they then go on without it.
    pub timeout: Option<(u64, bool)>,
    /// Whether Machines go on without it when it fails.
    pub may_fail: bool,
    /// What the deletion of the Cluster means.
    pub on_cluster_deletion: &'static str,
    /// How long it holds a Machine, in seconds.
    pub holds_s: u64,
    /// Of another namespace: it is bound to no Machine.
    pub is_elsewhere: bool,
}

impl Binding {
    pub(super) fn draw(random: &mut Random) -> Self {
        Self {
            before_drain: random.happens(500),
            order: u32::try_from(random.below(3)).unwrap_or_default(),
            timeout: random
                .happens(500)
                .then(|| (random.between(5, 100), random.happens(700))),
            may_fail: random.happens(500),
            on_cluster_deletion: random.pick(&["Default", "Run", "Skip"]).unwrap_or(&"Run"),
            // A rollout lets machine after machine go, and must be over in time.
            holds_s: random.below(150),
            is_elsewhere: random.happens(100),
        }
    }

    pub(super) fn object(&self, number: usize) -> Value {
        let policy = |proceeds: bool| if proceeds { "Proceed" } else { "Block" };
        let phase = if self.before_drain {
            "PreDrain"
        } else {
            "PreTerminate"
        };
        let name = format!("h{number}");
        let namespace = if self.is_elsewhere {
            "default"
        } else {
            NAMESPACE
        };
        json!({"metadata": {"name": name}, "spec": {
            "plugin": "pre-delete-sim", "phase": phase, "order": self.order, "namespaces": [namespace],
            "timeoutSeconds": self.timeout.map(|(seconds, _)| seconds),
            "onTimeout": policy(self.timeout.is_some_and(|(_, proceeds)| proceeds)),
            "onFailure": policy(self.may_fail),
            "onClusterDeletion": self.on_cluster_deletion,
            "config": {"name": name, "holdsSeconds": self.holds_s},
        }})
    }
}

impl Plan {
    /// What most worlds do not have: hooks, rules of drains, people who replace Machines themselves, others who mend them.
    pub(super) fn beset(&mut self, random: &mut Random) {
        if random.happens(300) {
            let hooks = 0..random.between(1, 3);
            self.hooks = hooks.map(|_| Binding::draw(random)).collect();
            if random.happens(200) {
                self.steps.push(Step {
                    at: Duration::from_millis(random.between(0, self.calm_at.as_secs() * 1000)),
                    deed: Deed::Unbind(random.draw()),
                });
            }
        }
        if random.happens(250) {
            self.last_pods = Some(match random.happens(500) {
                true => LastPods::Stay,
                false => LastPods::Complete,
            });
        }
        self.asks_others = self.health_check.is_some() && random.happens(300);
        if random.happens(120) {
            self.on_delete = true;
            for at in [self.calm_at, self.calm_at + Duration::from_secs(600)] {
                self.steps.push(Step {
                    at,
                    deed: Deed::Renew,
                });
            }
            self.calm_at += Duration::from_secs(600);
        }
        self.steps.sort_by_key(|step| step.at);
    }

    /// Lets many machines break at once, in some worlds more than the health check replaces: a budget shows only where it is short.
    pub(super) fn sicken(&mut self, random: &mut Random) {
        let end_s = self.calm_at.as_secs().max(600);
        if random.happens(600) {
            self.replicas = u32::try_from(random.between(3, 6)).unwrap_or(3);
            let count = u32::try_from(random.between(2, 4)).unwrap_or(2);
            self.steps.push(Step {
                at: Duration::from_millis(random.between(300_000, end_s * 1000)),
                deed: Deed::BreakSome(random.draw(), count),
            });
        }
        if random.happens(400) {
            self.unhealthy = Some(u32::try_from(random.between(1, 2)).unwrap_or(1));
        }
        self.steps.sort_by_key(|step| step.at);
        let last = self.steps.last().map_or(Duration::ZERO, |step| step.at);
        self.calm_at = self.calm_at.max(last);
        if self.unhealthy.is_some() {
            self.calm_at += Duration::from_secs(random.between(300, 900));
            self.steps.push(Step {
                at: self.calm_at,
                deed: Deed::Mend,
            });
        }
    }
}
