//! Whether a manifest makes sense: names that Kubernetes accepts, kinds that fit the interfaces, capabilities that exist.

use std::collections::BTreeSet;

use capstan_core::call::manifest::{CapabilityRequest, Manifest, OwnedKind, PluginKind};
use serde_json::Value;

use crate::error::LoadError;
use crate::grant::{CAPABILITIES, HARMLESS};
use crate::limit::MESSAGE_BYTES_MAX;

/// Kinds that one plugin may own.
const KINDS_MAX: usize = 32;
/// Printer columns of one kind.
const COLUMNS_MAX: usize = 32;

/// API groups that no plugin owns: Cluster API's core and ours.
const RESERVED_GROUPS: [&str; 2] = ["cluster.x-k8s.io", "capstan.dev"];

/// Checks the whole manifest; the first rule that it breaks is the error.
pub(crate) fn check(
    manifest: &Manifest,
    kinds: &BTreeSet<PluginKind>,
    imports: &BTreeSet<String>,
) -> Result<(), LoadError> {
    expect(is_label(&manifest.name), "name", || {
        format!(
            "{:?} is not lower-case letters, digits and dashes, at most 63 characters",
            manifest.name
        )
    })?;
    let names_a_kind = kinds.iter().any(|kind| {
        let rest = manifest.name.strip_prefix(name_prefix(*kind));
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'))
    });
    expect(names_a_kind, "name", || {
        let prefixes: Vec<_> = kinds.iter().map(|kind| name_prefix(*kind)).collect();
        format!(
            "{:?} does not begin with what the component exports and a dash ({}-...)",
            manifest.name,
            prefixes.join("-..., ")
        )
    })?;
    expect(is_semantic_version(&manifest.version), "version", || {
        format!(
            "{:?} is not a semantic version such as 1.2.3",
            manifest.version
        )
    })?;
    expect(
        manifest.description.len() <= MESSAGE_BYTES_MAX,
        "description",
        || format!("has more than {MESSAGE_BYTES_MAX} bytes"),
    )?;
    let page = &manifest.home_page;
    let is_page = page.is_empty()
        || url::Url::parse(page).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    expect(is_page, "homePage", || {
        format!("{page:?} is not a web address")
    })?;
    expect(manifest.kinds.len() <= KINDS_MAX, "kinds", || {
        format!("has more than {KINDS_MAX} entries")
    })?;
    for (index, kind) in manifest.kinds.iter().enumerate() {
        check_kind(kind, &format!("kinds[{index}]"), kinds)?;
        let twin = manifest
            .kinds
            .iter()
            .skip(index.saturating_add(1))
            .any(|other| {
                other.group == kind.group
                    && (other.kind == kind.kind || other.plural == kind.plural)
            });
        expect(!twin, "kinds", || {
            format!("names {} of {} twice", kind.kind, kind.group)
        })?;
    }
    check_capabilities(&manifest.capabilities, imports)
}

fn expect(holds: bool, field: &str, why: impl FnOnce() -> String) -> Result<(), LoadError> {
    if holds {
        return Ok(());
    }
    Err(LoadError::ManifestInvalid {
        field: field.to_owned(),
        why: why(),
    })
}

/// How the names of plugins of this kind begin.
fn name_prefix(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::PreDeleteHook => "pre-delete",
        PluginKind::UpgradeStrategy => "upgrade",
        other => other.as_str(),
    }
}

fn check_kind(kind: &OwnedKind, path: &str, kinds: &BTreeSet<PluginKind>) -> Result<(), LoadError> {
    let at = |field: &str| format!("{path}.{field}");
    let Some(interface) = PluginKind::of_role(&kind.role) else {
        return expect(false, &at("role"), || {
            format!("{:?} is not a role", kind.role)
        });
    };
    expect(kinds.contains(&interface), &at("role"), || {
        format!(
            "is {}, but the component does not export {}",
            kind.role,
            interface.as_str()
        )
    })?;
    expect(is_domain(&kind.group), &at("group"), || {
        format!("{:?} is not an API group", kind.group)
    })?;
    expect(
        !RESERVED_GROUPS.contains(&kind.group.as_str()),
        &at("group"),
        || format!("{} belongs to the host", kind.group),
    )?;
    expect(is_api_version(&kind.version), &at("version"), || {
        format!("{:?} is not an API version such as v1beta2", kind.version)
    })?;
    expect(is_kind(&kind.kind), &at("kind"), || {
        format!("{:?} is not a kind such as LocalMachine", kind.kind)
    })?;
    expect(is_label(&kind.plural), &at("plural"), || {
        format!(
            "{:?} is not a lower-case plural such as localmachines",
            kind.plural
        )
    })?;
    expect(
        kind.short_names.len() <= COLUMNS_MAX && kind.short_names.iter().all(|name| is_label(name)),
        &at("shortNames"),
        || "has an entry that is not lower case".to_owned(),
    )?;
    check_schema(&kind.spec_schema, &at("specSchema"))?;
    check_schema(&kind.status_schema, &at("statusSchema"))?;
    expect(kind.columns.len() <= COLUMNS_MAX, &at("columns"), || {
        format!("has more than {COLUMNS_MAX} entries")
    })?;
    for column in &kind.columns {
        let known = ["string", "integer", "number", "boolean", "date"]
            .contains(&column.column_type.as_str());
        expect(known, &at("columns"), || {
            format!("has the type {:?}", column.column_type)
        })?;
        expect(
            !column.name.is_empty() && column.json_path.starts_with('.'),
            &at("columns"),
            || {
                format!(
                    "has {:?} at {:?}, which is not a JSONPath such as .spec.type",
                    column.name, column.json_path
                )
            },
        )?;
    }
    Ok(())
}

