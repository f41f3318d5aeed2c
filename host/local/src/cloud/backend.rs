//! What a backend of the cloud must do: run machines in networks. `light` is the one that is always there.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;

use super::console::Console;
use super::userdata::MachineFacts;

/// A network as a backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkSpec {
    /// Identity.
    pub(crate) id: String,
    /// Name, for people.
    pub(crate) name: String,
    /// Zones, in order.
    pub(crate) zones: Vec<String>,
}

/// A machine as a backend sees it.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "a backend need not look at everything")]
pub(crate) struct MachineSpec {
    /// Identity and place.
    pub(crate) facts: MachineFacts,
    /// Its network.
    pub(crate) network: NetworkSpec,
    /// Kubernetes version of the image.
    pub(crate) version: String,
    /// Instance type.
    pub(crate) type_: String,
    /// CPUs.
    pub(crate) cpu: u32,
    /// Memory.
    pub(crate) memory_mib: u32,
    /// User data, decoded.
    pub(crate) user_data: Arc<Vec<u8>>,
    /// Whether the distribution's own cloud-init is to run the user data, instead of the backend's interpreter.
    pub(crate) cloud_init: bool,
    /// From readiness of its Node until its kubelet falls silent, by a fault.
    pub(crate) silent_after_ms: Option<u64>,
}

/// How a machine's bootstrap went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BootOutcome {
    /// The user data did what it should.
    Done(String),
    /// It did not; the console says more.
    Failed(String),
}

/// What can be done to a machine to see what becomes of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything in it ends at once, without a word; the disk stays.
    Kill,
    /// It hangs: nothing in it runs, connections stay open.
    Freeze,
    /// It goes on.
    Thaw,
    /// Nothing gets in or out.
    LinkDown,
    /// It does again.
    LinkUp,
    /// Its disk is full.
    FillDisk,
    /// It has room again.
    FreeDisk,
    /// Its kubelet ends; what it had started goes on.
    StopKubelet,
    /// It runs again.
    StartKubelet,
    /// Its etcd ends; the API server beside it goes on.
    StopEtcd,
    /// It runs again.
    StartEtcd,
    /// Its API server ends; the etcd beside it goes on.
    StopApiServer,
    /// It runs again.
    StartApiServer,
    /// Its etcd does not reach the other members; everybody else is reached, and reaches it.
    PeersDown,
    /// It reaches them again.
    PeersUp,
    /// What its etcd and its API server do takes seconds.
    SlowDisk,
    /// As quick as ever.
    QuickDisk,
    /// Its etcd has a certificate of another authority.
    WrongCertificate,
    /// Its own one again.
    RightCertificate,
    /// Its clock is years behind.
    WrongClock,
    /// It is right again.
    RightClock,
    /// Learners of its etcd cluster get too little to ever catch up.
    StarveLearners,
    /// They get what they need again.
    FeedLearners,
}

impl Fault {
    /// All of them, with the names that the API and the command line use.
    pub(crate) const ALL: [(&'static str, Self); 23] = [
        ("kill", Self::Kill),
        ("freeze", Self::Freeze),
        ("thaw", Self::Thaw),
        ("link-down", Self::LinkDown),
        ("link-up", Self::LinkUp),
        ("fill-disk", Self::FillDisk),
        ("free-disk", Self::FreeDisk),
        ("stop-kubelet", Self::StopKubelet),
        ("start-kubelet", Self::StartKubelet),
        ("stop-etcd", Self::StopEtcd),
        ("start-etcd", Self::StartEtcd),
        ("stop-api-server", Self::StopApiServer),
        ("start-api-server", Self::StartApiServer),
        ("peers-down", Self::PeersDown),
        ("peers-up", Self::PeersUp),
        ("slow-disk", Self::SlowDisk),
        ("quick-disk", Self::QuickDisk),
        ("wrong-certificate", Self::WrongCertificate),
        ("right-certificate", Self::RightCertificate),
        ("wrong-clock", Self::WrongClock),
        ("right-clock", Self::RightClock),
        ("starve-learners", Self::StarveLearners),
        ("feed-learners", Self::FeedLearners),
    ];

    /// The fault of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, fault)| fault)
    }
}

