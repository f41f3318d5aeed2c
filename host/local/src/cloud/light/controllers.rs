//! What runs inside a workload cluster: signing of certificates and of `cluster-info`, garbage collection, namespaces, Node lifecycle, and the
//! kubelets' part. One task per cluster, which sleeps until something changes or is due.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::object::{self, as_object, list_at, metadata, text_at};
use super::resources::{self, Resource, find_kind};
use super::store::{Change, Write};
use super::{kubelets, signing};

/// Runs until the cluster is dropped.
pub(crate) async fn run(cluster: Weak<Cluster>) {
    let mut due: BTreeMap<(Instant, u64), Work> = BTreeMap::new();
    let mut serial = 0_u64;
    let mut next_round = Instant::now();
    loop {
        let Some(strong) = cluster.upgrade() else {
            return;
        };
        if strong.is_up() {
            for (resource, change) in strong.store.take_reactions() {
                react(&strong, resource, &change, &mut |after, work| {
                    serial = serial.saturating_add(1);
                    let at = Instant::now()
                        .checked_add(after)
                        .unwrap_or_else(Instant::now);
                    due.insert((at, serial), work);
                });
            }
            let now = Instant::now();
            while let Some(entry) = due.first_entry().filter(|entry| entry.key().0 <= now) {
                kubelets::work(&strong, entry.remove());
            }
            if next_round <= now {
                next_round = kubelets::round(&strong, now);
                signing::remove_expired_tokens(&strong);
                publish_root(&strong);
            }
        } else {
            next_round = Instant::now()
                .checked_add(Duration::from_millis(500))
                .unwrap_or_else(Instant::now);
        }
        let wake = due
            .keys()
            .next()
            .map_or(next_round, |(at, _)| next_round.min(*at));
        let sooner = kubelets::next_change(&strong).map_or(wake, |at| wake.min(at));
        if sooner < next_round {
            next_round = kubelets::next_change(&strong).map_or(next_round, |at| next_round.min(at));
        }
        let woken = async {
            strong.store.woken.notified().await;
        };
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep_until(sooner) => {}
        }
    }
}

/// Something that a kubelet does a little later.
#[derive(Debug)]
pub(crate) enum Work {
    /// Start a pod.
    StartPod {
        namespace: String,
        name: String,
        uid: String,
    },
    /// End a pod.
    EndPod {
        namespace: String,
        name: String,
        uid: String,
    },
}

fn react(
    cluster: &Arc<Cluster>,
    resource: &'static Resource,
    change: &Change,
    later: &mut dyn FnMut(Duration, Work),
) {
    match &change.new {
        Some(new) => {
            match (resource.group, resource.plural) {
                ("", "pods") => kubelets::pod_changed(cluster, &new.value, later),
                ("", "namespaces") => namespace_changed(cluster, &new.value),
                ("", "secrets" | "configmaps") => signing::secret_changed(cluster, &new.value),
                ("certificates.k8s.io", "certificatesigningrequests") => {
                    signing::request_changed(cluster, &new.value)
                }
                _ => {}
            }
            if change.old.is_none() {
                collect_if_orphaned(cluster, resource, &new.value);
            }
            if object::is_deleting(&new.value) {
                finish_owner(cluster, resource, &new.value);
            }
        }
        None => {
            if let Some(old) = &change.old {
                removed(cluster, resource, &old.value);
            }
        }
    }
}

fn removed(cluster: &Arc<Cluster>, resource: &'static Resource, old: &Value) {
    let uid = object::uid(old).to_owned();
    let dependents = cluster
        .store
        .find(|_, value| owners(value).any(|owner| text_at(owner, "/uid") == uid));
    for (kind, dependent) in dependents {
        collect_if_orphaned(cluster, kind, &dependent.value);
    }
    for owner in owners(old) {
        let found = find_kind(text_at(owner, "/apiVersion"), text_at(owner, "/kind"));
        let namespace = |kind: &Resource| {
            if kind.namespaced {
                object::namespace(old).to_owned()
            } else {
                String::new()
            }
        };
        if let Some(kind) = found
            && let Some(owner) = cluster
                .store
                .get(kind, &namespace(kind), text_at(owner, "/name"))
            && object::is_deleting(&owner.value)
        {
            finish_owner(cluster, kind, &owner.value);
        }
    }
    if resource.plural == "secrets"
        || (resource.plural == "configmaps" && object::name(old) == "cluster-info")
    {
        signing::secret_changed(cluster, old);
    }
    if resource.namespaced
        && let Some(namespace) =
            cluster
                .store
                .get(resources::namespaces(), "", object::namespace(old))
        && object::is_deleting(&namespace.value)
    {
        namespace_changed(cluster, &namespace.value);
    }
    if resource.is("", "nodes") {
        let node = object::name(old).to_owned();
        for pod in cluster.store.list(resources::pods(), None).items {
            if text_at(&pod.value, "/spec/nodeName") == node {
                kubelets::remove_pod(
                    cluster,
                    object::namespace(&pod.value),
                    object::name(&pod.value),
                    object::uid(&pod.value),
                );
            }
        }
    }
}

