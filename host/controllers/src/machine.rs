//! Machine: reads what `capstan_core::machine` needs, does what it asks.

pub mod hook;
mod wake;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::{Machine, MachineDeployment, MachineSet};
use capstan_api::{finalizer, label};
use capstan_core::lookup::Lookup;
use capstan_core::machine::deletion::{Facts, Turn};
use capstan_core::machine::hook::Said;
use capstan_core::machine::{self as core, Connection, Effect, NodeLookup, Observed, Step};
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::{self, Access};
use crate::controller::{
    Adoption, Controller, HOLD, Primary, Report, Source, Spec, Watch, internal_error,
};
use crate::ctx::{Ctx, Writer, failure};
use crate::event::{self, Event};
use crate::kube_api::{ApiError, Patch, Preconditions};
use crate::object::{Locator, Object};
use crate::reference::{lookup, reference_kind};
use crate::{drain, infrastructure, kinds};

/// Field manager of the Machine controller's writes.
const MANAGER: &str = "capi-machine";

/// The Machine controller.
pub struct MachineController {
    spec: Spec,
    /// How far the deletions under way have come; another host finds out again.
    progress: Mutex<HashMap<ObjectKey, Progress>>,
}

/// Its name, and Machines that it works on at the same time: as many as Cluster API's, with room for hooks that take long.
const CONTROLLER: &str = "machine";
const WORKERS: usize = 50;

/// What is remembered of one Machine's deletion.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Of the Machine that is meant.
    uid: String,
    drain: Option<Turn>,
    volumes: Option<Turn>,
    node_deletion_failed: bool,
    said: BTreeMap<String, Said>,
}

impl Default for MachineController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: CONTROLLER,
                manager: MANAGER,
                primary: Primary::Kind(&kinds::MACHINE),
                finalizer: Some(finalizer::MACHINE),
                pausable: true,
                concurrency: WORKERS,
                settle: Duration::from_millis(30),
                hold: HOLD,
            },
            progress: Mutex::default(),
        }
    }
}

