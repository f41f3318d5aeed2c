//! MachineDeployment: reads what `capstan_core::machine_deployment` needs, asks the upgrade strategy, does what was decided.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::reason::event as reason;
use capstan_api::v1beta2::{
    ContractVersionedObjectReference, Machine, MachineDeployment, MachineSet,
};
use capstan_api::{annotation, finalizer, label};
use capstan_core::call::manifest::PluginKind;
use capstan_core::machine_deployment::decide::mark_patch;
use capstan_core::machine_deployment::observed::TemplateSeen;
use capstan_core::machine_deployment::{
    self as core, Observed, SetSeen, Step, StrategyAnswer, StrategySeen, needs_plan,
};
use capstan_core::machine_set::is_selected;
use capstan_core::plan::{Failure, FailureKind, Outcome, Plan};
use capstan_core::rollout::facts::facts;
use capstan_engine::SecretTable;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::access::{self, Access};
use crate::controller::{
    Adoption, Controller, HOLD, Primary, Report, Source, Spec, Watch, internal_error,
};
use crate::ctx::{Ctx, Writer, failure};
use crate::event::{self, Event};
use crate::kinds;
use crate::kube_api::ApiError;
use crate::machine::{shared, typed};
use crate::machine_set::{adopts, cluster_of};
use crate::object::{Locator, Object};
use crate::reference::{lookup, reference_kind};
use crate::store::Change;

/// Its name, and MachineDeployments that it works on at the same time.
const CONTROLLER: &str = "machine-deployment";
const WORKERS: usize = 50;

/// The MachineDeployment controller.
pub struct MachineDeploymentController {
    spec: Spec,
}

impl Default for MachineDeploymentController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: CONTROLLER,
                manager: "capi-machinedeployment",
                primary: Primary::Kind(&kinds::MACHINE_DEPLOYMENT),
                finalizer: Some(finalizer::MACHINE_DEPLOYMENT),
                pausable: true,
                concurrency: WORKERS,
                settle: Duration::from_millis(50),
                hold: HOLD,
            },
        }
    }
}

/// The MachineDeployment that controls a MachineSet; of a set that nobody controls, the deployments of its Cluster.
fn of_set(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(set) = change.object() else {
        return Vec::new();
    };
    if let Some(owner) = set.controller() {
        let is_it = owner.kind == "MachineDeployment" && owner.group == kinds::MACHINE_SET.group;
        let key = ObjectKey::new(set.key.namespace.clone(), owner.name);
        return is_it
            .then(|| Locator::new(&kinds::MACHINE_DEPLOYMENT, &key))
            .into_iter()
            .collect();
    }
    let Some(cluster) = set.cluster() else {
        return Vec::new();
    };
    let deployments = ctx.store(&kinds::MACHINE_DEPLOYMENT).of_cluster(&cluster);
    deployments
        .iter()
        .map(|d| Locator::new(&kinds::MACHINE_DEPLOYMENT, &d.key))
        .collect()
}

/// The MachineDeployment of a Machine, by label.
fn of_machine(_: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(machine) = change.object() else {
        return Vec::new();
    };
    let Some(name) = machine.label(label::DEPLOYMENT_NAME) else {
        return Vec::new();
    };
    let key = ObjectKey::new(machine.key.namespace.clone(), name);
    vec![Locator::new(&kinds::MACHINE_DEPLOYMENT, &key)]
}

/// MachineDeployments that name a template that came or went.
fn of_template(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    if change.old.is_some() && change.new.is_some() {
        return Vec::new();
    }
    let Some(object) = change.object().filter(|o| o.kind().ends_with("Template")) else {
        return Vec::new();
    };
    let deployments = ctx
        .store(&kinds::MACHINE_DEPLOYMENT)
        .in_namespace(&object.key.namespace);
    let naming = deployments.iter().filter(|deployment| {
        ["infrastructureRef", "bootstrap/configRef"]
            .iter()
            .any(|field| {
                let pointer = format!("/spec/template/spec/{field}");
                deployment.text(&format!("{pointer}/kind")) == Some(object.kind())
                    && deployment.text(&format!("{pointer}/name")) == Some(&object.key.name)
            })
    });
    naming
        .map(|d| Locator::new(&kinds::MACHINE_DEPLOYMENT, &d.key))
        .collect()
}

