//! What runs inside a namespace machine: builds its root, then is its PID 1 until it is turned off.
//!
//! A machine is started in two stages, both this program (`capstan local machine`, hidden). The first joins the machine's
//! control groups and becomes `unshare`, which makes the namespaces; the second is the first process in them. It builds
//! the root file system, leaves the host's behind, and stays as PID 1: it runs the user data once, supervises containerd
//! and kubelet, answers `systemctl`, and takes every process of the machine with it when it ends.
//!
//! PID 1 is synchronous, and its parts are threads: what it waits for are processes, for which there is a blocking call.

pub(crate) mod cgroup;
mod children;
mod control;
mod execute;
mod init;
mod installed;
pub(crate) mod layout;
mod memory;
mod plan;
mod redact;
mod root;
mod script;
mod stage;
pub(crate) mod tool;
pub(crate) mod units;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of the hidden `capstan local machine`.
#[derive(Clone, Debug, clap::Args)]
pub struct MachineArgs {
    /// Which half of the start this is.
    #[arg(value_enum)]
    pub stage: Stage,
    /// The machine's directory.
    pub dir: PathBuf,
}

/// The halves of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Outside: joins the control groups and makes the namespaces.
    Start,
    /// Inside: the machine's first process.
    Init,
}

/// Runs a stage. Must be called before the process has a second thread; returns only when it fails, or when the
/// machine is turned off.
pub fn run(args: &MachineArgs) -> anyhow::Result<ExitCode> {
    match args.stage {
        Stage::Start => Err(stage::start(&args.dir)),
        Stage::Init => init::run(&args.dir),
    }
}
