//! Upgrade strategies: they decide how a MachineDeployment gets from what is to what is wanted.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

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
