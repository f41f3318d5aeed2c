//! What is counted about machines, and what "unhealthy" means when some have to go (contract: upstream
//! `internal/controllers/machineset`, `machine_filters`).

use std::collections::BTreeMap;

use capstan_api::condition::combine::Source;
use capstan_api::condition::{self, ConditionStatus};
use capstan_api::name::Version;
use capstan_api::v1beta2::{Machine, StatusVersion};
use capstan_api::{annotation, label};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

/// A Machine that has not said whether it is up to date counts as silent only after this time.
const UP_TO_DATE_GRACE_MS: u64 = 10_000;

/// Numbers of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All, also those that are being deleted.
    pub replicas: i32,
    /// Condition Ready.
    pub ready: i32,
    /// Condition Available.
    pub available: i32,
    /// Condition UpToDate.
    pub up_to_date: i32,
    /// By version, oldest first.
    pub versions: Vec<StatusVersion>,
}

/// Counts machines. One that is changed in place counts only as being there.
pub fn count<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> Counts {
    let mut counts = Counts::default();
    let mut versions = Vec::new();
    for machine in machines {
        counts.replicas = counts.replicas.saturating_add(1);
        if let Some(version) = version_of(machine) {
            versions.push(StatusVersion {
                version: version.to_owned(),
                replicas: Some(1),
            });
        }
        if has_annotation(&machine.metadata, annotation::UPDATE_IN_PROGRESS) {
            continue;
        }
        let add = |type_: &str, counter: &mut i32| {
            if condition::is_true(conditions(machine), type_) {
                *counter = counter.saturating_add(1);
            }
        };
        add("Ready", &mut counts.ready);
        add("Available", &mut counts.available);
        add("UpToDate", &mut counts.up_to_date);
    }
    counts.versions = versions_of(versions);
    counts
}

/// The version that a machine runs, or will.
#[must_use]
pub fn version_of(machine: &Machine) -> Option<&str> {
    let running = machine
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref());
    let running = running
        .map(|info| info.kubelet_version.as_str())
        .filter(|version| !version.is_empty());
    running.or(machine.spec.version.as_deref())
}

/// Versions with their numbers added up, oldest first.
#[must_use]
pub fn versions_of(versions: impl IntoIterator<Item = StatusVersion>) -> Vec<StatusVersion> {
    let mut by_version: BTreeMap<String, i32> = BTreeMap::new();
    for version in versions {
        let count = by_version.entry(version.version).or_default();
        *count = count.saturating_add(version.replicas.unwrap_or(1));
    }
    let mut versions: Vec<StatusVersion> = by_version
        .into_iter()
        .map(|(version, replicas)| StatusVersion {
            version,
            replicas: Some(replicas),
        })
        .collect();
    versions.sort_by(
        |a, b| match (Version::parse(&a.version), Version::parse(&b.version)) {
            (Ok(a), Ok(b)) => a.compare_with_build(&b),
            _ => a.version.cmp(&b.version),
        },
    );
    versions
}

/// A Machine's conditions.
#[must_use]
pub fn conditions(machine: &Machine) -> &[Condition] {
    machine
        .status
        .as_ref()
        .map_or(&[], |status| &status.conditions)
}

/// Whether a Machine has condition Available and is not being deleted.
#[must_use]
pub fn is_available(machine: &Machine) -> bool {
    !is_deleting(&machine.metadata) && condition::is_true(conditions(machine), "Available")
}

/// Whether a Machine goes before healthy ones when there are too many.
#[must_use]
pub fn is_unhealthy(machine: &Machine) -> bool {
    let has_node = machine
        .status
        .as_ref()
        .is_some_and(|status| status.node_ref.is_some());
    !has_node
        || condition::is_false(conditions(machine), "NodeHealthy")
        || condition::is_false(conditions(machine), "HealthCheckSucceeded")
}

/// Whether a health check gave the Machine up and its owner has to replace it.
#[must_use]
pub fn is_to_be_remediated(machine: &Machine) -> bool {
    condition::is_false(conditions(machine), "HealthCheckSucceeded")
        && condition::is_false(conditions(machine), "OwnerRemediated")
}

/// Whether an object is being deleted.
#[must_use]
pub fn is_deleting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Whether an object has an annotation, with any value.
#[must_use]
pub fn has_annotation(metadata: &ObjectMeta, name: &str) -> bool {
    metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(name))
}

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// A label's value.
#[must_use]
pub fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// An object's name, empty when it has none.
#[must_use]
pub fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// When an object was made.
#[must_use]
pub fn created(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Milliseconds since an object was made; 0 when it is not known.
#[must_use]
pub fn age_ms(metadata: &ObjectMeta, now: Timestamp) -> u64 {
    created(metadata)
        .map(|created| now.duration_since(created).as_millis())
        .and_then(|age| u64::try_from(age).ok())
        .unwrap_or_default()
}

/// Whether a Machine belongs to the control plane.
#[must_use]
pub fn is_control_plane(machine: &Machine) -> bool {
    label(&machine.metadata, label::CONTROL_PLANE).is_some()
}

/// Machines as sources of an aggregate of one of their conditions. For `UpToDate`, machines that are too young to have said
/// are left out.
pub fn sources<'a>(
    machines: impl IntoIterator<Item = &'a Machine>,
    type_: &str,
    now: Timestamp,
) -> Vec<Source<'a>> {
    machines
        .into_iter()
        .filter_map(|machine| {
            let condition = condition::get(conditions(machine), type_).cloned();
            let young = age_ms(&machine.metadata, now) < UP_TO_DATE_GRACE_MS;
            if type_ == "UpToDate" && condition.is_none() && young {
                return None;
            }
            Some(Source {
                kind: "Machine",
                name: name(&machine.metadata),
                is_control_plane: is_control_plane(machine),
                condition,
            })
        })
        .collect()
}

/// Machines that say that they are not up to date, with what they say.
pub fn not_up_to_date<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> Vec<&'a Condition> {
    machines
        .into_iter()
        .filter_map(|machine| condition::get(conditions(machine), "UpToDate"))
        .filter(|condition| condition::status_of(condition) == ConditionStatus::False)
        .collect()
}
