//! One MachineDeployment whose machines live in three zones, and what happens to it.

use capstan_core::machine_deployment::{Verdict, needs_plan, verdict};
use capstan_core::rollout::facts::facts;
use capstan_core::rollout::limits;
use capstan_core::rollout::simulation::{Simulation, is_available, is_deleting};
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::ask::{Strategy, ask};

/// A deployment as a test wants it.
#[derive(Clone, Debug)]
pub struct Shape {
    pub replicas: u32,
    pub surge: Value,
    pub unavailable: Value,
    pub settings: Value,
}

/// The world, and how its strategy is asked.
pub struct World {
    pub simulation: Simulation,
    strategy: Strategy,
    luck: StdRng,
    zones: usize,
    /// The last verdict.
    pub said: Verdict,
}

const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

impl World {
    /// All machines of the first version are there and available; the next is asked for.
    pub fn upgrading(shape: &Shape, strategy: Strategy, seed: u64) -> Self {
        let deployment = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment",
            "metadata": {
                "name": "d", "namespace": "ns", "uid": "uid-d",
                "labels": {"cluster.x-k8s.io/cluster-name": "c"},
                "annotations": {"capstan.dev/upgrade-strategy-settings": shape.settings.to_string()},
            },
            "spec": {
                "clusterName": "c", "replicas": shape.replicas, "selector": {},
                "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {
                    "maxSurge": shape.surge, "maxUnavailable": shape.unavailable,
                }}},
                "template": {"spec": {
                    "clusterName": "c", "version": "v1.35.0", "bootstrap": {"dataSecretName": "s"},
                    "infrastructureRef": {
                        "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": "t",
                    },
                }},
            },
        });
        let cluster = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "c", "namespace": "ns", "uid": "uid-c"}, "spec": {},
        });
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let cluster = serde_json::from_value(cluster).unwrap();
        let mut world = Self {
            simulation: Simulation::new(deployment, cluster, now),
            strategy,
            luck: StdRng::seed_from_u64(seed),
            zones: 0,
            said: Verdict::Settled,
        };
        for _ in 0..6 {
            world.turn();
        }
        assert_eq!(world.with_version("v1.35.0"), shape.replicas as usize);
        world.change_version("v1.36.0");
        world
    }

    pub fn change_version(&mut self, version: &str) {
        self.deployment()["spec"]["template"]["spec"]["version"] = json!(version);
    }

    pub fn deployment(&mut self) -> &mut Value {
        self.simulation.deployment_mut().unwrap()
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.deployment()["metadata"]["annotations"][key] = json!(value);
    }

    /// The deployment's controller looks once; with `crash`, it dies after so many steps.
    pub fn reconcile(&mut self, crash: Option<usize>) {
        let mut observed = self.simulation.observe().unwrap().unwrap();
        let now = self.simulation.now();
        if needs_plan(&observed, now) {
            observed.strategy.answer = (self.strategy)(&facts(&observed, now));
        }
        self.said = verdict(&observed, now);
        if let Verdict::Refused(violation) = &self.said {
            panic!("{violation}\n{}", self.picture());
        }
        self.simulation
            .reconcile_deployment(&observed, crash)
            .unwrap();
    }

    /// New machines are placed, one zone after the other.
    fn place(&mut self) {
        let zones = &mut self.zones;
        for machine in self.simulation.machines_mut().values_mut() {
            if machine["status"]["failureDomain"].is_null() {
                machine["status"]["failureDomain"] = json!(ZONES[*zones % ZONES.len()]);
                *zones += 1;
            }
        }
    }

    /// Everybody moves once: the deployment, its sets, the clouds. Then a minute passes.
    pub fn turn(&mut self) {
        self.reconcile(None);
        self.simulation.reconcile_sets().unwrap();
        self.place();
        self.simulation.deleted_machines_go();
        self.simulation.all_become_available();
        self.simulation.pass_time(SignedDuration::from_secs(60));
    }

    /// One of many things happens. Machines for which `fails` is true never work.
    pub fn step(&mut self, fails: fn(&Value) -> bool) {
        match self.luck.random_range(0..6) {
            0 | 1 => {
                let crash = self
                    .luck
                    .random_bool(0.2)
                    .then(|| self.luck.random_range(0..3));
                self.reconcile(crash);
            }
            2 | 3 => {
                let names: Vec<String> = self.simulation.sets().keys().cloned().collect();
                if !names.is_empty() {
                    let name = &names[self.luck.random_range(0..names.len())];
                    let crash = self
                        .luck
                        .random_bool(0.2)
                        .then(|| self.luck.random_range(0..3));
                    self.simulation.reconcile_set(name, crash).unwrap();
                    self.place();
                }
            }
            4 => {
                let starting = |m: &Value| !is_deleting(m) && !is_available(m);
                if let Some(name) = self.some(starting) {
                    let works = !fails(&self.simulation.machines()[&name]);
                    self.simulation.report_machine(&name, works);
                }
            }
            _ => {
                if let Some(name) = self.some(is_deleting) {
                    self.simulation.machines_mut().remove(&name);
                }
            }
        }
        let seconds = self.luck.random_range(0..90);
        self.simulation
            .pass_time(SignedDuration::from_secs(seconds));
    }

    fn some(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<String> {
        let machines = self.simulation.machines().iter();
        let all: Vec<String> = machines
            .filter(|(_, machine)| wanted(machine))
            .map(|(name, _)| name.clone())
            .collect();
        (!all.is_empty()).then(|| all[self.luck.random_range(0..all.len())].clone())
    }

    /// Machines of a version that are available.
    pub fn with_version(&self, version: &str) -> usize {
        let machines = self.simulation.machines().values();
        machines
            .filter(|machine| machine["spec"]["version"] == version && is_available(machine))
            .count()
    }

    pub fn available(&self) -> usize {
        let machines = self.simulation.machines().values();
        machines.filter(|machine| is_available(machine)).count()
    }

    pub fn limits(&self) -> limits::Limits {
        limits::of(&self.simulation.observe().unwrap().unwrap().deployment)
    }

    /// All machines, as many as wanted, have this version and work.
    pub fn is_all(&self, version: &str) -> bool {
        let wanted = self.limits().replicas as usize;
        self.simulation.machines().len() == wanted && self.with_version(version) == wanted
    }

    /// `version desired/actual/available` of each set, oldest version first.
    pub fn picture(&self) -> String {
        let sets = self.simulation.sets().values().map(|set| {
            let machines: Vec<&Value> = self.simulation.machines_of(set).collect();
            let available = machines
                .iter()
                .filter(|machine| is_available(machine))
                .count();
            format!(
                "{} {}/{}/{available}",
                set["spec"]["template"]["spec"]["version"].as_str().unwrap(),
                set["spec"]["replicas"],
                machines.len()
            )
        });
        let mut lines: Vec<String> = sets.collect();
        lines.sort();
        lines.join("  ")
    }

    /// What the strategy said last.
    pub fn words(&self) -> String {
        match &self.said {
            Verdict::Accepted(checked) => match checked.waiting() {
                Some(waiting) => format!("{} [{}]", checked.message(), waiting.reason),
                None => checked.message().to_owned(),
            },
            Verdict::Settled => "settled".to_owned(),
            other => other.blocker("it").unwrap_or_default(),
        }
    }
}

/// The strategies by name.
pub fn strategy(name: &str) -> Strategy {
    match name {
        "rolling-update" => ask::<upgrade_rolling_update::RollingUpdate>,
        "canary" => ask::<upgrade_canary::Canary>,
        "blue-green" => ask::<upgrade_blue_green::BlueGreen>,
        "zone-by-zone" => ask::<upgrade_zone_by_zone::ZoneByZone>,
        "gang" => ask::<upgrade_gang::Gang>,
        other => panic!("there is no strategy {other}"),
    }
}
