//! The host is killed at random moments, and the cloud loses answers: it converges, with one instance for each machine.
//!
//! The seed is printed; `CAPSTAN_SEED=<seed>` repeats the moments, as far as processes repeat anything.

use std::time::Duration;

use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CLUSTER, MACHINE, MACHINE_DEPLOYMENT};
use capstan_tests::{PATIENCE, eventually, run};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// How often the host is killed while it creates, while it rolls and while it deletes.
const KILLS: [(&str, u32); 3] = [("create", 9), ("roll", 8), ("delete", 5)];
/// The longest time that a host gets to live, beyond what it needs to start.
const LIFE_MS_MAX: u64 = 2_500;

fn seed() -> u64 {
    let seed = std::env::var("CAPSTAN_SEED").ok();
    let seed = seed.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("CAPSTAN_SEED={seed}");
    seed
}

/// Kills the host again and again while it is busy, and leaves a new one running.
async fn torment(host: &mut TestHost, random: &mut StdRng, phase: &str, kills: u32) {
    for kill in 1..=kills {
        host.run_process();
        let life = Duration::from_millis(random.random_range(50..LIFE_MS_MAX));
        tokio::time::sleep(life).await;
        println!("{phase}: kill {kill} after {life:?}");
        host.kill();
    }
    host.run_process();
}

/// No machine has two instances, and no instance is without its machine.
async fn one_instance_for_each_machine(host: &TestHost, cluster: &TestCluster) {
    eventually("one instance for each machine", PATIENCE, async || {
        let instances = host
            .cloud
            .of_cluster("instances", &cluster.namespace, &cluster.name)
            .await;
        let machines = host.kube().list(MACHINE, &cluster.namespace).await;
        let sorted = |mut ids: Vec<String>| {
            ids.sort();
            ids
        };
        let of_instances = sorted(
            instances
                .iter()
                .map(|i| i["providerId"].as_str().unwrap_or_default().to_owned())
                .collect(),
        );
        let of_machines = sorted(
            machines
                .iter()
                .map(|m| {
                    m["spec"]["providerID"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                })
                .collect(),
        );
        if of_instances == of_machines {
            Ok(())
        } else {
            Err(format!(
                "instances {of_instances:?}, machines {of_machines:?}"
            ))
        }
    })
    .await;
}

#[test]
fn a_host_that_is_killed_again_and_again_converges_and_leaks_nothing() {
    run(async {
        let mut random = StdRng::seed_from_u64(seed());
        let mut host = TestHost::without_host().await;
        let cluster = TestCluster::new("crash", "crash", 2);
        // Kinds of plugins are served only after a host has installed them.
        host.run_process();
        host.plugins_ready().await;
        host.kill();

        cluster.create(host.kube()).await;
        torment(&mut host, &mut random, KILLS[0].0, KILLS[0].1).await;
        cluster.available(&host, 2).await;
        one_instance_for_each_machine(&host, &cluster).await;
        host.kill();

        let version = json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}});
        host.kube()
            .merge(
                MACHINE_DEPLOYMENT,
                &cluster.namespace,
                &cluster.deployment(),
                &version,
            )
            .await;
        torment(&mut host, &mut random, KILLS[1].0, KILLS[1].1).await;
        eventually("all workers have the new version", PATIENCE, async || {
            let machines = host.kube().list(MACHINE, &cluster.namespace).await;
            let new = machines
                .iter()
                .filter(|m| m["spec"]["version"] == VERSION_NEXT);
            (new.count() == 3 && machines.len() == 3)
                .then_some(())
                .ok_or(format!("{} machines", machines.len()))
        })
        .await;
        cluster.available(&host, 2).await;
        one_instance_for_each_machine(&host, &cluster).await;
        host.kill();

        host.kube()
            .delete(CLUSTER, &cluster.namespace, &cluster.name)
            .await;
        torment(&mut host, &mut random, KILLS[2].0, KILLS[2].1).await;
        cluster.delete(&host).await;
        eventually("an empty cloud", PATIENCE, async || {
            host.cloud.is_empty().await
        })
        .await;
    });
}

#[test]
fn a_cloud_that_loses_answers_makes_no_second_instance_and_leaks_nothing() {
    run(async {
        let seed = seed();
        let host = TestHost::start().await;
        let lose = |operation: &str| {
            json!({
                "name": format!("lose {operation}"),
                "match": {"operation": operation, "probability": 0.5, "seed": seed},
                "effect": {"type": "loseAnswer"},
            })
        };
        let operations = [
            "CreateNetwork",
            "CreateLoadBalancer",
            "CreateInstance",
            "DeleteInstance",
            "DeleteLoadBalancer",
            "DeleteNetwork",
        ];
        host.cloud
            .faults(operations.map(lose).to_vec().into())
            .await;
        let cluster = TestCluster::new("lost-answers", "lost", 3);
        cluster.create(host.kube()).await;
        cluster.available(&host, 3).await;
        one_instance_for_each_machine(&host, &cluster).await;
        let deployment = cluster.deployment();
        host.kube()
            .scale(MACHINE_DEPLOYMENT, &cluster.namespace, &deployment, 1)
            .await;
        cluster.available(&host, 1).await;
        one_instance_for_each_machine(&host, &cluster).await;
        cluster.delete(&host).await;
        eventually("an empty cloud", PATIENCE, async || {
            host.cloud.is_empty().await
        })
        .await;
    });
}
