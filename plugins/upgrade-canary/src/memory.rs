//! What the strategy remembers between calls: where the rollout of one revision has come to.

use serde::{Deserialize, Serialize};

use capstan_sdk::upgrade_strategy::{Facts, MachineSet};

use crate::settings::Settings;

/// Memory of one rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Memory {
    /// The revision that all of it is about.
    pub(crate) revision: u64,
    /// Which step, from 0.
    pub(crate) step: usize,
    /// When the step began.
    pub(crate) began_ms: u64,
    /// When all of its machines were available.
    pub(crate) reached_ms: Option<u64>,
    /// Since when one of them is not any more.
    pub(crate) failing_since_ms: Option<u64>,
    /// Why the rollout was given up.
    pub(crate) aborted: Option<String>,
    /// The set to go back to.
    pub(crate) stable: String,
}

impl Memory {
    /// The memory of this revision; a new one when there is none.
    pub(crate) fn of(facts: &Facts<Settings>) -> Self {
        let kept: Option<Self> = facts.state_as();
        let revision = facts.revision();
        kept.filter(|memory| memory.revision == revision)
            .unwrap_or_else(|| Self {
                revision,
                began_ms: facts.now_ms,
                stable: stable(facts)
                    .map(|set| set.name.clone())
                    .unwrap_or_default(),
                ..Self::default()
            })
    }

    pub(crate) fn next_step(&mut self, now_ms: u64) {
        self.step = self.step.saturating_add(1);
        self.began_ms = now_ms;
        self.reached_ms = None;
        self.failing_since_ms = None;
    }
}

/// The old set that serves: the one with most available machines, of equal ones the newest.
fn stable(facts: &Facts<Settings>) -> Option<&MachineSet> {
    facts
        .old()
        .max_by_key(|set| (set.available_replicas, set.revision))
}
