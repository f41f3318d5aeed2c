//! Capstan: a Cluster API management host in one process.

mod admin;
mod command;
mod input;
mod installation;
mod out;
mod output;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = command::Cli::parse();
    // Everything that speaks TLS uses this one; it fails only when called twice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    command::run(cli).unwrap_or_else(|error| {
        out::error(&error);
        ExitCode::FAILURE
    })
}
