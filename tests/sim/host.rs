//! The host under test: its controllers as in production, with the world's clock, servers, cloud and plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use capstan_api::name::ObjectKey;
use capstan_controllers::ctx::Ctx;
use capstan_controllers::etcd::SnapshotStore;
use capstan_controllers::kube_api::{KubeApi, Resource};
use capstan_controllers::metrics::Metrics;
use capstan_controllers::plugins::ActivePlugin;
use capstan_controllers::registry;
use capstan_controllers::tasks::Tasks;
use capstan_controllers::workloads::{Connect, ConnectError};
use capstan_core::call::manifest::{Manifest, OwnedKind, PluginKind};
use capstan_engine::{Engine, EngineOptions, Grants, Limits, Loaded, Native};
use capstan_strategy_tests::ask::ask;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use upgrade_on_delete::OnDelete;
use upgrade_rolling_update::RollingUpdate;

use crate::cloud::SimulatedInfrastructure;
use crate::hook::SimulatedHook;
use crate::kinds;
use crate::scenario;
use crate::server::HostApi;
use crate::stacked::{
    SNAPSHOTS_KEPT, SimulatedBootstrap, SimulatedControlPlane, SimulatedEtcd, SnapshotPlace,
};
use crate::strategy::SimulatedStrategy;
use crate::world::{Server, World, WorldClock};

/// The host's namespace.
pub const NAMESPACE: &str = "capstan-system";

/// Makes connections to simulated workload clusters: a kubeconfig of a provider is no more than the Cluster's key, and one that the host made
/// names the endpoint that the infrastructure gave the Cluster.
struct SimulatedConnect(Arc<World>);

impl Connect for SimulatedConnect {
    fn connect<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        async move {
            let cluster = match kubeconfig.split_once("server: \"https://") {
                Some((_, address)) => address
                    .split_once('.')
                    .map(|(name, _)| (scenario::NAMESPACE, name)),
                None => kubeconfig.trim().split_once('/'),
            };
            let (namespace, name) = cluster.ok_or(ConnectError::Unreadable)?;
            let server = Server::Workload(ObjectKey::new(namespace, name));
            Ok(Arc::new(HostApi::new(Arc::clone(&self.0), server)) as Arc<dyn KubeApi>)
        }
        .boxed()
    }
}

/// A running host. It ends when it is stopped.
pub struct Host {
    tasks: Tasks,
}

impl Host {
    /// Starts a host.
    #[must_use]
    pub fn start(world: &Arc<World>) -> Self {
        world.note("host: starts");
        let api: Arc<dyn KubeApi> = Arc::new(HostApi::new(Arc::clone(world), Server::Management));
        let tasks = Tasks::default();
        let keeps_snapshots = world.lock().keeps_snapshots();
        let snapshots = keeps_snapshots.then(|| {
            let place = Arc::new(SnapshotPlace(Arc::clone(world)));
            SnapshotStore::in_place(place, SNAPSHOTS_KEPT)
        });
        let ctx = Arc::new(Ctx {
            etcd: Arc::new(SimulatedEtcd(Arc::clone(world))),
            snapshots,
            ..Ctx::new(
                api,
                Arc::new(SimulatedConnect(Arc::clone(world))),
                Arc::new(WorldClock(Arc::clone(world))),
                tasks.clone(),
                NAMESPACE,
            )
        });
        registry::start(&ctx, engine(), &Arc::new(Metrics::default()));
        for plugin in plugins(world) {
            ctx.plugins.activate(plugin).unwrap();
        }
        Self { tasks }
    }

    /// Ends it at once, whatever it is doing.
    pub fn stop(self, world: &World) {
        world.note("host: killed");
        self.tasks.stop();
    }
}

/// An engine that loads nothing: the registry wants one for the controller of Plugin objects, of which there are none.
fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<(tempfile::TempDir, Arc<Engine>)> = OnceLock::new();
    let (_, engine) = ENGINE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let engine = Engine::new(EngineOptions::for_tests(dir.path().join("plugins")));
        (dir, engine.expect("an engine"))
    });
    engine
}

fn owned(role: &str, resource: &Resource) -> OwnedKind {
    OwnedKind {
        role: role.to_owned(),
        group: resource.group.clone(),
        version: resource.version.clone(),
        kind: resource.kind.clone(),
        plural: resource.plural.clone(),
        short_names: Vec::new(),
        spec_schema: json!({}),
        status_schema: json!({}),
        columns: Vec::new(),
    }
}

fn active(
    name: &str,
    kind: PluginKind,
    kinds: Vec<OwnedKind>,
    native: Arc<dyn Native>,
) -> ActivePlugin {
    let manifest = Manifest {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        description: String::new(),
        home_page: String::new(),
        kinds,
        capabilities: Vec::new(),
    };
    ActivePlugin {
        name: name.to_owned(),
        key: ObjectKey::new(NAMESPACE, name),
        loaded: Loaded::native(manifest, BTreeSet::from([kind]), native),
        grants: Arc::new(Grants::default()),
        limits: Limits::default(),
        config: Value::Object(serde_json::Map::new()),
        credentials: BTreeMap::new(),
        canary: None,
    }
}

fn plugins(world: &Arc<World>) -> Vec<ActivePlugin> {
    let infrastructure = vec![
        owned("infra-cluster", &kinds::SIM_CLUSTER),
        owned("infra-machine", &kinds::SIM_MACHINE),
        owned("infra-machine-template", &kinds::SIM_MACHINE_TEMPLATE),
    ];
    let mut plugins = vec![
        active(
            "infrastructure-sim",
            PluginKind::Infrastructure,
            infrastructure,
            Arc::new(SimulatedInfrastructure::new(Arc::clone(world))),
        ),
        active(
            "upgrade-rolling-update",
            PluginKind::UpgradeStrategy,
            Vec::new(),
            Arc::new(SimulatedStrategy::new(
                Arc::clone(world),
                ask::<RollingUpdate>,
            )),
        ),
        active(
            "upgrade-on-delete",
            PluginKind::UpgradeStrategy,
            Vec::new(),
            Arc::new(SimulatedStrategy::new(Arc::clone(world), ask::<OnDelete>)),
        ),
        active(
            "pre-delete-sim",
            PluginKind::PreDeleteHook,
            Vec::new(),
            Arc::new(SimulatedHook::new(Arc::clone(world))),
        ),
    ];
    if world.lock().stacked.is_some() {
        plugins.push(active(
            "control-plane-sim",
            PluginKind::ControlPlane,
            vec![owned("control-plane", &kinds::SIM_STACKED_CONTROL_PLANE)],
            Arc::new(SimulatedControlPlane(Arc::clone(world))),
        ));
        plugins.push(active(
            "bootstrap-sim",
            PluginKind::Bootstrap,
            vec![owned("bootstrap-config", &kinds::SIM_STACKED_CONFIG)],
            Arc::new(SimulatedBootstrap(Arc::clone(world))),
        ));
    }
    plugins
}
