//! What a backend of the cloud must do: run machines. `light` is the one that is there.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::console::Console;
use super::userdata::MachineFacts;

/// A machine as a backend sees it.
#[derive(Debug, Clone)]
pub(crate) struct MachineSpec {
    /// Identity and place.
    pub(crate) facts: MachineFacts,
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

/// What a backend has, for the status page.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Workload clusters.
    pub(crate) clusters: usize,
    /// Nodes in all of them.
    pub(crate) nodes: usize,
}

/// Runs machines. All methods may be called again for a machine in the same state, and after a restart of the process.
pub(crate) trait Backend: Send + Sync {
    /// The first boot: runs the user data to its end.
    fn bootstrap(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, BootOutcome>;

    /// A boot of a machine whose user data has run: what it was, it is again.
    fn boot(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, Result<(), String>>;

    /// Turns a machine off; its disk stays.
    fn stop(&self, instance: &str);

    /// Turns a machine off and deletes its disk.
    fn delete(&self, instance: &str) -> io::Result<()>;

    /// Stops everything because the process ends; disks stay.
    fn shut_down(&self);

    /// What there is.
    fn counts(&self) -> Counts;
}

/// Where a backend keeps its files.
#[derive(Debug, Clone)]
pub(crate) struct BackendDir(pub(crate) PathBuf);