impl MachineController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    fn progress(&self) -> MutexGuard<'_, HashMap<ObjectKey, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress_of(&self, machine: &Machine) -> Progress {
        let uid = machine.metadata.uid.clone().unwrap_or_default();
        let found = self.progress().get(&key_of(machine)).cloned();
        found.filter(|found| found.uid == uid).unwrap_or_default()
    }

    /// Remembers something of the deletion of this very Machine.
    fn remember(&self, machine: &Machine, what: impl FnOnce(&mut Progress)) {
        let uid = machine.metadata.uid.clone().unwrap_or_default();
        let mut all = self.progress();
        let progress = all.entry(key_of(machine)).or_default();
        if progress.uid != uid {
            *progress = Progress {
                uid,
                ..Progress::default()
            };
        }
        what(progress);
    }

    fn observe_node(&self, ctx: &Ctx, observed: &Observed, cluster: &ObjectKey) -> NodeLookup {
        let (Some(workload), Some(id)) = (ctx.workloads.get(cluster), observed.known().provider_id)
        else {
            return NodeLookup::NotLooked;
        };
        if !workload.nodes.is_synced() {
            return NodeLookup::NotLooked;
        }
        match workload.nodes_by_provider_id(&id).as_slice() {
            [] => NodeLookup::None,
            [node] => NodeLookup::One(node.value.clone()),
            several => NodeLookup::Several(several.iter().map(|n| n.key.name.clone()).collect()),
        }
    }

    async fn deletion_facts(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        cluster: &ObjectKey,
    ) -> Result<Facts, Failure> {
        let machine = &observed.machine;
        let infra = &machine.spec.infrastructure_ref;
        let progress = self.progress_of(machine);
        let machines = ctx.store(&kinds::MACHINE).of_cluster(cluster);
        let active = machines
            .iter()
            .filter(|m| m.label(label::CONTROL_PLANE).is_some() && !m.is_deleting())
            .count();
        let mut facts = Facts {
            cluster_deleting: observed
                .cluster
                .found()
                .is_none_or(|c| c.metadata.deletion_timestamp.is_some()),
            active_control_plane_machines: active,
            drain: progress.drain,
            volumes: progress.volumes,
            node_deletion_failed: progress.node_deletion_failed,
            hooks: object_of(machine)
                .map(|machine| hook::bound(ctx, &machine, &progress.said))
                .unwrap_or_default(),
            no_infra_kind: ctx.is_not_installed(&reference_kind(infra)).await,
            no_bootstrap_kind: match &machine.spec.bootstrap.config_ref {
                Some(config) => ctx.is_not_installed(&reference_kind(config)).await,
                None => true,
            },
            ..Facts::default()
        };
        if let Some(reference) = observed
            .cluster
            .found()
            .and_then(|c| c.spec.control_plane_ref.clone())
        {
            let kind = reference_kind(&reference);
            match lookup(ctx, &kind, &key(cluster, &reference.name)).await {
                Lookup::Found(object) => {
                    facts.control_plane_deleting = object.is_deleting();
                    facts.externally_managed_control_plane =
                        object.value.pointer("/status/externalManagedControlPlane")
                            == Some(&json!(true));
                }
                // Whether Nodes are drained depends on it.
                Lookup::Unknown(why)
                    if !facts.cluster_deleting && !ctx.is_not_installed(&kind).await =>
                {
                    let (kind, name) = (&reference.kind, &reference.name);
                    return Err(Failure::transient(
                        "InternalError",
                        format!("the Cluster's {kind} {name} cannot be seen: {why}"),
                    ));
                }
                Lookup::Unknown(_) | Lookup::Missing => {}
            }
        }
        let reference = machine.status.as_ref().and_then(|s| s.node_ref.clone());
        let workload = ctx.workloads.get(cluster);
        let workload = workload.filter(|workload| workload.nodes.is_synced());
        let reference = reference.map(|reference| {
            let named = workload.map_or_else(
                || Lookup::Unknown("the workload cluster cannot be seen".to_owned()),
                |workload| match workload.node(&reference.name) {
                    Some(node) => Lookup::Found(node.value.clone()),
                    None => Lookup::Missing,
                },
            );
            (reference.name, named)
        });
        facts.see_node(&observed.node, reference);
        Ok(facts)
    }

    /// Whether the Machine is what its MachineDeployment wants, and whether its MachineSet is of an older revision.
    fn observe_template(ctx: &Ctx, observed: &mut Observed) -> Result<(), Failure> {
        let metadata = &observed.machine.metadata;
        let mut owners = metadata.owner_references.iter().flatten();
        if owners.any(|owner| owner.controller == Some(true) && owner.kind == "MachinePool") {
            // What a pool's machines are, its provider decides (contract 3.7.5).
            let goes = metadata.deletion_timestamp.is_some();
            let why = goes.then(|| "Machine is being deleted".to_owned());
            observed.outdated = Some(why.into_iter().collect());
            return Ok(());
        }
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let label = |name: &str| metadata.labels.as_ref().and_then(|l| l.get(name)).cloned();
        let (Some(set), Some(deployment)) = (label(label::SET_NAME), label(label::DEPLOYMENT_NAME))
        else {
            return Ok(());
        };
        let find = |resource, name: String| {
            ctx.get(
                resource,
                &ObjectKey {
                    namespace: namespace.clone(),
                    name,
                },
            )
        };
        let (Some(set), Some(deployment)) = (
            find(&kinds::MACHINE_SET, set),
            find(&kinds::MACHINE_DEPLOYMENT, deployment),
        ) else {
            return Ok(());
        };
        let set: MachineSet = typed(&set)?;
        let deployment: MachineDeployment = typed(&deployment)?;
        observed.outdated = Some(capstan_core::machine_deployment::outdated(
            &deployment,
            &set,
        ));
        observed.outdated_revision =
            capstan_core::machine_deployment::is_outdated_revision(&deployment, &set);
        Ok(())
    }
}

fn key(cluster: &ObjectKey, name: &str) -> ObjectKey {
    ObjectKey {
        namespace: cluster.namespace.clone(),
        name: name.to_owned(),
    }
}

