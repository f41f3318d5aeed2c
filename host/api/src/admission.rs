//! Rules that a schema cannot hold: labels, annotations, defaults that depend on other fields.
//!
//! They are ValidatingAdmissionPolicies and MutatingAdmissionPolicies, so that no webhook is needed;
//! what upstream's webhooks decide from labels, annotations or the old object is decided here.

mod mutating;
mod validating;

use serde_json::{Value, json};

use crate::v1beta2::{GROUP, VERSION};

/// All policies, each followed by its binding.
pub fn policies() -> Vec<Value> {
    let mut all = mutating::policies();
    all.extend(validating::policies());
    all
}

/// Creates and updates of a kind, not of its subresources.
fn matches(plural: &str) -> Value {
    json!({"resourceRules": [{
        "apiGroups": [GROUP],
        "apiVersions": [VERSION],
        "operations": ["CREATE", "UPDATE"],
        "resources": [plural],
    }]})
}

/// A ValidatingAdmissionPolicy for a kind with its binding.
fn validating(plural: &str, variables: &Value, validations: &Value) -> [Value; 2] {
    validating_all(plural, &matches(plural), variables, validations)
}

/// The same for all that these constraints match.
fn validating_all(
    name: &str,
    constraints: &Value,
    variables: &Value,
    validations: &Value,
) -> [Value; 2] {
    let name = format!("capstan-{name}");
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": constraints,
                "variables": variables,
                "validations": validations,
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }),
    ]
}

/// A MutatingAdmissionPolicy for a kind with its binding; each patch is an expression that gives a list
/// of JSON patches. An object without the fields that the patches read is left to the schema to refuse.
fn mutating(plural: &str, reads: &[&str], variables: &Value, patches: &[String]) -> [Value; 2] {
    let conditions: Vec<String> = reads.iter().map(|field| mutating::there(field)).collect();
    let name = format!("capstan-{plural}");
    let mutations: Vec<Value> = patches
        .iter()
        .map(
            |expression| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}),
        )
        .collect();
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": matches(plural),
                "matchConditions": [{"name": "is-complete", "expression": conditions.join(" && ")}],
                "variables": variables,
                "mutations": mutations,
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        }),
    ]
}
