//! What a rotation does next.

use std::time::Duration;

use capstan_api::v1beta2::Cluster;
use jiff::{SignedDuration, Timestamp};

use super::super::size::{Size, size};
use super::super::{MaterialState, Member, Observed, Step, health};
use super::{Hold, Record, Stage, asked, given_up};
use crate::call::control_plane::Desired;
use crate::lookup::Lookup;

/// How soon machines that are being replaced are looked at again: workers do not wake their control plane.
const AGAIN: Duration = Duration::from_secs(5);
/// How soon after a step the next one follows: Secrets are not watched.
const NEXT: Duration = Duration::from_secs(1);
/// The longest name of a rotation.
const ID_MAX: usize = 128;

/// What a rotation does, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Nobody asked for one, or it cannot be seen.
    Idle,
    /// It cannot begin.
    Refused {
        /// Every reason.
        why: Vec<String>,
    },
    /// Something has to be put right by a person before it goes on.
    Blocked {
        /// What.
        why: String,
    },
    /// It is over.
    Done(Record),
    /// It is under way.
    Active {
        /// The stage that it is in, or about to enter.
        record: Record,
        /// The step that takes it further.
        step: Option<Step>,
        /// What it waits for.
        wait: String,
        /// The request was taken away too late.
        is_late: bool,
    },
}

impl Turn {
    /// When to look again.
    #[must_use]
    pub fn check_after(&self) -> Option<Duration> {
        match self {
            Self::Active { step: Some(_), .. } => Some(NEXT),
            Self::Active { step: None, .. } => Some(AGAIN),
            _ => None,
        }
    }
}

/// Looks at the whole and finds the next step.
#[must_use]
pub fn turn(observed: &Observed, now: Timestamp) -> Turn {
    let (Some(cluster), Ok(desired)) = (observed.cluster.found(), &observed.desired) else {
        return Turn::Idle;
    };
    if observed.rotation.secrets.is_empty() {
        // They could not be read, or nothing is asked about a control plane that goes.
        return Turn::Idle;
    }
    let wanted = asked(&observed.object);
    let record = match Record::of(cluster) {
        Ok(record) => record,
        Err(why) => return Turn::Blocked { why },
    };
    let is_active = record.as_ref().is_some_and(Record::is_active);
    if !is_active && let Some(back) = way_back(observed, record.as_ref(), now) {
        return enter(observed, &back, false);
    }
    match (record, wanted) {
        (Some(record), _) if is_active => active(observed, cluster, desired, record, now),
        (Some(record), Some(id)) if record.id == id => Turn::Done(record),
        (_, Some(id)) => begin(observed, id, now),
        (record, None) => record.map_or(Turn::Idle, Turn::Done),
    }
}

/// Seconds are all that creation times have. What was made within this one may be older.
fn next_second(now: Timestamp) -> Timestamp {
    let later = now
        .saturating_add(SignedDuration::from_secs(1))
        .unwrap_or(now);
    Timestamp::from_second(later.as_second()).unwrap_or(later)
}

fn fresh(id: &str, stage: Stage, undo: bool, now: Timestamp) -> Record {
    Record {
        id: id.to_owned(),
        stage,
        undo,
        since: next_second(now),
        workers: None,
        spared: None,
    }
}

/// The way back from a rotation that was given up, which comes before another one.
fn way_back(observed: &Observed, record: Option<&Record>, now: Timestamp) -> Option<Record> {
    let secrets = &observed.rotation.secrets;
    let id = given_up(secrets, record, asked(&observed.object))?;
    let new_signs = (Hold::NewSigns, id);
    let has_signed = secrets
        .iter()
        .any(|secret| secret.hold.as_ref() == Some(&new_signs));
    let stage = if has_signed { Stage::Sign } else { Stage::Done };
    Some(fresh(&new_signs.1, stage, true, now))
}

fn begin(observed: &Observed, id: &str, now: Timestamp) -> Turn {
    let mut why = Vec::new();
    let seen = &observed.rotation;
    if !seen.is_supported {
        why.push(format!(
            "plugin {} does not say that its machines take more than one certificate authority",
            observed.plugin.as_deref().unwrap_or("-")
        ));
    }
    if id.len() > ID_MAX {
        why.push(format!(
            "the value of the annotation has more than {ID_MAX} bytes"
        ));
    }
    why.extend(
        seen.secrets
            .iter()
            .filter_map(|secret| secret.obstacle.clone()),
    );
    why.extend(seen.kubeconfig_obstacle.clone());
    if !observed.was_initialized() {
        why.push("the control plane is not initialized yet".to_owned());
    }
    if !why.is_empty() {
        return Turn::Refused { why };
    }
    enter(observed, &fresh(id, Stage::Trust, false, now), false)
}

