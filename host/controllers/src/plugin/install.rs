//! Installs the CustomResourceDefinitions of a plugin's kinds, and waits until they are served.

use capstan_api::crd::{self, OwnedKind};
use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_api::reason::plugin as reason;
use capstan_core::call::manifest::Manifest;
use capstan_core::plan::Failure;
use serde_json::{Value, json};

use crate::ctx::{Ctx, Writer, failure};
use crate::install::{self, INSTALLED};
use crate::kinds;
use crate::kube_api::{Patch, Selection};

/// Installs what is not there yet or differs.
pub(super) async fn install(
    ctx: &Ctx,
    writer: &Writer,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let store = ctx.stores.ensure(
        &kinds::CRD,
        Selection {
            metadata_only: true,
            ..Selection::default()
        },
    );
    store.synced().await;
    for kind in &manifest.kinds {
        let definition = definition(kind, &manifest.name)?;
        let name = format!("{}.{}", kind.plural, kind.group);
        let key = ObjectKey {
            namespace: String::new(),
            name: name.clone(),
        };
        let (definition, hash) = install::stamped(definition);
        let present = store.get(&key);
        let owner = present
            .as_ref()
            .and_then(|present| present.label(label::PROVIDER));
        if let Some(owner) = owner.filter(|owner| **owner != manifest.name) {
            let message = format!(
                "CustomResourceDefinition {name} belongs to provider {owner} (label {}): remove one of the two",
                label::PROVIDER
            );
            return Err(Failure::terminal(reason::KIND_CONFLICT, message));
        }
        if present.is_some_and(|present| present.annotation(INSTALLED) == Some(&hash)) {
            continue;
        }
        let doing = format!("installing CustomResourceDefinition {name}");
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
