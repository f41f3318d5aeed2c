//! How images are made: in a directory that vanishes with whoever works in it, by programs that end
//! with it, in steps that say what they took.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Error, file};
use crate::control_plane::watchdog::Watchdog;
use crate::process;
use crate::progress::Progress;

/// How many lines of a failed program's output are shown.
const LOG_LINES: usize = 15;

/// Tells what is being done and what it took.
pub(super) struct Steps<'a> {
    progress: &'a Progress,
    begun: Instant,
    cpu: Duration,
}

impl<'a> Steps<'a> {
    pub(super) fn new(progress: &'a Progress) -> Self {
        Self {
            progress,
            begun: Instant::now(),
            cpu: process::children_cpu(),
        }
    }

    /// Runs one step.
    pub(super) fn run<T>(
        &self,
        title: &str,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.progress.say(format!("making {title}"));
        let (begun, cpu) = (Instant::now(), process::children_cpu());
        let made = work()?;
        self.progress
            .say(format!("made {title} in {}", process::took(begun, cpu)));
        Ok(made)
    }

    /// The last line.
    pub(super) fn finish(self, title: &str) {
        let took = process::took(self.begun, self.cpu);
        self.progress.say(format!("made {title} in {took}"));
    }
}

/// A directory to work in. It goes, and so does every program that was started for it, when this
/// value is dropped or this process ends in any way.
pub(super) struct Work {
    dir: PathBuf,
    watchdog: Watchdog,
}

impl Work {
    /// Makes the directory; `lock` stays held until it is gone.
    pub(super) fn start(dir: PathBuf, lock: &File) -> Result<Self, Error> {
        let make = || -> io::Result<Watchdog> {
            // Under the lock, so whatever is there is what a power cut left.
            match fs::remove_dir_all(&dir) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => return Err(failure),
                _ => {}
            }
            fs::create_dir(&dir)?;
            Watchdog::start(Some(&dir), Some(lock.try_clone()?))
        };
        let watchdog = make().map_err(|source| file(&dir, source))?;
        Ok(Self { dir, watchdog })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts what was made into its place. Anything there is damaged, or nobody would have made it.
    pub(super) fn place(&self, made: &Path, place: &Path) -> Result<(), Error> {
        let put = || match fs::remove_dir_all(place) {
            Err(failure) if failure.kind() != io::ErrorKind::NotFound => Err(failure),
            _ => fs::rename(made, place),
        };
        put().map_err(|source| file(place, source))
    }

    /// The file with what a program printed that was started to do this.
    fn log(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.log", what.replace('/', "-")))
    }

    /// Starts a program with its output in its log.
    pub(super) fn spawn(&self, what: &str, command: &mut Command) -> Result<Child, Error> {
        let path = self.log(what);
        let log = File::create(&path).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = log.map_err(|source| file(&path, source))?;
        command
            .process_group(self.watchdog.group().as_raw_nonzero().get())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| not_run(what, command, &source))
    }

    /// Runs a program without input to its end.
    pub(super) fn run(&self, what: &str, command: &mut Command) -> Result<(), Error> {
        let mut child = self.spawn(what, command.stdin(Stdio::null()))?;
        let status = child
            .wait()
            .map_err(|source| file(&self.log(what), source))?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure(what, process::describe_exit(status)))
    }

    /// Runs a program and answers what it printed.
    pub(super) fn read(&self, what: &str, command: &mut Command) -> Result<String, Error> {
        let output = command
            .process_group(self.watchdog.group().as_raw_nonzero().get())
            .stdin(Stdio::null())
            .output()
            .map_err(|source| not_run(what, command, &source))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let path = self.log(what);
        fs::write(&path, &output.stderr).map_err(|source| file(&path, source))?;
        Err(self.failure(what, process::describe_exit(output.status)))
    }

    /// What a program did that ended in this way.
    pub(super) fn failure(&self, what: &str, exit: String) -> Error {
        Error::Program {
            what: what.to_owned(),
            exit,
            log: process::log_tail(&self.log(what), LOG_LINES),
        }
    }
}

fn not_run(what: &str, command: &Command, source: &io::Error) -> Error {
    let program = command.get_program().to_string_lossy().into_owned();
    Error::Block {
        what: program.clone(),
        why: format!("{what} needs it, and it could not be run ({source})"),
        fix: format!("install {program}"),
    }
}

/// Runs a program in a mount namespace of its own, so that nothing it mounts stays.
pub(super) fn apart(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(program)
        .current_dir("/");
    command
}
