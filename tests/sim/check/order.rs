//! The order in which a Machine goes, and what happens in its workload cluster and in the cloud.

use std::sync::Arc;

use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use serde_json::Value;

use super::cluster_of;
use crate::cloud::{Instance, Phase};
use crate::object::{
    annotation as annotation_of, controller, flag, has_annotation_of, is_condition, is_deleting,
    is_static, label as label_of, name, number, text, uid,
};
use crate::store::Written;
use crate::world::{State, Write};

fn is_completed(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Succeeded"
}

impl State {
    fn machine_of(&self, infra: &Value) -> Option<Arc<Value>> {
        let owner = controller(infra)?;
        self.management
            .find(&kinds::MACHINE, |machine| uid(machine) == owner)
    }

    /// Hooks, then the drain, then volumes, then hooks, then the infrastructure.
    pub(super) fn check_order(&mut self, infra: &Value) {
        let Some(machine) = self.machine_of(infra) else {
            return;
        };
        let its = format!("the infrastructure of Machine {}", name(&machine));
        if !is_deleting(&machine) {
            self.violated(format!("{its} is deleted and the Machine is not"));
        }
        if has_annotation_of(&machine, annotation::PRE_TERMINATE_HOOK_PREFIX) {
            self.violated(format!(
                "{its} is deleted before its pre-terminate hook has succeeded"
            ));
        }
        let what = format!("{its} is deleted");
        self.check_hooks_are_over(&machine, "PreTerminate", &what);
        self.check_is_drained(&machine, &what);
    }

    /// Goes on to something that comes after the drain and the volumes, and so after the hooks before them.
    pub(super) fn check_is_drained(&mut self, machine: &Value, what: &str) {
        // Nobody is asked any more, and no Node drained, about a Machine whose time for that was over before.
        let is_over = ["nodeDrainStartTime", "waitForPreTerminateHookStartTime"];
        let is_over = is_over
            .iter()
            .any(|time| !text(machine, &format!("/status/deletion/{time}")).is_empty());
        if self.is_cluster_going(machine) {
            if !is_over {
                self.check_hooks_are_over(machine, "PreDrain", what);
            }
            return;
        }
        let node = text(machine, "/status/nodeRef/name");
        if node.is_empty() {
            return;
        }
        if has_annotation_of(machine, annotation::PRE_DRAIN_HOOK_PREFIX) {
            self.violated(format!("{what} before its pre-drain hook has succeeded"));
        }
        let cluster = cluster_of(machine).unwrap_or_default();
        let Some(workload) = self.workloads.get(&cluster) else {
            return;
        };
        let Ok(found) = workload.store.get(&kinds::NODE, &ObjectKey::new("", node)) else {
            return;
        };
        let is_unreachable = is_condition(&found, "Ready", "Unknown");
        let timeout = |field: &str| {
            number(machine, &format!("/spec/deletion/{field}")).unwrap_or_default() > 0
        };
        let has_pods = workload.store.all(&kinds::POD).any(|pod| {
            text(pod, "/spec/nodeName") == node && self.is_waited_for(pod) && !is_deleting(pod)
        });
        let has_volumes = workload.store.all(&kinds::VOLUME_ATTACHMENT).any(|volume| {
            text(volume, "/spec/nodeName") == node && flag(volume, "/status/attached")
        });
        let excluded = |what: &str| annotation_of(machine, what).is_some();
        if !is_over {
            self.check_hooks_are_over(machine, "PreDrain", what);
        }
        if has_pods
            && !timeout("nodeDrainTimeoutSeconds")
            && !excluded(annotation::EXCLUDE_NODE_DRAINING)
        {
            self.violated(format!("{what} and Node {node} is not drained"));
        }
        if has_volumes
            && !is_unreachable
            && !timeout("nodeVolumeDetachTimeoutSeconds")
            && !excluded(annotation::EXCLUDE_WAIT_FOR_NODE_VOLUME_DETACH)
        {
            self.violated(format!("{what} and Node {node} has volumes attached"));
        }
    }

    /// What MachineDrainRules say of a pod, by its label `app`: behaviour and order.
    fn drain_rule(&self, pod: &Value) -> (String, i64) {
        let app = label_of(pod, "app").unwrap_or_default();
        let rule = self.management.find(&kinds::MACHINE_DRAIN_RULE, |rule| {
            text(rule, "/spec/pods/0/selector/matchLabels/app") == app
        });
        rule.map_or_else(
            || ("Drain".to_owned(), 0),
            |rule| {
                let order = number(&rule, "/spec/drain/order").unwrap_or_default();
                (text(&rule, "/spec/drain/behavior").to_owned(), order)
            },
        )
    }

    /// Whether a drain is not complete while this pod is there.
    fn is_waited_for(&self, pod: &Value) -> bool {
        match self.drain_rule(pod).0.as_str() {
            "Skip" => false,
            "WaitCompleted" => !is_completed(pod),
            _ => !is_static(pod),
        }
    }

