//! Control planes that are broken on purpose: what they are doing, what breaks, and what becomes of them.

mod fault;
mod guard;
mod phase;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capstan_local::cloud::Options;
use capstan_local::control_plane::ControlPlane;
use serde_json::{Value, json};

pub use self::fault::{Fault, Struck};
use self::guard::Guard;
pub use self::phase::Phase;
use crate::cloud::TestCloud;
use crate::cluster::TestCluster;
use crate::control_plane;
use crate::eventually::eventually;
use crate::host::TestHost;
use crate::kube_client::{CLUSTER, MACHINE, MACHINE_HEALTH_CHECK, condition, conditions, name};

/// How long it may take to become whole, or to say why not: many times what it needs, since many play at once.
const PATIENCE: Duration = Duration::from_secs(420);
const INTERVAL: Duration = Duration::from_millis(250);

/// Part of the names of clusters whose machines take their time to start.
const SLOW_START: &str = "-init";

/// How often a host is killed at most: more often than it has steps to take.
const KILLS_MAX: u32 = 25;

/// A cell of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Machines at the beginning.
    pub size: u32,
    /// What it is doing.
    pub phase: Phase,
    /// What breaks, one after the other without a pause.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        write!(f, "{} {} {}", self.size, self.phase, faults.join("+"))
    }
}

impl Cell {
    /// Whether a person may be needed: no majority may be left, or what is broken can be mended by nobody else.
    fn may_need_a_person(&self) -> bool {
        let broken: usize = self.faults.iter().map(|fault| fault.breaks()).sum();
        let standing = self.phase.standing(self.size);
        let standing = usize::try_from(standing).unwrap_or(usize::MAX);
        broken > (standing - 1) / 2 || self.faults.contains(&Fault::Disk)
    }

    /// Whether it needs a host of its own.
    pub fn kills_host(&self) -> bool {
        self.faults.contains(&Fault::Host)
    }

    /// Why there is no such cell.
    pub fn left_out(&self) -> Option<&'static str> {
        let reasons = self.faults.iter();
        let mut reasons = reasons.filter_map(|fault| fault.left_out(self.size, self.phase));
        self.phase.left_out(self.size).or_else(|| reasons.next())
    }
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is as it should be, after so long.
    Whole(Duration),
    /// It said what a person must do. Where that could be done it was done, and so long after it all was as it should be.
    Said(String, Option<Duration>),
    /// Neither, or something was done that must not be.
    Red(String),
}

impl Outcome {
    /// For the table.
    pub fn word(&self) -> String {
        match self {
            Self::Whole(after) => format!("whole {}s", after.as_secs()),
            Self::Said(_, None) => "said".to_owned(),
            Self::Said(_, Some(after)) => format!("said+{}s", after.as_secs()),
            Self::Red(_) => "RED".to_owned(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(after) => write!(f, "whole again after {} s", after.as_secs()),
            Self::Said(what, None) => write!(f, "says: {what}"),
            Self::Said(what, Some(after)) => {
                write!(f, "whole {} s after it said: {what}", after.as_secs())
            }
            Self::Red(why) => write!(f, "RED: {why}"),
        }
    }
}

/// Where cells are played: a host that several share, or one that dies.
pub enum Stage {
    /// It lives.
    Shared(Arc<TestHost>),
    /// It is killed.
    Own(Box<TestHost>),
}

impl Stage {
    /// A management cluster with a cloud on which kubeadm gives up early.
    pub async fn host() -> TestHost {
        let plane = ControlPlane::start_for_tests().await.unwrap();
        let mut options = Options::new(plane.dir().join("cloud"));
        options.provision_delay = Duration::from_millis(100);
        options.tempo.promotion_timeout = Duration::from_secs(8);
        let cloud = TestCloud::start_with(options).await;
        cloud.faults(slow_starts()).await;
        let mut host = TestHost::with(plane, cloud).await;
        host.run_in_process().await;
        host.plugins_ready().await;
        host
    }

    fn get(&self) -> &TestHost {
        match self {
            Self::Shared(host) => host,
            Self::Own(host) => host,
        }
    }

    /// Kills the host in the middle of what it does, and starts it again.
    async fn kill(&mut self) {
        if let Self::Own(host) = self {
            host.kill();
            Box::pin(host.run_in_process()).await;
        }
    }
}

/// What faults have done until now, for who judges what the host does.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Machines whose members may go: a fault takes them, or their machines were given up.
    excused: Vec<String>,
    /// Machines whose members a fault itself takes out of etcd.
    taken: Vec<String>,
    /// Machines whose members are good for nothing.
    broken: Vec<String>,
}

