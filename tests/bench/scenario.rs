//! One number of clusters through all scenarios, on servers of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use capstan_local::cloud::Access;
use capstan_local::control_plane::{ControlPlane, Options};
use capstan_local::process::{self, Spec};
use capstan_tests::cloud::TestCloud;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::eventually;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, Kube, MACHINE, MACHINE_DEPLOYMENT, condition, conditions, is_control_plane, name,
};
use capstan_tests::process::{HostProcess, admin_port};
use serde_json::{Value, json};

use crate::measure::{Processes, Row, Stopwatch};
use crate::{Arguments, Load};

/// How long a scenario may take with one cluster, and how much longer with each more machine.
const PATIENCE: Duration = Duration::from_secs(180);
const PATIENCE_EACH: Duration = Duration::from_secs(4);
/// Workers above which a cluster is a large one: a tenth is added, and a tenth replaced at a time, as people do who have many.
const MANY: u32 = 20;
/// How much is added by scaling a small one.
const SCALED_BY: u32 = 2;

/// All scenarios, in order.
pub(crate) async fn run(arguments: &Arguments, load: Load) -> Vec<Row> {
    let count = load.clusters;
    let options = Options {
        fsync: true,
        audit: true,
        ..Options::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let cloud = CloudProcess::start(arguments, &plane).await;
    let mut host = TestHost::with(plane, TestCloud::connect(cloud.access.clone())).await;
    let program = HostProcess::start_program(&arguments.capstan, &host.plane);
    let mut known = vec![
        ("host".to_owned(), program.pid()),
        ("cloud".to_owned(), cloud.child.id()),
    ];
    known.extend(
        host.plane
            .processes()
            .iter()
            .map(|record| (record.name.clone(), record.pid)),
    );
    let log = program.log_path();
    host.runs_as(program);
    host.plugins_ready().await;
    let port = admin_port(&std::fs::read_to_string(log).unwrap()).unwrap_or_default();
    let bench = Bench {
        kube: host.kube(),
        clusters: clusters(load),
        patience: PATIENCE + PATIENCE_EACH * count * (1 + load.workers),
    };
    let audit = host.plane.audit().unwrap();
    let processes = Processes(known);
    let machines = |workers: u32| count * (1 + workers);
    let begin = || Stopwatch::start(&audit, &processes, port);
    let workers = load.workers;
    let added = if workers > MANY {
        workers / 10
    } else {
        SCALED_BY
    };
    let mut rows = Vec::new();

    let watch = begin();
    bench.create().await;
    bench.available(workers, None).await;
    rows.push(watch.stop(count, "create", machines(workers)));

    let watch = begin();
    bench.scale(workers + added).await;
    bench.available(workers + added, None).await;
    rows.push(watch.stop(count, "scale +", count * added));

    let watch = begin();
    bench.roll().await;
    bench.available(workers + added, Some(VERSION_NEXT)).await;
    rows.push(watch.stop(count, "roll", count * (workers + added)));

    // What the scenario before left to do is not idling.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let watch = begin();
    tokio::time::sleep(Duration::from_secs(arguments.idle_s)).await;
    rows.push(watch.stop(count, "idle", machines(workers + added)));

    let watch = begin();
    bench.delete().await;
    eventually("an empty cloud", bench.patience, async || {
        host.cloud.is_empty().await
    })
    .await;
    rows.push(watch.stop(count, "delete", machines(workers + added)));
    rows
}

fn clusters(load: Load) -> Vec<TestCluster> {
    let names = (0..load.clusters).map(|number| format!("bench-{number}"));
    let clusters = names.map(|name| TestCluster {
        rollout: (load.workers > MANY).then(|| {
            json!({"strategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 0},
            }})
        }),
        ..TestCluster::new(&name, &name, load.workers)
    });
    clusters.collect()
}

struct Bench<'a> {
    kube: &'a Kube,
    clusters: Vec<TestCluster>,
    patience: Duration,
}

