//! A control plane: where the contract's facts are in its object, and what follows from them.

use serde_json::{Value, json};

use super::{count_at, endpoint, flag_at, text_at};
use crate::name::Version;
use crate::v1beta2::{ApiEndpoint, ContractVersionedObjectReference, StatusVersion};

/// Reads a control-plane object.
#[derive(Clone, Copy, Debug)]
pub struct ControlPlane<'a>(pub &'a Value);

impl<'a> ControlPlane<'a> {
    /// Where the workload cluster's API is reached, if this provider decides that.
    pub fn endpoint(&self) -> Option<ApiEndpoint> {
        endpoint(self.0)
    }

    /// Whether the workload cluster's API has answered once.
    pub fn is_initialized(&self) -> bool {
        flag_at(self.0, "/status/initialization/controlPlaneInitialized").unwrap_or(false)
    }

    /// Whether the control plane runs somewhere else than on Machines of the Cluster.
    pub fn is_externally_managed(&self) -> bool {
        flag_at(self.0, "/status/externalManagedControlPlane").unwrap_or(false)
    }

    /// How many machines there should be; `None` for kinds without machines.
    pub fn desired_replicas(&self) -> Option<i32> {
        count_at(self.0, "/spec/replicas")
    }

    /// How many machines there are.
    pub fn replicas(&self) -> Option<i32> {
        count_at(self.0, "/status/replicas")
    }

    /// How many machines are ready.
    pub fn ready_replicas(&self) -> Option<i32> {
        count_at(self.0, "/status/readyReplicas")
    }

    /// How many machines are available.
    pub fn available_replicas(&self) -> Option<i32> {
        count_at(self.0, "/status/availableReplicas")
    }

    /// How many machines match what is asked for.
    pub fn up_to_date_replicas(&self) -> Option<i32> {
        count_at(self.0, "/status/upToDateReplicas")
    }

    /// The Kubernetes version that is asked for.
    pub fn version(&self) -> Option<&'a str> {
        text_at(self.0, "/spec/version")
    }

    /// The Kubernetes versions that the machines run, oldest first.
    pub fn versions(&self) -> Vec<StatusVersion> {
        let listed = self.0.pointer("/status/versions").and_then(Value::as_array);
        let mut versions: Vec<StatusVersion> = listed
            .into_iter()
            .flatten()
            .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
            .collect();
        if versions.is_empty()
            && let Some(lowest) = text_at(self.0, "/status/version")
        {
            versions.push(StatusVersion {
                version: lowest.to_owned(),
                replicas: None,
            });
        }
        versions
    }

    /// The template of the machines' infrastructure objects.
    pub fn infrastructure_ref(&self) -> Option<ContractVersionedObjectReference> {
        let reference = self
            .0
            .pointer("/spec/machineTemplate/spec/infrastructureRef")?;
        serde_json::from_value(reference.clone()).ok()
    }

    /// Whether no machine runs a version yet.
    pub fn is_provisioning(&self) -> bool {
        self.versions().is_empty()
    }

    /// Whether a machine runs an older version than is asked for. Versions that cannot be read count as no.
    pub fn is_upgrading(&self) -> bool {
        let Some(wanted) = self
            .version()
            .and_then(|version| Version::parse(version).ok())
        else {
            return false;
        };
        self.versions()
            .iter()
            .filter_map(|entry| Version::parse(&entry.version).ok())
            .any(|running| wanted.compare_with_build(&running).is_gt())
    }

    /// Whether the numbers of machines are not yet what is asked for; never for kinds without machines.
    pub fn is_scaling(&self) -> bool {
        let Some(desired) = self.desired_replicas() else {
            return false;
        };
        [
            self.replicas(),
            self.up_to_date_replicas(),
            self.ready_replicas(),
            self.available_replicas(),
        ]
        .into_iter()
        .any(|count| count != Some(desired))
    }
}

/// Numbers of machines that the host reports for a control plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicas {
    /// Selector of the machines as text, for the scale subresource.
    pub selector: String,
    /// How many there are.
    pub replicas: i32,
    /// How many are ready.
    pub ready: i32,
    /// How many are available.
    pub available: i32,
    /// How many match what is asked for.
    pub up_to_date: i32,
    /// Versions that they run, oldest first.
    pub versions: Vec<StatusVersion>,
}

/// Merge patch of the status' numbers and versions.
pub fn replicas_patch(numbers: &Replicas) -> Value {
    json!({"status": {
        "selector": numbers.selector,
        "replicas": numbers.replicas,
        "readyReplicas": numbers.ready,
        "availableReplicas": numbers.available,
        "upToDateReplicas": numbers.up_to_date,
        "version": numbers.versions.first().map(|lowest| &lowest.version),
        "versions": if numbers.versions.is_empty() { Value::Null } else { json!(numbers.versions) },
    }})
}

/// Merge patch of the status once the workload cluster's API has answered.
pub fn initialized_patch() -> Value {
    json!({"status": {"initialization": {"controlPlaneInitialized": true}}})
}
