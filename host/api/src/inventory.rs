//! Where `clusterctl` looks for providers: its inventory. The kind is clusterctl's own; the host serves and fills it.

use serde_json::{Value, json};

use crate::label;

/// API group of the inventory.
pub const GROUP: &str = "clusterctl.cluster.x-k8s.io";
/// Its version.
pub const VERSION: &str = "v1alpha3";
/// Its kind.
pub const KIND: &str = "Provider";

/// Name of the core provider, of which there is one.
pub const CORE: &str = "cluster-api";
/// The release of Cluster API whose kinds the host serves: clusterctl compares it with releases that it knows.
pub const CORE_VERSION: &str = "v1.14.0";

/// What clusterctl calls providers, by the beginning of their names.
const TYPES: [(&str, &str); 6] = [
    ("bootstrap-", "BootstrapProvider"),
    ("control-plane-", "ControlPlaneProvider"),
    ("infrastructure-", "InfrastructureProvider"),
    ("ipam-", "IPAMProvider"),
    ("runtime-extension-", "RuntimeExtensionProvider"),
    ("addon-", "AddonProvider"),
];

/// The definition of the kind. Its fields are at the top: there is neither a spec nor a status.
pub fn crd() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("providers.{GROUP}"),
            "labels": {label::CLUSTERCTL: "", label::CLUSTERCTL_CORE: "inventory"},
        },
        "spec": {
            "group": GROUP,
            "names": {"kind": KIND, "plural": "providers", "singular": "provider", "categories": []},
            "scope": "Namespaced",
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "additionalPrinterColumns": [
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    {"name": "Type", "type": "string", "jsonPath": ".type"},
                    {"name": "Provider", "type": "string", "jsonPath": ".providerName"},
                    {"name": "Version", "type": "string", "jsonPath": ".version"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A provider that is installed, as clusterctl knows it.",
                    "properties": {
                        "providerName": text("Name of the provider without its type."),
                        "type": text("What it provides, such as InfrastructureProvider."),
                        "version": text("Its version, beginning with v."),
                        "watchedNamespace": text("The only namespace that it looks at, if there is one."),
                    },
                }},
            }],
        },
    })
}

/// The entry of a provider, if its name says what it provides.
pub fn provider(namespace: &str, name: &str, version: &str) -> Option<Value> {
    let (type_, short) = if name == CORE {
        ("CoreProvider", CORE)
    } else {
        TYPES.iter().find_map(|(prefix, type_)| {
            let short = name.strip_prefix(prefix)?;
            (!short.is_empty()).then_some((*type_, short))
        })?
    };
    Some(json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {
                label::CLUSTERCTL: "", label::CLUSTERCTL_CORE: "inventory", label::PROVIDER: name,
            },
        },
        "providerName": short,
        "type": type_,
        "version": format!("v{}", version.trim_start_matches('v')),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_what_its_name_says_and_a_strategy_is_none() {
        let entry = provider("ns", "control-plane-kubeadm", "1.2.3").unwrap();
        assert_eq!(entry["type"], "ControlPlaneProvider");
        assert_eq!(entry["providerName"], "kubeadm");
        assert_eq!(entry["version"], "v1.2.3");
        let core = provider("ns", CORE, CORE_VERSION).unwrap();
        assert_eq!(
            (core["type"].as_str(), core["version"].as_str()),
            (Some("CoreProvider"), Some(CORE_VERSION))
        );
        assert!(provider("ns", "upgrade-canary", "1.0.0").is_none());
        assert!(provider("ns", "infrastructure-", "1.0.0").is_none());
    }
}
