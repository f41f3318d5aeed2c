//! `capstan local`: brings a management cluster and whatever belongs to it up, shows it, takes it
//! down. What it starts outlives it, recorded in `state.json` of its directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cloud::{BackendChoice, CloudArgs};
use crate::machine::MachineArgs;
use crate::out;
use crate::progress::Progress;
use crate::toolchain;

mod extra;
mod images;
mod lifecycle;
mod machines;
mod quickstart;
mod status;

pub use extra::{Extra, Ready};
pub use images::ImagesArgs;
pub use machines::{ExecArgs, FaultArgs, InstanceArgs, LogsArgs};
pub use quickstart::QuickstartArgs;

/// Where the host looks for plugins, and its account is.
pub const HOST_NAMESPACE: &str = "capstan-system";

/// The host's own kubeconfig, beside that of the person: it may do what the host's account may.
pub const HOST_KUBECONFIG: &str = "host.kubeconfig";

/// The host's account, as the API server knows it.
const HOST_USER: &str = "system:serviceaccount:capstan-system:capstan";

/// Groups of every account, and of those in the host's namespace.
const HOST_GROUPS: [&str; 2] = [
    "system:serviceaccounts",
    "system:serviceaccounts:capstan-system",
];

/// The subcommands of `capstan local`.
#[derive(Clone, Debug, Subcommand)]
pub enum LocalCommand {
    /// Start a management cluster here, or say that it is already up.
    Up(UpArgs),
    /// Stop everything that was started here and remove the directory.
    Down(DirArgs),
    /// Show what runs here.
    Status(DirArgs),
    /// Start one more process that `status` shows and `down` stops.
    Start(StartArgs),
    /// Stop a process that was started with `start`.
    Stop(StopArgs),
    /// Print where the control plane's binaries and kubectl are; builds what is missing.
    Tools(ToolsArgs),
    /// Build, show or remove what real machines of the cloud are made from.
    Images(ImagesArgs),
    /// Run a small cloud: networks, load balancers, and instances that join clusters.
    Cloud(CloudArgs),
    /// Say whether this machine can run real machines, and what is missing.
    Probe(DirArgs),
    /// Run a command in a machine of the cloud.
    Exec(ExecArgs),
    /// Print what a machine of the cloud has printed.
    Console(InstanceArgs),
    /// Print the log of a machine's kubelet or containerd.
    Logs(LogsArgs),
    /// Kill, freeze or cut off a machine of the cloud, fill its disk, or end that.
    Fault(FaultArgs),
    /// Bring up a management cluster, a cloud and the host, and create a first cluster with them.
    Quickstart(QuickstartArgs),
    /// A namespace machine from inside; the cloud starts this for itself.
    #[command(hide = true)]
    Machine(MachineArgs),
}

/// Where everything is kept.
#[derive(Clone, Debug, Args)]
pub struct DirArgs {
    /// Directory for data, logs and the kubeconfig.
    #[arg(long, default_value = ".dev", value_name = "DIR")]
    pub dir: PathBuf,
}

/// How to bring it up.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub home: DirArgs,
    /// Port of the API server on 127.0.0.1; a free one by default.
    #[arg(long)]
    pub port: Option<u16>,
    /// Log every API request to control-plane/audit.log.
    #[arg(long)]
    pub audit: bool,
    /// What runs the cloud's machines when nobody chooses for a cluster.
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendChoice,
    /// Do not make etcd's writes durable: faster, and a power cut loses the cluster.
    #[arg(long)]
    pub unsafe_no_fsync: bool,
}

/// What else to start.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub home: DirArgs,
    /// It is ready when this file exists.
    #[arg(long, value_name = "FILE", conflicts_with = "ready_http")]
    pub ready_file: Option<PathBuf>,
    /// It is ready when http://127.0.0.1:PORT/PATH answers 200.
    #[arg(long, value_name = "PORT/PATH")]
    pub ready_http: Option<HttpCheck>,
    /// How long it may take to become ready, in seconds.
    #[arg(long, default_value_t = 120)]
    pub timeout_s: u64,
    /// Short name; its output goes to NAME.log.
    pub name: String,
    /// Program and arguments, after `--`.
    #[arg(last = true, required = true)]
    pub argv: Vec<String>,
}

