//! A small cloud on one machine: networks, load balancers that forward TCP, and instances that are bootstrapped by their user data.
//!
//! `CLOUD.md` beside this crate's manifest describes the HTTP API.

mod absent;
mod answer;
mod backend;
mod backends;
mod balancer;
pub(crate) mod console;
pub(crate) mod disk;
mod faults;
mod http;
mod lifecycle;
mod light;
#[allow(
    dead_code,
    reason = "the cloud opens this backend when it offers a choice"
)]
pub(crate) mod machines;
mod networks;
mod records;
mod region;
mod requests;
mod tls;
pub mod userdata;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use backends::{BackendChoice, can_run_machines, remove_machines};
pub use light::Tempo;
use region::Region;

/// Why the cloud cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The directory cannot be used.
    #[error("the cloud's directory {0} cannot be used")]
    Dir(PathBuf, #[source] io::Error),
    /// Another process has the directory.
    #[error(
        "the cloud's directory {0} is in use by another process; stop that one or choose another --dir"
    )]
    Busy(PathBuf),
    /// The address cannot be listened on.
    #[error("the cloud cannot listen on {0}; choose another --listen")]
    Listen(SocketAddr, #[source] io::Error),
    /// The backend that was chosen cannot be had.
    #[error("{0}; choose --backend light, or change that")]
    Backend(String),
    /// No range of loopback addresses is free.
    #[error("no loopback network 127.64.0.0 to 127.250.0.0 is free for the instances")]
    NoAddresses,
}

/// How to run a cloud.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept; made when missing.
    pub dir: PathBuf,
    /// Where to listen; without it on a free loopback port, the same as last time when the directory has been used before.
    pub listen: Option<SocketAddr>,
    /// The token that clients must present; without it the directory's, made at its first use.
    pub token: Option<String>,
    /// What runs instances when nobody chose. Default: `light`.
    pub backend: BackendChoice,
    /// The program that runs the first process of real machines as `PROGRAM local machine`; without it this one.
    pub program: Option<PathBuf>,
    /// How long it takes until an instance runs. Default 200 ms.
    pub provision_delay: Duration,
    /// How fast things happen inside light workload clusters.
    pub tempo: Tempo,
}

impl Options {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: None,
            token: None,
            backend: BackendChoice::Light,
            program: None,
            provision_delay: Duration::from_millis(200),
            tempo: Tempo::default(),
        }
    }
}

/// What survives a restart beside the resources.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    token: String,
    port: u16,
    second_octet: u8,
}

/// What clients need to know; the content of `cloud.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `http://host:port`.
    pub endpoint: String,
    /// The bearer token.
    pub token: String,
}

/// A running cloud. Dropping it stops it; what it holds stays on disk.
pub struct Cloud {
    access: Access,
    region: Arc<Region>,
    server: JoinHandle<()>,
    _lock: std::fs::File,
    _range: TcpListener,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud")
            .field("endpoint", &self.access.endpoint)
            .finish_non_exhaustive()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
        self.region.shut_down();
    }
}

impl Cloud {
    /// Starts a cloud, with everything that its directory holds. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used or is in use, or an address cannot be listened on.
    pub async fn start(options: Options) -> Result<Self, CloudError> {
        let dir = options.dir.clone();
        let bad_dir = |error| CloudError::Dir(dir.clone(), error);
        std::fs::create_dir_all(&dir).map_err(bad_dir)?;
        let lock = lock(&options)?;
        raise_file_limit();
        let ready = dir.join("cloud.json");
        disk::remove(&ready).map_err(bad_dir)?;
        let path = dir.join("identity.json");
        let mut identity: Identity = disk::load(&path).map_err(bad_dir)?.unwrap_or_default();
        if let Some(token) = &options.token {
            identity.token.clone_from(token);
        } else if identity.token.is_empty() {
            identity.token = light_token();
        }
        let listener = listen(&options, identity.port).await?;
        let address = listener.local_addr().map_err(bad_dir)?;
        identity.port = address.port();
        let (second_octet, range) = reserve_range(identity.second_octet).await?;
        identity.second_octet = second_octet;
        disk::save(&path, &identity).map_err(bad_dir)?;
        let opened = tokio::task::spawn_blocking(move || Region::open(&options, second_octet));
        let region = opened
            .await
            .unwrap_or_else(|error| Err(bad_dir(io::Error::other(error))))?;
        lifecycle::resume(&region);
        let server = tokio::spawn(http::run(
            listener,
            Arc::clone(&region),
            identity.token.clone(),
        ));
        let access = Access {
            endpoint: format!("http://{address}"),
            token: identity.token,
        };
        disk::save(&ready, &access).map_err(bad_dir)?;
        Ok(Self {
            access,
            region,
            server,
            _lock: lock,
            _range: range,
        })
    }

