//! What a Machine's status says: phase, references, and every condition that the Machine controller owns.
//!
//! Contract: upstream `core/reconcilers/machine/machine_controller_status.go`.

mod node;
mod ready;

use std::time::Duration;

use capstan_api::annotation;
use capstan_api::condition::combine::{Fallback, mirror};
use capstan_api::condition::{self, Report};
use capstan_api::machine_hook::MachineHookPhase as Phase;
use capstan_api::v1beta2::{
    MachineAddress, MachineDeletionStatus, MachineInitializationStatus, MachineNodeReference,
    MachinePhase, MachineStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::deletion::{self, Stage};
use super::{Effect, Known, NodeLookup, Observed, Step, hook, text};
use crate::lookup::Lookup;
use crate::plan::{Next, Outcome};
use crate::rollout::count;

/// A deletion that takes longer than this explains itself in `Ready`.
pub(crate) const LONG_DELETION_S: i64 = 15 * 60;

/// When what is to be done in a workload cluster, and whose turn has not come, asks again.
pub(crate) const TURN_RECHECK: Duration = Duration::from_secs(2);

/// Status and conditions, and what follows from the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: MachineStatus,
    /// Conditions that the Machine controller owns.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// The finalizer may go.
    pub finished: bool,
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, outcome: &Outcome<Step, Effect>, now: Timestamp) -> Reported {
    let known = observed.known();
    let mut status = observed.machine.status.clone().unwrap_or_default();
    let before = std::mem::take(&mut status.conditions);
    status.observed_generation = None;
    status.initialization = initialization(&known);
    if let Some(infra) = observed.infra.found().filter(|_| known.provisioned) {
        copy_infrastructure(&mut status, infra);
    }
    if let NodeLookup::One(node) = &observed.node {
        status.node_ref = text(node, "/metadata/name").map(|name| MachineNodeReference {
            name: name.to_owned(),
        });
        status.node_info = node
            .pointer("/status/nodeInfo")
            .and_then(|info| serde_json::from_value(info.clone()).ok())
            .or(status.node_info);
    }
    status.certificates_expiry_date = certificates_expiry(observed);
    let stage = observed
        .is_deleting()
        .then(|| deletion::stage(observed, now));
    // A look that found no volumes was no wait.
    let found_nothing =
        |(_, effect): &(Step, Effect)| matches!(effect, Effect::Volumes(left) if left.is_empty());
    if let Some(stage) = &stage
        && !outcome.done.iter().any(found_nothing)
    {
        status.deletion = Some(started(status.deletion.unwrap_or_default(), stage, now));
    }
    let phase = phase(observed, &known, &status);
    if status.phase.as_ref() != Some(&phase) {
        status.last_updated = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        status.phase = Some(phase);
    }
    let (conditions, merged) = conditions(observed, &known, &before, stage.as_ref(), outcome, now);
    let finished = stage == Some(Stage::Completed);
    let moved_on = outcome.done.iter().any(|(_, effect)| match effect {
        Effect::Drain(left) | Effect::Volumes(left) => left.is_empty(),
        // Writing it down wakes the Machine; a wait that is remembered only does not.
        Effect::Hook(_) => true,
        Effect::NotItsTurn | Effect::Done => false,
    });
    let has_to_wait = outcome
        .done
        .iter()
        .any(|(_, effect)| *effect == Effect::NotItsTurn);
    let sooner = [
        moved_on.then_some(Duration::ZERO),
        has_to_wait.then_some(TURN_RECHECK),
        ready::until_available(observed, &merged, now),
    ];
    let next = sooner.into_iter().flatten().min().map(Next::CheckAfter);
    Reported {
        status,
        conditions,
        next,
        finished,
    }
}

/// When the certificates of a control-plane machine expire: the Machine's annotation says it, else that of its bootstrap config.
fn certificates_expiry(observed: &Observed) -> Option<Time> {
    if !count::is_control_plane(&observed.machine) {
        return None;
    }
    let own = count::annotation(&observed.machine.metadata, annotation::CERTIFICATES_EXPIRY);
    let config = observed.bootstrap.as_ref().and_then(Lookup::found);
    let of_config = config
        .and_then(|config| config.pointer("/metadata/annotations"))
        .and_then(|annotations| annotations.get(annotation::CERTIFICATES_EXPIRY))
        .and_then(Value::as_str);
    let expires: Timestamp = own.or(of_config)?.parse().ok()?;
    Some(Time(
        Timestamp::from_second(expires.as_second()).unwrap_or(expires),
    ))
}

