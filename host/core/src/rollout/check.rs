//! Holds a strategy's answer against what a rollout may do. What passes is a [`Checked`], which has no other constructor and
//! is the only thing that scales MachineSets.
//!
//! The rules, whatever the strategy says:
//! * it names only this deployment's sets and machines, each at most once;
//! * no set grows if there would then be more machines than replicas and surge, counting those that still have to go;
//! * nothing more is removed if fewer than the floor of available machines could be left;
//! * machines that are not available may become so before they are gone: enough stay for the floor if they do;
//! * old sets never grow and the current one is never kept from making machines, so that the rollout can always finish;
//! * the exception is a roll back: one old set grows, the current one does not, also not later in the same revision.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::annotation;

use super::extra::{self, Overlay, RollBack};
use super::facts::{DELETION_ORDER, ROLLED_BACK_REVISION};
use crate::call::strategy::{Answer, Facts, MachineFacts, MachineSetFacts, Target};
use crate::call::{STATE_BYTES_MAX, State, Waiting};

/// A strategy's message is cut to this many characters.
const MESSAGE_MAX: usize = 1024;

/// The most replicas that the API can hold.
const REPLICAS_MAX: u32 = i32::MAX as u32;

/// An answer that keeps the rules, complete: one target for every set of the facts, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    targets: Vec<Target>,
    delete_first: Vec<String>,
    waiting: Option<Waiting>,
    message: String,
    state: Option<State>,
    roll_back: Option<RollBack>,
    overlays: BTreeMap<String, Overlay>,
    is_idle: bool,
}

impl Checked {
    /// Replicas of every set.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The target of one set.
    #[must_use]
    pub fn target(&self, machine_set: &str) -> Option<&Target> {
        self.targets
            .iter()
            .find(|target| target.machine_set == machine_set)
    }

    /// Machines to mark before their sets shrink.
    #[must_use]
    pub fn delete_first(&self) -> &[String] {
        &self.delete_first
    }

    /// What the strategy waits for.
    #[must_use]
    pub fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// What the strategy says, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the strategy wants kept.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The way back that the strategy takes.
    #[must_use]
    pub fn roll_back(&self) -> Option<&RollBack> {
        self.roll_back.as_ref()
    }

    /// Labels and taints of a set; none unless the strategy says so.
    #[must_use]
    pub fn overlay(&self, machine_set: &str) -> Overlay {
        self.overlays.get(machine_set).cloned().unwrap_or_default()
    }

    /// Whether nothing moves although the rollout is not done and the strategy does not say what it waits for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_idle
    }
}

/// Which rule an answer breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A set that is not this deployment's.
    #[error("it names MachineSet {name:?}, which is not one of this MachineDeployment")]
    ForeignSet {
        /// The set.
        name: String,
    },
    /// Two targets for one set.
    #[error("it has two targets for MachineSet {name:?}")]
    TwoTargets {
        /// The set.
        name: String,
    },
    /// A machine that is not this deployment's.
    #[error("it names Machine {name:?}, which is not one of this MachineDeployment")]
    ForeignMachine {
        /// The machine.
        name: String,
    },
    /// An old set would grow.
    #[error(
        "it lets the outdated MachineSet {name:?} grow from {from} to {to}: the rollout could not finish"
    )]
    OldSetGrows {
        /// The set.
        name: String,
        /// Replicas now.
        from: u32,
        /// Replicas asked for.
        to: u32,
    },
    /// The way back leads to a set that is not an old one of this deployment.
    #[error(
        "it rolls back to MachineSet {name:?}, which is not an older one of this MachineDeployment"
    )]
    NoWayBack {
        /// The set.
        name: String,
    },
    /// The current set would grow although the rollout was given up.
    #[error(
        "it lets the current MachineSet {name:?} grow although revision {revision} was rolled back: machines would be made and removed without end"
    )]
    GrowsAfterRollBack {
        /// The set.
        name: String,
        /// The revision.
        revision: u64,
    },
    /// Something beyond the fields cannot be used.
    #[error("its {name} cannot be used: {why}")]
    Extra {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
    /// The current set could not make machines.
    #[error(
        "it keeps the current MachineSet {name:?} from making machines: the rollout could not finish"
    )]
    CurrentDisabled {
        /// The set.
        name: String,
    },
    /// More machines than allowed.
    #[error(
        "there would be {total} machines, at most {ceiling} are allowed (replicas {replicas}, maxSurge {surge})"
    )]
    AboveSurge {
        /// Machines there would be.
        total: u32,
        /// The most that may be.
        ceiling: u32,
        /// Wanted.
        replicas: u32,
        /// Allowed above.
        surge: u32,
    },
    /// Fewer available machines than allowed.
    #[error(
        "only {available} available machines could be left, at least {floor} are required (replicas {replicas}, maxUnavailable {unavailable})"
    )]
    BelowFloor {
        /// Available machines left at worst.
        available: u32,
        /// The fewest that must be.
        floor: u32,
        /// Wanted.
        replicas: u32,
        /// Allowed below.
        unavailable: u32,
    },
    /// Fewer machines than must be available would stay.
    #[error(
        "only {staying} machines would stay that are or may become available, at least {floor} are required (replicas {replicas}, maxUnavailable {unavailable})"
    )]
    TooFewStay {
        /// Machines that would stay: of old sets all, of the current one those that are available.
        staying: u32,
        /// The fewest that must be.
        floor: u32,
        /// Wanted.
        replicas: u32,
        /// Allowed below.
        unavailable: u32,
    },
    /// More state than is kept.
    #[error("its state has {bytes} bytes, at most {STATE_BYTES_MAX} are kept")]
    StateTooLarge {
        /// How many.
        bytes: usize,
    },
}

