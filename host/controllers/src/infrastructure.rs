//! Infrastructure objects of active plugins: reads what `capstan_core::infrastructure` needs, calls the plugin, writes its answer.

mod cluster;
mod machine;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::annotation;
use capstan_core::call::Deletion;
use capstan_core::call::infrastructure::DeletionAnswer;
use capstan_core::plan::Failure;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use cluster::InfraClusterController;
pub use machine::InfraMachineController;

use crate::controller::{Primary, Spec};
use crate::ctx::{Ctx, Writer, failure};
use crate::kube_api::{Patch, Resource};
use crate::object::Object;
use crate::plugins::{ActivePlugin, encode_state};

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

/// When each object was last asked about, by UID.
#[derive(Default)]
struct Asked(Mutex<HashMap<String, Timestamp>>);

impl Asked {
    fn at(&self, uid: &str) -> Option<Timestamp> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .copied()
    }

    fn now(&self, uid: &str, now: Timestamp) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() > 100_000 {
            // Objects that are gone: being asked about once more is all that the others lose.
            asked.clear();
        }
        asked.insert(uid.to_owned(), now);
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
        let plugin = ctx.plugins.owner_of(&kind).ok_or_else(|| {
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
                self.write(ctx, writer, Some(patch)).await
            }
            _ => Ok(()),
        }
    }

    /// Writes what an answer says about the main resource.
    async fn write(&self, ctx: &Ctx, writer: &Writer, patch: Option<Value>) -> Result<(), Failure> {
        let Some(mut patch) = patch else {
            return Ok(());
        };
        merge_uid(&mut patch, &self.object.uid);
        let patch = Patch::Merge(patch);
        let answer = ctx
            .patch(writer, &self.resource, &self.object.key, &patch)
            .await;
        answer
            .map(drop)
            .map_err(|error| failure("writing what the plugin answered", &error))
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
