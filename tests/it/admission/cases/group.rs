//! Cases about groups of Machines: MachineSets and MachineDeployments, and what checks and drains them.

use serde_json::{Value, json};

use super::{Case, TAINTS, annotated, new, spec, taints, update};

/// Rules about the template of Machines, wherever there is one.
fn templates(of: &'static str) -> Vec<Case> {
    let template = |template: Value| spec(json!({ "template": template }));
    vec![
        new(
            "4.3",
            of,
            template(json!({"spec": {"bootstrap": {"dataSecretName": null}}})),
            "set configRef",
        ),
        new(
            "4.3",
            of,
            template(json!({"spec": {"clusterName": "other"}})),
            "must be the same as clusterName",
        ),
        update(
            "4.3",
            of,
            spec(json!({"clusterName": "other", "template": {"spec": {"clusterName": "other"}}})),
            "cannot be changed",
        ),
        new(
            "4.3",
            of,
            template(json!({"spec": {"version": "1.x"}})),
            "must be a version such as",
        ),
        new(
            "4.3",
            of,
            template(json!({"metadata": {"labels": {"other": "no value"}}})),
            "is not a valid label",
        ),
        new(
            "4.3",
            of,
            template(json!({"metadata": {"annotations": {"no key": "a"}}})),
            "not a valid annotation key",
        ),
    ]
}

/// Rules that MachineSets and MachineDeployments share.
pub(super) fn groups(of: &'static str) -> Vec<Case> {
    let template = |template: Value| spec(json!({ "template": template }));
    let selector = |selector: Value| spec(json!({ "selector": selector }));
    let naming = |template: &str| spec(json!({"machineNaming": {"template": template}}));
    let expression = |expression: Value| selector(json!({"matchExpressions": [expression]}));
    let mut all = templates(of);
    all.extend([
        new(
            "4.3",
            of,
            selector(json!({"matchLabels": {"app": "b"}})),
            "selector.matchLabels must be among",
        ),
        new(
            "4.3",
            of,
            expression(json!({"key": "none", "operator": "Exists"})),
            "matchExpressions must select",
        ),
        new(
            "4.3",
            of,
            expression(json!({"key": "app", "operator": "NotIn", "values": ["a"]})),
            "matchExpressions must select",
        ),
        new(
            "4.3",
            of,
            expression(json!({"key": "app", "operator": "Near"})),
            "Unsupported value: \"Near\"",
        ),
        new(
            "4.3",
            of,
            expression(json!({"key": "app", "operator": "In"})),
            "values are needed for In",
        ),
        new(
            "4.3",
            of,
            naming("always-the-same"),
            "must contain {{ .random }}",
        ),
        new(
            "4.3",
            of,
            naming("Upper-{{ .random }}"),
            "a name has lower case letters",
        ),
        new(
            "4.3",
            of,
            naming("{{ .cluster.name }}_{{ .random }}"),
            "a name has lower case letters",
        ),
        new(
            "4.3",
            of,
            template(json!({"metadata": {"labels": {"no key": "a"}}})),
            "is not a valid label",
        ),
        new(
            "4.3",
            of,
            annotated(
                "machineset.cluster.x-k8s.io/skip-preflight-checks",
                "Everything",
            ),
            "must list All",
        ),
        new(
            "4.3",
            of,
            annotated(
                "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size",
                "many",
            ),
            "must be whole numbers",
        ),
        new(
            "4.9",
            of,
            template(json!({"spec": taints("node-role.kubernetes.io/control-plane")})),
            "is not for workers",
        ),
    ]);
    all.extend(
        TAINTS.map(|(key, words)| new("4.9", of, template(json!({"spec": taints(key)})), words)),
    );
    all
}

