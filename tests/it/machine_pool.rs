//! Pools of machines whose infrastructure provider is the test: what the host makes of what the provider says, over the contract.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::{TestCluster, VERSION};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CLUSTER, CONTROL_PLANE, Kube, MACHINE, MACHINE_POOL, NODE, SECRET, condition,
    conditions, name,
};
use capstan_tests::pool::{SCALE_SET_HOSTS, SCALE_SETS, TestPool};
use capstan_tests::{PATIENCE, eventually, run};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::writes::{settle, stays_settled};

const NODE_OF: [&str; 2] = ["cluster.x-k8s.io/owner-kind", "cluster.x-k8s.io/owner-name"];

/// Kind and name of the controller of an object.
fn controller(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owner = owners
        .into_iter()
        .flatten()
        .find(|o| o["controller"] == true);
    owner.map_or_else(String::new, |owner| {
        let text = |field: &str| owner[field].as_str().unwrap();
        format!("{} {}", text("kind"), text("name"))
    })
}

/// Whether the pool runs with Nodes for all of this many machines.
fn runs(pool: &Value, machines: usize) -> bool {
    let nodes = pool["status"]["nodeRefs"].as_array().map_or(0, Vec::len);
    nodes == machines
        && pool["status"]["phase"] == "Running"
        && pool["status"]["replicas"] == machines
        && condition(pool, "Available").status == "True"
        && pool["status"]["observedGeneration"] == pool["metadata"]["generation"]
}

fn text(secret: &Value, key: &str) -> String {
    let bytes = BASE64.decode(secret["data"][key].as_str().unwrap());
    String::from_utf8(bytes.unwrap()).unwrap()
}

fn token(secret: &Value) -> String {
    let id = &secret["metadata"]["annotations"]["capstan.dev/join-token"];
    id.as_str().unwrap().to_owned()
}

/// What an autoscaler asks and says of a pool: `/scale`.
async fn scale(kube: &Kube, ns: &str, pool: &str, was: u64, replicas: u64) {
    let path = format!("{}/scale", MACHINE_POOL.path(ns, Some(pool)));
    let scale = kube
        .send(Method::GET, &path, "application/json", None)
        .await;
    let scale = scale.unwrap();
    assert_eq!(
        (
            &scale["kind"],
            &scale["spec"]["replicas"],
            &scale["status"]["replicas"]
        ),
        (&json!("Scale"), &json!(was), &json!(was))
    );
    let patch = json!({"spec": {"replicas": replicas}});
    let merge = "application/merge-patch+json";
    let answer = kube.send(Method::PATCH, &path, merge, Some(&patch)).await;
    assert_eq!(answer.unwrap()["spec"]["replicas"], replicas);
}

#[test]
fn a_pool_follows_its_provider_and_keeps_machines_able_to_join() {
    run(async {
        let mut host = TestHost::start().await;
        let cluster = TestCluster::new("pooled", "pooled", 0);
        cluster.create(host.kube()).await;
        cluster.available(&host, 0).await;
        let workload = cluster.workload(host.kube()).await;
        let ids = {
            let pool = TestPool::create(&host, &cluster, "pool", 2).await;
            let ids = grows(&host, &cluster, &pool, &workload).await;
            is_at_rest(&host).await;
            scales(&host, &cluster, &pool, &workload, ids).await
        };
        let old = expire(&host, &cluster, &workload).await;
        host.kill();
        host.run_in_process().await;
        host.plugins_ready().await;
        let ids = rotates(&host, &cluster, &workload, &old, ids).await;
        // And once more, when it is gone altogether.
        let kube = host.kube();
        let secret = kube.get(SECRET, "pooled", "pool").await.unwrap();
        let gone = format!("bootstrap-token-{}", token(&secret));
        workload.delete(SECRET, "kube-system", &gone).await;
        host.kill();
        host.run_in_process().await;
        host.plugins_ready().await;
        let kube = host.kube();
        eventually("another token is in the data", PATIENCE, async || {
            let now = kube.get(SECRET, "pooled", "pool").await.unwrap();
            let is_new = now["data"]["value"] != secret["data"]["value"];
            let there = format!("bootstrap-token-{}", token(&now));
            let there = workload.get(SECRET, "kube-system", &there).await;
            (is_new && there.is_some())
                .then_some(())
                .ok_or("the data is as it was".to_owned())
        })
        .await;
        goes(&host, &cluster, &workload, ids).await;
        cluster.delete(&host).await;
    });
}

