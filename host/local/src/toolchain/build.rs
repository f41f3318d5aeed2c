//! Builds one binary from its Go module into the per-user cache, once, however many ask.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::catalog::{Binary, Stamp};
use super::{Error, Search, version};
use crate::control_plane::watchdog::Watchdog;
use crate::process;
use crate::progress::Progress;

/// The oldest Go that fetches the newer Go which go.mod asks for.
const GO_MIN: (u32, u32) = (1, 21);
/// Less free space than this is not worth starting with, in MiB.
const FREE_MIB_MIN: u64 = 4096;

/// Where the binary is in the cache, or will be.
pub(crate) fn path(search: &Search, binary: &Binary) -> Result<PathBuf, Error> {
    let cache = search.cache.as_ref().ok_or(Error::NoCache)?;
    Ok(cache.join(binary.module.dir_name()).join(binary.name))
}

/// The path of the binary in the cache, built when it is not there.
pub(crate) fn ensure(
    search: &Search,
    binary: &Binary,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let place = path(search, binary)?;
    if place.is_file() {
        return Ok(place);
    }
    let dir = place.parent().ok_or(Error::NoCache)?.to_owned();
    let go = usable_go(search, binary)?;
    std::fs::create_dir_all(&dir).map_err(|source| file(&dir, source))?;
    let lock = lock(&dir, binary, progress)?;
    // Whoever held the lock may have built it.
    if place.is_file() {
        return Ok(place);
    }
    let free_mib = free_mib(&dir);
    if free_mib < FREE_MIB_MIN {
        return Err(Error::DiskFull {
            tool: binary.name,
            dir,
            free_mib,
        });
    }
    let work = Work::start(&dir, binary, &lock)?;
    let title = binary.title();
    progress.say(format!(
        "building {title} from its Go module ({}, once)",
        binary.time
    ));
    let (begun, cpu) = (Instant::now(), process::children_cpu());
    let fresh = work.dir.join(binary.name);
    compile(&go, binary, &work, &fresh)?;
    std::fs::rename(&fresh, &place).map_err(|source| file(&place, source))?;
    progress.say(format!("built {title} in {}", process::took(begun, cpu)));
    Ok(place)
}

/// The Go command, if it is there and new enough.
fn usable_go(search: &Search, binary: &Binary) -> Result<PathBuf, Error> {
    let go = search
        .path
        .iter()
        .map(|dir| dir.join("go"))
        .find(|go| go.is_file());
    let go = go.ok_or(Error::GoMissing { tool: binary.name })?;
    let output = Command::new(&go).arg("version").current_dir("/").output();
    let found = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let found = found.unwrap_or_default();
    // "go version go1.26.0 linux/amd64"
    if version(&found).is_some_and(|version| version >= GO_MIN) {
        return Ok(go);
    }
    Err(Error::GoTooOld {
        tool: binary.name,
        found,
    })
}

/// Waits for whoever else builds into this directory.
fn lock(dir: &Path, binary: &Binary, progress: &Progress) -> Result<File, Error> {
    let path = dir.join("lock");
    let acquire = || -> io::Result<File> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        if lock.try_lock().is_err() {
            progress.say(format!("waiting for another build before {}", binary.name));
            lock.lock()?;
        }
        Ok(lock)
    };
    acquire().map_err(|source| file(&path, source))
}

/// A directory with the module to build in. It goes, and so does a compiler that still works in
/// it, when this value is dropped or this process ends in any way.
struct Work {
    dir: PathBuf,
    watchdog: Watchdog,
}

impl Work {
    fn start(cache: &Path, binary: &Binary, lock: &File) -> Result<Self, Error> {
        let dir = cache.join("build");
        let write = || -> io::Result<Watchdog> {
            // Under the lock, so whatever is there is what a power cut left.
            match std::fs::remove_dir_all(&dir) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => return Err(failure),
                _ => {}
            }
            std::fs::create_dir(&dir)?;
            let watchdog = Watchdog::start(Some(&dir), Some(lock.try_clone()?))?;
            for (name, content) in binary.module.files {
                std::fs::write(dir.join(name), content)?;
            }
            Ok(watchdog)
        };
        let watchdog = write().map_err(|source| file(&dir, source))?;
        Ok(Self { dir, watchdog })
    }
}

fn compile(go: &Path, binary: &Binary, work: &Work, output: &Path) -> Result<(), Error> {
    let log_path = work.dir.join("log");
    let log = File::create(&log_path).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, mut err) = log.map_err(|source| file(&log_path, source))?;
    let status = Command::new(go)
        .args(["build", "-trimpath", "-tags", binary.tags, "-ldflags"])
        .args([&linker_flags(binary.stamp), "-o"])
        .arg(output)
        .arg(binary.package)
        .current_dir(&work.dir)
        .process_group(work.watchdog.group().as_raw_nonzero().get())
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err.try_clone().map_err(|source| file(&log_path, source))?)
        .status();
    let status = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => process::describe_exit(status),
        Err(source) => {
            // A full disk must not hide why Go could not be run.
            let _: io::Result<()> = writeln!(err, "{source}");
            "it could not be run".to_owned()
        }
    };
    let log = process::log_tail(&log_path, 15);
    if log.contains("no space left on device") {
        let dir = work.dir.clone();
        return Err(Error::DiskFull {
            tool: binary.name,
            free_mib: free_mib(&dir),
            dir,
        });
    }
    Err(Error::Build {
        tool: binary.name,
        exit: status,
        log,
    })
}

/// Without symbols, and with the version where a program must be told it.
fn linker_flags(stamp: Stamp) -> String {
    let mut flags = "-s -w".to_owned();
    match stamp {
        Stamp::None => {}
        Stamp::Variable(name, value) => flags.push_str(&format!(" -X {name}={value}")),
        Stamp::Kubernetes(version) => {
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (
                numbers.next().unwrap_or("1"),
                numbers.next().unwrap_or_default(),
            );
            let values = [
                ("gitVersion", version),
                ("gitMajor", major),
                ("gitMinor", minor),
                ("gitTreeState", "clean"),
            ];
            for (name, value) in values {
                flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
            }
        }
    }
    flags
}

/// The free space of a directory's disk, in MiB.
pub(crate) fn free_mib(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |space| {
        space.f_bavail.saturating_mul(space.f_frsize) >> 20
    })
}

fn file(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}
