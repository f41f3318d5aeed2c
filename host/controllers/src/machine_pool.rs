//! MachinePool: reads what `capstan_core::machine_pool` needs, does what it asks.

mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use capstan_api::contract::InfraMachinePool;
use capstan_api::name::{ObjectKey, label_value};
use capstan_api::reason::event as reason;
use capstan_api::v1beta2::{Machine, MachinePool};
use capstan_api::{finalizer, label};
use capstan_core::lookup::Lookup;
use capstan_core::machine_pool::nodes::{NodeDeletion, NodePatch};
use capstan_core::machine_pool::{self as core, Effect, Nodes, Observed, Step};
use capstan_core::machine_set::remediation::Remediation;
use capstan_core::plan::{Failure, Next, Outcome, Plan};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::access::{self, Access};
use crate::controller::{
    Adoption, Controller, HOLD, Primary, Report, Source, Spec, Watch, internal_error,
};
use crate::ctx::{Ctx, Writer, failure};
use crate::event::{self, Event};
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, Patch, Preconditions};
use crate::machine::{shared, typed};
use crate::machine_set::{announce, cluster_of};
use crate::object::{Locator, Object};
use crate::parallel::all;
use crate::reference::{reference_kind, referred};
use crate::workloads::Workload;
use crate::workloads::nodes::NODE_WRITES_AT_ONCE;

/// Field manager of the controller's writes, Machines included (upstream's name).
const MANAGER: &str = "machinepool-controller";

/// Nodes of one pool that are written or deleted at the same time: half of those of its cluster, which has others.
const NODES_AT_ONCE: usize = NODE_WRITES_AT_ONCE / 2;

/// How long Nodes are written or deleted in one turn; what is left then has its turn later. A server that hangs holds the worker of a pool for
/// one request's time.
const TURN: Duration = Duration::from_secs(10);

/// The MachinePool controller.
pub struct MachinePoolController {
    spec: Spec,
}

impl Default for MachinePoolController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "machine-pool",
                manager: MANAGER,
                primary: Primary::Kind(&kinds::MACHINE_POOL),
                finalizer: Some(finalizer::MACHINE_POOL),
                pausable: true,
                concurrency: 50,
                settle: Duration::from_millis(50),
                hold: HOLD,
            },
        }
    }
}

impl MachinePoolController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }
}

/// The infrastructure machines that the pool's provider has made, by their labels (contract 2.4).
async fn infra_machines(
    ctx: &Ctx,
    object: &Object,
    cluster: &ObjectKey,
    infra: &Lookup<Arc<Value>>,
) -> Lookup<Vec<Arc<Value>>> {
    let infra = match infra {
        Lookup::Found(infra) => infra,
        Lookup::Missing => return Lookup::Found(Vec::new()),
        Lookup::Unknown(why) => return Lookup::Unknown(why.clone()),
    };
    let Some(kind) = InfraMachinePool(infra).machine_kind() else {
        return Lookup::Found(Vec::new());
    };
    let Some(group) = Object::new(Arc::clone(infra)).map(|infra| infra.group_kind().group) else {
        return Lookup::Found(Vec::new());
    };
    let kind = GroupKind {
        group,
        kind: kind.to_owned(),
    };
    let store = match ctx.external(&kind).await {
        Ok(store) => store,
        Err(failure) => return Lookup::Unknown(failure.message),
    };
    let name = label_value(&object.key.name);
    let of_cluster = store.of_cluster(cluster).into_iter();
    let machines = of_cluster.filter(|machine| machine.label(label::POOL_NAME) == Some(&*name));
    Lookup::Found(machines.map(|machine| machine.value.clone()).collect())
}

