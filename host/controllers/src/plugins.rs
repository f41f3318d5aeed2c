//! The active plugins: which component answers for which kind, with which grants, limits and config.
//!
//! One immutable snapshot, swapped whole: a call that is under way keeps the plugin that it began with.

mod capability;
mod hold;
mod idempotency;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::{PluginCanary, PluginOwnedKindStatus};
use capstan_core::call::manifest::PluginKind;
use capstan_core::call::{Context, Mode, State};
use capstan_core::plugin::answers_for;
use capstan_engine::{
    BreakerState, CallEnv, Credential, CredentialSource, Grants, Limits, Loaded, RecordSink,
    SecretTable, StateStore,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::kinds;
use crate::kube_api::{GroupKind, KubeApi, Patch, Resource};
use crate::object::Object;
use crate::records::{RecordDir, Recorder};
use crate::secrets::Secrets;

/// A plugin that is called.
pub struct ActivePlugin {
    /// Name of the Plugin object.
    pub name: String,
    /// The Plugin object.
    pub key: ObjectKey,
    /// The component.
    pub loaded: Arc<Loaded>,
    /// What it may do.
    pub grants: Arc<Grants>,
    /// What a call may use.
    pub limits: Limits,
    /// `spec.config`.
    pub config: Value,
    /// Where the secret of each granted credential is.
    pub credentials: BTreeMap<String, SecretSource>,
    /// Another component for some objects.
    pub canary: Option<Canary>,
}

/// A second component, with the objects that it answers for.
#[derive(Clone, Debug)]
pub struct Canary {
    /// With the same name, grants, limits and config.
    pub plugin: Arc<ActivePlugin>,
    /// Which objects.
    pub spec: PluginCanary,
}

impl Canary {
    /// Whether the object is one of the canary's: by its namespace, or by the labels of its Cluster.
    fn is_for(&self, ctx: &Ctx, object: &Object) -> bool {
        let cluster = || cluster_of(object).and_then(|key| ctx.get(&kinds::CLUSTER, &key));
        let cluster = (!self.spec.match_labels.is_empty()).then(cluster).flatten();
        answers_for(&self.spec, &object.key.namespace, |label| {
            cluster.as_ref()?.label(label)
        })
    }
}

impl fmt::Debug for ActivePlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.loaded.digest())
    }
}

/// Where a credential's secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    /// Secret in the Plugin object's namespace.
    pub secret: String,
    /// Key in it.
    pub key: String,
    /// How it is added to a request.
    pub scheme: capstan_engine::CredentialScheme,
}

#[derive(Default)]
struct Snapshot {
    active: BTreeMap<String, Arc<ActivePlugin>>,
    kinds: BTreeMap<GroupKind, Owned>,
}

#[derive(Clone)]
struct Owned {
    role: String,
    plugin: String,
    resource: Resource,
}

/// All active plugins. Clones share them.
#[derive(Clone, Default)]
pub struct Plugins {
    inner: Arc<Inner>,
}

/// What a change is about: one plugin, as it was before and as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Kinds that it owned or owns.
    pub kinds: BTreeSet<GroupKind>,
    /// What kinds of plugin it was or is.
    pub is: BTreeSet<PluginKind>,
}

impl Changed {
    fn add(&mut self, snapshot: &Snapshot, name: &str) {
        for (kind, owned) in &snapshot.kinds {
            if owned.plugin == name {
                self.kinds.insert(kind.clone());
                self.is.extend(PluginKind::of_role(&owned.role));
            }
        }
        if let Some(plugin) = snapshot.active.get(name) {
            self.is.extend(plugin.loaded.kinds());
        }
    }
}

/// Told of every change.
type Listener = Box<dyn Fn(&Changed) + Send + Sync>;

/// Told of a Plugin that has to be looked at.
type News = Box<dyn Fn(&ObjectKey) + Send + Sync>;

#[derive(Default)]
struct Inner {
    snapshot: ArcSwap<Snapshot>,
    writing: Mutex<()>,
    changed: OnceLock<Listener>,
    news: OnceLock<News>,
    records: OnceLock<Arc<RecordDir>>,
    held: Arc<hold::Workers>,
}

impl Plugins {
    /// Writes records of calls there, for objects and Plugins that ask for it by annotation. The first directory counts.
    pub fn record_to(&self, dir: Arc<RecordDir>) {
        let _ = self.inner.records.set(dir);
    }

