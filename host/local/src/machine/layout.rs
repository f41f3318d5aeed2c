//! A machine's directory on the host: what is in it, and what both sides read of it.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cgroup::Groups;
use crate::cloud::userdata::MachineFacts;
use crate::process::Record;

/// Everything about a machine that its two halves must agree on; `machine.json`. It holds no secret: the user data lies beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    /// Instance id.
    pub(crate) instance: String,
    /// Host name.
    pub(crate) hostname: String,
    /// The identity that its Node carries.
    pub(crate) provider_id: String,
    /// Zone.
    pub(crate) zone: String,
    /// Network's id.
    pub(crate) network: String,
    /// Address in the zone's subnet.
    pub(crate) address: Ipv4Addr,
    /// The router's address in the zone's subnet.
    pub(crate) gateway: Ipv4Addr,
    /// Which of the network's machines this is: names its link and its pods' subnet.
    pub(crate) index: u8,
    /// The subnet of this machine's pods.
    pub(crate) pods: String,
    /// The range that the pods of all machines are in.
    pub(crate) pod_range: String,
    /// The range that the network's machines are in.
    pub(crate) range: String,
    /// The part of it that is the host's, where load balancers listen.
    pub(crate) uplink: String,
    /// Kubernetes version of the image.
    pub(crate) version: String,
    /// The image's layers of the root file system, topmost first.
    pub(crate) lower: Vec<PathBuf>,
    /// How much memory it has.
    pub(crate) memory_bytes: u64,
    /// Whether etcd has a small disk of its own.
    pub(crate) etcd_disk: bool,
    /// What runs the user data.
    pub(crate) runner: Runner,
    /// The console.
    pub(crate) console: PathBuf,
    /// Control groups.
    pub(crate) groups: Groups,
}

impl Machine {
    /// What user data can refer to.
    pub(crate) fn facts(&self) -> MachineFacts {
        MachineFacts {
            hostname: self.hostname.clone(),
            instance_id: self.instance.clone(),
            provider_id: self.provider_id.clone(),
            address: self.address.to_string(),
            zone: self.zone.clone(),
        }
    }
}

/// What runs the user data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Runner {
    /// Our own interpreter of the keys that bootstrap data uses.
    #[default]
    Builtin,
    /// The image's cloud-init.
    CloudInit,
}

/// The processes of a machine that is on; `run.json`, written by the machine itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The process outside that made the namespaces and is PID 1's parent: it is in all of them but the PID namespace.
    pub(crate) outer: Record,
    /// PID 1, as the host numbers it.
    pub(crate) init: Record,
}

/// How the user data went; written by PID 1 into the machine's own layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Whether it did what it should.
    pub(crate) done: bool,
    /// What, or what went wrong.
    pub(crate) message: String,
}

/// PID 1's own directory in the machine's root; on the host it is in the upper layer.
pub(crate) const STATE: &str = "var/lib/capstan";

/// How the user data went, below [`STATE`].
pub(crate) const OUTCOME: &str = "outcome.json";

/// Below [`STATE`]: the user data has begun.
pub(crate) const BEGUN: &str = "begun";

/// Below [`STATE`]: the machine asked to be started again.
pub(crate) const REBOOT: &str = "reboot";

/// PID 1's socket in the machine's root.
pub(crate) const SOCKET: &str = "run/capstan/init.sock";

/// The paths in a machine's directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout of this directory.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// [`Machine`].
    pub(crate) fn machine(&self) -> PathBuf {
        self.dir.join("machine.json")
    }

    /// The user data, as it came.
    pub(crate) fn user_data(&self) -> PathBuf {
        self.dir.join("user-data")
    }

    /// [`Running`].
    pub(crate) fn running(&self) -> PathBuf {
        self.dir.join("run.json")
    }

    /// The machine's own layer of the root file system.
    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// What overlayfs works in.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Where the root is put together, in the machine's mount namespace only.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A directory that is bound to `/var/lib/<name>`.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The image file of etcd's disk.
    pub(crate) fn etcd_image(&self) -> PathBuf {
        self.dir.join("etcd.img")
    }

    /// Files that lie over files of the kernel.
    pub(crate) fn faces(&self) -> PathBuf {
        self.dir.join("faces")
    }

    /// A file of PID 1, as the host sees it.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.upper().join(STATE).join(name)
    }

    /// A unit's log, as the host sees it.
    pub(crate) fn log(&self, unit: &str) -> PathBuf {
        self.upper().join(format!("var/log/{unit}.log"))
    }

    /// Reads [`Machine`], if there is one.
    pub(crate) fn load(&self) -> io::Result<Option<Machine>> {
        crate::cloud::disk::load(&self.machine())
    }

    /// Reads [`Running`]; absent when it was never on, or when the file is of no use.
    pub(crate) fn load_running(&self) -> Option<Running> {
        crate::cloud::disk::load(&self.running()).ok().flatten()
    }
}
