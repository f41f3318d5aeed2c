//! The number of a control plane's machines: when one is added, which one goes, and what is in the way.

use capstan_api::annotation;
use capstan_api::name::{Version, fnv32a};
use capstan_api::v1beta2::{Cluster, FailureDomain};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::decide::{lacks_endpoint, role};
use super::etcd::{self, Votes};
use super::leave::{self, HandOver};
use super::{Member, Observed, Step, adoption, health, in_cluster, remediation};
use crate::bootstrap;
use crate::call::control_plane::Desired;
use crate::lookup::Lookup;
use crate::naming::Endings;

/// Template of machine names unless the object has one.
const NAMING: &str = "{{ .controlPlane.name }}-{{ .random }}";

/// With fewer machines than this, one must come before another goes.
const REPLICAS_WITHOUT_SURGE_MIN: usize = 3;

/// What becomes of the number of machines.
#[derive(Clone, Debug, PartialEq)]
pub enum Size {
    /// Nothing.
    Keep,
    /// These, in order.
    Do(Vec<Step>),
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
    // The wrong one might go.
    if let Some(failure) = observed.unasked() {
        return Size::Wait(failure.message.clone());
    }
    let grows = current < grows_to(desired, !outdated.is_empty());
    let shrinks = current > wanted || (!outdated.is_empty() && !grows);
    if !grows && !shrinks {
        return Size::Keep;
    }
    if let Some(why) = blocked(observed) {
        return Size::Wait(why);
    }
    let makes_room = !grows && current <= wanted;
    if (grows || makes_room)
        && let Some(why) = version_jump(observed, desired)
    {
        return Size::Wait(why);
    }
    if grows {
        return grow(observed, cluster, desired, now);
    }
    if wanted == 0 {
        return Size::Wait(
            "spec.replicas 0 is not possible: delete the control plane instead".to_owned(),
        );
    }
    if makes_room && wanted < REPLICAS_WITHOUT_SURGE_MIN {
        return Size::Wait(format!(
            "maxSurge 0 needs at least {REPLICAS_WITHOUT_SURGE_MIN} machines: set \
             spec.rollout.strategy.rollingUpdate.maxSurge to 1"
        ));
    }
    shrink(observed, cluster, &outdated, makes_room, now)
}

/// One more machine where people have deleted all: it stays, so that the others go one after the other, and the cluster does not go with the last.
#[must_use]
pub fn successor(
    observed: &Observed,
    cluster: &Cluster,
    desired: &Desired,
    now: Timestamp,
) -> Size {
    if desired.replicas == 0 {
        return Size::Keep;
    }
    let unasked = observed.unasked().map(|failure| failure.message.clone());
    let why = unasked.or_else(|| held_up(observed));
    match why.or_else(|| version_jump(observed, desired)) {
        Some(why) => Size::Wait(why),
        None => grow(observed, cluster, desired, now),
    }
}

/// How many machines there are before none is made any more: beside one that is outdated, as many more as the surge allows.
pub(super) fn grows_to(desired: &Desired, is_outdated: bool) -> usize {
    let wanted = usize::try_from(desired.replicas).unwrap_or(usize::MAX);
    let surge = usize::try_from(desired.max_surge).unwrap_or_default();
    wanted.saturating_add(if is_outdated { surge } else { 0 })
}

fn grow(observed: &Observed, cluster: &Cluster, desired: &Desired, now: Timestamp) -> Size {
    let record = remediation::in_progress(observed);
    if !observed.members.is_empty()
        && let Some(why) = unfit_to_grow(observed, record.is_some(), now)
    {
        return Size::Wait(why);
    }
    // Machines that join take their settings from the cluster.
    let mut steps: Vec<Step> = in_cluster::before_join(observed, now).into_iter().collect();
    steps.push(Step::CreateMachine {
        name: machine_name(observed, desired, now),
        role: role(observed),
        failure_domain: failure_domain(observed, cluster, now),
        remediation_for: record.as_ref().map(remediation::Record::text),
    });
    if record.is_some() {
        steps.push(Step::Annotate {
            annotations: json!({annotation::REMEDIATION_IN_PROGRESS: null}),
        });
    }
    Size::Do(steps)
}

