//! Machines that the infrastructure keeps as one thing: where the contract's facts are in their infrastructure object.

use serde_json::Value;

use super::{count_at, flag_at, text_at};

/// Reads an infrastructure object of a MachinePool.
#[derive(Clone, Copy, Debug)]
pub struct InfraMachinePool<'a>(pub &'a Value);

impl<'a> InfraMachinePool<'a> {
    /// Whether the machines have been provisioned. Providers say it in one of two places: the contract's, or the older `status.ready`
    /// (contract 2.4).
    pub fn is_provisioned(&self) -> bool {
        ["/status/initialization/provisioned", "/status/ready"]
            .iter()
            .any(|pointer| flag_at(self.0, pointer) == Some(true))
    }

    /// Provider IDs of all machines, each once, in the provider's order.
    pub fn provider_ids(&self) -> Vec<&'a str> {
        let listed = self
            .0
            .pointer("/spec/providerIDList")
            .and_then(Value::as_array);
        let mut seen = std::collections::BTreeSet::new();
        listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|id| !id.is_empty() && seen.insert(*id))
            .collect()
    }

    /// How many machines there are; `None` while the provider does not say.
    pub fn replicas(&self) -> Option<i32> {
        count_at(self.0, "/status/replicas")
    }

    /// Kind of the infrastructure machines, where the provider makes one for each machine so that each gets a Machine.
    pub fn machine_kind(&self) -> Option<&'a str> {
        text_at(self.0, "/status/infrastructureMachineKind")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_provisioned_by_either_field() {
        let is = |status: Value| InfraMachinePool(&json!({"status": status})).is_provisioned();
        assert!(is(json!({"initialization": {"provisioned": true}})));
        assert!(is(json!({"ready": true})));
        assert!(is(
            json!({"ready": true, "initialization": {"provisioned": false}})
        ));
        for not_yet in [
            json!({}),
            json!({"ready": false}),
            json!({"initialization": {"provisioned": false}}),
            json!({"ready": "true"}),
        ] {
            assert!(!is(not_yet.clone()), "{not_yet}");
        }
    }

    #[test]
    fn members_are_listed_once_and_what_is_no_id_is_left_out() {
        let pool = json!({
            "spec": {"providerIDList": ["p://b", "p://a", "", "p://b", 7]},
            "status": {"replicas": 2, "infrastructureMachineKind": "HostMachine"},
        });
        let pool = InfraMachinePool(&pool);
        assert_eq!(pool.provider_ids(), ["p://b", "p://a"]);
        assert_eq!(pool.replicas(), Some(2));
        assert_eq!(pool.machine_kind(), Some("HostMachine"));
        let nothing = json!({});
        let nothing = InfraMachinePool(&nothing);
        assert_eq!((nothing.replicas(), nothing.machine_kind()), (None, None));
        assert!(nothing.provider_ids().is_empty());
    }
}
