//! Makes children die with their owner, however it ends, without unsafe code.
//!
//! Two tiny processes stand beside the owner, each in its own process group so that Ctrl-C does
//! not reach them. The *anchor* (`cat` on a pipe) leads the group that every child joins, so that
//! the group's id cannot be reused while it is needed. The *watchdog* (`sh`) waits for the end of
//! a pipe that only the owner holds; the kernel closes it when the owner ends, even by SIGKILL.
//! Then the watchdog kills the group and removes the directory. It also holds the other end of the
//! anchor's pipe, so the anchor goes when the watchdog does.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::Pid;

/// `$1` is the anchor's group, `$2` the directory. The word `keep` ends the watch without harm.
/// Removing is repeated because a process that is just being killed may still create a file.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while read -r word; do
  if [ "$word" = keep ]; then exit 0; fi
done
kill -s KILL -- "-$1"
tries=0
while [ -e "$2" ] && [ "$tries" -lt 50 ]; do
  rm -rf -- "$2" || sleep 0.1
  tries=$((tries + 1))
done
"#;

/// Kills its process group and removes its directory when dropped, or when the owner dies.
#[derive(Debug)]
pub(crate) struct Watchdog {
    anchor: Child,
    watchdog: Child,
    /// Closing it is the signal.
    leash: Option<ChildStdin>,
    group: Pid,
}

impl Watchdog {
    /// Starts watching. `dir`, where given, must be absolute. `lock`, where given, is a file whose lock stays
    /// held until the watchdog has finished, so that nobody moves into a directory that is being
    /// cleared.
    pub(crate) fn start(dir: Option<&Path>, lock: Option<File>) -> io::Result<Self> {
        let quiet = |program: &str| {
            let mut command = Command::new(program);
            command
                .current_dir("/")
                .stderr(Stdio::null())
                .process_group(0);
            command
        };
        let mut anchor = quiet("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let lost = || io::Error::other("a child came without the pipe that was asked for");
        let group = crate::process::raw(anchor.id()).ok_or_else(lost)?;
        let hold = anchor.stdin.take().ok_or_else(lost)?;
        let mut watchdog = quiet("sh")
            .args(["-c", SCRIPT, "capstan-watchdog"])
            .arg(anchor.id().to_string())
            .arg(dir.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(hold)
            // Nothing is written there; it is a place where a child can hold a descriptor.
            .stderr(lock.map_or_else(Stdio::null, Stdio::from))
            .spawn()?;
        let leash = watchdog.stdin.take();
        Ok(Self {
            anchor,
            watchdog,
            leash,
            group,
        })
    }

    /// The process group that children must join.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Ends the watch and leaves processes and directory alone.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        if let Some(mut leash) = self.leash.take() {
            leash.write_all(b"keep\n")?;
        }
        Ok(())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.leash.take());
        // Both end by themselves; waiting only collects them, and there is nobody to tell of a
        // failure to do so.
        let _: io::Result<_> = self.watchdog.wait();
        let _: io::Result<_> = self.anchor.wait();
    }
}
