//! Bootstrap configs of every bootstrap plugin: reads what the decision needs, has the data made, keeps join tokens alive.

mod data;
mod lock;
mod pool;
mod prepare;
mod token;
mod unfit;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::bootstrap::{
    self as core, Effect, JOIN_TOKEN, Observed, Step, TOKEN_CHECK, Token,
};
use capstan_core::call::manifest::PluginKind;
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use serde_json::Value;

use crate::access::{self, Access};
use crate::controller::{Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, owner_reference};
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind};
use crate::object::{Locator, Object};
use crate::plugins::ActivePlugin;
use crate::secrets::SecretData;
use crate::secrets::ensure::{self, Holder};
use crate::store::Change;

/// Role of the kinds that this controller looks after.
pub(crate) const ROLE: &str = "bootstrap-config";

/// Role of the kinds that are control planes.
const CONTROL_PLANE_ROLE: &str = "control-plane";

/// Field manager of all writes.
const MANAGER: &str = "capstan-bootstrap";

static SPEC: Spec = Spec {
    name: "bootstrap",
    manager: MANAGER,
    primary: Primary::Roles(&[ROLE]),
    finalizer: None,
    pausable: true,
    concurrency: 32,
    settle: Duration::from_millis(20),
    hold: Duration::from_secs(10),
};

/// Makes bootstrap data.
#[derive(Default)]
pub struct BootstrapController {
    /// What was seen of the join token of a config.
    looked: Mutex<HashMap<Locator, Looked>>,
}

/// When a join token was last looked at, and whether it was there.
#[derive(Clone, Debug)]
struct Looked {
    at: Timestamp,
    /// Its id, if it was gone.
    gone: Option<String>,
}

impl Looked {
    fn new(token: &Token, at: Timestamp) -> Self {
        let gone = match token {
            Token::Gone { id } => Some(id.clone()),
            Token::Settled | Token::Expires { .. } | Token::Unknown(_) | Token::NotItsTurn => None,
        };
        Self { at, gone }
    }

    /// What it says until it is time to look again: a token that was kept alive needs no more, one that is gone stays so.
    fn still(&self, now: Timestamp) -> Option<Token> {
        let age = now.duration_since(self.at).unsigned_abs();
        if age >= TOKEN_CHECK.saturating_sub(Duration::from_secs(1)) {
            return None;
        }
        Some(match &self.gone {
            Some(id) => Token::Gone { id: id.clone() },
            None => Token::Settled,
        })
    }
}

/// What was read, and what the plugin is asked with.
pub struct Seen {
    core: Observed,
    object: Arc<Object>,
    machine: Option<Arc<Object>>,
    cluster: Option<Arc<Object>>,
    plugin: Option<Arc<ActivePlugin>>,
    control_plane_version: Result<String, Failure>,
}

