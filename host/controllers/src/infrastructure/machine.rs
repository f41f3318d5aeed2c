//! Infrastructure machines.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_core::answer;
use capstan_core::call::infrastructure::{BootstrapData, MachineInput};
use capstan_core::infrastructure::Step;
use capstan_core::infrastructure::machine::{self as core, Effect, Observed};
use capstan_core::lookup::Lookup;
use capstan_core::machine::created_secret;
use capstan_core::material::{KUBECONFIG, SECRET_TYPE, secret_key};
use capstan_core::plan::{Failure, Outcome, Plan};
use capstan_engine::SecretTable;
use jiff::Timestamp;
use serde_json::Value;

use super::{MACHINE_ROLE, Shell, Subject};
use crate::access::{self, Access};
use crate::attempt;
use crate::controller::{Controller, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::GroupKind;
use crate::object::{Locator, Object};
use crate::plugins::state_of;
use crate::reference::lookup;
use crate::secrets::SecretData;
use crate::secrets::ensure;
use crate::store::Change;

/// The controller of infrastructure machines.
pub struct InfraMachineController(Shell);

impl Default for InfraMachineController {
    fn default() -> Self {
        Self(Shell::new("infra-machine", &[MACHINE_ROLE]))
    }
}

/// The infrastructure machine that a Machine names, when what it waits for changed, or when the Machine came into doubt or out of it.
fn of_machine(_: &Ctx, change: &Change) -> Vec<Locator> {
    let waits_for = |o: &Option<Arc<Object>>| {
        let o = o.as_ref()?;
        Some((
            o.text("/spec/bootstrap/dataSecretName").map(str::to_owned),
            o.uid.clone(),
            core::is_in_doubt(&o.value),
        ))
    };
    if waits_for(&change.old) == waits_for(&change.new) {
        return Vec::new();
    }
    change
        .object()
        .map(|machine| named_by(machine))
        .into_iter()
        .collect()
}

/// The infrastructure machine that a Machine names.
fn named_by(machine: &Object) -> Locator {
    let text = |pointer: &str| machine.text(pointer).unwrap_or_default().to_owned();
    Locator {
        kind: GroupKind {
            group: text("/spec/infrastructureRef/apiGroup"),
            kind: text("/spec/infrastructureRef/kind"),
        },
        key: ObjectKey {
            namespace: machine.key.namespace.clone(),
            name: text("/spec/infrastructureRef/name"),
        },
    }
}

/// The infrastructure machine of the Machine whose bootstrap config has data now.
fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let has_data = |object: &Option<Arc<Object>>| {
        object
            .as_ref()
            .is_some_and(|object| created_secret(&object.value).is_some())
    };
    let Some(config) = change.new.as_ref().filter(|_| !has_data(&change.old)) else {
        return Vec::new();
    };
    if !has_data(&change.new) {
        return Vec::new();
    }
    owner_machine(ctx, config)
        .map(|machine| named_by(&machine))
        .into_iter()
        .collect()
}

/// Whether an infrastructure machine is the one of the Machine that it names as its owner: that has the UID, and names it. An owner
/// reference alone is no claim to the Machine's data.
fn is_of(object: &Object, machine: &Object) -> bool {
    let mut owners = object.owners();
    owners.any(|owner| owner.uid == machine.uid) && named_by(machine) == Locator::of(object)
}

/// The Machine that owns a provider object.
fn owner_machine(ctx: &Ctx, object: &Object) -> Option<Arc<Object>> {
    let owner = object
        .owners()
        .find(|o| o.kind == "Machine" && o.group == kinds::MACHINE.group)?;
    let key = ObjectKey::new(object.key.namespace.clone(), owner.name);
    ctx.get(&kinds::MACHINE, &key)
}

