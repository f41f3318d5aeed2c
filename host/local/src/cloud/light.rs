//! The `light` backend: machines that exist only as far as the cloud's API and their workload cluster's API show, hundreds in one process.

mod api;
mod apply;
mod boot;
mod client;
mod cluster;
mod controllers;
mod discovery;
mod identity;
mod init;
mod join;
mod journal;
mod kubeadm;
mod kubelets;
mod object;
mod patch;
mod pki;
mod pods;
mod prepare;
mod rbac;
mod request;
mod resources;
mod selectors;
mod server;
mod signing;
mod status;
mod store;
mod table;
mod token;
mod verbs;
mod watching;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;

use super::backend::{Backend, BackendDir, BootOutcome, Counts, MachineSpec};
use super::console::Console;
use cluster::Cluster;
pub use cluster::Tempo;

/// Port on which a control-plane machine's API server listens.
pub(crate) const API_PORT: u16 = 6443;

/// The backend: its clusters by UID.
pub(crate) struct Light {
    dir: BackendDir,
    tempo: Tempo,
    clusters: Mutex<BTreeMap<String, Arc<Cluster>>>,
}

impl Light {
    /// Opens the backend's directory with the clusters that are in it; none serves until its machines boot.
    pub(crate) fn open(dir: BackendDir, tempo: Tempo) -> io::Result<Self> {
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
}

impl Backend for Light {
    fn bootstrap(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, BootOutcome> {
        Box::pin(async move { boot::first(self, &machine, &console).await })
    }

    fn boot(&self, machine: MachineSpec, console: Console) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { boot::again(self, &machine, &console).await })
    }

    fn stop(&self, instance: &str) {
        for cluster in self.all() {
            cluster.stop_serving(instance);
            cluster.remove_kubelet(instance);
        }
    }

    fn delete(&self, instance: &str) -> io::Result<()> {
        self.stop(instance);
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
        Counts {
            clusters: all.len(),
            nodes,
        }
    }
}
