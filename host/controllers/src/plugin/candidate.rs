//! What is known of a loaded component, in the words of the pure side.

use std::sync::Arc;

use capstan_api::plugin::Plugin;
use capstan_core::plugin::{Attempt, Candidate, Missing};
use capstan_engine::{CallOutcome, Loaded, Signed};
use jiff::Timestamp;

use super::grants;
use super::memory::Loading;

/// What became of a source.
pub(super) fn attempt_of(plugin: &Plugin, loading: Loading, now: Timestamp) -> Attempt {
    let pause = loading.pause(now);
    let Loading {
        version,
        at,
        pinned,
        resolved,
        result,
        ..
    } = loading;
    Attempt {
        version,
        pause,
        pinned,
        result: result.map(|loaded| candidate(plugin, &loaded, at, resolved)),
    }
}

/// All calls, and those that failed because of the plugin.
pub(super) fn calls_of(loaded: &Loaded) -> (u64, u64) {
    let mut counts = (0_u64, 0_u64);
    for stats in loaded.stats() {
        for (outcome, count) in stats.outcomes {
            counts.0 = counts.0.saturating_add(count);
            let is_fault = matches!(
                outcome,
                CallOutcome::Trapped
                    | CallOutcome::TimedOut
                    | CallOutcome::OutOfMemory
                    | CallOutcome::BadAnswer
            );
            if is_fault {
                counts.1 = counts.1.saturating_add(count);
            }
        }
    }
    counts
}

fn candidate(
    plugin: &Plugin,
    loaded: &Loaded,
    at: Timestamp,
    resolved: Option<String>,
) -> Candidate {
    let (signed_by, not_signed) = match loaded.signed() {
        Signed::Unchecked => (None, None),
        Signed::By(key) => (Some(key.name().to_owned()), None),
        Signed::Not(why) => (None, Some(why)),
    };
    let granted = grants::grants(&plugin.spec);
    let invalid = granted.as_ref().err().map(|error| error.message.clone());
    let grants = Arc::new(granted.unwrap_or_default());
    let manifest = loaded.manifest().clone();
    let missing = loaded.missing(&grants);
    let effective = loaded.effective(&grants);
    let mut cuts = loaded.cuts(&grants);
    cuts.extend(grants::cuts(&plugin.spec, loaded.ceilings()));
    let granted = manifest
        .capabilities
        .iter()
        .map(|request| request.name.clone())
        .filter(|name| effective.allows(name))
        .collect();
    Candidate {
        digest: loaded.digest().to_owned(),
        abi: loaded.abi().to_owned(),
        resolved,
        signed_by,
        not_signed,
        source_bytes: loaded.source_bytes(),
        compiled_bytes: loaded.compiled_bytes(),
        compile_time: (!loaded.cached()).then(|| loaded.compile_time()),
        loaded_at: at,
        roles: loaded
            .kinds()
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        cuts,
        missing: missing
            .into_iter()
            .map(|m| Missing {
                capability: m.capability,
                why: m.why,
                yaml: m.yaml,
                by_ceiling: m.by_ceiling,
            })
            .collect(),
        granted,
        invalid_grants: invalid,
        manifest,
    }
}
