//! Whatever is said of a Plugin fits the bounds of its schema: a status that does not is never written.

use std::sync::OnceLock;

use super::canary::with_canary;
use super::*;

/// How many bounds of a schema a value was held against; the places where it is beyond one.
fn beyond(
    schema: &serde_json::Value,
    value: &serde_json::Value,
    path: &str,
    found: &mut Vec<String>,
) -> usize {
    use serde_json::Value;
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let mut count = 0_usize;
    let mut hold = |name: &str, size: usize| {
        if let Some(max) = bound(name) {
            count = count.saturating_add(1);
            if u64::try_from(size).is_ok_and(|size| size > max) {
                found.push(format!("{path}: {size} > {name} {max}"));
            }
        }
    };
    match value {
        Value::String(text) => hold("maxLength", text.chars().count()),
        Value::Array(items) => hold("maxItems", items.len()),
        _ => {}
    }
    let inner: Vec<(String, &Value, &Value)> = match value {
        Value::Array(items) => {
            let of = schema.get("items");
            let pairs = items
                .iter()
                .filter_map(|item| Some((path.to_owned(), of?, item)));
            pairs.collect()
        }
        Value::Object(fields) => {
            let known = schema.get("properties");
            let pairs = fields.iter().filter_map(|(name, field)| {
                Some((format!("{path}.{name}"), known?.get(name)?, field))
            });
            pairs.collect()
        }
        _ => vec![],
    };
    inner
        .into_iter()
        .fold(count, |count, (path, schema, value)| {
            count.saturating_add(beyond(schema, value, &path, found))
        })
}

/// The schema of a Plugin's status.
fn schema() -> &'static serde_json::Value {
    static SCHEMA: OnceLock<serde_json::Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let documents = capstan_api::manifests::documents();
        let crd = documents.iter().find(|document| {
            document.pointer("/metadata/name") == Some(&json!("plugins.capstan.dev"))
        });
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
        let schema = crd.and_then(|crd| crd.pointer(path));
        schema.expect("a schema").clone()
    })
}

proptest::proptest! {
    #[test]
    fn whatever_a_valid_manifest_or_an_error_says_the_status_fits_its_schema(
        letter in proptest::sample::select(vec!['x', 'é', '界', '😀', '"']),
        why in 1_usize..4096,
        suggestion in 0_usize..4096,
        short in 1_usize..512,
        error in 0_usize..200_000,
        number in 1_usize..=32,
        is_good in proptest::bool::ANY,
    ) {
        let fill = |bytes: usize| {
            let count = bytes.checked_div(letter.len_utf8()).unwrap_or(0);
            std::iter::repeat_n(letter, count.max(1)).collect::<String>()
        };
        let mut candidate = candidate("sha256:a");
        candidate.manifest.description = fill(why);
        candidate.manifest.home_page = fill(short);
        candidate.not_signed = Some(fill(error));
        candidate.invalid_grants = (!is_good).then(|| fill(error));
        candidate.manifest.capabilities = (0..number)
            .map(|number| crate::call::manifest::CapabilityRequest {
                name: format!("c{number}"),
                why: fill(why),
                optional: false,
                suggestion: json!({ "http": fill(suggestion) }),
            })
            .collect();
        let requests = candidate.manifest.capabilities.iter();
        candidate.missing = requests
            .map(|request| Missing {
                capability: request.name.clone(),
                why: request.why.clone(),
                yaml: request.suggestion.to_string(),
                by_ceiling: false,
            })
            .collect();
        let problem = Problem::new("Compiled", "CompileFailed", fill(error));
        let mut observed = with_canary(loaded("9", Ok(candidate.clone())));
        observed.attempt = loaded("7", if is_good { Ok(candidate) } else { Err(problem) });
        observed.given_up = Some(("sha256:before".to_owned(), fill(error)));
        observed.held_back = is_good.then(|| fill(error));
        observed.plugin.status = serde_json::from_value(json!({
            "history": [{"digest": "sha256:before", "state": "Active"}],
        }))
        .ok();
        let now = Timestamp::UNIX_EPOCH;
        let reported = report::<()>(&observed, &Outcome::default(), now);
        let mut status = reported.status;
        status.conditions = capstan_api::condition::merge(&[], reported.conditions, None, now);
        let mut found = vec![];
        let value = serde_json::to_value(&status).expect("JSON");
        let count = beyond(schema(), &value, "status", &mut found);
        assert!(count > 10, "{count} bounds were looked at");
        assert!(found.is_empty(), "{found:?}");
    }
}
