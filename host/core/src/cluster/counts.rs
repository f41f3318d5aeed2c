//! Numbers and versions of a Cluster's machines.

use capstan_api::contract::ControlPlane;
use capstan_api::v1beta2::{ClusterReplicasStatus, ClusterUpgradePlanStep, StatusVersion};

use super::observed::Observed;
use crate::lookup::Lookup;
use crate::rollout::count;

/// Of the control plane: what its object says; without one, what its Machines show.
#[must_use]
pub fn control_plane(observed: &Observed) -> Option<ClusterReplicasStatus> {
    let status = observed
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.control_plane.as_ref());
    let upgrade_plan = status
        .map(|status| status.upgrade_plan.clone())
        .unwrap_or_default();
    if observed.control_plane.is_some() {
        let Some(object) = observed.control_plane.as_ref().and_then(Lookup::found) else {
            return status.cloned();
        };
        let object = ControlPlane(object);
        let counts = ClusterReplicasStatus {
            desired_replicas: object.desired_replicas(),
            replicas: object.replicas(),
            up_to_date_replicas: object.up_to_date_replicas(),
            ready_replicas: object.ready_replicas(),
            available_replicas: object.available_replicas(),
            versions: object.versions(),
            upgrade_plan,
        };
        return Some(counts).filter(|counts| *counts != ClusterReplicasStatus::default());
    }
    let counts = count::count(observed.control_plane_machines());
    Some(ClusterReplicasStatus {
        desired_replicas: Some(counts.replicas),
        replicas: Some(counts.replicas),
        up_to_date_replicas: Some(counts.up_to_date),
        ready_replicas: Some(counts.ready),
        available_replicas: Some(counts.available),
        versions: counts.versions,
        upgrade_plan,
    })
}

/// Sums of numbers that may not be known: unknown only while all are.
#[derive(Default)]
struct Sum {
    desired: Option<i32>,
    replicas: Option<i32>,
    up_to_date: Option<i32>,
    ready: Option<i32>,
    available: Option<i32>,
    versions: Vec<StatusVersion>,
}

fn add(sum: &mut Option<i32>, more: Option<i32>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or_default().saturating_add(more));
    }
}

/// Of the workers: MachineDeployments, MachinePools, MachineSets of their own and Machines of their own.
#[must_use]
pub fn workers(observed: &Observed) -> ClusterReplicasStatus {
    let mut sum = Sum::default();
    for deployment in &observed.deployments {
        add(&mut sum.desired, deployment.spec.replicas);
        let Some(status) = &deployment.status else {
            continue;
        };
        add(&mut sum.replicas, status.replicas);
        add(&mut sum.up_to_date, status.up_to_date_replicas);
        add(&mut sum.ready, status.ready_replicas);
        add(&mut sum.available, status.available_replicas);
        sum.versions.extend(status.versions.iter().cloned());
    }
    for pool in &observed.pools {
        add(&mut sum.desired, pool.spec.replicas);
        let Some(status) = &pool.status else { continue };
        add(&mut sum.replicas, status.replicas);
        add(&mut sum.up_to_date, status.up_to_date_replicas);
        add(&mut sum.ready, status.ready_replicas);
        add(&mut sum.available, status.available_replicas);
        sum.versions.extend(status.versions.iter().cloned());
    }
    for set in observed.standalone_sets() {
        add(&mut sum.desired, set.spec.replicas);
        let Some(status) = &set.status else { continue };
        add(&mut sum.replicas, status.replicas);
        add(&mut sum.up_to_date, status.up_to_date_replicas);
        add(&mut sum.ready, status.ready_replicas);
        add(&mut sum.available, status.available_replicas);
        sum.versions.extend(status.versions.iter().cloned());
    }
    let standalone = count::count(observed.standalone_workers());
    if standalone.replicas > 0 {
        add(&mut sum.desired, Some(standalone.replicas));
        add(&mut sum.replicas, Some(standalone.replicas));
        add(&mut sum.up_to_date, Some(standalone.up_to_date));
        add(&mut sum.ready, Some(standalone.ready));
        add(&mut sum.available, Some(standalone.available));
        sum.versions.extend(standalone.versions);
    }
    ClusterReplicasStatus {
        desired_replicas: sum.desired,
        replicas: sum.replicas,
        up_to_date_replicas: sum.up_to_date,
        ready_replicas: sum.ready,
        available_replicas: sum.available,
        versions: count::versions_of(sum.versions),
        upgrade_plan: upgrade_plan(observed),
    }
}

/// What the topology wrote stays.
fn upgrade_plan(observed: &Observed) -> Vec<ClusterUpgradePlanStep> {
    let status = observed
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.workers.as_ref());
    status
        .map(|status| status.upgrade_plan.clone())
        .unwrap_or_default()
}
