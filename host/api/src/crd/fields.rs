//! The contract's fields in the schemas of providers' kinds, by role.

use serde_json::{Map, Value, json};

use super::{CrdError, OwnedKind};
use crate::contract::Role;
use crate::schema::condition_item;

/// The schema of `spec`: the provider's fields and the contract's.
pub(super) fn spec(owned: &OwnedKind, role: Role) -> Result<Value, CrdError> {
    with(owned, "specSchema", &owned.spec_schema, of_spec(role))
}

/// The schema of a template's `spec`: metadata and spec of the copies.
pub(super) fn template_spec(owned: &OwnedKind) -> Result<Value, CrdError> {
    let strings = |what: &str| {
        json!({
            "type": "object", "additionalProperties": {"type": "string"}, "description": what,
        })
    };
    Ok(json!({
        "type": "object",
        "description": "What the template is.",
        "required": ["template"],
        "properties": {"template": {
            "type": "object",
            "description": "What copies are made from.",
            "required": ["spec"],
            "properties": {
                "metadata": {
                    "type": "object",
                    "description": "Labels and annotations of the copies.",
                    "properties": {
                        "labels": strings("Labels to put on the copies."),
                        "annotations": strings("Annotations to put on the copies."),
                    },
                },
                "spec": spec(owned, owned.role.of_copy())?,
            },
        }},
    }))
}

/// The schema of `status`: the provider's fields and the contract's.
pub(super) fn status(owned: &OwnedKind) -> Result<Value, CrdError> {
    let own = owned.own_status().cloned().unwrap_or_else(
        || json!({"type": "object", "description": "What is known about the object."}),
    );
    with(owned, "statusSchema", &own, of_status(owned.role))
}

/// Adds the contract's fields to a schema. The provider may describe one of them itself, with the
/// same type; then its other constraints are kept.
fn with(owned: &OwnedKind, path: &str, schema: &Value, contract: Value) -> Result<Value, CrdError> {
    let mut schema = schema.clone();
    let Value::Object(object) = &mut schema else {
        return Ok(schema);
    };
    object
        .entry("description")
        .or_insert_with(|| json!("Fields of the provider and of the contract."));
    let properties = object
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    let (Value::Object(properties), Value::Object(contract)) = (properties, contract) else {
        return Ok(schema);
    };
    for (name, field) in contract {
        match properties.get(&name) {
            Some(own) if is_scalar(&field) && own.get("type") == field.get("type") => {}
            Some(own) if own.get("type") == field.get("type") => {
                properties.insert(name, field);
            }
            Some(_) => {
                return Err(CrdError {
                    kind: owned.kind.clone(),
                    path: format!("{path}.properties.{name}"),
                    problem: format!(
                        "is a field of the contract and must have type {}: leave it out, the host adds it",
                        field
                            .get("type")
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                    ),
                });
            }
            None => {
                properties.insert(name, field);
            }
        }
    }
    Ok(schema)
}

/// Whether a schema is of a single value.
fn is_scalar(schema: &Value) -> bool {
    !matches!(
        schema.get("type").and_then(Value::as_str),
        Some("object" | "array")
    )
}

/// Fields of `spec`.
fn of_spec(role: Role) -> Value {
    match role.of_copy() {
        Role::InfraCluster => json!({"controlPlaneEndpoint": endpoint()}),
        Role::InfraMachine => json!({"providerID": {
            "type": "string", "minLength": 1, "maxLength": 512,
            "description": "The provider's name for the host; the Node carries the same. Set by the host.",
        }}),
        Role::ControlPlane => json!({"controlPlaneEndpoint": endpoint()}),
        _ => json!({}),
    }
}

/// Fields of `status`.
fn of_status(role: Role) -> Value {
    let mut fields = match role {
        Role::InfraCluster => infra_cluster(),
        Role::InfraMachine => infra_machine(),
        Role::InfraMachineTemplate => return infra_machine_template(),
        Role::BootstrapConfig => json!({
            "initialization": initialization("dataSecretCreated", "The Secret with the bootstrap data has been made."),
            "dataSecretName": {
                "type": "string", "minLength": 1, "maxLength": 253,
                "description": "Name of the Secret with the bootstrap data.",
            },
        }),
        Role::ControlPlane => control_plane(),
        _ => json!({}),
    };
    if let Value::Object(fields) = &mut fields {
        fields.insert(
            "conditions".to_owned(),
            json!({
                "type": "array", "maxItems": 32,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "description": "Observations about the object.",
                "items": condition_item(),
            }),
        );
        fields.insert(
            "observedGeneration".to_owned(),
            json!({
                "type": "integer", "format": "int64", "minimum": 1,
                "description": "The metadata.generation that was last reconciled without an error.",
            }),
        );
    }
    fields
}

/// `initialization` with one flag.
fn initialization(flag: &str, what: &str) -> Value {
    json!({
        "type": "object", "minProperties": 1,
        "description": "What has been achieved once; it never goes back.",
        "properties": {flag: {"type": "boolean", "description": what}},
    })
}

