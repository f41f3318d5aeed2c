//! A real Kubernetes control plane on this machine: etcd, kube-apiserver and
//! kube-controller-manager (garbage collection, namespaces, role aggregation), in a directory of its own, on a
//! free port, gone when its owner is.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::sync::OnceCell;

use crate::audit::AuditLog;
use crate::pki::{self, Authority};
use crate::port;
use crate::process::{self, Record, Spec};
use crate::progress::Progress;
use crate::toolchain::{self, Toolchain};

mod client;
mod component;
mod kubeconfig;
pub(crate) mod watchdog;

pub use client::{Client, Error as ClientError};
use component::Layout;
pub(crate) use kubeconfig::write_private;
use watchdog::Watchdog;

/// How long etcd may take until it listens. It takes a fraction of a second.
const ETCD_PATIENCE: Duration = Duration::from_secs(60);
/// How long the API server may take until it is ready. It takes 4 to 5 seconds on a quiet machine.
const APISERVER_PATIENCE: Duration = Duration::from_secs(240);
/// How often a free port is looked for again after somebody else took the last one.
const PORT_ATTEMPTS: u32 = 5;
/// How many lines of a failed component's log go into the error.
const LOG_LINES: usize = 12;
/// Below this much free space nothing is started.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Why there is no control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binaries are missing and could not be built.
    #[error("could not get the control plane's binaries")]
    Toolchain(#[source] toolchain::Error),
    /// The directory could not be made or written.
    #[error("could not prepare the directory {dir}", dir = dir.display())]
    Directory {
        /// The control plane's directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is too little space to start.
    #[error(
        "the disk that holds {dir} has only {free_mib} MiB free; free some space (at least 256 MiB) \
         or choose another place with --dir",
        dir = dir.display()
    )]
    DiskFull {
        /// The control plane's directory.
        dir: PathBuf,
        /// What is left, in MiB.
        free_mib: u64,
    },
    /// The port that was asked for is in use.
    #[error(
        "port {port} is already in use; stop what listens there or choose another with --port \
         (without --port a free one is found)"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A process could not be started or stopped.
    #[error("could not run a component of the control plane")]
    Process(#[source] process::Error),
    /// A certificate could not be made.
    #[error("could not make the control plane's certificates")]
    Pki(#[source] pki::Error),
    /// The client that asks for readiness could not be made.
    #[error("could not make a client for the control plane")]
    Client(#[source] ClientError),
    /// A component ended before it was ready.
    #[error("{component} ended before it was ready ({exit}); the last lines of its log:\n{log}")]
    Died {
        /// Which one.
        component: String,
        /// How it ended.
        exit: String,
        /// The end of its log.
        log: String,
    },
    /// A component runs but does not become ready.
    #[error("{component} was not ready after {waited_s} s; the last lines of its log:\n{log}")]
    NotReady {
        /// Which one.
        component: String,
        /// How long it was waited for.
        waited_s: u64,
        /// The end of its log.
        log: String,
    },
}

/// How to start a control plane. The default suits tests: own temporary directory, gone on drop,
/// nothing durable, every request counted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory, made when absent and removed at the end; a fresh temporary one by default.
    pub dir: Option<PathBuf>,
    /// Whether its processes outlive this value and this process.
    pub persistent: bool,
    /// Whether etcd makes its writes durable. Off makes tests faster; never off for a benchmark.
    pub fsync: bool,
    /// Whether requests are logged so that they can be counted.
    pub audit: bool,
    /// The API server's port; a free one by default.
    pub port: Option<u16>,
    /// Who hears about progress.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        let progress = Progress::default();
        Self {
            dir: None,
            persistent: false,
            fsync: false,
            audit: true,
            port: None,
            progress,
        }
    }
}

/// A running control plane. Dropping it stops its processes and removes its directory, unless it
/// is persistent.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped first, by `drop` below: it kills the group, so that the children can be collected.
    watchdog: Option<Watchdog>,
    children: Vec<Child>,
    records: Vec<Record>,
    dir: PathBuf,
    port: u16,
    authority: Authority,
    tools: Toolchain,
    has_audit: bool,
}

