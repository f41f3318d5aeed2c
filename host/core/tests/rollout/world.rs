//! A small world: one MachineDeployment with its MachineSets and Machines, and what happens to them by luck.

use std::collections::BTreeMap;

use capstan_core::call::strategy::{Answer, Facts};
use capstan_core::machine_deployment::{self as deployment, StrategyAnswer};
use capstan_core::plan::Next;
use capstan_core::rollout::facts::facts;
use capstan_core::rollout::limits;
use capstan_core::rollout::simulation::{Simulation, is_available, is_deleting};
use jiff::SignedDuration;
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
    simulation: Simulation,
}

fn cluster() -> capstan_api::v1beta2::Cluster {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "uid-c"}, "spec": {},
    }))
    .unwrap()
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
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        Self {
            simulation: Simulation::new(deployment, cluster(), now),
        }
    }

    fn observe(&self) -> deployment::Observed {
        self.simulation.observe().unwrap().unwrap()
    }

    /// The deployment's JSON.
    pub(super) fn deployment_mut(&mut self) -> &mut Value {
        self.simulation.deployment_mut().unwrap()
    }

    /// The sets' JSON by name.
    pub(super) fn sets(&self) -> &BTreeMap<String, Value> {
        self.simulation.sets()
    }

    /// The machines' JSON by name.
    pub(super) fn machine_values(&self) -> &BTreeMap<String, Value> {
        self.simulation.machines()
    }

    /// When the deployment is looked at again after a strategy that said nothing.
    pub(super) fn next_after_silence(&self) -> Next {
        let mut observed = self.observe();
        observed.strategy.answer = StrategyAnswer::Answer(Box::default());
        deployment::decide(&observed, self.simulation.now()).next
    }

    pub(super) fn change_version(&mut self, version: &str) {
        self.deployment_mut()["spec"]["template"]["spec"]["version"] = json!(version);
    }

    pub(super) fn scale(&mut self, replicas: u32) {
        self.deployment_mut()["spec"]["replicas"] = json!(replicas);
    }

    pub(super) fn delete_deployment(&mut self) {
        let now = self.simulation.now().to_string();
        self.deployment_mut()["metadata"]["deletionTimestamp"] = json!(now);
    }

    pub(super) fn pass_time(&mut self, seconds: u32) {
        self.simulation
            .pass_time(SignedDuration::from_secs(i64::from(seconds)));
    }

    pub(super) fn ceiling(&self) -> usize {
        usize::try_from(limits::of(&self.observe().deployment).ceiling()).unwrap()
    }

    pub(super) fn floor(&self) -> usize {
        usize::try_from(limits::of(&self.observe().deployment).floor()).unwrap()
    }

    pub(super) fn machines(&self) -> usize {
        self.machine_values().len()
    }

    pub(super) fn available(&self) -> usize {
        let machines = self.machine_values().values();
        machines.filter(|machine| is_available(machine)).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.simulation.deployment().is_none() && self.sets().is_empty() && self.machines() == 0
    }

    /// Everything of the wanted version, as many as wanted, available, and no other set left.
    pub(super) fn is_done(&self) -> bool {
        let deployment = self.observe().deployment;
        let wanted = usize::try_from(deployment.spec.replicas.unwrap()).unwrap();
        let version = deployment.spec.template.spec.version.unwrap();
        self.sets().len() == 1
            && self.machines() == wanted
            && self.available() == wanted
            && self
                .machine_values()
                .values()
                .all(|machine| machine["spec"]["version"] == json!(version))
            && self
                .sets()
                .values()
                .all(|set| set["spec"]["replicas"] == json!(wanted))
    }

    /// `version desired/actual/available` of each set, oldest version first.
    pub(super) fn picture(&self) -> String {
        let mut lines: Vec<String> = self
            .sets()
            .values()
            .map(|set| {
                let of_it: Vec<&Value> = self.simulation.machines_of(set).collect();
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

    /// One reconcile of the deployment; with `crash`, only so many steps of its plan. Answers how many steps were taken.
    pub(super) fn reconcile_deployment(
        &mut self,
        strategy: &mut dyn FnMut(&Facts) -> Answer,
        crash: Option<usize>,
    ) -> usize {
        let Some(mut observed) = self.simulation.observe().unwrap() else {
            return 0;
        };
        let now = self.simulation.now();
        if deployment::needs_plan(&observed, now) {
            let answer = strategy(&facts(&observed, now));
            observed.strategy.answer = StrategyAnswer::Answer(Box::new(answer));
        }
        self.simulation
            .reconcile_deployment(&observed, crash)
            .unwrap()
    }

    /// Reconciles every set once. Answers how many steps were taken.
    pub(super) fn reconcile_sets(&mut self) -> usize {
        self.simulation.reconcile_sets().unwrap()
    }

    pub(super) fn reconcile_some_set(&mut self, random: &mut Random, crash: Option<usize>) {
        let names: Vec<String> = self.sets().keys().cloned().collect();
        if let Some(name) = names.get(random.below(u32::try_from(names.len()).unwrap()) as usize) {
            self.simulation.reconcile_set(name, crash).unwrap();
        }
    }

    fn pick(&self, random: &mut Random, wanted: impl Fn(&Value) -> bool) -> Option<String> {
        let all: Vec<&String> = self
            .machine_values()
            .iter()
            .filter(|(_, machine)| wanted(machine))
            .map(|(name, _)| name)
            .collect();
        all.get(random.below(u32::try_from(all.len()).unwrap()) as usize)
            .map(|name| (*name).clone())
    }

    pub(super) fn some_machine_becomes_available(&mut self, random: &mut Random) {
        if let Some(name) = self.pick(random, |machine| {
            !is_available(machine) && !is_deleting(machine)
        }) {
            self.simulation.report_machine(&name, true);
        }
    }

    pub(super) fn all_become_available(&mut self) {
        self.simulation.all_become_available();
    }

    pub(super) fn some_machine_fails(&mut self, random: &mut Random) {
        if let Some(name) = self.pick(random, is_available) {
            self.simulation.report_machine(&name, false);
        }
    }

    pub(super) fn some_deleted_machine_goes(&mut self, random: &mut Random) {
        if let Some(name) = self.pick(random, is_deleting) {
            self.simulation.machines_mut().remove(&name);
        }
    }

    pub(super) fn deleted_machines_go(&mut self) {
        self.simulation.deleted_machines_go();
    }

    /// Somebody deletes a machine of this version.
    pub(super) fn delete_machine_of(&mut self, version: &str) {
        let now = self.simulation.now().to_string();
        let machine = self.simulation.machines_mut().values_mut().find(|machine| {
            machine["spec"]["version"] == json!(version)
                && machine["metadata"]["deletionTimestamp"].is_null()
        });
        machine.unwrap()["metadata"]["deletionTimestamp"] = json!(now);
    }
}
