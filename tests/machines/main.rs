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
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and says how far it is"
)]

mod adoption;
mod faults;
mod figures;
mod lab;
mod ledger;
mod lost_majority;
mod program;
mod restore;
mod rollout;
mod rotation;
mod several;
mod snapshot;
mod workload;

use std::time::Instant;

use capstan_tests::cluster::TestCluster;
use capstan_tests::run;
use serde_json::json;

use lab::{Lab, NEW, OLD};
use snapshot::Snapshot;

/// How often a small cluster is made and deleted at the end. Twenty times is what must hold; once shows most mistakes.
const ROUNDS: u32 = 1;

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

/// Whether this host can run real machines; says why when it cannot.
async fn can_run(what: &str) -> bool {
    let Err(reason) = Lab::is_possible().await else {
        return true;
    };
    assert_ne!(
        std::env::var("CAPSTAN_REAL_MACHINES").as_deref(),
        Ok("required"),
        "real machines are required here: {reason}"
    );
    eprintln!("SKIPPED: {what}: {reason}");
    false
}

/// Runs an act of its own when this variable is set, and says why when it cannot: such acts take minutes.
fn on_request(variable: &str, act: impl AsyncFnOnce(&Lab)) {
    if std::env::var_os(variable).is_none() {
        return;
    }
    run(async {
        if !can_run(variable).await {
            return;
        }
        let _alone = lab::alone();
        let lab = Lab::start().await;
        Box::pin(act(&lab)).await;
    });
}

/// `just machine-figures`. It proves nothing.
#[test]
fn what_clusters_cost_is_printed_on_request() {
    on_request("CAPSTAN_MACHINE_FIGURES", figures::print);
}

/// Ten minutes. `tests/it/ca_rotation.rs` shows the same with light machines each time.
#[test]
fn authorities_of_real_machines_are_rotated_on_request() {
    on_request("CAPSTAN_MACHINE_CA_ROTATION", rotation::rotate);
}

/// A quarter of an hour, and 8 GiB of memory for five machines. `tests/it/control_plane.rs` shows the same with light machines each time.
#[test]
fn control_planes_of_several_real_machines_live_on_request() {
    on_request("CAPSTAN_MACHINE_CONTROL_PLANES", several::live);
}

/// Five minutes. `tests/it/adoption.rs` shows the same with light machines each time.
#[test]
fn a_real_machine_that_kubeadm_made_is_taken_over_on_request() {
    on_request("CAPSTAN_MACHINE_ADOPTION", adoption::take_over);
}

/// Five minutes. `tests/it/etcd_snapshot.rs` shows the same with a real etcd alone each time.
#[test]
fn a_snapshot_is_restored_on_a_real_machine_on_request() {
    on_request("CAPSTAN_MACHINE_RESTORE", restore::play);
}

/// Ten minutes, and 5 GiB of memory for three machines. `tests/it/etcd.rs` shows the same with real etcds alone each time.
#[test]
fn of_three_real_machines_one_goes_on_alone_on_request() {
    on_request("CAPSTAN_MACHINE_LOST_MAJORITY", lost_majority::play);
}

#[test]
fn real_machines_make_clusters_that_work_break_and_go_without_a_trace() {
    run(async {
        if can_run("tests on real machines").await {
            Box::pin(all_acts()).await;
        }
    });
}

async fn all_acts() {
    let mut stage = Stage {
        begun: Instant::now(),
        act: Instant::now(),
    };
    stage.act("without rights real machines are refused, and light ones are not");
    let _alone = lab::alone();
    let untouched = Snapshot::without_a_cloud();
    program::without_rights_it_is_refused_as_a_whole();
    program::the_quickstart_needs_no_rights_for_light_machines().await;

    stage.act("two runs side by side; a cloud is killed, comes back, is killed, and is cleaned up");
    program::two_runs_and_a_killed_cloud().await;
    untouched.is_still_so().await;

    stage.act("a management cluster, and a cloud with real machines");
    let lab = Lab::start().await;
    let before = Snapshot::with_a_cloud();
    Box::pin(one_cluster(&lab, &before, &mut stage)).await;
    for round in 1..=rounds() {
        stage.act(&format!("round {round}: a cluster of 1+1 comes and goes"));
        let cluster = lab.cluster(&format!("round-{round}"), 1, NEW);
        cluster.create(lab.host.kube()).await;
        lab.available(&cluster, 1).await;
        delete(&lab, &cluster, &before).await;
    }
    stage.act("the cloud goes as well");
    drop(lab);
    untouched.is_still_so().await;
    stage.act("done");
}

