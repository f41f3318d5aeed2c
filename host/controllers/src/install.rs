//! Installs definitions and policies only when they differ from what is there: a hash of what was last installed is kept on them.

use std::time::Duration;

use capstan_api::annotation::INSTALLED;
use capstan_api::manifests;
use capstan_api::name::ObjectKey;
use capstan_api::reason::plugin as reason;
use capstan_api::{contract, inventory};
use capstan_core::plan::Failure;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::access::Access;
use crate::ctx::failure;
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch, Resource};

/// Field manager of the host's own definitions and policies.
const MANAGER: &str = "capstan";

/// How long a definition may take to be served, and how often that is looked at.
const ESTABLISH_PATIENCE: Duration = Duration::from_secs(20);
const ESTABLISH_CHECK: Duration = Duration::from_millis(50);

/// The document with its hash as an annotation, and the hash.
#[must_use]
pub fn stamped(mut document: Value) -> (Value, String) {
    let hash = Sha256::digest(document.to_string().as_bytes());
    let hash: String = hash
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let metadata = document.get_mut("metadata").and_then(Value::as_object_mut);
    let annotations =
        metadata.map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})));
    if let Some(Value::Object(annotations)) = annotations {
        annotations.insert(INSTALLED.to_owned(), json!(hash));
    }
    (document, hash)
}

/// What making sure needs when an installation has brought it all: the host of the same version only looks.
#[must_use]
pub fn access() -> Vec<Access> {
    let documents = manifests::documents();
    let places = documents.iter().map(|document| place(document).0);
    let mut all: Vec<Access> = places
        .map(|resource| Access::to(&resource, &["get"]))
        .collect();
    all.push(Access::to(&kinds::NAMESPACE, &["get"]));
    all.push(Access::to(&kinds::PROVIDER, &["create", "patch"]).in_own_namespace());
    all
}

/// Makes sure of the host's kinds and admission policies, and waits until the kinds are served. The answer is how many of them
/// were missing or different.
///
/// # Errors
/// What the server said, with what was being done.
pub async fn host(api: &dyn KubeApi) -> Result<usize, Failure> {
    let mut changed: usize = 0;
    let mut definitions = Vec::new();
    for document in manifests::documents() {
        let (resource, key) = place(&document);
        if resource.kind == kinds::CRD.kind {
            definitions.push(key.clone());
        }
        if ensure(api, &resource, &key, document).await? {
            changed = changed.saturating_add(1);
        }
    }
    for key in &definitions {
        established(api, key).await?;
    }
    Ok(changed)
}

/// Makes sure of the host's namespace.
///
/// # Errors
/// What the server said.
pub async fn ensure_namespace(api: &dyn KubeApi, name: &str) -> Result<(), Failure> {
    let key = ObjectKey {
        namespace: String::new(),
        name: name.to_owned(),
    };
    match api.get(&kinds::NAMESPACE, &key).await {
        Ok(_) => return Ok(()),
        Err(ApiError::NotFound(_)) => {}
        Err(error) => return Err(failure(&format!("reading Namespace {name}"), &error)),
    }
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match api.create(&kinds::NAMESPACE, "", &object, MANAGER).await {
        Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(failure(&format!("creating Namespace {name}"), &error)),
    }
}

/// Enters the core provider, which the host is, into clusterctl's inventory.
///
/// # Errors
/// What the server said.
pub async fn core_provider(api: &dyn KubeApi, namespace: &str) -> Result<(), Failure> {
    let key = ObjectKey::new(namespace, inventory::CORE);
    let entry = inventory::provider(namespace, inventory::CORE, inventory::CORE_VERSION);
    let patch = Patch::Apply(entry.unwrap_or_default());
    let answer = api
        .patch(&kinds::PROVIDER, &key, None, &patch, MANAGER)
        .await;
    let doing = format!("entering Provider {key} into the inventory");
    answer.map(drop).map_err(|error| failure(&doing, &error))
}

