//! Infrastructure machines.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_core::answer;
use capstan_core::call::infrastructure::{BootstrapData, MachineInput};
use capstan_core::infrastructure::Step;
use capstan_core::infrastructure::machine::{self as core, Effect, Observed};
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use capstan_engine::SecretTable;
use jiff::Timestamp;
use serde_json::Value;

use super::{MACHINE_ROLE, Shell, Subject};
use crate::access::{self, Access};
use crate::controller::{Controller, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, failure};
use crate::driver::cluster_by_name;
use crate::kinds;
use crate::kube_api::GroupKind;
use crate::object::{Locator, Object};
use crate::plugins::state_of;
use crate::reference::lookup;
use crate::store::Change;

/// The controller of infrastructure machines.
pub struct InfraMachineController(Shell);

impl Default for InfraMachineController {
    fn default() -> Self {
        Self(Shell::new("infra-machine", &[MACHINE_ROLE]))
    }
}

/// The infrastructure machine that a Machine names, when what it waits for changed.
fn of_machine(_: &Ctx, change: &Change) -> Vec<Locator> {
    let waits_for = |o: &Option<Arc<Object>>| {
        let o = o.as_ref()?;
        Some((
            o.text("/spec/bootstrap/dataSecretName").map(str::to_owned),
            o.uid.clone(),
        ))
    };
    if waits_for(&change.old) == waits_for(&change.new) {
        return Vec::new();
    }
    let Some(machine) = change.object() else {
        return Vec::new();
    };
    let text = |pointer: &str| machine.text(pointer).unwrap_or_default().to_owned();
    vec![Locator {
        kind: GroupKind {
            group: text("/spec/infrastructureRef/apiGroup"),
            kind: text("/spec/infrastructureRef/kind"),
        },
        key: ObjectKey {
            namespace: machine.key.namespace.clone(),
            name: text("/spec/infrastructureRef/name"),
        },
    }]
}

/// All infrastructure machines of a Cluster whose infrastructure became ready.
fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let provisioned = |o: &Option<Arc<Object>>| {
        o.as_ref().is_some_and(|o| {
            o.value
                .pointer("/status/initialization/infrastructureProvisioned")
                == Some(&Value::Bool(true))
        })
    };
    if provisioned(&change.old) == provisioned(&change.new) {
        return Vec::new();
    }
    let Some(cluster) = change.object() else {
        return Vec::new();
    };
    let machines = ctx.store(&kinds::MACHINE).of_cluster(&cluster.key);
    machines
        .into_iter()
        .flat_map(|machine| {
            of_machine(
                ctx,
                &Change {
                    old: None,
                    new: Some(machine),
                },
            )
        })
        .collect()
}

impl InfraMachineController {
    fn input(
        observed: &Observed,
        context: capstan_core::call::Context,
        object: &Object,
    ) -> MachineInput {
        let found = |lookup: &Lookup<Value>| lookup.found().cloned().unwrap_or_default();
        let machine = found(&observed.machine);
        let deleting = |value: &Value| {
            value
                .pointer("/metadata/deletionTimestamp")
                .is_some_and(|t| !t.is_null())
        };
        MachineInput {
            context,
            cluster_deleting: observed.cluster.found().is_none_or(deleting),
            cluster: found(&observed.cluster),
            infra_cluster: found(&observed.infra_cluster),
            failure_domain: machine
                .pointer("/spec/failureDomain")
                .and_then(Value::as_str)
                .map(str::to_owned),
            machine,
            infra_machine: observed.object.clone(),
            bootstrap: None,
            state: state_of(object),
            extra: Vec::new(),
        }
    }

    async fn ensure(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "machine", 1);
        let mut input = Self::input(observed, context, &subject.object);
        let mut secrets = SecretTable::new();
        input.bootstrap = Some(bootstrap_data(ctx, observed, &subject.object, &mut secrets).await?);
        let env = plugin.env(ctx, &subject.resource, &subject.object, secrets);
        let answer = plugin
            .loaded
            .ensure_machine(env, input)
            .await
            .map_err(|error| error.failure())?;
        answer::check_machine(&answer, subject.object.text("/spec/providerID"))
            .map_err(|violation| violation.failure(&plugin.name))?;
        self.0.ensured(ctx, &subject, answer).await
    }

    async fn delete(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "machine", 1);
        let input = Self::input(observed, context, &subject.object);
        let env = plugin.env(ctx, &subject.resource, &subject.object, SecretTable::new());
        let answer = plugin.loaded.delete_machine(env, input).await;
        self.0.deleted(ctx, &subject, answer).await
    }
}