/// A cell that is being played.
struct Play<'a> {
    cell: &'a Cell,
    cluster: TestCluster,
    /// Machines that are to be there in the end.
    wanted: u32,
    /// UIDs of those that are not to be there any more.
    outdated: Vec<Value>,
    struck: Vec<Struck>,
    known: Arc<Mutex<Known>>,
    kills: u32,
    /// What could be seen of the last step.
    last_step: String,
}

/// Makes a control plane, breaks it, and looks until it is whole or says why not.
pub async fn run(stage: &mut Stage, at: usize, cell: &Cell) -> Outcome {
    let is_init = cell.phase.is_init(cell.size);
    let name = format!("faults-{at}{}", if is_init { SLOW_START } else { "" });
    let mut play = Play {
        cell,
        cluster: cell.phase.cluster(&name, cell.size),
        wanted: cell.phase.wanted(cell.size),
        outdated: Vec::new(),
        struck: Vec::new(),
        known: Arc::default(),
        kills: 0,
        last_step: String::new(),
    };
    Box::pin(play.make(stage.get())).await;
    let guard = Guard::start(stage.get(), &play.cluster, Arc::clone(&play.known));
    play.outdated = cell.phase.begin(stage.get().kube(), &play.cluster).await;
    Box::pin(play.strike(stage.get())).await;
    let outcome = Box::pin(play.watch(stage)).await;
    let wrong = guard.end().await;
    let outcome = match (wrong.is_empty(), outcome) {
        (true, outcome) => outcome,
        (false, outcome) => Outcome::Red(format!("{}; {outcome}", wrong.join("; "))),
    };
    Box::pin(play.delete(stage.get())).await;
    outcome
}

