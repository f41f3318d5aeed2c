//! Processes beside the control plane: the cloud, the host, anything given to
//! `capstan local start`. Each has a log file, a record and a way to tell that it is ready.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Pid;

use super::{StartArgs, StopArgs};
use crate::control_plane::Client;
use crate::control_plane::watchdog::Watchdog;
use crate::out;
use crate::process::{self, Record, Spec};
use crate::progress::Progress;
use crate::state::{Home, Phase, State};

/// How long a process may take to end after SIGTERM.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How to tell that a process is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It has been started.
    Started,
    /// This file exists. One that an earlier process left is removed before the start.
    File(PathBuf),
    /// `GET path` on this loopback port answers 200.
    Http {
        /// The port.
        port: u16,
        /// The path, with its slash.
        path: String,
    },
}

/// A process to start beside the control plane.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Short name, unique in the directory; its output goes to `<name>.log` there.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How to tell that it is ready.
    pub ready: Ready,
    /// How long that may take.
    pub patience: Duration,
}

/// Starts `extra` and waits until it is ready. After an error it is not running.
pub(super) async fn launch(
    extra: &Extra,
    dir: &Path,
    group: Option<Pid>,
) -> anyhow::Result<Record> {
    let ports = match &extra.ready {
        Ready::Http { port, .. } => vec![*port],
        Ready::Started | Ready::File(_) => Vec::new(),
    };
    let spec = Spec {
        name: extra.name.clone(),
        argv: extra.argv.clone(),
        cwd: None,
        env: Vec::new(),
        log: dir.join(format!("{}.log", extra.name)),
        ports,
    };
    if let Ready::File(path) = &extra.ready {
        match std::fs::remove_file(path) {
            Err(failure) if failure.kind() != std::io::ErrorKind::NotFound => {
                return Err(failure)
                    .context(format!("could not remove the old {}", path.display()));
            }
            _ => {}
        }
    }
    let (mut child, record) = process::spawn(&spec, group)?;
    if let Err(failure) = wait_ready(extra, &mut child, &record).await {
        // Fails only for a child that has already ended.
        let _: std::io::Result<()> = child.kill();
        let _: std::io::Result<_> = child.wait();
        return Err(failure);
    }
    Ok(record)
}

async fn wait_ready(extra: &Extra, child: &mut Child, record: &Record) -> anyhow::Result<()> {
    let begun = Instant::now();
    let tail = || process::log_tail(&record.log, 12);
    loop {
        if let Some(status) = child.try_wait()? {
            bail!(
                "{} ended before it was ready ({}); the last lines of its log:\n{}",
                extra.name,
                process::describe_exit(status),
                tail()
            );
        }
        let is_ready = match &extra.ready {
            Ready::Started => true,
            Ready::File(path) => path.exists(),
            Ready::Http { port, path } => Client::plain(*port).is_ok(path).await,
        };
        if is_ready {
            return Ok(());
        }
        if begun.elapsed() > extra.patience {
            let waited_s = extra.patience.as_secs();
            bail!(
                "{} was not ready after {waited_s} s; the last lines of its log:\n{}",
                extra.name,
                tail()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `capstan local start`.
pub(super) async fn start(args: StartArgs, progress: &Progress) -> anyhow::Result<()> {
    let (home, mut state) = open_up(&args.home.dir, progress)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if args.name.is_empty() || !args.name.chars().all(is_name) {
        bail!(
            "{:?} is no name for a process; use letters, digits and dashes",
            args.name
        );
    }
    if state
        .control_plane
        .iter()
        .any(|record| record.name == args.name)
    {
        bail!(
            "{} is the name of a part of the control plane; choose another",
            args.name
        );
    }
    let extra = Extra {
        ready: match (args.ready_file, args.ready_http) {
            (Some(path), _) => Ready::File(path),
            (None, Some(check)) => Ready::Http {
                port: check.port,
                path: check.path,
            },
            (None, None) => Ready::Started,
        },
        name: args.name,
        argv: args.argv,
        patience: Duration::from_secs(args.timeout_s),
    };
    let (record, is_new) = start_one(&home, &mut state, &extra).await?;
    let Record { name, pid, log, .. } = &record;
    out::result(if is_new {
        format!("{name} is running (pid {pid}, log {})", log.display())
    } else {
        format!("{name} is already running (pid {pid})")
    });
    Ok(())
}

/// Starts a process beside what is up, waits until it is ready and records it; whether it was not
/// running already.
pub(super) async fn start_one(
    home: &Home,
    state: &mut State,
    extra: &Extra,
) -> anyhow::Result<(Record, bool)> {
    let mut known = state.extras.iter();
    let running = known.find(|record| record.name == extra.name && process::is_alive(record));
    if let Some(record) = running {
        return Ok((record.clone(), false));
    }
    // Until the process is recorded, it dies with this command.
    let watchdog = Watchdog::start(None, Some(home.share_lock()?))?;
    let record = tokio::select! {
        record = launch(extra, home.dir(), Some(watchdog.group())) => record?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; {} was stopped", extra.name),
    };
    state.extras.retain(|other| other.name != extra.name);
    state.extras.push(record.clone());
    home.save(state)?;
    watchdog.keep()?;
    Ok((record, true))
}

/// `capstan local stop`.
pub(super) fn stop(args: &StopArgs, progress: &Progress) -> anyhow::Result<()> {
    let (home, mut state) = open_up(&args.home.dir, progress)?;
    let Some(record) = state.extras.iter().find(|record| record.name == args.name) else {
        if state
            .control_plane
            .iter()
            .any(|record| record.name == args.name)
        {
            bail!(
                "{} is a part of the control plane; `capstan local down` stops it",
                args.name
            );
        }
        bail!("nothing named {} was started here", args.name);
    };
    stop_one(record)?;
    state.extras.retain(|record| record.name != args.name);
    Ok(home.save(&state)?)
}

/// Stops one recorded process and says so.
pub(super) fn stop_one(record: &Record) -> anyhow::Result<()> {
    let Record { name, pid, .. } = record;
    if process::stop(record, STOP_PATIENCE)? {
        out::result(format!("stopped {name} (pid {pid})"));
    } else {
        out::result(format!("{name} was not running any more"));
    }
    Ok(())
}

/// The directory and state of something that is up.
pub(super) fn open_up(dir: &Path, progress: &Progress) -> anyhow::Result<(Home, State)> {
    let not_up = || {
        format!(
            "nothing is up in {}; run `capstan local up` first",
            dir.display()
        )
    };
    let home = Home::open(dir, progress)?.with_context(not_up)?;
    let state = home
        .load()?
        .filter(|state| state.phase == Phase::Up)
        .with_context(not_up)?;
    Ok((home, state))
}
