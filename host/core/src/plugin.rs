//! Plugin: from a source to a component that answers calls, and what the Plugin object says about it.

mod canary;
mod report;

use std::time::Duration;

use capstan_api::condition::Report;
use capstan_api::plugin::{Plugin, PluginSource, PluginStatus};
use capstan_api::reason::plugin as reason;
use jiff::Timestamp;

pub use canary::{ActiveCanary, ObservedCanary, answers_for, may_serve_beside};
pub use report::report;

use crate::call::manifest::Manifest;
use crate::lookup::Lookup;
use crate::plan::{Next, Plan};

/// A component that was verified, compiled and asked for its manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// `sha256:<hex>` of the decompressed component.
    pub digest: String,
    /// WIT version.
    pub abi: String,
    /// `registry/repository@digest`, for what came from a registry.
    pub resolved: Option<String>,
    /// Whose signature it has: a key's place.
    pub signed_by: Option<String>,
    /// Why it counts as not signed, when that is worth a word.
    pub not_signed: Option<String>,
    /// Size of the component.
    pub source_bytes: u64,
    /// Size of the native code.
    pub compiled_bytes: u64,
    /// How long compiling took; `None` when the cache had it.
    pub compile_time: Option<Duration>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Names of the interfaces that it offers.
    pub roles: Vec<String>,
    /// Capabilities that still have to be granted.
    pub missing: Vec<Missing>,
    /// What is granted or set as a limit, and left out by the ceiling of the host.
    pub cuts: Vec<String>,
    /// Capabilities that are granted.
    pub granted: Vec<String>,
    /// What is wrong with the grants, if they cannot be read; nothing is granted then.
    pub invalid_grants: Option<String>,
}

/// A capability that a plugin cannot do without and does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Name.
    pub capability: String,
    /// The plugin's reason.
    pub why: String,
    /// The entry that would give it.
    pub yaml: String,
    /// The Plugin object grants it, the ceiling of the host does not allow it.
    pub by_ceiling: bool,
}

/// Why a source did not become a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The condition that is False: `Verified`, `Compiled` or `Compatible`.
    pub condition: String,
    /// CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Trying again may help.
    pub is_transient: bool,
}

impl Problem {
    /// A problem that stays until the source or the object changes.
    #[must_use]
    pub fn new(condition: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            condition: condition.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            is_transient: false,
        }
    }
}

/// What became of one version of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Resource version of the source, and the key in it.
    pub version: String,
    /// How long what failed for a passing reason is left alone from now on; longer each time.
    pub pause: Option<Duration>,
    /// The digest that was accepted then, if only one was.
    pub pinned: Option<String>,
    /// What it became.
    pub result: Result<Candidate, Problem>,
}

/// Work on a source that goes on beside everything else: a registry is asked, or a component fetched and compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underway {
    /// What, and since when, for a person.
    pub what: String,
    /// How soon it counts as long; `None` when it does already. What takes long is not waited for where something else can answer.
    pub long_after: Option<Duration>,
}

impl Underway {
    fn is_long(&self) -> bool {
        self.long_after.is_none()
    }
}

/// The component that answers calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its digest.
    pub digest: String,
    /// Generation of the Plugin object whose grants, limits and config it has.
    pub generation: i64,
}

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The Plugin object.
    pub plugin: Plugin,
    /// Why the host does not load plugins from where this object is, if so.
    pub misplaced: Option<String>,
    /// Version of the source; Missing when there is no such ConfigMap.
    pub source: Lookup<String>,
    /// What was last made of the source, in this process.
    pub attempt: Option<Attempt>,
    /// What is being done with the source.
    pub underway: Option<Underway>,
    /// The keys that signatures are checked with are others than those that were.
    pub keys_changed: bool,
    /// What answers calls, in this process.
    pub active: Option<Active>,
    /// What the component that answers calls says of itself.
    pub serving: Option<Manifest>,
    /// Kinds of the candidate that belong to others: kind and owner.
    pub conflicts: Vec<(String, String)>,
    /// How soon a source that nothing watches is looked at again.
    pub recheck: Option<Duration>,
    /// The component that answered calls before, which is kept for a while.
    pub previous: Option<String>,
    /// What answers calls took over lately, and has trapped so often since that calls to it are held back.
    pub trapped: bool,
    /// A digest that was given up, and why.
    pub given_up: Option<(String, String)>,
    /// What answered calls last according to the status, if this process may still have it: a host that starts again does not know.
    pub last_good: Option<String>,
    /// A digest that was to be brought back, and that this host does not keep or cannot use.
    pub lost: Option<String>,
    /// A second component for some objects, wanted or still there.
    pub canary: Option<ObservedCanary>,
    /// That calls of what answers them are held back, and why and for how long, for a person.
    pub held_back: Option<String>,
    /// Calls so far of what answers them, and how many of those failed because of it.
    pub calls: (u64, u64),
    /// The status names kinds that this process does not know as this plugin's.
    pub forgotten_kinds: bool,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin to fetch, verify, compile, ask for the manifest.
    Load {
        /// Version of the source that was seen.
        version: String,
    },
    /// Check everything that was loaded with the keys that there are now. What nobody with such a key has signed, where that is required,
    /// answers no calls any more.
    CheckSignatures,
    /// Install the CustomResourceDefinitions of its kinds.
    InstallKinds,
    /// Let the candidate answer calls.
    Activate,
    /// Let what answers calls have the grants, limits and config of the object as it is now, whatever becomes of its source: what
    /// was taken away holds from the next call on.
    Regrant,
    /// Let the component that answered calls before answer them again.
    FallBack,
    /// Let the component that answered calls before this host started answer them again, from what the host keeps.
    Restore {
        /// Its digest.
        digest: String,
    },
    /// As [`Step::Load`], of the canary.
    LoadCanary {
        /// Version of its source that was seen.
        version: String,
    },
    /// Let the canary answer calls about its objects, or about all when it is promoted.
    ActivateCanary,
    /// Let the canary answer no calls any more.
    DropCanary,
    /// Let nothing answer calls.
    Deactivate,
    /// Know the kinds that the status names, so that their objects say that the plugin is missing: an earlier process knew them.
    RecallKinds,
}