fn key_of(machine: &Machine) -> ObjectKey {
    ObjectKey::new(
        machine.metadata.namespace.clone().unwrap_or_default(),
        machine.metadata.name.clone().unwrap_or_default(),
    )
}

fn object_of(machine: &Machine) -> Option<Object> {
    serde_json::to_value(machine).ok().and_then(Object::new)
}

/// An object as a typed one; the failure names the object and the field.
///
/// # Errors
/// Terminal: the object has to change.
pub fn typed<T: serde::de::DeserializeOwned>(object: &Object) -> Result<T, Failure> {
    object.typed().map_err(|error| unreadable(object, &error))
}

/// [`Object::shared`], with a failure that names the object.
///
/// # Errors
/// Terminal: the object has to change.
pub fn shared<T>(object: &Object) -> Result<Arc<T>, Failure>
where
    T: serde::de::DeserializeOwned + Send + Sync + 'static,
{
    object.shared().map_err(|error| unreadable(object, &error))
}

fn unreadable(object: &Object, error: &serde_json::Error) -> Failure {
    let (kind, key) = (object.kind(), &object.key);
    Failure::terminal(
        "InvalidObject",
        format!("{kind} {key} cannot be read: {error}"),
    )
}

impl Controller for MachineController {
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
                source: Source::Kind(&kinds::CLUSTER),
                map: wake::of_cluster,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_SET),
                map: wake::of_template,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_DEPLOYMENT),
                map: wake::of_template,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_HOOK),
                map: hook::of_binding,
            },
            Watch {
                source: Source::Workload,
                map: wake::of_workload,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::MACHINE, &["patch"]),
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

    /// A Machine that nobody controls belongs to its Cluster (contract 3.3.1).
    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        let made_by_others = [label::SET_NAME, label::POOL_NAME, label::CONTROL_PLANE_NAME];
        let standalone = object.controller().is_none()
            && !made_by_others
                .iter()
                .any(|name| object.label(name).is_some());
        Adoption::by_cluster(ctx, object, standalone)
    }

    fn forget(&self, _: &Ctx, locator: &Locator) {
        self.progress().remove(&locator.key);
    }

    fn unobserved(
        &self,
        object: &Object,
        failure: &Failure,
    ) -> Vec<capstan_api::condition::Report> {
        let unknown = ["Ready", "Available"].map(|name| internal_error(name, failure));
        let deleting = capstan_api::condition::Report::yes("Deleting", "InternalError");
        let deleting = object
            .is_deleting()
            .then(|| deleting.with_message(&*failure.message));
        unknown.into_iter().chain(deleting).collect()
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let machine: Machine = typed(&object)?;
        let cluster_key = key_of_cluster(&machine);
        let cluster = match ctx.get(&kinds::CLUSTER, &cluster_key) {
            Some(cluster) => Lookup::Found(typed(&cluster)?),
            None if object.is_deleting() => Lookup::Missing,
            None => {
                return Err(Failure::transient(
                    "ClusterNotFound",
                    format!("spec.clusterName: Cluster {cluster_key} does not exist"),
                ));
            }
        };
        let infra = &machine.spec.infrastructure_ref;
        let infra_is_own = infrastructure::is_machine_kind(ctx, &reference_kind(infra));
        let infra = lookup(ctx, &reference_kind(infra), &key(&cluster_key, &infra.name)).await;
        let bootstrap = match &machine.spec.bootstrap.config_ref {
            Some(config) => {
                let (kind, name) = (reference_kind(config), key(&cluster_key, &config.name));
                Some(lookup(ctx, &kind, &name).await.map(|o| o.value.clone()))
            }
            None => None,
        };
        let connection = ctx.workloads.status(&cluster_key);
        let chosen = ctx.node_sync.chosen(&machine.metadata);
        let mut observed = Observed {
            machine,
            chosen,
            cluster,
            infra: infra.map(|o| o.value.clone()),
            infra_is_own,
            bootstrap,
            connection: Connection {
                connected: connection.connected,
                last_success: connection.last_success,
                since: connection.since,
            },
            node: NodeLookup::NotLooked,
            outdated: None,
            outdated_revision: false,
            deletion: Facts::default(),
        };
        observed.node = self.observe_node(ctx, &observed, &cluster_key);
        Self::observe_template(ctx, &mut observed)?;
        if object.is_deleting() {
            observed.deletion = self.deletion_facts(ctx, &observed, &cluster_key).await?;
        }
        Ok(observed)
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    #[expect(clippy::too_many_lines, reason = "one arm per kind of step")]
    async fn perform(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        step: &Step,
    ) -> Result<Effect, Failure> {
        let machine = &observed.machine;
        let cluster = key_of_cluster(machine);
        match step {
            Step::OwnInfra => {
                self.own(ctx, observed, observed.infra.found(), "infrastructure")
                    .await
            }
            Step::OwnBootstrap => {
                let config = observed.bootstrap.as_ref().and_then(Lookup::found);
                self.own(ctx, observed, config, "bootstrap config").await
            }
            Step::PatchMachine(patch) => {
                let own = key_of(machine);
                let patch = Patch::Merge(patch.clone());
                let answer = ctx
                    .patch(&self.writer(), &kinds::MACHINE, &own, &patch)
                    .await;
                done(answer.map(drop), "writing the Machine's spec")
            }
            Step::PatchNode {
                name,
                resource_version,
                patch,
            } => {
                let mut patch = patch.clone();
                if let Some(fields) = patch.as_object_mut() {
                    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
                    if let Some(metadata) = metadata.as_object_mut() {
                        metadata.insert("resourceVersion".to_owned(), json!(resource_version));
                    }
                }
                let workload = ctx.workloads.connected(&cluster)?;
                // As with drains: a server that hangs does not hold the workers of all.
                let Ok(_turn) = workload.node_writes.try_acquire() else {
                    return Ok(Effect::NotItsTurn);
                };
                let node = ObjectKey {
                    namespace: String::new(),
                    name: name.clone(),
                };
                let patch = Patch::Merge(patch);
                let answer = workload
                    .api
                    .patch(&kinds::NODE, &node, None, &patch, MANAGER)
                    .await;
                done(answer.map(drop), &format!("labelling Node {name}"))
            }
            Step::Drain { node } => {
                let workload = ctx.workloads.connected(&cluster)?;
                // Nodes of a cluster take turns: its API server has other things to do, and other clusters' Machines need the workers.
                let Ok(_turn) = workload.drains.try_acquire() else {
                    return Ok(Effect::NotItsTurn);
                };
                let left = drain::drain(ctx, &workload, observed, node).await;
                let words = &drain::DRAIN_EVENTS;
                let left = self.told(ctx, machine, words, left, true).await?;
                let turn = Turn {
                    at: ctx.now(),
                    left: left.clone(),
                };
                self.remember(machine, |progress| progress.drain = Some(turn));
                Ok(Effect::Drain(left))
            }
            Step::CheckVolumes { node } => {
                let workload = ctx.workloads.connected(&cluster)?;
                let Ok(_turn) = workload.volume_checks.try_acquire() else {
                    return Ok(Effect::NotItsTurn);
                };
                let left = drain::attached(ctx, &workload, observed, node).await;
                let before = self.progress_of(machine).volumes;
                let has_waited = before.is_some_and(|turn| !turn.left.is_empty());
                let words = &drain::VOLUME_EVENTS;
                let left = self.told(ctx, machine, words, left, has_waited).await?;
                let turn = Turn {
                    at: ctx.now(),
                    left: left.clone(),
                };
                self.remember(machine, |progress| progress.volumes = Some(turn));
                Ok(Effect::Volumes(left))
            }
            Step::AskHook { name } => {
                let turn = hook::ask(ctx, &self.writer(), observed, name).await?;
                self.heard(machine, &turn);
                Ok(Effect::Hook(turn))
            }
            Step::RecordHook(turn) => {
                hook::record(ctx, &self.writer(), observed, turn).await?;
                self.heard(machine, turn);
                Ok(Effect::Hook(turn.clone()))
            }
            Step::DeleteInfra => delete(ctx, observed.infra.found()).await,
            Step::DeleteBootstrap => {
                delete(ctx, observed.bootstrap.as_ref().and_then(Lookup::found)).await
            }
            Step::DeleteNode { name } => {
                let deleted = delete_node(ctx, &cluster, name).await;
                if let Err(why) = &deleted {
                    self.remember(machine, |progress| progress.node_deletion_failed = true);
                    self.tell(ctx, machine, &drain::node_not_deleted(why)).await;
                }
                deleted
            }
        }
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
        let reported = core::report::report(observed, outcome, now);
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next,
            finished: reported.finished,
            ..Report::default()
        }
    }
}

