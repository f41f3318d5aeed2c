//! Rollouts from end to end without a server: the real decisions of MachineDeployments and MachineSets on a small world, with
//! good, hostile and crashing parts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

#[path = "rollout/oracle.rs"]
mod oracle;
#[path = "rollout/stories.rs"]
mod stories;
#[path = "rollout/world.rs"]
mod world;

use std::time::Duration;

use capstan_core::call::strategy::{Answer, Facts, Target};
use capstan_core::plan::Next;
use world::{Random, World};

/// How many worlds each property is tried on.
const SEEDS: u64 = 20;

/// In so many moves every rollout of these sizes is done.
const MOVES_MAX: usize = 4000;

fn shape(random: &mut Random) -> (u32, u32, u32) {
    let replicas = 1 + random.below(5);
    let surge = random.below(3);
    let unavailable = random.below(3).min(replicas);
    if surge == 0 && unavailable == 0 {
        (replicas, 1, 0)
    } else {
        (replicas, surge, unavailable)
    }
}

/// One random move of the world.
fn step(world: &mut World, random: &mut Random, strategy: &mut dyn FnMut(&Facts) -> Answer) {
    match random.below(6) {
        0 | 1 => {
            let crash = (random.below(4) == 0).then(|| random.below(3) as usize);
            world.reconcile_deployment(strategy, crash);
        }
        2 | 3 => {
            let crash = (random.below(4) == 0).then(|| random.below(3) as usize);
            world.reconcile_some_set(random, crash);
        }
        4 => world.some_machine_becomes_available(random),
        _ => world.some_deleted_machine_goes(random),
    }
    world.pass_time(random.below(30));
}

/// Says anything, often nonsense.
fn hostile(random: &mut Random, facts: &Facts) -> Answer {
    let mut answer = Answer::default();
    for set in &facts.machine_sets {
        if random.below(3) == 0 {
            continue;
        }
        let replicas = match random.below(5) {
            0 => 0,
            1 => u32::MAX,
            2 => set.desired_replicas.saturating_sub(random.below(3)),
            3 => set.desired_replicas + random.below(3),
            _ => random.below(8),
        };
        answer.targets.push(Target {
            machine_set: set.name.clone(),
            replicas,
            create_disabled: random.below(4) == 0,
        });
        for machine in &set.machines {
            if random.below(3) == 0 {
                answer.delete_first.push(machine.name.clone());
            }
        }
    }
    if random.below(8) == 0 {
        answer.delete_first.push("somebody-else".to_owned());
    }
    answer
}

fn assert_bounds(world: &World, seed: u64) {
    let (total, available) = (world.machines(), world.available());
    assert!(
        total <= world.ceiling(),
        "seed {seed}: {total} machines, {}",
        world.picture()
    );
    assert!(
        available >= world.floor(),
        "seed {seed}: {available} available, {}",
        world.picture()
    );
}

#[test]
fn a_strategy_that_changes_nothing_is_asked_again_though_nothing_else_will_change() {
    let mut world = World::settled(3, 1, 0);
    assert_eq!(world.next_after_silence(), Next::Settled);
    world.change_version("v1.36.0");
    world.reconcile_deployment(&mut |_| Answer::default(), None);
    assert_eq!(
        world.next_after_silence(),
        Next::CheckAfter(Duration::from_secs(60))
    );
}

#[test]
fn a_mark_is_taken_back_from_a_machine_that_is_available_again() {
    let mut world = World::settled(3, 1, 0);
    world.change_version("v1.36.0");
    let first = world.machine_values().keys().next().unwrap().clone();
    let marks = |world: &World| {
        let all = world.machine_values().values();
        let marked = |m: &&serde_json::Value| {
            m["metadata"]["annotations"]["cluster.x-k8s.io/delete-machine"] == "upgrade-strategy"
        };
        all.filter(marked).count()
    };
    let naming = |names: Vec<String>| {
        move |_: &Facts| Answer {
            delete_first: names.clone(),
            ..Answer::default()
        }
    };
    world.reconcile_deployment(&mut naming(vec![first.clone()]), None);
    assert_eq!(marks(&world), 1);
    // Named again, it stays; not named any more, it goes.
    world.reconcile_deployment(&mut naming(vec![first]), None);
    assert_eq!(marks(&world), 1);
    world.reconcile_deployment(&mut naming(Vec::new()), None);
    assert_eq!(marks(&world), 0);
}

