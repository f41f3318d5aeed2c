//! Upgrade strategies: they decide how a MachineDeployment gets from what is to what is wanted.

mod overlay;
mod rolling;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use overlay::{Overlay, Taint};
pub use rolling::Rolling;

use crate::answer::{Failure, Waiting};
use crate::bindings::base::capstan::plugin::types;
use crate::bindings::upgrade_strategy::exports::capstan::plugin::upgrade_strategy as wit;
use crate::context::{Extra, read_extra, write_extra};
use crate::export::Exported;
use crate::manifest::Plugin;
use crate::object::{parse, typed};

/// A strategy. Pure: it uses none of the capability modules, not even [`log`](crate::log). The host checks each answer against the
/// limits in the facts and refuses it whole when it breaks one.
pub trait UpgradeStrategy: Plugin {
    /// The operator's settings for the strategy.
    type Settings: DeserializeOwned + Clone + Debug;

    /// How many machines each set should have now.
    ///
    /// # Errors
    /// What the host shows in the deployment's condition; nothing changes until the strategy answers.
    fn plan(facts: Facts<Self::Settings>) -> Result<Answer, Failure>;
}

/// All that a strategy may know.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts<Settings> {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// `namespace/name`.
    pub deployment: String,
    /// Wanted version with a leading v, or empty.
    pub version: String,
    /// Wanted machines.
    pub replicas: u32,
    /// Machines that may be above `replicas`.
    pub max_surge: u32,
    /// Machines that may be missing from `replicas`.
    pub max_unavailable: u32,
    /// Current set first, then older ones, oldest last.
    pub machine_sets: Vec<MachineSet>,
    /// The operator's settings.
    pub settings: Settings,
    /// What the last answer kept; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

impl<Settings> Facts<Settings> {
    /// The set made from the deployment's current template, when it exists already.
    pub fn current(&self) -> Option<&MachineSet> {
        self.machine_sets.iter().find(|set| set.current)
    }

    /// The other sets, oldest first.
    pub fn old(&self) -> impl Iterator<Item = &MachineSet> {
        self.machine_sets.iter().rev().filter(|set| !set.current)
    }

    /// Number of the current template; a strategy's memory of a rollout belongs to it.
    pub fn revision(&self) -> u64 {
        self.current().map(|set| set.revision).unwrap_or_default()
    }

    /// Whether old machines are left, or still to be made.
    pub fn is_rolling_out(&self) -> bool {
        self.old()
            .any(|set| set.desired_replicas > 0 || !set.machines.is_empty())
    }

    /// Whether this strategy has rolled the current revision back before. The host lets the current set grow no more.
    pub fn is_rolled_back(&self) -> bool {
        self.extra.get("rolledBackRevision").and_then(Value::as_u64) == Some(self.revision())
    }

    /// An annotation of the MachineDeployment under `capstan.dev/` or one of its subdomains.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.extra.get("deploymentAnnotations")?.get(key)?.as_str()
    }

    /// Status of a condition of the MachineDeployment: `True`, `False` or `Unknown`; `None` while there is no such condition.
    pub fn condition(&self, condition_type: &str) -> Option<&str> {
        self.extra
            .get("deploymentConditions")?
            .get(condition_type)?
            .as_str()
    }

    /// Status of a condition that somebody other than Cluster API put on a Machine.
    pub fn machine_condition(&self, machine: &str, condition_type: &str) -> Option<&str> {
        self.extra
            .get("machineConditions")?
            .get(machine)?
            .get(condition_type)?
            .as_str()
    }

    /// What the last answer kept, read as JSON; `None` when there is nothing or it was written by something else.
    pub fn state_as<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(self.state.as_deref()?).ok()
    }
}

/// A MachineSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineSet {
    /// Name.
    pub name: String,
    /// Made from the deployment's current template.
    pub current: bool,
    /// Revision.
    pub revision: u64,
    /// Since creation.
    pub age_ms: u64,
    /// `spec.replicas`.
    pub desired_replicas: u32,
    /// `status.replicas`.
    pub actual_replicas: u32,
    /// `status.readyReplicas`.
    pub ready_replicas: u32,
    /// `status.availableReplicas`.
    pub available_replicas: u32,
    /// Its machines.
    pub machines: Vec<Machine>,
}

/// A machine of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Name.
    pub name: String,
    /// Since creation.
    pub age_ms: u64,
    /// Condition `Ready`.
    pub ready: bool,
    /// Condition `Available`.
    pub available: bool,
    /// Being deleted.
    pub deleting: bool,
    /// Not known to be unhealthy.
    pub healthy: bool,
    /// Where it is.
    pub failure_domain: Option<String>,
    /// Class of scarce capacity, empty when none.
    pub capacity_class: String,
    /// Selected labels.
    pub labels: Vec<(String, String)>,
    /// Selected annotations.
    pub annotations: Vec<(String, String)>,
}

