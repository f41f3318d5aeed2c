//! What the status of a MachineSet says.

use std::time::Duration;

use capstan_api::condition::Report;
use capstan_api::reason::condition_type;
use capstan_api::v1beta2::{Machine, MachineSetStatus};
use jiff::Timestamp;

use super::decide::blocked;
use super::observed::Observed;
use super::selector_text;
use crate::plan::Next;
use crate::rollout::{conditions, count};

/// Machines that are not ready are looked at again after this time.
const NOT_READY_RECHECK: Duration = Duration::from_secs(15);

/// Status and conditions, and what follows from the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: MachineSetStatus,
    /// Conditions that the controller owns.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// The finalizer may go.
    pub finished: bool,
}

/// What the status says. `failed` is why Machines could not be made, if that was tried.
#[must_use]
pub fn report(observed: &Observed, failed: Option<&str>, now: Timestamp) -> Reported {
    let machines: Vec<&Machine> = observed.bare_machines().collect();
    let counts = count::count(machines.iter().copied());
    let deleting = observed.is_deleting();
    let wanted = if deleting {
        Some(0)
    } else {
        observed.set.spec.replicas
    };
    let slow = conditions::slow_deletions(machines.iter().copied(), now);
    let short = wanted.is_some_and(|wanted| counts.replicas < wanted);
    // Checks of the control plane only matter when machines have to be made.
    let mut blockers = match (deleting, short) {
        (true, _) => Vec::new(),
        (false, true) if observed.is_create_disabled() => {
            vec!["its MachineDeployment keeps it from making Machines".to_owned()]
        }
        (false, true) => blocked(observed),
        (false, false) => observed.missing_templates(),
    };
    blockers.extend(failed.filter(|_| short).map(str::to_owned));
    let sources = |type_: &str| count::sources(machines.iter().copied(), type_, now);
    let conditions = vec![
        conditions::remediating(&machines, now),
        conditions::scaling_down(counts.replicas, wanted, slow.as_deref()),
        conditions::scaling_up(counts.replicas, wanted, &blockers),
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
        conditions::deleting(deleting, "Machine", machines.len(), slow.as_deref()),
    ];
    let next = next(observed, &counts, wanted);
    let status = MachineSetStatus {
        selector: Some(selector_text(
            &observed.selector_labels(),
            &observed.set.spec.selector,
        )),
        replicas: Some(counts.replicas),
        ready_replicas: Some(counts.ready),
        available_replicas: Some(counts.available),
        up_to_date_replicas: Some(counts.up_to_date),
        versions: counts.versions,
        ..MachineSetStatus::default()
    };
    Reported {
        status,
        conditions,
        next,
        finished: deleting && machines.is_empty(),
    }
}

fn next(observed: &Observed, counts: &count::Counts, wanted: Option<i32>) -> Option<Next> {
    let wanted = wanted?;
    if observed.is_deleting() || counts.replicas == 0 {
        return None;
    }
    if counts.ready != wanted {
        return Some(Next::CheckAfter(NOT_READY_RECHECK));
    }
    let min_ready = observed
        .set
        .spec
        .template
        .spec
        .min_ready_seconds
        .unwrap_or_default();
    let min_ready = u64::try_from(min_ready).unwrap_or_default();
    (min_ready > 0 && counts.available != wanted)
        .then(|| Next::CheckAfter(Duration::from_secs(min_ready)))
}
