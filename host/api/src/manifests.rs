//! What a server needs to know before the host can start: the kinds and the admission policies.
//!
//! Derived schemas are made into the published ones here: nothing is nullable, labels are added, and
//! rules are put where an attribute cannot reach.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::addons::{ClusterResourceSet, ClusterResourceSetBinding};
use crate::ipam::{IPAddress, IPAddressClaim};
use crate::machine_hook::MachineHook;
use crate::plugin::Plugin;
use crate::v1beta2::{
    Cluster, Machine, MachineDeployment, MachineDrainRule, MachineHealthCheck, MachinePool,
    MachineSet,
};
use crate::{admission, inventory, label};

/// The core's provider label.
const CORE_PROVIDER: &str = "cluster-api";

/// The kinds that the host serves, those of Cluster API first.
pub fn crds() -> Vec<CustomResourceDefinition> {
    crd_values()
        .into_iter()
        .filter_map(|value| serde_json::from_value(value).ok())
        .collect()
}

/// The admission policies with their bindings.
pub fn admission_policies() -> Vec<Value> {
    admission::policies()
}

/// Kinds and policies as YAML documents, for `kubectl apply --server-side`.
pub fn yaml() -> String {
    documents()
        .iter()
        .map(|document| format!("---\n{}", crate::yaml::print(document)))
        .collect()
}

/// Everything that `capstan crd` prints, in the order in which it is applied.
pub fn documents() -> Vec<Value> {
    let mut documents = crd_values();
    documents.extend(admission_policies());
    documents
}

/// The definitions as they are published.
fn crd_values() -> Vec<Value> {
    let core = [
        Cluster::crd(),
        Machine::crd(),
        MachineSet::crd(),
        MachineDeployment::crd(),
        MachinePool::crd(),
        MachineHealthCheck::crd(),
        MachineDrainRule::crd(),
        ClusterResourceSet::crd(),
        ClusterResourceSetBinding::crd(),
        IPAddressClaim::crd(),
        IPAddress::crd(),
    ];
    let mut values: Vec<Value> = core
        .iter()
        .filter_map(|crd| serde_json::to_value(crd).ok())
        .collect();
    for value in &mut values {
        label_crd(value, CORE_PROVIDER);
    }
    values.extend(serde_json::to_value(Plugin::crd()).ok());
    values.extend(serde_json::to_value(MachineHook::crd()).ok());
    values.push(inventory::crd());
    for value in &mut values {
        publish(value);
    }
    values
}

/// Labels by which `clusterctl` finds the kinds.
fn label_crd(crd: &mut Value, provider: &str) {
    set(
        crd,
        "/metadata",
        "labels",
        json!({label::PROVIDER: provider, label::CLUSTERCTL: ""}),
    );
}

/// Makes a derived definition the published one.
fn publish(crd: &mut Value) {
    set(crd, "/spec", "conversion", json!({"strategy": "None"}));
    let kind = crd
        .pointer("/spec/names/kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some(root) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") else {
        return;
    };
    not_nullable(root);
    describe_root(root);
    match kind.as_str() {
        "Cluster" | "MachineDeployment" => set(
            root,
            "",
            "x-kubernetes-validations",
            json!([{
                "rule": "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
                "message": "metadata.name is used as a label value: it has at most 63 characters, and starts and ends with a letter or digit",
            }]),
        ),
        "MachineDrainRule" => set(root, "", "required", json!(["metadata", "spec"])),
        _ => {}
    }
}

/// Sets a member of the object at a pointer, if there is one.
fn set(value: &mut Value, pointer: &str, key: &str, member: Value) {
    if let Some(Value::Object(object)) = value.pointer_mut(pointer) {
        object.insert(key.to_owned(), member);
    }
}

/// The members that every object has.
fn describe_root(root: &mut Value) {
    let Some(Value::Object(properties)) = root.pointer_mut("/properties") else {
        return;
    };
    properties.insert(
        "apiVersion".to_owned(),
        json!({
            "type": "string", "description": "API group and version of the object.",
        }),
    );
    properties.insert(
        "kind".to_owned(),
        json!({"type": "string", "description": "Kind of the object."}),
    );
    properties.insert("metadata".to_owned(), json!({"type": "object"}));
}

/// Removes `nullable`, and null from closed sets: a null that a client sends is then the same as leaving the field out, as it is in
/// templates that people have (`matchLabels: null`).
fn not_nullable(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("nullable") == Some(&Value::Bool(true)) {
                object.remove("nullable");
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(not_nullable);
        }
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *schema = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(not_nullable),
        _ => {}
    }
}

/// A bound that derivation made a floating point number, as the whole number that it is.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let text = number.to_string();
    text.strip_suffix(".0")?.parse().ok()
}

#[cfg(test)]
mod tests;