/// One machine less: for good, or to make room for another.
fn shrink(
    observed: &Observed,
    cluster: &Cluster,
    outdated: &[&Member],
    makes_room: bool,
    now: Timestamp,
) -> Size {
    let Some(member) = choose(observed, cluster, outdated, now) else {
        return Size::Keep;
    };
    if makes_room && let Some(why) = lacks_material(observed) {
        return Size::Wait(why);
    }
    let others = || {
        observed
            .members
            .iter()
            .filter(|m| m.name() != member.name())
    };
    if let Some(why) = others().find_map(|other| unfit(observed, other, now)) {
        return Size::Wait(why);
    }
    if let Some(why) = leave::danger_of(observed, member) {
        return Size::Wait(format!("Machine {} stays: {why}", member.name()));
    }
    let mut steps = Vec::new();
    if makes_room {
        // What keeps the next machine from joining has to show while this one is still there.
        steps.extend(in_cluster::before_join(observed, now));
    }
    match leave::hand_over(observed, member, now) {
        HandOver::No => {}
        HandOver::Do(step) => steps.push(step),
        HandOver::Nobody => {
            return Size::Wait(format!(
                "Machine {} leads etcd, and no other member can take over",
                member.name()
            ));
        }
    }
    steps.push(Step::DeleteMachine {
        name: member.name().to_owned(),
        uid: member.uid().to_owned(),
    });
    Size::Do(steps)
}

/// What keeps every machine from being made, be it the first or a replacement.
pub(super) fn cannot_make(observed: &Observed) -> Option<String> {
    if let Some(verdict) = adoption::verdict(observed) {
        if verdict.refused.is_empty() {
            return Some(format!(
                "taking over the Machines {}",
                verdict.machines.join(", ")
            ));
        }
        return Some(verdict.refused.join("\n* "));
    }
    if let Some(why) = lacks_endpoint(observed) {
        return Some(why.to_owned());
    }
    if let Lookup::Found(material) = &observed.material
        && !material.unusable.is_empty()
    {
        return Some(format!(
            "certificates cannot be used: {}",
            material.unusable.join("; ")
        ));
    }
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
    None
}

