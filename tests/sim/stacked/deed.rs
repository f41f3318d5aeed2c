//! What people and misfortune do to control planes, and plans of worlds that have one.

use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use serde_json::json;

use super::Body;
use crate::cloud::Phase;
use crate::fault::Rates;
use crate::kinds as sim;
use crate::object::{is_deleting, key, number};
use crate::random::Random;
use crate::scenario::{CLUSTER, Deed, End, NAMESPACE, Plan, Step};
use crate::world::{Server, State};

/// Time that a control plane has before anything happens to it, in worlds in which it has: three machines are made one by one.
const GROWN_AFTER_S: u64 = 1_800;

/// How many operators in a thousand want snapshots, and how many of their places run full.
const WITH_SNAPSHOTS: u32 = 500;
const RUN_FULL: u32 = 300;

/// How many deeds in a thousand come together with the one before, within so many milliseconds.
const TOGETHER: (u32, u64) = (350, 90_000);

/// What happens to a control plane. Machines are chosen by luck among those there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// So many machines are wanted.
    Scale(u32),
    /// The next version is wanted.
    Upgrade,
    /// Machines are to have other settings.
    Change,
    /// A machine breaks for good.
    Break(u64),
    /// The machine of the leader breaks for good.
    BreakLeader,
    /// A machine is off, or cut off from all others, for seconds.
    TurnOff(u64, u64),
    /// Two are.
    Split(u64, u64),
    /// A member does its part and does not answer the host, for seconds.
    Mute(u64, u64),
    /// A member stands still for seconds, and its machine runs.
    StopMember(u64, u64),
    /// Somebody deletes a Node by hand.
    DropNode(u64),
    /// Somebody deletes a Machine, unless it is the last.
    Delete(u64),
    /// The database of a member is full for seconds.
    Fill(u64, u64),
    /// The member of the next machine never catches up.
    Stick,
    /// There is no room for snapshots, for seconds.
    NoRoom(u64),
}

fn trouble(random: &mut Random) -> Deed {
    let luck = random.draw();
    let seconds = random.between(10, 900);
    Deed::ControlPlane(match random.below(20) {
        0..=3 => Trouble::Scale([1, 3, 5][usize::try_from(random.below(3)).unwrap_or(1)]),
        4..=6 => Trouble::Upgrade,
        7 => Trouble::Change,
        8 | 9 => Trouble::Break(luck),
        10 => Trouble::BreakLeader,
        11 => Trouble::TurnOff(luck, seconds),
        12 => Trouble::Split(luck, seconds),
        13 => Trouble::Mute(luck, seconds),
        14 => Trouble::StopMember(luck, seconds),
        15 => Trouble::DropNode(luck),
        16 | 17 => Trouble::Delete(luck),
        18 => Trouble::Fill(luck, seconds),
        _ => Trouble::Stick,
    })
}

fn other(random: &mut Random) -> Deed {
    match random.below(8) {
        0 => Deed::Scale(u32::try_from(random.below(3)).unwrap_or_default()),
        1 => Deed::Pause(random.between(10, 600)),
        2..=4 => Deed::Crash(random.between(1, 60_000)),
        5 => Deed::Outage(random.between(1, 120)),
        6 => Deed::WorkloadOutage(random.between(1, 900)),
        _ => Deed::Roll,
    }
}

