//! What an answer may hold beyond its fields: the way back to an old set, and labels and taints of sets. Untrusted, as all of it.

use std::collections::BTreeMap;

use capstan_api::annotation;
use capstan_api::v1beta2::{MachineSet, MachineTaint};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::Violation;
use super::count::annotation as annotation_of;

/// Name of the answer's extra that gives up on the current template: `{"machineSet": name, "message": text}`.
pub const ROLL_BACK: &str = "rollBack";

/// Name of the answer's extra with labels and taints: `{"<MachineSet>": {"labels": {..}, "taints": [..]}}`.
pub const OVERLAYS: &str = "overlays";

/// A strategy's labels on one set: each is on every Machine and Node of it.
const LABELS_MAX: usize = 8;

/// A strategy's taints on one set, for the same reason.
const TAINTS_MAX: usize = 4;

/// Domain of the labels that a strategy may set: the one that Machines pass on to Nodes and nothing else is decided by.
const LABEL_DOMAIN: &str = "node.cluster.x-k8s.io";

/// Annotation of a MachineSet with the overlay that its strategy asked for, as JSON; it stays until the strategy is asked again.
pub const OVERLAY: &str = "capstan.dev/overlay";

/// The way back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollBack {
    /// The old set that may grow again.
    pub machine_set: String,
    /// Why.
    #[serde(default)]
    pub message: String,
}

/// Labels and taints of the machines of one set besides those of the template; changed in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlay {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints, kept on Nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<OverlayTaint>,
}

/// A taint of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayTaint {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Effect.
    pub effect: String,
}

fn named<'a>(extra: &'a [(String, Value)], wanted: &str) -> Option<&'a Value> {
    let mut values = extra.iter().filter(|(name, _)| name == wanted);
    values
        .next()
        .map(|(_, value)| value)
        .filter(|v| !v.is_null())
}

fn malformed(name: &str, why: impl ToString) -> Violation {
    Violation::Extra {
        name: name.to_owned(),
        why: why.to_string(),
    }
}

/// The way back that an answer asks for.
///
/// # Errors
/// When it cannot be read.
pub fn roll_back(extra: &[(String, Value)]) -> Result<Option<RollBack>, Violation> {
    let Some(value) = named(extra, ROLL_BACK) else {
        return Ok(None);
    };
    let read = RollBack::deserialize(value);
    read.map(Some).map_err(|error| malformed(ROLL_BACK, error))
}

/// The overlays that an answer asks for, by set.
///
/// # Errors
/// When they cannot be read, are too many, or reach further than a strategy may.
pub fn overlays(extra: &[(String, Value)]) -> Result<BTreeMap<String, Overlay>, Violation> {
    let Some(value) = named(extra, OVERLAYS) else {
        return Ok(BTreeMap::new());
    };
    let read = BTreeMap::<String, Overlay>::deserialize(value);
    let overlays = read.map_err(|error| malformed(OVERLAYS, error))?;
    for (set, overlay) in &overlays {
        check(overlay).map_err(|why| malformed(OVERLAYS, format!("{set}: {why}")))?;
    }
    Ok(overlays)
}

fn check(overlay: &Overlay) -> Result<(), String> {
    if overlay.labels.len() > LABELS_MAX || overlay.taints.len() > TAINTS_MAX {
        return Err(format!(
            "at most {LABELS_MAX} labels and {TAINTS_MAX} taints are taken"
        ));
    }
    for (key, value) in &overlay.labels {
        let (prefix, name) = key.split_once('/').unwrap_or_default();
        let is_ours = prefix == LABEL_DOMAIN
            || prefix
                .strip_suffix(LABEL_DOMAIN)
                .is_some_and(|sub| sub.ends_with('.'));
        if !is_ours || !is_label_text(name) {
            return Err(format!(
                "label {key:?}: only names in the domain {LABEL_DOMAIN} may be set"
            ));
        }
        if !value.is_empty() && !is_label_text(value) {
            return Err(format!("label {key}: {value:?} is not a label value"));
        }
    }
    for taint in &overlay.taints {
        let name = taint.key.rsplit('/').next().unwrap_or_default();
        if !is_label_text(name)
            || taint.key.len() > 253
            || taint.key.contains("kubernetes.io/")
            || (!taint.value.is_empty() && !is_label_text(&taint.value))
        {
            return Err(format!("taint {:?} is not one that may be set", taint.key));
        }
        if !["NoSchedule", "PreferNoSchedule"].contains(&taint.effect.as_str()) {
            return Err(format!(
                "taint {}: effect must be NoSchedule or PreferNoSchedule, not {:?}",
                taint.key, taint.effect
            ));
        }
    }
    Ok(())
}

