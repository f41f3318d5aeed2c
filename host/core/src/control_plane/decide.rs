//! A control plane, before acting: what should happen next, and what is waited for.

use std::time::Duration;

use capstan_api::condition::combine::names;
use capstan_api::reason::{common, kubeadm};
use capstan_api::v1beta2::{ApiEndpoint, Cluster};
use jiff::{SignedDuration, Timestamp};

use super::leave::{self, Leaving};
use super::size::{Size, size, successor};
use super::{
    MaterialState, Member, Observed, Step, adoption, health, in_cluster, news, remediation,
    rotation, snapshot, sync,
};
use crate::call::bootstrap::Role;
use crate::call::control_plane::Desired;
use crate::lookup::Lookup;
use crate::material::server_url;
use crate::plan::{Next, Plan, STEPS_MAX};

/// How soon deletions, hooks and failed preflights are looked at again if nothing wakes the object before.
const WAIT: Duration = Duration::from_secs(30);
/// While components are coming up, and when they take long.
const COMING_UP: Duration = Duration::from_secs(1);
const UNHEALTHY: Duration = Duration::from_secs(20);
/// How long a machine counts as coming up.
const COMING_UP_FOR: SignedDuration = SignedDuration::from_mins(3);
/// Pods of a settled control plane are looked at again after this time: they are not watched.
const SETTLED: Duration = Duration::from_secs(180);
/// A look takes long from here on. Most take less than a second, and with one machine that is dead ten. One at a cluster that does not answer takes up
/// to a minute, and others wait for the worker, so that it rests for so many times as long.
const LONG: Duration = Duration::from_secs(20);
const REST: u32 = 3;

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if observed.is_deleting() {
        return delete(observed);
    }
    let (Some(cluster), Ok(desired)) = (observed.cluster.found(), &observed.desired) else {
        return Plan::settled().check_after(WAIT);
    };
    if observed.plugin.is_none() || !is_provisioned(cluster) {
        return Plan::settled();
    }
    let mut steps = Vec::new();
    if observed
        .template
        .found()
        .is_some_and(|template| !template.is_owned)
    {
        steps.push(Step::AdoptTemplate);
    }
    let Lookup::Found(material) = &observed.material else {
        return Plan::of(steps).check_after(WAIT);
    };
    let refused = adoption::verdict(observed).filter(|verdict| !verdict.refused.is_empty());
    if let Some(verdict) = &refused {
        steps.extend(news::of_adoption(observed, verdict));
    }
    if let Some(verdict) = refused.filter(|_| observed.members.is_empty()) {
        // Nothing of the cluster is taken into the hands of who cannot look after its machines.
        if adoption::wants_proof(observed) {
            steps.extend(kubeconfig(material, cluster));
        }
        return Plan::of(steps)
            .waiting(common::SCALING_UP, verdict.refused.join("; "))
            .check_after(WAIT);
    }
    // A cluster that is up has had its certificates, and so has one of machines that others made: making new ones would cut it off.
    // So has one with a machine that was given its data, whatever the status says: that does not come along when a cluster is moved.
    let is_fresh = !observed.was_initialized()
        && observed.foreign.is_empty()
        && !observed.members.iter().any(Member::has_data);
    let may_make = is_fresh || material.missing.is_empty();
    if may_make && !(material.missing.is_empty() && material.unowned.is_empty()) {
        steps.push(Step::EnsureMaterial);
    }
    if let Some(why) = lacks_endpoint(observed) {
        return Plan::of(steps).waiting(common::NOT_AVAILABLE, why);
    }
    if may_make {
        steps.extend(kubeconfig(material, cluster));
    }
    steps.extend(adoption::steps(observed));
    members(observed, cluster, now, &mut steps);
    let mut plan = next(observed, cluster, desired, now, Plan::of(steps));
    let turn = rotation::plan::turn(observed, now);
    if let Some(soon) = turn.check_after() {
        plan = plan.check_after(soon);
    }
    if let rotation::plan::Turn::Active {
        step: Some(step), ..
    } = turn
    {
        plan.steps.push(step);
    }
    // The rest comes with the next look, which every step of this one causes.
    plan.steps.truncate(STEPS_MAX);
    plan = plan.check_after(look_again(observed, now));
    if let Next::CheckAfter(after) = plan.next
        && observed.took >= LONG
    {
        plan.next = Next::CheckAfter(after.max(observed.took.saturating_mul(REST)));
    }
    plan
}

