//! One workload cluster of the `light` backend: its content, its control-plane members and its kubelets.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::etcd::{Etcd, Membership, Running, Unusable};
use super::ills::{Ill, Ills};
use super::pki;
use super::store::Store;
use super::trust::{KubeletTrust, Member};
use super::{controllers, server::ApiServer};
use crate::cloud::backend::EtcdRefusal;
use crate::cloud::disk;

/// How fast things happen inside workload clusters.
#[derive(Debug, Clone, Copy)]
pub struct Tempo {
    /// Between two heartbeats of a kubelet.
    pub heartbeat: Duration,
    /// How long a Node may be silent before it counts as unreachable.
    pub node_grace: Duration,
    /// From registration until a Node is ready (its network is up).
    pub node_ready: Duration,
    /// From a pod's binding until it runs.
    pub pod_start: Duration,
    /// How long a pod takes to end when it is asked to; never longer than its grace period.
    pub pod_stop: Duration,
    /// How long kubeadm waits for what must be there (an API server, a certificate).
    pub kubeadm_timeout: Duration,
    /// How long kubeadm waits for a learner of etcd to get its vote.
    pub promotion_timeout: Duration,
    /// How much longer all takes that needs a slow disk.
    pub slow_disk: Duration,
}

impl Default for Tempo {
    /// Kubernetes' defaults for heartbeats, grace (40 s) and kubeadm (4 min, of etcd 2 min); a quick machine for the rest.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            node_grace: Duration::from_secs(40),
            node_ready: Duration::from_millis(300),
            pod_start: Duration::from_millis(100),
            pod_stop: Duration::from_millis(200),
            kubeadm_timeout: Duration::from_secs(240),
            promotion_timeout: Duration::from_secs(120),
            slow_disk: Duration::from_secs(1),
        }
    }
}

/// What is on disk beside the content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    /// UID of `kube-system`: the cluster's identity.
    pub(crate) uid: String,
    /// Version of the API server.
    pub(crate) version: String,
    /// `host:port` of the control plane endpoint.
    pub(crate) endpoint: String,
    /// Control-plane instances and their Nodes' names.
    pub(crate) members: BTreeMap<String, String>,
    /// Instances with a kubelet in this cluster and their Nodes' names.
    #[serde(default)]
    pub(crate) nodes: BTreeMap<String, String>,
    /// Who is a member of its etcd.
    #[serde(default)]
    pub(crate) etcd: Membership,
}

/// A machine's kubelet, as far as it shows in the API.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet {
    /// The machine's instance.
    pub(crate) instance: String,
    /// The machine's address.
    pub(crate) address: String,
    /// When its Node becomes ready.
    pub(crate) ready_at: Instant,
    /// When it stops reporting, by a fault.
    pub(crate) silent_at: Option<Instant>,
    /// Whom it trusts; absent for one of before a restart of the cloud.
    pub(crate) trust: Option<KubeletTrust>,
}

struct State {
    meta: Meta,
    /// Authorities of the members that serve.
    authorities: BTreeMap<String, Arc<Member>>,
    /// Whose controller manager acts: one that leads goes on until it is gone.
    leader: Option<String>,
    servers: BTreeMap<String, ApiServer>,
    etcds: BTreeMap<String, Etcd>,
    kubelets: BTreeMap<String, Kubelet>,
    ills: Ills,
    task: Option<JoinHandle<()>>,
}

impl State {
    /// Where an etcd runs that the other members reach.
    fn running(&self) -> Running {
        let reached = self.etcds.keys().filter(|on| !self.ills.is_apart(on));
        reached.cloned().collect()
    }
}

/// One workload cluster.
pub(crate) struct Cluster {
    /// UID of `kube-system`.
    pub(crate) uid: String,
    /// What it holds.
    pub(crate) store: Store,
    /// How fast things happen.
    pub(crate) tempo: Tempo,
    dir: PathBuf,
    state: Mutex<State>,
}

