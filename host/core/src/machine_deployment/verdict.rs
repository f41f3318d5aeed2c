//! What may be done about replicas: nothing, what the host says while rollouts are paused, or what a strategy's checked answer
//! says.

use capstan_api::reason::machine_deployment as reason;
use capstan_api::v1beta2::MachineDeploymentRolloutStrategyType;
use jiff::Timestamp;

use super::observed::{Observed, StrategyAnswer};
use crate::plan::Failure;
use crate::rollout::check::{Checked, Violation, check};
use crate::rollout::extra::Overlay;
use crate::rollout::facts::facts;
use crate::rollout::limits;
use crate::rollout::paused::{PausedSet, scale};

/// What may be done about replicas.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// As many machines as wanted, all of the current set: nothing.
    Settled,
    /// Rollouts are paused: replicas by name of the set.
    Paused(Vec<(String, u32)>),
    /// A template is missing: the current set cannot be made, so nothing changes.
    NoTemplate,
    /// The strategy's settings cannot be used.
    BadSettings(String),
    /// No such strategy.
    Missing,
    /// The strategy could not say.
    Failed(Failure),
    /// The strategy's answer breaks a rule.
    Refused(Violation),
    /// The strategy's answer.
    Accepted(Box<Checked>),
}

/// Whether the strategy has to be asked.
#[must_use]
pub fn needs_plan(observed: &Observed, now: Timestamp) -> bool {
    !observed.is_deleting() && before_asking(observed, now).is_none()
}

/// What is said without asking the strategy, if it need not or cannot be asked.
fn before_asking(observed: &Observed, now: Timestamp) -> Option<Verdict> {
    if observed.is_paused() {
        return Some(Verdict::Paused(paused(observed, now)));
    }
    let replicas = limits::replicas(&observed.deployment);
    match observed.existing_current(now) {
        None if !observed.missing_templates().is_empty() => return Some(Verdict::NoTemplate),
        Some(current)
            if current.desired() == replicas
                && observed
                    .old_sets(now)
                    .iter()
                    .all(|seen| seen.desired() == 0) =>
        {
            return Some(Verdict::Settled);
        }
        _ => {}
    }
    observed
        .strategy
        .settings_error
        .clone()
        .map(Verdict::BadSettings)
}

/// What may be done about replicas.
#[must_use]
pub fn verdict(observed: &Observed, now: Timestamp) -> Verdict {
    if let Some(verdict) = before_asking(observed, now) {
        return verdict;
    }
    match &observed.strategy.answer {
        // Its time came after everything was looked at.
        StrategyAnswer::NotAsked => {
            Verdict::Failed(Failure::transient("NotAsked", "it has not been asked yet"))
        }
        StrategyAnswer::Missing => Verdict::Missing,
        StrategyAnswer::Failed(failure) => Verdict::Failed(failure.clone()),
        StrategyAnswer::Answer(answer) => match check(&facts(observed, now), (**answer).clone()) {
            Ok(checked) => Verdict::Accepted(Box::new(checked)),
            Err(violation) => Verdict::Refused(violation),
        },
    }
}

fn paused(observed: &Observed, now: Timestamp) -> Vec<(String, u32)> {
    let current = observed
        .existing_current(now)
        .map(|seen| seen.name().to_owned());
    let live: Vec<_> = observed
        .sets
        .iter()
        .filter(|seen| !seen.is_deleting())
        .collect();
    let sets: Vec<PausedSet> = live
        .iter()
        .map(|seen| PausedSet {
            name: seen.name().to_owned(),
            replicas: seen.desired(),
            max_replicas: super::desired::max_replicas(&seen.set),
            created: crate::rollout::count::created(&seen.set.metadata),
            current: current.as_deref() == Some(seen.name()),
            available: seen.available(),
        })
        .collect();
    let type_ = limits::strategy_type(&observed.deployment);
    let spread = type_ == MachineDeploymentRolloutStrategyType::RollingUpdate;
    let scaled = scale(&limits::of(&observed.deployment), &sets, spread);
    sets.into_iter().map(|set| set.name).zip(scaled).collect()
}

impl Verdict {
    /// Replicas of a set; `None` leaves them as they are.
    #[must_use]
    pub fn replicas(&self, set: &str) -> Option<u32> {
        match self {
            Self::Accepted(checked) => checked.target(set).map(|target| target.replicas),
            Self::Paused(scaled) => scaled
                .iter()
                .find(|(name, _)| name == set)
                .map(|(_, replicas)| *replicas),
            _ => None,
        }
    }

    /// Whether a set must not make machines; `None` leaves that as it is.
    #[must_use]
    pub fn create_disabled(&self, set: &str) -> Option<bool> {
        match self {
            Self::Accepted(checked) => checked.target(set).map(|target| target.create_disabled),
            _ => None,
        }
    }

    /// Labels and taints that the strategy wants on a set; `None` leaves them as they are.
    #[must_use]
    pub fn overlay(&self, set: &str) -> Option<Overlay> {
        match self {
            Self::Accepted(checked) => Some(checked.overlay(set)),
            _ => None,
        }
    }

    /// The reason of the condition `UpgradeBlocked`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Settled | Self::Paused(_) | Self::NoTemplate => reason::NOT_BLOCKED,
            Self::BadSettings(_) => reason::STRATEGY_SETTINGS_INVALID,
            Self::Missing => reason::STRATEGY_NOT_ACTIVE,
            Self::Failed(_) => reason::STRATEGY_FAILED,
            Self::Refused(_) => reason::STRATEGY_ANSWER_REFUSED,
            Self::Accepted(checked) if checked.roll_back().is_some() => reason::ROLLED_BACK,
            Self::Accepted(checked) if checked.is_idle() => reason::STRATEGY_IDLE,
            Self::Accepted(_) => reason::NOT_BLOCKED,
        }
    }

    /// What stands in the way of a rollout, for people.
    #[must_use]
    pub fn blocker(&self, strategy: &str) -> Option<String> {
        match self {
            Self::Settled | Self::Paused(_) | Self::NoTemplate => None,
            Self::BadSettings(why) => Some(format!(
                "upgrade strategy {strategy} cannot be asked: {why}"
            )),
            Self::Missing => Some(format!(
                "upgrade strategy plugin {strategy} is not active: install it, or see `kubectl get plugins -A` for why it is not"
            )),
            Self::Failed(failure) => Some(format!(
                "upgrade strategy {strategy} failed: {} ({})",
                failure.message, failure.reason
            )),
            Self::Refused(violation) => Some(format!(
                "the answer of upgrade strategy {strategy} was refused: {violation}"
            )),
            Self::Accepted(checked) if checked.is_idle() => Some(format!(
                "upgrade strategy {strategy} changes nothing and does not say what it waits for"
            )),
            Self::Accepted(_) => None,
        }
    }
}
