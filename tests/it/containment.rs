//! A plugin that misbehaves in all its calls keeps nothing waiting: not the Lease, not the objects of other plugins.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_engine::limit::{
    COMPILE_ADDRESS_SPACE_BYTES, COMPILE_CPU, COMPILED_BYTES_MAX, COMPILER_BYTES_MIN,
};
use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::{NAMESPACE, TestHost};
use capstan_tests::kube_client::{CLUSTER, Kind, PLUGIN};
use capstan_tests::process::HostProcess;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::process::Command;

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
        "--log-format=json",
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

/// The lines that the plugin logs say whose they are, in fields of their own.
fn attributed(process: &HostProcess) {
    let log = process.log();
    let mut calls = BTreeSet::new();
    for line in log.lines().filter(|line| line.contains("spins")) {
        let line: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        assert_eq!(
            (&line["target"], field("message")),
            (&json!("plugin"), "spins")
        );
        assert_eq!(field("plugin"), PROBE, "{line}");
        assert!(field("digest").starts_with("sha256:"), "{line}");
        assert!(
            field("object").starts_with("ProbeCluster spinning/probe-"),
            "{line}"
        );
        assert_eq!(field("call"), "ensure-cluster", "{line}");
        calls.insert(field("call_id").to_owned());
    }
    assert_eq!(calls.len(), CALLS, "{calls:?}");
    assert!(!calls.contains(""), "{log}");
}

/// Calls that the plugin has begun, by what it logs.
fn begun(process: &HostProcess) -> usize {
    let log = process.log();
    log.lines().filter(|line| line.contains("spins")).count()
}

/// Calls of all other plugins so far, and how many seconds they took together.
fn calls_of_others(process: &HostProcess) -> (f64, f64) {
    let text = process.metrics().unwrap();
    let all = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| {
            let of_probe = line.contains(&format!("plugin=\"{PROBE}\""));
            line.starts_with(name) && line.contains("plugin=") && !of_probe
        });
        let values = lines.map(|line| line.rsplit_once(' ').unwrap().1);
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    };
    let name = "capstan_plugin_call_duration_seconds";
    (
        all(&format!("{name}_count{{")),
        all(&format!("{name}_sum{{")),
    )
}

/// The times at which the Lease is renewed, until this has ended and there are two.
async fn renewals(host: &TestHost, has_ended: &AtomicBool) -> Vec<Timestamp> {
    let mut times: Vec<Timestamp> = Vec::new();
    eventually("the lease is renewed", PATIENCE, async || {
        let now = lease(host).await;
        let time = now["renewTime"].as_str().unwrap().parse().unwrap();
        if times.last() != Some(&time) {
            times.push(time);
        }
        let is_enough = has_ended.load(Ordering::Relaxed) && times.len() > 1;
        is_enough.then_some(()).ok_or(now.to_string())
    })
    .await;
    times
}

/// A limit of a process, as the kernel says it.
fn limit(limits: &str, name: &str) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

#[test]
fn the_compiler_has_limits_of_its_own_and_ends_before_the_host_does() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        // It waits for its component.
        let mut compiler = Command::new(wasm::program())
            .arg("compile")
            .arg(dir.path().join("code"))
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let own = format!("/proc/{}", compiler.id().unwrap());
        let read = |file: &str| std::fs::read_to_string(format!("{own}/{file}")).unwrap();
        let limits = eventually("it has limited itself", PATIENCE, async || {
            let limits = read("limits");
            // The last of those that nobody else sets.
            let file = limit(&limits, "Max file size");
            let is_set = file == Some(COMPILED_BYTES_MAX.to_string());
            is_set.then_some(limits.clone()).ok_or(limits)
        })
        .await;
        assert_eq!(read("oom_score_adj").trim(), "1000");
        let of = |name: &str| limit(&limits, name).unwrap().parse::<u64>();
        let memory = of("Max data size").unwrap();
        let host = u64::try_from(capstan_engine::limit_bytes()).unwrap();
        let least = u64::try_from(COMPILER_BYTES_MIN).unwrap();
        assert!(
            memory >= least && memory <= least.max(host / 2),
            "{memory} of {host}"
        );
        assert_eq!(of("Max address space"), Ok(COMPILE_ADDRESS_SPACE_BYTES));
        assert_eq!(of("Max cpu time"), Ok(COMPILE_CPU.as_secs()));
        assert_eq!(of("Max file size"), Ok(COMPILED_BYTES_MAX));
        compiler.kill().await.unwrap();
    });
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
        let (calls_before, seconds_before) = calls_of_others(&process);
        let has_ended = AtomicBool::new(false);
        let cluster = TestCluster::new("contained", "contained", 1);
        let work = async {
            cluster.create(host.kube()).await;
            cluster.available(&host, 1).await;
            has_ended.store(true, Ordering::Relaxed);
        };
        let (times, ()) = futures::join!(renewals(&host, &has_ended), work);
        let (calls, seconds) = calls_of_others(&process);
        let (calls, seconds) = (calls - calls_before, seconds - seconds_before);
        let pauses = times.windows(2).map(|two| two[1].duration_since(two[0]));
        println!(
            "while {CALLS} calls computed: {calls} calls of other plugins, {:.1} ms each; the Lease was renewed {} times, at most {} ms apart",
            seconds / calls * 1000.0,
            times.len() - 1,
            pauses.map(|pause| pause.as_millis()).max().unwrap()
        );
        assert!(calls > 0.0, "other plugins were called");
        let after = lease(&host).await;
        for field in ["holderIdentity", "leaseTransitions", "acquireTime"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        // Not one of them had ended: the others went on beside all of them.
        assert_eq!(begun(&process), CALLS);
        attributed(&process);
        for probe in host.kube().list(PROBE_CLUSTER, "spinning").await {
            assert!(probe["status"].get("initialization").is_none(), "{probe}");
        }
    });
}