impl Plan {
    /// The plan of a world with a control plane of Machines.
    #[must_use]
    pub fn of_control_plane(seed: u64) -> Self {
        let mut random = Random::new(seed).fork(12);
        let rates = Rates::draw(&mut random);
        let replicas = [1, 3, 3, 5][usize::try_from(random.below(4)).unwrap_or(1)];
        let begins = if random.happens(250) {
            0
        } else {
            GROWN_AFTER_S
        };
        let mut at = begins * 1000;
        let count = random.between(2, 7);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| {
                at = if random.happens(TOGETHER.0) {
                    at + random.below(TOGETHER.1)
                } else {
                    begins * 1000 + random.below(3_600_000)
                };
                let deed = match random.below(10) {
                    0..=6 => trouble(&mut random),
                    _ => other(&mut random),
                };
                let at = Duration::from_millis(at);
                Step { at, deed }
            })
            .collect();
        if random.happens(150) {
            let at = Duration::from_millis(begins * 1000 + random.below(4_000_000));
            let deed = Deed::DeleteCluster;
            steps.push(Step { at, deed });
        }
        // Drawn apart, so that all else of a seed is the same with and without.
        let mut random = random.fork(13);
        let keeps_snapshots = random.happens(WITH_SNAPSHOTS);
        if keeps_snapshots && random.happens(RUN_FULL) {
            let at = Duration::from_millis(begins * 1000 + random.below(3_600_000));
            let deed = Deed::ControlPlane(Trouble::NoRoom(random.between(10, 1_800)));
            steps.push(Step { at, deed });
        }
        steps.sort_by_key(|step| step.at);
        let last = steps.last().map_or(Duration::ZERO, |step| step.at);
        Self {
            seed,
            rates,
            control_plane: Some(replicas),
            keeps_snapshots,
            replicas: u32::try_from(random.below(3)).unwrap_or_default(),
            limits: (1, 0),
            steps,
            calm_at: last + Duration::from_secs(random.between(60, 900)),
            quiet: Duration::from_secs(900),
            ..Self::default()
        }
    }
}

impl State {
    /// The machine that luck chooses among those that run.
    fn some_body(&self, luck: u64) -> Option<String> {
        let stacked = self.stacked.as_ref()?;
        let up: Vec<&String> = stacked
            .bodies
            .keys()
            .filter(|name| self.is_up(name))
            .collect();
        let at = luck.checked_rem(u64::try_from(up.len()).ok()?)?;
        up.get(usize::try_from(at).ok()?)
            .map(|name| (*name).clone())
    }

    fn with_some(&mut self, luck: u64, change: impl FnOnce(&mut Body)) {
        let Some(chosen) = self.some_body(luck) else {
            return;
        };
        self.note(&format!("that is {chosen}"));
        let stacked = self.stacked.as_mut();
        if let Some(body) = stacked.and_then(|stacked| stacked.bodies.get_mut(&chosen)) {
            change(body);
        }
    }

    fn break_body(&mut self, chosen: Option<String>) {
        let now = self.now();
        let mut instances = self.cloud.instances.values_mut();
        let broken = chosen.and_then(|chosen| instances.find(|own| own.name == chosen));
        if let Some(instance) = broken {
            instance.phase = Phase::Broken(now);
            let words = format!(
                "cloud: instance {} of {} breaks",
                instance.id, instance.name
            );
            self.note(&words);
            self.stir();
        }
    }

    /// Somebody wants something else of the control plane.
    fn plane_wish(&mut self, patch: serde_json::Value) {
        let plane = ObjectKey::new(NAMESPACE, CLUSTER);
        self.user_patches(&sim::SIM_STACKED_CONTROL_PLANE, &plane, patch);
    }

