//! All that decisions about a Cluster may look at, and what follows from it at once.

use std::sync::Arc;

use capstan_api::contract::{ControlPlane, InfraCluster};
use capstan_api::label;
use capstan_api::v1beta2::{
    ApiEndpoint, Cluster, Machine, MachineDeployment, MachinePool, MachineSet,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::lookup::Lookup;
use crate::rollout::count;

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The Cluster.
    pub cluster: Cluster,
    /// Its infrastructure object; `None` when it names none.
    pub infra: Option<Lookup<Arc<Value>>>,
    /// Its control plane object; `None` when it names none.
    pub control_plane: Option<Lookup<Arc<Value>>>,
    /// Machines with its label.
    pub machines: Vec<Arc<Machine>>,
    /// MachineSets with its label.
    pub sets: Vec<MachineSet>,
    /// MachineDeployments with its label.
    pub deployments: Vec<MachineDeployment>,
    /// MachinePools with its label.
    pub pools: Vec<MachinePool>,
    /// The connection to the workload cluster.
    pub probe: Probe,
    /// The administrator's kubeconfig, when no control plane object makes it.
    pub kubeconfig: Kubeconfig,
}

/// What there is of the kubeconfig of a Cluster without a control plane object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kubeconfig {
    /// It is good, or somebody else makes it.
    #[default]
    Good,
    /// It has to be made or renewed.
    Due,
    /// It has to be made, and the Secret with the certificate authority is not there.
    NoAuthority,
}

/// What is known of the connection to the workload cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// When it last answered.
    pub last_success: Option<Timestamp>,
    /// How often it did not since.
    pub failures: u32,
    /// Why, in words for people, once that is certain.
    pub error: Option<String>,
}

impl Observed {
    /// Whether the Cluster is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        count::is_deleting(&self.cluster.metadata)
    }

    /// Whether a topology makes its objects and has not named them yet.
    #[must_use]
    pub fn waits_for_topology(&self) -> bool {
        self.cluster.spec.topology.is_some()
            && (self.infra.is_none() || self.control_plane.is_none())
    }

    /// What the status said about the infrastructure before.
    #[must_use]
    pub fn was_provisioned(&self) -> bool {
        let status = self
            .cluster
            .status
            .as_ref()
            .and_then(|status| status.initialization.as_ref());
        status.and_then(|done| done.infrastructure_provisioned) == Some(true)
    }

    /// Whether the infrastructure is, or once was, there; at once when there is none to wait for.
    #[must_use]
    pub fn is_provisioned(&self) -> bool {
        self.was_provisioned()
            || match &self.infra {
                None => self.cluster.spec.topology.is_none() && !self.is_deleting(),
                Some(infra) => infra.found().is_some_and(|object| {
                    !is_deleting_value(object) && InfraCluster(object).is_provisioned()
                }),
            }
    }

    /// What the status said about the control plane before.
    #[must_use]
    pub fn was_initialized(&self) -> bool {
        let status = self
            .cluster
            .status
            .as_ref()
            .and_then(|status| status.initialization.as_ref());
        status.and_then(|done| done.control_plane_initialized) == Some(true)
    }

    /// Whether the workload cluster's API is, or once was, reachable.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.was_initialized()
            || match &self.control_plane {
                Some(object) => object
                    .found()
                    .is_some_and(|object| ControlPlane(object).is_initialized()),
                None => self.control_plane_machines().any(|machine| {
                    machine
                        .status
                        .as_ref()
                        .is_some_and(|status| status.node_ref.is_some())
                }),
            }
    }

    /// The endpoint: the Cluster's own, else the infrastructure's once that is there, else the control plane's.
    #[must_use]
    pub fn endpoint(&self) -> Option<ApiEndpoint> {
        let own = self
            .cluster
            .spec
            .control_plane_endpoint
            .clone()
            .filter(ApiEndpoint::is_complete);
        own.or_else(|| {
            let infra = self.infra.as_ref().and_then(Lookup::found);
            let infra = infra.filter(|object| {
                !is_deleting_value(object)
                    && (self.was_provisioned() || InfraCluster(object).is_provisioned())
            });
            infra.and_then(|object| InfraCluster(object).endpoint())
        })
        .or_else(|| {
            let control_plane = self.control_plane.as_ref().and_then(Lookup::found);
            control_plane.and_then(|object| ControlPlane(object).endpoint())
        })
    }

    /// Machines of the control plane.
    pub fn control_plane_machines(&self) -> impl Iterator<Item = &Machine> {
        let machines = self.machines.iter().map(|machine| &**machine);
        machines.filter(|machine| count::is_control_plane(machine))
    }

    /// Other Machines.
    pub fn worker_machines(&self) -> impl Iterator<Item = &Machine> {
        let machines = self.machines.iter().map(|machine| &**machine);
        machines.filter(|machine| !count::is_control_plane(machine))
    }

    /// Worker Machines that are not those of a MachinePool, whose provider answers for them.
    pub fn own_workers(&self) -> impl Iterator<Item = &Machine> {
        self.worker_machines()
            .filter(|machine| count::label(&machine.metadata, label::POOL_NAME).is_none())
    }

    /// MachineSets that belong to no MachineDeployment.
    pub fn standalone_sets(&self) -> impl Iterator<Item = &MachineSet> {
        self.sets
            .iter()
            .filter(|set| !has_controller(&set.metadata))
    }

    /// Worker Machines that belong to nothing but the Cluster.
    pub fn standalone_workers(&self) -> impl Iterator<Item = &Machine> {
        self.worker_machines()
            .filter(|machine| !has_controller(&machine.metadata))
    }

    /// Whether an object is owned by this Cluster itself.
    #[must_use]
    pub fn owns(&self, metadata: &ObjectMeta) -> bool {
        let uid = self.cluster.metadata.uid.as_deref().unwrap_or_default();
        metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| owner.uid == uid)
    }
}

fn has_controller(metadata: &ObjectMeta) -> bool {
    metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true))
}

/// Whether an object that is not typed is being deleted.
#[must_use]
pub fn is_deleting_value(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
}

/// Kind of an object that is not typed.
#[must_use]
pub fn kind_of(object: &Value) -> &str {
    object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