/// What the status says, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: PluginStatus,
    /// All five conditions.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
}

/// How soon it is noticed that a component traps: nothing wakes anybody for that, and looking costs nothing.
const LOOK: Duration = Duration::from_secs(5);

/// How often the counts of calls in the status follow the real ones.
const COUNTED_EVERY: Duration = Duration::from_secs(300);

/// Why the candidate must not answer calls, if so.
fn obstacle(observed: &Observed) -> Option<Problem> {
    if let Some(why) = &observed.misplaced {
        return Some(Problem::new(
            "Verified",
            reason::SOURCE_INVALID,
            why.clone(),
        ));
    }
    let source = &observed.plugin.spec.source;
    match &observed.source {
        Lookup::Missing => {
            let message = missing(source);
            return Some(Problem::new("Verified", reason::SOURCE_NOT_FOUND, message));
        }
        // It is being asked for the first time.
        Lookup::Unknown(_) if observed.underway.is_some() => return None,
        Lookup::Unknown(why) => {
            let problem = Problem::new("Verified", reason::SOURCE_UNAVAILABLE, why.clone());
            return Some(problem);
        }
        Lookup::Found(_) => {}
    }
    let candidate = match &observed.attempt.as_ref()?.result {
        Ok(candidate) => candidate,
        Err(problem) => return Some(problem.clone()),
    };
    if let Some(pinned) = observed
        .plugin
        .spec
        .digest
        .as_ref()
        .filter(|d| **d != candidate.digest)
    {
        let message = format!(
            "spec.digest is {pinned}, and the component has {}",
            candidate.digest
        );
        return Some(Problem::new("Verified", reason::DIGEST_MISMATCH, message));
    }
    if let Some((_, why)) = observed
        .given_up
        .as_ref()
        .filter(|(digest, _)| *digest == candidate.digest)
    {
        return Some(Problem::new("Ready", reason::GIVEN_UP, why.clone()));
    }
    if let Some((kind, owner)) = observed.conflicts.first() {
        let message = format!("kind {kind} belongs to {owner} already");
        return Some(Problem::new("Compatible", reason::KIND_CONFLICT, message));
    }
    None
}

