//! `capstan plugin`: what authors of plugins need from an empty directory to a component that runs, without a cluster.

mod build;
mod call;
mod check;
pub(super) mod component;
mod inspect;
mod manifest;
mod new;
mod push;
mod records;
mod replay;
mod terms;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::telemetry::{self, LogFormat};

/// Everything worked, and the answer is no: the component is refused, the call failed, the records differ.
const ANSWER_IS_NO: u8 = 3;

/// What follows every help text of `capstan plugin`.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 it could not be done (a file, the network, a build), \
    2 wrong usage, 3 it was done and the answer is no (refused, failed, different).";

/// What to do with a plugin.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(super) enum PluginCommand {
    /// Make a new plugin: a crate that builds and passes its tests at once.
    New(new::NewArgs),
    /// Build a plugin as a component, and say what makes it big.
    Build(build::BuildArgs),
    /// Check a component as the host would, without a cluster.
    Check(check::CheckArgs),
    /// Show what a component says of itself and what it is made of.
    Inspect(inspect::InspectArgs),
    /// Call one function of a component, with grants that you choose.
    Call(call::CallArgs),
    /// List what a host has recorded, or print one of it.
    Records(records::RecordsArgs),
    /// Make a recorded call again, offline, and show what is different.
    Replay(replay::ReplayArgs),
    /// Replay every record of a directory: golden tests of a plugin.
    Test(replay::TestArgs),
    /// Print the ConfigMap and the Plugin object that install a component.
    Manifest(manifest::ManifestArgs),
    /// Push a component to an OCI registry.
    Push(push::PushArgs),
}

/// Runs a subcommand of `capstan plugin`.
pub(super) fn run(command: PluginCommand) -> anyhow::Result<ExitCode> {
    telemetry::start(LogFormat::Text, "warn")?;
    match command {
        PluginCommand::New(args) => new::run(&args),
        PluginCommand::Build(args) => build::run(&args),
        PluginCommand::Check(args) => waiting(check::run(args)),
        PluginCommand::Inspect(args) => waiting(inspect::run(args)),
        PluginCommand::Call(args) => waiting(call::run(args)),
        PluginCommand::Records(args) => records::run(&args),
        PluginCommand::Replay(args) => waiting(replay::run(args)),
        PluginCommand::Test(args) => waiting(replay::test(args)),
        PluginCommand::Manifest(args) => waiting(manifest::run(args)),
        PluginCommand::Push(args) => waiting(push::run(args)),
    }
}

fn waiting(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(Box::pin(work))
}
