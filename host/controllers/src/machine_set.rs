//! MachineSet: reads what `capstan_core::machine_set` needs, does what it asks.

mod effects;
mod unconfirmed;

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::reason::event as reason;
use capstan_api::v1beta2::{
    Cluster, ContractVersionedObjectReference, Machine, MachineDeployment, MachineSet,
};
use capstan_api::{finalizer, label};
use capstan_core::lookup::Lookup;
use capstan_core::machine_set::{
    self as core, MachineSeen, Observed, Step, is_selected, observed::selector_labels,
};
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::{self, Access};
use crate::controller::{
    Adoption, Controller, HOLD, Primary, Report, Source, Spec, Watch, internal_error,
};
use crate::ctx::{Ctx, Writer};
use crate::event::{self, Event};
use crate::kinds;
use crate::machine::{shared, typed};
use crate::object::{Locator, Object};
use crate::reference::{lookup, reference_kind};
use crate::store::Change;
use unconfirmed::Unconfirmed;

pub(crate) use effects::announce;

/// The MachineSet controller.
pub struct MachineSetController {
    spec: Spec,
    unconfirmed: Unconfirmed,
}

impl Default for MachineSetController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "machine-set",
                manager: "capi-machineset",
                primary: Primary::Kind(&kinds::MACHINE_SET),
                finalizer: Some(finalizer::MACHINE_SET),
                pausable: true,
                concurrency: 50,
                settle: Duration::from_millis(50),
                hold: HOLD,
            },
            unconfirmed: Unconfirmed::default(),
        }
    }
}

/// The MachineSet that controls a Machine; of a Machine that nobody controls, the sets of its namespace that select it.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(machine) = change.object() else {
        return Vec::new();
    };
    if let Some(owner) = machine.controller() {
        let is_set = owner.kind == "MachineSet" && owner.group == kinds::MACHINE_SET.group;
        let key = ObjectKey::new(machine.key.namespace.clone(), owner.name);
        return is_set
            .then(|| Locator::new(&kinds::MACHINE_SET, &key))
            .into_iter()
            .collect();
    }
    let Some(cluster) = machine.cluster() else {
        return Vec::new();
    };
    let Ok(machine) = machine.typed::<Machine>() else {
        return Vec::new();
    };
    let sets = ctx.store(&kinds::MACHINE_SET).of_cluster(&cluster);
    let selecting = sets.iter().filter(|set| {
        set.typed::<MachineSet>().is_ok_and(|set| {
            is_selected(
                &selector_labels(&set),
                &set.spec.selector,
                &machine.metadata,
            )
        })
    });
    selecting
        .map(|set| Locator::new(&kinds::MACHINE_SET, &set.key))
        .collect()
}

/// The sets of a MachineDeployment whose spec changed.
fn of_deployment(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let generation = |object: &Option<Arc<Object>>| object.as_ref().map(|o| o.generation());
    if generation(&change.old) == generation(&change.new) {
        return Vec::new();
    }
    let Some(deployment) = change.object() else {
        return Vec::new();
    };
    let sets = ctx.store(&kinds::MACHINE_SET).owned_by(&deployment.uid);
    sets.iter()
        .map(|set| Locator::new(&kinds::MACHINE_SET, &set.key))
        .collect()
}

/// A provider object concerns the set of its Machine when it goes; a template or control plane the sets that wait for it.
fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    if let Some(owner) = object.controller().filter(|owner| owner.kind == "Machine") {
        if change.new.is_some() {
            return Vec::new();
        }
        let key = ObjectKey::new(object.key.namespace.clone(), owner.name);
        let machine = ctx.get(&kinds::MACHINE, &key);
        return machine.map_or_else(Vec::new, |machine| {
            of_machine(
                ctx,
                &Change {
                    old: None,
                    new: Some(machine),
                },
            )
        });
    }
    let stamp = |object: &Option<Arc<Object>>| {
        object
            .as_ref()
            .map(|object| (object.generation(), versions(object).cloned()))
    };
    if stamp(&change.old) == stamp(&change.new) {
        return Vec::new();
    }
    let sets = ctx
        .store(&kinds::MACHINE_SET)
        .in_namespace(&object.key.namespace);
    let concerned = sets.iter().filter(|set| {
        let names = |pointer: &str| {
            set.text(&format!("{pointer}/kind")) == Some(object.kind())
                && set.text(&format!("{pointer}/name")) == Some(&object.key.name)
        };
        names("/spec/template/spec/infrastructureRef")
            || names("/spec/template/spec/bootstrap/configRef")
            || set.label(label::CLUSTER_NAME).is_some_and(|cluster| {
                versions(object).is_some() && object.label(label::CLUSTER_NAME) == Some(cluster)
            })
    });
    concerned
        .map(|set| Locator::new(&kinds::MACHINE_SET, &set.key))
        .collect()
}

