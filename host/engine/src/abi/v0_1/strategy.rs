//! `wit/v0.1/upgrade-strategy.wit`. What an answer may do to a deployment is checked by the core, which knows the limits; here it is
//! only made sure that it speaks of sets and machines that it was told of.

use std::collections::BTreeSet;
use std::time::Duration;

use capstan_core::call::strategy::{Answer, Facts, MachineFacts, MachineSetFacts, Target};
use futures::FutureExt;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::check::{self, Checked};
use super::exports::upgrade_strategy as wit;
use super::{Outcome, Roles, ask, lowered, role, types};
use crate::call::{CallState, Stop};
use crate::error::CallError;

const INTERFACE: &str = "upgrade-strategy";

pub(super) fn guest(
    roles: &Roles,
    store: &mut Store<CallState>,
    instance: &Instance,
) -> Result<wit::Guest, Stop> {
    role(roles.strategy.as_ref(), INTERFACE)?
        .load(store, instance)
        .map_err(Stop::Guest)
}

fn machine(facts: &MachineFacts) -> wit::Machine {
    wit::Machine {
        name: facts.name.clone(),
        age_ms: facts.age_ms,
        ready: facts.ready,
        available: facts.available,
        deleting: facts.deleting,
        healthy: facts.healthy,
        failure_domain: facts.failure_domain.clone(),
        capacity_class: facts.capacity_class.clone(),
        labels: facts.labels.clone(),
        annotations: facts.annotations.clone(),
    }
}

fn machine_set(facts: &MachineSetFacts) -> wit::MachineSet {
    wit::MachineSet {
        name: facts.name.clone(),
        current: facts.current,
        revision: facts.revision,
        age_ms: facts.age_ms,
        desired_replicas: facts.desired_replicas,
        actual_replicas: facts.actual_replicas,
        ready_replicas: facts.ready_replicas,
        available_replicas: facts.available_replicas,
        machines: facts.machines.iter().map(machine).collect(),
    }
}

fn lower(facts: &Facts) -> Result<wit::Facts, CallError> {
    Ok(wit::Facts {
        now_ms: facts.now_ms,
        deployment: facts.deployment.clone(),
        version: facts.version.clone(),
        replicas: facts.replicas,
        max_surge: facts.max_surge,
        max_unavailable: facts.max_unavailable,
        machine_sets: facts.machine_sets.iter().map(machine_set).collect(),
        settings: check::json_text("the strategy's settings", &facts.settings)?,
        state: facts.state.clone(),
        extra: types::extra(&facts.extra)?,
    })
}

pub(crate) fn plan<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    _wall: Duration,
    facts: Facts,
) -> Outcome<'a, Answer> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let facts = lowered(facts, lower)?;
        let answer = ask!(store, guest.call_plan("facts": facts));
        let answer = checked(answer.map_err(types::failure)?, &facts)?;
        check::state_of(store, answer.state.as_ref())?;
        Ok(answer)
    }
    .boxed()
}

pub(super) fn checked(answer: wit::Answer, facts: &wit::Facts) -> Checked<Answer> {
    let mut named = BTreeSet::new();
    for target in &answer.targets {
        let name = target.machine_set.as_str();
        check::rule(
            facts.machine_sets.iter().any(|set| set.name == name),
            || {
                format!(
                    "targets names the MachineSet {}, which is not of this deployment",
                    check::shown(name)
                )
            },
        )?;
        check::rule(named.insert(name), || {
            format!("targets names the MachineSet {name} twice")
        })?;
    }
    let machines: BTreeSet<&str> = facts
        .machine_sets
        .iter()
        .flat_map(|set| &set.machines)
        .map(|machine| machine.name.as_str())
        .collect();
    for name in &answer.delete_first {
        check::rule(machines.contains(name.as_str()), || {
            format!(
                "deleteFirst names the Machine {}, which is not of this deployment",
                check::shown(name)
            )
        })?;
    }
    Ok(Answer {
        targets: answer
            .targets
            .into_iter()
            .map(|target| Target {
                machine_set: target.machine_set,
                replicas: target.replicas,
                create_disabled: target.create_disabled,
            })
            .collect(),
        delete_first: answer.delete_first,
        waiting: answer.waiting.map(types::waiting).transpose()?,
        message: check::message("message", answer.message)?,
        state: check::state(answer.state)?,
        extra: check::extra(answer.extra)?,
    })
}
