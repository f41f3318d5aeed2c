//! MachineHealthCheck: reads what `capstan_core::machine_health_check` needs, does what it asks.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::{
    Cluster, Machine, MachineHealthCheck, MachineHealthCheckRemediationTemplateReference,
};
use capstan_core::clone::kind_of_template;
use capstan_core::lookup::Lookup;
use capstan_core::machine_health_check::decide::failed_to_ask;
use capstan_core::machine_health_check::{
    self as core, Mark, Observed, Request, Step, Target, acting, is_target,
};
use capstan_core::plan::{Failure, FailureKind, Outcome, Plan};
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::{self, Access};
use crate::controller::{Adoption, Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, Writer, failure};
use crate::event::{self, Event};
use crate::kinds;
use crate::kube_api::{ApiError, Patch};
use crate::machine::{shared, typed};
use crate::object::{Locator, Object};
use crate::parallel::all;
use crate::reference::{Pinned, pinned};
use crate::store::Change;

/// The MachineHealthCheck controller.
pub struct MachineHealthCheckController {
    spec: Spec,
}

impl Default for MachineHealthCheckController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "machine-health-check",
                manager: "capi-machinehealthcheck",
                primary: Primary::Kind(&kinds::MACHINE_HEALTH_CHECK),
                finalizer: None,
                pausable: true,
                concurrency: 50,
                settle: Duration::from_millis(100),
                hold: Duration::from_millis(1000),
            },
        }
    }
}

fn locator(check: &Object) -> Locator {
    Locator::new(&kinds::MACHINE_HEALTH_CHECK, &check.key)
}

/// The checks of a Cluster, whether they are being deleted or not.
fn checks_of(ctx: &Ctx, cluster: &ObjectKey) -> Vec<Arc<Object>> {
    let mut checks = ctx
        .store(&kinds::MACHINE_HEALTH_CHECK)
        .in_namespace(&cluster.namespace);
    checks.retain(|check| check.text("/spec/clusterName") == Some(&cluster.name));
    checks
}

/// The checks that a Machine is, or was, a target of, when something changed that they look at.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let looked_at = |object: &Option<Arc<Object>>| {
        let object = object.as_ref()?;
        let part = |pointer: &str| object.value.pointer(pointer).cloned();
        Some((
            part("/metadata/labels"),
            part("/metadata/annotations"),
            part("/status/nodeRef"),
            part("/status/conditions"),
            object.is_deleting(),
        ))
    };
    let Some(cluster) = change.object().and_then(|machine| machine.cluster()) else {
        return Vec::new();
    };
    let checks = checks_of(ctx, &cluster);
    if checks.is_empty() || looked_at(&change.old) == looked_at(&change.new) {
        return Vec::new();
    }
    let machines: Vec<Machine> = [&change.old, &change.new]
        .into_iter()
        .flatten()
        .filter_map(|object| object.typed().ok())
        .collect();
    let concerned = checks.iter().filter(|check| {
        check
            .typed::<MachineHealthCheck>()
            .is_ok_and(|check| machines.iter().any(|machine| is_target(&check, machine)))
    });
    concerned.map(|check| locator(check)).collect()
}

/// All checks of a Cluster whose beginning or end came nearer.
fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let facts = |object: &Option<Arc<Object>>| {
        let object = object.as_ref()?;
        let status = |type_: &str| {
            capstan_api::condition::read(&object.value, type_).map(|condition| condition.status)
        };
        Some((
            status("InfrastructureReady"),
            status("ControlPlaneInitialized"),
            status("RemoteConnectionProbe"),
        ))
    };
    if facts(&change.old) == facts(&change.new) {
        return Vec::new();
    }
    let Some(cluster) = change.object() else {
        return Vec::new();
    };
    let checks = checks_of(ctx, &cluster.key);
    checks.iter().map(|check| locator(check)).collect()
}

