//! Puts container images into the directory of a container runtime, which is started for that and
//! stopped again: what is left is the template of a machine's store.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::archive::{self, ContainerImage};
use super::recipe::Binaries;
use super::step::{Work, apart};
use super::{Error, file};
use crate::process;

/// The runtime opens an empty directory in well under a second.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// It only closes its database.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// What the system takes for a socket's address, 108, less the longest name that is put there.
const DIR_BYTES_MAX: usize = 80;
/// Where Kubernetes' images are in the runtime.
const NAMESPACE: &str = "k8s.io";

/// Makes a store with these images in `dir`.
pub(super) fn make(
    work: &Work,
    binaries: &Binaries,
    dir: &Path,
    images: &[ContainerImage],
) -> Result<(), Error> {
    fs::create_dir(dir).map_err(|source| file(dir, source))?;
    let run = RunDir::new(work)?;
    let socket = run.0.join("socket");
    let config = run.0.join("config.toml");
    fs::write(&config, configuration(dir, &run.0)).map_err(|source| file(&config, source))?;
    let mut command = apart(binaries.path("containerd")?);
    command.arg("--config").arg(&config).stdin(Stdio::null());
    let what = "running containerd for its store";
    let mut daemon = Daemon(work.spawn(what, &mut command)?);
    daemon.wait_until_ready(work, what, &socket)?;
    let client = Client {
        program: binaries.path("ctr")?,
        socket: &socket,
    };
    client.import(work, images)?;
    client.check(work, images)?;
    daemon.stop(work, what)
}

fn configuration(root: &Path, run: &Path) -> String {
    let quote = |path: PathBuf| format!("{:?}", path.display().to_string());
    format!(
        "version = 3\nroot = {}\nstate = {}\n\
         # No containers run here.\n\
         disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \
         \"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\"]\n\
         [grpc]\naddress = {}\n[ttrpc]\naddress = {}\n",
        quote(root.to_owned()),
        quote(run.join("state")),
        quote(run.join("socket")),
        quote(run.join("socket.ttrpc")),
    )
}

/// Where sockets are. The address of one has room for about a hundred characters, so a directory
/// elsewhere is taken where the one to work in has a long name.
struct RunDir(PathBuf);

impl RunDir {
    fn new(work: &Work) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;

        let name = format!("capstan-images-{}", std::process::id());
        let mut dir = work.dir().join("run");
        if dir.as_os_str().len() > DIR_BYTES_MAX {
            dir = std::env::temp_dir().join(name);
        }
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|source| file(&dir, source))?;
        Ok(Self(dir))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Only sockets are left there, and a later run takes another name.
        let _: io::Result<()> = fs::remove_dir_all(&self.0);
    }
}

struct Daemon(Child);

impl Daemon {
    fn wait_until_ready(&mut self, work: &Work, what: &str, socket: &Path) -> Result<(), Error> {
        let begun = Instant::now();
        while UnixStream::connect(socket).is_err() {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Err(work.failure(what, process::describe_exit(status)));
            }
            if begun.elapsed() > START_TIME_MAX {
                let waited = START_TIME_MAX.as_secs();
                return Err(work.failure(what, format!("it did not answer within {waited} s")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Orderly, so that its databases are complete.
    fn stop(mut self, work: &Work, what: &str) -> Result<(), Error> {
        if let Some(pid) = process::raw(self.0.id()) {
            // It fails only when the process has ended, which is seen next.
            let _: rustix::io::Result<()> = rustix::process::kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(work.failure(what, process::describe_exit(status))),
                _ if begun.elapsed() > STOP_TIME_MAX => {
                    return Err(work.failure(what, "it does not stop".to_owned()));
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both do nothing once it has been stopped.
        let _: io::Result<()> = self.0.kill();
        let _: io::Result<_> = self.0.wait();
    }
}

struct Client<'a> {
    program: &'a Path,
    socket: &'a Path,
}

impl Client<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .arg("--address")
            .arg(self.socket)
            .args(["--namespace", NAMESPACE, "images"]);
        command
    }

    /// Hands over the archive while it is written. The layers stay beside what they are unpacked to:
    /// without them, Kubernetes' side of the runtime takes an image for incomplete.
    fn import(&self, work: &Work, images: &[ContainerImage]) -> Result<(), Error> {
        let what = "importing the container images";
        let mut command = self.command();
        command
            .args(["import", "--local", "-"])
            .stdin(Stdio::piped());
        let mut child = work.spawn(what, &mut command)?;
        let mut written = Ok(());
        if let Some(input) = child.stdin.take() {
            let mut input = BufWriter::with_capacity(1 << 20, input);
            written = archive::write(images, &mut input).and_then(|()| input.flush());
        }
        let status = child.wait().map_err(|source| file(self.socket, source))?;
        if !status.success() {
            return Err(work.failure(what, process::describe_exit(status)));
        }
        written.map_err(|source| Error::Program {
            what: "writing the container images".to_owned(),
            exit: source.to_string(),
            log: "(nothing)".to_owned(),
        })
    }

    /// That every image is there and unpacked.
    fn check(&self, work: &Work, images: &[ContainerImage]) -> Result<(), Error> {
        let what = "looking at the container images";
        let listed = work.read(what, self.command().args(["list", "--quiet"]))?;
        let listed: BTreeSet<&str> = listed.lines().map(str::trim).collect();
        let missing = images
            .iter()
            .find(|image| !listed.contains(image.name.as_str()));
        match missing {
            None => Ok(()),
            Some(image) => Err(Error::Program {
                what: what.to_owned(),
                exit: format!("{} is not there after the import", image.name),
                log: listed.into_iter().collect::<Vec<_>>().join("\n"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_told_its_directories_in_quotes() {
        let text = configuration(Path::new("/a b/store"), Path::new("/tmp/x"));
        assert!(text.contains("root = \"/a b/store\"\n"), "{text}");
        assert!(
            text.contains("[grpc]\naddress = \"/tmp/x/socket\"\n"),
            "{text}"
        );
    }
}
