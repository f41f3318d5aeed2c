//! A simulated cloud, and the infrastructure plugin that speaks to it: on time or late, honest or lying, trapping now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_core::call::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, MachineAnswer, MachineInput,
};
use capstan_core::call::{Deletion, Endpoint, Progress, Waiting};
use capstan_engine::{CallEnv, CallError, Native};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use crate::object::{name, text, uid};
use crate::plugin::call;
use crate::world::World;

/// Where an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Boots until then.
    Booting(Duration),
    /// Runs.
    Running,
    /// Shuts down until then.
    Stopping(Duration),
    /// Broke at that time, and stays so until it is deleted.
    Broken(Duration),
}

/// A machine in the cloud.
#[derive(Clone, Debug)]
pub struct Instance {
    /// UID of the Machine that it was made for.
    pub machine: String,
    /// Name of the Machine, and of the Node.
    pub name: String,
    /// Namespace and name of the Cluster.
    pub cluster: String,
    /// Provider ID.
    pub id: String,
    /// Where it is.
    pub phase: Phase,
}

/// What belongs to a cluster in the cloud.
#[derive(Clone, Debug)]
pub struct Network {
    /// UID of the infrastructure cluster.
    pub owner: String,
    /// Ready from then on.
    pub ready_at: Duration,
    /// Gone from then on.
    pub gone_at: Option<Duration>,
}

/// The cloud's content, by idempotency key.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// Instances that are not gone.
    pub instances: BTreeMap<String, Instance>,
    /// Networks that are not gone.
    pub networks: BTreeMap<String, Network>,
    /// Instances made so far.
    pub made: u64,
}

impl Cloud {
    /// Instances that were made for a Machine and are not gone.
    pub fn of_machine<'a>(&'a self, machine: &'a str) -> impl Iterator<Item = &'a Instance> {
        self.instances
            .values()
            .filter(move |instance| instance.machine == machine)
    }
}

/// The plugin.
pub struct SimulatedInfrastructure {
    world: Arc<World>,
}

