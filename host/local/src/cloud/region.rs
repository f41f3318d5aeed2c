//! Everything the cloud holds, in memory and on disk; all changes of resources go through here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::absent::Absent;
use super::answer::Refusal;
use super::backend::{Backend, BackendDir};
use super::backends::{Backends, MACHINES};
use super::balancer::Balancer;
use super::console::Console;
use super::disk;
use super::faults::{Faults, Rules};
use super::light::Light;
use super::records::{Head, Instance, LoadBalancer, Network, Record, Tags};
use super::{CloudError, Options};

/// How long a used idempotency key is remembered after its resource is gone.
const KEY_LIFETIME_S: i64 = 24 * 3600;

/// A key that was used.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsedKey {
    /// Kind of resource.
    pub(crate) kind: String,
    /// The key.
    pub(crate) key: String,
    /// Digest of the body.
    pub(crate) digest: String,
    /// What it made.
    pub(crate) id: String,
    /// When that was deleted, in seconds since 1970.
    pub(crate) deleted_s: Option<i64>,
}

/// The content.
pub(crate) struct Records {
    /// Networks by id.
    pub(crate) networks: BTreeMap<String, Network>,
    /// Load balancers by id.
    pub(crate) balancers: BTreeMap<String, LoadBalancer>,
    /// Instances by id.
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Used keys by kind and key.
    pub(crate) keys: BTreeMap<(String, String), UsedKey>,
    /// Running load balancers.
    pub(crate) ports: BTreeMap<String, Balancer>,
    /// What is going on with an instance.
    pub(crate) tasks: BTreeMap<String, JoinHandle<()>>,
    /// Requests by operation.
    pub(crate) requests: BTreeMap<String, u64>,
    /// Fault rules.
    pub(crate) faults: Faults,
    next_serial: u64,
}

/// The cloud's content and what runs it.
pub(crate) struct Region {
    dir: PathBuf,
    /// How long provisioning takes.
    pub(crate) provision_delay: Duration,
    /// What runs networks and instances.
    pub(crate) backends: Backends,
    records: Mutex<Records>,
}

fn load<T: Record + DeserializeOwned>(dir: &Path) -> io::Result<BTreeMap<String, T>> {
    let all: Vec<T> = disk::load_all(&dir.join(T::DIR))?;
    Ok(all
        .into_iter()
        .map(|record| (record.head().id.clone(), record))
        .collect())
}

/// Everything that an earlier process left in the directory.
fn read(dir: &Path) -> io::Result<Records> {
    std::fs::create_dir_all(dir.join("consoles"))?;
    let networks: BTreeMap<String, Network> = load(dir)?;
    let mut balancers: BTreeMap<String, LoadBalancer> = load(dir)?;
    let instances: BTreeMap<String, Instance> = load(dir)?;
    for balancer in balancers.values_mut() {
        balancer
            .targets
            .retain(|target| instances.contains_key(target));
    }
    let keys = load_keys(dir, &networks, &balancers, &instances)?;
    let serials = networks.values().map(|record| record.head.serial);
    let serials = serials
        .chain(balancers.values().map(|record| record.head.serial))
        .chain(instances.values().map(|record| record.head.serial));
    let next_serial = serials.max().unwrap_or(0).saturating_add(1);
    let rules: Rules = disk::load(&dir.join("faults.json"))?.unwrap_or_default();
    Ok(Records {
        networks,
        balancers,
        instances,
        keys,
        ports: BTreeMap::new(),
        tasks: BTreeMap::new(),
        requests: BTreeMap::new(),
        faults: Faults::new(rules),
        next_serial,
    })
}

