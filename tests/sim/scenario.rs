//! What people and misfortune do to a world, and when: a list that follows from the seed and can be shortened.

mod beset;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{ApiError, Patch, Preconditions, Resource};
use serde_json::{Value, json};

use crate::cloud::Phase;
use crate::fault::Rates;
use crate::kinds as sim;
use crate::object::{is_deleting, key, name, number, text, uid};
use crate::random::Random;
use crate::stacked;
use crate::stacked::{Stacked, Trouble};
use crate::store::{Definition, Store, Written};
use crate::world::{Actor, Server, State, Write};

pub use beset::{Binding, LastPods};

/// Namespace of the Cluster.
pub const NAMESPACE: &str = "ns";
/// Name of the Cluster.
pub const CLUSTER: &str = "c";
/// Name of the MachineDeployment.
pub const DEPLOYMENT: &str = "d";

/// Longer than the looks that the host takes again while something is under way.
const QUIET: Duration = Duration::from_secs(900);
/// Longer than everything that the host does from time to time.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What happens at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The MachineDeployment shall have so many machines.
    Scale(u32),
    /// The MachineDeployment gets the next version.
    Roll,
    /// The MachineDeployment may have so many more, and miss so many.
    Limits(u32, u32),
    /// Labels of the template change: in place, without a rollout.
    Relabel(u32),
    /// The Cluster is paused for seconds.
    Pause(u64),
    /// Somebody deletes one of the Machines.
    DeleteMachine(u64),
    /// Somebody marks one of the Machines to go first, and wants one less.
    MarkMachine(u64),
    /// Somebody holds one of the Machines with a hook, for seconds.
    Hook(u64, bool, u64),
    /// The host is killed, and starts again after milliseconds.
    Crash(u64),
    /// The management cluster does not answer for seconds.
    Outage(u64),
    /// The workload cluster does not answer for seconds.
    WorkloadOutage(u64),
    /// For seconds, nothing says which version of the bootstrap provider's kinds to look at: what they hold cannot be seen.
    HideConfigs(u64),
    /// One of the instances breaks; only where a health check looks.
    Break(u64),
    /// So many of the instances break at once; only where a health check looks.
    BreakSome(u64, u32),
    /// Somebody deletes the Machines whose instances are broken; only where a health check may refuse to.
    Mend,
    /// Somebody deletes the Machines that are not of the wanted version; only where nothing else does.
    Renew,
    /// One of the bound hooks is bound no more.
    Unbind(u64),
    /// The MachineDeployment is deleted.
    DeleteDeployment,
    /// The Cluster is deleted.
    DeleteCluster,
    /// Something happens to the control plane of Machines.
    ControlPlane(Trouble),
}

/// A deed and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Since the beginning.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// A world's history as far as it is not luck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where luck comes from.
    pub seed: u64,
    /// How often things go wrong.
    pub rates: Rates,
    /// Machines of the control plane at the beginning, where it has any.
    pub control_plane: Option<u32>,
    /// The operator wants a snapshot of etcd before a member is removed.
    pub keeps_snapshots: bool,
    /// Machines at the beginning.
    pub replicas: u32,
    /// `maxSurge` and `maxUnavailable` at the beginning.
    pub limits: (u32, u32),
    /// Whether a MachineHealthCheck looks at the machines, and how many may be replaced at a time.
    pub health_check: Option<u32>,
    /// How many of them may be unhealthy for any to be replaced; absent for all.
    pub unhealthy: Option<u32>,
    /// Machines are replaced only as somebody deletes them.
    pub on_delete: bool,
    /// Machines that are unhealthy are not replaced: somebody else is asked to help.
    pub asks_others: bool,
    /// Hooks that are bound to Machines.
    pub hooks: Vec<Binding>,
    /// Whether pods are drained by rules, and what becomes of the last.
    pub last_pods: Option<LastPods>,
    /// In order of time.
    pub steps: Vec<Step>,
    /// When everything stops going wrong.
    pub calm_at: Duration,
    /// How long nothing is written once the world has settled.
    pub quiet: Duration,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} machines, maxSurge {}, maxUnavailable {}, health check {:?} while {:?}, {:?}",
            self.replicas,
            self.limits.0,
            self.limits.1,
            self.health_check,
            self.unhealthy,
            self.rates
        )?;
        if let Some(machines) = self.control_plane {
            let kept = if self.keeps_snapshots {
                ", with snapshots"
            } else {
                ""
            };
            writeln!(f, "  a control plane of {machines} machines{kept}")?;
        }
        if self.on_delete {
            writeln!(f, "  Machines are replaced as they are deleted")?;
        }
        if self.asks_others {
            writeln!(f, "  somebody else is asked to help Machines")?;
        }
        if let Some(last) = self.last_pods {
            writeln!(f, "  the last pods: {last:?}")?;
        }
        for (number, hook) in self.hooks.iter().enumerate() {
            writeln!(f, "  hook h{number}: {hook:?}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(
                f,
                "  {number:>2}: after {} s {:?}",
                step.at.as_secs(),
                step.deed
            )?;
        }
        Ok(())
    }
}