/// Checks an answer; refuses it whole when it breaks a rule.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(facts: &Facts, answer: Answer) -> Result<Checked, Violation> {
    let targets = resolve(facts, &answer)?;
    let delete_first: BTreeSet<&str> = answer.delete_first.iter().map(String::as_str).collect();
    let known = |name: &str| {
        facts
            .machine_sets
            .iter()
            .flat_map(|set| &set.machines)
            .any(|machine| machine.name == name)
    };
    if let Some(foreign) = delete_first.iter().find(|name| !known(name)) {
        return Err(Violation::ForeignMachine {
            name: (*foreign).to_owned(),
        });
    }
    if let Some(state) = answer
        .state
        .as_ref()
        .filter(|state| state.len() > STATE_BYTES_MAX)
    {
        return Err(Violation::StateTooLarge { bytes: state.len() });
    }
    let roll_back = extra::roll_back(&answer.extra)?;
    let overlays = extra::overlays(&answer.extra)?;
    let is_of_it = |name: &String| facts.machine_sets.iter().any(|set| set.name == *name);
    if let Some(name) = overlays.keys().find(|name| !is_of_it(name)) {
        return Err(Violation::ForeignSet { name: name.clone() });
    }
    check_sets(facts, &targets, roll_back.as_ref())?;
    check_surge(facts, &targets)?;
    check_floor(facts, &targets, &delete_first)?;
    check_staying(facts, &targets)?;
    let is_idle = answer.waiting.is_none()
        && roll_back.is_none()
        && !is_done(facts)
        && is_still(facts, &targets);
    Ok(Checked {
        roll_back,
        overlays,
        is_idle,
        targets,
        delete_first: delete_first.into_iter().map(str::to_owned).collect(),
        waiting: answer.waiting,
        message: answer.message.chars().take(MESSAGE_MAX).collect(),
        state: answer.state,
    })
}

/// One target for every set; a set that is not named keeps its replicas.
fn resolve(facts: &Facts, answer: &Answer) -> Result<Vec<Target>, Violation> {
    let mut named: BTreeMap<&str, &Target> = BTreeMap::new();
    for target in &answer.targets {
        let name = target.machine_set.as_str();
        if !facts.machine_sets.iter().any(|set| set.name == name) {
            return Err(Violation::ForeignSet {
                name: name.to_owned(),
            });
        }
        if named.insert(name, target).is_some() {
            return Err(Violation::TwoTargets {
                name: name.to_owned(),
            });
        }
    }
    let targets = facts.machine_sets.iter().map(|set| {
        named.get(set.name.as_str()).map_or_else(
            || Target {
                machine_set: set.name.clone(),
                replicas: set.desired_replicas,
                create_disabled: false,
            },
            |target| Target {
                replicas: target.replicas.min(REPLICAS_MAX),
                ..(*target).clone()
            },
        )
    });
    Ok(targets.collect())
}

