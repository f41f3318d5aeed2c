//! Has bootstrap data made: material by handle, the plugin's parts, the Secret.

use std::sync::Arc;

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_core::answer::CONTRACT_CONDITIONS;
use capstan_core::bootstrap::{Effect, JOIN_TOKEN, Lock, Token};
use capstan_core::call::Endpoint;
use capstan_core::call::bootstrap::{BootstrapAnswer, BootstrapInput, Role};
use capstan_core::call::material::{Material, MaterialValue, Requirement};
use capstan_core::material::{
    self, CERTIFICATE_KEY, FORMAT_KEY, PRIVATE_KEY, SECRET_TYPE, VALUE_KEY, requirement_name,
};
use capstan_core::plan::Failure;
use capstan_engine::SecretTable;
use serde_json::{Value, json};

use super::{MANAGER, Seen, data, lock, token, unfit};
use crate::attempt;
use crate::ctx::{Ctx, failure, owner_reference};
use crate::kinds;
use crate::kube_api::{ApiError, Patch};
use crate::object::Object;
use crate::pki;
use crate::plugins::ActivePlugin;
use crate::secrets::SecretData;
use crate::secrets::ensure::{self, Holder};

/// Formats that infrastructure providers know what to do with.
const FORMATS: [&str; 2] = ["cloud-config", "ignition"];

/// Condition types that only the host sets on a bootstrap config, beside those of every provider object.
const BOOTSTRAP_CONDITIONS: [&str; 3] = [
    "DataSecretAvailable",
    "CertificatesAvailable",
    "BootstrapSucceeded",
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
    NotItsTurn,
}

/// Asks the plugin for the data and keeps it in the Secret. A lock that was taken for it is only kept by who has data: another
/// machine may succeed where this one fails.
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
    if let Some(holder) = lock::settle(ctx, cluster, machine, lock).await? {
        return Ok(Effect::Locked { holder });
    }
    let prepared = render(ctx, seen, machine, cluster, plugin, role).await;
    if lock == Lock::Take && !matches!(prepared, Ok(Effect::Prepared { .. })) {
        lock::settle(ctx, cluster, machine, Lock::Release).await?;
    }
    prepared
}

async fn render(
    ctx: &Ctx,
    seen: &Seen,
    machine: &Object,
    cluster: &Object,
    plugin: &ActivePlugin,
    role: Role,
) -> Result<Effect, Failure> {
    let config = &seen.object;
    let resource = ctx.resource(&config.group_kind())?;
    let mut input = BootstrapInput {
        context: plugin.context(ctx, config, "render", attempt::number()),
        cluster: Value::clone(&cluster.value),
        machine: Value::clone(&machine.value),
        config: Value::clone(&config.value),
        role,
        control_plane_endpoint: endpoint(cluster),
        kubernetes_version: machine
            .text("/spec/version")
            .map(with_v)
            .unwrap_or_default(),
        control_plane_version: with_v(&seen.control_plane_version.clone()?),
        extra: Vec::new(),
    };
    let env = plugin.env(ctx, &resource, config, SecretTable::new());
    let requirements = plugin
        .loaded
        .bootstrap_requirements(env, input.clone())
        .await;
    let requirements = requirements.map_err(|error| error.failure())?;
    material::check_requirements(&requirements, &config.value, &cluster.key.name)
        .map_err(|refused| Failure::terminal("PluginBadAnswer", refused.to_string()))?;
    let mut gathered = match gather(ctx, seen, cluster, role, &requirements).await? {
        Gathering::Done(gathered) => gathered,
        Gathering::CertificatesMissing(names) => return Ok(Effect::CertificatesMissing(names)),
        Gathering::NotConnected => return Ok(Effect::NotConnected),
        Gathering::NotItsTurn => return Ok(Effect::NotItsTurn),
    };
    // A report is one machine's, and so is what lets it: machines of a pool share their data.
    let reports = ctx.reports.as_ref().filter(|_| !seen.core.is_shared);
    if let Some(reports) = reports
        && let Some(invitation) = reports.invite(config, &[machine, cluster], ctx.now())
    {
        let token = gathered.secrets.add(invitation.token.into_bytes());
        let told = json!({"url": invitation.url, "certificateAuthority": invitation.authority, "token": token.0});
        input.extra.push(("bootstrapReport".to_owned(), told));
    }
    let origins = unfit::Origins::of(&requirements, &gathered.material);
    let env = plugin.env(ctx, &resource, config, gathered.secrets.clone());
    let answer = plugin.loaded.render(env, input, gathered.material).await;
    let answer = answer.map_err(|error| error.failure())?;
    check(&answer)?;
    let secrets = &gathered.secrets;
    let data = material::join(&answer.parts, |handle| secrets.resolve(handle));
    let data = data.map_err(|error| {
        let around = (&*config.value, &cluster.key);
        unfit::why(&error, &answer.parts, &origins, around, |handle| {
            secrets.resolve(handle).map_or(0, <[u8]>::len)
        })
    })?;
    store(
        ctx,
        config,
        &cluster.key,
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
    let taken = answer.conditions.iter().find(|condition| {
        let mut hosts = CONTRACT_CONDITIONS.iter().chain(&BOOTSTRAP_CONDITIONS);
        hosts.any(|host| *host == condition.condition_type)
    });
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
        // A machine that is made in a stage of a rotation counts as having the stage's certificates.
        let age = match cluster.annotation(capstan_api::annotation::CA_ROTATION) {
            Some(_) => ensure::Age::None,
            None => ensure::Age::Recent,
        };
        ensure::look_up(ctx, &cluster.key, requirements, age).await?
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
            Requirement::SecretValue {
                secret,
                key,
                template,
                ..
            } => {
                let secret_key = ObjectKey::new(cluster.key.namespace.clone(), secret);
                let found = secret_value(ctx, &seen.object, &cluster.key, role, &secret_key);
                let found = found.await?;
                let bytes = filled(&found, &secret_key, key, template)?;
                put_secret(&mut gathered, name, "value", bytes);
            }
        }
    }
    if !missing.is_empty() {
        return Ok(Gathering::CertificatesMissing(missing));
    }
    // Last: a token that is made is also used.
    make_tokens(ctx, seen, cluster, requirements, gathered).await
}

