//! The kubelets of a workload cluster and what watches over them: heartbeats, readiness, pods that start and end, Nodes that fall silent.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::controllers::{self, Work};
use super::object::{self, as_object, child, condition_status, list_at, metadata, text_at};
use super::resources;
use super::store::Write;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod was created or changed: its kubelet starts or ends it, a little later.
pub(crate) fn pod_changed(
    cluster: &Arc<Cluster>,
    pod: &Value,
    later: &mut dyn FnMut(Duration, Work),
) {
    let node = text_at(pod, "/spec/nodeName");
    if cluster.kubelet(node).is_none() {
        return;
    }
    let (namespace, name, uid) = (
        object::namespace(pod).to_owned(),
        object::name(pod).to_owned(),
        object::uid(pod).to_owned(),
    );
    if object::is_deleting(pod) {
        let grace = pod
            .pointer("/metadata/deletionGracePeriodSeconds")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if grace > 0 {
            later(
                cluster.tempo.pod_stop.min(Duration::from_secs(grace)),
                Work::EndPod {
                    namespace,
                    name,
                    uid,
                },
            );
        }
    } else if text_at(pod, "/status/phase") == "Pending" {
        later(
            cluster.tempo.pod_start,
            Work::StartPod {
                namespace,
                name,
                uid,
            },
        );
    }
}

/// Does what a kubelet had put off; nothing if the pod or the kubelet is another one by now.
pub(crate) fn work(cluster: &Arc<Cluster>, work: Work) {
    match work {
        Work::StartPod {
            namespace,
            name,
            uid,
        } => {
            let Some(pod) = cluster.store.get(resources::pods(), &namespace, &name) else {
                return;
            };
            let Some(kubelet) = cluster.kubelet(text_at(&pod.value, "/spec/nodeName")) else {
                return;
            };
            if object::uid(&pod.value) == uid && text_at(&pod.value, "/status/phase") == "Pending" {
                controllers::edit(cluster, resources::pods(), &pod.value, |pod| {
                    run_pod(pod, &kubelet.address)
                });
            }
        }
        Work::EndPod {
            namespace,
            name,
            uid,
        } => {
            let Some(pod) = cluster.store.get(resources::pods(), &namespace, &name) else {
                return;
            };
            if cluster
                .kubelet(text_at(&pod.value, "/spec/nodeName"))
                .is_some()
            {
                remove_pod(cluster, &namespace, &name, &uid);
            }
        }
    }
}

/// Makes a pod look as it does when its containers run.
fn run_pod(pod: &mut Value, host: &str) {
    let now = object::now_text();
    let containers: Vec<Value> = list_at(pod, "/spec/containers")
        .iter()
        .map(|container| {
            json!({"name": text_at(container, "/name"), "image": text_at(container, "/image"), "imageID": "",
                "ready": true, "started": true, "restartCount": 0, "lastState": {},
                "state": {"running": {"startedAt": now}}, "containerID": format!("light://{}", object::random_suffix(12))})
        })
        .collect();
    let status = child(pod, "status");
    for (key, value) in [
        ("phase", json!("Running")),
        ("startTime", json!(now)),
        ("hostIP", json!(host)),
        ("podIP", json!(host)),
        ("podIPs", json!([{"ip": host}])),
        ("hostIPs", json!([{"ip": host}])),
        ("containerStatuses", json!(containers)),
    ] {
        status.insert(key.to_owned(), value);
    }
    for condition in [
        "PodScheduled",
        "Initialized",
        "PodReadyToStartContainers",
        "ContainersReady",
        "Ready",
    ] {
        object::set_condition(pod, condition, "True", "", "");
    }
}

/// Ends a pod at once; finalizers still hold it.
pub(crate) fn remove_pod(cluster: &Cluster, namespace: &str, name: &str, uid: &str) {
    let Some(pod) = cluster.store.get(resources::pods(), namespace, name) else {
        return;
    };
    if object::uid(&pod.value) != uid {
        return;
    }
    controllers::edit(cluster, resources::pods(), &pod.value, |pod| {
        let now = object::now_text();
        let meta = metadata(pod);
        meta.entry("deletionTimestamp")
            .or_insert_with(|| json!(now));
        meta.insert("deletionGracePeriodSeconds".into(), json!(0));
        object::set_condition(pod, "Ready", "False", "PodCompleted", "");
        child(pod, "status").insert("phase".into(), json!("Succeeded"));
    });
}

/// When a kubelet next becomes ready, if one is about to.
pub(crate) fn next_change(cluster: &Cluster) -> Option<Instant> {
    let now = Instant::now();
    cluster
        .kubelets()
        .values()
        .flat_map(|kubelet| [Some(kubelet.ready_at), kubelet.silent_at])
        .flatten()
        .filter(|at| *at > now)
        .min()
}

