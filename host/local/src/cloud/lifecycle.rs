//! What becomes of load balancers and instances after they were asked for: one task for each that is on its way.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::backend::{BootOutcome, MachineSpec, NetworkSpec};
use super::balancer::Balancer;
use super::networks;
use super::records::{
    BootstrapState, Instance, InstanceState, InstanceType, LoadBalancer, Network,
};
use super::region::Region;
use super::userdata::MachineFacts;

/// Between two tries to get a load balancer's port back.
const PORT_RETRY: Duration = Duration::from_millis(200);

/// Between two tries of something that the backend could not do.
const RETRY: Duration = Duration::from_secs(1);

/// One of so many equal parts.
fn part(of: Duration, parts: u32) -> Duration {
    of.checked_div(parts).unwrap_or_default()
}

/// Takes up again what an earlier process left.
pub(crate) fn resume(region: &Arc<Region>) {
    let (networks, balancers, instances) = {
        let records = region.lock();
        let networks: Vec<Network> = records.networks.values().cloned().collect();
        let balancers: Vec<LoadBalancer> = records.balancers.values().cloned().collect();
        let instances: Vec<Instance> = records.instances.values().cloned().collect();
        (networks, balancers, instances)
    };
    for network in networks {
        let id = network.head.id.as_str();
        if network.state == "deleting" {
            spawn(region, id, networks::remove);
        } else {
            spawn(region, id, networks::make);
        }
    }
    for balancer in balancers {
        if balancer.state == "deleting" {
            delete_balancer(region, &balancer.head.id);
        } else {
            start_balancer(region, &balancer, None);
        }
    }
    for instance in instances {
        let id = instance.head.id.as_str();
        match instance.state {
            InstanceState::Pending | InstanceState::Provisioning => {
                spawn(region, id, provision);
            }
            InstanceState::Running => {
                spawn(region, id, run);
            }
            InstanceState::Stopping => {
                spawn(region, id, power_off);
            }
            InstanceState::Terminating | InstanceState::Terminated => {
                spawn(region, id, terminate);
            }
            InstanceState::Stopped | InstanceState::Failed => {}
        }
    }
}

/// Starts what a resource needs next, in place of what was going on, once that is over. The receiver hears when it has ended.
pub(crate) fn spawn<F, R>(region: &Arc<Region>, id: &str, work: F) -> oneshot::Receiver<()>
where
    F: FnOnce(Arc<Region>, String) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let (alive, ended) = oneshot::channel();
    let work = work(Arc::clone(region), id.to_owned());
    let mut records = region.lock();
    let before = records.tasks.remove(id);
    if let Some(before) = &before {
        before.abort();
    }
    let task = tokio::spawn(async move {
        if let Some(before) = before {
            // Aborted or finished: both are the end of it.
            drop(before.await);
        }
        work.await;
        drop::<oneshot::Sender<()>>(alive);
    });
    records.tasks.insert(id.to_owned(), task);
    ended
}

/// Opens a load balancer's port; `listener` is there when it is new.
pub(crate) fn start_balancer(
    region: &Arc<Region>,
    balancer: &LoadBalancer,
    listener: Option<std::net::TcpListener>,
) {
    let (host, port): (IpAddr, u16) = (balancer.host, balancer.port);
    spawn(region, &balancer.head.id, move |region, id| async move {
        let mut ready = match listener {
            Some(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| TcpListener::from_std(listener)),
            None => TcpListener::bind((host, port)).await,
        };
        loop {
            match ready {
                Ok(listener) => {
                    activate(&region, &id, listener);
                    return;
                }
                Err(error) => set_balancer_state(
                    &region,
                    &id,
                    "provisioning",
                    &format!("port {port} of {host} cannot be opened: {error}"),
                ),
            }
            tokio::time::sleep(PORT_RETRY).await;
            ready = TcpListener::bind((host, port)).await;
        }
    });
}

fn activate(region: &Region, id: &str, listener: TcpListener) {
    let mut records = region.lock();
    let Some(balancer) = records.balancers.get(id) else {
        return;
    };
    let network = records.networks.get(&balancer.network_id);
    let checks = network.is_some_and(|network| region.backend(&network.backend).checks_readiness());
    records
        .ports
        .insert(id.to_owned(), Balancer::start(listener, checks));
    region.refresh_targets(&records);
    drop(records);
    set_balancer_state(region, id, "active", "");
}