fn pairs<'a>(
    facts: &'a Facts,
    targets: &'a [Target],
) -> impl Iterator<Item = (&'a MachineSetFacts, &'a Target)> {
    facts.machine_sets.iter().zip(targets)
}

fn check_sets(
    facts: &Facts,
    targets: &[Target],
    roll_back: Option<&RollBack>,
) -> Result<(), Violation> {
    let back_to = roll_back.map(|roll_back| roll_back.machine_set.as_str());
    let is_old = |name: &str| {
        let mut sets = facts.machine_sets.iter();
        sets.any(|set| set.name == name && !set.current)
    };
    if let Some(name) = back_to.filter(|name| !is_old(name)) {
        return Err(Violation::NoWayBack {
            name: name.to_owned(),
        });
    }
    let given_up = facts
        .extra
        .iter()
        .find(|(name, _)| name == ROLLED_BACK_REVISION)
        .and_then(|(_, revision)| revision.as_u64());
    for (set, target) in pairs(facts, targets) {
        let grows = target.replicas > set.desired_replicas;
        let name = || set.name.clone();
        if set.current && target.create_disabled {
            return Err(Violation::CurrentDisabled { name: name() });
        }
        if set.current && grows && (back_to.is_some() || given_up == Some(set.revision)) {
            return Err(Violation::GrowsAfterRollBack {
                name: name(),
                revision: set.revision,
            });
        }
        if !set.current && grows && back_to != Some(set.name.as_str()) {
            return Err(Violation::OldSetGrows {
                name: name(),
                from: set.desired_replicas,
                to: target.replicas,
            });
        }
    }
    Ok(())
}

/// Machines of a set that are there or will be.
fn occupied(set: &MachineSetFacts, replicas: u32) -> u32 {
    replicas
        .max(set.actual_replicas)
        .max(u32::try_from(set.machines.len()).unwrap_or(u32::MAX))
}

/// The most machines that there may be.
fn ceiling(facts: &Facts) -> u32 {
    facts.replicas.saturating_add(facts.max_surge)
}

/// The fewest machines that must be available.
fn floor(facts: &Facts) -> u32 {
    facts.replicas.saturating_sub(facts.max_unavailable)
}

fn check_surge(facts: &Facts, targets: &[Target]) -> Result<(), Violation> {
    let grows = pairs(facts, targets).any(|(set, target)| target.replicas > set.desired_replicas);
    let total = pairs(facts, targets).fold(0_u32, |total, (set, target)| {
        total.saturating_add(occupied(set, target.replicas))
    });
    let ceiling = ceiling(facts);
    if grows && total > ceiling {
        return Err(Violation::AboveSurge {
            total,
            ceiling,
            replicas: facts.replicas,
            surge: facts.max_surge,
        });
    }
    Ok(())
}

fn check_floor(facts: &Facts, targets: &[Target], first: &BTreeSet<&str>) -> Result<(), Violation> {
    let by_age = facts.extra.iter().any(|(name, value)| {
        name == DELETION_ORDER && value.as_str().is_some_and(|order| order != "Random")
    });
    let lost = |replicas: &dyn Fn(&MachineSetFacts, &Target) -> u32, first: &BTreeSet<&str>| {
        pairs(facts, targets).fold(0_u32, |lost, (set, target)| {
            lost.saturating_add(lost_available(set, replicas(set, target), first, by_age))
        })
    };
    let already = lost(&|set, _| set.desired_replicas, &BTreeSet::new());
    let then = lost(&|_, target| target.replicas, first);
    let available = facts.machine_sets.iter().flat_map(|set| &set.machines);
    let available = available
        .filter(|machine| machine.available && !machine.deleting)
        .count();
    let left = u32::try_from(available)
        .unwrap_or(u32::MAX)
        .saturating_sub(then);
    let floor = floor(facts);
    if then > already && left < floor {
        return Err(Violation::BelowFloor {
            available: left,
            floor,
            replicas: facts.replicas,
            unavailable: facts.max_unavailable,
        });
    }
    Ok(())
}