pub(super) fn deployments() -> Vec<Case> {
    let of = "deployment";
    let rolling = |limits: Value| {
        spec(json!({"rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": limits}}}))
    };
    let long = "a".repeat(64);
    vec![
        new(
            "4.3",
            of,
            json!({"metadata": {"name": long}}),
            "metadata.name is used as a label value",
        ),
        new(
            "4.3",
            of,
            rolling(json!({"maxSurge": 0, "maxUnavailable": 0})),
            "cannot both be 0",
        ),
        new(
            "4.3",
            of,
            rolling(json!({"maxSurge": "one"})),
            "rollingUpdate.maxSurge",
        ),
        new(
            "4.3",
            of,
            rolling(json!({"maxSurge": -1})),
            "rollingUpdate.maxSurge",
        ),
        new(
            "4.3",
            of,
            rolling(json!({"maxUnavailable": "1"})),
            "rollingUpdate.maxUnavailable",
        ),
        new(
            "4.3",
            of,
            spec(json!({"remediation": {"maxInFlight": "some"}})),
            "remediation.maxInFlight",
        ),
    ]
}

pub(super) fn pools() -> Vec<Case> {
    let of = "pool";
    let template = |template: Value| spec(json!({ "template": template }));
    let size = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size";
    let mut all = templates(of);
    all.extend([
        new(
            "4.3",
            of,
            template(json!({"spec": taints("example.com/mine")})),
            "taints of MachinePools are not propagated",
        ),
        new("4.3", of, annotated(size, "few"), "must be whole numbers"),
        new(
            "4.3",
            of,
            spec(json!({"providerIDList": [""]})),
            "spec.providerIDList[0]",
        ),
    ]);
    all
}

pub(super) fn checks_and_drain_rules() -> Vec<Case> {
    let of = "check";
    let own = |type_: &str| {
        let condition = json!({"type": type_, "status": "False", "timeoutSeconds": 0});
        spec(json!({"checks": {"unhealthyMachineConditions": [condition]}}))
    };
    let trigger = |limit: Value| spec(json!({"remediation": {"triggerIf": limit}}));
    let rule = "drain rule";
    let twice = json!([{"selector": {"matchLabels": {"a": "b"}}}, {"selector": {"matchLabels": {"a": "b"}}}]);
    let mut all = vec![
        new(
            "4.4",
            of,
            spec(json!({"selector": {"matchLabels": null}})),
            "an empty selector would select every Machine",
        ),
        new(
            "4.4",
            of,
            spec(json!({"selector": {"matchLabels": {"cluster.x-k8s.io/cluster-name": "other"}}})),
            "must be the same as clusterName",
        ),
        new(
            "4.4",
            of,
            spec(
                json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
            ),
            "must be left out for Exists",
        ),
        update(
            "4.4",
            of,
            spec(json!({"clusterName": "other"})),
            "cannot be changed",
        ),
        new(
            "4.4",
            of,
            spec(json!({"checks": {"nodeStartupTimeoutSeconds": 29}})),
            "must be 0 (no limit) or at least 30",
        ),
        new(
            "4.4",
            of,
            trigger(json!({"unhealthyLessThanOrEqualTo": "many"})),
            "unhealthyLessThanOrEqualTo",
        ),
        new(
            "4.4",
            of,
            trigger(json!({"unhealthyInRange": "3-5"})),
            "unhealthyInRange",
        ),
    ];
    let depends = [
        "Ready",
        "Available",
        "HealthCheckSucceeded",
        "OwnerRemediated",
        "ExternallyRemediated",
    ];
    all.extend(
        depends.map(|type_| new("4.4", of, own(type_), "depend on the health check itself")),
    );
    for behavior in ["Skip", "WaitCompleted"] {
        let drain = json!({"drain": {"behavior": behavior}});
        all.push(new(
            "4.4",
            rule,
            spec(drain),
            "order has no meaning unless behavior is Drain",
        ));
    }
    all.push(new(
        "4.4",
        rule,
        spec(json!({"machines": twice})),
        "entries must differ",
    ));
    all.push(new(
        "4.4",
        rule,
        spec(json!({"pods": twice})),
        "entries must differ",
    ));
    let near =
        json!([{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}]);
    all.push(new(
        "4.4",
        rule,
        spec(json!({"pods": near})),
        "Unsupported value: \"Near\"",
    ));
    all
}
