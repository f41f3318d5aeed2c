//! The first stage of a machine's start: outside, in the machine's control groups, about to become `unshare`.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use super::layout::Layout;
use super::tool;

/// Joins the control groups, leaves the caller's session and becomes `unshare`, whose child is the machine's PID 1.
/// The groups come first: the machine's control group namespace begins where its maker is.
pub(super) fn start(dir: &Path) -> anyhow::Error {
    match prepare(dir) {
        Err(error) => error,
        Ok(program) => {
            let error = tool::command("unshare")
                .args([
                    "--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--fork",
                ])
                .args(["--kill-child", "--propagation", "private", "--"])
                .arg(program)
                .args(["local", "machine", "init"])
                .arg(dir)
                .exec();
            anyhow!(error).context("could not become unshare")
        }
    }
}

fn prepare(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let machine = Layout::new(dir)
        .load()
        .and_then(|machine| machine.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("{} holds no machine", dir.display()))?;
    // Fails only for the leader of a process group, which is as good.
    let _: rustix::io::Result<rustix::process::Pid> = rustix::process::setsid();
    machine
        .groups
        .enter(0)
        .context("could not join the machine's control groups")?;
    std::env::current_exe().context("cannot tell where this program is")
}