/// The checks that a Node's Machine is a target of, or all of a Cluster whose connection came or went.
fn of_workload(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    if object.kind() != "Node" {
        let checks = checks_of(ctx, &object.key);
        return checks.iter().map(|check| locator(check)).collect();
    }
    let Some(cluster) = object.workload() else {
        return Vec::new();
    };
    let checks = checks_of(ctx, cluster);
    if checks.is_empty() {
        return Vec::new();
    }
    let machines = ctx.store(&kinds::MACHINE);
    let machines = machines.of_node(cluster, &object.key.name, None);
    let meant: Vec<Machine> = machines
        .iter()
        .filter(|m| m.text("/status/nodeRef/name") == Some(&object.key.name))
        .filter_map(|machine| machine.typed().ok())
        .collect();
    let concerned = checks.iter().filter(|check| {
        check
            .typed::<MachineHealthCheck>()
            .is_ok_and(|check| meant.iter().any(|machine| is_target(&check, machine)))
    });
    concerned.map(|check| locator(check)).collect()
}

/// The checks of other checks' Cluster: they may select the same Machines.
fn of_check(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let generation = |object: &Option<Arc<Object>>| {
        object.as_ref().map(|o| {
            (
                o.generation(),
                o.is_deleting(),
                o.annotation(annotation::PAUSED).is_some(),
            )
        })
    };
    if generation(&change.old) == generation(&change.new) {
        return Vec::new();
    }
    let Some(check) = change.object() else {
        return Vec::new();
    };
    let Some(cluster) = check.cluster() else {
        return Vec::new();
    };
    let mut others = checks_of(ctx, &cluster);
    others.retain(|other| other.key != check.key);
    others.iter().map(|other| locator(other)).collect()
}

/// The checks whose template or request it is.
fn of_external(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(object) = change.object() else {
        return Vec::new();
    };
    let checks = ctx
        .store(&kinds::MACHINE_HEALTH_CHECK)
        .in_namespace(&object.key.namespace);
    let concerned = checks.iter().filter(|check| {
        let Some(kind) = check.text("/spec/remediation/templateRef/kind") else {
            return false;
        };
        object.kind() == kind || kind_of_template(kind) == Some(object.kind())
    });
    concerned.map(|check| locator(check)).collect()
}

impl MachineHealthCheckController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    async fn mark(&self, ctx: &Ctx, namespace: &str, mark: &Mark) -> Result<(), Failure> {
        let key = ObjectKey::new(namespace, mark.machine.clone());
        let patch = Patch::Merge(mark.patch());
        let answer = ctx
            .patch_status(&self.writer(), &kinds::MACHINE, &key, &patch)
            .await;
        let machine = match answer {
            Ok(machine) => machine,
            Err(ApiError::NotFound(_)) => return Ok(()),
            Err(error) => {
                return Err(failure(
                    &format!("marking Machine {key} with its health"),
                    &error,
                ));
            }
        };
        if let Some(note) = &mark.news {
            let event = Event::warning("MachineMarkedUnhealthy", "HealthCheck", note.clone());
            event::record(ctx, &self.writer(), &machine, &event).await;
        }
        Ok(())
    }

    async fn ask(&self, ctx: &Ctx, namespace: &str, request: &Request) -> Result<(), Failure> {
        let resource = Pinned::of_object(&request.object).resource();
        match ctx.create(&self.writer(), &resource, &request.object).await {
            Ok(_) | Err(ApiError::AlreadyExists(_)) => {
                self.mark(ctx, namespace, &request.mark).await
            }
            Err(error) => {
                let doing = format!("creating {} {}", resource.kind, request.mark.machine);
                let why = failure(&doing, &error);
                let said = failed_to_ask(&why.message);
                let mark = request.mark.clone().with(said, request.now);
                self.mark(ctx, namespace, &mark).await?;
                // What refuses it belongs to another provider, whose schema or webhook changes without anything of ours.
                Err(Failure {
                    kind: FailureKind::Transient,
                    ..why
                })
            }
        }
    }
}

