//! Infrastructure that a whole Cluster shares: where the contract's facts are in its object.

use serde_json::{Value, json};

use super::{endpoint, flag_at};
use crate::v1beta2::{ApiEndpoint, FailureDomain};

/// Reads an infrastructure cluster.
#[derive(Clone, Copy, Debug)]
pub struct InfraCluster<'a>(pub &'a Value);

impl InfraCluster<'_> {
    /// Whether it has been provisioned once.
    pub fn is_provisioned(&self) -> bool {
        flag_at(self.0, "/status/initialization/provisioned").unwrap_or(false)
    }

    /// Where the workload cluster's API will be reached, if this provider decides that.
    pub fn endpoint(&self) -> Option<ApiEndpoint> {
        endpoint(self.0)
    }

    /// Failure domains by name; `controlPlane` that is left out is no. Entries without a name are left
    /// out, and of two with the same name the first counts.
    pub fn failure_domains(&self) -> Vec<FailureDomain> {
        let listed = self
            .0
            .pointer("/status/failureDomains")
            .and_then(Value::as_array);
        let mut domains: Vec<FailureDomain> = listed
            .into_iter()
            .flatten()
            .filter_map(|entry| serde_json::from_value::<FailureDomain>(entry.clone()).ok())
            .filter(|domain| !domain.name.is_empty())
            .map(|domain| FailureDomain {
                control_plane: Some(domain.control_plane.unwrap_or(false)),
                ..domain
            })
            .collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        domains.dedup_by(|a, b| a.name == b.name);
        domains
    }
}

/// Merge patch of the status: provisioned, and the failure domains (all of them; the list is replaced).
pub fn status_patch(provisioned: bool, failure_domains: &[FailureDomain]) -> Value {
    let mut status = json!({"initialization": {"provisioned": provisioned}});
    if let Value::Object(fields) = &mut status {
        fields.insert(
            "failureDomains".to_owned(),
            if failure_domains.is_empty() {
                Value::Null
            } else {
                json!(failure_domains)
            },
        );
    }
    json!({"status": status})
}