/// Two machines come, and the pool shows them.
async fn grows(
    host: &TestHost,
    cluster: &TestCluster,
    pool: &TestPool<'_>,
    workload: &Kube,
) -> Vec<String> {
    let (kube, ns) = (host.kube(), &*cluster.namespace);
    let data = pool.data().await;
    assert!(
        !text(&data, "value").contains("bootstrap-report"),
        "machines that share their data cannot each report once"
    );
    let before = pool
        .becomes("it waits for its infrastructure", |pool| {
            pool["status"]["phase"] == "Provisioning"
        })
        .await;
    assert_eq!(controller(&before), "");
    let owner = &before["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"]),
        (&json!("Cluster"), &json!("pooled"))
    );
    let label = "cluster.x-k8s.io/cluster-name";
    for kind in [SCALE_SETS, BOOTSTRAP_CONFIG] {
        let object = kube.get(kind, ns, "pool").await.unwrap();
        assert_eq!(controller(&object), "MachinePool pool");
        assert_eq!(object["metadata"]["labels"][label], "pooled");
    }
    let initialization = &before["status"]["initialization"];
    let wanted = json!({"infrastructureProvisioned": false, "bootstrapDataSecretCreated": true});
    assert_eq!(*initialization, wanted);

    let mut ids = Vec::new();
    for machine in ["one", "two"] {
        ids.push(pool.launch(machine).await);
    }
    // The place of providers that follow the code instead of the contract's text.
    pool.say(&ids, json!({"ready": true})).await;
    let shown = pool.becomes("it runs", |pool| runs(pool, 2)).await;
    assert_eq!(shown["spec"]["providerIDList"], json!(ids));
    assert_eq!(
        shown["status"]["initialization"]["infrastructureProvisioned"],
        true
    );
    assert_eq!(
        shown["status"]["versions"],
        json!([{"version": VERSION, "replicas": 2}])
    );
    for reference in shown["status"]["nodeRefs"].as_array().unwrap() {
        let node = workload
            .get(NODE, "", reference["name"].as_str().unwrap())
            .await
            .unwrap();
        assert_eq!(reference["uid"], node["metadata"]["uid"]);
        assert_eq!(
            (&reference["apiVersion"], &reference["kind"]),
            (&json!("v1"), &json!("Node"))
        );
        assert!(
            ids.iter()
                .any(|id| node["spec"]["providerID"] == id.as_str())
        );
    }
    eventually("Nodes know whose they are", PATIENCE, async || {
        for node in pool.nodes(workload).await {
            let node = workload.get(NODE, "", &node).await.unwrap();
            let annotations = &node["metadata"]["annotations"];
            let taints = node["spec"]["taints"].to_string();
            let is_told = NODE_OF.map(|key| &annotations[key]) == ["MachinePool", "pool"];
            if !is_told || taints.contains("uninitialized") {
                return Err(format!("{annotations} {taints}"));
            }
        }
        Ok(())
    })
    .await;
    ids
}

/// A pool that has what it wants costs nothing.
async fn is_at_rest(host: &TestHost) {
    let audit = host.plane.audit().unwrap();
    let begun = settle(&audit, audit.mark().unwrap()).await.end;
    stays_settled(&audit, begun).await;
}

/// Up by the autoscaler's requests, down to one with a pause in between: Nodes of machines that went go.
async fn scales(
    host: &TestHost,
    cluster: &TestCluster,
    pool: &TestPool<'_>,
    workload: &Kube,
    mut ids: Vec<String>,
) -> Vec<String> {
    let (kube, ns) = (host.kube(), &*cluster.namespace);
    scale(kube, ns, "pool", 2, 3).await;
    pool.becomes("it grows", |pool| pool["status"]["phase"] == "ScalingUp")
        .await;
    let by = |by: Value| json!({"metadata": {"annotations": {"cluster.x-k8s.io/replicas-managed-by": by}}});
    kube.merge(MACHINE_POOL, ns, "pool", &by(json!("somebody")))
        .await;
    pool.becomes("somebody else decides", |pool| {
        pool["status"]["phase"] == "Scaling"
    })
    .await;
    kube.merge(MACHINE_POOL, ns, "pool", &by(Value::Null)).await;
    ids.push(pool.launch("three").await);
    pool.say(&ids, json!({"ready": true})).await;
    pool.becomes("it has grown", |pool| runs(pool, 3)).await;

    scale(kube, ns, "pool", 3, 2).await;
    ids.pop();
    pool.say(&ids, json!({"ready": true})).await;
    pool.becomes("it has shrunk", |pool| runs(pool, 2)).await;
    eventually("the third Node is gone", PATIENCE, async || {
        let nodes = pool.nodes(workload).await;
        (nodes.len() == 2).then_some(()).ok_or(format!("{nodes:?}"))
    })
    .await;
    pool.terminate("three").await;

    // Paused, it does not follow, nor does it go when it is told to shrink.
    let pause = async |paused: bool| {
        let patch = json!({"spec": {"paused": paused}});
        kube.merge(CLUSTER, ns, &cluster.name, &patch).await;
    };
    pause(true).await;
    let is_paused = |pool: &Value| {
        let all = pool["status"]["conditions"].as_array();
        let paused = all.into_iter().flatten().find(|c| c["type"] == "Paused");
        paused.is_some_and(|paused| {
            paused["status"] == "True"
                && paused["observedGeneration"] == pool["metadata"]["generation"]
        })
    };
    pool.becomes("it is paused", is_paused).await;
    ids.pop();
    pool.say(&ids, json!({"ready": true})).await;
    scale(kube, ns, "pool", 2, 1).await;
    let paused = pool.becomes("it has seen the scaling", is_paused).await;
    assert_eq!(
        paused["spec"]["providerIDList"].as_array().unwrap().len(),
        2
    );
    assert_eq!(pool.nodes(workload).await.len(), 2);
    pause(false).await;
    pool.becomes("it goes on", |pool| runs(pool, 1)).await;
    eventually("the second Node is gone", PATIENCE, async || {
        let nodes = pool.nodes(workload).await;
        (nodes.len() == 1).then_some(()).ok_or(format!("{nodes:?}"))
    })
    .await;
    pool.terminate("two").await;
    ids
}

