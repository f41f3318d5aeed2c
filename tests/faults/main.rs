//! `just faults`: breaks control planes of 1, 3 and 5 machines at rest, while they grow and while they roll, and prints what became of each.
//!
//! A cell is green when the control plane is whole again with nothing left behind, or when too much was broken for that and a condition
//! says what a person must do. In every cell the host must take no step below a majority and no member from a live machine.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a program of tests: what is not as expected ends its cell, and its output is its result"
)]

mod cell;
mod fault;
mod guard;

use std::process::ExitCode;
use std::sync::Arc;

use capstan_tests::host::TestHost;
use capstan_tests::run;
use futures::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cell::{Cell, Outcome, Phase};
use crate::fault::Fault;

const USAGE: &str = "usage: faults [--size N]... [--phase NAME]... [--fault NAME]... [--pairs N] [--seed N] [--at-once N]
  --size     machines of the control plane (default: 1 3 5)
  --phase    rest, grow or roll (default: all)
  --fault    one of those in the table's head (default: all)
  --pairs    cells with two faults at once, chosen by the seed (default: 3)
  --seed     chooses them (default: random; it is printed)
  --at-once  cells at the same time (default: 3)";

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
        pairs: 3,
        seed: rand::random(),
        at_once: 3,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
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
    let outcomes = run(async {
        let host = Arc::new(TestHost::start().await);
        let done = stream::iter(cells.iter().cloned().enumerate()).map(|(at, cell)| {
            let host = Arc::clone(&host);
            async move {
                let shown = cell.to_string();
                // A cell that panics is red, and the others go on.
                let cell = tokio::spawn(async move { cell::run(&host, at, &cell).await });
                let outcome = cell.await.unwrap_or_else(|error| {
                    let panic = error.into_panic();
                    let text = panic.downcast_ref::<String>().cloned();
                    Outcome::Red(text.unwrap_or_else(|| "it panicked".to_owned()))
                });
                println!("{shown}: {outcome}");
                outcome
            }
        });
        done.buffered(arguments.at_once).collect::<Vec<_>>().await
    });
    table(&arguments, &cells, &outcomes);
    let is_red = |outcome: &Outcome| matches!(outcome, Outcome::Red(_));
    if outcomes.iter().any(is_red) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn table(arguments: &Arguments, cells: &[Cell], outcomes: &[Outcome]) {
    let row = |first: &str, rest: &[String]| {
        let rest: Vec<String> = rest.iter().map(|text| format!("{text:<14}")).collect();
        println!("{first:<10}{}", rest.join("").trim_end());
    };
    let heads: Vec<String> = arguments.faults.iter().map(ToString::to_string).collect();
    println!();
    row("", &heads);
    for &size in &arguments.sizes {
        for &phase in &arguments.phases {
            let of = |fault: &Fault| {
                let wanted = Cell {
                    size,
                    phase,
                    faults: vec![*fault],
                };
                let at = cells.iter().position(|cell| *cell == wanted).unwrap();
                outcomes[at].word()
            };
            let words: Vec<String> = arguments.faults.iter().map(of).collect();
            row(&format!("{size} {phase}"), &words);
        }
    }
    for (cell, outcome) in cells
        .iter()
        .zip(outcomes)
        .filter(|(cell, _)| cell.faults.len() > 1)
    {
        println!("{cell}: {}", outcome.word());
    }
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    println!(
        "{} cells: {} whole again, {} say what a person must do, {} red",
        cells.len(),
        count(|outcome| matches!(outcome, Outcome::Whole(_))),
        count(|outcome| matches!(outcome, Outcome::Said(_))),
        count(|outcome| matches!(outcome, Outcome::Red(_))),
    );
}