    /// One of a controller's workers for a call of a plugin; `None` when the plugin holds as many as it may.
    pub(crate) fn hold(
        &self,
        controller: &'static str,
        workers: usize,
        plugin: &str,
    ) -> Option<hold::Held> {
        self.inner.held.hold(controller, workers, plugin)
    }

    /// Calls this after every change. The first listener counts.
    pub fn listen(&self, changed: impl Fn(&Changed) + Send + Sync + 'static) {
        // A second listener would be a programming error without consequence: the first stays.
        let _ = self.inner.changed.set(Box::new(changed));
    }

    /// Calls this with every Plugin that has to be looked at because work on its source has ended. The first listener counts.
    pub fn listen_for_news(&self, news: impl Fn(&ObjectKey) + Send + Sync + 'static) {
        let _ = self.inner.news.set(Box::new(news));
    }

    /// Has a Plugin looked at.
    pub(crate) fn look_at(&self, plugin: &ObjectKey) {
        if let Some(news) = self.inner.news.get() {
            news(plugin);
        }
    }

    /// Role in which a plugin owns the kind that is, or in this process was, active.
    #[must_use]
    pub fn role_of(&self, kind: &GroupKind) -> Option<String> {
        self.inner
            .snapshot
            .load()
            .kinds
            .get(kind)
            .map(|owned| owned.role.clone())
    }

    /// As what a plugin reads the kind that is, or in this process was, active.
    #[must_use]
    pub fn resource(&self, kind: &GroupKind) -> Option<Resource> {
        let snapshot = self.inner.snapshot.load();
        snapshot.kinds.get(kind).map(|owned| owned.resource.clone())
    }

    /// The active plugin that owns the kind.
    #[must_use]
    pub fn owner_of(&self, kind: &GroupKind) -> Option<Arc<ActivePlugin>> {
        let snapshot = self.inner.snapshot.load();
        let owned = snapshot.kinds.get(kind)?;
        snapshot.active.get(&owned.plugin).cloned()
    }

    /// Kinds in one of these roles, of plugins that are, or in this process were, active.
    #[must_use]
    pub fn kinds_with(&self, roles: &[&str]) -> Vec<Resource> {
        let snapshot = self.inner.snapshot.load();
        let owned = snapshot
            .kinds
            .values()
            .filter(|owned| roles.contains(&owned.role.as_str()));
        owned.map(|owned| owned.resource.clone()).collect()
    }

    /// The component that answers for this object: of the plugin that owns its kind, or that plugin's canary.
    #[must_use]
    pub fn serving(&self, ctx: &Ctx, object: &Object) -> Option<Arc<ActivePlugin>> {
        let owner = self.owner_of(&object.group_kind())?;
        Some(owner.serving(ctx, object))
    }