impl Cluster {
    /// Makes a new cluster below `root`; nothing is there yet.
    pub(crate) fn create(root: &Path, meta: Meta, tempo: Tempo) -> io::Result<Arc<Self>> {
        let dir = root.join(&meta.uid);
        let store = Store::open(&dir)?;
        let cluster = Self::assemble(dir, store, meta, tempo);
        cluster.save()?;
        Ok(cluster)
    }

    /// Opens a cluster that an earlier process made; absent when that was killed before it was whole.
    pub(crate) fn open(dir: &Path, tempo: Tempo) -> io::Result<Option<Arc<Self>>> {
        let Some(meta) = disk::load::<Meta>(&dir.join("cluster.json"))? else {
            return Ok(None);
        };
        let store = Store::open(dir)?;
        Ok(Some(Self::assemble(dir.to_owned(), store, meta, tempo)))
    }

    fn assemble(dir: PathBuf, store: Store, meta: Meta, tempo: Tempo) -> Arc<Self> {
        let state = State {
            meta: meta.clone(),
            authorities: BTreeMap::new(),
            leader: None,
            servers: BTreeMap::new(),
            etcds: BTreeMap::new(),
            kubelets: BTreeMap::new(),
            ills: Ills::default(),
            task: None,
        };
        let cluster = Arc::new(Self {
            uid: meta.uid,
            store,
            tempo,
            dir,
            state: Mutex::new(state),
        });
        let task = tokio::spawn(controllers::run(Arc::downgrade(&cluster)));
        cluster.lock().task = Some(task);
        cluster
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) -> io::Result<()> {
        disk::save(&self.dir.join("cluster.json"), &self.lock().meta)
    }

    /// Version of the API server.
    pub(crate) fn version(&self) -> String {
        self.lock().meta.version.clone()
    }

    /// `host:port` of the control plane endpoint.
    pub(crate) fn endpoint(&self) -> String {
        self.lock().meta.endpoint.clone()
    }

    /// The authorities of the member whose controller manager acts, while one serves.
    pub(crate) fn leader(&self) -> Option<Arc<Member>> {
        let mut state = self.lock();
        let leads = state.leader.as_ref();
        if !leads.is_some_and(|leader| state.servers.contains_key(leader)) {
            let mut members = state.authorities.keys();
            let next = members.find(|instance| state.servers.contains_key(*instance));
            state.leader = next.cloned();
        }
        let leader = state.leader.as_ref()?;
        state.authorities.get(leader).cloned()
    }

