//! Every condition that the Cluster controller owns.

use std::sync::Arc;

use capstan_api::condition::combine::{
    self, Fallback, Part, Polarity, Reasons, Source, aggregate, mirror, summary,
};
use capstan_api::condition::{self, Report};
use capstan_api::reason::{cluster as reason, common, condition_type};
use capstan_api::v1beta2::{ContractVersionedObjectReference, Machine};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::PROBE_GRACE;
use crate::cluster::deletion::Stage;
use crate::cluster::observed::{Kubeconfig, Observed, is_deleting_value, kind_of};
use crate::lookup::Lookup;
use crate::material::{CERTIFICATE_KEY, CLUSTER_CA, KUBECONFIG, PRIVATE_KEY};
use crate::rollout::conditions::{of_machines, remediating};
use crate::rollout::count;

/// A connection may fail this often before one that never worked is reported as failing.
const FAILURES_MAX: u32 = 5;

/// Every condition, `Available` last because it sums the others up.
pub(super) fn all(observed: &Observed, stage: Option<&Stage>, now: Timestamp) -> Vec<Report> {
    let control_plane: Vec<&Machine> = observed.control_plane_machines().collect();
    let workers: Vec<&Machine> = observed.own_workers().collect();
    let every: Vec<&Machine> = observed.machines.iter().map(|machine| &**machine).collect();
    let ready = condition_type::READY;
    let up_to_date = condition_type::UP_TO_DATE;
    let machines = |target: &str, type_: &str, machines: &[&Machine]| {
        of_machines(
            target,
            type_,
            &count::sources(machines.iter().copied(), type_, now),
        )
    };
    let mut reports = vec![
        infrastructure_ready(observed),
        control_plane_available(observed),
        control_plane_initialized(observed),
        workers_available(observed),
        machines(
            condition_type::CONTROL_PLANE_MACHINES_READY,
            ready,
            &control_plane,
        ),
        machines(condition_type::WORKER_MACHINES_READY, ready, &workers),
        machines(
            condition_type::CONTROL_PLANE_MACHINES_UP_TO_DATE,
            up_to_date,
            &control_plane,
        ),
        machines(
            condition_type::WORKER_MACHINES_UP_TO_DATE,
            up_to_date,
            &workers,
        ),
        moving(observed, &ROLLING_OUT),
        moving(observed, &SCALING_UP),
        moving(observed, &SCALING_DOWN),
        remediating(&every, now),
        match stage {
            Some(stage) => Report::yes(condition_type::DELETING, stage.reason)
                .with_message(stage.message.clone()),
            None => Report::no(condition_type::DELETING, common::NOT_DELETING),
        },
    ];
    reports.extend(remote_connection_probe(observed, now));
    let current = observed
        .cluster
        .status
        .as_ref()
        .map(|status| status.conditions.clone());
    let merged = condition::merge(
        &current.unwrap_or_default(),
        reports.iter().cloned(),
        None,
        now,
    );
    reports.push(available(observed, &merged));
    reports
}

fn available(observed: &Observed, conditions: &[Condition]) -> Report {
    let deleting = observed.is_deleting();
    let gone = |part: Part, type_: &str| {
        let reason = condition::get(conditions, type_).map(|condition| condition.reason.as_str());
        let is_gone = matches!(
            reason,
            Some(common::OBJECT_DELETED | common::OBJECT_DOES_NOT_EXIST)
        );
        if deleting && is_gone {
            part.as_info()
        } else {
            part
        }
    };
    let part = |type_: &str| gone(Part::of(conditions, type_, Polarity::Positive), type_);
    let mut parts = vec![
        Part::of(conditions, condition_type::DELETING, Polarity::Negative),
        part(condition_type::REMOTE_CONNECTION_PROBE),
        part(condition_type::INFRASTRUCTURE_READY),
        part(condition_type::CONTROL_PLANE_AVAILABLE),
        part(condition_type::WORKERS_AVAILABLE),
    ];
    if observed.cluster.spec.topology.is_some() {
        let type_ = condition_type::TOPOLOGY_RECONCILED;
        let reason = condition::get(conditions, type_).map(|condition| condition.reason.as_str());
        let topology = Part::of(conditions, type_, Polarity::Positive);
        let matters = matches!(
            reason,
            None | Some(reason::RECONCILE_FAILED | reason::CLUSTER_CLASS_NOT_RECONCILED)
        );
        parts.push(if matters {
            topology
        } else {
            topology.as_info()
        });
    }
    for gate in &observed.cluster.spec.availability_gates {
        let polarity = gate.polarity.unwrap_or(Polarity::Positive);
        parts.push(Part::of(conditions, &gate.condition_type, polarity));
    }
    let reasons = Reasons {
        on_true: common::AVAILABLE,
        on_false: common::NOT_AVAILABLE,
        on_unknown: common::AVAILABLE_UNKNOWN,
    };
    summary(condition_type::AVAILABLE, &parts, &reasons)
}