impl Controller for BootstrapController {
    type Observed = Seen;
    type Step = Step;
    type Effect = Effect;

    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::MACHINE),
                map: of_machine,
            },
            Watch {
                source: Source::Kind(&kinds::MACHINE_POOL),
                map: pool::of_pool,
            },
            Watch {
                source: Source::Kind(&kinds::CLUSTER),
                map: of_cluster,
            },
            Watch {
                source: Source::Workload,
                map: of_connection,
            },
            Watch {
                source: Source::PluginsOf(PluginKind::ControlPlane),
                map: of_nothing,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![
            Access::to_group(access::BOOTSTRAP, &["list", "watch", "patch"]),
            Access::to_group(access::CONTROL_PLANE, &["list", "watch"]),
            Access::to(&kinds::SECRET, &["get", "create", "patch"]),
            // Whose turn it is to initialize a cluster.
            Access::to(&kinds::CONFIG_MAP, &["get", "create", "delete"]),
        ]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        object.cluster()
    }

    fn forget(&self, ctx: &Ctx, locator: &Locator) {
        let _ = ctx;
        self.looked().remove(locator);
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Seen, Failure> {
        let pooled = pool::owner(ctx, &object);
        let is_shared = pooled.is_some();
        let machine = match pooled {
            Some(pool) => pool::machine(&pool).map(Arc::new),
            None => owner_machine(ctx, &object),
        };
        let cluster_name = machine
            .as_ref()
            .and_then(|machine| machine.text("/spec/clusterName"));
        let cluster_key =
            cluster_name.map(|name| ObjectKey::new(object.key.namespace.clone(), name));
        let cluster = cluster_key
            .as_ref()
            .and_then(|key| ctx.get(&kinds::CLUSTER, key));
        let plugin = ctx.plugins.serving(ctx, &object);
        let is_serialized = machine.as_ref().is_some_and(|machine| {
            machine.controller().is_some_and(|owner| {
                let kind = GroupKind {
                    group: owner.group.to_owned(),
                    kind: owner.kind.to_owned(),
                };
                ctx.plugins.role_of(&kind).as_deref() == Some(CONTROL_PLANE_ROLE)
            })
        });
        let control_plane_version = match &cluster {
            Some(cluster) => control_plane_version(ctx, cluster).await,
            None => Ok(String::new()),
        };
        let mut observed = Observed {
            config: Value::clone(&object.value),
            machine: typed(machine.as_deref(), "Machine"),
            cluster: typed(cluster.as_deref(), "Cluster"),
            owner: ctx.provider_of(&object.group_kind()),
            plugin: plugin.as_ref().map(|plugin| plugin.name.clone()),
            is_shared,
            is_serialized,
            is_orphaned: false,
            token: Token::Settled,
        };
        if let Some(key) = &cluster_key
            && let Some(machine) = &machine
            && let Some(secret) = core::data_secret_name(&observed)
        {
            let has_joined = machine.text("/status/nodeRef/name").is_some();
            // Of a pool, machines come at any time.
            if !has_joined || is_shared {
                observed.token = self.token(ctx, &object, key, &secret).await;
            }
            // Restored and moved objects come with Secrets of those that they were.
            if !has_joined || !core::is_recorded(&observed) {
                observed.is_orphaned = is_orphaned(ctx, &object, key, &secret).await;
            }
        }
        Ok(Seen {
            core: observed,
            object,
            machine,
            cluster,
            plugin,
            control_plane_version,
        })
    }

    fn decide(&self, observed: &Seen, now: Timestamp) -> Plan<Step> {
        core::decide(&observed.core, now)
    }

    async fn perform(&self, ctx: &Ctx, observed: &Seen, step: &Step) -> Result<Effect, Failure> {
        match step {
            Step::Prepare { role, lock } => {
                // Whatever comes of it, what was seen of the token before says nothing of the one after.
                self.looked().remove(&Locator::of(&observed.object));
                prepare::prepare(ctx, observed, *role, *lock).await
            }
            Step::AdoptSecret { name } => {
                let object = &*observed.object;
                let key = ObjectKey::new(object.key.namespace.clone(), name.clone());
                let owner = owner_reference(object, true);
                let cluster = observed.cluster.as_ref().map(|cluster| cluster.key.clone());
                let cluster = cluster.unwrap_or_default();
                let holder = Holder {
                    cluster: &cluster,
                    owner: &owner,
                    manager: MANAGER,
                };
                // There may be another Secret of the name by now.
                let is_still = |secret: &SecretData| data::check(&key, secret, object, &cluster);
                ensure::take_over(ctx, holder, &key, is_still).await?;
                Ok(Effect::Adopted)
            }
            Step::ExtendToken { id, until } => {
                let cluster = observed.cluster.as_ref().map(|cluster| cluster.key.clone());
                let extended = token::extend(ctx, &cluster.unwrap_or_default(), id, *until).await;
                if extended != Ok(Effect::Extended) {
                    // The next look must not wait.
                    let object = &observed.object;
                    let locator = Locator::of(object);
                    self.looked().remove(&locator);
                }
                extended
            }
        }
    }

    fn report(
        &self,
        observed: &Seen,
        _plan: &Plan<Step>,
        outcome: &Outcome<Step, Effect>,
        _now: Timestamp,
    ) -> Report {
        let reported = core::report(&observed.core, outcome);
        Report {
            status: reported.status,
            conditions: reported.conditions,
            next: reported.next,
            ..Report::default()
        }
    }
}

