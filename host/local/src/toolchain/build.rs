//! Builds one binary from its Go module into the per-user cache, once, however many ask.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::{Error, KUBERNETES_VERSION, Search, Tool, version};
use crate::control_plane::watchdog::Watchdog;
use crate::process;
use crate::progress::Progress;

const GO_MOD: &str = include_str!("../../toolchain/go.mod");
const GO_SUM: &str = include_str!("../../toolchain/go.sum");

/// The oldest Go that fetches the newer Go which go.mod asks for.
const GO_MIN: (u32, u32) = (1, 21);
/// Less free space than this is not worth starting with, in MiB.
const FREE_MIB_MIN: u64 = 4096;

/// What the cache's binaries were made from; a directory with another key is made anew.
fn key() -> String {
    let mut hash = Sha256::new();
    hash.update(GO_MOD);
    hash.update([0]);
    hash.update(GO_SUM);
    let digest = hash.finalize();
    digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        + "\n"
}

/// The path of the binary in the cache, built when it is not there.
pub(super) fn ensure(search: &Search, tool: Tool, progress: &Progress) -> Result<PathBuf, Error> {
    let dir = search
        .cache
        .as_ref()
        .ok_or(Error::NoCache)?
        .join(KUBERNETES_VERSION);
    let binary = dir.join(tool.name());
    let is_current = || {
        std::fs::read_to_string(dir.join("key")).is_ok_and(|found| found == key())
            && binary.is_file()
    };
    if is_current() {
        return Ok(binary);
    }
    let go = usable_go(search, tool)?;
    std::fs::create_dir_all(&dir).map_err(|source| file(&dir, source))?;
    let lock = lock(&dir, tool, progress)?;
    // Whoever held the lock may have built it.
    if is_current() {
        return Ok(binary);
    }
    let free_mib = free_mib(&dir);
    if free_mib < FREE_MIB_MIN {
        return Err(Error::DiskFull {
            tool: tool.name(),
            dir,
            free_mib,
        });
    }
    clear_stale(&dir)?;
    let module = Module::write(&dir, &lock)?;
    let (name, wait) = (tool.name(), tool.build_time());
    let of = if tool == Tool::Etcd {
        String::new()
    } else {
        format!(" {KUBERNETES_VERSION}")
    };
    progress.say(format!(
        "building {name}{of} from its Go module ({wait}, once)"
    ));
    let fresh = module.dir.join(name);
    compile(&go, tool, &module, &fresh)?;
    std::fs::rename(&fresh, &binary).map_err(|source| file(&binary, source))?;
    Ok(binary)
}

/// The Go command, if it is there and new enough.
fn usable_go(search: &Search, tool: Tool) -> Result<PathBuf, Error> {
    let go = search
        .path
        .iter()
        .map(|dir| dir.join("go"))
        .find(|go| go.is_file());
    let go = go.ok_or(Error::GoMissing { tool: tool.name() })?;
    let output = Command::new(&go).arg("version").current_dir("/").output();
    let found = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let found = found.unwrap_or_default();
    // "go version go1.26.0 linux/amd64"
    if version(&found).is_some_and(|version| version >= GO_MIN) {
        return Ok(go);
    }
    Err(Error::GoTooOld {
        tool: tool.name(),
        found,
    })
}

/// Waits for whoever else builds into this directory.
fn lock(dir: &Path, tool: Tool, progress: &Progress) -> Result<File, Error> {
    let path = dir.join("lock");
    let acquire = || -> io::Result<File> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        if lock.try_lock().is_err() {
            progress.say(format!("waiting for another build before {}", tool.name()));
            lock.lock()?;
        }
        Ok(lock)
    };
    acquire().map_err(|source| file(&path, source))
}

/// Removes binaries that were made from another module, then says what the next ones are made
/// from. Programs that still run from them are not disturbed.
fn clear_stale(dir: &Path) -> Result<(), Error> {
    let path = dir.join("key");
    if std::fs::read_to_string(&path).is_ok_and(|found| found == key()) {
        return Ok(());
    }
    for tool in [
        Tool::Etcd,
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::Kubectl,
    ] {
        let binary = dir.join(tool.name());
        match std::fs::remove_file(&binary) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(file(&binary, source));
            }
            _ => {}
        }
    }
    std::fs::write(&path, key()).map_err(|source| file(&path, source))
}

/// A directory with the module to build in. It goes, and so does a compiler that still works in
/// it, when this value is dropped or this process ends in any way.
struct Module {
    dir: PathBuf,
    watchdog: Watchdog,
}

impl Module {
    fn write(cache: &Path, lock: &File) -> Result<Self, Error> {
        let dir = cache.join("build");
        let write = || -> io::Result<Watchdog> {
            // Under the lock, so whatever is there is what a power cut left.
            match std::fs::remove_dir_all(&dir) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => return Err(failure),
                _ => {}
            }
            std::fs::create_dir(&dir)?;
            let watchdog = Watchdog::start(Some(&dir), Some(lock.try_clone()?))?;
            std::fs::write(dir.join("go.mod"), GO_MOD)?;
            std::fs::write(dir.join("go.sum"), GO_SUM)?;
            Ok(watchdog)
        };
        let watchdog = write().map_err(|source| file(&dir, source))?;
        Ok(Self { dir, watchdog })
    }
}

fn compile(go: &Path, tool: Tool, module: &Module, output: &Path) -> Result<(), Error> {
    let log_path = module.dir.join("log");
    let log = File::create(&log_path).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, mut err) = log.map_err(|source| file(&log_path, source))?;
    let status = Command::new(go)
        .args(["build", "-trimpath", "-ldflags", &linker_flags(tool), "-o"])
        .arg(output)
        .arg(tool.package())
        .current_dir(&module.dir)
        .process_group(module.watchdog.group().as_raw_nonzero().get())
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
        let dir = module.dir.clone();
        return Err(Error::DiskFull {
            tool: tool.name(),
            free_mib: free_mib(&dir),
            dir,
        });
    }
    Err(Error::Build {
        tool: tool.name(),
        exit: status,
        log,
    })
}

/// Real clients refuse a server that does not know its version, so it is linked in.
fn linker_flags(tool: Tool) -> String {
    let mut flags = "-s -w".to_owned();
    let mut numbers = KUBERNETES_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or("1"),
        numbers.next().unwrap_or_default(),
    );
    if tool != Tool::Etcd {
        let values = [
            ("gitVersion", KUBERNETES_VERSION),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ];
        for (name, value) in values {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
        }
    }
    flags
}

fn free_mib(dir: &Path) -> u64 {
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
