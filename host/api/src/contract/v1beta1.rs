//! The older contract: what a provider's object says in its words, in those of the current one (contract 2, "v1b1" paths).
//!
//! Only the version differs, so objects of such a kind are translated once, where they are looked up, and everything else reads the
//! current contract.

use serde_json::{Map, Value, json};

/// The object in the words of the current contract; `None` when it says nothing that has to be translated.
///
/// `status.ready` and `status.initialized` become the flags of `status.initialization`, the map of failure domains becomes a list,
/// `spec.failureDomain` of a machine becomes `status.failureDomain`, `updatedReplicas` and `unavailableReplicas` of a control plane
/// become `upToDateReplicas` and `availableReplicas`. What already has its current name stays.
#[must_use]
pub fn translated(object: &Value) -> Option<Value> {
    let status = object.get("status")?.as_object()?;
    let mut new = Map::new();
    let flag = |name: &str| status.get(name).and_then(Value::as_bool);
    if !status.contains_key("initialization") {
        let mut initialization = Map::new();
        if let Some(ready) = flag("ready") {
            // One name for two facts; which of them is read depends on the role.
            initialization.insert("provisioned".to_owned(), json!(ready));
            initialization.insert("dataSecretCreated".to_owned(), json!(ready));
        }
        if let Some(initialized) = flag("initialized") {
            initialization.insert("controlPlaneInitialized".to_owned(), json!(initialized));
        }
        if !initialization.is_empty() {
            new.insert("initialization".to_owned(), Value::Object(initialization));
        }
    }
    if let Some(domains) = status.get("failureDomains").and_then(Value::as_object) {
        let listed: Vec<Value> = domains
            .iter()
            .map(|(name, domain)| named(name, domain))
            .collect();
        new.insert("failureDomains".to_owned(), json!(listed));
    }
    if !status.contains_key("failureDomain")
        && flag("ready").is_some()
        && let Some(domain) = object.pointer("/spec/failureDomain")
    {
        new.insert("failureDomain".to_owned(), domain.clone());
    }
    let count = |name: &str| status.get(name).and_then(Value::as_i64);
    if !status.contains_key("upToDateReplicas")
        && let Some(updated) = count("updatedReplicas")
    {
        new.insert("upToDateReplicas".to_owned(), json!(updated));
    }
    if !status.contains_key("availableReplicas")
        && let (Some(all), Some(unavailable)) = (count("replicas"), count("unavailableReplicas"))
    {
        let available = all.saturating_sub(unavailable).max(0);
        new.insert("availableReplicas".to_owned(), json!(available));
    }
    if new.is_empty() {
        return None;
    }
    let mut object = object.clone();
    object.get_mut("status")?.as_object_mut()?.extend(new);
    Some(object)
}

/// A failure domain of the map, as an entry of the list.
fn named(name: &str, domain: &Value) -> Value {
    let mut entry = domain.as_object().cloned().unwrap_or_default();
    entry.insert("name".to_owned(), json!(name));
    Value::Object(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{BootstrapConfig, ControlPlane, InfraCluster};

    #[test]
    fn an_object_of_the_older_contract_is_read_like_any_other() {
        let cluster = translated(&json!({"status": {
            "ready": true,
            "failureDomains": {"b": {"controlPlane": true, "attributes": {"x": "y"}}, "a": {}},
        }}))
        .unwrap();
        let cluster = InfraCluster(&cluster);
        assert!(cluster.is_provisioned());
        let domains = cluster.failure_domains();
        let names: Vec<_> = domains
            .iter()
            .map(|d| (&*d.name, d.control_plane))
            .collect();
        assert_eq!(names, [("a", Some(false)), ("b", Some(true))]);

        let config = json!({"status": {"ready": true, "dataSecretName": "s"}});
        let config = translated(&config).unwrap();
        assert_eq!(BootstrapConfig(&config).data_secret_name(), Some("s"));

        let machine = json!({"spec": {"failureDomain": "a"}, "status": {"ready": false}});
        let machine = translated(&machine).unwrap();
        assert_eq!(machine["status"]["failureDomain"], "a");
        assert_eq!(machine["status"]["initialization"]["provisioned"], false);

        let plane = json!({"spec": {"replicas": 3}, "status": {
            "initialized": true, "replicas": 3, "updatedReplicas": 1, "unavailableReplicas": 2,
        }});
        let plane = translated(&plane).unwrap();
        assert!(ControlPlane(&plane).is_initialized());
        assert_eq!(plane["status"]["upToDateReplicas"], 1);
        assert_eq!(plane["status"]["availableReplicas"], 1);
    }

    #[test]
    fn what_has_its_current_name_stays() {
        assert_eq!(translated(&json!({"spec": {}})), None);
        let both = json!({"status": {
            "ready": true, "initialization": {"provisioned": false},
            "replicas": 2, "unavailableReplicas": 2, "availableReplicas": 1,
        }});
        assert_eq!(translated(&both), None);
    }
}
