//! The authorities of a cluster of real machines are rotated: real kubeadm, kubelets, etcd and controller managers take both, then the new ones alone.

use std::time::{Duration, Instant};

use capstan_tests::control_plane::object;
use capstan_tests::kube_client::{CONTROL_PLANE, condition, conditions};
use serde_json::json;

use crate::lab::{Lab, NEW};
use crate::ledger::Ledger;
use crate::workload;

/// Five control-plane machines and three workers are made, one after the other.
const ROTATION: Duration = Duration::from_secs(2400);

/// Rotates, and asks for Nodes with the kubeconfig of the Secret all the time.
pub async fn rotate(lab: &Lab) {
    let cluster = lab.cluster("rotation", 1, NEW);
    let kube = lab.host.kube();
    let mut ledger = Ledger::open(&lab.host);
    cluster.create(kube).await;
    lab.available(&cluster, 1).await;
    ledger.enter("a cluster of 1+1 is made");
    let annotation = json!({"metadata": {"annotations": {"capstan.dev/rotate-ca": "real"}}});
    let plane = cluster.control_plane();
    kube.merge(CONTROL_PLANE, &cluster.namespace, &plane, &annotation)
        .await;
    let begun = Instant::now();
    let (mut said, mut good, mut cut) = (String::new(), 0, 0);
    loop {
        let object = object(&lab.host, &cluster).await;
        let rotated = condition(&object, "CertificateAuthoritiesRotated");
        let now = format!("{} {}", rotated.reason, rotated.message);
        if now != said {
            eprintln!("{:>4} s {now}", begun.elapsed().as_secs());
            said = now;
        }
        let kubectl = lab.kubectl(&cluster).await;
        match kubectl.get(&["nodes"]).await {
            Ok(_) => good += 1,
            Err(why) => {
                workload::did_not_fail_for_trust(&why);
                cut += 1;
            }
        }
        if rotated.reason == "Rotated" {
            break;
        }
        assert!(
            begun.elapsed() < ROTATION,
            "not rotated: {}",
            conditions(&object)
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!(
        "{} s: {good} requests answered, {cut} cut off, none failed for trust",
        begun.elapsed().as_secs()
    );
    ledger.enter("its authorities are rotated");
    lab.available(&cluster, 1).await;
    let kubectl = lab.kubectl(&cluster).await;
    workload::system_pods_run(&kubectl, 2).await;
    ledger.enter("its pods run");
    cluster.delete(&lab.host).await;
    ledger.enter("it is deleted");
    ledger.print();
}
