//! A control plane that plain kubeadm made, without any of our objects, is taken over: nothing in it starts again, and from then on it is looked after.

use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::control_plane;
use capstan_tests::eventually;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CLUSTER, CONTROL_PLANE, LOCAL_CLUSTER, LOCAL_MACHINE, LOCAL_MACHINE_TEMPLATE,
    MACHINE, SECRET, condition, conditions, name,
};
use serde_json::{Value, json};

use crate::lab::{Lab, NEW, PATIENCE};
use crate::ledger::Ledger;

const NAME: &str = "plain";

/// How the machine was bootstrapped, as far as it differs from kubeadm's defaults, and how others are.
fn config_spec() -> Value {
    json!({"initConfiguration": {"nodeRegistration": {"name": "{{ ds.meta_data.local_hostname }}"}}})
}

/// What a machine answers to a command.
async fn inside(lab: &Lab, script: &str) -> Result<String, String> {
    let instance = lab.instance(NAME).await;
    let path = format!("/v1/instances/{}/exec", instance["id"].as_str().unwrap());
    let command = json!({"command": ["sh", "-c", script]});
    let answer = lab.host.cloud.call("POST", &path, Some(&command)).await?;
    let answer: Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
    match answer["exitCode"].as_i64() {
        Some(0) => Ok(answer["stdout"].as_str().unwrap_or_default().to_owned()),
        _ => Err(answer.to_string()),
    }
}

/// A cluster of one machine, which a person has made with kubeadm: its authorities are on its disk alone.
async fn made_by_kubeadm(lab: &Lab) {
    let kube = lab.host.kube();
    namespace(kube, NAME).await;
    let named = json!({"namespace": NAME, "name": NAME});
    let infra = json!({
        "apiVersion": LOCAL_CLUSTER.api_version, "kind": "LocalCluster", "metadata": named,
        "spec": {"backend": "machines"},
    });
    kube.apply(LOCAL_CLUSTER, &infra).await;
    let cluster = json!({
        "apiVersion": CLUSTER.api_version, "kind": "Cluster", "metadata": named,
        "spec": {
            "clusterNetwork": {
                "pods": {"cidrBlocks": ["10.244.0.0/16"]}, "services": {"cidrBlocks": ["10.96.0.0/16"]},
            },
            "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalCluster", "name": NAME},
        },
    });
    kube.apply(CLUSTER, &cluster).await;
    let endpoint = eventually("an endpoint", PATIENCE, async || {
        let cluster = kube.get(CLUSTER, NAME, NAME).await.unwrap();
        let endpoint = &cluster["spec"]["controlPlaneEndpoint"];
        match (endpoint["host"].as_str(), endpoint["port"].as_u64()) {
            (Some(host), Some(port)) => Ok(format!("{host}:{port}")),
            _ => Err(conditions(&cluster)),
        }
    })
    .await;
    let script = format!(
        "#cloud-config\nruncmd:\n- kubeadm init --control-plane-endpoint {endpoint} --pod-network-cidr 10.244.0.0/16 \
         --service-cidr 10.96.0.0/16 --kubernetes-version {NEW}\n"
    );
    let data = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAME, "name": "user-data"},
        "stringData": {"value": script, "format": "cloud-config"},
    });
    kube.apply(SECRET, &data).await;
    let infra = json!({
        "apiVersion": LOCAL_MACHINE.api_version, "kind": "LocalMachine", "metadata": named,
        "spec": {"instanceType": "small"},
    });
    kube.apply(LOCAL_MACHINE, &infra).await;
    let machine = json!({
        "apiVersion": MACHINE.api_version, "kind": "Machine",
        "metadata": {"namespace": NAME, "name": NAME, "labels": {"cluster.x-k8s.io/control-plane": ""}},
        "spec": {
            "clusterName": NAME, "version": NEW, "bootstrap": {"dataSecretName": "user-data"},
            "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": NAME},
        },
    });
    kube.apply(MACHINE, &machine).await;
    // The cluster answers before kubeadm has come to its end, which starts the kubelet again.
    eventually("kubeadm has made the cluster", PATIENCE, async || {
        let instances = lab.host.cloud.of_cluster("instances", NAME, NAME).await;
        let Some(instance) = instances.first() else {
            let machine = kube.get(MACHINE, NAME, NAME).await.unwrap();
            return Err(conditions(&machine));
        };
        if instance["bootstrap"]["state"] != "done" {
            return Err(instance["bootstrap"].to_string());
        }
        let ask = "kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz";
        inside(lab, ask).await
    })
    .await;
}

/// What a person does by the page about adoption: Secrets of what the machine has, and a config that says how it was bootstrapped.
async fn described(lab: &Lab) {
    let kube = lab.host.kube();
    for (purpose, certificate, key) in [
        ("ca", "ca.crt", "ca.key"),
        ("etcd", "etcd/ca.crt", "etcd/ca.key"),
        ("proxy", "front-proxy-ca.crt", "front-proxy-ca.key"),
        ("sa", "sa.pub", "sa.key"),
    ] {
        let read = async |file: &str| {
            inside(lab, &format!("cat /etc/kubernetes/pki/{file}"))
                .await
                .unwrap()
        };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "namespace": NAME, "name": format!("{NAME}-{purpose}"),
                "labels": {"cluster.x-k8s.io/cluster-name": NAME},
            },
            "stringData": {"tls.crt": read(certificate).await, "tls.key": read(key).await},
        });
        kube.apply(SECRET, &secret).await;
    }
    let config = json!({
        "apiVersion": BOOTSTRAP_CONFIG.api_version, "kind": "KubeadmConfig",
        "metadata": {"namespace": NAME, "name": NAME}, "spec": config_spec(),
    });
    kube.apply(BOOTSTRAP_CONFIG, &config).await;
    let reference = json!({"spec": {"bootstrap": {"configRef": {
        "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfig", "name": NAME,
    }}}});
    kube.merge(MACHINE, NAME, NAME, &reference).await;
    // Without these it would pass for a machine of whichever template.
    let made_from = json!({"metadata": {"annotations": {
        "cluster.x-k8s.io/cloned-from-name": NAME,
        "cluster.x-k8s.io/cloned-from-groupkind": "LocalMachineTemplate.infrastructure.cluster.x-k8s.io",
    }}});
    kube.merge(LOCAL_MACHINE, NAME, NAME, &made_from).await;
}