/// What a command in a machine came to; both outputs are bounded by the backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExecOutput {
    /// Exit code; 128 and the signal's number when a signal ended it.
    pub(crate) code: i32,
    /// What it wrote.
    pub(crate) stdout: Vec<u8>,
    /// What it complained.
    pub(crate) stderr: Vec<u8>,
}

/// A removal of a member that an etcd refused because it would have no majority without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EtcdRefusal {
    /// Name of the client that asked for it.
    pub(crate) asker: String,
    /// Name of the member.
    pub(crate) member: String,
    /// How often that client was told who the members are, since a member last stopped or began to run. From 2 on it could have known.
    pub(crate) lists: u32,
}

/// What a backend has, for the status page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Workload clusters.
    pub(crate) clusters: usize,
    /// Nodes in all of them.
    pub(crate) nodes: usize,
    /// What their etcds refused.
    pub(crate) etcd_refusals: Vec<EtcdRefusal>,
}

/// Runs machines in networks.
///
/// All methods may be called again for a machine or a network in the same state, and after a restart of the process. For one machine, `bootstrap`,
/// `boot`, `stop` and `delete` are called one after the other, but a call may be dropped in the middle and followed by another one: what it
/// left must not be in the way. `ensure_network` may be called for one network several times at once.
pub(crate) trait Backend: Send + Sync {
    /// Makes a network ready, or finds it so; answers the address of this host that machines in it reach, on which load balancers listen.
    fn ensure_network(&self, network: NetworkSpec) -> BoxFuture<'_, io::Result<IpAddr>>;

    /// Removes a network in which nothing is; "not there" is success.
    fn delete_network(&self, id: &str) -> BoxFuture<'_, io::Result<()>>;

    /// Whether machines with this Kubernetes version can be made; otherwise what to do for that.
    fn check_image(&self, version: &str) -> Result<(), String>;

    /// An address for a new machine that is none of `taken`, the addresses of all instances of the cloud. Called with the cloud locked, and never blocks.
    fn address(
        &self,
        network: &NetworkSpec,
        zone: &str,
        taken: &BTreeSet<IpAddr>,
    ) -> io::Result<IpAddr>;

    /// The first boot: runs the user data to its end. For a machine that already runs (the process was restarted): waits for that end.
    fn bootstrap(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, BootOutcome>;

    /// A boot of a machine whose user data has run: what it was, it is again. Success for a machine that runs.
    fn boot(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, Result<(), String>>;

    /// Resolves, with the reason, when a machine that is on goes off without having been told.
    fn until_off(&self, instance: &str) -> BoxFuture<'_, String>;

    /// Turns a machine off in order; its disk stays.
    fn stop(&self, instance: &str) -> BoxFuture<'_, io::Result<()>>;

    /// Removes a machine, on or off, with its disk; also what was never started. "Not there" is success.
    fn delete(&self, instance: &str) -> BoxFuture<'_, io::Result<()>>;

    /// Does this to a machine; [`io::ErrorKind::Unsupported`] where the backend cannot play it.
    fn fault(&self, instance: &str, fault: Fault) -> BoxFuture<'_, io::Result<()>>;

    /// Runs a command inside, for debugging.
    fn exec(&self, instance: &str, argv: Vec<String>) -> BoxFuture<'_, io::Result<ExecOutput>>;

    /// The last part of the log of a unit (`kubelet`, `containerd`).
    fn unit_log(&self, instance: &str, unit: &str) -> io::Result<Vec<u8>>;

    /// Whether load balancers judge their targets by `GET /readyz` over TLS; otherwise a target is good that accepts a connection.
    fn checks_readiness(&self) -> bool;

    /// The process ends: stops what cannot outlive it; disks stay.
    fn shut_down(&self);

    /// What there is.
    fn counts(&self) -> Counts;
}

/// Where a backend keeps its files.
#[derive(Debug, Clone)]
pub(crate) struct BackendDir(pub(crate) PathBuf);
