//! Makes a plan that goes wrong as small as it gets: without deeds and faults that do not matter.

use crate::fault::Rates;
use crate::run::{Outcome, run};
use crate::scenario::Plan;

/// Worlds that are tried; each takes a fraction of a second.
const TRIES_MAX: usize = 120;

/// What a world begins with, and can be made smaller.
pub trait Shrinks: Clone {
    /// What becomes of a world.
    type Outcome;

    /// Runs it.
    fn run(&self) -> Self::Outcome;

    /// What went wrong first.
    fn first(outcome: &Self::Outcome) -> Option<&str>;

    /// Plans that are one thing smaller.
    fn smaller(&self) -> Vec<Self>;
}

/// The smallest plan that was found, with what became of it. The plan given must have gone wrong.
#[must_use]
pub fn shrink<P: Shrinks>(plan: &P, outcome: P::Outcome) -> (P, P::Outcome) {
    let (mut plan, mut outcome) = (plan.clone(), outcome);
    let mut tries = TRIES_MAX;
    loop {
        let smaller = plan.smaller().into_iter().find_map(|candidate| {
            tries = tries.checked_sub(1)?;
            let bad = candidate.run();
            let is_same = P::first(&bad).map(shape) == P::first(&outcome).map(shape);
            is_same.then_some((candidate, bad))
        });
        match smaller {
            Some((smaller, bad)) => (plan, outcome) = (smaller, bad),
            None => return (plan, outcome),
        }
    }
}

/// What went wrong, without the names and numbers of this world: another mistake is not a smaller one.
fn shape(what: &str) -> String {
    let words = what
        .split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit() || "-/".contains(c)));
    words.take(8).collect::<Vec<_>>().join(" ")
}

impl Shrinks for Plan {
    type Outcome = Outcome;

    fn run(&self) -> Outcome {
        run(self)
    }

    fn first(outcome: &Outcome) -> Option<&str> {
        outcome.violations.first().map(String::as_str)
    }

    fn smaller(&self) -> Vec<Self> {
        candidates(self)
    }
}

/// Plans that are one thing smaller.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    for number in 0..plan.steps.len() {
        let mut fewer = plan.clone();
        fewer.steps.remove(number);
        candidates.push(fewer);
    }
    let mut calmer = |change: fn(&mut Rates)| {
        let mut rates = plan.rates;
        change(&mut rates);
        if rates != plan.rates {
            candidates.push(Plan {
                rates,
                ..plan.clone()
            });
        }
    };
    calmer(|rates| rates.refused = 0);
    calmer(|rates| rates.lost = 0);
    calmer(|rates| rates.hung = 0);
    calmer(|rates| rates.watch_ends = 0);
    calmer(|rates| rates.watch_expires = 0);
    calmer(|rates| rates.event_late = 0);
    calmer(|rates| rates.plugin = 0);
    calmer(|rates| rates.eviction = 0);
    if plan.unhealthy.is_some() {
        candidates.push(Plan {
            unhealthy: None,
            ..plan.clone()
        });
    }
    for number in 0..plan.hooks.len() {
        let mut fewer = plan.clone();
        fewer.hooks.remove(number);
        candidates.push(fewer);
    }
    if plan.last_pods.is_some() {
        candidates.push(Plan {
            last_pods: None,
            ..plan.clone()
        });
    }
    if plan.keeps_snapshots {
        candidates.push(Plan {
            keeps_snapshots: false,
            ..plan.clone()
        });
    }
    if plan.asks_others {
        candidates.push(Plan {
            asks_others: false,
            ..plan.clone()
        });
    }
    let machines = plan
        .control_plane
        .and_then(|machines| machines.checked_sub(2));
    if let Some(machines) = machines.filter(|machines| *machines > 0) {
        candidates.push(Plan {
            control_plane: Some(machines),
            ..plan.clone()
        });
    }
    if plan.replicas > 1 {
        candidates.push(Plan {
            replicas: plan.replicas - 1,
            ..plan.clone()
        });
    }
    candidates
}