/// One round over all Nodes: heartbeats of those whose kubelet lives, judgement of those that are silent. Gives the time of the next round.
pub(crate) fn round(cluster: &Arc<Cluster>, now: Instant) -> Instant {
    let kubelets = cluster.kubelets();
    for (node, kubelet) in &kubelets {
        if kubelet.silent_at.is_some_and(|at| at <= now) {
            continue;
        }
        if cluster.distrust(kubelet) {
            tracing::warn!(node, "a kubelet and an API server do not trust each other");
            continue;
        }
        beat(cluster, node);
        if kubelet.ready_at <= now {
            make_ready(cluster, node);
        }
    }
    let moment = jiff::Timestamp::now();
    for node in cluster.store.list(resources::nodes(), None).items {
        let name = object::name(&node.value);
        let is_alive = kubelets.get(name).is_some_and(|kubelet| {
            kubelet.silent_at.is_none_or(|at| at > now) && !cluster.distrust(kubelet)
        });
        if !is_alive {
            judge(cluster, &node.value, moment);
        }
    }
    adopt_pods(cluster);
    let period = cluster
        .tempo
        .heartbeat
        .min(cluster.tempo.node_grace.checked_div(3).unwrap_or_default())
        .max(Duration::from_millis(50));
    now.checked_add(period).unwrap_or(now)
}

/// Pods that were bound or deleted while their kubelet was away are started or ended now.
fn adopt_pods(cluster: &Arc<Cluster>) {
    for pod in cluster.store.list(resources::pods(), None).items {
        let Some(kubelet) = cluster.kubelet(text_at(&pod.value, "/spec/nodeName")) else {
            continue;
        };
        let deleted: Option<jiff::Timestamp> = text_at(&pod.value, "/metadata/deletionTimestamp")
            .parse()
            .ok();
        let created: Option<jiff::Timestamp> = text_at(&pod.value, "/metadata/creationTimestamp")
            .parse()
            .ok();
        let now = jiff::Timestamp::now();
        if deleted.is_some_and(|at| at < now)
            && list_at(&pod.value, "/metadata/finalizers").is_empty()
        {
            remove_pod(
                cluster,
                object::namespace(&pod.value),
                object::name(&pod.value),
                object::uid(&pod.value),
            );
        } else if deleted.is_none()
            && text_at(&pod.value, "/status/phase") == "Pending"
            && created.is_some_and(|at| now.as_second().saturating_sub(at.as_second()) > 5)
        {
            controllers::edit(cluster, resources::pods(), &pod.value, |pod| {
                run_pod(pod, &kubelet.address)
            });
        }
    }
}

/// Renews a Node's Lease; only its first version goes to disk.
pub(crate) fn beat(cluster: &Cluster, node: &str) {
    let renewed = object::micro_time_text(jiff::Timestamp::now());
    let Some(owner) = cluster.store.get(resources::nodes(), "", node) else {
        return;
    };
    if cluster
        .store
        .get(resources::leases(), "kube-node-lease", node)
        .is_none()
    {
        controllers::ensure(
            cluster,
            &json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": node, "namespace": "kube-node-lease", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": node, "uid": object::uid(&owner.value)}]},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": renewed}}),
        );
        return;
    }
    let written = cluster.store.write_fleeting(
        resources::leases(),
        "kube-node-lease",
        node,
        |old| match old {
            Some(old) => {
                let mut new = old.value.clone();
                child(&mut new, "spec").insert("renewTime".into(), json!(renewed));
                Ok(Write::Update(new))
            }
            None => Ok(Write::Keep),
        },
    );
    if let Err(error) = written {
        tracing::warn!(error = error.message, "a kubelet could not renew its lease");
    }
}

