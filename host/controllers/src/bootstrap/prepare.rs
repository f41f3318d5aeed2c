//! Has bootstrap data made: material by handle, the plugin's parts, the Secret.

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_core::bootstrap::{Effect, JOIN_TOKEN, Lock};
use capstan_core::call::Endpoint;
use capstan_core::call::bootstrap::{BootstrapAnswer, BootstrapInput, Role};
use capstan_core::call::material::{Material, MaterialValue, Requirement};
use capstan_core::material::{
    self, CERTIFICATE_KEY, FORMAT_KEY, PRIVATE_KEY, SECRET_TYPE, VALUE_KEY, requirement_name,
};
use capstan_core::plan::Failure;
use capstan_engine::SecretTable;
use serde_json::{Value, json};

use super::{Seen, resource_of, token};
use crate::ctx::{Ctx, failure, owner_reference};
use crate::kinds;
use crate::kube_api::{ApiError, Patch, Preconditions};
use crate::object::Object;
use crate::pki;
use crate::secrets::SecretData;
use crate::secrets::ensure::{self, Holder};

const MANAGER: &str = "capstan-bootstrap";

/// Formats that infrastructure providers know what to do with.
const FORMATS: [&str; 2] = ["cloud-config", "ignition"];

/// Condition types that only the host sets on a bootstrap config.
const HOST_CONDITIONS: [&str; 4] = [
    "Ready",
    "DataSecretAvailable",
    "CertificatesAvailable",
    "Paused",
];

/// Material and what came with it.
struct Gathered {
    material: Vec<Material>,
    secrets: SecretTable,
    token_id: Option<String>,
}

enum Gathering {
    Done(Gathered),
    CertificatesMissing(Vec<String>),
    NotConnected,
}

/// Asks the plugin for the data and keeps it in the Secret.
pub(super) async fn prepare(
    ctx: &Ctx,
    seen: &Seen,
    role: Role,
    lock: Lock,
) -> Result<Effect, Failure> {
    let (Some(machine), Some(cluster), Some(plugin)) = (&seen.machine, &seen.cluster, &seen.plugin)
    else {
        return Err(Failure::transient(
            "InternalError",
            "the Machine, the Cluster or the plugin went away",
        ));
    };
    if let Some(holder) = settle_lock(ctx, cluster, machine, lock).await? {
        return Ok(Effect::Locked { holder });
    }
    let config = &seen.object;
    let resource = resource_of(ctx, config)?;
    let input = BootstrapInput {
        context: plugin.context(ctx, config, "render", 1),
        cluster: cluster.value.clone(),
        machine: machine.value.clone(),
        config: config.value.clone(),
        role,
        control_plane_endpoint: endpoint(cluster),
        kubernetes_version: machine
            .text("/spec/version")
            .map(with_v)
            .unwrap_or_default(),
        control_plane_version: with_v(&seen.control_plane_version),
        extra: Vec::new(),
    };
    let env = plugin.env(ctx, &resource, config, SecretTable::new());
    let requirements = plugin
        .loaded
        .bootstrap_requirements(env, input.clone())
        .await;
    let requirements = requirements.map_err(|error| error.failure())?;
    material::check_requirements(&requirements, &config.value)
        .map_err(|refused| Failure::terminal("PluginBadAnswer", refused.to_string()))?;
    let gathered = match gather(ctx, seen, cluster, role, &requirements).await? {
        Gathering::Done(gathered) => gathered,
        Gathering::CertificatesMissing(names) => return Ok(Effect::CertificatesMissing(names)),
        Gathering::NotConnected => return Ok(Effect::NotConnected),
    };
    let env = plugin.env(ctx, &resource, config, gathered.secrets.clone());
    let answer = plugin.loaded.render(env, input, gathered.material).await;
    let answer = answer.map_err(|error| error.failure())?;
    check(&answer)?;
    let data = material::join(&answer.parts, |handle| gathered.secrets.resolve(handle))
        .map_err(|error| Failure::terminal("PluginBadAnswer", error.to_string()))?;
    store(
        ctx,
        config,
        &cluster.key.name,
        &data,
        &answer.format,
        gathered.token_id.as_deref(),
    )
    .await?;
    Ok(Effect::Prepared {
        secret: config.key.name.clone(),
        has_token: gathered.token_id.is_some(),
        conditions: answer.conditions,
    })
}

