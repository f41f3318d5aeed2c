//! `capstan run`: puts the host together, serves until it is told to stop or loses its lease.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use capstan_api::plugin::HostCeiling;
use capstan_controllers::bootstrap_report::{PublicUrl, Reports};
use capstan_controllers::ctx::{Clock, Ctx, SystemClock};
use capstan_controllers::etcd::SnapshotStore;
use capstan_controllers::fence::{Fence, Fenced, FencedConnect};
use capstan_controllers::kube_api::{KubeApi, management};
use capstan_controllers::lease::{self, Claim};
use capstan_controllers::metrics::Metrics;
use capstan_controllers::node_sync::NodeSync;
use capstan_controllers::plugin::PluginController;
use capstan_controllers::records::RecordDir;
use capstan_controllers::tasks::Tasks;
use capstan_controllers::workloads::{OwnPod, RealConnect};
use capstan_controllers::{install, plugin, registry};
use capstan_core::lease::Terms;
use capstan_core::plan::{Failure, FailureKind};
use capstan_engine::{
    Ceiling, Compiler, Engine, EngineOptions, Limits, SignaturePolicy, SourceOptions, limit_bytes,
    share_of_guests,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::node_sync::NodeSyncArgs;
use super::reports::{ReportArgs, address};
use super::snapshots::SnapshotArgs;
use crate::admin::{Admin, Phase};
use crate::telemetry::{self, LogFormat, Traces};

/// Where the admin endpoints listen unless told otherwise.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9440);

/// How often objects are looked at though nothing called for it (upstream `--sync-period`: 10 minutes).
const RESYNC: Duration = Duration::from_secs(600);

/// How long an API server that does not answer yet is waited for at the start, and how often it is asked.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);
const SERVER_RETRY: Duration = Duration::from_secs(1);

/// How long reconciles that are under way at the stop may take: most are done in a second, and Kubernetes kills after 30.
const FINISH_PATIENCE: Duration = Duration::from_secs(20);

/// How long requests in flight may take after the stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Threads that guests run on. Calls wait for servers most of the time.
const GUEST_THREADS: usize = 2;

/// How to run the host.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Kubeconfig of the management cluster; without one, the cluster whose Pod this is.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Namespace of the host itself: plugins are installed there.
    #[arg(long, default_value = "capstan-system")]
    namespace: String,
    /// Directory for compiled plugins, private to this user; capstan/compiled in the user's cache by default.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// The most that plugins may be granted, whatever their objects say: a YAML file with `grants` as in a Plugin, and `limits`.
    /// Without it everything can be granted but files.
    #[arg(long, value_name = "FILE")]
    ceiling: Option<PathBuf>,
    /// Memory that all calls of plugins may use together; three eighths of what this process may use, by its cgroup, by default.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    guest_memory_mib: Option<u32>,
    /// Directory with components that Plugin objects may name in spec.source.file.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
    /// What is done about plugins that nobody has signed whose public key is in a Secret of the host's namespace with the label
    /// capstan.dev/signing-key.
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    signatures: Signatures,
    /// Address of /healthz, /readyz and /metrics; port 0, or 0 alone, means a free port.
    #[arg(long, default_value_t = ADMIN_LISTEN, value_parser = address, value_name = "ADDRESS")]
    admin_listen: SocketAddr,
    /// How log lines look; CAPSTAN_LOG filters them.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Collector of OpenTelemetry that traces are sent to, by OTLP over HTTP, such as http://collector.example.com:4318. Without it the
    /// variables OTEL_EXPORTER_OTLP_ENDPOINT and their like decide; without those there are no traces.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    snapshots: SnapshotArgs,
    /// Directory for records of plugin calls: of objects and Plugins with the annotation capstan.dev/record: "true". They hold what
    /// plugins saw, without secrets; `capstan plugin replay` makes the calls again.
    #[arg(long, value_name = "DIR")]
    record_dir: Option<PathBuf>,
    /// Records that are kept.
    #[arg(long, default_value_t = 200, value_name = "COUNT")]
    record_keep: usize,
    #[command(flatten)]
    reports: ReportArgs,
    #[command(flatten)]
    node_sync: NodeSyncArgs,
    /// Work only while holding the Lease `capstan`: for several hosts on one management cluster.
    #[arg(long)]
    leader_elect: bool,
    /// How long the Lease holds without being renewed; another host takes over then.
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    lease_duration_s: u64,
    /// How long the holder may fail to renew before it stops; less than the duration.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    lease_renew_deadline_s: u64,
    /// Time between two renewals.
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    lease_retry_period_s: u64,
}

