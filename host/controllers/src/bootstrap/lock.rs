//! The lock that lets one control-plane machine at a time be the first (contract: upstream `internal/locking`).

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_core::bootstrap::Lock;
use capstan_core::plan::Failure;
use serde_json::{Value, json};

use super::MANAGER;
use crate::ctx::{Ctx, failure, owner_reference};
use crate::kinds;
use crate::kube_api::{ApiError, Preconditions};
use crate::object::Object;

/// Takes or releases the lock that lets one machine at a time be the first. Answers who else has it.
#[expect(clippy::too_many_lines, reason = "the life of one lock in one place")]
pub(super) async fn settle(
    ctx: &Ctx,
    cluster: &Object,
    machine: &Object,
    lock: Lock,
) -> Result<Option<String>, Failure> {
    let key = ObjectKey::new(
        cluster.key.namespace.clone(),
        format!("{}-lock", cluster.key.name),
    );
    let remove = |uid: Option<String>| {
        let key = key.clone();
        async move {
            let preconditions = Preconditions {
                uid,
                resource_version: None,
            };
            match ctx
                .api
                .delete(&kinds::CONFIG_MAP, &key, &preconditions)
                .await
            {
                Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
                Err(error) => Err(failure(&format!("deleting ConfigMap {key}"), &error)),
            }
        }
    };
    match lock {
        Lock::Leave => return Ok(None),
        Lock::Release => return remove(None).await.map(|()| None),
        Lock::Take => {}
    }
    let information = json!({"machineName": machine.key.name}).to_string();
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": {label::CLUSTER_NAME: cluster.key.name},
            "ownerReferences": [owner_reference(cluster, false)],
        },
        "data": {"lock-information": information},
    });
    let doing = format!("taking ConfigMap {key}");
    match ctx
        .api
        .create(&kinds::CONFIG_MAP, &key.namespace, &object, MANAGER)
        .await
    {
        Ok(_) => return Ok(None),
        Err(ApiError::AlreadyExists(_)) => {}
        Err(error) => return Err(failure(&doing, &error)),
    }
    let existing = ctx
        .api
        .get(&kinds::CONFIG_MAP, &key)
        .await
        .map_err(|error| failure(&doing, &error))?;
    let text = existing
        .pointer("/data/lock-information")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let holder = serde_json::from_str::<Value>(text).ok();
    let holder = holder
        .as_ref()
        .and_then(|value| value.get("machineName")?.as_str())
        .unwrap_or_default();
    if holder == machine.key.name {
        return Ok(None);
    }
    let holder_key = ObjectKey::new(key.namespace.clone(), holder);
    if ctx.get(&kinds::MACHINE, &holder_key).is_some() {
        return Ok(Some(holder.to_owned()));
    }
    let uid = existing
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .map(str::to_owned);
    remove(uid).await?;
    Err(Failure::transient(
        "Conflict",
        format!("ConfigMap {key} was held by Machine {holder}, which is gone"),
    ))
}
