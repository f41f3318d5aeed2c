//! `just sim`: many worlds, each in one thread, with a line of counts at the end; a world that goes wrong is told, made as small as
//! it gets, and can be replayed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use capstan_simulation::shrink::{Shrinks, shrink};
use capstan_simulation::{Plan, etcd};

/// A world is mostly JSON that is made and dropped: with the system's allocator it takes half as long again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--jobs N] [--trace] [--keep-going] [--etcd | --control-planes]
  --seeds       how many worlds (default: 100)
  --seed        the first, or with --seeds left out the only one (default: 1)
  --jobs        how many worlds at the same time (default: one for each processor)
  --trace       print what happened, also when all was well
  --keep-going  go on after a world that went wrong, and do not make it small; with --trace, print what happened in it
  --etcd        decisions about control planes and the members of their etcd, in worlds of their own
  --control-planes  worlds whose control plane is of Machines with an etcd on each of them";

/// What is run.
struct Arguments {
    seeds: u64,
    seed: u64,
    jobs: u64,
    trace: bool,
    keep_going: bool,
    kind: &'static Kind,
}

fn arguments() -> Result<Arguments, String> {
    let (mut seeds, mut seed, mut jobs) = (None, None, None);
    let (mut trace, mut keep_going, mut kind) = (false, false, &WORLDS);
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
            "--etcd" => kind = &ETCD,
            "--control-planes" => kind = &CONTROL_PLANES,
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
        kind,
    })
}

/// How many worlds there are between two lines of progress.
const PROGRESS_EVERY: u64 = 100;

/// What became of a world, of whatever kind.
struct Told {
    seed: u64,
    violations: Vec<String>,
    simulated_s: u64,
    machines: u64,
    /// Writes of the host.
    acts: u64,
    /// Members of etcd that it removed.
    removed: u64,
    is_left: bool,
    /// The plan, and what happened.
    history: String,
}

impl Told {
    fn of(plan: &Plan, outcome: <Plan as Shrinks>::Outcome) -> Self {
        Self {
            seed: plan.seed,
            simulated_s: outcome.simulated.as_secs(),
            machines: outcome.machines,
            acts: outcome.writes,
            removed: outcome.removed,
            is_left: outcome.is_left,
            history: format!(
                "seed {}: {plan}\n{}\n{}",
                plan.seed,
                outcome.trace.lines().join("\n"),
                outcome.picture.join("\n")
            ),
            violations: outcome.violations,
        }
    }

    fn of_etcd(plan: &etcd::Plan, told: etcd::Told) -> Self {
        Self {
            seed: plan.seed,
            simulated_s: told.simulated_s,
            machines: told.machines,
            acts: 0,
            removed: told.removed,
            is_left: told.is_left,
            history: format!(
                "seed {}: {plan}\n{}",
                plan.seed,
                told.trace.lines().join("\n")
            ),
            violations: told.violations,
        }
    }

    fn is_bad(&self) -> bool {
        !self.violations.is_empty()
    }

    fn print(&self) {
        println!("{}", self.history);
        if self.is_bad() {
            println!("seed {}: {}", self.seed, self.violations.join("\n"));
        }
    }
}

/// Worlds of one kind.
struct Kind {
    run: fn(u64) -> Told,
    /// The smallest that goes wrong like that of a seed.
    smallest: fn(u64) -> Told,
    /// How it is chosen.
    flag: &'static str,
}

const WORLDS: Kind = Kind {
    run: |seed| {
        let plan = Plan::of(seed);
        Told::of(&plan, plan.run())
    },
    smallest: |seed| {
        let plan = Plan::of(seed);
        let (plan, outcome) = shrink(&plan, plan.run());
        Told::of(&plan, outcome)
    },
    flag: "",
};

const CONTROL_PLANES: Kind = Kind {
    run: |seed| {
        let plan = Plan::of_control_plane(seed);
        Told::of(&plan, plan.run())
    },
    smallest: |seed| {
        let plan = Plan::of_control_plane(seed);
        let (plan, outcome) = shrink(&plan, plan.run());
        Told::of(&plan, outcome)
    },
    flag: "--control-planes ",
};

const ETCD: Kind = Kind {
    run: |seed| {
        let plan = etcd::Plan::of(seed);
        Told::of_etcd(&plan, plan.run())
    },
    smallest: |seed| {
        let plan = etcd::Plan::of(seed);
        let (plan, told) = shrink(&plan, plan.run());
        Told::of_etcd(&plan, told)
    },
    flag: "--etcd ",
};

#[derive(Default)]
struct Counts {
    worlds: u64,
    bad: u64,
    left: u64,
    simulated_s: u64,
    acts: u64,
    removed: u64,
    machines: u64,
}

impl Counts {
    fn add(&mut self, told: &Told) {
        self.worlds += 1;
        self.bad += u64::from(told.is_bad());
        self.left += u64::from(told.is_left);
        self.simulated_s += told.simulated_s;
        self.acts += told.acts;
        self.removed += told.removed;
        self.machines += told.machines;
    }

    fn line(&self, began: Instant) -> String {
        let mut acts = Vec::new();
        if self.acts > 0 {
            acts.push(format!("{} writes of the host", self.acts));
        }
        if self.removed > 0 {
            acts.push(format!(
                "{} members removed, {} left to people, who were told what to do",
                self.removed, self.left
            ));
        }
        format!(
            "{} seeds, {} violations, {} simulated hours, {} machines, {}, {} s",
            self.worlds,
            self.bad,
            self.simulated_s / 3600,
            self.machines,
            acts.join(", "),
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
        kind: arguments.kind,
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
        hear(&arguments, work.kind, &outcomes, &mut counts, began);
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
    kind: &'static Kind,
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
}

impl Work {
    fn run(&self, done: &Sender<Told>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            if done.send((self.kind.run)(seed)).is_err() {
                return;
            }
        }
    }
}

/// Counts and tells outcomes, in the order of seeds.
fn hear(
    arguments: &Arguments,
    kind: &Kind,
    outcomes: &Receiver<Told>,
    counts: &mut Counts,
    began: Instant,
) {
    let mut early = BTreeMap::new();
    let mut next = arguments.seed;
    for told in outcomes {
        early.insert(told.seed, told);
        while let Some(told) = early.remove(&next) {
            next += 1;
            counts.add(&told);
            if told.is_bad() && !arguments.keep_going {
                told.print();
                println!("the smallest world that goes wrong like this:");
                (kind.smallest)(told.seed).print();
                println!(
                    "replay: ./dev sim {}--seed {} --trace",
                    kind.flag, told.seed
                );
                return;
            }
            if told.is_bad() {
                if arguments.trace {
                    told.print();
                } else {
                    println!("seed {}: {}", told.seed, told.violations.join("; "));
                }
            } else if arguments.trace && !arguments.keep_going {
                told.print();
            }
            if counts.worlds.is_multiple_of(PROGRESS_EVERY) && counts.worlds < arguments.seeds {
                eprintln!("{}", counts.line(began));
            }
        }
    }
}
