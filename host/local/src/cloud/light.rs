//! The `light` backend: machines that exist only as far as the cloud's API and their workload cluster's API show, hundreds in one process.

mod api;
mod apply;
mod boot;
mod client;
mod cluster;
mod controllers;
mod discovery;
mod etcd;
mod forward;
mod identity;
mod ills;
mod init;
mod join;
mod journal;
mod k3s;
mod kubeadm;
mod kubelets;
mod object;
mod patch;
mod pki;
mod pods;
mod prepare;
mod rbac;
mod report;
mod request;
mod resources;
mod selectors;
mod server;
mod signing;
mod status;
mod store;
mod table;
mod token;
mod trust;
mod verbs;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;

use super::backend::{
    Backend, BackendDir, BootOutcome, Counts, ExecOutput, Fault, MachineSpec, NetworkSpec,
};
use super::console::Console;
use cluster::Cluster;
pub use cluster::Tempo;
use ills::Ill;

/// Port on which a control-plane machine's API server listens.
pub(crate) const API_PORT: u16 = 6443;

/// The first machine's number in 127.x.0.0/16: the ones before are the cloud's own.
const FIRST_ADDRESS: u16 = 9;

/// The last machine's number.
const LAST_ADDRESS: u16 = 64_999;

/// The backend: its clusters by UID.
pub(crate) struct Light {
    dir: BackendDir,
    tempo: Tempo,
    clusters: Mutex<BTreeMap<String, Arc<Cluster>>>,
    second_octet: u8,
    /// Third and fourth octet of the address that is tried next; absent until the first one is asked for.
    next_address: Mutex<Option<u16>>,
}

impl Light {
    /// Opens the backend's directory with the clusters that are in it; none serves until its machines boot. Machines get addresses 127.x.0.0/16.
    pub(crate) fn open(dir: BackendDir, tempo: Tempo, second_octet: u8) -> io::Result<Self> {
        fs::create_dir_all(&dir.0)?;
        let mut clusters = BTreeMap::new();
        for entry in fs::read_dir(&dir.0)? {
            let path = entry?.path();
            match Cluster::open(&path, tempo)? {
                Some(cluster) => {
                    clusters.insert(cluster.uid.clone(), cluster);
                }
                None => fs::remove_dir_all(&path)?,
            }
        }
        Ok(Self {
            dir,
            tempo,
            clusters: Mutex::new(clusters),
            second_octet,
            next_address: Mutex::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Cluster>>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cluster(&self, uid: &str) -> Option<Arc<Cluster>> {
        self.lock().get(uid).cloned()
    }

    fn all(&self) -> Vec<Arc<Cluster>> {
        self.lock().values().cloned().collect()
    }

    /// The cluster that a machine is a control-plane member of.
    fn cluster_of_member(&self, instance: &str) -> Option<Arc<Cluster>> {
        self.all()
            .into_iter()
            .find(|cluster| cluster.member(instance).is_some())
    }

    fn add(&self, cluster: Arc<Cluster>) {
        self.lock().insert(cluster.uid.clone(), cluster);
    }

    /// Plays a fault on the etcd, the API server or the kubelet of a control-plane machine.
    fn afflict(&self, instance: &str, fault: Fault) -> io::Result<()> {
        let is_disk = matches!(fault, Fault::FillDisk | Fault::FreeDisk);
        if !is_disk && Ill::of(fault).is_none() {
            return Err(only_on_real_machines("this fault"));
        }
        let Some(cluster) = self.cluster_of_member(instance) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "of light machines, only those of a control plane have this fault",
            ));
        };
        match Ill::of(fault) {
            Some((ill, is_ill)) => cluster
                .set_ill(instance, ill, is_ill)
                .map_err(io::Error::other),
            // What is full is the database: the alarm is what shows.
            None => {
                let is_full = fault == Fault::FillDisk;
                cluster.with_etcd(|etcd, _| etcd.set_no_space(instance, is_full));
                Ok(())
            }
        }
    }

    fn turn_off(&self, instance: &str) {
        for cluster in self.all() {
            cluster.stop_serving(instance);
            cluster.remove_kubelet(instance);
        }
    }