/// Limits that can move: not both 0.
fn limits(random: &mut Random) -> (u32, u32) {
    let draw = |random: &mut Random, most| u32::try_from(random.below(most)).unwrap_or_default();
    match (draw(random, 3), draw(random, 3)) {
        (0, 0) => (1, 0),
        limits => limits,
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed).fork(9);
        let rates = Rates::draw(&mut random);
        let length_s = random.between(300, 2_400);
        let count = random.between(2, 10);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| Step {
                at: Duration::from_millis(random.between(0, length_s * 1000)),
                deed: deed(&mut random),
            })
            .collect();
        let health_check = random
            .happens(400)
            .then(|| u32::try_from(random.between(1, 2)).unwrap_or(1));
        if health_check.is_some() {
            let broken = (0..random.between(1, 3)).map(|_| Step {
                at: Duration::from_millis(random.between(200_000, 200_000 + length_s * 1000)),
                deed: Deed::Break(random.draw()),
            });
            steps.extend(broken.collect::<Vec<_>>());
        }
        if random.happens(500) {
            // Something that works already is disturbed in a different way than something that begins.
            let quiet = Duration::from_secs(900);
            steps.iter_mut().for_each(|step| step.at += quiet);
        }
        if random.happens(400) {
            let at = Duration::from_millis(random.between(length_s * 500, length_s * 1100));
            let deed = if random.happens(250) {
                Deed::DeleteDeployment
            } else {
                Deed::DeleteCluster
            };
            steps.push(Step { at, deed });
        }
        steps.sort_by_key(|step| step.at);
        let last = steps.last().map_or(Duration::ZERO, |step| step.at);
        let mut plan = Self {
            seed,
            rates,
            replicas: u32::try_from(random.between(1, 4)).unwrap_or(1),
            limits: limits(&mut random),
            health_check,
            steps,
            calm_at: last + Duration::from_secs(random.between(60, 900)),
            quiet: if random.happens(250) { DAY } else { QUIET },
            ..Self::default()
        };
        if plan.health_check.is_some() {
            plan.sicken(&mut Random::new(seed).fork(10));
        }
        plan.beset(&mut Random::new(seed).fork(11));
        plan
    }
}

fn deed(random: &mut Random) -> Deed {
    let draw = |random: &mut Random, most| u32::try_from(random.below(most)).unwrap_or_default();
    match random.below(20) {
        0..=3 => Deed::Scale(draw(random, 6)),
        4..=7 => Deed::Roll,
        8 => {
            let (surge, unavailable) = limits(random);
            Deed::Limits(surge, unavailable)
        }
        9 => Deed::Relabel(draw(random, 100)),
        10 => Deed::Pause(random.between(10, 900)),
        11 | 12 => Deed::DeleteMachine(random.draw()),
        13 => Deed::MarkMachine(random.draw()),
        14 | 15 => Deed::Hook(random.draw(), random.happens(500), random.between(10, 900)),
        16 | 17 => Deed::Crash(random.between(1, 60_000)),
        18 if random.happens(500) => Deed::HideConfigs(random.between(10, 600)),
        18 => Deed::Outage(random.between(1, 120)),
        _ => Deed::WorkloadOutage(random.between(1, 900)),
    }
}

