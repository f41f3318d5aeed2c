//! `capstan local`: hands over to `capstan-local`, and says how its cloud and the host are started: by this program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use capstan_local::command::{Extra, LocalCommand, Ready};

use crate::telemetry::{self, LogFormat};

/// How long the cloud may take to start; with many machines on disk it reads for a while.
const CLOUD_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a subcommand of `capstan local`.
pub(super) fn run(command: LocalCommand) -> anyhow::Result<ExitCode> {
    let level = if matches!(command, LocalCommand::Cloud(_)) { "info" } else { "warn" };
    telemetry::start(LogFormat::Text, level)?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let extras = |dir: &Path| vec![cloud(program, dir)];
    runtime.block_on(Box::pin(capstan_local::command::run_with(command, extras)))
}

/// The cloud beside the management cluster.
fn cloud(program: PathBuf, dir: &Path) -> Extra {
    let home = dir.join("cloud");
    let words = ["local".to_owned(), "cloud".to_owned(), "--dir".to_owned()];
    let mut argv = vec![program.display().to_string()];
    argv.extend(words);
    argv.push(home.display().to_string());
    Extra {
        name: "cloud".to_owned(),
        argv,
        ready: Ready::File(home.join("cloud.json")),
        patience: CLOUD_PATIENCE,
    }
}
