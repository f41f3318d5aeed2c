//! Infrastructure objects of active plugins: reads what `capstan_core::infrastructure` needs, calls the plugin, writes its answer.

mod cluster;
mod machine;
mod templates;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_core::answer;
use capstan_core::call::Deletion;
use capstan_core::call::infrastructure::DeletionAnswer;
use capstan_core::infrastructure::{self as core, Answer, Effect, Reported};
use capstan_core::plan::Failure;
use capstan_engine::CallError;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use cluster::InfraClusterController;
pub use machine::InfraMachineController;

use crate::controller::{Primary, Report, Spec};
use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::{GroupKind, Patch, Resource};
use crate::object::Object;
use crate::plugins::{ActivePlugin, encode_state};

/// Role of infrastructure machines.
const MACHINE_ROLE: &str = "infra-machine";

/// Role of templates of infrastructure machines.
const TEMPLATE_ROLE: &str = "infra-machine-template";

/// Role of infrastructure clusters.
pub(crate) const CLUSTER_ROLE: &str = "infra-cluster";

fn spec(name: &'static str, roles: &'static [&'static str]) -> Spec {
    Spec {
        name,
        manager: "capstan-infrastructure",
        primary: Primary::Roles(roles),
        finalizer: Some(capstan_api::finalizer::PLUGIN_OBJECT),
        pausable: true,
        concurrency: 32,
        settle: Duration::from_millis(20),
        hold: Duration::from_millis(1500),
    }
}

/// Whether a kind is infrastructure machines of an active plugin.
pub(crate) fn is_machine_kind(ctx: &Ctx, kind: &GroupKind) -> bool {
    ctx.plugins.role_of(kind).as_deref() == Some(MACHINE_ROLE)
}

/// A new object with the finalizer that its controller would set first, when that is one of this host.
pub(crate) fn finalized(ctx: &Ctx, mut object: Value) -> Value {
    let kind = Object::new(object.clone()).map(|object| object.group_kind());
    if kind.is_some_and(|kind| is_machine_kind(ctx, &kind))
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        let finalizer = capstan_api::finalizer::PLUGIN_OBJECT;
        metadata.insert("finalizers".to_owned(), json!([finalizer]));
    }
    object
}

/// The Cluster among an object's owners.
fn owner_cluster(object: &Object) -> Option<ObjectKey> {
    let owner = object
        .owners()
        .find(|owner| owner.kind == "Cluster" && owner.group == kinds::CLUSTER.group)?;
    let namespace = object.key.namespace.clone();
    Some(ObjectKey::new(namespace, owner.name))
}

/// When each object was last asked about.
#[derive(Default)]
struct Asked(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// Since when this is remembered.
    since: Option<Timestamp>,
    /// When, and as which generation, by UID.
    asked: HashMap<String, (Timestamp, i64)>,
}

impl Asked {
    /// When it was asked about as it is now; never, when somebody has changed its spec since.
    fn at(&self, object: &Object, now: Timestamp) -> core::Asked {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match memory.asked.get(&object.uid) {
            Some((at, generation)) if *generation >= object.generation() => core::Asked::At(*at),
            Some(_) => core::Asked::Never,
            None => core::Asked::NotSince(*memory.since.get_or_insert(now)),
        }
    }

    fn now(&self, uid: &str, now: Timestamp, generation: i64) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.asked.len() > 100_000 {
            // Objects that are gone: the others are asked about as after a start.
            *memory = Memory {
                since: Some(now),
                asked: HashMap::new(),
            };
        }
        memory.asked.insert(uid.to_owned(), (now, generation));
    }
}

impl From<Reported> for Report {
    fn from(reported: Reported) -> Self {
        Self {
            status: reported.status,
            conditions: reported.conditions,
            next: reported.next,
            finished: reported.finished,
            is_last_word: reported.is_last_word,
            ..Self::default()
        }
    }
}

/// What both controllers are beside what they ask their plugins.
struct Shell {
    spec: Spec,
    asked: Asked,
}