/// Names what is not there.
fn missing(source: &PluginSource) -> String {
    if let Some(map) = &source.config_map {
        return format!(
            "spec.source.configMap.name: there is no ConfigMap {} with the label capstan.dev/plugin in the Plugin's namespace",
            map.name
        );
    }
    if let Some(file) = &source.file {
        return format!(
            "spec.source.file.path: there is no {} below the plugin directory of this host",
            file.path
        );
    }
    "spec.source.configMapParts: there are no ConfigMaps with the labels capstan.dev/plugin and capstan.dev/plugin-part in the \
     Plugin's namespace"
        .to_owned()
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed) -> Plan<Step> {
    let gone = observed.source.is_missing() || observed.misplaced.is_some();
    if observed.plugin.spec.suspend || gone {
        return match observed.active {
            Some(_) => Plan::of(vec![Step::Deactivate]),
            None if recalls(observed) => Plan::of(vec![Step::RecallKinds]),
            None => Plan::settled(),
        };
    }
    let generation = observed.plugin.metadata.generation.unwrap_or_default();
    let outdated = observed.active.as_ref();
    let outdated = outdated.is_some_and(|active| active.generation != generation);
    let mut steps: Vec<Step> = outdated.then_some(Step::Regrant).into_iter().collect();
    let settled = |steps| settled(observed, steps);
    if observed.keys_changed {
        steps.push(Step::CheckSignatures);
        return settled(steps);
    }
    if falls_back(observed) {
        steps.push(Step::FallBack);
        return settled(steps);
    }
    if let Some(awaited) = canary::awaited(observed) {
        steps.extend(awaited);
        return settled(steps);
    }
    steps.extend(canary::decide(observed));
    let Lookup::Found(version) = &observed.source else {
        steps.extend(restore(observed));
        return settled(steps);
    };
    let attempt = match &observed.attempt {
        Some(attempt) if is_current(attempt, version, observed.plugin.spec.digest.as_ref()) => {
            attempt
        }
        _ if observed.underway.is_some() => {
            steps.extend(restore(observed));
            return settled(steps);
        }
        _ => {
            steps.push(Step::Load {
                version: version.clone(),
            });
            return settled(steps);
        }
    };
    steps.extend(restore(observed));
    let Ok(candidate) = &attempt.result else {
        steps.extend(recalls(observed).then_some(Step::RecallKinds));
        return settled(steps);
    };
    let is_active = observed.active.as_ref();
    let is_active = is_active.is_some_and(|active| active.digest == candidate.digest);
    if !is_active && obstacle(observed).is_none() {
        if !candidate.manifest.kinds.is_empty() {
            steps.push(Step::InstallKinds);
        }
        steps.push(Step::Activate);
    }
    settled(steps)
}

/// These steps, and when to look again though nothing tells of a change.
fn settled(observed: &Observed, steps: Vec<Step>) -> Plan<Step> {
    let plan = if steps.is_empty() {
        Plan::settled()
    } else {
        Plan::of(steps)
    };
    let watched = observed.active.is_some().then_some(LOOK);
    let attempt = observed.attempt.as_ref();
    let pause = attempt.and_then(|attempt| attempt.pause);
    let long = observed.underway.as_ref().and_then(|u| u.long_after);
    let canary = observed.canary.as_ref().and_then(canary::next_look);
    let soonest = [observed.recheck, canary, watched, pause, long];
    match soonest.into_iter().flatten().min() {
        Some(after) => plan.check_after(after),
        None => plan,
    }
}

/// Whether objects of the plugin's kinds would say nothing of its absence: no component of it has answered calls in this process.
/// One in a wrong namespace has no kinds.
fn recalls(observed: &Observed) -> bool {
    observed.forgotten_kinds && observed.active.is_none() && observed.misplaced.is_none()
}

/// Whether the component before has to take over again: the new one traps, or the operator pins the old one.
fn falls_back(observed: &Observed) -> bool {
    let Some(previous) = &observed.previous else {
        return false;
    };
    let active = observed.active.as_ref().map(|active| &active.digest);
    let pinned = observed.plugin.spec.digest.as_ref();
    observed.trapped && pinned.is_none_or(|pinned| Some(pinned) != active)
        || (pinned == Some(previous) && active != Some(previous))
}

/// Brings back, when what the source has now must not answer, the component that the operator names, or else what answered calls before
/// the host was started again. No other one answers than one that is named, so that without it nothing does.
fn restore(observed: &Observed) -> Option<Step> {
    // A kind that belongs to another now belongs to the other whatever component is looked at.
    let takes_long = observed.underway.as_ref().is_some_and(Underway::is_long);
    if !takes_long || observed.active.is_some() {
        obstacle(observed).filter(|why| why.reason != reason::KIND_CONFLICT)?;
    }
    let active = observed.active.as_ref().map(|active| &active.digest);
    let pinned = observed.plugin.spec.digest.as_ref();
    let digest = match pinned {
        Some(pinned) if active != Some(pinned) => pinned,
        Some(_) => return None,
        None => observed.last_good.as_ref().filter(|_| active.is_none())?,
    };
    if observed.lost.as_ref() != Some(digest) {
        let digest = digest.clone();
        return Some(Step::Restore { digest });
    }
    active.map(|_| Step::Deactivate)
}

/// Whether nothing else would come of looking at this version of the source now.
fn is_current(attempt: &Attempt, version: &str, pinned: Option<&String>) -> bool {
    attempt.version == version
        && match &attempt.result {
            Ok(_) => true,
            Err(_) if attempt.pinned.as_ref() != pinned => false,
            Err(problem) => !problem.is_transient || attempt.pause.is_some(),
        }
}

#[cfg(test)]
mod tests;
