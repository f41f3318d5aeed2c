//! What controllers and plugins would do with one object now: the controllers as they are, over servers that nothing is written to, and
//! plugins in plan mode.

mod api;

use std::sync::Arc;
use std::time::Duration;

use capstan_api::contract::Role;
use capstan_api::name::ObjectKey;
use capstan_engine::{Engine, PlannedEffects};
use serde::Serialize;
use tokio::time::timeout;

pub use api::{Effect, Effects};

use crate::controller::{Controller, Primary};
use crate::ctx::{Ctx, SystemClock};
use crate::driver::Driver;
use crate::kinds;
use crate::kube_api::{KubeApi, Selection};
use crate::object::Locator;
use crate::plugin::PluginController;
use crate::queue::Queue;
use crate::registry;
use crate::tasks::Tasks;
use crate::workloads::RealConnect;

/// How long lists of the management cluster may take.
const LISTS: Duration = Duration::from_secs(60);

/// How long the workload cluster is waited for; without it the plan is what would happen while it cannot be reached.
const CONNECTION: Duration = Duration::from_secs(15);

/// How often a controller looks at the object: each time sees what it would have written the time before.
const LOOKS_MAX: usize = 8;

/// What one controller would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// The controller's name.
    pub controller: &'static str,
    /// What would be done, in order, as far as it does not need something else to happen first.
    pub effects: Vec<Effect>,
    /// When it looks again, or what failed.
    pub then: String,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Kinds whose list did not come.
    #[error("the API server has not listed {0} within a minute")]
    NotListed(String),
    /// No such kind.
    #[error(
        "{0} is no kind that the host knows: see `kubectl get plugins -A` for those of plugins"
    )]
    Kind(String),
    /// No such object.
    #[error("there is no {0} {1}")]
    Missing(String, ObjectKey),
    /// A kind that is only read, such as a template.
    #[error("no controller of the host looks after {0}")]
    Nobody(Locator),
}

/// A host that only rehearses.
pub struct Rehearsal {
    ctx: Arc<Ctx>,
    engine: Arc<Engine>,
    effects: Effects,
    planned: PlannedEffects,
}

impl Rehearsal {
    /// Reads what the host of this namespace reads at its start, and loads its plugins.
    ///
    /// # Errors
    /// When the management cluster does not answer.
    pub async fn start(
        api: &Arc<dyn KubeApi>,
        engine: Arc<Engine>,
        namespace: &str,
    ) -> Result<Self, PlanError> {
        let effects = Effects::default();
        let planned = PlannedEffects::default();
        let ctx = Arc::new(Ctx {
            planned: Some(planned.clone()),
            ..Ctx::new(
                Arc::new(api::Rehearsed::management(Arc::clone(api), effects.clone())),
                Arc::new(api::RehearsedConnect::new(
                    RealConnect::default(),
                    effects.clone(),
                )),
                Arc::new(SystemClock),
                Tasks::default(),
                namespace,
            )
        });
        let rehearsal = Self {
            ctx,
            engine,
            effects,
            planned,
        };
        rehearsal
            .synced(registry::known_stores(&rehearsal.ctx))
            .await?;
        Box::pin(rehearsal.load()).await;
        let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        let kinds = rehearsal.ctx.plugins.kinds_with(&roles);
        let stores = kinds
            .iter()
            .map(|kind| rehearsal.ctx.stores.ensure(kind, Selection::default()));
        rehearsal.synced(stores.collect()).await?;
        Ok(rehearsal)
    }

    async fn synced(&self, stores: Vec<Arc<crate::store::Store>>) -> Result<(), PlanError> {
        let all = async {
            for store in &stores {
                store.synced().await;
            }
        };
        timeout(LISTS, all).await.map_err(|_| {
            let kinds = self.ctx.stores.unsynced();
            let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            PlanError::NotListed(kinds.join(", "))
        })
    }

    /// Loads every plugin; one that cannot be loaded is missing, as it would be for the host.
    async fn load(&self) {
        let controller = PluginController::new(Arc::clone(&self.engine));
        let driver = self.driver(controller);
        for plugin in self.ctx.store(&kinds::PLUGIN).all() {
            let locator = Locator::new(&kinds::PLUGIN, &plugin.key);
            let mut then = String::new();
            // From one condition to the next.
            for _ in 0..LOOKS_MAX {
                then = Box::pin(driver.rehearse(&locator)).await;
                if self.ctx.plugins.get(&plugin.key.name).is_some() {
                    break;
                }
            }
            if self.ctx.plugins.get(&plugin.key.name).is_none() {
                tracing::warn!(plugin = %plugin.key.name, then, "not active here: this is what would happen without it");
            }
        }
        drop(self.effects.take());
    }