fn check_schema(schema: &Value, field: &str) -> Result<(), LoadError> {
    let Some(entries) = schema.as_object() else {
        return expect(false, field, || "is not a JSON object".to_owned());
    };
    let fits = entries.is_empty() || entries.get("type").and_then(Value::as_str) == Some("object");
    expect(fits, field, || "is not of the type object".to_owned())
}

fn check_capabilities(
    requests: &[CapabilityRequest],
    imports: &BTreeSet<String>,
) -> Result<(), LoadError> {
    let mut seen = BTreeSet::new();
    for (index, request) in requests.iter().enumerate() {
        let at = |field: &str| format!("capabilities[{index}].{field}");
        expect(
            CAPABILITIES.contains(&request.name.as_str()),
            &at("name"),
            || {
                format!(
                    "{:?} is not a capability of this host ({})",
                    request.name,
                    CAPABILITIES.join(", ")
                )
            },
        )?;
        expect(seen.insert(request.name.as_str()), &at("name"), || {
            format!("asks for {} twice", request.name)
        })?;
        expect(
            !request.why.trim().is_empty() && request.why.len() <= MESSAGE_BYTES_MAX,
            &at("why"),
            || "does not say in a sentence what for".to_owned(),
        )?;
        expect(
            request.suggestion.is_object() || request.suggestion.is_null(),
            &at("suggestion"),
            || "is not a JSON object".to_owned(),
        )?;
    }
    for import in imports {
        let asked = HARMLESS.contains(&import.as_str()) || seen.contains(import.as_str());
        expect(asked, "capabilities", || {
            format!("does not ask for {import}, which the component imports: say what it is for")
        })?;
    }
    Ok(())
}

/// A DNS label.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS name of at least two labels.
fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.contains('.') && text.split('.').all(is_label)
}

/// CamelCase, as Kubernetes kinds are.
pub(crate) fn is_kind(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// `v1`, `v1beta2`, `v2alpha1`.
fn is_api_version(text: &str) -> bool {
    let number = |text: &str| {
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
    };
    let Some(rest) = text.strip_prefix('v') else {
        return false;
    };
    let (major, minor) = match rest.split_once("alpha").or_else(|| rest.split_once("beta")) {
        Some((major, minor)) => (major, Some(minor)),
        None => (rest, None),
    };
    text.len() <= 32 && number(major) && minor.is_none_or(number)
}

/// `1.2.3`, `1.2.3-rc.1`, `1.2.3+build`.
pub(crate) fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(head, tail)| (head, Some(tail)));
    let (core, pre) = text
        .split_once('-')
        .map_or((text, None), |(head, tail)| (head, Some(tail)));
    let is_number = |part: &str| {
        (1..=10).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    let is_list = |list: &str| {
        list.len() <= 64
            && list.split('.').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(is_list)
        && build.is_none_or(is_list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Manifest {
        Manifest {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            description: String::new(),
            home_page: String::new(),
            kinds: vec![],
            capabilities: vec![],
        }
    }

    #[test]
    fn a_name_begins_with_what_the_plugin_is() {
        let check =
            |name: &str, kind| check(&named(name), &BTreeSet::from([kind]), &BTreeSet::new());
        assert!(check("infrastructure-local", PluginKind::Infrastructure).is_ok());
        assert!(check("pre-delete-http", PluginKind::PreDeleteHook).is_ok());
        assert!(check("upgrade-on-delete", PluginKind::UpgradeStrategy).is_ok());
        for wrong in [
            "bootstrap-local",
            "infrastructure",
            "infrastructure-",
            "Infrastructure-x",
        ] {
            assert!(check(wrong, PluginKind::Infrastructure).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_imported_is_asked_for() {
        let kinds = BTreeSet::from([PluginKind::Infrastructure]);
        let imports = BTreeSet::from(["http".to_owned(), "log".to_owned()]);
        let mut manifest = named("infrastructure-x");
        assert!(check(&manifest, &kinds, &imports).is_err());
        manifest.capabilities.push(CapabilityRequest {
            name: "http".to_owned(),
            why: "to reach the cloud".to_owned(),
            optional: false,
            suggestion: Value::Null,
        });
        assert!(check(&manifest, &kinds, &imports).is_ok());
    }

    #[test]
    fn versions_are_semantic() {
        for good in [
            "0.1.0",
            "1.22.333",
            "1.0.0-rc.1",
            "1.0.0+abc",
            "1.0.0-a+b.c",
        ] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3.4", "1.2.x",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }

    #[test]
    fn api_versions_are_those_of_kubernetes() {
        for good in ["v1", "v1beta2", "v12alpha3"] {
            assert!(is_api_version(good), "{good}");
        }
        for bad in ["1", "v", "v0", "v1beta", "v1gamma1", "V1", "v1beta0"] {
            assert!(!is_api_version(bad), "{bad}");
        }
    }
}
