//! A bounded number of simulated worlds, and the simulated server's behaviours.

mod behaviours;

use std::time::Duration;

use capstan_simulation::fault::Rates;
use capstan_simulation::scenario::{Deed, Step};
use capstan_simulation::{Plan, etcd, run};

/// Worlds in `just test`: about a minute of a slow machine; `just sim` runs more.
const SEEDS: u64 = 20;

/// Control planes in `just test`: half a minute of a slow machine; `just sim --etcd` runs more.
const CONTROL_PLANES: u64 = 20;

/// Worlds with a control plane in `just test`: a minute of a slow machine; `just sim --control-planes` runs more.
const STACKED: u64 = 12;

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, two) = (run(&Plan::of(3)), run(&Plan::of(3)));
    assert!(one.trace.len() > 100, "hardly anything happened");
    assert_eq!(one.trace.lines(), two.trace.lines());
    assert_eq!(one.trace.hash(), two.trace.hash());
    assert_ne!(one.trace.hash(), run(&Plan::of(4)).trace.hash());
    let hash = |seed| etcd::run(&etcd::Plan::of(seed)).trace.hash();
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
    let hash = |seed| run(&Plan::of_control_plane(seed)).trace.hash();
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

fn step(seconds: u64, deed: Deed) -> Step {
    Step {
        at: Duration::from_secs(seconds),
        deed,
    }
}

#[test]
fn what_people_wished_during_a_pause_counts_from_its_end() {
    let outcome = run(&Plan {
        seed: 833,
        replicas: 1,
        limits: (2, 0),
        steps: vec![
            step(12, Deed::Scale(4)),
            step(99, Deed::Pause(871)),
            step(327, Deed::Scale(1)),
        ],
        calm_at: Duration::from_secs(1200),
        quiet: Duration::from_secs(60),
        ..Plan::default()
    });
    assert!(!outcome.is_bad(), "{}", outcome.violations.join("; "));
}

#[test]
fn what_was_paused_from_its_first_moment_on_goes_on_with_its_cluster() {
    let outcome = run(&Plan {
        seed: 5062,
        rates: Rates {
            hung: 39,
            ..Rates::default()
        },
        replicas: 1,
        limits: (0, 1),
        health_check: Some(1),
        steps: vec![step(34, Deed::Pause(89)), step(55, Deed::Scale(0))],
        calm_at: Duration::from_secs(600),
        quiet: Duration::from_secs(60),
        ..Plan::default()
    });
    assert!(!outcome.is_bad(), "{}", outcome.violations.join("; "));
}

#[test]
fn what_waits_for_a_kind_goes_on_when_it_can_be_seen() {
    let outcome = run(&Plan {
        seed: 113,
        replicas: 1,
        limits: (1, 0),
        steps: vec![
            step(190, Deed::HideConfigs(210)),
            step(237, Deed::DeleteCluster),
            step(253, Deed::Crash(30_341)),
        ],
        calm_at: Duration::from_secs(600),
        quiet: Duration::from_secs(60),
        ..Plan::default()
    });
    assert!(!outcome.is_bad(), "{}", outcome.violations.join("; "));
}

#[test]
fn worlds_keep_what_must_be_true_and_settle() {
    let mut machines = 0;
    for seed in 1..=SEEDS {
        let mut plan = Plan::of(seed);
        // A day that nothing happens in takes as long as all that went before.
        plan.quiet = plan.quiet.min(Duration::from_secs(900));
        let outcome = run(&plan);
        machines += outcome.machines;
        assert!(
            !outcome.is_bad(),
            "seed {seed}: {}\nreplay: ./dev sim --seed {seed} --trace",
            outcome.violations.join("; ")
        );
    }
    assert!(machines > SEEDS, "hardly any machine was made");
}

#[test]
fn control_planes_keep_their_majority_and_settle() {
    let (mut machines, mut removed) = (0, 0);
    for seed in 1..=CONTROL_PLANES {
        let told = etcd::run(&etcd::Plan::of(seed));
        machines += told.machines;
        removed += told.removed;
        assert!(
            told.violations.is_empty(),
            "seed {seed}: {}\nreplay: ./dev sim --etcd --seed {seed} --trace",
            told.violations.join("; ")
        );
    }
    assert!(machines > CONTROL_PLANES, "hardly any machine was made");
    assert!(removed > CONTROL_PLANES, "hardly any member was removed");
}

#[test]
fn control_planes_of_machines_keep_their_majority_and_settle() {
    let (mut machines, mut removed) = (0, 0);
    for seed in 1..=STACKED {
        let outcome = run(&Plan::of_control_plane(seed));
        machines += outcome.machines;
        removed += outcome.removed;
        assert!(
            !outcome.is_bad(),
            "seed {seed}: {}\nreplay: ./dev sim --control-planes --seed {seed} --trace",
            outcome.violations.join("; ")
        );
    }
    assert!(machines > STACKED, "hardly any machine was made");
    assert!(removed > STACKED / 2, "hardly any member was removed");
}
