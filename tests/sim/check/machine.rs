//! Machines: not too many, not too few, and none deleted without a reason.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use serde_json::Value;

use super::{RECONCILE, STALE, UNSEEN, cluster_of, is_available, is_remediated};
use crate::cloud::Phase;
use crate::object::{
    annotation as annotation_of, controller, is_condition, is_deleting, key, label as label_of,
    list, name, number, text, uid,
};
use crate::world::State;

/// How soon everybody knows of a broken machine: its Node is Unknown, and two late events have told of it.
const KNOWN_BROKEN: Duration = Duration::from_secs(120);

/// The MachineDeployment of a MachineSet or a Machine.
fn deployment_of(object: &Value) -> Option<ObjectKey> {
    let name = label_of(object, label::DEPLOYMENT_NAME)?;
    Some(ObjectKey::new(text(object, "/metadata/namespace"), name))
}

impl State {
    /// The most Machines that a MachineDeployment may have: replicas and surge, at their most generous of the last minutes.
    fn ceiling(&self, deployment: &ObjectKey) -> Option<i64> {
        let limits = self.watchman.limits(deployment, self.now());
        let most = limits.iter().map(|limits| limits.replicas + limits.surge);
        most.max()
    }

    /// The MachineSets of a MachineDeployment that stay.
    fn sets_of<'a>(&'a self, deployment: &'a ObjectKey) -> impl Iterator<Item = &'a Arc<Value>> {
        let sets = self.management.all(&kinds::MACHINE_SET);
        sets.filter(move |set| deployment_of(set).as_ref() == Some(deployment) && !is_deleting(set))
    }

    /// No MachineSet is told to have more if there could then be more Machines than the ceiling: what each set is to have, or has
    /// and must still get rid of. That is where the ceiling is kept. A set makes up for Machines that people or health checks take
    /// away, to what it was told and no further, and may so be above a ceiling that people lowered while nothing could shrink.
    pub(super) fn check_raise(&mut self, old: Option<&Value>, set: &Value) {
        let replicas = |set: &Value| number(set, "/spec/replicas").unwrap_or_default();
        if replicas(set) <= old.map_or(0, replicas) {
            return;
        }
        let Some(deployment) = deployment_of(set) else {
            return;
        };
        let Some(most) = self.ceiling(&deployment) else {
            return;
        };
        let now = self.now();
        let occupied = self.sets_of(&deployment).map(|set| {
            let machines = self.management.all(&kinds::MACHINE).filter(|machine| {
                controller(machine) == Some(uid(set)) && self.watchman.must_count(machine, now)
            });
            replicas(set).max(i64::try_from(machines.count()).unwrap_or(i64::MAX))
        });
        let total: i64 = occupied.sum();
        if total > most {
            self.violated(format!(
                "MachineSet {} is told to have {}, and MachineDeployment {deployment} could then have {total} Machines, at most {most} are allowed",
                key(set),
                replicas(set)
            ));
        }
    }

    /// A Machine is made within the ceiling, or at least within what all sets together were told to have
    /// ([`Self::check_raise`] holds that to the ceiling).
    pub(super) fn check_ceiling(&mut self, machine: &Value) {
        let Some(deployment) = deployment_of(machine) else {
            return;
        };
        let now = self.now();
        let told: i64 = self
            .sets_of(&deployment)
            .filter_map(|set| self.watchman.wanted_within(&key(set), now, RECONCILE).max())
            .sum();
        let most = self.ceiling(&deployment).map(|most| most.max(told));
        let machines = self.machines_of(&deployment);
        // Of its own Machines a set must know; of another's only what it was told.
        let set = label_of(machine, label::SET_NAME);
        let counts = |other: &&Arc<Value>| {
            let is_own = label_of(other, label::SET_NAME) == set;
            !is_deleting(other) && (is_own || self.watchman.known.contains_key(uid(other)))
        };
        let alive = i64::try_from(machines.iter().filter(counts).count()).unwrap_or(i64::MAX);
        if most.is_some_and(|most| alive > most) {
            self.violated(format!(
                "MachineDeployment {deployment} has {alive} Machines, at most {} are allowed",
                most.unwrap_or_default()
            ));
        }
    }