/// What a control plane says it runs; `None` for other objects.
fn versions(object: &Object) -> Option<&Value> {
    object
        .value
        .pointer("/status/versions")
        .or_else(|| object.value.pointer("/status/version"))
}

impl MachineSetController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }
}

/// What a reference of an object in this namespace names.
async fn see(
    ctx: &Ctx,
    namespace: &str,
    reference: &ContractVersionedObjectReference,
) -> Lookup<Arc<Value>> {
    let key = ObjectKey::new(namespace, reference.name.clone());
    lookup(ctx, &reference_kind(reference), &key)
        .await
        .map(|object| object.value.clone())
}

async fn see_optional(
    ctx: &Ctx,
    namespace: &str,
    reference: Option<&ContractVersionedObjectReference>,
) -> Option<Lookup<Arc<Value>>> {
    match reference {
        Some(reference) => Some(see(ctx, namespace, reference).await),
        None => None,
    }
}

/// Machines that the set selects and controls, and those that it selects and nobody controls. One that it controls and that was
/// relabelled is left alone, and replaced, so that people can look into it; with the set it goes like all that the set controls.
async fn machines_of(
    ctx: &Ctx,
    object: &Object,
    set: &MachineSet,
    cluster: &ObjectKey,
) -> Result<Vec<MachineSeen>, Failure> {
    let store = ctx.store(&kinds::MACHINE);
    store.synced().await;
    let labels = selector_labels(set);
    let mut found = store.owned_by(&object.uid);
    found.retain(|machine| {
        machine
            .controller()
            .is_some_and(|owner| owner.uid == object.uid)
    });
    if !object.is_deleting() {
        let orphans = store.of_cluster(cluster).into_iter();
        found.extend(orphans.filter(|machine| machine.controller().is_none()));
    }
    let mut seen = Vec::new();
    for machine in found {
        let machine = shared::<Machine>(&machine)?;
        if !object.is_deleting() && !is_selected(&labels, &set.spec.selector, &machine.metadata) {
            continue;
        }
        let namespace = &object.key.namespace;
        let infra = see(ctx, namespace, &machine.spec.infrastructure_ref).await;
        let bootstrap =
            see_optional(ctx, namespace, machine.spec.bootstrap.config_ref.as_ref()).await;
        seen.push(MachineSeen {
            machine,
            infra,
            bootstrap,
        });
    }
    Ok(seen)
}

/// The MachineDeployment that a set's label names.
///
/// # Errors
/// When it does not exist, unless the set is going.
fn deployment_of(ctx: &Ctx, object: &Object) -> Result<Lookup<MachineDeployment>, Failure> {
    let Some(name) = object.label(label::DEPLOYMENT_NAME) else {
        return Ok(Lookup::Missing);
    };
    let key = ObjectKey::new(object.key.namespace.clone(), name);
    match ctx.get(&kinds::MACHINE_DEPLOYMENT, &key) {
        Some(deployment) => Ok(Lookup::Found(typed(&deployment)?)),
        None if object.is_deleting() => Ok(Lookup::Missing),
        None => Err(Failure::transient(
            "MachineDeploymentNotFound",
            format!(
                "label {}: MachineDeployment {key} does not exist",
                label::DEPLOYMENT_NAME
            ),
        )),
    }
}

