//! What a Machine writes onto its Node: labels and annotations of its domains, its taints, and which of them came from it.
//!
//! Contract: upstream `core/reconcilers/machine/machine_controller_noderef.go`.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::v1beta2::{MachineTaint, TaintPropagation};
use capstan_api::{annotation, label};
use serde_json::{Map, Value, json};

use super::{Observed, flag, text};

/// Taint that bootstrap providers put on workers until their labels are there.
pub(crate) const UNINITIALIZED: &str = "node.cluster.x-k8s.io/uninitialized";

/// Taint on nodes of machines that a roll-out will replace.
const OUTDATED: &str = "node.cluster.x-k8s.io/outdated-revision";

/// Annotations that every Node gets; they are not listed as coming from the Machine's own.
const BOOKKEEPING: [&str; 5] = [
    annotation::CLUSTER_NAME,
    annotation::CLUSTER_NAMESPACE,
    annotation::MACHINE,
    annotation::OWNER_KIND,
    annotation::OWNER_NAME,
];

/// Keys of a Machine's labels and annotations that go to its Node beside those of Cluster API's domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Of labels.
    pub labels: BTreeSet<String>,
    /// Of annotations.
    pub annotations: BTreeSet<String>,
}

/// The merge patch that the Node needs; `None` when it has all.
#[must_use]
pub fn patch(observed: &Observed, node: &Value) -> Option<Value> {
    let mut metadata = Map::new();
    let (labels, tracked_labels) = labels(observed);
    let (mut annotations, tracked_annotations) = annotations(observed);
    let label_changes = changes(
        node,
        "/metadata/labels",
        &labels,
        &previous(node, annotation::LABELS_FROM_MACHINE),
    );
    annotations.insert(annotation::LABELS_FROM_MACHINE.to_owned(), tracked_labels);
    annotations.insert(
        annotation::ANNOTATIONS_FROM_MACHINE.to_owned(),
        tracked_annotations,
    );
    annotations.insert(
        annotation::TAINTS_FROM_MACHINE.to_owned(),
        join(kept_taints(observed).keys()),
    );
    let annotation_changes = changes(
        node,
        "/metadata/annotations",
        &annotations,
        &previous(node, annotation::ANNOTATIONS_FROM_MACHINE),
    );
    if !label_changes.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(label_changes));
    }
    if !annotation_changes.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(annotation_changes));
    }
    let mut patch = Map::new();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if let Some(taints) = taints(observed, node) {
        patch.insert("spec".to_owned(), json!({ "taints": taints }));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Labels that go from the Machine to the Node, and the list of their names.
fn labels(observed: &Observed) -> (BTreeMap<String, String>, String) {
    let own = observed.machine.metadata.labels.iter().flatten();
    let mut labels: BTreeMap<String, String> = own
        .filter(|(key, _)| is_node_label(key) || observed.chosen.labels.contains(*key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if observed
        .infra
        .found()
        .is_some_and(|infra| flag(infra, "/status/interruptible"))
    {
        labels.insert(label::INTERRUPTIBLE.to_owned(), String::new());
    }
    let names = join(labels.keys());
    (labels, names)
}

fn annotations(observed: &Observed) -> (BTreeMap<String, String>, String) {
    let metadata = &observed.machine.metadata;
    let own = metadata.annotations.iter().flatten();
    let mut annotations: BTreeMap<String, String> = own
        .filter(|(key, _)| {
            in_domain(key, "node.cluster.x-k8s.io") || observed.chosen.annotations.contains(*key)
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let names = join(
        annotations
            .keys()
            .filter(|key| !BOOKKEEPING.contains(&key.as_str())),
    );
    let mut set = |key: &str, value: &str| annotations.insert(key.to_owned(), value.to_owned());
    set(
        annotation::CLUSTER_NAME,
        &observed.machine.spec.cluster_name,
    );
    set(
        annotation::CLUSTER_NAMESPACE,
        metadata.namespace.as_deref().unwrap_or_default(),
    );
    set(
        annotation::MACHINE,
        metadata.name.as_deref().unwrap_or_default(),
    );
    let owners = metadata.owner_references.iter().flatten();
    if let Some(owner) = owners
        .into_iter()
        .find(|owner| owner.controller == Some(true))
    {
        set(annotation::OWNER_KIND, &owner.kind);
        set(annotation::OWNER_NAME, &owner.name);
    }
    (annotations, names)
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Names that were put onto the Node before.
fn previous(node: &Value, tracking: &str) -> BTreeSet<String> {
    let listed = node
        .pointer("/metadata/annotations")
        .and_then(|a| a.get(tracking));
    let listed = listed.and_then(Value::as_str).unwrap_or_default();
    listed
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What to set, and what to take away because it came from the Machine before and does not any more.
fn changes(
    node: &Value,
    place: &str,
    wanted: &BTreeMap<String, String>,
    previous: &BTreeSet<String>,
) -> Map<String, Value> {
    let current = |key: &str| {
        node.pointer(place)
            .and_then(|m| m.get(key))
            .and_then(Value::as_str)
    };
    let mut changes: Map<String, Value> = wanted
        .iter()
        .filter(|(key, value)| current(key) != Some(value))
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    for key in previous.iter().filter(|key| !wanted.contains_key(*key)) {
        if current(key).is_some() {
            changes.insert(key.clone(), Value::Null);
        }
    }
    changes
}

/// Taints that the Machine keeps on its Node, by key and effect.
fn kept_taints(observed: &Observed) -> BTreeMap<String, &MachineTaint> {
    asked_for(observed, TaintPropagation::Always)
}

fn asked_for(
    observed: &Observed,
    propagation: TaintPropagation,
) -> BTreeMap<String, &MachineTaint> {
    let taints = observed.machine.spec.taints.iter();
    let taints = taints.filter(|taint| taint.propagation == propagation);
    taints
        .map(|taint| (format!("{}:{}", taint.key, taint.effect), taint))
        .collect()
}

/// A taint of a Node as taints are told apart: by key and effect.
fn taint_id(taint: &Value) -> String {
    let part = |pointer| text(taint, pointer).unwrap_or_default();
    format!("{}:{}", part("/key"), part("/effect"))
}

/// The Node's taints as they should be, if they differ. Those of others stay as they are.
fn taints(observed: &Observed, node: &Value) -> Option<Vec<Value>> {
    let current = node
        .pointer("/spec/taints")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let is = |taint: &Value, key: &str| text(taint, "/key") == Some(key);
    let mut taints: Vec<Value> = current
        .iter()
        .filter(|taint| !is(taint, UNINITIALIZED))
        .cloned()
        .collect();
    let marked = taints.iter().any(|taint| is(taint, OUTDATED));
    if observed.outdated_revision && !marked {
        taints.push(json!({"key": OUTDATED, "effect": "PreferNoSchedule"}));
    } else if !observed.outdated_revision && marked {
        taints.retain(|taint| !is(taint, OUTDATED));
    }
    let mut wanted = kept_taints(observed);
    let before = previous(node, annotation::TAINTS_FROM_MACHINE);
    taints.retain(|taint| {
        let id = taint_id(taint);
        !before.contains(&id) || wanted.contains_key(&id)
    });
    // Those for the beginning are nobody's business once the Node has been told for the first time.
    let annotations = node.pointer("/metadata/annotations");
    if annotations.is_none_or(|all| all.get(annotation::TAINTS_FROM_MACHINE).is_none()) {
        wanted.extend(asked_for(observed, TaintPropagation::OnInitialization));
    }
    for (id, taint) in wanted {
        set_taint(&mut taints, &id, taint);
    }
    (taints != current).then_some(taints)
}

/// Adds a taint, or gives the one that is there its value.
fn set_taint(taints: &mut Vec<Value>, id: &str, wanted: &MachineTaint) {
    let value = wanted.value.as_deref();
    match taints.iter_mut().find(|taint| taint_id(taint) == id) {
        Some(taint) if text(taint, "/value") == value => {}
        Some(taint) => {
            if let Some(fields) = taint.as_object_mut() {
                match value {
                    Some(value) => fields.insert("value".to_owned(), json!(value)),
                    None => fields.remove("value"),
                };
            }
        }
        None => {
            let mut taint = Map::new();
            taint.insert("key".to_owned(), json!(wanted.key));
            taint.insert("effect".to_owned(), json!(wanted.effect));
            if let Some(value) = value {
                taint.insert("value".to_owned(), json!(value));
            }
            taints.push(Value::Object(taint));
        }
    }
}

/// Labels that a Machine may put onto its Node.
fn is_node_label(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(prefix, _)| prefix == "node-role.kubernetes.io")
        || in_domain(key, "node-restriction.kubernetes.io")
        || in_domain(key, "node.cluster.x-k8s.io")
}

fn in_domain(key: &str, domain: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, _)| {
        prefix == domain
            || prefix
                .strip_suffix(domain)
                .is_some_and(|sub| sub.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::report::tests::observed;

    fn with_node() -> (Observed, Value) {
        let mut observed = observed();
        let labels = [
            ("node.cluster.x-k8s.io/a", "1"),
            ("other", "2"),
            ("node-role.kubernetes.io/x", ""),
        ];
        observed.machine.metadata.labels =
            Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        (
            observed,
            json!({"metadata": {"name": "n"}, "spec": {"taints": [
                {"key": UNINITIALIZED, "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"},
            ]}}),
        )
    }

    #[test]
    fn only_labels_of_the_nodes_domains_go_over_and_the_uninitialized_taint_goes() {
        let (observed, node) = with_node();
        let patch = patch(&observed, &node).expect("differs");
        assert_eq!(
            patch["metadata"]["labels"],
            json!({"node.cluster.x-k8s.io/a": "1", "node-role.kubernetes.io/x": ""})
        );
        assert_eq!(
            patch["spec"]["taints"],
            json!([{"key": "mine", "effect": "NoSchedule"}])
        );
        assert_eq!(patch["metadata"]["annotations"][annotation::MACHINE], "m");
    }

    #[test]
    fn a_node_that_has_all_is_left_alone_and_what_is_no_longer_wanted_is_taken_away() {
        let (mut observed, mut node) = with_node();
        let change = patch(&observed, &node).expect("differs");
        node["metadata"]["labels"] = change["metadata"]["labels"].clone();
        node["metadata"]["annotations"] = change["metadata"]["annotations"].clone();
        node["spec"] = change["spec"].clone();
        assert_eq!(patch(&observed, &node), None);
        observed.machine.metadata.labels = None;
        let change = patch(&observed, &node).expect("differs");
        assert_eq!(
            change["metadata"]["labels"]["node.cluster.x-k8s.io/a"],
            Value::Null
        );
        assert_eq!(
            change["metadata"]["annotations"][annotation::LABELS_FROM_MACHINE],
            ""
        );
    }

    #[test]
    fn an_outdated_revision_is_marked_and_unmarked() {
        let (mut observed, mut node) = with_node();
        observed.outdated_revision = true;
        let taints = taints(&observed, &node).expect("differs");
        assert!(taints.iter().any(|t| t["key"] == OUTDATED));
        node["spec"]["taints"] = json!(taints);
        observed.outdated_revision = false;
        assert!(
            !super::taints(&observed, &node)
                .expect("differs")
                .iter()
                .any(|t| t["key"] == OUTDATED)
        );
    }

    #[test]
    fn taints_are_kept_valued_and_taken_away_again() {
        let (mut observed, mut node) = with_node();
        let taint = |key: &str, value: Option<&str>, propagation| MachineTaint {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect: capstan_api::v1beta2::TaintEffect::NoExecute,
            propagation,
        };
        observed.machine.spec.taints = vec![
            taint("kept", Some("1"), TaintPropagation::Always),
            taint("first", None, TaintPropagation::OnInitialization),
        ];
        let change = patch(&observed, &node).expect("differs");
        assert_eq!(
            change["spec"]["taints"],
            json!([
                {"key": "mine", "effect": "NoSchedule"},
                {"key": "first", "effect": "NoExecute"},
                {"key": "kept", "effect": "NoExecute", "value": "1"},
            ])
        );
        let told = &change["metadata"]["annotations"][annotation::TAINTS_FROM_MACHINE];
        assert_eq!(told, "kept:NoExecute");
        // Somebody removes the first one, and changes the value of the other, which comes back.
        node["metadata"]["annotations"] = change["metadata"]["annotations"].clone();
        node["spec"]["taints"] = json!([{"key": "kept", "effect": "NoExecute", "value": "2"}]);
        assert_eq!(
            taints(&observed, &node),
            Some(vec![
                json!({"key": "kept", "effect": "NoExecute", "value": "1"})
            ])
        );
        // No longer asked for: it goes, one of another effect stays.
        observed.machine.spec.taints.clear();
        node["spec"]["taints"] = json!([
            {"key": "kept", "effect": "NoExecute", "value": "1"}, {"key": "kept", "effect": "NoSchedule"},
        ]);
        let change = patch(&observed, &node).expect("differs");
        assert_eq!(
            change["spec"]["taints"],
            json!([{"key": "kept", "effect": "NoSchedule"}])
        );
        let told = &change["metadata"]["annotations"][annotation::TAINTS_FROM_MACHINE];
        assert_eq!(told, "");
    }

    #[test]
    fn a_node_names_who_keeps_its_machine() {
        let (mut observed, node) = with_node();
        let owner = |kind: &str, controller: bool| {
            serde_json::from_value(json!({
                "apiVersion": "v1", "kind": kind, "name": "o", "uid": kind, "controller": controller,
            }))
            .expect("an owner")
        };
        let said = |observed: &Observed| {
            let annotations =
                patch(observed, &node).expect("differs")["metadata"]["annotations"].clone();
            [annotation::OWNER_KIND, annotation::OWNER_NAME].map(|key| annotations[key].clone())
        };
        observed.machine.metadata.owner_references = Some(vec![owner("Inventory", false)]);
        assert_eq!(said(&observed), [Value::Null, Value::Null]);
        let owners = observed
            .machine
            .metadata
            .owner_references
            .get_or_insert_default();
        owners.push(owner("MachineSet", true));
        assert_eq!(said(&observed), [json!("MachineSet"), json!("o")]);
    }

    #[test]
    fn annotations_of_the_nodes_domain_go_over() {
        let (mut observed, node) = with_node();
        let own = [
            ("x.node.cluster.x-k8s.io/a", "1"),
            ("cluster.x-k8s.io/b", "2"),
        ];
        observed.machine.metadata.annotations =
            Some(own.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let patch = patch(&observed, &node).expect("differs");
        let annotations = &patch["metadata"]["annotations"];
        assert_eq!(annotations["x.node.cluster.x-k8s.io/a"], "1");
        assert_eq!(annotations["cluster.x-k8s.io/b"], Value::Null);
        assert_eq!(
            annotations[annotation::ANNOTATIONS_FROM_MACHINE],
            "x.node.cluster.x-k8s.io/a"
        );
    }

    #[test]
    fn what_the_operator_chose_goes_over_and_is_taken_away_again() {
        let (mut observed, mut node) = with_node();
        observed.machine.metadata.annotations = Some(
            [
                ("note".to_owned(), "3".to_owned()),
                ("own".to_owned(), "4".to_owned()),
            ]
            .into(),
        );
        observed.chosen = Chosen {
            labels: ["other".to_owned()].into(),
            annotations: ["note".to_owned()].into(),
        };
        let change = patch(&observed, &node).expect("differs");
        assert_eq!(change["metadata"]["labels"]["other"], "2");
        let annotations = &change["metadata"]["annotations"];
        assert_eq!(annotations["note"], "3");
        assert_eq!(annotations["own"], Value::Null);
        assert_eq!(annotations[annotation::ANNOTATIONS_FROM_MACHINE], "note");
        node["metadata"]["labels"] = change["metadata"]["labels"].clone();
        node["metadata"]["annotations"] = annotations.clone();
        node["metadata"]["annotations"]["own"] = json!("the Node's");
        node["spec"] = change["spec"].clone();
        assert_eq!(patch(&observed, &node), None);
        // The operator thinks better of it.
        observed.chosen = Chosen::default();
        let change = patch(&observed, &node).expect("differs");
        assert_eq!(change["metadata"]["labels"], json!({"other": null}));
        let annotations = change["metadata"]["annotations"].as_object().expect("some");
        assert_eq!(annotations.get("note"), Some(&Value::Null));
        assert_eq!(annotations.get("own"), None);
    }

    #[test]
    fn the_node_of_an_interruptible_host_says_so() {
        let (mut observed, node) = with_node();
        let labels = |observed: &Observed| {
            patch(observed, &node).expect("differs")["metadata"]["labels"].clone()
        };
        assert_eq!(labels(&observed)[label::INTERRUPTIBLE], Value::Null);
        observed.infra =
            crate::lookup::Lookup::Found(json!({"status": {"interruptible": true}}).into());
        assert_eq!(labels(&observed)[label::INTERRUPTIBLE], "");
    }
}
