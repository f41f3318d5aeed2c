//! What is on workload clusters: Nodes and their kubelets, pods, volumes.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{ApiError, Preconditions};
use serde_json::{Value, json};

use super::{Memory, cluster_key};
use crate::cloud::{Instance, Phase};
use crate::object::{is_deleting, is_static, key, label, name, text, uid};
use crate::server::POD_GRACE_S;
use crate::world::{Server, State};

/// How long a kubelet is silent before its Node is Unknown.
const NODE_GRACE: Duration = Duration::from_secs(40);

/// The conditions of a Node whose kubelet says this of itself.
pub(crate) fn ready(status: &str, now: &str) -> Value {
    let pressure = if status == "Unknown" {
        "Unknown"
    } else {
        "False"
    };
    let conditions = [
        ("Ready", status),
        ("MemoryPressure", pressure),
        ("DiskPressure", pressure),
        ("PIDPressure", pressure),
    ];
    let conditions = conditions.map(|(kind, status)| {
        json!({"type": kind, "status": status, "reason": "Kubelet", "message": "",
            "lastTransitionTime": now, "lastHeartbeatTime": now})
    });
    json!({"status": {"conditions": conditions}})
}

/// Nodes of running instances, with their pods and volumes; Nodes whose kubelet is silent.
pub(super) fn nodes(state: &mut State, memory: &mut Memory) {
    if !state.takes_writes() {
        return;
    }
    // Machines of a control plane are not like others.
    let instances = state.cloud.instances.values();
    let instances = instances.filter(|own| !state.is_body(&own.name));
    let instances: Vec<Instance> = instances.cloned().collect();
    for instance in &instances {
        let cluster = cluster_key(instance);
        let server = Server::Workload(cluster.clone());
        if instance.phase != Phase::Running || !state.workloads.contains_key(&cluster) {
            continue;
        }
        let node = ObjectKey::new("", instance.name.clone());
        let joined = format!("joined {}", instance.id);
        if !memory.due.contains_key(&joined) {
            if memory.is_due(state, &format!("join {}", instance.id), 1, 30) {
                memory.due.insert(joined, state.now());
                join(state, &server, instance);
            }
            continue;
        }
        let Ok(found) = state.workloads[&cluster].store.get(&kinds::NODE, &node) else {
            continue;
        };
        let is_ready = crate::object::is_condition(&found, "Ready", "True");
        if !is_ready && memory.is_due(state, &format!("ready {}", instance.id), 1, 40) {
            let now = state.now_text();
            state.nature_patches(
                &server,
                "kubelet",
                &kinds::NODE,
                &node,
                Some("status"),
                ready("True", &now),
            );
        }
    }
    silent(state, &instances, memory);
}

fn join(state: &mut State, server: &Server, instance: &Instance) {
    let node = ObjectKey::new("", instance.name.clone());
    let object = json!({
        "metadata": {"name": instance.name}, "spec": {"providerID": instance.id},
    });
    state.nature_writes(
        server,
        "kubelet",
        "create",
        &kinds::NODE,
        &node,
        |store, now| store.create(&kinds::NODE, "", &object, now),
    );
    let now = state.now_text();
    state.nature_patches(
        server,
        "kubelet",
        &kinds::NODE,
        &node,
        Some("status"),
        ready("False", &now),
    );
    let pods = state.nature.below(4);
    for number in 0..pods {
        let app = match number {
            0 => "web",
            1 => "late",
            _ => "last",
        };
        let pod = json!({
            "metadata": {
                "name": format!("{}-{number}", instance.name),
                "labels": {"app": app},
            },
            "spec": {"nodeName": instance.name, "containers": [{"name": "c", "image": "i"}]},
        });
        let key = ObjectKey::new("apps", name(&pod));
        state.nature_writes(
            server,
            "scheduler",
            "create",
            &kinds::POD,
            &key,
            |store, now| store.create(&kinds::POD, "apps", &pod, now),
        );
        let running = json!({"status": {"phase": "Running"}});
        state.nature_patches(
            server,
            "kubelet",
            &kinds::POD,
            &key,
            Some("status"),
            running,
        );
    }
    if pods > 0 && state.nature.happens(300) {
        let volume = ObjectKey::new("", format!("volume-{}", instance.name));
        let claim = json!({"metadata": {"name": volume.name}, "spec": {
            "claimRef": {"namespace": "apps", "name": volume.name},
            "csi": {"driver": "sim", "volumeHandle": volume.name},
        }});
        let attachment = json!({"metadata": {"name": volume.name}, "spec": {
            "nodeName": instance.name, "attacher": "sim",
            "source": {"persistentVolumeName": volume.name},
        }});
        let parts = [
            (&*kinds::PERSISTENT_VOLUME, claim),
            (&*kinds::VOLUME_ATTACHMENT, attachment),
        ];
        for (resource, object) in parts {
            state.nature_writes(
                server,
                "attacher",
                "create",
                resource,
                &volume,
                |store, now| store.create(resource, "", &object, now),
            );
        }
        let attached = json!({"status": {"attached": true}});
        state.nature_patches(
            server,
            "attacher",
            &kinds::VOLUME_ATTACHMENT,
            &volume,
            Some("status"),
            attached,
        );
    }
}