fn with_v(version: &str) -> String {
    if version.is_empty() || version.starts_with('v') {
        version.to_owned()
    } else {
        format!("v{version}")
    }
}

fn endpoint(cluster: &Object) -> Option<Endpoint> {
    let host = cluster.text("/spec/controlPlaneEndpoint/host")?.to_owned();
    let port = cluster
        .value
        .pointer("/spec/controlPlaneEndpoint/port")
        .and_then(Value::as_u64)?;
    Some(Endpoint {
        host,
        port: u16::try_from(port).ok()?,
    })
}

fn check(answer: &BootstrapAnswer) -> Result<(), Failure> {
    let bad = |rule: String| Err(Failure::terminal("PluginBadAnswer", rule));
    if !FORMATS.contains(&answer.format.as_str()) {
        return bad(format!(
            "format {:?} is none of {}",
            answer.format,
            FORMATS.join(", ")
        ));
    }
    if answer.parts.is_empty() {
        return bad("the bootstrap data has no parts".to_owned());
    }
    let taken = answer
        .conditions
        .iter()
        .find(|c| HOST_CONDITIONS.contains(&c.condition_type.as_str()));
    match taken {
        Some(condition) => bad(format!(
            "condition {} is the host's to set",
            condition.condition_type
        )),
        None => Ok(()),
    }
}

async fn gather(
    ctx: &Ctx,
    seen: &Seen,
    cluster: &Object,
    role: Role,
    requirements: &[Requirement],
) -> Result<Gathering, Failure> {
    // Without a control plane object the first machine's config makes the certificates; else the control plane does.
    let makes = role == Role::Init && cluster.text("/spec/controlPlaneRef/name").is_none();
    let kept = if makes {
        let owner = owner_reference(&seen.object, true);
        let holder = Holder {
            cluster: &cluster.key,
            owner: &owner,
            manager: MANAGER,
        };
        ensure::ensure(ctx, holder, requirements).await?
    } else {
        ensure::look_up(ctx, &cluster.key, requirements).await?
    };
    let mut gathered = Gathered {
        material: Vec::new(),
        secrets: SecretTable::new(),
        token_id: None,
    };
    let mut missing = Vec::new();
    for requirement in requirements {
        let name = requirement_name(requirement);
        match requirement {
            Requirement::CertificateAuthority { .. }
            | Requirement::KeyPair { .. }
            | Requirement::SharedSecret { .. } => match kept.get(name) {
                Some(secret) => put_kept(&mut gathered, requirement, secret, role)?,
                None => missing.push(material::secret_key(&cluster.key, name).name),
            },
            Requirement::JoinToken { .. } => {}
            Requirement::SecretValue { secret, key, .. } => {
                let bytes = secret_value(ctx, &seen.object.key.namespace, secret, key).await?;
                put_secret(&mut gathered, name, "value", bytes);
            }
        }
    }
    if !missing.is_empty() {
        return Ok(Gathering::CertificatesMissing(missing));
    }
    // Last: a token that is made is also used.
    for requirement in requirements {
        let Requirement::JoinToken { name, lifetime, .. } = requirement else {
            continue;
        };
        let Some(workload) = ctx.workloads.get(&cluster.key) else {
            return Ok(Gathering::NotConnected);
        };
        let (id, token) = token::ensure(&*workload.api, &seen.object, *lifetime, ctx.now()).await?;
        gathered.token_id = Some(id);
        put_secret(&mut gathered, name, "token", token.into_bytes());
    }
    Ok(Gathering::Done(gathered))
}