fn labels() -> Value {
    json!({"cluster.x-k8s.io/cluster-name": CLUSTER, "cluster.x-k8s.io/deployment-name": DEPLOYMENT})
}

/// The definition of the bootstrap provider's kind.
fn configs() -> ObjectKey {
    let kind = &*sim::SIM_CONFIG;
    ObjectKey::new("", format!("{}.{}", kind.plural, kind.group))
}

/// The definitions of the core's kinds: the same in all worlds.
fn definitions() -> &'static [Definition] {
    static DEFINITIONS: OnceLock<Vec<Definition>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let all = capstan_api::manifests::crds().into_iter();
        let all = all.map(|definition| serde_json::to_value(definition).expect("is JSON"));
        all.map(|definition| Definition::of(&definition)).collect()
    })
}

/// The objects that the user makes.
fn objects(plan: &Plan) -> Vec<(&'static Resource, Value)> {
    let control_plane = match plan.control_plane {
        Some(_) => "SimStackedControlPlane",
        None => "SimControlPlane",
    };
    let mut objects = vec![
        (
            &*kinds::CLUSTER,
            json!({"metadata": {"name": CLUSTER}, "spec": {
                "infrastructureRef": {"apiGroup": sim::INFRASTRUCTURE, "kind": "SimCluster", "name": CLUSTER},
                "controlPlaneRef": {"apiGroup": sim::CONTROL_PLANES, "kind": control_plane, "name": CLUSTER},
            }}),
        ),
        (
            &*sim::SIM_CLUSTER,
            json!({"metadata": {"name": CLUSTER}, "spec": {}}),
        ),
        (
            &*sim::SIM_MACHINE_TEMPLATE,
            json!({"metadata": {"name": DEPLOYMENT}, "spec": {"template": {"spec": {}}}}),
        ),
        (
            &*sim::SIM_CONFIG_TEMPLATE,
            json!({"metadata": {"name": DEPLOYMENT}, "spec": {"template": {"spec": {}}}}),
        ),
        (&*kinds::MACHINE_DEPLOYMENT, deployment(plan)),
    ];
    match plan.control_plane {
        Some(machines) => objects.extend(stacked::objects(machines)),
        None => objects.insert(
            2,
            (
                &*sim::SIM_CONTROL_PLANE,
                json!({"metadata": {"name": CLUSTER}, "spec": {"version": "v1.36.30"}}),
            ),
        ),
    }
    if plan.health_check.is_some() {
        let condition =
            |status: &str| json!({"type": "Ready", "status": status, "timeoutSeconds": 180});
        let check = json!({"metadata": {"name": DEPLOYMENT}, "spec": {
            "clusterName": CLUSTER, "selector": {"matchLabels": labels()},
            "checks": {
                "nodeStartupTimeoutSeconds": 1200,
                "unhealthyNodeConditions": [condition("Unknown"), condition("False")],
            },
            "remediation": {
                "triggerIf": {"unhealthyLessThanOrEqualTo":
                    plan.unhealthy.map_or_else(|| json!("100%"), |most| json!(most))},
                "templateRef": plan.asks_others.then(|| json!({
                    "apiVersion": sim::SIM_REMEDIATION_TEMPLATE.api_version(),
                    "kind": "SimRemediationTemplate", "name": DEPLOYMENT,
                })),
            },
        }});
        objects.push((&*kinds::MACHINE_HEALTH_CHECK, check));
        objects.push((
            &*sim::SIM_REMEDIATION_TEMPLATE,
            json!({"metadata": {"name": DEPLOYMENT}, "spec": {"template": {"spec": {}}}}),
        ));
    }
    if let Some(last) = plan.last_pods {
        objects.extend(last.rules());
    }
    objects
}

