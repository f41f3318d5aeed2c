//! Plugin: from a source to a component that answers calls, and what the Plugin object says about it.

use capstan_api::condition::Report;
use capstan_api::plugin::{
    Plugin, PluginCapabilityStatus, PluginCompiledStatus, PluginLastError, PluginManifestStatus,
    PluginMissingGrant, PluginOwnedKindStatus, PluginSourceStatus, PluginStatus,
};
use capstan_api::reason::plugin as reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::call::manifest::Manifest;
use crate::lookup::Lookup;
use crate::plan::{Next, Outcome, Plan};

/// A component that was verified, compiled and asked for its manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// `sha256:<hex>` of the decompressed component.
    pub digest: String,
    /// WIT version.
    pub abi: String,
    /// Size of the component.
    pub source_bytes: u64,
    /// Size of the native code.
    pub compiled_bytes: u64,
    /// How long compiling took; `None` when the cache had it.
    pub compile_time: Option<std::time::Duration>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Names of the interfaces that it offers.
    pub roles: Vec<String>,
    /// Capabilities that still have to be granted: name, why, YAML.
    pub missing: Vec<(String, String, String)>,
    /// Capabilities that are granted.
    pub granted: Vec<String>,
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
    /// What it became.
    pub result: Result<Candidate, Problem>,
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
    /// What answers calls, in this process.
    pub active: Option<Active>,
    /// Kinds of the candidate that belong to others: kind and owner.
    pub conflicts: Vec<(String, String)>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch, verify, compile, ask for the manifest.
    Load {
        /// Version of the source that was seen.
        version: String,
    },
    /// Install the CustomResourceDefinitions of its kinds.
    InstallKinds,
    /// Let the candidate answer calls.
    Activate,
    /// Let nothing answer calls.
    Deactivate,
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
    if observed.source.is_missing() {
        let name = source.config_map.as_ref().map_or("", |s| s.name.as_str());
        let message = format!(
            "spec.source.configMap.name: there is no ConfigMap {name} with the label capstan.dev/plugin in the Plugin's namespace"
        );
        return Some(Problem::new("Verified", reason::SOURCE_NOT_FOUND, message));
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
    if let Some((kind, owner)) = observed.conflicts.first() {
        let message = format!("kind {kind} belongs to {owner} already");
        return Some(Problem::new("Compatible", reason::KIND_CONFLICT, message));
    }
    None
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed) -> Plan<Step> {
    let gone = observed.source.is_missing() || observed.misplaced.is_some();
    if observed.plugin.spec.suspend || gone {
        return match observed.active {
            Some(_) => Plan::of(vec![Step::Deactivate]),
            None => Plan::settled(),
        };
    }
    let Lookup::Found(version) = &observed.source else {
        return Plan::settled();
    };
    let attempt = match &observed.attempt {
        Some(attempt) if attempt.version == *version && !is_transient(attempt) => attempt,
        _ => {
            return Plan::of(vec![Step::Load {
                version: version.clone(),
            }]);
        }
    };
    let Ok(candidate) = &attempt.result else {
        return Plan::settled();
    };
    if obstacle(observed).is_some() {
        return Plan::settled();
    }
    let generation = observed.plugin.metadata.generation.unwrap_or_default();
    match &observed.active {
        Some(active) if active.digest == candidate.digest && active.generation == generation => {
            Plan::settled()
        }
        Some(active) if active.digest == candidate.digest => Plan::of(vec![Step::Activate]),
        _ if candidate.manifest.kinds.is_empty() => Plan::of(vec![Step::Activate]),
        _ => Plan::of(vec![Step::InstallKinds, Step::Activate]),
    }
}

fn is_transient(attempt: &Attempt) -> bool {
    matches!(&attempt.result, Err(problem) if problem.is_transient)
}

