//! Control planes of every control-plane plugin: reads what the decision needs, does what it asks.

mod adopt;
mod create;
mod datastore;
pub(crate) mod expiry;
mod in_cluster;
mod material;
mod observe;
mod rotation;
mod told;

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::reason::{common, condition_type};
use capstan_api::{condition, finalizer};
use capstan_core::call::manifest::PluginKind;
use capstan_core::control_plane::{self as core, MemberPart, Observed, Step};
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::access::{self, Access};
use crate::controller::{
    Adoption, Controller, HOLD, Primary, Report, Source, Spec, Watch, internal_error,
};
use crate::ctx::{Ctx, Writer, failure, owner_reference};
use crate::etcd::Identities;
use crate::event;
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, Patch, Resource};
use crate::object::{Locator, Object};
use crate::plugins::ActivePlugin;
use crate::secrets::ensure::{self, Holder};
use crate::secrets::kubeconfig;
use crate::store::Change;

pub(crate) use material::faults;
pub(crate) use observe::foreign_machine;

/// Role of the kinds that this controller looks after.
pub(crate) const ROLE: &str = "control-plane";

const MANAGER: &str = "capstan-control-plane";

static SPEC: Spec = Spec {
    name: "control-plane",
    manager: MANAGER,
    primary: Primary::Roles(&[ROLE]),
    // The one that `clusterctl` and people know; it stands for the same thing on every kind of control plane.
    finalizer: Some(finalizer::KUBEADM_CONTROL_PLANE),
    pausable: true,
    concurrency: 32,
    settle: Duration::from_millis(50),
    hold: HOLD,
};

/// Looks after control planes.
#[derive(Default)]
pub struct ControlPlaneController {
    identities: Identities,
    in_cluster: in_cluster::Memory,
}

/// What was read, and what is needed to act on it.
pub struct Seen {
    core: Observed,
    object: Arc<Object>,
    cluster: Option<Arc<Object>>,
    plugin: Option<Arc<ActivePlugin>>,
    requirements: Vec<capstan_core::call::material::Requirement>,
    template: Option<Arc<Object>>,
    members: Vec<MemberObjects>,
    /// Purpose of the Secret with the authority of its etcd.
    authority: Option<String>,
}

/// Objects of one member.
struct MemberObjects {
    machine: Arc<Object>,
    config: Option<(Resource, Arc<Object>)>,
    infra: Option<(Resource, Arc<Object>)>,
}