/// The life of one cluster.
async fn one_cluster(lab: &Lab, before: &Snapshot, stage: &mut Stage) {
    stage.act("a cluster of 1+2, with workers a minor version behind");
    let mut cluster = lab.cluster("real", 2, OLD);
    // New machines of an older version join only where somebody says that they may: otherwise workers are behind after an upgrade only.
    cluster.annotations =
        json!({"machineset.cluster.x-k8s.io/skip-preflight-checks": "KubeadmVersionSkew"});
    let cluster = &cluster;
    cluster.create(lab.host.kube()).await;
    lab.available(cluster, 2).await;
    let kubectl = &lab.kubectl(cluster).await;
    workload::nodes_are_real(kubectl, 3, [NEW, OLD]).await;
    workload::system_pods_run(kubectl, 3).await;

    stage.act("a workload: Service, DNS, logs, exec, port-forward");
    workload::answers_through_service_and_dns(kubectl).await;
    workload::logs_exec_and_port_forward(kubectl).await;
    workload::machines_can_be_looked_into(lab, cluster).await;

    stage.act("workers are upgraded to the next minor version");
    rollout::upgrade(lab, cluster, kubectl, 2).await;

    stage.act("scale to 3 workers");
    rollout::scale(lab, cluster, 3).await;

    stage.act("a machine is deleted: its pods are drained as their budget allows");
    rollout::drain_respects_budgets(lab, cluster, kubectl, 3).await;

    stage.act("workers are replaced by larger ones, bootstrapped by cloud-init itself");
    rollout::replace_all(lab, cluster, kubectl, 3).await;

    stage.act("a machine that does not join shows its console");
    rollout::a_machine_that_does_not_join_says_why(lab, cluster).await;

    stage.act("faults: a machine hangs, another is cut off, a third is killed and replaced");
    faults::frozen_cut_off_and_killed(lab, cluster, kubectl).await;
    stage.act("faults: the control plane is killed and comes back");
    faults::killed_control_plane(lab, cluster, kubectl).await;
    stage.act("faults: the control plane's disk is full");
    faults::full_disk(lab, cluster, kubectl).await;

    stage.act("scale to 2 workers");
    rollout::scale(lab, cluster, 2).await;

    stage.act("a second cluster beside it, all of the version before");
    let mut second = lab.cluster("second", 1, OLD);
    OLD.clone_into(&mut second.version);
    second.create(lab.host.kube()).await;
    lab.available(&second, 1).await;
    let of_second = lab.kubectl(&second).await;
    workload::nodes_are_real(&of_second, 2, [OLD, OLD]).await;
    workload::system_pods_run(&of_second, 2).await;
    workload::answers_through_service_and_dns(&of_second).await;
    workload::answers_through_service_and_dns(kubectl).await;

    stage.act("the second one's control plane is upgraded to the next minor version");
    rollout::upgrade_control_plane(lab, &second, &of_second).await;
    workload::nodes_are_real(&of_second, 2, [NEW, OLD]).await;
    workload::answers_through_service_and_dns(&of_second).await;

    stage.act("the clusters are deleted, and nothing is left");
    second.delete(&lab.host).await;
    delete(lab, cluster, before).await;
}

async fn delete(lab: &Lab, cluster: &TestCluster, before: &Snapshot) {
    cluster.delete(&lab.host).await;
    lab.nothing_is_left().await;
    before.is_still_so().await;
}