    /// A set makes no more Machines than it wants. Those that go count until they are gone.
    pub(super) fn check_size(&mut self, machine: &Value) {
        let Some(owner) = controller(machine) else {
            return;
        };
        let set = self
            .management
            .find(&kinds::MACHINE_SET, |set| uid(set) == owner);
        let Some(set) = set.map(|set| key(&set)) else {
            return;
        };
        let all = self.management.all(&kinds::MACHINE);
        let has = all.filter(|other| controller(other) == Some(owner)).count();
        let has = i64::try_from(has).unwrap_or(i64::MAX);
        let most = self.watchman.wanted(&set, self.now()).max();
        if most.is_some_and(|most| has > most) {
            self.violated(format!(
                "MachineSet {set} makes {} and then has {has} Machines, it never wanted more than {}",
                name(machine),
                most.unwrap_or_default()
            ));
        }
    }

    /// A health check asks for nothing while it knows of more that are unhealthy than it may replace at all.
    pub(super) fn check_may_be_replaced(&mut self, machine: &Value) {
        let check = self.management.all(&kinds::MACHINE_HEALTH_CHECK).next();
        let most = check.and_then(|check| {
            number(
                check,
                "/spec/remediation/triggerIf/unhealthyLessThanOrEqualTo",
            )
        });
        let Some(most) = most else {
            return;
        };
        let now = self.now();
        let broken = self.management.all(&kinds::MACHINE).filter(|machine| {
            let mut instances = self.cloud.of_machine(uid(machine));
            !is_deleting(machine)
                && !text(machine, "/status/nodeRef/name").is_empty()
                && instances.any(|instance| match instance.phase {
                    Phase::Broken(since) => now.saturating_sub(since) > KNOWN_BROKEN,
                    _ => false,
                })
        });
        let broken = i64::try_from(broken.count()).unwrap_or(i64::MAX);
        if broken > most {
            self.violated(format!(
                "Machine {} is to be replaced although {broken} are broken, at most {most} may be",
                name(machine)
            ));
        }
    }

    /// The Machine that an external remediator is asked to help.
    fn machine_of_request(&self, request: &Value) -> Option<Arc<Value>> {
        let owners = list(request, "/metadata/ownerReferences");
        self.management.find(&kinds::MACHINE, |machine| {
            owners
                .iter()
                .any(|owner| text(owner, "/uid") == uid(machine))
        })
    }

    /// Somebody else is asked to help a Machine under the same conditions under which it would be replaced.
    pub(super) fn check_is_asked_of_others(&mut self, request: &Value) {
        match self.machine_of_request(request) {
            Some(machine) => {
                self.check_is_ill(&machine);
                self.check_may_be_replaced(&machine);
            }
            None => self.violated(format!(
                "SimRemediation {} is made for no Machine",
                name(request)
            )),
        }
    }

    /// A request is taken back when the Machine is well again, and not while it is known to be broken.
    pub(super) fn check_is_taken_back(&mut self, request: &Value) {
        let Some(machine) = self.machine_of_request(request) else {
            return;
        };
        let now = self.now();
        let is_broken = self
            .cloud
            .of_machine(uid(&machine))
            .any(|instance| match instance.phase {
                Phase::Broken(since) => now.saturating_sub(since) > KNOWN_BROKEN,
                _ => false,
            });
        if is_broken && !is_deleting(&machine) {
            self.violated(format!(
                "the request to help Machine {} is taken back and it is broken",
                name(&machine)
            ));
        }
    }

    /// A Machine is deleted because somebody wants fewer, or none.
    pub(super) fn check_is_explained(&mut self, machine: &Value) {
        let asked_for = annotation_of(machine, annotation::DELETE_MACHINE).is_some()
            || annotation_of(machine, annotation::REMEDIATE_MACHINE).is_some()
            || is_remediated(machine);
        if asked_for || self.is_cluster_going(machine) {
            return;
        }
        let Some(owner) = controller(machine) else {
            return;
        };
        let set = self
            .management
            .find(&kinds::MACHINE_SET, |set| uid(set) == owner);
        let Some(set) = set else {
            return;
        };
        let all = self.management.all(&kinds::MACHINE);
        let alive = all
            .filter(|other| controller(other) == Some(owner))
            .filter(|other| uid(other) != uid(machine))
            .filter(|other| self.watchman.may_count(other, self.now()))
            .count();
        let before = i64::try_from(alive).unwrap_or(i64::MAX).saturating_add(1);
        let wanted = self.watchman.wanted(&key(&set), self.now()).min();
        let wanted = wanted.unwrap_or_default();
        if !is_deleting(&set) && before <= wanted {
            self.violated(format!(
                "Machine {} is deleted although MachineSet {} has {before} and wants {wanted}",
                key(machine),
                key(&set)
            ));
        }
    }