fn initialization(known: &Known) -> Option<MachineInitializationStatus> {
    let flag = |set: bool| set.then_some(true);
    let initialization = MachineInitializationStatus {
        infrastructure_provisioned: flag(known.provisioned),
        bootstrap_data_secret_created: flag(known.bootstrapped),
    };
    (initialization != MachineInitializationStatus::default()).then_some(initialization)
}

fn copy_infrastructure(status: &mut MachineStatus, infra: &Value) {
    let addresses = infra
        .pointer("/status/addresses")
        .cloned()
        .unwrap_or_default();
    if let Ok(addresses) = serde_json::from_value::<Vec<MachineAddress>>(addresses) {
        status.addresses = addresses;
    }
    if let Some(domain) = text(infra, "/status/failureDomain") {
        status.failure_domain = Some(domain.to_owned());
    }
}

/// Stamps the start of the wait that a stage is.
fn started(
    mut times: MachineDeletionStatus,
    stage: &Stage,
    now: Timestamp,
) -> MachineDeletionStatus {
    let now = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    let slot = match stage {
        Stage::PreDrainHook(_) => &mut times.wait_for_pre_drain_hook_start_time,
        Stage::Drain(_) => &mut times.node_drain_start_time,
        Stage::Volumes(_) => &mut times.wait_for_node_volume_detach_start_time,
        Stage::PreTerminateHook(_) => &mut times.wait_for_pre_terminate_hook_start_time,
        Stage::Infrastructure | Stage::Bootstrap | Stage::Node(_) | Stage::Completed => {
            return times;
        }
    };
    if slot.is_none() {
        *slot = now;
    }
    times
}

fn phase(observed: &Observed, known: &Known, status: &MachineStatus) -> MachinePhase {
    if observed.is_deleting() {
        MachinePhase::Deleting
    } else if status.node_ref.is_some() && known.provisioned {
        MachinePhase::Running
    } else if known.provider_id.is_some() {
        MachinePhase::Provisioned
    } else if known.bootstrapped {
        MachinePhase::Provisioning
    } else {
        MachinePhase::Pending
    }
}

/// The conditions, and with those of others what they were made of, `Ready` included.
fn conditions(
    observed: &Observed,
    known: &Known,
    before: &[Condition],
    stage: Option<&Stage>,
    outcome: &Outcome<Step, Effect>,
    now: Timestamp,
) -> (Vec<Report>, Vec<Condition>) {
    let mut reports = vec![
        bootstrap_ready(observed, known),
        infrastructure_ready(observed, known),
        Report::no("Updating", "NotUpdating"),
        deleting(observed, stage, outcome),
    ];
    reports.extend(node::conditions(observed, known, before, now));
    reports.extend(up_to_date(observed));
    if stage.is_some() {
        reports.extend(hook_conditions(observed, outcome, now));
    }
    let merged = condition::merge(before, reports.clone(), None, now);
    let ready = ready::ready(observed, &merged, stage, now);
    let merged = condition::merge(&merged, [ready.clone()], None, now);
    reports.push(ready::available(observed, &merged, now));
    reports.push(ready);
    (reports, merged)
}

/// A bootstrap provider that says that there are data and not where is at fault (contract 3.3.2).
fn bootstrap_ready(observed: &Observed, known: &Known) -> Report {
    const TYPE: &str = "BootstrapConfigReady";
    let spec = &observed.machine.spec;
    let Some(config_ref) = &spec.bootstrap.config_ref else {
        return Report::yes(TYPE, "DataSecretProvided");
    };
    let name = format!("{} {}", config_ref.kind, config_ref.name);
    match observed.bootstrap.as_ref().unwrap_or(&Lookup::Missing) {
        Lookup::Found(config) if !known.bootstrapped && super::says_created(config) => {
            let message = format!("{} status.dataSecretName is empty", config_ref.kind);
            Report::no(TYPE, "NotReady").with_message(message)
        }
        Lookup::Found(config) => {
            let message = format!(
                "{} status.initialization.dataSecretCreated is false",
                config_ref.kind
            );
            mirror(
                TYPE,
                condition::read(config, "Ready").as_ref(),
                &Fallback {
                    done: known.bootstrapped,
                    reason_when_done: "Ready",
                    reason_until_done: "NotReady",
                    message_until_done: &message,
                },
            )
        }
        Lookup::Missing if observed.is_deleting() && known.bootstrapped => {
            Report::no(TYPE, "ObjectDeleted").with_message(format!("{name} has been deleted"))
        }
        Lookup::Missing => {
            Report::no(TYPE, "ObjectDoesNotExist").with_message(format!("{name} does not exist"))
        }
        Lookup::Unknown(why) => Report::unknown(TYPE, "InternalError").with_message(why.clone()),
    }
}

