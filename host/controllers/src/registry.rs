//! The list of controllers, who is woken by what, and what all of them may do. Adding a controller is adding a line to the list.

use std::sync::{Arc, Weak};

use capstan_api::label;
use capstan_engine::Engine;

use crate::access::{self, Access};
use crate::controller::{Controller, Primary, Source, Watch};
use crate::ctx::{Ctx, contract_version};
use crate::driver::Driver;
use crate::kube_api::{GroupKind, Resource, Selection};
use crate::metrics::Metrics;
use crate::object::{Locator, Object};
use crate::plugin::{self, PluginController};
use crate::plugins::Changed;
use crate::queue::Queue;
use crate::store::{Change, Store};
use crate::stores::{Listener, Origin};
use crate::workloads::WorkloadChange;
use crate::{event, install, kinds, lease};

/// Every controller, with how it is made.
macro_rules! controllers {
    ($each:ident, $plugins:expr) => {
        $each!(
            crate::plugin_source::PluginSourceController,
            Default::default()
        );
        $each!(crate::plugin::PluginController, $plugins);
        $each!(crate::cluster::ClusterController, Default::default());
        $each!(crate::machine::MachineController, Default::default());
        $each!(crate::machine_set::MachineSetController, Default::default());
        $each!(
            crate::machine_deployment::MachineDeploymentController,
            Default::default()
        );
        $each!(
            crate::machine_pool::MachinePoolController,
            Default::default()
        );
        $each!(
            crate::machine_health_check::MachineHealthCheckController,
            Default::default()
        );
        $each!(
            crate::machine_hook::MachineHookController,
            Default::default()
        );
        $each!(
            crate::infrastructure::InfraClusterController,
            Default::default()
        );
        $each!(
            crate::infrastructure::InfraMachineController,
            Default::default()
        );
        $each!(crate::bootstrap::BootstrapController, Default::default());
        $each!(
            crate::control_plane::ControlPlaneController,
            Default::default()
        );
        $each!(
            crate::resource_set::ClusterResourceSetController,
            Default::default()
        );
        $each!(
            crate::resource_set_binding::ClusterResourceSetBindingController,
            Default::default()
        );
    };
}

pub(crate) use controllers;

/// All that the host does with the API of the management cluster: what controllers say of themselves, and what they share.
#[must_use]
pub fn access() -> Vec<Access> {
    let mut all: Vec<Access> = Vec::new();
    for (resource, selection) in known("") {
        let access = Access::to(resource, access::WATCH);
        all.push(match selection.namespace {
            Some(_) => access.in_own_namespace(),
            None => access,
        });
    }
    all.extend(install::access());
    all.extend(lease::access());
    all.extend(event::access());
    macro_rules! declare {
        ($controller:ty, $made:expr) => {
            all.extend(<$controller as Controller>::access());
        };
    }
    controllers!(declare, ());
    all
}

/// Starts every controller. They run until the context's tasks are stopped.
pub fn start(ctx: &Arc<Ctx>, engine: &Arc<Engine>, metrics: &Arc<Metrics>) {
    start_warm(ctx, PluginController::new(Arc::clone(engine)), metrics);
}

/// The same with a controller of plugins that may have loaded them already.
pub fn start_warm(ctx: &Arc<Ctx>, plugins: PluginController, metrics: &Arc<Metrics>) {
    let mut registry = Registry {
        ctx: Arc::downgrade(ctx),
        routes: Vec::new(),
    };
    let mut drivers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    macro_rules! add {
        ($controller:ty, $made:expr) => {
            registry.add::<$controller>($made, ctx, metrics, &mut drivers);
        };
    }
    controllers!(add, plugins);
    let registry = Arc::new(registry);
    ctx.stores
        .listen(Arc::clone(&registry) as Arc<dyn Listener>);
    let plugins = Arc::clone(&registry);
    ctx.plugins
        .listen(move |changed| plugins.plugin_changed(changed));
    let looked_at = Arc::clone(&registry);
    ctx.plugins
        .listen_for_news(move |plugin| looked_at.look_at(&Locator::new(&kinds::PLUGIN, plugin)));
    let taken = Arc::clone(&registry);
    ctx.taking
        .listen(move |control_plane| taken.look_at(control_plane));
    let workloads = Arc::clone(&registry);
    ctx.workloads
        .listen(move |change| workloads.workload_changed(change));
    registry.wake_all();
    for start in drivers {
        start();
    }
}

