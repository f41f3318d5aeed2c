//! Whose bootstrap data a Secret is: only that of the config itself, as it is or as it was before a restore or a move, is taken over.

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_core::material::{self, KUBECONFIG, PRIVATE_KEY, SECRET_TYPE};
use serde_json::Value;

use crate::object::Object;
use crate::secrets::SecretData;

/// Checks that a Secret of this key can be the data of a config of this cluster: what the host makes for a config has the type, the
/// cluster's label, the config as its controller and no key of its own. Whoever names a config as another Secret gets nothing of it.
///
/// # Errors
/// What it is instead, in words that follow its name.
pub(super) fn check(
    key: &ObjectKey,
    secret: &SecretData,
    config: &Object,
    cluster: &ObjectKey,
) -> Result<(), String> {
    if secret.secret_type != SECRET_TYPE {
        return Err(format!("is of type {:?}", secret.secret_type));
    }
    let labels = secret.metadata.get("labels");
    let labelled = labels.and_then(|labels| labels.get(label::CLUSTER_NAME)?.as_str());
    if labelled != Some(cluster.name.as_str()) {
        let has = labelled.map_or_else(
            || "no label".to_owned(),
            |other| format!("the label of Cluster {other}"),
        );
        return Err(format!("has {has}, not that of Cluster {}", cluster.name));
    }
    if secret.data.contains_key(PRIVATE_KEY) {
        return Err(format!("has a private key ({PRIVATE_KEY})"));
    }
    if *key == material::secret_key(cluster, KUBECONFIG) {
        return Err("is the kubeconfig of the Cluster".to_owned());
    }
    match secret.controller() {
        Some(owner) if !is_of_config(owner, config) => {
            let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
            Err(format!("belongs to {} {}", text("kind"), text("name")))
        }
        // Of a config that was here before a restore or a move, the UID is another one.
        Some(_) | None => Ok(()),
    }
}

/// Whether an owner reference names the config, by group, kind and name.
fn is_of_config(owner: &Value, config: &Object) -> bool {
    let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
    let kind = config.group_kind();
    let group = text("apiVersion").split_once('/');
    group.is_some_and(|(group, _)| group == kind.group)
        && text("kind") == kind.kind
        && text("name") == config.key.name
}

#[cfg(test)]
mod tests {
    use capstan_core::material::secret_object;
    use serde_json::json;

    use super::*;
    use crate::ctx::owner_reference;

    fn config(name: &str, uid: &str) -> Object {
        Object::new(json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta2", "kind": "KubeadmConfig",
            "metadata": {"namespace": "ns", "name": name, "uid": uid},
        }))
        .unwrap()
    }

    /// What is wrong with a Secret of this content and controller, for config `m` of cluster `one`.
    fn wrong(name: &str, label: &str, owner: Option<&Object>, field: &str) -> Option<String> {
        let key = ObjectKey::new("ns", name);
        let owner = owner.map(|owner| owner_reference(owner, true));
        let object = secret_object(&key, label, owner.as_ref(), &[(field, b"x")]);
        let cluster = ObjectKey::new("ns", "one");
        check(
            &key,
            &SecretData::read(&object),
            &config("m", "now"),
            &cluster,
        )
        .err()
    }

    #[test]
    fn only_what_the_host_made_for_this_config_is_its_data() {
        let (now, before) = (config("m", "now"), config("m", "before"));
        for owner in [Some(&now), Some(&before), None] {
            assert_eq!(wrong("m", "one", owner, "value"), None);
        }
        let says = |wrong: Option<String>, what: &str| {
            let wrong = wrong.expect(what);
            assert!(wrong.contains(what), "{wrong}");
        };
        says(wrong("m", "two", Some(&now), "value"), "Cluster two");
        says(wrong("m", "one", Some(&now), "tls.key"), "private key");
        says(wrong("one-kubeconfig", "one", None, "value"), "kubeconfig");
        let other = config("n", "now");
        says(wrong("m", "one", Some(&other), "value"), "KubeadmConfig n");
        let plane = Object::new(json!({
            "apiVersion": "controlplane.cluster.x-k8s.io/v1beta2", "kind": "KubeadmControlPlane",
            "metadata": {"namespace": "ns", "name": "m", "uid": "now"},
        }));
        says(
            wrong("m", "one", plane.as_ref(), "value"),
            "KubeadmControlPlane m",
        );
        let cluster = ObjectKey::new("ns", "one");
        let key = ObjectKey::new("ns", "m");
        for object in [
            json!({"type": "Opaque", "metadata": {"labels": {label::CLUSTER_NAME: "one"}}}),
            json!({"type": SECRET_TYPE, "metadata": {}}),
        ] {
            assert!(check(&key, &SecretData::read(&object), &now, &cluster).is_err());
        }
    }
}