/// Machines that the pool controls, and the names of those that others have and that its infrastructure machines would need.
async fn machines(
    ctx: &Ctx,
    object: &Object,
    infra_machines: &Lookup<Vec<Arc<Value>>>,
) -> Result<(Vec<Arc<Machine>>, Vec<String>), Failure> {
    let store = ctx.store(&kinds::MACHINE);
    store.synced().await;
    let is_own = |machine: &Object| {
        machine
            .controller()
            .is_some_and(|owner| owner.uid == object.uid)
    };
    let owned = store.owned_by(&object.uid);
    let own: Result<Vec<Arc<Machine>>, Failure> = owned
        .iter()
        .filter(|machine| is_own(machine))
        .map(|machine| shared(machine))
        .collect();
    let names = infra_machines.found().into_iter().flatten();
    let names = names.filter_map(|infra| infra.pointer("/metadata/name")?.as_str());
    let taken = names.filter(|name| {
        let key = ObjectKey::new(object.key.namespace.clone(), *name);
        store.get(&key).is_some_and(|machine| !is_own(&machine))
    });
    Ok((own?, taken.map(str::to_owned).collect()))
}

/// Nodes that concern the pool, as far as the workload cluster can be seen.
fn nodes(
    ctx: &Ctx,
    cluster: &ObjectKey,
    pool: &MachinePool,
    infra: Option<&Value>,
) -> Lookup<Nodes> {
    let workload = ctx.workloads.get(cluster);
    let Some(workload) = workload.filter(|workload| workload.nodes.is_synced()) else {
        return Lookup::Unknown("Remote connection not established yet".to_owned());
    };
    let listed = infra.map(|infra| InfraMachinePool(infra).provider_ids());
    let ids: BTreeSet<&str> = listed.into_iter().flatten().collect();
    let by_id: BTreeMap<String, Vec<Arc<Value>>> = ids
        .into_iter()
        .filter_map(|id| {
            let nodes = workload.nodes_by_provider_id(id);
            let nodes: Vec<Arc<Value>> = nodes.iter().map(|node| node.value.clone()).collect();
            (!nodes.is_empty()).then(|| (id.to_owned(), nodes))
        })
        .collect();
    let references = pool.status.iter().flat_map(|status| &status.node_refs);
    let named = references.filter_map(|reference| {
        let node = workload.node(reference.name.as_deref()?)?;
        let is_same = reference.uid.as_ref().is_none_or(|uid| *uid == node.uid);
        is_same.then(|| node.value.clone())
    });
    Lookup::Found(Nodes {
        named: named.collect(),
        by_id,
    })
}

impl Controller for MachinePoolController {
    type Observed = Observed;
    type Step = Step;
    type Effect = Effect;

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn goes_on(&self, _: &Self::Observed, _: &Self::Step) -> bool {
        true
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::External,
                map: wake::of_external,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: wake::of_machine,
            },
            Watch {
                source: Source::Kind(&kinds::CLUSTER),
                map: wake::of_cluster,
            },
            Watch {
                source: Source::Workload,
                map: wake::of_workload,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::MACHINE_POOL, &["patch"]),
            Access::to_status(&kinds::MACHINE_POOL),
            Access::to(&kinds::MACHINE, &["create", "patch", "delete"]),
            Access::to_status(&kinds::MACHINE),
            Access::to_group(
                access::INFRASTRUCTURE,
                &["list", "watch", "patch", "delete"],
            ),
            Access::to_group(access::BOOTSTRAP, &["list", "watch", "patch", "delete"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        object.cluster()
    }

    /// A pool belongs to its Cluster (contract 3.7.1).
    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        Adoption::by_cluster(ctx, object, true)
    }