impl Region {
    /// Opens the directory.
    pub(crate) fn open(options: &Options, second_octet: u8) -> Result<Arc<Self>, CloudError> {
        let dir = options.dir.clone();
        let bad_dir = |error| CloudError::Dir(dir.clone(), error);
        let records = read(&dir).map_err(bad_dir)?;
        let has_machines = records
            .networks
            .values()
            .any(|network| network.backend == MACHINES);
        let light = Light::open(BackendDir(dir.join("light")), options.tempo, second_octet)
            .map_err(bad_dir)?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(bad_dir)?,
        };
        let backends = Backends::open(
            Arc::new(light),
            BackendDir(dir.join("machines")),
            program,
            options.backend,
            has_machines,
        )
        .map_err(CloudError::Backend)?;
        Ok(Arc::new(Self {
            dir,
            provision_delay: options.provision_delay,
            backends,
            records: Mutex::new(records),
        }))
    }

    /// The content, locked: never hold it across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend of an instance or a network that is there; one that says why, where this host cannot have it any more.
    pub(crate) fn backend(&self, name: &str) -> Arc<dyn Backend> {
        self.backends
            .get(name)
            .unwrap_or_else(|reason| Arc::new(Absent(reason)))
    }

    /// The console of an instance.
    pub(crate) fn console(&self, instance: &str) -> Console {
        Console::new(&self.dir.join("consoles"), instance)
    }

    /// Writes a record to disk.
    pub(crate) fn save<T: Record>(&self, record: &T) -> io::Result<()> {
        disk::save(
            &self
                .dir
                .join(T::DIR)
                .join(format!("{}.json", record.head().id)),
            record,
        )
    }

    /// Removes a record from disk; its key is remembered first.
    pub(crate) fn forget<T: Record>(&self, records: &mut Records, record: &T) -> io::Result<()> {
        let head = record.head();
        if let Some((key, digest)) = &head.idempotency {
            let used = UsedKey {
                kind: T::KIND.to_owned(),
                key: key.clone(),
                digest: digest.clone(),
                id: head.id.clone(),
                deleted_s: Some(jiff::Timestamp::now().as_second()),
            };
            let mut line = serde_json::to_vec(&used)?;
            line.push(b'\n');
            let path = self.dir.join("used-keys.jsonl");
            disk::private(OpenOptions::new().append(true).create(true))
                .open(path)?
                .write_all(&line)?;
            records.keys.insert((T::KIND.to_owned(), key.clone()), used);
        }
        disk::remove(&self.dir.join(T::DIR).join(format!("{}.json", head.id)))
    }

    /// Replaces the fault rules.
    pub(crate) fn set_rules(&self, rules: Rules) -> io::Result<()> {
        disk::save(&self.dir.join("faults.json"), &rules)?;
        self.lock().faults = Faults::new(rules);
        Ok(())
    }

    /// Changes an instance in memory and on disk; nothing happens when it is gone.
    pub(crate) fn change_instance(&self, id: &str, change: impl FnOnce(&mut Instance)) {
        let mut records = self.lock();
        let Some(instance) = records.instances.get_mut(id) else {
            return;
        };
        change(instance);
        let copy = instance.clone();
        if let Err(error) = self.save(&copy) {
            tracing::error!(%error, instance = id, "an instance's state could not be written to disk");
        }
    }

    /// Tells the load balancers that have this instance where it is.
    pub(crate) fn refresh_targets(&self, records: &Records) {
        for (id, port) in &records.ports {
            let Some(balancer) = records.balancers.get(id) else {
                continue;
            };
            let targets = balancer
                .targets
                .iter()
                .filter_map(|target| {
                    records
                        .instances
                        .get(target)?
                        .address
                        .parse::<IpAddr>()
                        .ok()
                })
                .map(|address| SocketAddr::from((address, balancer.target_port)))
                .collect();
            port.set_targets(targets);
        }
    }

    /// The addresses that instances have.
    pub(crate) fn taken_addresses(records: &Records) -> BTreeSet<IpAddr> {
        let all = records.instances.values();
        all.filter_map(|instance| instance.address.parse().ok())
            .collect()
    }

    /// Stops everything that runs.
    pub(crate) fn shut_down(&self) {
        let mut records = self.lock();
        for task in records.tasks.values() {
            task.abort();
        }
        records.ports.clear();
        drop(records);
        for backend in self.backends.opened() {
            backend.shut_down();
        }
    }

    /// Waits until the tasks that were stopped are gone.
    pub(crate) async fn settled(&self) {
        let tasks = std::mem::take(&mut self.lock().tasks);
        for (_, task) in tasks {
            // Aborted or finished: both are the end of it.
            drop(task.await);
        }
        tokio::task::yield_now().await;
    }
}

