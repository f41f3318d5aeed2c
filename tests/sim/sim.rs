//! `just sim`: many worlds, each in one thread, with a line of counts at the end; a world that goes wrong is told, made as small as
//! it gets, and can be replayed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use capstan_simulation::shrink::shrink;
use capstan_simulation::{Outcome, Plan, run};

/// A world is mostly JSON that is made and dropped: with the system's allocator it takes half as long again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--jobs N] [--trace] [--keep-going]
  --seeds       how many worlds (default: 100)
  --seed        the first, or with --seeds left out the only one (default: 1)
  --jobs        how many worlds at the same time (default: one for each processor)
  --trace       print what happened, also when all was well
  --keep-going  go on after a world that went wrong, and do not make it small; with --trace, print what happened in it";

/// What is run.
struct Arguments {
    seeds: u64,
    seed: u64,
    jobs: u64,
    trace: bool,
    keep_going: bool,
}

fn arguments() -> Result<Arguments, String> {
    let (mut seeds, mut seed, mut jobs) = (None, None, None);
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
            "--jobs" => jobs = Some(number()?.max(1)),
            "--trace" => trace = true,
            "--keep-going" => keep_going = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(Arguments {
        seeds: seeds.unwrap_or(if seed.is_some() { 1 } else { 100 }),
        seed: seed.unwrap_or(1),
        jobs: jobs.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism();
            processors.map_or(1, |count| count.get() as u64)
        }),
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
    let work = Work {
        next: AtomicU64::new(arguments.seed),
        end: arguments.seed.saturating_add(arguments.seeds),
        is_over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let (done, outcomes) = channel();
        for _ in 0..arguments.jobs.min(arguments.seeds) {
            let (work, done) = (&work, done.clone());
            scope.spawn(move || work.run(&done));
        }
        drop(done);
        hear(&arguments, &outcomes, &mut counts, began);
        work.is_over.store(true, Ordering::Relaxed);
    });
    println!("{}", counts.line(began));
    if counts.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Worlds that are still to be run.
struct Work {
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
}

impl Work {
    fn run(&self, done: &Sender<(Plan, Outcome)>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            let plan = Plan::of(seed);
            let outcome = run(&plan);
            if done.send((plan, outcome)).is_err() {
                return;
            }
        }
    }
}

/// Counts and tells outcomes, in the order of seeds.
fn hear(
    arguments: &Arguments,
    outcomes: &Receiver<(Plan, Outcome)>,
    counts: &mut Counts,
    began: Instant,
) {
    let mut early = BTreeMap::new();
    let mut next = arguments.seed;
    for (plan, outcome) in outcomes {
        early.insert(plan.seed, (plan, outcome));
        while let Some((plan, outcome)) = early.remove(&next) {
            next += 1;
            counts.add(&outcome);
            if outcome.is_bad() && !arguments.keep_going {
                tell(&plan, &outcome);
                let (small, outcome) = shrink(&plan, outcome);
                println!("the smallest world that goes wrong like this:");
                tell(&small, &outcome);
                println!("replay: ./dev sim --seed {} --trace", plan.seed);
                return;
            }
            if outcome.is_bad() {
                if arguments.trace {
                    tell(&plan, &outcome);
                }
                println!("seed {}: {}", plan.seed, outcome.violations.join("; "));
            } else if arguments.trace && !arguments.keep_going {
                println!("{plan}{}", outcome.trace.lines().join("\n"));
            }
            if counts.worlds.is_multiple_of(PROGRESS_EVERY) && counts.worlds < arguments.seeds {
                eprintln!("{}", counts.line(began));
            }
        }
    }
}

fn tell(plan: &Plan, outcome: &Outcome) {
    println!("seed {}: {plan}", plan.seed);
    println!("{}", outcome.trace.lines().join("\n"));
    println!("{}", outcome.picture.join("\n"));
    println!("seed {}: {}", plan.seed, outcome.violations.join("\n"));
}
