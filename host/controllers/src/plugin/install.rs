//! Installs the CustomResourceDefinitions of a plugin's kinds, and waits until they are served.

use std::time::Duration;

use capstan_api::crd::{self, OwnedKind};
use capstan_api::name::ObjectKey;
use capstan_api::reason::plugin as reason;
use capstan_core::call::manifest::Manifest;
use capstan_core::plan::Failure;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::{Patch, Selection};

/// On a CustomResourceDefinition: hash of what the host last installed. The same hash is not installed twice.
const INSTALLED: &str = "capstan.dev/installed";

/// How long a definition may take to be served, and how often that is looked at.
const ESTABLISH_PATIENCE: Duration = Duration::from_secs(20);
const ESTABLISH_CHECK: Duration = Duration::from_millis(50);

/// Installs what is not there yet or differs.
pub(super) async fn install(ctx: &Ctx, writer: &Writer, manifest: &Manifest) -> Result<(), Failure> {
    let store = ctx.stores.ensure(&kinds::CRD, Selection { metadata_only: true, ..Selection::default() });
    store.synced().await;
    for kind in &manifest.kinds {
        let definition = definition(kind, &manifest.name)?;
        let name = format!("{}.{}", kind.plural, kind.group);
        let key = ObjectKey { namespace: String::new(), name: name.clone() };
        let hash = Sha256::digest(definition.to_string().as_bytes());
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let present = store.get(&key);
        if present.is_some_and(|p| p.annotation(INSTALLED) == Some(&hash)) {
            continue;
        }
        let mut definition = definition;
        definition["metadata"]["annotations"][INSTALLED] = json!(hash);
        let doing = format!("installing CustomResourceDefinition {name}");
        let patch = Patch::Apply(definition);
        let answer = ctx.api.patch(&kinds::CRD, &key, None, &patch, writer.manager).await;
        answer.map_err(|error| failure(&doing, &error))?;
        established(ctx, &key).await?;
    }
    Ok(())
}

fn definition(kind: &capstan_core::call::manifest::OwnedKind, plugin: &str) -> Result<Value, Failure> {
    let invalid = |why: String| {
        Failure::terminal(reason::MANIFEST_INVALID, format!("manifest, kind {}: {why}", kind.kind))
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
    let mut definition = json!(definition);
    definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
    definition["kind"] = json!("CustomResourceDefinition");
    Ok(definition)
}

async fn established(ctx: &Ctx, key: &ObjectKey) -> Result<(), Failure> {
    let waiting = async {
        loop {
            let definition = ctx.api.get(&kinds::CRD, key).await;
            let definition = definition.map_err(|error| failure("reading the definition back", &error))?;
            let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
            let is = |condition: &Value, name: &str, status: &str| {
                condition.get("type") == Some(&json!(name)) && condition.get("status") == Some(&json!(status))
            };
            if conditions.into_iter().flatten().any(|c| is(c, "Established", "True")) {
                return Ok(());
            }
            if let Some(refused) = conditions.into_iter().flatten().find(|c| is(c, "NamesAccepted", "False")) {
                let why = refused.get("message").and_then(Value::as_str).unwrap_or_default();
                return Err(Failure::terminal(reason::KIND_CONFLICT, format!("{}: {why}", key.name)));
            }
            tokio::time::sleep(ESTABLISH_CHECK).await;
        }
    };
    tokio::time::timeout(ESTABLISH_PATIENCE, waiting).await.unwrap_or_else(|_| {
        let message = format!(
            "CustomResourceDefinition {} is not served {} s after it was installed",
            key.name,
            ESTABLISH_PATIENCE.as_secs()
        );
        Err(Failure::transient("KindNotServed", message))
    })
}