fn infrastructure_ready(observed: &Observed, known: &Known) -> Report {
    const TYPE: &str = "InfrastructureReady";
    let infra_ref = &observed.machine.spec.infrastructure_ref;
    let name = format!("{} {}", infra_ref.kind, infra_ref.name);
    match &observed.infra {
        Lookup::Found(infra) => {
            let message = format!(
                "{} status.initialization.provisioned is false",
                infra_ref.kind
            );
            mirror(
                TYPE,
                condition::read(infra, "Ready").as_ref(),
                &Fallback {
                    done: known.provisioned,
                    reason_when_done: "Ready",
                    reason_until_done: "NotReady",
                    message_until_done: &message,
                },
            )
        }
        Lookup::Missing if known.provisioned && observed.is_deleting() => {
            Report::no(TYPE, "ObjectDeleted").with_message(format!("{name} has been deleted"))
        }
        Lookup::Missing if known.provisioned => Report::no(TYPE, "ObjectDeleted").with_message(
            format!("{name} has been deleted while the Machine still exists"),
        ),
        Lookup::Missing => {
            Report::no(TYPE, "ObjectDoesNotExist").with_message(format!("{name} does not exist"))
        }
        Lookup::Unknown(why) => Report::unknown(TYPE, "InternalError").with_message(why.clone()),
    }
}

fn up_to_date(observed: &Observed) -> Option<Report> {
    let reasons = observed.outdated.as_ref()?;
    Some(
        if let Some(running) = other_version(observed).filter(|_| reasons.is_empty()) {
            Report::no("UpToDate", "Updating").with_message(format!(
                "* Node runs Kubernetes {running}, spec.version is {}",
                observed.machine.spec.version.as_deref().unwrap_or_default()
            ))
        } else if !reasons.is_empty() {
            let lines: Vec<String> = reasons.iter().map(|reason| format!("* {reason}")).collect();
            Report::no("UpToDate", "NotUpToDate").with_message(lines.join("\n"))
        } else {
            Report::yes("UpToDate", "UpToDate")
        },
    )
}

/// The version that the Node runs, when it is not the one that is asked for.
fn other_version(observed: &Observed) -> Option<&str> {
    let wanted = observed.machine.spec.version.as_deref()?;
    let seen = match &observed.node {
        NodeLookup::One(node) => text(node, "/status/nodeInfo/kubeletVersion"),
        NodeLookup::NotLooked | NodeLookup::None | NodeLookup::Several(_) => None,
    };
    let status = observed.machine.status.as_ref();
    let known = status.and_then(|status| status.node_info.as_ref());
    let running = seen.or(known.map(|info| info.kubelet_version.as_str()))?;
    (!running.is_empty() && running.trim_start_matches('v') != wanted.trim_start_matches('v'))
        .then_some(running)
}

fn deleting(observed: &Observed, stage: Option<&Stage>, outcome: &Outcome<Step, Effect>) -> Report {
    let Some(stage) = stage else {
        return Report::no("Deleting", "NotDeleting");
    };
    let mut message = stage.message(observed);
    let facts = &observed.deletion;
    let last = match stage {
        Stage::Drain(_) => facts.drain.as_ref(),
        Stage::Volumes(_) => facts.volumes.as_ref(),
        _ => None,
    };
    let last = last.map(|turn| &turn.left);
    let newest = outcome.done.iter().find_map(|(_, effect)| match effect {
        Effect::Drain(left) | Effect::Volumes(left) => Some(left),
        Effect::Hook(_) | Effect::NotItsTurn | Effect::Done => None,
    });
    if let Some(left) = newest.or(last).filter(|left| !left.is_empty()) {
        message.push_str(":\n");
        message.push_str(&left.join("\n"));
    }
    if let Some((_, failure)) = &outcome.failed {
        message = format!("{message}: {}", failure.message);
    }
    Report::yes("Deleting", stage.reason()).with_message(message)
}

/// What bound hooks have said, those included that were asked just now.
fn hook_conditions(
    observed: &Observed,
    outcome: &Outcome<Step, Effect>,
    now: Timestamp,
) -> Vec<Report> {
    let mut after = observed.clone();
    for (_, effect) in &outcome.done {
        let Effect::Hook(turn) = effect else {
            continue;
        };
        let mut hooks = after.deletion.hooks.iter_mut();
        if let Some(hook) = hooks.find(|hook| hook.name == turn.hook) {
            hook.record = Some(turn.record.clone());
            hook.said = Some(turn.said.clone());
        }
    }
    [Phase::PreDrain, Phase::PreTerminate]
        .into_iter()
        .filter_map(|phase| {
            let pending = deletion::pending(&after, phase);
            hook::report(&after.deletion.hooks, phase, &pending, now)
        })
        .collect()
}

#[cfg(test)]
pub(in crate::machine) mod tests;