fn deployment(plan: &Plan) -> Value {
    let template =
        |kind: &str, group: &str| json!({"apiGroup": group, "kind": kind, "name": DEPLOYMENT});
    let strategy = if plan.on_delete {
        json!({"type": "OnDelete"})
    } else {
        json!({"type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": plan.limits.0, "maxUnavailable": plan.limits.1,
        }})
    };
    json!({"metadata": {"name": DEPLOYMENT}, "spec": {
        "clusterName": CLUSTER, "replicas": plan.replicas,
        "rollout": {"strategy": strategy},
        "remediation": {"maxInFlight": plan.health_check},
        "selector": {"matchLabels": labels()},
        "template": {"metadata": {"labels": labels()}, "spec": {
            "clusterName": CLUSTER, "version": "v1.36.0",
            "bootstrap": {"configRef": template("SimConfigTemplate", sim::BOOTSTRAP)},
            "infrastructureRef": template("SimMachineTemplate", sim::INFRASTRUCTURE),
        }},
    }})
}

impl State {
    /// Makes everything that has to be there before the host.
    pub fn found(&mut self, plan: &Plan) {
        for definition in definitions() {
            self.management.serve_definition(definition);
        }
        for resource in [
            &*kinds::CONFIG_MAP,
            &*kinds::SECRET,
            &*kinds::EVENT,
            &*kinds::LEASE,
            &*kinds::CRD,
            &*kinds::NAMESPACE,
        ] {
            self.management.serve(resource, false);
        }
        for space in ["default", NAMESPACE, crate::host::NAMESPACE] {
            let space = json!({"metadata": {"name": space}});
            self.user_creates(&kinds::NAMESPACE, "", &space);
        }
        for resource in sim::all() {
            self.management.serve(resource, true);
            self.user_creates(&kinds::CRD, "", &sim::definition(resource));
        }
        if plan.control_plane.is_some() {
            self.stacked = Some(Stacked::new(&Random::new(plan.seed), plan.keeps_snapshots));
            for resource in sim::stacked() {
                self.management.serve(resource, true);
                self.user_creates(&kinds::CRD, "", &sim::definition(resource));
            }
        }
        for (resource, object) in objects(plan) {
            self.user_creates(resource, NAMESPACE, &object);
        }
        for (number, hook) in plan.hooks.iter().enumerate() {
            let own = crate::host::NAMESPACE;
            self.user_creates(&kinds::MACHINE_HOOK, own, &hook.object(number));
        }
    }

    fn user_writes(
        &mut self,
        verb: &'static str,
        resource: &Resource,
        key: &ObjectKey,
        effect: impl FnOnce(&mut Store, &str) -> Result<Written, ApiError>,
    ) {
        let write = Write {
            actor: Actor::User,
            by: "user",
            verb,
            resource,
            key,
        };
        // A user whose object is gone already has nothing to do.
        let _ = self.write(&Server::Management, &write, effect);
    }

    fn user_creates(&mut self, resource: &Resource, namespace: &str, object: &Value) {
        let key = ObjectKey::new(namespace, name(object));
        self.user_writes("create", resource, &key, |store, now| {
            store.create(resource, namespace, object, now)
        });
    }

    pub(crate) fn user_patches(&mut self, resource: &Resource, key: &ObjectKey, patch: Value) {
        let patch = Patch::Merge(patch);
        self.user_writes("patch", resource, key, |store, _| {
            store.patch(resource, key, None, &patch)
        });
    }

    pub(crate) fn user_deletes(&mut self, resource: &Resource, key: &ObjectKey) {
        self.user_writes("delete", resource, key, |store, now| {
            store.delete(resource, key, &Preconditions::default(), now, 0)
        });
    }

    fn some_machine(&self, luck: u64) -> Option<Arc<Value>> {
        let all = self.management.all(&kinds::MACHINE);
        let alive: Vec<&Arc<Value>> = all.filter(|machine| !is_deleting(machine)).collect();
        let count = u64::try_from(alive.len()).unwrap_or(1).max(1);
        let at = usize::try_from(luck % count).unwrap_or_default();
        alive.get(at).map(|machine| Arc::clone(machine))
    }

