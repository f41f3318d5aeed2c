//! Lists as tables, which is how kubectl asks for what it prints.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{self, Object, condition_status, list_at, text_at};
use super::resources::Resource;

/// Whether the client would rather have a table.
pub(crate) fn is_wanted(accept: &str) -> bool {
    accept
        .split(',')
        .next()
        .is_some_and(|first| first.contains("as=Table"))
}

/// The table of some objects of one resource; each row carries the object's metadata.
pub(crate) fn table(
    resource: &Resource,
    objects: &[Arc<Object>],
    list_metadata: Value,
    with_columns: bool,
) -> Value {
    let columns = columns(resource);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(name, priority)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": "string", "format": format, "description": "", "priority": priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|(name, _)| json!(cell(resource, &object.value, name))).collect();
            let meta = object.value.get("metadata").cloned().unwrap_or_default();
            json!({"cells": cells, "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
        "columnDefinitions": if with_columns { json!(definitions) } else { json!([]) }, "rows": rows,
    })
}

/// Column names, with 1 for those that only `-o wide` shows.
#[expect(clippy::too_many_lines, reason = "a table")]
fn columns(resource: &Resource) -> &'static [(&'static str, u8)] {
    match (resource.group, resource.plural) {
        ("", "nodes") => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        ("", "pods") => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
        ],
        ("", "namespaces") => &[("Name", 0), ("Status", 0), ("Age", 0)],
        ("", "configmaps") => &[("Name", 0), ("Data", 0), ("Age", 0)],
        ("", "secrets") => &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
        ("", "services") => &[
            ("Name", 0),
            ("Type", 0),
            ("Cluster-IP", 0),
            ("External-IP", 0),
            ("Port(s)", 0),
            ("Age", 0),
        ],
        ("apps", "deployments") => &[
            ("Name", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Age", 0),
        ],
        ("apps", "replicasets") => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Age", 0),
        ],
        ("apps", "statefulsets") => &[("Name", 0), ("Ready", 0), ("Age", 0)],
        ("apps", "daemonsets") => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Age", 0),
        ],
        ("certificates.k8s.io", _) => &[
            ("Name", 0),
            ("Age", 0),
            ("SignerName", 0),
            ("Requestor", 0),
            ("Condition", 0),
        ],
        ("coordination.k8s.io", _) => &[("Name", 0), ("Holder", 0), ("Age", 0)],
        ("policy", _) => &[
            ("Name", 0),
            ("Min available", 0),
            ("Max unavailable", 0),
            ("Age", 0),
        ],
        _ => &[("Name", 0), ("Age", 0)],
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() {
        "<none>".into()
    } else {
        text.into()
    }
}

fn number(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or(0)
        .to_string()
}

fn cell(resource: &Resource, value: &Value, column: &str) -> String {
    match (resource.plural, column) {
        (_, "Name") => object::name(value).to_owned(),
        (_, "Age") => age(text_at(value, "/metadata/creationTimestamp")),
        ("nodes", _) => node_cell(value, column),
        ("pods", _) => pod_cell(value, column),
        ("namespaces", _) => text_at(value, "/status/phase").to_owned(),
        ("configmaps" | "secrets", "Data") => {
            let count = |key: &str| {
                value
                    .get(key)
                    .and_then(Value::as_object)
                    .map_or(0, serde_json::Map::len)
            };
            count("data")
                .saturating_add(count("binaryData"))
                .to_string()
        }
        ("secrets", _) => text_at(value, "/type").to_owned(),
        ("services", "Type") => text_at(value, "/spec/type").to_owned(),
        ("services", "Cluster-IP") => or_none(text_at(value, "/spec/clusterIP")),
        ("services", "External-IP") => "<none>".into(),
        ("services", _) => list_at(value, "/spec/ports")
            .iter()
            .map(|port| {
                let protocol = text_at(port, "/protocol");
                format!(
                    "{}/{}",
                    number(port, "/port"),
                    if protocol.is_empty() { "TCP" } else { protocol }
                )
            })
            .collect::<Vec<_>>()
            .join(","),
        ("deployments" | "statefulsets", "Ready") => {
            format!(
                "{}/{}",
                number(value, "/status/readyReplicas"),
                number(value, "/spec/replicas")
            )
        }
        ("deployments", "Up-to-date") => number(value, "/status/updatedReplicas"),
        ("deployments", _) => number(value, "/status/availableReplicas"),
        ("replicasets", "Desired") => number(value, "/spec/replicas"),
        ("replicasets", "Current") => number(value, "/status/replicas"),
        ("replicasets", _) => number(value, "/status/readyReplicas"),
        ("daemonsets", "Desired") => number(value, "/status/desiredNumberScheduled"),
        ("daemonsets", "Current") => number(value, "/status/currentNumberScheduled"),
        ("daemonsets", "Ready") => number(value, "/status/numberReady"),
        ("daemonsets", "Up-to-date") => number(value, "/status/updatedNumberScheduled"),
        ("daemonsets", _) => number(value, "/status/numberAvailable"),
        ("certificatesigningrequests", "SignerName") => {
            text_at(value, "/spec/signerName").to_owned()
        }
        ("certificatesigningrequests", "Requestor") => text_at(value, "/spec/username").to_owned(),
        ("certificatesigningrequests", _) => signing_state(value),
        ("leases", _) => text_at(value, "/spec/holderIdentity").to_owned(),
        ("poddisruptionbudgets", column) => {
            let field = if column == "Min available" {
                "/spec/minAvailable"
            } else {
                "/spec/maxUnavailable"
            };
            value.pointer(field).map_or_else(
                || "N/A".to_owned(),
                |limit| limit.to_string().trim_matches('"').to_owned(),
            )
        }
        _ => String::new(),
    }
}

