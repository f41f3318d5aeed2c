//! The processes that PID 1 has started, and those that it inherited: every one that ends is taken note of, and whoever waits for it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

/// How long to wait before looking again when there is no process at all.
const IDLE: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ending {
    fn of(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }

    /// Whether it did what it should.
    pub(super) fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

#[derive(Default)]
struct Known {
    /// Started here, and somebody will ask.
    awaited: BTreeSet<u32>,
    /// Ended, and nobody has asked yet.
    ended: BTreeMap<u32, Ending>,
}

/// All child processes.
#[derive(Default)]
pub(super) struct Children {
    known: Mutex<Known>,
    changed: Condvar,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process, for which [`Children::wait`] must be called. The lock is held meanwhile: nothing is reaped that the standard library still waits for,
    /// and nothing that is not noted yet.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<u32> {
        let mut known = self.lock();
        let pid = command.spawn()?.id();
        known.awaited.insert(pid);
        Ok(pid)
    }

    /// Waits until it has ended.
    pub(super) fn wait(&self, pid: u32) -> Ending {
        let mut known = self.lock();
        loop {
            if let Some(ending) = known.ended.remove(&pid) {
                return ending;
            }
            known = self
                .changed
                .wait(known)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts a process and waits until it has ended.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<Ending> {
        let pid = self.spawn(command)?;
        Ok(self.wait(pid))
    }

    /// Takes note of every process that ends, for ever.
    pub(super) fn reap(&self) {
        loop {
            // Looks, and leaves it there: what a failing start waits for must still be there when it does.
            if rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
                .is_err()
            {
                std::thread::sleep(IDLE);
                continue;
            }
            let mut known = self.lock();
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default();
                if known.awaited.remove(&pid) {
                    known.ended.insert(pid, Ending::of(status));
                }
            }
            self.changed.notify_all();
        }
    }
}

/// Sends a signal to a process of this machine; that it has ended is no error.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = crate::process::raw(pid) {
        let _: rustix::io::Result<()> = rustix::process::kill_process(pid, signal);
    }
}

/// All processes of this machine but PID 1.
fn others() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
        .collect()
}

/// Asks every process of this machine to end and gives them a moment; what is left ends with PID 1.
pub(super) fn end_all(patience: Duration) {
    for pid in others() {
        signal(pid, Signal::TERM);
    }
    let start = Instant::now();
    while !others().is_empty() && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
}
