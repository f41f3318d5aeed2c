//! What must be true after every step of the host, whatever goes wrong around it. Decisions may be made on what was true a while
//! ago, so limits that people change are taken at their most generous of the last minutes.

mod hook;
mod machine;
mod order;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::Resource;
use serde_json::Value;

use crate::kinds as sim;
use crate::object::{
    annotation as annotation_of, controller, flag, is_condition, is_deleting, key,
    label as label_of, list, name, number, text, uid,
};
use crate::store::Written;
use crate::world::{Actor, Server, State, Write};

/// How old what the host decides on can be: two late events, a request that hangs, an outage, and the back-off after it.
const STALE: Duration = Duration::from_secs(600);

/// How long the host may not know of a deletion: two late events, and an outage.
const UNSEEN: Duration = Duration::from_secs(180);

/// How long a reconcile that began before a pause may go on: its deadline, and what it saw late.
const PAUSE_GRACE: Duration = Duration::from_secs(300);

/// How old what a reconcile has seen can be when it acts: its deadline.
const RECONCILE: Duration = Duration::from_secs(120);

/// Violations that are kept; one is enough.
const VIOLATIONS_MAX: usize = 10;

/// Limits of a MachineDeployment at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    since: Duration,
    replicas: i64,
    surge: i64,
    unavailable: i64,
}

/// What is remembered to hold the present against.
#[derive(Debug, Default)]
pub struct Watchman {
    violations: Vec<String>,
    deployments: BTreeMap<ObjectKey, Vec<Limits>>,
    sets: BTreeMap<ObjectKey, Vec<(Duration, i64)>>,
    /// When each Machine, by UID, was last Available.
    available: BTreeMap<String, Duration>,
    /// When each Machine, by UID, became Available last.
    available_since: BTreeMap<String, Duration>,
    paused: BTreeMap<ObjectKey, Duration>,
    /// Machines that people deleted, by UID, and when.
    deleted_by_people: BTreeMap<String, Duration>,
    /// Machines that people marked to go first, by UID.
    marked_by_people: BTreeSet<String>,
    /// When each Machine, by UID, was made.
    made: BTreeMap<String, Duration>,
    /// Machines that the host was told of, by UID, and since when.
    known: BTreeMap<String, Duration>,
    /// Machines that the host was told are going, by UID, and since when.
    known_to_go: BTreeMap<String, Duration>,
    host_writes: Vec<String>,
    /// Writes of the host so far.
    pub host_writes_total: u64,
    /// Machines made so far.
    pub machines_made: u64,
}

impl Watchman {
    /// What was not true.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Something was not true.
    pub fn violated(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// The host is told of an object.
    fn host_learns(&mut self, object: &Value, now: Duration) {
        if object["kind"] == "Machine" {
            self.known.entry(uid(object).to_owned()).or_insert(now);
            if is_deleting(object) {
                self.known_to_go
                    .entry(uid(object).to_owned())
                    .or_insert(now);
            }
        }
    }

    /// Whether the host had been told of this Machine by then.
    #[must_use]
    pub fn knew(&self, machine: &str, by: Duration) -> bool {
        self.known.get(machine).is_some_and(|since| *since <= by)
    }

    /// Whether the host had been told by then that this Machine goes.
    #[must_use]
    pub fn knew_to_go(&self, machine: &str, by: Duration) -> bool {
        let told = self.known_to_go.get(machine);
        told.is_some_and(|since| *since <= by)
    }

    /// Whether a decision of now may come from before the host was told that this Machine goes.
    fn may_count(&self, machine: &Value, now: Duration) -> bool {
        !is_deleting(machine)
            || self
                .known_to_go
                .get(uid(machine))
                .is_none_or(|since| now.saturating_sub(*since) < RECONCILE)
    }

    /// The host wrote something.
    pub fn host_wrote(&mut self, what: &str) {
        self.host_writes_total += 1;
        if self.host_writes.len() < 100 {
            self.host_writes.push(what.to_owned());
        }
    }

    /// What the host wrote since the last question.
    pub fn take_host_writes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.host_writes)
    }

    fn limits(&self, deployment: &ObjectKey, now: Duration) -> Vec<Limits> {
        let all = self
            .deployments
            .get(deployment)
            .map_or(&[][..], Vec::as_slice);
        // The one that was in force when the window began counts too.
        let from = now.saturating_sub(STALE);
        let first = all
            .partition_point(|limits| limits.since < from)
            .saturating_sub(1);
        all.get(first..).unwrap_or_default().to_vec()
    }

    /// Whether every decision of now knows of this Machine.
    fn must_count(&self, machine: &Value, now: Duration) -> bool {
        self.known
            .get(uid(machine))
            .is_some_and(|since| now.saturating_sub(*since) > RECONCILE)
    }

    /// How many Machines a set wanted at times that a decision may come from.
    fn wanted(&self, set: &ObjectKey, now: Duration) -> impl Iterator<Item = i64> {
        self.wanted_within(set, now, STALE)
    }

    /// How many Machines a set wanted within this time.
    fn wanted_within(
        &self,
        set: &ObjectKey,
        now: Duration,
        within: Duration,
    ) -> impl Iterator<Item = i64> {
        let all = self.sets.get(set).map_or(&[][..], Vec::as_slice);
        let from = now.saturating_sub(within);
        let first = all
            .partition_point(|(since, _)| *since < from)
            .saturating_sub(1);
        let recent = all.get(first..).unwrap_or_default();
        recent.iter().map(|(_, replicas)| *replicas)
    }

    /// What people wished while a cluster was paused reaches its MachineSets only now, and these may go on with what they had been told.
    fn resumed(&mut self, cluster: &ObjectKey, paused: Duration, now: Duration) {
        let here = self.deployments.iter_mut();
        for (_, limits) in here.filter(|(key, _)| key.namespace == cluster.namespace) {
            for wish in limits.iter_mut().filter(|wish| wish.since > paused) {
                wish.since = now;
            }
        }
    }

    /// Since when a cluster has been paused.
    fn is_paused(&self, cluster: &ObjectKey, now: Duration) -> bool {
        self.paused
            .get(cluster)
            .is_some_and(|since| now.saturating_sub(*since) > PAUSE_GRACE)
    }
}