/// MachineDeployments of a Namespace whose default strategy changed.
fn of_namespace(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let said = |object: &Option<Arc<Object>>| {
        let keys = [annotation::STRATEGY, annotation::STRATEGY_SETTINGS];
        keys.map(|key| {
            let object = object.as_ref()?;
            object.annotation(key).map(str::to_owned)
        })
    };
    let Some(namespace) = change.object() else {
        return Vec::new();
    };
    if said(&change.old) == said(&change.new) {
        return Vec::new();
    }
    let deployments = ctx
        .store(&kinds::MACHINE_DEPLOYMENT)
        .in_namespace(&namespace.key.name);
    deployments
        .iter()
        .map(|d| Locator::new(&kinds::MACHINE_DEPLOYMENT, &d.key))
        .collect()
}

/// Whether nothing was made of a deployment yet, and no set could be one of it. If it could after all, the revision is set right later.
fn is_new(ctx: &Ctx, object: &Object, cluster: &ObjectKey) -> bool {
    let is_paused = object.value.pointer("/spec/paused") == Some(&Value::Bool(true));
    let sets = ctx.store(&kinds::MACHINE_SET).of_cluster(cluster);
    let is_of_another = |set: &Object| set.controller().is_some_and(|by| by.uid != object.uid);
    !is_paused && sets.iter().all(|set| is_of_another(set))
}

/// MachineDeployments of a Cluster whose authorities are rotated, when a stage begins.
fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let said = |object: &Option<Arc<Object>>| {
        let object = object.as_ref()?;
        object
            .annotation(annotation::CA_ROTATION)
            .map(str::to_owned)
    };
    let Some(cluster) = change.object() else {
        return Vec::new();
    };
    if said(&change.old) == said(&change.new) {
        return Vec::new();
    }
    let deployments = ctx
        .store(&kinds::MACHINE_DEPLOYMENT)
        .of_cluster(&cluster.key);
    deployments
        .iter()
        .map(|d| Locator::new(&kinds::MACHINE_DEPLOYMENT, &d.key))
        .collect()
}

/// Metadata of the Namespace that a deployment is in.
fn namespace_of(ctx: &Ctx, name: &str) -> Option<ObjectMeta> {
    let namespace = ctx.get(&kinds::NAMESPACE, &ObjectKey::new("", name))?;
    serde_json::from_value(namespace.value.get("metadata")?.clone()).ok()
}

/// When a plugin came, changed or went, the driver looks at every deployment again.
fn of_plugins(_: &Ctx, _: &Change) -> Vec<Locator> {
    Vec::new()
}

impl MachineDeploymentController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    async fn act(&self, ctx: &Ctx, observed: &Observed, step: &Step) -> Result<(), Failure> {
        let metadata = &observed.deployment.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let named = |name: &str| ObjectKey::new(namespace.clone(), name);
        let own = named(metadata.name.as_deref().unwrap_or_default());
        match step {
            Step::OwnTemplate { reference, patch } => {
                self.own_template(ctx, &namespace, reference, patch).await
            }
            Step::PatchDeployment(patch) => {
                ctx.change(&self.writer(), &kinds::MACHINE_DEPLOYMENT, &own, patch)
                    .await
            }
            Step::KeepState(memory) => {
                ctx.change(
                    &self.writer(),
                    &kinds::MACHINE_DEPLOYMENT,
                    &own,
                    &memory.patch(),
                )
                .await
            }
            Step::MarkMachines(names) | Step::UnmarkMachines(names) => {
                let patch = mark_patch(matches!(step, Step::MarkMachines(_)));
                for name in names {
                    let marked = ctx
                        .change(&self.writer(), &kinds::MACHINE, &named(name), &patch)
                        .await;
                    marked.or_else(ignore_gone(ctx, &named(name)))?;
                }
                Ok(())
            }
            Step::CreateSet(set) => {
                match ctx.create(&self.writer(), &kinds::MACHINE_SET, set).await {
                    // The name ends in random characters: made by a try whose answer was lost, or the next reconcile draws
                    // others.
                    Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
                    Err(error) => Err(failure("creating a MachineSet", &error)),
                }
            }
            Step::PatchSet { name, patch } => {
                ctx.change(&self.writer(), &kinds::MACHINE_SET, &named(name), patch)
                    .await
            }
            Step::DeleteSets(names) => self.delete_sets(ctx, &namespace, names).await,
        }
    }

    async fn own_template(
        &self,
        ctx: &Ctx,
        namespace: &str,
        reference: &ContractVersionedObjectReference,
        patch: &Value,
    ) -> Result<(), Failure> {
        let resource = ctx.resource(&reference_kind(reference))?;
        let key = ObjectKey::new(namespace, reference.name.clone());
        ctx.change(&self.writer(), &resource, &key, patch).await
    }

    async fn delete_sets(
        &self,
        ctx: &Ctx,
        namespace: &str,
        names: &[String],
    ) -> Result<(), Failure> {
        for name in names {
            let key = ObjectKey::new(namespace, name.clone());
            ctx.delete_named(&kinds::MACHINE_SET, &key).await?;
        }
        Ok(())
    }
}

