//! The order of a Cluster's deletion: workers, then the control plane, then the infrastructure. What cannot be seen is waited
//! for, never taken for gone.

use capstan_api::condition::combine::names;
use capstan_api::reason::{cluster as reason, common};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::observed::{Observed, is_deleting_value, kind_of};
use crate::lookup::Lookup;
use crate::rollout::count::{is_deleting, name};

/// What is deleted, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// MachineDeployments.
    pub deployments: Vec<String>,
    /// MachinePools.
    pub pools: Vec<String>,
    /// MachineSets.
    pub sets: Vec<String>,
    /// Machines.
    pub machines: Vec<String>,
}

/// Where a deletion has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Reason of the condition `Deleting`.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
    /// What is deleted now.
    pub action: Action,
}

/// What is deleted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: waits.
    Wait,
    /// Children that the Cluster owns itself.
    Children(Children),
    /// The control plane object.
    ControlPlane,
    /// The infrastructure object.
    Infra,
    /// Everything is gone.
    Finish,
}

/// Where the deletion has come to.
#[must_use]
pub fn stage(observed: &Observed) -> Stage {
    if let Some(message) = left(observed) {
        let children = to_delete(observed);
        let action = if children == Children::default() {
            Action::Wait
        } else {
            Action::Children(children)
        };
        return Stage {
            reason: common::WAITING_FOR_WORKERS_DELETION,
            message,
            action,
        };
    }
    let control_plane = (observed.control_plane.as_ref(), Action::ControlPlane);
    let infra = (observed.infra.as_ref(), Action::Infra);
    let parts = [
        (control_plane, reason::WAITING_FOR_CONTROL_PLANE_DELETION),
        (infra, common::WAITING_FOR_INFRASTRUCTURE_DELETION),
    ];
    for ((object, action), reason) in parts {
        match object {
            None | Some(Lookup::Missing) => {}
            Some(Lookup::Found(object)) => return waiting(object, reason, action),
            Some(Lookup::Unknown(why)) => {
                return Stage {
                    reason: common::INTERNAL_ERROR,
                    message: format!(
                        "Waiting because it cannot be seen whether an object still exists: {why}"
                    ),
                    action: Action::Wait,
                };
            }
        }
    }
    Stage {
        reason: common::DELETION_COMPLETED,
        message: "Deletion completed".to_owned(),
        action: Action::Finish,
    }
}

fn waiting(object: &Value, reason: &'static str, action: Action) -> Stage {
    Stage {
        reason,
        message: format!("Waiting for {} to be deleted", kind_of(object)),
        action: if is_deleting_value(object) {
            Action::Wait
        } else {
            action
        },
    }
}

/// What is still there before the control plane may go; `None` when nothing is.
fn left(observed: &Observed) -> Option<String> {
    let mut lines = Vec::new();
    let mut line = |what: &str, found: Vec<&str>| {
        if !found.is_empty() {
            lines.push(format!("* {what}: {}", names(&found)));
        }
    };
    fn named<'a>(metadata: impl Iterator<Item = &'a ObjectMeta>) -> Vec<&'a str> {
        metadata.map(name).collect()
    }
    if observed.control_plane.is_none() {
        line(
            "Control plane Machines",
            named(observed.control_plane_machines().map(|m| &m.metadata)),
        );
    }
    line(
        "MachineDeployments",
        named(observed.deployments.iter().map(|d| &d.metadata)),
    );
    line(
        "MachineSets",
        named(observed.sets.iter().map(|s| &s.metadata)),
    );
    line(
        "MachinePools",
        named(observed.pools.iter().map(|p| &p.metadata)),
    );
    line(
        "Worker Machines",
        named(observed.worker_machines().map(|m| &m.metadata)),
    );
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Children that the Cluster owns itself and that are not going yet. Others go with their owners.
fn to_delete(observed: &Observed) -> Children {
    let pick = |metadata: &ObjectMeta| {
        (observed.owns(metadata) && !is_deleting(metadata)).then(|| name(metadata).to_owned())
    };
    let mut machines: Vec<String> = observed
        .worker_machines()
        .filter_map(|machine| pick(&machine.metadata))
        .collect();
    if observed.control_plane.is_none() {
        machines.extend(
            observed
                .control_plane_machines()
                .filter_map(|machine| pick(&machine.metadata)),
        );
    }
    Children {
        deployments: observed
            .deployments
            .iter()
            .filter_map(|d| pick(&d.metadata))
            .collect(),
        pools: observed
            .pools
            .iter()
            .filter_map(|p| pick(&p.metadata))
            .collect(),
        sets: observed
            .sets
            .iter()
            .filter_map(|s| pick(&s.metadata))
            .collect(),
        machines,
    }
}