    fn remove(&self, instance: &str) -> io::Result<()> {
        self.turn_off(instance);
        for cluster in self.all() {
            if cluster.remove_member(instance)? {
                self.lock().remove(&cluster.uid);
                cluster.destroy()?;
            } else {
                cluster.forget_node(instance)?;
            }
        }
        Ok(())
    }
}

/// The number behind the highest one that is taken of these addresses: one that was in use a moment ago is not handed out again at once.
fn after_the_last(second_octet: u8, taken: &BTreeSet<IpAddr>) -> u16 {
    let numbers = taken.iter().filter_map(|address| match address {
        IpAddr::V4(address) => match address.octets() {
            [127, second, third, fourth] if second == second_octet => {
                Some(u16::from_be_bytes([third, fourth]))
            }
            _ => None,
        },
        IpAddr::V6(_) => None,
    });
    let last = numbers.max().unwrap_or_default();
    last.saturating_add(1).clamp(FIRST_ADDRESS, LAST_ADDRESS)
}

/// A light machine has no processes and no disk.
fn only_on_real_machines(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the backend \"light\" does not have {what}; the backend \"machines\" does"),
    )
}

impl Backend for Light {
    fn ensure_network(&self, _network: NetworkSpec) -> BoxFuture<'_, io::Result<IpAddr>> {
        Box::pin(async { Ok(Ipv4Addr::LOCALHOST.into()) })
    }

    fn delete_network(&self, _id: &str) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn check_image(&self, _version: &str) -> Result<(), String> {
        Ok(())
    }

    fn address(
        &self,
        _network: &NetworkSpec,
        _zone: &str,
        taken: &BTreeSet<IpAddr>,
    ) -> io::Result<IpAddr> {
        let mut next = self
            .next_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut number = next.unwrap_or_else(|| after_the_last(self.second_octet, taken));
        for _ in 0..u16::MAX {
            let [third, fourth] = number.to_be_bytes();
            number = number
                .checked_add(1)
                .filter(|number| *number <= LAST_ADDRESS)
                .unwrap_or(FIRST_ADDRESS);
            let address = IpAddr::from([127, self.second_octet, third, fourth]);
            if fourth != 0 && fourth != 255 && !taken.contains(&address) {
                *next = Some(number);
                return Ok(address);
            }
        }
        Err(io::Error::other(format!(
            "no address of 127.{}.0.0/16 is free",
            self.second_octet
        )))
    }

    fn bootstrap(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, BootOutcome> {
        Box::pin(async move { boot::first(self, &machine, &console).await })
    }

    fn boot(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { boot::again(self, &machine, &console).await })
    }

    fn until_off(&self, _instance: &str) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    fn stop(&self, instance: &str) -> BoxFuture<'_, io::Result<()>> {
        self.turn_off(instance);
        Box::pin(async { Ok(()) })
    }

    fn delete(&self, instance: &str) -> BoxFuture<'_, io::Result<()>> {
        let removed = self.remove(instance);
        Box::pin(async { removed })
    }

    fn fault(&self, instance: &str, fault: Fault) -> BoxFuture<'_, io::Result<()>> {
        let played = match fault {
            Fault::Kill => {
                self.turn_off(instance);
                Ok(())
            }
            fault => self.afflict(instance, fault),
        };
        Box::pin(async { played })
    }

    fn exec(&self, _instance: &str, _argv: Vec<String>) -> BoxFuture<'_, io::Result<ExecOutput>> {
        Box::pin(async { Err(only_on_real_machines("running a command")) })
    }

    fn unit_log(&self, _instance: &str, _unit: &str) -> io::Result<Vec<u8>> {
        Err(only_on_real_machines("the log of a unit"))
    }

    fn checks_readiness(&self) -> bool {
        false
    }

    fn shut_down(&self) {
        for cluster in self.all() {
            cluster.stop();
        }
    }

    fn counts(&self) -> Counts {
        let all = self.all();
        let nodes = all
            .iter()
            .map(|cluster| cluster.store.count(resources::nodes()))
            .sum();
        let refusals = all.iter().flat_map(|cluster| cluster.etcd_refusals());
        Counts {
            clusters: all.len(),
            nodes,
            etcd_refusals: refusals.collect(),
        }
    }
}
