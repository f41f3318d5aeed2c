//! What the status of a MachinePool says.

use std::time::Duration;

use capstan_api::annotation;
use capstan_api::condition;
use capstan_api::condition::Report;
use capstan_api::condition::combine::{Fallback, mirror, names};
use capstan_api::contract::InfraMachinePool;
use capstan_api::reason::{common, condition_type, machine, machine_pool as reason};
use capstan_api::v1beta2::{
    Machine, MachinePoolInitializationStatus, MachinePoolPhase, MachinePoolStatus, StatusVersion,
};
use jiff::Timestamp;
use serde_json::Value;

use super::deletion::{self, Stage};
use super::nodes;
use super::observed::{Observed, text};
use crate::lookup::Lookup;
use crate::plan::Next;
use crate::rollout::{conditions, count};

/// Status and conditions, and what follows from the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: MachinePoolStatus,
    /// Conditions that the controller owns.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// The finalizer may go.
    pub finished: bool,
}

/// What the status says. `failed` is why something could not be done, if that was tried.
#[must_use]
pub fn report(observed: &Observed, failed: Option<&str>, now: Timestamp) -> Reported {
    let stage = observed
        .is_deleting()
        .then(|| deletion::stage(observed, now));
    let machines: Vec<&Machine> = observed.bare_machines().collect();
    let status = status(observed, &machines);
    let sources = |type_: &str| count::sources(machines.iter().copied(), type_, now);
    let replicas = status.replicas.unwrap_or_default();
    let wanted = match stage {
        Some(_) => Some(0),
        None => observed.pool.spec.replicas,
    };
    let slow = conditions::slow_deletions(machines.iter().copied(), now);
    let mut blockers: Vec<String> = observed.refusal().into_iter().collect();
    blockers.extend(failed.map(str::to_owned));
    let conditions = vec![
        available(observed, stage.as_ref()),
        bootstrap_ready(observed),
        infrastructure_ready(observed),
        conditions::remediating(&machines, now),
        conditions::scaling_down(replicas, wanted, slow.as_deref()),
        conditions::scaling_up(replicas, wanted, &blockers),
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
        match &stage {
            Some(stage) => Report::yes(condition_type::DELETING, stage.reason())
                .with_message(with_failure(stage.message(), failed)),
            None => Report::no(condition_type::DELETING, common::NOT_DELETING),
        },
    ];
    Reported {
        next: until_available(observed, &machines),
        status,
        conditions,
        finished: stage == Some(Stage::Completed),
    }
}

fn with_failure(message: String, failed: Option<&str>) -> String {
    match failed {
        Some(why) => format!("{message}: {why}"),
        None => message,
    }
}

/// Machines become available by time alone.
fn until_available(observed: &Observed, machines: &[&Machine]) -> Option<Next> {
    let min_ready = observed.pool.spec.template.spec.min_ready_seconds?;
    let min_ready = u64::try_from(min_ready)
        .ok()
        .filter(|seconds| *seconds > 0)?;
    let counts = count::count(machines.iter().copied());
    (counts.available < counts.ready).then(|| Next::CheckAfter(Duration::from_secs(min_ready)))
}

/// Where there are no Machines the provider's number stands for all others (contract 3.7).
fn status(observed: &Observed, machines: &[&Machine]) -> MachinePoolStatus {
    let before = observed.status();
    let replicas = match &observed.infra {
        Lookup::Found(infra) => InfraMachinePool(infra).replicas(),
        Lookup::Missing => Some(0).filter(|_| before.replicas.is_some()),
        Lookup::Unknown(_) => before.replicas,
    };
    let counts = count::count(machines.iter().copied());
    let has_machines = observed.has_machines() || !machines.is_empty();
    let (ready, available, up_to_date) = if has_machines {
        (
            Some(counts.ready),
            Some(counts.available),
            Some(counts.up_to_date),
        )
    } else {
        (replicas, replicas, observed.pool.spec.replicas)
    };
    let node_refs = nodes::references(observed);
    let initialization = MachinePoolInitializationStatus {
        infrastructure_provisioned: Some(observed.is_provisioned()),
        bootstrap_data_secret_created: Some(observed.is_bootstrapped()),
    };
    let phase = phase(observed, !node_refs.is_empty(), ready.unwrap_or_default());
    MachinePoolStatus {
        versions: if has_machines {
            counts.versions
        } else {
            versions(observed)
        },
        initialization: Some(initialization),
        node_refs,
        replicas,
        ready_replicas: ready,
        available_replicas: available,
        up_to_date_replicas: up_to_date.filter(|_| replicas.is_some()),
        phase: Some(phase),
        ..MachinePoolStatus::default()
    }
}

/// Versions that the Nodes run; those of the status while they cannot be seen.
fn versions(observed: &Observed) -> Vec<StatusVersion> {
    let (Some(_), Some(ids)) = (observed.nodes.found(), observed.provider_ids()) else {
        return observed.status().versions;
    };
    let running = ids.iter().filter_map(|id| {
        let version = text(observed.node(id)?, "/status/nodeInfo/kubeletVersion")?;
        Some(StatusVersion {
            version: version.to_owned(),
            replicas: Some(1),
        })
    });
    count::versions_of(running)
}

