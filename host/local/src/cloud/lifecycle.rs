//! What becomes of load balancers and instances after they were asked for: one task for each that is on its way.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;

use super::backend::{BootOutcome, MachineSpec};
use super::balancer::Balancer;
use super::records::{BootstrapState, Instance, InstanceState, TYPES};
use super::region::Region;
use super::userdata::MachineFacts;

/// Between two tries to get a load balancer's port back.
const PORT_RETRY: Duration = Duration::from_millis(200);

/// One of so many equal parts.
fn part(of: Duration, parts: u32) -> Duration {
    of.checked_div(parts).unwrap_or_default()
}

/// Takes up again what an earlier process left.
pub(crate) fn resume(region: &Arc<Region>) {
    let (balancers, instances) = {
        let records = region.lock();
        let balancers: Vec<(String, u16, String)> = records
            .balancers
            .values()
            .map(|balancer| {
                (
                    balancer.head.id.clone(),
                    balancer.port,
                    balancer.state.clone(),
                )
            })
            .collect();
        let instances: Vec<Instance> = records.instances.values().cloned().collect();
        (balancers, instances)
    };
    for (id, port, state) in balancers {
        if state == "deleting" {
            delete_balancer(region, &id);
        } else {
            start_balancer(region, &id, port, None);
        }
    }
    for instance in instances {
        let id = instance.head.id.as_str();
        match instance.state {
            InstanceState::Pending | InstanceState::Provisioning => spawn(region, id, provision),
            InstanceState::Running => spawn(region, id, run),
            InstanceState::Terminating | InstanceState::Terminated => spawn(region, id, terminate),
            InstanceState::Stopped | InstanceState::Failed => {}
        }
    }
}

/// Starts what an instance needs next, in place of what was going on.
pub(crate) fn spawn<F, R>(region: &Arc<Region>, id: &str, work: F)
where
    F: FnOnce(Arc<Region>, String) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let task = tokio::spawn(work(Arc::clone(region), id.to_owned()));
    if let Some(before) = region.lock().tasks.insert(id.to_owned(), task) {
        before.abort();
    }
}

/// Opens a load balancer's port; `listener` is there when it is new.
pub(crate) fn start_balancer(
    region: &Arc<Region>,
    id: &str,
    port: u16,
    listener: Option<std::net::TcpListener>,
) {
    let (region, id) = (Arc::clone(region), id.to_owned());
    let key = id.clone();
    let again = Arc::clone(&region);
    let task = tokio::spawn(async move {
        let mut ready = match listener {
            Some(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| TcpListener::from_std(listener)),
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await,
        };
        loop {
            match ready {
                Ok(listener) => {
                    activate(&region, &id, Balancer::start(listener));
                    return;
                }
                Err(error) => set_balancer_state(
                    &region,
                    &id,
                    "provisioning",
                    &format!("port {port} cannot be opened: {error}"),
                ),
            }
            tokio::time::sleep(PORT_RETRY).await;
            ready = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        }
    });
    again.lock().tasks.insert(key, task);
}

fn activate(region: &Region, id: &str, balancer: Balancer) {
    let mut records = region.lock();
    if !records.balancers.contains_key(id) {
        return;
    }
    records.ports.insert(id.to_owned(), balancer);
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
    {
        let mut records = region.lock();
        let address = if instance.address.is_empty() {
            region.new_address(&mut records)
        } else {
            instance.address
        };
        if let Some(instance) = records.instances.get_mut(&id) {
            instance.address = address;
            instance.state = InstanceState::Provisioning;
        }
        region.refresh_targets(&records);
    }
    tokio::time::sleep(half).await;
    region.change_instance(&id, |instance| {
        instance.state = InstanceState::Running;
        if !instance.bootstrap.is_over() {
            instance.bootstrap = BootstrapState::Running;
        }
    });
    run(region, id).await;
}

fn spec(instance: &Instance) -> MachineSpec {
    let (_, cpu, memory_mib) = TYPES
        .into_iter()
        .find(|(name, _, _)| *name == instance.type_)
        .unwrap_or(("", 2, 4096));
    MachineSpec {
        facts: MachineFacts {
            hostname: instance.head.name.clone(),
            instance_id: instance.head.id.clone(),
            provider_id: instance.provider_id(),
            address: instance.address.clone(),
            zone: instance.zone.clone(),
        },
        version: instance.image.clone(),
        type_: instance.type_.clone(),
        cpu,
        memory_mib,
        user_data: Arc::new(STANDARD.decode(&instance.user_data).unwrap_or_default()),
        silent_after_ms: instance.fate.silent_after_ms,
    }
}

/// A machine that is on: boots it, for the first time or again, and lets it disappear when that is its fate.
pub(crate) async fn run(region: Arc<Region>, id: String) {
    let Some(instance) = find(&region, &id) else {
        return;
    };
    let backend = region.backend(&instance.backend);
    let console = region.console(&id);
    let boots = async {
        if instance.bootstrap.is_over() {
            if let Err(error) = backend.boot(spec(&instance), console.clone()).await {
                console.line(format!("boot: ERROR: {error}"));
            }
            return;
        }
        let outcome = backend.bootstrap(spec(&instance), console.clone()).await;
        region.change_instance(&id, |instance| {
            let (state, message) = match outcome {
                BootOutcome::Done(message) => (BootstrapState::Done, message),
                BootOutcome::Failed(message) => (BootstrapState::Failed, message),
            };
            instance.bootstrap = state;
            instance.bootstrap_message = message;
        });
    };
    match instance.fate.disappear_after_ms {
        None => boots.await,
        Some(after_ms) => {
            let ends = tokio::time::sleep(Duration::from_millis(after_ms));
            tokio::pin!(ends);
            let ended_early = tokio::select! {
                () = boots => false,
                () = &mut ends => true,
            };
            if !ended_early {
                ends.await;
            }
            finish(&region, &id);
        }
    }
}

/// Deletes the machine and forgets the instance.
pub(crate) async fn terminate(region: Arc<Region>, id: String) {
    tokio::time::sleep(part(region.provision_delay, 4)).await;
    region.change_instance(&id, |instance| instance.state = InstanceState::Terminated);
    tokio::time::sleep(part(region.provision_delay, 4)).await;
    finish(&region, &id);
}

fn finish(region: &Region, id: &str) {
    let Some(instance) = find(region, id) else {
        return;
    };
    if let Err(error) = region.backend(&instance.backend).delete(id) {
        tracing::error!(%error, instance = id, "a machine's files could not be removed");
    }
    let mut records = region.lock();
    for balancer in records.balancers.values_mut() {
        if balancer.targets.iter().any(|target| target == id) {
            balancer.targets.retain(|target| target != id);
            if let Err(error) = region.save(&balancer.clone()) {
                tracing::error!(%error, "a load balancer's targets could not be written to disk");
            }
        }
    }
    match region.forget(&mut records, &instance) {
        Ok(()) => {
            records.instances.remove(id);
        }
        Err(error) => {
            tracing::error!(%error, instance = id, "an instance could not be removed from disk")
        }
    }
    region.refresh_targets(&records);
    records.tasks.remove(id);
    drop(records);
    if let Err(error) = region.console(id).remove() {
        tracing::warn!(%error, "a console could not be removed");
    }
}
