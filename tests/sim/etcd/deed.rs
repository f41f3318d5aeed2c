//! What people and misfortune do to a control plane, and how it ends.

use serde_json::json;

use super::world::{Body, Machine};
use super::{Life, STALE};
use crate::random::Random;

/// Misfortune ends after this time at the latest, in seconds.
const TROUBLE: u64 = 5_400;

/// How many deeds in a thousand come together with the one before, within so many seconds.
const TOGETHER: (u32, u64) = (350, 90);

/// What people and misfortune do. Machines are chosen by luck among those there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A machine breaks for good.
    Break(u64),
    /// The machine of the leader breaks for good.
    BreakLeader,
    /// A machine is off for seconds.
    TurnOff(u64, u64),
    /// A machine is cut off from all others for seconds.
    Isolate(u64, u64),
    /// Two machines are cut off from all others for seconds.
    Split(u64, u64),
    /// A member does not answer the host in time, for seconds, and does its part among the others.
    Slow(u64, u64),
    /// The same of two.
    SlowTwo(u64, u64),
    /// A member stands still for seconds, and its machine runs.
    StopMember(u64, u64),
    /// An API server stands still for seconds, and its machine runs.
    StopServer(u64, u64),
    /// A kubelet dies for good: its pods run on, and nobody reaches them.
    KillKubelet(u64),
    /// Somebody deletes a Node by hand.
    DropNode(u64),
    /// The cloud has a machine no more, and nobody asked.
    Vanish(u64),
    /// Somebody takes a Machine out of the API whatever holds it, and its instance with it.
    Force(u64),
    /// Somebody deletes a Machine.
    Delete(u64),
    /// The database of a member is full for seconds.
    Fill(u64, u64),
    /// The member of the next machine never catches up.
    Stick,
    /// So many machines are wanted.
    Scale(u32),
    /// The next version is wanted.
    Upgrade,
    /// The host is killed, and starts again after seconds.
    Crash(u64),
    /// What the host is told of Machines is late by seconds.
    Late(u64),
}

/// How something ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    TurnOn(String),
    Empty(u64),
}

