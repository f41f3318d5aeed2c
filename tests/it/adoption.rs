//! A control plane that takes over a machine which was made without one: refused while it does not fit, and then as it is.

use capstan_tests::cluster::VERSION_NEXT;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CONTROL_PLANE, LOCAL_MACHINE_TEMPLATE, MACHINE, SECRET, condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

use crate::bootstrap::{bare_cluster, data, machine};

const NAME: &str = "adopted";

async fn control_plane(host: &TestHost, version: &str) {
    let template = json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": NAME});
    let plane = json!({
        "apiVersion": CONTROL_PLANE.api_version, "kind": "KubeadmControlPlane",
        "metadata": {"namespace": NAME, "name": NAME},
        "spec": {
            "replicas": 1, "version": version,
            "machineTemplate": {"spec": {"infrastructureRef": template}},
            "kubeadmConfigSpec": config(),
        },
    });
    host.kube().apply(CONTROL_PLANE, &plane).await;
}

fn config() -> Value {
    json!({"initConfiguration": {"nodeRegistration": {"kubeletExtraArgs": [{"name": "v", "value": "2"}]}}})
}

async fn plane_says(host: &TestHost, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, PATIENCE, async || {
        let plane = host.kube().get(CONTROL_PLANE, NAME, NAME).await;
        let plane = plane.ok_or("there is none")?;
        if is(&plane) {
            return Ok(plane);
        }
        let machine = host.kube().get(MACHINE, NAME, "by-hand").await;
        let machine = machine.map(|machine| conditions(&machine));
        Err(format!(
            "{} {} {machine:?}",
            plane["status"],
            conditions(&plane)
        ))
    })
    .await
}

#[test]
fn a_machine_that_was_made_by_hand_is_taken_over_as_it_is() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        bare_cluster(kube, NAME).await;
        machine(kube, NAME, "by-hand", config()).await;
        data(kube, NAME, "by-hand").await;
        let template = json!({
            "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
            "metadata": {"namespace": NAME, "name": NAME},
            "spec": {"template": {"spec": {"instanceType": "small"}}},
        });
        kube.apply(LOCAL_MACHINE_TEMPLATE, &template).await;
        let before = kube.get(MACHINE, NAME, "by-hand").await.unwrap();
        let instance = async || {
            let all = host.cloud.of_cluster("instances", NAME, NAME).await;
            let of_machine = all.iter().find(|it| it["name"] == "by-hand");
            of_machine.map(|it| it["id"].clone())
        };
        let booted = eventually("the machine boots", PATIENCE, async || {
            instance().await.ok_or("there is no instance".to_owned())
        })
        .await;

        // Two minor versions apart: nothing is touched, and it is said why.
        control_plane(host, "v1.34.0").await;
        let reference = json!({"spec": {"controlPlaneRef": {
            "apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": NAME,
        }}});
        kube.merge(CLUSTER, NAME, NAME, &reference).await;
        plane_says(host, "the refusal is said", |plane| {
            let said = condition(plane, "ScalingUp").message;
            said.contains("Machine by-hand") && said.contains("more than one minor version")
        })
        .await;
        let ca = kube.get(SECRET, NAME, "adopted-ca").await.unwrap();
        assert_eq!(
            ca["metadata"]["ownerReferences"][0]["kind"],
            "KubeadmConfig"
        );
        kube.delete(CONTROL_PLANE, NAME, NAME).await;
        eventually("the refused one is gone", PATIENCE, async || {
            let left = kube.get(CONTROL_PLANE, NAME, NAME).await;
            left.map_or(Ok(()), |plane| Err(conditions(&plane)))
        })
        .await;

        control_plane(host, VERSION_NEXT).await;
        let plane = plane_says(host, "the control plane has its machine", |plane| {
            plane["status"]["upToDateReplicas"] == 1
                && plane["status"]["readyReplicas"] == 1
                && condition(plane, "Available").status == "True"
                && condition(plane, "RollingOut").status == "False"
        })
        .await;
        let after = kube.get(MACHINE, NAME, "by-hand").await.unwrap();
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
        let owners = after["metadata"]["ownerReferences"].as_array().unwrap();
        let controller = owners
            .iter()
            .find(|owner| owner["controller"] == true)
            .unwrap();
        assert_eq!(controller["uid"], plane["metadata"]["uid"]);
        let hook = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup";
        assert_eq!(after["metadata"]["annotations"][hook], "");
        assert_eq!(
            instance().await,
            Some(booted),
            "the machine itself was left alone"
        );
        let secret = kube.get(SECRET, NAME, "adopted-ca").await.unwrap();
        assert_eq!(
            secret["data"], ca["data"],
            "the cluster keeps its authority"
        );
        assert_eq!(
            secret["metadata"]["ownerReferences"][0]["kind"],
            "KubeadmControlPlane"
        );
        let listed = plane["status"]["certificates"].as_array().unwrap();
        assert!(
            listed.iter().any(|certificate| certificate["name"] == "ca"),
            "{listed:?}"
        );
        kube.delete(CLUSTER, NAME, NAME).await;
        eventually("the Cluster is gone", PATIENCE, async || {
            let left = kube.get(CLUSTER, NAME, NAME).await;
            left.map_or(Ok(()), |cluster| Err(conditions(&cluster)))
        })
        .await;
    });
}
