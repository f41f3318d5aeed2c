//! Objects that cannot work are refused by the server or say so in a condition that names the field; nothing is made from them.

use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, Kind, LOCAL_MACHINE, MACHINE, MACHINE_DEPLOYMENT, MACHINE_POOL, MACHINE_SET,
    condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

/// An object of the usual cluster.
fn object(cluster: &TestCluster, kind: Kind) -> Value {
    let objects = cluster.objects();
    objects.into_iter().find(|(k, _)| *k == kind).unwrap().1
}

/// The server refuses the object, and its words name the field.
async fn refused(host: &TestHost, kind: Kind, object: &Value, field: &str) {
    let refusal = host.kube().try_create(kind, object).await.unwrap_err();
    assert_eq!(refusal.code, 422, "{}", refusal.message);
    assert!(
        refusal.message.contains(field),
        "{field}: {}",
        refusal.message
    );
}

fn machine(namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": MACHINE.api_version, "kind": "Machine",
        "metadata": {"namespace": namespace, "name": "bad"}, "spec": spec,
    })
}

fn infra() -> Value {
    json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": "bad"})
}

#[test]
fn a_machine_without_a_bootstrap_source_is_refused() {
    run(async {
        let host = TestHost::shared().await;
        namespace(host.kube(), "bad-machine").await;
        let spec = json!({"clusterName": "c", "bootstrap": {}, "infrastructureRef": infra()});
        refused(
            host,
            MACHINE,
            &machine("bad-machine", spec),
            "spec.bootstrap",
        )
        .await;
        let none = json!({"clusterName": "c", "infrastructureRef": infra()});
        refused(
            host,
            MACHINE,
            &machine("bad-machine", none),
            "spec.bootstrap",
        )
        .await;
    });
}

#[test]
fn a_version_that_is_none_is_refused() {
    run(async {
        let host = TestHost::shared().await;
        namespace(host.kube(), "bad-version").await;
        let spec = json!({
            "clusterName": "c", "version": "latest", "infrastructureRef": infra(),
            "bootstrap": {"dataSecretName": "data"},
        });
        refused(host, MACHINE, &machine("bad-version", spec), "spec.version").await;
        let cluster = TestCluster::new("bad-version", "bad", 1);
        let mut deployment = object(&cluster, MACHINE_DEPLOYMENT);
        deployment["spec"]["template"]["spec"]["version"] = json!("1.x");
        refused(
            host,
            MACHINE_DEPLOYMENT,
            &deployment,
            "spec.template.spec.version",
        )
        .await;
    });
}

#[test]
fn a_selector_that_does_not_match_is_refused() {
    run(async {
        let host = TestHost::shared().await;
        namespace(host.kube(), "bad-selector").await;
        let cluster = TestCluster::new("bad-selector", "bad", 1);
        let mut deployment = object(&cluster, MACHINE_DEPLOYMENT);
        deployment["spec"]["selector"] = json!({"matchLabels": {"some": "other"}});
        refused(host, MACHINE_DEPLOYMENT, &deployment, "selector").await;
        assert!(
            host.kube()
                .list(MACHINE_SET, "bad-selector")
                .await
                .is_empty()
        );
    });
}

#[test]
fn a_missing_reference_is_named_and_nothing_is_made() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("bad-reference", "bad", 1);
        namespace(kube, &cluster.namespace).await;
        // A Cluster whose infrastructure and control plane do not exist, and a deployment without its templates.
        kube.apply(CLUSTER, &object(&cluster, CLUSTER)).await;
        kube.apply(MACHINE_DEPLOYMENT, &object(&cluster, MACHINE_DEPLOYMENT))
            .await;
        eventually(
            "the Cluster names its infrastructure",
            PATIENCE,
            async || {
                let object = kube
                    .get(CLUSTER, &cluster.namespace, &cluster.name)
                    .await
                    .unwrap();
                let ready = condition(&object, "InfrastructureReady");
                let is_named = ready.status == "False" && ready.message.contains("LocalCluster");
                is_named.then_some(()).ok_or(conditions(&object))
            },
        )
        .await;
        eventually("the deployment names its template", PATIENCE, async || {
            let name = cluster.deployment();
            let object = kube
                .get(MACHINE_DEPLOYMENT, &cluster.namespace, &name)
                .await
                .unwrap();
            let all = conditions(&object);
            let is_named =
                all.contains("KubeadmConfigTemplate") || all.contains("LocalMachineTemplate");
            is_named.then_some(()).ok_or(all)
        })
        .await;
        assert!(kube.list(MACHINE, &cluster.namespace).await.is_empty());
        assert!(
            kube.list(LOCAL_MACHINE, &cluster.namespace)
                .await
                .is_empty()
        );
        kube.delete(CLUSTER, &cluster.namespace, &cluster.name)
            .await;
        eventually("gone", PATIENCE, async || cluster.is_gone(kube).await).await;
    });
}

#[test]
fn a_kind_that_nobody_serves_is_named() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("bad-kind", "bad", 1);
        namespace(kube, &cluster.namespace).await;
        let mut object_ = object(&cluster, CLUSTER);
        object_["spec"]["infrastructureRef"]["kind"] = json!("NobodysCluster");
        kube.apply(CLUSTER, &object_).await;
        eventually("the kind is named", PATIENCE, async || {
            let object = kube
                .get(CLUSTER, &cluster.namespace, &cluster.name)
                .await
                .unwrap();
            let ready = condition(&object, "InfrastructureReady");
            let is_named = ready.status != "True" && ready.message.contains("NobodysCluster");
            is_named.then_some(()).ok_or(conditions(&object))
        })
        .await;
        kube.delete(CLUSTER, &cluster.namespace, &cluster.name)
            .await;
        eventually("gone", PATIENCE, async || cluster.is_gone(kube).await).await;
    });
}

#[test]
fn machine_pools_are_served_and_refused_with_what_to_use_instead() {
    run(async {
        let host = TestHost::shared().await;
        namespace(host.kube(), "bad-pool").await;
        let cluster = TestCluster::new("bad-pool", "pooled", 1);
        let mut pool = object(&cluster, MACHINE_DEPLOYMENT);
        pool["kind"] = json!("MachinePool");
        pool["spec"].as_object_mut().unwrap().remove("selector");
        refused(host, MACHINE_POOL, &pool, "use a MachineDeployment").await;
        assert!(host.kube().list(MACHINE_POOL, "bad-pool").await.is_empty());
    });
}