    /// Has something happen to the control plane. What somebody has to end answers how, and when.
    pub(crate) fn trouble(&mut self, trouble: Trouble) -> Option<(Duration, End)> {
        self.note(&format!("{trouble:?}"));
        let now = self.seconds();
        match trouble {
            Trouble::Scale(replicas) => self.plane_wish(json!({"spec": {"replicas": replicas}})),
            Trouble::Upgrade => {
                let version = self.wanted_version();
                let last = version.rsplit('.').next();
                let last: u32 = last.and_then(|last| last.parse().ok()).unwrap_or_default();
                let next = format!("v1.36.{}", last + 1);
                self.plane_wish(json!({"spec": {"version": next}}));
            }
            Trouble::Change => {
                let plane = ObjectKey::new(NAMESPACE, CLUSTER);
                let plane = self.management.get(&sim::SIM_STACKED_CONTROL_PLANE, &plane);
                let now = plane
                    .ok()
                    .and_then(|plane| number(&plane, "/spec/settings"));
                let next = now.unwrap_or_default() + 1;
                self.plane_wish(json!({"spec": {"settings": next}}));
            }
            Trouble::Break(luck) => self.break_body(self.some_body(luck)),
            Trouble::BreakLeader => {
                let stacked = self.stacked.as_ref();
                let mut members = stacked.iter().flat_map(|own| &own.etcd.members);
                let leader = stacked.and_then(|own| own.etcd.leader);
                let leader = members.find(|member| Some(member.id) == leader);
                self.break_body(leader.map(|member| member.machine.clone()));
            }
            Trouble::TurnOff(luck, seconds) => {
                self.with_some(luck, |body| body.off_until = now + seconds);
            }
            Trouble::Split(luck, seconds) => {
                for luck in [luck, luck.wrapping_add(1)] {
                    self.with_some(luck, |body| body.off_until = now + seconds);
                }
            }
            Trouble::Mute(luck, seconds) => {
                self.with_some(luck, |body| body.mute_until = now + seconds);
            }
            Trouble::StopMember(luck, seconds) => {
                self.with_some(luck, |body| body.member_off_until = now + seconds);
            }
            Trouble::DropNode(luck) => {
                if let Some(chosen) = self.some_body(luck) {
                    let node = ObjectKey::new("", chosen);
                    let server = Server::Workload(ObjectKey::new(NAMESPACE, CLUSTER));
                    let (by, kind) = ("somebody", &*kinds::NODE);
                    self.nature_writes(&server, by, "delete", kind, &node, |store, now| {
                        store.delete(kind, &node, &Default::default(), now, 0)
                    });
                }
            }
            Trouble::Delete(luck) => {
                let stay: Vec<_> = self
                    .own_machines()
                    .filter(|own| !is_deleting(own))
                    .collect();
                let count = u64::try_from(stay.len()).unwrap_or_default();
                let at = usize::try_from(luck.checked_rem(count)?).ok()?;
                let chosen = stay.get(at).map(|machine| key(machine))?;
                if count > 1 {
                    self.user_deletes(&kinds::MACHINE, &chosen);
                }
            }
            Trouble::Fill(luck, seconds) => {
                let stacked = self.stacked.as_mut()?;
                let count = u64::try_from(stacked.etcd.members.len()).ok()?;
                let at = usize::try_from(luck.checked_rem(count)?).ok()?;
                let id = stacked.etcd.members.get(at)?.id;
                stacked.etcd.fill(id);
                return Some((Duration::from_secs(seconds), End::Empty(id)));
            }
            Trouble::NoRoom(seconds) => {
                let stacked = self.stacked.as_mut();
                if let Some(shelf) = stacked.and_then(|stacked| stacked.shelf.as_mut()) {
                    shelf.full_until = now + seconds;
                }
            }
            Trouble::Stick => {
                if let Some(stacked) = &mut self.stacked {
                    stacked.next_is_stuck = true;
                }
            }
        }
        None
    }

    /// Whoever made room in a database ends the alarm, if there still is somebody who has it.
    pub(crate) fn makes_room(&mut self, member: u64) {
        if let Some(stacked) = &mut self.stacked
            && stacked.etcd.members.iter().any(|own| own.id == member)
        {
            stacked.etcd.alarms.retain(|alarm| alarm.member != member);
        }
    }

    /// What was to last a while is over.
    pub(crate) fn plane_calms(&mut self) {
        let stacked = self.stacked.as_mut();
        if let Some(shelf) = stacked.and_then(|stacked| stacked.shelf.as_mut()) {
            shelf.full_until = 0;
        }
        let bodies = self
            .stacked
            .iter_mut()
            .flat_map(|own| own.bodies.values_mut());
        for body in bodies {
            body.off_until = 0;
            body.mute_until = 0;
            body.member_off_until = 0;
        }
    }
}