/// What the status says. `observed` is as it is after the steps.
#[must_use]
pub fn report<E>(observed: &Observed, outcome: &Outcome<Step, E>, now: Timestamp) -> Reported {
    let problem = obstacle(observed).or_else(|| {
        let (step, failure) = outcome.failed.as_ref()?;
        let condition = if matches!(step, Step::Load { .. }) {
            "Verified"
        } else {
            "Compatible"
        };
        Some(Problem::new(
            condition,
            &failure.reason,
            failure.message.clone(),
        ))
    });
    let candidate = observed
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.result.as_ref().ok());
    let mut status = observed.plugin.status.clone().unwrap_or_default();
    status.conditions = Vec::new();
    status.observed_generation = None;
    status.active_digest = observed.active.as_ref().map(|active| active.digest.clone());
    status.active_digest_short = status
        .active_digest
        .as_ref()
        .map(|d| d.trim_start_matches("sha256:").chars().take(12).collect());
    if let Some(candidate) = candidate {
        describe(&mut status, observed, candidate);
    }
    status.last_error = problem.as_ref().map(|problem| PluginLastError {
        time: kept_time(observed, problem, now),
        reason: problem.reason.clone(),
        message: problem.message.clone(),
    });
    let next = outcome
        .done
        .iter()
        .any(|(step, _)| matches!(step, Step::Load { .. }))
        .then_some(Next::CheckAfter(std::time::Duration::ZERO));
    Reported {
        status,
        conditions: conditions(observed, candidate, problem.as_ref()),
        next,
    }
}

/// When a problem was first seen: an error that stays the same does not change the status.
fn kept_time(observed: &Observed, problem: &Problem, now: Timestamp) -> Option<Time> {
    let before = observed
        .plugin
        .status
        .as_ref()
        .and_then(|s| s.last_error.as_ref());
    let same = before.filter(|e| e.reason == problem.reason && e.message == problem.message);
    match same {
        Some(before) => before.time.clone(),
        None => Timestamp::from_second(now.as_second()).ok().map(Time),
    }
}

fn describe(status: &mut PluginStatus, observed: &Observed, candidate: &Candidate) {
    let size = |bytes: u64| i64::try_from(bytes).ok();
    status.observed_digest = Some(candidate.digest.clone());
    status.source = Some(PluginSourceStatus {
        resource_version: observed.source.found().cloned(),
        size_bytes: size(candidate.source_bytes),
        ..status.source.clone().unwrap_or_default()
    });
    if let Some(took) = candidate.compile_time {
        status.compiled = Some(PluginCompiledStatus {
            at_time: Timestamp::from_second(candidate.loaded_at.as_second())
                .ok()
                .map(Time),
            duration_ms: i64::try_from(took.as_millis()).ok(),
            size_bytes: size(candidate.compiled_bytes),
        });
    }
    let manifest = &candidate.manifest;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    status.manifest = Some(PluginManifestStatus {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: some(&manifest.description),
        home_page: some(&manifest.home_page),
        abi: Some(candidate.abi.clone()),
    });
    status.roles = candidate.roles.clone();
    status.kinds = manifest
        .kinds
        .iter()
        .filter_map(|kind| {
            Some(PluginOwnedKindStatus {
                role: serde_json::from_value(serde_json::json!(kind.role)).ok()?,
                group: kind.group.clone(),
                version: kind.version.clone(),
                kind: kind.kind.clone(),
                plural: kind.plural.clone(),
            })
        })
        .collect();
    status.capabilities = manifest
        .capabilities
        .iter()
        .map(|request| PluginCapabilityStatus {
            name: request.name.clone(),
            why: request.why.clone(),
            optional: request.optional,
            granted: candidate.granted.contains(&request.name),
        })
        .collect();
    status.missing_grants = candidate
        .missing
        .iter()
        .map(|(capability, why, yaml)| PluginMissingGrant {
            capability: capability.clone(),
            why: why.clone(),
            yaml: yaml.clone(),
        })
        .collect();
}

/// The order in which a plugin gets there; a condition waits for those before it.
const STAGES: [(&str, &str); 3] = [
    ("Verified", reason::VERIFIED),
    ("Compiled", reason::COMPILED),
    ("Compatible", reason::COMPATIBLE),
];