    /// Whether a client that trusts these accepts every API server that it may come to.
    pub(crate) fn is_accepted_by(
        &self,
        roots: &[rustls_pki_types::CertificateDer<'static>],
    ) -> bool {
        let state = self.lock();
        let mut serving = state.servers.keys();
        serving.all(|instance| {
            let member = state.authorities.get(instance);
            member.is_none_or(|member| roots.contains(member.authority.certificate()))
        })
    }

    /// Whether a kubelet may come to an API server that it does not accept, or that does not accept it.
    pub(crate) fn distrust(&self, kubelet: &Kubelet) -> bool {
        let Some(trust) = &kubelet.trust else {
            return false;
        };
        let state = self.lock();
        let reached = state
            .servers
            .keys()
            .filter(|instance| !trust.is_local || **instance == kubelet.instance);
        let mut members = reached.filter_map(|instance| state.authorities.get(instance));
        members.any(|member| !trust.fits(member))
    }

    /// The Node name of a member.
    pub(crate) fn member(&self, instance: &str) -> Option<String> {
        self.lock().meta.members.get(instance).cloned()
    }

    /// Adds a control-plane member, durably.
    pub(crate) fn add_member(&self, instance: &str, node: &str, version: &str) -> io::Result<()> {
        let mut state = self.lock();
        state
            .meta
            .members
            .insert(instance.to_owned(), node.to_owned());
        state.meta.version = version.to_owned();
        drop(state);
        self.save()
    }

    /// Takes out a member; tells whether it was the last.
    pub(crate) fn remove_member(&self, instance: &str) -> io::Result<bool> {
        let mut state = self.lock();
        state.servers.remove(instance);
        state.authorities.remove(instance);
        state.etcds.remove(instance);
        let removed = state.meta.members.remove(instance).is_some();
        let is_empty = state.meta.members.is_empty();
        drop(state);
        if removed && !is_empty {
            self.save()?;
        }
        Ok(removed && is_empty)
    }

    /// Begins to serve on a member.
    pub(crate) fn serve(&self, instance: &str, member: Member, server: ApiServer) {
        let mut state = self.lock();
        state
            .authorities
            .insert(instance.to_owned(), Arc::new(member));
        state.servers.insert(instance.to_owned(), server);
        drop(state);
        self.store.woken.notify_one();
    }

    /// Stops serving on a member.
    pub(crate) fn stop_serving(&self, instance: &str) {
        let mut state = self.lock();
        state.servers.remove(instance);
        state.etcds.remove(instance);
        state.ills.clear(instance);
    }

    /// Looks at the membership of etcd, and changes it durably. A member that is out of it stops, and the API server of its machine with it.
    pub(crate) fn with_etcd<T>(&self, act: impl FnOnce(&mut Membership, &Running) -> T) -> T {
        let mut state = self.lock();
        let running = state.running();
        let before = (
            state.meta.etcd.members.clone(),
            state.meta.etcd.alarms.clone(),
        );
        let answer = act(&mut state.meta.etcd, &running);
        let is_changed =
            (&state.meta.etcd.members, &state.meta.etcd.alarms) != (&before.0, &before.1);
        let gone: Vec<String> = state
            .etcds
            .keys()
            .filter(|instance| state.meta.etcd.id_of(instance).is_none())
            .cloned()
            .collect();
        for instance in gone {
            state.etcds.remove(&instance);
            state.servers.remove(&instance);
        }
        drop(state);
        if is_changed && let Err(error) = self.save() {
            tracing::warn!(%error, cluster = %self.uid, "the members of a light etcd could not be written");
        }
        answer
    }

    /// What its etcd refused for its majority's sake.
    pub(crate) fn etcd_refusals(&self) -> Vec<EtcdRefusal> {
        self.lock().meta.etcd.asked.refusals().to_vec()
    }

    /// Begins to run etcd on a machine that is a member.
    pub(crate) fn start_etcd(&self, instance: &str, etcd: Etcd) {
        self.lock().etcds.insert(instance.to_owned(), etcd);
    }

    /// Gives a member its vote, unless somebody keeps it from catching up.
    pub(crate) fn promote(&self, instance: &str) -> Result<(), &'static str> {
        let is_starved = self.starves_learners(instance);
        self.with_etcd(|membership, running| membership.promote_on(running, instance, is_starved))
    }

    /// Whether a member keeps learners from catching up: any but the one on this machine.
    pub(crate) fn starves_learners(&self, instance: &str) -> bool {
        let state = self.lock();
        let mut others = state.running().into_iter().filter(|on| on != instance);
        others.any(|on| state.ills.has(&on, Ill::StarvesLearners))
    }

    /// Lets something begin to be wrong with a machine, or end.
    pub(crate) fn set_ill(&self, instance: &str, ill: Ill, is_ill: bool) -> Result<(), String> {
        let foreign = pki::foreign_server_config().map_err(|error| error.to_string())?;
        let mut guard = self.lock();
        let state = &mut *guard;
        state.ills.set(instance, ill, is_ill);
        let silent_at = state.ills.is_silent(instance).then(Instant::now);
        for kubelet in state.kubelets.values_mut() {
            if kubelet.instance == instance {
                kubelet.silent_at = silent_at;
            }
        }
        if let Some(server) = state.servers.get(instance) {
            server.listen(!state.ills.is_deaf(instance));
        }
        if let Some(etcd) = state.etcds.get_mut(instance) {
            let is_foreign = state.ills.has(instance, Ill::WrongCertificate);
            let is_behind = state.ills.has(instance, Ill::WrongClock);
            let tls = is_foreign.then_some(foreign);
            etcd.serve_as(tls.or_else(|| is_behind.then(|| etcd.behind())));
        }
        drop(guard);
        self.store.woken.notify_one();
        Ok(())
    }