/// Machines of a set that are not being deleted.
fn staying(set: &MachineSetFacts) -> u32 {
    let staying = set.machines.iter().filter(|machine| !machine.deleting);
    u32::try_from(staying.count()).unwrap_or(u32::MAX)
}

/// A set shrinks while time goes on, and what was not available when it was told to may be by then. As upstream counts it
/// (`internal/controllers/machinedeployment/machinedeployment_rollout_rollingupdate.go`): replicas of the current set that are not
/// available do not stand for old ones. Only when there are more replicas than may ever be, since the deployment was scaled down, they do.
fn check_staying(facts: &Facts, targets: &[Target]) -> Result<(), Violation> {
    let removes = |(set, target): &(&MachineSetFacts, &Target)| {
        target.replicas < set.desired_replicas.min(staying(set))
    };
    let is_scaled_down = facts
        .machine_sets
        .iter()
        .fold(0_u32, |all, set| all.saturating_add(set.desired_replicas))
        > facts.replicas.saturating_add(facts.max_surge);
    let removes_old = pairs(facts, targets).any(|pair| !pair.0.current && removes(&pair));
    let strict = removes_old && !is_scaled_down;
    let stay = pairs(facts, targets).fold(0_u32, |stay, (set, target)| {
        let most = if set.current && strict {
            set.available_replicas
        } else {
            u32::MAX
        };
        stay.saturating_add(target.replicas.min(most))
    });
    let floor = floor(facts);
    if stay < floor && pairs(facts, targets).any(|pair| removes(&pair)) {
        return Err(Violation::TooFewStay {
            staying: stay,
            floor,
            replicas: facts.replicas,
            unavailable: facts.max_unavailable,
        });
    }
    Ok(())
}

/// Annotations of machines that go before others.
const MARKS: [&str; 2] = [annotation::DELETE_MACHINE, annotation::UPDATE_IN_PROGRESS];

/// How many available machines go, at worst, when a set shrinks to `replicas`, in the order in which MachineSets choose
/// ([`crate::machine_set::priority`]).
fn lost_available(
    set: &MachineSetFacts,
    replicas: u32,
    first: &BTreeSet<&str>,
    by_age: bool,
) -> u32 {
    let mut staying: Vec<&MachineFacts> = set
        .machines
        .iter()
        .filter(|machine| !machine.deleting)
        .collect();
    let excess = staying
        .len()
        .saturating_sub(usize::try_from(replicas).unwrap_or(usize::MAX));
    staying.sort_by_key(|machine| {
        let marked = first.contains(machine.name.as_str())
            || machine
                .annotations
                .iter()
                .any(|(key, _)| MARKS.contains(&key.as_str()));
        let group = match (marked, machine.healthy) {
            (true, _) => 0_u8,
            (false, false) => 1,
            (false, true) => 2,
        };
        // Unavailable ones go first among equals; by age it is not known who is equal, so the worst is assumed.
        let worst_first = group == 2 && by_age;
        (group, machine.available != worst_first)
    });
    let gone = staying
        .iter()
        .take(excess)
        .filter(|machine| machine.available)
        .count();
    u32::try_from(gone).unwrap_or(u32::MAX)
}

/// Whether all machines are of the current set, as many as wanted, and available.
fn is_done(facts: &Facts) -> bool {
    facts.machine_sets.iter().all(|set| {
        if set.current {
            set.desired_replicas == facts.replicas
                && set.actual_replicas == facts.replicas
                && set.available_replicas == facts.replicas
        } else {
            set.desired_replicas == 0 && set.machines.is_empty()
        }
    })
}

/// Whether nothing changes and nothing is under way.
fn is_still(facts: &Facts, targets: &[Target]) -> bool {
    pairs(facts, targets).all(|(set, target)| {
        target.replicas == set.desired_replicas
            && set.desired_replicas == set.actual_replicas
            && set
                .machines
                .iter()
                .all(|machine| !machine.deleting && machine.available)
    })
}

#[cfg(test)]
mod tests;
