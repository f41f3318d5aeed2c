//! Clusters of real machines: real kubeadm, kubelet and containerd in namespaces of this host. One test, in acts, since machines are dear.
//!
//! Where this host cannot run them the test says why and does nothing; with `CAPSTAN_REAL_MACHINES=required` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, and says how far it is"
)]

mod faults;
mod lab;
mod rollout;
mod snapshot;
mod workload;

use std::time::Instant;

use capstan_tests::cluster::TestCluster;
use capstan_tests::run;

use lab::Lab;
use snapshot::Snapshot;

/// How often a small cluster is made and deleted at the end. Twenty times is what must hold; a few show most mistakes.
const ROUNDS: u32 = 2;

fn rounds() -> u32 {
    let asked = std::env::var("CAPSTAN_MACHINE_ROUNDS").ok();
    asked.map_or(ROUNDS, |text| {
        text.parse().expect("CAPSTAN_MACHINE_ROUNDS is a number")
    })
}

/// Says which act begins, and how long the one before took.
struct Stage {
    begun: Instant,
    act: Instant,
}

impl Stage {
    fn act(&mut self, what: &str) {
        let (total_s, act_s) = (self.begun.elapsed().as_secs(), self.act.elapsed().as_secs());
        eprintln!("{total_s:>4} s (+{act_s} s)  {what}");
        self.act = Instant::now();
    }
}

#[test]
fn real_machines_make_clusters_that_work_break_and_go_without_a_trace() {
    run(async {
        if let Err(reason) = Lab::is_possible().await {
            assert_ne!(
                std::env::var("CAPSTAN_REAL_MACHINES").as_deref(),
                Ok("required"),
                "real machines are required here: {reason}"
            );
            eprintln!("SKIPPED: tests on real machines: {reason}");
            return;
        }
        Box::pin(all_acts()).await;
    });
}

async fn all_acts() {
    let mut stage = Stage {
        begun: Instant::now(),
        act: Instant::now(),
    };
    stage.act("a management cluster, and a cloud with real machines");
    lab::clean();
    let untouched = Snapshot::without_a_cloud();
    let lab = Lab::start().await;
    let before = Snapshot::with_a_cloud();

    stage.act("a cluster of 1+2");
    let cluster = lab.cluster("real", 2);
    cluster.create(lab.host.kube()).await;
    lab.available(&cluster, 2).await;
    let kubectl = lab.kubectl(&cluster).await;
    workload::nodes_are_real(&kubectl, 3).await;
    workload::system_pods_run(&kubectl, 3).await;

    stage.act("a workload: Service, DNS, logs, exec, port-forward");
    workload::answers_through_service_and_dns(&kubectl).await;
    workload::logs_exec_and_port_forward(&kubectl).await;
    workload::machines_can_be_looked_into(&lab, &cluster).await;

    stage.act("scale to 3 workers");
    rollout::scale(&lab, &cluster, 3).await;

    stage.act("a machine is deleted: its pods are drained as their budget allows");
    rollout::drain_respects_budgets(&lab, &cluster, &kubectl, 3).await;

    stage.act("scale to 2 workers");
    rollout::scale(&lab, &cluster, 2).await;

    stage.act("workers are replaced by larger ones");
    rollout::replace_all(&lab, &cluster, &kubectl, 2).await;

    stage.act("faults: a machine hangs, another is cut off");
    faults::frozen_and_cut_off(&lab, &cluster, &kubectl).await;
    stage.act("faults: the control plane is killed and comes back");
    faults::killed_control_plane(&lab, &cluster, &kubectl).await;
    stage.act("faults: the control plane's disk is full");
    faults::full_disk(&lab, &cluster, &kubectl).await;

    stage.act("the cluster is deleted, and nothing is left");
    delete(&lab, &cluster, &before).await;

    for round in 1..=rounds() {
        stage.act(&format!("round {round}: a cluster of 1+1 comes and goes"));
        let cluster = lab.cluster(&format!("round-{round}"), 1);
        cluster.create(lab.host.kube()).await;
        lab.available(&cluster, 1).await;
        delete(&lab, &cluster, &before).await;
    }
    stage.act("the cloud goes as well");
    drop(lab);
    untouched.is_still_so().await;
    stage.act("done");
}

async fn delete(lab: &Lab, cluster: &TestCluster, before: &Snapshot) {
    cluster.delete(&lab.host).await;
    lab.nothing_is_left().await;
    before.is_still_so().await;
}
