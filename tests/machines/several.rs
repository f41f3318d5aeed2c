//! A control plane of several real machines: it grows to five and shrinks, is upgraded, loses a machine, and is rolled for another template and
//! for certificates that end soon. Real kubeadm joins each machine, and each has a real member of etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane::{self, object};
use capstan_tests::etcd::RealEtcd;
use capstan_tests::eventually;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CONTROL_PLANE, LOCAL_MACHINE_TEMPLATE, MACHINE, conditions, name,
};
use capstan_tests::kubectl::Kubectl;
use serde_json::{Value, json};

use crate::lab::{Lab, NEW, OLD};
use crate::ledger::Ledger;
use crate::workload;

/// Three machines are replaced one after the other, and others may compile meanwhile.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Certificates of machines are replaced so many days before they end.
const BEFORE_DAYS: i64 = 10;

/// Members of etcd that share two cores with everything else: they wait longer before they elect another leader.
pub fn patient_etcd() -> Value {
    json!({"etcd": {"local": {"extraArgs": [
        {"name": "heartbeat-interval", "value": "500"},
        {"name": "election-timeout", "value": "5000"},
    ]}}})
}

/// Of so many requests at most one may be cut off: each time that a machine or its server goes, those that it was just answering.
const CUT_OFF_ONE_IN: u32 = 10;

/// Asks the workload cluster's API all the time, by the kubeconfig of the Secret.
struct Asking {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU32; 2]>,
    task: tokio::task::JoinHandle<()>,
}

impl Asking {
    fn begin(kubectl: Kubectl) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let (until, to) = (Arc::clone(&stop), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let slot = match kubectl.get(&["nodes"]).await {
                    Ok(_) => 0,
                    Err(why) => {
                        workload::did_not_fail_for_trust(&why);
                        1
                    }
                };
                to[slot].fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Self { stop, counts, task }
    }

    async fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let [good, bad] = &*self.counts;
        (good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed))
    }
}

/// Waits until the control plane has as many machines, each with its member, and nobody else, and none of these machines.
async fn settled(lab: &Lab, cluster: &TestCluster, wanted: u32, without: &[String]) {
    let what = format!("{wanted} machines of {} with their members", cluster.name);
    eventually(&what, PATIENCE, async || {
        let machines = lab.machines(cluster, true).await;
        if let Some(old) = machines.iter().find(|m| without.contains(&name(m))) {
            let plane = object(&lab.host, cluster).await;
            return Err(format!("{}; {}", conditions(&plane), conditions(old)));
        }
        control_plane::is_settled(&lab.host, cluster, wanted).await?;
        cluster.nodes_match(lab.host.kube()).await
    })
    .await;
}

async fn scale(lab: &Lab, cluster: &TestCluster, wanted: u32) {
    let plane = cluster.control_plane();
    let kube = lab.host.kube();
    kube.scale(CONTROL_PLANE, &cluster.namespace, &plane, wanted)
        .await;
    settled(lab, cluster, wanted, &[]).await;
}

async fn names(lab: &Lab, cluster: &TestCluster) -> Vec<String> {
    lab.machines(cluster, true).await.iter().map(name).collect()
}

/// All of it, with what each part costs.
pub async fn live(lab: &Lab) {
    let mut cluster = lab.cluster("several", 0, NEW);
    OLD.clone_into(&mut cluster.version);
    cluster.cluster_configuration = patient_etcd();
    let kube = lab.host.kube();
    let mut ledger = Ledger::open(&lab.host);
    cluster.create(kube).await;
    settled(lab, &cluster, 1, &[]).await;
    ledger.enter("a control plane of 1 is made");

    let asking = Asking::begin(lab.kubectl(&cluster).await);
    for wanted in [3, 5, 3] {
        scale(lab, &cluster, wanted).await;
        ledger.enter(&format!("it is scaled to {wanted}"));
    }
    newest_snapshot_restores(lab, &cluster).await;
    ledger.enter("the last snapshot of its etcd becomes a new etcd");
    upgrade(lab, &cluster).await;
    ledger.enter("3 are upgraded to the next minor version");
    remediate(lab, &cluster).await;
    ledger.enter("1 of 3 is killed and replaced");
    scale(lab, &cluster, 1).await;
    ledger.enter("it is scaled to 1");
    another_template(lab, &cluster).await;
    ledger.enter("1 is replaced for another template");
    certificates_that_end(lab, &cluster).await;
    ledger.enter("1 is replaced for certificates that end soon");
    let (good, bad) = asking.end().await;
    assert!(
        good > bad * CUT_OFF_ONE_IN,
        "{good} requests were answered and {bad} were not"
    );
    cluster.delete(&lab.host).await;
    lab.nothing_is_left().await;
    ledger.enter("the cluster of 1 is deleted");
    ledger.print();
    eprintln!("all the while {good} requests were answered, and {bad} were not");
}