fn limit(deployment: &Value, field: &str, default: i64) -> i64 {
    number(
        deployment,
        &format!("/spec/rollout/strategy/rollingUpdate/{field}"),
    )
    .unwrap_or(default)
}

/// The Cluster that an object belongs to.
fn cluster_of(object: &Value) -> Option<ObjectKey> {
    let namespace = text(object, "/metadata/namespace");
    if object["kind"] == "Cluster" {
        return Some(key(object));
    }
    let named = text(object, "/spec/clusterName");
    let named = if named.is_empty() {
        label_of(object, label::CLUSTER_NAME)?
    } else {
        named
    };
    Some(ObjectKey::new(namespace, named))
}

fn is_available(machine: &Value) -> bool {
    is_condition(machine, "Available", "True")
}

/// Whether its set replaces it because a health check has given it up.
fn is_remediated(machine: &Value) -> bool {
    let is_being_replaced = list(machine, "/status/conditions")
        .iter()
        .any(|c| c["type"] == "OwnerRemediated" && c["reason"] == "MachineDeleting");
    is_being_replaced && is_condition(machine, "HealthCheckSucceeded", "False")
}

/// Whether a health check has asked its set to replace it.
fn is_asked_for(machine: &Value) -> bool {
    is_condition(machine, "OwnerRemediated", "False")
}

/// Lists that more than one writer keeps entries in.
const SHARED_LISTS: [&str; 4] = [
    "/metadata/finalizers",
    "/metadata/ownerReferences",
    "/status/conditions",
    "/spec/taints",
];

impl State {
    /// The host is told of an object.
    pub fn host_learns(&mut self, object: &Value) {
        let now = self.now();
        self.watchman.host_learns(object, now);
    }

    /// The host is about to patch something: a list is replaced whole, so that it must be of the version that was read.
    pub fn check_patch(&mut self, by: &str, resource: &Resource, key: &ObjectKey, patch: &Value) {
        if !text(patch, "/metadata/resourceVersion").is_empty() {
            return;
        }
        let list = SHARED_LISTS
            .iter()
            .find(|list| patch.pointer(list).is_some_and(Value::is_array));
        if let Some(list) = list {
            self.violated(format!(
                "{by} replaces {list} of {} {key} whatever is in it by now",
                resource.kind
            ));
        }
    }

    /// A write was done: remembers what it means, and checks what the host did.
    pub fn check(&mut self, server: &Server, write: &Write<'_>, written: &Written) {
        match server {
            Server::Management => {
                self.remember(written);
                if write.actor == Actor::User && write.resource.kind == "Machine" {
                    self.remember_people(write.verb, written);
                }
                if let Some(gone) = written.old.as_ref().filter(|_| written.new.is_none()) {
                    self.check_gone(&Arc::clone(gone));
                }
                if write.actor == Actor::Host {
                    self.check_host(write, written);
                }
            }
            Server::Workload(cluster) => {
                if write.actor == Actor::Host {
                    self.check_workload(&cluster.clone(), write, written);
                }
            }
        }
    }

