//! Whether a world is as its people want it, and what it looks like when it is not.

use capstan_controllers::kinds;

use super::is_available;
use crate::cloud::Phase;
use crate::kinds as sim;
use crate::object::{is_condition, is_deleting, key, list, number, text};
use crate::world::State;

impl State {
    /// What keeps the world from being as its people want it; empty when nothing does.
    #[must_use]
    pub fn not_settled(&self) -> Vec<String> {
        let mut why = Vec::new();
        for cluster in self.management.all(&kinds::CLUSTER) {
            if is_deleting(cluster) {
                why.push(format!("Cluster {} is still there", key(cluster)));
            } else if !is_condition(cluster, "Available", "True") {
                why.push(format!("Cluster {} is not available", key(cluster)));
            }
        }
        let mut machines_wanted = 0;
        for deployment in self.management.all(&kinds::MACHINE_DEPLOYMENT) {
            let its = key(deployment);
            if is_deleting(deployment) {
                why.push(format!("MachineDeployment {its} is still there"));
                continue;
            }
            let replicas = number(deployment, "/spec/replicas").unwrap_or(1);
            machines_wanted += replicas;
            let version = text(deployment, "/spec/template/spec/version");
            let machines = self.machines_of(&its);
            let good = machines.iter().filter(|machine| {
                !is_deleting(machine)
                    && is_available(machine)
                    && is_condition(machine, "UpToDate", "True")
                    && text(machine, "/spec/version") == version
            });
            let (good, all) = (good.count(), machines.len());
            let wanted = usize::try_from(replicas).unwrap_or_default();
            if good != wanted || all != wanted {
                why.push(format!(
                    "MachineDeployment {its} wants {wanted} Machines of {version} and has {all}, {good} of them good"
                ));
            }
            if !is_condition(deployment, "Available", "True") {
                why.push(format!("MachineDeployment {its} is not available"));
            }
            if number(deployment, "/status/availableReplicas").unwrap_or_default() != replicas {
                why.push(format!("the status of MachineDeployment {its} is old"));
            }
        }
        why.extend(self.plane_not_settled());
        let of_plane = self.plane_wants();
        let of_workers = usize::try_from(machines_wanted).unwrap_or_default();
        let machines_wanted = of_workers + of_plane;
        for (what, count) in [
            ("Machines", self.management.all(&kinds::MACHINE).count()),
            (
                "SimMachines",
                self.management.all(&sim::SIM_MACHINE).count(),
            ),
            ("instances", self.cloud.instances.len()),
            (
                "SimConfigs",
                self.management.all(&sim::SIM_CONFIG).count() + of_plane,
            ),
            (
                "SimStackedConfigs",
                self.management.all(&sim::SIM_STACKED_CONFIG).count() + of_workers,
            ),
        ] {
            if count != machines_wanted {
                why.push(format!(
                    "there are {count} {what}, {machines_wanted} are wanted"
                ));
            }
        }
        for instance in self.cloud.instances.values() {
            if matches!(instance.phase, Phase::Broken(_)) {
                why.push(format!(
                    "the instance of Machine {} is broken",
                    instance.name
                ));
            }
        }
        let clusters = self.management.all(&kinds::CLUSTER).count();
        for (what, count) in [
            (
                "SimClusters",
                self.management.all(&sim::SIM_CLUSTER).count(),
            ),
            ("networks", self.cloud.networks.len()),
        ] {
            if count != clusters {
                why.push(format!("there are {count} {what} for {clusters} Clusters"));
            }
        }
        why.extend(self.hooks_not_settled());
        if let Some(left) = self.management.all(&sim::SIM_REMEDIATION).next() {
            why.push(format!("SimRemediation {} is still there", key(left)));
        }
        why
    }

    /// What the management cluster holds, for a person who looks for the cause.
    #[must_use]
    pub fn picture(&self) -> Vec<String> {
        let everything = self.management.everything();
        let interesting = everything.filter(|(resource, _)| {
            !["CustomResourceDefinition", "Namespace", "Secret", "Event"]
                .contains(&resource.kind.as_str())
        });
        interesting
            .map(|(resource, object)| {
                let conditions: Vec<String> = list(object, "/status/conditions")
                    .iter()
                    .map(|c| {
                        format!(
                            "{}={} {} {}",
                            text(c, "/type"),
                            text(c, "/status"),
                            text(c, "/reason"),
                            text(c, "/message").lines().next().unwrap_or_default()
                        )
                    })
                    .collect();
                format!(
                    "{} {} {}\n    metadata {}\n    spec {}\n    {}",
                    resource.kind,
                    key(object),
                    text(object, "/metadata/resourceVersion"),
                    object["metadata"],
                    object["spec"],
                    conditions.join("\n    ")
                )
            })
            .collect()
    }
}