    /// Does a deed of a person. What lasts a while answers how it ends, and when.
    pub fn perform(&mut self, deed: &Deed) -> Option<(Duration, End)> {
        let deployment = ObjectKey::new(NAMESPACE, DEPLOYMENT);
        let cluster = ObjectKey::new(NAMESPACE, CLUSTER);
        let of_deployment = &*kinds::MACHINE_DEPLOYMENT;
        match deed {
            Deed::Scale(replicas) => {
                self.user_patches(
                    of_deployment,
                    &deployment,
                    json!({"spec": {"replicas": replicas}}),
                );
            }
            Deed::Roll => {
                if let Ok(object) = self.management.get(of_deployment, &deployment) {
                    let version = text(&object, "/spec/template/spec/version");
                    let last = version
                        .rsplit('.')
                        .next()
                        .and_then(|last| last.parse::<u32>().ok());
                    let next = format!("v1.36.{}", last.unwrap_or_default() + 1);
                    let patch = json!({"spec": {"template": {"spec": {"version": next}}}});
                    self.user_patches(of_deployment, &deployment, patch);
                }
            }
            // The other type has no limits.
            Deed::Limits(..) if self.is_on_delete() => {}
            Deed::Limits(surge, unavailable) => {
                let patch = json!({"spec": {"rollout": {"strategy": {"rollingUpdate": {
                    "maxSurge": surge, "maxUnavailable": unavailable,
                }}}}});
                self.user_patches(of_deployment, &deployment, patch);
            }
            Deed::Relabel(number) => {
                let patch = json!({"spec": {"template": {"metadata": {"labels": {"team": format!("t{number}")}}}}});
                self.user_patches(of_deployment, &deployment, patch);
            }
            Deed::Pause(seconds) => {
                self.user_patches(&kinds::CLUSTER, &cluster, json!({"spec": {"paused": true}}));
                return Some((Duration::from_secs(*seconds), End::Unpause));
            }
            Deed::DeleteMachine(luck) => {
                if let Some(machine) = self.some_machine(*luck) {
                    self.user_deletes(&kinds::MACHINE, &key(&machine));
                }
            }
            Deed::MarkMachine(luck) => {
                if let Some(machine) = self.some_machine(*luck) {
                    let patch =
                        json!({"metadata": {"annotations": {annotation::DELETE_MACHINE: "yes"}}});
                    self.user_patches(&kinds::MACHINE, &key(&machine), patch);
                    if let Ok(object) = self.management.get(of_deployment, &deployment) {
                        let replicas = number(&object, "/spec/replicas").unwrap_or(1);
                        let patch = json!({"spec": {"replicas": (replicas - 1).max(0)}});
                        self.user_patches(of_deployment, &deployment, patch);
                    }
                }
            }
            Deed::Hook(luck, before_drain, seconds) => {
                let machine = self.some_machine(*luck)?;
                let prefix = if *before_drain {
                    annotation::PRE_DRAIN_HOOK_PREFIX
                } else {
                    annotation::PRE_TERMINATE_HOOK_PREFIX
                };
                let hook = format!("{prefix}/sim");
                let patch = json!({"metadata": {"annotations": {&hook: "sim"}}});
                self.user_patches(&kinds::MACHINE, &key(&machine), patch);
                // What is held is most interesting when it should go.
                if luck % 4 > 0 {
                    self.user_deletes(&kinds::MACHINE, &key(&machine));
                }
                return Some((
                    Duration::from_secs(*seconds),
                    End::Unhook(key(&machine), hook),
                ));
            }
            Deed::Outage(seconds) => {
                self.down_until = self.now() + Duration::from_secs(*seconds);
                self.note(&format!("outage of {seconds} s"));
            }
            Deed::WorkloadOutage(seconds) => {
                let until = self.now() + Duration::from_secs(*seconds);
                for workload in self.workloads.values_mut() {
                    workload.down_until = until;
                }
                self.note(&format!("outage of the workload cluster of {seconds} s"));
            }
            Deed::HideConfigs(seconds) => {
                self.user_patches(
                    &kinds::CRD,
                    &configs(),
                    json!({"metadata": {"labels": null}}),
                );
                return Some((Duration::from_secs(*seconds), End::ShowConfigs));
            }
            Deed::Break(luck) => self.some_instances_break(*luck, 1),
            Deed::BreakSome(luck, count) => self.some_instances_break(*luck, *count),
            Deed::Mend => self.user_deletes_broken(),
            Deed::Renew => self.user_deletes_outdated(),
            Deed::Unbind(luck) => {
                let hooks = self.management.all(&kinds::MACHINE_HOOK);
                let hooks: Vec<ObjectKey> = hooks.map(|hook| key(hook)).collect();
                let count = u64::try_from(hooks.len()).unwrap_or(1).max(1);
                let at = usize::try_from(luck % count).unwrap_or_default();
                if let Some(hook) = hooks.get(at) {
                    self.user_deletes(&kinds::MACHINE_HOOK, hook);
                }
            }
            Deed::DeleteDeployment => self.user_deletes(of_deployment, &deployment),
            Deed::DeleteCluster => self.user_deletes(&kinds::CLUSTER, &cluster),
            Deed::ControlPlane(trouble) => return self.trouble(*trouble),
            // The host's life is not in the world's hands.
            Deed::Crash(_) => {}
        }
        None
    }