/// Makes the join tokens that are asked for, and puts them to the rest.
async fn make_tokens(
    ctx: &Ctx,
    seen: &Seen,
    cluster: &Object,
    requirements: &[Requirement],
    mut gathered: Gathered,
) -> Result<Gathering, Failure> {
    for requirement in requirements {
        let Requirement::JoinToken { name, lifetime, .. } = requirement else {
            continue;
        };
        let Some(workload) = ctx.workloads.get(&cluster.key) else {
            return Ok(Gathering::NotConnected);
        };
        let wanted = token::Wanted {
            lifetime: *lifetime,
            replaces: replaced(&seen.core.token),
            follows: seen.core.is_shared,
        };
        let made = token::ensure(&workload, &seen.object, &wanted, ctx.now()).await?;
        let Some((id, token)) = made else {
            return Ok(Gathering::NotItsTurn);
        };
        gathered.token_id = Some(id);
        put_secret(&mut gathered, name, "token", token.into_bytes());
    }
    Ok(Gathering::Done(gathered))
}

/// The token in the data that was made before, while it is still there: another takes its place.
fn replaced(token: &Token) -> Option<&str> {
    match token {
        Token::Expires { id, .. } => Some(id),
        Token::Settled | Token::Gone { .. } | Token::Unknown(_) | Token::NotItsTurn => None,
    }
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
            let value = secret.data.get(VALUE_KEY);
            let value = value.ok_or_else(|| lacking(VALUE_KEY))?.clone();
            // The data of a machine is a value with its format, and an authority has keys: neither is a shared secret.
            if secret.data.len() > 1 {
                let message = format!(
                    "the Secret for {name} has more than the key {VALUE_KEY}, which is all that a shared secret has"
                );
                return Err(Failure::terminal("SecretRefused", message));
            }
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

/// A Secret whose values a plugin asked for. Of the cluster's own a worker gets only what its config's spec names: its plugin could ask
/// for the keys of the control plane in this way, too.
async fn secret_value(
    ctx: &Ctx,
    config: &Object,
    cluster: &ObjectKey,
    role: Role,
    key: &ObjectKey,
) -> Result<Arc<SecretData>, Failure> {
    let secret = ctx.secrets.get(&*ctx.api, key).await;
    let secret = secret.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
    let secret = secret.ok_or_else(|| {
        Failure::transient("SecretNotFound", format!("Secret {key} does not exist"))
    })?;
    if secret.secret_type == SECRET_TYPE {
        ensure::own(key, &secret, cluster)?;
        if role == Role::JoinWorker && !material::is_named(&config.value, &key.name) {
            let kind = config.kind();
            let message = format!(
                "Secret {key} is of the control plane: a worker gets it only when the spec of its {kind} names it"
            );
            return Err(Failure::terminal("SecretRefused", message));
        }
    }
    Ok(secret)
}

/// A value of a Secret, with what belongs into its places.
fn filled(
    secret: &SecretData,
    key: &ObjectKey,
    field: &str,
    template: &[(String, String)],
) -> Result<Vec<u8>, Failure> {
    let value = secret.data.get(field).ok_or_else(|| {
        Failure::transient("SecretNotFound", format!("Secret {key} has no key {field}"))
    })?;
    if template.is_empty() {
        return Ok(value.clone());
    }
    material::fill_in(value, template).map_err(|error| {
        let known: Vec<String> = template
            .iter()
            .map(|(a, _)| format!("{{{{ {a} }}}}"))
            .collect();
        Failure::terminal(
            "TemplateInvalid",
            format!(
                "Secret {key}, key {field}: {error}: it may only have {}",
                known.join(", ")
            ),
        )
    })
}

/// Keeps the data in the Secret named as the config.
async fn store(
    ctx: &Ctx,
    config: &Object,
    cluster: &ObjectKey,
    data: &[u8],
    format: &str,
    token_id: Option<&str>,
) -> Result<(), Failure> {
    let key = &config.key;
    let owner = owner_reference(config, true);
    let content: [(&str, &[u8]); 2] = [(VALUE_KEY, data), (FORMAT_KEY, format.as_bytes())];
    let mut object = material::secret_object(key, &cluster.name, Some(&owner), &content);
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
            let existing = existing.ok_or_else(|| {
                let message = format!("Secret {key} exists and does not: trying again");
                Failure::transient("Conflict", message)
            })?;
            data::check(key, &existing, config, cluster).map_err(|what| {
                let kind = config.kind();
                let message = format!(
                    "Secret {key} exists and {what}: give the {kind} another name, or remove the Secret if nobody needs it"
                );
                Failure::terminal("SecretExists", message)
            })?;
            // Ours from before a crash, or of an earlier config of this name: what is rendered now is what counts.
            let patch = json!({
                "metadata": {
                    "uid": existing.metadata.get("uid"),
                    "resourceVersion": existing.metadata.get("resourceVersion"),
                    "ownerReferences": [owner],
                    "labels": {label::CLUSTER_NAME: cluster.name},
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

#[cfg(test)]
mod tests {
    use capstan_core::material::KeyAlgorithm;

    use super::*;
    use crate::kube_api::KubeApi;
    use crate::kube_api::staged::Staged;
    use crate::workloads::tests::host_of;

    /// A Secret of cluster `evil`.
    fn kept(content: &[(&str, &str)]) -> SecretData {
        SecretData::read(&object("evil-x", content))
    }

    fn object(name: &str, content: &[(&str, &str)]) -> Value {
        let bytes: Vec<_> = content.iter().map(|(k, v)| (*k, v.as_bytes())).collect();
        material::secret_object(&ObjectKey::new("ns", name), "evil", None, &bytes)
    }

    /// What a plugin is given, and what of it are secrets.
    fn given(
        requirement: &Requirement,
        secret: &SecretData,
        role: Role,
    ) -> Result<Gathered, Failure> {
        let mut gathered = Gathered {
            material: Vec::new(),
            secrets: SecretTable::new(),
            token_id: None,
        };
        put_kept(&mut gathered, requirement, secret, role)?;
        Ok(gathered)
    }

    #[test]
    fn private_bytes_are_given_by_handle_and_keys_to_control_planes_only() {
        let ca = pki::certificate_authority(
            "kubernetes",
            KeyAlgorithm::EcdsaP256,
            0,
            jiff::Timestamp::now(),
        )
        .unwrap();
        let pair = kept(&[(CERTIFICATE_KEY, &ca.public), (PRIVATE_KEY, &ca.private)]);
        let shared = kept(&[(VALUE_KEY, "shared")]);
        let name = || "ca".to_owned();
        let all = [
            Requirement::CertificateAuthority {
                name: name(),
                common_name: name(),
                algorithm: String::new(),
                validity_days: 0,
            },
            Requirement::KeyPair {
                name: name(),
                algorithm: String::new(),
            },
            Requirement::SharedSecret {
                name: name(),
                bytes: 32,
            },
        ];
        for requirement in &all {
            for role in [Role::Init, Role::JoinControlPlane, Role::JoinWorker] {
                let is_shared = matches!(requirement, Requirement::SharedSecret { .. });
                let secret = if is_shared { &shared } else { &pair };
                let gathered = given(requirement, secret, role).unwrap();
                let mut handles = 0;
                for material in &gathered.material {
                    match &material.value {
                        MaterialValue::Text(text) => {
                            assert!(!text.contains("PRIVATE KEY") && !text.contains("shared"));
                        }
                        MaterialValue::Secret(handle) => {
                            handles += 1;
                            let bytes = gathered.secrets.resolve(*handle).unwrap();
                            assert!(bytes == ca.private.as_bytes() || bytes == b"shared");
                        }
                    }
                }
                let expected = usize::from(is_shared || role != Role::JoinWorker);
                assert_eq!(handles, expected, "{requirement:?} {role:?}");
            }
        }
        // Another machine's data is no shared secret, nor is a pair with a value beside it.
        let data = kept(&[(VALUE_KEY, "data"), (FORMAT_KEY, "cloud-config")]);
        let odd = kept(&[(VALUE_KEY, "x"), (PRIVATE_KEY, &ca.private)]);
        for secret in [data, odd] {
            let refused = given(&all[2], &secret, Role::JoinControlPlane).err();
            assert_eq!(refused.unwrap().reason, "SecretRefused");
        }
    }

    #[tokio::test]
    async fn a_worker_gets_a_secret_of_its_cluster_only_when_its_config_names_it() {
        let api = Staged::new();
        api.hold(&kinds::SECRET, object("evil-ca", &[(PRIVATE_KEY, "k")]));
        let ctx = host_of(api as Arc<dyn KubeApi>);
        let (cluster, key) = (
            ObjectKey::new("ns", "evil"),
            ObjectKey::new("ns", "evil-ca"),
        );
        let asked = async |config: &Object, role| {
            let secret = secret_value(&ctx, config, &cluster, role, &key).await;
            secret.map(drop).map_err(|failure| failure.reason)
        };
        let plain = config("m");
        let mut naming = Value::clone(&plain.value);
        naming["spec"] = json!({"files": [{"contentFrom": {"secret": {"name": "evil-ca"}}}]});
        let naming = Object::new(naming).unwrap();
        let refused = Err("SecretRefused".to_owned());
        assert_eq!(asked(&plain, Role::JoinWorker).await, refused);
        assert_eq!(asked(&plain, Role::JoinControlPlane).await, Ok(()));
        assert_eq!(asked(&naming, Role::JoinWorker).await, Ok(()));
    }

    fn config(name: &str) -> Object {
        Object::new(json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta2", "kind": "KubeadmConfig",
            "metadata": {"namespace": "ns", "name": name, "uid": "now"},
        }))
        .unwrap()
    }

    /// Keeps data of a config of cluster `evil` where there is this Secret already. What was said, and what was patched.
    async fn stored(config: &Object, there: Value) -> (Result<(), Failure>, Vec<Patch>) {
        let api = Staged::new();
        api.hold(&kinds::SECRET, there);
        let ctx = host_of(Arc::clone(&api) as Arc<dyn KubeApi>);
        let cluster = ObjectKey::new("ns", "evil");
        let stored = store(&ctx, config, &cluster, b"data", "cloud-config", None).await;
        (stored, api.patches())
    }

    #[tokio::test]
    async fn the_secret_of_another_is_not_taken_over_by_a_config_of_its_name() {
        let key = ObjectKey::new("ns", "prod-ca");
        let content: [(&str, &[u8]); 2] = [(CERTIFICATE_KEY, b"c"), (PRIVATE_KEY, b"k")];
        let theirs = material::secret_object(&key, "prod", None, &content);
        let (said, patches) = stored(&config("prod-ca"), theirs).await;
        let failure = said.unwrap_err();
        assert_eq!(failure.reason, "SecretExists");
        assert!(failure.message.contains("Cluster prod"), "{failure:?}");
        assert_eq!(patches, []);
        // The same config's, from before a crash.
        let key = ObjectKey::new("ns", "m");
        let owner = owner_reference(&config("m"), true);
        let own = material::secret_object(&key, "evil", Some(&owner), &[(VALUE_KEY, b"old")]);
        let (said, patches) = stored(&config("m"), own).await;
        said.unwrap();
        assert_eq!(patches.len(), 1);
    }
}