    pub(crate) fn violated(&mut self, what: String) {
        let line = format!("VIOLATION: {what}");
        self.note(&line);
        self.watchman.violated(what);
    }

    fn remember(&mut self, written: &Written) {
        let now = self.now();
        let Some(new) = &written.new else {
            return;
        };
        match text(new, "/kind") {
            "MachineDeployment" => {
                let is_rolling = text(new, "/spec/rollout/strategy/type") != "OnDelete";
                let limit = |field, default| match is_rolling {
                    true => limit(new, field, default),
                    false => 0,
                };
                let limits = Limits {
                    since: now,
                    replicas: number(new, "/spec/replicas").unwrap_or(1),
                    surge: limit("maxSurge", 1),
                    unavailable: limit("maxUnavailable", 0),
                };
                self.watchman
                    .deployments
                    .entry(key(new))
                    .or_default()
                    .push(limits);
            }
            "SimStackedControlPlane" => self.plane_written(&Arc::clone(new)),
            "MachineSet" => {
                let replicas = number(new, "/spec/replicas").unwrap_or(1);
                self.watchman
                    .sets
                    .entry(key(new))
                    .or_default()
                    .push((now, replicas));
            }
            "Machine" => {
                let made = &mut self.watchman.made;
                made.entry(uid(new).to_owned()).or_insert(now);
                let was = written.old.as_ref().is_some_and(|old| is_available(old));
                if !was && is_available(new) {
                    let since = &mut self.watchman.available_since;
                    since.insert(uid(new).to_owned(), now);
                }
                if was || is_available(new) {
                    self.watchman.available.insert(uid(new).to_owned(), now);
                }
            }
            "Cluster" => {
                if flag(new, "/spec/paused") {
                    self.watchman.paused.entry(key(new)).or_insert(now);
                } else if let Some(since) = self.watchman.paused.remove(&key(new)) {
                    self.watchman.resumed(&key(new), since, now);
                }
            }
            _ => {}
        }
    }

    /// What people do with Machines is no fault of the host's.
    fn remember_people(&mut self, verb: &str, written: &Written) {
        let now = self.now();
        if verb == "delete"
            && let Some(machine) = &written.old
        {
            let gone = uid(machine).to_owned();
            self.watchman.deleted_by_people.insert(gone, now);
        }
        if let Some(machine) = &written.new
            && annotation_of(machine, annotation::DELETE_MACHINE).is_some()
        {
            let marked = uid(machine).to_owned();
            self.watchman.marked_by_people.insert(marked);
        }
    }

    /// Nothing goes before what it stands for has gone.
    fn check_gone(&mut self, gone: &Value) {
        let kind = text(gone, "/kind");
        match kind {
            "Machine" => {
                let machine = uid(gone);
                let alive = self.cloud.of_machine(machine).next().is_some();
                if alive {
                    self.violated(format!(
                        "Machine {} is gone and its instance is not",
                        key(gone)
                    ));
                }
                let kinds = [
                    &*sim::SIM_MACHINE,
                    &*sim::SIM_CONFIG,
                    &*sim::SIM_STACKED_CONFIG,
                ];
                let left = kinds.iter().find_map(|kind| {
                    let its = |object: &Value| controller(object) == Some(machine);
                    self.management.find(kind, its)
                });
                if let Some(left) = left {
                    self.violated(format!(
                        "Machine {} is gone and its {} {} is not",
                        key(gone),
                        text(&left, "/kind"),
                        name(&left)
                    ));
                }
            }
            "SimMachine" => {
                let instance = self.cloud.instances.get(&format!("{}-machine", uid(gone)));
                if instance.is_some() {
                    self.violated(format!(
                        "SimMachine {} is gone and its instance is not",
                        key(gone)
                    ));
                }
            }
            "SimCluster" => {
                let mut networks = self.cloud.networks.values();
                if networks.any(|network| network.owner == uid(gone)) {
                    self.violated(format!(
                        "SimCluster {} is gone and its network is not",
                        key(gone)
                    ));
                }
            }
            "Cluster" => {
                let left = self.management.everything().find(|(resource, object)| {
                    let is_core = resource.group == kinds::CLUSTER.group
                        && resource.kind != "MachineHealthCheck";
                    let counts = is_core
                        || **resource == *sim::SIM_CLUSTER
                        || **resource == *sim::SIM_CONTROL_PLANE
                        || **resource == *sim::SIM_STACKED_CONTROL_PLANE
                        || **resource == *sim::SIM_MACHINE;
                    counts && cluster_of(object) == Some(key(gone))
                });
                let left =
                    left.map(|(resource, object)| format!("{} {}", resource.kind, key(object)));
                if let Some(left) = left {
                    self.violated(format!("Cluster {} is gone and {left} is not", key(gone)));
                }
            }
            _ => {}
        }
    }

