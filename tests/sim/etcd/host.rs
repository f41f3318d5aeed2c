//! The host as its control plane has it: looks, decides, and does one step after the other. Each is held against what must be true.

use std::collections::VecDeque;

use capstan_api::{annotation, condition};
use capstan_core::control_plane::in_cluster::StableWork;
use capstan_core::control_plane::snapshot::{State, Taken, Taking};
use capstan_core::control_plane::{Observed, Step, decide, remediation};
use capstan_core::plan::{Next, Plan};
use serde_json::{Value, json};

use super::Life;
use super::check::basis;
use super::observe::{observe, timestamp};
use super::world::{Machine, set};
use crate::basis::Basis;
use crate::membership::Member;

/// A reconcile is dropped after this time.
pub(super) const DEADLINE: u64 = 120;
/// The longest that a snapshot takes.
const SNAPSHOT_MOST: u64 = 400;

/// The host's work of one look.
pub(super) struct Reconcile {
    steps: VecDeque<Step>,
    next_at: u64,
    began: u64,
    /// What was true at the look.
    pub(super) basis: Basis,
}

impl Life {
    /// One second of the host.
    pub(super) fn host(&mut self) {
        let now = self.world.now;
        if now < self.off_until {
            return;
        }
        self.end_snapshot();
        if let Some(reconcile) = &self.reconcile {
            if now >= reconcile.began + DEADLINE {
                self.reconcile = None;
                self.look_at = now + 1;
            } else if now >= reconcile.next_at {
                self.step();
            }
            return;
        }
        // Changes of its Machines wake it; the rest it looks at by itself.
        let is_woken = self.world.cache != self.seen;
        if is_woken {
            self.seen.clone_from(&self.world.cache);
        }
        if is_woken || now >= self.look_at {
            self.look();
        }
    }

    pub(super) fn seen_now(&self) -> (Observed, Plan<Step>) {
        let taking = self.taking.as_ref().map(|(_, taking)| taking);
        let work = self.work.as_ref();
        let seen = observe(&self.world, self.keeps_snapshots, taking, work);
        let plan = decide(&seen, timestamp(self.world.now));
        (seen, plan)
    }

    fn look(&mut self) {
        let now = self.world.now;
        let (seen, plan) = self.seen_now();
        if let Some(last) = remediation::last(&seen) {
            let last = json!({"machine": last.machine, "time": last.timestamp.to_string()});
            self.world.object["status"]["lastRemediation"] = last;
        }
        self.look_at = match plan.next {
            Next::Settled => now + 180,
            Next::CheckAfter(after) => now + after.as_secs().max(1),
        };
        if plan.steps.is_empty() {
            return;
        }
        self.reconcile = Some(Reconcile {
            steps: plan.steps.into(),
            next_at: now,
            began: now,
            basis: basis(&self.world),
        });
        self.step();
    }

    /// Does the next step. It may be refused, or have its effect and the answer is lost: then the rest is not done.
    fn step(&mut self) {
        let now = self.world.now;
        let Some(mut reconcile) = self.reconcile.take() else {
            return;
        };
        let Some(step) = reconcile.steps.pop_front() else {
            self.look_at = self.look_at.min(now + 1);
            return;
        };
        let is_bad = !self.world.is_calm && self.world.random.happens(self.bad_steps);
        let is_done_all_the_same = self.world.random.happens(500);
        let before = is_bad.then(|| self.world.cache.clone());
        let has_effect = !is_bad || is_done_all_the_same;
        let mut is_done = has_effect && self.perform(&mut reconcile.basis, &step);
        if is_bad {
            is_done = false;
        }
        if let Some(before) = before {
            // No answer came that could be taken in.
            self.world.cache = before;
        }
        if !is_done {
            self.look_at = now + self.world.random.between(1, 8);
            return;
        }
        let slowly = !self.world.is_calm && self.world.random.happens(100);
        let takes = if slowly {
            self.world.random.between(1, 60)
        } else {
            self.world.random.below(2)
        };
        reconcile.next_at = now + takes;
        self.reconcile = Some(reconcile);
        if takes == 0 {
            self.step();
        }
    }

