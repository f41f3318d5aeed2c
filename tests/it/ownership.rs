//! Who owns what: Machines and MachineSets of their own are the Cluster's, and a MachineDeployment takes in the sets that it selects.

use capstan_tests::cluster::namespace;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CLUSTER, Kind, MACHINE, MACHINE_DEPLOYMENT, MACHINE_SET};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

const NS: &str = "ownership";

fn infra(kind: &str) -> Value {
    json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": kind, "name": "none"})
}

fn object(kind: Kind, named: &str, name: &str, labels: &Value, spec: Value) -> (Kind, Value) {
    let object = json!({
        "apiVersion": kind.api_version, "kind": named,
        "metadata": {"namespace": NS, "name": name, "labels": labels}, "spec": spec,
    });
    (kind, object)
}

fn machine(name: &str, labels: &Value) -> (Kind, Value) {
    let spec = json!({
        "clusterName": "owner", "bootstrap": {"dataSecretName": "none"}, "infrastructureRef": infra("LocalMachine"),
    });
    object(MACHINE, "Machine", name, labels, spec)
}

/// A group without machines whose labels are these.
fn group(kind: Kind, named: &str, name: &str, app: &str) -> (Kind, Value) {
    let labels = json!({ "app": app });
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "clusterName": "owner", "bootstrap": {"dataSecretName": "none"},
            "infrastructureRef": infra("LocalMachineTemplate"),
        },
    });
    let spec = json!({
        "clusterName": "owner", "replicas": 0, "selector": {"matchLabels": labels}, "template": template,
    });
    object(kind, named, name, &labels, spec)
}

/// Waits until the host has looked at an object, and these are its owners: kind, name, whether it controls.
async fn owners_become(host: &TestHost, kind: Kind, name: &str, wanted: &[(&str, &str, bool)]) {
    let what = format!("{name} has its owners");
    eventually(&what, PATIENCE, async || {
        let object = host.kube().get(kind, NS, name).await.ok_or("it is gone")?;
        let metadata = &object["metadata"];
        if metadata["finalizers"].is_null() {
            return Err("nobody has looked at it".to_owned());
        }
        let mut owners = Vec::new();
        for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
            owners.push((
                owner["kind"].as_str().unwrap_or_default(),
                owner["name"].as_str().unwrap_or_default(),
                owner["controller"] == true,
            ));
        }
        owners.sort_unstable();
        (owners == wanted).then_some(()).ok_or(metadata.to_string())
    })
    .await;
}

#[test]
fn what_stands_alone_is_the_clusters_and_a_deployment_takes_in_the_sets_that_it_selects() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        namespace(kube, NS).await;
        let cluster = json!({"infrastructureRef": infra("LocalCluster")});
        let none = json!({});
        let of_set = json!({"cluster.x-k8s.io/set-name": "elsewhere"});
        for (kind, object) in [
            object(CLUSTER, "Cluster", "owner", &none, cluster),
            machine("alone", &none),
            machine("of-a-set", &of_set),
            group(MACHINE_SET, "MachineSet", "alone", "alone"),
            group(MACHINE_SET, "MachineSet", "orphan", "group"),
            group(MACHINE_DEPLOYMENT, "MachineDeployment", "group", "group"),
        ] {
            kube.try_create(kind, &object).await.unwrap();
        }
        let by_cluster = ("Cluster", "owner", false);
        owners_become(host, MACHINE, "alone", &[by_cluster]).await;
        owners_become(host, MACHINE, "of-a-set", &[]).await;
        owners_become(host, MACHINE_SET, "alone", &[by_cluster]).await;
        owners_become(host, MACHINE_DEPLOYMENT, "group", &[by_cluster]).await;
        eventually("the orphan is taken in", PATIENCE, async || {
            let orphan = kube.get(MACHINE_SET, NS, "orphan").await;
            let orphan = orphan.ok_or("it is gone")?;
            let owners = orphan["metadata"]["ownerReferences"].as_array().cloned();
            let owners = owners.unwrap_or_default();
            let mut controllers = owners.iter().filter(|owner| owner["controller"] == true);
            let is_it = controllers.next().is_some_and(|owner| {
                owner["kind"] == "MachineDeployment" && owner["name"] == "group"
            });
            is_it
                .then_some(())
                .ok_or(orphan["metadata"]["ownerReferences"].to_string())
        })
        .await;
        let alone = kube.get(MACHINE_SET, NS, "alone").await.unwrap();
        assert_eq!(
            alone["metadata"]["ownerReferences"]
                .as_array()
                .unwrap()
                .len(),
            1,
            "another's selector is not its own"
        );
        kube.delete(MACHINE, NS, "of-a-set").await;
        kube.delete(CLUSTER, NS, "owner").await;
        eventually("all is gone", PATIENCE, async || {
            for kind in [MACHINE, MACHINE_SET, MACHINE_DEPLOYMENT, CLUSTER] {
                if let Some(left) = kube.list(kind, NS).await.first() {
                    return Err(left.to_string());
                }
            }
            Ok(())
        })
        .await;
    });
}
