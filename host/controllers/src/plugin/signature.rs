//! Keys of signatures that come and go while components are loaded: what nobody with a present key has signed answers no calls where that is
//! required.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::reason::plugin as reason;
use capstan_core::plan::Failure;
use capstan_core::plugin::{Observed, Problem};
use capstan_engine::{LoadError, Loaded, PublicKey};
use jiff::Timestamp;

use super::memory::{Loading, again};
use super::{PluginController, key_of, problem};
use crate::ctx::Ctx;

impl PluginController {
    /// Checks all that is loaded of a Plugin with the keys that there are now.
    pub(super) async fn check_signatures(
        &self,
        ctx: &Ctx,
        observed: &Observed,
    ) -> Result<(), Failure> {
        let key = key_of(&observed.plugin);
        let work = self.work(ctx);
        // Before they are read: what changes after this is checked again.
        let version = work.keys_version().await;
        let keys = work.keys().await?;
        let active = ctx.plugins.get(&key.name);
        let active = active.filter(|active| active.key == key);
        let canary = active.as_ref().and_then(|active| active.canary.as_ref());
        let mut all: Vec<Arc<Loaded>> = self.remember(&key, |memory| {
            let of = |attempt: &Option<Loading>| attempt.as_ref()?.result.clone().ok();
            let previous = memory.previous.clone();
            let known = [of(&memory.attempt), of(&memory.canary), previous];
            known.into_iter().flatten().collect()
        });
        all.extend(active.iter().map(|active| Arc::clone(&active.loaded)));
        all.extend(canary.map(|canary| Arc::clone(&canary.plugin.loaded)));
        let refused = self.refused(all, &keys).await?;
        let now = ctx.now();
        self.remember(&key, |memory| {
            for attempt in [&mut memory.attempt, &mut memory.canary] {
                refuse(attempt, &refused, now);
            }
            let previous = memory.previous.take();
            memory.previous = previous.filter(|previous| !refused.contains_key(previous.digest()));
            memory.lost = None;
            memory.keys = version;
        });
        let is_refused = |loaded: &Loaded| refused.contains_key(loaded.digest());
        if active
            .as_ref()
            .is_some_and(|active| is_refused(&active.loaded))
        {
            ctx.plugins.deactivate(&key.name);
            self.remember(&key, |memory| memory.active = None);
        } else if canary.is_some_and(|canary| is_refused(&canary.plugin.loaded)) {
            self.route(ctx, observed, false)?;
        }
        Ok(())
    }

    /// Those that nobody with one of these keys has signed, by their digest.
    async fn refused(
        &self,
        mut all: Vec<Arc<Loaded>>,
        keys: &[PublicKey],
    ) -> Result<BTreeMap<String, LoadError>, Failure> {
        all.sort_by_key(|loaded| Arc::as_ptr(loaded).addr());
        all.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let mut refused = BTreeMap::new();
        for loaded in all {
            match self.engine.check_again(&loaded, keys).await {
                Ok(()) => {}
                Err(error @ LoadError::NotSigned { .. }) => {
                    tracing::warn!(digest = loaded.digest(), "{error}");
                    refused.insert(loaded.digest().to_owned(), error);
                }
                Err(error) => {
                    let problem = problem(&error);
                    return Err(Failure::transient(&problem.reason, problem.message));
                }
            }
        }
        Ok(refused)
    }
}

/// What was made of a source, now that these are refused.
fn refuse(attempt: &mut Option<Loading>, refused: &BTreeMap<String, LoadError>, now: Timestamp) {
    let Some(loading) = attempt else {
        return;
    };
    match &loading.result {
        Ok(loaded) => {
            if let Some(error) = refused.get(loaded.digest()) {
                let problem = problem(error);
                let message = again(&problem.message, now, 1);
                loading.result = Err(Problem { message, ..problem });
                (loading.at, loading.failures, loading.is_told) = (now, 1, false);
            }
        }
        // A key may have come that it is signed with, or one gone that was none.
        Err(before) => {
            let is_about_keys =
                before.reason == reason::NOT_SIGNED || before.reason == reason::KEY_INVALID;
            if is_about_keys {
                *attempt = None;
            }
        }
    }
}
