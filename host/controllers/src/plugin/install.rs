//! Installs the CustomResourceDefinitions of a plugin's kinds, and waits until they are served.

use capstan_api::annotation::INSTALLED;
use capstan_api::crd::{self, OwnedKind};
use capstan_api::name::ObjectKey;
use capstan_api::plugin::Plugin;
use capstan_api::reason::plugin as reason;
use capstan_api::{annotation, label};
use capstan_core::call::manifest::Manifest;
use capstan_core::plan::Failure;
use serde_json::{Value, json};

use crate::ctx::{Ctx, Writer, failure};
use crate::install;
use crate::kinds;
use crate::kube_api::{ApiError, Patch, Selection};

/// Installs what is not there yet or differs. Definitions of somebody else stay as they are, unless the Plugin object names them.
pub(super) async fn install(
    ctx: &Ctx,
    writer: &Writer,
    manifest: &Manifest,
    plugin: &Plugin,
) -> Result<(), Failure> {
    let store = ctx.stores.ensure(
        &kinds::CRD,
        Selection {
            metadata_only: true,
            ..Selection::default()
        },
    );
    store.synced().await;
    let annotations = plugin.metadata.annotations.as_ref();
    let replaced = annotations.and_then(|all| all.get(annotation::REPLACES_DEFINITIONS));
    let replaced = replaced.map_or("", String::as_str);
    for kind in &manifest.kinds {
        let definition = definition(kind, &manifest.name)?;
        let name = format!("{}.{}", kind.plural, kind.group);
        let key = ObjectKey {
            namespace: String::new(),
            name: name.clone(),
        };
        let (definition, hash) = install::stamped(definition);
        let known = store.get(&key);
        if known.is_some_and(|known| {
            known.annotation(INSTALLED) == Some(&hash)
                && known.label(label::PROVIDER) == Some(&manifest.name)
        }) {
            continue;
        }
        // As it is now: who else installs one of this name may have done so since the last event.
        let doing = format!("installing CustomResourceDefinition {name}");
        let present = match ctx.api.get(&kinds::CRD, &key).await {
            Ok(present) => Some(present),
            Err(ApiError::NotFound(_)) => None,
            Err(error) => return Err(failure(&doing, &error)),
        };
        let is_replaced = replaced.split(',').any(|other| other.trim() == name);
        if let Some(present) = present
            && !is_replaced
            && let Some(why) = foreign(&present, &manifest.name)
        {
            let message = format!(
                "CustomResourceDefinition {name} {why}: remove one of the two, or let the plugin's take its place by the annotation {} of the Plugin, which lists names of definitions",
                annotation::REPLACES_DEFINITIONS
            );
            return Err(Failure::terminal(reason::KIND_CONFLICT, message));
        }
        let patch = Patch::Apply(definition);
        let answer = ctx
            .api
            .patch(&kinds::CRD, &key, None, &patch, writer.manager)
            .await;
        answer.map_err(|error| failure(&doing, &error))?;
        install::established(&*ctx.api, &key).await?;
    }
    Ok(())
}

/// Whose a definition is, if it is not one that this host has installed for the provider.
fn foreign(present: &Value, provider: &str) -> Option<String> {
    let of = |map: &str, key: &str| {
        let entry = present.get("metadata")?.get(map)?.get(key)?;
        entry.as_str()
    };
    match of("labels", label::PROVIDER) {
        Some(owner) if owner != provider => Some(format!(
            "belongs to provider {owner} (label {})",
            label::PROVIDER
        )),
        owner => {
            let is_ours = owner.is_some() && of("annotations", INSTALLED).is_some();
            (!is_ours).then(|| "was not installed by this host".to_owned())
        }
    }
}

pub(super) fn definition(
    kind: &capstan_core::call::manifest::OwnedKind,
    plugin: &str,
) -> Result<Value, Failure> {
    let invalid = |why: String| {
        Failure::terminal(
            reason::MANIFEST_INVALID,
            format!("manifest, kind {}: {why}", kind.kind),
        )
    };
    let columns: Vec<Value> = kind
        .columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "jsonPath": c.json_path, "type": c.column_type, "priority": c.priority})
        })
        .collect();
    let owned: OwnedKind = serde_json::from_value(json!({
        "role": kind.role, "group": kind.group, "version": kind.version, "kind": kind.kind,
        "plural": kind.plural, "shortNames": kind.short_names, "specSchema": kind.spec_schema,
        "statusSchema": kind.status_schema, "columns": columns, "plugin": plugin,
    }))
    .map_err(|error| invalid(error.to_string()))?;
    let definition = crd::provider_crd(&owned).map_err(|error| invalid(error.to_string()))?;
    Ok(json!({
        "apiVersion": kinds::CRD.api_version(),
        "kind": kinds::CRD.kind,
        "metadata": definition.metadata,
        "spec": definition.spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_ours_only_with_the_label_and_the_mark() {
        let of = |labels: Value, annotations: Value| {
            let present = json!({"metadata": {"labels": labels, "annotations": annotations}});
            foreign(&present, "infrastructure-x")
        };
        let (label, mark) = (label::PROVIDER, INSTALLED);
        let ours = json!({ label: "infrastructure-x" });
        assert_eq!(of(ours.clone(), json!({ mark: "hash" })), None);
        for (labels, annotations, says) in [
            (ours, json!({}), "not installed by this host"),
            (
                json!({}),
                json!({ mark: "hash" }),
                "not installed by this host",
            ),
            (json!(null), json!(null), "not installed by this host"),
            (
                json!({ label: "infrastructure-y" }),
                json!({ mark: "hash" }),
                "infrastructure-y",
            ),
        ] {
            let why = of(labels, annotations).unwrap();
            assert!(why.contains(says), "{why}");
        }
    }
}
