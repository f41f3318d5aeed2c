//! What controllers may do with the management cluster's API: each says so beside what it does, and the sum is the RBAC of an
//! installation.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::contract::CONTROL_PLANE_GROUP;
use serde_json::{Value, json};

use crate::kube_api::Resource;

/// Groups of Cluster API whose kinds plugins and other providers bring: they are not known before, so the whole group is named.
pub const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
/// As [`INFRASTRUCTURE`].
pub const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
/// As [`INFRASTRUCTURE`].
pub const CONTROL_PLANE: &str = CONTROL_PLANE_GROUP;

/// What a watch cache needs.
pub const WATCH: &[&str] = &["list", "watch"];

/// Some verbs on some resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    place: Place,
    group: String,
    resource: String,
    name: Option<&'static str>,
    verbs: &'static [&'static str],
}

/// Where an access holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Everywhere,
    OwnNamespace,
}

impl Access {
    /// To a resource, in all namespaces.
    #[must_use]
    pub fn to(resource: &Resource, verbs: &'static [&'static str]) -> Self {
        Self {
            place: Place::Everywhere,
            group: resource.group.clone(),
            resource: resource.plural.clone(),
            name: None,
            verbs,
        }
    }

    /// Changing the status of a resource, in all namespaces.
    #[must_use]
    pub fn to_status(resource: &Resource) -> Self {
        let mut access = Self::to(resource, &["patch"]);
        access.resource.push_str("/status");
        access
    }

    /// To all kinds of a group of providers, their statuses included, in all namespaces.
    #[must_use]
    pub fn to_group(group: &str, verbs: &'static [&'static str]) -> Self {
        Self {
            place: Place::Everywhere,
            group: group.to_owned(),
            resource: "*".to_owned(),
            name: None,
            verbs,
        }
    }

    /// The same in the host's own namespace only.
    #[must_use]
    pub fn in_own_namespace(self) -> Self {
        Self {
            place: Place::OwnNamespace,
            ..self
        }
    }

    /// The same to one object only.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }
}

/// RBAC rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Of the ClusterRole.
    pub everywhere: Vec<Value>,
    /// Of the Role in the host's own namespace.
    pub own_namespace: Vec<Value>,
}

/// Adds accesses up: one rule for each resource, without what another rule allows already.
#[must_use]
pub fn rules(accesses: &[Access]) -> Rules {
    type Key = (Place, String, String, Option<&'static str>);
    let mut verbs: BTreeMap<Key, BTreeSet<&'static str>> = BTreeMap::new();
    for access in accesses {
        let key = (
            access.place,
            access.group.clone(),
            access.resource.clone(),
            access.name,
        );
        verbs.entry(key).or_default().extend(access.verbs);
    }
    let everywhere = verbs.clone();
    let mut rules = Rules::default();
    for ((place, group, resource, name), mut verbs) in verbs {
        let wider = everywhere.get(&(Place::Everywhere, group.clone(), resource.clone(), None));
        if let Some(wider) = wider.filter(|_| place == Place::OwnNamespace) {
            verbs.retain(|verb| !wider.contains(verb));
        }
        if verbs.is_empty() {
            continue;
        }
        let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
        if let (Some(name), Some(rule)) = (name, rule.as_object_mut()) {
            rule.insert("resourceNames".to_owned(), json!([name]));
        }
        match place {
            Place::Everywhere => rules.everywhere.push(rule),
            Place::OwnNamespace => rules.own_namespace.push(rule),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn accesses_add_up_and_nothing_is_said_twice() {
        let rules = rules(&[
            Access::to(&kinds::SECRET, &["get"]),
            Access::to(&kinds::SECRET, &["create", "get"]),
            Access::to(&kinds::SECRET, &["get", "list"]).in_own_namespace(),
            Access::to(&kinds::MACHINE, &["get"]).in_own_namespace(),
            Access::to(&kinds::MACHINE, &["get"]),
            Access::to_status(&kinds::MACHINE),
            Access::to(&kinds::LEASE, &["patch"])
                .in_own_namespace()
                .named("capstan"),
        ]);
        let rule = |group: &str, resource: &str, verbs: Value| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
        assert_eq!(
            rules.everywhere,
            [
                rule("", "secrets", json!(["create", "get"])),
                rule("cluster.x-k8s.io", "machines", json!(["get"])),
                rule("cluster.x-k8s.io", "machines/status", json!(["patch"])),
            ]
        );
        let mut lease = rule("coordination.k8s.io", "leases", json!(["patch"]));
        lease["resourceNames"] = json!(["capstan"]);
        assert_eq!(
            rules.own_namespace,
            [rule("", "secrets", json!(["list"])), lease]
        );
    }
}
