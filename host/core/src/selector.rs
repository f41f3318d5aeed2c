//! Label selectors, as Kubernetes defines them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The operators that there are.
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// Whether the labels match. An empty selector matches everything.
///
/// # Errors
/// The operator that is none.
pub fn selects(
    selector: &LabelSelector,
    labels: &BTreeMap<String, String>,
) -> Result<bool, String> {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    for requirement in selector.match_expressions.iter().flatten() {
        let value = labels.get(&requirement.key);
        let listed = value.is_some_and(|value| {
            requirement
                .values
                .iter()
                .flatten()
                .any(|wanted| wanted == value)
        });
        let holds = match requirement.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => return Err(format!("{other:?} is not an operator of a label selector")),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(equal)
}

/// Whether a selector can be read at all, whatever it is applied to.
///
/// # Errors
/// The operator that is none.
pub fn check(selector: &LabelSelector) -> Result<(), String> {
    let mut operators = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|requirement| requirement.operator.as_str());
    match operators.find(|operator| !OPERATORS.contains(operator)) {
        Some(other) => Err(format!("{other:?} is not an operator of a label selector")),
        None => Ok(()),
    }
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
    }
}
