//! What a cluster of real machines does for its users.

use capstan_tests::cluster::TestCluster;
use capstan_tests::eventually;
use capstan_tests::kube_client::{condition, conditions, name};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab::{Lab, PATIENCE};
use capstan_tests::kubectl::Kubectl;

/// Name of the sample workload's objects.
pub const SAMPLE: &str = "sample";

/// Nodes say what runs on them: kubelets of these versions, of control planes and of workers.
pub async fn nodes_are_real(kubectl: &Kubectl, count: usize, [plane, worker]: [&str; 2]) {
    let nodes = kubectl.get(&["nodes"]).await.unwrap();
    assert_eq!(nodes.len(), count);
    for node in &nodes {
        let info = &node["status"]["nodeInfo"];
        let runtime = info["containerRuntimeVersion"].as_str().unwrap();
        assert!(runtime.starts_with("containerd://"), "{runtime}");
        let role = "node-role.kubernetes.io/control-plane";
        let is_worker = node["metadata"]["labels"][role].is_null();
        let version = if is_worker { worker } else { plane };
        assert_eq!(info["kubeletVersion"], version, "{}", name(node));
    }
}

/// A request that was not answered was cut off: whom it met, it trusted, and was trusted.
pub fn did_not_fail_for_trust(why: &str) {
    let words = ["x509", "Unauthorized", "certificate", "tls:"];
    assert!(!words.iter().any(|word| why.contains(word)), "{why}");
}

/// Waits until all pods of the system are Ready, those that are on every Node on this many.
pub async fn system_pods_run(kubectl: &Kubectl, nodes: usize) {
    eventually("system pods Ready", PATIENCE, async || {
        let pods = kubectl.get(&["pods", "-n", "kube-system"]).await?;
        for component in [
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "coredns",
            "kube-proxy",
        ] {
            let count = pods
                .iter()
                .filter(|pod| name(pod).starts_with(component))
                .count();
            let wanted = if component == "kube-proxy" { nodes } else { 1 };
            if count < wanted {
                return Err(format!("{count} pods of {component}, not {wanted}"));
            }
        }
        let waits = pods
            .iter()
            .find(|pod| condition(pod, "Ready").status != "True");
        waits.map_or(Ok(()), |pod| {
            Err(format!("{}: {}", name(pod), conditions(pod)))
        })
    })
    .await;
}

/// The sample workload: pods that answer with their names, spread over the Nodes.
pub fn sample(replicas: u32) -> Value {
    let labels = json!({"app": SAMPLE});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": SAMPLE},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": labels},
                        }],
                        "containers": [{
                            "name": SAMPLE, "image": "capstan.dev/sample:v1", "ports": [{"containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": SAMPLE},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    ]})
}

/// Waits until the sample's pods are Ready.
pub async fn sample_is_ready(kubectl: &Kubectl, replicas: usize) {
    eventually("sample Ready", PATIENCE, async || {
        let pods = kubectl.get(&["pods", "-l", "app=sample"]).await?;
        let ready = pods.iter().filter(|pod| {
            condition(pod, "Ready").status == "True"
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        match ready.count() {
            count if count == replicas => Ok(()),
            count => Err(format!(
                "{count} of {replicas}: {:?}",
                pods.iter().map(conditions).collect::<Vec<_>>()
            )),
        }
    })
    .await;
}

/// A Deployment answers through kube-proxy by the Service's name in the cluster's DNS.
pub async fn answers_through_service_and_dns(kubectl: &Kubectl) {
    kubectl.apply(&sample(2)).await.unwrap();
    sample_is_ready(kubectl, 2).await;
    let url = format!("http://{SAMPLE}.default.svc.cluster.local/");
    eventually("the Service answers", PATIENCE, async || {
        let words = ["exec", "deploy/sample", "--", "capstan-sample", "get", &url];
        let answer = kubectl.run(&words).await?;
        if answer.contains("hello from sample-") {
            Ok(())
        } else {
            Err(format!("it answers {answer:?}"))
        }
    })
    .await;
}

/// What users do with pods through the workload API server.
pub async fn logs_exec_and_port_forward(kubectl: &Kubectl) {
    let dns = [
        "logs",
        "-n",
        "kube-system",
        "-l",
        "k8s-app=kube-dns",
        "--tail=20",
    ];
    let log = kubectl.run(&dns).await.unwrap();
    assert!(log.contains(".:53"), "{log}");
    let lookup = [
        "exec",
        "deploy/sample",
        "--",
        "capstan-sample",
        "lookup",
        "kubernetes.default.svc.cluster.local",
    ];
    let found = kubectl.run(&lookup).await.unwrap();
    assert!(found.contains("10.96.0.1"), "{found}");
    let forward = kubectl.forward("service/sample", 80).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", forward.port))
        .await
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: sample\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("hello from sample-"), "{answer}");
    drop(forward);
}

/// What the cloud shows of a machine's inside.
pub async fn machines_can_be_looked_into(lab: &Lab, cluster: &TestCluster) {
    let machine = &lab.machines(cluster, false).await[0];
    let instance = lab.instance(&name(machine)).await;
    let path = format!("/v1/instances/{}", instance["id"].as_str().unwrap());
    let command = json!({"command": ["sh", "-c", "hostname; echo bad >&2; exit 3"]});
    let answer = lab
        .host
        .cloud
        .call("POST", &format!("{path}/exec"), Some(&command))
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        answer,
        json!({"exitCode": 3, "stdout": format!("{}\n", name(machine)), "stderr": "bad\n"})
    );
    for unit in ["kubelet", "containerd"] {
        let log = lab
            .host
            .cloud
            .call("GET", &format!("{path}/logs/{unit}"), None)
            .await;
        assert!(!log.unwrap().is_empty(), "{unit}");
    }
    let console = lab.console(machine).await;
    assert!(console.contains("kubeadm"), "{console}");
}
