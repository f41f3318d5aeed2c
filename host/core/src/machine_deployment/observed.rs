//! All that decisions about a MachineDeployment may look at.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::name::fnv32a;
use capstan_api::v1beta2::{
    Cluster, ContractVersionedObjectReference, Machine, MachineDeployment,
    MachineDeploymentRolloutStrategyType, MachineSet,
};
use capstan_api::{annotation, label};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::call::State;
use crate::call::strategy::Answer;
use crate::control_plane::rotation;
use crate::lookup::Lookup;
use crate::naming::{Endings, with_ending};
use crate::plan::Failure;
use crate::rollout::count::{self, annotation as annotation_of, created, name};
use crate::rollout::extra::Memory;
use crate::rollout::facts::settings;
use crate::rollout::{limits, template};

/// The strategy of `rollout.strategy.type: RollingUpdate`.
pub const ROLLING_UPDATE: &str = "upgrade-rolling-update";

/// The strategy of `rollout.strategy.type: OnDelete`.
pub const ON_DELETE: &str = "upgrade-on-delete";

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The MachineDeployment.
    pub deployment: MachineDeployment,
    /// Its Cluster.
    pub cluster: Lookup<Cluster>,
    /// MachineSets that it controls, and those that its selector matches and nobody controls.
    pub sets: Vec<SetSeen>,
    /// The templates that its machine template names.
    pub templates: Vec<TemplateSeen>,
    /// Its upgrade strategy.
    pub strategy: StrategySeen,
}

/// A MachineSet with its Machines.
#[derive(Clone, Debug, PartialEq)]
pub struct SetSeen {
    /// The set.
    pub set: MachineSet,
    /// Its machines, also those that are being deleted.
    pub machines: Vec<Arc<Machine>>,
}

/// A template that is referenced.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateSeen {
    /// The reference.
    pub reference: ContractVersionedObjectReference,
    /// What it names.
    pub object: Lookup<Arc<Value>>,
}

/// The upgrade strategy and what it said.
#[derive(Clone, Debug, PartialEq)]
pub struct StrategySeen {
    /// Name of the plugin.
    pub name: String,
    /// Its settings, a JSON object.
    pub settings: Value,
    /// Why the settings cannot be used.
    pub settings_error: Option<String>,
    /// What its last answer kept.
    pub state: Option<State>,
    /// The revision that it rolled back.
    pub rolled_back: Option<u64>,
    /// What it said this time.
    pub answer: StrategyAnswer,
}

impl StrategySeen {
    /// The strategy of a deployment, not asked yet: the one that its annotation names; for a RollingUpdate the one that its
    /// Namespace's annotation names; else the one for `rollout.strategy.type`. Settings on the deployment go before those on the
    /// Namespace, which belong to the strategy named there.
    #[must_use]
    pub fn select(deployment: &MachineDeployment, namespace: Option<&ObjectMeta>) -> Self {
        let own = &deployment.metadata;
        let type_ = limits::strategy_type(deployment);
        let is_rolling = type_ == MachineDeploymentRolloutStrategyType::RollingUpdate;
        let default = namespace.filter(|namespace| {
            is_rolling && annotation_of(namespace, annotation::STRATEGY).is_some()
        });
        let named = annotation_of(own, annotation::STRATEGY);
        let by_default = || annotation_of(default?, annotation::STRATEGY);
        let by_type = if is_rolling {
            ROLLING_UPDATE
        } else {
            ON_DELETE
        };
        let strategy = named.or_else(by_default).unwrap_or(by_type).to_owned();
        let has_settings = annotation_of(own, annotation::STRATEGY_SETTINGS).is_some();
        let read = match default {
            Some(namespace) if named.is_none() && !has_settings => {
                settings(namespace, &format!("Namespace {}", name(namespace)))
            }
            _ => settings(own, &format!("MachineDeployment {}", name(own))),
        };
        let memory = Memory::read(annotation_of(own, annotation::STRATEGY_STATE), &strategy);
        let (settings, settings_error) = match read {
            Ok(settings) => (settings, None),
            Err(error) => (Value::Object(serde_json::Map::new()), Some(error)),
        };
        Self {
            name: strategy,
            settings,
            settings_error,
            state: memory.state,
            rolled_back: memory.rolled_back,
            answer: StrategyAnswer::NotAsked,
        }
    }
}

