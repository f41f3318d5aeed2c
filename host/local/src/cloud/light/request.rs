//! What a request to a workload API server is for: its path and query taken apart.

use std::collections::HashMap;

use http::Method;

use super::resources::{self, Resource};

/// A request for objects.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The resource.
    pub(crate) resource: &'static Resource,
    /// Namespace, empty for cluster-scoped objects and for all namespaces.
    pub(crate) namespace: String,
    /// Name, empty for the collection.
    pub(crate) name: String,
    /// Subresource, empty for the object itself.
    pub(crate) subresource: String,
}

/// What a path leads to.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// Objects.
    Objects(Target),
    /// Anything that is not under a resource.
    Path(String),
}

/// Finds what a path leads to; absent when it is under the API but there is nothing of the kind.
pub(crate) fn route(path: &str) -> Option<Route> {
    let parts: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(percent_decoded)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Some(Route::Path(path.to_owned())),
    };
    let (namespace, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return None,
    };
    let resource = resources::find(group, plural)?;
    let known = subresource.is_empty() || resource.subresources.contains(&subresource);
    if resource.version != version || !known {
        return None;
    }
    let misplaced = if resource.namespaced {
        namespace.is_empty() && !name.is_empty()
    } else {
        !namespace.is_empty()
    };
    if misplaced {
        return None;
    }
    Some(Route::Objects(Target {
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    }))
}

fn percent_decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// A request's query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    /// Parses it; of a repeated name the last value counts.
    pub(crate) fn parse(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A value, or the empty string.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether a value is true.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }
}

/// The verb that RBAC sees.
pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    let verb = match (method.as_str(), target.name.is_empty()) {
        ("GET" | "HEAD", true) if query.is_set("watch") => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        ("DELETE", true) => "deletecollection",
        _ => return None,
    };
    Some(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<Target> {
        match route(path)? {
            Route::Objects(target) => Some(target),
            Route::Path(_) => None,
        }
    }

    #[test]
    fn finds_namespaces_and_what_is_in_them() {
        let ns = target("/api/v1/namespaces/x").unwrap();
        assert_eq!(
            (ns.resource.plural, ns.name.as_str(), ns.namespace.as_str()),
            ("namespaces", "x", "")
        );
        let status = target("/api/v1/namespaces/x/status").unwrap();
        assert_eq!(status.subresource, "status");
        let pod = target("/api/v1/namespaces/x/pods/p/eviction").unwrap();
        assert_eq!(
            (
                pod.resource.plural,
                pod.namespace.as_str(),
                pod.subresource.as_str()
            ),
            ("pods", "x", "eviction")
        );
        let all = target("/apis/apps/v1/deployments").unwrap();
        assert_eq!(
            (
                all.resource.plural,
                all.namespace.as_str(),
                all.name.as_str()
            ),
            ("deployments", "", "")
        );
        assert_eq!(
            target("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode")
                .unwrap()
                .name,
            "system:node"
        );
    }

    #[test]
    fn refuses_what_is_not_served() {
        assert!(route("/api/v2/pods").is_none());
        assert!(route("/api/v1/gizmos").is_none());
        assert!(route("/api/v1/namespaces/x/nodes/n").is_none());
        assert!(route("/api/v1/namespaces/x/pods/p/nonsense").is_none());
        assert!(matches!(route("/healthz"), Some(Route::Path(_))));
        assert!(matches!(route("/api/v1"), Some(Route::Path(_))));
    }
}