    fn unobserved(&self, _: &Object, failure: &Failure) -> Vec<capstan_api::condition::Report> {
        vec![internal_error("Available", failure)]
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let pool: MachinePool = typed(&object)?;
        let key = ObjectKey::new(object.key.namespace.clone(), pool.spec.cluster_name.clone());
        let cluster = cluster_of(ctx, &key, object.is_deleting())?;
        let spec = &pool.spec.template.spec;
        let kind = reference_kind(&spec.infrastructure_ref);
        let plugin = ctx.plugin_of(&kind);
        let (namespace, is_going) = (&object.key.namespace, object.is_deleting());
        let infra = referred(ctx, namespace, &spec.infrastructure_ref, is_going).await;
        let bootstrap = match &spec.bootstrap.config_ref {
            Some(config) => Some(referred(ctx, namespace, config, is_going).await),
            None => None,
        };
        let infra_machines = infra_machines(ctx, &object, &key, &infra).await;
        let (machines, taken) = machines(ctx, &object, &infra_machines).await?;
        let nodes = nodes(ctx, &key, &pool, infra.found().map(|infra| &**infra));
        Ok(Observed {
            pool,
            cluster,
            infra,
            bootstrap,
            plugin,
            infra_machines,
            machines,
            taken,
            nodes,
        })
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        step: &Step,
    ) -> Result<Effect, Failure> {
        let metadata = &observed.pool.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let pool = ObjectKey::new(namespace.clone(), metadata.name.clone().unwrap_or_default());
        let done = Effects {
            ctx,
            writer: self.writer(),
            cluster: ObjectKey::new(namespace, observed.pool.spec.cluster_name.clone()),
            pool: &pool,
        }
        .perform(step)
        .await;
        if let Some(event) = event_of(step, &done)
            && let Some(pool) = ctx.get(&kinds::MACHINE_POOL, &pool)
        {
            event::record(ctx, &self.writer(), &pool, &event).await;
        }
        done
    }

    fn reports_next_time(&self, outcome: &Outcome<Step, Effect>) -> bool {
        core::reports_next_time(outcome)
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        outcome: &Outcome<Step, Effect>,
        now: Timestamp,
    ) -> Report {
        let failed = outcome.failed.as_ref().map(|(_, failure)| failure);
        let failed = failed.filter(|failure| !failure.is_lost_race());
        let reported = core::report(observed, failed.map(|failure| &*failure.message), now);
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: [reported.next, core::until_turn(outcome)]
                .into_iter()
                .flatten()
                .reduce(Next::min),
            finished: reported.finished,
            ..Report::default()
        }
    }
}

/// What people hear of a step that failed. Of those that succeed the status tells.
fn event_of(step: &Step, done: &Result<Effect, Failure>) -> Option<Event> {
    let failure = done.as_ref().err().filter(|why| !why.is_lost_race())?;
    let (reason, action) = match step {
        Step::PatchNodes(_) => (reason::FAILED_SET_NODE_REF, "LabelNode"),
        Step::DeleteNodes(_) => (reason::FAILED_DELETE_NODE, "DeleteNode"),
        Step::ApplyMachines(_) => (reason::FAILED_CREATE, "CreateMachine"),
        Step::DeleteMachines(_) | Step::Remediate(_) => (reason::FAILED_DELETE, "DeleteMachine"),
        Step::Own { .. } | Step::PatchPool(_) | Step::Delete(_) => return None,
    };
    Some(Event::warning(reason, action, &*failure.message))
}

/// Performs the steps of one pool.
struct Effects<'a> {
    ctx: &'a Ctx,
    writer: Writer,
    cluster: ObjectKey,
    pool: &'a ObjectKey,
}

