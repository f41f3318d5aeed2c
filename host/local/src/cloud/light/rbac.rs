//! Who may do what on a workload API server: the roles and bindings that are stored there, plus what kubelets may do with their own things.

use serde_json::Value;

use super::identity::Identity;
use super::object::{list_at, text_at};
use super::resources::{self, Resource};
use super::store::Store;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Verb, as RBAC names it.
    pub(crate) verb: &'a str,
    /// The resource; absent for paths such as `/healthz`.
    pub(crate) resource: Option<&'static Resource>,
    /// Namespace, empty for all or none.
    pub(crate) namespace: &'a str,
    /// Name, empty for collections.
    pub(crate) name: &'a str,
    /// Subresource, empty for the object itself.
    pub(crate) subresource: &'a str,
    /// Path of a request that is not for a resource.
    pub(crate) path: &'a str,
}

/// Whether the user may.
pub(crate) fn allows(store: &Store, who: &Identity, ask: Ask<'_>) -> bool {
    if who.is_in("system:masters") || kubelet_may(store, who, ask) {
        return true;
    }
    let bindings = store.list(resources::cluster_role_bindings(), None);
    let cluster_wide = bindings
        .items
        .iter()
        .filter(|binding| is_bound(&binding.value, who, ""))
        .any(|binding| role_allows(store, &binding.value, "", ask));
    if cluster_wide || ask.namespace.is_empty() {
        return cluster_wide;
    }
    let bindings = store.list(resources::role_bindings(), Some(ask.namespace));
    bindings
        .items
        .iter()
        .filter(|binding| is_bound(&binding.value, who, ask.namespace))
        .any(|binding| role_allows(store, &binding.value, ask.namespace, ask))
}

fn is_bound(binding: &Value, who: &Identity, namespace: &str) -> bool {
    list_at(binding, "/subjects").iter().any(|subject| {
        let name = text_at(subject, "/name");
        match text_at(subject, "/kind") {
            "User" => name == who.name,
            "Group" => who.is_in(name),
            "ServiceAccount" => {
                let of = Some(text_at(subject, "/namespace"))
                    .filter(|ns| !ns.is_empty())
                    .unwrap_or(namespace);
                who.name == format!("system:serviceaccount:{of}:{name}")
            }
            _ => false,
        }
    })
}

fn role_allows(store: &Store, binding: &Value, namespace: &str, ask: Ask<'_>) -> bool {
    let name = text_at(binding, "/roleRef/name");
    let role = match text_at(binding, "/roleRef/kind") {
        "Role" => store.get(resources::roles(), namespace, name),
        _ => store.get(resources::cluster_roles(), "", name),
    };
    role.is_some_and(|role| {
        list_at(&role.value, "/rules")
            .iter()
            .any(|rule| rule_allows(rule, ask))
    })
}

fn lists(rule: &Value, field: &str, wanted: &str) -> bool {
    list_at(rule, field)
        .iter()
        .filter_map(Value::as_str)
        .any(|entry| entry == "*" || entry == wanted)
}

fn rule_allows(rule: &Value, ask: Ask<'_>) -> bool {
    if !lists(rule, "/verbs", ask.verb) {
        return false;
    }
    let Some(resource) = ask.resource else {
        return list_at(rule, "/nonResourceURLs")
            .iter()
            .filter_map(Value::as_str)
            .any(|url| {
                url == ask.path
                    || url
                        .strip_suffix('*')
                        .is_some_and(|prefix| ask.path.starts_with(prefix))
            });
    };
    let full = if ask.subresource.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}/{}", resource.plural, ask.subresource)
    };
    let names = list_at(rule, "/resourceNames");
    lists(rule, "/apiGroups", resource.group)
        && lists(rule, "/resources", &full)
        && (names.is_empty() || (!ask.name.is_empty() && lists(rule, "/resourceNames", ask.name)))
}

/// What the node authorizer grants: reading what pods need, and writing a kubelet's own Node, Lease and pods.
fn kubelet_may(store: &Store, who: &Identity, ask: Ask<'_>) -> bool {
    let (Some(node), Some(resource)) = (who.node(), ask.resource) else {
        return false;
    };
    let reads = matches!(ask.verb, "get" | "list" | "watch");
    let own_pod = || {
        store
            .get(resources::pods(), ask.namespace, ask.name)
            .is_some_and(|pod| text_at(&pod.value, "/spec/nodeName") == node)
    };
    match (resource.group, resource.plural) {
        ("", "nodes") => {
            (reads && ask.subresource.is_empty())
                || (ask.verb == "create" || (ask.name == node && ask.verb != "delete"))
        }
        ("coordination.k8s.io", "leases") => {
            ask.namespace == "kube-node-lease" && (ask.name == node || ask.verb == "create")
        }
        ("", "pods") => {
            reads
                || ask.verb == "create"
                || (matches!(ask.verb, "update" | "patch" | "delete") && own_pod())
        }
        ("", "services") | ("storage.k8s.io", "csidrivers" | "volumeattachments") => reads,
        ("", "configmaps" | "secrets" | "persistentvolumes" | "persistentvolumeclaims") => {
            ask.verb == "get" && ask.namespace != "kube-public"
        }
        ("", "events") => matches!(ask.verb, "create" | "update" | "patch"),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            matches!(ask.verb, "create" | "get" | "list" | "watch") && ask.subresource.is_empty()
        }
        _ => false,
    }
}