impl RunArgs {
    fn terms(&self) -> anyhow::Result<Terms> {
        let terms = Terms {
            hold: Duration::from_secs(self.lease_duration_s),
            renew_deadline: Duration::from_secs(self.lease_renew_deadline_s),
            retry: Duration::from_secs(self.lease_retry_period_s),
        };
        terms.check().map_err(anyhow::Error::msg)
    }
}

/// What is done about plugins that nobody has signed.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum Signatures {
    /// Nobody looks.
    #[default]
    Off,
    /// They are loaded, and their conditions say so.
    Warn,
    /// They are not loaded.
    Require,
}

impl Signatures {
    /// The value of the flag that says so; `None` for the default.
    pub(super) fn as_flag(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Warn => Some("warn"),
            Self::Require => Some("require"),
        }
    }
}

impl From<Signatures> for SignaturePolicy {
    fn from(said: Signatures) -> Self {
        match said {
            Signatures::Off => Self::Off,
            Signatures::Warn => Self::Warn,
            Signatures::Require => Self::Require,
        }
    }
}

/// Runs the host to its end.
pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_name("capstan")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let traces = Traces::start(args.otlp_endpoint.as_deref(), runtime.handle())?;
    telemetry::start_with(args.log_format, "info", traces.as_ref())?;
    let ended = runtime.block_on(Box::pin(serve(args)));
    if let Some(traces) = traces {
        traces.end();
    }
    runtime.shutdown_timeout(STOP_PATIENCE);
    ended.map(|()| ExitCode::SUCCESS)
}

/// Signals that end the host.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot receive signals")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot receive signals")?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let tasks = Tasks::default();
    let admin = Admin::start(args.admin_listen, &tasks).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), admin = %admin.address(), namespace = args.namespace,
        "capstan starts"
    );
    let kubeconfig = args.kubeconfig.as_deref().filter(|list| !list.is_empty());
    let agent = concat!("capstan/", env!("CARGO_PKG_VERSION"));
    let server = management::connect(kubeconfig, agent).await?;
    let mut host = Host {
        api: Arc::clone(&server),
        server,
        fence: Fence::default(),
        args,
        admin,
        tasks,
    };
    let mut claim = host.claim()?;
    let ended = {
        let mut work = std::pin::pin!(host.work(claim.as_mut()));
        tokio::select! {
            ended = &mut work => ended,
            signal = stop.asked() => {
                tracing::info!(signal, "capstan stops: what is under way is finished");
                tokio::select! {
                    ended = &mut work => ended,
                    done = host.tasks.finish(FINISH_PATIENCE) => {
                        tracing::info!(done, "nothing new is begun");
                        Ok(())
                    }
                    _ = stop.asked() => Ok(()),
                }
            }
        }
    };
    host.tasks.stop();
    if let Some(claim) = claim.as_mut().filter(|_| ended.is_ok()) {
        // Nothing may be left working when another takes over.
        let _ = tokio::time::timeout(STOP_PATIENCE, claim.release()).await;
    }
    ended
}

/// What the host is made of before it works.
struct Host {
    args: RunArgs,
    admin: Admin,
    tasks: Tasks,
    /// The management cluster.
    server: Arc<dyn KubeApi>,
    /// The same behind the fence.
    api: Arc<dyn KubeApi>,
    fence: Fence,
}

impl Host {
    /// A claim to the Lease, if this host is one of several; the fence is shut from then on until it is held.
    fn claim(&mut self) -> anyhow::Result<Option<Claim>> {
        let terms = self.args.terms()?;
        if !self.args.leader_elect {
            return Ok(None);
        }
        self.fence = Fence::shut();
        let server = Arc::clone(&self.server);
        self.api = Arc::new(Fenced::new(Arc::clone(&server), self.fence.clone()));
        let (namespace, fence) = (&self.args.namespace, self.fence.clone());
        let claim = Claim::new(server, namespace, lease::identity(), terms, fence);
        Ok(Some(claim))
    }

    /// What machines tell when they do not become nodes.
    async fn reports(&self, url: &PublicUrl) -> anyhow::Result<Arc<Reports>> {
        let now = SystemClock.now();
        let reports = Reports::prepare(&*self.server, &self.args.namespace, url.clone(), now);
        Ok(Arc::new(
            reports.await.context("--bootstrap-report-listen")?,
        ))
    }