    fn both(&mut self, name: &str, change: impl Fn(&mut Machine)) {
        // The answer of a write is taken into the cache.
        let world = &mut self.world;
        for machine in world.machines.iter_mut().chain(&mut world.cache) {
            if machine.name == name {
                change(machine);
            }
        }
    }

    /// Has one step take effect; false when it is refused.
    fn perform(&mut self, basis: &mut Basis, step: &Step) -> bool {
        let now = self.world.now;
        let is_change = match step {
            Step::Patch { patch, .. } => drops_hook(patch),
            Step::ReportMachine { .. }
            | Step::ForgetRemediation { .. }
            | Step::Tell { .. }
            | Step::AfterStable
            | Step::BeforeJoin { .. } => false,
            _ => true,
        };
        if is_change {
            self.acts += 1;
            self.world.note(&format!("host: {}", words(step)));
        }
        match step {
            Step::CreateMachine {
                name,
                failure_domain,
                remediation_for,
                ..
            } => {
                if self.world.machines.iter().any(|own| own.name == *name) {
                    return false;
                }
                self.check_creation(basis, name, remediation_for.is_some());
                let domain = failure_domain.clone().unwrap_or_default();
                self.world
                    .add_machine(name, &domain, remediation_for.clone());
                self.world.made += 1;
                self.world.cache.extend(self.world.machines.last().cloned());
                self.check_ceiling(name);
            }
            Step::DeleteMachine { name, uid } => {
                let mut machines = self.world.machines.iter();
                let Some(own) = machines.find(|own| own.name == *name && own.uid == *uid) else {
                    return true;
                };
                if own.deleted.is_some() {
                    return true;
                }
                self.check_deletion(basis, name);
                self.both(name, |machine| {
                    machine.deleted.get_or_insert(now);
                });
            }
            Step::RemoveEtcdMember { id, name, through } => {
                let is_heard = through.iter().any(|address| self.is_reached(&address.name));
                if !is_heard || !self.world.answers() {
                    return false;
                }
                self.check_removal(basis, *id, name);
                self.world.etcd.members.retain(|member| member.id != *id);
                self.world.removed += 1;
            }
            Step::MoveLeader { from, to, .. } => {
                let mut members = self.world.etcd.members.iter();
                let leads = |member: &&Member| {
                    Some(member.id) == self.world.etcd.leader && member.machine == from.name
                };
                let takes_over = |member: &&Member| {
                    member.id == *to && !member.learner && self.world.works(member)
                };
                if !self.is_reached(&from.name)
                    || members.clone().find(leads).is_none()
                    || members.find(takes_over).is_none()
                {
                    return false;
                }
                self.world.etcd.leader = Some(*to);
                basis.has_moved = true;
            }
            Step::Snapshot { before, .. } => {
                if self.is_taking() {
                    self.world
                        .violated("two snapshots are taken at a time".to_owned());
                }
                self.begin_snapshot(before);
            }
            Step::NoteSnapshot { taking, taken } => {
                self.annotate(&taking.noted(taken));
                self.taking = None;
            }
            Step::EndAlarm { alarm, through } => {
                let is_heard = through.iter().any(|address| self.is_reached(&address.name));
                if !is_heard || !self.world.answers() {
                    return false;
                }
                if self.world.etcd.members.iter().any(|m| m.id == alarm.member) {
                    self.world.violated(format!(
                        "the alarm of member {:x} is ended, which is still there",
                        alarm.member
                    ));
                }
                self.world.etcd.alarms.retain(|other| other != alarm);
            }
            Step::Patch { name, patch, .. } if drops_hook(patch) => {
                self.check_lets_go(basis, name);
                self.both(name, |machine| machine.hook = false);
            }
            Step::ReportMachine { name, conditions } => {
                for report in conditions {
                    self.both(name, |machine| {
                        set(&mut machine.conditions, report.clone(), now);
                    });
                }
            }
            Step::ForgetRemediation { name } => self.both(name, |machine| {
                condition::remove(&mut machine.conditions, "OwnerRemediated");
            }),
            Step::Annotate { annotations } => self.annotate(annotations),
            Step::AfterStable => {
                self.work = Some(StableWork {
                    at: timestamp(now),
                    failure: None,
                });
            }
            _ => {}
        }
        true
    }