/// What is waited for while nobody knows where the cluster's API server is to answer.
pub(super) fn lacks_endpoint(observed: &Observed) -> Option<&'static str> {
    let endpoint = &observed.cluster.found()?.spec.control_plane_endpoint;
    let is_there = endpoint.as_ref().is_some_and(ApiEndpoint::is_complete);
    (!is_there).then_some("waiting for Cluster spec.controlPlaneEndpoint to be set")
}

/// Takes over, makes or renews the kubeconfig, where that is due and possible.
fn kubeconfig(material: &MaterialState, cluster: &Cluster) -> Option<Step> {
    let endpoint = cluster.spec.control_plane_endpoint.as_ref();
    let endpoint = endpoint.filter(|endpoint| endpoint.is_complete())?;
    (material.kubeconfig_due && material.unusable.is_empty()).then(|| Step::EnsureKubeconfig {
        server: server_url(&endpoint.host, endpoint.port),
    })
}

/// Whether the cluster's infrastructure is there.
#[must_use]
pub fn is_provisioned(cluster: &Cluster) -> bool {
    let initialization = cluster
        .status
        .as_ref()
        .and_then(|status| status.initialization.as_ref());
    initialization.and_then(|i| i.infrastructure_provisioned) == Some(true)
}

/// The one thing that may happen to the membership now: a machine or an etcd member that leaves, a machine that is given up, or a
/// change of their number.
fn next(
    observed: &Observed,
    cluster: &Cluster,
    desired: &Desired,
    now: Timestamp,
    mut plan: Plan<Step>,
) -> Plan<Step> {
    if let Some(why) = unseen(observed) {
        return plan
            .waiting(common::INSPECTION_FAILED, why)
            .check_after(WAIT);
    }
    let Leaving { steps, wait } = leave::decide(observed, now);
    let told = wait.as_ref().and_then(|why| snapshot::news(observed, why));
    plan.steps.extend(told);
    if let Some(soon) = snapshot::look_again(observed, &steps, now) {
        plan = plan.check_after(soon);
    }
    if !steps.is_empty() {
        plan.steps.extend(steps);
        return plan;
    }
    if let Some(mut why) = wait {
        plan.steps.extend(remediation::beside(observed, now).steps);
        if leave::none_stays(observed) {
            match successor(observed, cluster, desired, now) {
                Size::Do(steps) => plan.steps.extend(steps),
                Size::Wait(other) => why = format!("{why}; {other}"),
                Size::Keep => {}
            }
        }
        return plan.waiting(common::SCALING_DOWN, why).check_after(WAIT);
    }
    let remedy = remediation::decide(observed, now);
    plan.steps.extend(remedy.steps);
    if let Some(again) = remedy.again {
        plan = plan.check_after(again);
    }
    if let Some((name, report)) = remedy.refused {
        plan = plan.waiting(report.reason, format!("Machine {name}: {}", report.message));
    }
    if remedy.blocks {
        return plan;
    }
    match size(observed, cluster, desired, now) {
        Size::Keep => {
            plan.steps.extend(in_cluster::after_stable(observed, now));
            plan
        }
        Size::Do(steps) => {
            plan.steps.extend(steps);
            plan
        }
        Size::Wait(why) => {
            plan.steps.extend(news::of_health(observed, &why, now));
            plan.waiting(common::SCALING_UP, why).check_after(WAIT)
        }
    }
}

/// Of which machine the plugin did not say what there is to look at. That it has no member of etcd does not follow.
fn unseen(observed: &Observed) -> Option<String> {
    let mut members = observed.members.iter();
    members.find_map(|member| {
        let failure = member.unseen.as_ref()?;
        Some(format!(
            "Machine {}: the plugin does not say what there is to look at: {failure}",
            member.name()
        ))
    })
}

