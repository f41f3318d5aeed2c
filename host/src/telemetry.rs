//! Logs to standard error, as text for people or as JSON for machines.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Variable with a filter such as `debug` or `info,capstan_controllers=debug`.
const FILTER: &str = "CAPSTAN_LOG";

/// Libraries that say what nobody asked for. The client's errors are said by whoever made the request.
const QUIET: &str =
    "hyper=warn,hyper_util=warn,kube_client=off,rustls=warn,tower=warn,wasmtime=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging at this level unless the environment says otherwise. A second start changes nothing.
///
/// # Errors
/// When the environment's filter cannot be understood.
pub(crate) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let asked = std::env::var(FILTER)
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = match &asked {
        Some(filter) => {
            EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("{FILTER}: {error}"))?
        }
        None => EnvFilter::try_new(format!("{level},{QUIET}"))?,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An error means that there is a subscriber already.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