/// The reference of the template, as an object that is looked for in one version.
fn template_of(reference: &MachineHealthCheckRemediationTemplateReference) -> Pinned {
    Pinned::new(&reference.api_version, &reference.kind)
}

/// Whether the workload cluster's Nodes can be seen, as far as they have to be.
fn nodes_of(ctx: &Ctx, cluster: &Lookup<Cluster>, key: &ObjectKey) -> Result<(), String> {
    let conditions = cluster
        .found()
        .and_then(|cluster| cluster.status.as_ref())
        .map_or(&[][..], |status| &status.conditions);
    if !capstan_api::condition::is_true(conditions, "ControlPlaneInitialized") {
        return Ok(());
    }
    // What Nodes said before their cluster fell silent is no ground to replace Machines: others may be broken as well.
    if capstan_api::condition::is_false(conditions, "RemoteConnectionProbe") {
        return Err(format!("the workload cluster {key} does not answer"));
    }
    match ctx.workloads.get(key) {
        Some(workload) if workload.nodes.is_synced() => Ok(()),
        Some(_) => Err(format!("the Nodes of Cluster {key} are being read")),
        None => Err(format!(
            "the connection to the workload cluster {key} is down"
        )),
    }
}

fn node_of(ctx: &Ctx, cluster: &ObjectKey, machine: &Machine) -> Option<Lookup<Arc<Value>>> {
    let name = &machine.status.as_ref()?.node_ref.as_ref()?.name;
    Some(match ctx.workloads.get(cluster) {
        Some(workload) if workload.nodes.is_synced() => workload
            .node(name)
            .map_or(Lookup::Missing, |node| Lookup::Found(node.value.clone())),
        _ => Lookup::Unknown("the workload cluster cannot be seen".to_owned()),
    })
}

impl Controller for MachineHealthCheckController {
    type Observed = Observed;
    type Step = Step;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What is refused of one Machine holds no other up.
    fn goes_on(&self, _: &Observed, _: &Step) -> bool {
        true
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
                source: Source::Kind(&kinds::MACHINE_HEALTH_CHECK),
                map: of_check,
            },
            Watch {
                source: Source::Workload,
                map: of_workload,
            },
            Watch {
                source: Source::External,
                map: of_external,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to(&kinds::MACHINE_HEALTH_CHECK, &["patch"]),
            Access::to_status(&kinds::MACHINE_HEALTH_CHECK),
            Access::to_status(&kinds::MACHINE),
            // Requests to other remediators.
            Access::to_group(
                access::INFRASTRUCTURE,
                &["list", "watch", "create", "delete"],
            ),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        object.cluster()
    }