/// Whether the workload cluster answers; `None` leaves what was said before, while nothing is known yet.
fn remote_connection_probe(observed: &Observed, now: Timestamp) -> Option<Report> {
    let type_ = condition_type::REMOTE_CONNECTION_PROBE;
    let failed = |message: String| Report::no(type_, reason::PROBE_FAILED).with_message(message);
    let Some(last) = observed.probe.last_success else {
        let status = observed.cluster.status.as_ref();
        let known = status.is_some_and(|s| condition::get(&s.conditions, type_).is_some());
        let is_explained =
            observed.kubeconfig == Kubeconfig::NoAuthority || observed.probe.error.is_some();
        if known && observed.probe.failures < FAILURES_MAX && !is_explained {
            return None;
        }
        let mut message = if observed.probe.failures < FAILURES_MAX {
            "Remote connection not established yet".to_owned()
        } else {
            "Remote connection probe failed".to_owned()
        };
        if observed.kubeconfig == Kubeconfig::NoAuthority {
            let name = count::name(&observed.cluster.metadata);
            let missing = format!(
                ": create Secret {name}-{CLUSTER_CA} with {CERTIFICATE_KEY} and {PRIVATE_KEY}, from which the kubeconfig is made, \
                 or Secret {name}-{KUBECONFIG}"
            );
            message.push_str(&missing);
        } else if let Some(error) = &observed.probe.error {
            message.push_str(&format!(": {error}"));
        }
        return Some(failed(message));
    };
    let age = std::time::Duration::try_from(now.duration_since(last)).unwrap_or_default();
    if age > PROBE_GRACE {
        let last = Timestamp::from_second(last.as_second()).unwrap_or(last);
        let mut message = format!("Remote connection probe failed, probe last succeeded at {last}");
        if let Some(error) = &observed.probe.error {
            message.push_str(&format!(": {error}"));
        }
        return Some(failed(message));
    }
    Some(Report::yes(type_, reason::PROBE_SUCCEEDED))
}

/// What a referenced object's absence means.
fn absent(
    type_: &str,
    observed: &Observed,
    reference: Option<&ContractVersionedObjectReference>,
    object: Option<&Lookup<Arc<Value>>>,
    done: bool,
) -> Option<Report> {
    let deleting = observed.is_deleting();
    let Some(reference) = reference else {
        observed.cluster.spec.topology.as_ref()?;
        let message = if deleting {
            ""
        } else {
            "Waiting for cluster topology to be reconciled"
        };
        return Some(Report::no(type_, common::OBJECT_DOES_NOT_EXIST).with_message(message));
    };
    let kind = &reference.kind;
    match object? {
        Lookup::Found(_) => None,
        Lookup::Unknown(why) => Some(
            Report::unknown(type_, common::INTERNAL_ERROR)
                .with_message(format!("{kind} {} cannot be read: {why}", reference.name)),
        ),
        Lookup::Missing if done => {
            let suffix = if deleting {
                ""
            } else {
                " while the Cluster still exists"
            };
            Some(
                Report::no(type_, common::OBJECT_DELETED)
                    .with_message(format!("{kind} has been deleted{suffix}")),
            )
        }
        Lookup::Missing => Some(
            Report::no(type_, common::OBJECT_DOES_NOT_EXIST)
                .with_message(format!("{kind} does not exist")),
        ),
    }
}

fn infrastructure_ready(observed: &Observed) -> Report {
    let type_ = condition_type::INFRASTRUCTURE_READY;
    let reference = observed.cluster.spec.infrastructure_ref.as_ref();
    let done = observed.is_provisioned();
    if let Some(report) = absent(type_, observed, reference, observed.infra.as_ref(), done) {
        return report;
    }
    let Some(object) = observed.infra.as_ref().and_then(Lookup::found) else {
        return Report::yes(type_, common::READY);
    };
    let message = format!(
        "{} status.initialization.provisioned is false",
        kind_of(object)
    );
    let fallback = Fallback {
        done,
        reason_when_done: common::READY,
        reason_until_done: common::NOT_READY,
        message_until_done: &message,
    };
    mirror(
        type_,
        condition::read(object, condition_type::READY).as_ref(),
        &fallback,
    )
}

