//! `capstan manifests`: all that is applied to a cluster so that the host runs there.

use std::process::ExitCode;

use capstan_api::yaml;

use super::run::Signatures;
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

/// Prints everything as YAML documents.
pub(super) fn run(args: ManifestsArgs) -> ExitCode {
    let installation = Installation {
        namespace: args.namespace,
        image: args.image,
        replicas: args.replicas,
        signatures: args.signatures.as_flag(),
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
    ExitCode::SUCCESS
}
