//! Defaults that depend on other fields: labels, selectors, replicas, the `v` of a version.

use serde_json::{Value, json};

use crate::{annotation, label};

/// The policies with their bindings.
pub(super) fn policies() -> Vec<Value> {
    let none = json!([]);
    [
        super::mutating(
            "clusters",
            &["object.spec"],
            &none,
            &[version(
                "/spec/topology/version",
                &["spec", "topology", "version"],
            )],
        ),
        super::mutating(
            "machines",
            &["object.spec", "object.spec.clusterName"],
            &none,
            &[
                label_of_cluster("metadata"),
                version("/spec/version", &["spec", "version"]),
            ],
        ),
        super::mutating(
            "machinehealthchecks",
            &["object.spec", "object.spec.clusterName"],
            &none,
            &[label_of_cluster("metadata")],
        ),
        group("machinesets", label::SET_NAME),
        group("machinedeployments", label::DEPLOYMENT_NAME),
        pools(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What replicas become that are left out: within the autoscaler's bounds if the object has them, otherwise 1.
fn sizes() -> Value {
    let min = annotation::AUTOSCALER_MIN_SIZE;
    let max = annotation::AUTOSCALER_MAX_SIZE;
    json!([
        {"name": "annotations", "expression": "has(object.metadata.annotations) ? object.metadata.annotations : {}"},
        {"name": "isSized", "expression": format!(
            "'{min}' in variables.annotations && variables.annotations['{min}'].matches('^[0-9]{{1,9}}$') && \
             '{max}' in variables.annotations && variables.annotations['{max}'].matches('^[0-9]{{1,9}}$')")},
        {"name": "min", "expression": format!("variables.isSized ? int(variables.annotations['{min}']) : 1")},
        {"name": "max", "expression": format!("variables.isSized ? int(variables.annotations['{max}']) : 1")},
        {"name": "old", "expression":
            "request.operation == 'UPDATE' && has(oldObject.spec.replicas) ? int(oldObject.spec.replicas) : variables.min"},
        {"name": "replicas", "expression":
            "variables.old < variables.min || !variables.isSized ? variables.min : variables.old > variables.max ? variables.max : variables.old"},
    ])
}

/// Writes the replicas that are left out.
fn replicas() -> String {
    format!(
        "{} ? [] : [JSONPatch{{op: 'add', path: '/spec/replicas', value: variables.replicas}}]",
        there("object.spec.replicas")
    )
}

/// Defaults of a MachinePool, which selects nothing.
fn pools() -> [Value; 2] {
    let reads = [
        "object.spec",
        "object.spec.clusterName",
        "object.spec.template",
        "object.spec.template.spec",
    ];
    let patches = [
        label_of_cluster("metadata"),
        replicas(),
        version(
            "/spec/template/spec/version",
            &["spec", "template", "spec", "version"],
        ),
    ];
    super::mutating("machinepools", &reads, &sizes(), &patches)
}

/// Defaults of a group of Machines; `own_label` holds its name. Annotations that are no numbers count as
/// absent here; the validating policy refuses them.
fn group(plural: &str, own_label: &str) -> [Value; 2] {
    let is_filled = |field: &str| {
        let there = there(&format!("object.spec.selector.{field}"));
        format!("({there} && size(object.spec.selector.{field}) > 0)")
    };
    let is_empty = format!(
        "!{} && !{}",
        is_filled("matchLabels"),
        is_filled("matchExpressions")
    );
    let is_named = "has(object.metadata.name) && object.metadata.name != '' && size(object.metadata.name) <= 63";
    let own = own_label.replace('/', "~1");
    let cluster = label::CLUSTER_NAME;
    let cluster_escaped = cluster.replace('/', "~1");
    let patches = [
        label_of_cluster("metadata"),
        ensure_map("spec.template", "metadata"),
        ensure_map("spec.template.metadata", "labels"),
        format!(
            "[JSONPatch{{op: 'add', path: '/spec/template/metadata/labels/{cluster_escaped}', value: object.spec.clusterName}}]"
        ),
        format!(
            "{is_empty} && {is_named} ? [\
             JSONPatch{{op: 'add', path: '/spec/template/metadata/labels/{own}', value: object.metadata.name}}, \
             JSONPatch{{op: 'add', path: '/spec/selector/matchLabels', value: {{'{own_label}': object.metadata.name}}}}] : []"
        ),
        ensure_map("spec.selector", "matchLabels"),
        format!(
            "[JSONPatch{{op: 'add', path: '/spec/selector/matchLabels/{cluster_escaped}', value: object.spec.clusterName}}]"
        ),
        replicas(),
        version(
            "/spec/template/spec/version",
            &["spec", "template", "spec", "version"],
        ),
    ];
    let reads = [
        "object.spec",
        "object.spec.clusterName",
        "object.spec.selector",
        "object.spec.template",
        "object.spec.template.spec",
    ];
    super::mutating(plural, &reads, &sizes(), &patches)
}

/// Adds an empty map where there is none.
fn ensure_map(parent: &str, key: &str) -> String {
    let path = parent.replace('.', "/");
    let there = there(&format!("object.{parent}.{key}"));
    format!("{there} ? [] : [JSONPatch{{op: 'add', path: '/{path}/{key}', value: {{}}}}]")
}

/// Whether a field is there; server-side apply leaves a null that the client sent until after admission.
pub(super) fn there(field: &str) -> String {
    format!("has({field}) && {field} != null")
}

/// Labels the object with the name of its Cluster.
fn label_of_cluster(parent: &str) -> String {
    let label = label::CLUSTER_NAME;
    let escaped = label.replace('/', "~1");
    format!(
        "has(object.{parent}.labels) \
         ? [JSONPatch{{op: 'add', path: '/{parent}/labels/{escaped}', value: object.spec.clusterName}}] \
         : [JSONPatch{{op: 'add', path: '/{parent}/labels', value: {{'{label}': object.spec.clusterName}}}}]"
    )
}

/// Puts the `v` before a version that lacks it.
fn version(path: &str, fields: &[&str]) -> String {
    let mut parts = Vec::new();
    let mut so_far = "object".to_owned();
    for field in fields {
        so_far = format!("{so_far}.{field}");
        parts.push(there(&so_far));
    }
    let there = parts.join(" && ");
    format!(
        "{there} && {so_far} != '' && !{so_far}.startsWith('v') \
         ? [JSONPatch{{op: 'replace', path: '{path}', value: 'v' + {so_far}}}] : []"
    )
}