    /// Not more Machines are replaced at a time than the budget allows.
    pub(super) fn check_budget(&mut self, machine: &Value) {
        if !is_remediated(machine) || is_deleting(machine) {
            return;
        }
        let deployment = deployment_of(machine).unwrap_or_default();
        let Ok(found) = self.management.get(&kinds::MACHINE_DEPLOYMENT, &deployment) else {
            return;
        };
        let Some(most) = number(&found, "/spec/remediation/maxInFlight") else {
            return;
        };
        let owner = controller(machine);
        let others = self.management.all(&kinds::MACHINE).filter(|other| {
            is_remediated(other) && is_deleting(other) && controller(other) == owner
        });
        let going = i64::try_from(others.count()).unwrap_or(i64::MAX);
        if going > most {
            self.violated(format!(
                "{going} Machines of {deployment} are replaced at once, at most {most} may be"
            ));
        }
    }

    /// A Machine is given up only if its Node is not well: that it cannot be seen is no reason.
    pub(super) fn check_is_ill(&mut self, machine: &Value) {
        // What is wrong with a machine of a control plane need not show on its Node.
        if self.is_body(name(machine)) {
            return;
        }
        let instance = self.cloud.of_machine(uid(machine)).next();
        let runs = instance.is_some_and(|instance| instance.phase == Phase::Running);
        let cluster = cluster_of(machine).unwrap_or_default();
        let node = ObjectKey::new("", text(machine, "/status/nodeRef/name"));
        let node = self
            .workloads
            .get(&cluster)
            .map(|workload| workload.store.get(&kinds::NODE, &node));
        let is_ready = matches!(node, Some(Ok(node)) if is_condition(&node, "Ready", "True"));
        if runs && is_ready && annotation_of(machine, annotation::REMEDIATE_MACHINE).is_none() {
            self.violated(format!(
                "Machine {} is given up and its Node is well",
                name(machine)
            ));
        }
    }

    /// How many Machines the deployment did not count when it told the set of this one to have fewer, although one that people marked
    /// goes before them: the set replaced, in that moment, one that had just gone (seed 4199). Without these, nothing would go.
    fn just_replaced(&self, machine: &Value) -> usize {
        if !self.watchman.marked_by_people.contains(uid(machine)) {
            return 0;
        }
        let now = self.now();
        let all = self.management.all(&kinds::MACHINE);
        let new = all.filter(|other| {
            let made = self.watchman.made.get(uid(other));
            controller(other) == controller(machine)
                && !is_deleting(other)
                && !is_available(other)
                && made.is_some_and(|at| now.saturating_sub(*at) < RECONCILE)
        });
        new.count()
    }

    /// No Machine goes that would leave fewer available than the floor.
    pub(super) fn check_floor(&mut self, machine: &Value) {
        let asked_for = annotation_of(machine, annotation::REMEDIATE_MACHINE).is_some()
            || is_remediated(machine);
        let Some(deployment) = deployment_of(machine) else {
            return;
        };
        let found = self.management.get(&kinds::MACHINE_DEPLOYMENT, &deployment);
        let is_going = found.is_ok_and(|deployment| is_deleting(&deployment));
        if asked_for || is_going || self.is_cluster_going(machine) || !is_available(machine) {
            return;
        }
        let now = self.now();
        // One that was not available may go; it may have become so since that was decided, and no host can know (seed 5419).
        let since = self.watchman.available_since.get(uid(machine));
        if since.is_none_or(|since| now.saturating_sub(*since) < RECONCILE) {
            return;
        }
        let limits = self.watchman.limits(&deployment, now);
        let fewest = limits
            .iter()
            .map(|limits| limits.replicas - limits.unavailable)
            .min();
        let Some(fewest) = fewest else {
            return;
        };
        let machines = self.machines_of(&deployment);
        let counts = |other: &&Arc<Value>| {
            let lately = self.watchman.available.get(uid(other));
            let lately = lately.is_some_and(|at| now.saturating_sub(*at) <= STALE);
            uid(other) != uid(machine) && !is_deleting(other) && (is_available(other) || lately)
        };
        let left = i64::try_from(machines.iter().filter(counts).count()).unwrap_or(i64::MAX);
        // What people take away is not the host's doing, and it may not know of it yet.
        let taken = self.watchman.deleted_by_people.values();
        let taken = taken
            .filter(|at| now.saturating_sub(**at) <= UNSEEN)
            .count()
            .saturating_add(self.just_replaced(machine));
        let left = left.saturating_add(i64::try_from(taken).unwrap_or(i64::MAX));
        if left < fewest {
            self.violated(format!(
                "MachineDeployment {deployment} has {left} available Machines left without {}, at least {fewest} must stay",
                name(machine)
            ));
        }
    }
}
