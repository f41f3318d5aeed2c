//! What the status of a MachineDeployment says.

use capstan_api::condition::{self, Report};
use capstan_api::reason::{common, condition_type, machine_deployment as reason};
use capstan_api::v1beta2::{Machine, MachineDeploymentPhase, MachineDeploymentStatus};
use jiff::Timestamp;

use super::observed::Observed;
use super::verdict::{Verdict, verdict};
use crate::plan::Next;
use crate::rollout::count::{self, Counts};
use crate::rollout::{conditions, limits};

/// Status and conditions, and what follows from the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: MachineDeploymentStatus,
    /// Conditions that the controller owns.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// The finalizer may go.
    pub finished: bool,
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, now: Timestamp) -> Reported {
    let machines = observed.machines();
    let counts = count::count(machines.iter().copied());
    let deleting = observed.is_deleting();
    let verdict = if deleting {
        Verdict::Settled
    } else {
        verdict(observed, now)
    };
    let wanted = if deleting {
        Some(0)
    } else {
        observed.deployment.spec.replicas
    };
    let mut blockers = observed.missing_templates();
    blockers.extend(verdict.blocker(&observed.strategy.name));
    let held = held_sets(observed);
    blockers.extend(held.iter().cloned());
    let slow = conditions::slow_deletions(machines.iter().copied(), now);
    let sources = |type_: &str| count::sources(machines.iter().copied(), type_, now);
    let conditions = vec![
        available(observed, &counts),
        rolling_out(&machines, &verdict, &observed.strategy.name, &held),
        upgrade_blocked(&verdict, &observed.strategy.name),
        conditions::remediating(&machines, now),
        conditions::scaling_down(counts.replicas, wanted, slow.as_deref()),
        conditions::scaling_up(
            counts.replicas,
            wanted,
            if deleting { &[] } else { &blockers },
        ),
        conditions::of_machines(
            condition_type::MACHINES_READY,
            condition_type::READY,
            &sources(condition_type::READY),
        ),
        conditions::of_machines(
            condition_type::MACHINES_UP_TO_DATE,
            condition_type::UP_TO_DATE,
            &sources(condition_type::UP_TO_DATE),
        ),
        conditions::deleting(deleting, "MachineSet", observed.sets.len(), slow.as_deref()),
    ];
    let status = MachineDeploymentStatus {
        selector: Some(selector(observed)),
        replicas: Some(counts.replicas),
        ready_replicas: Some(counts.ready),
        available_replicas: Some(counts.available),
        up_to_date_replicas: Some(counts.up_to_date),
        phase: Some(phase(observed, &counts)),
        versions: counts.versions,
        ..MachineDeploymentStatus::default()
    };
    Reported {
        status,
        conditions,
        next: None,
        finished: deleting && observed.sets.is_empty(),
    }
}

/// The selector as text, `key=value` joined by commas, sorted.
fn selector(observed: &Observed) -> String {
    crate::machine_set::selector_text(
        &observed.selector_labels(),
        &observed.deployment.spec.selector,
    )
}

fn phase(observed: &Observed, counts: &Counts) -> MachineDeploymentPhase {
    if observed.is_deleting() {
        return MachineDeploymentPhase::ScalingDown;
    }
    match observed.deployment.spec.replicas {
        None => MachineDeploymentPhase::Unknown,
        Some(wanted) if counts.replicas < wanted => MachineDeploymentPhase::ScalingUp,
        Some(wanted) if counts.replicas > wanted => MachineDeploymentPhase::ScalingDown,
        Some(_) if counts.available == counts.replicas => MachineDeploymentPhase::Running,
        Some(_) => MachineDeploymentPhase::ScalingUp,
    }
}