fn control_plane_available(observed: &Observed) -> Report {
    let type_ = condition_type::CONTROL_PLANE_AVAILABLE;
    let reference = observed.cluster.spec.control_plane_ref.as_ref();
    let done = observed.is_initialized();
    if let Some(report) = absent(
        type_,
        observed,
        reference,
        observed.control_plane.as_ref(),
        done,
    ) {
        return report;
    }
    let Some(object) = observed.control_plane.as_ref().and_then(Lookup::found) else {
        let waiting = "Waiting for the first control plane Machine to have a Node";
        return if done {
            Report::yes(type_, common::AVAILABLE)
        } else {
            Report::no(type_, common::NOT_AVAILABLE).with_message(waiting)
        };
    };
    let message = format!(
        "{} status.initialization.controlPlaneInitialized is false",
        kind_of(object)
    );
    let fallback = Fallback {
        done,
        reason_when_done: common::AVAILABLE,
        reason_until_done: common::NOT_AVAILABLE,
        message_until_done: &message,
    };
    mirror(
        type_,
        condition::read(object, condition_type::AVAILABLE).as_ref(),
        &fallback,
    )
}

fn control_plane_initialized(observed: &Observed) -> Report {
    let type_ = condition_type::CONTROL_PLANE_INITIALIZED;
    if observed.is_initialized() {
        return Report::yes(type_, reason::INITIALIZED);
    }
    let reference = observed.cluster.spec.control_plane_ref.as_ref();
    let object = observed.control_plane.as_ref();
    if let Some(report) = absent(type_, observed, reference, object, false) {
        return Report {
            status: condition::ConditionStatus::Unknown,
            ..report
        };
    }
    Report::no(type_, reason::NOT_INITIALIZED).with_message("Control plane not yet initialized")
}

fn workers_available(observed: &Observed) -> Report {
    let type_ = condition_type::WORKERS_AVAILABLE;
    if observed.deployments.is_empty() {
        return Report::yes(type_, reason::NO_WORKERS);
    }
    let source = condition_type::AVAILABLE;
    let sources: Vec<Source<'_>> = deployments(observed, source);
    let reasons = Reasons {
        on_true: common::AVAILABLE,
        on_false: common::NOT_AVAILABLE,
        on_unknown: common::AVAILABLE_UNKNOWN,
    };
    aggregate(type_, source, &sources, Polarity::Positive, &reasons)
}

fn deployments<'a>(observed: &'a Observed, type_: &str) -> Vec<Source<'a>> {
    let sources = observed.deployments.iter().map(|deployment| Source {
        kind: "MachineDeployment",
        name: count::name(&deployment.metadata),
        is_control_plane: false,
        condition: deployment
            .status
            .as_ref()
            .and_then(|status| condition::get(&status.conditions, type_).cloned()),
    });
    sources.collect()
}

/// A condition that is good when it is False.
struct Moving {
    type_: &'static str,
    reasons: Reasons<'static>,
    of_sets: bool,
}

const ROLLING_OUT: Moving = Moving {
    type_: condition_type::ROLLING_OUT,
    reasons: Reasons {
        on_true: common::ROLLING_OUT,
        on_false: common::NOT_ROLLING_OUT,
        on_unknown: common::ROLLING_OUT_UNKNOWN,
    },
    of_sets: false,
};

const SCALING_UP: Moving = Moving {
    type_: condition_type::SCALING_UP,
    reasons: Reasons {
        on_true: common::SCALING_UP,
        on_false: common::NOT_SCALING_UP,
        on_unknown: common::SCALING_UP_UNKNOWN,
    },
    of_sets: true,
};

const SCALING_DOWN: Moving = Moving {
    type_: condition_type::SCALING_DOWN,
    reasons: Reasons {
        on_true: common::SCALING_DOWN,
        on_false: common::NOT_SCALING_DOWN,
        on_unknown: common::SCALING_DOWN_UNKNOWN,
    },
    of_sets: true,
};

/// `RollingOut`, `ScalingUp` and `ScalingDown`: of the control plane if it reports them, of MachineDeployments, and of
/// MachineSets of their own.
fn moving(observed: &Observed, moving: &Moving) -> Report {
    let mut sources = Vec::new();
    let object = observed.control_plane.as_ref().and_then(Lookup::found);
    if let Some(object) = object.filter(|object| !is_deleting_value(object))
        && let Some(condition) = condition::read(object, moving.type_)
    {
        sources.push(Source {
            kind: kind_of(object),
            name: object
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            is_control_plane: true,
            condition: Some(condition),
        });
    }
    sources.extend(deployments(observed, moving.type_));
    if moving.of_sets {
        sources.extend(observed.standalone_sets().map(|set| {
            Source {
                kind: "MachineSet",
                name: count::name(&set.metadata),
                is_control_plane: false,
                condition: set
                    .status
                    .as_ref()
                    .and_then(|status| condition::get(&status.conditions, moving.type_).cloned()),
            }
        }));
    }
    if sources.is_empty() {
        return Report::no(moving.type_, moving.reasons.on_false);
    }
    combine::aggregate(
        moving.type_,
        moving.type_,
        &sources,
        Polarity::Negative,
        &moving.reasons,
    )
}
