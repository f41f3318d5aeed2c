//! `capstan plan object`: controllers and plugins say what they would do while no host is at work, and nothing is done.

use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, LOCAL_CLUSTER, LOCAL_MACHINE, MACHINE_DEPLOYMENT, MACHINE_SET, name,
};
use capstan_tests::run;
use serde_json::{Value, json};

/// What would be done with an object: the controllers' turns.
fn plan(host: &TestHost, namespace: &str, object: &str) -> Vec<Value> {
    let output = host.plan(&["object", object, "-n", namespace, "-o", "json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{object}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn effects(turns: &[Value]) -> Vec<String> {
    let effects = turns
        .iter()
        .flat_map(|turn| turn["effects"].as_array().unwrap());
    let text = |effect: &Value, field: &str| effect[field].as_str().unwrap().to_owned();
    effects
        .map(|effect| {
            let (place, verb) = (text(effect, "place"), text(effect, "verb"));
            format!(
                "{place} {verb} {} {}",
                text(effect, "what"),
                effect["fields"]
            )
        })
        .collect()
}

#[test]
fn what_controllers_and_plugins_would_do_is_listed_and_not_done() {
    run(async {
        let mut host = TestHost::start_process().await;
        let cluster = TestCluster::new("rehearsed", "quick", 1);
        cluster.create(host.kube()).await;
        cluster.available(&host, 1).await;
        host.kill();
        let (kube, ns) = (host.kube(), cluster.namespace.as_str());
        let deployment = cluster.deployment();

        // A deployment that wants more: its set would get them.
        kube.scale(MACHINE_DEPLOYMENT, ns, &deployment, 3).await;
        let set = name(&kube.list(MACHINE_SET, ns).await[0]);
        let turns = plan(&host, ns, &format!("machinedeployment/{deployment}"));
        let said = effects(&turns);
        let grows = format!("management patch MachineSet {ns}/{set} ");
        assert!(
            said.iter()
                .any(|e| e.starts_with(&grows) && e.contains("spec.replicas")),
            "{turns:#?}"
        );
        let sets = kube.list(MACHINE_SET, ns).await;
        assert_eq!(sets[0]["spec"]["replicas"], 1, "nothing was done");

        // What is there is looked up in the cloud, and nothing is to do.
        let machine = name(&kube.list(LOCAL_MACHINE, ns).await[0]);
        let turns = plan(&host, ns, &format!("localmachines/{machine}"));
        let said = effects(&turns);
        assert!(
            !said.iter().any(|effect| effect.starts_with("plugin")),
            "{said:#?}"
        );

        // What is not there the plugin would make: it says what it would ask the cloud.
        let another = TestCluster::new(ns, "another", 1);
        let objects = another.objects();
        for (kind, object) in &objects[..2] {
            kube.apply(*kind, object).await;
        }
        let owner = kube.get(CLUSTER, ns, "another").await.unwrap();
        let owned = json!({"metadata": {"ownerReferences": [{
            "apiVersion": CLUSTER.api_version, "kind": "Cluster", "name": "another", "uid": owner["metadata"]["uid"],
        }]}});
        kube.merge(LOCAL_CLUSTER, ns, "another", &owned).await;
        let said = effects(&plan(&host, ns, "LocalCluster/another"));
        let asks = |e: &String| e.starts_with("plugin http POST ") && e.contains("/v1/networks");
        assert!(said.iter().any(asks), "{said:#?}");
        assert!(host.cloud.has_nothing_of(ns, "another").await.is_ok());
        let untouched = kube.get(LOCAL_CLUSTER, ns, "another").await.unwrap();
        assert!(untouched["metadata"]["finalizers"].is_null(), "{untouched}");

        host.run_process();
        cluster.available(&host, 3).await;
    });
}
