//! What the status of a Cluster says.

mod conditions;

use std::time::Duration;

use capstan_api::condition::Report;
use capstan_api::contract::InfraCluster;
use capstan_api::v1beta2::{
    ApiEndpoint, ClusterInitializationStatus, ClusterPhase, ClusterReplicasStatus, ClusterStatus,
    FailureDomain,
};
use jiff::Timestamp;

use super::observed::{Observed, is_deleting_value};
use super::{counts, deletion};
use crate::lookup::Lookup;
use crate::plan::Next;

/// A connection that has not answered for so long is reported.
pub const PROBE_GRACE: Duration = Duration::from_secs(50);

/// Status and conditions, and what follows from the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: ClusterStatus,
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
    let stage = observed.is_deleting().then(|| deletion::stage(observed));
    let finished = stage
        .as_ref()
        .is_some_and(|stage| stage.action == deletion::Action::Finish);
    let workers = counts::workers(observed);
    let provisioned = observed.is_provisioned();
    let initialized = observed.is_initialized();
    let initialization = ClusterInitializationStatus {
        infrastructure_provisioned: provisioned.then_some(true),
        control_plane_initialized: initialized.then_some(true),
    };
    let status = ClusterStatus {
        initialization: (provisioned || initialized).then_some(initialization),
        control_plane: counts::control_plane(observed),
        workers: (workers != ClusterReplicasStatus::default()).then_some(workers),
        failure_domains: failure_domains(observed),
        phase: Some(phase(observed)),
        ..ClusterStatus::default()
    };
    Reported {
        status,
        conditions: conditions::all(observed, stage.as_ref(), now),
        next: None,
        finished,
    }
}

/// Once provisioned what the infrastructure says now; what was known while it cannot be seen.
fn failure_domains(observed: &Observed) -> Vec<FailureDomain> {
    let known = observed
        .cluster
        .status
        .as_ref()
        .map(|status| status.failure_domains.clone());
    match observed.infra.as_ref().and_then(Lookup::found) {
        Some(infra) if observed.is_provisioned() && !is_deleting_value(infra) => {
            InfraCluster(infra).failure_domains()
        }
        _ => known.unwrap_or_default(),
    }
}

fn phase(observed: &Observed) -> ClusterPhase {
    let spec = &observed.cluster.spec;
    if observed.is_deleting() {
        ClusterPhase::Deleting
    } else if observed.is_provisioned()
        && (spec
            .control_plane_endpoint
            .as_ref()
            .is_some_and(ApiEndpoint::is_complete)
            || observed.endpoint().is_some())
    {
        ClusterPhase::Provisioned
    } else if spec.infrastructure_ref.is_some() || spec.control_plane_ref.is_some() {
        ClusterPhase::Provisioning
    } else {
        ClusterPhase::Pending
    }
}