fn owners(value: &Value) -> impl Iterator<Item = &Value> {
    list_at(value, "/metadata/ownerReferences").iter()
}

/// Deletes an object none of whose owners exists; takes out the references to those that do not when some do.
fn collect_if_orphaned(cluster: &Arc<Cluster>, resource: &'static Resource, value: &Value) {
    let is_there = |owner: &Value| {
        let Some(kind) = find_kind(text_at(owner, "/apiVersion"), text_at(owner, "/kind")) else {
            return true;
        };
        let namespace = if kind.namespaced {
            object::namespace(value)
        } else {
            ""
        };
        cluster
            .store
            .get(kind, namespace, text_at(owner, "/name"))
            .is_some_and(|found| object::uid(&found.value) == text_at(owner, "/uid"))
    };
    let all: Vec<&Value> = owners(value).collect();
    let alive: Vec<Value> = all
        .iter()
        .filter(|owner| is_there(owner))
        .map(|owner| (*owner).clone())
        .collect();
    if alive.len() == all.len() {
        return;
    }
    let uid = object::uid(value).to_owned();
    if alive.is_empty() {
        delete(
            cluster,
            resource,
            object::namespace(value),
            object::name(value),
            &uid,
        );
    } else {
        edit(cluster, resource, value, |new| {
            metadata(new).insert("ownerReferences".into(), json!(alive));
        });
    }
}

/// Begins a background deletion of exactly this object.
pub(crate) fn delete(
    cluster: &Cluster,
    resource: &'static Resource,
    namespace: &str,
    name: &str,
    uid: &str,
) {
    let target = super::request::Target {
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: String::new(),
    };
    let options = json!({"preconditions": {"uid": uid}, "propagationPolicy": "Background"});
    let done = super::verbs::Deletion::parse(&options, &super::request::Query::default())
        .and_then(|how| super::verbs::delete(&cluster.store, &target, &how));
    if let Err(error) = done
        && !matches!(error.code, 404 | 409)
    {
        tracing::warn!(
            error = error.message,
            "a workload cluster's controller could not delete an object"
        );
    }
}

/// Changes an object in place, if it still is the same one.
pub(crate) fn edit(
    cluster: &Cluster,
    resource: &'static Resource,
    value: &Value,
    change: impl FnOnce(&mut Value),
) {
    let uid = object::uid(value).to_owned();
    let done = cluster.store.write(
        resource,
        object::namespace(value),
        object::name(value),
        |old| match old {
            Some(old) if object::uid(&old.value) == uid => {
                let mut new = old.value.clone();
                change(&mut new);
                Ok(Write::Update(new))
            }
            _ => Ok(Write::Keep),
        },
    );
    if let Err(error) = done {
        tracing::warn!(
            error = error.message,
            "a workload cluster's controller could not write an object"
        );
    }
}

