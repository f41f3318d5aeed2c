//! A plugin that misbehaves in all its calls keeps nothing waiting: not the Lease, not the objects of other plugins.

use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::{NAMESPACE, TestHost};
use capstan_tests::kube_client::{CLUSTER, Kind, PLUGIN};
use capstan_tests::process::HostProcess;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use jiff::Timestamp;
use serde_json::{Value, json};

const LEASE: Kind = Kind {
    api_version: "coordination.k8s.io/v1",
    plural: "leases",
    namespaced: true,
};

const PROBE_CLUSTER: Kind = Kind {
    api_version: "infrastructure.cluster.x-k8s.io/v1beta2",
    plural: "probeclusters",
    namespaced: true,
};

const PROBE: &str = "infrastructure-probe";

/// Objects of the plugin that misbehaves: more than its controller works on at the same time.
const OBJECTS: usize = 40;

/// Calls of one plugin at the same time, by default.
const CALLS: usize = 16;

fn start(host: &TestHost) -> HostProcess {
    let user = host
        .plane
        .user_kubeconfig("host-contained", &["system:masters"]);
    let args = [
        "run",
        "--leader-elect",
        "--lease-duration-s=9",
        "--lease-renew-deadline-s=6",
        "--lease-retry-period-s=2",
    ];
    let args = args.map(str::to_owned);
    let program = wasm::program();
    HostProcess::start_as(&program, &host.plane, "contained", &user.unwrap(), &args)
}

async fn lease(host: &TestHost) -> Value {
    let lease = host.kube().get(LEASE, NAMESPACE, "capstan").await;
    lease.map_or(Value::Null, |lease| lease["spec"].clone())
}

/// Makes objects about which the plugin computes without end.
async fn misbehave(host: &TestHost) {
    let kube = host.kube();
    host.put_plugin(PROBE, &wasm::gzip(&wasm::component("engine-probe")))
        .await;
    let origins = json!([{"origin": "https://cloud.example.com"}]);
    let plugin = json!({
        "apiVersion": PLUGIN.api_version, "kind": "Plugin", "metadata": {"namespace": NAMESPACE, "name": PROBE},
        "spec": {
            "source": {"configMap": {"name": PROBE}},
            "config": {"do": "spin"},
            "limits": {"cpuMs": 30_000, "wallMs": 100_000},
            "grants": [{"capability": "http", "http": {"origins": origins}}],
        },
    });
    kube.apply(PLUGIN, &plugin).await;
    host.plugin_ready(PROBE).await;
    namespace(kube, "spinning").await;
    for number in 0..OBJECTS {
        let name = format!("probe-{number}");
        let metadata = json!({"namespace": "spinning", "name": name});
        let cluster = json!({
            "apiVersion": CLUSTER.api_version, "kind": "Cluster", "metadata": metadata,
            "spec": {"infrastructureRef": {
                "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "ProbeCluster", "name": name,
            }},
        });
        kube.apply(CLUSTER, &cluster).await;
        let infra = json!({
            "apiVersion": PROBE_CLUSTER.api_version, "kind": "ProbeCluster", "metadata": metadata, "spec": {},
        });
        kube.apply(PROBE_CLUSTER, &infra).await;
    }
}

/// Calls that the plugin has begun, by what it logs.
fn begun(process: &HostProcess) -> usize {
    let log = process.log();
    log.lines().filter(|line| line.contains("spins")).count()
}

#[test]
fn calls_that_never_end_keep_neither_the_lease_nor_other_clusters_waiting() {
    run(async {
        let host = TestHost::without_host().await;
        let process = start(&host);
        host.plugins_ready().await;
        misbehave(&host).await;
        eventually("all its calls are in flight", PATIENCE, async || {
            process.check()?;
            let count = begun(&process);
            (count >= CALLS).then_some(()).ok_or(format!("{count} are"))
        })
        .await;
        let before = lease(&host).await;
        let cluster = TestCluster::new("contained", "contained", 1);
        cluster.create(host.kube()).await;
        cluster.available(&host, 1).await;
        let time = |lease: &Value| lease["renewTime"].as_str().unwrap().parse::<Timestamp>();
        eventually("the lease is renewed", PATIENCE, async || {
            let now = lease(&host).await;
            let is_later = time(&now).unwrap() > time(&before).unwrap();
            is_later.then_some(()).ok_or(now.to_string())
        })
        .await;
        let after = lease(&host).await;
        for field in ["holderIdentity", "leaseTransitions", "acquireTime"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        // Not one of them had ended: the others went on beside all of them.
        assert_eq!(begun(&process), CALLS);
        for probe in host.kube().list(PROBE_CLUSTER, "spinning").await {
            assert!(probe["status"].get("initialization").is_none(), "{probe}");
        }
    });
}