impl Records {
    /// A new resource's head.
    pub(crate) fn new_head(
        &mut self,
        prefix: &str,
        name: &str,
        tags: &Tags,
        idempotency: Option<(String, String)>,
    ) -> Head {
        let serial = self.next_serial;
        self.next_serial = serial.saturating_add(1);
        let bits: u64 = rand::random();
        Head {
            id: format!("{prefix}-{bits:016x}"),
            name: name.to_owned(),
            tags: tags.clone(),
            created_at: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            serial,
            idempotency,
        }
    }

    /// What an idempotency key has made already: nothing, or the id; refused when the body is another or the thing is gone.
    pub(crate) fn replayed(
        &self,
        kind: &str,
        key: Option<&(String, String)>,
    ) -> Result<Option<String>, Refusal> {
        let Some((key, digest)) = key else {
            return Ok(None);
        };
        let Some(used) = self.keys.get(&(kind.to_owned(), key.clone())) else {
            return Ok(None);
        };
        if used.digest != *digest {
            return Err(Refusal::conflict(
                "IdempotencyMismatch",
                format!(
                    "Idempotency-Key: {key:?} was used before with another body, for {}",
                    used.id
                ),
            ));
        }
        if used.deleted_s.is_some() {
            return Err(Refusal::conflict(
                "IdempotencyKeyUsed",
                format!(
                    "Idempotency-Key: {key:?} was used before, and what it made ({}) has been deleted",
                    used.id
                ),
            ));
        }
        Ok(Some(used.id.clone()))
    }

    /// Remembers the key of a new resource.
    pub(crate) fn remember_key<T: Record>(&mut self, record: &T) {
        if let Some((key, digest)) = &record.head().idempotency {
            let used = UsedKey {
                kind: T::KIND.to_owned(),
                key: key.clone(),
                digest: digest.clone(),
                id: record.head().id.clone(),
                deleted_s: None,
            };
            self.keys.insert((T::KIND.to_owned(), key.clone()), used);
        }
    }
}

fn load_keys(
    dir: &Path,
    networks: &BTreeMap<String, Network>,
    balancers: &BTreeMap<String, LoadBalancer>,
    instances: &BTreeMap<String, Instance>,
) -> io::Result<BTreeMap<(String, String), UsedKey>> {
    let path = dir.join("used-keys.jsonl");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let oldest = jiff::Timestamp::now()
        .as_second()
        .saturating_sub(KEY_LIFETIME_S);
    let mut kept = Vec::new();
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        if let Ok(used) = serde_json::from_str::<UsedKey>(line)
            && used.deleted_s.is_some_and(|at| at >= oldest)
        {
            kept.extend_from_slice(line.as_bytes());
            kept.push(b'\n');
            keys.insert((used.kind.clone(), used.key.clone()), used);
        }
    }
    disk::replace(&path, &kept)?;
    let mut add = |kind: &str, head: &Head| {
        if let Some((key, digest)) = &head.idempotency {
            let used = UsedKey {
                kind: kind.to_owned(),
                key: key.clone(),
                digest: digest.clone(),
                id: head.id.clone(),
                deleted_s: None,
            };
            keys.insert((kind.to_owned(), key.clone()), used);
        }
    };
    networks
        .values()
        .for_each(|record| add(Network::KIND, &record.head));
    balancers
        .values()
        .for_each(|record| add(LoadBalancer::KIND, &record.head));
    instances
        .values()
        .for_each(|record| add(Instance::KIND, &record.head));
    Ok(keys)
}
