//! What a workload API server says about itself: discovery, version, health and a minimal OpenAPI document.

use http::Response;
use serde_json::{Value, json};

use super::api::{Body, answer, json_answer};
use super::cluster::Cluster;
use super::resources::{RESOURCES, Resource, groups};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that is not under a resource; absent when there is nothing there.
pub(crate) fn answer_path(cluster: &Cluster, path: &str, accept: &str) -> Option<Response<Body>> {
    let aggregated = accept
        .split(',')
        .next()
        .is_some_and(|first| first.contains("apidiscovery.k8s.io"));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let value = match parts.as_slice() {
        [] => json!({"paths": paths()}),
        ["healthz" | "livez" | "readyz", ..] => {
            return Some(answer(200, "text/plain; charset=utf-8", "ok"));
        }
        ["version"] => version(&cluster.version()),
        ["api"] if aggregated => return Some(answer(200, AGGREGATED, aggregate(true).to_string())),
        ["apis"] if aggregated => {
            return Some(answer(200, AGGREGATED, aggregate(false).to_string()));
        }
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": cluster.endpoint()}]}),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", "v1"] => resource_list("", "v1"),
        ["apis", name] if groups().contains(name) => {
            let mut value = group(name);
            super::object::as_object(&mut value).insert("kind".into(), json!("APIGroup"));
            super::object::as_object(&mut value).insert("apiVersion".into(), json!("v1"));
            value
        }
        ["apis", name, "v1"] if groups().contains(name) => resource_list(name, "v1"),
        ["openapi", "v2"] => {
            json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": cluster.version()},
            "paths": {}, "definitions": {}})
        }
        ["openapi", "v3"] => json!({"paths": {}}),
        _ => return None,
    };
    Some(json_answer(200, &value))
}

fn paths() -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for group in groups() {
        paths.push(format!("/apis/{group}"));
        paths.push(format!("/apis/{group}/v1"));
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    paths
}

fn version(version: &str) -> Value {
    let mut parts = version.trim_start_matches('v').split('.');
    json!({"major": parts.next().unwrap_or_default(), "minor": parts.next().unwrap_or_default(),
        "gitVersion": version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64"})
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn verbs(subresource: &str) -> Value {
    match subresource {
        "" => json!([
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch"
        ]),
        "binding" | "eviction" => json!(["create"]),
        "log" => json!(["get"]),
        "finalize" => json!(["update"]),
        _ => json!(["get", "patch", "update"]),
    }
}

/// Group, version and kind of what a subresource takes.
fn kind_of(resource: &Resource, subresource: &str) -> (&'static str, &'static str) {
    match subresource {
        "eviction" => ("policy", "Eviction"),
        "binding" => ("", "Binding"),
        _ => (resource.group, resource.kind),
    }
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for resource in RESOURCES.iter().filter(|resource| resource.group == group) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs(""), "shortNames": resource.short,
        });
        if resource.in_all {
            super::object::as_object(&mut entry).insert("categories".into(), json!(["all"]));
        }
        list.push(entry);
        for subresource in resource.subresources {
            let (of, kind) = kind_of(resource, subresource);
            let mut entry = json!({
                "name": format!("{}/{subresource}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs(subresource),
            });
            if of != resource.group {
                super::object::as_object(&mut entry).insert("group".into(), json!(of));
                super::object::as_object(&mut entry).insert("version".into(), json!("v1"));
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn aggregate(core: bool) -> Value {
    let names = if core { vec![""] } else { groups() };
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let resources: Vec<Value> = RESOURCES
                .iter()
                .filter(|resource| resource.group == name)
                .map(aggregated)
                .collect();
            json!({"metadata": {"name": name, "creationTimestamp": null},
                "versions": [{"version": "v1", "freshness": "Current", "resources": resources}]})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated(resource: &Resource) -> Value {
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let (group, kind) = kind_of(resource, subresource);
            json!({"subresource": subresource, "verbs": verbs(subresource),
                "responseKind": {"group": group, "version": "v1", "kind": kind}})
        })
        .collect();
    json!({
        "resource": resource.plural, "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "verbs": verbs(""), "shortNames": resource.short, "subresources": subresources,
        "categories": if resource.in_all { json!(["all"]) } else { json!([]) },
    })
}
