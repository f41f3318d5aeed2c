//! Checks what a plugin says about a kind before anything is built from it.

use serde_json::Value;

use super::{CrdError, OwnedKind, canonical_plural};

/// The largest schema of a kind, in bytes of JSON; the server stores definitions of up to about 1.5 MiB.
pub const SCHEMA_MAX_BYTES: usize = 512 * 1024;

/// How deep a schema may be nested.
const DEPTH_MAX: usize = 64;

/// Kind that ends in this is a template.
const TEMPLATE: &str = "Template";

/// Checks names and schemas.
pub(super) fn check(owned: &OwnedKind) -> Result<(), CrdError> {
    let fail = |path: &str, problem: String| refuse(owned, path, problem);
    let is_kind = owned.kind.starts_with(|c: char| c.is_ascii_uppercase())
        && owned.kind.chars().all(|c| c.is_ascii_alphanumeric())
        && owned.kind.len() <= 63;
    if !is_kind {
        return fail(
            "kind",
            "must be CamelCase letters and digits, at most 63".to_owned(),
        );
    }
    if owned.role.is_template() != owned.kind.ends_with(TEMPLATE) {
        return fail(
            "kind",
            format!(
                "must end in {TEMPLATE} if and only if the role does; the role is {}",
                owned.role
            ),
        );
    }
    let canonical = canonical_plural(owned);
    if owned.plural != canonical {
        return fail(
            "plural",
            format!("must be {canonical:?}: references are resolved to it"),
        );
    }
    if !owned.group.contains('.')
        || owned.group.len() > 253
        || !owned.group.split('.').all(is_label)
    {
        return fail(
            "group",
            "must be a DNS name with a dot, such as infrastructure.cluster.x-k8s.io".to_owned(),
        );
    }
    if owned.group == "k8s.io"
        || owned.group == crate::v1beta2::GROUP
        || owned.group == crate::plugin::GROUP
    {
        return fail(
            "group",
            format!(
                "{} belongs to others: use a group of the provider's own",
                owned.group
            ),
        );
    }
    if !is_label(&owned.version) || !owned.version.starts_with('v') {
        return fail("version", "must be a version such as v1beta2".to_owned());
    }
    if !is_label(&owned.plugin) {
        return fail("plugin", "must be <type>-<name> in lower case".to_owned());
    }
    check_columns(owned)?;
    check_schemas(owned)
}

/// Whether a text is a DNS label.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A refusal.
fn refuse(owned: &OwnedKind, path: &str, problem: impl Into<String>) -> Result<(), CrdError> {
    Err(CrdError {
        kind: owned.kind.clone(),
        path: path.to_owned(),
        problem: problem.into(),
    })
}

/// Checks short names and columns.
fn check_columns(owned: &OwnedKind) -> Result<(), CrdError> {
    if let Some(odd) = owned.short_names.iter().find(|name| !is_label(name)) {
        return refuse(
            owned,
            "shortNames",
            format!("{odd:?} must be lower case letters, digits and '-'"),
        );
    }
    for column in &owned.columns {
        if !column.json_path.starts_with('.') {
            return refuse(
                owned,
                "columns",
                format!(
                    "{:?}: jsonPath must start with a dot, such as .spec.size",
                    column.name
                ),
            );
        }
        if !["string", "integer", "number", "boolean", "date"].contains(&column.type_.as_str()) {
            return refuse(
                owned,
                "columns",
                format!(
                    "{:?}: type must be string, integer, number, boolean or date",
                    column.name
                ),
            );
        }
    }
    Ok(())
}

/// Checks both schemas.
fn check_schemas(owned: &OwnedKind) -> Result<(), CrdError> {
    if owned.spec_schema.get("type").and_then(Value::as_str) != Some("object") {
        return refuse(owned, "specSchema", "must have type object".to_owned());
    }
    let is_object = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("object");
    if owned.own_status().is_some_and(|schema| !is_object(schema)) {
        return refuse(
            owned,
            "statusSchema",
            "must have type object, or be {}".to_owned(),
        );
    }
    for (path, schema) in [
        ("specSchema", &owned.spec_schema),
        ("statusSchema", &owned.status_schema),
    ] {
        let size = schema.to_string().len();
        if size > SCHEMA_MAX_BYTES {
            return refuse(
                owned,
                path,
                format!("has {size} bytes, more than {SCHEMA_MAX_BYTES}"),
            );
        }
        check_schema(owned, schema, path, 0)?;
    }
    Ok(())
}

/// Checks a schema and all schemas in it.
fn check_schema(
    owned: &OwnedKind,
    schema: &Value,
    path: &str,
    depth: usize,
) -> Result<(), CrdError> {
    let fail = |problem: &str| {
        Err(CrdError {
            kind: owned.kind.clone(),
            path: path.to_owned(),
            problem: problem.to_owned(),
        })
    };
    if depth > DEPTH_MAX {
        return fail("is nested too deep");
    }
    let Value::Object(object) = schema else {
        return Ok(());
    };
    for keyword in ["$ref", "definitions", "$defs", "patternProperties"] {
        if object.contains_key(keyword) {
            return fail(&format!(
                "has {keyword}, which the server does not take: write the schema out in place"
            ));
        }
    }
    let next = depth.saturating_add(1);
    if let Some(properties) = object.get("properties") {
        let Value::Object(properties) = properties else {
            return fail("properties must be an object");
        };
        for (name, member) in properties {
            if !member.is_object() {
                return fail(&format!("property {name:?} must be a schema"));
            }
            check_schema(owned, member, &format!("{path}.properties.{name}"), next)?;
        }
    }
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner) = object.get(key) {
            check_schema(owned, inner, &format!("{path}.{key}"), next)?;
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(branches)) = object.get(key) {
            for (index, branch) in branches.iter().enumerate() {
                check_schema(owned, branch, &format!("{path}.{key}[{index}]"), next)?;
            }
        }
    }
    Ok(())
}
