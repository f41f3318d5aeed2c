//! One cell of the table: a control plane, what it is doing, what breaks, and what becomes of it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CONTROL_PLANE, LOCAL_MACHINE_TEMPLATE, MACHINE, MACHINE_HEALTH_CHECK, condition,
};
use serde_json::json;

use crate::fault::Fault;
use crate::guard::Guard;

/// How long it may take to become whole, or to say why not: many times what it needs.
const PATIENCE: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(250);

/// What the control plane is doing when it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing.
    Rest,
    /// It gets two machines more.
    Grow,
    /// All its machines are replaced.
    Roll,
}

impl Phase {
    /// Each.
    pub(crate) const ALL: [Self; 3] = [Self::Rest, Self::Grow, Self::Roll];

    /// The one of this name.
    pub(crate) fn named(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|phase| phase.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is not a phase"))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rest => "rest",
            Self::Grow => "grow",
            Self::Roll => "roll",
        })
    }
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Machines at the beginning.
    pub(crate) size: u32,
    /// What it is doing.
    pub(crate) phase: Phase,
    /// What breaks, one after the other without a pause.
    pub(crate) faults: Vec<Fault>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        write!(f, "{} {} {}", self.size, self.phase, faults.join("+"))
    }
}

impl Cell {
    /// Whether so much may be broken that no majority is left: then it is enough to say so.
    fn may_be_lost(&self) -> bool {
        let broken: usize = self.faults.iter().map(|fault| fault.breaks()).sum();
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        broken > (size - 1) / 2
    }
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It is as it should be, after so long.
    Whole(Duration),
    /// It is not, and says what to do.
    Said(String),
    /// Neither, or something was done that must not be.
    Red(String),
}

impl Outcome {
    /// For the table.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Whole(after) => format!("whole {}s", after.as_secs()),
            Self::Said(_) => "said".to_owned(),
            Self::Red(_) => "RED".to_owned(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(after) => write!(f, "whole again after {} s", after.as_secs()),
            Self::Said(what) => write!(f, "says: {what}"),
            Self::Red(why) => write!(f, "RED: {why}"),
        }
    }
}

/// Makes a control plane, breaks it, and looks until it is whole or says why not.
pub(crate) async fn run(host: &TestHost, at: usize, cell: &Cell) -> Outcome {
    let name = format!("faults-{at}");
    let mut cluster = TestCluster::new(&name, &name, 0);
    cluster.control_planes = cell.size;
    cluster.create(host.kube()).await;
    cluster.available(host, 0).await;
    control_plane::settled(host, &cluster, cell.size).await;
    host.kube()
        .apply(MACHINE_HEALTH_CHECK, &health_check(&cluster))
        .await;
    let excused = Arc::new(Mutex::new(Vec::new()));
    let guard = Guard::start(host.kube(), &cluster, Arc::clone(&excused));
    let wanted = begin(host, &cluster, cell).await;
    cluster.control_planes = wanted;
    for fault in &cell.faults {
        let broken = excused.lock().unwrap().clone();
        let victims = fault.strike(host, &cluster, &broken).await;
        excused.lock().unwrap().extend(victims);
    }
    let begun = Instant::now();
    let given_up = excused.lock().unwrap().clone();
    let outcome = loop {
        let missing = match control_plane::is_settled(host, &cluster, wanted).await {
            // Given up and still there: not yet whole.
            Ok(()) if !is_left(host, &cluster, &given_up).await => {
                break Outcome::Whole(begun.elapsed());
            }
            Ok(()) => "a machine that was given up is still there".to_owned(),
            Err(missing) => missing,
        };
        if cell.may_be_lost()
            && let Some(said) = says(host, &cluster).await
        {
            break Outcome::Said(said);
        }
        if begun.elapsed() > PATIENCE {
            break Outcome::Red(missing);
        }
        tokio::time::sleep(INTERVAL).await;
    };
    let wrong = guard.wrong();
    drop(guard);
    cluster.delete(host).await;
    if wrong.is_empty() {
        outcome
    } else {
        Outcome::Red(wrong.join("; "))
    }
}

/// A check that gives up machines that are marked, and those whose Node is gone.
fn health_check(cluster: &TestCluster) -> serde_json::Value {
    json!({
        "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
        "metadata": {"namespace": cluster.namespace, "name": "control-plane"},
        "spec": {
            "clusterName": cluster.name,
            "selector": {"matchLabels": {"cluster.x-k8s.io/control-plane": ""}},
            "checks": {"nodeStartupTimeoutSeconds": 60},
        },
    })
}

/// Begins what the control plane is doing, and answers how many machines it is to have.
async fn begin(host: &TestHost, cluster: &TestCluster, cell: &Cell) -> u32 {
    let (kube, plane) = (host.kube(), cluster.control_plane());
    match cell.phase {
        Phase::Rest => cell.size,
        Phase::Grow => {
            let wanted = cell.size + 2;
            kube.scale(CONTROL_PLANE, &cluster.namespace, &plane, wanted)
                .await;
            wanted
        }
        Phase::Roll => {
            let template = json!({
                "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
                "metadata": {"namespace": cluster.namespace, "name": "larger"},
                "spec": {"template": {"spec": {"instanceType": "medium"}}},
            });
            kube.apply(LOCAL_MACHINE_TEMPLATE, &template).await;
            let patch = json!({"spec": {"machineTemplate": {"spec": {"infrastructureRef": {"name": "larger"}}}}});
            kube.merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
                .await;
            cell.size
        }
    }
}

/// Whether one of these machines is still there.
async fn is_left(host: &TestHost, cluster: &TestCluster, given_up: &[String]) -> bool {
    let machines = host.kube().list(MACHINE, &cluster.namespace).await;
    let mut names = machines.iter().map(capstan_tests::kube_client::name);
    names.any(|name| given_up.contains(&name))
}

/// What a person is told to do, if that is so.
async fn says(host: &TestHost, cluster: &TestCluster) -> Option<String> {
    let plane = cluster.control_plane();
    let plane = host
        .kube()
        .get(CONTROL_PLANE, &cluster.namespace, &plane)
        .await?;
    let etcd = condition(&plane, "EtcdClusterHealthy");
    if etcd.status == "False" && etcd.message.contains("lost its majority") {
        return Some(etcd.message.lines().next().unwrap_or_default().to_owned());
    }
    let machines = host.kube().list(MACHINE, &cluster.namespace).await;
    let said = machines
        .iter()
        .map(|machine| condition(machine, "OwnerRemediated"));
    let mut said =
        said.filter(|said| said.status == "False" && said.reason == "CannotBeRemediated");
    let said = said.find(|said| !said.message.is_empty())?;
    Some(said.message)
}
