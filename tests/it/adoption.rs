//! A control plane that takes over machines which were made without one: refused while they do not fit, and then as they are.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_controllers::pki;
use capstan_core::material::KeyAlgorithm;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::control_plane;
use capstan_tests::etcd::TestEtcd;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CONTROL_PLANE, LOCAL_CLUSTER, LOCAL_MACHINE, LOCAL_MACHINE_TEMPLATE, MACHINE, SECRET,
    condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

use crate::bootstrap::{bare_cluster, data, machine};

const NAME: &str = "adopted";

fn plane(name: &str, replicas: u32, version: &str) -> Value {
    let template = json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": name});
    json!({
        "apiVersion": CONTROL_PLANE.api_version, "kind": "KubeadmControlPlane",
        "metadata": {"namespace": name, "name": name},
        "spec": {
            "replicas": replicas, "version": version,
            "machineTemplate": {"spec": {"infrastructureRef": template}},
            "kubeadmConfigSpec": config(),
        },
    })
}

/// The template that machines of the control plane are made from.
async fn template(host: &TestHost, name: &str) {
    let template = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
        "metadata": {"namespace": name, "name": name},
        "spec": {"template": {"spec": {"instanceType": "small"}}},
    });
    host.kube().apply(LOCAL_MACHINE_TEMPLATE, &template).await;
}

/// The Cluster gets this control plane.
async fn refer(host: &TestHost, name: &str, plane: &Value) {
    let reference = json!({"spec": {"controlPlaneRef": {
        "apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": plane["metadata"]["name"],
    }}});
    host.kube().merge(CLUSTER, name, name, &reference).await;
}

async fn deleted(host: &TestHost, name: &str) {
    host.kube().delete(CLUSTER, name, name).await;
    eventually("the Cluster is gone", PATIENCE, async || {
        let left = host.kube().get(CLUSTER, name, name).await;
        left.map_or(Ok(()), |cluster| Err(conditions(&cluster)))
    })
    .await;
}

/// What `capstan plan adopt` says about a control plane that need not exist: its exit code, and the plan.
fn planned(host: &TestHost, plane: &Value) -> (i32, Value) {
    let name = plane["metadata"]["namespace"].as_str().unwrap();
    let file = host.plane.dir().join(format!("{name}.json"));
    fs::write(&file, plane.to_string()).unwrap();
    let output = host.plan(&[
        "adopt",
        "-f",
        file.to_str().unwrap(),
        "--cluster",
        name,
        "-n",
        name,
        "-o",
        "json",
    ]);
    let plan = serde_json::from_slice(&output.stdout);
    let plan = plan.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), plan)
}

/// How machines are bootstrapped: the first, and those that join it.
fn config() -> Value {
    let registration = json!({"kubeletExtraArgs": [{"name": "v", "value": "2"}]});
    json!({
        "initConfiguration": {"nodeRegistration": registration},
        "joinConfiguration": {"nodeRegistration": registration},
    })
}

/// The part of it that a machine needs.
fn part(name: &str) -> Value {
    json!({name: config()[name]})
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

/// Kind of an object's controller.
fn controller_of(object: &Value) -> &str {
    let owners = object["metadata"]["ownerReferences"].as_array().unwrap();
    let controller = owners.iter().find(|owner| owner["controller"] == true);
    controller.and_then(|owner| owner["kind"].as_str()).unwrap()
}

#[test]
fn a_server_of_another_cluster_is_named_with_what_to_correct() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let real = TestCluster::new("real", "real", 0);
        real.create(kube).await;
        real.available(host, 0).await;
        let served = kube.get(CLUSTER, "real", "real").await.unwrap();
        let endpoint = served["spec"]["controlPlaneEndpoint"].clone();
        // The same server with another authority.
        let other = pki::certificate_authority(
            "kubernetes",
            KeyAlgorithm::EcdsaP256,
            0,
            jiff::Timestamp::now(),
        )
        .unwrap();
        let authority = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "real", "name": "stranger-ca"}, "data": data});
        let encoded = |text: &str| BASE64.encode(text);
        let wrong = json!({"tls.crt": encoded(&other.public), "tls.key": encoded(&other.private)});
        kube.apply(SECRET, &authority(wrong)).await;
        let metadata = json!({"namespace": "real", "name": "stranger"});
        let infra = json!({"apiVersion": LOCAL_CLUSTER.api_version, "kind": "LocalCluster", "metadata": metadata, "spec": {}});
        kube.apply(LOCAL_CLUSTER, &infra).await;
        let reference = json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalCluster", "name": "stranger"});
        let stranger = json!({
            "apiVersion": CLUSTER.api_version, "kind": "Cluster", "metadata": metadata,
            "spec": {"controlPlaneEndpoint": endpoint, "infrastructureRef": reference},
        });
        kube.apply(CLUSTER, &stranger).await;
        let probe = async || {
            let stranger = kube.get(CLUSTER, "real", "stranger").await.unwrap();
            condition(&stranger, "RemoteConnectionProbe")
        };
        eventually("the cause is said", PATIENCE, async || {
            let said = probe().await;
            let words = [
                "stranger-ca does not vouch for",
                "spec.controlPlaneEndpoint",
            ];
            let is_said = words.iter().all(|word| said.message.contains(word));
            is_said.then_some(()).ok_or_else(|| format!("{said:?}"))
        })
        .await;
        let right = kube.get(SECRET, "real", "real-ca").await.unwrap();
        kube.apply(SECRET, &authority(right["data"].clone())).await;
        eventually("it answers with the right one", PATIENCE, async || {
            let said = probe().await;
            (said.status == "True")
                .then_some(())
                .ok_or_else(|| format!("{said:?}"))
        })
        .await;
        kube.delete(CLUSTER, "real", "stranger").await;
        eventually("the stranger is gone", PATIENCE, async || {
            let left = kube.get(CLUSTER, "real", "stranger").await;
            left.map_or(Ok(()), |cluster| Err(conditions(&cluster)))
        })
        .await;
        kube.delete(CLUSTER, "real", "real").await;
    });
}