    fn check_host(&mut self, write: &Write<'_>, written: &Written) {
        self.check_pause(write, written);
        self.check_plane(write.verb, written);
        let kind = write.resource.kind.as_str();
        match (kind, write.verb, &written.old, &written.new) {
            ("MachineSet", "create" | "patch", old, Some(new)) => {
                let (old, new) = (old.clone(), Arc::clone(new));
                self.check_raise(old.as_deref(), &new);
            }
            ("Machine", "create", _, Some(new)) => {
                self.watchman.machines_made += 1;
                let new = Arc::clone(new);
                self.check_ceiling(&new);
                self.check_size(&new);
            }
            ("Machine", "delete", Some(old), _) => {
                let old = Arc::clone(old);
                self.check_is_explained(&old);
                self.check_floor(&old);
                self.check_budget(&old);
            }
            ("Machine", "patch", Some(old), Some(new)) => {
                let (old, new) = (Arc::clone(old), Arc::clone(new));
                self.check_records(&old, &new);
            }
            ("SimRemediation", "create", _, Some(new)) => {
                self.check_is_asked_of_others(&Arc::clone(new));
            }
            ("SimRemediation", "delete", Some(old), _) => {
                self.check_is_taken_back(&Arc::clone(old));
            }
            ("Machine", "patch-status", Some(old), Some(new)) => {
                let given_up =
                    |machine: &Value| is_condition(machine, "HealthCheckSucceeded", "False");
                let (new, old) = (Arc::clone(new), Arc::clone(old));
                if given_up(&new) && !given_up(&old) {
                    self.check_is_ill(&new);
                }
                if is_asked_for(&new) && !is_asked_for(&old) {
                    self.check_may_be_replaced(&new);
                }
            }
            ("SimMachine", "delete", Some(old), _) => self.check_order(&Arc::clone(old)),
            (
                "SimCluster" | "SimControlPlane" | "SimStackedControlPlane",
                "delete",
                Some(old),
                _,
            ) => {
                let old = Arc::clone(old);
                if !self.is_cluster_going(&old) {
                    self.violated(format!(
                        "{kind} {} is deleted and its Cluster is not",
                        key(&old)
                    ));
                }
                let cluster = cluster_of(&old);
                // The control plane's own go with it.
                let of_it = |machine: &Value| {
                    let is_own = label_of(machine, label::CONTROL_PLANE).is_some();
                    cluster_of(machine) == cluster && (!is_own || kind == "SimCluster")
                };
                if self.management.find(&kinds::MACHINE, of_it).is_some() {
                    self.violated(format!(
                        "{kind} {} is deleted before its workers",
                        key(&old)
                    ));
                }
            }
            _ => {}
        }
    }

    fn check_pause(&mut self, write: &Write<'_>, written: &Written) {
        let object = written.new.as_ref().or(written.old.as_ref());
        let Some(object) = object.map(Arc::clone) else {
            return;
        };
        let now = self.now();
        if !cluster_of(&object).is_some_and(|cluster| self.watchman.is_paused(&cluster, now)) {
            return;
        }
        if write.resource.kind == "Event" {
            return;
        }
        let rest = |object: &Option<Arc<Value>>| {
            let mut object = object
                .as_ref()
                .map(|object| (**object).clone())
                .unwrap_or_default();
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("conditions");
                if status.is_empty() {
                    drop(
                        object
                            .as_object_mut()
                            .and_then(|fields| fields.remove("status")),
                    );
                }
            }
            crate::object::metadata(&mut object).remove("resourceVersion");
            object
        };
        // That it is paused may be said.
        if write.verb != "patch-status" || rest(&written.old) != rest(&written.new) {
            self.violated(format!(
                "{} {} {} although its Cluster is paused",
                write.by,
                write.verb,
                key(&object)
            ));
        }
    }

    fn cluster(&self, key: &ObjectKey) -> Option<Arc<Value>> {
        self.management.get(&kinds::CLUSTER, key).ok()
    }

    fn is_cluster_going(&self, object: &Value) -> bool {
        cluster_of(object)
            .and_then(|key| self.cluster(&key))
            .is_none_or(|cluster| is_deleting(&cluster))
    }

    fn machines_of(&self, deployment: &ObjectKey) -> Vec<Arc<Value>> {
        let all = self.management.all(&kinds::MACHINE);
        all.filter(|machine| {
            text(machine, "/metadata/namespace") == deployment.namespace
                && label_of(machine, label::DEPLOYMENT_NAME) == Some(&deployment.name)
        })
        .cloned()
        .collect()
    }
}

#[cfg(test)]
mod tests;
