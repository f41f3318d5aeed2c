//! A snapshot of a real control plane's etcd is restored on its machine, word for word as `host/docs/etcd.md` says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::{Progress, SnapshotStore};
use capstan_tests::cluster::TestCluster;
use capstan_tests::etcd::TestEtcd;
use capstan_tests::eventually;
use capstan_tests::kube_client::{CLUSTER, SECRET, name};
use capstan_tests::kubectl::Kubectl;
use capstan_tests::page::{commands, document, section};
use serde_json::json;

use crate::lab::{Lab, NEW, PATIENCE};
use crate::ledger::Ledger;
use crate::workload::system_pods_run;

/// Where etcd's data is: a place of its own, as a disk would have it.
const DATA_DIR: &str = "/var/lib/etcd-disk/data";

/// Where the page has the snapshot.
const STOPPED: &str = "/etc/kubernetes/stopped";

/// A file goes into a machine in parts that fit into one command.
const PART_BYTES: usize = 16 << 10;

/// Makes a ConfigMap of the workload cluster.
pub async fn note(kubectl: &Kubectl, name: &str) {
    let words = ["create", "configmap", name];
    kubectl.run(&words).await.unwrap();
}

/// Has the host look after the cluster, or not.
pub async fn pause(lab: &Lab, cluster: &TestCluster, paused: bool) {
    let patch = json!({"spec": {"paused": paused.then_some(true)}});
    let kube = lab.host.kube();
    kube.merge(CLUSTER, &cluster.namespace, &cluster.name, &patch)
        .await;
}

/// All of it, with what each part costs.
pub async fn play(lab: &Lab) {
    let mut cluster = lab.cluster("restored", 0, NEW);
    cluster.cluster_configuration = json!({"etcd": {"local": {"dataDir": DATA_DIR}}});
    let kube = lab.host.kube();
    let mut ledger = Ledger::open(&lab.host);
    cluster.create(kube).await;
    lab.available(&cluster, 0).await;
    let kubectl = lab.kubectl(&cluster).await;
    system_pods_run(&kubectl, 1).await;
    ledger.enter("a control plane of 1 is made");

    note(&kubectl, "before").await;
    let place = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(place.path().to_owned(), 1);
    let etcd = TestEtcd::of_cluster(kube, &cluster).await;
    let key = ObjectKey::new(cluster.namespace.clone(), cluster.name.clone());
    let now = jiff::Timestamp::now();
    let progress = Progress::default();
    let taken = etcd
        .client
        .snapshot(&etcd.addresses, &store, &key, now, &progress);
    let taken = taken.await.unwrap();
    note(&kubectl, "after").await;
    ledger.enter("a snapshot of its etcd is taken");

    pause(lab, &cluster, true).await;
    let machine = lab.machines(&cluster, true).await.remove(0);
    let id = &lab.id(&name(&machine)).await;
    let bytes = std::fs::read(&taken.path).unwrap();
    lab.script(id, &format!("mkdir -p {STOPPED}")).await;
    for part in bytes.chunks(PART_BYTES) {
        let part = BASE64.encode(part);
        let script = format!("echo {part} | base64 -d >> {STOPPED}/snapshot.db");
        lab.script(id, &script).await;
    }
    let page = document("host/docs/etcd.md");
    let [open, close] = &commands(&section(&page, "On a machine"))[..] else {
        panic!("two blocks")
    };
    let steps = commands(&section(&page, "Restoring a snapshot"));
    assert_eq!(steps.len(), 3);
    let script = format!("{open}{}{close}", steps.concat());
    let said = lab.steps(id, &script).await;
    assert!(said.contains("TOTAL KEYS"), "{said}");
    let held = lab.script(id, &format!("ls {DATA_DIR}")).await;
    assert_eq!(held, "before\nmember\n");
    ledger.enter(&format!("it is restored: {} KiB", bytes.len() >> 10));

    eventually("the API server has what was before", PATIENCE, async || {
        kubectl.run(&["get", "configmap", "before"]).await
    })
    .await;
    let missing = kubectl.run(&["get", "configmap", "after"]).await;
    assert!(missing.unwrap_err().contains("NotFound"));
    let info = [
        "get",
        "configmap",
        "-n",
        "kube-public",
        "cluster-info",
        "-o",
        "yaml",
    ];
    let info = kubectl.run(&info).await.unwrap();
    let ca = kube
        .get(SECRET, &cluster.namespace, &format!("{}-ca", cluster.name))
        .await
        .unwrap();
    assert!(info.contains(ca["data"]["tls.crt"].as_str().unwrap()));
    pause(lab, &cluster, false).await;
    lab.available(&cluster, 0).await;
    note(&kubectl, "later").await;
    system_pods_run(&kubectl, 1).await;
    let view = etcd.view().await.unwrap();
    assert!(view.has_quorum && view.members.len() == 1, "{view:?}");
    ledger.enter("it is looked after again, and takes writes");

    cluster.delete(&lab.host).await;
    lab.nothing_is_left().await;
    ledger.enter("it is deleted");
    ledger.print();
}