    fn driver<C: Controller>(&self, controller: C) -> Arc<Driver<C>> {
        let queue = Arc::new(Queue::new(controller.spec().settle));
        Driver::new(controller, Arc::clone(&self.ctx), queue, Arc::default())
    }

    /// What the controllers of an object's kind would do with it now.
    ///
    /// # Errors
    /// When there is no such object, or nobody looks after its kind.
    pub async fn plan(&self, kind: &str, key: &ObjectKey) -> Result<Vec<Turn>, PlanError> {
        let locator = self.find(kind, key)?;
        self.connect(&locator).await;
        let mut turns = Vec::new();
        macro_rules! turn {
            ($controller:ty, $made:expr) => {
                let controller: $controller = $made;
                if self.looks_after(&controller.spec().primary, &locator) {
                    let name = controller.spec().name;
                    let driver = self.driver(controller);
                    turns.push(self.turn(name, &driver, &locator).await);
                }
            };
        }
        let plugins = PluginController::new(Arc::clone(&self.engine));
        registry::controllers!(turn, plugins);
        if turns.is_empty() {
            return Err(PlanError::Nobody(locator));
        }
        Ok(turns)
    }

    /// Lets a controller look until it has nothing more to do, or says the same again.
    async fn turn<C: Controller>(
        &self,
        controller: &'static str,
        driver: &Driver<C>,
        locator: &Locator,
    ) -> Turn {
        let mut effects = Vec::new();
        let mut then = String::new();
        let mut before = Vec::new();
        for _ in 0..LOOKS_MAX {
            then = driver.rehearse(locator).await;
            let mut more = self.effects.take();
            more.extend(self.planned.take().into_iter().map(|effect| Effect {
                place: "plugin".to_owned(),
                verb: effect.capability.to_owned(),
                what: effect.what,
                fields: Vec::new(),
                conditions: Vec::new(),
            }));
            if more.is_empty() || more == before {
                break;
            }
            effects.extend(more.iter().cloned());
            before = more;
        }
        Turn {
            controller,
            effects,
            then,
        }
    }

    fn looks_after(&self, primary: &Primary, locator: &Locator) -> bool {
        match primary {
            Primary::Kind(resource) => resource.group_kind() == locator.kind,
            Primary::Roles(roles) => {
                let role = self.ctx.plugins.role_of(&locator.kind);
                role.is_some_and(|role| roles.contains(&role.as_str()))
            }
        }
    }

    /// The object of a kind that is named as people do: `machine`, `machines`, `Machine`, `machines.cluster.x-k8s.io`.
    fn find(&self, kind: &str, key: &ObjectKey) -> Result<Locator, PlanError> {
        let wanted = kind.to_lowercase();
        let stores = self.ctx.stores.all();
        let mut known = stores.iter().filter(|store| {
            let resource = store.resource();
            let full = format!("{}.{}", resource.plural, resource.group);
            [&resource.plural, &resource.kind.to_lowercase(), &full].contains(&&wanted)
        });
        let Some(store) = known.next() else {
            return Err(PlanError::Kind(kind.to_owned()));
        };
        let key = if store.resource().namespaced {
            key.clone()
        } else {
            ObjectKey::new("", key.name.clone())
        };
        if store.get(&key).is_none() {
            return Err(PlanError::Missing(store.resource().kind.clone(), key));
        }
        Ok(Locator::new(store.resource(), &key))
    }

    /// Connects to the object's workload cluster, where that answers.
    async fn connect(&self, locator: &Locator) {
        let Some(object) = self.ctx.stores.object(&locator.kind, &locator.key) else {
            return;
        };
        let cluster = if locator.kind == kinds::CLUSTER.group_kind() {
            locator.key.clone()
        } else {
            match object.cluster() {
                Some(cluster) => cluster,
                None => return,
            }
        };
        let is_up = self
            .ctx
            .get(&kinds::CLUSTER, &cluster)
            .is_some_and(|cluster| {
                let pointer = "/status/initialization/controlPlaneInitialized";
                cluster.value.pointer(pointer) == Some(&serde_json::Value::Bool(true))
            });
        if !is_up {
            return;
        }
        self.ctx.workloads.keep(&cluster);
        let connected = async {
            loop {
                if let Some(workload) = self.ctx.workloads.get(&cluster) {
                    workload.nodes.synced().await;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(CONNECTION, connected).await.is_err() {
            tracing::warn!(%cluster, "the workload cluster does not answer: this is what would happen without it");
        }
    }

    /// Ends what was started.
    pub fn stop(self) {
        self.ctx.tasks.stop();
    }
}