fn set_balancer_state(region: &Region, id: &str, state: &str, message: &str) {
    let mut records = region.lock();
    let Some(balancer) = records.balancers.get_mut(id) else {
        return;
    };
    if balancer.state == state && balancer.state_message == message {
        return;
    }
    balancer.state = state.to_owned();
    balancer.state_message = message.to_owned();
    if let Err(error) = region.save(&balancer.clone()) {
        tracing::error!(%error, "a load balancer's state could not be written to disk");
    }
}

/// Closes a load balancer's port and forgets it.
pub(crate) fn delete_balancer(region: &Arc<Region>, id: &str) {
    spawn(region, id, |region, id| async move {
        region.lock().ports.remove(&id);
        tokio::time::sleep(part(region.provision_delay, 4)).await;
        let mut records = region.lock();
        if let Some(balancer) = records.balancers.get(&id).cloned() {
            match region.forget(&mut records, &balancer) {
                Ok(()) => {
                    records.balancers.remove(&id);
                }
                Err(error) => {
                    tracing::error!(%error, "a load balancer could not be removed from disk")
                }
            }
        }
        records.tasks.remove(&id);
    });
}

fn find(region: &Region, id: &str) -> Option<Instance> {
    region.lock().instances.get(id).cloned()
}

/// From pending to running, then everything that a running machine does.
pub(crate) async fn provision(region: Arc<Region>, id: String) {
    let Some(instance) = find(&region, &id) else {
        return;
    };
    if instance.fate.never {
        region.change_instance(&id, |instance| {
            "waiting for capacity".clone_into(&mut instance.state_message)
        });
        return;
    }
    let half = part(region.provision_delay, 2);
    tokio::time::sleep(half.saturating_add(Duration::from_millis(instance.fate.delay_ms))).await;
    if let Some(message) = instance.fate.fail {
        region.change_instance(&id, |instance| {
            instance.state = InstanceState::Failed;
            instance.state_message = if message.is_empty() {
                "the instance could not be made".into()
            } else {
                message
            };
        });
        return;
    }
    let network = network_of(&region, &instance).await;
    if let Err(error) = settle(&region, &instance, &network) {
        region.change_instance(&id, |instance| {
            instance.state = InstanceState::Failed;
            instance.state_message = format!("it has no address: {error}");
        });
        return;
    }
    tokio::time::sleep(half).await;
    region.change_instance(&id, |instance| {
        instance.state = InstanceState::Running;
        instance.state_message.clear();
        if !instance.bootstrap.is_over() {
            instance.bootstrap = BootstrapState::Running;
        }
    });
    run(region, id).await;
}

