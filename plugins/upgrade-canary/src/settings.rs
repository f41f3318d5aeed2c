//! What an operator may say about the steps, the gates and the way back.

use capstan_sdk::Failure;
use serde::Deserialize;

use crate::gate::Gate;

/// The most steps that a rollout may have: each is a sentence in a condition and an entry to get through.
const STEPS_MAX: usize = 32;

/// Settings of the strategy. Without any: one machine, five minutes, then all others.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Steps before the last one, which is always "all machines".
    pub steps: Vec<Step>,
    /// Asked at the end of each step's pause, and during it: a gate that fails aborts at once.
    pub gates: Vec<Gate>,
    /// When machines of the new template have failed, and what then.
    pub abort: Abort,
}

/// So many machines of the new template, and how long to look at them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// A number, or a percentage of `spec.replicas`, rounded up.
    pub replicas: Share,
    /// How long they have to be available before the next step.
    #[serde(default)]
    pub pause_seconds: u64,
}

/// A number of machines, or a part of all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Share {
    /// So many.
    Count(u32),
    /// Such as `25%`.
    Percent(String),
}

/// When a rollout is given up.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Abort {
    /// A step whose machines are not all available after this time has failed.
    pub progress_seconds: u64,
    /// So long a machine may be unavailable again during a pause.
    pub unavailable_seconds: u64,
    /// What happens then.
    pub action: Action,
}

/// What happens when a step has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// The old template gets all machines back.
    #[default]
    RollBack,
    /// Nothing more is replaced.
    Halt,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: vec![Step {
                replicas: Share::Count(1),
                pause_seconds: 300,
            }],
            gates: Vec::new(),
            abort: Abort::default(),
        }
    }
}

impl Default for Abort {
    fn default() -> Self {
        Self {
            progress_seconds: 1800,
            unavailable_seconds: 60,
            action: Action::default(),
        }
    }
}

impl Share {
    /// As a number of machines, at most all.
    ///
    /// # Errors
    /// When a percentage is none.
    pub fn of(&self, replicas: u32) -> Result<u32, Failure> {
        let share = match self {
            Self::Count(count) => *count,
            Self::Percent(text) => {
                let percent = text
                    .strip_suffix('%')
                    .and_then(|digits| digits.parse::<u64>().ok());
                let percent = percent.ok_or_else(|| {
                    invalid(format!(
                        "steps[].replicas: {text:?} is neither a number nor a percentage such as 25%"
                    ))
                })?;
                let share = percent.saturating_mul(u64::from(replicas)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        };
        Ok(share.min(replicas))
    }
}

impl Settings {
    /// How many machines each step has: never fewer than the step before, at last all.
    ///
    /// # Errors
    /// When the steps make no sense; the message names the field.
    pub fn sizes(&self, replicas: u32) -> Result<Vec<u32>, Failure> {
        if self.steps.len() > STEPS_MAX {
            return Err(invalid(format!(
                "steps: {} are too many, at most {STEPS_MAX} are taken",
                self.steps.len()
            )));
        }
        let mut sizes: Vec<u32> = Vec::with_capacity(self.steps.len().saturating_add(1));
        for step in &self.steps {
            let size = step.replicas.of(replicas)?;
            if size == 0 && replicas > 0 {
                return Err(invalid(
                    "steps[].replicas: a step needs at least one machine".to_owned(),
                ));
            }
            sizes.push(sizes.last().copied().unwrap_or_default().max(size));
        }
        sizes.push(replicas);
        Ok(sizes)
    }

    /// How long to look at a step, in milliseconds. The last one is not followed by anything.
    #[must_use]
    pub fn pause_ms(&self, step: usize) -> u64 {
        self.steps
            .get(step)
            .map(|step| step.pause_seconds.saturating_mul(1000))
            .unwrap_or_default()
    }
}

fn invalid(message: String) -> Failure {
    Failure::terminal("SettingsInvalid", message)
}
