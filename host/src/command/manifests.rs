//! `capstan manifests`: all that is applied to a cluster so that the host runs there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use capstan_api::yaml;

use super::node_sync::NodeSyncArgs;
use super::reports::ReportArgs;
use super::run::{Signatures, ceiling_of};
use super::snapshots::SnapshotArgs;
use crate::installation::{self, Claim, Installation, Reports, Snapshots};
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
    #[command(flatten)]
    node_sync: NodeSyncArgs,
    #[command(flatten)]
    snapshots: SnapshotArgs,
    /// PersistentVolumeClaim of the namespace that is mounted at the directory of --etcd-snapshots. With several hosts it has to be one that
    /// all their nodes can write to (ReadWriteMany).
    #[arg(long, value_name = "CLAIM", requires = "etcd_snapshots")]
    etcd_snapshots_claim: Option<String>,
    /// Print that claim as well, of this size, such as 20Gi; capstan-etcd-snapshots, unless --etcd-snapshots-claim names another.
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "etcd_snapshots")]
    etcd_snapshots_size: Option<String>,
    /// Storage class of the claim that is printed; the cluster's default without.
    #[arg(long, value_name = "CLASS", requires = "etcd_snapshots_size")]
    etcd_snapshots_storage_class: Option<String>,
    #[command(flatten)]
    reports: ReportArgs,
    /// Type of the Service by which machines reach the hosts for --bootstrap-report-listen, at the port of --bootstrap-report-url.
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "TYPE",
        requires = "bootstrap_report_listen"
    )]
    bootstrap_report_service: ServiceType,
    /// Only what a host needs that runs elsewhere: namespace, kinds, policies, account and rights.
    #[arg(long)]
    identity_only: bool,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum ServiceType {
    /// From outside, by an address that the cloud gives.
    #[default]
    #[value(name = "LoadBalancer")]
    LoadBalancer,
    /// At every node of the management cluster.
    #[value(name = "NodePort")]
    NodePort,
    /// From within the management cluster, or by a gateway of yours.
    #[value(name = "ClusterIP")]
    ClusterIp,
}

/// A quantity as Kubernetes has it, of those that make sense for a disk.
fn size(text: &str) -> Result<String, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.strip_prefix(number).unwrap_or_default();
    let is_whole = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    let is_some = number.bytes().any(|digit| digit != b'0');
    if is_whole && is_some && ["Mi", "Gi", "Ti", "M", "G", "T"].contains(&unit) {
        return Ok(text.to_owned());
    }
    Err("expected a size with its unit, such as 500Mi, 20Gi or 1Ti".to_owned())
}

impl ManifestsArgs {
    /// Where snapshots are kept, with the volume for a directory.
    fn snapshots(&self) -> anyhow::Result<Option<Snapshots>> {
        let flags = self.snapshots.flags()?;
        let Some(dir) = self.snapshots.directory() else {
            ensure!(
                self.etcd_snapshots_claim.is_none() && self.etcd_snapshots_size.is_none(),
                "--etcd-snapshots names a bucket: --etcd-snapshots-claim and --etcd-snapshots-size are for directories"
            );
            return Ok((!flags.is_empty()).then_some(Snapshots {
                flags,
                volume: None,
            }));
        };
        let shown = dir.display();
        ensure!(
            installation::is_free(dir),
            "--etcd-snapshots {shown}: expected an absolute path at which nothing else of the host is, such as /var/lib/capstan/etcd-snapshots"
        );
        let claim = match (&self.etcd_snapshots_claim, &self.etcd_snapshots_size) {
            (Some(claim), _) => claim.clone(),
            (None, Some(_)) => "capstan-etcd-snapshots".to_owned(),
            (None, None) => bail!(
                "--etcd-snapshots {shown} would go with the Pod: name a volume for it with --etcd-snapshots-claim, or have one made with --etcd-snapshots-size"
            ),
        };
        let volume = Claim {
            name: claim,
            mount: shown.to_string(),
            size: self.etcd_snapshots_size.clone(),
            class: self.etcd_snapshots_storage_class.clone(),
        };
        Ok(Some(Snapshots {
            flags,
            volume: Some(volume),
        }))
    }

    /// Where machines report.
    fn reports(&self) -> anyhow::Result<Option<Reports>> {
        let ReportArgs {
            bootstrap_report_listen,
            bootstrap_report_url,
        } = &self.reports;
        let Some(listen) = bootstrap_report_listen else {
            return Ok(None);
        };
        ensure!(
            !listen.ip().is_loopback() && !matches!(listen.port(), 0 | installation::PORT),
            "--bootstrap-report-listen {listen}: expected an address that others reach, and a port of its own, such as 0.0.0.0:9443"
        );
        let url = bootstrap_report_url
            .as_ref()
            .context("--bootstrap-report-url is missing: name the URL by which machines reach the Service, such as https://capstan.example.com:9443")?;
        Ok(Some(Reports {
            flags: vec![
                format!("--bootstrap-report-listen={listen}"),
                format!("--bootstrap-report-url={url}"),
            ],
            port: listen.port(),
            public_port: url.port(),
            service: match self.bootstrap_report_service {
                ServiceType::LoadBalancer => "LoadBalancer",
                ServiceType::NodePort => "NodePort",
                ServiceType::ClusterIp => "ClusterIP",
            },
        }))
    }
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
    let (snapshots, reports) = (args.snapshots()?, args.reports()?);
    let installation = Installation {
        namespace: args.namespace,
        image: args.image,
        replicas: args.replicas,
        signatures: args.signatures.as_flag(),
        ceiling,
        plugin_claim: args.plugin_claim,
        otlp_endpoint: args.otlp_endpoint,
        record: args.record,
        node_sync: args.node_sync.flags(),
        snapshots,
        reports,
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