/// `controlPlaneEndpoint`.
fn endpoint() -> Value {
    json!({
        "type": "object", "minProperties": 1,
        "description": "Where the workload cluster's API is reached.",
        "properties": {
            "host": {"type": "string", "minLength": 1, "maxLength": 512, "description": "Host name or address."},
            "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535, "description": "Port."},
        },
    })
}

/// Status of an infrastructure cluster.
fn infra_cluster() -> Value {
    json!({
        "initialization": initialization("provisioned", "The infrastructure that the Cluster shares has been made."),
        "failureDomains": {
            "type": "array", "maxItems": 100,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "description": "Failure domains that the infrastructure offers.",
            "items": {
                "type": "object", "required": ["name"],
                "description": "A place that fails on its own.",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 256, "description": "Name of the failure domain."},
                    "controlPlane": {"type": "boolean", "description": "Whether control-plane machines may be placed here."},
                    "attributes": {
                        "type": "object", "additionalProperties": {"type": "string"},
                        "description": "What the provider says about the failure domain.",
                    },
                },
            },
        },
    })
}

/// Status of an infrastructure machine.
fn infra_machine() -> Value {
    json!({
        "initialization": initialization("provisioned", "The host has been made."),
        "failureDomain": {
            "type": "string", "minLength": 1, "maxLength": 256,
            "description": "Failure domain in which the host was placed.",
        },
        "interruptible": {"type": "boolean", "description": "Whether the cloud may take the host away."},
        "addresses": {
            "type": "array", "maxItems": 256, "x-kubernetes-list-type": "atomic",
            "description": "Addresses of the host.",
            "items": {
                "type": "object", "required": ["address", "type"],
                "description": "One address.",
                "properties": {
                    "type": {
                        "type": "string",
                        "enum": ["Hostname", "ExternalIP", "InternalIP", "ExternalDNS", "InternalDNS"],
                        "description": "What kind of address this is.",
                    },
                    "address": {"type": "string", "minLength": 1, "maxLength": 256, "description": "The address."},
                },
            },
        },
    })
}

/// Status of an infrastructure machine template.
fn infra_machine_template() -> Value {
    json!({
        "capacity": {
            "type": "object",
            "description": "What a machine made from the template has, for growing a group from zero.",
            "additionalProperties": {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": true,
                "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
            },
        },
        "nodeInfo": {
            "type": "object",
            "description": "What a Node of such a machine will report.",
            "properties": {
                "architecture": {
                    "type": "string", "enum": ["amd64", "arm64", "s390x", "ppc64le"],
                    "description": "Architecture of the processor.",
                },
                "operatingSystem": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Family of the operating system."},
            },
        },
    })
}

/// Status of a control plane.
fn control_plane() -> Value {
    let count = |what: &str| json!({"type": "integer", "format": "int32", "description": what});
    let version = json!({"type": "string", "minLength": 1, "maxLength": 256, "description": "A Kubernetes version."});
    json!({
        "initialization": initialization("controlPlaneInitialized", "The workload cluster's API has answered once."),
        "externalManagedControlPlane": {
            "type": "boolean",
            "description": "Whether the control plane runs somewhere else than on Machines of the Cluster.",
        },
        "certificates": {
            "type": "array", "maxItems": 64,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "description": "When the certificates of the cluster end that the host made or sees, the first to end first.",
            "items": {
                "type": "object", "required": ["name", "expirationDate"],
                "description": "A certificate.",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 512, "description": "Purpose of the Secret that has it, or what of which machine shows it."},
                    "expirationDate": {"type": "string", "format": "date-time", "description": "When it ends."},
                },
            },
        },
        "lastRemediation": {
            "type": "object", "required": ["machine", "retryCount", "time"],
            "description": "The last replacement of an unhealthy machine.",
            "properties": {
                "machine": {"type": "string", "minLength": 1, "maxLength": 253, "description": "The machine that was replaced."},
                "retryCount": {"type": "integer", "format": "int32", "minimum": 0, "description": "Which try in a row it was."},
                "time": {"type": "string", "format": "date-time", "description": "When it was replaced."},
            },
        },
        "selector": {
            "type": "string", "minLength": 1, "maxLength": 4096,
            "description": "Selector of the Machines as text, for the scale subresource.",
        },
        "replicas": count("How many machines there are."),
        "readyReplicas": count("How many machines are ready."),
        "availableReplicas": count("How many machines are available."),
        "upToDateReplicas": count("How many machines match what is asked for."),
        "version": version,
        "versions": {
            "type": "array", "maxItems": 100,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"],
            "description": "Kubernetes versions that the machines run, oldest first.",
            "items": {
                "type": "object", "required": ["version"],
                "description": "A version and how many machines run it.",
                "properties": {
                    "version": version,
                    "replicas": {"type": "integer", "format": "int32", "minimum": 1, "description": "How many machines run it."},
                },
            },
        },
    })
}
