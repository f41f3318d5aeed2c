//! `capstan local`: hands over to `capstan-local`, and says how its cloud and the host are started: by this program.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use capstan_local::cloud::BackendChoice;
use capstan_local::command::{
    Extra, HOST_KUBECONFIG, HOST_NAMESPACE, LocalCommand, Programs, Ready,
};
use serde_json::Value;

use crate::installation::Installation;
use crate::telemetry::{self, LogFormat};

/// How long the cloud may take to start; with many machines on disk it reads for a while.
const CLOUD_PATIENCE: Duration = Duration::from_secs(60);

/// How long the host may take until it is ready.
const HOST_PATIENCE: Duration = Duration::from_secs(90);

/// Runs a subcommand of `capstan local`.
pub(super) fn run(command: LocalCommand) -> anyhow::Result<ExitCode> {
    if let LocalCommand::Machine(args) = &command {
        // A machine's PID 1 has neither a runtime nor a second thread when it begins.
        return capstan_local::machine::run(args);
    }
    let level = if matches!(command, LocalCommand::Cloud(_)) {
        "info"
    } else {
        "warn"
    };
    telemetry::start(LogFormat::Text, level)?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let programs = Programs {
        cloud,
        host,
        installation,
        program: &program,
    };
    runtime.block_on(Box::pin(capstan_local::command::run(command, programs)))
}

/// The cloud beside the management cluster.
fn cloud(program: &Path, dir: &Path, backend: BackendChoice) -> Extra {
    let home = dir.join("cloud");
    Extra {
        name: "cloud".to_owned(),
        argv: argv(
            program,
            &[
                "local",
                "cloud",
                "--dir",
                &home.display().to_string(),
                "--backend",
                backend.as_str(),
            ],
        ),
        ready: Ready::File(home.join("cloud.json")),
        patience: CLOUD_PATIENCE,
    }
}

/// What the host needs in the management cluster: the same as in any installation.
fn installation() -> Vec<Value> {
    let installation = Installation {
        namespace: HOST_NAMESPACE.to_owned(),
        image: String::new(),
        replicas: 1,
        signatures: None,
        ceiling: None,
        plugin_claim: None,
        otlp_endpoint: None,
        record: false,
        node_sync: Vec::new(),
        snapshots: None,
        reports: None,
    };
    installation.identity()
}

/// The host on the management cluster, as itself and not as the administrator.
fn host(program: &Path, dir: &Path, port: u16) -> Extra {
    let kubeconfig = dir.join(HOST_KUBECONFIG).display().to_string();
    let port_text = port.to_string();
    Extra {
        name: "host".to_owned(),
        argv: argv(
            program,
            &[
                "run",
                "--kubeconfig",
                &kubeconfig,
                "--admin-listen",
                &port_text,
            ],
        ),
        ready: Ready::Http {
            port,
            path: "/readyz".to_owned(),
        },
        patience: HOST_PATIENCE,
    }
}

fn argv(program: &Path, words: &[&str]) -> Vec<String> {
    let program = program.display().to_string();
    [program]
        .into_iter()
        .chain(words.iter().map(|word| (*word).to_owned()))
        .collect()
}