    /// An active plugin by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<ActivePlugin>> {
        self.inner.snapshot.load().active.get(name).cloned()
    }

    /// An active upgrade strategy by name.
    #[must_use]
    pub fn strategy(&self, name: &str) -> Option<Arc<ActivePlugin>> {
        self.get(name)
            .filter(|plugin| plugin.loaded.kinds().contains(&PluginKind::UpgradeStrategy))
    }

    /// Names of all active plugins.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner.snapshot.load().active.keys().cloned().collect()
    }

    /// Puts a plugin in the place of the one of the same name, if any. The answer is a kind of its that an active plugin of another name
    /// owns, and that name: then nothing has changed.
    ///
    /// # Errors
    /// See above.
    pub fn activate(&self, plugin: ActivePlugin) -> Result<(), (GroupKind, String)> {
        let name = plugin.name.clone();
        self.change(&name, |snapshot| {
            for kind in &plugin.loaded.manifest().kinds {
                let kind = GroupKind {
                    group: kind.group.clone(),
                    kind: kind.kind.clone(),
                };
                let owner = snapshot.kinds.get(&kind).map(|owned| &owned.plugin);
                let owner = owner.filter(|owner| **owner != plugin.name);
                if let Some(owner) = owner.filter(|owner| snapshot.active.contains_key(*owner)) {
                    return Err((kind, owner.clone()));
                }
            }
            snapshot
                .kinds
                .retain(|_, owned| owned.plugin != plugin.name);
            for kind in &plugin.loaded.manifest().kinds {
                let resource =
                    Resource::namespaced(&kind.group, &kind.version, &kind.kind, &kind.plural);
                let owned = Owned {
                    role: kind.role.clone(),
                    plugin: plugin.name.clone(),
                    resource: resource.clone(),
                };
                snapshot.kinds.insert(resource.group_kind(), owned);
            }
            snapshot
                .active
                .insert(plugin.name.clone(), Arc::new(plugin));
            Ok(())
        })
    }

    /// Whether all of these kinds are known as some plugin's.
    #[must_use]
    pub fn knows(&self, kinds: &[PluginOwnedKindStatus]) -> bool {
        let snapshot = self.inner.snapshot.load();
        let mut kinds = kinds.iter();
        kinds.all(|kind| snapshot.kinds.contains_key(&resource_of(kind).group_kind()))
    }

    /// Knows kinds that were a plugin's in an earlier process and are nobody's in this one.
    pub fn recall(&self, name: &str, kinds: &[PluginOwnedKindStatus]) {
        // Nothing may be new, and then nobody has to look.
        let _ = self.change(name, |snapshot| {
            let before = snapshot.kinds.len();
            for kind in kinds {
                let resource = resource_of(kind);
                let known = snapshot.kinds.entry(resource.group_kind());
                known.or_insert_with(|| Owned {
                    role: kind.role.as_str().to_owned(),
                    plugin: name.to_owned(),
                    resource,
                });
            }
            (snapshot.kinds.len() > before).then_some(()).ok_or(())
        });
    }

    /// Calls a plugin no longer.
    pub fn deactivate(&self, name: &str) {
        // One that is not called anyway changes nothing.
        let _ = self.change(name, |snapshot| {
            // Its kinds stay known: their objects say that the plugin is missing.
            snapshot.active.remove(name).map(drop).ok_or(())
        });
    }

    /// Forgets a plugin whose object is gone: its kinds may belong to another provider from now on.
    pub fn remove(&self, name: &str) {
        // Others may have waited for its kinds also when nothing of it was known here.
        let _ = self.change(name, |snapshot| {
            snapshot.active.remove(name);
            snapshot.kinds.retain(|_, owned| owned.plugin != name);
            Ok::<(), ()>(())
        });
    }

    /// Changes what there is of a plugin, and tells who listens. What fails has changed nothing.
    fn change<E>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Snapshot) -> Result<(), E>,
    ) -> Result<(), E> {
        let writing = self
            .inner
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let current = self.inner.snapshot.load();
        let mut next = Snapshot {
            active: current.active.clone(),
            kinds: current.kinds.clone(),
        };
        change(&mut next)?;
        let mut about = Changed::default();
        about.add(&current, name);
        about.add(&next, name);
        self.inner.snapshot.store(Arc::new(next));
        drop(writing);
        if let Some(changed) = self.inner.changed.get() {
            changed(&about);
        }
        Ok(())
    }
}

fn resource_of(kind: &PluginOwnedKindStatus) -> Resource {
    Resource::namespaced(&kind.group, &kind.version, &kind.kind, &kind.plural)
}

/// Whether calls are held back now.
fn is_stopped(state: BreakerState) -> bool {
    match state {
        BreakerState::Closed => false,
        BreakerState::Open { until, .. } => std::time::Instant::now() < until,
        BreakerState::Trying => true,
    }
}

impl ActivePlugin {
    /// This component, or its canary for the canary's objects. A canary that fails too often is passed over until its pause is over.
    #[must_use]
    pub fn serving(self: Arc<Self>, ctx: &Ctx, object: &Object) -> Arc<Self> {
        match &self.canary {
            Some(canary)
                if canary.is_for(ctx, object) && !is_stopped(canary.plugin.loaded.breaker()) =>
            {
                Arc::clone(&canary.plugin)
            }
            _ => self,
        }
    }

    /// What every call about this object carries. `operation` and the object's UID make the idempotency key.
    #[must_use]
    pub fn context(&self, ctx: &Ctx, object: &Object, operation: &str, attempt: u32) -> Context {
        Context {
            now_ms: u64::try_from(ctx.now().as_millisecond()).unwrap_or_default(),
            deadline: self.limits.wall,
            attempt,
            idempotency_key: idempotency::key(&object.uid, operation),
            mode: if ctx.planned.is_some() {
                Mode::Plan
            } else {
                Mode::Apply
            },
            config: self.config.clone(),
            extra: Vec::new(),
        }
    }