impl Effects<'_> {
    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.pool.namespace.clone(), name)
    }

    async fn perform(&self, step: &Step) -> Result<Effect, Failure> {
        let (ctx, writer) = (self.ctx, &self.writer);
        let done = match step {
            Step::Own { reference, patch } => {
                let resource = ctx.resource(&reference_kind(reference))?;
                let key = self.key(&reference.name);
                ctx.change(writer, &resource, &key, patch).await
            }
            Step::PatchPool(patch) => {
                ctx.change(writer, &kinds::MACHINE_POOL, self.pool, patch)
                    .await
            }
            Step::ApplyMachines(machines) => {
                let applied = machines.iter().map(|machine| self.apply(machine).boxed());
                all(applied.collect()).await
            }
            Step::Remediate(machines) => {
                let done = machines
                    .iter()
                    .map(|machine| self.remediate(machine).boxed());
                all(done.collect()).await
            }
            Step::DeleteMachines(names) => {
                let deleted = names.iter().map(|name| self.delete_machine(name).boxed());
                all(deleted.collect()).await
            }
            Step::PatchNodes(patches) => {
                let workload = ctx.workloads.connected(&self.cluster)?;
                let written = patches
                    .iter()
                    .map(|node| write_node(&workload, node).boxed());
                return in_turn(&workload, written.collect()).await;
            }
            Step::DeleteNodes(nodes) => {
                let workload = ctx.workloads.connected(&self.cluster)?;
                let deleted = nodes
                    .iter()
                    .map(|node| delete_node(&workload, node).boxed());
                return in_turn(&workload, deleted.collect()).await;
            }
            Step::Delete(reference) => {
                let resource = ctx.resource(&reference_kind(reference))?;
                let key = self.key(&reference.name);
                ctx.delete_named(&resource, &key).await
            }
        };
        done.map(|()| Effect::Done)
    }

    async fn apply(&self, machine: &Value) -> Result<(), Failure> {
        let name = machine.pointer("/metadata/name").and_then(Value::as_str);
        let key = self.key(name.unwrap_or_default());
        let patch = Patch::Apply(machine.clone());
        let answer = self
            .ctx
            .patch(&self.writer, &kinds::MACHINE, &key, &patch)
            .await;
        let doing = format!("applying Machine {key}");
        answer.map(drop).map_err(|error| failure(&doing, &error))
    }

    async fn remediate(&self, remediation: &Remediation) -> Result<(), Failure> {
        let key = self.key(&remediation.machine);
        if announce(self.ctx, &self.writer, &key, remediation).await? {
            return self.ctx.delete_named(&kinds::MACHINE, &key).await;
        }
        Ok(())
    }

    async fn delete_machine(&self, name: &str) -> Result<(), Failure> {
        let key = self.key(name);
        self.ctx.delete_named(&kinds::MACHINE, &key).await
    }
}

/// Writes to Nodes, as many at a time as have their turn: a server that hangs does not hold the workers of all. Tries all for which there is
/// time, and answers the first failure.
async fn in_turn(
    workload: &Workload,
    writes: Vec<BoxFuture<'_, Result<(), Failure>>>,
) -> Result<Effect, Failure> {
    let most = writes.len().clamp(1, NODES_AT_ONCE);
    let turns = (1..=most).rev().find_map(|turns| {
        let permits = u32::try_from(turns).ok()?;
        let taken = workload.node_writes.try_acquire_many(permits).ok()?;
        Some((turns, taken))
    });
    let Some((turns, _taken)) = turns else {
        return Ok(Effect::NotItsTurn);
    };
    let began = Instant::now();
    let mut timed: Vec<BoxFuture<'_, Result<Effect, Failure>>> = Vec::new();
    for write in writes {
        let write = async move {
            if began.elapsed() >= TURN {
                return Ok(Effect::NotItsTurn);
            }
            write.await.map(|()| Effect::Done)
        };
        timed.push(write.boxed());
    }
    let done: Vec<Result<Effect, Failure>> =
        stream::iter(timed).buffer_unordered(turns).collect().await;
    let done: Vec<Effect> = done.into_iter().collect::<Result<_, _>>()?;
    let is_left = done.contains(&Effect::NotItsTurn);
    Ok(if is_left {
        Effect::NotItsTurn
    } else {
        Effect::Done
    })
}

async fn write_node(workload: &Workload, node: &NodePatch) -> Result<(), Failure> {
    let patch = Patch::Merge(node.patch.clone());
    let key = ObjectKey::new("", node.name.clone());
    let answer = workload
        .api
        .patch(&kinds::NODE, &key, None, &patch, MANAGER)
        .await;
    let doing = format!("writing onto Node {}", node.name);
    answer.map(drop).map_err(|error| failure(&doing, &error))
}

/// Deletes the very Node that was seen; gone already is as good.
async fn delete_node(workload: &Workload, node: &NodeDeletion) -> Result<(), Failure> {
    let preconditions = Preconditions {
        uid: Some(node.uid.clone()),
        resource_version: None,
    };
    let key = ObjectKey::new("", node.name.clone());
    let answer = workload
        .api
        .delete(&kinds::NODE, &key, &preconditions)
        .await;
    match answer {
        Ok(()) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(failure(&format!("deleting Node {}", node.name), &error)),
    }
}

/// The locator of a pool.
fn locator(pool: &Object) -> Locator {
    Locator::new(&kinds::MACHINE_POOL, &pool.key)
}

#[cfg(test)]
mod tests;
