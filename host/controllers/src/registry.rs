//! The list of controllers, and who is woken by what. Adding a controller is adding a line to [`start`].

use std::sync::{Arc, Weak};

use capstan_api::label;
use capstan_engine::Engine;

use crate::controller::{Controller, Primary, Source, Watch};
use crate::ctx::Ctx;
use crate::driver::Driver;
use crate::kinds;
use crate::kube_api::{GroupKind, Resource, Selection};
use crate::metrics::Metrics;
use crate::object::Locator;
use crate::queue::Queue;
use crate::store::{Change, Store};
use crate::stores::{Listener, Origin};
use crate::workloads::WorkloadChange;

/// Starts every controller. They run until the context's tasks are stopped.
pub fn start(ctx: &Arc<Ctx>, engine: &Arc<Engine>, metrics: &Arc<Metrics>) {
    let mut registry = Registry {
        ctx: Arc::downgrade(ctx),
        routes: Vec::new(),
    };
    let mut drivers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    macro_rules! run {
        ($($controller:expr),* $(,)?) => {
            $(registry.add($controller, ctx, metrics, &mut drivers);)*
        };
    }
    run![
        crate::plugin_source::PluginSourceController::default(),
        crate::plugin::PluginController::new(Arc::clone(engine)),
        crate::cluster::ClusterController::default(),
        crate::machine::MachineController::default(),
        crate::machine_set::MachineSetController::default(),
        crate::machine_deployment::MachineDeploymentController::default(),
        crate::machine_health_check::MachineHealthCheckController::default(),
        crate::machine_hook::MachineHookController::default(),
        crate::infrastructure::InfraClusterController::default(),
        crate::infrastructure::InfraMachineController::default(),
        crate::bootstrap::BootstrapController::default(),
        crate::control_plane::ControlPlaneController::default(),
        crate::resource_set::ClusterResourceSetController::default(),
        crate::resource_set_binding::ClusterResourceSetBindingController::default(),
    ];
    let registry = Arc::new(registry);
    ctx.stores
        .listen(Arc::clone(&registry) as Arc<dyn Listener>);
    let plugins = Arc::clone(&registry);
    ctx.plugins.listen(move || plugins.plugins_changed());
    let workloads = Arc::clone(&registry);
    ctx.workloads
        .listen(move |change| workloads.workload_changed(change));
    registry.wake_all();
    for start in drivers {
        start();
    }
}

/// Stores of the kinds that are watched from the start.
fn known_stores(ctx: &Ctx) -> Vec<Arc<Store>> {
    let mut stores = Vec::new();
    for resource in [
        &*kinds::CLUSTER,
        &*kinds::MACHINE,
        &*kinds::MACHINE_SET,
        &*kinds::MACHINE_DEPLOYMENT,
        &*kinds::MACHINE_DRAIN_RULE,
        &*kinds::MACHINE_HEALTH_CHECK,
        &*kinds::PLUGIN,
        &*kinds::MACHINE_HOOK,
        &*kinds::CLUSTER_RESOURCE_SET,
        &*kinds::CLUSTER_RESOURCE_SET_BINDING,
    ] {
        stores.push(ctx.stores.ensure(resource, Selection::default()));
    }
    let metadata = Selection {
        metadata_only: true,
        ..Selection::default()
    };
    stores.push(ctx.stores.ensure(&kinds::CRD, metadata.clone()));
    stores.push(ctx.stores.ensure(&kinds::NAMESPACE, metadata.clone()));
    let of_sets = Selection {
        labels: Some(capstan_api::addons::RESOURCE_LABEL.to_owned()),
        ..metadata.clone()
    };
    for resource in [
        &*kinds::RESOURCE_SET_CONFIG_MAP,
        &*kinds::RESOURCE_SET_SECRET,
    ] {
        stores.push(ctx.stores.ensure(resource, of_sets.clone()));
    }
    let plugins = Selection {
        namespace: Some(ctx.namespace.clone()),
        labels: Some(label::PLUGIN.to_owned()),
        ..metadata
    };
    stores.push(ctx.stores.ensure(&kinds::CONFIG_MAP, plugins));
    stores
}

struct Route {
    controller: &'static str,
    primary: Primary,
    pausable: bool,
    queue: Arc<Queue>,
    watches: Vec<Watch>,
}

struct Registry {
    ctx: Weak<Ctx>,
    routes: Vec<Route>,
}