fn available(observed: &Observed, counts: &Counts) -> Report {
    let type_ = condition_type::AVAILABLE;
    if observed.is_deleting() {
        return Report::no(type_, common::NOT_AVAILABLE).with_message("Deletion in progress");
    }
    if observed.deployment.spec.replicas.is_none() {
        return Report::unknown(type_, common::WAITING_FOR_REPLICAS_SET)
            .with_message("Waiting for spec.replicas set");
    }
    let is_first = observed
        .deployment
        .status
        .as_ref()
        .is_none_or(|s| s.available_replicas.is_none());
    if is_first && observed.sets.is_empty() {
        return Report::unknown(type_, reason::WAITING_FOR_AVAILABLE_REPLICAS_SET)
            .with_message("Waiting for status.availableReplicas set");
    }
    let limits = limits::of(&observed.deployment);
    let available = u32::try_from(counts.available).unwrap_or_default();
    if available >= limits.floor() {
        return Report::yes(type_, common::AVAILABLE);
    }
    Report::no(type_, common::NOT_AVAILABLE).with_message(format!(
        "{available} available replicas, at least {} required (spec.strategy.rollout.maxUnavailable is {}, spec.replicas is {})",
        limits.floor(),
        limits.max_unavailable,
        limits.replicas
    ))
}

/// Whether the strategy cannot go on, and why. It is about the strategy; what it waits for is in `RollingOut`.
fn upgrade_blocked(verdict: &Verdict, strategy: &str) -> Report {
    let type_ = condition_type::UPGRADE_BLOCKED;
    let why = verdict.reason();
    if why == reason::NOT_BLOCKED {
        return Report::no(type_, why);
    }
    let message = match verdict {
        Verdict::Accepted(checked) if checked.roll_back().is_some() => {
            format!("{strategy}: {}", checked.message())
        }
        _ => verdict.blocker(strategy).unwrap_or_default(),
    };
    Report::yes(type_, why).with_message(message)
}

/// What keeps sets from making the machines that they should: who looks at the deployment need not look for the set.
fn held_sets(observed: &Observed) -> Vec<String> {
    let held = observed.sets.iter().filter(|seen| !seen.is_deleting());
    let lines = held.flat_map(|seen| {
        let status = seen.set.status.as_ref();
        let scaling = status.and_then(|status| {
            condition::get(&status.conditions, condition_type::SCALING_UP)
                .filter(|scaling| scaling.status == "True")
        });
        let message = scaling.map_or("", |scaling| scaling.message.as_str());
        // The first line says from how many to how many; each other one is a reason.
        let reasons = message
            .lines()
            .skip(1)
            .map(|line| line.trim_start_matches("* "));
        reasons.map(|line| format!("MachineSet {}: {line}", seen.name()))
    });
    lines.collect()
}

/// True while there are machines that say that they are not up to date; says why, version first, and what holds it.
fn rolling_out(
    machines: &[&Machine],
    verdict: &Verdict,
    strategy: &str,
    held: &[String],
) -> Report {
    let type_ = condition_type::ROLLING_OUT;
    let outdated = count::not_up_to_date(machines.iter().copied());
    let mut notes: Vec<String> = verdict.blocker(strategy).into_iter().collect();
    notes.extend(held.iter().cloned());
    if let Verdict::Accepted(checked) = verdict {
        if !checked.message().is_empty() {
            notes.push(format!("{strategy}: {}", checked.message()));
        }
        if let Some(waiting) = checked.waiting() {
            notes.push(format!(
                "{strategy} waits: {} ({})",
                waiting.message, waiting.reason
            ));
        }
    }
    if outdated.is_empty() {
        let report = Report::no(type_, common::NOT_ROLLING_OUT);
        let blocked = verdict.blocker(strategy);
        return blocked.map_or(report.clone(), |why| {
            report.with_message(format!("* {why}"))
        });
    }
    let mut reasons: Vec<&str> = outdated
        .iter()
        .flat_map(|condition| condition.message.lines())
        .map(|line| line.trim_start_matches("* "))
        .collect();
    reasons.sort_unstable_by_key(|line| (!line.starts_with("Version"), *line));
    reasons.dedup();
    let mut message = format!("Rolling out {} not up-to-date replicas", outdated.len());
    for line in reasons.into_iter().map(str::to_owned).chain(notes) {
        message.push_str("\n* ");
        message.push_str(&line);
    }
    Report::yes(type_, common::ROLLING_OUT).with_message(message)
}