fn look_again(observed: &Observed, now: Timestamp) -> Duration {
    let is_young = |member: &Member| now.duration_since(member.created()) < COMING_UP_FOR;
    let is_coming_up = observed.members.iter().any(is_young);
    let is_well = |member: &Member| {
        health::is_healthy(&health::machine_conditions(observed, member, now)) == Some(true)
    };
    if !observed.connected {
        // Connecting wakes the object.
        return UNHEALTHY;
    }
    if observed.is_initialized() && observed.members.iter().all(is_well) {
        return in_cluster::look_again(observed).map_or(SETTLED, |soon| soon.min(SETTLED));
    }
    if is_coming_up { COMING_UP } else { UNHEALTHY }
}

/// What is done with each existing machine.
fn members(observed: &Observed, cluster: &Cluster, now: Timestamp, steps: &mut Vec<Step>) {
    let cluster_name = cluster.metadata.name.as_deref().unwrap_or_default();
    for member in &observed.members {
        if let Some(step) = complete(observed, member) {
            steps.push(step);
        }
        steps.extend(sync::patches(observed, member, cluster_name));
        let conditions = health::machine_conditions(observed, member, now);
        if !conditions.is_empty() && health::is_worth_writing(member, &conditions, now) {
            steps.push(Step::ReportMachine {
                name: member.name().to_owned(),
                conditions,
            });
        }
        if remediation::has_recovered(member) {
            steps.push(Step::ForgetRemediation {
                name: member.name().to_owned(),
            });
        }
    }
}

/// What a crash left out. Only while nobody has used it yet: a Machine that was restored, without its status and before what belongs to it, has
/// its instance or its data already. And only what has the Machine's name, as all does that the host makes.
fn complete(observed: &Observed, member: &Member) -> Option<Step> {
    if member.is_deleting() {
        return None;
    }
    let spec = &member.machine.spec;
    let status = member.machine.status.as_ref();
    let initialization = status.and_then(|status| status.initialization.as_ref());
    let config = member.config.is_missing()
        && initialization.and_then(|i| i.bootstrap_data_secret_created) != Some(true)
        && spec.bootstrap.data_secret_name.is_none()
        && (spec.bootstrap.config_ref.as_ref()).is_some_and(|config| config.name == member.name());
    let infra = member.infra.is_missing()
        && initialization.and_then(|i| i.infrastructure_provisioned) != Some(true)
        && spec.provider_id.is_none()
        && spec.infrastructure_ref.name == member.name();
    (config || infra).then(|| Step::CompleteMachine {
        name: member.name().to_owned(),
        role: role(observed),
        config,
        infra,
    })
}

/// What the next machine is.
pub(super) fn role(observed: &Observed) -> Role {
    if observed.is_initialized() {
        Role::JoinControlPlane
    } else {
        Role::Init
    }
}

/// Deletion: workers first, then all machines at once.
fn delete(observed: &Observed) -> Plan<Step> {
    if !observed.workers.is_empty() || !observed.pools.is_empty() {
        let lists = [
            ("MachinePools", &observed.pools),
            ("Machines", &observed.workers),
        ];
        let lists = lists.into_iter().filter(|(_, all)| !all.is_empty());
        let lines: Vec<String> = lists
            .map(|(what, all)| line(what, all.iter().map(String::as_str)))
            .collect();
        return Plan::settled()
            .waiting(common::WAITING_FOR_WORKERS_DELETION, lines.join("\n"))
            .check_after(WAIT);
    }
    let mut steps = Vec::new();
    for member in &observed.members {
        if member.has_hook() {
            steps.push(sync::drop_hook(member));
        }
        if !member.is_deleting() {
            steps.push(Step::DeleteMachine {
                name: member.name().to_owned(),
                uid: member.uid().to_owned(),
            });
        }
    }
    steps.truncate(STEPS_MAX);
    if observed.members.is_empty() {
        return Plan::of(steps);
    }
    Plan::of(steps)
        .waiting(
            kubeadm::WAITING_FOR_MACHINE_DELETION,
            line("Machines", observed.members.iter().map(Member::name)),
        )
        .check_after(WAIT)
}

/// What a deletion waits for, as a line of a list.
fn line<'a>(what: &str, all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    format!("* {what}: {}", names(&all))
}
