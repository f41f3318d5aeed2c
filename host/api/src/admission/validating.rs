//! Rules about labels, annotations and changes that need them.

use serde_json::{Value, json};

use crate::contract::CONTROL_PLANE_GROUP;
use crate::{annotation, label};

/// The policies with their bindings.
pub(super) fn policies() -> Vec<Value> {
    [
        cluster(),
        machine(),
        group("machinesets"),
        group("machinedeployments"),
        pools(),
        control_planes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The object's annotations, empty if it has none.
fn annotations() -> Value {
    json!({"name": "annotations", "expression": "has(object.metadata.annotations) ? object.metadata.annotations : {}"})
}

/// Changes of a Cluster's topology.
fn cluster() -> [Value; 2] {
    let concurrency = annotation::UPGRADE_CONCURRENCY;
    let version = annotation::DISABLE_UPDATE_VERSION_CHECK;
    let minor = |object: &str| format!("int({object}.spec.topology.version.split('.')[1])");
    let number = |object: &str, index: u8| {
        format!(
            "int({object}.spec.topology.version.substring(1).split('+')[0].split('-')[0].split('.')[{index}])"
        )
    };
    let readable = "'^v[0-9]+[.][0-9]+[.][0-9]+([-+].*)?$'";
    let variables = json!([
        annotations(),
        {"name": "changesVersion", "expression": format!(
            "oldObject != null && has(object.spec.topology) && has(oldObject.spec.topology) \
             && object.spec.topology.version != oldObject.spec.topology.version \
             && object.spec.topology.version.matches({readable}) && oldObject.spec.topology.version.matches({readable}) \
             && !('{version}' in variables.annotations)")},
    ]);
    let (new_major, new_minor, new_patch) =
        (number("object", 0), minor("object"), number("object", 2));
    let (old_major, old_minor, old_patch) = (
        number("oldObject", 0),
        minor("oldObject"),
        number("oldObject", 2),
    );
    let validations = json!([
        {
            "expression": format!("!('{concurrency}' in variables.annotations) || variables.annotations['{concurrency}'].matches('^[1-9][0-9]{{0,8}}$')"),
            "message": format!("annotation {concurrency} must be a whole number of at least 1"),
        },
        {
            "expression": format!(
                "!variables.changesVersion || {new_major} > {old_major} || ({new_major} == {old_major} && \
                 ({new_minor} > {old_minor} || ({new_minor} == {old_minor} && {new_patch} >= {old_patch})))"),
            "message": "spec.topology.version cannot go back to an older version",
        },
        {
            "expression": format!("!variables.changesVersion || ({new_major} == {old_major} && {new_minor} <= {old_minor} + 1)"),
            "message": "spec.topology.version can go up by one minor version at a time",
        },
        {
            "expression": "!variables.changesVersion || !has(oldObject.status) || \
                (!(has(oldObject.status.controlPlane) && has(oldObject.status.controlPlane.upgradePlan) && size(oldObject.status.controlPlane.upgradePlan) > 0) \
                && !(has(oldObject.status.workers) && has(oldObject.status.workers.upgradePlan) && size(oldObject.status.workers.upgradePlan) > 0))",
            "message": "spec.topology.version cannot be changed while an upgrade is running: wait until status.controlPlane.upgradePlan and status.workers.upgradePlan are empty",
        },
    ]);
    super::validating("clusters", &variables, &validations)
}

/// Taints of a Machine that is no control-plane Machine.
fn machine() -> [Value; 2] {
    let control_plane = label::CONTROL_PLANE;
    let taint = label::NODE_ROLE_CONTROL_PLANE;
    super::validating(
        "machines",
        &json!([]),
        &json!([{
            "expression": format!(
                "!has(object.spec.taints) || (has(object.metadata.labels) && '{control_plane}' in object.metadata.labels) \
                 || object.spec.taints.all(taint, taint.key != '{taint}')"),
            "message": format!("spec.taints: the taint {taint} is only for Machines with the label {control_plane}"),
        }]),
    )
}

/// Labels that Machines get, from this field.
fn valid_labels(of: &str) -> Value {
    json!({
        "expression": "variables.labels.all(key, !format.qualifiedName().validate(key).hasValue() && !format.labelValue().validate(variables.labels[key]).hasValue())",
        "message": format!("{of}.metadata.labels: a key or value is not a valid label"),
    })
}

/// Annotations that Machines get, from this field.
fn valid_annotations(of: &str) -> Value {
    json!({
        "expression": "variables.passedOn.all(key, !format.qualifiedName().validate(key.lowerAscii()).hasValue())",
        "message": format!("{of}.metadata.annotations: a key is not a valid annotation key"),
    })
}

/// What control planes of any kind, and templates of them, pass on to their Machines.
fn control_planes() -> [Value; 2] {
    let given = |name: &str| {
        format!(
            "object.?spec.?machineTemplate.?metadata.?{name}.orValue(object.?spec.?template.?spec.?machineTemplate.?metadata.?{name}.orValue({{}}))"
        )
    };
    let variables = json!([
        {"name": "labels", "expression": given("labels")},
        {"name": "passedOn", "expression": given("annotations")},
    ]);
    let of = "spec.machineTemplate";
    let validations = json!([valid_labels(of), valid_annotations(of)]);
    let constraints = json!({"resourceRules": [{
        "apiGroups": [CONTROL_PLANE_GROUP],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["*"],
    }]});
    super::validating_all("controlplanes", &constraints, &variables, &validations)
}

/// What Machines get from the template of a group.
fn passed_on() -> Value {
    json!([
        annotations(),
        {"name": "labels", "expression":
            "has(object.spec.template.metadata) && has(object.spec.template.metadata.labels) && object.spec.template.metadata.labels != null ? object.spec.template.metadata.labels : {}"},
        {"name": "passedOn", "expression":
            "has(object.spec.template.metadata) && has(object.spec.template.metadata.annotations) && object.spec.template.metadata.annotations != null ? object.spec.template.metadata.annotations : {}"},
    ])
}

/// The autoscaler's bounds.
fn sizes() -> Value {
    let min = annotation::AUTOSCALER_MIN_SIZE;
    let max = annotation::AUTOSCALER_MAX_SIZE;
    let is_size = |key: &str| {
        format!(
            "(!('{key}' in variables.annotations) || variables.annotations['{key}'].matches('^[0-9]{{1,9}}$'))"
        )
    };
    json!({
        "expression": format!("{} && {}", is_size(min), is_size(max)),
        "message": format!("annotations {min} and {max} must be whole numbers"),
    })
}

/// Annotations and template metadata of a MachinePool.
fn pools() -> [Value; 2] {
    let validations = json!([
        sizes(),
        valid_labels("spec.template"),
        valid_annotations("spec.template"),
    ]);
    super::validating("machinepools", &passed_on(), &validations)
}

/// Annotations and template metadata of a group of Machines.
fn group(plural: &str) -> [Value; 2] {
    let checks = annotation::SKIP_PREFLIGHT_CHECKS;
    let variables = passed_on();
    let validations = json!([
        {
            "expression": format!(
                "!('{checks}' in variables.annotations) || variables.annotations['{checks}'] == '' || \
                 variables.annotations['{checks}'].split(',').all(check, check.trim() in \
                 ['All', 'KubeadmVersionSkew', 'KubernetesVersionSkew', 'ControlPlaneIsStable', 'ControlPlaneVersionSkew'])"),
            "message": format!("annotation {checks} must list All, KubeadmVersionSkew, KubernetesVersionSkew, ControlPlaneIsStable or ControlPlaneVersionSkew, joined by commas"),
        },
        sizes(),
        valid_labels("spec.template"),
        valid_annotations("spec.template"),
        {
            "expression": "!has(object.spec.selector.matchExpressions) || object.spec.selector.matchExpressions == null || object.spec.selector.matchExpressions.all(requirement, \
                requirement.operator == 'Exists' ? requirement.key in variables.labels : \
                requirement.operator == 'DoesNotExist' ? !(requirement.key in variables.labels) : \
                requirement.operator == 'In' ? requirement.key in variables.labels && variables.labels[requirement.key] in requirement.values : \
                !(requirement.key in variables.labels) || !(variables.labels[requirement.key] in requirement.values))",
            "message": "spec.selector.matchExpressions must select spec.template.metadata.labels, otherwise the Machines would not belong to this object",
        },
    ]);
    super::validating(plural, &variables, &validations)
}
