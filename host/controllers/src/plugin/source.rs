//! Where components come from: a ConfigMap, several of them, a file of the host, a registry. What changes is watched by metadata;
//! bytes are fetched when it has changed, and not kept.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::{OciSource, PluginSource};
use capstan_api::reason::plugin as reason;
use capstan_api::{annotation, label};
use capstan_core::lookup::Lookup;
use capstan_core::plan::Failure;
use capstan_core::plugin::Problem;
use capstan_engine::{
    FileError, PublicKey, PullError, Reference, RegistryAccess, Signature, SignaturePolicy,
    SourceOptions,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::ctx::{Clock, Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Selection};
use crate::object::Object;
use crate::secrets::Secrets;
use crate::stores::Stores;

/// How often a tag is looked up again, and a file looked at.
pub(super) const REGISTRY_EVERY: Duration = Duration::from_secs(300);
const FILE_EVERY: Duration = Duration::from_secs(10);

/// Parts of one component: 16 MiB of source, at the most that an object holds each.
const PARTS_MAX: usize = 16;

/// Key of a pull secret, as `kubectl create secret docker-registry` makes it.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// Secrets with keys that signatures are checked with; more than a team has.
const KEY_SECRETS_MAX: u32 = 50;

/// What was fetched.
pub(super) struct Fetched {
    /// As it is stored.
    pub(super) bytes: Bytes,
    /// Signatures that were beside it.
    pub(super) signatures: Vec<Signature>,
    /// `registry/repository@digest`, for what came from a registry.
    pub(super) resolved: Option<String>,
}

/// What looking at sources needs of the context.
#[derive(Clone)]
pub(super) struct Reach {
    api: Arc<dyn KubeApi>,
    stores: Arc<Stores>,
    secrets: Secrets,
    clock: Arc<dyn Clock>,
    namespace: String,
}

impl Reach {
    pub(super) fn of(ctx: &Ctx) -> Self {
        Self {
            api: Arc::clone(&ctx.api),
            stores: Arc::clone(&ctx.stores),
            secrets: ctx.secrets.clone(),
            clock: Arc::clone(&ctx.clock),
            namespace: ctx.namespace.clone(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What changes when a key that signatures are checked with comes, changes or goes.
    pub(super) async fn keys_version(&self) -> String {
        let Some(secrets) = self.stores.get(&kinds::SIGNING_KEY.group_kind()) else {
            return "none".to_owned();
        };
        secrets.synced().await;
        let mut known: Vec<String> = secrets
            .all()
            .iter()
            .map(|secret| format!("{}@{}", secret.key.name, secret.resource_version))
            .collect();
        known.sort();
        format!("{}: {}", known.len(), known.join(", "))
    }
}

/// How soon a source that nothing watches is looked at again.
pub(super) fn recheck(source: &PluginSource) -> Option<Duration> {
    match source {
        PluginSource { file: Some(_), .. } => Some(FILE_EVERY),
        PluginSource { oci: Some(_), .. } => Some(REGISTRY_EVERY),
        _ => None,
    }
}

/// What changes when the source does.
pub(super) async fn version(
    ctx: &Reach,
    options: &SourceOptions,
    own: &ObjectKey,
    source: &PluginSource,
) -> Lookup<String> {
    if let Some(source) = &source.config_map {
        let Some(maps) = ctx.stores.get(&kinds::CONFIG_MAP.group_kind()) else {
            return Lookup::Missing;
        };
        maps.synced().await;
        let entry = source.key.as_deref().unwrap_or_default();
        let key = ObjectKey::new(&own.namespace, &source.name);
        return maps.get(&key).map_or(Lookup::Missing, |map| {
            Lookup::Found(format!("{}/{entry}", map.resource_version))
        });
    }
    if let Some(parts) = &source.config_map_parts {
        let Some(maps) = ctx.stores.get(&kinds::CONFIG_MAP.group_kind()) else {
            return Lookup::Missing;
        };
        maps.synced().await;
        let name = parts.plugin.as_deref().unwrap_or(&own.name);
        return match ordered(&maps.in_namespace(&own.namespace), name) {
            Ok(parts) if parts.is_empty() => Lookup::Missing,
            Ok(parts) => {
                let versions = parts.iter().map(|part| part.resource_version.to_string());
                Lookup::Found(versions.collect::<Vec<_>>().join("+"))
            }
            Err(why) => Lookup::Unknown(why),
        };
    }
    if let Some(file) = &source.file {
        let Some(directory) = options.directory.clone() else {
            return Lookup::Unknown(NO_DIRECTORY.to_owned());
        };
        let path = file.path.clone();
        return match blocking(move || capstan_engine::file_version(&directory, &path)).await {
            Ok(version) => Lookup::Found(version),
            Err(FileError::NotFound(_)) => Lookup::Missing,
            Err(error) => Lookup::Unknown(format!("spec.source.file.path: {error}")),
        };
    }
    if let Some(oci) = &source.oci {
        return match resolve(ctx, own, oci).await {
            Ok(digest) => Lookup::Found(digest),
            Err(why) => Lookup::Unknown(format!("spec.source.oci: {why}")),
        };
    }
    Lookup::Missing
}

const NO_DIRECTORY: &str =
    "spec.source.file: this host has no directory of plugins: start it with --plugin-dir";

/// The bytes of a source.
///
/// # Errors
/// What may be better at another time.
pub(super) async fn fetch(
    ctx: &Reach,
    options: &SourceOptions,
    own: &ObjectKey,
    source: &PluginSource,
    version: &str,
) -> Result<Result<Fetched, Problem>, Failure> {
    if let Some(source) = &source.config_map {
        let key = ObjectKey::new(&own.namespace, &source.name);
        let map = match ctx.api.get(&kinds::CONFIG_MAP, &key).await {
            Ok(map) => map,
            Err(ApiError::NotFound(_)) => {
                let message = format!("spec.source.configMap.name: ConfigMap {key} does not exist");
                return Ok(Err(problem(reason::SOURCE_NOT_FOUND, message)));
            }
            Err(error) => return Err(failure(&format!("reading ConfigMap {key}"), &error)),
        };
        return Ok(
            part(&map, &key, source.key.as_deref()).map(|bytes| Fetched {
                bytes: Bytes::from(bytes),
                signatures: signatures_of(&map),
                resolved: None,
            }),
        );
    }
    if let Some(parts) = &source.config_map_parts {
        let name = parts.plugin.as_deref().unwrap_or(&own.name);
        return joined(ctx, own, name).await;
    }
    if let Some(file) = &source.file {
        let Some(directory) = options.directory.clone() else {
            return Ok(Err(problem(
                reason::SOURCE_INVALID,
                NO_DIRECTORY.to_owned(),
            )));
        };
        let path = file.path.clone();
        let read = blocking(move || {
            let bytes = capstan_engine::file_bytes(&directory, &path)?;
            // Beside the component, as `NAME.sig`.
            let beside = capstan_engine::file_bytes(&directory, &format!("{path}.sig"));
            Ok((bytes, beside.unwrap_or_default()))
        });
        return Ok(match read.await {
            Ok((bytes, beside)) => Ok(Fetched {
                bytes,
                signatures: decoded(&String::from_utf8_lossy(&beside)),
                resolved: None,
            }),
            Err(error) => Err(problem(
                match error {
                    FileError::NotFound(_) => reason::SOURCE_NOT_FOUND,
                    _ => reason::SOURCE_INVALID,
                },
                format!("spec.source.file.path: {error}"),
            )),
        });
    }
    if let Some(oci) = &source.oci {
        let with_signatures = options.policy != SignaturePolicy::Off;
        return Ok(pull(ctx, own, oci, version, with_signatures).await);
    }
    let message = "spec.source: name a configMap, configMapParts, a file or oci";
    Ok(Err(problem(reason::SOURCE_INVALID, message.to_owned())))
}

fn problem(reason: &str, message: String) -> Problem {
    Problem::new("Verified", reason, message)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(FileError::Unreadable("the read was broken off".to_owned())))
}

/// The one component in a ConfigMap, or the one under this key.
fn part(map: &Value, key: &ObjectKey, wanted: Option<&str>) -> Result<Vec<u8>, Problem> {
    let data = map.get("binaryData").and_then(Value::as_object);
    let mut meant = data
        .into_iter()
        .flatten()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let (Some((_, value)), None) = (meant.next(), meant.next()) else {
        let names: Vec<&str> = data
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        let names = names.join(", ");
        let message = match wanted {
            Some(wanted) => format!(
                "spec.source.configMap.key: binaryData of ConfigMap {key} has no {wanted}, but [{names}]"
            ),
            None => format!(
                "binaryData of ConfigMap {key} has [{names}]: put one component there, or name one in spec.source.configMap.key"
            ),
        };
        return Err(problem(reason::SOURCE_INVALID, message));
    };
    let decoded = BASE64.decode(value.as_str().unwrap_or_default());
    decoded.map_err(|error| {
        let message = format!("binaryData of ConfigMap {key} is not base64: {error}");
        problem(reason::SOURCE_INVALID, message)
    })
}

/// The parts of a component in their order, by their labels. A set with holes is not a set yet.
fn ordered(maps: &[Arc<Object>], plugin: &str) -> Result<Vec<Arc<Object>>, String> {
    let mut found: Vec<(usize, Option<usize>, &Arc<Object>)> = Vec::new();
    for map in maps {
        let Some(part) = map.label(label::PLUGIN_PART) else {
            continue;
        };
        if map.label(label::PLUGIN) != Some(plugin) {
            continue;
        }
        let part = part.parse().map_err(|_| {
            format!(
                "ConfigMap {}: label {} is not a number",
                map.key,
                label::PLUGIN_PART
            )
        })?;
        let count = map
            .label(label::PLUGIN_PARTS)
            .and_then(|count| count.parse().ok());
        found.push((part, count, map));
    }
    found.sort_by_key(|(part, ..)| *part);
    let Some((_, count, _)) = found.first() else {
        return Ok(Vec::new());
    };
    let count = count.filter(|count| (1..=PARTS_MAX).contains(count));
    let Some(count) = count else {
        return Err(format!(
            "label {} of the parts of plugin {plugin} is not a number from 1 to {PARTS_MAX}",
            label::PLUGIN_PARTS
        ));
    };
    let is_whole = found.len() == count
        && found
            .iter()
            .enumerate()
            .all(|(place, (part, of, _))| *part == place && *of == Some(count));
    if !is_whole {
        let there: Vec<String> = found.iter().map(|(part, ..)| part.to_string()).collect();
        return Err(format!(
            "plugin {plugin} has the parts {} of {count}: label {} counts from 0, and {} is the same on all",
            there.join(", "),
            label::PLUGIN_PART,
            label::PLUGIN_PARTS
        ));
    }
    Ok(found
        .into_iter()
        .map(|(_, _, map)| Arc::clone(map))
        .collect())
}

/// All parts, one behind the other.
async fn joined(
    ctx: &Reach,
    own: &ObjectKey,
    plugin: &str,
) -> Result<Result<Fetched, Problem>, Failure> {
    let maps = ctx
        .stores
        .ensure(&kinds::CONFIG_MAP, Selection::default())
        .in_namespace(&own.namespace);
    let parts = match ordered(&maps, plugin) {
        Ok(parts) => parts,
        Err(why) => return Ok(Err(problem(reason::SOURCE_INVALID, why))),
    };
    let (mut bytes, mut signatures) = (Vec::new(), Vec::new());
    for known in parts {
        let map = match ctx.api.get(&kinds::CONFIG_MAP, &known.key).await {
            Ok(map) => map,
            Err(error) => {
                return Err(failure(&format!("reading ConfigMap {}", known.key), &error));
            }
        };
        // Another version than the one that was counted may belong to another set.
        let version = map
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str);
        if version != Some(known.resource_version.to_string().as_str()) {
            let why = format!("ConfigMap {} changed while the parts were read", known.key);
            return Err(Failure::transient(reason::SOURCE_INVALID, why));
        }
        match part(&map, &known.key, None) {
            Ok(part) => bytes.extend_from_slice(&part),
            Err(problem) => return Ok(Err(problem)),
        }
        signatures.extend(signatures_of(&map));
    }
    Ok(Ok(Fetched {
        bytes: Bytes::from(bytes),
        signatures,
        resolved: None,
    }))
}

/// The signatures in an annotation of a ConfigMap.
fn signatures_of(map: &Value) -> Vec<Signature> {
    let annotations = map.pointer("/metadata/annotations");
    let text = annotations.and_then(|all| all.get(annotation::PLUGIN_SIGNATURE));
    decoded(text.and_then(Value::as_str).unwrap_or_default())
}

/// Signatures in base64, with white space or commas between them. What is no base64 is no signature.
fn decoded(text: &str) -> Vec<Signature> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .take(8)
        .filter_map(|word| BASE64.decode(word).ok().map(Signature::Component))
        .collect()
}

async fn access(ctx: &Reach, own: &ObjectKey, oci: &OciSource) -> Result<RegistryAccess, String> {
    let mut access = RegistryAccess {
        login: None,
        ca_pem: oci.ca_bundle.clone(),
        plain_http: oci.plain_http.unwrap_or(false),
    };
    if let Some(secret) = &oci.pull_secret {
        let key = ObjectKey::new(&own.namespace, secret);
        let found = ctx.secrets.get(&*ctx.api, &key).await;
        let found = found
            .map_err(|error| format!("reading Secret {key}: {error}"))?
            .ok_or_else(|| format!("pullSecret: Secret {key} does not exist"))?;
        let reference = Reference::parse(&oci.image)?;
        let config = found.data.get(DOCKER_CONFIG).map(Vec::as_slice);
        let login = config.and_then(|config| login_of(config, reference.host()));
        let missing = || {
            format!(
                "pullSecret: Secret {key} has no login for {} under {DOCKER_CONFIG}",
                reference.host()
            )
        };
        access.login = Some(login.ok_or_else(missing)?);
    }
    Ok(access)
}

/// User and password for a registry, out of a docker configuration.
#[must_use]
pub fn login_of(config: &[u8], host: &str) -> Option<(String, String)> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let auths = config.get("auths")?.as_object()?;
    let entry = auths.iter().find_map(|(name, entry)| {
        let name = name
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let name = name.split('/').next().unwrap_or_default();
        (name == host).then_some(entry)
    })?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some((user, password));
    }
    let pair = String::from_utf8(BASE64.decode(text("auth")?).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

pub(super) async fn resolve(
    ctx: &Reach,
    own: &ObjectKey,
    oci: &OciSource,
) -> Result<String, String> {
    let reference = Reference::parse(&oci.image).map_err(|why| format!("image: {why}"))?;
    let access = access(ctx, own, oci).await?;
    capstan_engine::resolve(&reference, &access)
        .await
        .map_err(|error| error.to_string())
}

async fn pull(
    ctx: &Reach,
    own: &ObjectKey,
    oci: &OciSource,
    digest: &str,
    with_signatures: bool,
) -> Result<Fetched, Problem> {
    let wrong = |why: String| problem(reason::SOURCE_INVALID, format!("spec.source.oci: {why}"));
    let reference = Reference::parse(&oci.image).map_err(wrong)?;
    let access = access(ctx, own, oci).await.map_err(wrong)?;
    // What was resolved is what is pulled, though the tag may have moved on.
    let resolved = reference.pinned(digest);
    let pinned = Reference::parse(&resolved).map_err(wrong)?;
    match capstan_engine::pull(&pinned, &access, with_signatures).await {
        Ok(pulled) => Ok(Fetched {
            bytes: pulled.source,
            signatures: pulled.signatures,
            resolved: Some(resolved),
        }),
        Err(error) => {
            let reason = match &error {
                PullError::NotFound(_) => reason::SOURCE_NOT_FOUND,
                PullError::Denied(_) => reason::SOURCE_DENIED,
                PullError::Invalid(_) => reason::SOURCE_INVALID,
                PullError::Unavailable(_) => reason::SOURCE_UNAVAILABLE,
            };
            Err(Problem {
                is_transient: matches!(error, PullError::Unavailable(_)),
                ..problem(reason, format!("spec.source.oci: {error}"))
            })
        }
    }
}

/// The keys that signatures are checked with: all public keys in Secrets of the host's namespace that are labelled so.
///
/// # Errors
/// When they cannot be read, or one is no key: a key that is not understood must not be passed over.
pub(super) async fn keys(ctx: &Reach) -> Result<Vec<PublicKey>, Failure> {
    let selection = Selection {
        namespace: Some(ctx.namespace.clone()),
        labels: Some(label::SIGNING_KEY.to_owned()),
        ..Selection::default()
    };
    let page = ctx
        .api
        .list(&kinds::SECRET, &selection, KEY_SECRETS_MAX, None)
        .await
        .map_err(|error| failure("listing Secrets with keys for signatures", &error))?;
    // A key that is not looked at must not look like one that nobody has.
    if page.next.is_some() {
        let why = format!(
            "more than {KEY_SECRETS_MAX} Secrets have the label {}: remove those that are not needed",
            label::SIGNING_KEY
        );
        return Err(Failure::terminal(reason::KEY_INVALID, why));
    }
    let mut keys = Vec::new();
    for secret in &page.items {
        let name = secret.pointer("/metadata/name").and_then(Value::as_str);
        let read = crate::secrets::SecretData::read(secret);
        for (entry, pem) in &read.data {
            let place = format!("key {entry} of Secret {}", name.unwrap_or_default());
            let found = PublicKey::from_pem(&place, pem);
            keys.extend(found.map_err(|why| Failure::terminal(reason::KEY_INVALID, why))?);
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(name: &str, part: &str, parts: &str) -> Arc<Object> {
        Arc::new(
            Object::new(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1",
                    "labels": {label::PLUGIN: "p", label::PLUGIN_PART: part, label::PLUGIN_PARTS: parts}},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn parts_are_in_their_order_and_all_there() {
        let whole = [map("c", "2", "3"), map("a", "0", "3"), map("b", "1", "3")];
        let names: Vec<_> = ordered(&whole, "p")
            .unwrap()
            .iter()
            .map(|part| part.key.name.clone())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(ordered(&whole, "other").unwrap().is_empty());
        for broken in [
            vec![map("a", "0", "2")],
            vec![map("a", "0", "2"), map("c", "2", "2")],
            vec![map("a", "0", "2"), map("b", "0", "2")],
            vec![map("a", "0", "2"), map("b", "1", "3")],
            vec![map("a", "x", "1")],
            vec![map("a", "0", "1000")],
        ] {
            assert!(ordered(&broken, "p").is_err());
        }
    }

    #[test]
    fn a_login_is_the_one_of_its_registry() {
        let config = json!({"auths": {
            "https://r.example.com/v1/": {"auth": BASE64.encode("u:p:w")},
            "other.example.com": {"username": "a", "password": "b"},
        }})
        .to_string();
        let of = |host: &str| login_of(config.as_bytes(), host);
        assert_eq!(
            of("r.example.com"),
            Some(("u".to_owned(), "p:w".to_owned()))
        );
        assert_eq!(
            of("other.example.com"),
            Some(("a".to_owned(), "b".to_owned()))
        );
        assert_eq!(of("example.com"), None);
    }

    #[test]
    fn signatures_are_words_of_base64() {
        assert_eq!(decoded(" YQ== ,\n!! Yg==").len(), 2);
        assert!(decoded("").is_empty());
    }
}
