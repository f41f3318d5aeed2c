//! A control plane, before acting: what should happen next, and what is waited for.

use std::time::Duration;

use capstan_api::name::fnv32a;
use capstan_api::reason::{common, condition_type, kubeadm, machine as machine_reason};
use capstan_api::v1beta2::Cluster;
use jiff::{SignedDuration, Timestamp};

use super::{Member, Observed, Step, health, sync};
use crate::call::bootstrap::Role;
use crate::call::control_plane::Desired;
use crate::lookup::Lookup;
use crate::material::server_url;
use crate::naming::Endings;
use crate::plan::{Plan, STEPS_MAX};

/// Template of machine names unless the object has one.
const NAMING: &str = "{{ .controlPlane.name }}-{{ .random }}";

/// How soon deletions, hooks and failed preflights are looked at again if nothing wakes the object before.
const WAIT: Duration = Duration::from_secs(30);
/// While components are coming up, and when they take long.
const COMING_UP: Duration = Duration::from_secs(1);
const UNHEALTHY: Duration = Duration::from_secs(20);
/// How long a machine counts as coming up.
const COMING_UP_FOR: SignedDuration = SignedDuration::from_mins(3);
/// Pods of a settled control plane are looked at again after this time: they are not watched.
const SETTLED: Duration = Duration::from_secs(180);

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
    // A cluster that is up has had its certificates: making others would cut it off.
    let may_make = !observed.was_initialized() || material.missing.is_empty();
    if may_make && !(material.missing.is_empty() && material.unowned.is_empty()) {
        steps.push(Step::EnsureMaterial);
    }
    let Some(endpoint) = cluster
        .spec
        .control_plane_endpoint
        .as_ref()
        .filter(|e| e.is_complete())
    else {
        return Plan::of(steps).waiting(
            common::NOT_AVAILABLE,
            "waiting for Cluster spec.controlPlaneEndpoint",
        );
    };
    if material.kubeconfig_due && (may_make || material.missing.is_empty()) {
        steps.push(Step::EnsureKubeconfig {
            server: server_url(&endpoint.host, endpoint.port),
        });
    }
    members(observed, cluster, now, &mut steps);
    let mut plan = Plan::of(steps);
    plan = match size(observed, cluster, desired, now) {
        Size::Keep => plan,
        Size::Do(step) => {
            plan.steps.push(step);
            plan
        }
        Size::Wait(why) => plan.waiting(common::SCALING_UP, why).check_after(WAIT),
    };
    // The rest comes with the next look, which every step of this one causes.
    plan.steps.truncate(STEPS_MAX);
    plan.check_after(look_again(observed, now))
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
        return SETTLED;
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
    }
    if let Some(member) = observed
        .members
        .iter()
        .find(|m| may_terminate(observed, m, now))
    {
        steps.push(sync::drop_hook(member));
    }
}

/// What a crash left out. Only while nobody has used it yet.
fn complete(observed: &Observed, member: &Member) -> Option<Step> {
    if member.is_deleting() {
        return None;
    }
    let initialization = member
        .machine
        .status
        .as_ref()
        .and_then(|status| status.initialization.as_ref());
    let config = member.config.is_missing()
        && initialization.and_then(|i| i.bootstrap_data_secret_created) != Some(true);
    let infra = member.infra.is_missing()
        && initialization.and_then(|i| i.infrastructure_provisioned) != Some(true);
    (config || infra).then(|| Step::CompleteMachine {
        name: member.name().to_owned(),
        role: role(observed),
        config,
        infra,
    })
}

fn role(observed: &Observed) -> Role {
    if observed.is_initialized() {
        Role::JoinControlPlane
    } else {
        Role::Init
    }
}

