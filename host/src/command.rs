//! The command line: one module per subcommand.

mod compile;
mod crd;
mod explain;
mod local;
mod manifests;
mod node_sync;
mod plan;
mod plugin;
mod reports;
mod run;
mod serving;
mod snapshots;
mod version;

use std::process::ExitCode;

use capstan_local::command::LocalCommand;
use clap::{Parser, Subcommand};

/// A Cluster API management host in one process.
#[derive(Debug, Parser)]
#[command(name = "capstan", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host against a management cluster.
    Run(Box<run::RunArgs>),
    /// Print the kinds and admission policies that the host installs, as YAML.
    Crd,
    /// Say what a condition, a reason or an event means and what to do about it.
    Explain(explain::ExplainArgs),
    /// Print all that an installation in a cluster consists of, as YAML for `kubectl apply --server-side`.
    Manifests(manifests::ManifestsArgs),
    /// A management cluster and a small cloud on this machine, for trying things.
    #[command(subcommand)]
    Local(LocalCommand),
    /// Show what would happen, before anything is done.
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Make, build, check, inspect and publish plugins, without a cluster.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Show which component of a plugin answers for which objects.
    Serving(serving::ServingArgs),
    /// Print the version.
    Version,
    /// Compile the component on standard input; the host starts this for itself.
    #[command(hide = true)]
    Compile(compile::CompileArgs),
}

/// Runs a subcommand; the answer is the process's exit code.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Crd => Ok(crd::run()),
        Command::Explain(args) => explain::run(&args),
        Command::Manifests(args) => manifests::run(args),
        Command::Local(command) => local::run(command),
        Command::Plan(command) => plan::run(command),
        Command::Plugin(command) => plugin::run(command),
        Command::Serving(args) => serving::run(&args),
        Command::Version => Ok(version::run()),
        Command::Compile(args) => compile::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
