//! A bounded number of simulated worlds, and the simulated server's behaviours.

mod behaviours;

use capstan_simulation::{Plan, run};

/// Worlds in `just test`: about a minute of a slow machine; `just sim` runs more.
const SEEDS: u64 = 20;

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, two) = (run(&Plan::of(3)), run(&Plan::of(3)));
    assert!(one.trace.len() > 100, "hardly anything happened");
    assert_eq!(one.trace.lines(), two.trace.lines());
    assert_eq!(one.trace.hash(), two.trace.hash());
    assert_ne!(one.trace.hash(), run(&Plan::of(4)).trace.hash());
}

#[test]
fn worlds_keep_what_must_be_true_and_settle() {
    let mut machines = 0;
    for seed in 1..=SEEDS {
        let outcome = run(&Plan::of(seed));
        machines += outcome.machines;
        assert!(
            !outcome.is_bad(),
            "seed {seed}: {}\nreplay: ./dev sim --seed {seed} --trace",
            outcome.violations.join("; ")
        );
    }
    assert!(machines > SEEDS, "hardly any machine was made");
}