    /// With what a call about this object is made.
    #[must_use]
    pub fn env(
        &self,
        ctx: &Ctx,
        resource: &Resource,
        object: &Object,
        secrets: SecretTable,
    ) -> CallEnv {
        CallEnv {
            plugin: self.name.clone(),
            object: format!("{} {}", object.kind(), object.key),
            grants: Arc::clone(&self.grants),
            limits: self.limits,
            secrets,
            state: Some(Arc::new(AnnotationState {
                api: Arc::clone(&ctx.api),
                resource: resource.clone(),
                key: object.key.clone(),
                uid: object.uid.clone(),
                first: state_of(object),
            })),
            credentials: Arc::new(SecretCredentials {
                api: Arc::clone(&ctx.api),
                secrets: ctx.secrets.clone(),
                namespace: self.key.namespace.clone(),
                sources: self.credentials.clone(),
            }),
            namespace: object.key.namespace.clone(),
            secret_source: Some(Arc::new(capability::ObjectSecrets::of(ctx))),
            workload: capability::OwnCluster::of(ctx, object),
            events: Some(Arc::new(capability::ObjectEvents::of(
                ctx, object, &self.name,
            ))),
            recorder: self.recorder(ctx, object),
            planned: ctx.planned.clone().unwrap_or_default(),
        }
    }

    /// Who takes the record of a call about this object, when the object or the Plugin asks for one.
    fn recorder(&self, ctx: &Ctx, object: &Object) -> Option<Arc<dyn RecordSink>> {
        let dir = ctx.plugins.inner.records.get()?;
        let asks = |object: &Object| object.annotation(annotation::RECORD) == Some("true");
        let is_asked = asks(object)
            || ctx
                .get(&kinds::PLUGIN, &self.key)
                .is_some_and(|plugin| asks(&plugin));
        is_asked.then(|| {
            let recorder: Arc<dyn RecordSink> = Arc::new(Recorder(Arc::clone(dir)));
            recorder
        })
    }
}

/// The Cluster that an object belongs to, or is: its name comes from the object, its namespace is the object's.
#[must_use]
pub fn cluster_of(object: &Object) -> Option<ObjectKey> {
    let is_cluster = object.group_kind() == kinds::CLUSTER.group_kind();
    let own = is_cluster.then(|| object.key.clone());
    own.or_else(|| {
        object
            .owners()
            .find(|owner| owner.kind == kinds::CLUSTER.kind && owner.group == kinds::CLUSTER.group)
            .map(|owner| ObjectKey::new(&object.key.namespace, owner.name))
    })
    .or_else(|| object.cluster())
}

/// A plugin's state of an object, kept in an annotation of that object.
#[must_use]
pub fn state_of(object: &Object) -> Option<State> {
    BASE64
        .decode(object.annotation(annotation::PLUGIN_STATE)?)
        .ok()
}

/// A state as the annotation holds it.
#[must_use]
pub fn encode_state(state: &[u8]) -> String {
    BASE64.encode(state)
}

struct AnnotationState {
    api: Arc<dyn KubeApi>,
    resource: Resource,
    key: ObjectKey,
    uid: String,
    first: Option<State>,
}

impl StateStore for AnnotationState {
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>> {
        let state = self.first.clone();
        async move { Ok(state) }.boxed()
    }

    fn put(&self, value: State) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let patch = Patch::Merge(json!({"metadata": {
                "uid": self.uid,
                "annotations": {annotation::PLUGIN_STATE: encode_state(&value)},
            }}));
            let answer = self
                .api
                .patch(&self.resource, &self.key, None, &patch, "capstan-state");
            answer.await.map(drop).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

struct SecretCredentials {
    api: Arc<dyn KubeApi>,
    secrets: Secrets,
    namespace: String,
    sources: BTreeMap<String, SecretSource>,
}

impl CredentialSource for SecretCredentials {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, String>> {
        async move {
            let source = self
                .sources
                .get(name)
                .ok_or_else(|| format!("no credential named {name} is granted"))?;
            let key = ObjectKey {
                namespace: self.namespace.clone(),
                name: source.secret.clone(),
            };
            let secret = self
                .secrets
                .get(&*self.api, &key)
                .await
                .map_err(|error| format!("reading Secret {key}: {error}"))?
                .ok_or_else(|| format!("Secret {key} does not exist"))?;
            let bytes = secret
                .data
                .get(&source.key)
                .ok_or_else(|| format!("Secret {key} has no key {}", source.key))?;
            Ok(Credential {
                scheme: source.scheme.clone(),
                secret: trimmed(bytes),
            })
        }
        .boxed()
    }
}

/// Without the line end that editors and `echo` leave: it would break a header.
fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b'\n' | b'\r'))
        .map_or(0, |at| at.saturating_add(1));
    bytes.iter().take(end).copied().collect()
}