impl Registry {
    fn add<C: Controller>(
        &mut self,
        controller: C,
        ctx: &Arc<Ctx>,
        metrics: &Arc<Metrics>,
        drivers: &mut Vec<Box<dyn FnOnce() + Send>>,
    ) {
        let spec = controller.spec().clone();
        let queue = Arc::new(Queue::new(spec.settle));
        self.routes.push(Route {
            controller: spec.name,
            primary: spec.primary,
            pausable: spec.pausable,
            queue: Arc::clone(&queue),
            watches: controller.watches(),
        });
        let driver = Driver::new(controller, Arc::clone(ctx), queue, Arc::clone(metrics));
        let tasks = ctx.tasks.clone();
        let known = known_stores(ctx);
        drivers.push(Box::new(move || {
            tasks.spawn("controller", async move {
                // What is not listed yet would look as if it did not exist.
                for store in known {
                    store.synced().await;
                }
                driver.run().await;
            });
        }));
    }

    /// Puts every object of every controller into its queue.
    fn wake_all(&self) {
        let Some(ctx) = self.ctx.upgrade() else {
            return;
        };
        for route in &self.routes {
            route.wake_all(&ctx);
        }
    }

    fn plugins_changed(&self) {
        let Some(ctx) = self.ctx.upgrade() else {
            return;
        };
        for route in &self.routes {
            if let Primary::Roles(roles) = route.primary {
                for resource in ctx.plugins.kinds_with(roles) {
                    ctx.stores.ensure(&resource, Selection::default());
                }
                route.wake_all(&ctx);
            } else if route
                .watches
                .iter()
                .any(|w| matches!(w.source, Source::Plugins))
            {
                route.wake_all(&ctx);
            }
        }
    }

    fn workload_changed(&self, change: &WorkloadChange) {
        let Some(ctx) = self.ctx.upgrade() else {
            return;
        };
        let Some(change) = change.as_change(&ctx) else {
            return;
        };
        for route in &self.routes {
            for watch in route
                .watches
                .iter()
                .filter(|w| matches!(w.source, Source::Workload))
            {
                route.wake((watch.map)(&ctx, &change));
            }
        }
    }

    /// Pausing and resuming a Cluster concerns everything in it.
    fn pause_changed(&self, ctx: &Ctx, change: &Change) {
        let paused = |o: &Option<Arc<crate::object::Object>>| {
            o.as_ref().is_some_and(|o| {
                o.value
                    .pointer("/spec/paused")
                    .and_then(serde_json::Value::as_bool)
                    == Some(true)
            })
        };
        let Some(cluster) = change.object() else {
            return;
        };
        if paused(&change.old) == paused(&change.new) {
            return;
        }
        for route in self.routes.iter().filter(|route| route.pausable) {
            for kind in route.kinds(ctx) {
                if let Some(store) = ctx.stores.get(&kind) {
                    let objects = store.of_cluster(&cluster.key);
                    route.wake(objects.iter().map(|o| Locator {
                        kind: kind.clone(),
                        key: o.key.clone(),
                    }));
                }
            }
        }
    }
}

impl Listener for Registry {
    fn changed(&self, resource: &Resource, change: &Change, origin: Option<Origin>) {
        let Some(ctx) = self.ctx.upgrade() else {
            return;
        };
        let Some(object) = change.object() else {
            return;
        };
        let kind = resource.group_kind();
        let locator = Locator {
            kind: kind.clone(),
            key: object.key.clone(),
        };
        if kind == kinds::CLUSTER.group_kind() {
            self.pause_changed(&ctx, change);
        }
        let known = kinds::is_known(&kind);
        for route in &self.routes {
            // A controller's own status write tells it nothing new.
            let own_status =
                origin.is_some_and(|o| o.controller == route.controller && o.status_only);
            if !own_status && route.kinds(&ctx).contains(&kind) {
                route.queue.add(locator.clone());
            }
            for watch in &route.watches {
                let wakes = match &watch.source {
                    Source::Kind(resource) => resource.group_kind() == kind,
                    Source::External => !known,
                    Source::Workload | Source::Plugins => false,
                };
                if wakes {
                    route.wake((watch.map)(&ctx, change));
                }
            }
        }
    }
}

impl Route {
    fn kinds(&self, ctx: &Ctx) -> Vec<GroupKind> {
        match &self.primary {
            Primary::Kind(resource) => vec![resource.group_kind()],
            Primary::Roles(roles) => ctx
                .plugins
                .kinds_with(roles)
                .iter()
                .map(Resource::group_kind)
                .collect(),
        }
    }

    fn wake(&self, locators: impl IntoIterator<Item = Locator>) {
        for locator in locators {
            self.queue.add(locator);
        }
    }

    fn wake_all(&self, ctx: &Ctx) {
        for kind in self.kinds(ctx) {
            if let Some(store) = ctx.stores.get(&kind) {
                let keys = store.all().into_iter().map(|o| o.key.clone());
                self.wake(keys.map(|key| Locator {
                    kind: kind.clone(),
                    key,
                }));
            }
        }
    }
}
