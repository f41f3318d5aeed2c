//! `just bench`: how long clusters take, how often the host writes, and what host, API server and etcd cost.
//!
//! Real servers with durable writes and an audit log, the host as a process under a user of its own, the local cloud as another.
//! For each number of clusters of 1 + 3 machines: create, scale to 1 + 5, change the version, idle for a minute, delete. The same for one
//! cluster of many machines, which grows by a tenth and replaces a tenth at a time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    reason = "a measuring program: what is not as expected ends it, and its output is its result"
)]

mod clocks;
mod measure;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

/// What is measured.
struct Arguments {
    /// Numbers of clusters.
    clusters: Vec<u32>,
    /// Workers of each.
    workers: u32,
    /// Machines of one cluster, measured after the others.
    machines: Option<u32>,
    /// Seconds of idling.
    idle_s: u64,
    /// The program.
    capstan: PathBuf,
}

/// What is made.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// How many clusters.
    clusters: u32,
    /// Workers of each beside its control-plane machine.
    workers: u32,
}

const USAGE: &str =
    "usage: bench [COUNT...] [--workers N] [--machines N] [--idle-s N] [--capstan FILE]
  COUNT       numbers of clusters, one after the other (default: 1 10 30, none with --machines)
  --workers   workers of each cluster beside its control-plane machine (default: 3)
  --machines  one cluster of so many machines, the control plane's included
  --idle-s    seconds of idling (default: 60)
  --capstan   the program to measure (default: capstan beside this program)";

fn arguments() -> Result<Arguments, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut arguments = Arguments {
        clusters: Vec::new(),
        workers: 3,
        machines: None,
        idle_s: 60,
        capstan: own.with_file_name("capstan"),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{text:?} is not a number"))
        };
        let small = |text: &str| -> Result<u32, String> {
            number(text)?
                .try_into()
                .map_err(|_| format!("{text} is too large"))
        };
        match word.as_str() {
            "--workers" => arguments.workers = small(&value()?)?,
            "--machines" => arguments.machines = Some(small(&value()?)?.max(2)),
            "--idle-s" => arguments.idle_s = number(&value()?)?,
            "--capstan" => arguments.capstan = value()?.into(),
            "--help" | "-h" => return Err(String::new()),
            count => arguments.clusters.push(small(count)?),
        }
    }
    if arguments.clusters.is_empty() && arguments.machines.is_none() {
        arguments.clusters = vec![1, 10, 30];
    }
    if !arguments.capstan.is_file() {
        return Err(format!(
            "{} does not exist: run `just release`",
            arguments.capstan.display()
        ));
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(problem) => {
            println!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    capstan_tests::run(async {
        let mut rows = Vec::new();
        let small = arguments.clusters.iter().map(|count| Load {
            clusters: *count,
            workers: arguments.workers,
        });
        let large = arguments.machines.map(|machines| Load {
            clusters: 1,
            workers: machines - 1,
        });
        for load in small.chain(large) {
            println!("== {} clusters of 1 + {} ==", load.clusters, load.workers);
            rows.extend(scenario::run(&arguments, load).await);
        }
        println!("\n{}", measure::table(&rows));
    });
    ExitCode::SUCCESS
}