/// Name of the Secret with a Machine's bootstrap data: as the Machine says, else as the config that it controls does. The Machine controller
/// copies it in one write with the provider ID.
async fn data_secret(ctx: &Ctx, machine: &Object) -> Option<String> {
    if let Some(name) = machine.text("/spec/bootstrap/dataSecretName") {
        return Some(name.to_owned());
    }
    let text = |field: &str| machine.text(&format!("/spec/bootstrap/configRef/{field}"));
    let kind = GroupKind {
        group: text("apiGroup")?.to_owned(),
        kind: text("kind")?.to_owned(),
    };
    let key = ObjectKey::new(machine.key.namespace.clone(), text("name")?);
    let config = lookup(ctx, &kind, &key).await;
    let config = config.found()?;
    let is_its_own = config
        .controller()
        .is_some_and(|owner| owner.uid == machine.uid);
    is_its_own
        .then(|| created_secret(&config.value).map(str::to_owned))
        .flatten()
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
        let found = |lookup: &Lookup<Arc<Value>>| {
            let found = lookup.found().map(|object| Value::clone(object));
            found.unwrap_or_default()
        };
        let machine = found(&observed.machine);
        let deleting = |value: &Value| {
            value
                .pointer("/metadata/deletionTimestamp")
                .is_some_and(|t| !t.is_null())
        };
        MachineInput {
            context,
            cluster_deleting: observed
                .cluster
                .found()
                .is_none_or(|cluster| deleting(cluster)),
            cluster: found(&observed.cluster),
            infra_cluster: found(&observed.infra_cluster),
            failure_domain: machine
                .pointer("/spec/failureDomain")
                .and_then(Value::as_str)
                .map(str::to_owned),
            machine,
            infra_machine: Value::clone(&observed.object),
            bootstrap: None,
            state: state_of(object),
            extra: Vec::new(),
        }
    }

    async fn ensure(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "machine", attempt::number());
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
        let context = plugin.context(ctx, &subject.object, "machine", attempt::number());
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
    let name = observed.data_secret.clone().unwrap_or_default();
    let key = ObjectKey::new(object.key.namespace.clone(), name);
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
    if secret.secret_type == SECRET_TYPE {
        check_own(&key, &secret, observed)?;
    }
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

