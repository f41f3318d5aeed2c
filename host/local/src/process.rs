//! Child processes that may outlive the command that started them: spawned into their own process
//! group with a log file, recorded by pid and start time, stopped without ever hitting a stranger.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

mod inspect;

pub use inspect::{Usage, usage};
pub(crate) use inspect::{children_cpu, took};

/// How long a process may take to be gone after SIGKILL: the kernel may have to finish writing for it.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Why a process could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No argument, so nothing to run.
    #[error("{name} has no command to run")]
    Empty {
        /// The process's name.
        name: String,
    },
    /// The program could not be run.
    #[error("could not run {program} ({name})")]
    Spawn {
        /// The process's name.
        name: String,
        /// The program asked for.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log file could not be opened.
    #[error("could not open the log file {path} of {name}", path = path.display())]
    Log {
        /// The process's name.
        name: String,
        /// The log file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A signal was refused.
    #[error("could not stop {name} (pid {pid})")]
    Stop {
        /// The process's name.
        name: String,
        /// Its process id.
        pid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It survived SIGKILL for longer than anybody waits.
    #[error("{name} (pid {pid}) is still there after SIGKILL; look at it with `ps -p {pid}`")]
    Immortal {
        /// The process's name.
        name: String,
        /// Its process id.
        pid: u32,
    },
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Short name, unique in its directory: `etcd`, `cloud`, `host`.
    pub name: String,
    /// Program and arguments. No shell is involved.
    pub argv: Vec<String>,
    /// Working directory; the caller's when absent.
    pub cwd: Option<PathBuf>,
    /// Environment variables added to the caller's.
    pub env: Vec<(String, String)>,
    /// Where standard output and error go, appended; created 0600.
    pub log: PathBuf,
    /// TCP ports that it will serve on, for display.
    pub ports: Vec<u16>,
}

/// A started process, as recorded on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The [`Spec::name`].
    pub name: String,
    /// Process id, meaningful only together with `identity`.
    pub pid: u32,
    /// Boot and start time of the process as the system reports them: what tells it from a later
    /// process with the same id.
    pub identity: String,
    /// When it was started.
    pub started_at: jiff::Timestamp,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its log file.
    pub log: PathBuf,
    /// TCP ports that it serves on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// Starts a process with its output in its log file and no input. It joins process group `group`,
/// or leads its own, so that Ctrl-C in the caller's terminal does not reach it.
pub fn spawn(spec: &Spec, group: Option<Pid>) -> Result<(Child, Record), Error> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let name = spec.name.clone();
    let Some((program, arguments)) = spec.argv.split_first() else {
        return Err(Error::Empty { name });
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&spec.log);
    let files = log.and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) = files.map_err(|source| Error::Log {
        name: name.clone(),
        path: spec.log.clone(),
        source,
    })?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(spec.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(group.map_or(0, |group| group.as_raw_nonzero().get()));
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    let child = command.spawn().map_err(|source| Error::Spawn {
        name,
        program: program.clone(),
        source,
    })?;
    let record = Record {
        name: spec.name.clone(),
        pid: child.id(),
        // Not reaped yet, so the id is still this child's even if it has already ended.
        identity: inspect::identity(child.id()).unwrap_or_default(),
        started_at: jiff::Timestamp::now(),
        argv: spec.argv.clone(),
        log: spec.log.clone(),
        ports: spec.ports.clone(),
    };
    Ok((child, record))
}

/// A record of a process that somebody else started; nothing when there is none of this number.
pub(crate) fn recognise(name: &str, pid: u32, log: &Path) -> Option<Record> {
    Some(Record {
        name: name.to_owned(),
        pid,
        identity: inspect::identity(pid)?,
        started_at: jiff::Timestamp::now(),
        argv: Vec::new(),
        log: log.to_owned(),
        ports: Vec::new(),
    })
}

/// Whether the recorded process, and not another with the same id, is running.
pub fn is_alive(record: &Record) -> bool {
    !record.identity.is_empty()
        && inspect::identity(record.pid).is_some_and(|found| found == record.identity)
        && !inspect::is_zombie(record.pid)
}

/// Stops the recorded process: SIGTERM, then SIGKILL after `patience`. Returns whether there was
/// anything to stop. A process that only shares the id is left alone.
pub fn stop(record: &Record, patience: Duration) -> Result<bool, Error> {
    let failed = |source: rustix::io::Errno| Error::Stop {
        name: record.name.clone(),
        pid: record.pid,
        source: source.into(),
    };
    if !signal(record, Signal::TERM).map_err(failed)? {
        return Ok(false);
    }
    if wait_gone(record, patience) {
        return Ok(true);
    }
    kill(record).map(|_| true)
}

/// Kills the recorded process without waiting. Returns whether there was anything to kill.
pub(crate) fn send_kill(record: &Record) -> Result<bool, Error> {
    signal(record, Signal::KILL).map_err(|source| Error::Stop {
        name: record.name.clone(),
        pid: record.pid,
        source: source.into(),
    })
}

/// Kills the recorded process and waits until it is gone. Returns whether there was anything to kill.
pub(crate) fn kill(record: &Record) -> Result<bool, Error> {
    let sent = send_kill(record)?;
    if !sent || wait_gone(record, KILL_PATIENCE) {
        return Ok(sent);
    }
    Err(Error::Immortal {
        name: record.name.clone(),
        pid: record.pid,
    })
}

/// Polls until the process is gone; a detached process is nobody's child, so there is no event.
fn wait_gone(record: &Record, patience: Duration) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    while is_alive(record) {
        if start.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(Duration::from_millis(100));
    }
    true
}

/// Sends `signal` if the process is the recorded one. `Ok(false)` when it is not there any more.
#[cfg(target_os = "linux")]
fn signal(record: &Record, signal: Signal) -> rustix::io::Result<bool> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

    let Some(pid) = raw(record.pid) else {
        return Ok(false);
    };
    // The descriptor pins the process: if it is the recorded one after opening, it stays so.
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(other) => return Err(other),
    };
    if !is_alive(record) {
        return Ok(false);
    }
    match pidfd_send_signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Sends `signal` if the process is the recorded one. `Ok(false)` when it is not there any more.
#[cfg(not(target_os = "linux"))]
fn signal(record: &Record, signal: Signal) -> rustix::io::Result<bool> {
    let Some(pid) = raw(record.pid) else {
        return Ok(false);
    };
    if !is_alive(record) {
        return Ok(false);
    }
    match rustix::process::kill_process(pid, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The typed form of a process id.
pub(crate) fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// How a process ended, in words: `exit code 1`, `killed by signal 9`.
pub fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// The last `lines` lines of a log file, reading at most its last 64 KiB; words to that effect
/// when there are none.
pub fn log_tail(path: &Path, lines: usize) -> String {
    const BYTES_MAX: u64 = 64 * 1024;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let mut tail: Vec<&str> = text.lines().rev().take(lines).collect();
    tail.reverse();
    if tail.is_empty() {
        "(nothing)".to_owned()
    } else {
        tail.join("\n")
    }
}

#[cfg(test)]
mod tests;
