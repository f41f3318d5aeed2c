//! One host: where the contract's facts are in its infrastructure object and in that object's template.

use serde_json::{Value, json};

use super::{flag_at, text_at};
use crate::v1beta2::MachineAddress;

/// Reads an infrastructure machine.
#[derive(Clone, Copy, Debug)]
pub struct InfraMachine<'a>(pub &'a Value);

impl<'a> InfraMachine<'a> {
    /// The provider's name for the host; the Node must carry the same.
    pub fn provider_id(&self) -> Option<&'a str> {
        text_at(self.0, "/spec/providerID")
    }

    /// Whether it has been provisioned once.
    pub fn is_provisioned(&self) -> bool {
        flag_at(self.0, "/status/initialization/provisioned").unwrap_or(false)
    }

    /// Where the host was placed.
    pub fn failure_domain(&self) -> Option<&'a str> {
        text_at(self.0, "/status/failureDomain")
    }

    /// Addresses of the host; entries that are not well-formed are left out.
    pub fn addresses(&self) -> Vec<MachineAddress> {
        let listed = self
            .0
            .pointer("/status/addresses")
            .and_then(Value::as_array);
        listed
            .into_iter()
            .flatten()
            .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
            .collect()
    }

    /// Whether the cloud may take the host away.
    pub fn is_interruptible(&self) -> bool {
        flag_at(self.0, "/status/interruptible").unwrap_or(false)
    }
}

/// What a plugin says about a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Whether the host has been made.
    pub provisioned: bool,
    /// Where it was placed.
    pub failure_domain: Option<String>,
    /// Its addresses.
    pub addresses: Vec<MachineAddress>,
    /// Whether the cloud may take it away.
    pub interruptible: Option<bool>,
}

/// Merge patch of `spec.providerID`.
pub fn provider_id_patch(provider_id: &str) -> Value {
    json!({"spec": {"providerID": provider_id}})
}

/// Merge patch of the status; what is not known is removed.
pub fn status_patch(facts: &Facts) -> Value {
    json!({"status": {
        "initialization": {"provisioned": facts.provisioned},
        "failureDomain": facts.failure_domain,
        "addresses": if facts.addresses.is_empty() { Value::Null } else { json!(facts.addresses) },
        "interruptible": facts.interruptible,
    }})
}

/// Merge patch of a template's status: the size of a machine made from it, which the autoscaler reads
/// to grow a group from zero. `capacity` maps resource names to quantities.
pub fn template_status_patch(
    capacity: &Value,
    architecture: Option<&str>,
    operating_system: Option<&str>,
) -> Value {
    json!({"status": {
        "capacity": capacity,
        "nodeInfo": {"architecture": architecture, "operatingSystem": operating_system},
    }})
}