/// The control plane that is to take it over.
async fn control_plane_of_it(lab: &Lab) {
    let kube = lab.host.kube();
    let named = json!({"namespace": NAME, "name": NAME});
    let template = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate", "metadata": named,
        "spec": {"template": {"spec": {"instanceType": "small"}}},
    });
    kube.apply(LOCAL_MACHINE_TEMPLATE, &template).await;
    let plane = json!({
        "apiVersion": CONTROL_PLANE.api_version, "kind": "KubeadmControlPlane", "metadata": named,
        "spec": {
            "replicas": 1, "version": NEW, "kubeadmConfigSpec": config_spec(),
            "machineTemplate": {"spec": {"infrastructureRef": {
                "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": NAME,
            }}},
        },
    });
    kube.apply(CONTROL_PLANE, &plane).await;
    let reference = json!({"spec": {"controlPlaneRef": {
        "apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": NAME,
    }}});
    kube.merge(CLUSTER, NAME, NAME, &reference).await;
}

/// When each process of the machine began that matters.
async fn processes(lab: &Lab) -> String {
    // The kernel keeps 15 letters of a name.
    let script = "for p in /proc/[0-9]*; do read -r name 2>/dev/null <$p/comm; case $name in \
         kubelet|containerd|etcd|kube-apiserver|kube-controller|kube-scheduler) echo $name ${p#/proc/} $(cut -d' ' -f22 $p/stat);; \
         esac; done | sort";
    inside(lab, script).await.unwrap()
}

/// Another template: a machine of the control plane's own takes the place of the one that was taken over.
async fn replaced(lab: &Lab, cluster: &TestCluster) {
    let kube = lab.host.kube();
    let larger = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
        "metadata": {"namespace": NAME, "name": "larger"},
        "spec": {"template": {"spec": {"instanceType": "medium"}}},
    });
    kube.apply(LOCAL_MACHINE_TEMPLATE, &larger).await;
    let patch =
        json!({"spec": {"machineTemplate": {"spec": {"infrastructureRef": {"name": "larger"}}}}});
    kube.merge(CONTROL_PLANE, NAME, NAME, &patch).await;
    eventually(
        "a machine of its own is in its place",
        PATIENCE,
        async || {
            let machines = kube.list(MACHINE, NAME).await;
            let plane = kube.get(CONTROL_PLANE, NAME, NAME).await.unwrap();
            let is_replaced = machines.len() == 1
                && machines.iter().all(|machine| name(machine) != NAME)
                && plane["status"]["upToDateReplicas"] == 1
                && condition(&plane, "Available").status == "True"
                && condition(&plane, "EtcdClusterHealthy").status == "True";
            let all: Vec<String> = machines.iter().map(conditions).collect();
            is_replaced
                .then_some(())
                .ok_or(format!("{}; {all:?}", conditions(&plane)))?;
            cluster.nodes_match(kube).await
        },
    )
    .await;
}

/// Taken over, whole, and replaced by a machine of ours when its template asks for that.
pub async fn take_over(lab: &Lab) {
    let mut ledger = Ledger::open(&lab.host);
    made_by_kubeadm(lab).await;
    ledger.enter("plain kubeadm makes a control plane of 1");
    let before = processes(lab).await;
    assert!(
        before.contains("etcd ") && before.contains("kubelet "),
        "{before}"
    );
    described(lab).await;
    control_plane_of_it(lab).await;
    let kube = lab.host.kube();
    eventually("the machine is taken over", PATIENCE, async || {
        let plane = kube.get(CONTROL_PLANE, NAME, NAME).await.unwrap();
        let machine = kube.get(MACHINE, NAME, NAME).await.unwrap();
        let is_whole = plane["status"]["upToDateReplicas"] == 1
            && plane["status"]["readyReplicas"] == 1
            && ["Available", "EtcdClusterHealthy"]
                .iter()
                .all(|type_| condition(&plane, type_).status == "True")
            && condition(&plane, "RollingOut").status == "False";
        is_whole.then_some(()).ok_or(format!(
            "{}; Machine: {}",
            conditions(&plane),
            conditions(&machine)
        ))
    })
    .await;
    ledger.enter("it is taken over");
    assert_eq!(processes(lab).await, before, "something was started again");

    let mut cluster = TestCluster::new(NAME, NAME, 0);
    cluster.backend = Some("machines".to_owned());
    replaced(lab, &cluster).await;
    ledger.enter("it is replaced by a machine of the control plane's own");
    let leader = control_plane::leading(&lab.host, &cluster).await;
    assert!(leader.is_some_and(|leader| leader != NAME));
    kube.delete(CLUSTER, NAME, NAME).await;
    eventually("the Cluster is gone", PATIENCE, async || {
        let left = kube.get(CLUSTER, NAME, NAME).await;
        left.map_or(Ok(()), |cluster| Err(conditions(&cluster)))
    })
    .await;
    lab.nothing_is_left().await;
    ledger.enter("the cluster is deleted");
    ledger.print();
}