/// The kinds that are watched from the start, by a host in this namespace.
fn known(namespace: &str) -> Vec<(&'static Resource, Selection)> {
    let whole: [&'static Resource; 11] = [
        &kinds::CLUSTER,
        &kinds::MACHINE,
        &kinds::MACHINE_SET,
        &kinds::MACHINE_DEPLOYMENT,
        &kinds::MACHINE_POOL,
        &kinds::MACHINE_DRAIN_RULE,
        &kinds::MACHINE_HEALTH_CHECK,
        &kinds::PLUGIN,
        &kinds::MACHINE_HOOK,
        &kinds::CLUSTER_RESOURCE_SET,
        &kinds::CLUSTER_RESOURCE_SET_BINDING,
    ];
    let mut known: Vec<(&'static Resource, Selection)> = whole
        .into_iter()
        .map(|resource| (resource, Selection::default()))
        .collect();
    let metadata = Selection {
        metadata_only: true,
        ..Selection::default()
    };
    known.push((&kinds::CRD, metadata.clone()));
    known.push((&kinds::NAMESPACE, metadata.clone()));
    let of_sets = Selection {
        labels: Some(capstan_api::addons::RESOURCE_LABEL.to_owned()),
        ..metadata.clone()
    };
    known.push((&kinds::RESOURCE_SET_CONFIG_MAP, of_sets.clone()));
    known.push((&kinds::RESOURCE_SET_SECRET, of_sets));
    let plugins = Selection {
        namespace: Some(namespace.to_owned()),
        labels: Some(label::PLUGIN.to_owned()),
        ..metadata.clone()
    };
    known.push((&kinds::CONFIG_MAP, plugins));
    let keys = Selection {
        namespace: Some(namespace.to_owned()),
        labels: Some(label::SIGNING_KEY.to_owned()),
        ..metadata
    };
    known.push((&kinds::SIGNING_KEY, keys));
    known
}

/// Stores of the kinds that are watched from the start.
pub fn known_stores(ctx: &Ctx) -> Vec<Arc<Store>> {
    let known = known(&ctx.namespace).into_iter();
    known
        .map(|(resource, selection)| ctx.stores.ensure(resource, selection))
        .collect()
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
        let queue = Arc::new(match spec.primary {
            Primary::Kind(_) => Queue::new(spec.settle),
            Primary::Roles(_) => Queue::shared_by_kind(spec.settle, spec.concurrency),
        });
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

    /// Who owns objects of its kinds looks at those, and who goes by what it is at all of theirs.
    fn plugin_changed(&self, changed: &Changed) {
        let Some(ctx) = self.ctx.upgrade() else {
            return;
        };
        for route in &self.routes {
            let goes_by = |watch: &Watch| match watch.source {
                Source::Plugins => true,
                Source::PluginsOf(kind) => changed.is.contains(&kind),
                Source::Kind(_) | Source::External | Source::Workload => false,
            };
            let goes_by = route.watches.iter().any(goes_by);
            if let Primary::Roles(roles) = route.primary {
                let kinds = ctx.plugins.kinds_with(roles).into_iter();
                for resource in kinds.filter(|r| changed.kinds.contains(&r.group_kind())) {
                    ctx.stores.turn_to(&resource);
                    if !goes_by {
                        route.wake_kind(&ctx, &resource.group_kind());
                    }
                }
            }
            if goes_by {
                route.wake_all(&ctx);
            }
        }
    }

    /// Work for this object that goes on beside its reconciles has come to an end.
    fn look_at(&self, locator: &Locator) {
        let Some(ctx) = self.ctx.upgrade() else {
            return;
        };
        for route in &self.routes {
            if route.kinds(&ctx).contains(&locator.kind) {
                route.queue.add(locator.clone());
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
        let paused = |o: &Option<Arc<Object>>| {
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

    /// A kind that comes, goes, or is served in another version concerns everything that refers to kinds of others: what could not
    /// be seen before can be seen now. The first list is before everything is woken anyway.
    fn definition_changed(&self, ctx: &Ctx, change: &Change) {
        let definitions = ctx.stores.get(&kinds::CRD.group_kind());
        let version =
            |definition: &Option<Arc<Object>>| definition.as_ref().map(|d| contract_version(d));
        if !definitions.is_some_and(|definitions| definitions.is_synced())
            || version(&change.old) == version(&change.new)
        {
            return;
        }
        self.wake_referring(ctx);
    }

    /// Puts every object into its queue that may refer to kinds of others.
    fn wake_referring(&self, ctx: &Ctx) {
        for route in &self.routes {
            if route
                .watches
                .iter()
                .any(|watch| matches!(watch.source, Source::External))
            {
                route.wake_all(ctx);
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
        if kind == kinds::CRD.group_kind() {
            self.definition_changed(&ctx, change);
        }
        if kind == kinds::PLUGIN.group_kind() {
            plugin::follow(&ctx, change);
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
                    Source::Workload | Source::Plugins | Source::PluginsOf(_) => false,
                };
                if wakes {
                    route.wake((watch.map)(&ctx, change));
                }
            }
        }
    }

    fn listed(&self, resource: &Resource) {
        if let Some(ctx) = self.ctx.upgrade() {
            tracing::info!(kind = %resource.kind, "objects of this kind are listed now");
            self.wake_referring(&ctx);
            let kind = resource.group_kind();
            for route in &self.routes {
                if route.kinds(&ctx).contains(&kind) {
                    route.wake_all(&ctx);
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
            self.wake_kind(ctx, &kind);
        }
    }

    fn wake_kind(&self, ctx: &Ctx, kind: &GroupKind) {
        if let Some(store) = ctx.stores.get(kind) {
            let keys = store.all().into_iter().map(|o| o.key.clone());
            self.wake(keys.map(|key| Locator {
                kind: kind.clone(),
                key,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use capstan_api::name::ObjectKey;
    use capstan_api::plugin::PluginOwnedKindStatus;
    use capstan_core::call::manifest::{Manifest, OwnedKind, PluginKind};
    use capstan_engine::{Grants, Limits, Loaded, Native};
    use serde_json::{Value, json};

    use super::*;
    use crate::kube_api::staged::Staged;
    use crate::plugins::ActivePlugin;
    use crate::workloads::tests::host_of;

    const ROLES: [(&str, &str); 4] = [
        ("infra-cluster", "Cluster"),
        ("infra-machine", "Machine"),
        ("bootstrap-config", "Config"),
        ("control-plane", "ControlPlane"),
    ];

    /// A plugin of this kind that owns a kind of objects for each of its roles.
    fn plugin(name: &str, interface: PluginKind) -> ActivePlugin {
        struct Nothing;
        impl Native for Nothing {}
        let roles = ROLES.into_iter();
        let kinds = roles.filter(|(role, _)| PluginKind::of_role(role) == Some(interface));
        let kinds = kinds.map(|(role, kind)| OwnedKind {
            role: role.to_owned(),
            group: "example.org".to_owned(),
            version: "v1".to_owned(),
            kind: format!("{name}{kind}"),
            plural: format!("{name}{kind}s").to_lowercase(),
            short_names: Vec::new(),
            spec_schema: json!({}),
            status_schema: json!({}),
            columns: Vec::new(),
        });
        let manifest = Manifest {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            description: String::new(),
            home_page: String::new(),
            kinds: kinds.collect(),
            capabilities: Vec::new(),
        };
        ActivePlugin {
            name: name.to_owned(),
            key: ObjectKey::new("ns", name),
            loaded: Loaded::native(manifest, BTreeSet::from([interface]), Arc::new(Nothing)),
            grants: Arc::new(Grants::default()),
            limits: Limits::default(),
            config: Value::Null,
            credentials: BTreeMap::new(),
            canary: None,
        }
    }

    const PLUGINS: [(&str, PluginKind); 6] = [
        ("A", PluginKind::Infrastructure),
        ("B", PluginKind::Infrastructure),
        ("Boot", PluginKind::Bootstrap),
        ("Plane", PluginKind::ControlPlane),
        ("Hook", PluginKind::PreDeleteHook),
        ("Strategy", PluginKind::UpgradeStrategy),
    ];

    /// A host with these plugins and one object of each kind, none of which waits to be looked at. Nothing of what is spawned runs while
    /// there is no await.
    fn host() -> (Arc<Ctx>, Arc<Registry>) {
        let ctx = Arc::new(host_of(Staged::new()));
        let mut registry = Registry {
            ctx: Arc::downgrade(&ctx),
            routes: Vec::new(),
        };
        let metrics = Arc::new(Metrics::default());
        let mut drivers = Vec::new();
        macro_rules! add {
            ($($controller:ty),*) => {
                $(registry.add::<$controller>(Default::default(), &ctx, &metrics, &mut drivers);)*
            };
        }
        add!(
            crate::infrastructure::InfraClusterController,
            crate::infrastructure::InfraMachineController,
            crate::bootstrap::BootstrapController,
            crate::control_plane::ControlPlaneController,
            crate::machine_deployment::MachineDeploymentController,
            crate::machine_hook::MachineHookController
        );
        let registry = Arc::new(registry);
        let told = Arc::clone(&registry);
        ctx.plugins
            .listen(move |changed| told.plugin_changed(changed));
        for (name, interface) in PLUGINS {
            ctx.plugins.activate(plugin(name, interface)).unwrap();
        }
        for kind in registry.routes.iter().flat_map(|route| route.kinds(&ctx)) {
            let object = json!({
                "apiVersion": format!("{}/v1", kind.group), "kind": kind.kind,
                "metadata": {"namespace": "ns", "name": "one", "uid": "u", "resourceVersion": "20"},
            });
            let store = ctx.stores.get(&kind).unwrap();
            store.apply(Object::new(object).unwrap());
        }
        assert_eq!(woken(&registry), "");
        (ctx, registry)
    }

    /// Kinds of the objects that wait to be looked at. They wait no longer.
    fn woken(registry: &Registry) -> String {
        let mut woken = BTreeSet::new();
        for route in &registry.routes {
            for locator in route.queue.waiting() {
                route.queue.forget(&locator);
                woken.insert(locator.kind.kind);
            }
        }
        woken.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn a_plugin_wakes_its_own_kinds_and_who_goes_by_what_it_is() {
        let (ctx, registry) = host();
        // Replaced, or granted anew.
        for ((name, interface), expected) in PLUGINS.into_iter().zip([
            "ACluster AMachine MachineHook",
            "BCluster BMachine MachineHook",
            "BootConfig MachineHook PlaneControlPlane",
            "BootConfig MachineHook PlaneControlPlane",
            "MachineHook",
            "MachineDeployment MachineHook",
        ]) {
            ctx.plugins.activate(plugin(name, interface)).unwrap();
            assert_eq!(woken(&registry), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_plugin_that_has_not_changed_wakes_nobody() {
        let (ctx, registry) = host();
        let owned = |kind: &str| {
            let kind = json!({
                "role": "infra-machine", "group": "example.org", "version": "v1", "kind": kind,
                "plural": format!("{kind}s").to_lowercase(),
            });
            serde_json::from_value::<PluginOwnedKindStatus>(kind).unwrap()
        };
        ctx.plugins.deactivate("A");
        assert_eq!(woken(&registry), "ACluster AMachine MachineHook");
        ctx.plugins.deactivate("A");
        let known = [owned("AMachine"), owned("BMachine")];
        ctx.plugins.recall("A", &known);
        assert_eq!(woken(&registry), "");
        ctx.plugins.remove("A");
        assert_eq!(woken(&registry), "MachineHook", "its kinds are nobody's");
        ctx.plugins.recall("A", &known);
        assert_eq!(woken(&registry), "AMachine MachineHook");
        // The kind of another cannot be had.
        let taken = ActivePlugin {
            name: "C".to_owned(),
            ..plugin("B", PluginKind::Infrastructure)
        };
        assert!(ctx.plugins.activate(taken).is_err());
        assert_eq!(woken(&registry), "");
    }

    #[test]
    fn what_can_be_large_is_watched_by_its_metadata_and_within_a_selection() {
        for (resource, selection) in known("own") {
            // Definitions, components, and whatever people put into ConfigMaps and Secrets.
            let is_large = [
                "ConfigMap",
                "Secret",
                "CustomResourceDefinition",
                "Namespace",
            ];
            if is_large.contains(&&*resource.kind) {
                assert!(selection.metadata_only, "{}", resource.kind);
            }
            if ["ConfigMap", "Secret"].contains(&&*resource.kind) {
                assert!(selection.labels.is_some(), "{}", resource.kind);
            }
        }
    }
}