/// Which Secrets a machine that joins would miss.
pub(super) fn lacks_material(observed: &Observed) -> Option<String> {
    let material = observed.material.found()?;
    let missing = (!material.missing.is_empty())
        .then(|| format!("certificates are missing: {}", material.missing.join(", ")));
    let all: Vec<String> = missing
        .into_iter()
        .chain(material.lost.iter().cloned())
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What is in the way of changing the number of machines in either direction (contract 3.10: preflight).
fn blocked(observed: &Observed) -> Option<String> {
    let deleting = || observed.members.iter().find(|member| member.is_deleting());
    held_up(observed).or_else(|| {
        let deleting = deleting()?;
        Some(format!(
            "waiting for Machine {} to be deleted",
            deleting.name()
        ))
    })
}

/// The same, machines that are being deleted aside.
fn held_up(observed: &Observed) -> Option<String> {
    if let Some(why) = cannot_make(observed) {
        return Some(why);
    }
    if observed.members.is_empty() {
        return None;
    }
    if !observed.is_initialized() {
        return Some("waiting for the first machine to initialize the control plane".to_owned());
    }
    // Until it does, a machine's bootstrap data would be those of a first machine: a second cluster beside this one.
    if !observed
        .cluster
        .found()
        .is_some_and(bootstrap::is_initialized)
    {
        return Some(
            "waiting for the Cluster to say that the control plane is initialized".to_owned(),
        );
    }
    etcd::takes_no_writes(observed)
}

/// What is in the way of one more machine. In the place of one that was given up it may come beside others that are not well.
fn unfit_to_grow(observed: &Observed, is_replacement: bool, now: Timestamp) -> Option<String> {
    if let Some(why) = lacks_material(observed) {
        return Some(why);
    }
    let why: Vec<String> = observed
        .members
        .iter()
        .filter_map(|member| unfit(observed, member, now))
        .collect();
    if is_replacement {
        if why.len() == observed.members.len() {
            return why.into_iter().next();
        }
    } else if !why.is_empty() {
        return why.into_iter().next();
    }
    if !observed.has_datastore() {
        return None;
    }
    match &observed.etcd {
        Lookup::Found(view) => {
            let votes = Votes::without(observed, view, None).with_one_more();
            (!votes.is_safe()).then(|| votes.danger())
        }
        Lookup::Missing => Some("etcd was not looked at".to_owned()),
        Lookup::Unknown(why) => Some(format!("no etcd member answers: {why}")),
    }
}

/// The machine that is too far behind the wanted version for a new one beside it. The server refuses such a change, but takes it in two.
fn version_jump(observed: &Observed, desired: &Desired) -> Option<String> {
    let wanted = Version::parse(&desired.version).ok()?;
    observed.members.iter().find_map(|member| {
        let text = member.machine.spec.version.as_deref()?;
        let has = Version::parse(text).ok()?;
        let next = has.minor.saturating_add(1);
        let is_near = has.major == wanted.major && wanted.minor <= next;
        (!is_near).then(|| {
            format!(
                "spec.version {} is more than one minor version above {text} of Machine {}: set spec.version to v{}.{next} first, and wait until all machines have it",
                desired.version,
                member.name(),
                has.major,
            )
        })
    })
}

/// What is wrong with a machine beside which others come or go.
pub(super) fn unfit(observed: &Observed, member: &Member, now: Timestamp) -> Option<String> {
    if member.node_name().is_none() {
        return Some(format!("Machine {} has no Node yet", member.name()));
    }
    let reports = health::machine_conditions(observed, member, now);
    (health::is_healthy(&reports) != Some(true)).then(|| {
        format!(
            "the components of Machine {} are not all healthy",
            member.name()
        )
    })
}

/// The same name for the same state, so that an answer that was lost does not lead to a second machine. Time, generation, the
/// remediation that it is for and the last one that there was keep a machine from getting the name of one that is gone: its Node and
/// its member would be taken for those of the other.
fn machine_name(observed: &Observed, desired: &Desired, now: Timestamp) -> String {
    let names: Vec<&str> = observed.members.iter().map(Member::name).collect();
    let ten_minutes = now.as_second().div_euclid(600);
    let generation = observed.object.pointer("/metadata/generation");
    let generation = generation.and_then(Value::as_i64).unwrap_or_default();
    let record = remediation::in_progress(observed).map(|record| record.text());
    let last = observed.object.pointer("/status/lastRemediation/time");
    let state = format!(
        "{} {} {ten_minutes} {generation} {} {}",
        observed.uid(),
        names.join(" "),
        record.unwrap_or_default(),
        last.and_then(Value::as_str).unwrap_or_default()
    );
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

/// The failure domains that are for control planes.
fn suited(cluster: &Cluster) -> impl Iterator<Item = &FailureDomain> {
    let status = cluster.status.as_ref();
    let domains = status.map(|status| status.failure_domains.as_slice());
    let domains = domains.unwrap_or_default().iter();
    domains.filter(|domain| domain.control_plane == Some(true))
}

/// The failure domain for control planes with the fewest machines that are up to date, then with the fewest.
fn failure_domain(observed: &Observed, cluster: &Cluster, now: Timestamp) -> Option<String> {
    let count = |domain: &str, all: bool| {
        let here = observed
            .members
            .iter()
            .filter(|m| m.machine.spec.failure_domain.as_deref() == Some(domain));
        here.filter(|m| all || observed.outdated(m, now).is_empty())
            .count()
    };
    let best = suited(cluster).min_by_key(|domain| {
        (
            count(&domain.name, false),
            count(&domain.name, true),
            domain.name.clone(),
        )
    });
    best.map(|domain| domain.name.clone())
}

/// The machine that goes first: one that somebody marked, else one that a health check gave up and whose components are not
/// well, else one that is outdated, else any; of them one in a failure domain that the Cluster does not have (any more), else the oldest in the
/// failure domain with the most machines.
fn choose<'a>(
    observed: &'a Observed,
    cluster: &Cluster,
    outdated: &[&'a Member],
    now: Timestamp,
) -> Option<&'a Member> {
    let is_outdated = |member: &&Member| outdated.iter().any(|other| other.name() == member.name());
    let is_marked = |member: &&Member| member.has_annotation(annotation::DELETE_MACHINE);
    let is_ill = |member: &&Member| member.is_unhealthy() && unfit(observed, member, now).is_some();
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
        pick(&|m| is_ill(m) && is_outdated(m)),
        pick(&|m| is_outdated(m)),
        pick(&|m| is_ill(m)),
        all.clone(),
    ];
    let eligible = choices.into_iter().find(|choice| !choice.is_empty())?;
    let crowd = |member: &Member| {
        let domain = &member.machine.spec.failure_domain;
        all.iter()
            .filter(|other| &other.machine.spec.failure_domain == domain)
            .count()
    };
    let is_suited = |member: &Member| {
        let domain = member.machine.spec.failure_domain.as_deref();
        suited(cluster).any(|suited| Some(suited.name.as_str()) == domain)
    };
    eligible.into_iter().min_by_key(|m| {
        (
            is_suited(m),
            std::cmp::Reverse(crowd(m)),
            m.created(),
            m.name().to_owned(),
        )
    })
}