/// Whether a machine that is being deleted may go: the last one at once; another when it waits for nothing else, somebody else is
/// healthy, and it is no member of a datastore (contract 3.10 step 9).
fn may_terminate(observed: &Observed, member: &Member, now: Timestamp) -> bool {
    if !member.is_deleting() || !member.has_hook() {
        return false;
    }
    if observed.members.len() == 1 {
        return true;
    }
    let conditions = member
        .machine
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let waits =
        capstan_api::condition::get(conditions.unwrap_or_default(), condition_type::DELETING)
            .is_some_and(|deleting| {
                deleting.reason == machine_reason::WAITING_FOR_PRE_TERMINATE_HOOK
            });
    let oldest = observed
        .members
        .iter()
        .filter(|other| other.is_deleting() && other.has_hook())
        .min_by_key(|other| {
            other
                .machine
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|time| time.0)
        });
    let is_first = oldest.is_some_and(|oldest| oldest.name() == member.name());
    let others_well = observed.members.iter().any(|other| {
        !other.is_deleting()
            && health::is_healthy(&health::machine_conditions(observed, other, now)) == Some(true)
    });
    waits && is_first && others_well && member.datastore.is_none()
}

/// What becomes of the number of machines.
#[derive(Clone, Debug, PartialEq)]
pub enum Size {
    /// Nothing.
    Keep,
    /// This.
    Do(Step),
    /// This is in the way.
    Wait(String),
}

/// Create, scale up, roll out or scale down: one machine at a time.
#[must_use]
pub fn size(observed: &Observed, cluster: &Cluster, desired: &Desired, now: Timestamp) -> Size {
    let current = observed.members.len();
    let wanted = usize::try_from(desired.replicas).unwrap_or(usize::MAX);
    let outdated: Vec<&Member> = observed
        .members
        .iter()
        .filter(|m| !observed.outdated(m, now).is_empty())
        .collect();
    if wanted == 0 && current == 0 {
        return Size::Keep;
    }
    let surge = usize::try_from(desired.max_surge).unwrap_or_default();
    let grows =
        current < wanted || (!outdated.is_empty() && current < wanted.saturating_add(surge));
    let shrinks = current > wanted || (!outdated.is_empty() && !grows);
    if !grows && !shrinks {
        return Size::Keep;
    }
    if let Some(why) = blocked(observed, current, wanted, &outdated, now) {
        return Size::Wait(why);
    }
    if grows {
        return Size::Do(Step::CreateMachine {
            name: machine_name(observed, desired, now),
            role: role(observed),
            failure_domain: failure_domain(observed, cluster, now),
        });
    }
    match choose(observed, &outdated) {
        Some(member) => Size::Do(Step::DeleteMachine {
            name: member.name().to_owned(),
            uid: member.uid().to_owned(),
        }),
        None => Size::Keep,
    }
}

/// What is in the way of changing the number of machines (contract 3.10: preflight).
#[must_use]
pub fn blocked(
    observed: &Observed,
    current: usize,
    wanted: usize,
    outdated: &[&Member],
    now: Timestamp,
) -> Option<String> {
    if let Lookup::Unknown(why) = &observed.template {
        return Some(format!("the infrastructure template cannot be read: {why}"));
    }
    if observed.template.is_missing() {
        let template = observed
            .desired
            .as_ref()
            .map(|d| &d.infrastructure_template)
            .ok()?;
        return Some(format!(
            "waiting for {} {} to exist",
            template.kind, template.name
        ));
    }
    if current == 0 {
        return None;
    }
    if !observed.is_initialized() {
        return Some("waiting for the first machine to initialize the control plane".to_owned());
    }
    if observed.has_datastore() && (current > wanted || !outdated.is_empty()) {
        return Some(
            "machines that are etcd members are not removed: this version of the host does not remove etcd members yet"
                .to_owned(),
        );
    }
    if let Some(deleting) = observed.members.iter().find(|member| member.is_deleting()) {
        return Some(format!(
            "waiting for Machine {} to be deleted",
            deleting.name()
        ));
    }
    if let Lookup::Found(material) = &observed.material
        && !material.missing.is_empty()
    {
        return Some(format!(
            "certificates are missing: {}",
            material.missing.join(", ")
        ));
    }
    for member in &observed.members {
        if member.node_name().is_none() {
            return Some(format!("Machine {} has no Node yet", member.name()));
        }
        let reports = health::machine_conditions(observed, member, now);
        if health::is_healthy(&reports) != Some(true) {
            return Some(format!(
                "the components of Machine {} are not all healthy",
                member.name()
            ));
        }
    }
    None
}