    /// Whether this is wrong with a machine.
    pub(crate) fn has_ill(&self, instance: &str, ill: Ill) -> bool {
        self.lock().ills.has(instance, ill)
    }

    /// How much longer all takes on a machine.
    pub(crate) fn delay_of(&self, instance: &str) -> Option<Duration> {
        let is_slow = self.has_ill(instance, Ill::SlowDisk);
        is_slow.then_some(self.tempo.slow_disk)
    }

    /// How the etcd of a machine is served, and what ends with it.
    pub(crate) fn etcd_of(
        &self,
        instance: &str,
    ) -> Option<(Arc<rustls::ServerConfig>, tokio::sync::watch::Receiver<()>)> {
        let state = self.lock();
        let runs = !state.ills.has(instance, Ill::NoEtcd);
        let etcd = state.etcds.get(instance).filter(|_| runs)?;
        Some((etcd.tls(), etcd.stopped()))
    }

    /// Why the API server of a machine gets nothing from etcd, if so: it asks the one beside it.
    pub(crate) fn unusable_etcd(&self, instance: &str, writes: bool) -> Option<Unusable> {
        let state = self.lock();
        let (etcd, running) = (&state.meta.etcd, state.running());
        if etcd.members.is_empty() {
            return None;
        }
        if !etcd.has_majority(&running) || !running.contains(instance) {
            return Some(Unusable::NoMajority);
        }
        (writes && etcd.has_no_space()).then_some(Unusable::NoSpace)
    }

    /// Whether any member serves: without one the cluster's controllers and kubelets can do nothing.
    pub(crate) fn is_up(&self) -> bool {
        !self.lock().servers.is_empty()
    }

    /// Starts a kubelet for a Node.
    pub(crate) fn add_kubelet(&self, node: &str, kubelet: Kubelet) -> io::Result<()> {
        let mut state = self.lock();
        let before = state
            .meta
            .nodes
            .insert(kubelet.instance.clone(), node.to_owned());
        state.kubelets.insert(node.to_owned(), kubelet);
        drop(state);
        self.store.woken.notify_one();
        if before.as_deref() == Some(node) {
            Ok(())
        } else {
            self.save()
        }
    }

    /// The Node of an instance that has joined this cluster.
    pub(crate) fn node_of(&self, instance: &str) -> Option<String> {
        self.lock().meta.nodes.get(instance).cloned()
    }

    /// Forgets an instance that is gone.
    pub(crate) fn forget_node(&self, instance: &str) -> io::Result<()> {
        let removed = self.lock().meta.nodes.remove(instance).is_some();
        if removed { self.save() } else { Ok(()) }
    }

    /// Stops the kubelet of an instance.
    pub(crate) fn remove_kubelet(&self, instance: &str) {
        self.lock()
            .kubelets
            .retain(|_, kubelet| kubelet.instance != instance);
    }

    /// The kubelet of a Node.
    pub(crate) fn kubelet(&self, node: &str) -> Option<Kubelet> {
        self.lock().kubelets.get(node).cloned()
    }

    /// All kubelets by Node name.
    pub(crate) fn kubelets(&self) -> BTreeMap<String, Kubelet> {
        self.lock().kubelets.clone()
    }

    /// Ends the cluster: its members' disks are gone.
    pub(crate) fn destroy(&self) -> io::Result<()> {
        self.stop();
        disk::remove(&self.dir.join("cluster.json"))?;
        std::fs::remove_dir_all(&self.dir)
    }

    /// Stops everything that runs.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.servers.clear();
        state.etcds.clear();
        state.kubelets.clear();
        if let Some(task) = state.task.take() {
            task.abort();
        }
    }
}