impl BootstrapController {
    fn looked(&self) -> std::sync::MutexGuard<'_, HashMap<Locator, Looked>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The join token in the data, looked at once in a while.
    async fn token(&self, ctx: &Ctx, object: &Object, cluster: &ObjectKey, secret: &str) -> Token {
        let locator = Locator::of(object);
        let now = ctx.now();
        let last = self.looked().get(&locator).cloned();
        if let Some(still) = last.and_then(|last| last.still(now)) {
            return still;
        }
        let key = ObjectKey::new(object.key.namespace.clone(), secret);
        let token = match ctx.secrets.get(&*ctx.api, &key).await {
            Ok(Some(secret)) => match secret.annotation(JOIN_TOKEN) {
                Some(id) => token::look(ctx, cluster, id).await,
                None => Token::Settled,
            },
            Ok(None) => Token::Settled,
            Err(error) => Token::Unknown(error.to_string()),
        };
        if !matches!(token, Token::Unknown(_) | Token::NotItsTurn) {
            self.looked().insert(locator, Looked::new(&token, now));
        }
        token
    }
}

/// Whether the Secret with the data is the config's own and has it as it was before as its controller, or none. What is another's, or
/// cannot be read, is left alone.
async fn is_orphaned(ctx: &Ctx, config: &Object, cluster: &ObjectKey, secret: &str) -> bool {
    let key = ObjectKey::new(config.key.namespace.clone(), secret);
    let secret = ctx.secrets.get(&*ctx.api, &key).await.ok().flatten();
    secret.is_some_and(|secret| {
        secret.controller_uid() != Some(config.uid.as_str())
            && data::check(&key, &secret, config, cluster).is_ok()
    })
}

fn typed<T: serde::de::DeserializeOwned>(object: Option<&Object>, kind: &str) -> Lookup<T> {
    match object.map(Object::typed) {
        None => Lookup::Missing,
        Some(Ok(typed)) => Lookup::Found(typed),
        Some(Err(error)) => Lookup::Unknown(format!("the {kind} cannot be read: {error}")),
    }
}

/// The Machine that owns a config, by controller or by any other owner reference.
fn owner_machine(ctx: &Ctx, object: &Object) -> Option<Arc<Object>> {
    let owner = object
        .owners()
        .find(|owner| owner.group == kinds::MACHINE.group && owner.kind == kinds::MACHINE.kind)?;
    let key = ObjectKey::new(object.key.namespace.clone(), owner.name);
    ctx.get(&kinds::MACHINE, &key)
        .filter(|machine| machine.uid == owner.uid)
}

/// `spec.version` of a cluster's control plane, if it has one.
async fn control_plane_version(ctx: &Ctx, cluster: &Object) -> Result<String, Failure> {
    let text = |field: &str| {
        cluster
            .text(&format!("/spec/controlPlaneRef/{field}"))
            .map(str::to_owned)
    };
    let (Some(group), Some(kind), Some(name)) = (text("apiGroup"), text("kind"), text("name"))
    else {
        return Ok(String::new());
    };
    let store = match ctx.external(&GroupKind { group, kind }).await {
        Ok(store) => store,
        Err(failure) if failure.reason == "KindNotListed" => return Err(failure),
        // A kind that cannot be resolved has no version to tell.
        Err(_) => return Ok(String::new()),
    };
    let object = store.get(&ObjectKey::new(cluster.key.namespace.clone(), name));
    let version = object.and_then(|object| object.text("/spec/version").map(str::to_owned));
    Ok(version.unwrap_or_default())
}

fn of_nothing(_: &Ctx, _: &Change) -> Vec<Locator> {
    Vec::new()
}