    fn is_taking(&self) -> bool {
        let state = self.taking.as_ref().map(|(_, taking)| &taking.state);
        matches!(state, Some(State::Running { .. }))
    }

    /// Most snapshots are there at once; some take longer than a reconcile may.
    fn begin_snapshot(&mut self, before: &str) {
        let now = self.world.now;
        let is_large = !self.world.is_calm && self.world.random.happens(200);
        let takes = if is_large {
            self.world.random.between(1, SNAPSHOT_MOST)
        } else {
            self.world.random.below(2)
        };
        let (failures, failed_before) = match self.taking.take().map(|(_, last)| last.state) {
            Some(State::Failed { why, times, .. }) => (times, Some(why)),
            _ => (0, None),
        };
        self.snapshot_failures = failures;
        let taking = Taking {
            before: before.to_owned(),
            since: timestamp(now),
            state: State::Running {
                from: "a member".to_owned(),
                bytes: 0,
            },
            failed_before,
        };
        self.taking = Some((now + takes, taking));
    }

    /// A snapshot that has come to its end wakes the control plane. It fails where no member can be read.
    fn end_snapshot(&mut self) {
        let now = self.world.now;
        if !self.is_taking() {
            return;
        }
        let is_read = self.world.answers()
            && self
                .world
                .etcd
                .members
                .iter()
                .any(|m| self.world.reaches(m));
        let is_bad = !self.world.is_calm && self.world.random.happens(self.bad_steps);
        let Some((_, taking)) = self.taking.as_mut().filter(|(ends, _)| *ends <= now) else {
            return;
        };
        let at = timestamp(now);
        if is_read && !is_bad {
            taking.state = State::Taken(Taken {
                path: "p".to_owned(),
                bytes: 1,
                not_pruned: None,
                at,
            });
            self.snapshot = Some((now, taking.before.clone()));
        } else {
            self.snapshot_failures += 1;
            taking.state = State::Failed {
                why: "no member answers".to_owned(),
                at,
                times: self.snapshot_failures,
            };
        }
        self.look_at = now;
    }

    /// Whether the member of this name hears the host.
    fn is_reached(&self, name: &str) -> bool {
        let mut members = self.world.etcd.members.iter();
        members.any(|member| member.machine == name && self.world.reaches(member))
    }

    fn annotate(&mut self, annotations: &Value) {
        let patch = json!({"metadata": {"annotations": annotations}});
        crate::object::merge(&mut self.world.object, &patch);
    }
}

/// Whether a patch lets a machine go.
fn drops_hook(patch: &Value) -> bool {
    let annotations = patch.pointer("/metadata/annotations");
    let hook = annotations.and_then(|all| all.get(annotation::KCP_CLEANUP_HOOK));
    hook == Some(&Value::Null)
}

pub(super) fn words(step: &Step) -> String {
    match step {
        Step::CreateMachine { name, .. } => format!("makes Machine {name}"),
        Step::DeleteMachine { name, .. } => format!("deletes Machine {name}"),
        Step::RemoveEtcdMember { id, name, .. } => format!("removes member {name} ({id:x})"),
        Step::Patch { name, patch, .. } => format!("patches {name}: {patch}"),
        other => format!("{other:?}"),
    }
}