/// The machine's bootstrap data, which the plugin gets as a handle.
async fn bootstrap_data(
    ctx: &Ctx,
    observed: &Observed,
    object: &Object,
    secrets: &mut SecretTable,
) -> Result<BootstrapData, Failure> {
    let name = observed
        .machine
        .found()
        .and_then(|m| m.pointer("/spec/bootstrap/dataSecretName"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let key = ObjectKey {
        namespace: object.key.namespace.clone(),
        name: name.to_owned(),
    };
    let secret = ctx
        .secrets
        .get(&*ctx.api, &key)
        .await
        .map_err(|error| failure(&format!("reading bootstrap data from Secret {key}"), &error))?
        .ok_or_else(|| {
            Failure::transient(
                "BootstrapDataMissing",
                format!("Secret {key} does not exist"),
            )
        })?;
    let value = secret.data.get("value").ok_or_else(|| {
        Failure::terminal(
            "BootstrapDataMissing",
            format!("Secret {key} has no key value"),
        )
    })?;
    let format = secret
        .data
        .get("format")
        .and_then(|bytes| String::from_utf8(bytes.clone()).ok())
        .unwrap_or_else(|| "cloud-config".to_owned());
    Ok(BootstrapData {
        data: secrets.add(value.clone()),
        format,
    })
}

impl Controller for InfraMachineController {
    type Observed = Observed;
    type Step = Step;
    type Effect = Effect;

    fn spec(&self) -> &Spec {
        &self.0.spec
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
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to_group(access::INFRASTRUCTURE, &["list", "watch", "patch"]),
            // Bootstrap data.
            Access::to(&kinds::SECRET, &["get"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        cluster_by_name(object)
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let in_namespace = |name: &str| ObjectKey {
            namespace: object.key.namespace.clone(),
            name: name.to_owned(),
        };
        let owner = object
            .owners()
            .find(|o| o.kind == "Machine" && o.group == kinds::MACHINE.group);
        let machine = owner
            .and_then(|owner| ctx.get(&kinds::MACHINE, &in_namespace(owner.name)))
            .map_or(Lookup::Missing, Lookup::Found);
        let cluster = machine
            .found()
            .and_then(|machine| cluster_by_name(machine))
            .or_else(|| cluster_by_name(&object))
            .and_then(|key| ctx.get(&kinds::CLUSTER, &key))
            .map_or(Lookup::Missing, Lookup::Found);
        let infra_cluster = match cluster.found() {
            Some(cluster) => {
                let text = |pointer: &str| cluster.text(pointer).unwrap_or_default().to_owned();
                let kind = GroupKind {
                    group: text("/spec/infrastructureRef/apiGroup"),
                    kind: text("/spec/infrastructureRef/kind"),
                };
                lookup(
                    ctx,
                    &kind,
                    &in_namespace(&text("/spec/infrastructureRef/name")),
                )
                .await
            }
            None => Lookup::Missing,
        };
        Ok(Observed {
            owner: ctx.provider_of(&object.group_kind()),
            plugin: ctx
                .plugins
                .owner_of(&object.group_kind())
                .map(|p| p.name.clone()),
            asked: self.0.asked.at(&object),
            machine: machine.map(|o| o.value.clone()),
            cluster: cluster.map(|o| o.value.clone()),
            infra_cluster: infra_cluster.map(|o| o.value.clone()),
            object: object.value.clone(),
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
        match step {
            Step::Ensure => self.ensure(ctx, observed).await,
            Step::Delete => self.delete(ctx, observed).await,
        }
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        outcome: &Outcome<Step, Effect>,
        _: Timestamp,
    ) -> Report {
        core::report(observed, outcome).into()
    }
}
