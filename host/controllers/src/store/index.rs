//! The indexes of a store: keys of objects by what is asked for often.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::name::ObjectKey;

use crate::kinds;
use crate::object::Object;

/// Indexes of the objects of one store.
#[derive(Default)]
pub(super) struct Index {
    by_owner: BTreeMap<String, BTreeSet<ObjectKey>>,
    by_cluster: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// What Machines say of their Nodes: the Cluster, the name or provider ID of the Node, and the Machine.
    by_node: BTreeSet<(ObjectKey, String, ObjectKey)>,
    /// Those that are being deleted.
    deleting: BTreeSet<ObjectKey>,
}

impl Index {
    pub(super) fn add(&mut self, object: &Object) {
        if object.is_deleting() {
            self.deleting.insert(object.key.clone());
        }
        self.by_node.extend(nodes_of(object));
        for owner in object.owners() {
            self.by_owner
                .entry(owner.uid.to_owned())
                .or_default()
                .insert(object.key.clone());
        }
        if let Some(cluster) = object.cluster() {
            self.by_cluster
                .entry(cluster)
                .or_default()
                .insert(object.key.clone());
        }
    }

    /// Takes out an object as it was taken in.
    pub(super) fn remove(&mut self, object: &Object) {
        self.deleting.remove(&object.key);
        for node in nodes_of(object) {
            self.by_node.remove(&node);
        }
        for owner in object.owners() {
            if let Some(keys) = self.by_owner.get_mut(owner.uid) {
                keys.remove(&object.key);
                if keys.is_empty() {
                    self.by_owner.remove(owner.uid);
                }
            }
        }
        if let Some(cluster) = object.cluster()
            && let Some(keys) = self.by_cluster.get_mut(&cluster)
        {
            keys.remove(&object.key);
            if keys.is_empty() {
                self.by_cluster.remove(&cluster);
            }
        }
    }

    /// With an owner reference to this UID.
    pub(super) fn owned_by(&self, uid: &str) -> impl Iterator<Item = &ObjectKey> {
        self.by_owner.get(uid).into_iter().flatten()
    }

    /// Of this cluster.
    pub(super) fn of_cluster(&self, cluster: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_cluster.get(cluster).into_iter().flatten()
    }

    /// Of this cluster, and with this Node by its name or its provider ID.
    pub(super) fn of_node(
        &self,
        cluster: &ObjectKey,
        name: &str,
        id: Option<&str>,
    ) -> BTreeSet<&ObjectKey> {
        let mut machines = BTreeSet::new();
        for said in [Some(name), id].into_iter().flatten() {
            let from = (cluster.clone(), said.to_owned(), ObjectKey::default());
            let all = self.by_node.range(from..);
            let meant = all.take_while(|(of, node, _)| of == cluster && node == said);
            machines.extend(meant.map(|(_, _, machine)| machine));
        }
        machines
    }

    /// Those that are being deleted.
    pub(super) fn deleting(&self) -> impl Iterator<Item = &ObjectKey> {
        self.deleting.iter()
    }
}

/// What a Machine says of its Node, as it is kept.
fn nodes_of(object: &Object) -> impl Iterator<Item = (ObjectKey, String, ObjectKey)> {
    let is_machine = object.kind() == kinds::MACHINE.kind;
    let cluster = object.cluster().filter(|_| is_machine);
    let said = ["/status/nodeRef/name", "/spec/providerID"].map(|pointer| object.text(pointer));
    let said = said.into_iter().flatten();
    said.filter_map(move |node| Some((cluster.clone()?, node.to_owned(), object.key.clone())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Store;

    #[test]
    fn the_machines_of_a_node_are_found_by_its_name_and_by_its_provider_id() {
        let machine = |name: &str, cluster: &str, node: &str, id: &str, version: u64| {
            let mut value = json!({
                "kind": "Machine", "metadata": {
                    "name": name, "namespace": "ns", "uid": name, "resourceVersion": version.to_string(),
                },
                "spec": {"clusterName": cluster, "providerID": id},
            });
            if !node.is_empty() {
                value["status"] = json!({"nodeRef": {"name": node}});
            }
            Object::new(value).expect("has a name")
        };
        let store = Store::new(kinds::MACHINE.clone());
        let names = |cluster: &str, node: &str, id: Option<&str>| {
            let found = store.of_node(&ObjectKey::new("ns", cluster), node, id);
            let names = found.iter().map(|it| it.key.name.clone());
            names.collect::<Vec<_>>()
        };
        for at in 0..1000 {
            let (name, id) = (format!("m-{at}"), format!("p://{at}"));
            store.apply(machine(&name, "c", &name, &id, 5));
        }
        store.apply(machine("other", "d", "m-1", "p://1", 5));
        // The Machine before its reference is written, and one that has it.
        store.apply(machine("fresh", "c", "", "p://new", 5));
        assert_eq!(names("c", "m-1", Some("p://1")), ["m-1"]);
        assert_eq!(names("c", "m-1", None), ["m-1"]);
        assert_eq!(names("c", "new", Some("p://new")), ["fresh"]);
        assert_eq!(names("c", "m-1", Some("p://2")), ["m-1", "m-2"]);
        assert_eq!(names("d", "m-1", Some("p://2")), ["other"]);
        assert!(names("c", "m-1000", Some("p://1000")).is_empty());
        // It follows what they say.
        store.apply(machine("m-1", "c", "n", "p://n", 6));
        assert!(names("c", "m-1", Some("p://1")).is_empty());
        assert_eq!(names("c", "n", None), ["m-1"]);
        store.remove(&ObjectKey::new("ns", "m-2"), "m-2", 7);
        assert!(names("c", "m-2", Some("p://2")).is_empty());
        store.start_over(vec![machine("m-3", "c", "again", "p://3", 1)]);
        assert_eq!(names("c", "again", None), ["m-3"]);
        assert!(names("c", "m-3", None).is_empty());
        assert!(names("c", "m-4", Some("p://4")).is_empty());
        // Other kinds say the same of other things.
        let mut other = Value::clone(&machine("thing", "c", "thing", "p://thing", 9).value);
        other["kind"] = json!("ThingMachine");
        store.apply(Object::new(other).expect("has a name"));
        assert!(names("c", "thing", Some("p://thing")).is_empty());
    }
}