/// What became of asking a strategy.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum StrategyAnswer {
    /// There was nothing to ask.
    #[default]
    NotAsked,
    /// No active plugin of that name is an upgrade strategy.
    Missing,
    /// The call failed.
    Failed(Failure),
    /// Its answer, not yet checked.
    Answer(Box<Answer>),
}

/// The set that machines of the current template belong to.
#[derive(Clone, Debug, PartialEq)]
pub enum Current<'a> {
    /// It exists.
    Existing(&'a SetSeen),
    /// It has to be made, under this name.
    New {
        /// The name.
        name: String,
    },
}

impl Current<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Existing(seen) => seen.name().to_owned(),
            Self::New { name } => name.clone(),
        }
    }
}

impl SetSeen {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        name(&self.set.metadata)
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        count::is_deleting(&self.set.metadata)
    }

    /// `spec.replicas`; none for a set that is being deleted.
    #[must_use]
    pub fn desired(&self) -> u32 {
        if self.is_deleting() {
            return 0;
        }
        self.set
            .spec
            .replicas
            .and_then(|replicas| u32::try_from(replicas).ok())
            .unwrap_or_default()
    }

    /// Its revision; 0 when it has none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        annotation_of(&self.set.metadata, annotation::REVISION)
            .and_then(|revision| revision.parse().ok())
            .unwrap_or_default()
    }

    /// Machines that are available.
    #[must_use]
    pub fn available(&self) -> u32 {
        let available = self
            .machines
            .iter()
            .filter(|machine| count::is_available(machine))
            .count();
        u32::try_from(available).unwrap_or(u32::MAX)
    }
}

