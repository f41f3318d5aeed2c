//! Objects that cannot work are refused by the server or say so in a condition that names the field; nothing is made from them.

use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CLUSTER, Kind, LOCAL_MACHINE, MACHINE, MACHINE_DEPLOYMENT, MACHINE_POOL,
    MACHINE_SET, condition, conditions,
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
fn a_pool_of_what_plugins_make_is_refused_by_field_and_nothing_is_made_of_it() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "bad-pool");
        namespace(kube, ns).await;
        let cluster = TestCluster::new(ns, "pooled", 1);
        kube.apply(CLUSTER, &object(&cluster, CLUSTER)).await;
        // Like a deployment, but without a selector; a config to take over, and an infrastructure machine that is somebody's.
        let mut pool = object(&cluster, MACHINE_DEPLOYMENT);
        pool["kind"] = json!("MachinePool");
        pool["spec"].as_object_mut().unwrap().remove("selector");
        let template = &mut pool["spec"]["template"]["spec"];
        template["infrastructureRef"] = infra();
        template["bootstrap"]["configRef"]["kind"] = json!("KubeadmConfig");
        let own = json!({"namespace": ns, "name": "bad"});
        let machine = json!({
            "apiVersion": LOCAL_MACHINE.api_version, "kind": "LocalMachine", "metadata": own, "spec": {},
        });
        kube.apply(LOCAL_MACHINE, &machine).await;
        let config = json!({
            "apiVersion": BOOTSTRAP_CONFIG.api_version, "kind": "KubeadmConfig",
            "metadata": {"namespace": ns, "name": cluster.deployment()}, "spec": {"format": "cloud-config"},
        });
        kube.apply(BOOTSTRAP_CONFIG, &config).await;
        kube.apply(MACHINE_POOL, &pool).await;
        let named = "spec.template.spec.infrastructureRef: LocalMachine is a kind of plugin infrastructure-local";
        eventually(
            "the field and the way out are named",
            PATIENCE,
            async || {
                let pool = kube.get(MACHINE_POOL, ns, &cluster.deployment()).await;
                let pool = pool.ok_or("it is not there")?;
                let ready = condition(&pool, "InfrastructureReady");
                let is_named = ready.reason == "ReferenceNotSupported"
                    && ready.message.contains(named)
                    && ready.message.contains("use a MachineDeployment");
                is_named.then_some(()).ok_or(conditions(&pool))
            },
        )
        .await;
        for (kind, name) in [
            (LOCAL_MACHINE, "bad"),
            (BOOTSTRAP_CONFIG, &*cluster.deployment()),
        ] {
            let object = kube.get(kind, ns, name).await.unwrap();
            assert!(object["metadata"]["ownerReferences"].is_null(), "{object}");
        }
        kube.delete(CLUSTER, ns, &cluster.name).await;
        eventually("gone", PATIENCE, async || {
            let left = kube.list(MACHINE_POOL, ns).await.len() + kube.list(CLUSTER, ns).await.len();
            (left == 0).then_some(()).ok_or(format!("{left} are left"))
        })
        .await;
        for (kind, name) in [
            (LOCAL_MACHINE, "bad"),
            (BOOTSTRAP_CONFIG, &*cluster.deployment()),
        ] {
            assert!(kube.get(kind, ns, name).await.is_some(), "it is somebody's");
            kube.delete(kind, ns, name).await;
        }
    });
}