/// What was taken of real members before the last of them left has what the cluster has.
async fn newest_snapshot_restores(lab: &Lab, cluster: &TestCluster) {
    let plane = object(&lab.host, cluster).await;
    let noted = plane["metadata"]["annotations"]["capstan.dev/etcd-snapshot"].as_str();
    let noted: Value = serde_json::from_str(noted.unwrap()).unwrap();
    let path = noted["path"].as_str().unwrap();
    eprintln!("{path} has {} bytes", noted["bytes"]);
    let etcd = RealEtcd::restored(std::path::Path::new(path)).await;
    for key in [
        "/registry/namespaces/kube-system",
        "/registry/deployments/kube-system/coredns",
    ] {
        assert!(etcd.value(key).await.is_some(), "{key}");
    }
}

async fn upgrade(lab: &Lab, cluster: &TestCluster) {
    let before = names(lab, cluster).await;
    let patch = json!({"spec": {"version": NEW}});
    let plane = cluster.control_plane();
    let kube = lab.host.kube();
    kube.merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
        .await;
    settled(lab, cluster, 3, &before).await;
    for machine in lab.machines(cluster, true).await {
        assert_eq!(machine["status"]["nodeInfo"]["kubeletVersion"], NEW);
    }
}

/// The power of the machine that leads goes, and a person gives it up.
async fn remediate(lab: &Lab, cluster: &TestCluster) {
    let leader = control_plane::leading(&lab.host, cluster).await.unwrap();
    let machines = lab.machines(cluster, true).await;
    let machine = machines.iter().find(|m| name(m) == leader).unwrap();
    lab.act(machine, "kill").await.unwrap();
    // Whoever looks after the machines says which ones are looked at.
    let check = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck",
        "metadata": {"namespace": cluster.namespace, "name": "control-plane"},
        "spec": {
            "clusterName": cluster.name,
            "selector": {"matchLabels": {"cluster.x-k8s.io/control-plane": ""}},
            "checks": {"nodeStartupTimeoutSeconds": 0},
        },
    });
    let kube = lab.host.kube();
    kube.apply(capstan_tests::kube_client::MACHINE_HEALTH_CHECK, &check)
        .await;
    let given_up = json!({"metadata": {"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}});
    kube.merge(MACHINE, &cluster.namespace, &leader, &given_up)
        .await;
    settled(lab, cluster, 3, &[leader]).await;
}

async fn another_template(lab: &Lab, cluster: &TestCluster) {
    let before = names(lab, cluster).await;
    let template = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
        "metadata": {"namespace": cluster.namespace, "name": "larger"},
        "spec": {"template": {"spec": {"instanceType": "medium"}}},
    });
    let kube = lab.host.kube();
    kube.apply(LOCAL_MACHINE_TEMPLATE, &template).await;
    let patch =
        json!({"spec": {"machineTemplate": {"spec": {"infrastructureRef": {"name": "larger"}}}}});
    let plane = cluster.control_plane();
    kube.merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
        .await;
    settled(lab, cluster, 1, &before).await;
}

/// The certificates of real API servers were read and end in a year; of one it is said that they end in days, and it is replaced.
async fn certificates_that_end(lab: &Lab, cluster: &TestCluster) {
    let before = names(lab, cluster).await;
    let expiry = async |machine: &Value| {
        let config = machine["spec"]["bootstrap"]["configRef"]["name"].as_str();
        let config = config.unwrap().to_owned();
        let kube = lab.host.kube();
        let object = kube
            .get(BOOTSTRAP_CONFIG, &cluster.namespace, &config)
            .await
            .ok_or("there is no config")?;
        let annotation = "machine.cluster.x-k8s.io/certificates-expiry";
        let text = object["metadata"]["annotations"][annotation].as_str();
        let text = text.ok_or("the certificates were not read yet")?;
        let expiry: jiff::Timestamp = text.parse().map_err(|e| format!("{text}: {e}"))?;
        let days = expiry
            .duration_since(jiff::Timestamp::now())
            .as_hours()
            .div_euclid(24);
        Ok::<_, String>((config, days))
    };
    let machine = lab.machines(cluster, true).await.remove(0);
    let mut config = String::new();
    eventually("the certificate's end is noted", PATIENCE, async || {
        let (name, days) = expiry(&machine).await?;
        assert!((360..=366).contains(&days), "{days} days");
        config = name;
        Ok(())
    })
    .await;
    let kube = lab.host.kube();
    let days = json!({"spec": {"rollout": {"before": {"certificatesExpiryDays": BEFORE_DAYS}}}});
    let plane = cluster.control_plane();
    kube.merge(CONTROL_PLANE, &cluster.namespace, &plane, &days)
        .await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours((BEFORE_DAYS - 1) * 24);
    let soon = json!({"metadata": {"annotations": {
        "machine.cluster.x-k8s.io/certificates-expiry": soon.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }}});
    kube.merge(BOOTSTRAP_CONFIG, &cluster.namespace, &config, &soon)
        .await;
    settled(lab, cluster, 1, &before).await;
    let machine = lab.machines(cluster, true).await.remove(0);
    eventually("the new one is good for a year", PATIENCE, async || {
        let (_, days) = expiry(&machine).await?;
        (days >= 360).then_some(()).ok_or(format!("{days} days"))
    })
    .await;
}