/// Where a cluster-scoped document goes.
fn place(document: &Value) -> (Resource, ObjectKey) {
    let text = |path: &str| {
        document
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or_default();
    let kind = text("/kind");
    let resource = Resource::cluster_scoped(group, version, kind, &contract::plural(kind));
    (
        resource,
        ObjectKey {
            namespace: String::new(),
            name: text("/metadata/name").to_owned(),
        },
    )
}

/// Applies a document unless it is there as it should be. Whether it was applied.
async fn ensure(
    api: &dyn KubeApi,
    resource: &Resource,
    key: &ObjectKey,
    document: Value,
) -> Result<bool, Failure> {
    let what = format!("{} {}", resource.kind, key.name);
    let (document, hash) = stamped(document);
    let present = match api.get(resource, key).await {
        Ok(present) => Some(present),
        Err(ApiError::NotFound(_) | ApiError::NotServed(_)) => None,
        Err(error) => return Err(failure(&format!("reading {what}"), &error)),
    };
    let installed = present
        .as_ref()
        .and_then(|p| p.get("metadata")?.get("annotations")?.get(INSTALLED));
    if installed.and_then(Value::as_str) == Some(&hash) {
        return Ok(false);
    }
    match api
        .patch(resource, key, None, &Patch::Apply(document), MANAGER)
        .await
    {
        Ok(_) => Ok(true),
        // A server without this kind of policy: what it would fill in has to be written out by clients.
        Err(ApiError::NotServed(_)) if resource.kind.starts_with("Mutating") => {
            tracing::warn!(policy = %what, "the API server is older than Kubernetes 1.36 and does not serve mutating admission policies: defaults of Cluster API's kinds are not filled in");
            Ok(false)
        }
        Err(ApiError::Forbidden(why)) => Err(Failure::denied(
            "Forbidden",
            format!(
                "{what} is not that of this version, and the host may not change it: apply what `capstan manifests` of this \
                 version prints ({why})"
            ),
        )),
        Err(error) => Err(failure(&format!("installing {what}"), &error)),
    }
}

/// Waits until a CustomResourceDefinition is served.
///
/// # Errors
/// Terminal when the server refuses its names, transient when it takes too long.
pub async fn established(api: &dyn KubeApi, key: &ObjectKey) -> Result<(), Failure> {
    let waiting = async {
        loop {
            let definition = api.get(&kinds::CRD, key).await;
            let definition =
                definition.map_err(|error| failure("reading the definition back", &error))?;
            let conditions = definition
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let is = |condition: &Value, name: &str, status: &str| {
                condition.get("type") == Some(&json!(name))
                    && condition.get("status") == Some(&json!(status))
            };
            if conditions
                .into_iter()
                .flatten()
                .any(|c| is(c, "Established", "True"))
            {
                return Ok(());
            }
            if let Some(refused) = conditions
                .into_iter()
                .flatten()
                .find(|c| is(c, "NamesAccepted", "False"))
            {
                let why = refused
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                return Err(Failure::terminal(
                    reason::KIND_CONFLICT,
                    format!("{}: {why}", key.name),
                ));
            }
            tokio::time::sleep(ESTABLISH_CHECK).await;
        }
    };
    tokio::time::timeout(ESTABLISH_PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| {
            let message = format!(
                "CustomResourceDefinition {} is not served {} s after it was installed",
                key.name,
                ESTABLISH_PATIENCE.as_secs()
            );
            Err(Failure::transient("KindNotServed", message))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_of_the_host_has_a_place() {
        for document in manifests::documents() {
            let (resource, key) = place(&document);
            assert!(
                !resource.group.is_empty() && !key.name.is_empty(),
                "{document}"
            );
        }
        let policies = manifests::admission_policies();
        let (resource, _) = place(policies.first().unwrap());
        assert_eq!(
            resource.path(None, Some("x")),
            "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/x"
        );
    }

    #[test]
    fn the_hash_changes_with_the_document_only() {
        let one = stamped(json!({"metadata": {"name": "a"}, "spec": 1}));
        assert_eq!(one, stamped(json!({"metadata": {"name": "a"}, "spec": 1})));
        assert_ne!(
            one.1,
            stamped(json!({"metadata": {"name": "a"}, "spec": 2})).1
        );
        assert_eq!(
            one.0
                .pointer("/metadata/annotations/capstan.dev~1installed"),
            Some(&json!(one.1))
        );
    }
}
