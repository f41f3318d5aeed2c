//! The canary of a Plugin: a second component that answers for some objects, or after its promotion for all.

use std::time::Duration;

use capstan_api::condition::bounded;
use capstan_api::plugin::{PluginCanary, PluginCanaryState, PluginCanaryStatus};
use capstan_api::reason::plugin as reason;

use super::{Attempt, Observed, Problem, Step, Underway, is_current};
use crate::call::manifest::Manifest;
use crate::lookup::Lookup;

/// The canary as it is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedCanary {
    /// Version of its source.
    pub source: Lookup<String>,
    /// What was last made of it.
    pub attempt: Option<Attempt>,
    /// What is being done with its source.
    pub underway: Option<Underway>,
    /// What answers for its objects, if anything does.
    pub active: Option<ActiveCanary>,
    /// It trapped so often that calls to it are held back: its objects are answered for by the other component.
    pub stopped: bool,
    /// How soon its source is looked at again.
    pub recheck: Option<Duration>,
}

/// A canary that answers calls.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveCanary {
    /// Its digest.
    pub digest: String,
    /// What the object said of it then.
    pub spec: PluginCanary,
}

/// Whether an object is one of the canary's: by its namespace, or by the labels of its Cluster.
#[must_use]
pub fn answers_for<'a>(
    canary: &PluginCanary,
    namespace: &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> bool {
    if canary.promoted || canary.namespaces.iter().any(|own| own == namespace) {
        return true;
    }
    let mut wanted = canary.match_labels.iter();
    !canary.match_labels.is_empty() && wanted.all(|(name, value)| label(name) == Some(value))
}

/// Why the canary must not answer calls, if so.
pub(super) fn obstacle(observed: &Observed, canary: &ObservedCanary) -> Option<Problem> {
    obstacle_beside(observed.serving.as_ref(), canary)
}

/// Whether the canary that was loaded may answer calls beside this component from its first call on.
#[must_use]
pub fn may_serve_beside(observed: &Observed, stable: &Manifest) -> bool {
    let canary = observed.canary.as_ref();
    let loaded = canary.filter(|canary| canary.attempt.is_some());
    observed.plugin.spec.canary.is_some()
        && loaded.is_some_and(|canary| obstacle_beside(Some(stable), canary).is_none())
}

/// What has to be known of the canary before anything answers calls: after a start of the host the objects of a canary that served before
/// are not given to the component beside it for a while. One that cannot be loaded, or looked for, is not waited for,
/// nor is one that takes long. The step that brings it, if it is not on its way already.
pub(super) fn awaited(observed: &Observed) -> Option<Option<Step>> {
    let canary = observed.canary.as_ref()?;
    let spec = observed.plugin.spec.canary.as_ref()?;
    let before = observed.plugin.status.as_ref()?.canary.as_ref()?;
    let served = matches!(
        before.state,
        PluginCanaryState::Serving | PluginCanaryState::Promoted | PluginCanaryState::Stopped
    );
    let is_unknown = observed.active.is_none() && canary.attempt.is_none();
    // A digest that is not the one that served is another canary, which nothing waits for.
    let is_same = spec.digest.is_none() || spec.digest == before.digest;
    if !(served && is_unknown && is_same) {
        return None;
    }
    match (&canary.underway, canary.source.found()) {
        (Some(underway), _) => (!underway.is_long()).then_some(None),
        (None, Some(version)) => Some(Some(Step::LoadCanary {
            version: version.clone(),
        })),
        (None, None) => None,
    }
}

/// When the canary has to be looked at though nothing tells of it.
pub(super) fn next_look(canary: &ObservedCanary) -> Option<Duration> {
    let pause = canary.attempt.as_ref().and_then(|attempt| attempt.pause);
    let long = canary.underway.as_ref().and_then(|u| u.long_after);
    [canary.recheck, pause, long].into_iter().flatten().min()
}

fn obstacle_beside(stable: Option<&Manifest>, canary: &ObservedCanary) -> Option<Problem> {
    match &canary.source {
        Lookup::Missing => {
            let message = "spec.canary.source: it does not exist";
            return Some(Problem::new("Verified", reason::SOURCE_NOT_FOUND, message));
        }
        Lookup::Unknown(_) if canary.underway.is_some() => return None,
        Lookup::Unknown(why) => {
            let problem = Problem::new("Verified", reason::SOURCE_UNAVAILABLE, why.clone());
            return Some(problem);
        }
        Lookup::Found(_) => {}
    }
    let candidate = match &canary.attempt.as_ref()?.result {
        Ok(candidate) => candidate,
        Err(problem) => return Some(problem.clone()),
    };
    if let Some(missing) = candidate.missing.first() {
        let message = format!(
            "the canary needs the capability {}, which is not granted: {}",
            missing.capability, missing.yaml
        );
        return Some(Problem::new("Granted", reason::GRANT_MISSING, message));
    }
    same_kinds(stable?, &candidate.manifest)
}