fn active(
    observed: &Observed,
    cluster: &Cluster,
    desired: &Desired,
    record: Record,
    now: Timestamp,
) -> Turn {
    let holds = |hold: Hold| {
        let mut secrets = observed.rotation.secrets.iter();
        secrets.any(|secret| {
            secret
                .hold
                .as_ref()
                .is_some_and(|(is, id)| *is == hold && *id == record.id)
        })
    };
    // Once the way back has begun it is gone to its end: machines may have been made with what it put into the Secrets.
    let has_turned = holds(Hold::Old) || (record.stage >= Stage::Sign && holds(Hold::OldSigns));
    let takes_back = !record.undo && (asked(&observed.object).is_none() || has_turned);
    let is_late = takes_back && (record.stage >= Stage::Drop || holds(Hold::New));
    if takes_back && !is_late {
        let has_signed = record.stage >= Stage::Sign || holds(Hold::NewSigns);
        let stage = if has_signed { Stage::Sign } else { Stage::Drop };
        let mut back = fresh(&record.id, stage, true, now);
        back.spared = (!has_signed && record.stage == Stage::Trust).then_some(record.since);
        return enter(observed, &back, is_late);
    }
    let next = fresh(&record.id, record.stage.next(), record.undo, now);
    let (is, becomes) = (record.stage.hold(record.undo), next.stage.hold(next.undo));
    // It was time for the next stage when the first Secret was changed for it. One that holds one certificate alone is not changed back.
    if is != becomes && !becomes.is_both() && holds(becomes) {
        return enter(observed, &next, is_late);
    }
    if let Some(wait) = unfinished(observed, cluster, desired, &record, now) {
        // What the stage asks for is put right again, whoever changed it.
        if let Turn::Active {
            step: Some(step),
            wait,
            ..
        } = enter(observed, &record, is_late)
            && !matches!(step, Step::RecordRotation { .. })
        {
            return Turn::Active {
                record,
                step: Some(step),
                wait,
                is_late,
            };
        }
        return match wait {
            Wait::Workers => {
                let record = Record {
                    workers: Some(next_second(now)),
                    ..record
                };
                let step = Step::RecordRotation {
                    record: record.clone(),
                };
                let wait = "the workers are next".to_owned();
                Turn::Active {
                    record,
                    step: Some(step),
                    wait,
                    is_late,
                }
            }
            Wait::For(wait) => Turn::Active {
                record,
                step: None,
                wait,
                is_late,
            },
        };
    }
    enter(observed, &next, is_late)
}

/// The steps into a stage, one at a time: the Secrets, the kubeconfig, what joining machines are told, and last the record.
fn enter(observed: &Observed, record: &Record, is_late: bool) -> Turn {
    let hold = record.stage.hold(record.undo);
    let turn = |step: Option<Step>, wait: &str| Turn::Active {
        record: record.clone(),
        step,
        wait: wait.to_owned(),
        is_late,
    };
    let seen = &observed.rotation;
    let holds = |secret: &super::SecretSeen| {
        secret
            .hold
            .as_ref()
            .is_some_and(|(is, id)| *is == hold && *id == record.id)
    };
    if !seen.secrets.iter().all(holds) {
        let step = Step::HoldAuthorities {
            hold,
            id: record.id.clone(),
        };
        return turn(Some(step), "the certificates in the Secrets change");
    }
    // A new kubeconfig is a new connection, over which the rest goes.
    if observed
        .material
        .found()
        .is_none_or(|material: &MaterialState| material.kubeconfig_due)
    {
        return turn(None, "the kubeconfig is made again");
    }
    match &seen.published {
        Lookup::Found(false) => {
            return turn(
                Some(Step::PublishAuthorities),
                "machines that join are told whom to trust",
            );
        }
        Lookup::Unknown(why) => {
            return turn(
                None,
                &format!("the workload cluster does not answer: {why}"),
            );
        }
        Lookup::Found(true) | Lookup::Missing => {}
    }
    let step = Step::RecordRotation {
        record: record.clone(),
    };
    turn(Some(step), "the stage begins")
}

/// What a stage still waits for.
enum Wait {
    /// The control plane is through, and workers follow.
    Workers,
    /// Something else.
    For(String),
}

fn unfinished(
    observed: &Observed,
    cluster: &Cluster,
    desired: &Desired,
    record: &Record,
    now: Timestamp,
) -> Option<Wait> {
    if record.since > now || record.workers.is_some_and(|since| since > now) {
        return Some(Wait::For("the stage begins".to_owned()));
    }
    let due: Vec<&str> = observed
        .members
        .iter()
        .filter(|member| record.is_machine_due(member.created(), now))
        .map(Member::name)
        .collect();
    if !due.is_empty() {
        return Some(Wait::For(listed("control-plane machines to replace", &due)));
    }
    let is_well = |member: &Member| {
        !member.is_deleting()
            && member.node_name().is_some()
            && health::is_healthy(&health::machine_conditions(observed, member, now)) == Some(true)
    };
    let wanted = usize::try_from(desired.replicas).unwrap_or(usize::MAX);
    let is_settled = observed.connected
        && observed.members.len() == wanted
        && size(observed, cluster, desired, now) == Size::Keep
        && observed.members.iter().all(is_well);
    if !is_settled {
        return Some(Wait::For("the control plane settles".to_owned()));
    }
    if !record.stage.has_workers() {
        return None;
    }
    if record.workers.is_none() {
        return Some(Wait::Workers);
    }
    let workers = observed.rotation.workers.iter();
    let due: Vec<&super::Worker> = workers
        .filter(|worker| record.are_workers_due(worker.created, now))
        .collect();
    if due.is_empty() {
        return None;
    }
    let names = |is_deployed: bool| -> Vec<&str> {
        let of = due
            .iter()
            .filter(|worker| worker.is_deployed == is_deployed);
        of.map(|worker| worker.name.as_str()).collect()
    };
    let mut lines = Vec::new();
    let (deployed, others) = (names(true), names(false));
    if !deployed.is_empty() {
        lines.push(listed("workers to replace", &deployed));
    }
    if !others.is_empty() {
        lines.push(listed(
            "workers of no MachineDeployment: delete them, or remove and join them again",
            &others,
        ));
    }
    Some(Wait::For(lines.join("; ")))
}

/// Names beyond these are only counted.
const NAMED_MAX: usize = 10;

fn listed(what: &str, names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).copied().collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{} {what}: {}{more}", names.len(), shown.join(", "))
}
