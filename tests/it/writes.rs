//! How often the host writes: little for a new cluster, nothing for a settled one. Counted by the API server's audit log.

use std::time::{Duration, Instant};

use capstan_controllers::controller::HOLD;
use capstan_local::audit::{AuditLog, Counts, Mark};
use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::{TestHost, USER};
use capstan_tests::kube_client::{MACHINE, MACHINE_DEPLOYMENT, name};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::json;

/// The most writes for each machine of a new cluster of 1 + 3, everything of the cluster included (upstream's managers: 128).
const CREATE_MAX: u64 = 17;
/// For each worker that is added (upstream's: 90).
const SCALE_UP_MAX: u64 = 15;
/// For each worker that is replaced (upstream's: 202).
const REPLACE_MAX: u64 = 30;
/// For each worker that is removed, and for each machine of a cluster that is deleted (upstream's: 46).
const DELETE_MAX: u64 = 12;
/// For how long a settled cluster is watched: longer than a probe, a Node's heartbeat and a status that waits for company.
const WATCHED: Duration = Duration::from_secs(40);
/// A host is settled when it has written nothing for so long.
const QUIET: Duration = Duration::from_secs(10);

/// The writes among these requests, one line for each kind.
fn writes(counts: &Counts) -> String {
    let lines = counts
        .iter()
        .filter(|(request, _)| request.user == USER && request.is_write());
    let lines = lines.map(|(r, count)| format!("{count:>5} {} {} {}", r.verb, r.resource, r.code));
    lines.collect::<Vec<_>>().join("\n")
}

/// Waits until there was nothing to write for a while, and counts what was written until then.
pub(crate) async fn settle(audit: &AuditLog, since: Mark) -> Counts {
    let mut all = audit.counts_since(since).unwrap();
    loop {
        tokio::time::sleep(QUIET).await;
        let more = audit.counts_since(all.end).unwrap();
        let wrote = more.writes_of(USER);
        all.add(&more);
        if wrote == 0 {
            return all;
        }
    }
}

/// Watches a host that has settled, from then on, which writes nothing. Answers when that has ended.
pub(crate) async fn stays_settled(audit: &AuditLog, since: Mark) -> Mark {
    tokio::time::sleep(WATCHED).await;
    let idle = audit.counts_since(since).unwrap();
    assert_eq!(
        idle.writes_of(USER),
        0,
        "a settled host wrote:\n{}",
        writes(&idle)
    );
    idle.end
}

/// What happened, and what it may cost.
struct Bill<'a> {
    what: &'a str,
    /// How many machines came or went, and how many writes each may cost.
    machines: u64,
    most: u64,
    /// When it began.
    since: Instant,
}

fn bill(what: &str, machines: u64, most: u64, since: Instant) -> Bill<'_> {
    Bill {
        what,
        machines,
        most,
        since,
    }
}

/// Waits until all is quiet, and says what one of so many machines cost.
async fn cost(audit: &AuditLog, begun: Mark, bill: Bill<'_>, exceeded: &mut Vec<String>) -> Mark {
    let Bill {
        what,
        machines,
        most,
        since,
    } = bill;
    // What takes longer than a status waits for company is told in writes of its own, once in a while: by Machines, their infrastructure, and
    // the four that own them. Where machines come at once, as they do unless the computer has too much to do, there is none of that.
    let objects = u128::from(2 * machines + 4);
    let late = since.elapsed().saturating_sub(HOLD);
    let told = late.as_millis() * objects / HOLD.as_millis();
    let told = u64::try_from(told).unwrap();
    let counts = settle(audit, begun).await;
    let each = counts
        .writes_of(USER)
        .saturating_sub(told)
        .div_ceil(machines);
    let told = format!(
        "{what}: {each} writes for each of {machines} machines, at most {most} (and {told} for being slow):\n{}",
        writes(&counts)
    );
    eprintln!("{told}");
    if each > most {
        exceeded.push(told);
    }
    counts.end
}

#[test]
fn machines_cost_few_writes_and_a_settled_cluster_none() {
    run(async {
        let host = TestHost::start().await;
        let (kube, ns) = (host.kube(), "counted");
        let audit = host.plane.audit().unwrap();
        let mut cluster = TestCluster::new(ns, ns, 3);
        // Machines are replaced several at a time, as people do who have many.
        cluster.rollout = Some(json!({"strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0},
        }}));
        let mut exceeded = Vec::new();
        let begun = settle(&audit, audit.mark().unwrap()).await.end;
        let since = Instant::now();
        cluster.create(kube).await;
        cluster.available(&host, 3).await;
        let created = cost(
            &audit,
            begun,
            bill("create", 4, CREATE_MAX, since),
            &mut exceeded,
        )
        .await;

        let idle = stays_settled(&audit, created).await;
        let deployment = cluster.deployment();
        let since = Instant::now();
        kube.scale(MACHINE_DEPLOYMENT, ns, &deployment, 8).await;
        cluster.available(&host, 8).await;
        let grown = cost(
            &audit,
            idle,
            bill("scale up", 5, SCALE_UP_MAX, since),
            &mut exceeded,
        )
        .await;

        let since = Instant::now();
        kube.scale(MACHINE_DEPLOYMENT, ns, &deployment, 4).await;
        cluster.available(&host, 4).await;
        let shrunk = cost(
            &audit,
            grown,
            bill("scale down", 4, DELETE_MAX, since),
            &mut exceeded,
        )
        .await;

        let since = Instant::now();
        let version = json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}});
        kube.merge(MACHINE_DEPLOYMENT, ns, &deployment, &version)
            .await;
        eventually("all workers have the new version", PATIENCE, async || {
            cluster.is_available(kube, 4).await?;
            let machines = kube.list(MACHINE, ns).await;
            let old = machines
                .iter()
                .find(|m| m["spec"]["version"] != VERSION_NEXT);
            old.map_or(Ok(()), |machine| Err(name(machine)))
        })
        .await;
        let replaced = cost(
            &audit,
            shrunk,
            bill("replace", 4, REPLACE_MAX, since),
            &mut exceeded,
        )
        .await;

        let since = Instant::now();
        cluster.delete(&host).await;
        cost(
            &audit,
            replaced,
            bill("delete", 5, DELETE_MAX, since),
            &mut exceeded,
        )
        .await;
        host.cloud.is_empty().await.unwrap();
        assert!(exceeded.is_empty(), "{}", exceeded.join("\n"));
    });
}