fn conditions(
    observed: &Observed,
    candidate: Option<&Candidate>,
    problem: Option<&Problem>,
) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut stopped = false;
    for (stage, good) in STAGES {
        let failed = problem.filter(|problem| problem.condition == stage);
        reports.push(match failed {
            _ if stopped => waiting(stage),
            Some(problem) => {
                stopped = true;
                Report::no(stage, &problem.reason).with_message(problem.message.clone())
            }
            None if candidate.is_some() || problem.is_some() => Report::yes(stage, good),
            None => waiting(stage),
        });
    }
    reports.push(granted(candidate));
    reports.push(ready(observed, candidate, problem));
    reports
}

fn waiting(stage: &str) -> Report {
    Report::unknown(stage, reason::WAITING)
}

fn granted(candidate: Option<&Candidate>) -> Report {
    let Some(candidate) = candidate else {
        return waiting("Granted");
    };
    if candidate.missing.is_empty() {
        return Report::yes("Granted", reason::GRANTED);
    }
    let lines: Vec<String> = candidate
        .missing
        .iter()
        .map(|(capability, why, yaml)| {
            format!(
                "* {capability} ({why}): add to spec.grants: {}",
                yaml.trim()
            )
        })
        .collect();
    Report::no("Granted", reason::GRANT_MISSING).with_message(lines.join("\n"))
}

