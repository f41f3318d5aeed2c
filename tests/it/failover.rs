//! Two hosts on one management cluster: one works, the other is ready to, and never both.

use std::time::Duration;

use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::{NAMESPACE, TestHost};
use capstan_tests::kube_client::{Kind, MACHINE, MACHINE_DEPLOYMENT};
use capstan_tests::process::HostProcess;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use jiff::Timestamp;
use serde_json::{Value, json};

const LEASE: Kind = Kind {
    api_version: "coordination.k8s.io/v1",
    plural: "leases",
    namespaced: true,
};

/// How long the lease holds in these tests, and how often it is renewed.
const HOLD: Duration = Duration::from_secs(9);
const RETRY: Duration = Duration::from_secs(2);

/// One of several hosts, with a user of its own, by which the audit log tells it from the others.
fn start(host: &TestHost, name: &str) -> HostProcess {
    let plane = &host.plane;
    let kubeconfig = plane.user_kubeconfig(name, &["system:masters"]).unwrap();
    let args = [
        "run".to_owned(),
        "--leader-elect".to_owned(),
        format!("--lease-duration-s={}", HOLD.as_secs()),
        "--lease-renew-deadline-s=6".to_owned(),
        format!("--lease-retry-period-s={}", RETRY.as_secs()),
    ];
    HostProcess::start_as(&wasm::program(), plane, name, &kubeconfig, &args)
}

async fn lease(host: &TestHost) -> Value {
    let lease = host.kube().get(LEASE, NAMESPACE, "capstan").await;
    lease.map_or(Value::Null, |lease| lease["spec"].clone())
}

fn time(lease: &Value, field: &str) -> Timestamp {
    lease[field].as_str().unwrap().parse().unwrap()
}

/// Components that the host has loaded so far.
fn loads(host: &HostProcess) -> usize {
    let log = host.log();
    log.lines()
        .filter(|line| line.contains(": loaded "))
        .count()
}

/// Waits until a second host has loaded every plugin, without being asked to work.
async fn warm(host: &HostProcess) {
    eventually("the standby has loaded the plugins", PATIENCE, async || {
        host.check()?;
        let is_standby = host.log().contains("standing by");
        let count = loads(host);
        (is_standby && count >= wasm::PLUGINS.len())
            .then_some(())
            .ok_or(format!("{count} are loaded"))
    })
    .await;
}

/// Waits until the lease is another's than this one, and gives it.
async fn taken_from(host: &TestHost, before: &Value) -> Value {
    eventually("another host holds the lease", PATIENCE, async || {
        let now = lease(host).await;
        let holder = now["holderIdentity"].as_str().unwrap_or_default();
        let is_other = !holder.is_empty() && now["holderIdentity"] != before["holderIdentity"];
        is_other.then(|| now.clone()).ok_or(now.to_string())
    })
    .await
}

async fn scaled(host: &TestHost, cluster: &TestCluster, replicas: u32) {
    let deployment = cluster.deployment();
    host.kube()
        .scale(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &deployment,
            replicas,
        )
        .await;
    cluster.available(host, replicas).await;
}

#[test]
fn a_standby_takes_over_within_a_lease_when_the_leader_is_killed_and_at_once_when_it_stops() {
    run(async {
        let host = TestHost::without_host().await;
        let mut first = start(&host, "host-first");
        host.plugins_ready().await;
        let cluster = TestCluster::new("failover", "failover", 1);
        cluster.create(host.kube()).await;
        cluster.available(&host, 1).await;
        let mut second = start(&host, "host-second");
        warm(&second).await;
        let loaded_ahead = loads(&second);

        first.kill();
        let before = lease(&host).await;
        let after = taken_from(&host, &before).await;
        let since = time(&after, "acquireTime").duration_since(time(&before, "renewTime"));
        println!("the standby took over {since:#} after the last renewal");
        // Within a lease, and what a busy machine adds; two would be another one's turn.
        assert!(since.unsigned_abs() < HOLD * 2, "{since:#}");
        scaled(&host, &cluster, 2).await;
        assert_eq!(loads(&second), loaded_ahead, "nothing was left to load");
        let transitions = after["leaseTransitions"].as_u64().unwrap();

        let third = start(&host, "host-third");
        warm(&third).await;
        let before = lease(&host).await;
        second.signal("TERM");
        let after = taken_from(&host, &before).await;
        let ended = eventually("the leader has ended", PATIENCE, async || {
            second.ended().ok_or("it runs".to_owned())
        })
        .await;
        assert!(ended.success(), "{ended}: {}", second.log());
        assert!(
            second.log().contains("the lease is given back"),
            "{}",
            second.log()
        );
        assert_eq!(after["leaseTransitions"].as_u64(), Some(transitions + 1));
        scaled(&host, &cluster, 1).await;
        cluster.delete(&host).await;
    });
}

#[test]
fn a_leader_that_was_paused_writes_nothing_when_it_wakes() {
    run(async {
        let host = TestHost::without_host().await;
        let mut first = start(&host, "host-first");
        host.plugins_ready().await;
        let cluster = TestCluster::new("paused-leader", "paused", 2);
        cluster.create(host.kube()).await;
        cluster.available(&host, 2).await;
        let second = start(&host, "host-second");
        warm(&second).await;

        // It is stopped in the middle of its work.
        let version = json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}});
        let kube = host.kube();
        kube.merge(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &cluster.deployment(),
            &version,
        )
        .await;
        eventually("the first new machine is made", PATIENCE, async || {
            let machines = kube.list(MACHINE, &cluster.namespace).await;
            (machines.len() > 3)
                .then_some(())
                .ok_or(format!("{}", machines.len()))
        })
        .await;
        first.signal("STOP");
        let before = lease(&host).await;
        taken_from(&host, &before).await;

        let audit = host.plane.audit().unwrap();
        let mark = audit.mark().unwrap();
        first.signal("CONT");
        let ended = eventually("the old leader has ended", PATIENCE, async || {
            first.ended().ok_or("it runs".to_owned())
        })
        .await;
        assert!(!ended.success(), "it says that it did not stop by itself");
        let counts = audit.counts_since(mark).unwrap();
        let written = counts.count(|request| request.user == "host-first" && request.is_write());
        assert_eq!(written, 0, "{counts}");
        eventually("the new leader goes on", PATIENCE, async || {
            let counts = audit.counts_since(mark).unwrap();
            let is_at_work = counts.of_user("host-second") > 0;
            is_at_work.then_some(()).ok_or(counts.to_string())
        })
        .await;

        cluster.all_have_version(kube, VERSION_NEXT, 3).await;
        cluster.available(&host, 2).await;
        cluster.delete(&host).await;
    });
}
