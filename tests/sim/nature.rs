//! Everything that acts beside the host and its people: machines that boot, kubelets, volumes, providers that are no plugins, and
//! the collection of garbage. Looks at the world once a second, while there can be something to do.

mod nodes;
mod remediator;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{ApiError, Patch, Preconditions, Resource};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

pub(crate) use self::nodes::ready;
use crate::cloud::{Instance, Phase};
use crate::kinds as sim;
use crate::object::{controller, flag, is_deleting, key, list, name, text, uid};
use crate::store::{Store, Written};
use crate::world::{Actor, Server, State, Workload, World, Write};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);

/// Between two collections of garbage, in looks.
const COLLECT_EVERY: u32 = 5;

/// Finalizer of the control-plane provider.
const CONTROL_PLANE_FINALIZER: &str = "sim/control-plane";

/// What nature remembers between two looks.
#[derive(Default)]
struct Memory {
    ticks: u32,
    /// When something will have been done, by what it is.
    due: BTreeMap<String, Duration>,
    collected: u64,
    /// What there was to look at, and until when the same look would find nothing to do.
    idle: Option<(Sight, Duration)>,
}

/// What a look depends on beside the time, in numbers: the same numbers, the same things to see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sight {
    management: u64,
    workloads: Vec<u64>,
    /// Instances that were ever made, and those that boot, run, stop and are broken.
    instances: (u64, [usize; 4]),
}

impl Sight {
    fn of(state: &State) -> Self {
        let mut phases = [0; 4];
        for instance in state.cloud.instances.values() {
            phases[match instance.phase {
                Phase::Booting(_) => 0,
                Phase::Running => 1,
                Phase::Stopping(_) => 2,
                Phase::Broken(_) => 3,
            }] += 1;
        }
        let workloads = state.workloads.values();
        Self {
            management: state.management.version(),
            workloads: workloads.map(|workload| workload.store.version()).collect(),
            instances: (state.cloud.made, phases),
        }
    }
}

impl Memory {
    /// Whether so much time has passed since this was first asked, drawn between these seconds.
    fn is_due(&mut self, state: &mut State, what: &str, low_s: u64, high_s: u64) -> bool {
        let now = state.now();
        let due = match self.due.get(what) {
            Some(due) => *due,
            None => {
                let due = now + state.nature.millis(low_s * 1000, high_s * 1000);
                self.due.insert(what.to_owned(), due);
                due
            }
        };
        due <= now
    }
}

/// Acts for ever.
pub async fn run(world: Arc<World>) {
    let mut memory = Memory::default();
    let began = Instant::now();
    loop {
        memory.ticks += 1;
        sleep_until(began + TICK * memory.ticks).await;
        {
            let mut state = world.lock();
            cloud(&mut state);
            crate::stacked::live(&mut state);
            look(&mut state, &mut memory);
            if memory.ticks.is_multiple_of(COLLECT_EVERY)
                && memory.collected != state.management.version()
            {
                collect(&mut state);
                memory.collected = state.management.version();
            }
        }
        world.changed();
        rest(&world, &memory).await;
        // The next look is at a whole number of them again, as if there had been one after the other.
        let since = began.elapsed().as_millis().saturating_sub(1) / TICK.as_millis();
        memory.ticks = memory.ticks.max(u32::try_from(since).unwrap_or(u32::MAX));
    }
}

/// Waits until there can be something to do.
async fn rest(world: &World, memory: &Memory) {
    // A control plane has something to do every second.
    if world.lock().stacked.is_some() {
        return;
    }
    // Made before the look: what changes after it is not missed.
    let changes = world.changes();
    let until = {
        let state = world.lock();
        match &memory.idle {
            Some((sight, until))
                if *sight == Sight::of(&state)
                    && memory.collected == state.management.version() =>
            {
                let due = cloud_due(&state).map_or(*until, |due| due.min(*until));
                due.saturating_sub(state.now())
            }
            _ => return,
        }
    };
    // Nothing that is due is more than this away; what is not due at all waits for a change.
    let until = until.min(Duration::from_secs(24 * 3_600));
    tokio::select! {
        biased;
        () = changes => {}
        () = tokio::time::sleep(until) => {}
    }
}

/// When something in the cloud comes to its end.
fn cloud_due(state: &State) -> Option<Duration> {
    let instances = state
        .cloud
        .instances
        .values()
        .filter_map(|instance| match instance.phase {
            Phase::Booting(until) | Phase::Stopping(until) => Some(until),
            Phase::Running | Phase::Broken(_) => None,
        });
    let networks = state.cloud.networks.values();
    instances
        .chain(networks.filter_map(|network| network.gone_at))
        .min()
}