impl Controller for ControlPlaneController {
    type Observed = Seen;
    type Step = Step;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: of_machine,
            },
            Watch {
                source: Source::Kind(&kinds::CLUSTER),
                map: of_cluster,
            },
            Watch {
                source: Source::External,
                map: of_external,
            },
            Watch {
                source: Source::Workload,
                map: of_workload,
            },
            Watch {
                source: Source::PluginsOf(PluginKind::Bootstrap),
                map: of_nothing,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to_group(access::CONTROL_PLANE, &["list", "watch", "patch"]),
            Access::to(&kinds::MACHINE, &["get", "create", "patch", "delete"]),
            Access::to_status(&kinds::MACHINE),
            // How far a rotation of its authorities is.
            Access::to(&kinds::CLUSTER, &["patch"]),
            Access::to_group(
                access::INFRASTRUCTURE,
                &["list", "watch", "create", "patch"],
            ),
            Access::to_group(access::BOOTSTRAP, &["list", "watch", "create", "patch"]),
            // Certificates and keys.
            Access::to(&kinds::SECRET, &["get", "create", "patch"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        owner_cluster(object)
    }

    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        let _ = (ctx, object);
        // The Cluster controller makes the Cluster its owner.
        Adoption::default()
    }

    /// Nothing is made for it before it belongs to a Cluster.
    fn finalizes(&self, object: &Object) -> bool {
        owner_cluster(object).is_some()
    }

    fn forget(&self, ctx: &Ctx, locator: &Locator) {
        ctx.taking.forget(locator);
        self.identities.forget(locator);
        self.in_cluster.forget(&locator.key);
    }

    fn unobserved(&self, object: &Object, failure: &Failure) -> Vec<condition::Report> {
        let unknown = internal_error(condition_type::SCALING_UP, failure);
        let deleting = condition::Report::yes(condition_type::DELETING, common::INTERNAL_ERROR);
        let deleting = object
            .is_deleting()
            .then(|| deleting.with_message(&*failure.message));
        [unknown].into_iter().chain(deleting).collect()
    }

    fn goes_on(&self, observed: &Seen, step: &Step) -> bool {
        step.is_on_its_own(observed.core.is_deleting())
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Seen, Failure> {
        let begun = Instant::now();
        let mut seen = observe::observe(ctx, &self.identities, object).await?;
        seen.core.took = begun.elapsed();
        seen.core.stable_work = self.in_cluster.of(&seen);
        Ok(seen)
    }

    fn decide(&self, observed: &Seen, now: Timestamp) -> Plan<Step> {
        core::decide(&observed.core, now)
    }

    async fn perform(&self, ctx: &Ctx, observed: &Seen, step: &Step) -> Result<(), Failure> {
        let done = self.act(ctx, observed, step).await;
        if let Some(event) = told::event_of(observed.core.is_deleting(), step, &done) {
            event::record(ctx, &writer(), &observed.object, &event).await;
        }
        done
    }

    fn report(
        &self,
        observed: &Seen,
        plan: &Plan<Step>,
        outcome: &Outcome<Step, ()>,
        now: Timestamp,
    ) -> Report {
        let reported = core::report(&observed.core, plan, outcome, now);
        Report {
            status: reported.status,
            conditions: reported.conditions,
            next: None,
            finished: reported.finished,
            keeps_generation: reported.keeps_generation,
            ..Report::default()
        }
    }
}

impl ControlPlaneController {
    #[expect(
        clippy::too_many_lines,
        reason = "one step after the other, each in a line or a few"
    )]
    async fn act(&self, ctx: &Ctx, observed: &Seen, step: &Step) -> Result<(), Failure> {
        match step {
            Step::EnsureMaterial => {
                let (cluster, owner) = holder(observed)?;
                let holder = Holder {
                    cluster: &cluster,
                    owner: &owner,
                    manager: MANAGER,
                };
                ensure::ensure(ctx, holder, &observed.requirements)
                    .await
                    .map(drop)
            }
            Step::EnsureKubeconfig { server } => {
                let (cluster, owner) = holder(observed)?;
                let holder = Holder {
                    cluster: &cluster,
                    owner: &owner,
                    manager: MANAGER,
                };
                kubeconfig::ensure(ctx, holder, server).await
            }
            Step::HoldAuthorities { hold, id } => rotation::hold(ctx, observed, *hold, id).await,
            Step::PublishAuthorities => rotation::publish(ctx, observed).await,
            Step::RecordRotation { record } => rotation::record(ctx, observed, record).await,
            Step::AdoptTemplate => adopt_template(ctx, observed).await,
            Step::AdoptMachine { name, uid } => adopt::machine(ctx, observed, name, uid).await,
            Step::CreateMachine {
                name,
                role,
                failure_domain,
                remediation_for,
            } => {
                let place = failure_domain.as_deref();
                let made_for = remediation_for.as_deref();
                create::machine(ctx, observed, name, *role, place, made_for).await
            }
            Step::CompleteMachine {
                name,
                role,
                config,
                infra,
            } => create::complete(ctx, observed, name, *role, *config, *infra).await,
            Step::Patch { part, name, patch } => {
                patch_member(ctx, observed, *part, name, patch).await
            }
            Step::ReportMachine { name, conditions } => {
                let merge = |stored: &[_], generation| {
                    condition::merge(stored, conditions.iter().cloned(), generation, ctx.now())
                };
                change_conditions(ctx, observed, name, merge).await
            }
            Step::ForgetRemediation { name } => {
                let forget = |stored: &[Condition], _| {
                    let mut left = stored.to_vec();
                    condition::remove(&mut left, condition_type::OWNER_REMEDIATED);
                    left
                };
                change_conditions(ctx, observed, name, forget).await
            }
            // That it is said is all of it.
            Step::Tell { .. } => Ok(()),
            Step::MoveLeader { from, to, to_name } => {
                datastore::move_leader(ctx, &self.identities, observed, from, *to, to_name).await
            }
            Step::RemoveEtcdMember { id, name, through } => {
                datastore::remove(ctx, &self.identities, observed, *id, name, through).await
            }
            Step::EndAlarm { alarm, through } => {
                datastore::end_alarm(ctx, &self.identities, observed, alarm, through).await
            }
            Step::Snapshot { from, before } => {
                datastore::snapshot(ctx, &self.identities, observed, from, before).await
            }
            Step::NoteSnapshot { taking, taken } => {
                datastore::note(ctx, observed, taking, taken).await
            }
            Step::BeforeJoin { is_rollout } => {
                in_cluster::before_join(ctx, observed, *is_rollout).await
            }
            Step::AfterStable => in_cluster::after_stable(ctx, &self.in_cluster, observed).await,
            Step::Annotate { annotations } => annotate(ctx, observed, annotations).await,
            Step::DeleteMachine { name, uid } => delete_machine(ctx, observed, name, uid).await,
        }
    }
}

