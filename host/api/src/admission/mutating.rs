//! Defaults that depend on other fields: labels, selectors, replicas, the `v` of a version.

use serde_json::{Value, json};

use crate::{annotation, label};

/// The policies with their bindings.
pub(super) fn policies() -> Vec<Value> {
    let none = json!([]);
    [
        super::mutating(
            "clusters",
            &none,
            &[version(
                "/spec/topology/version",
                &["spec", "topology", "version"],
            )],
        ),
        super::mutating(
            "machines",
            &none,
            &[
                label_of_cluster("metadata"),
                version("/spec/version", &["spec", "version"]),
            ],
        ),
        super::mutating(
            "machinehealthchecks",
            &none,
            &[label_of_cluster("metadata")],
        ),
        group("machinesets", label::SET_NAME),
        group("machinedeployments", label::DEPLOYMENT_NAME),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Defaults of a group of Machines; `own_label` holds its name.
fn group(plural: &str, own_label: &str) -> [Value; 2] {
    let min = annotation::AUTOSCALER_MIN_SIZE;
    let max = annotation::AUTOSCALER_MAX_SIZE;
    let variables = json!([
        {"name": "annotations", "expression": "has(object.metadata.annotations) ? object.metadata.annotations : {}"},
        {"name": "isSized", "expression": format!(
            "'{min}' in variables.annotations && '{max}' in variables.annotations")},
        {"name": "min", "expression": format!("variables.isSized ? int(variables.annotations['{min}']) : 1")},
        {"name": "max", "expression": format!("variables.isSized ? int(variables.annotations['{max}']) : 1")},
        {"name": "old", "expression":
            "request.operation == 'UPDATE' && has(oldObject.spec.replicas) ? int(oldObject.spec.replicas) : variables.min"},
        {"name": "replicas", "expression":
            "variables.old < variables.min || !variables.isSized ? variables.min : variables.old > variables.max ? variables.max : variables.old"},
    ]);
    let is_empty = "!(has(object.spec.selector.matchLabels) && size(object.spec.selector.matchLabels) > 0) && \
                    !(has(object.spec.selector.matchExpressions) && size(object.spec.selector.matchExpressions) > 0)";
    let is_named = "has(object.metadata.name) && object.metadata.name != '' && size(object.metadata.name) <= 63";
    let own = own_label.replace('/', "~1");
    let cluster = label::CLUSTER_NAME;
    let cluster_escaped = cluster.replace('/', "~1");
    let patches = [
        label_of_cluster("metadata"),
        ensure_map("spec.template", "metadata"),
        ensure_map("spec.template.metadata", "labels"),
        format!("[JSONPatch{{op: 'add', path: '/spec/template/metadata/labels/{cluster_escaped}', value: object.spec.clusterName}}]"),
        format!(
            "{is_empty} && {is_named} ? [\
             JSONPatch{{op: 'add', path: '/spec/template/metadata/labels/{own}', value: object.metadata.name}}, \
             JSONPatch{{op: 'add', path: '/spec/selector/matchLabels', value: {{'{own_label}': object.metadata.name}}}}] : []"
        ),
        ensure_map("spec.selector", "matchLabels"),
        format!("[JSONPatch{{op: 'add', path: '/spec/selector/matchLabels/{cluster_escaped}', value: object.spec.clusterName}}]"),
        "has(object.spec.replicas) ? [] : [JSONPatch{op: 'add', path: '/spec/replicas', value: variables.replicas}]".to_owned(),
        version("/spec/template/spec/version", &["spec", "template", "spec", "version"]),
    ];
    super::mutating(plural, &variables, &patches)
}

/// Adds an empty map where there is none.
fn ensure_map(parent: &str, key: &str) -> String {
    let path = parent.replace('.', "/");
    format!(
        "has(object.{parent}.{key}) ? [] : [JSONPatch{{op: 'add', path: '/{path}/{key}', value: {{}}}}]"
    )
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
    let mut there = Vec::new();
    let mut so_far = "object".to_owned();
    for field in fields {
        so_far = format!("{so_far}.{field}");
        there.push(format!("has({so_far})"));
    }
    let there = there.join(" && ");
    format!(
        "{there} && {so_far} != '' && !{so_far}.startsWith('v') \
         ? [JSONPatch{{op: 'replace', path: '{path}', value: 'v' + {so_far}}}] : []"
    )
}
