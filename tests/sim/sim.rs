//! `just sim`: many worlds one after the other, with a line of counts at the end; a world that goes wrong is told, made as small as
//! it gets, and can be replayed.

use std::process::ExitCode;
use std::time::Instant;

use capstan_simulation::shrink::shrink;
use capstan_simulation::{Outcome, Plan, run};

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--trace] [--keep-going]
  --seeds       how many worlds (default: 100)
  --seed        the first, or with --seeds left out the only one (default: 1)
  --trace       print what happened, also when all was well
  --keep-going  go on after a world that went wrong, and do not make it small; with --trace, print what happened in it";

/// What is run.
struct Arguments {
    seeds: u64,
    seed: u64,
    trace: bool,
    keep_going: bool,
}

fn arguments() -> Result<Arguments, String> {
    let (mut seeds, mut seed) = (None, None);
    let (mut trace, mut keep_going) = (false, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|_| format!("{word}: {value:?} is not a number"))
        };
        match word.as_str() {
            "--seeds" => seeds = Some(number()?),
            "--seed" => seed = Some(number()?),
            "--trace" => trace = true,
            "--keep-going" => keep_going = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(Arguments {
        seeds: seeds.unwrap_or(if seed.is_some() { 1 } else { 100 }),
        seed: seed.unwrap_or(1),
        trace,
        keep_going,
    })
}

/// How many worlds there are between two lines of progress.
const PROGRESS_EVERY: u64 = 100;

#[derive(Default)]
struct Counts {
    worlds: u64,
    bad: u64,
    simulated_s: u64,
    writes: u64,
    machines: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        self.worlds += 1;
        self.bad += u64::from(outcome.is_bad());
        self.simulated_s += outcome.simulated.as_secs();
        self.writes += outcome.writes;
        self.machines += outcome.machines;
    }

    fn line(&self, began: Instant) -> String {
        format!(
            "{} seeds, {} violations, {} simulated hours, {} machines, {} writes of the host, {} s",
            self.worlds,
            self.bad,
            self.simulated_s / 3600,
            self.machines,
            self.writes,
            began.elapsed().as_secs()
        )
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut counts = Counts::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let plan = Plan::of(seed);
        let outcome = run(&plan);
        counts.add(&outcome);
        if outcome.is_bad() && arguments.keep_going {
            if arguments.trace {
                tell(&plan, &outcome);
            }
            println!("seed {seed}: {}", outcome.violations.join("; "));
        } else if outcome.is_bad() {
            tell(&plan, &outcome);
            let (plan, outcome) = shrink(&plan, outcome);
            println!("the smallest world that goes wrong like this:");
            tell(&plan, &outcome);
            println!("replay: ./dev sim --seed {seed} --trace");
            break;
        } else if arguments.trace && !arguments.keep_going {
            println!("{plan}{}", outcome.trace.lines().join("\n"));
        }
        if counts.worlds.is_multiple_of(PROGRESS_EVERY) && counts.worlds < arguments.seeds {
            eprintln!("{}", counts.line(began));
        }
    }
    println!("{}", counts.line(began));
    if counts.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell(plan: &Plan, outcome: &Outcome) {
    println!("seed {}: {plan}", plan.seed);
    println!("{}", outcome.trace.lines().join("\n"));
    println!("{}", outcome.picture.join("\n"));
    println!("seed {}: {}", plan.seed, outcome.violations.join("\n"));
}
