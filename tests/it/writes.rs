//! How often the host writes: little for a new cluster, nothing for a settled one. Counted by the API server's audit log.

use std::time::Duration;

use capstan_local::audit::{AuditLog, Counts, Mark};
use capstan_tests::cluster::TestCluster;
use capstan_tests::host::{TestHost, USER};
use capstan_tests::run;

/// The most writes for each machine of a new cluster of 1 + 3 (upstream's managers: 122).
const WRITES_PER_MACHINE_MAX: u64 = 25;
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
async fn settle(audit: &AuditLog, since: Mark) -> Counts {
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

#[test]
fn a_cluster_of_four_costs_few_writes_and_a_settled_one_none() {
    run(async {
        let host = TestHost::start().await;
        let audit = host.plane.audit().unwrap();
        let cluster = TestCluster::new("counted", "counted", 3);
        let begun = settle(&audit, audit.mark().unwrap()).await.end;
        cluster.create(host.kube()).await;
        cluster.available(&host, 3).await;
        let counts = settle(&audit, begun).await;
        let per_machine = counts.writes_of(USER).div_ceil(4);
        assert!(
            per_machine <= WRITES_PER_MACHINE_MAX,
            "{per_machine} writes for each machine, at most {WRITES_PER_MACHINE_MAX}:\n{}",
            writes(&counts)
        );
        tokio::time::sleep(WATCHED).await;
        let idle = audit.counts_since(counts.end).unwrap();
        assert_eq!(
            idle.writes_of(USER),
            0,
            "a settled host wrote:\n{}",
            writes(&idle)
        );
        cluster.delete(&host).await;
        host.cloud.is_empty().await.unwrap();
    });
}
