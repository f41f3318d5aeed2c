//! Which volumes still have to be detached from a Node before its host may go.
//!
//! Contract: upstream `core/reconcilers/machine`, deletion step 4. What cannot be mapped to a claim holds the deletion.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What was seen of a Node's volumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The Node.
    pub node: Value,
    /// VolumeAttachments of all Nodes.
    pub attachments: Vec<Value>,
    /// PersistentVolumes; only needed when something is attached.
    pub volumes: Vec<Value>,
    /// Claims of pods that the drain left on the Node, by namespace and name.
    pub left_alone: BTreeSet<(String, String)>,
}

/// What is attached to a Node: names as the Node has them, and PersistentVolumes that attachments name.
#[must_use]
pub fn attached(node: &Value, attachments: &[Value]) -> BTreeSet<String> {
    let of_node = node
        .pointer("/status/volumesAttached")
        .and_then(Value::as_array);
    let mut all: BTreeSet<String> = of_node
        .into_iter()
        .flatten()
        .filter_map(|volume| text(volume, "/name").map(str::to_owned))
        .collect();
    let name = text(node, "/metadata/name");
    for attachment in attachments {
        let is_here = name.is_some() && text(attachment, "/spec/nodeName") == name;
        let is_attached = attachment.pointer("/status/attached") == Some(&Value::Bool(true));
        if is_here && is_attached {
            let volume = text(attachment, "/spec/source/persistentVolumeName");
            all.extend(
                volume
                    .or_else(|| text(attachment, "/metadata/name"))
                    .map(str::to_owned),
            );
        }
    }
    all
}

/// The volumes that are still waited for, one line each.
#[must_use]
pub fn waited_for(seen: &Seen) -> Vec<String> {
    let mut by_name: BTreeMap<String, &Value> = BTreeMap::new();
    for volume in &seen.volumes {
        if let Some(name) = text(volume, "/metadata/name") {
            by_name.insert(name.to_owned(), volume);
        }
        let driver = text(volume, "/spec/csi/driver");
        if let (Some(driver), Some(handle)) = (driver, text(volume, "/spec/csi/volumeHandle")) {
            by_name.insert(format!("kubernetes.io/csi/{driver}^{handle}"), volume);
        }
    }
    let mut lines = BTreeSet::new();
    for name in attached(&seen.node, &seen.attachments) {
        let Some(volume) = by_name.get(&name) else {
            lines.insert(format!("* volume {name} is attached"));
            continue;
        };
        let volume_name = text(volume, "/metadata/name").unwrap_or(&name);
        let claim =
            text(volume, "/spec/claimRef/namespace").zip(text(volume, "/spec/claimRef/name"));
        match claim {
            Some((namespace, claim)) => {
                let is_left = seen
                    .left_alone
                    .contains(&(namespace.to_owned(), claim.to_owned()));
                if !is_left {
                    lines.insert(format!(
                        "* PersistentVolume {volume_name} of claim {namespace}/{claim} is attached"
                    ));
                }
            }
            None => {
                lines.insert(format!("* PersistentVolume {volume_name} is attached"));
            }
        }
    }
    lines.into_iter().collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(name: &str, claim: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {
                "csi": {"driver": "csi.example.org", "volumeHandle": format!("handle-{name}")},
                "claimRef": {"namespace": "ns", "name": claim},
            },
        })
    }

    fn attachment(node: &str, volume: &str, attached: bool) -> Value {
        json!({
            "metadata": {"name": format!("csi-{volume}")},
            "spec": {"nodeName": node, "source": {"persistentVolumeName": volume}},
            "status": {"attached": attached},
        })
    }

    fn seen() -> Seen {
        Seen {
            node: json!({
                "metadata": {"name": "n"},
                "status": {"volumesAttached": [
                    {"name": "kubernetes.io/csi/csi.example.org^handle-pv-a"},
                    {"name": "kubernetes.io/old/disk-1"},
                ]},
            }),
            attachments: vec![
                attachment("n", "pv-a", true),
                attachment("n", "pv-b", true),
                attachment("n", "pv-c", false),
                attachment("other", "pv-d", true),
            ],
            volumes: ["a", "b", "c", "d"]
                .map(|x| volume(&format!("pv-{x}"), &format!("claim-{x}")))
                .to_vec(),
            left_alone: BTreeSet::new(),
        }
    }

    #[test]
    fn each_volume_is_named_once_with_its_claim() {
        assert_eq!(
            waited_for(&seen()),
            [
                "* PersistentVolume pv-a of claim ns/claim-a is attached",
                "* PersistentVolume pv-b of claim ns/claim-b is attached",
                "* volume kubernetes.io/old/disk-1 is attached",
            ]
        );
    }

    #[test]
    fn claims_of_pods_that_stay_are_left_out_and_unknown_volumes_are_not() {
        let mut seen = seen();
        seen.left_alone = ["claim-a", "claim-b"]
            .map(|claim| ("ns".to_owned(), claim.to_owned()))
            .into();
        assert_eq!(
            waited_for(&seen),
            ["* volume kubernetes.io/old/disk-1 is attached"]
        );
        seen.node = json!({"metadata": {"name": "n"}});
        assert!(waited_for(&seen).is_empty());
    }
}