/// Lets the join token end in a minute. Answers the Secret with the data that has it.
async fn expire(host: &TestHost, cluster: &TestCluster, workload: &Kube) -> Value {
    let secret = host.kube().get(SECRET, &cluster.namespace, "pool").await;
    let secret = secret.unwrap();
    let soon = Timestamp::now() + SignedDuration::from_secs(60);
    let soon = Timestamp::from_second(soon.as_second()).unwrap();
    let patch = json!({"data": {"expiration": BASE64.encode(soon.to_string())}});
    let of = format!("bootstrap-token-{}", token(&secret));
    workload.merge(SECRET, "kube-system", &of, &patch).await;
    secret
}

/// Another token takes the place of one that ends soon, in data that a new machine joins with.
async fn rotates(
    host: &TestHost,
    cluster: &TestCluster,
    workload: &Kube,
    old: &Value,
    mut ids: Vec<String>,
) -> Vec<String> {
    let (kube, ns) = (host.kube(), &*cluster.namespace);
    let new = eventually("another token is in the data", PATIENCE, async || {
        let new = kube.get(SECRET, ns, "pool").await.unwrap();
        let is_new = token(&new) != token(old) && new["data"]["value"] != old["data"]["value"];
        is_new
            .then_some(new)
            .ok_or("the data is as it was".to_owned())
    })
    .await;
    assert!(text(&new, "value").contains(&format!("{}.", token(&new))));
    let still = format!("bootstrap-token-{}", token(old));
    assert!(
        workload.get(SECRET, "kube-system", &still).await.is_some(),
        "machines may be booting with the old one"
    );
    let pool = TestPool::known(host, cluster, "pool");
    ids.push(pool.launch("four").await);
    pool.say(&ids, json!({"initialization": {"provisioned": true}}))
        .await;
    scale(kube, ns, "pool", 1, 2).await;
    pool.becomes("a machine has joined with it", |pool| runs(pool, 2))
        .await;
    ids
}