fn ready(observed: &Observed, candidate: Option<&Candidate>, problem: Option<&Problem>) -> Report {
    if observed.plugin.spec.suspend {
        return Report::no("Ready", reason::SUSPENDED).with_message("spec.suspend is true");
    }
    match (&observed.active, problem) {
        (Some(active), Some(problem)) => {
            Report::yes("Ready", reason::FELL_BACK).with_message(format!(
                "{} goes on answering calls: {}",
                active.digest, problem.message
            ))
        }
        (None, Some(problem)) => {
            Report::no("Ready", &problem.reason).with_message(problem.message.clone())
        }
        (Some(_), None) if candidate.is_some_and(|c| !c.missing.is_empty()) => {
            Report::no("Ready", reason::GRANT_MISSING)
                .with_message("calls are refused until the missing grants are given")
        }
        (Some(_), None) => Report::yes("Ready", "Ready"),
        (None, None) => waiting("Ready"),
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::condition::ConditionStatus;
    use serde_json::json;

    use super::*;

    fn observed() -> Observed {
        Observed {
            plugin: serde_json::from_value(json!({
                "apiVersion": "capstan.dev/v1alpha1", "kind": "Plugin",
                "metadata": {"name": "p", "namespace": "capstan-system", "generation": 1},
                "spec": {"source": {"configMap": {"name": "p"}}},
            }))
            .expect("a Plugin"),
            misplaced: None,
            source: Lookup::Found("7".to_owned()),
            attempt: None,
            active: None,
            conflicts: vec![],
        }
    }

    fn candidate(digest: &str) -> Candidate {
        Candidate {
            digest: digest.to_owned(),
            abi: "0.1".to_owned(),
            source_bytes: 1,
            compiled_bytes: 2,
            compile_time: None,
            loaded_at: Timestamp::UNIX_EPOCH,
            manifest: Manifest {
                name: "p".to_owned(),
                version: "1.0.0".to_owned(),
                description: String::new(),
                home_page: String::new(),
                kinds: vec![],
                capabilities: vec![],
            },
            roles: vec!["upgrade-strategy".to_owned()],
            missing: vec![],
            granted: vec![],
        }
    }

    fn loaded(version: &str, result: Result<Candidate, Problem>) -> Option<Attempt> {
        Some(Attempt {
            version: version.to_owned(),
            result,
        })
    }

    fn said(observed: &Observed, name: &str) -> Report {
        let reported = report::<()>(observed, &Outcome::default(), Timestamp::UNIX_EPOCH);
        reported
            .conditions
            .into_iter()
            .find(|c| c.type_ == name)
            .expect("reported")
    }

    #[test]
    fn a_new_source_is_loaded_and_then_activated() {
        let mut observed = observed();
        assert_eq!(
            decide(&observed).steps,
            vec![Step::Load {
                version: "7".to_owned()
            }]
        );
        observed.attempt = loaded("7", Ok(candidate("sha256:a")));
        assert_eq!(decide(&observed).steps, vec![Step::Activate]);
        observed.active = Some(Active {
            digest: "sha256:a".to_owned(),
            generation: 1,
        });
        assert!(decide(&observed).steps.is_empty());
        assert_eq!(said(&observed, "Ready").status, ConditionStatus::True);
    }

    #[test]
    fn a_bad_new_source_leaves_the_old_component_at_work() {
        let mut observed = observed();
        observed.active = Some(Active {
            digest: "sha256:a".to_owned(),
            generation: 1,
        });
        observed.attempt = loaded(
            "7",
            Err(Problem::new("Compiled", "CompileFailed", "it is empty")),
        );
        assert!(decide(&observed).steps.is_empty());
        assert_eq!(said(&observed, "Compiled").status, ConditionStatus::False);
        assert_eq!(
            said(&observed, "Compatible").status,
            ConditionStatus::Unknown
        );
        assert_eq!(said(&observed, "Ready").reason, reason::FELL_BACK);
    }

    #[test]
    fn a_source_that_is_gone_or_suspended_answers_no_calls() {
        let mut observed = observed();
        observed.attempt = loaded("7", Ok(candidate("sha256:a")));
        observed.active = Some(Active {
            digest: "sha256:a".to_owned(),
            generation: 1,
        });
        observed.source = Lookup::Missing;
        assert_eq!(decide(&observed).steps, vec![Step::Deactivate]);
        assert_eq!(said(&observed, "Verified").reason, reason::SOURCE_NOT_FOUND);
        observed.source = Lookup::Found("7".to_owned());
        observed.plugin.spec.suspend = true;
        assert_eq!(decide(&observed).steps, vec![Step::Deactivate]);
    }

    #[test]
    fn a_pinned_digest_and_a_kind_of_another_plugin_are_refused() {
        let mut observed = observed();
        observed.attempt = loaded("7", Ok(candidate("sha256:a")));
        observed.plugin.spec.digest = Some("sha256:b".to_owned());
        assert!(decide(&observed).steps.is_empty());
        assert_eq!(said(&observed, "Verified").reason, reason::DIGEST_MISMATCH);
        observed.plugin.spec.digest = None;
        observed.conflicts = vec![("LocalMachine.x".to_owned(), "plugin first".to_owned())];
        assert!(decide(&observed).steps.is_empty());
        assert!(
            said(&observed, "Compatible")
                .message
                .contains("plugin first")
        );
    }

    #[test]
    fn a_missing_grant_names_the_capability_and_the_lines() {
        let mut observed = observed();
        let mut candidate = candidate("sha256:a");
        candidate.missing = vec![(
            "http".to_owned(),
            "to reach the cloud".to_owned(),
            "- capability: http".to_owned(),
        )];
        observed.attempt = loaded("7", Ok(candidate));
        observed.active = Some(Active {
            digest: "sha256:a".to_owned(),
            generation: 1,
        });
        let granted = said(&observed, "Granted");
        assert!(
            granted.message.contains("to reach the cloud")
                && granted.message.contains("- capability: http")
        );
        assert_eq!(said(&observed, "Ready").reason, reason::GRANT_MISSING);
    }

    #[test]
    fn changed_grants_take_over_without_loading_again() {
        let mut observed = observed();
        observed.attempt = loaded("7", Ok(candidate("sha256:a")));
        observed.active = Some(Active {
            digest: "sha256:a".to_owned(),
            generation: 0,
        });
        assert_eq!(decide(&observed).steps, vec![Step::Activate]);
    }
}
