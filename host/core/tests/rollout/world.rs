//! A small world: one MachineDeployment with its MachineSets and Machines as JSON, and what happens to them.

use std::collections::BTreeMap;

use capstan_api::v1beta2::{Cluster, Machine, MachineDeployment, MachineSet};
use capstan_core::call::strategy::{Answer, Facts};
use capstan_core::lookup::Lookup;
use capstan_core::machine_deployment::decide::mark_patch;
use capstan_core::machine_deployment::observed::TemplateSeen;
use capstan_core::machine_deployment::{self as deployment, SetSeen, StrategyAnswer, StrategySeen};
use capstan_core::machine_set::{self, MachineSeen};
use capstan_core::plan::Plan;
use capstan_core::rollout::facts::facts;
use capstan_core::rollout::limits;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Numbers that follow from a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 16) % u64::from(bound.max(1))).expect("below a u32")
    }
}

/// The world.
pub(super) struct World {
    deployment: Option<Value>,
    sets: BTreeMap<String, Value>,
    machines: BTreeMap<String, Value>,
    now: Timestamp,
    made: u64,
}

const CONDITION_TIME: &str = "2026-01-01T00:00:00Z";

fn condition(type_: &str, status: bool) -> Value {
    json!({
        "type": type_, "status": if status { "True" } else { "False" }, "reason": "R",
        "message": "", "lastTransitionTime": CONDITION_TIME,
    })
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let object = object.as_object_mut().unwrap();
    for (key, value) in fields {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn cluster() -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "uid-c"}, "spec": {},
    }))
    .unwrap()
}

fn template(kind: &str) -> Value {
    json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": kind,
        "metadata": {"name": "t", "namespace": "ns", "uid": "uid-t", "ownerReferences": [
            {"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": "c", "uid": "uid-c"},
        ]},
        "spec": {"template": {"spec": {}}},
    })
}

impl World {
    /// A deployment whose machines are all there and available.
    pub(super) fn settled(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let mut world = Self::new(replicas, surge, unavailable);
        for _ in 0..6 {
            world.reconcile_deployment(&mut super::oracle::rolling_update, None);
            world.reconcile_sets();
            world.all_become_available();
            world.pass_time(60);
        }
        assert!(world.is_done(), "{}", world.picture());
        world
    }