impl Observed {
    /// Whether the deployment is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        count::is_deleting(&self.deployment.metadata)
    }

    /// Whether rollouts are stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.deployment.spec.paused == Some(true)
    }

    /// The current set: of those with the deployment's template, the one with most replicas, then the oldest. Once
    /// `rollout.after` has passed, only sets made since count, and the same with a stage of a rotation of the cluster's authorities.
    #[must_use]
    pub fn current(&self, now: Timestamp) -> Current<'_> {
        self.existing_current(now).map_or_else(
            || Current::New {
                name: self.new_name(now),
            },
            Current::Existing,
        )
    }

    /// The current set, if it exists.
    #[must_use]
    pub fn existing_current(&self, now: Timestamp) -> Option<&SetSeen> {
        let after = self.rollout_after().filter(|after| *after <= now);
        let mut candidates: Vec<&SetSeen> = self
            .sets
            .iter()
            .filter(|seen| !seen.is_deleting())
            .filter(|seen| {
                template::matches(&seen.set.spec.template, &self.deployment.spec.template)
            })
            .filter(|seen| match (after, made(seen)) {
                (Some(after), Some(made)) => made >= after,
                _ => true,
            })
            .filter(|seen| {
                made(seen).is_none_or(|made| !rotation::are_workers_due(&self.cluster, made, now))
            })
            .collect();
        candidates.sort_by_key(|seen| {
            (
                Reverse(seen.desired()),
                created(&seen.set.metadata),
                seen.name().to_owned(),
            )
        });
        candidates.first().copied()
    }

    /// `spec.rollout.after`.
    #[must_use]
    pub fn rollout_after(&self) -> Option<Timestamp> {
        self.deployment
            .spec
            .rollout
            .as_ref()?
            .after
            .as_ref()
            .map(|after| after.0)
    }

    /// Times from which on only sets made since count.
    fn rollouts(&self) -> impl Iterator<Item = Timestamp> {
        let cluster = self.cluster.found();
        let record = cluster.and_then(|cluster| rotation::Record::of(cluster).ok()?);
        let times = [
            self.rollout_after(),
            record.and_then(|record| record.workers),
        ];
        times.into_iter().flatten()
    }

    /// The next of them.
    #[must_use]
    pub fn next_rollout(&self, now: Timestamp) -> Option<Timestamp> {
        self.rollouts().filter(|time| *time > now).min()
    }

    /// The last of them that has come.
    #[must_use]
    pub fn last_rollout(&self, now: Timestamp) -> Option<Timestamp> {
        self.rollouts().filter(|time| *time <= now).max()
    }

    /// Sets other than the current one, oldest first.
    #[must_use]
    pub fn old_sets(&self, now: Timestamp) -> Vec<&SetSeen> {
        let current = self.existing_current(now).map(SetSeen::name);
        let mut old: Vec<&SetSeen> = self
            .sets
            .iter()
            .filter(|seen| Some(seen.name()) != current)
            .collect();
        old.sort_by_key(|seen| (created(&seen.set.metadata), seen.name().to_owned()));
        old
    }

    /// The ending of a new set's name and hash. It follows from the deployment, its template and the revision: a set whose
    /// creation was not answered gets the same name again, and there are never two of one revision.
    #[must_use]
    pub fn new_ending(&self, now: Timestamp) -> String {
        let metadata = &self.deployment.metadata;
        let identity = format!(
            "{}/{}/{}",
            metadata.uid.as_deref().unwrap_or_default(),
            template::hash(&self.deployment.spec.template),
            self.revision(now)
        );
        Endings::new(u64::from(fnv32a(identity.as_bytes()))).draw()
    }

    fn new_name(&self, now: Timestamp) -> String {
        with_ending(name(&self.deployment.metadata), &self.new_ending(now))
    }

    /// The revision of the current set: above all others, its own if it is that already.
    #[must_use]
    pub fn revision(&self, now: Timestamp) -> u64 {
        let highest_old = self
            .old_sets(now)
            .iter()
            .map(|seen| seen.revision())
            .max()
            .unwrap_or_default();
        let own = self
            .existing_current(now)
            .map(SetSeen::revision)
            .unwrap_or_default();
        own.max(highest_old.saturating_add(1))
    }

    /// Templates that certainly do not exist, or cannot be seen, one sentence each.
    #[must_use]
    pub fn missing_templates(&self) -> Vec<String> {
        let missing = self.templates.iter().filter_map(|seen| match &seen.object {
            Lookup::Found(_) => None,
            Lookup::Missing => Some(format!("{} does not exist", seen.reference.kind)),
            Lookup::Unknown(why) => Some(format!("{} cannot be read: {why}", seen.reference.kind)),
        });
        missing.collect()
    }

    /// All machines.
    #[must_use]
    pub fn machines(&self) -> Vec<&Machine> {
        let machines = self.sets.iter().flat_map(|seen| &seen.machines);
        machines.map(|machine| &**machine).collect()
    }

    /// The selector's labels; when the selector is empty, those that admission fills in.
    #[must_use]
    pub fn selector_labels(&self) -> BTreeMap<String, String> {
        let selector = &self.deployment.spec.selector;
        let mut labels = selector.match_labels.clone().unwrap_or_default();
        if labels.is_empty()
            && selector
                .match_expressions
                .as_ref()
                .is_none_or(Vec::is_empty)
        {
            labels.insert(
                label::DEPLOYMENT_NAME.to_owned(),
                name(&self.deployment.metadata).to_owned(),
            );
        }
        labels.insert(
            label::CLUSTER_NAME.to_owned(),
            self.deployment.spec.cluster_name.clone(),
        );
        labels
    }
}

/// Since when a set counts: since it was made, or since the time that it was made for, where the server's clock is behind.
fn made(seen: &SetSeen) -> Option<Timestamp> {
    let metadata = &seen.set.metadata;
    let time = annotation_of(metadata, annotation::ROLLED_OUT_AFTER);
    let time = time.and_then(|time| time.parse().ok());
    created(metadata).max(time)
}
