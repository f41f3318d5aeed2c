//! Printer columns of providers' kinds: those of the role, then the provider's own.

use serde_json::{Value, json};

use super::OwnedKind;
use crate::contract::Role;

/// The columns of a kind. A plugin that brings a column of its own for something that the role shows decides how it is shown.
pub(super) fn of(owned: &OwnedKind) -> Vec<Value> {
    let own = owned.columns.iter();
    let own: Vec<Value> = own
        .map(|own| column(&own.name, &own.type_, &own.json_path, own.priority))
        .collect();
    let is_own = |standard: &Value| {
        own.iter()
            .any(|own| own.get("jsonPath") == standard.get("jsonPath"))
    };
    let (mut columns, last) = of_contract(owned);
    columns.retain(|standard| !is_own(standard));
    columns.extend(own.iter().cloned());
    columns.extend(last.into_iter().filter(|standard| !is_own(standard)));
    columns
}

/// The columns that the contract's fields have: those before the provider's own, and those after.
fn of_contract(owned: &OwnedKind) -> (Vec<Value>, Vec<Value>) {
    let role = owned.role;
    let mut first = Vec::new();
    if role.is_template() {
        first.push(column(
            "ClusterClass",
            "string",
            r#".metadata.ownerReferences[?(@.kind=="ClusterClass")].name"#,
            0,
        ));
    }
    if matches!(
        role,
        Role::InfraMachineTemplate | Role::BootstrapConfigTemplate
    ) {
        first.push(column(
            "Cluster",
            "string",
            r#".metadata.ownerReferences[?(@.kind=="Cluster")].name"#,
            0,
        ));
    }
    if !role.is_template() {
        let cluster = r".metadata.labels['cluster\.x-k8s\.io/cluster-name']";
        first.push(column("Cluster", "string", cluster, 0));
    }
    first.extend(of_role(role));
    let mut last = Vec::new();
    if matches!(
        role,
        Role::InfraCluster | Role::InfraMachine | Role::ControlPlane
    ) {
        last.push(condition("Paused", "Paused", 10));
    }
    if role == Role::ControlPlane {
        let initialized = ".status.initialization.controlPlaneInitialized";
        last.push(column("Initialized", "boolean", initialized, 0));
    }
    last.push(column("Age", "date", ".metadata.creationTimestamp", 0));
    if role == Role::ControlPlane {
        last.push(column("Version", "string", ".spec.version", 0));
    }
    (first, last)
}

/// The columns that a role always has.
fn of_role(role: Role) -> Vec<Value> {
    match role {
        Role::InfraCluster => vec![
            column("Endpoint", "string", ".spec.controlPlaneEndpoint.host", 10),
            column(
                "Provisioned",
                "boolean",
                ".status.initialization.provisioned",
                0,
            ),
            condition("Ready", "Ready", 0),
        ],
        Role::InfraMachine => vec![
            column(
                "Machine",
                "string",
                r#".metadata.ownerReferences[?(@.kind=="Machine")].name"#,
                10,
            ),
            column("Provider ID", "string", ".spec.providerID", 10),
            column(
                "Provisioned",
                "boolean",
                ".status.initialization.provisioned",
                0,
            ),
            condition("Ready", "Ready", 0),
        ],
        Role::BootstrapConfig => vec![
            condition("Paused", "Paused", 10),
            column(
                "Data secret created",
                "boolean",
                ".status.initialization.dataSecretCreated",
                0,
            ),
        ],
        Role::ControlPlane => vec![
            condition("Available", "Available", 0),
            column("Desired", "integer", ".spec.replicas", 0),
            column("Current", "integer", ".status.replicas", 0),
            column("Ready", "integer", ".status.readyReplicas", 0),
            column("Available", "integer", ".status.availableReplicas", 0),
            column("Up-to-date", "integer", ".status.upToDateReplicas", 0),
            column(
                "First certificate",
                "string",
                ".status.certificates[0].name",
                10,
            ),
            column(
                "Expires",
                "string",
                ".status.certificates[0].expirationDate",
                10,
            ),
        ],
        _ => Vec::new(),
    }
}

/// A column with the status of a condition.
fn condition(name: &str, type_: &str, priority: i32) -> Value {
    column(
        name,
        "string",
        &format!(r#".status.conditions[?(@.type=="{type_}")].status"#),
        priority,
    )
}

/// One column.
fn column(name: &str, type_: &str, json_path: &str, priority: i32) -> Value {
    let mut column = json!({"name": name, "type": type_, "jsonPath": json_path});
    if priority > 0
        && let Value::Object(column) = &mut column
    {
        column.insert("priority".to_owned(), json!(priority));
    }
    column
}
