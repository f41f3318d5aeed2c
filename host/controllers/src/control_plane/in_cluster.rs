//! Has the plugin do its work inside the workload cluster, and remembers what came of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use capstan_api::name::ObjectKey;
use capstan_core::call::Progress;
use capstan_core::control_plane::in_cluster::StableWork;
use capstan_core::plan::{Failure, FailureKind};

use super::Seen;
use super::observe::Ask;
use crate::ctx::Ctx;

/// What came of the work in stable clusters, by control plane. A host that starts anew does the work once more, which changes nothing.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<ObjectKey, (For, StableWork)>>);

/// What the work was done for: another object, another spec or another plugin has it done anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct For {
    uid: String,
    generation: i64,
    annotations: Option<String>,
    digest: String,
    grants: String,
}

impl For {
    fn of(seen: &Seen) -> Option<Self> {
        let plugin = seen.plugin.as_ref()?;
        let annotations = seen.object.value.pointer("/metadata/annotations");
        let skips = annotations
            .and_then(serde_json::Value::as_object)
            .map(|all| {
                let names = all.keys().filter(|name| name.contains("/skip-"));
                names.cloned().collect::<Vec<_>>().join(" ")
            });
        Some(Self {
            uid: seen.object.uid.clone(),
            generation: seen.object.generation(),
            annotations: skips,
            digest: plugin.loaded.digest().to_owned(),
            grants: format!("{:?}", plugin.grants.workload),
        })
    }
}

impl Memory {
    /// What came of the work, if it was for what is there now.
    pub(super) fn of(&self, seen: &Seen) -> Option<StableWork> {
        let now = For::of(seen)?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (was, work) = all.get(&seen.object.key)?;
        (*was == now).then(|| work.clone())
    }

    /// Forgets a control plane that is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(key);
    }
}

/// Before a machine joins. Outside of a roll-out it joined before this was asked for, so that it needs no right to do it.
pub(super) async fn before_join(ctx: &Ctx, seen: &Seen, is_rollout: bool) -> Result<(), Failure> {
    let done = before_rollout(ctx, seen).await;
    match done {
        Err(failure) if failure.kind == FailureKind::Denied && !is_rollout => {
            tracing::warn!(control_plane = %seen.object.key, "a machine joins with what the cluster says: {failure}");
            Ok(())
        }
        done => done.map_err(|failure| {
            let when = if is_rollout {
                "before the roll-out goes on"
            } else {
                "before a machine joins"
            };
            named(when, failure)
        }),
    }
}

async fn before_rollout(ctx: &Ctx, seen: &Seen) -> Result<(), Failure> {
    let (plugin, cluster) = (seen.plugin.as_deref(), seen.cluster.as_deref());
    let (Some(plugin), Some(cluster)) = (plugin, cluster) else {
        return Err(Failure::transient(
            "InternalError",
            "the Cluster or its plugin went away",
        ));
    };
    let ask = Ask::new(ctx, plugin, &seen.object, cluster)?;
    let input = ask.input("before-rollout");
    let progress = plugin.loaded.before_rollout(ask.env(), input).await;
    done(progress.map_err(|error| error.failure())?)
}

/// In a stable cluster. What does not work is noted for the object's conditions: it must not keep the control plane from anything else.
pub(super) async fn after_stable(ctx: &Ctx, memory: &Memory, seen: &Seen) -> Result<(), Failure> {
    let (plugin, cluster) = (seen.plugin.as_deref(), seen.cluster.as_deref());
    let (Some(plugin), Some(cluster), Some(key)) = (plugin, cluster, For::of(seen)) else {
        return Ok(());
    };
    let ask = Ask::new(ctx, plugin, &seen.object, cluster)?;
    let input = ask.input("after-stable");
    let progress = plugin.loaded.after_stable(ask.env(), input).await;
    let failure = progress
        .map_err(|error| error.failure())
        .and_then(done)
        .err();
    if let Some(failure) = &failure {
        tracing::warn!(reason = %failure.reason, "in-cluster components: {failure}");
    }
    let work = StableWork {
        at: ctx.now(),
        failure,
    };
    let mut all = memory.0.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(seen.object.key.clone(), (key, work));
    Ok(())
}

/// Work that waits is tried again when the plugin says so.
fn done(progress: Progress) -> Result<(), Failure> {
    match progress {
        Progress::Ready => Ok(()),
        Progress::Waiting(waiting) => {
            let mut failure = Failure::transient(waiting.reason, waiting.message);
            failure.retry_after = Some(waiting.check_after);
            Err(failure)
        }
    }
}

fn named(when: &str, mut failure: Failure) -> Failure {
    failure.message = format!("{when}: {}", failure.message);
    failure
}
