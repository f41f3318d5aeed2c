//! Label and field selectors of list, watch and deletecollection requests.

use serde_json::Value;

use super::object::text_at;
use super::status::Status;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

/// What a request wants to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// Parses the two query parameters.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, Status> {
        Ok(Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(fields)?,
        })
    }

    /// A LabelSelector object, as PodDisruptionBudgets have it.
    pub(crate) fn from_object(selector: &Value) -> Self {
        let mut labels = Vec::new();
        for (key, value) in selector
            .pointer("/matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            labels.push((
                key.clone(),
                Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
            ));
        }
        for expression in super::object::list_at(selector, "/matchExpressions") {
            let values: Vec<String> = super::object::list_at(expression, "/values")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let test = match text_at(expression, "/operator") {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "DoesNotExist" => Test::Missing,
                _ => Test::Exists,
            };
            labels.push((text_at(expression, "/key").to_owned(), test));
        }
        Self {
            labels,
            fields: Vec::new(),
        }
    }

    /// Whether everything is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is wanted.
    pub(crate) fn accepts(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| {
            labels
                .and_then(|labels| labels.get(key))
                .and_then(Value::as_str)
        };
        self.labels
            .iter()
            .all(|(key, test)| match (test, label(key)) {
                (Test::In(values), Some(value)) => values.iter().any(|wanted| wanted == value),
                (Test::NotIn(values), Some(value)) => !values.iter().any(|other| other == value),
                (Test::Exists, found) => found.is_some(),
                (Test::Missing, found) => found.is_none(),
                (Test::In(_), None) => false,
                (Test::NotIn(_), None) => true,
            })
            && self.fields.iter().all(|(path, value, equal)| {
                let found = object.pointer(&format!("/{}", path.replace('.', "/")));
                let found = match found {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                };
                (found == *value) == *equal
            })
    }
}

fn parse_labels(text: &str) -> Result<Vec<(String, Test)>, Status> {
    let mut tests = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        let bad = || {
            Status::bad_request(format!(
                "unable to parse label selector requirement {part:?}"
            ))
        };
        if let Some((head, list)) = part.split_once('(') {
            let values: Vec<String> = list
                .strip_suffix(')')
                .ok_or_else(bad)?
                .split(',')
                .map(|value| value.trim().to_owned())
                .collect();
            let mut words = head.split_whitespace();
            let (Some(key), Some(operator), None) = (words.next(), words.next(), words.next())
            else {
                return Err(bad());
            };
            let test = match operator {
                "in" => Test::In(values),
                "notin" => Test::NotIn(values),
                _ => return Err(bad()),
            };
            tests.push((key.to_owned(), test));
        } else if let Some((key, value)) = part.split_once("!=") {
            tests.push((
                key.trim().to_owned(),
                Test::NotIn(vec![value.trim().to_owned()]),
            ));
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            tests.push((
                key.trim().to_owned(),
                Test::In(vec![value.trim().to_owned()]),
            ));
        } else if let Some(key) = part.strip_prefix('!') {
            tests.push((key.trim().to_owned(), Test::Missing));
        } else if part.contains(char::is_whitespace) {
            return Err(bad());
        } else {
            tests.push((part.to_owned(), Test::Exists));
        }
    }
    Ok(tests)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |c: char| {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_fields(text: &str) -> Result<Vec<(String, String, bool)>, Status> {
    const KNOWN: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.unschedulable",
        "spec.schedulerName",
        "spec.signerName",
        "status.phase",
        "type",
        "reason",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
    ];
    let mut tests = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, value, true)
        } else {
            return Err(Status::bad_request(format!(
                "invalid field selector: {part:?}"
            )));
        };
        if !KNOWN.contains(&path) {
            return Err(Status::bad_request(format!(
                "field label not supported: {path}"
            )));
        }
        tests.push((path.to_owned(), value.to_owned(), equal));
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects_by_every_operator() {
        let object = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "db"}}});
        for (text, wanted) in [
            ("app=x", true),
            ("app==x,tier!=web", true),
            ("app in (x, y),!gone", true),
            ("app notin (x),tier", false),
            ("other", false),
            ("other!=z", true),
        ] {
            assert_eq!(
                Selector::parse(text, "").unwrap().accepts(&object),
                wanted,
                "{text}"
            );
        }
        assert!(
            Selector::parse("", "metadata.name=a")
                .unwrap()
                .accepts(&object)
        );
        assert!(
            !Selector::parse("", "metadata.name!=a")
                .unwrap()
                .accepts(&object)
        );
        assert!(Selector::parse("a b", "").is_err());
        assert!(Selector::parse("", "spec.replicas=1").is_err());
    }
}