    /// Everything between the start and the stop; returns only with an error.
    async fn work(&self, mut claim: Option<&mut Claim>) -> anyhow::Result<()> {
        let (args, tasks) = (&self.args, &self.tasks);
        let engine = Engine::new(engine_options(args)?)?;
        patiently(|| install::ensure_namespace(&*self.server, &args.namespace)).await?;
        let snapshots = args.snapshots.store(&args.namespace, &self.api, tasks)?;
        let listening = args.reports.listener().await?;
        let reports = match &listening {
            Some((_, url)) => Some(self.reports(url).await?),
            None => None,
        };
        let ctx = context_behind(
            &self.fence,
            &self.api,
            &args.namespace,
            Given {
                snapshots,
                reports: reports.clone(),
                node_sync: args.node_sync.patterns(),
            },
            tasks,
        );
        if let Some(dir) = &args.record_dir {
            let dir = RecordDir::open(dir, args.record_keep)
                .map_err(|why| anyhow::anyhow!("--record-dir {why}"))?;
            ctx.plugins.record_to(dir);
        }
        // A host that stands by says so at once, and machines ask again.
        if let (Some(reports), Some((listener, _))) = (reports, listening) {
            reports
                .serve(&ctx, listener)
                .context("--bootstrap-report-listen")?;
        }
        let plugins = PluginController::new(Arc::clone(&engine));
        if let Some(claim) = &mut claim {
            self.admin.enter(Phase::StandingBy {
                ctx: Arc::clone(&ctx),
            });
            tokio::select! {
                () = claim.acquire() => {}
                () = plugins.keep_warm(&ctx) => {}
            }
            tracing::info!("this host holds the lease and works");
            // The host before may have made what no watch has brought yet. Controllers begin when all that is theirs is listed anew; what providers
            // have is Unknown until then.
            ctx.stores.doubt();
        }
        let working = async {
            let changed = patiently(|| install::host(&*self.api)).await?;
            tracing::info!(changed, "kinds and admission policies are installed");
            patiently(|| install::core_provider(&*self.api, &args.namespace)).await?;
            let metrics = Arc::new(Metrics::default());
            registry::start_warm(&ctx, plugins, &metrics);
            self.admin.enter(Phase::Working {
                ctx,
                engine,
                metrics,
            });
            std::future::pending::<anyhow::Result<()>>().await
        };
        match claim {
            None => Box::pin(working).await,
            Some(claim) => tokio::select! {
                ended = Box::pin(working) => ended,
                why = claim.keep() => bail!("{why}; this host stops, so that two never work at once"),
            },
        }
    }
}

/// Repeats what fails for reasons that pass, for a while: the API server may be starting as well.
async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, Failure>>,
{
    let begun = tokio::time::Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error)
                if error.kind != FailureKind::Transient || begun.elapsed() >= SERVER_PATIENCE =>
            {
                return Err(error).context("the management cluster cannot be prepared");
            }
            Err(error) => tracing::warn!(%error, "trying again"),
        }
        tokio::time::sleep(SERVER_RETRY).await;
    }
}

pub(super) fn context(
    api: &Arc<dyn KubeApi>,
    namespace: &str,
    snapshots: Option<SnapshotStore>,
    reports: Option<Arc<Reports>>,
    tasks: &Tasks,
) -> Arc<Ctx> {
    let given = Given {
        snapshots,
        reports,
        node_sync: NodeSync::default(),
    };
    context_behind(&Fence::default(), api, namespace, given, tasks)
}

/// What the operator may give.
struct Given {
    snapshots: Option<SnapshotStore>,
    reports: Option<Arc<Reports>>,
    node_sync: NodeSync,
}

fn context_behind(
    fence: &Fence,
    api: &Arc<dyn KubeApi>,
    namespace: &str,
    given: Given,
    tasks: &Tasks,
) -> Arc<Ctx> {
    let connect = RealConnect {
        own_pod: OwnPod::of_environment(),
    };
    Arc::new(Ctx {
        fence: fence.clone(),
        snapshots: given.snapshots,
        reports: given.reports,
        node_sync: given.node_sync,
        resync: Some(RESYNC),
        ..Ctx::new(
            Arc::clone(api),
            Arc::new(FencedConnect::new(connect, fence.clone())),
            Arc::new(SystemClock),
            tasks.clone(),
            namespace,
        )
    })
}