/// Whether a text may be the name of a label or its value.
fn is_label_text(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl Overlay {
    /// The overlay that a set has.
    #[must_use]
    pub fn of(set: &MachineSet) -> Self {
        let text = annotation_of(&set.metadata, OVERLAY);
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// The annotation's value; `None` when there is nothing to remember.
    #[must_use]
    pub fn write(&self) -> Option<String> {
        let is_empty = *self == Self::default();
        (!is_empty).then(|| serde_json::json!(self).to_string())
    }

    /// The template's taints with those of the overlay.
    #[must_use]
    pub fn taints(&self, template: &[MachineTaint]) -> Vec<Value> {
        let mut taints: Vec<Value> = template.iter().map(|t| serde_json::json!(t)).collect();
        for taint in &self.taints {
            let is_there = taints
                .iter()
                .any(|t| t["key"] == taint.key.as_str() && t["effect"] == taint.effect.as_str());
            if is_there {
                continue;
            }
            let mut value = serde_json::json!({
                "key": taint.key, "effect": taint.effect, "propagation": "Always",
            });
            if let (Some(fields), false) = (value.as_object_mut(), taint.value.is_empty()) {
                fields.insert("value".to_owned(), Value::from(taint.value.clone()));
            }
            taints.push(value);
        }
        taints
    }
}

/// What the host keeps for a strategy between calls, in one annotation of the MachineDeployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Whose it is: another strategy starts without.
    pub strategy: String,
    /// What its last answer kept.
    pub state: Option<crate::call::State>,
    /// The revision that it rolled back.
    pub rolled_back: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    strategy: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rolled_back_revision: Option<u64>,
}

impl Memory {
    /// What the annotation holds of this strategy; nothing when it is another's or cannot be read.
    #[must_use]
    pub fn read(text: Option<&str>, strategy: &str) -> Self {
        use base64::Engine as _;
        let written = text.and_then(|text| serde_json::from_str::<Written>(text).ok());
        let none = Self {
            strategy: strategy.to_owned(),
            ..Self::default()
        };
        let Some(written) = written.filter(|written| written.strategy == strategy) else {
            return none;
        };
        let state = base64::engine::general_purpose::STANDARD.decode(&written.state);
        Self {
            state: state.ok().filter(|state| !state.is_empty()),
            rolled_back: written.rolled_back_revision,
            ..none
        }
    }

    /// The annotation's value.
    #[must_use]
    pub fn write(&self) -> String {
        use base64::Engine as _;
        let state = self.state.as_deref().unwrap_or_default();
        let written = Written {
            strategy: self.strategy.clone(),
            state: base64::engine::general_purpose::STANDARD.encode(state),
            rolled_back_revision: self.rolled_back,
        };
        serde_json::json!(written).to_string()
    }

    /// The merge patch of the MachineDeployment that keeps it.
    #[must_use]
    pub fn patch(&self) -> Value {
        let mut annotations = serde_json::Map::new();
        annotations.insert(annotation::STRATEGY_STATE.to_owned(), self.write().into());
        serde_json::json!({"metadata": {"annotations": annotations}})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(overlay: Value) -> String {
        let extra = [(OVERLAYS.to_owned(), json!({"set": overlay}))];
        overlays(&extra).expect_err("refused").to_string()
    }

    #[test]
    fn overlays_reach_no_further_than_the_domain_of_node_labels() {
        let good = json!({"set": {"labels": {"node.cluster.x-k8s.io/color": "blue"}}});
        let read = overlays(&[(OVERLAYS.to_owned(), good)]).expect("good");
        assert_eq!(read["set"].labels["node.cluster.x-k8s.io/color"], "blue");
        for key in [
            "cluster.x-k8s.io/deployment-name",
            "machine-template-hash",
            "evil-node.cluster.x-k8s.io/x",
            "node.cluster.x-k8s.io/",
        ] {
            assert!(
                refused(json!({"labels": {key: "x"}})).contains("only names"),
                "{key}"
            );
        }
        assert!(
            refused(json!({"labels": {"node.cluster.x-k8s.io/a": "b c"}})).contains("label value")
        );
    }

    #[test]
    fn taints_that_evict_or_belong_to_others_are_refused() {
        let evicting = json!({"taints": [{"key": "a/b", "effect": "NoExecute"}]});
        assert!(refused(evicting).contains("NoExecute"));
        let foreign =
            json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]});
        assert!(refused(foreign).contains("may be set"));
        let many: Vec<Value> = (0..5)
            .map(|n| json!({"key": format!("k{n}"), "effect": "NoSchedule"}))
            .collect();
        assert!(refused(json!({"taints": many})).contains("at most"));
    }

    #[test]
    fn memory_belongs_to_its_strategy() {
        let memory = Memory {
            strategy: "a".to_owned(),
            state: Some(vec![1, 2]),
            rolled_back: Some(3),
        };
        let text = memory.write();
        assert_eq!(Memory::read(Some(&text), "a"), memory);
        let other = Memory::read(Some(&text), "b");
        assert_eq!((other.state, other.rolled_back), (None, None));
        assert_eq!(Memory::read(Some("junk"), "a").state, None);
    }
}