/// Contract: upstream `machinepool_controller_phases.go`.
fn phase(observed: &Observed, has_nodes: bool, ready: i32) -> MachinePoolPhase {
    if observed.is_deleting() {
        return MachinePoolPhase::Deleting;
    }
    let provisioned = observed.is_provisioned();
    if let Some(wanted) = observed.pool.spec.replicas.filter(|_| provisioned) {
        return match ready.cmp(&wanted) {
            std::cmp::Ordering::Equal => MachinePoolPhase::Running,
            _ if is_managed_elsewhere(observed) => MachinePoolPhase::Scaling,
            std::cmp::Ordering::Less => MachinePoolPhase::ScalingUp,
            std::cmp::Ordering::Greater => MachinePoolPhase::ScalingDown,
        };
    }
    if has_nodes {
        MachinePoolPhase::Provisioned
    } else if observed.is_bootstrapped() && !provisioned {
        MachinePoolPhase::Provisioning
    } else {
        MachinePoolPhase::Pending
    }
}

/// Whether something else decides about the number of machines.
fn is_managed_elsewhere(observed: &Observed) -> bool {
    let by = count::annotation(&observed.pool.metadata, annotation::REPLICAS_MANAGED_BY);
    by.is_some_and(|by| by != "false")
}

/// Whether as many Nodes are ready as there should be.
fn available(observed: &Observed, stage: Option<&Stage>) -> Report {
    let type_ = condition_type::AVAILABLE;
    let not = |message: String| Report::no(type_, common::NOT_AVAILABLE).with_message(message);
    if stage.is_some() {
        return not("Deletion in progress".to_owned());
    }
    if let Some(why) = observed.refusal() {
        return not(why);
    }
    if !observed.is_provisioned() {
        let kind = &observed.infra_ref().kind;
        return not(format!("Waiting for {kind} to be provisioned"));
    }
    let Some(wanted) = observed.pool.spec.replicas else {
        return Report::unknown(type_, common::WAITING_FOR_REPLICAS_SET)
            .with_message("Waiting for spec.replicas set");
    };
    if let Lookup::Unknown(why) = &observed.nodes {
        return Report::unknown(type_, common::AVAILABLE_UNKNOWN).with_message(why.clone());
    }
    let ambiguous: Vec<&str> = observed.ambiguous_nodes().into_iter().collect();
    if !ambiguous.is_empty() {
        return not(format!(
            "Nodes {} share a provider ID: delete those whose machine is gone",
            names(&ambiguous)
        ));
    }
    if !observed.taken.is_empty() {
        let taken: Vec<&str> = observed.taken.iter().map(String::as_str).collect();
        return not(format!(
            "Machines {} belong to others and have names of machines of the pool: rename or delete them",
            names(&taken)
        ));
    }
    let ids = observed.provider_ids().unwrap_or_default();
    let nodes = ids.iter().filter_map(|id| observed.node(id));
    let ready = nodes.filter(|node| nodes::is_ready(node)).count();
    if i32::try_from(ready).unwrap_or(i32::MAX) < wanted {
        return not(format!("{ready} of {wanted} Nodes are ready"));
    }
    Report::yes(type_, common::AVAILABLE)
}

fn bootstrap_ready(observed: &Observed) -> Report {
    let type_ = condition_type::BOOTSTRAP_CONFIG_READY;
    let Some(reference) = observed.config_ref() else {
        return Report::yes(type_, machine::DATA_SECRET_PROVIDED);
    };
    let until_done = format!(
        "{} status.initialization.dataSecretCreated is false",
        reference.kind
    );
    let fallback = Fallback {
        done: observed.is_bootstrapped(),
        reason_when_done: common::READY,
        reason_until_done: common::NOT_READY,
        message_until_done: &until_done,
    };
    let seen = observed.bootstrap.as_ref().unwrap_or(&Lookup::Missing);
    let name = format!("{} {}", reference.kind, reference.name);
    of_object(observed, type_, seen, &fallback, &name)
}

fn infrastructure_ready(observed: &Observed) -> Report {
    let type_ = condition_type::INFRASTRUCTURE_READY;
    if let Some(why) = observed.refusal() {
        return Report::no(type_, reason::REFERENCE_NOT_SUPPORTED).with_message(why);
    }
    let reference = observed.infra_ref();
    let until_done = format!(
        "{} status.initialization.provisioned is false",
        reference.kind
    );
    let fallback = Fallback {
        done: observed.is_provisioned(),
        reason_when_done: common::READY,
        reason_until_done: common::NOT_READY,
        message_until_done: &until_done,
    };
    let name = format!("{} {}", reference.kind, reference.name);
    of_object(observed, type_, &observed.infra, &fallback, &name)
}

/// What an object that the pool names says of itself, or that it is not there.
fn of_object(
    observed: &Observed,
    type_: &str,
    seen: &Lookup<std::sync::Arc<Value>>,
    fallback: &Fallback<'_>,
    name: &str,
) -> Report {
    match seen {
        Lookup::Found(object) => mirror(type_, condition::read(object, "Ready").as_ref(), fallback),
        Lookup::Missing if observed.is_deleting() => Report::no(type_, common::OBJECT_DELETED)
            .with_message(format!("{name} has been deleted")),
        Lookup::Missing => Report::no(type_, common::OBJECT_DOES_NOT_EXIST)
            .with_message(format!("{name} does not exist")),
        Lookup::Unknown(why) => {
            Report::unknown(type_, common::INTERNAL_ERROR).with_message(why.clone())
        }
    }
}