/// Sets that the deployment controls, and those that it selects and nobody controls, with their Machines.
async fn sets_of(
    ctx: &Ctx,
    object: &Object,
    observed: &Observed,
    cluster: &ObjectKey,
) -> Result<Vec<SetSeen>, Failure> {
    let (sets, machines) = (ctx.store(&kinds::MACHINE_SET), ctx.store(&kinds::MACHINE));
    sets.synced().await;
    machines.synced().await;
    let labels = observed.selector_labels();
    let mut found = sets.owned_by(&object.uid);
    found.retain(|set| {
        set.controller()
            .is_some_and(|owner| owner.uid == object.uid)
    });
    if !object.is_deleting() {
        let orphans = sets.of_cluster(cluster).into_iter();
        found.extend(orphans.filter(|set| set.controller().is_none()));
    }
    let mut seen = Vec::new();
    for set in found {
        let is_own = set.controller().is_some();
        let of_it = machines.owned_by(&set.uid);
        let set: MachineSet = typed(&set)?;
        let selector = &observed.deployment.spec.selector;
        if !is_own && !is_selected(&labels, selector, &set.metadata) {
            continue;
        }
        let of_it = of_it.iter().map(|machine| shared::<Machine>(machine));
        seen.push(SetSeen {
            set,
            machines: of_it.collect::<Result<_, _>>()?,
        });
    }
    Ok(seen)
}

async fn templates_of(
    ctx: &Ctx,
    deployment: &MachineDeployment,
    namespace: &str,
) -> Vec<TemplateSeen> {
    let spec = &deployment.spec.template.spec;
    let references = [
        Some(&spec.infrastructure_ref),
        spec.bootstrap.config_ref.as_ref(),
    ];
    let mut templates = Vec::new();
    for reference in references.into_iter().flatten() {
        let key = ObjectKey::new(namespace, reference.name.clone());
        let object = lookup(ctx, &reference_kind(reference), &key).await;
        templates.push(TemplateSeen {
            reference: reference.clone(),
            object: object.map(|object| object.value.clone()),
        });
    }
    templates
}

/// Asks the strategy, if it has to be asked. What it says is not trusted: `capstan_core::rollout::check` decides.
async fn ask(ctx: &Ctx, object: &Object, observed: &Observed) -> StrategyAnswer {
    let now = ctx.now();
    if !needs_plan(observed, now) {
        return StrategyAnswer::NotAsked;
    }
    let Some(plugin) = ctx.plugins.strategy(&observed.strategy.name) else {
        return StrategyAnswer::Missing;
    };
    let plugin = plugin.serving(ctx, object);
    let Some(_held) = ctx.plugins.hold(CONTROLLER, WORKERS, &plugin.name) else {
        let message = format!(
            "strategy {} is busy with other MachineDeployments",
            plugin.name
        );
        return StrategyAnswer::Failed(Failure::transient("PluginBusy", message));
    };
    let env = plugin.env(ctx, &kinds::MACHINE_DEPLOYMENT, object, SecretTable::new());
    match plugin.loaded.plan_upgrade(env, facts(observed, now)).await {
        Ok(answer) => StrategyAnswer::Answer(Box::new(answer)),
        Err(error) => StrategyAnswer::Failed(error.failure()),
    }
}