/// How many machines a set should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the set.
    pub machine_set: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The set must not make machines, whatever its replicas.
    pub create_disabled: bool,
}

impl Target {
    /// So many machines, made as needed.
    pub fn new(machine_set: impl Into<String>, replicas: u32) -> Self {
        Self {
            machine_set: machine_set.into(),
            replicas,
            create_disabled: false,
        }
    }

    /// At most so many machines: the set makes none.
    #[must_use]
    pub fn create_disabled(mut self) -> Self {
        self.create_disabled = true;
        self
    }
}

/// Answer of `plan`. Sets without a target keep their replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Sets that change, or that must not make machines.
    pub targets: Vec<Target>,
    /// Machines to delete first when their set shrinks.
    pub delete_first: Vec<String>,
    /// What the strategy waits for.
    pub waiting: Option<Waiting>,
    /// Shown in the deployment's condition; may be empty.
    pub message: String,
    /// Kept for the next call; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

impl Answer {
    /// An answer that changes nothing.
    #[must_use]
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Adds a target.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Machines to delete first when their set shrinks.
    #[must_use]
    pub fn delete_first(mut self, machine: impl Into<String>) -> Self {
        self.delete_first.push(machine.into());
        self
    }

    /// What the strategy waits for.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }

    /// Shown in the deployment's condition.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Kept for the next call.
    #[must_use]
    pub fn state(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Kept for the next call, as JSON.
    ///
    /// # Errors
    /// When the value is not one that JSON can hold.
    pub fn state_json(self, state: &impl Serialize) -> Result<Self, Failure> {
        let text = serde_json::to_vec(state);
        let text = text.map_err(|error| Failure::terminal("State", error.to_string()))?;
        Ok(self.state(text))
    }

    /// Gives up on the current template: this old set may grow again, and the current one may not until the template changes.
    #[must_use]
    pub fn roll_back(mut self, machine_set: &str, message: &str) -> Self {
        let value = json!({"machineSet": machine_set, "message": message});
        self.extra.insert("rollBack".to_owned(), value);
        self
    }

    /// Labels and taints on the machines of a set, and on their Nodes. Sets without one have none.
    #[must_use]
    pub fn overlay(mut self, machine_set: &str, overlay: &Overlay) -> Self {
        let all = self
            .extra
            .entry("overlays".to_owned())
            .or_insert_with(|| json!({}));
        if let Some(all) = all.as_object_mut() {
            all.insert(machine_set.to_owned(), json!(overlay));
        }
        self
    }
}

impl From<wit::Machine> for Machine {
    fn from(machine: wit::Machine) -> Self {
        Self {
            name: machine.name,
            age_ms: machine.age_ms,
            ready: machine.ready,
            available: machine.available,
            deleting: machine.deleting,
            healthy: machine.healthy,
            failure_domain: machine.failure_domain,
            capacity_class: machine.capacity_class,
            labels: machine.labels,
            annotations: machine.annotations,
        }
    }
}

impl From<wit::MachineSet> for MachineSet {
    fn from(set: wit::MachineSet) -> Self {
        Self {
            name: set.name,
            current: set.current,
            revision: set.revision,
            age_ms: set.age_ms,
            desired_replicas: set.desired_replicas,
            actual_replicas: set.actual_replicas,
            ready_replicas: set.ready_replicas,
            available_replicas: set.available_replicas,
            machines: set.machines.into_iter().map(Into::into).collect(),
        }
    }
}

impl<Settings: DeserializeOwned> Facts<Settings> {
    fn read(facts: wit::Facts) -> Result<Self, Failure> {
        Ok(Self {
            now_ms: facts.now_ms,
            deployment: facts.deployment,
            version: facts.version,
            replicas: facts.replicas,
            max_surge: facts.max_surge,
            max_unavailable: facts.max_unavailable,
            machine_sets: facts.machine_sets.into_iter().map(Into::into).collect(),
            settings: typed(&parse(&facts.settings, "settings")?, "settings")?,
            state: facts.state,
            extra: read_extra(facts.extra)?,
        })
    }
}

impl From<Answer> for wit::Answer {
    fn from(answer: Answer) -> Self {
        let target = |target: Target| wit::Target {
            machine_set: target.machine_set,
            replicas: target.replicas,
            create_disabled: target.create_disabled,
        };
        Self {
            targets: answer.targets.into_iter().map(target).collect(),
            delete_first: answer.delete_first,
            waiting: answer.waiting.map(Into::into),
            message: answer.message,
            state: answer.state,
            extra: write_extra(answer.extra),
        }
    }
}

impl<T: UpgradeStrategy> wit::Guest for Exported<T> {
    fn plan(facts: wit::Facts) -> Result<wit::Answer, types::Failure> {
        Ok(Facts::read(facts).and_then(T::plan)?.into())
    }
}