/// The kubelet's network is up: its Node is ready, and reachable if it was not.
fn make_ready(cluster: &Cluster, node: &str) {
    let Some(present) = cluster.store.get(resources::nodes(), "", node) else {
        return;
    };
    let is_tainted = taints(&present.value).iter().any(is_lifecycle_taint);
    if condition_status(&present.value, "Ready") == "True" && !is_tainted {
        return;
    }
    controllers::edit(cluster, resources::nodes(), &present.value, |node| {
        for (condition, reason, message) in [
            (
                "MemoryPressure",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            (
                "DiskPressure",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ),
            (
                "PIDPressure",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
        ] {
            object::set_condition(node, condition, "False", reason, message);
        }
        object::set_condition(
            node,
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        );
        set_taints(node, |taints| {
            taints.retain(|taint| !is_lifecycle_taint(taint))
        });
    });
}

fn taints(node: &Value) -> &[Value] {
    list_at(node, "/spec/taints")
}

fn is_lifecycle_taint(taint: &Value) -> bool {
    matches!(
        text_at(taint, "/key"),
        "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
    )
}

fn set_taints(node: &mut Value, change: impl FnOnce(&mut Vec<Value>)) {
    let mut list = taints(node).to_vec();
    change(&mut list);
    let spec = child(node, "spec");
    if list.is_empty() {
        spec.remove("taints");
    } else {
        spec.insert("taints".into(), Value::Array(list));
    }
}

/// A Node whose kubelet has been silent for longer than the grace period becomes unknown and gets the unreachable taints.
fn judge(cluster: &Cluster, node: &Value, now: jiff::Timestamp) {
    if condition_status(node, "Ready") == "Unknown" {
        return;
    }
    let lease = cluster
        .store
        .get(resources::leases(), "kube-node-lease", object::name(node));
    let renewed = lease
        .as_ref()
        .map(|lease| text_at(&lease.value, "/spec/renewTime"))
        .unwrap_or_default();
    let last: Option<jiff::Timestamp> = renewed
        .parse()
        .ok()
        .or_else(|| text_at(node, "/metadata/creationTimestamp").parse().ok());
    let silence_ms = last.map_or(0, |last| {
        now.as_millisecond().saturating_sub(last.as_millisecond())
    });
    if u128::try_from(silence_ms).unwrap_or(0) <= cluster.tempo.node_grace.as_millis() {
        return;
    }
    controllers::edit(cluster, resources::nodes(), node, |node| {
        for condition in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            object::set_condition(
                node,
                condition,
                "Unknown",
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
            );
        }
        let since = object::now_text();
        set_taints(node, |taints| {
            taints.retain(|taint| !is_lifecycle_taint(taint));
            for effect in ["NoSchedule", "NoExecute"] {
                taints.push(json!({"key": "node.kubernetes.io/unreachable", "effect": effect, "timeAdded": since}));
            }
        });
    });
}

/// What a kubelet puts into its Node when it registers.
pub(crate) struct Registration<'a> {
    /// Node name.
    pub(crate) name: &'a str,
    /// Cloud identity.
    pub(crate) provider_id: &'a str,
    /// The machine's address.
    pub(crate) address: &'a str,
    /// Kubelet's version.
    pub(crate) version: &'a str,
    /// Zone.
    pub(crate) zone: &'a str,
    /// Instance type.
    pub(crate) type_: &'a str,
    /// CPUs.
    pub(crate) cpu: u32,
    /// Memory.
    pub(crate) memory_mib: u32,
    /// Labels from the kubelet's arguments.
    pub(crate) labels: Vec<(String, String)>,
    /// Taints from the kubeadm configuration.
    pub(crate) taints: Vec<Value>,
}

/// The Node object of a machine that has just started.
pub(crate) fn node_object(registration: &Registration<'_>) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": registration.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": registration.type_,
        "topology.kubernetes.io/region": "local", "topology.kubernetes.io/zone": registration.zone,
    });
    for (key, value) in &registration.labels {
        as_object(&mut labels).insert(key.clone(), json!(value));
    }
    let mut taints = registration.taints.clone();
    taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
    let memory = format!("{}Mi", registration.memory_mib);
    let resources = json!({"cpu": registration.cpu.to_string(), "memory": memory, "pods": "110", "ephemeral-storage": "20Gi"});
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": registration.name, "labels": labels, "annotations": {
            "volumes.kubernetes.io/controller-managed-attach-detach": "true", "node.alpha.kubernetes.io/ttl": "0"}},
        "spec": {"providerID": registration.provider_id, "taints": taints},
        "status": {
            "capacity": resources, "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": registration.address}, {"type": "Hostname", "address": registration.name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": object::new_uid().replace('-', ""), "systemUUID": object::new_uid(), "bootID": object::new_uid(),
                "kernelVersion": "6.1.0-light", "osImage": "Capstan light machine", "containerRuntimeVersion": "light://1.0.0",
                "kubeletVersion": registration.version, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"},
        },
    });
    object::set_condition(
        &mut node,
        "Ready",
        "False",
        "KubeletNotReady",
        "container runtime network not ready",
    );
    node
}

/// The mirror pods of a control-plane machine's static pods, running.
pub(crate) fn static_pod(
    component: &str,
    node: &str,
    node_uid: &str,
    version: &str,
    address: &str,
) -> Value {
    let image = match component {
        "etcd" => "registry.k8s.io/etcd:3.6.5-0".to_owned(),
        other => format!("registry.k8s.io/{other}:{version}"),
    };
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{component}-{node}"), "namespace": "kube-system",
            "labels": {"component": component, "tier": "control-plane"},
            "annotations": {MIRROR: object::new_uid(), "kubernetes.io/config.source": "file"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true}]},
        "spec": {"nodeName": node, "hostNetwork": true, "priorityClassName": "system-node-critical",
            "containers": [{"name": component, "image": image, "command": [component]}],
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}]},
    });
    run_pod(&mut pod, address);
    pod
}