impl Controller for MachineDeploymentController {
    type Observed = Observed;
    type Step = Step;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Who owns a template is a matter of its own.
    fn goes_on(&self, _: &Observed, step: &Step) -> bool {
        matches!(step, Step::OwnTemplate { .. })
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::MACHINE_SET),
                map: of_set,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: of_machine,
            },
            Watch {
                source: Source::External,
                map: of_template,
            },
            Watch {
                source: Source::Kind(&kinds::CLUSTER),
                map: of_cluster,
            },
            Watch {
                source: Source::Kind(&kinds::NAMESPACE),
                map: of_namespace,
            },
            Watch {
                source: Source::PluginsOf(PluginKind::UpgradeStrategy),
                map: of_plugins,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::MACHINE_DEPLOYMENT, &["patch"]),
            Access::to_status(&kinds::MACHINE_DEPLOYMENT),
            Access::to(&kinds::MACHINE_SET, &["create", "patch", "delete"]),
            Access::to(&kinds::MACHINE, &["patch"]),
            Access::to_group(access::INFRASTRUCTURE, &["list", "watch", "patch"]),
            Access::to_group(access::BOOTSTRAP, &["list", "watch", "patch"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        object.cluster()
    }

    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        let mut adoption = Adoption::by_cluster(ctx, object, true);
        if object
            .cluster()
            .is_some_and(|cluster| is_new(ctx, object, &cluster))
        {
            // Its first set will be the first revision: no write of its own for that.
            let revision = (annotation::REVISION.to_owned(), "1".to_owned());
            adoption.annotations.push(revision);
        }
        adoption
    }

    fn unobserved(&self, _: &Object, failure: &Failure) -> Vec<capstan_api::condition::Report> {
        vec![internal_error("Available", failure)]
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let deployment: MachineDeployment = typed(&object)?;
        let namespace = &object.key.namespace;
        let key = ObjectKey::new(namespace.clone(), deployment.spec.cluster_name.clone());
        let mut observed = Observed {
            cluster: cluster_of(ctx, &key, object.is_deleting())?,
            sets: Vec::new(),
            templates: templates_of(ctx, &deployment, namespace).await,
            strategy: StrategySeen::select(&deployment, namespace_of(ctx, namespace).as_ref()),
            deployment,
        };
        observed.sets = sets_of(ctx, &object, &observed, &key).await?;
        observed.strategy.answer = ask(ctx, &object, &observed).await;
        Ok(observed)
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(&self, ctx: &Ctx, observed: &Observed, step: &Step) -> Result<(), Failure> {
        let done = self.act(ctx, observed, step).await;
        let metadata = &observed.deployment.metadata;
        let key = ObjectKey::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        if let Some(event) = event_of(step, &done)
            && let Some(deployment) = ctx.get(&kinds::MACHINE_DEPLOYMENT, &key)
        {
            event::record(ctx, &self.writer(), &deployment, &event).await;
        }
        done
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        _: &Outcome<Step, ()>,
        now: Timestamp,
    ) -> Report {
        let reported = core::report(observed, now);
        Report {
            status: json!(reported.status),
            conditions: reported.conditions,
            next: reported.next,
            finished: reported.finished,
            ..Report::default()
        }
    }
}

/// What people hear of a step that failed, unless it is a lost race, which is looked at again at once.
fn event_of(step: &Step, done: &Result<(), Failure>) -> Option<Event> {
    let failure = done.as_ref().err().filter(|why| !why.is_lost_race())?;
    let (reason, action) = match step {
        Step::CreateSet(_) => (reason::FAILED_CREATE, "CreateMachineSet"),
        Step::PatchSet { patch, .. } if adopts(patch) => (reason::FAILED_ADOPT, "AdoptMachineSet"),
        Step::PatchSet { patch, .. } if patch.pointer("/spec/replicas").is_some() => {
            (reason::FAILED_SCALE, "ScaleMachineSet")
        }
        Step::PatchSet { .. } => (reason::FAILED_UPDATE, "UpdateMachineSet"),
        Step::DeleteSets(_) => (reason::FAILED_DELETE, "DeleteMachineSet"),
        Step::OwnTemplate { .. } => (reason::FAILED_UPDATE, "UpdateTemplate"),
        _ => return None,
    };
    Some(Event::warning(reason, action, &*failure.message))
}

/// A Machine that is gone needs no mark.
fn ignore_gone(ctx: &Ctx, key: &ObjectKey) -> impl FnOnce(Failure) -> Result<(), Failure> {
    let is_gone = ctx.get(&kinds::MACHINE, key).is_none();
    move |failure| {
        if is_gone && failure.kind == FailureKind::Transient {
            Ok(())
        } else {
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_event_and_a_lost_race_none() {
        let patch = |patch: Value| Step::PatchSet {
            name: "s".to_owned(),
            patch,
        };
        let refused = Err(Failure::transient("Forbidden", "changing MachineSet s: no"));
        for (step, wanted) in [
            (Step::CreateSet(json!({})), reason::FAILED_CREATE),
            (
                Step::DeleteSets(vec!["s".to_owned()]),
                reason::FAILED_DELETE,
            ),
            (
                patch(json!({"spec": {"replicas": 2}})),
                reason::FAILED_SCALE,
            ),
            (
                patch(json!({"metadata": {"labels": {"a": "b"}}})),
                reason::FAILED_UPDATE,
            ),
            (
                patch(json!({"metadata": {"ownerReferences": []}})),
                reason::FAILED_ADOPT,
            ),
        ] {
            let event = event_of(&step, &refused).unwrap();
            assert_eq!((event.reason.as_str(), event.warning), (wanted, true));
            let lost = Err(Failure::transient("Conflict", "changed meanwhile"));
            assert!(event_of(&step, &lost).is_none(), "{step:?}");
            assert!(event_of(&step, &Ok(())).is_none(), "{step:?}");
        }
    }
}
