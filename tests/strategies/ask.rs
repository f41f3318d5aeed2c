//! Asks a strategy as the host would, without wasm between them.

use capstan_core::call::Waiting;
use capstan_core::call::strategy::{Answer, Facts, MachineFacts, MachineSetFacts, Target};
use capstan_core::machine_deployment::StrategyAnswer;
use capstan_core::plan::Failure;
use capstan_sdk::upgrade_strategy as sdk;

/// A strategy, asked with the host's facts.
pub type Strategy = fn(&Facts) -> StrategyAnswer;

/// Asks one of the shipped strategies.
pub fn ask<T: sdk::UpgradeStrategy>(facts: &Facts) -> StrategyAnswer {
    let settings = match serde_json::from_value(facts.settings.clone()) {
        Ok(settings) => settings,
        Err(error) => {
            return StrategyAnswer::Failed(Failure::terminal("Settings", error.to_string()));
        }
    };
    match T::plan(lower(facts, settings)) {
        Ok(answer) => StrategyAnswer::Answer(Box::new(lift(answer))),
        Err(failure) => StrategyAnswer::Failed(Failure::terminal(failure.reason, failure.message)),
    }
}

fn lower<S>(facts: &Facts, settings: S) -> sdk::Facts<S> {
    sdk::Facts {
        now_ms: facts.now_ms,
        deployment: facts.deployment.clone(),
        version: facts.version.clone(),
        replicas: facts.replicas,
        max_surge: facts.max_surge,
        max_unavailable: facts.max_unavailable,
        machine_sets: facts.machine_sets.iter().map(machine_set).collect(),
        settings,
        state: facts.state.clone(),
        extra: facts.extra.iter().cloned().collect(),
    }
}

fn machine_set(set: &MachineSetFacts) -> sdk::MachineSet {
    sdk::MachineSet {
        name: set.name.clone(),
        current: set.current,
        revision: set.revision,
        age_ms: set.age_ms,
        desired_replicas: set.desired_replicas,
        actual_replicas: set.actual_replicas,
        ready_replicas: set.ready_replicas,
        available_replicas: set.available_replicas,
        machines: set.machines.iter().map(machine).collect(),
    }
}

fn machine(machine: &MachineFacts) -> sdk::Machine {
    sdk::Machine {
        name: machine.name.clone(),
        age_ms: machine.age_ms,
        ready: machine.ready,
        available: machine.available,
        deleting: machine.deleting,
        healthy: machine.healthy,
        failure_domain: machine.failure_domain.clone(),
        capacity_class: machine.capacity_class.clone(),
        labels: machine.labels.clone(),
        annotations: machine.annotations.clone(),
    }
}

fn lift(answer: sdk::Answer) -> Answer {
    let targets = answer.targets.into_iter().map(|target| Target {
        machine_set: target.machine_set,
        replicas: target.replicas,
        create_disabled: target.create_disabled,
    });
    Answer {
        targets: targets.collect(),
        delete_first: answer.delete_first,
        waiting: answer.waiting.map(|waiting| Waiting {
            reason: waiting.reason,
            message: waiting.message,
            check_after: waiting.check_after,
        }),
        message: answer.message,
        state: answer.state,
        extra: answer.extra.into_iter().collect(),
    }
}
