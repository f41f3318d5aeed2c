//! Rolls a small model of a MachineDeployment many times with seeded luck: the plan keeps its limits and always finishes.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a model in a test: a panic is a failed test"
)]

use capstan_sdk::upgrade_strategy::{Facts, Machine, MachineSet, UpgradeStrategy};
use upgrade_rolling_update::{RollingUpdate, Settings};

/// SplitMix64: small, seeded, good enough for luck.
struct Luck(u64);

impl Luck {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct World {
    luck: Luck,
    replicas: u32,
    max_surge: u32,
    max_unavailable: u32,
    /// Current first, oldest last.
    sets: Vec<MachineSet>,
    delete_first: Vec<String>,
    made: u32,
    /// How many machines may still break.
    breaks: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut luck = Luck(seed);
        let replicas = 1 + luck.below(7) as u32;
        let max_surge = luck.below(4) as u32;
        let mut max_unavailable = luck.below(4).min(replicas.into()) as u32;
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        let breaks = luck.below(6) as u32;
        let mut world = Self {
            luck,
            replicas,
            max_surge,
            max_unavailable,
            sets: Vec::new(),
            delete_first: Vec::new(),
            made: 0,
            breaks,
        };
        world.add_set("first", replicas);
        world.make_machines();
        world.sets[0]
            .machines
            .iter_mut()
            .for_each(|m| m.available = true);
        world.add_set("second", 0);
        world
    }

    /// A new current set, before the others.
    fn add_set(&mut self, name: &str, desired_replicas: u32) {
        self.sets.iter_mut().for_each(|set| set.current = false);
        let set = MachineSet {
            name: name.to_owned(),
            current: true,
            desired_replicas,
            ..Default::default()
        };
        self.sets.insert(0, set);
    }

    fn make_machines(&mut self) {
        for set in &mut self.sets {
            while (set.machines.len() as u32) < set.desired_replicas {
                self.made += 1;
                let name = format!("{}-{}", set.name, self.made);
                set.machines.push(Machine {
                    name,
                    ..Machine::default()
                });
            }
        }
    }

    fn count(&mut self) {
        for set in &mut self.sets {
            set.actual_replicas = set.machines.len() as u32;
            set.available_replicas = set.machines.iter().filter(|m| m.available).count() as u32;
        }
    }

    fn facts(&self) -> Facts<Settings> {
        Facts {
            now_ms: 0,
            deployment: "default/test".to_owned(),
            version: String::new(),
            replicas: self.replicas,
            max_surge: self.max_surge,
            max_unavailable: self.max_unavailable,
            machine_sets: self.sets.clone(),
            settings: Settings {},
            state: None,
            extra: Default::default(),
        }
    }

    /// Machines that stay available when every set has deleted what it has to, unavailable ones first where they are named.
    fn available_after_deletions(&self) -> u32 {
        let after = |set: &MachineSet| {
            let going = set.actual_replicas.saturating_sub(set.desired_replicas);
            let first =
                |m: &&Machine| !m.available && (m.deleting || self.delete_first.contains(&m.name));
            let harmless = set.machines.iter().filter(first).count() as u32;
            set.available_replicas
                .saturating_sub(going.saturating_sub(harmless))
        };
        self.sets.iter().map(after).sum()
    }

    fn plan(&mut self) {
        self.count();
        let answer = RollingUpdate::plan(self.facts()).unwrap();
        self.delete_first = answer.delete_first;
        let before = self.available_after_deletions();
        for target in answer.targets {
            let set = self
                .sets
                .iter_mut()
                .find(|s| s.name == target.machine_set)
                .unwrap();
            set.desired_replicas = target.replicas;
        }
        let after = self.available_after_deletions();
        let floor = self.replicas - self.max_unavailable;
        assert!(
            after >= floor || after >= before,
            "goes from {before} to {after} available, floor {floor}"
        );
        let most: u32 = self
            .sets
            .iter()
            .map(|s| s.desired_replicas.max(s.actual_replicas))
            .sum();
        assert!(most <= self.replicas + self.max_surge, "{most} machines");
    }

    /// Each part of the world moves or not, by luck.
    fn happen(&mut self) {
        if !self.luck.one_in(3) {
            self.make_machines();
        }
        for set in &mut self.sets {
            let deleting = set.machines.iter().filter(|m| m.deleting).count();
            let keep = set.desired_replicas as usize;
            let mut excess = set
                .machines
                .len()
                .saturating_sub(deleting)
                .saturating_sub(keep);
            while excess > 0 {
                let named = set.machines.iter().position(|m| {
                    !m.deleting && !m.available && self.delete_first.contains(&m.name)
                });
                let unlucky = set.machines.iter().position(|m| !m.deleting);
                let machine = &mut set.machines[named.or(unlucky).unwrap()];
                machine.deleting = true;
                machine.available = false;
                excess -= 1;
            }
            let luck = &mut self.luck;
            set.machines.retain(|m| !m.deleting || !luck.one_in(2));
            for machine in set.machines.iter_mut().filter(|m| !m.deleting) {
                let broken = machine.labels.iter().any(|(key, _)| key == "broken");
                if machine.available && self.breaks > 0 && self.luck.one_in(12) {
                    self.breaks -= 1;
                    machine.available = false;
                    // Old machines stay broken: this is what the deadlock breaker is for.
                    if !set.current {
                        machine.labels.push(("broken".to_owned(), String::new()));
                    }
                } else if !machine.available && !broken && self.luck.one_in(3) {
                    machine.available = true;
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.sets.iter().all(|set| {
            let wanted = if set.current { self.replicas } else { 0 };
            let working = set.machines.iter().filter(|m| m.available).count() as u32;
            set.machines.len() as u32 == wanted && working == wanted
        })
    }
}

#[test]
fn keeps_its_limits_and_always_finishes() {
    for seed in 0..2_000 {
        let mut world = World::new(seed);
        let third_at = world.luck.below(40);
        let mut turns = 0;
        while !world.is_done() || turns <= third_at {
            assert!(turns < 2_000, "seed {seed} does not finish");
            if turns == third_at {
                // The template changes again in the middle of the roll-out.
                world.add_set("third", 0);
            }
            world.plan();
            world.happen();
            turns += 1;
        }
    }
}