#[test]
fn a_rolling_update_keeps_its_bounds_at_every_step_and_ends() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let (replicas, surge, unavailable) = shape(&mut random);
        let mut world = World::settled(replicas, surge, unavailable);
        world.change_version("v1.36.0");
        let mut again = random.below(2) == 0;
        for moves in 0.. {
            assert!(
                moves < MOVES_MAX,
                "seed {seed} does not end: {}",
                world.picture()
            );
            if again && moves == 40 {
                // Another change in the middle of the first.
                world.change_version("v1.37.0");
                again = false;
            }
            step(&mut world, &mut random, &mut oracle::rolling_update);
            assert_bounds(&world, seed);
            if !again && world.is_done() {
                break;
            }
        }
    }
}

#[test]
fn a_hostile_strategy_never_breaks_the_bounds_and_what_it_leaves_can_be_finished() {
    for seed in 0..SEEDS {
        let mut random = Random::new(1000 + seed);
        let (replicas, surge, unavailable) = shape(&mut random);
        let mut world = World::settled(replicas, surge, unavailable);
        world.change_version("v1.36.0");
        let mut whims = Random::new(9000 + seed);
        for _ in 0..400 {
            step(&mut world, &mut random, &mut |facts| {
                hostile(&mut whims, facts)
            });
            assert_bounds(&world, seed);
        }
        for moves in 0.. {
            assert!(
                moves < MOVES_MAX,
                "seed {seed} cannot be finished: {}",
                world.picture()
            );
            step(&mut world, &mut random, &mut oracle::rolling_update);
            assert_bounds(&world, seed);
            if world.is_done() {
                break;
            }
        }
    }
}

#[test]
fn machines_that_fail_on_their_own_do_not_stop_a_rollout() {
    for seed in 0..SEEDS {
        let mut random = Random::new(2000 + seed);
        let (replicas, surge, unavailable) = shape(&mut random);
        let mut world = World::settled(replicas, surge, unavailable);
        world.change_version("v1.36.0");
        for moves in 0.. {
            assert!(
                moves < MOVES_MAX,
                "seed {seed} does not end: {}",
                world.picture()
            );
            step(&mut world, &mut random, &mut oracle::rolling_update);
            if moves < 200 && random.below(20) == 0 {
                world.some_machine_fails(&mut random);
            }
            assert!(
                world.machines() <= world.ceiling(),
                "seed {seed}: {}",
                world.picture()
            );
            if moves >= 200 && world.is_done() {
                break;
            }
        }
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_ends_at_the_new_size() {
    for seed in 0..SEEDS {
        let mut random = Random::new(3000 + seed);
        let (replicas, surge, unavailable) = shape(&mut random);
        let mut world = World::settled(replicas, surge, unavailable);
        world.change_version("v1.36.0");
        for moves in 0.. {
            assert!(
                moves < MOVES_MAX,
                "seed {seed} does not end: {}",
                world.picture()
            );
            if moves == 20 || moves == 60 {
                world.scale(random.below(7));
            }
            step(&mut world, &mut random, &mut oracle::rolling_update);
            if moves > 60 && world.is_done() {
                break;
            }
        }
    }
}

#[test]
fn nothing_is_written_once_all_is_done() {
    let mut world = World::settled(3, 1, 0);
    assert_eq!(
        world.reconcile_deployment(&mut oracle::rolling_update, None),
        0
    );
    assert_eq!(world.reconcile_sets(), 0);
}

#[test]
fn deletion_takes_sets_and_machines_along() {
    let mut world = World::settled(3, 1, 0);
    world.delete_deployment();
    for _ in 0..20 {
        world.reconcile_deployment(&mut oracle::rolling_update, None);
        world.reconcile_sets();
        world.deleted_machines_go();
    }
    assert!(world.is_empty(), "{}", world.picture());
}
