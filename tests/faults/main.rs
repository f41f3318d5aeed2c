//! `just faults`: breaks control planes of 1, 3 and 5 machines while they are made, at rest, while they grow, shrink, roll and are
//! upgraded, and prints what became of each.
//!
//! A cell is green when the control plane is whole again with nothing left behind, or when a person is needed for that, a condition
//! says what to do, and that being done it is whole. In every cell the host must take no step below a majority and no member from a live
//! machine, and the broken cluster can be deleted.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a program of tests: what is not as expected ends its cell, and its output is its result"
)]

mod table;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use capstan_tests::faults::{Cell, Fault, Outcome, Phase, Stage, run as play};
use capstan_tests::run;
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::table::Table;

const USAGE: &str = "usage: faults [--size N]... [--phase NAME]... [--fault NAME]... [--pairs N] [--seed N] [--at-once N]
  --size     machines of the control plane (default: 1 3 5)
  --phase    create, rest, grow, shrink, roll or upgrade (default: all)
  --fault    one of those in the table (default: all)
  --pairs    cells with two faults at once, chosen by the seed (default: 6)
  --seed     chooses them (default: random; it is printed)
  --at-once  cells at the same time (default: 9; a third of them where each needs a host of its own)";

struct Arguments {
    sizes: Vec<u32>,
    phases: Vec<Phase>,
    faults: Vec<Fault>,
    pairs: usize,
    seed: u64,
    at_once: usize,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        sizes: Vec::new(),
        phases: Vec::new(),
        faults: Vec::new(),
        pairs: 6,
        seed: rand::random(),
        at_once: 9,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or(format!("{word} needs a value\n{USAGE}"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{value:?} is not a number"))
        };
        let count = || number().and_then(|n| usize::try_from(n).map_err(|e| e.to_string()));
        match word.as_str() {
            "--size" => arguments
                .sizes
                .push(u32::try_from(number()?).map_err(|e| e.to_string())?),
            "--phase" => arguments.phases.push(Phase::named(&value)?),
            "--fault" => arguments.faults.push(Fault::named(&value)?),
            "--pairs" => arguments.pairs = count()?,
            "--seed" => arguments.seed = number()?,
            "--at-once" => arguments.at_once = count()?.max(1),
            other => return Err(format!("{other} is not known\n{USAGE}")),
        }
    }
    if arguments.sizes.is_empty() {
        arguments.sizes = vec![1, 3, 5];
    }
    if arguments.phases.is_empty() {
        arguments.phases = Phase::ALL.to_vec();
    }
    if arguments.faults.is_empty() {
        arguments.faults = Fault::ALL.to_vec();
    }
    Ok(arguments)
}

fn cells(arguments: &Arguments) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &size in &arguments.sizes {
        for &phase in &arguments.phases {
            for &fault in &arguments.faults {
                cells.push(Cell {
                    size,
                    phase,
                    faults: vec![fault],
                });
            }
        }
    }
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let mut any = |len: usize| random.random_range(0..len);
    for _ in 0..arguments.pairs {
        cells.push(Cell {
            size: arguments.sizes[any(arguments.sizes.len())],
            phase: arguments.phases[any(arguments.phases.len())],
            faults: vec![
                arguments.faults[any(arguments.faults.len())],
                arguments.faults[any(arguments.faults.len())],
            ],
        });
    }
    cells
}

/// Plays a cell. One that panics is red, and the others go on.
async fn played(mut stage: Stage, at: usize, cell: &Cell) -> Outcome {
    let outcome = AssertUnwindSafe(Box::pin(play(&mut stage, at, cell))).catch_unwind();
    let outcome = outcome.await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Outcome::Red(text.unwrap_or_else(|| "it panicked".to_owned()))
    });
    println!("{cell}: {outcome}");
    outcome
}

/// How many cells with hosts of their own there are at once for so many on a shared one: each has a management cluster beside its host.
fn with_own_hosts(at_once: usize) -> usize {
    at_once.div_ceil(3)
}

/// Plays all cells: those that kill their host after the others.
async fn outcomes(cells: &[Cell], at_once: usize) -> Vec<Option<Outcome>> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; cells.len()];
    let numbered = cells.iter().enumerate();
    let (dying, living): (Vec<_>, Vec<_>) = numbered
        .filter(|(_, cell)| cell.left_out().is_none())
        .partition(|(_, cell)| cell.kills_host());
    if !living.is_empty() {
        let host = Arc::new(Box::pin(Stage::host()).await);
        let done = stream::iter(living).map(|(at, cell)| {
            played(Stage::Shared(Arc::clone(&host)), at, cell).map(move |o| (at, o))
        });
        let done: Vec<_> = done.buffer_unordered(at_once).collect().await;
        for (at, outcome) in done {
            outcomes[at] = Some(outcome);
        }
    }
    let done = stream::iter(dying).map(|(at, cell)| async move {
        let host = Box::pin(Stage::host()).await;
        let outcome = played(Stage::Own(Box::new(host)), at, cell).await;
        (at, outcome)
    });
    let done: Vec<_> = done
        .buffer_unordered(with_own_hosts(at_once))
        .collect()
        .await;
    for (at, outcome) in done {
        outcomes[at] = Some(outcome);
    }
    outcomes
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            println!("{why}");
            return ExitCode::from(2);
        }
    };
    println!("--seed {}", arguments.seed);
    let cells = cells(&arguments);
    let outcomes = run(Box::pin(outcomes(&cells, arguments.at_once)));
    let table = Table::of(cells, outcomes);
    print!("\n{}", table.text(&arguments.faults));
    let path = table.write().unwrap();
    println!("{}", path.display());
    if table.is_red() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