/// The network of an instance, ready: waits until the backend has it, and says meanwhile what is in the way.
async fn network_of(region: &Region, instance: &Instance) -> NetworkSpec {
    loop {
        match networks::ready(region, &instance.network_id).await {
            Ok(network) => return network,
            Err(error) => region.change_instance(&instance.head.id, |instance| {
                instance.state_message = format!("its network is not ready: {error}");
            }),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Gives an instance its address, if it has none, and tells the load balancers.
fn settle(region: &Region, instance: &Instance, network: &NetworkSpec) -> io::Result<()> {
    let mut records = region.lock();
    let address = if instance.address.is_empty() {
        let taken = Region::taken_addresses(&records);
        let backend = region.backend(&instance.backend);
        backend
            .address(network, &instance.zone, &taken)?
            .to_string()
    } else {
        instance.address.clone()
    };
    if let Some(instance) = records.instances.get_mut(&instance.head.id) {
        instance.address = address;
        instance.state = InstanceState::Provisioning;
    }
    region.refresh_targets(&records);
    Ok(())
}

fn spec(instance: &Instance, network: NetworkSpec) -> MachineSpec {
    // Checked when the instance was made; a type that has gone since is the smallest.
    let (cpu, memory_mib) = InstanceType::find(&instance.type_)
        .map_or((2, 4096), |known| (known.cpu, known.memory_mib));
    MachineSpec {
        facts: MachineFacts {
            hostname: instance.head.name.clone(),
            instance_id: instance.head.id.clone(),
            provider_id: instance.provider_id(),
            address: instance.address.clone(),
            zone: instance.zone.clone(),
        },
        network,
        version: instance.image.clone(),
        type_: instance.type_.clone(),
        cpu,
        memory_mib,
        user_data: Arc::new(STANDARD.decode(&instance.user_data).unwrap_or_default()),
        cloud_init: instance.cloud_init,
        silent_after_ms: instance.fate.silent_after_ms,
    }
}

/// A machine that is on: boots it, for the first time or again, sees when it goes off, and lets it disappear when that is its fate.
pub(crate) async fn run(region: Arc<Region>, id: String) {
    let Some(instance) = find(&region, &id) else {
        return;
    };
    match instance.fate.disappear_after_ms {
        None => run_until_off(&region, &instance).await,
        Some(after_ms) => {
            let ends = tokio::time::sleep(Duration::from_millis(after_ms));
            tokio::pin!(ends);
            let ended_early = tokio::select! {
                () = run_until_off(&region, &instance) => false,
                () = &mut ends => true,
            };
            if !ended_early {
                ends.await;
            }
            remove(&region, &id).await;
            finish(&region, &id).await;
        }
    }
}

async fn run_until_off(region: &Region, instance: &Instance) {
    let id = instance.head.id.as_str();
    let backend = region.backend(&instance.backend);
    let console = region.console(id);
    let machine = spec(instance, network_of(region, instance).await);
    if instance.bootstrap.is_over() {
        let booted = backend.boot(machine, console.clone()).await;
        region.change_instance(id, |instance| {
            instance.state_message = booted.as_ref().err().cloned().unwrap_or_default();
        });
        if let Err(error) = booted {
            console.line(format!("boot: ERROR: {error}"));
            return;
        }
    } else {
        let outcome = backend.bootstrap(machine, console.clone()).await;
        region.change_instance(id, |instance| {
            let (state, message) = match outcome {
                BootOutcome::Done(message) => (BootstrapState::Done, message),
                BootOutcome::Failed(message) => (BootstrapState::Failed, message),
            };
            instance.bootstrap = state;
            instance.bootstrap_message = message;
        });
    }
    let reason = backend.until_off(id).await;
    console.line(format!("the machine is off: {reason}"));
    region.change_instance(id, |instance| {
        instance.state = InstanceState::Stopped;
        instance.state_message = reason;
    });
}

/// Turns a machine off, in order.
pub(crate) async fn power_off(region: Arc<Region>, id: String) {
    turn_off(&region, &id).await;
    region.change_instance(&id, |instance| {
        instance.state = InstanceState::Stopped;
        instance.state_message.clear();
    });
}

/// What a machine that was killed is.
pub(crate) async fn killed(region: Arc<Region>, id: String) {
    region.change_instance(&id, |instance| {
        instance.state = InstanceState::Stopped;
        "it was killed".clone_into(&mut instance.state_message);
    });
}

/// Turns a machine off and on again.
pub(crate) async fn reboot(region: Arc<Region>, id: String) {
    turn_off(&region, &id).await;
    run(region, id).await;
}

async fn turn_off(region: &Region, id: &str) {
    while let Some(instance) = find(region, id) {
        let Err(error) = region.backend(&instance.backend).stop(id).await else {
            return;
        };
        held_up(region, id, "turned off", &error).await;
    }
}

/// Says what is in the way, and waits before the next try.
async fn held_up(region: &Region, id: &str, what: &str, error: &io::Error) {
    tracing::error!(%error, instance = id, "an instance could not be {what}");
    region.change_instance(id, |instance| {
        instance.state_message = format!("it cannot be {what} yet: {error}");
    });
    tokio::time::sleep(RETRY).await;
}

/// Deletes the machine and forgets the instance.
pub(crate) async fn terminate(region: Arc<Region>, id: String) {
    // At once, so that nothing of it answers any more.
    remove(&region, &id).await;
    tokio::time::sleep(part(region.provision_delay, 4)).await;
    region.change_instance(&id, |instance| instance.state = InstanceState::Terminated);
    tokio::time::sleep(part(region.provision_delay, 4)).await;
    finish(&region, &id).await;
}

/// Removes the machine of an instance, however often that has to be tried.
async fn remove(region: &Region, id: &str) {
    while let Some(instance) = find(region, id) {
        let Err(error) = region.backend(&instance.backend).delete(id).await else {
            return;
        };
        held_up(region, id, "removed", &error).await;
    }
}

/// Forgets an instance whose machine is gone.
async fn finish(region: &Region, id: &str) {
    while let Some(instance) = find(region, id) {
        let Err(error) = forget(region, &instance) else {
            return;
        };
        held_up(region, id, "forgotten", &error).await;
    }
}

fn forget(region: &Region, instance: &Instance) -> io::Result<()> {
    let id = instance.head.id.as_str();
    let mut records = region.lock();
    for balancer in records.balancers.values_mut() {
        if balancer.targets.iter().any(|target| target == id) {
            balancer.targets.retain(|target| target != id);
            region.save(&balancer.clone())?;
        }
    }
    region.forget(&mut records, instance)?;
    records.instances.remove(id);
    region.refresh_targets(&records);
    records.tasks.remove(id);
    drop(records);
    if let Err(error) = region.console(id).remove() {
        tracing::warn!(%error, "a console could not be removed");
    }
    Ok(())
}