fn signing_state(value: &Value) -> String {
    let mut states: Vec<&str> = list_at(value, "/status/conditions")
        .iter()
        .map(|condition| text_at(condition, "/type"))
        .collect();
    if states.is_empty() {
        states.push("Pending");
    }
    if !text_at(value, "/status/certificate").is_empty() {
        states.push("Issued");
    }
    states.join(",")
}

fn node_cell(node: &Value, column: &str) -> String {
    let info = |field: &str| or_none(text_at(node, &format!("/status/nodeInfo/{field}")));
    match column {
        "Status" => {
            let mut status = match condition_status(node, "Ready") {
                "True" => "Ready".to_owned(),
                "" => "Unknown".into(),
                _ => "NotReady".into(),
            };
            if node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
                status.push_str(",SchedulingDisabled");
            }
            status
        }
        "Roles" => {
            let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
            let roles: Vec<&str> = labels
                .into_iter()
                .flatten()
                .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
                .collect();
            or_none(&roles.join(","))
        }
        "Version" => text_at(node, "/status/nodeInfo/kubeletVersion").to_owned(),
        "Internal-IP" => list_at(node, "/status/addresses")
            .iter()
            .find(|address| text_at(address, "/type") == "InternalIP")
            .map_or_else(
                || "<none>".into(),
                |address| text_at(address, "/address").to_owned(),
            ),
        "OS-Image" => info("osImage"),
        "Kernel-Version" => info("kernelVersion"),
        "Container-Runtime" => info("containerRuntimeVersion"),
        _ => "<none>".into(),
    }
}

fn pod_cell(pod: &Value, column: &str) -> String {
    let statuses = list_at(pod, "/status/containerStatuses");
    match column {
        "Ready" => {
            let ready = statuses
                .iter()
                .filter(|status| status.get("ready") == Some(&Value::Bool(true)))
                .count();
            format!("{ready}/{}", list_at(pod, "/spec/containers").len())
        }
        "Status" if object::is_deleting(pod) => "Terminating".into(),
        "Status" => match text_at(pod, "/status/reason") {
            "" => text_at(pod, "/status/phase").to_owned(),
            reason => reason.to_owned(),
        },
        "Restarts" => statuses
            .iter()
            .filter_map(|status| status.get("restartCount").and_then(Value::as_u64))
            .sum::<u64>()
            .to_string(),
        "IP" => or_none(text_at(pod, "/status/podIP")),
        "Node" => or_none(text_at(pod, "/spec/nodeName")),
        _ => String::new(),
    }
}

/// How long ago, as kubectl shortens it.
fn age(created: &str) -> String {
    let Ok(created) = created.parse::<jiff::Timestamp>() else {
        return "<unknown>".into();
    };
    let seconds = jiff::Timestamp::now()
        .as_second()
        .saturating_sub(created.as_second())
        .max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
