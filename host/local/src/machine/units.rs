//! The two units of a machine, containerd and kubelet: kept running, and told about in the way `systemctl` does.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::children::{self, Children};
use crate::cloud::console::Console;

/// Where programs of a machine are looked for.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where containerd says that it is ready, as it would to systemd: its socket is there long before.
pub(super) const NOTIFY: &str = "/run/capstan/notify.sock";

/// How long a unit stays down before it is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How long a unit may take to end before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// kubelet as kubeadm's package starts it, with what this kind of machine needs before it: the disk is the host's, so kubelet must not
/// judge how full it is.
const KUBELET: &str = r"
for file in /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet; do
  [ ! -f $file ] || . $file
done
exec /usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
  --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml \
  --image-gc-high-threshold=100 --image-gc-low-threshold=99 \
  --eviction-hard='memory.available<50Mi,nodefs.available<0%,nodefs.inodesFree<0%,imagefs.available<0%,imagefs.inodesFree<0%' \
  @HOST@ $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS";

/// A unit, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// Program and arguments.
    argv: Vec<String>,
    /// Whether it is to run after a boot.
    pub(super) enabled: bool,
    /// Whether it is to run now.
    pub(super) wanted: bool,
    /// Its process.
    pub(super) pid: Option<u32>,
    /// How often it was started.
    pub(super) starts: u32,
}

impl Unit {
    /// In the words of `systemctl is-active`.
    pub(super) fn state(&self) -> &'static str {
        match (self.pid, self.wanted) {
            (Some(_), true) => "active",
            (Some(_), false) => "deactivating",
            (None, true) => "activating",
            (None, false) => "inactive",
        }
    }
}

/// The units, each supervised by a thread.
pub(super) struct Units {
    units: Mutex<BTreeMap<&'static str, Unit>>,
    changed: Condvar,
    children: Arc<Children>,
    console: Console,
}

impl Units {
    /// The units of a machine, not running yet. `kubelet_host_flags` are what this host and this cloud make necessary.
    pub(super) fn start(
        children: &Arc<Children>,
        console: &Console,
        kubelet_host_flags: &str,
    ) -> Arc<Self> {
        let unit = |argv: &[&str]| Unit {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            enabled: true,
            ..Unit::default()
        };
        let kubelet = KUBELET.replace("@HOST@", kubelet_host_flags);
        let units = Arc::new(Self {
            units: Mutex::new(BTreeMap::from([
                ("containerd", unit(&["containerd"])),
                ("kubelet", unit(&["/bin/sh", "-c", &kubelet])),
            ])),
            changed: Condvar::new(),
            children: Arc::clone(children),
            console: console.clone(),
        });
        for name in units.names() {
            let units = Arc::clone(&units);
            std::thread::spawn(move || units.supervise(name));
        }
        units
    }

    fn names(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Unit>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        units: MutexGuard<'a, BTreeMap<&'static str, Unit>>,
        at_most: Duration,
    ) -> MutexGuard<'a, BTreeMap<&'static str, Unit>> {
        self.changed
            .wait_timeout(units, at_most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// A unit as it is now.
    pub(super) fn get(&self, name: &str) -> Option<Unit> {
        self.lock().get(name).cloned()
    }

    /// Changes whether a unit runs after a boot.
    pub(super) fn enable(&self, name: &str, enabled: bool) {
        if let Some(unit) = self.lock().get_mut(name) {
            unit.enabled = enabled;
        }
    }

    /// Starts a unit, if it does not run, and waits until it has a process.
    pub(super) fn want(&self, name: &str) {
        let start = Instant::now();
        let mut units = self.lock();
        if let Some(unit) = units.get_mut(name) {
            unit.wanted = true;
        }
        self.changed.notify_all();
        while units.get(name).is_some_and(|unit| unit.pid.is_none())
            && start.elapsed() < RESTART_PAUSE.saturating_mul(2)
        {
            units = self.wait(units, RESTART_PAUSE);
        }
    }

    /// Stops a unit and waits until it has no process.
    pub(super) fn stop(&self, name: &str) {
        let mut units = self.lock();
        let Some(pid) = units.get_mut(name).and_then(|unit| {
            unit.wanted = false;
            unit.pid
        }) else {
            self.changed.notify_all();
            return;
        };
        self.changed.notify_all();
        children::signal(pid, Signal::TERM);
        let start = Instant::now();
        let mut killed = false;
        while units.get(name).is_some_and(|unit| unit.pid == Some(pid)) {
            if start.elapsed() >= STOP_PATIENCE && !killed {
                children::signal(pid, Signal::KILL);
                killed = true;
            }
            units = self.wait(units, Duration::from_millis(200));
        }
    }

    fn supervise(&self, name: &'static str) {
        loop {
            let pid = {
                let mut units = self.lock();
                loop {
                    match units.get_mut(name) {
                        Some(unit) if unit.wanted => match self.spawn(name, &unit.argv) {
                            Ok(pid) => {
                                unit.pid = Some(pid);
                                unit.starts = unit.starts.saturating_add(1);
                                self.changed.notify_all();
                                break pid;
                            }
                            Err(error) => {
                                self.console
                                    .line(format!("{name}: cannot be started: {error}"));
                                units = self.pause(units, name);
                            }
                        },
                        _ => {
                            units = self
                                .changed
                                .wait(units)
                                .unwrap_or_else(PoisonError::into_inner);
                        }
                    }
                }
            };
            let ending = self.children.wait(pid);
            let mut units = self.lock();
            let Some(unit) = units.get_mut(name) else {
                return;
            };
            unit.pid = None;
            let is_wanted = unit.wanted;
            self.changed.notify_all();
            if is_wanted {
                self.console.line(format!(
                    "{name}: ended by itself ({ending}); it starts again"
                ));
                drop(self.pause(units, name));
            }
        }
    }

    /// Waits before a unit is started again, or until it is told anew what to do.
    fn pause<'a>(
        &self,
        mut units: MutexGuard<'a, BTreeMap<&'static str, Unit>>,
        name: &str,
    ) -> MutexGuard<'a, BTreeMap<&'static str, Unit>> {
        let start = Instant::now();
        while let Some(left) = RESTART_PAUSE.checked_sub(start.elapsed())
            && units.get(name).is_some_and(|unit| unit.wanted)
        {
            units = self.wait(units, left);
        }
        units
    }

    fn spawn(&self, name: &str, argv: &[String]) -> io::Result<u32> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(log_path(name))?;
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        clean(command.args(arguments))
            .stdout(log.try_clone()?)
            .stderr(log);
        if name == "containerd" {
            command.env("NOTIFY_SOCKET", NOTIFY);
        }
        self.children.spawn(&mut command)
    }

    /// Stops both, kubelet first.
    pub(super) fn stop_all(&self) {
        self.stop("kubelet");
        self.stop("containerd");
    }
}

/// A command with a machine's environment instead of the host's, reading nothing, in a process group of its own.
pub(super) fn clean(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0)
}

/// Where a unit's output goes.
pub(super) fn log_path(name: &str) -> String {
    format!("/var/log/{name}.log")
}