/// One look at what there is to do. Nothing is looked at again that has not changed, before something is due.
fn look(state: &mut State, memory: &mut Memory) {
    let (now, sight) = (state.now(), Sight::of(state));
    if matches!(&memory.idle, Some((same, until)) if *same == sight && now < *until) {
        return;
    }
    let asked = memory.due.len();
    control_planes(state, memory);
    configs(state, memory);
    nodes::nodes(state, memory);
    nodes::pods(state, memory);
    remediator::help(state, memory);
    let next = memory.due.values().filter(|due| **due > now).min();
    let until = next.copied().unwrap_or(Duration::MAX);
    let is_idle = asked == memory.due.len() && state.takes_writes();
    memory.idle = is_idle.then_some((sight, until));
}

impl State {
    /// A write of nature's.
    pub fn nature_writes(
        &mut self,
        server: &Server,
        by: &str,
        verb: &'static str,
        resource: &Resource,
        key: &ObjectKey,
        effect: impl FnOnce(&mut Store, &str) -> Result<Written, ApiError>,
    ) -> Option<Value> {
        let write = Write {
            actor: Actor::Nature,
            by,
            verb,
            resource,
            key,
        };
        self.write(server, &write, effect).ok()
    }

    /// A merge patch of nature's.
    pub fn nature_patches(
        &mut self,
        server: &Server,
        by: &str,
        resource: &Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: Value,
    ) {
        let patch = Patch::Merge(patch);
        self.nature_writes(server, by, "patch", resource, key, |store, _| {
            store.patch(resource, key, subresource, &patch)
        });
    }
}

/// Instances boot and end, networks end.
fn cloud(state: &mut State) {
    let now = state.now();
    let mut ended = Vec::new();
    for (key, instance) in &mut state.cloud.instances {
        match instance.phase {
            Phase::Booting(until) if until <= now => instance.phase = Phase::Running,
            Phase::Stopping(until) if until <= now => ended.push(key.clone()),
            _ => {}
        }
    }
    for key in ended {
        if let Some(instance) = state.cloud.instances.remove(&key) {
            state.note(&format!("cloud: instance {} is gone", instance.id));
        }
    }
    let is_gone = |network: &crate::cloud::Network| network.gone_at.is_some_and(|at| at <= now);
    state.cloud.networks.retain(|_, network| !is_gone(network));
}

fn cluster_key(instance: &Instance) -> ObjectKey {
    let (namespace, name) = instance.cluster.split_once('/').unwrap_or_default();
    ObjectKey::new(namespace, name)
}

/// The provider of control planes: an API server comes up when the infrastructure is there.
fn control_planes(state: &mut State, memory: &mut Memory) {
    let planes: Vec<Arc<Value>> = state
        .management
        .all(&sim::SIM_CONTROL_PLANE)
        .cloned()
        .collect();
    for plane in planes {
        let key = key(&plane);
        let by = "control-plane-provider";
        let cluster = ObjectKey::new(key.namespace.clone(), name(&plane));
        if is_deleting(&plane) {
            if memory.is_due(state, &format!("end {}", uid(&plane)), 1, 30) {
                state.workloads.remove(&cluster);
                let none = json!({"metadata": {"finalizers": []}});
                state.nature_patches(
                    &Server::Management,
                    by,
                    &sim::SIM_CONTROL_PLANE,
                    &key,
                    None,
                    none,
                );
            }
            continue;
        }
        if list(&plane, "/metadata/finalizers").is_empty() {
            let held = json!({"metadata": {"finalizers": [CONTROL_PLANE_FINALIZER]}});
            state.nature_patches(
                &Server::Management,
                by,
                &sim::SIM_CONTROL_PLANE,
                &key,
                None,
                held,
            );
        }
        if flag(&plane, "/status/initialization/controlPlaneInitialized") {
            let wanted = text(&plane, "/spec/version");
            if text(&plane, "/status/version") != wanted
                && memory.is_due(state, &format!("upgrade {} {wanted}", uid(&plane)), 5, 120)
            {
                let status = json!({"status": {"version": wanted}});
                state.nature_patches(
                    &Server::Management,
                    by,
                    &sim::SIM_CONTROL_PLANE,
                    &key,
                    Some("status"),
                    status,
                );
            }
            continue;
        }
        let provisioned = state
            .management
            .get(&kinds::CLUSTER, &cluster)
            .is_ok_and(|cluster| {
                flag(&cluster, "/status/initialization/infrastructureProvisioned")
            });
        if !provisioned || !memory.is_due(state, &format!("plane {}", uid(&plane)), 5, 120) {
            continue;
        }
        state.workloads.insert(cluster.clone(), workload(&cluster));
        let secret = json!({
            "metadata": {"name": format!("{}-kubeconfig", cluster.name), "labels": {
                "cluster.x-k8s.io/cluster-name": cluster.name,
            }},
            "type": "cluster.x-k8s.io/secret",
            "data": {"value": base64(&format!("{}/{}", cluster.namespace, cluster.name))},
        });
        let secret_key = ObjectKey::new(cluster.namespace.clone(), name(&secret));
        state.nature_writes(
            &Server::Management,
            by,
            "create",
            &kinds::SECRET,
            &secret_key,
            |store, now| store.create(&kinds::SECRET, &cluster.namespace, &secret, now),
        );
        let now = state.now_text();
        let status = json!({"status": {
            "initialization": {"controlPlaneInitialized": true},
            "externalManagedControlPlane": true,
            "version": text(&plane, "/spec/version"),
            "conditions": [{"type": "Available", "status": "True", "reason": "Available", "message": "",
                "lastTransitionTime": now}],
        }});
        state.nature_patches(
            &Server::Management,
            by,
            &sim::SIM_CONTROL_PLANE,
            &key,
            Some("status"),
            status,
        );
    }
}