impl Bench<'_> {
    async fn create(&self) {
        let all = self
            .clusters
            .iter()
            .map(|cluster| cluster.create(self.kube));
        futures::future::join_all(all).await;
    }

    async fn scale(&self, workers: u32) {
        for cluster in &self.clusters {
            let name = cluster.deployment();
            self.kube
                .scale(MACHINE_DEPLOYMENT, &cluster.namespace, &name, workers)
                .await;
        }
    }

    async fn roll(&self) {
        let patch = json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}});
        for cluster in &self.clusters {
            let name = cluster.deployment();
            self.kube
                .merge(MACHINE_DEPLOYMENT, &cluster.namespace, &name, &patch)
                .await;
        }
    }

    async fn delete(&self) {
        for cluster in &self.clusters {
            self.kube
                .delete(CLUSTER, &cluster.namespace, &cluster.name)
                .await;
        }
        eventually("all clusters gone", self.patience, async || {
            let left = self.kube.list(CLUSTER, "").await;
            left.first().map_or(Ok(()), |cluster| {
                Err(format!(
                    "{} left, such as {}: {}",
                    left.len(),
                    name(cluster),
                    conditions(cluster)
                ))
            })
        })
        .await;
    }

    /// All clusters Available, with all their machines. Two lists each time, so that looking costs little.
    async fn available(&self, workers: u32, version: Option<&str>) {
        eventually("all clusters available", self.patience, async || {
            // Looking more often would be part of what is measured.
            tokio::time::sleep(Duration::from_millis(150)).await;
            let clusters = self.kube.list(CLUSTER, "").await;
            for cluster in &clusters {
                if condition(cluster, "Available").status != "True" {
                    return Err(format!("{}: {}", name(cluster), conditions(cluster)));
                }
            }
            let machines = self.kube.list(MACHINE, "").await;
            let mut ready: BTreeMap<&str, u32> = BTreeMap::new();
            let mut total: BTreeMap<&str, u32> = BTreeMap::new();
            for machine in &machines {
                let cluster = machine["spec"]["clusterName"].as_str().unwrap_or_default();
                *total.entry(cluster).or_default() += 1;
                if is_ready(machine, version) {
                    *ready.entry(cluster).or_default() += 1;
                }
            }
            for cluster in &self.clusters {
                let of = |counts: &BTreeMap<&str, u32>| {
                    counts
                        .get(cluster.name.as_str())
                        .copied()
                        .unwrap_or_default()
                };
                if of(&ready) != workers + 1 || of(&total) != workers + 1 {
                    return Err(format!(
                        "{}: {} of {} machines",
                        cluster.name,
                        of(&ready),
                        of(&total)
                    ));
                }
            }
            Ok(())
        })
        .await;
    }
}

fn is_ready(machine: &Value, version: Option<&str>) -> bool {
    let is_worker = !is_control_plane(machine);
    let is_new = version.is_none_or(|version| machine["spec"]["version"] == version);
    machine["metadata"]["deletionTimestamp"].is_null()
        && condition(machine, "Available").status == "True"
        && (is_new || !is_worker)
}

/// The local cloud as a process.
struct CloudProcess {
    child: std::process::Child,
    access: Access,
}

impl CloudProcess {
    async fn start(arguments: &Arguments, plane: &ControlPlane) -> Self {
        let dir = plane.dir().join("cloud");
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let argv = [
            text(&arguments.capstan),
            "local".to_owned(),
            "cloud".to_owned(),
            "--dir".to_owned(),
            text(&dir),
            // The machines' own cost is not what is measured, and they would be real ones where they can.
            "--backend".to_owned(),
            "light".to_owned(),
        ];
        let spec = Spec {
            name: "cloud".to_owned(),
            argv: argv.to_vec(),
            cwd: None,
            env: Vec::new(),
            log: plane.dir().join("cloud.log"),
            ports: Vec::new(),
        };
        let (child, record) = process::spawn(&spec, None).unwrap();
        let mut started = Self {
            child,
            access: Access {
                endpoint: String::new(),
                token: String::new(),
            },
        };
        let begun = Instant::now();
        started.access = eventually("the cloud is ready", PATIENCE, async || {
            if !process::is_alive(&record) && begun.elapsed() > Duration::from_secs(1) {
                panic!("the cloud ended: {}", process::log_tail(&record.log, 20));
            }
            let text =
                std::fs::read_to_string(dir.join("cloud.json")).map_err(|e| e.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        })
        .await;
        started
    }
}

impl Drop for CloudProcess {
    fn drop(&mut self) {
        // Fails only for a process that has already ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}