    /// A deployment of which nothing was made yet.
    pub(super) fn new(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let deployment = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment",
            "metadata": {"name": "d", "namespace": "ns", "uid": "uid-d", "labels": {"cluster.x-k8s.io/cluster-name": "c"}},
            "spec": {
                "clusterName": "c", "replicas": replicas, "selector": {},
                "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}},
                "template": {
                    "metadata": {"labels": {"team": "a"}},
                    "spec": {
                        "clusterName": "c", "version": "v1.35.0", "bootstrap": {"dataSecretName": "s"},
                        "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": "t"},
                    },
                },
            },
        });
        Self {
            deployment: Some(deployment),
            sets: BTreeMap::new(),
            machines: BTreeMap::new(),
            now: "2026-06-01T00:00:00Z".parse().unwrap(),
            made: 0,
        }
    }

    fn typed(&self) -> MachineDeployment {
        serde_json::from_value(self.deployment.clone().unwrap()).unwrap()
    }

    /// The deployment's JSON.
    pub(super) fn deployment_mut(&mut self) -> &mut Value {
        self.deployment.as_mut().unwrap()
    }

    /// The sets' JSON by name.
    pub(super) fn sets(&self) -> &BTreeMap<String, Value> {
        &self.sets
    }

    /// The machines' JSON by name.
    pub(super) fn machine_values(&self) -> &BTreeMap<String, Value> {
        &self.machines
    }

    pub(super) fn change_version(&mut self, version: &str) {
        self.deployment_mut()["spec"]["template"]["spec"]["version"] = json!(version);
    }

    pub(super) fn scale(&mut self, replicas: u32) {
        self.deployment_mut()["spec"]["replicas"] = json!(replicas);
    }

    pub(super) fn delete_deployment(&mut self) {
        let now = self.now.to_string();
        self.deployment_mut()["metadata"]["deletionTimestamp"] = json!(now);
    }

    pub(super) fn pass_time(&mut self, seconds: u32) {
        self.now += SignedDuration::from_secs(i64::from(seconds));
    }

    pub(super) fn ceiling(&self) -> usize {
        usize::try_from(limits::of(&self.typed()).ceiling()).unwrap()
    }

    pub(super) fn floor(&self) -> usize {
        usize::try_from(limits::of(&self.typed()).floor()).unwrap()
    }

    pub(super) fn machines(&self) -> usize {
        self.machines.len()
    }

    pub(super) fn available(&self) -> usize {
        self.machines
            .values()
            .filter(|machine| is_available(machine))
            .count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deployment.is_none() && self.sets.is_empty() && self.machines.is_empty()
    }

    /// Everything of the wanted version, as many as wanted, available, and no other set left.
    pub(super) fn is_done(&self) -> bool {
        let deployment = self.typed();
        let wanted = usize::try_from(deployment.spec.replicas.unwrap()).unwrap();
        let version = deployment.spec.template.spec.version.unwrap();
        self.sets.len() == 1
            && self.machines.len() == wanted
            && self.available() == wanted
            && self
                .machines
                .values()
                .all(|machine| machine["spec"]["version"] == json!(version))
            && self
                .sets
                .values()
                .all(|set| set["spec"]["replicas"] == json!(wanted))
    }

    /// `version desired/actual/available` of each set, oldest version first.
    pub(super) fn picture(&self) -> String {
        let mut lines: Vec<String> = self
            .sets
            .values()
            .map(|set| {
                let of_it: Vec<&Value> = self.machines_of(set).collect();
                let available = of_it.iter().filter(|machine| is_available(machine)).count();
                let version = set["spec"]["template"]["spec"]["version"]
                    .as_str()
                    .unwrap_or_default();
                format!(
                    "{version} {}/{}/{available}",
                    set["spec"]["replicas"],
                    of_it.len()
                )
            })
            .collect();
        lines.sort();
        lines.join("  ")
    }

    fn machines_of<'a>(&'a self, set: &Value) -> impl Iterator<Item = &'a Value> {
        let uid = set["metadata"]["uid"].clone();
        self.machines
            .values()
            .filter(move |machine| machine["metadata"]["ownerReferences"][0]["uid"] == uid)
    }

    fn identify(&mut self, mut object: Value) -> (String, Value) {
        self.made += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.made));
        object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        (
            object["metadata"]["name"].as_str().unwrap().to_owned(),
            object,
        )
    }

    /// One reconcile of the deployment; with `crash`, only so many steps of its plan. Answers how many steps were taken.
    pub(super) fn reconcile_deployment(
        &mut self,
        strategy: &mut dyn FnMut(&Facts) -> Answer,
        crash: Option<usize>,
    ) -> usize {
        if self.deployment.is_none() {
            return 0;
        }
        let mut observed = self.observe();
        if deployment::needs_plan(&observed, self.now) {
            let answer = strategy(&facts(&observed, self.now));
            observed.strategy.answer = StrategyAnswer::Answer(Box::new(answer));
        }
        let plan: Plan<deployment::Step> = deployment::decide(&observed, self.now);
        let taken = plan.steps.len().min(crash.unwrap_or(usize::MAX));
        for step in plan.steps.into_iter().take(taken) {
            self.perform_deployment(step);
        }
        if deployment::report(&observed, self.now).finished {
            self.deployment = None;
        }
        taken
    }

    /// What the deployment's controller sees, before the strategy is asked.
    pub(super) fn observe(&self) -> deployment::Observed {
        let deployment = self.typed();
        let sets = self.sets.values().map(|set| SetSeen {
            set: serde_json::from_value::<MachineSet>(set.clone()).unwrap(),
            machines: self
                .machines_of(set)
                .map(|machine| serde_json::from_value::<Machine>(machine.clone()).unwrap())
                .collect(),
        });
        deployment::Observed {
            cluster: Lookup::Found(cluster()),
            sets: sets.collect(),
            templates: vec![TemplateSeen {
                reference: deployment.spec.template.spec.infrastructure_ref.clone(),
                object: Lookup::Found(template("LocalMachineTemplate")),
            }],
            strategy: StrategySeen {
                name: deployment::Observed::strategy_name(&deployment),
                settings: json!({}),
                settings_error: None,
                state: None,
                answer: StrategyAnswer::NotAsked,
            },
            deployment,
        }
    }

    fn perform_deployment(&mut self, step: deployment::Step) {
        use deployment::Step;
        match step {
            Step::OwnTemplate { .. } => panic!("the template is owned already"),
            Step::PatchDeployment(patch) => merge(self.deployment_mut(), &patch),
            Step::KeepState(_) => {}
            Step::MarkMachines(names) => {
                for name in names {
                    merge(self.machines.get_mut(&name).unwrap(), &mark_patch());
                }
            }
            Step::CreateSet(set) => {
                let (name, set) = self.identify(set);
                assert!(self.sets.insert(name, set).is_none(), "a set is made once");
            }
            Step::PatchSet { name, patch } => merge(self.sets.get_mut(&name).unwrap(), &patch),
            Step::DeleteSets(names) => {
                let now = self.now.to_string();
                for name in names {
                    self.sets.get_mut(&name).unwrap()["metadata"]["deletionTimestamp"] = json!(now);
                }
            }
        }
    }

    /// Reconciles every set once. Answers how many steps were taken.
    pub(super) fn reconcile_sets(&mut self) -> usize {
        let names: Vec<String> = self.sets.keys().cloned().collect();
        names
            .iter()
            .map(|name| self.reconcile_set(name, None))
            .sum()
    }

    pub(super) fn reconcile_some_set(&mut self, random: &mut Random, crash: Option<usize>) {
        let names: Vec<String> = self.sets.keys().cloned().collect();
        if let Some(name) = names.get(random.below(u32::try_from(names.len()).unwrap()) as usize) {
            self.reconcile_set(name, crash);
        }
    }

    fn reconcile_set(&mut self, name: &str, crash: Option<usize>) -> usize {
        let set = self.sets[name].clone();
        let machines = self.machines_of(&set).map(|machine| MachineSeen {
            machine: serde_json::from_value(machine.clone()).unwrap(),
            infra: Lookup::Unknown("not part of this world".to_owned()),
            bootstrap: None,
        });
        let observed = machine_set::Observed {
            machines: machines.collect(),
            set: serde_json::from_value(set).unwrap(),
            cluster: Lookup::Found(cluster()),
            deployment: self
                .deployment
                .as_ref()
                .map_or(Lookup::Missing, |_| Lookup::Found(self.typed())),
            infra_template: Lookup::Found(template("LocalMachineTemplate")),
            bootstrap_template: None,
            control_plane: Lookup::Missing,
            seed: self.made,
        };
        let plan = machine_set::decide(&observed, self.now);
        let taken = plan.steps.len().min(crash.unwrap_or(usize::MAX));
        for step in plan.steps.into_iter().take(taken) {
            self.perform_set(name, step);
        }
        if machine_set::report(&observed, self.now).finished {
            self.sets.remove(name);
        }
        taken
    }

    fn perform_set(&mut self, name: &str, step: machine_set::Step) {
        use machine_set::Step;
        match step {
            Step::OwnTemplate { .. } | Step::Complete(_) => panic!("nothing lacks: {step:?}"),
            Step::PatchSet(patch) => merge(self.sets.get_mut(name).unwrap(), &patch),
            Step::Change(changes) => {
                for change in changes {
                    let machine = self.machines.get_mut(&change.machine).unwrap();
                    merge(machine, &change.patch.unwrap());
                }
            }
            Step::Create(made) => {
                for new in made {
                    let (name, machine) = self.identify(new.machine);
                    assert!(
                        self.machines.insert(name, machine).is_none(),
                        "names differ"
                    );
                }
            }
            Step::Remediate(_) => panic!("no health check in this world: {step:?}"),
            Step::Delete(names) => {
                let now = self.now.to_string();
                for name in names {
                    let machine = self.machines.get_mut(&name).unwrap();
                    machine["metadata"]["deletionTimestamp"] = json!(now);
                }
            }
        }
    }

    fn pick(&self, random: &mut Random, wanted: impl Fn(&Value) -> bool) -> Option<String> {
        let all: Vec<&String> = self
            .machines
            .iter()
            .filter(|(_, machine)| wanted(machine))
            .map(|(name, _)| name)
            .collect();
        all.get(random.below(u32::try_from(all.len()).unwrap()) as usize)
            .map(|name| (*name).clone())
    }

    fn become_available(&mut self, name: &str) {
        self.machines.get_mut(name).unwrap()["status"] = json!({
            "nodeRef": {"name": name},
            "conditions": [condition("Ready", true), condition("Available", true), condition("NodeHealthy", true)],
        });
    }

    pub(super) fn some_machine_becomes_available(&mut self, random: &mut Random) {
        if let Some(name) = self.pick(random, |machine| {
            !is_available(machine) && !is_deleting(machine)
        }) {
            self.become_available(&name);
        }
    }

    pub(super) fn all_become_available(&mut self) {
        for name in self.machines.keys().cloned().collect::<Vec<_>>() {
            if !is_deleting(&self.machines[&name]) {
                self.become_available(&name);
            }
        }
    }

    pub(super) fn some_machine_fails(&mut self, random: &mut Random) {
        if let Some(name) = self.pick(random, is_available) {
            let status = json!({
                "nodeRef": {"name": name},
                "conditions": [condition("Ready", false), condition("Available", false), condition("NodeHealthy", false)],
            });
            self.machines.get_mut(&name).unwrap()["status"] = status;
        }
    }

    pub(super) fn some_deleted_machine_goes(&mut self, random: &mut Random) {
        if let Some(name) = self.pick(random, is_deleting) {
            self.machines.remove(&name);
        }
    }

    pub(super) fn deleted_machines_go(&mut self) {
        self.machines.retain(|_, machine| !is_deleting(machine));
    }

    /// Somebody deletes a machine of this version.
    pub(super) fn delete_machine_of(&mut self, version: &str) {
        let now = self.now.to_string();
        let machine = self.machines.values_mut().find(|machine| {
            machine["spec"]["version"] == json!(version)
                && machine["metadata"]["deletionTimestamp"].is_null()
        });
        machine.unwrap()["metadata"]["deletionTimestamp"] = json!(now);
    }
}

fn is_deleting(machine: &Value) -> bool {
    !machine["metadata"]["deletionTimestamp"].is_null()
}

fn is_available(machine: &Value) -> bool {
    let conditions = machine["status"]["conditions"].as_array();
    !is_deleting(machine)
        && conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Available" && c["status"] == "True")
        })
}
