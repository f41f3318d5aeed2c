//! `capstan manifests`: all that is applied to a cluster so that the host runs there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use capstan_api::yaml;

use super::run::{Signatures, ceiling_of};
use crate::installation::Installation;
use crate::out;

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct ManifestsArgs {
    /// Namespace of the host: plugins are installed there.
    #[arg(long, default_value = "capstan-system")]
    namespace: String,
    /// Image of the host, as nodes pull it.
    #[arg(long, default_value_t = format!("capstan:{}", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// How many hosts run; one of them works, the others are ready to take over.
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    replicas: u32,
    /// What is done about plugins that nobody has signed.
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    signatures: Signatures,
    /// The most that plugins may be granted, as `capstan run --ceiling` reads it. The Deployment carries what the file says, so that
    /// nobody changes it who cannot change the Deployment; apply what this prints again after a change.
    #[arg(long, value_name = "FILE")]
    ceiling: Option<PathBuf>,
    /// A PersistentVolumeClaim of the namespace with components that Plugin objects may name in spec.source.file; the hosts only read it.
    #[arg(long, value_name = "CLAIM")]
    plugin_claim: Option<String>,
    /// Collector of OpenTelemetry that the hosts send traces to, such as http://collector.monitoring:4318.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Keep records of the calls that ask for it (annotation capstan.dev/record), as long as the Pod lives; `capstan plugin records` in the
    /// Pod shows them.
    #[arg(long)]
    record: bool,
    /// Only what a host needs that runs elsewhere: namespace, kinds, policies, account and rights.
    #[arg(long)]
    identity_only: bool,
}

/// Annotations of a Pod have 256 KiB together, and a ceiling of a hundred origins has 10.
const CEILING_BYTES_MAX: usize = 128 << 10;

/// The text of a ceiling that a host would take.
fn ceiling_text(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("--ceiling {shown}"))?;
    ceiling_of(file)?;
    ensure!(
        text.len() <= CEILING_BYTES_MAX,
        "--ceiling {shown}: {} bytes do not fit into the Deployment, which takes {CEILING_BYTES_MAX}",
        text.len()
    );
    Ok(text)
}

/// Prints everything as YAML documents.
pub(super) fn run(args: ManifestsArgs) -> anyhow::Result<ExitCode> {
    let ceiling = args.ceiling.as_deref().map(ceiling_text).transpose()?;
    let installation = Installation {
        namespace: args.namespace,
        image: args.image,
        replicas: args.replicas,
        signatures: args.signatures.as_flag(),
        ceiling,
        plugin_claim: args.plugin_claim,
        otlp_endpoint: args.otlp_endpoint,
        record: args.record,
    };
    let documents = if args.identity_only {
        installation.identity()
    } else {
        installation.documents()
    };
    let text: String = documents
        .iter()
        .map(|document| format!("---\n{}", yaml::print(document)))
        .collect();
    out::result(text.trim_end());
    Ok(ExitCode::SUCCESS)
}