impl MachineController {
    fn heard(&self, machine: &Machine, turn: &capstan_core::machine::hook::Turn) {
        self.remember(machine, |progress| {
            progress.said.insert(turn.hook.clone(), turn.said.clone());
        });
    }

    /// Tells of the end of something that took turns, if that is news, and of its failure.
    async fn told(
        &self,
        ctx: &Ctx,
        machine: &Machine,
        words: &drain::Events,
        left: Result<Vec<String>, Failure>,
        end_is_news: bool,
    ) -> Result<Vec<String>, Failure> {
        let event = match &left {
            Ok(left) if left.is_empty() && end_is_news => {
                Event::normal(words.done, words.action, words.note.to_owned())
            }
            Ok(_) => return left,
            Err(why) => Event::warning(words.failed, words.action, why.message.clone()),
        };
        self.tell(ctx, machine, &event).await;
        left
    }

    async fn tell(&self, ctx: &Ctx, machine: &Machine, event: &Event) {
        if let Some(machine) = ctx.get(&kinds::MACHINE, &key_of(machine)) {
            event::record(ctx, &self.writer(), &machine, event).await;
        }
    }

    async fn own(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        object: Option<&Arc<Value>>,
        what: &str,
    ) -> Result<Effect, Failure> {
        let Some(object) = object.cloned().and_then(Object::new) else {
            return Ok(Effect::Done);
        };
        let resource = ctx.resource(&object.group_kind())?;
        let patch = Patch::Merge(core::ownership_patch(observed, &object.value));
        let answer = ctx
            .patch(&self.writer(), &resource, &object.key, &patch)
            .await;
        done(
            answer.map(drop),
            &format!("taking over the {what} {}", object.key),
        )
    }
}