/// What to stop.
#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub home: DirArgs,
    /// The name given to `start`.
    pub name: String,
}

/// Which binaries to print.
#[derive(Clone, Debug, Args)]
pub struct ToolsArgs {
    /// Print only this one's path: etcd, kube-apiserver, kube-controller-manager or kubectl.
    #[arg(value_parser = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"])]
    pub name: Option<String>,
}

/// A loopback port and a path, written `8080/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The port.
    pub port: u16,
    /// The path, with its slash.
    pub path: String,
}

impl std::str::FromStr for HttpCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, path) = text
            .split_once('/')
            .ok_or("expected PORT/PATH, like 8080/readyz")?;
        let port = port
            .parse()
            .map_err(|_| format!("{port:?} is not a port"))?;
        Ok(Self {
            port,
            path: format!("/{path}"),
        })
    }
}

/// How the processes are started that are not this crate's business.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The cloud, started by this program for this directory, with this backend.
    pub cloud: fn(&Path, &Path, BackendChoice) -> Extra,
    /// The host, started by this program for this directory; it says on this port that it is ready.
    pub host: fn(&Path, &Path, u16) -> Extra,
    /// What the host needs in the management cluster, its account among it.
    pub installation: fn() -> Vec<Value>,
    /// The program that both are part of.
    pub program: &'a Path,
}

/// Runs a subcommand. `up` starts the cloud beside the control plane, `quickstart` the host as well.
pub async fn run(command: LocalCommand, programs: Programs<'_>) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(out::progress);
    match command {
        LocalCommand::Up(args) => Box::pin(lifecycle::up(args, programs, &progress)).await?,
        LocalCommand::Down(args) => lifecycle::down(&args.dir, &progress)?,
        LocalCommand::Status(args) => return status::print(&args.dir),
        LocalCommand::Start(args) => Box::pin(extra::start(args, &progress)).await?,
        LocalCommand::Stop(args) => extra::stop(&args, &progress)?,
        LocalCommand::Tools(args) => tools(args.name.as_deref(), &progress).await?,
        LocalCommand::Images(args) => images::run(args, &progress).await?,
        LocalCommand::Cloud(args) => Box::pin(crate::cloud::serve(args)).await?,
        LocalCommand::Probe(args) => return machines::probe(&args.dir),
        LocalCommand::Exec(args) => return machines::exec(args).await,
        LocalCommand::Console(args) => machines::console(args).await?,
        LocalCommand::Logs(args) => machines::logs(args).await?,
        LocalCommand::Fault(args) => machines::fault(args).await?,
        LocalCommand::Quickstart(args) => {
            Box::pin(quickstart::run(args, programs)).await?;
        }
        LocalCommand::Machine(args) => return crate::machine::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}

async fn tools(only: Option<&str>, progress: &Progress) -> anyhow::Result<()> {
    let mut found = Vec::new();
    if only != Some("kubectl") {
        let tools = toolchain::ensure(progress)
            .await
            .context("no control plane binaries")?;
        found.push(("etcd", tools.etcd));
        found.push(("kube-apiserver", tools.kube_apiserver));
        found.push(("kube-controller-manager", tools.kube_controller_manager));
    }
    if only.is_none_or(|name| name == "kubectl") {
        let kubectl = toolchain::ensure_kubectl(progress)
            .await
            .context("no kubectl")?;
        found.push(("kubectl", kubectl));
    }
    for (name, path) in found {
        match only {
            None => out::result(format!("{name:<24} {}", path.display())),
            Some(wanted) if wanted == name => out::result(path.display().to_string()),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_check_is_a_port_and_a_path() {
        let check: HttpCheck = "8080/readyz".parse().unwrap();
        assert_eq!((check.port, check.path.as_str()), (8080, "/readyz"));
        assert!("readyz".parse::<HttpCheck>().is_err());
    }
}