#[test]
fn a_machine_that_was_made_by_hand_is_taken_over_as_it_is() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        bare_cluster(kube, NAME).await;
        machine(kube, NAME, "by-hand", part("initConfiguration")).await;
        data(kube, NAME, "by-hand").await;
        template(host, NAME).await;
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

        let kubeconfig = eventually("the Cluster has its kubeconfig", PATIENCE, async || {
            let made = kube.get(SECRET, NAME, "adopted-kubeconfig").await;
            made.ok_or("there is none".to_owned())
        })
        .await;
        assert_eq!(controller_of(&kubeconfig), "Cluster");

        // Two minor versions apart: nothing is touched, and it is said why.
        let far = plane(NAME, 1, "v1.34.0");
        let (code, plan) = planned(host, &far);
        let refused = plan["refused"].to_string();
        let is_said = ["Machine by-hand", "more than one minor version"];
        let is_said = is_said.iter().all(|words| refused.contains(words));
        assert!(code == 2 && is_said, "{code} {plan}");
        kube.apply(CONTROL_PLANE, &far).await;
        refer(host, NAME, &far).await;
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

        // What the machine was made from is told by its infrastructure machine.
        let made_from = async |template: &Value| {
            let patch = json!({"metadata": {"annotations": {"cluster.x-k8s.io/cloned-from-name": template}}});
            kube.merge(LOCAL_MACHINE, NAME, "by-hand", &patch).await;
        };
        made_from(&json!("another")).await;
        let right = plane(NAME, 1, VERSION_NEXT);
        let (code, plan) = planned(host, &right);
        assert_eq!((code, &plan["refused"]), (0, &json!([])), "{plan}");
        let replaced = json!([{"machine": "by-hand", "why": ["LocalMachine is not up-to-date"]}]);
        assert_eq!(plan["replaced"], replaced);
        made_from(&Value::Null).await;
        let (_, plan) = planned(host, &right);
        assert_eq!(
            (&plan["refused"], &plan["replaced"]),
            (&json!([]), &json!([]))
        );

        kube.apply(CONTROL_PLANE, &right).await;
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
        let taken = kube.get(SECRET, NAME, "adopted-kubeconfig").await.unwrap();
        assert_eq!(controller_of(&taken), "KubeadmControlPlane");
        assert_eq!(taken["data"], kubeconfig["data"], "it is good for months");
        let listed = plane["status"]["certificates"].as_array().unwrap();
        assert!(
            listed.iter().any(|certificate| certificate["name"] == "ca"),
            "{listed:?}"
        );
        deleted(host, NAME).await;
    });
}

#[test]
fn three_machines_with_their_members_are_taken_over_together() {
    run(async {
        let (host, name) = (TestHost::shared().await, "adopted-three");
        let kube = host.kube();
        bare_cluster(kube, name).await;
        template(host, name).await;
        let names = ["first", "second", "third"];
        let parts = [
            "initConfiguration",
            "joinConfiguration",
            "joinConfiguration",
        ];
        for (machine_name, its) in names.into_iter().zip(parts) {
            machine(kube, name, machine_name, part(its)).await;
            eventually("the machine has its Node", PATIENCE, async || {
                let machine = kube.get(MACHINE, name, machine_name).await.unwrap();
                let node = &machine["status"]["nodeRef"]["name"];
                node.is_string().then_some(()).ok_or(conditions(&machine))
            })
            .await;
        }
        let cluster = TestCluster::new(name, name, 0);
        let members = async || {
            let view = TestEtcd::of_cluster(kube, &cluster).await.view().await;
            let members = view.unwrap().members;
            let ids = members.into_iter().map(|m| (m.name, m.id, m.is_learner));
            ids.collect::<Vec<_>>()
        };
        let before = members().await;
        assert_eq!(before.len(), 3);
        let mut plane = plane(name, 3, VERSION_NEXT);
        plane["metadata"]["name"] = json!(cluster.control_plane());
        let (code, plan) = planned(host, &plane);
        let found = (code, &plan["machines"], &plan["refused"], &plan["replaced"]);
        assert_eq!(found, (0, &json!(names), &json!([]), &json!([])));
        kube.apply(CONTROL_PLANE, &plane).await;
        refer(host, name, &plane).await;
        control_plane::settled(host, &cluster, 3).await;
        assert_eq!(members().await, before, "no member came or went");
        deleted(host, name).await;
    });
}