impl Controller for MachineSetController {
    type Observed = Observed;
    type Step = Step;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn goes_on(&self, _: &Self::Observed, _: &Self::Step) -> bool {
        true
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: of_machine,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_DEPLOYMENT),
                map: of_deployment,
            },
            Watch {
                source: Source::External,
                map: of_external,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::MACHINE_SET, &["patch"]),
            Access::to_status(&kinds::MACHINE_SET),
            Access::to(&kinds::MACHINE, &["get", "create", "patch", "delete"]),
            Access::to_status(&kinds::MACHINE),
            Access::to_group(
                access::INFRASTRUCTURE,
                &["list", "watch", "create", "patch"],
            ),
            Access::to_group(access::BOOTSTRAP, &["list", "watch", "create", "patch"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        object.cluster()
    }

    fn forget(&self, _: &Ctx, locator: &Locator) {
        self.unconfirmed.forget(&locator.key);
    }

    /// A set of its own belongs to its Cluster (contract 3.4.1).
    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        let is_standalone =
            object.controller().is_none() && object.label(label::DEPLOYMENT_NAME).is_none();
        Adoption::by_cluster(ctx, object, is_standalone)
    }

    fn unobserved(&self, _: &Object, failure: &Failure) -> Vec<capstan_api::condition::Report> {
        vec![internal_error("ScalingUp", failure)]
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let set: MachineSet = typed(&object)?;
        let namespace = &object.key.namespace;
        let key = ObjectKey::new(namespace.clone(), set.spec.cluster_name.clone());
        let cluster = cluster_of(ctx, &key, object.is_deleting())?;
        self.unconfirmed
            .settle(ctx, &self.writer(), &object.key)
            .await?;
        let machines = machines_of(ctx, &object, &set, &key).await?;
        let spec = &set.spec.template.spec;
        let infra_template = see(ctx, namespace, &spec.infrastructure_ref).await;
        let bootstrap_template =
            see_optional(ctx, namespace, spec.bootstrap.config_ref.as_ref()).await;
        let control_plane = cluster
            .found()
            .and_then(|c| c.spec.control_plane_ref.as_ref());
        let control_plane = see_optional(ctx, namespace, control_plane).await;
        Ok(Observed {
            deployment: deployment_of(ctx, &object)?,
            cluster,
            machines,
            infra_template,
            bootstrap_template,
            control_plane: control_plane.unwrap_or_default(),
            seed: ctx.clock.luck(),
            set,
        })
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(&self, ctx: &Ctx, observed: &Observed, step: &Step) -> Result<(), Failure> {
        let namespace = observed.set.metadata.namespace.clone().unwrap_or_default();
        let name = observed.set.metadata.name.clone().unwrap_or_default();
        let key = ObjectKey::new(namespace.clone(), name);
        let done = effects::Effects {
            ctx,
            set: key.clone(),
            writer: self.writer(),
            namespace,
            unconfirmed: &self.unconfirmed,
        }
        .perform(observed, step)
        .await;
        if let Some(event) = event_of(step, &done)
            && let Some(set) = ctx.get(&kinds::MACHINE_SET, &key)
        {
            event::record(ctx, &self.writer(), &set, &event).await;
        }
        done
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        outcome: &Outcome<Step, ()>,
        now: Timestamp,
    ) -> Report {
        let failed = outcome.failed.as_ref();
        let making = failed.filter(|(step, _)| matches!(step, Step::Create(_) | Step::Complete(_)));
        let why = making.filter(|(_, failure)| !failure.is_lost_race());
        let reported = core::report(observed, why.map(|(_, failure)| &*failure.message), now);
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next,
            finished: reported.finished,
            ..Report::default()
        }
    }
}

/// What people hear of a step that failed. Of those that succeed the conditions tell, and write no event for each.
fn event_of(step: &Step, done: &Result<(), Failure>) -> Option<Event> {
    let failure = done.as_ref().err().filter(|why| !why.is_lost_race())?;
    let (reason, action) = match step {
        Step::Create(_) | Step::Complete(_) => (reason::FAILED_CREATE, "CreateMachine"),
        Step::Change(changes) if changes.iter().filter_map(|c| c.patch.as_ref()).any(adopts) => {
            (reason::FAILED_ADOPT, "AdoptMachine")
        }
        Step::Delete(_) => (reason::FAILED_DELETE, "DeleteMachine"),
        _ => return None,
    };
    Some(Event::warning(reason, action, &*failure.message))
}

/// Whether a merge patch makes its writer the controller of an object.
pub(crate) fn adopts(patch: &Value) -> bool {
    patch.pointer("/metadata/ownerReferences").is_some()
}

/// The Cluster of an object.
///
/// # Errors
/// When it does not exist, unless the object is going.
pub(crate) fn cluster_of(
    ctx: &Ctx,
    key: &ObjectKey,
    is_deleting: bool,
) -> Result<Lookup<Cluster>, Failure> {
    match ctx.get(&kinds::CLUSTER, key) {
        Some(cluster) => Ok(Lookup::Found(typed(&cluster)?)),
        None if is_deleting => Ok(Lookup::Missing),
        None => Err(Failure::transient(
            "ClusterNotFound",
            format!("spec.clusterName: Cluster {key} does not exist"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::machine_set::desired;

    use super::*;

    #[test]
    fn a_machine_that_cannot_be_taken_over_is_told_and_a_lost_race_is_not() {
        let change = |metadata: Value| {
            Step::Change(vec![desired::Change {
                machine: "m".to_owned(),
                patch: Some(json!({"metadata": metadata})),
                objects: Vec::new(),
            }])
        };
        let adoption = change(json!({"ownerReferences": []}));
        let refused = Err(Failure::transient("Forbidden", "changing Machine m: no"));
        let event = event_of(&adoption, &refused).unwrap();
        assert_eq!(
            (event.reason.as_str(), event.note.as_str()),
            (reason::FAILED_ADOPT, "changing Machine m: no")
        );
        assert!(event_of(&change(json!({"labels": {"a": "b"}})), &refused).is_none());
        assert!(event_of(&adoption, &Ok(())).is_none());
        let lost = Err(Failure::transient("Conflict", "changed meanwhile"));
        assert!(event_of(&adoption, &lost).is_none());
    }
}