/// Carries on a deletion in the foreground, or one that leaves the dependents alone.
fn finish_owner(cluster: &Arc<Cluster>, resource: &'static Resource, owner: &Value) {
    let has = |finalizer: &str| {
        list_at(owner, "/metadata/finalizers")
            .iter()
            .any(|found| found == finalizer)
    };
    let uid = object::uid(owner).to_owned();
    let is_dependent = |value: &Value| owners(value).any(|owner| text_at(owner, "/uid") == uid);
    let drop_finalizer = |finalizer: &str| {
        edit(cluster, resource, owner, |new| {
            if let Some(list) = metadata(new)
                .get_mut("finalizers")
                .and_then(Value::as_array_mut)
            {
                list.retain(|found| found != finalizer);
            }
        });
    };
    if has("orphan") {
        for (kind, dependent) in cluster.store.find(|_, value| is_dependent(value)) {
            edit(cluster, kind, &dependent.value, |new| {
                if let Some(list) = metadata(new)
                    .get_mut("ownerReferences")
                    .and_then(Value::as_array_mut)
                {
                    list.retain(|owner| text_at(owner, "/uid") != uid);
                }
            });
        }
        drop_finalizer("orphan");
    } else if has("foregroundDeletion") {
        let dependents = cluster.store.find(|_, value| is_dependent(value));
        let blocks = |value: &Value| {
            owners(value).any(|owner| {
                text_at(owner, "/uid") == uid
                    && owner.get("blockOwnerDeletion").and_then(Value::as_bool) == Some(true)
            })
        };
        let is_blocked = dependents
            .iter()
            .any(|(_, dependent)| blocks(&dependent.value));
        for (kind, dependent) in dependents
            .iter()
            .filter(|(_, dependent)| !object::is_deleting(&dependent.value))
        {
            let value = &dependent.value;
            delete(
                cluster,
                kind,
                object::namespace(value),
                object::name(value),
                object::uid(value),
            );
        }
        if !is_blocked {
            drop_finalizer("foregroundDeletion");
        }
    }
}

/// Where pods find whom to trust.
const ROOT: &str = "kube-root-ca.crt";

/// Has pods trust what the leading controller manager trusts.
fn publish_root(cluster: &Arc<Cluster>) {
    let Some(leader) = cluster.leader() else {
        return;
    };
    for map in cluster.store.list(resources::config_maps(), None).items {
        let is_other = text_at(&map.value, "/data/ca.crt") != leader.authority.pem;
        if object::name(&map.value) == ROOT && is_other {
            edit(cluster, resources::config_maps(), &map.value, |map| {
                object::child(map, "data").insert("ca.crt".into(), json!(leader.authority.pem));
            });
        }
    }
}

/// Gives a new namespace what every namespace has; empties and finishes one that is being deleted.
fn namespace_changed(cluster: &Arc<Cluster>, namespace: &Value) {
    let name = object::name(namespace);
    if !object::is_deleting(namespace) {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
        ensure(cluster, &account);
        if let Some(leader) = cluster.leader() {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": leader.authority.pem},
                "metadata": {"name": ROOT, "namespace": name}});
            ensure(cluster, &map);
        }
        return;
    }
    let contents = cluster
        .store
        .find(|resource, value| resource.namespaced && object::namespace(value) == name);
    for (resource, object) in &contents {
        let value = &object.value;
        if !object::is_deleting(value) {
            delete(
                cluster,
                resource,
                name,
                object::name(value),
                object::uid(value),
            );
        }
    }
    let is_empty = cluster
        .store
        .find(|resource, value| resource.namespaced && object::namespace(value) == name)
        .is_empty();
    if is_empty {
        edit(cluster, resources::namespaces(), namespace, |new| {
            object::child(new, "spec").insert("finalizers".into(), json!([]));
        });
    }
}

/// Creates an object unless one of its name is there.
pub(crate) fn ensure(cluster: &Cluster, value: &Value) {
    let Some(resource) = find_kind(text_at(value, "/apiVersion"), text_at(value, "/kind")) else {
        return;
    };
    let target = super::request::Target {
        resource,
        namespace: object::namespace(value).to_owned(),
        name: String::new(),
        subresource: String::new(),
    };
    let mut value = value.clone();
    let status = as_object(&mut value).remove("status");
    let name = object::name(&value).to_owned();
    if cluster
        .store
        .get(resource, &target.namespace, &name)
        .is_some()
    {
        return;
    }
    let done = super::prepare::for_create(&target, value, &super::identity::Identity::anonymous())
        .and_then(|mut value| {
            if let Some(status) = status {
                as_object(&mut value).insert("status".into(), status);
            }
            cluster
                .store
                .write(resource, &target.namespace, &name, |old| match old {
                    Some(_) => Ok(Write::Keep),
                    None => Ok(Write::Create(value)),
                })
        });
    if let Err(error) = done {
        tracing::warn!(
            error = error.message,
            "a workload cluster's controller could not create an object"
        );
    }
}
