//! One machine from the host's side: its files, its processes, its control groups. All calls block, and all may be repeated.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cloud::disk;
use crate::machine::layout::{Layout, Machine, OUTCOME, Outcome, REBOOT, Running, SOCKET};
use crate::machine::tool;
use crate::process;

/// Size of etcd's disk: its log takes 64 MiB pieces and some of them; the file behind it only takes what is written.
const ETCD_DISK_BYTES: u64 = 2 << 30;

/// How long PID 1 may take until it is there.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How long a machine may take to turn itself off.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

/// How long the kernel may take to forget a machine's processes.
const CLEAN_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// How much of a unit's log is shown.
const LOG_BYTES_MAX: u64 = 256 << 10;

/// A machine's directory and what can be done with it.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    layout: Layout,
}

impl Instance {
    /// The machine in this directory.
    pub(super) fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            layout: Layout::new(dir),
        }
    }

    /// Its paths.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What it is; nothing when it was never made.
    pub(super) fn machine(&self) -> io::Result<Option<Machine>> {
        self.layout.load()
    }

    /// Its processes, if it is on.
    pub(super) fn running(&self) -> Option<Running> {
        self.layout
            .load_running()
            .filter(|running| process::is_alive(&running.init))
    }

    /// Its processes, or that it is off.
    pub(super) fn must_run(&self) -> io::Result<Running> {
        self.running()
            .ok_or_else(|| io::Error::other("the machine is off"))
    }

    /// How its user data went, if it has come to its end.
    pub(super) fn outcome(&self) -> io::Result<Option<Outcome>> {
        disk::load(&self.layout.state(OUTCOME))
    }

    /// Makes the files of a machine, or completes them. `store` is an image's containerd directory.
    pub(super) fn make(&self, machine: &Machine, user_data: &[u8], store: &Path) -> io::Result<()> {
        let layout = &self.layout;
        fs::create_dir_all(layout.dir())?;
        // Nobody but root gets through to what the machines hold.
        fs::set_permissions(layout.dir(), fs::Permissions::from_mode(0o700))?;
        for dir in [
            layout.upper(),
            layout.work(),
            layout.root(),
            layout.data("kubelet"),
            layout.data("etcd"),
        ] {
            fs::create_dir_all(dir)?;
        }
        fs::set_permissions(layout.upper(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(layout.data("etcd"), fs::Permissions::from_mode(0o700))?;
        copy_store(store, &layout.data("containerd"))?;
        if machine.etcd_disk && !layout.etcd_image().exists() {
            make_disk(&layout.etcd_image())?;
        }
        disk::replace(&layout.user_data(), user_data)?;
        disk::save(&layout.machine(), machine)
    }

    /// Starts the machine's processes; `program` is this one.
    pub(super) fn start(&self, machine: &Machine, program: &Path) -> io::Result<Running> {
        let layout = &self.layout;
        self.clear(machine)?;
        disk::remove(&layout.state(REBOOT))?;
        machine.groups.ensure()?;
        machine
            .groups
            .limit_memory(machine.memory_bytes)
            .or_else(|error| {
                tracing::warn!(%error, "a machine's memory is not bounded");
                Ok::<(), io::Error>(())
            })?;
        let console = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&machine.console)?;
        let mut child = tool::command(program)
            .args(["local", "machine", "start"])
            .arg(layout.dir())
            .current_dir("/")
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0)
            .spawn()?;
        let start = Instant::now();
        let running = loop {
            if let Some(running) = self.running() {
                break running;
            }
            let ended = child.try_wait()?;
            if ended.is_some() || start.elapsed() >= START_PATIENCE {
                if ended.is_none() {
                    child.kill()?;
                    child.wait()?;
                }
                let said = process::log_tail(&machine.console, 1);
                return Err(io::Error::other(format!(
                    "the machine does not start: {said}"
                )));
            }
            std::thread::sleep(LOOK);
        };
        // Reaped when it ends, for as long as this process is its parent.
        std::thread::spawn(move || child.wait());
        machine.groups.set_aside(running.outer.pid)?;
        Ok(running)
    }

    /// Asks PID 1 for something; what it answers.
    pub(super) fn ask(&self, request: &str, patience: Duration) -> io::Result<String> {
        let running = self.must_run()?;
        let root = format!("/proc/{}/root", running.init.pid);
        let path = Path::new(&root).join(SOCKET);
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        match answer.split_once('\n') {
            Some(("0", text)) => Ok(text.to_owned()),
            Some(("2", text)) => Err(io::Error::new(io::ErrorKind::Unsupported, text.to_owned())),
            Some((_, text)) => Err(io::Error::other(text.to_owned())),
            None => Err(io::Error::other("PID 1 of the machine gave no answer")),
        }
    }

    /// Turns it off in order, and by force when it does not go.
    pub(super) fn stop(&self) -> io::Result<()> {
        let Some(machine) = self.machine()? else {
            return Ok(());
        };
        // A frozen machine cannot turn itself off.
        machine.groups.freeze(false)?;
        if self.ask("poweroff", STOP_PATIENCE).is_ok() {
            let start = Instant::now();
            while self.running().is_some() && start.elapsed() < STOP_PATIENCE {
                std::thread::sleep(LOOK);
            }
        }
        self.clear(&machine)
    }

    /// Ends everything in it at once.
    pub(super) fn kill(&self) -> io::Result<()> {
        match self.machine()? {
            Some(machine) => self.clear(&machine),
            None => Ok(()),
        }
    }

    /// Stops all that goes on in it, or lets it go on.
    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        self.must_run()?;
        match self.machine()? {
            Some(machine) => machine.groups.freeze(frozen),
            None => Ok(()),
        }
    }

    /// Makes sure that it is off: no process, no control group, no record of any. Its files stay.
    fn clear(&self, machine: &Machine) -> io::Result<()> {
        if let Some(running) = self.layout.load_running() {
            // Killed first and thawed then, so that it does not go on for a moment.
            let send = |record| process::send_kill(record).map_err(io::Error::other);
            send(&running.init)?;
            machine.groups.freeze(false)?;
            process::kill(&running.init).map_err(io::Error::other)?;
            process::kill(&running.outer).map_err(io::Error::other)?;
        }
        machine.groups.freeze(false)?;
        let start = Instant::now();
        loop {
            // What no record names: a start that was interrupted, or something that was moved here.
            let left = machine.groups.processes();
            if left.is_empty() {
                break;
            }
            if start.elapsed() >= CLEAN_PATIENCE {
                return Err(io::Error::other(format!(
                    "processes of the machine do not end: {left:?}"
                )));
            }
            for pid in left.into_iter().filter_map(process::raw) {
                // Gone meanwhile is as good.
                let _: rustix::io::Result<()> =
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
        machine.groups.remove(CLEAN_PATIENCE)?;
        disk::remove(&self.layout.running())
    }

    /// Removes it with all its files.
    pub(super) fn delete(&self) -> io::Result<()> {
        self.kill()?;
        match fs::remove_dir_all(self.layout.dir()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The last part of a unit's log.
    pub(super) fn unit_log(&self, unit: &str) -> io::Result<Vec<u8>> {
        if !["kubelet", "containerd"].contains(&unit) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("a machine has no unit {unit}; there are kubelet and containerd"),
            ));
        }
        let mut file = match fs::File::open(self.layout.log(unit)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The machine's own copy of an image store: links where nothing is ever changed in place, real copies of the databases. Made beside, and moved
/// to its place when it is complete.
fn copy_store(store: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    let beside = to.with_extension("new");
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let copy = |how: &str| {
        let words = [how.as_ref(), store.as_os_str(), beside.as_os_str()];
        tool::run("cp", &words)
    };
    if copy("-al").is_err() {
        // Another file system: then it costs time and room.
        match fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        copy("-a")?;
    }
    unlink_databases(store, &beside)?;
    fs::rename(&beside, to)
}

/// Replaces links to databases by copies.
fn unlink_databases(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_file()
            && source
                .extension()
                .is_some_and(|extension| extension == "db")
        {
            fs::remove_file(&target)?;
            fs::copy(&source, &target)?;
        } else if entry.file_type()?.is_dir() && !is_content(&entry.file_name()) {
            unlink_databases(&source, &target)?;
        }
    }
    Ok(())
}

/// Directories with layers and their files: many, and no database of containerd's in them.
fn is_content(name: &std::ffi::OsStr) -> bool {
    name == "blobs" || name == "snapshots"
}

/// A file system in a file of which most is a hole.
fn make_disk(image: &Path) -> io::Result<()> {
    let beside = image.with_extension("new");
    fs::File::create(&beside)?.set_len(ETCD_DISK_BYTES)?;
    let words = [
        "-q",
        "-F",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1",
        "-J",
        "size=16",
    ];
    let words: Vec<&std::ffi::OsStr> = words
        .iter()
        .map(std::ffi::OsStr::new)
        .chain([beside.as_os_str()])
        .collect();
    tool::command("mkfs.ext4")
        .args(&words)
        .stdout(Stdio::null())
        .status()
        .and_then(|status| {
            if status.success() {
                Ok(())
            } else {
                Err(io::Error::other("mkfs.ext4 cannot make etcd's disk"))
            }
        })?;
    fs::rename(&beside, image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_store_is_shared_but_for_its_databases() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let content = store.join("content/blobs");
        fs::create_dir_all(&content).unwrap();
        fs::write(content.join("blob"), "layer").unwrap();
        fs::create_dir_all(store.join("metadata")).unwrap();
        fs::write(store.join("metadata/meta.db"), "names").unwrap();
        let copy = dir.path().join("machine");
        copy_store(&store, &copy).unwrap();
        copy_store(&store, &copy).unwrap();
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(
            inode(store.join("content/blobs/blob")),
            inode(copy.join("content/blobs/blob"))
        );
        assert_ne!(
            inode(store.join("metadata/meta.db")),
            inode(copy.join("metadata/meta.db"))
        );
        assert_eq!(fs::read(copy.join("metadata/meta.db")).unwrap(), b"names");
    }

    #[test]
    fn what_was_never_made_can_be_stopped_killed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new(dir.path().join("i-1"));
        instance.stop().unwrap();
        instance.kill().unwrap();
        instance.delete().unwrap();
        assert!(instance.must_run().is_err());
        assert!(instance.unit_log("sshd").is_err());
        assert_eq!(instance.unit_log("kubelet").unwrap(), b"");
    }
}
