//! The printed manifests are what the code says, and they are complete.

use std::path::PathBuf;

use super::*;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("crds")
        .join(name)
}

fn check(name: &str, printed: &str) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden("")).unwrap();
        std::fs::write(&path, printed).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == printed,
        "{name} is stale: run the test with UPDATE_GOLDEN=1"
    );
}

#[test]
fn printed_manifests_are_up_to_date() {
    for crd in crd_values() {
        let name = crd
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap();
        check(&format!("{name}.yaml"), &crate::yaml::print(&crd));
    }
    let policies: Vec<String> = admission_policies()
        .iter()
        .map(|policy| format!("---\n{}", crate::yaml::print(policy)))
        .collect();
    check("admission.yaml", &policies.concat());
}

#[test]
fn every_kind_survives_the_typed_form() {
    assert_eq!(crds().len(), 14);
}

/// Calls `visit` with every schema and the path to it.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&Value, &str)) {
    visit(schema, path);
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, member) in properties {
            walk(member, &format!("{path}.{name}"), visit);
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key) {
            walk(inner, &format!("{path}{mark}"), visit);
        }
    }
}

#[test]
fn every_field_has_a_description_and_none_is_nullable() {
    for crd in crd_values() {
        let kind = crd
            .pointer("/spec/names/kind")
            .and_then(Value::as_str)
            .unwrap();
        let root = crd
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap();
        walk(root, kind, &mut |schema, path| {
            assert!(schema.get("nullable").is_none(), "{path}");
            let is_leaf_of_list = path.ends_with("[]") || path.ends_with("{}");
            let described = schema
                .get("description")
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty());
            assert!(
                described || is_leaf_of_list || path.ends_with(".metadata"),
                "{path} has no description"
            );
        });
    }
}