/// What the host keeps in Secrets of the cluster. A worker gets no private keys, whatever its plugin asks for.
fn put_kept(
    gathered: &mut Gathered,
    requirement: &Requirement,
    secret: &SecretData,
    role: Role,
) -> Result<(), Failure> {
    let name = requirement_name(requirement);
    let lacking = |key: &str| {
        Failure::terminal(
            "InternalError",
            format!("the Secret for {name} has no text under {key}"),
        )
    };
    let public = |gathered: &mut Gathered, part: &str, text: &str| {
        gathered.material.push(Material {
            name: name.to_owned(),
            part: part.to_owned(),
            value: MaterialValue::Text(text.to_owned()),
        });
    };
    match requirement {
        Requirement::CertificateAuthority { .. } => {
            let certificate = secret
                .text(CERTIFICATE_KEY)
                .ok_or_else(|| lacking(CERTIFICATE_KEY))?;
            let hash = pki::public_key_hash(certificate).map_err(|error| {
                Failure::terminal("InternalError", format!("the Secret for {name}: {error}"))
            })?;
            public(gathered, "certificate", certificate);
            public(gathered, "hash", &hash);
        }
        Requirement::KeyPair { .. } => {
            let key = secret
                .text(CERTIFICATE_KEY)
                .ok_or_else(|| lacking(CERTIFICATE_KEY))?;
            public(gathered, "public-key", key);
        }
        _ => {
            let value = secret
                .data
                .get(VALUE_KEY)
                .ok_or_else(|| lacking(VALUE_KEY))?
                .clone();
            put_secret(gathered, name, "value", value);
            return Ok(());
        }
    }
    if role != Role::JoinWorker
        && let Some(key) = secret.data.get(PRIVATE_KEY).filter(|key| !key.is_empty())
    {
        put_secret(gathered, name, "key", key.clone());
    }
    Ok(())
}

fn put_secret(gathered: &mut Gathered, name: &str, part: &str, bytes: Vec<u8>) {
    let handle = gathered.secrets.add(bytes);
    gathered.material.push(Material {
        name: name.to_owned(),
        part: part.to_owned(),
        value: MaterialValue::Secret(handle),
    });
}

async fn secret_value(
    ctx: &Ctx,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Vec<u8>, Failure> {
    let secret_key = ObjectKey::new(namespace, name);
    let secret = ctx.secrets.get(&*ctx.api, &secret_key).await;
    let secret =
        secret.map_err(|error| failure(&format!("reading Secret {secret_key}"), &error))?;
    let lacking = |what: String| Failure::transient("SecretNotFound", what);
    let secret = secret.ok_or_else(|| lacking(format!("Secret {secret_key} does not exist")))?;
    let value = secret.data.get(key).cloned();
    value.ok_or_else(|| lacking(format!("Secret {secret_key} has no key {key}")))
}

/// Keeps the data in the Secret named as the config.
async fn store(
    ctx: &Ctx,
    config: &Object,
    cluster_name: &str,
    data: &[u8],
    format: &str,
    token_id: Option<&str>,
) -> Result<(), Failure> {
    let key = &config.key;
    let owner = owner_reference(config, true);
    let content: [(&str, &[u8]); 2] = [(VALUE_KEY, data), (FORMAT_KEY, format.as_bytes())];
    let mut object = material::secret_object(key, cluster_name, Some(&owner), &content);
    if let Some(id) = token_id
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("annotations".to_owned(), json!({JOIN_TOKEN: id}));
    }
    let doing = |doing: &str| format!("{doing} Secret {key}");
    let stored = match ctx
        .api
        .create(&kinds::SECRET, &key.namespace, &object, MANAGER)
        .await
    {
        Err(ApiError::AlreadyExists(_)) => {
            let existing = ctx.secrets.read(&*ctx.api, key).await;
            let existing = existing.map_err(|error| failure(&doing("reading"), &error))?;
            if let Some(existing) = &existing
                && existing.secret_type != SECRET_TYPE
            {
                let message = format!(
                    "Secret {key} exists and is not bootstrap data (type {}): remove or rename it",
                    existing.secret_type
                );
                return Err(Failure::terminal("SecretExists", message));
            }
            // Ours from before a crash, or of an earlier config of this name: what is rendered now is what counts.
            let uid = existing
                .as_ref()
                .and_then(|existing| existing.metadata.get("uid").cloned());
            let patch = json!({
                "metadata": {
                    "uid": uid,
                    "ownerReferences": [owner],
                    "labels": {label::CLUSTER_NAME: cluster_name},
                    "annotations": {JOIN_TOKEN: token_id},
                },
                "data": object.get("data"),
            });
            ctx.api
                .patch(&kinds::SECRET, key, None, &Patch::Merge(patch), MANAGER)
                .await
        }
        other => other,
    };
    let stored = stored.map_err(|error| failure(&doing("writing"), &error))?;
    ctx.secrets.remember(key, &stored);
    Ok(())
}

/// Takes or releases the lock that lets one machine at a time be the first. Answers who else has it.
#[expect(clippy::too_many_lines, reason = "the life of one lock in one place")]
async fn settle_lock(
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
