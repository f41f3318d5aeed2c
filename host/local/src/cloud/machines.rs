//! The `machines` backend: real machines in namespaces of this host, with real kubeadm, kubelet and containerd.
//!
//! What is on disk is the truth: machines and networks outlive this process, and the next one finds them again. All work that blocks
//! runs on threads for it, one piece at a time for each machine and each network.

mod exec;
mod image;
mod instance;
mod network;
mod range;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};

pub(crate) use self::image::{Files, Find};
use self::instance::Instance;
use self::network::Network;
use super::backend::{
    Backend, BackendDir, BootOutcome, Counts, ExecOutput, Fault, MachineSpec, NetworkSpec,
};
use super::console::Console;
use super::disk;
use crate::machine::cgroup::Groups;
use crate::machine::layout::{Machine, REBOOT, Runner};

/// Between two looks at a machine that is on: reads two files of the kernel.
const LOOK: Duration = Duration::from_millis(100);

/// How long PID 1 may take to fill etcd's disk or to free it.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// The backend. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Machines {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    program: PathBuf,
    find: Find,
    /// The groups that the machines' groups are in.
    groups: Groups,
    /// Networks that are known, for questions that must not block.
    networks: Mutex<BTreeMap<String, Network>>,
    /// One lock for each machine and each network that something was done with.
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who waits for work that has not begun. When the wait is given up, the work must not begin any more: something else may have been
/// asked for since, a deletion for one.
#[derive(Default)]
struct Waiting {
    is_given_up: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.is_given_up.store(true, Ordering::Release);
    }
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn instances(dir: &Path) -> PathBuf {
    dir.join("instances")
}

fn networks(dir: &Path) -> PathBuf {
    dir.join("networks")
}

/// Where it is written down which control groups the machines are in: another process need not be in the same ones.
fn groups_file(dir: &Path) -> PathBuf {
    dir.join("groups.json")
}

fn subdirectories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Removes every machine and every network of a backend's directory from this host, whoever has started them; for `capstan local down`. The directory
/// itself stays.
pub(crate) fn remove_all(dir: &Path) -> io::Result<()> {
    let work: Vec<_> = subdirectories(&instances(dir))?
        .into_iter()
        .map(|path| std::thread::spawn(move || Instance::new(path).delete()))
        .collect();
    for thread in work {
        thread
            .join()
            .map_err(|_| io::Error::other("a machine could not be removed"))??;
    }
    for path in subdirectories(&networks(dir))? {
        if let Some(network) = Network::load(&path)? {
            network.tear_down()?;
        }
        fs::remove_dir_all(&path)?;
    }
    if let Some(groups) = disk::load::<Groups>(&groups_file(dir))? {
        groups.remove(Duration::from_secs(1))?;
        disk::remove(&groups_file(dir))?;
    }
    Ok(())
}

impl Machines {
    /// Opens the backend's directory: what is on stays on, and what is left of machines that have died is swept away. `program` is this one: it is
    /// what machines run.
    pub(crate) fn open(dir: BackendDir, program: PathBuf, find: Find) -> io::Result<Self> {
        fs::create_dir_all(&dir.0)?;
        let dir = dir.0.canonicalize()?;
        for part in [instances(&dir), networks(&dir)] {
            fs::create_dir_all(part)?;
        }
        let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let digits: String = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let groups = Groups::of_this_process()?.child(&format!("capstan-{digits}"));
        disk::save(&groups_file(&dir), &groups)?;
        let mut known = BTreeMap::new();
        for path in subdirectories(&networks(&dir))? {
            if let Some(network) = Network::load(&path)? {
                known.insert(network.id.clone(), network);
            }
        }
        let machines = Self {
            shared: Arc::new(Shared {
                dir,
                program,
                find,
                groups,
                networks: Mutex::new(known),
                turns: Mutex::default(),
            }),
        };
        machines.shared.sweep()?;
        Ok(machines)
    }