    fn adopt(&self, ctx: &Ctx, object: &Object) -> Adoption {
        Adoption::by_cluster(ctx, object, true)
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let check: MachineHealthCheck = typed(&object)?;
        let key = ObjectKey::new(
            object.key.namespace.clone(),
            check.spec.cluster_name.clone(),
        );
        let cluster: Lookup<Cluster> = match ctx.get(&kinds::CLUSTER, &key) {
            Some(cluster) => Lookup::Found(typed(&cluster)?),
            None => Lookup::Missing,
        };
        let reference = check
            .spec
            .remediation
            .as_ref()
            .and_then(|remediation| remediation.template_ref.clone());
        let (mut template, mut requests) = (None, None);
        if let Some(reference) = &reference {
            let kind = template_of(reference);
            let name = ObjectKey::new(object.key.namespace.clone(), reference.name.clone());
            template = Some(
                pinned(ctx, &kind)
                    .await
                    .one(&name)
                    .map(|found| found.value.clone()),
            );
            if let Some(made) = kind_of_template(&reference.kind) {
                requests = Some(pinned(ctx, &Pinned::new(&reference.api_version, made)).await);
            }
        }
        let checks: Vec<MachineHealthCheck> = checks_of(ctx, &key)
            .iter()
            .filter(|other| !other.is_deleting() && other.annotation(annotation::PAUSED).is_none())
            .filter_map(|other| other.typed().ok())
            .collect();
        let mut targets = Vec::new();
        for found in ctx.store(&kinds::MACHINE).of_cluster(&key) {
            let machine = shared::<Machine>(&found)?;
            if !is_target(&check, &machine) {
                continue;
            }
            let selecting: Vec<&MachineHealthCheck> = checks
                .iter()
                .filter(|other| is_target(other, &machine))
                .collect();
            let is_self = |other: &MachineHealthCheck| other.metadata.name == check.metadata.name;
            targets.push(Target {
                node: node_of(ctx, &key, &machine),
                request: requests
                    .as_ref()
                    .map_or(Lookup::Missing, |requests| requests.one(&found.key))
                    .map(|request| request.value.clone()),
                also: selecting
                    .iter()
                    .filter(|other| !is_self(other))
                    .filter_map(|other| other.metadata.name.clone())
                    .collect(),
                acts: acting(selecting).is_none_or(is_self),
                machine,
            });
        }
        Ok(Observed {
            nodes: nodes_of(ctx, &cluster, &key),
            check,
            cluster,
            targets,
            template,
        })
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(&self, ctx: &Ctx, observed: &Observed, step: &Step) -> Result<(), Failure> {
        let metadata = &observed.check.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        match step {
            Step::Mark(marks) => {
                let marks = marks.iter();
                all(marks
                    .map(|mark| self.mark(ctx, &namespace, mark).boxed())
                    .collect())
                .await
            }
            Step::Ask(request) => self.ask(ctx, &namespace, request).await,
            Step::TakeBack(request) => {
                let Some(object) = Object::new(request.clone()) else {
                    return Ok(());
                };
                let resource = Pinned::of_object(request).resource();
                let doing = format!("deleting {} {}", object.kind(), object.key);
                let answer = ctx.delete(&resource, &object).await;
                answer.map_err(|error| failure(&doing, &error))
            }
            Step::TellRestricted(why) => {
                let key = ObjectKey::new(namespace, metadata.name.clone().unwrap_or_default());
                if let Some(check) = ctx.get(&kinds::MACHINE_HEALTH_CHECK, &key) {
                    let event = Event::warning("RemediationRestricted", "HealthCheck", why.clone());
                    event::record(ctx, &self.writer(), &check, &event).await;
                }
                Ok(())
            }
        }
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
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::staged::{Act, Staged};
    use crate::workloads::tests::host_of;

    #[tokio::test]
    async fn a_request_that_another_provider_refuses_is_made_again_soon() {
        let api = Staged::new();
        let machine =
            json!({"kind": "Machine", "metadata": {"namespace": "ns", "name": "m", "uid": "u"}});
        api.hold(&kinds::MACHINE, machine);
        let refused = ApiError::Invalid("how: Required value".to_owned());
        api.act("create", Act::Refuse(refused));
        let ctx = host_of(api.clone());
        let request = Request {
            object: json!({
                "apiVersion": "health.example.org/v1", "kind": "Reboot",
                "metadata": {"namespace": "ns", "name": "m"},
            }),
            mark: Mark {
                machine: "m".to_owned(),
                resource_version: "11".to_owned(),
                uid: "u".to_owned(),
                conditions: Vec::new(),
                news: None,
            },
            now: ctx.now(),
        };
        let controller = MachineHealthCheckController::default();
        let failed = controller.ask(&ctx, "ns", &request).await.unwrap_err();
        assert_eq!(failed.kind, FailureKind::Transient, "{failed}");
        assert!(failed.message.contains("how: Required value"), "{failed}");
        assert_eq!(api.patches().len(), 1, "the Machine says so");
    }
}
