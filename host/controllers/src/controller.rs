//! What a controller is: two pure functions and two effectful ones. [`crate::driver`] runs them; nobody edits that loop.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::{condition, label};
use capstan_core::call::manifest::PluginKind;
use capstan_core::plan::{Failure, Next, Outcome, Plan};
use jiff::Timestamp;
use serde_json::Value;

use crate::access::Access;
use crate::ctx::{Ctx, owner_reference};
use crate::kinds;
use crate::kube_api::Resource;
use crate::object::{Locator, Object};
use crate::store::Change;

/// How long a status that only people read waits for company. Machines come in seconds at best: what changes within this time is one
/// write.
pub const HOLD: Duration = Duration::from_secs(3);

/// Whose objects a controller reconciles.
#[derive(Clone, Debug)]
pub enum Primary {
    /// One kind.
    Kind(&'static Resource),
    /// Every kind that an active plugin owns in one of these roles, such as `infra-machine`.
    Roles(&'static [&'static str]),
}

/// What wakes a controller besides its own objects.
#[derive(Clone)]
pub enum Source {
    /// Changes of one kind.
    Kind(&'static Resource),
    /// Changes of any kind that was learned from a reference or a plugin: infrastructure, bootstrap, control plane.
    External,
    /// Connection to, or a Node of, a workload cluster changed. The change's object is the Node, or the Cluster when the
    /// connection came or went.
    Workload,
    /// A plugin became active, changed, or went: every primary object is looked at again. Objects of the plugin's own kinds are in any case.
    Plugins,
    /// The same for plugins of one kind.
    PluginsOf(PluginKind),
}

/// Translates a change to the objects that have to look at it.
pub type Map = fn(&Ctx, &Change) -> Vec<Locator>;

/// One line of what wakes a controller.
#[derive(Clone)]
pub struct Watch {
    /// Where changes come from.
    pub source: Source,
    /// Whom they concern.
    pub map: Map,
}

/// Constant facts about a controller.
#[derive(Clone, Debug)]
pub struct Spec {
    /// In logs, metrics and as the origin of writes.
    pub name: &'static str,
    /// Field manager of its writes.
    pub manager: &'static str,
    /// Whose objects it reconciles.
    pub primary: Primary,
    /// Set by the driver before the first effect, removed when a report says so.
    pub finalizer: Option<&'static str>,
    /// Does nothing while the Cluster or the object is paused, and says so in the condition `Paused`.
    pub pausable: bool,
    /// Objects worked on at a time.
    pub concurrency: usize,
    /// Changes within this time are looked at together.
    pub settle: Duration,
    /// A status change that nobody acts on may wait so long for company.
    pub hold: Duration,
}

/// Metadata that an object must have before anything else happens with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adoption {
    /// Labels to set.
    pub labels: Vec<(String, String)>,
    /// Annotations to set where there is none of the name.
    pub annotations: Vec<(String, String)>,
    /// Owner references to have, as JSON; matched by UID.
    pub owners: Vec<Value>,
    /// UIDs of owner references to drop.
    pub drop_owners: Vec<String>,
}

impl Adoption {
    /// Of what belongs to a Cluster: its label, and the Cluster as an owner if that is wanted and the Cluster is there.
    #[must_use]
    pub fn by_cluster(ctx: &Ctx, object: &Object, is_owner: bool) -> Self {
        let mut adoption = Self::default();
        let Some(key) = object.cluster() else {
            return adoption;
        };
        let cluster = ctx.get(&kinds::CLUSTER, &key).filter(|_| is_owner);
        let owner = cluster.map(|cluster| owner_reference(&cluster, false));
        adoption.owners.extend(owner);
        let labelled = (label::CLUSTER_NAME.to_owned(), key.name);
        adoption.labels.push(labelled);
        adoption
    }
}

/// What the status says, and what follows from the outcome.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The complete status but conditions and `observedGeneration`, as a JSON object; what is not in it is removed.
    pub status: Value,
    /// Every condition that the controller owns, every time. The driver stamps times and generations.
    pub conditions: Vec<condition::Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// All that the finalizer stands for is done: the driver removes it instead of writing the status.
    pub finished: bool,
    /// What it says is not found out again soon: it is written now, and does not wait for company.
    pub is_last_word: bool,
    /// `observedGeneration` stays: of what the object asks for now, something could not be found out.
    pub keeps_generation: bool,
}

/// A condition that is Unknown because the object cannot be observed.
#[must_use]
pub fn internal_error(name: &str, failure: &Failure) -> condition::Report {
    condition::Report::unknown(name, "InternalError").with_message(&*failure.message)
}

/// A controller. Signatures and rules: `ARCHITECTURE.md`.
pub trait Controller: Send + Sync + 'static {
    /// All that a decision may look at.
    type Observed: Send + Sync;
    /// One effect, complete.
    type Step: Clone + Debug + Send + Sync;
    /// What a step answered.
    type Effect: Clone + Debug + Send + Sync;

    /// Constant facts.
    fn spec(&self) -> &Spec;

    /// What wakes it besides its own objects.
    fn watches(&self) -> Vec<Watch>;

    /// All that it does with the API of the management cluster, but reading caches that are there from the start and writing events.
    /// An installation's RBAC is made of it.
    fn access() -> Vec<Access>
    where
        Self: Sized;

    /// The Cluster that an object belongs to: for pause. `None` when it has none or it is not known yet.
    fn cluster(&self, object: &Object) -> Option<ObjectKey>;

    /// Metadata to set before the first effect, together with the finalizer, in one write.
    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        let _ = (ctx, object);
        Adoption::default()
    }

    /// Whether it is time for the finalizer: an object that waits for an owner gets both in one write of the owner's controller.
    fn finalizes(&self, object: &Object) -> bool {
        let _ = object;
        true
    }

    /// The object is gone: nothing of it is kept in memory.
    fn forget(&self, ctx: &Ctx, locator: &Locator) {
        let _ = (ctx, locator);
    }

    /// What is said of an object that could not be observed several times in a row: who looks at it must learn why nothing happens.
    fn unobserved(&self, object: &Object, failure: &Failure) -> Vec<condition::Report> {
        let _ = (object, failure);
        Vec::new()
    }

    /// Reads; never writes.
    fn observe(
        &self,
        ctx: &Ctx,
        object: Arc<Object>,
    ) -> impl Future<Output = Result<Self::Observed, Failure>> + Send;

    /// Pure.
    fn decide(&self, observed: &Self::Observed, now: Timestamp) -> Plan<Self::Step>;

    /// One arm per kind of step; never reads to decide.
    fn perform(
        &self,
        ctx: &Ctx,
        observed: &Self::Observed,
        step: &Self::Step,
    ) -> impl Future<Output = Result<Self::Effect, Failure>> + Send;

    /// Whether the later steps of a plan do not build on this one: when it is refused, they are tried all the same, so that one object that
    /// a webhook refuses does not hold everything else. A lost race ends the plan, since it was made from old news.
    fn goes_on(&self, observed: &Self::Observed, step: &Self::Step) -> bool {
        let _ = (observed, step);
        false
    }

    /// Whether the report is left to the next look, which comes at once: steps have changed the object itself, and what is said of it now would
    /// be said again of its new generation.
    fn reports_next_time(&self, outcome: &Outcome<Self::Step, Self::Effect>) -> bool {
        let _ = outcome;
        false
    }

    /// Pure.
    fn report(
        &self,
        observed: &Self::Observed,
        plan: &Plan<Self::Step>,
        outcome: &Outcome<Self::Step, Self::Effect>,
        now: Timestamp,
    ) -> Report;
}