    /// Runs something that blocks for one machine, in its turn.
    async fn with<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(&Shared, &Instance) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        let waiting = Waiting::default();
        let is_given_up = Arc::clone(&waiting.is_given_up);
        blocking(move || {
            let turn = shared.turn(&id);
            let _held = locked(&turn);
            if is_given_up.load(Ordering::Acquire) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            work(&shared, &shared.instance(&id))
        })
        .await
    }

    /// Turns a machine on, or finds it so.
    async fn turn_on(&self, machine: &MachineSpec, console: &Console) -> io::Result<()> {
        let (spec, console) = (machine.clone(), console.clone());
        self.with(&machine.facts.instance_id, move |shared, instance| {
            shared.turn_on(instance, &spec, &console)
        })
        .await
    }

    /// Starts a machine again that has turned itself off to be started again; whether it was so.
    async fn rebooted(&self, id: &str) -> io::Result<bool> {
        self.with(id, |shared, instance| {
            if instance.running().is_some() {
                return Ok(true);
            }
            let Some(machine) = instance.machine()? else {
                return Ok(false);
            };
            if !instance.layout().state(REBOOT).exists() {
                return Ok(false);
            }
            shared.start(instance, &machine)?;
            Ok(true)
        })
        .await
    }

    /// Waits until the user data has run to its end.
    async fn outcome(&self, id: &str) -> BootOutcome {
        let instance = self.shared.instance(id);
        loop {
            match instance.outcome() {
                Ok(Some(outcome)) if outcome.done => return BootOutcome::Done(outcome.message),
                Ok(Some(outcome)) => return BootOutcome::Failed(outcome.message),
                Ok(None) if instance.running().is_some() => {}
                Ok(None) => match self.rebooted(id).await {
                    Ok(true) => {}
                    Ok(false) => {
                        return BootOutcome::Failed(
                            "the machine went off before its user data had run to its end".into(),
                        );
                    }
                    Err(error) => return BootOutcome::Failed(error.to_string()),
                },
                Err(error) => return BootOutcome::Failed(error.to_string()),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Shared {
    fn instance(&self, id: &str) -> Instance {
        Instance::new(instances(&self.dir).join(id))
    }

    fn network_dir(&self, id: &str) -> PathBuf {
        networks(&self.dir).join(id)
    }

    fn turn(&self, id: &str) -> Arc<Mutex<()>> {
        Arc::clone(locked(&self.turns).entry(id.to_owned()).or_default())
    }

    fn all_instances(&self) -> io::Result<Vec<Instance>> {
        Ok(subdirectories(&instances(&self.dir))?
            .into_iter()
            .map(Instance::new)
            .collect())
    }

    /// Machines of a network, on or off.
    fn machines_of(&self, network: &str) -> io::Result<Vec<(Instance, Machine)>> {
        let mut found = Vec::new();
        for instance in self.all_instances()? {
            if let Some(machine) = instance.machine()?
                && machine.network == network
            {
                found.push((instance, machine));
            }
        }
        Ok(found)
    }

    /// Removes what is left of machines that have died or never came to be; their disks stay.
    fn sweep(&self) -> io::Result<()> {
        for instance in self.all_instances()? {
            match instance.machine() {
                Ok(Some(_)) if instance.running().is_some() => {}
                Ok(Some(_)) => instance.kill()?,
                Ok(None) => instance.delete()?,
                Err(error) => {
                    let dir = instance.layout().dir().display();
                    tracing::warn!(%error, "the machine in {dir} cannot be read; it is left alone");
                }
            }
        }
        Ok(())
    }

    fn known_network(&self, id: &str) -> io::Result<Network> {
        locked(&self.networks)
            .get(id)
            .cloned()
            .ok_or_else(|| io::Error::other(format!("the network {id} is not ready")))
    }

    /// Makes a network, or what is missing of it, and plugs machines in again whose router is a new one.
    fn ensure_network(&self, spec: &NetworkSpec) -> io::Result<IpAddr> {
        let turn = self.turn(&spec.id);
        let _held = locked(&turn);
        let (network, is_new) = Network::ensure(&self.network_dir(&spec.id), spec)?;
        let host = network.block.host();
        locked(&self.networks).insert(spec.id.clone(), network.clone());
        if is_new {
            for (instance, machine) in self.machines_of(&spec.id)? {
                if let Some(running) = instance.running() {
                    network.plug(&machine, running.outer.pid)?;
                }
            }
        }
        Ok(host.into())
    }

    fn delete_network(&self, id: &str) -> io::Result<()> {
        let turn = self.turn(id);
        let _held = locked(&turn);
        let dir = self.network_dir(id);
        if let Some(network) = Network::load(&dir)? {
            network.tear_down()?;
        }
        locked(&self.networks).remove(id);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a machine of what is asked for, or finds what it was made of before, and turns it on.
    fn turn_on(
        &self,
        instance: &Instance,
        spec: &MachineSpec,
        console: &Console,
    ) -> io::Result<()> {
        if instance.running().is_some() {
            return Ok(());
        }
        let wish = wish::Wish::of(spec, &self.dir);
        let image = (self.find)(&spec.version, wish.runner).map_err(io::Error::other)?;
        let machine = {
            let turn = self.turn(&spec.network.id);
            let _held = locked(&turn);
            let machine = self.settle(instance, spec, &wish, &image, console)?;
            instance.make(&machine, &spec.user_data, &image.store)?;
            machine
        };
        self.start(instance, &machine)
    }

    /// Decides everything about a machine; called in its network's turn, since a number in the network goes with it.
    fn settle(
        &self,
        instance: &Instance,
        spec: &MachineSpec,
        wish: &wish::Wish,
        image: &Files,
        console: &Console,
    ) -> io::Result<Machine> {
        let id = &spec.facts.instance_id;
        let mut network = self.known_network(&spec.network.id)?;
        let before = instance.machine()?;
        let others = self.machines_of(&network.id)?;
        let taken: BTreeSet<u8> = others
            .iter()
            .filter(|(_, machine)| machine.instance != *id)
            .map(|(_, machine)| machine.index)
            .collect();
        if let Some(pods) = &wish.pods
            && *pods != network.pods
            && others.is_empty()
        {
            network.pods.clone_from(pods);
            network.save(&self.network_dir(&network.id))?;
            locked(&self.networks).insert(network.id.clone(), network.clone());
        }
        let index = before
            .as_ref()
            .map(|machine| machine.index)
            .or_else(|| (1..=u8::MAX).find(|index| !taken.contains(index)))
            .ok_or_else(|| io::Error::other(format!("the network {} is full", network.name)))?;
        let place = network.place(&spec.facts.zone)?;
        let no_zone = || io::Error::other("the network has no subnet for the zone");
        Ok(Machine {
            instance: id.clone(),
            hostname: spec.facts.hostname.clone(),
            provider_id: spec.facts.provider_id.clone(),
            zone: spec.facts.zone.clone(),
            network: network.id.clone(),
            address: spec.facts.address.parse().map_err(io::Error::other)?,
            gateway: network.block.gateway(place).ok_or_else(no_zone)?,
            index,
            pods: network.pods_of(index)?.to_string(),
            pod_range: network.pods.clone(),
            range: network.block.range().to_string(),
            uplink: network.block.uplink().to_string(),
            version: spec.version.clone(),
            lower: image.lower.clone(),
            memory_bytes: u64::from(spec.memory_mib) << 20,
            etcd_disk: before.map_or(wish.etcd_disk, |machine| machine.etcd_disk),
            runner: wish.runner,
            console: console.path().to_owned(),
            groups: self.groups.child(id),
        })
    }

    /// Starts a machine's processes and plugs it in; when that fails, it is off.
    fn start(&self, instance: &Instance, machine: &Machine) -> io::Result<()> {
        let network = self.known_network(&machine.network)?;
        let running = instance.start(machine, &self.program)?;
        let plugged = network.plug(machine, running.outer.pid);
        if plugged.is_err() {
            instance.kill()?;
        }
        plugged
    }

    fn delete(&self, instance: &Instance, id: &str) -> io::Result<()> {
        if let Ok(Some(machine)) = instance.machine()
            && let Ok(network) = self.known_network(&machine.network)
        {
            network.unplug(&machine)?;
        }
        instance.delete()?;
        locked(&self.turns).remove(id);
        Ok(())
    }

    fn fault(&self, instance: &Instance, fault: Fault) -> io::Result<()> {
        let running = instance.must_run()?;
        let link = |is_up| {
            let Some(machine) = instance.machine()? else {
                return Ok(());
            };
            let network = self.known_network(&machine.network)?;
            network.set_link(&machine, is_up)
        };
        match fault {
            Fault::Kill => {
                drop(running);
                instance.kill()
            }
            Fault::Freeze => instance.freeze(true),
            Fault::Thaw => instance.freeze(false),
            Fault::LinkDown => link(false),
            Fault::LinkUp => link(true),
            Fault::FillDisk => instance.ask("capstan-fill-disk", DISK_PATIENCE).map(drop),
            Fault::FreeDisk => instance.ask("capstan-free-disk", DISK_PATIENCE).map(drop),
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the backend \"machines\" does not have this fault; the backend \"light\" does",
            )),
        }
    }
}

impl Backend for Machines {
    fn ensure_network(&self, network: NetworkSpec) -> BoxFuture<'_, io::Result<IpAddr>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || shared.ensure_network(&network)))
    }

    fn delete_network(&self, id: &str) -> BoxFuture<'_, io::Result<()>> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        Box::pin(blocking(move || shared.delete_network(&id)))
    }

    fn check_image(&self, version: &str) -> Result<(), String> {
        (self.shared.find)(version, Runner::Builtin).map(drop)
    }

    fn address(
        &self,
        network: &NetworkSpec,
        zone: &str,
        taken: &BTreeSet<IpAddr>,
    ) -> io::Result<IpAddr> {
        let network = self.shared.known_network(&network.id)?;
        let is_taken = |address| taken.contains(&IpAddr::V4(address));
        network::free_address(&network, zone, is_taken).map(IpAddr::V4)
    }

    fn bootstrap(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, BootOutcome> {
        Box::pin(async move {
            if let Err(error) = self.turn_on(&machine, &console).await {
                console.line(format!("boot: ERROR: {error}"));
                return BootOutcome::Failed(format!("the machine cannot be turned on: {error}"));
            }
            self.outcome(&machine.facts.instance_id).await
        })
    }

    fn boot(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.turn_on(&machine, &console)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn until_off(&self, instance: &str) -> BoxFuture<'_, String> {
        let id = instance.to_owned();
        Box::pin(async move {
            let instance = self.shared.instance(&id);
            loop {
                if instance.running().is_none() {
                    match self.rebooted(&id).await {
                        Ok(true) => {}
                        Ok(false) => return "its PID 1 has ended".to_owned(),
                        Err(error) => return format!("it cannot be started again: {error}"),
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    fn stop(&self, instance: &str) -> BoxFuture<'_, io::Result<()>> {
        let id = instance.to_owned();
        Box::pin(async move { self.with(&id, |_, instance| instance.stop()).await })
    }

    fn delete(&self, instance: &str) -> BoxFuture<'_, io::Result<()>> {
        let id = instance.to_owned();
        Box::pin(async move {
            let own = id.clone();
            self.with(&id, move |shared, instance| shared.delete(instance, &own))
                .await
        })
    }

    fn fault(&self, instance: &str, fault: Fault) -> BoxFuture<'_, io::Result<()>> {
        let id = instance.to_owned();
        Box::pin(async move {
            self.with(&id, move |shared, instance| shared.fault(instance, fault))
                .await
        })
    }

    fn exec(&self, instance: &str, argv: Vec<String>) -> BoxFuture<'_, io::Result<ExecOutput>> {
        let id = instance.to_owned();
        Box::pin(async move {
            let running = self.shared.instance(&id).must_run()?;
            exec::run(running.init.pid, &argv).await
        })
    }

    fn unit_log(&self, instance: &str, unit: &str) -> io::Result<Vec<u8>> {
        self.shared.instance(instance).unit_log(unit)
    }

    fn checks_readiness(&self) -> bool {
        true
    }

    /// Machines outlive the process.
    fn shut_down(&self) {}

    fn counts(&self) -> Counts {
        let running = self.shared.all_instances().unwrap_or_default();
        let machines: Vec<Machine> = running
            .iter()
            .filter(|instance| instance.running().is_some())
            .filter_map(|instance| instance.machine().ok().flatten())
            .collect();
        let networks: BTreeSet<&str> = machines
            .iter()
            .map(|machine| machine.network.as_str())
            .collect();
        Counts {
            clusters: networks.len(),
            nodes: machines.len(),
            etcd_refusals: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