/// Both answer for the same objects, so both own the same kinds: it is compared with what answers calls, whatever the source beside it
/// has by now.
fn same_kinds(stable: &Manifest, canary: &Manifest) -> Option<Problem> {
    let kinds = |manifest: &Manifest| {
        let kinds = manifest.kinds.iter();
        let mut kinds: Vec<String> = kinds
            .map(|kind| {
                format!(
                    "{} {}/{} {}",
                    kind.role, kind.group, kind.version, kind.kind
                )
            })
            .collect();
        kinds.sort();
        kinds
    };
    if stable.name == canary.name && kinds(stable) == kinds(canary) {
        return None;
    }
    let message = format!(
        "the canary is {} with the kinds [{}], the component beside it {} with [{}]: they must be the same",
        canary.name,
        kinds(canary).join(", "),
        stable.name,
        kinds(stable).join(", ")
    );
    Some(Problem::new("Compatible", reason::KIND_CONFLICT, message))
}

/// What should happen to the canary, once the component beside it answers calls.
pub(super) fn decide(observed: &Observed) -> Vec<Step> {
    let Some(canary) = &observed.canary else {
        return Vec::new();
    };
    let Some(spec) = &observed.plugin.spec.canary else {
        return match canary.active {
            Some(_) => vec![Step::DropCanary],
            None => Vec::new(),
        };
    };
    if observed.active.is_none() {
        return Vec::new();
    }
    let Lookup::Found(version) = &canary.source else {
        return Vec::new();
    };
    let current = canary.attempt.as_ref();
    let current = current.filter(|attempt| is_current(attempt, version, spec.digest.as_ref()));
    let Some(attempt) = current else {
        if canary.underway.is_some() {
            return Vec::new();
        }
        return vec![Step::LoadCanary {
            version: version.clone(),
        }];
    };
    let Ok(candidate) = &attempt.result else {
        return Vec::new();
    };
    let active = canary
        .active
        .as_ref()
        .filter(|active| active.digest == candidate.digest);
    // What answers beside it may have been replaced by something of other kinds.
    let serving = observed.serving.as_ref();
    if active.is_some() && serving.is_some_and(|s| same_kinds(s, &candidate.manifest).is_some()) {
        return vec![Step::DropCanary];
    }
    let is_active = active.is_some_and(|active| active.spec == *spec);
    if is_active || obstacle(observed, canary).is_some() {
        return Vec::new();
    }
    vec![Step::ActivateCanary]
}

/// What the status says of the canary.
pub(super) fn report(observed: &Observed) -> Option<PluginCanaryStatus> {
    let spec = observed.plugin.spec.canary.as_ref()?;
    let canary = observed.canary.as_ref()?;
    let candidate = canary.attempt.as_ref().and_then(|a| a.result.as_ref().ok());
    let problem = obstacle(observed, canary);
    let active = canary.active.as_ref();
    let state = match (active, &problem) {
        (Some(_), _) if canary.stopped => PluginCanaryState::Stopped,
        (Some(active), _) if active.spec.promoted => PluginCanaryState::Promoted,
        (Some(_), _) => PluginCanaryState::Serving,
        (None, Some(_)) => PluginCanaryState::Failed,
        (None, None) => PluginCanaryState::Waiting,
    };
    let message = match (&problem, canary.stopped) {
        (Some(problem), _) => Some(problem.message.clone()),
        (None, true) => Some(
            "it failed so often that the other component answers for its objects for a while"
                .to_owned(),
        ),
        (None, false) => canary
            .underway
            .as_ref()
            .map(|underway| underway.what.clone()),
    };
    let message = message.map(bounded);
    Some(PluginCanaryStatus {
        digest: active
            .map(|active| active.digest.clone())
            .or_else(|| candidate.map(|candidate| candidate.digest.clone())),
        version: candidate.map(|candidate| candidate.manifest.version.clone()),
        state,
        promoted: spec.promoted,
        message,
    })
}
