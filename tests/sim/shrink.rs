//! Makes a plan that goes wrong as small as it gets: without deeds and faults that do not matter.

use crate::fault::Rates;
use crate::run::{Outcome, run};
use crate::scenario::Plan;

/// Worlds that are tried; each takes a fraction of a second.
const TRIES_MAX: usize = 120;

/// The smallest plan that was found, with what became of it. The plan given must have gone wrong.
#[must_use]
pub fn shrink(plan: &Plan, outcome: Outcome) -> (Plan, Outcome) {
    let (mut plan, mut outcome) = (plan.clone(), outcome);
    let mut tries = TRIES_MAX;
    loop {
        let smaller = candidates(&plan).into_iter().find_map(|candidate| {
            tries = tries.checked_sub(1)?;
            let bad = run(&candidate);
            (shape(&bad) == shape(&outcome)).then_some((candidate, bad))
        });
        match smaller {
            Some((smaller, bad)) => (plan, outcome) = (smaller, bad),
            None => return (plan, outcome),
        }
    }
}

/// What went wrong first, without the names and numbers of this world: another mistake is not a smaller one.
fn shape(outcome: &Outcome) -> Option<String> {
    let first = outcome.violations.first()?;
    let words = first
        .split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit() || "-/".contains(c)));
    Some(words.take(8).collect::<Vec<_>>().join(" "))
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
    if plan.replicas > 1 {
        candidates.push(Plan {
            replicas: plan.replicas - 1,
            ..plan.clone()
        });
    }
    candidates
}
