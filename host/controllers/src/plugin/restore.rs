//! What a host that was started again learns from the status: which component was given up, and which one answered calls.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_api::plugin::{Plugin, PluginCanary, PluginVersionState};
use capstan_core::lookup::Lookup;
use capstan_core::plan::Failure;
use capstan_core::plugin::Observed;
use capstan_engine::Loaded;

use super::work::Version;
use super::{PluginController, claim, key_of};
use crate::ctx::Ctx;

/// That this digest was given up, and why, if it was and the operator does not name it.
pub(super) fn given_up(plugin: &Plugin, digest: &str) -> Option<(String, String)> {
    let history = plugin.status.as_ref().map(|status| &status.history)?;
    let latest = history.iter().find(|entry| entry.digest == digest)?;
    let is_wanted = plugin.spec.digest.as_deref() == Some(digest);
    let is_given_up = latest.state == PluginVersionState::GivenUp && !is_wanted;
    is_given_up.then(|| {
        (
            digest.to_owned(),
            latest.message.clone().unwrap_or_default(),
        )
    })
}

/// What answered calls last, unless this host does not have it.
pub(super) fn last_good(plugin: &Plugin, lost: Option<&str>) -> Option<String> {
    let history = plugin.status.as_ref().map(|status| &status.history)?;
    let first = history.first()?;
    let is_usable =
        first.state == PluginVersionState::Active && lost != Some(first.digest.as_str());
    is_usable.then(|| first.digest.clone())
}

impl PluginController {
    /// A canary that is named by its digest is had from what this host has or keeps, and its source is not even looked for: it may be gone,
    /// may have something else by now, or may be a registry that does not answer. `None` when it has to come from its source.
    pub(super) fn kept_canary(&self, key: &ObjectKey, canary: &PluginCanary) -> Option<Version> {
        let digest = canary.digest.as_ref()?;
        let known = self.remember(key, |memory| {
            let loading = memory.canary.as_ref()?;
            match &loading.result {
                Ok(loaded) if loaded.digest() == digest => Some(Ok(loading.version.clone())),
                _ => (loading.pinned.as_ref() == Some(digest)).then_some(Err(())),
            }
        });
        let version = match known {
            Some(Ok(version)) => version,
            // What is kept was tried.
            Some(Err(())) => return None,
            None => self.engine.keeps(digest).then(|| digest.clone())?,
        };
        Some(Version {
            lookup: Lookup::Found(version),
            underway: None,
            again: None,
        })
    }

    /// Lets a component answer calls that this host keeps from an earlier time.
    pub(super) async fn restore(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        digest: &str,
    ) -> Result<(), Failure> {
        let key = key_of(&observed.plugin);
        let policy = self.engine.sources().policy;
        let keys = self.work(ctx).keys().await?;
        let kept: Result<Option<Arc<Loaded>>, _> =
            self.engine.load_kept(digest, policy, keys).await;
        let why = match kept {
            Ok(Some(loaded)) => match claim::conflicts(ctx, &observed.plugin, &loaded).first() {
                None => return self.activate(ctx, observed, &loaded),
                Some((kind, owner)) => format!("kind {kind} belongs to {owner} by now"),
            },
            Ok(None) => "this host does not keep it".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(plugin = %key, digest, "what answered calls before cannot do so again: {why}");
        self.remember(&key, |memory| memory.lost = Some(digest.to_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(history: serde_json::Value, pinned: Option<&str>) -> Plugin {
        serde_json::from_value(json!({
            "apiVersion": "capstan.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"namespace": "ns", "name": "p"},
            "spec": {"source": {"configMap": {"name": "p"}}, "digest": pinned},
            "status": {"history": history},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_given_up_stays_so_until_it_is_named_or_answers_again() {
        let history = json!([
            {"digest": "good", "state": "Active"},
            {"digest": "bad", "state": "GivenUp", "message": "it traps"},
        ]);
        let bad = Some(("bad".to_owned(), "it traps".to_owned()));
        assert_eq!(given_up(&plugin(history.clone(), None), "bad"), bad);
        assert_eq!(given_up(&plugin(history.clone(), Some("bad")), "bad"), None);
        assert_eq!(given_up(&plugin(history.clone(), None), "good"), None);
        let again = json!([
            {"digest": "bad", "state": "Active"},
            {"digest": "good", "state": "Replaced"},
            {"digest": "bad", "state": "GivenUp", "message": "it traps"},
        ]);
        assert_eq!(given_up(&plugin(again, None), "bad"), None);
        let last = last_good(&plugin(history.clone(), None), None);
        assert_eq!(last.as_deref(), Some("good"));
        assert_eq!(last_good(&plugin(history, None), Some("good")), None);
        assert_eq!(last_good(&plugin(json!([]), None), None), None);
    }
}