/// A workload cluster with nothing in it.
pub(crate) fn workload(cluster: &ObjectKey) -> Workload {
    let mut store = Store::new(&format!("w-{}", cluster.name));
    for (resource, has_status) in [
        (&*kinds::NODE, true),
        (&*kinds::POD, true),
        (&*kinds::NAMESPACE, false),
        (&*kinds::DAEMON_SET, true),
        (&*kinds::VOLUME_ATTACHMENT, true),
        (&*kinds::PERSISTENT_VOLUME, true),
    ] {
        store.serve(resource, has_status);
    }
    let space = json!({"metadata": {"name": "apps"}});
    // A new server takes its first object.
    let _ = store.create(&kinds::NAMESPACE, "", &space, "2026-01-01T00:00:00Z");
    Workload {
        store,
        down_until: Duration::ZERO,
    }
}

/// Base64 of a text whose length is made a multiple of three: the simulated host's kubeconfigs are no more than a name.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = text.as_bytes().to_vec();
    while !bytes.len().is_multiple_of(3) {
        bytes.push(b' ');
    }
    let mut encoded = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        for at in (0..4).rev() {
            let index = usize::try_from((bits >> (6 * at)) & 63).unwrap_or_default();
            encoded.push(char::from(ALPHABET[index]));
        }
    }
    encoded
}

/// The provider of bootstrap data.
fn configs(state: &mut State, memory: &mut Memory) {
    let configs: Vec<Arc<Value>> = state.management.all(&sim::SIM_CONFIG).cloned().collect();
    for config in configs {
        if is_deleting(&config) || flag(&config, "/status/initialization/dataSecretCreated") {
            continue;
        }
        let Some(owner) = controller(&config).map(str::to_owned) else {
            continue;
        };
        let machine = state
            .management
            .find(&kinds::MACHINE, |machine| uid(machine) == owner);
        let Some(machine) = machine else {
            continue;
        };
        let cluster = ObjectKey::new(key(&config).namespace, text(&machine, "/spec/clusterName"));
        let initialized = state
            .management
            .get(&kinds::CLUSTER, &cluster)
            .is_ok_and(|cluster| {
                crate::object::is_condition(&cluster, "ControlPlaneInitialized", "True")
            });
        if !initialized || !memory.is_due(state, &format!("config {}", uid(&config)), 1, 20) {
            continue;
        }
        let by = "bootstrap-provider";
        let key = key(&config);
        let secret = json!({
            "metadata": {"name": key.name, "ownerReferences": [{
                "apiVersion": sim::SIM_CONFIG.api_version(), "kind": "SimConfig", "name": key.name,
                "uid": uid(&config), "controller": true,
            }]},
            "type": "cluster.x-k8s.io/secret",
            "data": {"value": base64("hello!")},
        });
        state.nature_writes(
            &Server::Management,
            by,
            "create",
            &kinds::SECRET,
            &key,
            |store, now| store.create(&kinds::SECRET, &key.namespace, &secret, now),
        );
        let status = json!({"status": {
            "initialization": {"dataSecretCreated": true}, "dataSecretName": key.name,
        }});
        state.nature_patches(
            &Server::Management,
            by,
            &sim::SIM_CONFIG,
            &key,
            Some("status"),
            status,
        );
    }
}

/// Deletes objects all of whose owners are gone, in the background, as the controller manager does.
fn collect(state: &mut State) {
    let alive: std::collections::BTreeSet<String> = state
        .management
        .everything()
        .map(|(_, object)| uid(object).to_owned())
        .collect();
    let garbage: Vec<(Resource, Arc<Value>)> = state
        .management
        .everything()
        .filter(|(_, object)| {
            let owners = list(object, "/metadata/ownerReferences");
            !owners.is_empty()
                && !is_deleting(object)
                && owners
                    .iter()
                    .all(|owner| !alive.contains(text(owner, "/uid")))
        })
        .map(|(resource, object)| (resource.clone(), Arc::clone(object)))
        .collect();
    for (resource, object) in garbage {
        let preconditions = Preconditions {
            uid: Some(uid(&object).to_owned()),
            resource_version: None,
        };
        let key = key(&object);
        state.nature_writes(
            &Server::Management,
            "garbage-collector",
            "delete",
            &resource,
            &key,
            |store, now| store.delete(&resource, &key, &preconditions, now, 0),
        );
    }
}