/// Checks that a Secret of Cluster API's type may be a machine's data: it is not another cluster's, and no kubeconfig.
fn check_own(key: &ObjectKey, secret: &SecretData, observed: &Observed) -> Result<(), Failure> {
    let cluster = observed.cluster.found().and_then(|cluster| {
        let name = cluster.pointer("/metadata/name").and_then(Value::as_str)?;
        Some(ObjectKey::new(key.namespace.clone(), name))
    });
    let cluster = cluster.unwrap_or_default();
    ensure::own(key, secret, &cluster)?;
    if *key == secret_key(&cluster, KUBECONFIG) {
        let message = format!(
            "Secret {key} is the kubeconfig of Cluster {}, which no machine gets: correct spec.bootstrap.dataSecretName of the Machine",
            cluster.name
        );
        return Err(Failure::terminal("SecretRefused", message));
    }
    Ok(())
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
            Watch {
                source: Source::External,
                map: of_external,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to_group(access::INFRASTRUCTURE, &["list", "watch", "patch"]),
            Access::to_group(access::BOOTSTRAP, &["list", "watch"]),
            // Bootstrap data.
            Access::to(&kinds::SECRET, &["get"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        object.cluster()
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let in_namespace = |name: &str| ObjectKey {
            namespace: object.key.namespace.clone(),
            name: name.to_owned(),
        };
        // What is being deleted is deleted with whatever is known of its Machine.
        let machine = owner_machine(ctx, &object)
            .filter(|machine| object.is_deleting() || is_of(&object, machine))
            .map_or(Lookup::Missing, Lookup::Found);
        let data_secret = match machine.found() {
            Some(machine) => data_secret(ctx, machine).await,
            None => None,
        };
        let cluster = machine
            .found()
            .and_then(|machine| machine.cluster())
            .or_else(|| object.cluster())
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
            asked: self.0.asked.at(&object, ctx.now()),
            data_secret,
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

#[cfg(test)]
mod tests {
    use capstan_core::material::secret_object;
    use serde_json::json;

    use super::*;
    use crate::kube_api::KubeApi;
    use crate::kube_api::staged::Staged;
    use crate::workloads::tests::host_of;

    /// What the plugin would be given of this Secret for a machine of cluster `one`.
    async fn given(name: &str, secret: Value) -> Result<Vec<u8>, Failure> {
        let api = Staged::new();
        api.hold(&kinds::SECRET, secret);
        let ctx = host_of(api as Arc<dyn KubeApi>);
        let object = infra_machine("m", "machine");
        let cluster = json!({"metadata": {"namespace": "ns", "name": "one"}});
        let observed = Observed {
            data_secret: Some(name.to_owned()),
            cluster: Lookup::Found(Arc::new(cluster)),
            ..InfraMachineController::default()
                .observe(&ctx, Arc::new(infra_machine("m", "machine")))
                .await?
        };
        let mut secrets = SecretTable::new();
        let data = bootstrap_data(&ctx, &observed, &object, &mut secrets).await?;
        Ok(secrets.resolve(data.data).unwrap_or_default().to_vec())
    }

    fn infra_machine(name: &str, owner_uid: &str) -> Object {
        Object::new(json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "LocalMachine",
            "metadata": {"namespace": "ns", "name": name, "uid": "i", "ownerReferences": [{
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "name": "m", "uid": owner_uid,
            }]},
        }))
        .unwrap()
    }

    fn of(cluster: &str, name: &str) -> Value {
        let key = ObjectKey::new("ns", name);
        secret_object(&key, cluster, None, &[("value", b"data")])
    }

    #[tokio::test]
    async fn a_machine_is_given_no_kubeconfig_and_nothing_of_another_cluster() {
        assert_eq!(given("m", of("one", "m")).await.unwrap(), b"data");
        let brought = json!({
            "metadata": {"namespace": "ns", "name": "mine"},
            "type": "Opaque", "data": {"value": "ZGF0YQ=="},
        });
        assert_eq!(given("mine", brought).await.unwrap(), b"data");
        let reason = |given: Result<Vec<u8>, Failure>| given.unwrap_err().reason;
        let theirs = given("two-kubeconfig", of("two", "two-kubeconfig")).await;
        assert_eq!(reason(theirs), "SecretOfAnotherCluster");
        let own = given("one-kubeconfig", of("one", "one-kubeconfig")).await;
        assert_eq!(reason(own), "SecretRefused");
    }

    #[tokio::test]
    async fn an_owner_reference_to_a_machine_that_names_another_gives_nothing() {
        let ctx = host_of(Staged::new() as Arc<dyn KubeApi>);
        let machine = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"namespace": "ns", "name": "m", "uid": "machine", "resourceVersion": "20"},
            "spec": {"clusterName": "one", "bootstrap": {"dataSecretName": "m"}, "infrastructureRef": {
                "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": "m",
            }},
        });
        let machines = ctx.store(&kinds::MACHINE);
        machines.apply(Object::new(machine).unwrap());
        let controller = InfraMachineController::default();
        let seen = async |object: Object| {
            let observed = controller.observe(&ctx, Arc::new(object)).await.unwrap();
            (observed.machine.found().is_some(), observed.data_secret)
        };
        assert_eq!(
            seen(infra_machine("m", "machine")).await,
            (true, Some("m".to_owned()))
        );
        for other in [infra_machine("x", "machine"), infra_machine("m", "before")] {
            assert_eq!(seen(other).await, (false, None));
        }
        let mut deleting = Value::clone(&infra_machine("x", "machine").value);
        deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(seen(Object::new(deleting).unwrap()).await.0);
    }
}
