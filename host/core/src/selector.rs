//! Label selectors, as Kubernetes defines them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether the labels match. An empty selector matches everything.
///
/// # Errors
/// As [`check`].
pub fn selects(
    selector: &LabelSelector,
    labels: &BTreeMap<String, String>,
) -> Result<bool, String> {
    check(selector)?;
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let holds = |requirement: &LabelSelectorRequirement| {
        let value = labels.get(&requirement.key);
        let listed = || value.is_some_and(|value| values(requirement).contains(value));
        match requirement.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    };
    let mut requirements = selector.match_expressions.iter().flatten();
    Ok(equal && requirements.all(holds))
}

fn values(requirement: &LabelSelectorRequirement) -> &[String] {
    requirement.values.as_deref().unwrap_or_default()
}

/// Whether a selector can be read at all, whatever it is applied to (Kubernetes' `LabelSelectorAsSelector`).
///
/// # Errors
/// The operator that is none, or that has values and takes none, or the reverse.
pub fn check(selector: &LabelSelector) -> Result<(), String> {
    let mut requirements = selector.match_expressions.iter().flatten();
    requirements.try_for_each(|requirement| {
        let operator = requirement.operator.as_str();
        let takes_values = match operator {
            "In" | "NotIn" => true,
            "Exists" | "DoesNotExist" => false,
            other => return Err(format!("{other:?} is not an operator of a label selector")),
        };
        if takes_values == values(requirement).is_empty() {
            let must = if takes_values { "needs" } else { "takes no" };
            let key = &requirement.key;
            return Err(format!(
                "the operator {operator} of key {key:?} {must} values"
            ));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(selector: serde_json::Value) -> Result<bool, String> {
        let selector = serde_json::from_value(selector).expect("a selector");
        selects(
            &selector,
            &BTreeMap::from([("a".to_owned(), "1".to_owned())]),
        )
    }

    #[test]
    fn selectors_select_as_kubernetes_does() {
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        assert_eq!(check(json!({})), Ok(true));
        assert_eq!(check(json!({"matchLabels": {"a": "1"}})), Ok(true));
        assert_eq!(check(json!({"matchLabels": {"a": "2"}})), Ok(false));
        assert_eq!(check(expression("a", "In", &["1", "2"])), Ok(true));
        assert_eq!(check(expression("b", "In", &["1"])), Ok(false));
        assert_eq!(check(expression("b", "NotIn", &["1"])), Ok(true));
        assert_eq!(check(expression("a", "Exists", &[])), Ok(true));
        assert_eq!(check(expression("a", "DoesNotExist", &[])), Ok(false));
        assert!(check(expression("a", "Near", &[])).is_err());
        assert_eq!(
            check(expression("a", "In", &[])),
            Err("the operator In of key \"a\" needs values".to_owned())
        );
        assert_eq!(
            check(expression("b", "Exists", &["1"])),
            Err("the operator Exists of key \"b\" takes no values".to_owned())
        );
    }
}