/// An engine for a command that only asks: no ceiling of an operator's, no directory of plugins.
pub(super) fn plain_engine(cache_dir: Option<&Path>) -> anyhow::Result<EngineOptions> {
    Ok(EngineOptions {
        cache_dir: cache_dir.map_or_else(default_cache_dir, |dir| Ok(dir.to_owned()))?,
        compiler: Compiler::Exe(this_program()?, vec!["compile".into()]),
        ceilings: Limits::ceilings(),
        ceiling: Ceiling::default(),
        sources: SourceOptions::default(),
        guest_memory_bytes: share_of_guests(limit_bytes()),
        guest_threads: GUEST_THREADS,
    })
}

fn engine_options(args: &RunArgs) -> anyhow::Result<EngineOptions> {
    let (ceiling, ceilings) = match &args.ceiling {
        Some(file) => ceiling_of(file)?,
        None => (Ceiling::default(), Limits::ceilings()),
    };
    let cache_dir = args.cache_dir.as_deref();
    let mebibytes = args
        .guest_memory_mib
        .and_then(|mib| usize::try_from(mib).ok());
    let guest_memory_bytes = mebibytes.map(|mib| mib.saturating_mul(1 << 20));
    Ok(EngineOptions {
        cache_dir: cache_dir.map_or_else(default_cache_dir, |dir| Ok(dir.to_owned()))?,
        compiler: Compiler::Exe(this_program()?, vec!["compile".into()]),
        ceilings,
        ceiling,
        sources: SourceOptions {
            directory: args.plugin_dir.clone(),
            policy: args.signatures.into(),
        },
        guest_memory_bytes: guest_memory_bytes.unwrap_or_else(|| share_of_guests(limit_bytes())),
        guest_threads: GUEST_THREADS,
    })
}

/// What the file of `--ceiling` says.
pub(super) fn ceiling_of(file: &Path) -> anyhow::Result<(Ceiling, Limits)> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("--ceiling {shown}"))?;
    let said: HostCeiling = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("--ceiling {shown}: {error}"))?;
    plugin::ceiling(&said).map_err(|error| anyhow::anyhow!("--ceiling {shown}: {}", error.message))
}

/// A path that starts this very program, also after its file was replaced by a newer one.
fn this_program() -> anyhow::Result<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        return Ok(link);
    }
    std::env::current_exe().context("cannot tell where this program is")
}

/// `$XDG_CACHE_HOME/capstan/compiled`, or the same in `~/.cache`.
fn default_cache_dir() -> anyhow::Result<PathBuf> {
    let dir = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    let cache = dir("XDG_CACHE_HOME").or_else(|| dir("HOME").map(|home| home.join(".cache")));
    let cache = cache.context("neither HOME nor XDG_CACHE_HOME is set: pass --cache-dir, a directory for compiled plugins")?;
    Ok(cache.join("capstan/compiled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_read_or_named() {
        let dir = std::env::temp_dir().join(format!("capstan-ceiling-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("ceiling.yaml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            ceiling_of(&file).map_err(|error| format!("{error:#}"))
        };
        let text = "grants:\n- capability: http\n  http:\n    origins:\n    - origin: https://*.example.com\nlimits:\n  cpuMs: 500\n";
        let (ceiling, limits) = read(text).unwrap();
        assert_eq!(limits.cpu, Duration::from_millis(500));
        assert_ne!(ceiling, Ceiling::default());
        let unknown = read("grant: []\n").unwrap_err();
        assert!(unknown.contains("ceiling.yaml"), "{unknown}");
        let wrong = read("grants:\n- capability: shell\n").unwrap_err();
        assert!(wrong.contains("grants[0].capability"), "{wrong}");
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(ceiling_of(&file).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_what_does_not_is_said_at_once() {
        let mut tries = 0_u32;
        let answer = patiently(|| {
            tries = tries.saturating_add(1);
            let answer = if tries < 3 {
                Err(Failure::transient("R", "soon"))
            } else {
                Ok(tries)
            };
            async move { answer }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let refused = patiently(|| async { Err::<(), _>(Failure::terminal("R", "never")) }).await;
        assert!(format!("{:#}", refused.unwrap_err()).contains("never"));
    }
}
