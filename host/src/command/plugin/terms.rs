//! A file with what a plugin is granted: a Plugin object, a patch of one, or its `grants`, `config` and `limits` alone.

use std::path::Path;

use anyhow::{Context as _, bail};
use capstan_api::plugin::PluginSpec;
use capstan_controllers::plugin::Terms;
use serde_json::{Map, Value, json};

/// The largest file of terms: a Plugin object has at most 1.5 MiB in etcd.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// What may be in the file.
const FIELDS: [&str; 7] = [
    "canary", "config", "digest", "grants", "limits", "source", "suspend",
];

/// Reads a file, and says which field is wrong.
pub(super) fn read(path: &Path) -> anyhow::Result<(PluginSpec, Terms)> {
    let shown = path.display();
    let length = std::fs::metadata(path)
        .with_context(|| format!("--grants {shown}"))?
        .len();
    if length > FILE_BYTES_MAX {
        bail!("--grants {shown}: has more than {FILE_BYTES_MAX} bytes, which no Plugin object has");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("--grants {shown}"))?;
    parse(&text).map_err(|why| anyhow::anyhow!("--grants {shown}: {why}"))
}

/// The same of a text.
fn parse(text: &str) -> Result<(PluginSpec, Terms), String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| format!("not YAML: {error}"))?;
    let is_plugin = |document: &&Value| document.get("kind") == Some(&json!("Plugin"));
    let document = documents
        .iter()
        .find(is_plugin)
        .or_else(|| {
            documents
                .iter()
                .find(|document| document.get("kind").is_none())
        })
        .ok_or("it has neither a Plugin nor its grants")?;
    let mut spec = match document.get("spec").unwrap_or(document) {
        Value::Object(spec) => spec.clone(),
        Value::Null => Map::new(),
        _ => return Err("spec: not a mapping".to_owned()),
    };
    if let Some(unknown) = spec.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!(
            "{unknown}: no such field; there are {}",
            FIELDS.join(", ")
        ));
    }
    spec.entry("source").or_insert_with(|| json!({}));
    let spec: PluginSpec =
        serde_json::from_value(Value::Object(spec)).map_err(|error| error.to_string())?;
    let terms = Terms::of(&spec).map_err(|failure| failure.message)?;
    Ok((spec, terms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTS: &str = "grants:\n- capability: http\n  http:\n    origins:\n    - origin: https://api.example.com\n";

    #[test]
    fn a_plugin_a_patch_and_the_grants_alone_mean_the_same() {
        let patch = format!("spec:\n  {}", GRANTS.trim_end().replace('\n', "\n  "));
        let object =
            format!("kind: Secret\n---\nkind: Plugin\napiVersion: capstan.dev/v1alpha1\n{patch}");
        for text in [GRANTS, &patch, &object] {
            let (_, terms) = parse(text).unwrap();
            assert!(terms.grants.allows("http"), "{text}");
        }
        let (spec, terms) = parse("").unwrap_or_else(|_| parse("{}").unwrap());
        assert!(spec.grants.is_empty() && !terms.grants.allows("http"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(
            parse("grant: []")
                .unwrap_err()
                .starts_with("grant: no such field")
        );
        let origin = GRANTS.replace("https://", "");
        assert!(
            parse(&origin)
                .unwrap_err()
                .contains("spec.grants[0].http.origins")
        );
        assert!(parse("spec: 3").unwrap_err().contains("spec"));
        assert!(parse("grants: [{}]").unwrap_err().contains("capability"));
    }
}