    /// A pod is evicted when it is its turn, and only if it is to be evicted at all.
    fn check_eviction(&mut self, cluster: &ObjectKey, pod: &Value) {
        let (behavior, order) = self.drain_rule(pod);
        if behavior != "Drain" {
            self.violated(format!(
                "pod {} is evicted and its rule says {behavior}",
                name(pod)
            ));
        }
        let node = text(pod, "/spec/nodeName");
        let Some(workload) = self.workloads.get(cluster) else {
            return;
        };
        let found = workload.store.get(&kinds::NODE, &ObjectKey::new("", node));
        if found.is_ok_and(|node| is_condition(&node, "Ready", "Unknown")) {
            return;
        }
        let earlier = workload.store.find(&kinds::POD, |other| {
            text(other, "/spec/nodeName") == node
                && self.is_waited_for(other)
                && self.drain_rule(other).1 < order
        });
        if let Some(earlier) = earlier {
            self.violated(format!(
                "pod {} is evicted before {}",
                name(pod),
                name(&earlier)
            ));
        }
    }

    /// The Machine of a Node.
    fn machine_on(&self, cluster: &ObjectKey, node: &str) -> Option<Arc<Value>> {
        self.management.find(&kinds::MACHINE, |machine| {
            cluster_of(machine).as_ref() == Some(cluster)
                && text(machine, "/status/nodeRef/name") == node
        })
    }

    pub(super) fn check_workload(
        &mut self,
        cluster: &ObjectKey,
        write: &Write<'_>,
        written: &Written,
    ) {
        let object = written.new.as_ref().or(written.old.as_ref());
        let Some(object) = object.map(Arc::clone) else {
            return;
        };
        let is_cordon = write.resource.kind == "Node"
            && flag(&object, "/spec/unschedulable")
            && !written
                .old
                .as_ref()
                .is_some_and(|old| flag(old, "/spec/unschedulable"));
        if write.verb == "evict" {
            self.check_eviction(cluster, &object);
        }
        let node = match (write.resource.kind.as_str(), write.verb) {
            ("Pod", "evict") => text(&object, "/spec/nodeName").to_owned(),
            ("Node", _) if is_cordon => name(&object).to_owned(),
            ("Node", "delete") => {
                let machine = self.machine_on(cluster, name(&object));
                let alive = machine
                    .is_some_and(|machine| self.cloud.of_machine(uid(&machine)).next().is_some());
                if alive {
                    self.violated(format!(
                        "Node {} is deleted and its instance is not",
                        name(&object)
                    ));
                }
                return;
            }
            _ => return,
        };
        let Some(machine) = self.machine_on(cluster, &node) else {
            return;
        };
        if !is_deleting(&machine) {
            self.violated(format!(
                "Node {node} is drained and Machine {} stays",
                name(&machine)
            ));
        }
        if has_annotation_of(&machine, annotation::PRE_DRAIN_HOOK_PREFIX) {
            self.violated(format!(
                "Node {node} is drained before the pre-drain hook has succeeded"
            ));
        }
        self.check_hooks_are_over(&machine, "PreDrain", &format!("Node {node} is drained"));
    }

    /// The host had an instance made.
    pub fn instance_made(&mut self, instance: &Instance) {
        self.note(&format!(
            "cloud: instance {} for Machine {}",
            instance.id, instance.name
        ));
        self.stir();
        let alive: Vec<String> = self
            .cloud
            .of_machine(&instance.machine)
            .map(|other| other.id.clone())
            .collect();
        if !alive.is_empty() {
            self.violated(format!(
                "Machine {} has two instances: {} and {}",
                instance.name,
                alive.join(", "),
                instance.id
            ));
        }
        self.check_cloud_pause(instance, "makes");
    }

    /// The host had an instance deleted.
    pub fn instance_deleted(&mut self, instance: &Instance) {
        self.note(&format!("cloud: instance {} stops", instance.id));
        self.stir();
        let of_it = |machine: &Value| uid(machine) == instance.machine;
        let machine = self.management.find(&kinds::MACHINE, of_it);
        if machine.is_some_and(|machine| !is_deleting(&machine)) {
            let alive = !matches!(instance.phase, Phase::Broken(_));
            self.violated(format!(
                "instance {} (alive: {alive}) is deleted and Machine {} stays",
                instance.id, instance.name
            ));
        }
        self.check_member_is_gone(&instance.name);
        self.check_cloud_pause(instance, "deletes");
    }

    fn check_cloud_pause(&mut self, instance: &Instance, does: &str) {
        let now = self.now();
        let cluster = instance.cluster.split_once('/');
        let cluster = cluster.map(|(namespace, name)| ObjectKey::new(namespace, name));
        if cluster.is_some_and(|cluster| self.watchman.is_paused(&cluster, now)) {
            self.violated(format!(
                "the host {does} instance {} although the Cluster is paused",
                instance.id
            ));
        }
    }
}
