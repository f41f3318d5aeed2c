//! When machines of one template have to be replaced to match another, and why (contract: upstream
//! `mdutil.MachineTemplateUpToDate`).

use capstan_api::name::fnv32a;
use capstan_api::v1beta2::{ContractVersionedObjectReference, MachineSpec, MachineTemplateSpec};
use serde_json::{Value, json};

/// What must change, one sentence each, version first; empty when nothing has to be replaced. Everything that can be changed
/// in place is left out: labels, annotations, readiness gates, deletion timeouts, `minReadySeconds`, taints.
#[must_use]
pub fn differences(current: &MachineTemplateSpec, desired: &MachineTemplateSpec) -> Vec<String> {
    let (current, desired) = (&current.spec, &desired.spec);
    let mut found = Vec::new();
    let mut text = |what: &str, current: &Option<String>, desired: &Option<String>| {
        if current != desired {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            found.push(format!(
                "{what} {}, {} required",
                shown(current),
                shown(desired)
            ));
        }
    };
    text("Version", &current.version, &desired.version);
    text(
        "Failure domain",
        &current.failure_domain,
        &desired.failure_domain,
    );
    match (&current.bootstrap.config_ref, &desired.bootstrap.config_ref) {
        (None, None)
            if current.bootstrap.data_secret_name != desired.bootstrap.data_secret_name =>
        {
            found.push("Bootstrap data Secret is not up-to-date".to_owned());
        }
        (before, after) if before != after => {
            let named = after.as_ref().or(before.as_ref());
            found.push(format!(
                "{} is not up-to-date",
                named.map_or("Bootstrap object", copied_kind)
            ));
        }
        _ => {}
    }
    if current.infrastructure_ref != desired.infrastructure_ref {
        found.push(format!(
            "{} is not up-to-date",
            copied_kind(&desired.infrastructure_ref)
        ));
    }
    found
}

/// Whether machines of `current` need not be replaced to match `desired`.
#[must_use]
pub fn matches(current: &MachineTemplateSpec, desired: &MachineTemplateSpec) -> bool {
    rollout_fields(&current.spec) == rollout_fields(&desired.spec)
}

/// Digest of everything that makes a template another one; stable between versions of the host.
#[must_use]
pub fn hash(template: &MachineTemplateSpec) -> u32 {
    fnv32a(rollout_fields(&template.spec).to_string().as_bytes())
}

fn rollout_fields(spec: &MachineSpec) -> Value {
    let data_secret = spec.bootstrap.data_secret_name.as_ref();
    json!({
        "version": spec.version,
        "failureDomain": spec.failure_domain,
        "configRef": spec.bootstrap.config_ref,
        // With a configRef the name is what the bootstrap provider answered.
        "dataSecretName": data_secret.filter(|_| spec.bootstrap.config_ref.is_none()),
        "infrastructureRef": spec.infrastructure_ref,
    })
}

fn copied_kind(reference: &ContractVersionedObjectReference) -> &str {
    reference
        .kind
        .strip_suffix("Template")
        .unwrap_or(&reference.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(spec: Value) -> MachineTemplateSpec {
        let mut base = json!({
            "clusterName": "c", "version": "v1.35.0",
            "bootstrap": {"configRef": {"apiGroup": "b", "kind": "KubeadmConfigTemplate", "name": "one"}},
            "infrastructureRef": {"apiGroup": "i", "kind": "LocalMachineTemplate", "name": "one"},
        });
        for (key, value) in spec.as_object().expect("an object") {
            base[key] = value.clone();
        }
        serde_json::from_value(json!({"spec": base})).expect("a template")
    }

    #[test]
    fn what_can_be_changed_in_place_makes_no_difference() {
        let before = template(json!({}));
        let after = template(
            json!({"minReadySeconds": 7, "deletion": {"nodeDrainTimeoutSeconds": 3}, "providerID": "x"}),
        );
        assert!(matches(&before, &after) && differences(&before, &after).is_empty());
        assert_eq!(hash(&before), hash(&after));
    }

    #[test]
    fn each_difference_is_named_version_first() {
        let before = template(json!({}));
        let after = template(json!({
            "version": "v1.36.0", "failureDomain": "b",
            "bootstrap": {"configRef": {"apiGroup": "b", "kind": "KubeadmConfigTemplate", "name": "two"}},
            "infrastructureRef": {"apiGroup": "i", "kind": "LocalMachineTemplate", "name": "two"},
        }));
        assert_eq!(
            differences(&before, &after),
            [
                "Version v1.35.0, v1.36.0 required",
                "Failure domain none, b required",
                "KubeadmConfig is not up-to-date",
                "LocalMachine is not up-to-date",
            ]
        );
        assert!(!matches(&before, &after));
        assert_ne!(hash(&before), hash(&after));
    }
}