/// What happens in a world, in order of time.
pub(super) fn deeds(random: &mut Random) -> Vec<(u64, Deed)> {
    let count = random.between(2, 8);
    let mut at = 0;
    let mut deeds: Vec<(u64, Deed)> = (0..count)
        .map(|_| {
            let luck = random.draw();
            let deed = match random.below(26) {
                0..=2 => Deed::Break(luck),
                3 => Deed::BreakLeader,
                4 => Deed::TurnOff(luck, random.between(10, 900)),
                5 => Deed::Isolate(luck, random.between(10, 900)),
                6 => Deed::Split(luck, random.between(10, 900)),
                7 => Deed::Slow(luck, random.between(10, 900)),
                8 => Deed::SlowTwo(luck, random.between(10, 900)),
                9 => Deed::StopMember(luck, random.between(10, 900)),
                10 => Deed::StopServer(luck, random.between(10, 900)),
                11 => Deed::KillKubelet(luck),
                12 => Deed::DropNode(luck),
                13 => Deed::Vanish(luck),
                14 => Deed::Force(luck),
                15 => Deed::Delete(luck),
                16 => Deed::Fill(luck, random.between(60, 1_800)),
                17 => Deed::Stick,
                18..=20 => Deed::Scale([1, 3, 5][usize::try_from(random.below(3)).unwrap_or(1)]),
                21 | 22 => Deed::Upgrade,
                23 | 24 => Deed::Crash(random.between(1, 60)),
                _ => Deed::Late(random.between(5, 40)),
            };
            at = if at > 0 && random.happens(TOGETHER.0) {
                at + random.below(TOGETHER.1)
            } else {
                random.between(10, TROUBLE)
            };
            (at, deed)
        })
        .collect();
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

impl Life {
    /// Everything that was to end ends now.
    pub(super) fn calm(&mut self) {
        self.world.is_calm = true;
        self.world.late_until = 0;
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(end);
        }
        for machine in &mut self.world.machines {
            machine.isolated_until = 0;
            machine.slow_until = 0;
            machine.member_off_until = 0;
            machine.server_off_until = 0;
        }
        self.world.note("from now on nothing goes wrong");
    }

    pub(super) fn end(&mut self, end: End) {
        match end {
            End::TurnOn(name) => {
                let mut machines = self.world.machines.iter_mut();
                if let Some(machine) = machines.find(|machine| machine.name == name)
                    && machine.body == Body::Down
                {
                    machine.body = Body::Up;
                    self.world.note(&format!("{name} is on again"));
                }
            }
            // Whoever made room ends the alarm, if there still is somebody who has it.
            End::Empty(id) => {
                if self.world.etcd.members.iter().any(|member| member.id == id) {
                    self.world.etcd.alarms.retain(|alarm| alarm.member != id);
                }
            }
        }
    }

    fn some_machine(&self, luck: u64) -> Option<String> {
        let count = u64::try_from(self.world.machines.len()).ok()?;
        let at = usize::try_from(luck.checked_rem(count)?).ok()?;
        self.world
            .machines
            .get(at)
            .map(|machine| machine.name.clone())
    }

    fn has_another(&self, name: &str) -> bool {
        let mut machines = self.world.machines.iter();
        machines.any(|machine| machine.name != name && machine.deleted.is_none())
    }

    fn with_some(&mut self, luck: u64, change: impl FnOnce(&mut Machine)) {
        let name = self.some_machine(luck);
        let mut machines = self.world.machines.iter_mut();
        if let Some(machine) = machines.find(|own| Some(&own.name) == name.as_ref()) {
            change(machine);
            let words = format!("that is {}", machine.name);
            self.world.note(&words);
        }
    }

    fn with_body(&mut self, name: &str, body: Body) {
        let mut machines = self.world.machines.iter_mut();
        if let Some(machine) = machines.find(|machine| machine.name == name)
            && machine.body != Body::Gone
        {
            machine.body = body;
            self.world.note(&format!("{name} is {body:?}"));
        }
    }

    pub(super) fn perform_deed(&mut self, deed: Deed) {
        let now = self.world.now;
        self.world.note(&format!("{deed:?}"));
        match deed {
            Deed::Break(luck) => {
                if let Some(name) = self.some_machine(luck) {
                    self.with_body(&name, Body::Down);
                }
            }
            Deed::BreakLeader => {
                let mut members = self.world.etcd.members.iter();
                let leader = members.find(|member| Some(member.id) == self.world.etcd.leader);
                if let Some(name) = leader.map(|leader| leader.machine.clone()) {
                    self.with_body(&name, Body::Down);
                }
            }
            Deed::TurnOff(luck, seconds) => {
                if let Some(name) = self.some_machine(luck) {
                    let mut machines = self.world.machines.iter();
                    if machines.any(|own| own.name == name && own.body == Body::Up) {
                        self.with_body(&name, Body::Down);
                        self.ends.push((now + seconds, End::TurnOn(name)));
                    }
                }
            }
            Deed::Isolate(luck, seconds) => {
                self.with_some(luck, |machine| machine.isolated_until = now + seconds);
            }
            Deed::Split(luck, seconds) => {
                for luck in [luck, luck.wrapping_add(1)] {
                    self.with_some(luck, |machine| machine.isolated_until = now + seconds);
                }
            }
            Deed::Slow(luck, seconds) => {
                self.with_some(luck, |machine| machine.slow_until = now + seconds);
            }
            Deed::SlowTwo(luck, seconds) => {
                for luck in [luck, luck.wrapping_add(1)] {
                    self.with_some(luck, |machine| machine.slow_until = now + seconds);
                }
            }
            Deed::StopMember(luck, seconds) => {
                self.with_some(luck, |machine| machine.member_off_until = now + seconds);
            }
            Deed::StopServer(luck, seconds) => {
                self.with_some(luck, |machine| machine.server_off_until = now + seconds);
            }
            Deed::KillKubelet(luck) => {
                self.with_some(luck, |machine| {
                    machine.kubelet_dead_since.get_or_insert(now);
                });
            }
            Deed::DropNode(luck) => {
                self.with_some(luck, |machine| machine.is_node_dropped |= machine.node);
            }
            Deed::Vanish(luck) => {
                if let Some(name) = self.some_machine(luck) {
                    self.with_body(&name, Body::Gone);
                }
            }
            // Whoever takes the last one away has no control plane left.
            Deed::Force(luck) => {
                if let Some(name) = self.some_machine(luck)
                    && self.has_another(&name)
                {
                    self.world.note(&format!("{name} is taken away"));
                    self.world.machines.retain(|machine| machine.name != name);
                    self.world.names.remove(&name);
                }
            }
            // Somebody who deletes them all, one after the other, still has a control plane.
            Deed::Delete(luck) => {
                if let Some(name) = self.some_machine(luck)
                    && self.world.machines.len() > 1
                {
                    self.with_some(luck, |machine| {
                        machine.deleted.get_or_insert(now);
                    });
                    self.world.names.remove(&name);
                }
            }
            Deed::Fill(luck, seconds) => self.fill(luck, seconds),
            Deed::Stick => self.world.next_is_stuck = true,
            Deed::Scale(replicas) => {
                self.world.replicas = replicas;
                if let Some(last) = self.wanted.last_mut() {
                    last.0 = now + STALE;
                }
                self.wanted.push((u64::MAX, replicas));
                self.changed_spec();
            }
            Deed::Upgrade => {
                let generation = self.world.object["metadata"]["generation"].as_u64();
                self.world.version = format!("v1.36.{}", generation.unwrap_or(1));
                self.changed_spec();
            }
            Deed::Crash(seconds) => {
                self.reconcile = None;
                self.work = None;
                self.taking = None;
                self.look_at = now + seconds;
                self.off_until = now + seconds;
            }
            Deed::Late(seconds) => self.world.late_until = now + seconds,
        }
    }

    fn fill(&mut self, luck: u64, seconds: u64) {
        let count = u64::try_from(self.world.etcd.members.len())
            .unwrap_or(1)
            .max(1);
        let at = usize::try_from(luck % count).unwrap_or_default();
        if let Some(id) = self.world.etcd.members.get(at).map(|member| member.id) {
            self.world.etcd.fill(id);
            self.ends.push((self.world.now + seconds, End::Empty(id)));
        }
    }

    fn changed_spec(&mut self) {
        let generation = self.world.object["metadata"]["generation"].as_u64();
        self.world.object["metadata"]["generation"] = json!(generation.unwrap_or(1) + 1);
    }
}
