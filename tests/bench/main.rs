//! `just bench`: how long clusters take, how often the host writes, and what host, API server and etcd cost.
//!
//! Real servers with durable writes and an audit log, the host as a process under a user of its own, the local cloud as another.
//! For each number of clusters of 1 + 3 machines: create, scale to 1 + 5, change the version, idle for a minute, delete.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    reason = "a measuring program: what is not as expected ends it, and its output is its result"
)]

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
    /// Seconds of idling.
    idle_s: u64,
    /// The program.
    capstan: PathBuf,
}

const USAGE: &str = "usage: bench [COUNT...] [--workers N] [--idle-s N] [--capstan FILE]
  COUNT       numbers of clusters, one after the other (default: 1 10 30)
  --workers   workers of each cluster beside its control-plane machine (default: 3)
  --idle-s    seconds of idling (default: 60)
  --capstan   the program to measure (default: capstan beside this program)";

fn arguments() -> Result<Arguments, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut arguments = Arguments {
        clusters: Vec::new(),
        workers: 3,
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
        let small = |text: &str| {
            number(text)?
                .try_into()
                .map_err(|_| format!("{text} is too large"))
        };
        match word.as_str() {
            "--workers" => arguments.workers = small(&value()?)?,
            "--idle-s" => arguments.idle_s = number(&value()?)?,
            "--capstan" => arguments.capstan = value()?.into(),
            "--help" | "-h" => return Err(String::new()),
            count => arguments.clusters.push(small(count)?),
        }
    }
    if arguments.clusters.is_empty() {
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
        for clusters in &arguments.clusters {
            println!("== {clusters} clusters of 1 + {} ==", arguments.workers);
            let measured = scenario::run(&arguments, *clusters).await;
            rows.extend(measured);
        }
        println!("\n{}", measure::table(&rows));
    });
    ExitCode::SUCCESS
}