/// Deletes the machine that was seen.
async fn delete_machine(ctx: &Ctx, observed: &Seen, name: &str, uid: &str) -> Result<(), Failure> {
    let member = member(observed, name)?;
    if member.machine.uid != uid {
        return Ok(());
    }
    let deleted = ctx.delete(&kinds::MACHINE, &member.machine).await;
    deleted.map_err(|error| failure(&format!("deleting Machine {name}"), &error))
}

/// Changes annotations of the control plane object.
async fn annotate(ctx: &Ctx, observed: &Seen, annotations: &Value) -> Result<(), Failure> {
    let object = &observed.object;
    let resource = ctx.resource(&object.group_kind())?;
    let patch = json!({"metadata": {"uid": object.uid, "annotations": annotations}});
    let patched = ctx
        .patch(&writer(), &resource, &object.key, &Patch::Merge(patch))
        .await;
    let doing = format!("annotating {} {}", object.kind(), object.key.name);
    patched
        .map(drop)
        .map_err(|error| write_failure(&doing, &error))
}

fn writer() -> Writer {
    Writer {
        controller: SPEC.name,
        manager: MANAGER,
    }
}

/// The Cluster among an object's owners; else the one that its label names.
fn owner_cluster(object: &Object) -> Option<ObjectKey> {
    let owner = object
        .owners()
        .find(|o| o.group == kinds::CLUSTER.group && o.kind == kinds::CLUSTER.kind);
    let name = owner.map(|owner| owner.name)?;
    Some(ObjectKey::new(object.key.namespace.clone(), name))
}

fn holder(observed: &Seen) -> Result<(ObjectKey, Value), Failure> {
    let cluster = observed.cluster.as_ref();
    let cluster =
        cluster.ok_or_else(|| Failure::transient("InternalError", "the Cluster went away"))?;
    Ok((cluster.key.clone(), owner_reference(&observed.object, true)))
}

fn member<'a>(observed: &'a Seen, name: &str) -> Result<&'a MemberObjects, Failure> {
    let found = observed
        .members
        .iter()
        .find(|member| member.machine.key.name == name);
    found.ok_or_else(|| Failure::transient("InternalError", format!("Machine {name} went away")))
}

/// A lost race is looked at again at once.
fn write_failure(doing: &str, error: &ApiError) -> Failure {
    failure(doing, error)
}