/// The pool's objects go first, then the Nodes, then the pool.
async fn goes(host: &TestHost, cluster: &TestCluster, workload: &Kube, ids: Vec<String>) {
    let (kube, ns) = (host.kube(), &*cluster.namespace);
    let pool = TestPool::known(host, cluster, "pool");
    assert_eq!(pool.nodes(workload).await.len(), ids.len());
    kube.delete(MACHINE_POOL, ns, "pool").await;
    let waiting = pool
        .becomes("it waits for its provider", |pool| {
            let deleting = condition(pool, "Deleting");
            deleting.reason == "WaitingForInfrastructureDeletion"
                && !deleting.message.contains("KubeadmConfig")
        })
        .await;
    assert_eq!(waiting["status"]["phase"], "Deleting");
    assert!(
        condition(&waiting, "Deleting")
            .message
            .contains("ScaleSet pool")
    );
    assert!(kube.get(BOOTSTRAP_CONFIG, ns, "pool").await.is_none());
    let set = kube.get(SCALE_SETS, ns, "pool").await.unwrap();
    assert!(!set["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(pool.nodes(workload).await.len(), ids.len());
    pool.release().await;
    pool.is_gone().await;
    assert_eq!(pool.nodes(workload).await, Vec::<String>::new());
    for machine in ["one", "four"] {
        pool.terminate(machine).await;
    }
}

#[test]
fn machines_of_a_pool_are_machines_where_the_provider_shows_them() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "shown");
        let cluster = TestCluster::new(ns, "shown", 0);
        cluster.create(kube).await;
        cluster.available(host, 0).await;
        let workload = cluster.workload(kube).await;
        let pool = TestPool::create(host, &cluster, "pool", 2).await;
        let mut ids = Vec::new();
        for machine in ["alpha", "beta"] {
            let id = pool.launch(machine).await;
            pool.show(machine, &id).await;
            ids.push(id);
        }
        let status = json!({
            "initialization": {"provisioned": true}, "infrastructureMachineKind": "ScaleSetHost",
        });
        pool.say(&ids, status.clone()).await;
        let shown = pool.becomes("its Machines are ready", |pool| {
            runs(pool, 2) && pool["status"]["upToDateReplicas"] == 2
        });
        let shown = shown.await;
        assert_eq!(condition(&shown, "MachinesReady").status, "True");
        for machine in ["alpha", "beta"] {
            let object = kube.get(MACHINE, ns, machine).await.unwrap();
            assert_eq!(controller(&object), "MachinePool pool");
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["cluster.x-k8s.io/pool-name"], "pool");
            assert_eq!(labels["node.cluster.x-k8s.io/of"], "pool");
            assert_eq!(object["spec"]["bootstrap"], json!({"dataSecretName": ""}));
            assert_eq!(object["spec"]["version"], VERSION);
            assert_eq!(object["status"]["phase"], "Running");
            assert_eq!(condition(&object, "UpToDate").status, "True");
            let host = kube.get(SCALE_SET_HOSTS, ns, machine).await.unwrap();
            assert_eq!(controller(&host), format!("Machine {machine}"));
            let node = object["status"]["nodeRef"]["name"].as_str().unwrap();
            let node = workload.get(NODE, "", node).await.unwrap();
            let annotations = &node["metadata"]["annotations"];
            assert_eq!(annotations["cluster.x-k8s.io/machine"], machine);
            assert_eq!(
                NODE_OF.map(|key| &annotations[key]),
                ["MachinePool", "pool"]
            );
            assert_eq!(
                node["metadata"]["labels"]["node.cluster.x-k8s.io/of"],
                "pool"
            );
        }
        // The Cluster counts them, and leaves judging them to the pool.
        eventually("the Cluster counts them", PATIENCE, async || {
            let found = kube.get(CLUSTER, ns, "shown").await.unwrap();
            let workers = &found["status"]["workers"];
            let is_right = workers["replicas"] == 2
                && workers["desiredReplicas"] == 2
                && condition(&found, "WorkerMachinesReady").reason == "NoReplicas";
            is_right
                .then_some(())
                .ok_or(format!("{workers} {}", conditions(&found)))
        })
        .await;

        // One goes, as when an autoscaler chose it: its Machine drains, and its host and Node go.
        kube.delete(MACHINE, ns, "alpha").await;
        eventually("the first Machine is gone", PATIENCE, async || {
            let left = kube.list(MACHINE, ns).await;
            let left: Vec<String> = left.iter().map(name).collect();
            let host = kube.get(SCALE_SET_HOSTS, ns, "alpha").await;
            (!left.contains(&"alpha".to_owned()) && host.is_none())
                .then_some(())
                .ok_or(format!("{left:?}"))
        })
        .await;
        pool.terminate("alpha").await;
        ids.remove(0);
        pool.say(&ids, status).await;
        kube.scale(MACHINE_POOL, ns, "pool", 1).await;
        pool.becomes("one is left", |pool| runs(pool, 1)).await;
        assert_eq!(pool.nodes(&workload).await.len(), 1);

        // With the Cluster the pool goes before the control plane, which waits for it.
        kube.delete(CLUSTER, ns, "shown").await;
        eventually("the Cluster waits for the pool", PATIENCE, async || {
            let found = kube.get(CLUSTER, ns, "shown").await.ok_or("gone")?;
            let deleting = condition(&found, "Deleting");
            let is_told = deleting.reason == "WaitingForWorkersDeletion"
                && deleting.message.contains("* MachinePools: pool");
            is_told.then_some(()).ok_or(conditions(&found))
        })
        .await;
        pool.becomes("the pool goes", |pool| {
            pool["status"]["phase"] == "Deleting"
        })
        .await;
        let plane = kube.get(CONTROL_PLANE, ns, &cluster.control_plane()).await;
        assert!(plane.unwrap()["metadata"]["deletionTimestamp"].is_null());
        pool.terminate("beta").await;
        kube.try_delete(SCALE_SET_HOSTS, ns, "beta").await.ok();
        pool.release().await;
        pool.is_gone().await;
        eventually("gone", PATIENCE, async || cluster.is_gone(kube).await).await;
    });
}