    fn some_instances_break(&mut self, luck: u64, count: u32) {
        let now = self.now();
        let mut running: Vec<String> = self
            .cloud
            .instances
            .iter()
            .filter(|(_, instance)| instance.phase == Phase::Running)
            .map(|(key, _)| key.clone())
            .collect();
        for _ in 0..count {
            let left = u64::try_from(running.len()).unwrap_or(1).max(1);
            let at = usize::try_from(luck % left).unwrap_or_default();
            if at >= running.len() {
                return;
            }
            let key = running.remove(at);
            let Some(instance) = self.cloud.instances.get_mut(&key) else {
                continue;
            };
            instance.phase = Phase::Broken(now);
            let words = format!(
                "cloud: instance {} of {} breaks",
                instance.id, instance.name
            );
            self.note(&words);
            self.stir();
        }
    }

    fn user_deletes_broken(&mut self) {
        let all = self.management.all(&kinds::MACHINE);
        let broken = all.filter(|machine| {
            let mut instances = self.cloud.of_machine(uid(machine));
            !is_deleting(machine)
                && instances.any(|instance| matches!(instance.phase, Phase::Broken(_)))
        });
        let broken: Vec<ObjectKey> = broken.map(|machine| key(machine)).collect();
        for machine in broken {
            self.user_deletes(&kinds::MACHINE, &machine);
        }
    }

    fn is_on_delete(&self) -> bool {
        let mut all = self.management.all(&kinds::MACHINE_DEPLOYMENT);
        all.any(|deployment| text(deployment, "/spec/rollout/strategy/type") == "OnDelete")
    }

    fn user_deletes_outdated(&mut self) {
        let deployment = ObjectKey::new(NAMESPACE, DEPLOYMENT);
        let Ok(deployment) = self.management.get(&kinds::MACHINE_DEPLOYMENT, &deployment) else {
            return;
        };
        let version = text(&deployment, "/spec/template/spec/version");
        let all = self.management.all(&kinds::MACHINE);
        let outdated = all
            .filter(|machine| !is_deleting(machine) && text(machine, "/spec/version") != version);
        let outdated: Vec<ObjectKey> = outdated.map(|machine| key(machine)).collect();
        for machine in outdated {
            self.user_deletes(&kinds::MACHINE, &machine);
        }
    }

    /// Ends a deed that lasted a while.
    pub fn end(&mut self, end: &End) {
        match end {
            End::Unpause => {
                let cluster = ObjectKey::new(NAMESPACE, CLUSTER);
                self.user_patches(&kinds::CLUSTER, &cluster, json!({"spec": {"paused": null}}));
            }
            End::ShowConfigs => {
                let labels = sim::definition(&sim::SIM_CONFIG)["metadata"]["labels"].clone();
                self.user_patches(
                    &kinds::CRD,
                    &configs(),
                    json!({"metadata": {"labels": labels}}),
                );
            }
            End::Empty(member) => self.makes_room(*member),
            End::Unhook(machine, hook) => {
                let patch = json!({"metadata": {"annotations": {hook: null}}});
                self.user_patches(&kinds::MACHINE, machine, patch);
            }
        }
    }
}

/// How something ends that lasts a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The Cluster goes on.
    Unpause,
    /// The bootstrap provider's kinds can be seen again.
    ShowConfigs,
    /// The hook has succeeded.
    Unhook(ObjectKey, String),
    /// There is room in the database of a member.
    Empty(u64),
}