impl SimulatedInfrastructure {
    /// A plugin for this world's cloud.
    #[must_use]
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

fn waiting(reason: &str) -> Waiting {
    Waiting {
        reason: reason.to_owned(),
        message: format!("the cloud says {reason}"),
        check_after: Duration::from_secs(2),
    }
}

fn deletion(deletion: Deletion) -> DeletionAnswer {
    DeletionAnswer {
        deletion,
        status: json!({}),
        conditions: Vec::new(),
        state: None,
        extra: Vec::new(),
    }
}

fn ensure_cluster(world: &World, input: &ClusterInput) -> ClusterAnswer {
    let mut state = world.lock();
    let now = state.now();
    let ready_at = now + state.plugins.millis(100, 30_000);
    let network = state
        .cloud
        .networks
        .entry(input.context.idempotency_key.clone())
        .or_insert_with(|| Network {
            owner: uid(&input.infra_cluster).to_owned(),
            ready_at,
            gone_at: None,
        });
    let progress = if network.ready_at <= now {
        Progress::Ready
    } else {
        Progress::Waiting(waiting("NetworkPending"))
    };
    ClusterAnswer {
        progress,
        control_plane_endpoint: Some(Endpoint {
            host: format!("{}.example.com", name(&input.infra_cluster)),
            port: 6443,
        }),
        failure_domains: Vec::new(),
        status: json!({}),
        conditions: Vec::new(),
        state: None,
        extra: Vec::new(),
    }
}

fn ensure_machine(world: &World, env: &CallEnv, input: &MachineInput) -> MachineAnswer {
    let mut state = world.lock();
    let now = state.now();
    let boots = state.plugins.millis(2_000, 120_000);
    let key = input.context.idempotency_key.clone();
    if !state.cloud.instances.contains_key(&key) {
        state.cloud.made += 1;
        let instance = Instance {
            machine: uid(&input.machine).to_owned(),
            name: name(&input.machine).to_owned(),
            cluster: format!(
                "{}/{}",
                text(&input.cluster, "/metadata/namespace"),
                name(&input.cluster)
            ),
            id: format!("sim://{}", state.cloud.made),
            phase: Phase::Booting(now + boots),
        };
        state.instance_made(&instance);
        let data = input.bootstrap.as_ref();
        let data = data.and_then(|data| env.secrets.resolve(data.data));
        if let (Some(stacked), Some(data)) = (&mut state.stacked, data) {
            stacked.instance_made(&instance.name, &String::from_utf8_lossy(data));
        }
        state.cloud.instances.insert(key.clone(), instance);
    }
    let instance = state.cloud.instances[&key].clone();
    let progress = match instance.phase {
        Phase::Running => Progress::Ready,
        Phase::Booting(_) => Progress::Waiting(waiting("Booting")),
        Phase::Stopping(_) => Progress::Waiting(waiting("Stopping")),
        Phase::Broken(_) => Progress::Waiting(waiting("Broken")),
    };
    MachineAnswer {
        progress,
        provider_id: Some(instance.id),
        addresses: vec![("InternalIP".to_owned(), "10.0.0.1".to_owned())],
        failure_domain: None,
        interruptible: false,
        interruption_deadline_ms: None,
        instance_state: String::new(),
        status: json!({}),
        conditions: Vec::new(),
        state: None,
        extra: Vec::new(),
    }
}

fn delete_machine(world: &World, input: &MachineInput) -> DeletionAnswer {
    let mut state = world.lock();
    let gone_at = state.now() + state.plugins.millis(500, 60_000);
    let key = &input.context.idempotency_key;
    let Some(instance) = state.cloud.instances.get_mut(key) else {
        return deletion(Deletion::Gone);
    };
    if !matches!(instance.phase, Phase::Stopping(_)) {
        instance.phase = Phase::Stopping(gone_at);
        let instance = instance.clone();
        state.instance_deleted(&instance);
    }
    deletion(Deletion::Waiting(waiting("Stopping")))
}

fn delete_cluster(world: &World, input: &ClusterInput) -> DeletionAnswer {
    let mut state = world.lock();
    let gone_at = state.now() + state.plugins.millis(500, 30_000);
    let key = &input.context.idempotency_key;
    let Some(network) = state.cloud.networks.get_mut(key) else {
        return deletion(Deletion::Gone);
    };
    network.gone_at.get_or_insert(gone_at);
    state.stir();
    deletion(Deletion::Waiting(waiting("Removing")))
}

impl Native for SimulatedInfrastructure {
    fn ensure_cluster(
        &self,
        env: CallEnv,
        input: ClusterInput,
    ) -> BoxFuture<'_, Result<ClusterAnswer, CallError>> {
        async move {
            let lie = |answer: &mut ClusterAnswer, how| match how {
                0 => {
                    answer.control_plane_endpoint = Some(Endpoint {
                        host: String::new(),
                        port: 0,
                    })
                }
                1 => answer.status = json!({"initialization": {"provisioned": true}}),
                2 => {
                    let host = "elsewhere.example.com".to_owned();
                    // Only a change of what is known already can be seen to be a lie.
                    if text(&input.infra_cluster, "/spec/controlPlaneEndpoint/host").is_empty() {
                        answer.control_plane_endpoint = None;
                    } else {
                        answer.control_plane_endpoint = Some(Endpoint { host, port: 1 });
                    }
                }
                _ => answer.progress = Progress::Waiting(waiting("Forgetful")),
            };
            call(
                &self.world,
                &env,
                "ensure-cluster",
                |world| ensure_cluster(world, &input),
                lie,
            )
            .await
        }
        .boxed()
    }

    fn delete_cluster(
        &self,
        env: CallEnv,
        input: ClusterInput,
    ) -> BoxFuture<'_, Result<DeletionAnswer, CallError>> {
        async move {
            let lie = |answer: &mut DeletionAnswer, _| {
                answer.deletion = Deletion::Waiting(waiting("Forgetful"));
            };
            call(
                &self.world,
                &env,
                "delete-cluster",
                |world| delete_cluster(world, &input),
                lie,
            )
            .await
        }
        .boxed()
    }

    fn ensure_machine(
        &self,
        env: CallEnv,
        input: MachineInput,
    ) -> BoxFuture<'_, Result<MachineAnswer, CallError>> {
        async move {
            let lie = |answer: &mut MachineAnswer, how| match how {
                0 => answer.status = json!({"initialization": {"provisioned": true}}),
                1 => answer.addresses = vec![("Moon".to_owned(), "1".to_owned())],
                2 if !text(&input.infra_machine, "/spec/providerID").is_empty() => {
                    answer.provider_id = Some("sim://another".to_owned());
                }
                _ => answer.progress = Progress::Waiting(waiting("Forgetful")),
            };
            call(
                &self.world,
                &env,
                "ensure-machine",
                |world| ensure_machine(world, &env, &input),
                lie,
            )
            .await
        }
        .boxed()
    }

    fn delete_machine(
        &self,
        env: CallEnv,
        input: MachineInput,
    ) -> BoxFuture<'_, Result<DeletionAnswer, CallError>> {
        async move {
            let lie = |answer: &mut DeletionAnswer, _| {
                answer.deletion = Deletion::Waiting(waiting("Forgetful"));
            };
            call(
                &self.world,
                &env,
                "delete-machine",
                |world| delete_machine(world, &input),
                lie,
            )
            .await
        }
        .boxed()
    }
}
