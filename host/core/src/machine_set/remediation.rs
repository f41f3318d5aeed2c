//! Which unhealthy Machines the set replaces now, and what it says to those that have to wait (contract: upstream
//! `machineset_controller.go`, `reconcileUnhealthyMachines`, contract 3.4.5).

use std::cmp::Reverse;
use std::time::Duration;

use capstan_api::condition::{self, Report};
use capstan_api::reason::condition_type::{HEALTH_CHECK_SUCCEEDED, OWNER_REMEDIATED};
use capstan_api::v1beta2::Machine;
use capstan_api::{annotation, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::observed::Observed;
use super::preflight;
use crate::rollout::count::{
    conditions, created, has_annotation, is_deleting, is_to_be_remediated, name,
};
use crate::rollout::limits::{Rounding, replicas, scaled};

/// How soon failed preflight checks are looked at again.
const RECHECK: Duration = Duration::from_secs(15);

/// What is done about one Machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Remediation {
    /// Its name.
    pub machine: String,
    /// The version of the Machine that the conditions are of.
    pub resource_version: String,
    /// Its UID.
    pub uid: String,
    /// All conditions that it then has.
    pub conditions: Vec<Condition>,
    /// It is deleted once it says so.
    pub delete: bool,
}

impl Remediation {
    /// Of a Machine, which then has these conditions.
    #[must_use]
    pub fn of(machine: &Machine, conditions: Vec<Condition>, delete: bool) -> Self {
        let metadata = &machine.metadata;
        Self {
            machine: name(metadata).to_owned(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            conditions,
            delete,
        }
    }

    /// The merge patch of the Machine's status. A list is replaced whole, so only of the Machine as it was seen.
    #[must_use]
    pub fn patch(&self) -> Value {
        json!({
            "metadata": {"resourceVersion": self.resource_version, "uid": self.uid},
            "status": {"conditions": self.conditions},
        })
    }
}

/// What is done about all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remediations {
    /// Machines whose conditions change, some of which are deleted.
    pub machines: Vec<Remediation>,
    /// When to look again, if something that is not watched stands in the way.
    pub recheck: Option<Duration>,
}

/// What is done about unhealthy Machines, and those that were unhealthy.
#[must_use]
pub fn remediations(observed: &Observed, now: Timestamp) -> Remediations {
    let mut all = Remediations::default();
    for machine in observed.bare_machines() {
        let was_asked = condition::get(conditions(machine), OWNER_REMEDIATED).is_some();
        let is_healthy = condition::is_true(conditions(machine), HEALTH_CHECK_SUCCEEDED);
        if was_asked && is_healthy && !is_deleting(&machine.metadata) {
            let mut after = conditions(machine).to_vec();
            condition::remove(&mut after, OWNER_REMEDIATED);
            all.machines.push(Remediation::of(machine, after, false));
        }
    }
    let mut waiting: Vec<&Machine> = observed
        .bare_machines()
        .filter(|machine| is_to_be_remediated(machine) && !is_deleting(&machine.metadata))
        .collect();
    if waiting.is_empty() {
        return all;
    }
    if let Some(deployment) = observed.deployment.found()
        && crate::machine_deployment::is_outdated_revision(deployment, &observed.set)
    {
        let said = Report::no(OWNER_REMEDIATED, reason::machine::CANNOT_BE_REMEDIATED)
            .with_message(
                "Machine won't be remediated because it is pending removal due to rollout",
            );
        all.say(&waiting, &said, now);
        return all;
    }
    waiting.sort_by_key(|machine| {
        (
            !has_annotation(&machine.metadata, annotation::REMEDIATE_MACHINE),
            Reverse(created(&machine.metadata)),
            name(&machine.metadata).to_owned(),
        )
    });
    if let Some((max, asked)) = max_in_flight(observed) {
        let room = max.saturating_sub(in_flight(observed));
        let later = waiting.split_off(room.min(waiting.len()));
        let said = Report::no(OWNER_REMEDIATED, reason::machine::REMEDIATION_DEFERRED)
            .with_message(format!(
                "Waiting because there are already too many remediations in progress (spec.strategy.remediation.maxInFlight is {asked})"
            ));
        all.say(&later, &said, now);
    }
    if waiting.is_empty() {
        return all;
    }
    let failures = preflight::failures(observed);
    if !failures.is_empty() {
        let said = Report::no(OWNER_REMEDIATED, reason::machine::REMEDIATION_DEFERRED)
            .with_message(crate::rollout::conditions::bullets(&failures));
        all.say(&waiting, &said, now);
        all.recheck = Some(RECHECK);
        return all;
    }
    let said = Report::no(OWNER_REMEDIATED, reason::machine::MACHINE_DELETING)
        .with_message("Machine is deleting");
    for machine in waiting {
        let after = condition::merge(conditions(machine), [said.clone()], None, now);
        all.machines.push(Remediation::of(machine, after, true));
    }
    all
}

impl Remediations {
    /// Machines say this, unless they do already.
    fn say(&mut self, machines: &[&Machine], said: &Report, now: Timestamp) {
        for machine in machines {
            let before = condition::get(conditions(machine), OWNER_REMEDIATED);
            let is_said =
                before.is_some_and(|old| old.reason == said.reason && old.message == said.message);
            if !is_said {
                let after = condition::merge(conditions(machine), [said.clone()], None, now);
                self.machines.push(Remediation::of(machine, after, false));
            }
        }
    }
}

/// How many Machines may be replaced at the same time, and as it was asked for; `None` when there is no bound.
fn max_in_flight(observed: &Observed) -> Option<(usize, String)> {
    let deployment = observed.deployment.found()?;
    let asked = deployment
        .spec
        .remediation
        .as_ref()?
        .max_in_flight
        .as_ref()?;
    let max = scaled(asked, replicas(deployment), Rounding::Up)?;
    let text = match asked {
        IntOrString::Int(count) => count.to_string(),
        IntOrString::String(text) => text.clone(),
    };
    Some((usize::try_from(max).unwrap_or(usize::MAX), text))
}

/// Machines that are being deleted to replace them.
fn in_flight(observed: &Observed) -> usize {
    let going = observed.bare_machines().filter(|machine| {
        is_deleting(&machine.metadata)
            && condition::get(conditions(machine), OWNER_REMEDIATED)
                .is_some_and(|c| c.reason == reason::machine::MACHINE_DELETING)
    });
    going.count()
}

#[cfg(test)]
pub(in crate::machine_set) mod tests;