async fn adopt_template(ctx: &Ctx, observed: &Seen) -> Result<(), Failure> {
    let (Some(template), Some(cluster)) = (&observed.template, &observed.cluster) else {
        return Ok(());
    };
    let Some(store) = ctx.stores.get(&template.group_kind()) else {
        return Ok(());
    };
    let adoption = Adoption {
        owners: vec![owner_reference(cluster, false)],
        ..Adoption::default()
    };
    let Some(patch) = crate::status::adoption_patch(template, None, &adoption) else {
        return Ok(());
    };
    let patched = ctx
        .patch(
            &writer(),
            store.resource(),
            &template.key,
            &Patch::Merge(patch),
        )
        .await;
    let doing = format!(
        "adding the Cluster to the owners of {} {}",
        template.kind(),
        template.key.name
    );
    patched
        .map(drop)
        .map_err(|error| write_failure(&doing, &error))
}

async fn patch_member(
    ctx: &Ctx,
    observed: &Seen,
    part: MemberPart,
    name: &str,
    patch: &Value,
) -> Result<(), Failure> {
    let member = member(observed, name)?;
    let (resource, object) = match part {
        MemberPart::Machine => (&*kinds::MACHINE, &member.machine),
        MemberPart::Config => match &member.config {
            Some((resource, object)) => (resource, object),
            None => return Ok(()),
        },
        MemberPart::Infra => match &member.infra {
            Some((resource, object)) => (resource, object),
            None => return Ok(()),
        },
    };
    let mut patch = patch.clone();
    if let Some(patch) = patch.as_object_mut() {
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("uid".to_owned(), json!(object.uid));
        }
    }
    let answer = ctx
        .patch(&writer(), resource, &object.key, &Patch::Merge(patch))
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(ApiError::NotFound(_)) if object.is_deleting() => Ok(()),
        Err(error) => {
            let doing = format!("bringing {} {} up to date", resource.kind, object.key.name);
            Err(write_failure(&doing, &error))
        }
    }
}

/// Writes conditions that the control plane owns on a Machine; those of others stay.
async fn change_conditions(
    ctx: &Ctx,
    observed: &Seen,
    name: &str,
    change: impl Fn(&[Condition], Option<i64>) -> Vec<Condition>,
) -> Result<(), Failure> {
    let member = member(observed, name)?;
    // An earlier step may have written the Machine.
    let machine = ctx.get(&kinds::MACHINE, &member.machine.key);
    let machine = machine
        .filter(|m| m.uid == member.machine.uid)
        .unwrap_or_else(|| Arc::clone(&member.machine));
    let status = machine.value.get("status").unwrap_or(&Value::Null);
    let changed = change(
        &crate::status::conditions_of(status),
        Some(machine.generation()),
    );
    let patch = Patch::Merge(json!({
        "metadata": {"uid": machine.uid, "resourceVersion": machine.resource_version.to_string()},
        "status": {"conditions": changed},
    }));
    match ctx
        .patch_status(&writer(), &kinds::MACHINE, &machine.key, &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(ApiError::NotFound(_)) if machine.is_deleting() => Ok(()),
        Err(error) => Err(write_failure(
            &format!("writing conditions of Machine {name}"),
            &error,
        )),
    }
}

fn of_nothing(_: &Ctx, _: &Change) -> Vec<Locator> {
    Vec::new()
}

/// The control plane that a Cluster names.
fn control_plane_of(ctx: &Ctx, cluster: &Object) -> Vec<Locator> {
    let text = |field: &str| cluster.text(&format!("/spec/controlPlaneRef/{field}"));
    let (Some(group), Some(kind), Some(name)) = (text("apiGroup"), text("kind"), text("name"))
    else {
        return Vec::new();
    };
    let kind = GroupKind {
        group: group.to_owned(),
        kind: kind.to_owned(),
    };
    if ctx.plugins.role_of(&kind).as_deref() != Some(ROLE) {
        return Vec::new();
    }
    vec![Locator {
        kind,
        key: ObjectKey::new(cluster.key.namespace.clone(), name),
    }]
}