impl Shell {
    fn new(name: &'static str, roles: &'static [&'static str]) -> Self {
        Self {
            spec: spec(name, roles),
            asked: Asked::default(),
        }
    }

    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    /// Writes what a checked answer to `Ensure` says.
    async fn ensured<A: Answer>(
        &self,
        ctx: &Ctx,
        subject: &Subject,
        answer: A,
    ) -> Result<Effect<A>, Failure> {
        let state = answer.state().map(encode_state);
        let patch = core::patch(&subject.object.value, &answer, state.as_deref());
        let generation = subject.write(ctx, &self.writer(), patch).await?;
        let uid = &subject.object.uid;
        self.asked.now(uid, ctx.now(), generation);
        Ok(Effect::Ensured(Box::new(answer)))
    }

    /// Checks an answer to `Delete`, and keeps what the plugin wants to know at the next call.
    async fn deleted<A>(
        &self,
        ctx: &Ctx,
        subject: &Subject,
        answer: Result<DeletionAnswer, CallError>,
    ) -> Result<Effect<A>, Failure> {
        let answer = answer.map_err(|error| error.failure())?;
        answer::check_deletion(&answer)
            .map_err(|violation| violation.failure(&subject.plugin.name))?;
        subject.keep_state(ctx, &self.writer(), &answer).await?;
        Ok(Effect::Deleted(answer))
    }
}

/// The object, its resource and the plugin that owns its kind.
struct Subject {
    object: Object,
    resource: Resource,
    plugin: Arc<ActivePlugin>,
}

impl Subject {
    /// Of an object as it was observed.
    fn of(ctx: &Ctx, object: &Value) -> Result<Self, Failure> {
        let object = Object::new(object.clone())
            .ok_or_else(|| Failure::terminal("InvalidObject", "the object has no name"))?;
        let kind = object.group_kind();
        let plugin = ctx.plugins.serving(ctx, &object).ok_or_else(|| {
            Failure::denied(
                "PluginMissing",
                format!("no active plugin owns kind {kind}"),
            )
        })?;
        let resource = ctx
            .stores
            .get(&kind)
            .map(|store| store.resource().clone())
            .map_or_else(|| ctx.resolve(&kind), Ok)?;
        Ok(Self {
            object,
            resource,
            plugin,
        })
    }

    /// Keeps the state of a deletion's answer for the next call, unless there will be none.
    async fn keep_state(
        &self,
        ctx: &Ctx,
        writer: &Writer,
        answer: &DeletionAnswer,
    ) -> Result<(), Failure> {
        let state = answer.state.as_deref().map(encode_state);
        match (&answer.deletion, state) {
            (Deletion::Waiting(_), Some(state))
                if self.object.annotation(annotation::PLUGIN_STATE) != Some(&state) =>
            {
                let patch = json!({"metadata": {"annotations": {annotation::PLUGIN_STATE: state}}});
                self.write(ctx, writer, Some(patch)).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Writes what an answer says about the main resource. The answer is the generation that the plugin was asked about, with what the
    /// host itself has made of it.
    async fn write(
        &self,
        ctx: &Ctx,
        writer: &Writer,
        patch: Option<Value>,
    ) -> Result<i64, Failure> {
        let asked = self.object.generation();
        let Some(mut patch) = patch else {
            return Ok(asked);
        };
        let spec = self.object.value.get("spec").unwrap_or(&Value::Null);
        let own = patch.get("spec").is_some_and(|patch| changes(spec, patch));
        merge_uid(&mut patch, &self.object.uid);
        let patch = Patch::Merge(patch);
        let answer = ctx
            .patch(writer, &self.resource, &self.object.key, &patch)
            .await;
        let stored = answer.map_err(|error| failure("writing what the plugin answered", &error))?;
        Ok(stored
            .generation()
            .min(asked.saturating_add(i64::from(own))))
    }
}

/// Whether merging a patch into a value would make it another.
fn changes(value: &Value, patch: &Value) -> bool {
    match patch {
        Value::Object(fields) => fields.iter().any(|(name, patch)| {
            let value = value.get(name).unwrap_or(&Value::Null);
            changes(value, patch)
        }),
        other => value != other,
    }
}

/// Makes a patch fail when the object is another one of the same name by now.
fn merge_uid(patch: &mut Value, uid: &str) {
    if let Some(fields) = patch.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("uid".to_owned(), json!(uid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_host_has_asked_about_is_told_from_what_has_changed_since() {
        let object = |uid: &str, generation: i64| {
            let metadata = json!({"name": "m", "uid": uid, "generation": generation});
            Object::new(json!({"kind": "K", "metadata": metadata})).unwrap()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let asked = Asked::default();
        // The time of the first look stays.
        for now in [100, 200] {
            assert_eq!(
                asked.at(&object("a", 1), at(now)),
                core::Asked::NotSince(at(100))
            );
        }
        asked.now("a", at(300), 1);
        assert_eq!(asked.at(&object("a", 1), at(400)), core::Asked::At(at(300)));
        assert_eq!(asked.at(&object("a", 2), at(400)), core::Asked::Never);
        // What is forgotten with all others is not asked about with all others.
        (0..=100_000).for_each(|uid| asked.now(&uid.to_string(), at(500), 1));
        assert_eq!(
            asked.at(&object("a", 1), at(600)),
            core::Asked::NotSince(at(500))
        );
    }

    #[test]
    fn a_patch_changes_what_is_not_so_already() {
        let value = json!({"a": {"b": 1}, "c": "x"});
        assert!(!changes(&value, &json!({"a": {"b": 1}})));
        assert!(!changes(&value, &json!({"d": null})));
        assert!(changes(&value, &json!({"a": {"b": 2}})));
        assert!(changes(&value, &json!({"a": {"e": 1}})));
    }
}