fn key_of_cluster(machine: &Machine) -> ObjectKey {
    ObjectKey {
        namespace: machine.metadata.namespace.clone().unwrap_or_default(),
        name: machine.spec.cluster_name.clone(),
    }
}

/// Deletes a Node; gone already is as good.
async fn delete_node(ctx: &Ctx, cluster: &ObjectKey, name: &str) -> Result<Effect, Failure> {
    let workload = ctx.workloads.connected(cluster)?;
    let Ok(_turn) = workload.node_writes.try_acquire() else {
        return Ok(Effect::NotItsTurn);
    };
    let node = ObjectKey::new("", name);
    let answer = workload
        .api
        .delete(&kinds::NODE, &node, &Preconditions::default())
        .await;
    match answer {
        Err(ApiError::NotFound(_)) => Ok(Effect::Done),
        other => done(other, &format!("deleting Node {name}")),
    }
}

fn done(answer: Result<(), ApiError>, doing: &str) -> Result<Effect, Failure> {
    answer
        .map(|()| Effect::Done)
        .map_err(|error| failure(doing, &error))
}

async fn delete(ctx: &Ctx, object: Option<&Arc<Value>>) -> Result<Effect, Failure> {
    let Some(object) = object.cloned().and_then(Object::new) else {
        return Ok(Effect::Done);
    };
    let resource = ctx.resource(&object.group_kind())?;
    let doing = format!("deleting {} {}", object.kind(), object.key);
    done(ctx.delete(&resource, &object).await, &doing)
}

#[cfg(test)]
pub(crate) mod tests;