impl ControlPlane {
    /// Starts one and waits until it is ready. After an error nothing is left behind.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let dir = match &options.dir {
            Some(dir) => std::path::absolute(dir).map_err(|source| Error::Directory {
                dir: dir.clone(),
                source,
            })?,
            None => temporary_dir(),
        };
        make_dir(&dir)?;
        let watchdog = Watchdog::start(Some(&dir), None).map_err(|source| Error::Directory {
            dir: dir.clone(),
            source,
        })?;
        let mut plane = Box::pin(Self::start_in(&options, dir.clone(), watchdog.group())).await?;
        if options.persistent {
            watchdog
                .keep()
                .map_err(|source| Error::Directory { dir, source })?;
        } else {
            plane.watchdog = Some(watchdog);
        }
        Ok(plane)
    }

    /// Starts one for a test: on a free port, in a temporary directory, with request counting.
    pub async fn start_for_tests() -> Result<Self, Error> {
        Self::start(Options::default()).await
    }

    /// Starts one in `dir`, which exists, under a watchdog that belongs to the caller: its
    /// processes join `group` and outlive the returned value.
    pub(crate) async fn start_in(
        options: &Options,
        dir: PathBuf,
        group: Pid,
    ) -> Result<Self, Error> {
        check_space(&dir)?;
        if let Some(port) = options.port.filter(|port| !port::is_free(*port)) {
            return Err(Error::PortTaken { port });
        }
        let begun = Instant::now();
        let tools = toolchain::ensure(&options.progress)
            .await
            .map_err(Error::Toolchain)?;
        let authority = Authority::new("capstan-local").map_err(Error::Pki)?;
        component::write_files(&dir, &authority)?;
        let mut plane = Self {
            watchdog: None,
            children: Vec::new(),
            records: Vec::new(),
            dir,
            port: 0,
            authority,
            tools,
            has_audit: options.audit,
        };
        if let Err(failure) = plane.launch(options, group).await {
            plane.kill();
            return Err(failure);
        }
        let took_s = begun.elapsed().as_secs_f64();
        options
            .progress
            .say(format!("the control plane is ready after {took_s:.1} s"));
        Ok(plane)
    }

    async fn launch(&mut self, options: &Options, group: Pid) -> Result<(), Error> {
        options.progress.say("starting etcd");
        let layout = Layout {
            dir: &self.dir.clone(),
            tools: &self.tools.clone(),
            fsync: options.fsync,
            audit: options.audit,
        };
        self.spawn(&layout.etcd(), group)?;
        let dir = self.dir.clone();
        self.wait_ready("etcd", ETCD_PATIENCE, async || {
            component::etcd_listens(&dir)
        })
        .await?;
        self.launch_apiserver(&layout, options, group).await?;
        options.progress.say("starting kube-controller-manager");
        component::write_controller_manager_kubeconfig(&self.dir, &self.url(), &self.authority)?;
        self.spawn(&layout.controller_manager(), group)?;
        self.write_kubeconfig("admin", "admin", &["system:masters"])?;
        Ok(())
    }

    async fn launch_apiserver(
        &mut self,
        layout: &Layout<'_>,
        options: &Options,
        group: Pid,
    ) -> Result<(), Error> {
        let mut attempt = 0_u32;
        loop {
            attempt = attempt.saturating_add(1);
            self.port = match options.port {
                Some(port) => port,
                None => port::free().map_err(|source| Error::Directory {
                    dir: self.dir.clone(),
                    source,
                })?,
            };
            options
                .progress
                .say(format!("starting kube-apiserver on port {}", self.port));
            let spec = layout.apiserver(self.port);
            self.spawn(&spec, group)?;
            let client = self.client("admin", &["system:masters"])?;
            let ready = async || client.is_ok("/readyz").await;
            match self
                .wait_ready("kube-apiserver", APISERVER_PATIENCE, ready)
                .await
            {
                Err(Error::Died { log, .. }) if log.contains("address already in use") => {
                    if let Some(port) = options.port {
                        return Err(Error::PortTaken { port });
                    }
                    if attempt >= PORT_ATTEMPTS {
                        return Err(Error::PortTaken { port: self.port });
                    }
                    options
                        .progress
                        .say("somebody else took the port; trying another");
                    self.records.pop();
                    self.children.pop();
                }
                other => return other,
            }
        }
    }

    fn spawn(&mut self, spec: &Spec, group: Pid) -> Result<(), Error> {
        let (child, record) = process::spawn(spec, Some(group)).map_err(Error::Process)?;
        self.children.push(child);
        self.records.push(record);
        Ok(())
    }

    /// Polls `is_ready` until it says yes, any component ends, or patience does.
    async fn wait_ready(
        &mut self,
        component: &str,
        patience: Duration,
        is_ready: impl AsyncFn() -> bool,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let log_of = |record: &Record| process::log_tail(&record.log, LOG_LINES);
        loop {
            for (child, record) in self.children.iter_mut().zip(&self.records) {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(Error::Died {
                        component: record.name.clone(),
                        exit: process::describe_exit(status),
                        log: log_of(record),
                    });
                }
            }
            if is_ready().await {
                return Ok(());
            }
            if begun.elapsed() > patience {
                let log = self.records.last().map(log_of).unwrap_or_default();
                let component = component.to_owned();
                return Err(Error::NotReady {
                    component,
                    waited_s: patience.as_secs(),
                    log,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its directory: logs, certificates, etcd's data, kubeconfig files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the API server listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The API server's address, `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificate of the authority that signed the API server's, PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.certificate_pem()
    }

    /// The path of a kubeconfig that may do everything (user `admin`).
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Writes a kubeconfig with a client certificate for this user, in at most two groups, and
    /// returns its path. Without RBAC rules for them they may do next to nothing.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf, Error> {
        let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        self.write_kubeconfig(&user.chars().map(safe).collect::<String>(), user, groups)
    }

    /// A kubeconfig's text for this user, in at most two groups.
    pub fn kubeconfig_text(&self, user: &str, groups: &[&str]) -> Result<String, Error> {
        let pair = self.authority.client(user, groups).map_err(Error::Pki)?;
        Ok(kubeconfig::render(&self.url(), &self.ca_pem(), user, &pair))
    }

    fn write_kubeconfig(&self, name: &str, user: &str, groups: &[&str]) -> Result<PathBuf, Error> {
        let path = self.dir.join(format!("{name}.kubeconfig"));
        kubeconfig::write_private(&path, &self.kubeconfig_text(user, groups)?).map_err(
            |source| Error::Directory {
                dir: self.dir.clone(),
                source,
            },
        )?;
        Ok(path)
    }

    /// A client that speaks as this user, in at most two groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Client, Error> {
        let pair = self.authority.client(user, groups).map_err(Error::Pki)?;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.port));
        Client::tls(address, &self.ca_pem(), &pair).map_err(Error::Client)
    }

    /// The log of requests, when it was asked for.
    pub fn audit(&self) -> Option<AuditLog> {
        self.has_audit
            .then(|| AuditLog::new(self.dir.join("audit.log")))
    }

    /// etcd, kube-apiserver and kube-controller-manager, in starting order: for stopping them
    /// later and for [`process::usage`].
    pub fn processes(&self) -> &[Record] {
        &self.records
    }

    /// The binaries it runs.
    pub fn tools(&self) -> &Toolchain {
        &self.tools
    }

    fn kill(&mut self) {
        for child in &mut self.children {
            // Fails only for a child that has already ended.
            let _: io::Result<()> = child.kill();
            let _: io::Result<_> = child.wait();
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            drop(watchdog);
            self.kill();
        }
    }
}

/// One control plane for all tests of this test binary, started by the first that asks and gone
/// with the process. Use a namespace of your own; take [`ControlPlane::start_for_tests`] where
/// counts or cluster-wide objects matter.
pub async fn shared() -> Result<&'static ControlPlane, Error> {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_try_init(ControlPlane::start_for_tests).await
}

fn temporary_dir() -> PathBuf {
    let name = format!(
        "capstan-{}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    );
    std::env::temp_dir().join(name)
}

/// Makes the directory, readable by its owner only; it must be empty, because it will be removed.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;

    let make = || -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        if std::fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                "it is not empty, and it would be removed at the end",
            ));
        }
        Ok(())
    };
    make().map_err(|source| Error::Directory {
        dir: dir.to_owned(),
        source,
    })
}

fn check_space(dir: &Path) -> Result<(), Error> {
    // A file system that does not answer is no reason not to try.
    let Ok(space) = rustix::fs::statvfs(dir) else {
        return Ok(());
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < FREE_BYTES_MIN {
        return Err(Error::DiskFull {
            dir: dir.to_owned(),
            free_mib: free >> 20,
        });
    }
    Ok(())
}