/// The config that an object names at this pointer, if a plugin makes its data.
fn named_config(ctx: &Ctx, object: &Object, pointer: &str) -> Option<Locator> {
    let text = |field: &str| {
        object
            .text(&format!("{pointer}/{field}"))
            .map(str::to_owned)
    };
    let kind = GroupKind {
        group: text("apiGroup")?,
        kind: text("kind")?,
    };
    let key = ObjectKey::new(object.key.namespace.clone(), text("name")?);
    (ctx.plugins.role_of(&kind).as_deref() == Some(ROLE)).then_some(Locator { kind, key })
}

/// The config that a Machine names, when something changed that the config waits for.
fn of_machine(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(machine) = &change.new else {
        return Vec::new();
    };
    let watched = |object: &Object| {
        (
            object.text("/spec/bootstrap/dataSecretName").is_some(),
            object.text("/status/nodeRef/name").is_some(),
            object.label(capstan_api::label::CONTROL_PLANE).is_some(),
        )
    };
    if change
        .old
        .as_ref()
        .is_some_and(|old| watched(old) == watched(machine))
    {
        return Vec::new();
    }
    named_config(ctx, machine, "/spec/bootstrap/configRef")
        .into_iter()
        .collect()
}

/// All unfinished configs of a Cluster, when something changed that they wait for.
fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(cluster) = &change.new else {
        return Vec::new();
    };
    let watched = |object: &Object| {
        let flag = |name: &str| {
            let pointer = format!("/status/initialization/{name}");
            object
                .value
                .pointer(&pointer)
                .and_then(Value::as_bool)
                .unwrap_or_default()
        };
        let initialized =
            crate::status::conditions_of(object.value.get("status").unwrap_or(&Value::Null))
                .iter()
                .any(|c| c.type_ == "ControlPlaneInitialized" && c.status == "True");
        (
            flag("infrastructureProvisioned"),
            flag("controlPlaneInitialized") || initialized,
            object.text("/spec/controlPlaneEndpoint/host").is_some(),
        )
    };
    if change
        .old
        .as_ref()
        .is_some_and(|old| watched(old) == watched(cluster))
    {
        return Vec::new();
    }
    unfinished(ctx, &cluster.key)
}

/// All unfinished configs of a Cluster, when its connection came.
fn of_connection(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    match change.object() {
        Some(cluster) if cluster.kind() == kinds::CLUSTER.kind => unfinished(ctx, &cluster.key),
        _ => Vec::new(),
    }
}

fn unfinished(ctx: &Ctx, cluster: &ObjectKey) -> Vec<Locator> {
    let mut locators = Vec::new();
    for resource in ctx.plugins.kinds_with(&[ROLE]) {
        let Some(store) = ctx.stores.get(&resource.group_kind()) else {
            continue;
        };
        let configs = store.of_cluster(cluster);
        let waiting = configs
            .iter()
            .filter(|config| config.text("/status/dataSecretName").is_none());
        locators.extend(waiting.map(|config| Locator::new(&resource, &config.key)));
    }
    locators
}

/// What a request to the workload cluster that was refused means.
fn workload_failure(doing: &str, error: &ApiError) -> Failure {
    // Whatever the workload cluster says of our rights there, it may say otherwise in a moment.
    Failure::transient("WorkloadRequestFailed", format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_gone_stays_gone_until_it_is_looked_at_again() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| at + Duration::from_secs(seconds);
        let id = || "abcdef".to_owned();
        let gone = Token::Gone { id: id() };
        let looked = Looked::new(&gone, at);
        assert_eq!(looked.still(after(1)), Some(gone.clone()));
        assert_eq!(looked.still(after(298)), Some(gone));
        assert_eq!(looked.still(after(299)), None);
        // It was kept alive if need be: nothing is written for every event of its object.
        let there = Token::Expires { id: id(), at };
        let looked = Looked::new(&there, at);
        assert_eq!(looked.still(after(1)), Some(Token::Settled));
        assert_eq!(looked.still(after(300)), None);
    }
}