/// The control plane that owns a Machine. The last worker that goes lets a control plane go, too.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(machine) = change.object() else {
        return Vec::new();
    };
    if let Some(owner) = machine.controller() {
        let kind = GroupKind {
            group: owner.group.to_owned(),
            kind: owner.kind.to_owned(),
        };
        if ctx.plugins.role_of(&kind).as_deref() == Some(ROLE) {
            return vec![Locator {
                kind,
                key: ObjectKey::new(machine.key.namespace.clone(), owner.name),
            }];
        }
    }
    let is_orphan = machine.controller().is_none()
        && machine.label(capstan_api::label::CONTROL_PLANE).is_some();
    if change.new.is_some() && !is_orphan {
        return Vec::new();
    }
    let cluster = machine.text("/spec/clusterName");
    let cluster = cluster.and_then(|name| {
        ctx.get(
            &kinds::CLUSTER,
            &ObjectKey::new(machine.key.namespace.clone(), name),
        )
    });
    cluster
        .map(|cluster| control_plane_of(ctx, &cluster))
        .unwrap_or_default()
}

/// The control plane of a Cluster, when something changed that it waits for.
fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(cluster) = &change.new else {
        return Vec::new();
    };
    let watched = |object: &Object| {
        let at = |pointer: &str| object.value.pointer(pointer).cloned();
        [
            at("/status/initialization"),
            at("/status/failureDomains"),
            at("/spec/controlPlaneEndpoint"),
            at("/spec/controlPlaneRef"),
            object
                .annotation(capstan_api::annotation::CA_ROTATION)
                .map(serde_json::Value::from),
        ]
    };
    if change
        .old
        .as_ref()
        .is_some_and(|old| watched(old) == watched(cluster))
    {
        return Vec::new();
    }
    control_plane_of(ctx, cluster)
}

/// A template that appears may be what a control plane waits for: one whose spec has the template's name in it, whatever the field. A plugin that
/// makes the name up is asked again when it is time.
fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let (None, Some(object)) = (&change.old, &change.new) else {
        return Vec::new();
    };
    if !object.kind().ends_with("Template") {
        return Vec::new();
    }
    let mut locators = Vec::new();
    for resource in ctx.plugins.kinds_with(&[ROLE]) {
        let Some(store) = ctx.stores.get(&resource.group_kind()) else {
            continue;
        };
        let all = store.in_namespace(&object.key.namespace);
        let naming = all.iter().filter(|o| o.has_in_spec(&object.key.name));
        locators.extend(naming.map(|o| Locator::new(&resource, &o.key)));
    }
    locators
}

/// The control plane of the Cluster that was connected or lost, or whose control-plane Node changed.
fn of_workload(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    if object.kind() == kinds::CLUSTER.kind {
        return control_plane_of(ctx, object);
    }
    if object
        .label(capstan_api::label::NODE_ROLE_CONTROL_PLANE)
        .is_none()
    {
        return Vec::new();
    }
    let cluster = object
        .workload()
        .and_then(|key| ctx.get(&kinds::CLUSTER, key));
    cluster
        .map(|cluster| control_plane_of(ctx, &cluster))
        .unwrap_or_default()
}

/// An object that a Machine refers to, if there is one.
type Referenced = Option<(Resource, Arc<Object>)>;

/// An object of a cached kind, as a lookup.
fn looked_up(found: Result<Referenced, Failure>) -> (Lookup<Arc<Value>>, Referenced) {
    match found {
        Ok(Some((resource, object))) => (
            Lookup::Found(object.value.clone()),
            Some((resource, object)),
        ),
        Ok(None) => (Lookup::Missing, None),
        Err(failure) => (Lookup::Unknown(failure.message), None),
    }
}