/// The same name for the same state, so that an answer that was lost does not lead to a second machine. The time keeps a machine
/// from getting the name of one that is long gone.
fn machine_name(observed: &Observed, desired: &Desired, now: Timestamp) -> String {
    let names: Vec<&str> = observed.members.iter().map(Member::name).collect();
    let ten_minutes = now.as_second().div_euclid(600);
    let state = format!("{} {} {ten_minutes}", observed.uid(), names.join(" "));
    let mut endings = Endings::new(u64::from(fnv32a(state.as_bytes())));
    let template = if desired.machine_naming.is_empty() {
        NAMING
    } else {
        desired.machine_naming.as_str()
    };
    let cluster = observed
        .cluster
        .found()
        .and_then(|cluster| cluster.metadata.name.clone());
    let variables = [
        ("controlPlane.name", observed.name()),
        ("cluster.name", cluster.as_deref().unwrap_or_default()),
    ];
    crate::naming::from_template(template, &variables, &mut endings)
        .unwrap_or_else(|_| crate::naming::with_ending(observed.name(), &endings.draw()))
}

/// The failure domain for control planes with the fewest machines that are up to date, then with the fewest.
fn failure_domain(observed: &Observed, cluster: &Cluster, now: Timestamp) -> Option<String> {
    let domains = cluster
        .status
        .as_ref()
        .map(|status| status.failure_domains.as_slice())
        .unwrap_or_default();
    let count = |domain: &str, all: bool| {
        let here = observed
            .members
            .iter()
            .filter(|m| m.machine.spec.failure_domain.as_deref() == Some(domain));
        here.filter(|m| all || observed.outdated(m, now).is_empty())
            .count()
    };
    let suited = domains
        .iter()
        .filter(|domain| domain.control_plane == Some(true));
    let best = suited.min_by_key(|domain| {
        (
            count(&domain.name, false),
            count(&domain.name, true),
            domain.name.clone(),
        )
    });
    best.map(|domain| domain.name.clone())
}

/// The machine that goes first: one that somebody marked, else one that is outdated, else any; the oldest of them in the failure
/// domain with the most machines.
fn choose<'a>(observed: &'a Observed, outdated: &[&'a Member]) -> Option<&'a Member> {
    let is_outdated = |member: &&Member| outdated.iter().any(|other| other.name() == member.name());
    let is_marked =
        |member: &&Member| member.has_annotation(capstan_api::annotation::DELETE_MACHINE);
    let all: Vec<&Member> = observed.members.iter().collect();
    let pick = |choice: &dyn Fn(&&Member) -> bool| -> Vec<&'a Member> {
        all.iter()
            .copied()
            .filter(|member| choice(member))
            .collect()
    };
    let choices = [
        pick(&|m| is_marked(m) && is_outdated(m)),
        pick(&|m| is_marked(m)),
        pick(&|m| is_outdated(m)),
        all.clone(),
    ];
    let eligible = choices.into_iter().find(|choice| !choice.is_empty())?;
    let crowd = |member: &Member| {
        let domain = &member.machine.spec.failure_domain;
        all.iter()
            .filter(|other| &other.machine.spec.failure_domain == domain)
            .count()
    };
    eligible.into_iter().min_by_key(|m| {
        (
            std::cmp::Reverse(crowd(m)),
            m.created(),
            m.name().to_owned(),
        )
    })
}

/// Deletion: workers first, then all machines at once.
fn delete(observed: &Observed) -> Plan<Step> {
    if !observed.workers.is_empty() {
        return Plan::settled()
            .waiting(
                common::WAITING_FOR_WORKERS_DELETION,
                observed.workers.join(", "),
            )
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
    let names: Vec<&str> = observed.members.iter().map(Member::name).collect();
    Plan::of(steps)
        .waiting(kubeadm::WAITING_FOR_MACHINE_DELETION, names.join(", "))
        .check_after(WAIT)
}