impl Play<'_> {
    async fn make(&self, host: &TestHost) {
        let (kube, cluster) = (host.kube(), &self.cluster);
        cluster.create(kube).await;
        kube.apply(MACHINE_HEALTH_CHECK, &health_check(cluster))
            .await;
        if self.cell.phase != Phase::Create {
            eventually("whole before it is broken", PATIENCE, async || {
                cluster.is_available(kube, 0).await?;
                control_plane::is_settled(host, cluster, self.cell.size).await
            })
            .await;
            return;
        }
        if self.cell.phase.is_init(self.cell.size) {
            eventually("the first machine is held", PATIENCE, async || {
                hold_first(host, cluster).await
            })
            .await;
            eventually("kubeadm init is under way", PATIENCE, async || {
                is_at_init(host, cluster).await
            })
            .await;
            return;
        }
        let enough = self.cell.phase.standing(self.cell.size);
        let enough = usize::try_from(enough).unwrap_or(usize::MAX);
        eventually("the first machines", PATIENCE, async || {
            let machines = kube.list(MACHINE, &cluster.namespace).await;
            let nodes = machines
                .iter()
                .filter(|m| !m["status"]["nodeRef"].is_null());
            let nodes = nodes.count();
            (nodes >= enough)
                .then_some(())
                .ok_or(format!("{nodes} of {enough}"))
        })
        .await;
    }

    async fn strike(&mut self, host: &TestHost) {
        for fault in &self.cell.faults {
            let struck = fault
                .strike(host, &self.cluster, self.cell.phase, &self.known)
                .await;
            let mut known = self.known.lock().unwrap();
            let given_up = struck.given_up.iter().map(|(name, _)| name.clone());
            known.excused.extend(given_up);
            known.broken.extend(struck.broken.iter().cloned());
            drop(known);
            self.struck.push(struck);
        }
        if self.cell.phase.is_init(self.cell.size) {
            let (namespace, name) = (&self.cluster.namespace, &self.cluster.name);
            for instance in host.cloud.of_cluster("instances", namespace, name).await {
                // One that is lost, or another that came for it: then there is nothing to let go.
                drop(lead_to(host, &self.cluster, &instance, true).await);
            }
        }
    }

    /// Machines that were given up: names and UIDs.
    fn given_up(&self) -> Vec<(String, String)> {
        let all = self.struck.iter().flat_map(|struck| &struck.given_up);
        all.cloned().collect()
    }

    /// Until it is whole, or has said why not and is whole after what it said was done.
    async fn watch(&mut self, stage: &mut Stage) -> Outcome {
        let begun = Instant::now();
        let mut said: Option<(String, Instant)> = None;
        loop {
            self.heal(stage.get(), begun.elapsed()).await;
            if self.cell.kills_host() {
                Box::pin(self.kill_after_a_step(stage)).await;
            }
            let host = stage.get();
            let missing = match Box::pin(self.is_whole(host)).await {
                Ok(()) => {
                    return match said {
                        None => Outcome::Whole(begun.elapsed()),
                        Some((what, since)) => Outcome::Said(what, Some(since.elapsed())),
                    };
                }
                Err(missing) => missing,
            };
            if said.is_none()
                && self.cell.may_need_a_person()
                && let Some(what) = self.says(host).await
            {
                if !self.do_as_said(host).await {
                    return Outcome::Said(what, None);
                }
                said = Some((what, Instant::now()));
            }
            let since = said.as_ref().map_or(begun, |(_, since)| *since);
            if since.elapsed() > PATIENCE {
                let told =
                    said.map_or_else(String::new, |(what, _)| format!("after it said {what:?}: "));
                return Outcome::Red(format!("{told}{missing}\n{}", self.story(host).await));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Ends what ends by itself, and what has done its harm.
    async fn heal(&mut self, host: &TestHost, passed: Duration) {
        for (fault, struck) in self.cell.faults.iter().zip(&mut self.struck) {
            let is_due = match struck.heals_after {
                Some(after) => passed >= after,
                None => *fault == Fault::Learner && has_failed(host, &self.cluster).await,
            };
            if is_due {
                struck.heals_after = None;
                let healed = &struck.broken;
                let known = || self.known.lock().unwrap();
                known().broken.retain(|machine| !healed.contains(machine));
                for (id, cure) in struck.cures.drain(..) {
                    // Its machine may have been replaced.
                    drop(host.cloud.try_act(&id, cure).await);
                }
            }
        }
    }

    /// Kills the host when it has done something since it was killed last.
    async fn kill_after_a_step(&mut self, stage: &mut Stage) {
        let host = stage.get();
        let machines = host.kube().list(MACHINE, &self.cluster.namespace).await;
        let machines = machines.iter().map(|machine| {
            let meta = &machine["metadata"];
            let phase = &machine["status"]["phase"];
            format!(
                "{} {} {} {phase}",
                meta["name"], meta["deletionTimestamp"], meta["annotations"]
            )
        });
        let machines: Vec<String> = machines.collect();
        let plane = control_plane::object(host, &self.cluster).await;
        let step = format!(
            "{} {}",
            plane["metadata"]["annotations"],
            machines.join("\n")
        );
        if step != self.last_step && self.kills < KILLS_MAX {
            self.last_step = step;
            self.kills += 1;
            stage.kill().await;
        }
    }

    /// Nothing is missing, nothing is left of what was given up, and no fault is still to heal.
    async fn is_whole(&self, host: &TestHost) -> Result<(), String> {
        let waits = self
            .struck
            .iter()
            .any(|struck| struck.heals_after.is_some());
        if waits {
            return Err("the fault has not healed".to_owned());
        }
        control_plane::is_settled(host, &self.cluster, self.wanted).await?;
        let machines = host.kube().list(MACHINE, &self.cluster.namespace).await;
        let given_up = self.given_up();
        let is_left = |machine: &&Value| {
            let mut gone = given_up.iter();
            gone.any(|(_, uid)| machine["metadata"]["uid"] == uid.as_str())
        };
        if let Some(left) = machines.iter().find(is_left) {
            let name = name(left);
            return Err(format!(
                "the Machine {name} was given up and is still there"
            ));
        }
        // Until the host has looked at the template, everything is as it should be.
        let is_outdated = |machine: &&Value| self.outdated.contains(&machine["metadata"]["uid"]);
        let outdated = machines.iter().filter(is_outdated).count();
        if outdated > 0 {
            return Err(format!("{outdated} Machines are still to be replaced"));
        }
        self.cell.phase.is_done(host.kube(), &self.cluster).await?;
        self.cluster.nodes_match(host.kube()).await
    }

    /// What a person is told to do, if that is so.
    async fn says(&self, host: &TestHost) -> Option<String> {
        let plane = control_plane::object(host, &self.cluster).await;
        let etcd = condition(&plane, "EtcdClusterHealthy");
        let instructs = ["To recover:", "etcdctl alarm disarm"];
        if etcd.status == "False"
            && let Some(line) = etcd
                .message
                .lines()
                .find(|line| instructs.iter().any(|text| line.contains(text)))
        {
            return Some(line.to_owned());
        }
        // Of a machine that goes: its member stays until another one is well.
        if etcd.status != "True"
            && let Some(line) = etcd
                .message
                .lines()
                .find(|line| line.contains("Bring one back"))
        {
            return Some(line.to_owned());
        }
        let machines = host.kube().list(MACHINE, &self.cluster.namespace).await;
        let said = machines
            .iter()
            .map(|machine| condition(machine, "OwnerRemediated"));
        let mut said =
            said.filter(|said| said.status == "False" && said.reason == "CannotBeRemediated");
        said.find(|said| said.message.contains("Bring it back"))
            .map(|said| said.message)
    }

    /// Brings back what is broken, and takes back that it was given up. `false` when that cannot be done.
    async fn do_as_said(&mut self, host: &TestHost) -> bool {
        let can = self
            .cell
            .faults
            .iter()
            .zip(&self.struck)
            .all(|(fault, struck)| {
                fault.breaks() == 0 || struck.missed || !struck.cures.is_empty()
            });
        if !can {
            return false;
        }
        let given_up = self.given_up();
        self.known.lock().unwrap().broken.clear();
        for struck in &mut self.struck {
            struck.given_up.clear();
            for (id, cure) in struck.cures.drain(..) {
                drop(host.cloud.try_act(&id, cure).await);
            }
        }
        for (machine, _) in &given_up {
            fault::mark(host, &self.cluster, machine, Value::Null).await;
        }
        true
    }

    /// What there is to see, for who has to find out what went wrong.
    async fn story(&self, host: &TestHost) -> String {
        let plane = control_plane::object(host, &self.cluster).await;
        let mut lines = vec![format!(
            "  control plane: {} {}",
            plane["metadata"]["annotations"],
            conditions(&plane).replace('\n', " | ")
        )];
        for machine in host.kube().list(MACHINE, &self.cluster.namespace).await {
            lines.push(format!(
                "  Machine {} deleted {} node {}: {}",
                name(&machine),
                machine["metadata"]["deletionTimestamp"],
                machine["status"]["nodeRef"]["name"],
                conditions(&machine).replace('\n', " | ")
            ));
        }
        lines.join("\n")
    }

    /// A control plane can be deleted in any state.
    async fn delete(&self, host: &TestHost) {
        let (namespace, name) = (&self.cluster.namespace, &self.cluster.name);
        host.kube().delete(CLUSTER, namespace, name).await;
        eventually("gone", PATIENCE, async || {
            match host.kube().get(CLUSTER, namespace, name).await {
                Some(cluster) => Err(conditions(&cluster)),
                None => host.cloud.has_nothing_of(namespace, name).await,
            }
        })
        .await;
    }
}

/// Whether the bootstrap of a machine has failed.
async fn has_failed(host: &TestHost, cluster: &TestCluster) -> bool {
    let instances = host
        .cloud
        .of_cluster("instances", &cluster.namespace, &cluster.name)
        .await;
    instances
        .iter()
        .any(|i| i["bootstrap"]["state"] == "failed")
}

/// Where the name asks for it, machines take some seconds more to start, so that there is time to hold their first one.
fn slow_starts() -> Value {
    json!([{
        "name": "machines that take their time",
        "match": {"operation": "CreateInstance", "nameContains": SLOW_START},
        "effect": {"type": "delay", "delayMs": 3000},
    }])
}

/// Holds the first machine before it starts: no way leads to its API server, for which kubeadm waits when it has started all.
async fn hold_first(host: &TestHost, cluster: &TestCluster) -> Result<(), String> {
    let (namespace, name) = (&cluster.namespace, &cluster.name);
    let instances = host.cloud.of_cluster("instances", namespace, name).await;
    let first = instances.first().ok_or("there is no instance")?;
    assert_eq!(first["bootstrap"]["state"], "waiting", "it is too late");
    lead_to(host, cluster, first, false).await
}

/// Whether kubeadm on the first machine has started all, and waits for a way to it.
async fn is_at_init(host: &TestHost, cluster: &TestCluster) -> Result<(), String> {
    let (namespace, name) = (&cluster.namespace, &cluster.name);
    let instances = host.cloud.of_cluster("instances", namespace, name).await;
    let first = instances.first().ok_or("there is no instance")?;
    let console = host
        .cloud
        .console(first["id"].as_str().unwrap_or_default())
        .await?;
    let waits = console.contains("kubeadm: waiting for a healthy API server");
    waits.then_some(()).ok_or(console)
}

/// Lets the endpoint of a cluster lead to an instance, or not.
async fn lead_to(
    host: &TestHost,
    cluster: &TestCluster,
    instance: &Value,
    leads: bool,
) -> Result<(), String> {
    let (namespace, name) = (&cluster.namespace, &cluster.name);
    let balancers = host
        .cloud
        .of_cluster("load-balancers", namespace, name)
        .await;
    let balancer = balancers.first().ok_or("there is no load balancer")?;
    let id = |object: &Value| object["id"].as_str().unwrap_or_default().to_owned();
    host.cloud
        .set_target(&id(balancer), &id(instance), leads)
        .await
}

/// A check that gives up machines that are marked, and those that get no Node.
fn health_check(cluster: &TestCluster) -> Value {
    json!({
        "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
        "metadata": {"namespace": cluster.namespace, "name": "control-plane"},
        "spec": {
            "clusterName": cluster.name,
            "selector": {"matchLabels": {"cluster.x-k8s.io/control-plane": ""}},
            // The least that there can be: machines are there within seconds, or never.
            "checks": {"nodeStartupTimeoutSeconds": 30},
        },
    })
}