/// A Node whose machine does not run any more is Unknown after a while.
fn silent(state: &mut State, instances: &[Instance], memory: &mut Memory) {
    let clusters: Vec<ObjectKey> = state.workloads.keys().cloned().collect();
    for cluster in clusters {
        let nodes: Vec<Arc<Value>> = state.workloads[&cluster]
            .store
            .all(&kinds::NODE)
            .cloned()
            .collect();
        for node in nodes {
            let id = text(&node, "/spec/providerID");
            let runs = instances
                .iter()
                .any(|instance| instance.id == id && instance.phase == Phase::Running);
            let is_known = crate::object::is_condition(&node, "Ready", "Unknown");
            if runs || is_known || state.is_body(name(&node)) {
                continue;
            }
            let grace = NODE_GRACE.as_secs();
            if memory.is_due(state, &format!("silent {id}"), grace, grace + 5) {
                let now = state.now_text();
                let server = Server::Workload(cluster.clone());
                state.nature_patches(
                    &server,
                    "node-controller",
                    &kinds::NODE,
                    &key(&node),
                    Some("status"),
                    ready("Unknown", &now),
                );
            }
        }
    }
}

/// A pod that does its work and ends, or whose Node is silent for too long.
fn complete(state: &mut State, memory: &mut Memory, server: &Server, pod: &Value, is_silent: bool) {
    let (its, key) = (uid(pod), key(pod));
    if is_deleting(pod) || text(pod, "/status/phase") == "Succeeded" {
        return;
    }
    if is_silent {
        if memory.is_due(state, &format!("lost {its}"), 300, 330) {
            let none = Preconditions::default();
            state.nature_writes(
                server,
                "node-controller",
                "delete",
                &kinds::POD,
                &key,
                |store, now| store.delete(&kinds::POD, &key, &none, now, POD_GRACE_S),
            );
        }
    } else if memory.is_due(state, &format!("work {its}"), 30, 600) {
        let done = json!({"status": {"phase": "Succeeded"}});
        state.nature_patches(server, "kubelet", &kinds::POD, &key, Some("status"), done);
    }
}

/// Pods that were evicted end, and then their volumes are detached. Pods of Nodes that are gone are collected.
pub(super) fn pods(state: &mut State, memory: &mut Memory) {
    if !state.takes_writes() {
        return;
    }
    let rules = state.management.all(&kinds::MACHINE_DRAIN_RULE);
    let behaviors: Vec<String> = rules
        .map(|rule| text(rule, "/spec/drain/behavior").to_owned())
        .collect();
    let stays = behaviors.iter().any(|behavior| behavior == "Skip");
    let completes = behaviors.iter().any(|behavior| behavior == "WaitCompleted");
    let clusters: Vec<ObjectKey> = state.workloads.keys().cloned().collect();
    for cluster in clusters {
        let server = Server::Workload(cluster.clone());
        let pods: Vec<Arc<Value>> = state.workloads[&cluster]
            .store
            .all(&kinds::POD)
            .cloned()
            .collect();
        let mut busy: Vec<String> = Vec::new();
        for pod in pods {
            let node = text(&pod, "/spec/nodeName").to_owned();
            let found = state.workloads[&cluster]
                .store
                .get(&kinds::NODE, &ObjectKey::new("", node.clone()));
            let is_silent = found
                .as_ref()
                .is_ok_and(|node| crate::object::is_condition(node, "Ready", "Unknown"));
            let is_last = label(&pod, "app") == Some("last");
            if completes && is_last {
                complete(state, memory, &server, &pod, is_silent);
            }
            let ends = found.is_err() || (is_deleting(&pod) && !is_silent);
            if ends && memory.is_due(state, &format!("pod {}", uid(&pod)), 1, 30) {
                state.nature_writes(
                    &server,
                    "kubelet",
                    "remove",
                    &kinds::POD,
                    &key(&pod),
                    |store, _| {
                        store
                            .remove(&kinds::POD, &key(&pod))
                            .ok_or(ApiError::NotFound(String::new()))
                    },
                );
            } else if !(is_static(&pod) || stays && is_last)
                && text(&pod, "/status/phase") != "Succeeded"
            {
                busy.push(node);
            }
        }
        let volumes: Vec<Arc<Value>> = state.workloads[&cluster]
            .store
            .all(&kinds::VOLUME_ATTACHMENT)
            .cloned()
            .collect();
        for volume in volumes {
            let is_used = busy
                .iter()
                .any(|node| node == text(&volume, "/spec/nodeName"));
            if !is_used && memory.is_due(state, &format!("detach {}", uid(&volume)), 2, 60) {
                state.nature_writes(
                    &server,
                    "attacher",
                    "remove",
                    &kinds::VOLUME_ATTACHMENT,
                    &key(&volume),
                    |store, _| {
                        store
                            .remove(&kinds::VOLUME_ATTACHMENT, &key(&volume))
                            .ok_or(ApiError::NotFound(String::new()))
                    },
                );
            }
        }
    }
}