    /// Endpoint and token.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Stops everything and waits until the ports are free; what the cloud holds stays on disk.
    pub async fn stop(mut self) {
        self.server.abort();
        self.region.shut_down();
        if let Err(error) = (&mut self.server).await
            && !error.is_cancelled()
        {
            tracing::warn!(%error, "the cloud's server had failed");
        }
        self.region.settled().await;
    }
}

fn light_token() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>())
}

fn lock(options: &Options) -> Result<std::fs::File, CloudError> {
    let path = options.dir.join("lock");
    let open = disk::private(std::fs::OpenOptions::new().write(true).create(true)).open(&path);
    let file = open.map_err(|error| CloudError::Dir(options.dir.clone(), error))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| CloudError::Busy(options.dir.clone()))?;
    Ok(file)
}

/// Every connection through a load balancer takes several descriptors: allow as many as the system does.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Binds a port of an address outside the range that the system hands out to clients, so that it is free again after a restart.
pub(crate) fn free_port(host: IpAddr) -> io::Result<(std::net::TcpListener, u16)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..500 {
        let port = rand::random_range(20_000..32_000);
        match std::net::TcpListener::bind((host, port)) {
            Ok(listener) => return Ok((listener, port)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn listen(options: &Options, port_before: u16) -> Result<TcpListener, CloudError> {
    if let Some(address) = options.listen {
        return TcpListener::bind(address)
            .await
            .map_err(|error| CloudError::Listen(address, error));
    }
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port_before);
    if port_before != 0 {
        return TcpListener::bind(address)
            .await
            .map_err(|error| CloudError::Listen(address, error));
    }
    let made = free_port(Ipv4Addr::LOCALHOST.into()).and_then(|(listener, _)| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    made.map_err(|error| CloudError::Listen(address, error))
}

/// Takes 127.x.0.0/16 for this cloud's instances by listening on its first address: clouds side by side get different ranges.
async fn reserve_range(before: u8) -> Result<(u8, TcpListener), CloudError> {
    const GUARD_PORT: u16 = 6442;
    let first: u8 = rand::random_range(64..=250);
    let candidates: Vec<u8> = if before == 0 {
        (first..=250).chain(64..first).collect()
    } else {
        vec![before]
    };
    for octet in candidates {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::new(127, octet, 0, 1), GUARD_PORT)).await
        {
            return Ok((octet, listener));
        }
    }
    Err(CloudError::NoAddresses)
}

/// Arguments of `capstan local cloud`.
#[derive(Debug, Clone, clap::Args)]
pub struct CloudArgs {
    /// Directory in which the cloud keeps everything; made when missing.
    #[arg(long)]
    pub dir: PathBuf,
    /// Address to listen on; a free loopback port when absent, the same as last time for a directory that was used before.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// What runs instances when nobody chose.
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendChoice,
    /// How long it takes until an instance runs, in milliseconds.
    #[arg(long, default_value_t = 200)]
    pub provision_delay_ms: u64,
    /// How long a Node's kubelet may be silent before the Node counts as unreachable, in seconds.
    #[arg(long, default_value_t = 40)]
    pub node_grace_s: u64,
}

/// Runs a cloud until the process is told to end (interrupt or terminate).
///
/// # Errors
///
/// As [`Cloud::start`], and when signals cannot be received.
pub async fn serve(args: CloudArgs) -> anyhow::Result<()> {
    let mut options = Options::new(args.dir);
    options.listen = args.listen;
    options.backend = args.backend;
    options.provision_delay = Duration::from_millis(args.provision_delay_ms);
    options.tempo.node_grace = Duration::from_secs(args.node_grace_s);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let cloud = Cloud::start(options).await?;
    tracing::info!(
        endpoint = cloud.access().endpoint,
        "the local cloud is ready"
    );
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    cloud.stop().await;
    Ok(())
}
